"""Labels by the model of Dawid and Skene, in which every coder has its own confusion matrix.

A. P. Dawid, A. M. Skene: Maximum likelihood estimation of observer error-rates using the EM
algorithm, Applied Statistics 28 (1979); the implementation is crowd-kit's. One model is fitted
per setting (dataset x axis), because a rater may err differently on each. A coder is a rater with
a prompt. Scores are rounded half up to labels, and the classes are the labels that occur.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from regreason_plugin.annotate.scores import Floats, ScoreTable, Setting, to_labels
from regreason_plugin.core.errors import UserError

# EM ends when the log-likelihood per score gains less than TOLERANCE, or after ROUNDS rounds.
TOLERANCE, ROUNDS = 1e-7, 500


def is_installed() -> bool:
    """Return whether crowd-kit is installed."""
    return find_spec("crowdkit") is not None


def check_installed() -> None:
    """Refuse to aggregate if crowd-kit is not installed.

    Raises:
        UserError: crowd-kit is not installed.
    """
    if not is_installed():
        raise UserError(
            "the aggregator dawid_skene needs the package crowd-kit; run "
            "`pip install 'regreason[annotate]'` or choose another aggregator"
        )


def dawid_skene(table: ScoreTable) -> dict[Setting, dict[str, tuple[float, int]]]:
    """Score and label of every row: the posterior's mean and its most probable label.

    If several labels are equally probable, the label nearest the posterior's mean is chosen; of
    two that are equally near, the higher one.

    Returns:
        (score, label) by setting and id.
    """
    verdicts: dict[Setting, dict[str, tuple[float, int]]] = {}
    for setting in table.settings:
        posterior, labels = _posterior(to_labels(table.matrix([setting])))
        means = np.round(posterior @ labels, 9)
        verdicts[setting] = {
            row_id: (float(score), _most_probable(row, labels, float(score)))
            for (_, row_id), row, score in zip(table.ids([setting]), posterior, means, strict=True)
        }
    return verdicts


def _posterior(scores: Floats) -> tuple[Floats, Floats]:
    """The posterior as [rows, labels that occur], and the labels that occur."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    # Sorted by row, then by coder: EM adds in this order, so the sums are equal to the last bit.
    rows, coders = np.nonzero(~np.isnan(scores))
    data = pd.DataFrame(
        {"task": rows, "worker": coders, "label": scores[rows, coders].astype(np.int64)}
    )
    model = DawidSkene(n_iter=ROUNDS, tol=TOLERANCE).fit_predict_proba(data)
    posterior = model.sort_index().sort_index(axis=1)
    probabilities = posterior.to_numpy(dtype=float)
    # crowd-kit raises each probability to at least 1e-10, so the sum of a row exceeds 1.
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities, posterior.columns.to_numpy(dtype=float)


def _most_probable(row: Floats, labels: Floats, mean: float) -> int:
    best = labels[row >= row.max() - 1e-9]
    return int(max(best, key=lambda label: (-round(abs(label - mean), 9), label)))
