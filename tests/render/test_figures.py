"""A comparison's figures: they draw its numbers, and names are text."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
from helpers.comparison_example import ARMS, HOSTILE, example
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from regreason_plugin.comparison.comparison import (
    Bin,
    Comparison,
    Curve,
    Difference,
    Interval,
    Primary,
    Score,
)
from regreason_plugin.render import curve_figures, figures
from regreason_plugin.render.page.charts import charts
from regreason_plugin.render.style import COLOURS, style

EVERYONE = ["label_only", *ARMS]
NAMES = list(figures.FIGURES)


@pytest.fixture(autouse=True)
def our_style() -> Iterator[None]:
    with style():
        yield


@cache
def whole() -> Comparison:
    """The example, with bins, confusion matrices and curves that differ between arms."""
    one = example()
    place = {arm: number for number, arm in enumerate(EVERYONE)}

    def bins(arm: str) -> list[Bin]:
        return [
            bar.model_copy(update={"accuracy": bar.accuracy and bar.accuracy - 0.05 * place[arm]})
            for bar in one.reliability[arm]
        ]

    def curves(arm: str) -> list[Curve]:
        return [
            curve.model_copy(
                update={"accuracy": [value - 0.03 * place[arm] for value in curve.accuracy]}
            )
            for curve in one.curves[arm]
        ]

    return one.model_copy(
        update={
            "reliability": {arm: bins(arm) for arm in EVERYONE},
            "curves": {arm: curves(arm) for arm in EVERYONE},
            "confusion": {
                arm: {"all": [[20 * (i == j) + i + place[arm] for j in range(5)] for i in range(5)]}
                for arm in EVERYONE
            },
        }
    )


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.axison]


def texts(figure: Figure) -> str:
    return "\n".join(
        text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text"))
    )


def coloured(difference: Difference) -> float:
    """The value if a finding says that it is higher or lower, else NaN."""
    told = difference.finding in ("higher", "lower", "higher and same", "lower and same")
    return difference.value if told and difference.value is not None else math.nan


def test_the_heat_map_is_coloured_by_what_is_found_and_says_the_accuracies() -> None:
    one = whole()
    kinds = {one.differences[arm][s.task]["acc"].finding for arm in ARMS for s in one.settings}
    assert kinds == {"higher", "lower", "same", "unclear"}
    figure = figures.accuracy_heatmap(one)
    axes = figure.axes[0]
    meshes = [child for child in axes.get_children() if isinstance(child, QuadMesh)]
    drawn = np.concatenate([mesh.get_array() for mesh in meshes])
    expected = [
        [
            *(coloured(one.differences[arm][setting.task]["acc"]) for setting in one.settings),
            coloured(one.pooled[arm]["acc"]),
        ]
        for arm in ARMS
    ]
    np.testing.assert_array_equal(np.ma.filled(drawn, math.nan), np.array(expected).T)
    # The scale is symmetric, so white stands for no difference.
    assert all(mesh.norm.vmin == -mesh.norm.vmax for mesh in meshes)
    assert meshes[0].norm.vmax == np.nanmax(np.abs(expected))
    cells = {
        (text.get_position()[0], text.get_position()[1]): text.get_text() for text in axes.texts
    }
    for row, setting in enumerate(one.settings):
        base = one.scores["label_only"][setting.task]["acc"].value
        assert cells[0.5, row + 0.5] == f"{base:.3f}"
        for column, arm in enumerate(ARMS):
            score = one.scores[arm][setting.task]["acc"].value
            found = one.differences[arm][setting.task]["acc"]
            star = {"higher": "*", "lower": "*", "same": "≈", "unclear": ""}[found.finding]
            shown = cells[column + 1.5, row + 0.5].split("\n")
            assert shown[0] == f"{score:.3f}"
            assert shown[1] in {f"{found.value:+.3f}{star}", f"0.000{star}"}
    assert [label.get_text() for label in axes.get_xticklabels()] == EVERYONE
    assert axes.get_yticklabels()[-1].get_text() == "pooled"


def test_the_forest_has_an_interval_a_setting_and_the_pooled_one() -> None:
    one = whole()
    # Marks are filled by the finding, whatever the interval and p are.
    told = Difference(value=0.2, low=-0.1, high=0.5, p=0.9, finding="higher")
    open_ = Difference(value=0.2, low=0.1, high=0.3, p=1e-9, p_corrected=1e-7)
    first, last = one.settings[0].task, one.settings[-1].task
    changed = {**one.differences["filler"], last: {"acc": told}, first: {"acc": open_}}
    one = one.model_copy(update={"differences": {**one.differences, "filler": changed}})
    figure = figures.differences(one)
    assert len(panels(figure)) == len(ARMS)
    for number, (arm, axes) in enumerate(zip(ARMS, figure.axes, strict=True)):
        found = [one.differences[arm][setting.task]["acc"] for setting in one.settings]
        found.append(one.pooled[arm]["acc"])
        lines = [child for child in axes.get_children() if isinstance(child, LineCollection)]
        ends = np.concatenate([np.array(line.get_segments())[:, :, 0] for line in lines])
        np.testing.assert_allclose(ends, [[each.low, each.high] for each in found])
        points = [line for line in axes.lines if line.get_marker() in {"o", "D"}]
        assert [point.get_xdata()[0] for point in points] == [each.value for each in found]
        heights = [point.get_ydata()[0] for point in points]
        np.testing.assert_array_equal(
            np.concatenate([np.array(line.get_segments())[:, 0, 1] for line in lines]), heights
        )
        filled = [point.get_markerfacecolor() != "white" for point in points]
        assert filled == [each.finding in ("higher", "lower") for each in found]
        # An arm has the same colour as in the figures that show the baseline.
        assert points[0].get_color() == COLOURS[number + 1]
        assert axes.get_title(loc="left").startswith(arm)
        assert "wins: 12 of 18 (2 tied)" in axes.get_title(loc="left")
    assert filled[-2]
    assert not filled[0]
    assert "95 % intervals over seeds and groups" in texts(figure)


def test_reliability_is_accuracy_by_confidence_with_band_and_shares() -> None:
    one = whole()
    calibrated = {
        arm: {**of, "ece": of["ece"].model_copy(update={"if_calibrated": 0.0123})}
        for arm, of in one.pooled_scores.items()
        if arm != "label_only"
    }
    one = one.model_copy(update={"pooled_scores": one.pooled_scores | calibrated})
    figure = figures.reliability(one)
    assert len(panels(figure)) == len(EVERYONE)
    for number, (arm, axes) in enumerate(zip(EVERYONE, figure.axes, strict=False)):
        known = [bar for bar in one.reliability[arm] if bar.count]
        (curve,) = [line for line in axes.lines if line.get_marker() != "None"]
        np.testing.assert_array_equal(curve.get_xdata(), [bar.confidence for bar in known])
        np.testing.assert_array_equal(curve.get_ydata(), [bar.accuracy for bar in known])
        assert curve.get_color() == COLOURS[number]
        (band,) = [child for child in axes.collections if isinstance(child, PolyCollection)]
        corners = {
            (round(x, 9), round(y, 9)) for path in band.get_paths() for x, y in path.vertices
        }
        assert corners == {
            (round(x, 9), round(y, 9))
            for bar in known
            for x in (bar.low, bar.high)
            for y in (bar.band_low, bar.band_high)
        }
        heights = [patch.get_height() for patch in axes.patches]
        assert sum(heights) == pytest.approx(1)
        total = sum(bar.count for bar in known)
        assert heights == pytest.approx([bar.count / total for bar in one.reliability[arm]])
        assert [patch.get_x() for patch in axes.patches] == [b.low for b in one.reliability[arm]]
        ece = one.pooled_scores[arm]["ece"]
        said = f"{arm}\nECE {ece.value:.3f}"
        assert axes.get_title() == said + (" (0.012 if calibrated)" if number else "")


def test_confusion_is_a_share_of_each_right_label() -> None:
    one = whole()
    never = [[0] * 5, *one.confusion["filler"]["all"][1:]]
    one = one.model_copy(update={"confusion": {**one.confusion, "filler": {"all": never}}})
    figure = figures.confusion(one)
    for arm, axes in zip(EVERYONE, figure.axes, strict=False):
        (mesh,) = [child for child in axes.get_children() if isinstance(child, QuadMesh)]
        drawn = np.ma.filled(mesh.get_array(), math.nan)
        counts = np.array(one.confusion[arm]["all"], dtype=float)
        for row in range(5):
            total = counts[row].sum()
            expected = counts[row] / total if total else [math.nan] * 5
            np.testing.assert_allclose(drawn[row], expected)
        shown = {text.get_position(): text.get_text() for text in axes.texts}
        # Columns (x) are predictions, rows (y, downwards) are right labels.
        assert shown[1, 5] == f"{counts[4][0] / counts[4].sum():.2f}"
        assert axes.get_ylim() == (5.5, 0.5)
    assert {shown[label, 1] for label in range(1, 6)} == {"-"}
    assert figure.axes[len(EVERYONE) - 1].get_title() == "filler"


def test_entropy_by_layer_has_a_curve_and_a_band_an_arm() -> None:
    one = whole()
    figure = figures.entropy_by_layer(one)
    assert figure is not None
    assert len(panels(figure)) == len(one.layers)
    for axes, (metric, by_arm) in zip(figure.axes, one.layers.items(), strict=False):
        for number, arm in enumerate(EVERYONE):
            (curve,) = [line for line in axes.lines if line.get_gid() == f"curve-{metric}-{number}"]
            np.testing.assert_allclose(curve.get_xdata(), np.arange(7) / 6)
            assert list(curve.get_ydata()) == [layer.value for layer in by_arm[arm]]
            assert curve.get_color() == COLOURS[number]
            (band,) = [b for b in axes.collections if b.get_gid() == f"band-{metric}-{number}"]
            heights = set(np.round(band.get_paths()[0].vertices[:, 1], 9))
            edges = {round(end, 9) for layer in by_arm[arm] for end in (layer.low, layer.high)}  # type: ignore[arg-type]
            assert heights == edges
    legend = figure.axes[len(one.layers)].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][: len(EVERYONE)] == EVERYONE


def test_entropies_that_are_undefined_stay_gaps_and_models_may_differ_in_depth() -> None:
    values = [0.2, 0.5, None, 0.4, 0.8]
    gap = [
        Interval(value=v, low=None if v is None else v - 0.1, high=None if v is None else v + 0.1)
        for v in values
    ]
    short = [Interval(value=v) for v in (0.3, 0.3, 0.6)]
    one = example(["deep"], layers={"matrix_entropy": {"label_only": short, "deep": gap}})
    axes = figures.new_figure(4, 3).subplots()
    curve_figures.draw_entropy(axes, one, "matrix_entropy")
    base, deep = (line for line in axes.lines if line.get_gid())
    assert list(base.get_xdata()) == [0, 0.5, 1]
    assert list(deep.get_xdata()) == [0, 0.25, 0.5, 0.75, 1]
    assert [None if math.isnan(y) else y for y in deep.get_ydata()] == values
    # Only values with an interval have a band, 0.2 high, on both sides of the gap.
    none, band = axes.collections
    assert [path for path in none.get_paths() if len(path.vertices)] == []
    first, second = band.get_paths()
    for path, (low, high) in ((first, (0.1, 0.6)), (second, (0.3, 0.9))):
        assert path.vertices[:, 1].min() == pytest.approx(low)
        assert path.vertices[:, 1].max() == pytest.approx(high)


def test_the_primary_question_is_in_the_caption_of_every_difference() -> None:
    one = whole()
    line = (
        "Primary question: is the accuracy of explanation different from that of label_only? "
        "Higher: +0.034 (95 % interval +0.011 to +0.057), p = 0.004."
    )
    for draw in (figures.accuracy_heatmap, figures.differences):
        caption = " ".join(draw(one).get_supxlabel().split())
        assert caption.startswith(line)
    nll = one.model_copy(update={"primary": Primary(arm="filler", metric="nll", rejects=True)})
    for draw in (figures.accuracy_heatmap, figures.differences):
        assert draw(nll).get_suptitle().startswith("Negative log-likelihood")
    axes = figures.new_figure(4, 1).subplots()
    figures.draw_primary(axes, nll)
    (point,) = [line for line in axes.lines if line.get_marker() == "D"]
    assert point.get_xdata()[0] == one.pooled["filler"]["nll"].value


def test_the_pooled_forest_has_a_line_an_arm() -> None:
    one = whole()
    axes = figures.new_figure(4, 3).subplots()
    figures.draw_pooled_differences(axes, one)
    points = [line for line in axes.lines if line.get_marker() == "D"]
    pooled = [one.pooled[arm]["acc"] for arm in ARMS]
    assert [point.get_xdata()[0] for point in points] == [each.value for each in pooled]
    assert [point.get_color() for point in points] == list(COLOURS[1 : 1 + len(ARMS)])
    lines = [child for child in axes.get_children() if isinstance(child, LineCollection)]
    ends = np.concatenate([np.array(line.get_segments())[:, :, 0] for line in lines])
    np.testing.assert_allclose(ends, [[each.low, each.high] for each in pooled])
    assert [label.get_text() for label in axes.get_yticklabels()] == ARMS


def test_learning_curves_are_means_where_the_seeds_were_measured_alike() -> None:
    one = whole()
    uneven = [
        curve.model_copy(update={"tokens": [one + curve.seed for one in curve.tokens]})
        for curve in one.curves["filler"]
    ]
    one = one.model_copy(update={"curves": {**one.curves, "filler": uneven}})
    figure = figures.learning_curves(one)
    assert figure is not None
    axes = figure.axes[0]
    for number, arm in enumerate(EVERYONE):
        lines = [line for line in axes.lines if line.get_color() == COLOURS[number]]
        strong = [line for line in lines if line.get_linewidth() > 1]
        thin = [line for line in lines if line.get_linewidth() <= 1]
        values = [curve.accuracy for curve in one.curves[arm]]
        if arm == "filler":
            assert not thin
            assert [list(line.get_ydata()) for line in strong] == values
            assert [list(line.get_xdata()) for line in strong] == [c.tokens for c in uneven]
        else:
            assert [list(line.get_ydata()) for line in thin] == values
            np.testing.assert_allclose(strong[0].get_ydata(), np.mean(values, axis=0))
            assert list(strong[0].get_xdata()) == one.curves[arm][0].tokens


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("label_acc", "accuracy on the validation labels"),
        ("label_token_acc", "validation label tokens predicted, given the true ones before"),
    ],
)
def test_learning_curves_say_what_was_measured(metric: str, says: str) -> None:
    one = whole()
    curves = {
        arm: [curve.model_copy(update={"metric": metric}) for curve in curves]
        for arm, curves in one.curves.items()
    }
    figure = figures.learning_curves(one.model_copy(update={"curves": curves}))
    assert figure is not None
    assert figure.axes[0].get_ylabel() == says
    page = charts(one.model_copy(update={"curves": curves}))
    assert f"{says} by target tokens seen" in page["learning"]


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_says_what_its_numbers_are(name: str) -> None:
    figure = figures.FIGURES[name](whole())
    assert figure is not None
    title = figure.get_suptitle()
    assert title.endswith("(GENERATED data)")
    caption = " ".join(figure.get_supxlabel().split())
    assert caption.endswith(
        "GENERATED data (mini benchmark), sha256 abababababab, 18 of 18 settings, 3 seeds per arm."
    )
    real = whole().model_copy(update={"data": {"origin": "rated", "sha256": "cd" * 32}})
    other = figures.FIGURES[name](real)
    assert other is not None
    assert "GENERATED" not in texts(other)


def test_the_files_show_something_and_are_the_same_twice(tmp_path: Path) -> None:
    """The names are markup, formulas, or have letters that the font lacks."""
    names = ["$x_1$ & <b>&amp;</b>", "_private", HOSTILE[-1]]
    kept = example(["filler"]).settings[:4]
    one = example(names, settings=kept)
    for folder in ("one", "two"):
        paths = figures.write_figures(one, tmp_path / folder)
        assert [path.name for path in paths] == [
            f"{name}.{suffix}" for name in NAMES for suffix in ("png", "svg")
        ]
    for path in paths:
        content = path.read_bytes()
        assert content == (tmp_path / "one" / path.name).read_bytes()
        if path.suffix == ".png":
            pixels = matplotlib.image.imread(io.BytesIO(content))[:, :, :3]
            assert pixels.shape[1] > 1200
            assert len(np.unique(pixels @ [1, 10, 100])) > 100
            if path.stem not in {"accuracy_heatmap", "confusion"}:
                for number in (1, 2, 3):
                    near = np.abs(pixels - to_rgb(COLOURS[number])).max(axis=2) < 0.02
                    assert near.sum() > 100, (path.name, to_hex(COLOURS[number]))
        else:
            root = ElementTree.fromstring(content)
            kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
            assert not kinds & {"script", "foreignObject", "a"}
            links = [value for one in root.iter() for key, value in one.items() if "href" in key]
            assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
            assert b"<dc:date>" not in content
            said = " ".join(
                "".join(element.itertext())
                for element in root.iter()
                if element.tag.endswith("}text")
            )
            assert all(part in said for name in names for part in name.split()), path.name


def nothing(one: Comparison) -> Comparison:
    """A comparison in which every figure is undefined."""
    score, difference = Score(value=None, by_seed=[]), Difference(value=None)
    tasks = [setting.task for setting in one.settings]
    layer = Interval(value=None)
    return one.model_copy(
        update={
            "scores": {arm: {task: {"acc": score} for task in tasks} for arm in one.scores},
            "differences": {arm: {t: {"acc": difference} for t in tasks} for arm in one.arms},
            "pooled_scores": {arm: {"acc": score} for arm in one.scores},
            "pooled": {arm: {"acc": difference} for arm in one.arms},
            "reliability": {
                arm: [Bin(low=0, high=1, count=0, confidence=None, accuracy=None)]
                for arm in one.scores
            },
            "confusion": {arm: {"all": [[0] * 5] * 5} for arm in one.scores},
            "layers": {"matrix_entropy": {arm: [layer] * 3 for arm in one.scores}},
            "curves": {},
        }
    )


def test_what_is_undefined_is_not_drawn() -> None:
    one = nothing(example(["filler"]))
    assert figures.learning_curves(one) is None
    for draw in (figures.differences, figures.reliability, figures.entropy_by_layer):
        figure = draw(one)
        assert figure is not None
        lines = [line for axes in figure.axes for line in axes.lines]
        points = [line.get_xydata() for line in lines if line.get_marker() in {"o", "s", "D"}]
        assert points
        assert not any(np.isfinite(point).all(axis=1).any() for point in points)
    dashes = texts(figures.accuracy_heatmap(one)).split("\n").count("-")
    assert dashes == 3 * (len(one.settings) + 1)
    assert texts(figures.confusion(one)).split("\n").count("-") == 2 * 25
    for draw in figures.FIGURES.values():
        if figure := draw(one):
            figure.savefig(io.BytesIO(), format="svg")
    without = one.model_copy(update={"layers": {}})
    assert figures.entropy_by_layer(without) is None


@pytest.mark.parametrize(("arms", "settings"), [(1, 1), (7, 18), (8, 2)])
def test_any_number_of_arms_and_settings_has_its_place(arms: int, settings: int) -> None:
    names = [f"arm {number}" for number in range(arms)]
    one = example(names, settings=example([]).settings[:settings])
    for name, draw in figures.FIGURES.items():
        figure = draw(one)
        assert figure is not None
        figure.draw_without_rendering()
        width, height = figure.get_size_inches()
        assert max(width, height) < 16
        count = {"differences": arms, "reliability": arms + 1, "confusion": arms + 1}.get(name)
        assert count in {None, len(panels(figure))}
        boxes = [one.get_position() for one in panels(figure) if one.get_label() != "<colorbar>"]
        for number, box in enumerate(boxes):
            assert box.width * width > 0.5, name
            assert not any(box.overlaps(other) for other in boxes[number + 1 :]), name


def test_confusion_of_long_labels_and_of_several_tasks() -> None:
    one = whole()
    names = [*(f"label {n}, so long that no column has room for it" for n in range(11)), "$x$ 中文"]
    first = one.settings[0].model_copy(update={"label_names": names, "labels": [3] * 12})
    second = one.settings[1].model_copy(update={"label_names": ["no", "yes"], "labels": [9, 9]})
    counts = np.arange(144).reshape(12, 12)
    tables = {first.task: counts.tolist(), second.task: [[3, 1], [0, 2]]}
    one = one.model_copy(
        update={"settings": [first, second], "confusion": dict.fromkeys(EVERYONE, tables)}
    )
    figure = figures.confusion(one)
    assert len(panels(figure)) == 2 * len(EVERYONE)
    twelve, two = panels(figure)[0], panels(figure)[-1]
    assert [label.get_text() for label in twelve.get_xticklabels()] == [
        str(number) for number in range(1, 13)
    ]
    heads = [label.get_text() for label in twelve.get_yticklabels()]
    assert heads[0] == "1. label 0, so long tha…"
    assert heads[-1] == "12. $x$ 中文"
    assert [label.get_text() for label in two.get_yticklabels()] == ["no", "yes"]
    assert two.get_title() == f"{second.dataset}, {second.axis_title}\nfiller"
    shown = {text.get_position(): text.get_text() for text in twelve.texts}
    assert shown[3, 2] == f"{counts[1, 2] / counts[1].sum():.2f}"
    # Texts do not overlap.
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in twelve.get_yticklabels()]
    assert all(high.y0 >= low.y1 for high, low in pairwise(sorted(boxes, key=lambda b: -b.y0)))
    widths = [text.get_window_extent() for text in twelve.texts[:12]]
    assert all(left.x1 <= right.x0 for left, right in pairwise(widths))


def test_many_labels_are_colours_without_numbers() -> None:
    one = whole()
    names = [f"intent {number}" for number in range(40)]
    setting = one.settings[0].model_copy(update={"label_names": names, "labels": [3] * 40})
    table = {"all": np.eye(40, dtype=int).tolist()}
    one = one.model_copy(
        update={"settings": [setting], "confusion": dict.fromkeys(EVERYONE, table)}
    )
    figure = figures.confusion(one)
    axes = panels(figure)[0]
    assert [text for text in axes.texts if text.get_text()] == []
    (mesh,) = (child for child in axes.get_children() if isinstance(child, QuadMesh))
    np.testing.assert_array_equal(mesh.get_array(), np.eye(40))
    assert max(figure.get_size_inches()) < 50
