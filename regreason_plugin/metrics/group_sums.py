"""All metrics of all models in one task, with the influence of each group of documents on them.

Most metrics are means over documents. Macro-F1, kappa, the area under the ROC curve and
miscalibration are not. For these, the influence of a group comes from leaving it out (jackknife),
which is fast because the formulas work on sums by group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from regreason_plugin.metrics.answers import Answers, Array, Integers
from regreason_plugin.metrics.auroc import area_of
from regreason_plugin.metrics.calibration import miscalibration
from regreason_plugin.metrics.count_formulas import (
    entropy,
    macro_f1_of_counts,
    qwk_of_counts,
    table_of,
)
from regreason_plugin.metrics.influence import Statistic, jackknife_influence, mean_influence
from regreason_plugin.metrics.metric_names import LAYERS, PROBES


@dataclass(frozen=True)
class Sums:
    """The groups of one task, and the sums of the entropies by layer of all models.

    Attributes:
        groups: Names of the G groups.
        member: Index of each document's group, ``[N]``.
        sizes: Number of documents of each group, ``[G]``.
        layers: By a name such as ``matrix_entropy_by_layer``, one array ``[G, layers + 1]`` for
            each model: sums over the documents for which all models have values. Models may
            differ in depth.
        layers_known: Number of these documents in each group, ``[G]``, by the same names.
        probes_prefix: Prefix of the probes' names in the comparison (`Answers.probes_prefix`).
    """

    groups: list[str]
    member: Integers
    sizes: Array
    layers: dict[str, list[Array]]
    layers_known: dict[str, Array]
    probes_prefix: str


def sums_of(models: Sequence[Answers]) -> Sums:
    """Sum the values of several models that answered about the same documents."""
    groups, member = _groups_of(models)
    of_group = _summation_matrix(member, len(groups))
    layers, layers_known = {}, {}
    for name in LAYERS:
        if all(name in answers.layers for answers in models):
            by_model = [answers.layers[name] for answers in models]
            # The sum over models and layers is NaN if any of the values is.
            known = np.isfinite(np.sum([values.sum(axis=1) for values in by_model], axis=0))
            layers_known[name] = of_group @ known.astype(np.float64)
            layers[name] = [of_group @ np.where(known[:, None], v, 0) for v in by_model]
    return Sums(
        groups=groups,
        member=member,
        sizes=of_group @ np.ones(len(member)),
        layers=layers,
        layers_known=layers_known,
        probes_prefix=models[0].probes_prefix,
    )


def statistics_of(models: Sequence[Answers]) -> dict[str, Statistic]:
    """The values and influences of all models by metric, for every metric that has a value.

    A mean is taken over the documents for which all models have a value.
    """
    groups, member = _groups_of(models)
    of_group = _summation_matrix(member, len(groups))
    by_model = [document_values(answers) for answers in models]
    statistics = {}
    for name in by_model[0]:
        values = np.stack([of[name] for of in by_model])
        known = np.isfinite(values).all(axis=0)
        if known.any():
            totals = (of_group @ np.where(known, values, 0).T).T
            statistics[name] = mean_influence(totals, of_group @ known.astype(np.float64))
    jackknifed = [dict(_jackknifed_metrics(answers, member, len(groups))) for answers in models]
    for name in jackknifed[0]:
        parts = [of[name] for of in jackknifed]
        statistics[name] = Statistic(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.influence for part in parts]),
        )
    return statistics


def document_values(answers: Answers) -> dict[str, Array]:
    """The documents' values ``[N]`` of every metric that is a mean; NaN where undefined."""
    logs = answers.log_probabilities
    errors = np.abs(answers.predictions - answers.labels).astype(np.float64)
    nothing = np.full(len(logs), np.nan)
    return {
        "acc": answers.correct,
        **({"mae": errors} if answers.ordinal else {}),
        "overconfidence": answers.confidences - answers.correct,
        "nll": -logs[np.arange(len(logs)), answers.labels - 1],
        "label_entropy": entropy(logs),
        **{answers.probes_prefix + name: answers.probes.get(name, nothing) for name in PROBES},
    }


def _groups_of(models: Sequence[Answers]) -> tuple[list[str], Integers]:
    """The names of the groups, and the index of each document's group, ``[N]``."""
    names, member = np.unique(np.array(models[0].groups), return_inverse=True)
    return [str(name) for name in names], member.astype(np.int64)


def _summation_matrix(member: Integers, groups: int) -> csr_array:
    """The sparse matrix ``[G, N]`` that sums documents' values by group."""
    shape = (groups, len(member))
    return csr_array((np.ones(shape[1]), (member, np.arange(shape[1]))), shape=shape)


def _jackknifed_metrics(
    answers: Answers, member: Integers, groups: int
) -> Iterator[tuple[str, Statistic]]:
    """Yield one model's metrics that are not means: name, and ``[1]`` and ``[1, G]`` arrays."""
    shape, hit = (groups, answers.count), np.flatnonzero(answers.correct)
    # ``[3, G, K]``: documents for which a label is true and predicted, is true, is predicted.
    by_group = np.stack(
        [
            table_of(member[hit], answers.labels[hit] - 1, shape),
            table_of(member, answers.labels - 1, shape),
            table_of(member, answers.predictions - 1, shape),
        ]
    )
    whole = by_group.sum(axis=1)
    left = whole[:, None] - by_group
    yield "macro_f1", _jackknifed(macro_f1_of_counts(*whole), macro_f1_of_counts(*left))
    if answers.ordinal:
        squared = np.bincount(member, (answers.predictions - answers.labels) ** 2, groups)
        with np.errstate(invalid="ignore", divide="ignore"):
            yield (
                "qwk",
                _jackknifed(
                    qwk_of_counts(squared.sum(), *whole[1:]),
                    qwk_of_counts(squared.sum() - squared, *left[1:]),
                ),
            )
    if answers.count == 2:
        odds = np.diff(answers.log_probabilities)[:, 0]
        area = area_of(answers.labels, odds, member, groups)
        yield "auroc", _jackknifed(np.array(area.value), area.without)
    yield "miscalibration", miscalibration(answers.confidences, answers.correct, member)


def _jackknifed(value: Array, without: Array) -> Statistic:
    return Statistic(value[None], jackknife_influence(value[None], without[None]))
