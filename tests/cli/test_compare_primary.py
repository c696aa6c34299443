"""`regreason compare --primary` and `--margin` as a user types them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from helpers.compared_results import FIRST, SECOND, results, save

from regreason_plugin.cli import main
from regreason_plugin.comparison.comparison import load_comparison

ACCURACIES = {"label_only": 0.3, "explanation": 0.5, "shuffled": 0.32}


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Results of three arms, as `compare` takes them."""
    for name, accuracy in ACCURACIES.items():
        save(tmp_path / name, results({FIRST: accuracy, SECOND: accuracy}))
    return [f"{name}={tmp_path / name}" for name in ACCURACIES]


def run(folders: list[str], out: Path, *options: str) -> int:
    return main(["compare", *folders, "--baseline", "label_only", "--out", str(out), *options])


def test_the_question_that_is_asked_is_answered_first(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folders, tmp_path / "one") == 0
    first = capsys.readouterr().out
    assert first.startswith("Primary question: is the accuracy of `explanation` different from")
    one = load_comparison(tmp_path / "one" / "comparison.json")
    assert one.primary is not None
    assert (one.primary.arm, one.primary.metric, one.margin) == ("explanation", "acc", 0.01)
    assert "--primary" not in one.command

    options = ["--primary", "shuffled:nll", "--margin", "0.25"]
    assert run(folders, tmp_path / "two", *options) == 0
    second = capsys.readouterr().out
    assert second.startswith(
        "Primary question: is the negative log-likelihood of `shuffled` different"
    )
    two = load_comparison(tmp_path / "two" / "comparison.json")
    assert two.primary is not None
    assert (two.primary.arm, two.primary.metric, two.margin) == ("shuffled", "nll", 0.25)
    assert shlex.split(two.command)[-4:] == options
    # All tables by setting are of what is asked.
    page = (tmp_path / "two" / "comparison.md").read_text(encoding="utf-8")
    assert "The negative log-likelihood of `label_only`, and the difference of each other" in page
    source = (tmp_path / "two" / "settings.tex").read_text(encoding="utf-8")
    assert "Negative log-likelihood of label" in source


def test_without_a_question_nothing_is_claimed_and_it_is_said_how_to_ask(
    folders: list[str], tmp_path: Path
) -> None:
    others = [folder.replace("explanation=", "other=") for folder in folders]
    assert run(others, tmp_path / "out") == 0
    comparison = load_comparison(tmp_path / "out" / "comparison.json")
    assert comparison.primary is None
    first = comparison.answers[0]
    assert first.short == "Nothing is claimed"
    assert "`--primary ARM[:METRIC]`" in first.sentences[0]
    found = [one for by in comparison.pooled.values() for one in by.values()]
    assert {one.finding for one in found} == {None}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--primary", "explanatoin"], "name one of explanation, shuffled"),
        (["--primary", "label_only"], "name one of explanation, shuffled"),
        (["--primary", "explanation:accuracy"], "name one of acc, macro_f1"),
        (["--primary", "explanation:auroc"], "not every task has the metric 'auroc'"),
    ],
)
def test_a_question_that_cannot_be_asked_is_one_sentence(
    folders: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    says: str,
) -> None:
    assert run(folders, tmp_path / "out", *options) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.splitlines()[-1].startswith("regreason: --primary: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("margin", ["0", "-0.01", "nan", "inf", "much"])
def test_a_margin_is_above_zero(folders: list[str], tmp_path: Path, margin: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run(folders, tmp_path / "out", "--margin", margin)
    assert caught.value.code == 2
