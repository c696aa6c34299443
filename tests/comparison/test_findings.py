"""The findings: one primary question, the corrected family behind it, and each kind of finding."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.compared_results import FIRST, SECOND, comparison_of
from helpers.seeded_models import model

from regreason_plugin.cli import main
from regreason_plugin.comparison.arms import Arms, Models, read_arms
from regreason_plugin.comparison.comparison import Comparison, Difference
from regreason_plugin.comparison.crossed_variance import Estimate
from regreason_plugin.comparison.differences import Differences, differences
from regreason_plugin.core.errors import UserError

METRICS = ["acc", "macro_f1", "nll", "miscalibration"]
# Gives (p, p_same, value) by arm, minus, index of the setting and metric.
Told = Callable[[str, str, int | None, str], tuple[float, float, float]]


def arms_of(*names: str) -> Arms:
    """Arms with two seeds each; the first is the baseline."""
    runs: Any = {name: [SimpleNamespace(seed=1), SimpleNamespace(seed=2)] for name in names}
    return Arms(runs, names[0])


def found_of(
    arms: Arms, settings: int, told: Told, question: tuple[str, str] | None = ("a", "acc")
) -> Differences:
    """The differences of tests with given outcomes."""
    arm_of = {number: name for name, numbers in arms.numbers.items() for number in numbers}

    def estimate(
        metric: str, models: Models, task: int | None = None, margin: float = math.nan
    ) -> Estimate:
        ours, others = ({arm_of[number] for number in side} for side in models)
        (arm,), (minus,) = ours, others
        p, p_same, value = told(arm, minus, task, metric)
        p_same = math.nan if math.isnan(margin) else p_same
        return Estimate(value, 0.1, value - 1, value + 1, p, p_same, "groups")

    tasks = [SimpleNamespace(values={}, proportions=()) for _ in range(settings)]
    estimates: Any = SimpleNamespace(
        tasks=tasks,
        metrics_of=lambda _: METRICS,
        is_proportion=lambda metric, _: metric == "acc",
        estimate=estimate,
        value=lambda *_: 0.5,
    )
    return differences(estimates, arms, question, 0.01)


def spread_out(arm: str, minus: str, task: int | None, metric: str) -> tuple[float, float, float]:
    """Every test has another p value, from about 1e-6 to 0.7; the primary test has 0.01."""
    if (arm, minus, task, metric) == ("a", "base", None, "acc"):
        return 0.01, 0.2, 1.0
    place = zlib.crc32(f"{arm} {minus} {task} {metric}".encode()) / 2**32
    return 10 ** (-6 + 5.8 * place), 10 ** (-5.9 + 5.8 * place), 1.0


def everything(found: Differences) -> dict[tuple[Any, ...], Difference]:
    """All differences by arm, minus, index of the setting and metric."""
    pooled = {
        (arm, "base", None, metric): one
        for arm, by_metric in found.pooled.items()
        for metric, one in by_metric.items()
    }
    settings = {
        (arm, "base", task, metric): one
        for arm, by_setting in found.by_setting.items()
        for task, by_metric in enumerate(by_setting if len(by_setting) > 1 else [])
        for metric, one in by_metric.items()
    }
    contrasts = {
        (each.arm, each.minus, None, metric): one
        for each in found.contrasts
        for metric, one in each.differences.items()
    }
    return pooled | settings | contrasts


def holm(p_values: dict[Any, float]) -> dict[Any, float]:
    """Holm 1979: the i-th smallest of m p values times m - i + 1, made non-decreasing."""
    least, corrected = 0.0, {}
    for place, key in enumerate(sorted(p_values, key=p_values.__getitem__)):
        least = max(least, (len(p_values) - place) * p_values[key])
        corrected[key] = min(least, 1.0)
    return corrected


# --- the family --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("others", "settings", "expected"),
    [
        # Arms x metrics without the primary test; contrasts; arms x settings; equivalence tests of
        # arms without the primary one, and of contrasts. A single setting counts once.
        ("abc", 3, (3 * 4 - 1) + 3 + 3 * 3 + (2 + 3)),
        ("abc", 1, (3 * 4 - 1) + 3 + 0 + (2 + 3)),
        ("a", 2, (1 * 4 - 1) + 0 + 1 * 2 + 0),
        ("a", 1, 4 - 1),
    ],
)
def test_the_family_is_everything_that_can_make_a_claim(
    others: str, settings: int, expected: int
) -> None:
    arms = arms_of("base", *others)
    found = found_of(arms, settings, spread_out)
    assert found.family == expected
    each = everything(found)
    tested = [one.p_corrected for one in each.values()]
    tested += [one.p_same_corrected for one in each.values()]
    # Including the two tests of the primary question.
    assert sum(p is not None for p in tested) == expected + 2


def test_what_is_undefined_is_no_test() -> None:
    def without(arm: str, minus: str, task: int | None, metric: str) -> tuple[float, float, float]:
        p, p_same, value = spread_out(arm, minus, task, metric)
        return (math.nan if metric == "nll" else p), p_same, value

    assert found_of(arms_of("base", "a", "b"), 2, without).family == (2 * 3 - 1) + 1 + 4 + 2


def test_the_family_is_corrected_by_holms_method() -> None:
    found = found_of(arms_of("base", "a", "b", "c"), 3, spread_out)
    primary, p_values = ("a", "base", None, "acc"), {}
    for (arm, minus, task, metric), one in everything(found).items():
        key = arm, minus, task, metric
        within = metric == "acc" or (minus == "base" and task is None)
        assert (one.p_corrected is not None) == within, key
        if within and key != primary:
            p_values[key, "p"] = one.p
            if one.p_same is not None:
                p_values[key, "p_same"] = one.p_same
    assert len(p_values) == found.family == 28
    for (key, name), expected in holm(p_values).items():
        assert getattr(everything(found)[key], f"{name}_corrected") == pytest.approx(expected), (
            key,
            name,
        )
    # More than one test rejects, and more than one does not.
    findings = [one.finding for one in everything(found).values()]
    assert {"unclear", "higher"} <= {*findings}


def test_the_primary_question_is_tested_alone() -> None:
    """At 0.05 whatever the other tests are, and vice versa."""
    found = found_of(arms_of("base", "a", "b"), 2, lambda *key: (0.049, 0.3, 1.0))
    assert found.primary is not None
    assert found.primary.rejects
    primary = found.pooled["a"]["acc"]
    assert (primary.p_corrected, primary.p_same_corrected) == (0.049, 0.3)
    assert primary.finding == "higher"
    assert {one.finding for key, one in everything(found).items() if key[3] == "acc"} == {
        "higher",
        "unclear",
    }
    moved = found_of(arms_of("base", "a", "b"), 2, lambda *key: (0.05, 0.3, 1.0))
    assert moved.primary is not None
    assert not moved.primary.rejects
    assert moved.pooled["a"]["acc"].finding == "unclear"


# --- the gatekeeper ----------------------------------------------------------------------------


def test_nothing_is_claimed_behind_a_primary_question_that_is_open() -> None:
    """However small the other p values are; their corrected p values are still reported."""
    primary = ("a", "base", None, "acc")

    def told(*key: Any) -> tuple[float, float, float]:
        return (0.06, 0.5, 1.0) if key == primary else (1e-9, 1e-9, 1.0)

    found = found_of(arms_of("base", "a", "b", "c"), 2, told)
    assert found.primary is not None
    assert not found.primary.rejects
    for key, one in everything(found).items():
        assert one.finding == ("unclear" if key == primary else None), key
    assert found.pooled["b"]["acc"].p_corrected == pytest.approx(25 * 1e-9)
    # After a primary test that rejects, all of them are claimed.
    found = found_of(arms_of("base", "a", "b", "c"), 2, lambda *key: (1e-9, 1e-9, 1.0))
    findings = {key: one.finding for key, one in everything(found).items()}
    assert findings[primary] == findings["c", "b", None, "acc"] == "higher and same"
    assert findings["b", "base", 1, "acc"] == findings["b", "base", None, "nll"] == "higher"
    # Exploratory figures are the exception.
    assert findings["b", "base", 1, "nll"] is None
    assert findings["c", "b", None, "nll"] is None


def test_without_a_declared_question_nothing_is_found() -> None:
    found = found_of(arms_of("base", "a", "b"), 2, lambda *key: (1e-9, 1e-9, 1.0), None)
    assert (found.primary, found.family) == (None, 0)
    for key, one in everything(found).items():
        assert one.p == 1e-9, key
        assert (one.p_same, one.p_corrected, one.p_same_corrected, one.finding) == (None,) * 4


# --- each finding ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "p_same", "value", "expected"),
    [
        (0.001, 0.2, 0.1, "higher"),
        (0.001, 0.2, -0.1, "lower"),
        (0.001, 0.01, 0.1, "higher and same"),
        (0.001, 0.01, -0.1, "lower and same"),
        (0.2, 0.01, 0.1, "same"),
        (0.2, 0.01, -0.1, "same"),
        (0.2, 0.2, 0.1, "unclear"),
        (0.05, 0.05, 0.1, "unclear"),
        (0.05, math.nan, -0.1, "unclear"),
        (math.nan, math.nan, 0.1, None),
    ],
)
def test_each_finding(p: float, p_same: float, value: float, expected: str | None) -> None:
    found = found_of(arms_of("base", "a"), 2, lambda *key: (p, p_same, value))
    assert found.pooled["a"]["acc"].finding == expected
    # Other tests: after the correction, and equivalence in the primary metric only.
    if p < 0.05 and expected:
        assert found.pooled["a"]["nll"].finding == expected.removesuffix(" and same")
        assert found.by_setting["a"][1]["acc"].finding == expected.removesuffix(" and same")
        assert found.pooled["a"]["nll"].p_same is None


# --- of whole comparisons ----------------------------------------------------------------------

ACCURACIES = {
    "label_only": {1: (0.40, 0.60), 2: (0.44, 0.58), 3: (0.47, 0.61)},
    "explanation": {1: (0.65, 0.82), 2: (0.68, 0.80), 3: (0.70, 0.86)},
    # Of seeds 2 to 4, only two have a partner.
    "shuffled": {2: (0.30, 0.50), 3: (0.38, 0.40), 4: (0.31, 0.52)},
}


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    for arm, seeds in ACCURACIES.items():
        for seed, (one, two) in seeds.items():
            model(tmp_path / "grid", arm, seed, {FIRST: one, SECOND: two})
    return tmp_path / "grid"


def of_grid(grid: Path, baseline: str = "label_only", **options: Any) -> Comparison:
    return comparison_of(read_arms([str(grid)]), baseline, **options)


def test_contrasts_are_later_arms_less_earlier_ones_seed_by_seed(grid: Path) -> None:
    comparison = of_grid(grid)
    (contrast,) = comparison.contrasts
    assert (contrast.arm, contrast.minus) == ("shuffled", "explanation")
    found = contrast.differences["acc"]
    by_seed = [
        sum(ACCURACIES["shuffled"][seed]) / 2 - sum(ACCURACIES["explanation"][seed]) / 2
        for seed in (2, 3)
    ]
    assert found.value == pytest.approx(sum(by_seed) / 2)
    # There are two pairs of seeds.
    assert (found.over, found.df_seeds) == ("groups", None)
    assert comparison.pooled["explanation"]["acc"].df_seeds == 2
    assert found.finding == "lower"
    # Every metric is present; only the primary one is tested for equivalence.
    assert list(contrast.differences) == comparison.metrics
    assert found.p_same is not None
    assert contrast.differences["nll"].p_same is None


def test_the_explanation_is_the_question_unless_another_is_named(grid: Path) -> None:
    comparison = of_grid(grid)
    assert comparison.primary is not None
    assert (comparison.primary.arm, comparison.primary.metric) == ("explanation", "acc")
    assert comparison.primary.rejects
    assert comparison.margin == 0.01
    metrics = len(comparison.metrics)
    assert comparison.family == (2 * metrics - 1) + 1 + 2 * 2 + (1 + 1)
    assert comparison.pooled["explanation"]["acc"].p_corrected == (
        comparison.pooled["explanation"]["acc"].p
    )
    other = of_grid(grid, primary="shuffled:nll", margin=0.2)
    assert other.primary is not None
    assert (other.primary.arm, other.primary.metric, other.margin) == ("shuffled", "nll", 0.2)
    assert other.pooled["shuffled"]["nll"].p_corrected == other.pooled["shuffled"]["nll"].p
    assert other.pooled["explanation"]["acc"].p_same is None
    assert other.pooled["explanation"]["nll"].p_same is not None
    # In single settings, only the primary metric is tested.
    by_setting = other.differences["explanation"][FIRST]
    assert by_setting["nll"].p_corrected is not None
    assert by_setting["acc"].p_corrected is None


def test_the_only_other_arm_is_the_question(tmp_path: Path) -> None:
    for arm in ("label_only", "filler"):
        model(tmp_path, arm, 1, {FIRST: 0.4})
    primary = of_grid(tmp_path).primary
    assert primary is not None
    assert (primary.arm, primary.metric) == ("filler", "acc")


def test_of_several_arms_without_an_explanation_none_is(grid: Path) -> None:
    comparison = of_grid(grid, "explanation")
    assert comparison.primary is None
    assert comparison.family == 0
    rows = [
        *(one for of in comparison.pooled.values() for one in of.values()),
        *(
            one
            for of in comparison.differences.values()
            for by in of.values()
            for one in by.values()
        ),
        *(one for each in comparison.contrasts for one in each.differences.values()),
    ]
    assert len(rows) == (2 + 2 * 2 + 1) * len(comparison.metrics)
    assert all(one.finding is one.p_corrected is one.p_same is None for one in rows)
    assert all(one.p is not None for one in rows)


def test_a_name_may_have_a_colon(tmp_path: Path) -> None:
    for arm in ("base", "a:acc", "a"):
        model(tmp_path / arm, "label_only", 1, {FIRST: 0.4})
    runs = read_arms([f"{name}={tmp_path / name}" for name in ("base", "a:acc", "a")])
    for primary, expected in {
        "a": ("a", "acc"),
        "a:nll": ("a", "nll"),
        "a:acc": ("a:acc", "acc"),
        "a:acc:nll": ("a:acc", "nll"),
    }.items():
        found = comparison_of(runs, "base", primary=primary).primary
        assert found is not None
        assert (found.arm, found.metric) == expected


@pytest.mark.parametrize(
    ("primary", "expected"),
    [
        ("nobody", "'nobody' is not an arm; name one of explanation, shuffled"),
        ("nobody:acc", "'nobody' is not an arm; name one of explanation, shuffled"),
        ("label_only", "'label_only' is the baseline"),
        ("label_only:nll", "'label_only' is the baseline"),
        ("explanation:speed", "no metric 'speed' to test; name one of acc, "),
        ("explanation:", "no metric '' to test"),
        # A metric that is described but never tested.
        ("explanation:ece", "no metric 'ece' to test"),
        ("explanation:auroc", "not every task has the metric 'auroc'"),
    ],
)
def test_a_question_that_is_none_is_refused(grid: Path, primary: str, expected: str) -> None:
    with pytest.raises(UserError, match="^--primary: ") as caught:
        of_grid(grid, primary=primary)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refused_question_writes_nothing(
    grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["compare", str(grid), "--baseline", "label_only", "--out", str(tmp_path / "out")]
    assert main([*given, "--primary", "explanation:ece"]) == 2
    assert "--primary: there is no metric 'ece'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
