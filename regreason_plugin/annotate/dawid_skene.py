"""Labels by Dawid and Skene's model: every coder has its own matrix of errors.

A. P. Dawid, A. M. Skene: Maximum likelihood estimation of observer error-rates using the EM
algorithm, Applied Statistics 28 (1979), as crowd-kit has it. One model a setting (dataset x
axis), since a rater need not err alike on all of them. The classes are the labels that occur,
the scores rounded half up to them; a coder is a rater with a prompt.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from regreason_plugin.annotate.scores import Floats, ScoreTable, Setting, to_labels
from regreason_plugin.core.errors import UserError

# EM ends when the evidence per score gains less than this, or after so many rounds.
TOLERANCE, ROUNDS = 1e-7, 500


def is_installed() -> bool:
    """Whether crowd-kit is there."""
    return find_spec("crowdkit") is not None


def check_installed() -> None:
    """Refuse to begin without crowd-kit.

    Raises:
        UserError: It is not installed.
    """
    if not is_installed():
        raise UserError(
            "dawid_skene needs crowd-kit; `pip install 'regreason[annotate]'`, or take another "
            "aggregator"
        )


def dawid_skene(table: ScoreTable) -> dict[Setting, dict[str, tuple[float, int]]]:
    """The posterior's mean and most probable label of every row.

    Of labels equally probable, that nearest the posterior's mean is taken, then the higher.

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
    """[rows, labels that occur], and those labels."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    # By row, then by coder: the sums of EM are then taken in one order, to the last bit.
    rows, coders = np.nonzero(~np.isnan(scores))
    data = pd.DataFrame(
        {"task": rows, "worker": coders, "label": scores[rows, coders].astype(np.int64)}
    )
    model = DawidSkene(n_iter=ROUNDS, tol=TOLERANCE).fit_predict_proba(data)
    posterior = model.sort_index().sort_index(axis=1)
    probabilities = posterior.to_numpy(dtype=float)
    # crowd-kit lifts each probability to 1e-10 at least, so that a row's sum exceeds 1.
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities, posterior.columns.to_numpy(dtype=float)


def _most_probable(row: Floats, labels: Floats, mean: float) -> int:
    best = labels[row >= row.max() - 1e-9]
    return int(max(best, key=lambda label: (-round(abs(label - mean), 9), label)))
