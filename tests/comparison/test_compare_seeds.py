"""Arms of several seeds: how results are grouped into arms, and the notes about them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.compared_results import FIRST, SECOND, comparison_of, results
from helpers.seeded_models import model, save

from regreason_plugin.cli import main
from regreason_plugin.comparison.arms import read_arms
from regreason_plugin.comparison.compare import compare
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import read_run
from regreason_plugin.render.markdown_page import to_markdown

TWO = {FIRST: 0.4, SECOND: 0.6}


def grid_of(folder: Path, accuracies: dict[str, list[tuple[float, float]]]) -> Path:
    """A grid of arms and seeds 1, 2, ..., with the given accuracies in two settings."""
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
    comparison = comparison_of(runs, "label_only")
    assert comparison.arms == ["explanation", "shuffled"]
    assert comparison.seeds == {arm: [1, 2, 3] for arm in THREE}
    base = comparison.scores["label_only"][FIRST]["acc"]
    assert base.value == pytest.approx((0.40 + 0.44 + 0.47) / 3)
    explained = comparison.differences["explanation"]
    assert explained[FIRST]["acc"].value == pytest.approx((0.05 - 0.01 + 0.08) / 3)
    assert comparison.scores["explanation"][FIRST]["acc"].by_seed == [0.45, 0.43, 0.55]
    shuffled = comparison.differences["shuffled"][SECOND]["acc"].value
    assert shuffled == pytest.approx((-0.1 - 0.18 - 0.09) / 3)
    assert comparison.wins["explanation"].wins == 2


def test_with_three_seeds_the_interval_is_of_seeds_and_groups(tmp_path: Path) -> None:
    """The formula of a balanced two-way table, applied to the samples as written."""
    comparison = comparison_of(read_arms([str(grid_of(tmp_path, THREE))]), "label_only")
    right = {
        arm: np.array([[number < round(200 * seed[0]) for number in range(200)] for seed in seeds])
        for arm, seeds in THREE.items()
    }
    table = right["explanation"].astype(float) - right["label_only"]
    of_seeds = 200 * ((table.mean(1) - table.mean()) ** 2).sum() / 2
    of_groups = 3 * ((table.mean(0) - table.mean()) ** 2).sum() / 199
    rest = ((table - table.mean(1)[:, None] - table.mean(0) + table.mean()) ** 2).sum() / (2 * 199)
    found = comparison.differences["explanation"][FIRST]["acc"]
    assert found.over == "seeds and groups"
    # Wins and losses are counts, so one unobserved event is added. Its squared contribution is the
    # average over the observed ones after the mean over seeds.
    plain = (table**2).mean() - table.mean() ** 2
    event = (table.mean(0).var() / 200 + 1 / 200**2) / (plain * 200 + 1)
    expected = (of_seeds + max(of_groups - rest, 0)) / 600 + event
    assert found.se == pytest.approx(expected**0.5)
    assert (found.df_seeds, found.df_groups) == (2, pytest.approx(199))
    assert "account for both training seeds and groups of documents" in to_markdown(comparison)


def test_fewer_seeds_speak_of_these_models_only_and_the_page_says_so(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, {arm: seeds[:2] for arm, seeds in THREE.items()})
    # A setting whose differences cancel out over the seeds is a tie.
    grid_of(grid, {"filler": [(0.43, 0.6), (0.41, 0.6)]})
    comparison = comparison_of(read_arms([str(grid)]), "label_only")
    assert comparison.pooled["explanation"]["acc"].over == "groups"
    assert "hold for these trained models only" in to_markdown(comparison)
    # Every claim is about these models only.
    for answer in comparison.answers:
        for text in (answer.short, *answer.sentences):
            for word in re.finditer(r"\b(higher|lower|the same within ±\S+)( \(\w+\))?", text):
                assert text[word.end() :].startswith((", of these trained models", ", by less"))
    assert comparison.differences["filler"][FIRST]["acc"].value == pytest.approx(0, abs=1e-12)
    assert comparison.wins["filler"].ties == 1


def test_a_seed_without_a_partner_is_left_out_of_the_differences(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, {**THREE, "explanation": THREE["explanation"][:2]})
    comparison = comparison_of(read_arms([str(grid)]), "label_only")
    difference = comparison.differences["explanation"][FIRST]["acc"].value
    assert difference == pytest.approx((0.45 + 0.43 - 0.40 - 0.44) / 2)
    assert comparison.pooled["shuffled"]["acc"].over == "seeds and groups"
    # An arm's score is the mean over all its seeds, paired or not.
    base = comparison.scores["label_only"][FIRST]["acc"].value
    assert base == pytest.approx((0.40 + 0.44 + 0.47) / 3)
    (said,) = [note for note in comparison.notes if "without a partner" in note]
    assert said.endswith("`explanation`: seed 3 of the baseline.")


def test_arms_without_a_common_seed_are_paired_in_order_and_it_is_said(tmp_path: Path) -> None:
    grid_of(tmp_path, {"label_only": THREE["label_only"]})
    for seed, (one, two) in enumerate(THREE["explanation"], start=11):
        model(tmp_path, "explanation", seed, {FIRST: one, SECOND: two})
    comparison = comparison_of(read_arms([str(tmp_path)]), "label_only")
    assert comparison.differences["explanation"][FIRST]["acc"].value == pytest.approx(0.12 / 3)
    assert any("no seed in common" in note for note in comparison.notes)


def test_a_model_without_a_seed_stands_against_every_seed(tmp_path: Path) -> None:
    grid = grid_of(tmp_path / "grid", {arm: THREE[arm] for arm in ("explanation", "shuffled")})
    save(tmp_path / "plain", results({FIRST: 0.3, SECOND: 0.5}, config__model_args="pretrained=p"))
    runs = read_arms([str(grid), f"plain={tmp_path / 'plain'}"])
    comparison = comparison_of(runs, "plain")
    found = comparison.differences["explanation"][FIRST]["acc"]
    assert found.value == pytest.approx((0.45 + 0.43 + 0.55) / 3 - 0.3)
    assert found.over == "seeds and groups"
    assert not any("partner" in note or "no seed in" in note for note in comparison.notes)
    assert sum("is paired with every seed" in note for note in comparison.notes) == 2
    pooled = [comparison.pooled[arm]["acc"].value or 0 for arm in ("shuffled", "explanation")]
    assert comparison.gap["shuffled"].value == pytest.approx(pooled[0] / pooled[1])
    # The same holds with the roles of the arms exchanged.
    turned = comparison_of(runs, "shuffled").differences["plain"][FIRST]["acc"]
    assert turned.value == pytest.approx(0.3 - (0.30 + 0.38 + 0.31) / 3)
    assert turned.over == "seeds and groups"


def test_configurations_of_an_arm_are_arms_of_their_own(tmp_path: Path) -> None:
    for seed in (1, 2):
        model(tmp_path, "explanation", seed, TWO)
        model(tmp_path, "explanation", seed, TWO, label_share=0.5)
        model(tmp_path, "label_only", seed, TWO)
        model(tmp_path, "label_only", seed, TWO, label_smoothing=0.1, lora_dropout=0.2)
        model(tmp_path, "shuffled", seed, TWO, scope="coqa", budget="tokens")
    comparison = comparison_of(read_arms([str(tmp_path)]), "label_only")
    assert comparison.seeds == {
        "label_only": [1, 2],
        "label_only, label_smoothing 0.1, lora_dropout 0.2": [1, 2],
        "explanation": [1, 2],
        "explanation, label_share 0.5": [1, 2],
        "shuffled, budget tokens, scope coqa": [1, 2],
    }
    assert "`explanation, label_share 0.5`" in to_markdown(comparison)


def test_a_name_stands_for_one_arm_with_its_seeds(tmp_path: Path) -> None:
    for arm in ("label_only", "explanation"):
        grid_of(tmp_path / arm, {arm: THREE[arm]})
    given = [f"none={tmp_path / 'label_only'}", f"text={tmp_path / 'explanation'}"]
    comparison = comparison_of(read_arms(given), "none")
    assert comparison.seeds == {"none": [1, 2, 3], "text": [1, 2, 3]}
    assert [run.seed for run in comparison.runs if run.arm == "text"] == [1, 2, 3]
    # One folder per seed and one folder of all seeds give the same figures under different names.
    split = comparison_of(read_arms([str(tmp_path)]), "label_only")
    assert split.scores["label_only"] == comparison.scores["none"]


def test_results_of_a_moved_grid_find_their_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grid_of(Path("grid"), THREE)
    (tmp_path / "there").mkdir()
    Path("grid").rename("there/moved")
    # Another model now lies at the old relative path.
    decoy = model(Path("grid"), "explanation", 1, TWO)
    (decoy / "regreason.json").write_text(json.dumps({"arm": "filler", "seed": 9}))
    comparison = comparison_of(read_arms(["there/moved"]), "label_only")
    assert comparison.seeds == {arm: [1, 2, 3] for arm in THREE}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["x=GRID"], "'x' is the name of several arms (explanation, label_only)"),
        (["x=SMOOTH"], "trained in several ways (label_only; label_only, label_smoothing 0.1)"),
        (["x=TWICE"], "'x' has two models with seed 1"),
        (["x=PLAIN"], "has no regreason.json that says its seed"),
        (["PLAIN"], "whose folder has no regreason.json that says its arm"),
        (["GRID", "label_only=SMOOTH/label_only-1"], "the name 'label_only' is given twice"),
        (["x=GRID/label_only-1", "x=GRID/label_only-2"], "the name 'x' is given twice"),
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
        ({"n-samples__" + FIRST: {"effective": 100}}, "have different documents: "),
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
    with pytest.raises(UserError, match="which cannot be compared"):
        compare(read_arms([str(tmp_path)]), "label_only")


def test_one_model_is_gated_not_one_of_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid_of(tmp_path / "grid", {"label_only": THREE["label_only"]})
    with pytest.raises(UserError, match=r"holds results of 3 models .*label_only-1, "):
        read_run("grid", tmp_path / "grid")
    grid = str(tmp_path / "grid")
    gate = ["gate", f"old={grid}", f"new={grid}", "--baseline", "old"]
    assert main(gate) == 2
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
        save(tmp_path / name, results(TWO))
    odd = "[red]x|<b>`y`"
    given = [f"base={tmp_path / 'a'}", f"{odd}={tmp_path / 'b'}"]
    out = str(tmp_path / "out")
    assert main(["compare", *given, "--baseline", "base", "--out", out]) == 0
    assert odd in capsys.readouterr().out
    page = (tmp_path / "out/comparison.md").read_text()
    assert "`` [red]x\\|<b>`y` ``" in page


def test_models_are_paired_by_their_seed_not_by_their_place(tmp_path: Path) -> None:
    # Folder names sort 10 before 2; those of the other arm sort in the order of the seeds.
    model(tmp_path, "label_only", 10, {FIRST: 0.5})
    model(tmp_path, "label_only", 2, {FIRST: 0.1})
    (model(tmp_path, "explanation", 10, {FIRST: 0.6})).rename(tmp_path / "z")
    (model(tmp_path, "explanation", 2, {FIRST: 0.3})).rename(tmp_path / "a")
    for name, seed in (("z", 10), ("a", 2)):
        results_file = next((tmp_path / name).rglob("results_*.json"))
        text = results_file.read_text().replace(f"explanation-{seed}", name)
        results_file.write_text(text)
    comparison = comparison_of(read_arms([str(tmp_path)]), "label_only")
    assert comparison.seeds == {"label_only": [2, 10], "explanation": [2, 10]}
    by_seed = {arm: comparison.scores[arm][FIRST]["acc"].by_seed for arm in comparison.scores}
    assert by_seed == {"label_only": [0.1, 0.5], "explanation": [0.3, 0.6]}
