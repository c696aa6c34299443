"""Arms of several seeds: which results are of which arm, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_1samp, ttest_rel
from test_compare import ALL, FIRST, SECOND, results

from regreason_plugin.cli import main
from regreason_plugin.errors import UserError
from regreason_plugin.report.arms import read_arms
from regreason_plugin.report.compare import OVER, compare, notes, to_markdown
from regreason_plugin.report.results import read_run

SHA = "ef" * 32
TWO = {FIRST: 0.4, SECOND: 0.6}


def model(
    grid: Path,
    arm: str,
    seed: int,
    accuracies: dict[str, float],
    changes: dict[str, Any] | None = None,
    **trained: Any,
) -> Path:
    """A trained model's folder with its record, and results of it in ``eval``."""
    name = "-".join(map(str, [arm, *trained.values(), seed])).replace("/", "_")
    folder = grid / name
    record = {
        "arm": arm,
        "order": "label_first",
        "data": {"sha256": SHA, "path": "data"},
        "seed": seed,
        "label_share": None,
        "label_smoothing": 0.0,
        "steps": 100 + seed,
        "config_sha256": f"{seed}",
        "versions": {"torch": f"2.{seed}"},
        **trained,
    }
    arguments = {"pretrained": "base", "peft": str(folder)}
    save(folder / "eval", results(accuracies, config__model_args=arguments, **(changes or {})))
    (folder / "regreason.json").write_text(json.dumps(record))
    return folder


def save(folder: Path, content: dict[str, Any], date: str = "2026-01-01") -> None:
    file = folder / "base" / f"results_{date}T00-00-00.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def grid_of(folder: Path, accuracies: dict[str, list[tuple[float, float]]]) -> Path:
    """A grid of arms and seeds 1, 2, ..., with the accuracies on two settings."""
    for arm, seeds in accuracies.items():
        for seed, (one, two) in enumerate(seeds, start=1):
            model(folder, arm, seed, {FIRST: one, SECOND: two})
    return folder


THREE = {
    "label_only": [(0.40, 0.60), (0.44, 0.58), (0.47, 0.61)],
    "explanation": [(0.45, 0.62), (0.43, 0.68), (0.55, 0.59)],
    "shuffled": [(0.30, 0.50), (0.38, 0.40), (0.31, 0.52)],
}


def test_a_folder_is_split_into_its_arms_and_means_are_over_their_seeds(tmp_path: Path) -> None:
    runs = read_arms([str(grid_of(tmp_path, THREE))])
    comparison = compare(runs, "label_only")
    assert comparison["arms"] == ["explanation", "shuffled"]
    assert comparison["seeds"] == {arm: [1, 2, 3] for arm in THREE}
    first, second = comparison["rows"]
    assert first["baseline"]["metrics"]["acc"] == pytest.approx((0.40 + 0.44 + 0.47) / 3)
    explained = first["arms"]["explanation"]
    assert explained["difference"] == pytest.approx((0.05 - 0.01 + 0.08) / 3)
    # The error of a mean over seeds that share their documents is not known here.
    assert explained["stderrs"] == {"acc": None, "qwk": None}
    assert [one["seed"] for one in explained["by_seed"]] == [1, 2, 3]
    assert explained["by_seed"][1]["metrics"]["acc"] == 0.43
    assert explained["by_seed"][1]["stderrs"]["acc"] == 0.03
    assert second["arms"]["shuffled"]["difference"] == pytest.approx((-0.1 - 0.18 - 0.09) / 3)
    assert comparison["wins"]["explanation"]["wins"] == 2


def test_the_interval_is_that_of_a_paired_t_test(tmp_path: Path) -> None:
    comparison = compare(read_arms([str(grid_of(tmp_path, THREE))]), "label_only")
    base = [sum(pair) / 2 for pair in THREE["label_only"]]
    for arm in ("explanation", "shuffled"):
        ours = [sum(pair) / 2 for pair in THREE[arm]]
        expected = ttest_rel(ours, base).confidence_interval(0.95)
        found = comparison["over_seeds"][arm]
        assert (found["interval"]["low"], found["interval"]["high"]) == pytest.approx(
            (expected.low, expected.high)
        )
        differences = [one - other for one, other in zip(ours, base, strict=True)]
        assert found["mean_differences"] == pytest.approx(differences)
        alone = ttest_1samp(differences, 0).confidence_interval(0.95)
        assert found["interval"]["low"] == pytest.approx(alone.low)
        assert comparison["wins"][arm]["mean_difference"] == pytest.approx(sum(differences) / 3)
    page = to_markdown(comparison)
    assert f"95 % t interval {OVER}" in page
    low, high = (comparison["over_seeds"]["shuffled"]["interval"][end] for end in ("low", "high"))
    assert f"**{low:+.3f} to {high:+.3f}**" in page
    assert "| **seeds** |  |  |  | **3** | **3** |  | **3** |  |" in page


def test_two_seeds_have_no_interval_and_the_page_says_so(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, {arm: seeds[:2] for arm, seeds in THREE.items()})
    comparison = compare(read_arms([str(grid)]), "label_only")
    assert comparison["over_seeds"]["explanation"]["interval"] is None
    page = to_markdown(comparison)
    assert "No interval over fewer than 3 seeds: explanation, shuffled." in page
    assert "95 %" not in page
    assert "mean over 2 seeds" in page
    # Where the settings cancel out over the seeds, that is a tie.
    for arm, seeds in {"filler": [(0.43, 0.6), (0.41, 0.6)]}.items():
        for seed, (one, two) in enumerate(seeds, start=1):
            model(grid, arm, seed, {FIRST: one, SECOND: two})
    rows = compare(read_arms([str(grid)]), "label_only")["rows"]
    assert rows[0]["arms"]["filler"]["difference"] == 0


def test_unequal_seeds_are_compared_by_their_means_and_it_is_said(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, {**THREE, "explanation": THREE["explanation"][:2]})
    comparison = compare(read_arms([str(grid)]), "label_only")
    over = comparison["over_seeds"]
    assert over["explanation"] == {"paired": False, "mean_differences": None, "interval": None}
    assert over["shuffled"]["interval"] is not None
    difference = comparison["rows"][0]["arms"]["explanation"]["difference"]
    assert difference == pytest.approx((0.45 + 0.43) / 2 - (0.40 + 0.44 + 0.47) / 3)
    (said,) = [note for note in notes(comparison) if "not paired" in note]
    assert said.startswith("Other seeds than label_only, which has 1, 2, 3: explanation has 1, 2.")


def test_configurations_of_an_arm_are_arms_of_their_own(tmp_path: Path) -> None:
    for seed in (1, 2):
        model(tmp_path, "explanation", seed, TWO)
        model(tmp_path, "explanation", seed, TWO, label_share=0.5)
        model(tmp_path, "label_only", seed, TWO)
        model(tmp_path, "label_only", seed, TWO, label_smoothing=0.1, lora_dropout=0.2)
        model(tmp_path, "shuffled", seed, TWO, scope="coqa", budget="tokens")
    comparison = compare(read_arms([str(tmp_path)]), "label_only")
    assert comparison["seeds"] == {
        "label_only": [1, 2],
        "label_only, label_smoothing 0.1, lora_dropout 0.2": [1, 2],
        "explanation": [1, 2],
        "explanation, label_share 0.5": [1, 2],
        "shuffled, budget tokens, scope coqa": [1, 2],
    }
    assert "| explanation, label_share 0.5 | explanation | 2 |" in to_markdown(comparison)


def test_a_name_stands_for_one_arm_with_its_seeds(tmp_path: Path) -> None:
    for arm in ("label_only", "explanation"):
        grid_of(tmp_path / arm, {arm: THREE[arm]})
    given = [f"none={tmp_path / 'label_only'}", f"text={tmp_path / 'explanation'}"]
    comparison = compare(read_arms(given), "none")
    assert comparison["seeds"] == {"none": [1, 2, 3], "text": [1, 2, 3]}
    assert len(comparison["runs"]["text"]["seeds"]) == 3
    # One seed a folder, and the folder of all: the same numbers, under other names.
    split = compare(read_arms([str(tmp_path)]), "label_only")
    assert split["rows"][0]["baseline"] == comparison["rows"][0]["baseline"]


def test_results_of_a_moved_grid_find_their_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grid_of(Path("grid"), THREE)
    (tmp_path / "there").mkdir()
    Path("grid").rename("there/moved")
    # What lies at the old relative path now is another model.
    decoy = model(Path("grid"), "explanation", 1, TWO)
    (decoy / "regreason.json").write_text(json.dumps({"arm": "filler", "seed": 9}))
    comparison = compare(read_arms(["there/moved"]), "label_only")
    assert comparison["seeds"] == {arm: [1, 2, 3] for arm in THREE}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["x=GRID"], "'x' stands for results of several arms (explanation, label_only)"),
        (["x=SMOOTH"], "trained in several ways (label_only; label_only, label_smoothing 0.1)"),
        (["x=TWICE"], "seed 1 of 'x' stands twice"),
        (["x=PLAIN"], "has no regreason.json that says its seed"),
        (["PLAIN"], "which has no regreason.json beside it that says its arm"),
        (["GRID", "label_only=SMOOTH/label_only-1"], "the name 'label_only' stands twice"),
        (["x=GRID/label_only-1", "x=GRID/label_only-2"], "the name 'x' stands twice"),
        (["gone"], "'gone' is not NAME=RESULTS"),
        ([""], "'' is not NAME=RESULTS"),
    ],
)
def test_what_is_of_no_one_arm_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    grid_of(Path("GRID"), {arm: THREE[arm][:2] for arm in ("label_only", "explanation")})
    model(Path("SMOOTH"), "label_only", 1, TWO)
    model(Path("SMOOTH"), "label_only", 2, TWO, label_smoothing=0.1)
    model(Path("TWICE/a"), "label_only", 1, TWO)
    model(Path("TWICE/b"), "label_only", 1, TWO)
    for name in ("one", "two"):
        save(Path("PLAIN") / name, results(TWO, config__model_args=f"pretrained={name}"))
    assert main(["compare", *given, "--baseline", "label_only", "--out", "out"]) == 2
    assert expected in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"config__limit": 5.0}, "differ in --limit"),
        ({"n-samples__" + FIRST: {"effective": 10}}, "differ in number of documents"),
        ({"configs__" + FIRST: {"metadata": {"data": {"sha256": "cd" * 32}}}}, "differ in data"),
    ],
)
@pytest.mark.parametrize("arm", ["label_only", "explanation"])
def test_every_seed_is_held_against_the_first(
    tmp_path: Path, arm: str, changes: dict[str, Any], expected: str
) -> None:
    grid_of(tmp_path, {arm: THREE[arm][:1] for arm in ("label_only", "explanation")})
    for name in ("label_only", "explanation"):
        model(tmp_path, name, 2, TWO, changes if name == arm else None)
    with pytest.raises(UserError, match=expected):
        compare(read_arms([str(tmp_path)]), "label_only")


def test_both_protocols_in_one_folder(tmp_path: Path) -> None:
    twins = {task.replace("regreason_", "regreason-gen_"): acc for task, acc in TWO.items()}
    model(tmp_path, "label_only", 1, TWO)
    model(tmp_path, "explanation", 1, twins, order="explanation_first")
    with pytest.raises(UserError, match="never mixed"):
        compare(read_arms([str(tmp_path)]), "label_only")


def test_one_model_is_drawn_not_one_of_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid_of(tmp_path / "grid", {"label_only": THREE["label_only"]})
    with pytest.raises(UserError, match=r"holds results of 3 models .*label_only-1, "):
        read_run("grid", tmp_path / "grid")
    assert main(["probe-plot", str(tmp_path / "grid"), "--out", str(tmp_path / "out")]) == 2
    assert "name the folder of one of them" in capsys.readouterr().err


def test_a_newer_result_supersedes_only_that_of_its_own_model(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, {"label_only": THREE["label_only"][:2]})
    arguments = {"pretrained": "base", "peft": str(grid / "label_only-2"), "dtype": "bfloat16"}
    again = results({FIRST: 0.9}, config__model_args=arguments)
    save(grid / "label_only-2" / "eval", again, "2026-02-01")
    one, two = read_arms([str(grid)])
    assert (one.superseded, one.tasks[FIRST].metrics["acc"]) == ([], 0.40)
    assert len(two.superseded) == 1
    assert two.tasks[FIRST].metrics["acc"] == 0.9
    assert two.tasks[SECOND].metrics["acc"] == 0.58


def test_names_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        save(tmp_path / name, results(ALL))
    odd = "[red]x|<b>`y`"
    given = [f"base={tmp_path / 'a'}", f"{odd}={tmp_path / 'b'}"]
    out = str(tmp_path / "out")
    assert main(["compare", *given, "--baseline", "base", "--out", out]) == 0
    assert odd in capsys.readouterr().out
    page = (tmp_path / "out/comparison.md").read_text()
    header = next(line for line in page.splitlines() if line.startswith("| dataset"))
    assert header.endswith(r"| base | \[red\]x\|\<b\>\`y\` | diff |")


def test_models_are_paired_by_their_seed_not_by_their_place(tmp_path: Path) -> None:
    # Folders sort 10 before 2, and of the other arm in the order of the seeds.
    model(tmp_path, "label_only", 10, {FIRST: 0.5})
    model(tmp_path, "label_only", 2, {FIRST: 0.1})
    (model(tmp_path, "explanation", 10, {FIRST: 0.6})).rename(tmp_path / "z")
    (model(tmp_path, "explanation", 2, {FIRST: 0.3})).rename(tmp_path / "a")
    for name, seed in (("z", 10), ("a", 2)):
        results_file = next((tmp_path / name).rglob("results_*.json"))
        text = results_file.read_text().replace(f"explanation-{seed}", name)
        results_file.write_text(text)
    comparison = compare(read_arms([str(tmp_path)]), "label_only")
    assert comparison["seeds"] == {"label_only": [2, 10], "explanation": [2, 10]}
    differences = comparison["over_seeds"]["explanation"]["mean_differences"]
    assert differences == pytest.approx([0.2, 0.1])
