"""`regreason power`: the documents and runs that a comparison needs, planned from results."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.stock_tasks import STOCK_RESULTS
from scipy.stats import norm

from regreason_plugin.cli import main
from regreason_plugin.comparison.arms import Arms, read_arms
from regreason_plugin.comparison.compare import compare, read_scores
from regreason_plugin.comparison.sample_size import SampleSize, sample_sizes

pytestmark = pytest.mark.integration

SEEDS = (1, 2, 3)


def arguments(seeds: Sequence[int] = SEEDS) -> list[str]:
    folder = STOCK_RESULTS / "0.4.11"
    return [
        f"{arm}={','.join(str(folder / f'fewshot_{seed}' / arm) for seed in seeds)}"
        for arm in ("base", "tuned")
    ]


def size_of(given: Sequence[str], difference: float, metric: str = "acc") -> SampleSize:
    arms = Arms.of(read_arms(given), "base")
    scores, _ = read_scores(arms)
    (one,) = sample_sizes(arms, scores, metric, difference)
    return one


@pytest.fixture
def drawn(tmp_path: Path) -> Callable[[str, np.ndarray[Any, Any]], str]:
    """Writes one run of an arm, with these values of ``acc``, in lm_eval's format."""
    source = STOCK_RESULTS / "0.4.11" / "fewshot_1" / "base"
    (results,) = source.glob("results_*.json")
    (samples,) = source.glob("samples_*.jsonl")
    first = json.loads(samples.read_text(encoding="utf-8").splitlines()[0])

    def written(name: str, right: np.ndarray[Any, Any]) -> str:
        folder = tmp_path / name
        folder.mkdir()
        content = json.loads(results.read_text(encoding="utf-8"))
        (task,) = content["results"]
        # (The model's name keeps the runs apart.)
        content |= {"model_name": name, "task_hashes": {}}
        content["results"][task] = {"acc,none": float(right.mean())}
        content["n-samples"][task] = {"original": len(right), "effective": len(right)}
        rows = [
            {**first, "doc_id": n, "doc_hash": f"{n:064}", "acc": float(value)}
            for n, value in enumerate(right)
        ]
        (folder / results.name).write_text(json.dumps(content), encoding="utf-8")
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / samples.name).write_text(text, encoding="utf-8")
        return str(folder)

    return written


@pytest.mark.parametrize("difference", [0.02, 0.05])
def test_one_run_and_independent_documents_need_what_the_textbook_says(
    drawn: Any, difference: float
) -> None:
    random = np.random.default_rng(7)
    base, tuned = random.random((2, 2_000)) < np.array([[0.5], [0.55]])
    given = [f"base={drawn('base', base)}", f"tuned={drawn('tuned', tuned)}"]
    size = size_of(given, difference)
    assert (size.runs, size.groups, size.documents) == (1, 2_000, 2_000)
    variance = np.var(tuned.astype(float) - base, ddof=1)
    expected = (norm.isf(0.025) + norm.isf(0.2)) ** 2 * variance / difference**2
    (plan,) = size.plans
    assert plan.documents == plan.groups == pytest.approx(expected, rel=0.01)
    # The smallest difference that the present documents find is that of the textbook, too.
    smallest = (norm.isf(0.025) + norm.isf(0.2)) * (variance / 2_000) ** 0.5
    assert size.detectable.value == pytest.approx(smallest, rel=0.005)


@pytest.mark.parametrize("seeds", [SEEDS, (1,), (1, 2)])
@pytest.mark.parametrize("difference", [0.2, 0.9])
def test_the_groups_for_the_present_runs_are_those_of_the_comparison(
    seeds: tuple[int, ...], difference: float
) -> None:
    size = size_of(arguments(seeds), difference)
    comparison = compare(read_arms(arguments(seeds)), "base", difference=difference).comparison
    present = next(plan for plan in size.plans if plan.runs == len(seeds))
    assert present.groups == comparison.needed["tuned"].groups
    assert size.detectable.value == pytest.approx(comparison.detectable["tuned"].value, rel=1e-6)
    # With fewer than three runs, nobody knows how much another one would change.
    assert [plan.runs for plan in size.plans] == (
        [3, 5, 10, 20] if len(seeds) == 3 else [len(seeds)]
    )


def test_smaller_differences_and_fewer_runs_need_more_documents(drawn: Any) -> None:
    random = np.random.default_rng(1)
    # The runs of an arm differ a little: their accuracies are 0.5 +- 0.01.
    easy = random.random(1_000)
    given = []
    for arm, shift in (("base", 0.0), ("tuned", 0.05)):
        folders = [
            drawn(f"{arm}{n}", (easy + random.normal(0, 0.1, 1_000)) < 0.5 + shift + off)
            for n, off in enumerate((-0.01, 0.0, 0.01))
        ]
        given.append(f"{arm}={','.join(folders)}")
    by_difference = [size_of(given, difference).plans for difference in (0.02, 0.05, 0.1, 0.3)]
    counts = [
        [np.inf if plan.groups is None else plan.groups for plan in plans]
        for plans in by_difference
    ]
    for smaller, larger in pairwise(counts):
        assert all(a >= b for a, b in zip(smaller, larger, strict=True))
    for of_runs in counts:
        assert of_runs == sorted(of_runs, reverse=True)
    assert counts[1] != counts[2]


def test_no_number_of_documents_makes_up_for_runs_that_differ(
    drawn: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(3)
    easy = random.random(500)
    given = []
    for arm, accuracies in (("base", (0.5, 0.5, 0.5)), ("tuned", (0.4, 0.55, 0.7))):
        folders = [drawn(f"{arm}{n}", easy < accuracy) for n, accuracy in enumerate(accuracies)]
        given.append(f"{arm}={','.join(folders)}")
    plans = {plan.runs: plan.groups for plan in size_of(given, 0.05).plans}
    # The standard deviation over the runs is 0.15: a mean of three has a standard error of 0.087,
    # which documents do not reduce; one of twenty has 0.034, and 2.8 times that is still too much.
    assert plans == {3: None, 5: None, 10: None, 20: None}
    assert size_of(given, 0.2).plans[-1].groups is not None
    assert main(["power", *given, "--baseline", "base", "--difference", "0.05"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("no number is enough") == 8
    assert "3 runs per arm, 500 documents in 500 groups" in printed.replace("\n", "")


def test_the_command_reads_a_pilot_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["power", *arguments((1,)), "--baseline", "base", "--difference", "0.1"]) == 0
    printed = capsys.readouterr().out
    (plan,) = size_of(arguments((1,)), 0.1).plans
    assert f"{plan.groups:,}" in printed
    assert "the numbers are about these models only" in " ".join(printed.split())
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            ["--metric", "f1"],
            "--metric: not every task has 'f1'; name one that all tasks have: acc",
        ),
        (["--tasks", "nothing"], "holds no results of the tasks nothing"),
        (["--baseline", "other"], "'other'"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(
    capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    assert main(["power", *arguments((1,)), "--baseline", "base", *more]) == 2
    # (Above it stands the progress of reading.)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("regreason: ")
    assert says in error
