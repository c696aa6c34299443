"""Which aggregator comes nearest to people, on a small golden set of their labels.

The paper chose its aggregator so. All are scored on the same rows, by the label they give,
which is what a model is trained on.
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
    """A person's label of one conversation on one axis."""

    model_config = ConfigDict(extra="forbid")

    id: Text
    axis: AxisName
    label: Label


@dataclass(frozen=True)
class AggregatorScore:
    """How far an aggregator's labels are from people's.

    Attributes:
        by: The aggregator.
        mae: Mean absolute error, in labels.
        mae_interval: 95 %, percentiles of a bootstrap over conversations, whose axes go
            together; None with a single conversation.
        mse: Mean squared error, in labels squared.
        exact: Share of labels that are the same.
        qwk: Cohen's kappa with quadratic weights; None where one side is constant.
    """

    by: str
    mae: float
    mae_interval: tuple[float, float] | None
    mse: float
    exact: float
    qwk: float | None


@dataclass(frozen=True)
class GoldenScores:
    """All aggregators on the same golden rows.

    Attributes:
        scores: In the order of `AGGREGATORS`; without dawid_skene where crowd-kit is missing.
        best: Lowest MAE; of those the lowest MSE; of those the first.
        rows: That were scored.
        conversations: They are of.
        left_out: Golden rows whose ratings are too few to aggregate.
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
        path: JSON lines of ``id``, ``axis``, ``label``.
        settings: The setting of each (id, axis) in the ratings.

    Returns:
        The label by setting and id.

    Raises:
        UserError: With line and field: a line is wrong, stands twice, or is of nothing rated.
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
                f"{what} is not in the ratings; take the line out, or rate it first",
                path=path,
                line=line,
                field="axis" if known else "id",
            )
        labels[setting, row.id] = row.label
    return labels


def score_golden(
    table: ScoreTable, golden: Mapping[tuple[Setting, str], int], path: Path
) -> GoldenScores:
    """Hold every aggregator against the golden labels.

    Args:
        table: All scores, of the rows that have enough of them.
        golden: `read_golden`'s.
        path: Of the golden set, for the message.

    Raises:
        UserError: None of its rows has enough ratings.
    """
    scores_of = {key: table.row(*key) for key in sorted(golden)}
    rows = {key: scores for key, scores in scores_of.items() if scores is not None}
    if not rows:
        raise UserError("none of its rows has enough ratings; lower --minimum", path=path)
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
