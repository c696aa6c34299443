"""Baselines: other classifiers, trained and scored on the same rows and splits as the arms.

``tfidf`` is a bag-of-n-grams classifier, ``head`` puts a classification head on the base model,
``zero_shot`` and ``few_shot`` prompt the untrained base model. Each runs in a separate process,
so that its memory can be measured, and writes lm-eval's results and a ``cost.json``.
"""

METHODS: dict[str, str] = {
    "tfidf": "TF-IDF and logistic regression",
    "head": "classification head with LoRA",
    "zero_shot": "base model, zero-shot",
    "few_shot": "base model, 5 examples",
}
# The methods that need a base model.
WITH_MODEL = ("head", "zero_shot", "few_shot")
SHOTS = 5
