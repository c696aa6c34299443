"""TF-IDF and logistic regression, a model a setting: scikit-learn's, without a random draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from regreason_plugin.core.declaration import Setting
from regreason_plugin.evaluate.baselines.classifier_lm import Array
from regreason_plugin.evaluate.baselines.training_rows import Examples, Rows

# Inverse strengths of the L2 penalty; the smallest of equals is taken.
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
WORDS = (1, 2)
CHARACTERS = (3, 5)
# The most frequent n-grams of each kind, so that memory stays bounded.
FEATURES = 200_000
# Signs count as words: a task may be decided by one, and a text may have nothing else.
_WORD = r"\w+|[^\w\s]"


@dataclass(frozen=True)
class Fitted:
    """The classifier of one setting.

    Attributes:
        features: Texts to TF-IDF weights.
        regression: On these.
        rows: How many it was fitted to.
    """

    features: FeatureUnion
    regression: LogisticRegression
    rows: int

    def pipeline(self) -> Pipeline:
        """Both as one estimator of scikit-learn."""
        return make_pipeline(self.features, self.regression)


class Tfidf:
    """A classifier a setting."""

    def __init__(self, fitted: dict[Setting, Fitted], labels: int) -> None:
        self.fitted = fitted
        self._labels = labels

    def log_probabilities(self, setting: Setting, prompts: Sequence[str]) -> Array:
        """Of each label, ``[N, labels]``."""
        model = self.fitted[setting]
        return _log_probabilities(
            model.regression, model.features.transform(prompts), self._labels, model.rows
        )

    def hyperparameters(self, names: dict[Setting, str]) -> dict[str, Any]:
        """What was set and what was chosen; ``names`` are the settings' tasks."""
        return {
            "word_ngrams": "-".join(map(str, WORDS)),
            "character_ngrams": "-".join(map(str, CHARACTERS)),
            "max_features": FEATURES,
            "C": {names[setting]: model.regression.C for setting, model in self.fitted.items()},
        }


def fit(rows: Rows, labels: int) -> Tfidf:
    """Fit every setting to its train rows; validation rows choose the strength of the penalty.

    Args:
        rows: What to learn from.
        labels: How many there are.
    """
    # Threads wait for each other longer than they work on matrices this small.
    with threadpool_limits(1):
        fitted = {
            setting: _fit(examples, rows.validation[setting], labels)
            for setting, examples in rows.train.items()
        }
    return Tfidf(fitted, labels)


def _features() -> FeatureUnion:
    words = TfidfVectorizer(
        ngram_range=WORDS,
        token_pattern=_WORD,
        sublinear_tf=True,
        max_features=FEATURES,
    )
    characters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=CHARACTERS, sublinear_tf=True, max_features=FEATURES
    )
    return FeatureUnion([("words", words), ("characters", characters)])


def _fit(train: Examples, validation: Examples, labels: int) -> Fitted:
    features = _features()
    seen = features.fit_transform(train.prompts)
    held_out = features.transform(validation.prompts)
    right = np.array(validation.labels) - 1
    best: tuple[float, LogisticRegression] | None = None
    for strength in STRENGTHS:
        regression = LogisticRegression(C=strength, max_iter=2000)
        regression.fit(seen, train.labels)
        scores = _log_probabilities(regression, held_out, labels, len(train.labels))
        loss = float(-scores[np.arange(len(right)), right].mean())
        if best is None or loss < best[0]:
            best = loss, regression
    assert best is not None
    return Fitted(features, best[1], len(train.labels))


def _log_probabilities(
    regression: LogisticRegression, weights: Any, labels: int, rows: int
) -> Array:
    """scikit-learn's probabilities, with something left for labels without a train row.

    Such a label gets 1 / (rows + labels), Laplace's rule of succession, and the others share
    the rest: with 0 the log loss of a single test row would be infinite.
    """
    known = regression.classes_ - 1
    probabilities = np.full((weights.shape[0], labels), 1 / (rows + labels))
    left = 1 - (labels - len(known)) / (rows + labels)
    probabilities[:, known] = left * regression.predict_proba(weights)
    # A hopeless label's probability may underflow.
    logs: Array = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return logs
