"""Entropies by layer in a comparison: one interval in every file, incomparable entropies."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
from helpers.results import ALL, draw_scores, write_results
from numpy.typing import NDArray
from scipy import stats

from regreason_plugin.cli import main
from regreason_plugin.comparison.arms import read_arms
from regreason_plugin.comparison.compare import compare
from regreason_plugin.comparison.comparison import Comparison, load_comparison
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import read_run

NAMES = (
    "activation_entropy",
    "activation_entropy_square",
    "logit_lens_entropy",
    "matrix_entropy",
)
TASKS = [task for task in ALL if "_coqa_" in task]
SVG = "{http://www.w3.org/2000/svg}"
COUNT = 60


def probes(
    seed: int, blocks: int = 4, prefix: str = "", names: tuple[str, ...] = NAMES
) -> dict[str, NDArray[np.float64]]:
    """Probes of each document; with four blocks, the second is the middle one."""
    random = np.random.default_rng(seed)
    made = {f"{prefix}output_entropy": random.random(COUNT)}
    middle = slice(-(-blocks // 3), 2 * blocks // 3 + 1)
    for name in names:
        by_layer = random.random((COUNT, blocks + 1))
        made[f"{prefix}{name}_by_layer"] = by_layer
        made[f"{prefix}{name}_mid"] = by_layer[:, middle].mean(axis=1)
    return made


def results(
    folder: Path, seed: int, measured: dict[str, Any] | None, generative: bool = False, **more: Any
) -> Path:
    """A model's results; the axes of a dataset share their documents, two in each group."""
    scores = {task: draw_scores(task, COUNT, 0.6, seed) for task in TASKS}
    write_results(folder, scores, group_size=2, probes=measured, **more)
    if generative:
        for file in folder.rglob("*.json*"):
            text = file.read_text(encoding="utf-8").replace("regreason_coqa", "regreason-gen_coqa")
            name = file.name.replace("regreason_coqa", "regreason-gen_coqa")
            file.unlink()
            file.with_name(name).write_text(text, encoding="utf-8")
    return folder


def compared(*folders: Path) -> Comparison:
    runs = [read_run(folder.name, folder) for folder in folders]
    return compare(runs, runs[0].name).comparison


def written(out: Path, *folders: Path) -> Comparison:
    given = [f"{folder.name}={folder}" for folder in folders]
    assert main(["compare", *given, "--baseline", folders[0].name, "--out", str(out)]) == 0
    return load_comparison(out / "comparison.json")


def layer_rows(out: Path) -> list[dict[str, str]]:
    with (out / "comparison.csv").open(newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if row["layer"]]


def svg(out: Path) -> ElementTree.ElementTree:
    return ElementTree.parse(out / "figures" / "entropy_by_layer.svg")


def svg_ids(out: Path) -> set[str]:
    ids = (element.get("id", "") for element in svg(out).iter())
    return {one for one in ids if one.startswith(("curve-", "band-"))}


def svg_text(out: Path) -> str:
    return " ".join("".join(one.itertext()) for one in svg(out).iter(f"{SVG}text"))


# --- one estimate ---------------------------------------------------------------------------


def test_a_curve_has_one_interval_in_every_file(tmp_path: Path) -> None:
    """A model of four blocks has one middle block: its layer and the middle mean are one figure."""
    folders = [results(tmp_path / name, seed, probes(seed)) for seed, name in enumerate("ab")]
    comparison = written(tmp_path / "out", *folders)
    for name in NAMES:
        for arm in "ab":
            layer, pooled = comparison.layers[name][arm][2], comparison.pooled_scores[arm]
            middle = pooled[f"{name}_mid"]
            assert layer.value == pytest.approx(middle.value, abs=1e-6)
            assert layer.low == pytest.approx(middle.low, abs=1e-6)
            assert layer.high == pytest.approx(middle.high, abs=1e-6)
    rows = layer_rows(tmp_path / "out")
    assert len(rows) == len(NAMES) * 2 * 5
    for row in rows:
        name = row["metric"].removesuffix("_by_layer")
        layer = comparison.layers[name][row["arm"]][int(row["layer"])]
        told = [float(row[key]) for key in ("value", "low", "high")]
        assert told == [layer.value, layer.low, layer.high]
        assert (row["task"], row["difference"]) == ("pooled", "")
    # The vertices of the drawn band are a straight-line map of these interval ends.
    for number, arm in enumerate("ab"):
        group = next(
            one
            for one in svg(tmp_path / "out").iter()
            if one.get("id") == f"band-{NAMES[0]}-{number}"
        )
        ends = [end for one in comparison.layers[NAMES[0]][arm] for end in (one.low, one.high)]
        paths = [one.get("d", "") for one in group.iter(f"{SVG}path")]
        words = " ".join(paths).replace("M", " ").replace("L", " ").replace("z", " ").split()
        drawn = np.unique(np.array(words, dtype=float).reshape(-1, 2)[:, 1].round(3))
        expected = np.unique(-np.array(ends, dtype=float))
        scale = (drawn.max() - drawn.min()) / (expected.max() - expected.min())
        assert np.allclose(drawn, drawn.min() + (expected - expected.min()) * scale, atol=0.02)


def test_axes_of_a_dataset_share_their_groups(tmp_path: Path) -> None:
    """All tasks have the same probes, so pooling three of them does not narrow the interval."""
    folders = [results(tmp_path / name, seed, probes(seed)) for seed, name in enumerate("ab")]
    comparison = compared(*folders)
    # A t test over the groups, which have equal sizes.
    by_group = probes(0)["matrix_entropy_by_layer"][:, 3].reshape(-1, 2).mean(axis=1)
    layer = comparison.layers["matrix_entropy"]["a"][3]
    assert layer.value == pytest.approx(by_group.mean(), abs=1e-8)
    expected = stats.ttest_1samp(by_group, 0).confidence_interval()
    assert (layer.low, layer.high) == pytest.approx(tuple(expected), abs=1e-8)


def test_with_three_seeds_a_layer_is_over_seeds_and_groups(tmp_path: Path) -> None:
    for arm in ("label_only", "explanation"):
        for seed in (1, 2, 3):
            model = tmp_path / f"{arm}-{seed}"
            model.mkdir()
            record = {"arm": arm, "seed": seed, "data": {"sha256": "ef" * 32, "path": "data"}}
            (model / "regreason.json").write_text(json.dumps(record))
            results(model / "eval", seed, probes(seed + len(arm)), adapter=str(model))
    comparison = compare(read_arms([str(tmp_path)]), "label_only").comparison
    for name in NAMES:
        for arm in ("label_only", "explanation"):
            layer, middle = (
                comparison.layers[name][arm][2],
                comparison.pooled_scores[arm][f"{name}_mid"],
            )
            assert layer.low == pytest.approx(middle.low, abs=1e-6)
            assert layer.high == pytest.approx(middle.high, abs=1e-6)


def test_what_some_documents_lack_is_left_out_of_the_mean(tmp_path: Path) -> None:
    folders = []
    for seed, name in enumerate("ab"):
        folders.append(results(tmp_path / name, seed, probes(seed)))
        for file in folders[-1].rglob("samples_*"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            rows[4]["matrix_entropy_by_layer"] = rows[5]["matrix_entropy_by_layer"] = None
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    layers = compared(*folders).layers["matrix_entropy"]["a"]
    expected = np.delete(probes(0)["matrix_entropy_by_layer"], [4, 5], axis=0).mean(axis=0)
    assert [layer.value for layer in layers] == pytest.approx(list(expected), abs=1e-8)
    assert all(layer.low < layer.value < layer.high for layer in layers)  # type: ignore[operator]


# --- the figure -----------------------------------------------------------------------------


def test_models_of_different_depth_share_the_picture(tmp_path: Path) -> None:
    folders = [
        results(tmp_path / "shallow", 0, probes(0, blocks=4)),
        results(tmp_path / "deep", 1, probes(1, blocks=12)),
    ]
    comparison = written(tmp_path / "out", *folders)
    assert svg_ids(tmp_path / "out") == {
        f"{what}-{name}-{number}"
        for what in ("curve", "band")
        for name in NAMES
        for number in (0, 1)
    }
    depths = [len(comparison.layers["matrix_entropy"][arm]) for arm in ("shallow", "deep")]
    assert depths == [5, 13]
    texts = svg_text(tmp_path / "out")
    for expected in (
        "2 of 4, 4-8 of 12",
        "GENERATED data",
        "3 of 18 settings",
        "entropy / log D",
        "entropy (nats)",
        "shallow",
        "deep",
    ):
        assert expected in texts


def test_a_curve_lies_where_its_numbers_say(tmp_path: Path) -> None:
    """The points of the SVG path are a straight-line map of depth and mean."""
    folders = [results(tmp_path / name, seed, probes(seed)) for seed, name in enumerate("ab")]
    comparison = written(tmp_path / "out", *folders)
    group = next(
        one for one in svg(tmp_path / "out").iter() if one.get("id") == "curve-logit_lens_entropy-0"
    )
    path = group.find(f"{SVG}path")
    assert path is not None
    words = path.get("d", "").replace("M", "").replace("L", "").split()
    points = np.array(words, dtype=float).reshape(-1, 2)
    means = [layer.value for layer in comparison.layers["logit_lens_entropy"]["a"]]
    assert len(points) == 5
    np.testing.assert_allclose(np.corrcoef(points[:, 0], [0, 0.25, 0.5, 0.75, 1])[0, 1], 1)
    # In SVG, y grows downwards.
    np.testing.assert_allclose(np.corrcoef(points[:, 1], means)[0, 1], -1, atol=1e-6)


def test_the_png_shows_every_curve(tmp_path: Path) -> None:
    folders = [results(tmp_path / name, seed, probes(seed)) for seed, name in enumerate("ab")]
    written(tmp_path / "out", *folders)
    pixels = matplotlib.image.imread(tmp_path / "out/figures/entropy_by_layer.png")[:, :, :3]
    height, width, _ = pixels.shape
    assert width > 1500
    for colour in ("#0072B2", "#D55E00"):
        wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        there = np.abs(pixels - wanted).max(axis=2) < 0.02
        # The four panels: three in the first row, one in the second next to the legend.
        for row, column in ((0, 0), (0, 1), (0, 2), (1, 0)):
            cell = there[
                row * height // 2 : (row + 1) * height // 2,
                column * width // 3 : (column + 1) * width // 3,
            ]
            assert cell.sum() > 100, (colour, row, column)


def test_a_name_is_text_whatever_is_in_it(tmp_path: Path) -> None:
    names = ["$x^2$", "_private", "<b>&amp;</b>", "[red]x[/red]", "$\\frac{", 'a,b"c', "{x}", "é²"]
    base, other = (results(tmp_path / one, seed, probes(seed)) for seed, one in enumerate("ab"))
    given = [f"base={base}", *(f"{name}={other}" for name in names), "--baseline", "base"]
    assert main(["compare", *given, "--out", str(tmp_path / "out")]) == 0
    assert all(name in svg_text(tmp_path / "out") for name in names)
    assert {row["arm"] for row in layer_rows(tmp_path / "out")} == {"base", *names}


# --- what is not compared -------------------------------------------------------------------


def both_protocols(seed: int) -> dict[str, Any]:
    """Probes of a model that explains first: after its explanation, and with the label forced."""
    return probes(seed) | probes(seed + 10, prefix="forced_")


def test_models_that_explain_first_are_compared_where_the_label_is_forced(tmp_path: Path) -> None:
    folders = [
        results(tmp_path / name, seed, both_protocols(seed), generative=True)
        for seed, name in enumerate(("label_only", "explanation"))
    ]
    comparison = written(tmp_path / "out", *folders)
    assert comparison.protocol == "explanation_first"
    assert {*comparison.layers} == {f"forced_{name}" for name in NAMES}
    forced = probes(10, prefix="forced_")["forced_matrix_entropy_by_layer"]
    layers = comparison.layers["forced_matrix_entropy"]["label_only"]
    assert [layer.value for layer in layers] == pytest.approx(list(forced.mean(axis=0)), abs=1e-8)
    unforced = {"output_entropy", *(f"{name}_mid" for name in NAMES)}
    assert not unforced & {*comparison.metrics}
    assert {f"forced_{name}" for name in unforced} <= {*comparison.metrics}
    # File and page say why they are missing; the verdict is about the other entropies.
    assert comparison.left_out.keys() == {"output_entropy", *NAMES}
    reason = "each model reads its own explanation before it decides"
    assert all(reason in why for why in comparison.left_out.values())
    assert any(reason in note for note in comparison.notes)
    assert reason in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    question = comparison.answers[-1]
    assert "middle layers" in question.question
    shown = f"{comparison.pooled['explanation']['forced_activation_entropy_mid'].value:+.3f}"
    assert shown in question.sentences[0]
    assert svg_text(tmp_path / "out").count("label forced at once") == len(NAMES)
    assert svg_ids(tmp_path / "out") == {
        f"{what}-forced_{name}-{number}"
        for what in ("curve", "band")
        for name in NAMES
        for number in (0, 1)
    }


TASK = TASKS[0]
OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "tokenizer": (
        {"tokenizer_eos_token": ["</s>", "2"]},
        "differ in tokenizer_eos_token (['</s>', '2'] and ['</s>', '1'])",
    ),
    "system": ({"system_instruction_sha": "12"}, "differ in system_instruction_sha"),
    "token": (
        {f"results/{TASK}/deciding_token,none": " "},
        f"differ in the token at which they decide {TASK} (' ' and ':')",
    ),
    "probed": (
        {f"results/{TASK}/documents_without_probe,none": 3},
        f"differ in the number of documents of {TASK} without probes (3 and 0)",
    ),
}
SAID = {
    "tokenizer_eos_token": ["</s>", "1"],
    "system_instruction_sha": None,
    f"results/{TASK}/deciding_token,none": ":",
    f"results/{TASK}/documents_without_probe,none": 0,
}


@pytest.mark.parametrize("what", OTHER)
def test_entropies_of_models_that_read_other_tokens_are_left_out(tmp_path: Path, what: str) -> None:
    changes, expected = OTHER[what]
    base = results(tmp_path / "label_only", 0, probes(0), changes=SAID)
    same = results(tmp_path / "same", 1, probes(1))
    assert not compared(base, same).left_out
    other = results(tmp_path / "explanation", 1, probes(1), changes={**SAID, **changes})
    comparison = written(tmp_path / "out", base, other)
    assert comparison.layers == {}
    assert not [name for name in comparison.metrics if "entropy" in name and "label" not in name]
    assert comparison.left_out.keys() == {"output_entropy", *NAMES}
    (reason,) = {*comparison.left_out.values()}
    assert f"`explanation` and `label_only` {expected}" in reason
    # Accuracy is compared; note, page and verdict say why the entropies are not.
    assert comparison.pooled["explanation"]["acc"].low is not None
    assert (
        f"Not compared: entropies of the models' layers and output. Reason: {reason}."
        in comparison.notes
    )
    answer = comparison.answers[-1]
    assert "middle layers" in answer.question
    assert answer.short == "cannot be said"
    assert reason in answer.sentences[0]
    assert expected.split(" (")[0] in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert not (tmp_path / "out" / "figures" / "entropy_by_layer.svg").exists()


def test_of_another_renyi_order_only_the_matrix_entropy_is_left_out(tmp_path: Path) -> None:
    order = {"config/model_args": "pretrained=base,renyi_alpha=2"}
    base = results(tmp_path / "a", 0, probes(0))
    other = results(tmp_path / "b", 1, probes(1), changes=order)
    comparison = compared(base, other)
    assert {*comparison.layers} == {*NAMES[:-1]}
    assert comparison.left_out.keys() == {"matrix_entropy"}
    assert (
        "`b` and `a` differ in renyi_alpha (2.0 and 1.0)" in comparison.left_out["matrix_entropy"]
    )
    assert "matrix_entropy_mid" not in comparison.metrics
    assert comparison.answers[-1].short != "cannot be said"
    both = [results(tmp_path / f"{n}2", n, probes(n), changes=order) for n in range(2)]
    second = compared(*both)
    assert {*second.layers} == {*NAMES}
    assert "The matrix entropy is the Renyi entropy of order 2." in second.notes


DEFINITION = f"results/{TASK}/activation_entropy_definition,none"


@pytest.mark.parametrize("old", [None, "softmax", ["absolute values", "softmax"]])
@pytest.mark.parametrize("whose", ["one", "all"])
def test_of_another_definition_only_that_activation_entropy_is_left_out(
    tmp_path: Path, old: Any, whose: str
) -> None:
    """Results without a definition predate it; two such results are no more comparable than one."""
    change = {DEFINITION: old}
    base = results(tmp_path / "a", 0, probes(0), changes=change if whose == "all" else None)
    other = results(tmp_path / "b", 1, probes(1), changes=change)
    comparison = written(tmp_path / "out", base, other)
    name = "a" if whose == "all" else "b"
    reason = (
        f"the results of `{name}` are not marked with the present definition, the entropy of the "
        "units' absolute values; score it again"
    )
    assert comparison.left_out == {"activation_entropy": reason}
    assert {*comparison.layers} == {*NAMES[1:]}
    assert "activation_entropy_mid" not in comparison.metrics
    assert "activation_entropy_square_mid" in comparison.metrics
    assert f"Not compared: activation entropy, |h| / Σ|h|. Reason: {reason}." in comparison.notes
    answer = comparison.answers[-1]
    assert "middle blocks not compared" in answer.short
    assert answer.sentences[0] == f"The activation entropy is not compared: {reason}."


def test_of_a_twin_the_definition_with_the_label_forced_counts(tmp_path: Path) -> None:
    forced = f"results/{TASK}/forced_activation_entropy_definition,none"
    base, other = (
        results(tmp_path / name, seed, both_protocols(seed), generative=True, changes=changes)
        for seed, (name, changes) in enumerate({"a": {}, "b": {forced: "softmax"}}.items())
    )
    left_out = compared(base, other).left_out
    assert "the results of `b`" in left_out["forced_activation_entropy"]


def test_entropies_that_only_some_models_have_are_left_out_and_named(tmp_path: Path) -> None:
    base = results(tmp_path / "a", 0, probes(0))
    fewer = results(tmp_path / "b", 1, probes(1, names=NAMES[:-1]))
    comparison = compared(base, fewer)
    assert {*comparison.layers} == {*NAMES[:-1]}
    assert comparison.left_out == {"matrix_entropy": "not every model has it in every task"}
    assert (
        "Not compared: matrix entropy. Reason: not every model has it in every task."
        in comparison.notes
    )
    # The missing entropy is the reason, whatever else differs in the model.
    order = {"config/model_args": "pretrained=base,renyi_alpha=2"}
    none = results(tmp_path / "c", 2, None, changes=order)
    without = compared(base, none)
    assert {*without.left_out.values()} == {"not every model has it in every task"}
    assert without.left_out.keys() == {"output_entropy", *NAMES}


def test_values_that_are_no_numbers_are_one_sentence(tmp_path: Path) -> None:
    base = results(tmp_path / "a", 0, probes(0))
    for name, value, says in (
        ("text", [0.1, "high", 0.1, 0.1, 0.1], "has a value that is no number"),
        ("short", [0.1, 0.2], "unequal numbers of layers [2, 5]"),
        ("number", 0.5, "has a value that is no number"),
    ):
        other = results(tmp_path / name, 1, probes(1))
        file = next(other.rglob(f"samples_{TASK}*"))
        lines = file.read_text().splitlines()
        row = json.loads(lines[7]) | {"matrix_entropy_by_layer": value}
        file.write_text("\n".join([*lines[:7], json.dumps(row), *lines[8:]]))
        with pytest.raises(UserError) as caught:
            compared(base, other)
        assert says in str(caught.value)
        assert "matrix_entropy_by_layer" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_lists_stay_out_of_the_tables_of_numbers(tmp_path: Path) -> None:
    """`regreason compare` writes metrics and errors as it reads them."""
    lists = {
        "matrix_entropy_by_layer,none": [0.1, 0.2],
        "matrix_entropy_by_layer_stderr,none": "N/A",
        "matrix_entropy_by_layer_se,none": [0.1, 0.2],
        "matrix_entropy_by_layer_se_stderr,none": "N/A",
        "deciding_token,none": ":",
        "deciding_token_stderr,none": "N/A",
        "logit_lens_entropy_by_layer,none": None,
    }
    changes = {f"results/{TASK}/{key}": value for key, value in lists.items()}
    task = read_run("a", results(tmp_path / "a", 0, None, changes=changes)).tasks[TASK]
    assert set(task.metrics) == set(task.stderrs) == {"acc"}
    assert task.deciding_token == ":"
