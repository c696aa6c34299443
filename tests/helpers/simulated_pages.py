"""Comparisons of simulated models, checked against the truth.

`page` makes the `Comparison` of simulated models with the project's own code, from their answers
to the words of the verdict. `tally` counts the correct and wrong statements on many pages of a
design.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from helpers.known_truth import Array, Design, Simulated, Truth, simulate

from regreason_plugin.comparison import compare as comparing
from regreason_plugin.comparison import task_scores
from regreason_plugin.comparison.arms import Arms
from regreason_plugin.comparison.comparability import tasks_of
from regreason_plugin.comparison.comparison import (
    Comparison,
    Detectable,
    Difference,
    Interval,
    Needed,
)
from regreason_plugin.comparison.estimates import Estimates
from regreason_plugin.metrics.answers import Answers

MARGIN = 0.01
METRICS = ("acc", "macro_f1", "nll", "miscalibration")
_ROUNDING = 1e-6
_CLAIM = re.compile(r"\b(higher|lower|better|worse|the same within|keeps \d)", re.IGNORECASE)
_NEEDED = Needed(difference=0.02, groups=None, seeds=None)


def page(
    models: Simulated,
    *,
    detectable: bool = False,
    claims_only: bool = False,
    margin: float = MARGIN,
) -> Comparison:
    """The comparison of simulated models.

    Args:
        models: The simulated models; the primary question is about the first arm that is not the
            baseline.
        detectable: Whether to compute the smallest detectable difference, which takes long.
        claims_only: Whether to leave out figures that make no claim: those of arms alone, and in
            single settings those of every metric but accuracy.
        margin: Margin within which a difference counts as the same.
    """

    def answered(result: Any) -> Answers:
        return models.answers[result.task][int(result.source.parent.name)]

    arms = Arms.of(models.runs, models.runs[0].name)
    with ExitStack() as patches:

        def replace(module: Any, name: str, value: Any) -> None:
            patches.enter_context(patch.object(module, name, value))

        replace(task_scores, "read_answers", answered)
        replace(task_scores, "samples_file", lambda _: Path("nowhere"))
        # These steps take long and do not affect the result: versions of libraries, rounding.
        replace(task_scores, "check_same_answers", lambda *_: None)
        replace(comparing.importlib.metadata, "version", lambda _: "0")
        replace(comparing.form, "rounded", lambda comparison: comparison)
        replace(comparing, "needed_for", lambda *_: _NEEDED)
        if claims_only:
            replace(Estimates, "scores", lambda *_: {})
            replace(Estimates, "estimate", _of_claims(Estimates.estimate))
            replace(comparing, "gaps", lambda *_: {})
        if not detectable:
            replace(comparing, "detectable_of", lambda *_: Detectable(value=None))
        scores = task_scores.read_tasks(arms.models, tasks_of(arms.models[0]))
        return comparing.conclude(arms, scores, (arms.others[0], "acc"), margin=margin)


def _of_claims(estimate: Callable[..., Any]) -> Callable[..., Any]:
    def chosen(
        estimates: Estimates, metric: str, models: Any, task: int | None = None, *rest: Any
    ) -> Any:
        if task is not None and metric != "acc":
            return None
        return estimate(estimates, metric, models, task, *rest)

    return chosen


class Tested(NamedTuple):
    """A difference in a comparison, and its true value."""

    kind: str
    metric: str
    difference: Difference
    truth: float


@dataclass
class Share:
    """The frequency of an event: the mean over pages of its share on a page."""

    pages: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, part: float, of: float = 1.0) -> None:
        """Add a page with the event in ``part`` of ``of`` cases, unless it has no cases."""
        if of:
            self.pages += 1
            self.total += part / of
            self.squares += (part / of) ** 2

    @property
    def value(self) -> float:
        """The share; NaN without any page."""
        return self.total / self.pages if self.pages else float("nan")

    @property
    def error(self) -> float:
        """The Monte-Carlo standard error over pages; at least that of a single event."""
        if not self.pages:
            return float("nan")
        least = (1 - 1 / self.pages) / self.pages
        variance = max(self.squares / self.pages - self.value**2, least)
        return (variance / self.pages) ** 0.5


@dataclass
class Tally:
    """The counts over the pages of one design.

    Attributes:
        shares: Shares by event: ``cover`` and ``dash`` for each kind of figure and metric; ``false
            claim`` and ``any claim`` on a page; ``primary`` with the finding about the primary
            question.
    """

    shares: dict[str, Share] = field(default_factory=lambda: defaultdict(Share))

    def add(self, comparison: Comparison, design: Design, truth: Truth, shifts: Array) -> None:
        """Add the events of one page."""
        covered: dict[str, list[bool | None]] = defaultdict(list)
        false = claim = False
        for kind, metric, one, true in tested(comparison, truth, shifts):
            if metric in METRICS and kind != "contrast":
                covered[f"{kind} {metric}"].append(_covers(one, true))
            false |= is_false(one, true)
            claim |= (one.finding or "unclear") != "unclear"
        # Words that claim something without a finding behind them are a false claim.
        false |= speaks(comparison) and not claim
        if comparison.primary:
            primary = comparison.pooled[comparison.primary.arm][comparison.primary.metric]
            words = primary.finding or "unclear"
            self.shares["primary higher"].add(float("higher" in words))
            self.shares["primary lower"].add(float("lower" in words))
            self.shares["primary same"].add(float("same" in words))
        for kind, interval, true in _alone(comparison, design, truth, shifts):
            covered[kind].append(_covers(interval, true))
        for name, values in covered.items():
            known = [value for value in values if value is not None]
            self.shares[f"cover {name}"].add(sum(known), len(known))
            self.shares[f"dash {name}"].add(len(values) - len(known), len(values))
        self.shares["false claim"].add(float(false))
        self.shares["any claim"].add(float(claim))


def tested(comparison: Comparison, truth: Truth, shifts: Array) -> Iterator[Tested]:
    """All differences on a page that can make a claim or have an interval."""
    arms = [comparison.baseline, *comparison.arms]
    tasks = [setting.task for setting in comparison.settings]
    spreads = truth.design.of_arm(truth.design.spreads, 1.0)
    for metric in comparison.metrics:
        try:
            by_setting, pooled = truth.of_page(metric, shifts)
        except KeyError:
            continue
        for place, arm in enumerate(comparison.arms, start=1):
            gain = by_setting[place] - by_setting[0]
            if len(tasks) > 1:
                for at, task in enumerate(tasks):
                    one = comparison.differences[arm][task][metric]
                    yield Tested("setting", metric, one, float(gain[at]))
            # Arms whose seeds vary more than those of others get a separate row.
            kind = "pooled" if spreads[place] <= 1 else "pooled wide"
            one = comparison.pooled[arm][metric]
            yield Tested(kind, metric, one, float(pooled[place] - pooled[0]))
        for contrast in comparison.contrasts:
            if metric in contrast.differences:
                gain = pooled[arms.index(contrast.arm)] - pooled[arms.index(contrast.minus)]
                yield Tested("contrast", metric, contrast.differences[metric], float(gain))


def _alone(
    comparison: Comparison, design: Design, truth: Truth, shifts: Array
) -> Iterator[tuple[str, Interval, float]]:
    """The accuracy of each arm."""
    if not comparison.pooled_scores[comparison.baseline]:
        return
    by_setting, pooled = truth.of_page("acc", shifts)
    for place, arm in enumerate([comparison.baseline, *comparison.arms]):
        if design.settings > 1:
            for at, setting in enumerate(comparison.settings):
                one = comparison.scores[arm][setting.task]["acc"]
                yield "setting acc alone", one, float(by_setting[place, at])
        yield "pooled acc alone", comparison.pooled_scores[arm]["acc"], float(pooled[place])


def _covers(interval: Interval, true: float) -> bool | None:
    if interval.low is None or interval.high is None:
        return None
    return interval.low - _ROUNDING <= true <= interval.high + _ROUNDING


def is_false(one: Difference, true: float) -> bool:
    """Whether the finding about a difference is false."""
    words = one.finding or "unclear"
    return (
        ("higher" in words and true <= _ROUNDING)
        or ("lower" in words and true >= -_ROUNDING)
        or ("same" in words and abs(true) >= MARGIN - _ROUNDING)
    )


def speaks(comparison: Comparison) -> bool:
    """Whether the answers in words make any claim."""
    said = [text for one in comparison.answers for text in (one.short, *one.sentences)]
    return any(_CLAIM.search(text) for text in said)


def tally(
    design: Design,
    pages: int,
    seed: list[int],
    **options: Any,
) -> Tally:
    """Simulate pages of one design and count their events."""
    truth, counts = Truth(design), Tally()
    random = np.random.default_rng(seed)
    for _ in range(pages):
        models = simulate(design, random)
        counts.add(page(models, **options), design, truth, models.shifts)
    return counts
