"""TF-IDF and logistic regression from scikit-learn: one model per setting, without randomness."""

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

# Inverse strengths C of the L2 penalty. If several give the same loss, the smallest is used.
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
# The shortest and the longest n-grams of words, and of characters.
WORDS = (1, 2)
CHARACTERS = (3, 5)
# Only so many of the most frequent n-grams of each kind are used, to bound memory.
FEATURES = 200_000
# Punctuation marks and symbols count as words: one of them may decide the label, and some texts
# consist of nothing else.
_WORD = r"\w+|[^\w\s]"


@dataclass(frozen=True)
class Fitted:
    """The fitted classifier of one setting.

    Attributes:
        features: Turns texts into TF-IDF weights.
        regression: The logistic regression on these weights.
        rows: Number of train rows.
    """

    features: FeatureUnion
    regression: LogisticRegression
    rows: int

    def pipeline(self) -> Pipeline:
        """Features and regression as one scikit-learn estimator."""
        return make_pipeline(self.features, self.regression)


class Tfidf:
    """One fitted classifier per setting.

    Args:
        fitted: The classifier of each setting.
        labels: The number of labels.
    """

    def __init__(self, fitted: dict[Setting, Fitted], labels: int) -> None:
        self.fitted = fitted
        self._labels = labels

    def log_probabilities(self, setting: Setting, prompts: Sequence[str]) -> Array:
        """The log-probability of each label after each of N prompts, ``[N, labels]``."""
        model = self.fitted[setting]
        return _log_probabilities(
            model.regression, model.features.transform(prompts), self._labels, model.rows
        )

    def hyperparameters(self, names: dict[Setting, str]) -> dict[str, Any]:
        """The hyperparameters for the results; C is the one that validation rows chose.

        Args:
            names: The name of each setting's task.
        """
        return {
            "word_ngrams": "-".join(map(str, WORDS)),
            "character_ngrams": "-".join(map(str, CHARACTERS)),
            "max_features": FEATURES,
            "C": {names[setting]: model.regression.C for setting, model in self.fitted.items()},
        }


def fit(rows: Rows, labels: int) -> Tfidf:
    """Fit one classifier per setting; validation rows choose the strength of its penalty.

    Args:
        rows: Train and validation rows.
        labels: The number of labels.
    """
    # On matrices this small, several threads wait for each other longer than they compute.
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
    train_weights = features.fit_transform(train.prompts)
    validation_weights = features.transform(validation.prompts)
    true_labels = np.array(validation.labels) - 1
    best: tuple[float, LogisticRegression] | None = None
    for strength in STRENGTHS:
        regression = LogisticRegression(C=strength, max_iter=2000)
        regression.fit(train_weights, train.labels)
        scores = _log_probabilities(regression, validation_weights, labels, len(train.labels))
        loss = float(-scores[np.arange(len(true_labels)), true_labels].mean())
        if best is None or loss < best[0]:
            best = loss, regression
    assert best is not None
    return Fitted(features, best[1], len(train.labels))


def _log_probabilities(
    regression: LogisticRegression, weights: Any, labels: int, rows: int
) -> Array:
    """The regression's log-probabilities, smoothed for labels that have no train row.

    Such a label gets the probability 1 / (rows + labels), by Laplace's rule of succession, and
    the other labels share the rest. With probability 0, a single test row of such a label would
    make the log loss infinite.
    """
    known = regression.classes_ - 1
    probabilities = np.full((weights.shape[0], labels), 1 / (rows + labels))
    rest = 1 - (labels - len(known)) / (rows + labels)
    probabilities[:, known] = rest * regression.predict_proba(weights)
    # The probability of a very unlikely label may underflow to 0.
    logs: Array = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return logs
