"""Layers as a picture: the numbers in it, what is refused, and that it shows something."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest

from regreason_plugin.cli import main
from regreason_plugin.evaluate.results import read_run

NAMES = (
    "activation_entropy",
    "activation_entropy_abs",
    "activation_entropy_square",
    "logit_lens_entropy",
    "matrix_entropy",
)
COQA = [f"regreason_coqa_{axis}" for axis in ("naturalness", "comprehensiveness", "on_topic")]
CORNELL = [task.replace("coqa", "cornell") for task in COQA]
SVG = "{http://www.w3.org/2000/svg}"


def results(
    tasks: list[str], layers: int = 5, names: tuple[str, ...] = NAMES, **changes: Any
) -> dict[str, Any]:
    """A results file of lm_eval; every task and layer has its own mean and error."""
    values: dict[str, Any] = {}
    for number, task in enumerate(tasks):
        values[task] = {"alias": task, "acc,none": 0.5, "acc_stderr,none": 0.03}
        for name in names:
            means = [0.9 - 0.1 * layer + 0.01 * number for layer in range(layers)]
            errors = [0.01 + 0.002 * layer + 0.003 * number for layer in range(layers)]
            values[task] |= {
                f"{name}_by_layer,none": means,
                f"{name}_by_layer_se,none": errors,
                f"{name}_mid,none": 0.7 + 0.01 * number,
                f"{name}_mid_stderr,none": 0.02,
            }
    content: dict[str, Any] = {
        "results": values,
        "configs": {
            task: {"metadata": {"data": {"sha256": "ab" * 32, "origin": "generated"}}}
            for task in tasks
        },
        "versions": dict.fromkeys(tasks, 1.0),
        "n-shot": dict.fromkeys(tasks, 0),
        "n-samples": {task: {"original": 1500, "effective": 1500} for task in tasks},
        "config": {"model": "regreason-hf", "model_args": {"pretrained": "x"}, "limit": None},
        "lm_eval_version": "0.4.11",
        "chat_template_sha": None,
        "tokenizer_bos_token": ["<s>", "0"],
        "tokenizer_eos_token": ["</s>", "1"],
    }
    for dotted, value in changes.items():
        place = content
        *path, last = dotted.split("__")
        for key in path:
            place = place[key]
        place[last] = value
    return content


def save(folder: Path, content: dict[str, Any]) -> Path:
    file = folder / "model" / "results_2026-01-01T00-00-00.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))
    return file


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "probes.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def svg_ids(out: Path) -> set[str]:
    return {
        one
        for element in ElementTree.parse(out / "probes.svg").iter()
        if (one := element.get("id", "")).startswith(("curve-", "band-"))
    }


def svg_text(out: Path) -> list[str]:
    return [
        "".join(one.itertext()) for one in ElementTree.parse(out / "probes.svg").iter(f"{SVG}text")
    ]


def plot(*arguments: str | Path) -> int:
    return main(["probe-plot", *map(str, arguments)])


def test_the_mean_and_its_interval_over_two_datasets(tmp_path: Path) -> None:
    save(tmp_path / "a", results([*COQA, *CORNELL]))
    assert plot(tmp_path / "a", "--out", tmp_path / "out") == 0
    # Task k = 0..5 has mean 0.9 - 0.1 l + 0.01 k and error 0.01 + 0.002 l + 0.003 k. The
    # mean of 0.01 k is 0.025; the errors' means are those of k = 1 and of k = 4.
    found = rows(tmp_path / "out")
    assert [row["metric"] for row in found] == [name for name in NAMES for _ in range(5)]
    for place, row in enumerate(found):
        layer = place % 5
        mean = 0.925 - 0.1 * layer
        first, second = 0.013 + 0.002 * layer, 0.022 + 0.002 * layer
        se = math.sqrt(first * first + second * second) / 2
        assert row["model"] == "a"
        assert row["layer"] == str(layer)
        assert float(row["depth"]) == layer / 4
        assert float(row["mean"]) == pytest.approx(mean)
        assert float(row["se"]) == pytest.approx(se)
        assert float(row["lower"]) == pytest.approx(mean - 1.96 * se)
        assert float(row["upper"]) == pytest.approx(mean + 1.96 * se)
        assert row["origin"] == "generated"


def test_datasets_of_unequal_axes_weigh_by_their_settings(tmp_path: Path) -> None:
    save(tmp_path / "a", results([*COQA, CORNELL[0]], names=("matrix_entropy",)))
    assert plot(tmp_path / "a", "--out", tmp_path / "out") == 0
    first = rows(tmp_path / "out")[0]
    assert float(first["mean"]) == pytest.approx((0.90 + 0.91 + 0.92 + 0.93) / 4)
    # Three axes with a mean error of 0.013 are three quarters, one with 0.019 a quarter.
    expected = math.sqrt((0.75 * 0.013) ** 2 + (0.25 * 0.019) ** 2)
    assert float(first["se"]) == pytest.approx(expected)


def test_the_interval_of_one_task_is_its_own(tmp_path: Path) -> None:
    save(tmp_path / "a", results(COQA[:1]))
    assert plot(tmp_path / "a", "--out", tmp_path / "out") == 0
    last = rows(tmp_path / "out")[4]
    assert float(last["se"]) == pytest.approx(0.018)
    assert float(last["upper"]) == pytest.approx(0.5 + 1.96 * 0.018)


def test_what_is_undefined_is_a_gap_not_a_number(tmp_path: Path) -> None:
    content = results(COQA)
    matrix = content["results"][COQA[1]]
    matrix["matrix_entropy_by_layer,none"][0] = None
    matrix["matrix_entropy_by_layer_se,none"][2] = None
    matrix["matrix_entropy_mid,none"] = None
    save(tmp_path / "a", content)
    assert plot(tmp_path / "a", "--out", tmp_path / "out") == 0
    found = [row for row in rows(tmp_path / "out") if row["metric"] == "matrix_entropy"]
    assert [row["mean"] == "" for row in found] == [True, False, False, False, False]
    assert [row["se"] == "" for row in found] == [True, False, True, False, False]
    assert [row["upper"] == "" for row in found] == [True, False, True, False, False]
    assert "curve-matrix_entropy-0" in svg_ids(tmp_path / "out")


def test_the_middle_blocks_in_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a", results([*COQA, *CORNELL], names=("matrix_entropy",)))
    assert plot(tmp_path / "a", "--out", tmp_path / "out") == 0
    # 0.7 + 0.01 k over six tasks; both datasets' errors are 0.02: 0.02 / sqrt(2) x 1.96.
    half = 1.96 * 0.02 / math.sqrt(2)
    printed = capsys.readouterr().out
    assert f"0.725 [{0.725 - half:.3f}, {0.725 + half:.3f}]" in printed
    assert "GENERATED" in printed
    for name in ("probes.png", "probes.svg", "probes.csv"):
        assert str(tmp_path / "out" / name) in printed.replace("\n", "")


def test_models_of_different_depth_share_the_picture(tmp_path: Path) -> None:
    save(tmp_path / "shallow", results(COQA, layers=5))
    save(tmp_path / "deep", results(COQA, layers=13))
    out = tmp_path / "out"
    assert plot(tmp_path / "shallow", f"12 blocks={tmp_path / 'deep'}", "--out", out) == 0
    assert svg_ids(out) == {
        f"{what}-{name}-{number}"
        for what in ("curve", "band")
        for name in NAMES
        for number in (0, 1)
    }
    found = rows(out)
    assert [row["depth"] for row in found if row["model"] == "12 blocks"][12] == "1.0"
    texts = " ".join(svg_text(out))
    for expected in (
        "2 of 4, 4-8 of 12",
        "GENERATED data",
        "3 of 18 settings",
        "n = 4,500 documents",
        "95 % interval over documents of these trained models",
        "axes of a dataset taken as fully dependent",
        "entropy / log D",
        "entropy (nats)",
        "shallow",
        "12 blocks",
    ):
        assert expected in texts


def test_a_curve_lies_where_its_numbers_say(tmp_path: Path) -> None:
    """Points of the SVG's path are a straight-line map of depth and mean."""
    content = results(COQA[:1], names=("logit_lens_entropy",))
    means = [5.0, 1.0, 3.0, 2.0, 4.0]
    content["results"][COQA[0]]["logit_lens_entropy_by_layer,none"] = means
    save(tmp_path / "a", content)
    assert plot(tmp_path / "a", "--out", tmp_path / "out") == 0
    root = ElementTree.parse(tmp_path / "out" / "probes.svg").getroot()
    group = next(one for one in root.iter() if one.get("id") == "curve-logit_lens_entropy-0")
    path = group.find(f"{SVG}path")
    assert path is not None
    words = path.get("d", "").replace("M", "").replace("L", "").split()
    points = np.array(words, dtype=float).reshape(-1, 2)
    assert len(points) == 5
    np.testing.assert_allclose(np.corrcoef(points[:, 0], [0, 0.25, 0.5, 0.75, 1])[0, 1], 1)
    np.testing.assert_allclose(np.corrcoef(points[:, 1], means)[0, 1], -1)  # y grows downwards


def test_the_png_shows_every_curve(tmp_path: Path) -> None:
    save(tmp_path / "a", results(COQA))
    lower = results(COQA)
    for task in COQA:
        for name in NAMES:
            key = f"{name}_by_layer,none"
            lower["results"][task][key] = [one - 0.3 for one in lower["results"][task][key]]
    save(tmp_path / "b", lower)
    assert plot(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out") == 0
    pixels = matplotlib.image.imread(tmp_path / "out" / "probes.png")[:, :, :3]
    height, width, _ = pixels.shape
    assert width > 1500
    for colour in ("#0072B2", "#D55E00"):
        wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        there = np.abs(pixels - wanted).max(axis=2) < 0.02
        # In each of the five panels: three above, two below.
        for row in range(2):
            for column in range(3 - row):
                cell = there[
                    row * height // 2 : (row + 1) * height // 2,
                    column * width // 3 : (column + 1) * width // 3,
                ]
                assert cell.sum() > 100, (colour, row, column)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    """In processes of their own: nothing depends on hashes, the clock or a user's style."""
    save(tmp_path / "a", results(COQA, layers=9))
    save(tmp_path / "b", results(COQA))
    code = "import sys; from regreason_plugin.cli import main; sys.exit(main(sys.argv[1:]))"
    style = tmp_path / "style"
    style.mkdir()
    (style / "matplotlibrc").write_text("lines.linewidth: 9\nfont.size: 30\n")
    for out, folder in (("one", tmp_path), ("two", style)):
        command = [sys.executable, "-c", code, "probe-plot", tmp_path / "a", tmp_path / "b"]
        subprocess.run([*command, "--out", tmp_path / out], cwd=folder, check=True, timeout=120)
    for name in ("probes.svg", "probes.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "<dc:date>" not in (tmp_path / "one" / "probes.svg").read_text()


@pytest.mark.parametrize(
    "name", ["$x^2$", "_private", "<b>&amp;</b>", "[red]x[/red]", "$\\frac{", 'a,b"c', "{x}", "é²"]
)
def test_a_name_is_text_whatever_is_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    save(tmp_path / "a", results(COQA[:1]))
    assert plot(f"{name}={tmp_path / 'a'}", "--out", tmp_path / "out") == 0
    assert name in svg_text(tmp_path / "out")
    assert {row["model"] for row in rows(tmp_path / "out")} == {name}
    assert name in capsys.readouterr().out


def test_generative_results_have_rows_of_their_own(tmp_path: Path) -> None:
    tasks = [task.replace("regreason_", "regreason-gen_") for task in COQA]
    both = (*NAMES, *(f"forced_{name}" for name in NAMES))
    save(tmp_path / "a", results(tasks, names=both))
    assert plot(tmp_path / "a", "--out", tmp_path / "out") == 0
    assert {row["metric"] for row in rows(tmp_path / "out")} == set(both)
    assert len(svg_ids(tmp_path / "out")) == 2 * len(both)
    texts = svg_text(tmp_path / "out")
    assert texts.count("label forced at once") == 5
    assert texts.count("after the model's own explanation") == 5


def test_models_that_explain_first_stand_side_by_side_where_the_label_is_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forced = {f"forced_{name}" for name in NAMES}
    for name in ("a", "b"):
        save(tmp_path / name, results(GEN, names=(*NAMES, *sorted(forced))))
    both = (tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    assert plot(*both) == 0
    assert {row["metric"] for row in rows(tmp_path / "out")} == forced
    assert {row["model"] for row in rows(tmp_path / "out")} == {"a", "b"}
    capsys.readouterr()
    other = (*both[:3], tmp_path / "none", "--metric", "matrix_entropy")
    assert plot(*other) == 2
    assert "name 'forced_matrix_entropy'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_metrics_that_only_some_have_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a", results(COQA))
    save(tmp_path / "b", results(COQA, names=NAMES[:4]))
    assert plot(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out") == 0
    assert {row["metric"] for row in rows(tmp_path / "out")} == set(NAMES[:4])
    assert "Left out, not in every model: matrix_entropy" in capsys.readouterr().out
    chosen = ["--metric", "logit_lens_entropy, activation_entropy"]
    assert plot(tmp_path / "a", tmp_path / "b", *chosen, "--out", tmp_path / "two") == 0
    assert {row["metric"] for row in rows(tmp_path / "two")} == {NAMES[0], NAMES[3]}


def test_a_results_file_and_the_names_of_folders(tmp_path: Path) -> None:
    file = save(tmp_path / "lr=1e-4", results(COQA))
    save(tmp_path / "b", results(COQA))
    out = tmp_path / "out"
    assert plot(tmp_path / "lr=1e-4", f"b={file}", file, "--out", out) == 0
    assert {row["model"] for row in rows(out)} == {"lr=1e-4", "b", "model"}


GEN = [task.replace("regreason_", "regreason-gen_") for task in COQA]
OTHER_DATA = {"metadata": {"data": {"sha256": "cd" * 32, "origin": "rated"}}}
OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "data": ({f"configs__{COQA[1]}": OTHER_DATA}, "differ in data"),
    "documents": ({f"n-samples__{COQA[0]}": {"effective": 7}}, "differ in number of documents"),
    "few-shot": ({f"n-shot__{COQA[0]}": 3}, "differ in few-shot examples"),
    "version": ({f"versions__{COQA[0]}": 2.0}, "differ in task version"),
    "limit": ({"config__limit": 10.0}, "differ in --limit"),
    "template": ({"chat_template_sha": "12"}, "differ in chat template"),
    "tokenizer": ({"tokenizer_eos_token": ["</s>", "2"]}, "differ in tokenizer_eos_token"),
    "system": ({"system_instruction_sha": "12"}, "differ in system_instruction_sha"),
    "token": (
        {f"results__{COQA[0]}__deciding_token,none": " "},
        "differ in the token at which they decide (' ' and ':')",
    ),
    "probed": (
        {f"results__{COQA[0]}__documents_without_probe,none": 3},
        "differ in the number of documents without probes (3 and 0)",
    ),
    "alpha": (
        {"config__model_args": "pretrained=x,renyi_alpha=2"},
        "differ in renyi_alpha",
    ),
}


@pytest.mark.parametrize("what", OTHER)
def test_models_measured_differently_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    base = results(COQA, **{f"results__{task}__deciding_token,none": ":" for task in COQA})
    base["system_instruction_sha"] = None
    base["results"][COQA[0]]["documents_without_probe,none"] = 0
    changes, expected = OTHER[what]
    other = results(COQA)
    save(tmp_path / "same", other)
    save(tmp_path / "base", base)
    assert plot(tmp_path / "base", tmp_path / "same", "--out", tmp_path / "ok") == 0
    save(tmp_path / "other", results(COQA, **changes))
    assert plot(tmp_path / "base", tmp_path / "other", "--out", tmp_path / "out") == 2
    assert expected in one_line(capsys)
    assert not (tmp_path / "out").exists()


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    message = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(message) == 1
    assert message[0].startswith("regreason: ")
    return message[0]


def test_tasks_have_to_be_the_same_both_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "three", results(COQA))
    save(tmp_path / "two", results(COQA[:2]))
    save(tmp_path / "gen", results(GEN))
    save(tmp_path / "mixed", results([*COQA, *GEN]))
    for given, expected in {
        ("three", "two"): "'two' has no regreason_coqa_on_topic, which 'three' has",
        ("two", "three"): "'two' has no regreason_coqa_on_topic, which 'three' has",
        ("gen", "three"): "label-first tasks and the other generative ones",
        ("mixed",): "never mixed",
        ("three", "mixed"): "never mixed",
    }.items():
        assert plot(*(tmp_path / name for name in given), "--out", tmp_path / "out") == 2
        assert expected in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_mistakes_are_one_line_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    matrix = f"results__{COQA[0]}__matrix_entropy_by_layer"
    for name, content in {
        "a": results(COQA),
        "stock": results(COQA, names=()),
        "lens": results(COQA, names=("logit_lens_entropy",)),
        "matrix": results(COQA, names=("matrix_entropy",)),
        "text": results(COQA, **{f"{matrix},none": [0.1, "high", 0.1, 0.1, 0.1]}),
        "nan": results(COQA, **{f"{matrix},none": [0.1, math.nan, 0.1, 0.1, 0.1]}),
        "short": results(COQA, **{f"{matrix},none": [0.1, 0.2], f"{matrix}_se,none": None}),
        "errors": results(COQA, **{f"{matrix}_se,none": [0.1, 0.2]}),
    }.items():
        save(tmp_path / name, content)
    for task in (uneven := results(COQA))["results"]:
        uneven["results"][task] |= results([task], layers=9, names=NAMES[4:])["results"][task]
    save(tmp_path / "uneven", uneven)
    Path("file").write_text("kept")
    Path("x").mkdir()
    for arguments, expected in {
        ("a", "x/../a"): "a name stands twice among a, a",
        ("n=a", "n=lens"): "a name stands twice",
        ("=a",): "'=a' is not NAME=RESULTS",
        ("x=",): "'x=' is not NAME=RESULTS",
        ("a\x1bb=a",): "cannot be printed",
        ("nowhere",): "no such results folder",
        ("a", "stock"): "regreason eval --model regreason-hf --model_args pretrained=...,probe=all",
        ("lens", "--metric", "matrix_entropy"): "it has logit_lens_entropy",
        ("a", "--metric", "entropy"): "'a' has no metric 'entropy' by layer; it has " + NAMES[0],
        ("lens", "matrix"): "no metric in common: 'lens' has logit_lens_entropy; 'matrix' has",
        ("text",): "layer 1 has 'high', no number",
        ("nan",): "layer 1 has nan, no number",
        ("short",): "unequal numbers of layers (2 in regreason_coqa_naturalness and 5 in",
        ("uneven",): "the metrics of 'uneven' have unequal layers",
        ("errors",): "5 values of matrix_entropy_by_layer and 2 standard errors",
        ("a", "--out", "file"): "file: is a file",
    }.items():
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        where = () if "--out" in arguments else ("--out", "out")
        assert plot(*arguments, *where) == 2, arguments
        assert expected in one_line(capsys), arguments
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_lists_stay_out_of_the_tables_of_numbers(tmp_path: Path) -> None:
    """`regreason compare` writes metrics and errors as they are read."""
    content = results(COQA[:1])
    content["results"][COQA[0]] |= {
        "matrix_entropy_by_layer_stderr,none": "N/A",
        "matrix_entropy_by_layer_se_stderr,none": "N/A",
        "deciding_token,none": ":",
        "deciding_token_stderr,none": "N/A",
        "logit_lens_entropy_by_layer,none": None,
    }
    task = read_run("a", save(tmp_path / "a", content)).tasks[COQA[0]]
    assert set(task.metrics) == set(task.stderrs) == {"acc", *(f"{name}_mid" for name in NAMES)}
    assert task.layers["matrix_entropy_by_layer"] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    assert "logit_lens_entropy_by_layer" not in task.layers
    assert task.deciding_token == ":"
