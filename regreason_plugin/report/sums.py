"""One task's answers as sums by group, from which every metric follows.

A metric is a function of sums over documents: of a 5 x 5 table, of the calibration's bins, of
totals. So the metric itself, what it is without one group, and what it is in a bootstrap sample
are all the same function of other sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from regreason_plugin.evaluation.metrics import (
    ECE_BINS,
    bins_of,
    macro_f1_of_tables,
    qwk_of_tables,
)
from regreason_plugin.report.comparison import METRICS
from regreason_plugin.report.paired import jackknife_influence, mean_influence
from regreason_plugin.report.samples import LAYERS, PROBES, Answers
from regreason_plugin.settings import LABELS

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
# Double precision, or single in a bootstrap.
Numbers = NDArray[Any]

COUNT = len(LABELS)
# A document's summands: its cell of the table; by bin, confidence minus whether it is right;
# then what is a mean of one number each.
_TABLE = slice(0, COUNT * COUNT)
_GAPS = slice(_TABLE.stop, _TABLE.stop + ECE_BINS)
_SUMMED = ("nll", "label_entropy", *PROBES)
_TOTALS = slice(_GAPS.stop, _GAPS.stop + len(_SUMMED))
_DISTANCE = np.abs(np.subtract.outer(range(COUNT), range(COUNT)))
_NO_MEANS = ("macro_f1", "qwk", "ece")


class Statistic(NamedTuple):
    """A metric of several models, and how much each group has to do with it.

    Attributes:
        values: One a model, ``[models]``; NaN where undefined.
        influence: ``[models, groups]``, as of `regreason_plugin.report.paired`.
    """

    values: Array
    influence: Array


@dataclass(frozen=True)
class Sums:
    """All models in one task.

    Attributes:
        groups: The names of the G groups.
        sizes: Documents of each, ``[G]``.
        known: Of how many documents all models have a value, for each mean of `_SUMMED`,
            ``[G, len(_SUMMED)]``.
        rows: Summands by model and group, ``[models, G, summands]``.
        layers: By name such as ``matrix_entropy_by_layer``, ``[models, G, layers + 1]``: sums
            over the documents of which all models have values.
        layers_known: How many these are, by name, ``[G]``.
    """

    groups: list[str]
    sizes: Array
    known: Array
    rows: NDArray[np.float32]
    layers: dict[str, Array]
    layers_known: dict[str, Array]


def sums_of(models: Sequence[Answers]) -> Sums:
    """Sum up what models answered about the same documents."""
    first = models[0]
    groups, member = np.unique(np.array(first.groups), return_inverse=True)
    shape = (len(groups), len(first.ids))
    of_group = csr_array((np.ones(shape[1]), (member, np.arange(shape[1]))), shape=shape)
    summed = [_summed(answers) for answers in models]
    # (A sum is not a number where one of its parts is none.)
    known = np.isfinite(np.stack(summed).sum(axis=0))
    rows = []
    for answers, values in zip(models, summed, strict=True):
        documents = np.zeros((shape[1], _TOTALS.stop))
        place = np.arange(shape[1])
        documents[place, (answers.labels - 1) * COUNT + answers.predictions - 1] = 1
        confidence = confidences(answers)
        documents[place, _GAPS.start + bins_of(confidence)] = confidence - answers.correct
        documents[:, _TOTALS] = np.where(known, values, 0)
        rows.append((of_group @ documents).astype(np.float32))
    layers, layers_known = {}, {}
    for name in LAYERS:
        if all(name in answers.layers for answers in models):
            values = np.stack([answers.layers[name] for answers in models])
            there = np.isfinite(values.sum(axis=(0, 2)))
            layers_known[name] = of_group @ there.astype(np.float64)
            layers[name] = np.stack([of_group @ np.where(there[:, None], v, 0) for v in values])
    return Sums(
        groups=[str(group) for group in groups],
        sizes=of_group @ np.ones(shape[1]),
        known=of_group @ known.astype(np.float64),
        rows=np.stack(rows),
        layers=layers,
        layers_known=layers_known,
    )


def confidences(answers: Answers) -> Array:
    """The probability of each prediction, ``[N]``."""
    best: Array = np.exp(answers.log_probabilities.max(axis=1))
    return best


def _summed(answers: Answers) -> Array:
    """A document's values of `_SUMMED`, ``[N, len(_SUMMED)]``; NaN where it has none."""
    logs = answers.log_probabilities
    nothing = np.full(len(logs), np.nan)
    columns = [
        -logs[np.arange(len(logs)), answers.labels - 1],
        -(np.exp(logs) * logs).sum(axis=1),
        *(answers.probes.get(name, nothing) for name in _SUMMED[2:]),
    ]
    return np.stack(columns, axis=1)


def metrics_of(rows: Numbers, known: Numbers) -> dict[str, Array]:
    """All metrics of sums over documents.

    Args:
        rows: Summands, ``[..., summands]``.
        known: Of how many documents each total is, ``[..., len(_SUMMED)]``.

    Returns:
        By name, ``[...]``; NaN where undefined.
    """
    tables = rows[..., _TABLE].reshape(*rows.shape[:-1], COUNT, COUNT)
    documents = tables.sum(axis=(-2, -1))
    means = _mean_summands(rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            name: total / (known[..., _SUMMED.index(name)] if name in _SUMMED else documents)
            for name, total in means.items()
        }
        found |= {
            "macro_f1": macro_f1_of_tables(tables),
            "qwk": qwk_of_tables(tables),
            "ece": np.abs(rows[..., _GAPS]).sum(axis=-1) / documents,
        }
    return {name: found[name] for name in METRICS}


def statistics_of(sums: Sums) -> dict[str, Statistic]:
    """Every metric of every model with its influences, by name, as far as there are any."""
    rows, known = sums.rows.astype(np.float64), sums.known
    whole, all_known = rows.sum(axis=1), known.sum(axis=0)
    values = metrics_of(whole, all_known)
    without = metrics_of(whole[:, None] - rows, (all_known - known)[None])
    totals = _mean_summands(rows)
    found = {}
    for name in METRICS:
        if name in _NO_MEANS:
            influence = jackknife_influence(values[name], without[name])
            found[name] = Statistic(values[name], influence)
            continue
        sizes = known[:, _SUMMED.index(name)] if name in _SUMMED else sums.sizes
        if sizes.any():
            found[name] = Statistic(*mean_influence(totals[name], sizes))
    return found


def document_values(answers: Answers) -> dict[str, Array]:
    """Each document's own value of what is a mean, ``[N]``; NaN where it has none."""
    confidence = confidences(answers)
    summed = _summed(answers)
    return {
        "acc": answers.correct,
        "mae": np.abs(answers.predictions - answers.labels).astype(np.float64),
        "overconfidence": confidence - answers.correct,
        **{name: summed[:, place] for place, name in enumerate(_SUMMED)},
    }


def _mean_summands(rows: Numbers) -> dict[str, Array]:
    """Of each metric that is a mean, its sum over the documents, ``[...]``."""
    tables = rows[..., _TABLE].reshape(*rows.shape[:-1], COUNT, COUNT)
    totals = rows[..., _TOTALS]
    return {
        "acc": np.trace(tables, axis1=-2, axis2=-1),
        "mae": (tables * _DISTANCE).sum(axis=(-2, -1)),
        "overconfidence": rows[..., _GAPS].sum(axis=-1),
        **{name: totals[..., place] for place, name in enumerate(_SUMMED)},
    }
