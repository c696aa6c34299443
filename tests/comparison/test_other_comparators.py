"""The page that compares comparators: its numbers, computed again from the example files."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from regreason_plugin import compare
from regreason_plugin.comparison.comparison import Comparison

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/examples/checkpoints"
PAGE = ROOT / "docs/explanation/other_comparators.md"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare({name: EXAMPLE / name for name in ("base", "tuned")})


def rows(heading: str) -> dict[str, list[str]]:
    """The table below a heading of the page, by the first cell of each row."""
    _, _, below = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")
    table = re.findall(r"^\| (.+) \|$", below.partition("\n## ")[0], re.MULTILINE)
    cells = [[cell.strip(" `") for cell in line.split("|")] for line in table[2:]]
    return {first: others for first, *others in cells}


def summary(name: str) -> dict[str, dict[str, Any]]:
    (path,) = (EXAMPLE / name).glob("results_*.json")
    results: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["results"]
    return results


def score(result: dict[str, Any]) -> tuple[float, float]:
    """A task's first metric and its standard error."""
    metric, of_filter = ("acc", "none")
    if "acc,none" not in result:
        metric, of_filter = "exact_match", "strict-match"
    return result[f"{metric},{of_filter}"], result[f"{metric}_stderr,{of_filter}"]


def test_the_rows_of_the_page_are_what_the_three_say(comparison: Comparison) -> None:
    base, tuned = summary("base"), summary("tuned")
    table = rows("The three answers")
    tasks = [setting.task for setting in comparison.settings]
    assert set(table) == {*tasks, "all five tasks"}
    changes = []
    for task in tasks:
        (first, error), (second, other) = score(base[task]), score(tuned[task])
        changes.append(second - first)
        p = 2 * stats.norm.sf(abs(second - first) / math.hypot(error, other))
        ours = comparison.differences["tuned"][task][comparison.main]
        assert table[task] == [
            f"{first:.3f}",
            f"{second:.3f}",
            "< 0.001" if p < 0.001 else f"{p:.3f}",
            "",
            *_ours(ours),
        ]
    test = stats.ttest_1samp(changes, 0)
    ours = comparison.pooled["tuned"][comparison.main]
    means = [
        f"{comparison.pooled_scores[arm][comparison.main].value:.3f}" for arm in ("base", "tuned")
    ]
    assert table["all five tasks"] == [*means, "", f"{test.pvalue:.3f}", *_ours(ours)]
    assert ours.value == pytest.approx(sum(changes) / len(changes))


def test_the_sums_are_a_case_of_opposite_answers(comparison: Comparison) -> None:
    agreement = comparison.agreement["tuned"]["gsm8k"]
    apart = agreement.only_baseline + agreement.only_arm
    said = f"{agreement.both_right} sums both models solve, {apart} only one of them, "
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert said + f"{agreement.both_wrong} neither" in text
    (first, error), (second, other) = (
        score(summary("base")["gsm8k"]),
        score(summary("tuned")["gsm8k"]),
    )
    unpaired = 2 * stats.norm.sf(abs(second - first) / math.hypot(error, other))
    paired = comparison.differences["tuned"]["gsm8k"][comparison.main].p
    assert f"z-test's p is {unpaired:.5f}, the paired one's {paired:.3f}" in text


def _ours(difference: Any) -> list[str]:
    low, high = difference.low, difference.high
    finding = difference.finding
    words = {"unclear": "not enough to tell", None: "exploratory"}.get(finding, finding)
    return [f"{difference.value:+.3f} ({low:+.3f} to {high:+.3f})", words]
