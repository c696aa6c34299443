"""Comparison of the aggregators with people's labels, on a small golden set.

The paper chose its aggregator in this way. All aggregators are scored on the same rows, and by
their labels, because a model is trained on the label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from regreason_plugin.annotate.aggregate import AGGREGATORS, ROWWISE
from regreason_plugin.annotate.agreement import Ints, quadratic_kappa
from regreason_plugin.annotate.dawid_skene import dawid_skene, is_installed
from regreason_plugin.annotate.scores import Floats, ScoreTable, Setting, round_half_up
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import check_unique, read_objects, validate
from regreason_plugin.core.paper import RATEABLE
from regreason_plugin.core.records import AxisName, Label, Text

RESAMPLES = 2000


class Golden(BaseModel):
    """One line of a golden set: a person's label of a conversation on an axis."""

    model_config = ConfigDict(extra="forbid")

    id: Text
    axis: AxisName
    label: Label


@dataclass(frozen=True)
class AggregatorScore:
    """The errors of an aggregator's labels, compared with people's labels.

    Attributes:
        by: The aggregator.
        mae: Mean absolute error, in labels.
        mae_interval: 95 % percentile bootstrap interval of `mae`. The bootstrap draws whole
            conversations with all their axes. None if there is a single conversation.
        mse: Mean squared error, in labels squared.
        exact: Share of rows in which both labels are equal.
        qwk: Cohen's kappa with quadratic weights; None if the aggregator's or the people's labels
            are constant.
    """

    by: str
    mae: float
    mae_interval: tuple[float, float] | None
    mse: float
    exact: float
    qwk: float | None


@dataclass(frozen=True)
class GoldenScores:
    """The errors of all aggregators on the same golden rows.

    Attributes:
        scores: One entry per aggregator, in the order of `AGGREGATORS`; without ``dawid_skene`` if
            crowd-kit is not installed.
        best: The aggregator with the lowest MAE; ties go to the lowest MSE, then to the first.
        rows: Number of golden rows that were scored.
        conversations: Number of conversations of these rows.
        left_out: Number of golden rows that have too few ratings to aggregate.
    """

    scores: list[AggregatorScore]
    best: str
    rows: int
    conversations: int
    left_out: int


def read_golden(
    path: Path, settings: Mapping[tuple[str, str], Setting]
) -> dict[tuple[Setting, str], int]:
    """Read a golden set.

    Args:
        path: A file of JSON lines with ``id``, ``axis`` and ``label``.
        settings: The setting (dataset, axis) of each (id, axis) in the ratings.

    Returns:
        The label by setting and id.

    Raises:
        UserError: A line is not valid, repeats an earlier line's id and axis, or has an id and
            axis that are not in the ratings; the error names line and field.
    """
    labels: dict[tuple[Setting, str], int] = {}
    seen: dict[tuple[str, str], int] = {}
    ids = {row_id for row_id, _ in settings}
    for line, value in read_objects(path):
        row = validate(Golden, value, path, line, RATEABLE)
        check_unique(seen, value, path, line)
        setting = settings.get((row.id, row.axis))
        if setting is None:
            known = row.id in ids
            what = f"axis {row.axis!r} of id {row.id!r}" if known else f"id {row.id!r}"
            raise UserError(
                f"{what} is not in the ratings; remove the line, or rate the conversation first",
                path=path,
                line=line,
                field="axis" if known else "id",
            )
        labels[setting, row.id] = row.label
    return labels


def score_golden(
    table: ScoreTable, golden: Mapping[tuple[Setting, str], int], path: Path
) -> GoldenScores:
    """Compare every aggregator's labels with the golden labels.

    Args:
        table: The scores of all rows that have enough usable ratings.
        golden: The golden labels, from `read_golden`.
        path: Path of the golden set, for the error message.

    Raises:
        UserError: No golden row has enough usable ratings.
    """
    scores_of = {key: table.row(*key) for key in sorted(golden)}
    rows = {key: scores for key, scores in scores_of.items() if scores is not None}
    if not rows:
        raise UserError(
            "no row of the golden set has enough usable ratings; lower --minimum", path=path
        )
    truth = np.array([golden[key] for key in rows])
    labels = {
        name: np.array([round_half_up(function(scores)) for scores in rows.values()])
        for name, function in ROWWISE.items()
    }
    if is_installed():
        verdicts = dawid_skene(table)
        labels["dawid_skene"] = np.array([verdicts[setting][row][1] for setting, row in rows])
    conversations = [row for _, row in rows]
    scores = [_score(by, labels[by], truth, conversations) for by in AGGREGATORS if by in labels]
    best = min(scores, key=lambda score: (round(score.mae, 9), round(score.mse, 9)))
    return GoldenScores(
        scores, best.by, len(rows), len(set(conversations)), len(golden) - len(rows)
    )


def _score(
    by: str,
    labels: Ints,
    truth: Ints,
    conversations: list[str],
) -> AggregatorScore:
    errors = labels - truth
    return AggregatorScore(
        by,
        mae=float(np.abs(errors).mean()),
        mae_interval=_interval(np.abs(errors).astype(float), conversations),
        mse=float((errors**2).mean()),
        exact=float((errors == 0).mean()),
        qwk=quadratic_kappa(labels, truth),
    )


def _interval(errors: Floats, conversations: list[str]) -> tuple[float, float] | None:
    _, conversation = np.unique(conversations, return_inverse=True)
    counts = np.bincount(conversation)
    if len(counts) < 2:
        return None
    sums = np.bincount(conversation, weights=errors)
    drawn = np.random.default_rng(0).integers(len(counts), size=(RESAMPLES, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
