"""Validation accuracy during training, read from each model's training log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regreason_plugin.comparison.comparison import Curve
from regreason_plugin.core.training_curves import ACCURACIES, LOG, evaluated_accuracy, read_log
from regreason_plugin.evaluate.results import Run


def curves_of(arm: Sequence[Run]) -> list[Curve]:
    """One curve for each model of an arm whose training log has two evaluations or more."""
    curves = []
    for run in arm:
        points = [
            (int(line["target_tokens_seen"]), *accuracy)
            for line in _log(run)
            if (accuracy := evaluated_accuracy(line)) is not None
        ]
        if len(points) > 1:
            tokens, metrics, values = zip(*points, strict=True)
            curves.append(
                Curve(
                    seed=run.seed if isinstance(run.seed, int) else None,
                    metric=metrics[0],
                    tokens=list(tokens),
                    accuracy=list(values),
                )
            )
    return curves


def curve_title(curves: Mapping[str, Sequence[Curve]]) -> str:
    """The titles of the accuracies that the curves of all arms show."""
    metrics = {curve.metric for arm in curves.values() for curve in arm}
    return " / ".join(title for name, title in ACCURACIES.items() if name in metrics)


def _log(run: Run) -> list[dict[str, Any]]:
    has_log = run.trained_in is not None and (run.trained_in / LOG).is_file()
    return read_log(run.trained_in) if run.trained_in and has_log else []
