"""The metrics and probes that results are compared by: names, titles, and which way is better."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """How a metric is printed and read.

    Attributes:
        title: For a heading.
        better: ``higher`` or ``lower``; None where neither is better in itself.
        unit: What a value of 1 is; empty where it has none.
    """

    title: str
    better: Literal["higher", "lower"] | None
    unit: str = ""


# Of a probe that reads a model which explains first where the label is forced at once.
FORCED = "forced_"
_AT_ONCE = ", label forced at once"

# The primary definition of the activation entropy, which a verdict speaks of. It was fixed on an
# untrained model, by numbers (docs/explanation/probes.md).
PRIMARY_ACTIVATION = "activation_entropy"
# The other definitions, which stand beside it.
OTHER_ACTIVATIONS = ("activation_entropy_square",)
# The weights of the primary definition, as results name them under `ACTIVATION_DEFINITION`.
# (Results without this mark have the entropy of softmax(h) under the primary's name.)
ACTIVATION_DEFINITION = "activation_entropy_definition"
ACTIVATION_WEIGHTS = "absolute values"

_PROBES = {
    "output_entropy": Metric("entropy over the vocabulary", None, "nats"),
    "activation_entropy_mid": Metric("activation entropy, |h|, middle blocks", None),
    "activation_entropy_square_mid": Metric("activation entropy, h², middle blocks", None),
    "logit_lens_entropy_mid": Metric("logit lens entropy, middle blocks", None, "nats"),
    "matrix_entropy_mid": Metric("matrix entropy, middle blocks", None),
}
# One number a document, of a model with probes.
PROBES = tuple(_PROBES)
# One number a document and layer.
LAYERS = tuple(name.replace("_mid", "_by_layer") for name in PROBES[1:])

# Accuracy first: those that every result has, with kappa and the absolute error of ordered labels
# alone and the area of two labels alone; then what a probing model adds.
METRICS = {
    "acc": Metric("accuracy", "higher"),
    "macro_f1": Metric("macro-F1", "higher"),
    "qwk": Metric("quadratic weighted kappa", "higher"),
    "mae": Metric("mean absolute error", "lower", "labels"),
    "auroc": Metric("area under the ROC curve", "higher"),
    # (In percent, as a gap of three points is 0.0009 otherwise.)
    "miscalibration": Metric("miscalibration, debiased", "lower", "squared gap, %"),
    "ece": Metric("expected calibration error", "lower"),
    "nll": Metric("negative log-likelihood", "lower", "nats"),
    # Confidence minus accuracy: below zero is as wrong as above.
    "overconfidence": Metric("overconfidence", None),
    "label_entropy": Metric("entropy over the labels", None, "nats"),
    **_PROBES,
    **{FORCED + name: Metric(one.title + _AT_ONCE, *one[1:]) for name, one in _PROBES.items()},
}
# Those of a table by setting.
TABLED = ("acc", "macro_f1", "qwk", "mae", "auroc", "miscalibration", "nll", "overconfidence")
# Described, never tested: it is above zero for a calibrated model, too.
DESCRIBED = ("ece",)
# Those that a gate can be of: it can be said which way is better, and they need no probes.
GATED = ("acc", "macro_f1", "qwk", "mae", "auroc", "nll", "miscalibration")

_CURVES = {
    "activation_entropy": ("Activation entropy, |h| / Σ|h|", "entropy / log D"),
    "activation_entropy_square": ("Activation entropy, h² / Σh²", "entropy / log D"),
    "logit_lens_entropy": ("Logit lens entropy", "entropy (nats)"),
    "matrix_entropy": ("Matrix entropy", "entropy / log min(N, D)"),
}
# Title and unit of an entropy by layer.
LAYER_CURVES = _CURVES | {
    FORCED + name: (title + _AT_ONCE, unit) for name, (title, unit) in _CURVES.items()
}
