"""One task's answers as sums by group, from which every metric follows.

A metric is a function of sums over documents: of how often each label is right, predicted and
both, of the calibration's bins, of totals. So the metric itself, what it is without one group, and
what it is in a bootstrap sample are all the same function of other sums. The area under the ROC
curve alone is none, and has `regreason_plugin.metrics.auroc`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from regreason_plugin.metrics.answers import Answers, Array
from regreason_plugin.metrics.auroc import Ranking, ranking_of
from regreason_plugin.metrics.count_formulas import (
    ECE_BINS,
    Numbers,
    bins_of,
    entropy,
    macro_f1_of_counts,
    qwk_of_counts,
)
from regreason_plugin.metrics.influence import Statistic, jackknife_influence, mean_influence
from regreason_plugin.metrics.metric_names import LAYERS, PROBES

Value = TypeVar("Value")

# A document's summands: by bin, confidence minus whether it is right; what is a mean of one number
# each; how many labels, and their square, the prediction is off; then three times K: whether each
# label is predicted and right, is right, is predicted.
_GAPS = slice(0, ECE_BINS)
_SUMMED = ("nll", "label_entropy", *PROBES)
_TOTALS = slice(_GAPS.stop, _GAPS.stop + len(_SUMMED))
_OFF, _SQUARED = _TOTALS.stop, _TOTALS.stop + 1
_COUNTS = slice(_SQUARED + 1, None)
# No means over documents: what a few documents say of them is off to one side.
NO_MEANS = ("macro_f1", "qwk", "auroc", "ece")


@dataclass(frozen=True)
class Sums:
    """All models in one task.

    Attributes:
        groups: The names of the G groups.
        sizes: Documents of each, ``[G]``.
        known: Of how many documents all models have a value, for each mean of `_SUMMED`,
            ``[G, len(_SUMMED)]``.
        rows: Summands by model and group, ``[models, G, summands]``.
        layers: By name such as ``matrix_entropy_by_layer``, a model each, ``[G, layers + 1]``: sums
            over the documents of which all models have values. Models may differ in depth.
        layers_known: How many these are, by name, ``[G]``.
        ordinal: Whether the labels have an order.
        probes_prefix: As of the answers; it stands before the probes' names in what follows.
        rankings: One a model, of two labels; empty of more.
    """

    groups: list[str]
    sizes: Array
    known: Array
    rows: NDArray[np.float32]
    layers: dict[str, list[Array]]
    layers_known: dict[str, Array]
    ordinal: bool
    probes_prefix: str
    rankings: list[Ranking]


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
        documents = np.zeros((shape[1], _COUNTS.start + 3 * answers.count))
        place, off = np.arange(shape[1]), answers.predictions - answers.labels
        counts = documents[:, _COUNTS].reshape(-1, 3, answers.count)
        counts[place, 0, answers.labels - 1] = answers.correct
        counts[place, 1, answers.labels - 1] = 1
        counts[place, 2, answers.predictions - 1] = 1
        documents[:, _COUNTS] = counts.reshape(shape[1], -1)
        documents[:, _OFF], documents[:, _SQUARED] = np.abs(off), off**2
        confidence = answers.confidences
        documents[place, _GAPS.start + bins_of(confidence)] = confidence - answers.correct
        documents[:, _TOTALS] = np.where(known, values, 0)
        rows.append((of_group @ documents).astype(np.float32))
    layers, layers_known = {}, {}
    for name in LAYERS:
        if all(name in answers.layers for answers in models):
            by_model = [answers.layers[name] for answers in models]
            there = np.isfinite(np.sum([values.sum(axis=1) for values in by_model], axis=0))
            layers_known[name] = of_group @ there.astype(np.float64)
            layers[name] = [of_group @ np.where(there[:, None], v, 0) for v in by_model]
    return Sums(
        groups=[str(group) for group in groups],
        sizes=of_group @ np.ones(shape[1]),
        known=of_group @ known.astype(np.float64),
        rows=np.stack(rows),
        layers=layers,
        layers_known=layers_known,
        ordinal=first.ordinal,
        probes_prefix=first.probes_prefix,
        rankings=[
            ranking_of(one.labels, np.diff(one.log_probabilities)[:, 0], member, len(groups))
            for one in models
        ]
        if first.count == 2
        else [],
    )


def _summed(answers: Answers) -> Array:
    """A document's values of `_SUMMED`, ``[N, len(_SUMMED)]``; NaN where it has none."""
    logs = answers.log_probabilities
    nothing = np.full(len(logs), np.nan)
    columns = [
        -logs[np.arange(len(logs)), answers.labels - 1],
        entropy(logs),
        *(answers.probes.get(name, nothing) for name in _SUMMED[2:]),
    ]
    return np.stack(columns, axis=1)


def metrics_of(rows: Numbers, known: Numbers, *, ordinal: bool) -> dict[str, Array]:
    """All metrics that are of sums over documents.

    Args:
        rows: Summands, ``[..., summands]``.
        known: Of how many documents each total is, ``[..., len(_SUMMED)]``.
        ordinal: Whether the labels have an order, which kappa and the absolute error need.

    Returns:
        By name, ``[...]``; NaN where undefined.
    """
    hits, right, predicted = _counts(rows)
    documents = right.sum(axis=-1)
    means = _mean_summands(rows, ordinal=ordinal)
    with np.errstate(invalid="ignore", divide="ignore"):
        metrics = {
            name: total / (known[..., _SUMMED.index(name)] if name in _SUMMED else documents)
            for name, total in means.items()
        }
        metrics |= {
            "macro_f1": macro_f1_of_counts(hits, right, predicted),
            "ece": np.abs(rows[..., _GAPS]).sum(axis=-1) / documents,
        }
        if ordinal:
            metrics["qwk"] = qwk_of_counts(rows[..., _SQUARED], right, predicted)
    return metrics


def _counts(rows: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """How often each label is predicted and right, is right, is predicted: ``[..., K]`` each."""
    counts = rows[..., _COUNTS]
    counts = counts.reshape(*counts.shape[:-1], 3, -1)
    return counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]


def statistics_of(sums: Sums) -> dict[str, Statistic]:
    """Every metric of every model with its influences, by name, as far as there are any."""
    rows, known = sums.rows.astype(np.float64), sums.known
    whole, all_known = rows.sum(axis=1), known.sum(axis=0)
    values = metrics_of(whole, all_known, ordinal=sums.ordinal)
    without = metrics_of(whole[:, None] - rows, (all_known - known)[None], ordinal=sums.ordinal)
    if sums.rankings:
        values["auroc"] = np.array([ranking.value for ranking in sums.rankings])
        without["auroc"] = np.stack([ranking.without for ranking in sums.rankings])
    totals = _mean_summands(rows, ordinal=sums.ordinal)
    statistics = {}
    for name in values:
        if name in NO_MEANS:
            influence = jackknife_influence(values[name], without[name])
            statistics[name] = Statistic(values[name], influence)
            continue
        sizes = known[:, _SUMMED.index(name)] if name in _SUMMED else sums.sizes
        if sizes.any():
            statistics[name] = mean_influence(totals[name], sizes)
    return _named(statistics, sums.probes_prefix)


def drawing(sums: Sums, models: Sequence[int]) -> Callable[[Numbers], dict[str, Numbers]]:
    """What makes every metric of groups that are counted several times, as in bootstrap samples.

    Args:
        sums: Of the task.
        models: Which of its models.

    Returns:
        A function of how often each group comes, ``[draws, G]``, to ``[draws, models]`` by name.
    """
    # Groups first, so that all models are one product.
    rows = np.ascontiguousarray(sums.rows[list(models)].transpose(1, 0, 2))
    rows = rows.reshape(len(rows), -1)
    known = sums.known.astype(np.float32)

    def draw(weights: Numbers) -> dict[str, Numbers]:
        drawn = (weights @ rows).reshape(len(weights), len(models), -1)
        metrics = metrics_of(drawn, (weights @ known)[:, None], ordinal=sums.ordinal)
        if sums.rankings:
            ranked = [sums.rankings[model].weighted(weights) for model in models]
            metrics["auroc"] = np.stack(ranked, axis=1).astype(np.float32)
        return _named(metrics, sums.probes_prefix)

    return draw


def document_values(answers: Answers) -> dict[str, Array]:
    """Each document's own value of what is a mean, ``[N]``; NaN where it has none."""
    summed = _summed(answers)
    off = np.abs(answers.predictions - answers.labels).astype(np.float64)
    values = {
        "acc": answers.correct,
        **({"mae": off} if answers.ordinal else {}),
        "overconfidence": answers.confidences - answers.correct,
        **{name: summed[:, place] for place, name in enumerate(_SUMMED)},
    }
    return _named(values, answers.probes_prefix)


def _named(by_metric: dict[str, Value], probes_prefix: str) -> dict[str, Value]:
    """The same with the probes' prefix before their names."""
    return {probes_prefix * (name in PROBES) + name: one for name, one in by_metric.items()}


def _mean_summands(rows: Numbers, *, ordinal: bool) -> dict[str, Array]:
    """Of each metric that is a mean, its sum over the documents, ``[...]``."""
    hits, _, _ = _counts(rows)
    totals = rows[..., _TOTALS]
    return {
        "acc": hits.sum(axis=-1),
        **({"mae": rows[..., _OFF]} if ordinal else {}),
        "overconfidence": rows[..., _GAPS].sum(axis=-1),
        **{name: totals[..., place] for place, name in enumerate(_SUMMED)},
    }
