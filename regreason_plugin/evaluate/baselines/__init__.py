"""What people would pick instead, on the same rows and splits.

``tfidf`` counts words, ``head`` puts a classification head on the base model, ``zero_shot`` and
``few_shot`` ask the base model as it is. Each works in a process of its own, so that its memory
is its own, and leaves lm-eval's results and a ``cost.json``.
"""

METHODS: dict[str, str] = {
    "tfidf": "TF-IDF and logistic regression",
    "head": "classification head with LoRA",
    "zero_shot": "base model, zero-shot",
    "few_shot": "base model, 5 examples",
}
# These read a base model.
WITH_MODEL = ("head", "zero_shot", "few_shot")
SHOTS = 5
