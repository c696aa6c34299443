"""Names, titles, units and directions of the metrics and probes in a comparison."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """The title, direction and unit of a metric.

    Attributes:
        title: Title for headings.
        better: ``higher`` or ``lower``; None if neither direction is better.
        unit: Unit of the values; empty without one.
    """

    title: str
    better: Literal["higher", "lower"] | None
    unit: str = ""


# Prefix of a probe of a model that explains first, read at a label without an explanation.
FORCED = "forced_"
_AT_ONCE = ", label forced at once"

# The primary definition of the activation entropy, on which verdicts are based. It was chosen by
# measurements on an untrained model (docs/explanation/probes.md).
PRIMARY_ACTIVATION = "activation_entropy"
# The other definitions, which results report in addition.
OTHER_ACTIVATIONS = ("activation_entropy_square",)
# Results hold the weights of the primary definition under the key `ACTIVATION_DEFINITION`. Older
# results lack this key; under the primary's name they have the entropy of softmax(h).
ACTIVATION_DEFINITION = "activation_entropy_definition"
ACTIVATION_WEIGHTS = "absolute values"

_PROBES = {
    "output_entropy": Metric("entropy over the vocabulary", None, "nats"),
    "activation_entropy_mid": Metric("activation entropy, |h|, middle blocks", None),
    "activation_entropy_square_mid": Metric("activation entropy, h², middle blocks", None),
    "logit_lens_entropy_mid": Metric("logit lens entropy, middle blocks", None, "nats"),
    "matrix_entropy_mid": Metric("matrix entropy, middle blocks", None),
}
# Probes with one number for each document.
PROBES = tuple(_PROBES)
# Probes with one number for each document and layer.
LAYERS = tuple(name.replace("_mid", "_by_layer") for name in PROBES[1:])

_OF_PROBABILITIES = {
    # In percent, because the square of a gap of three points is only 0.0009.
    "miscalibration": Metric("miscalibration, debiased", "lower", "squared gap, %"),
    "ece": Metric("expected calibration error", "lower"),
    "nll": Metric("negative log-likelihood", "lower", "nats"),
    # Confidence minus accuracy, so no direction is better: both signs are miscalibration.
    "overconfidence": Metric("overconfidence", None),
    "label_entropy": Metric("entropy over the labels", None, "nats"),
}
# Prefix of a metric of the probabilities that each model's own temperature calibrates.
CALIBRATED = "calibrated_"
# They are reported, and never part of the corrected tests.
CALIBRATED_METRICS = tuple(CALIBRATED + name for name in _OF_PROBABILITIES)

# First the metrics of every result (kappa and absolute error only for ordered labels, the area only
# for two labels), beginning with accuracy. A metric of probabilities is followed by its calibrated
# form, which is compared on request. Then the probes.
METRICS = {
    "acc": Metric("accuracy", "higher"),
    "macro_f1": Metric("macro-F1", "higher"),
    "qwk": Metric("quadratic weighted kappa", "higher"),
    "mae": Metric("mean absolute error", "lower", "labels"),
    "auroc": Metric("area under the ROC curve", "higher"),
    **{
        name: metric
        for plain, one in _OF_PROBABILITIES.items()
        for name, metric in (
            (plain, one),
            (CALIBRATED + plain, Metric(f"{one.title}, calibrated", *one[1:])),
        )
    },
    **_PROBES,
    **{FORCED + name: Metric(one.title + _AT_ONCE, *one[1:]) for name, one in _PROBES.items()},
}
# Of any tasks of lm_eval: the first metric of each task, which is averaged over the tasks.
SCORE = "score"
# Metrics in the table of settings.
TABLE_METRICS = (
    "acc",
    "macro_f1",
    "qwk",
    "mae",
    "auroc",
    "miscalibration",
    "nll",
    "overconfidence",
)
# Metrics that are reported but not tested; the calibration error of a calibrated model is not zero.
REPORTED_METRICS = ("ece",)
# Metrics that `regreason gate` accepts: they have a better direction and need no probes.
GATE_METRICS = ("acc", "macro_f1", "qwk", "mae", "auroc", "nll", "miscalibration")

_CURVES = {
    "activation_entropy": ("Activation entropy, |h| / Σ|h|", "entropy / log D"),
    "activation_entropy_square": ("Activation entropy, h² / Σh²", "entropy / log D"),
    "logit_lens_entropy": ("Logit lens entropy", "entropy (nats)"),
    "matrix_entropy": ("Matrix entropy", "entropy / log min(N, D)"),
}
# Title and axis label of each entropy by layer.
LAYER_CURVES = _CURVES | {
    FORCED + name: (title + _AT_ONCE, unit) for name, (title, unit) in _CURVES.items()
}
