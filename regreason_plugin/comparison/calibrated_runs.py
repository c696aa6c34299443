"""The temperatures of a comparison's models, and their answers with calibrated probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from regreason_plugin.comparison.comparison import Interval
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.model_use import CALIBRATION
from regreason_plugin.evaluate.calibration_file import check_fitted_for, read_calibration
from regreason_plugin.evaluate.results import Run, model_arguments
from regreason_plugin.metrics.answers import Answers
from regreason_plugin.metrics.count_formulas import log_probabilities
from regreason_plugin.metrics.metric_names import CALIBRATED, CALIBRATED_METRICS

Figures = TypeVar("Figures")


def with_calibrations(runs: Sequence[Run]) -> list[Run]:
    """The runs, each with its model's calibration.

    Raises:
        UserError: A model has no calibration; or it was fitted for another model, on other data or
            for other labels than those of a task that all models have; or the model was used
            otherwise than it was trained.
    """
    if any(run.logged for run in runs):
        raise UserError("--calibrated is for RegReason's tasks only; leave it out")
    shared = set.intersection(*(set(run.tasks) for run in runs))
    return [_with_calibration(run, sorted(shared)) for run in runs]


def _with_calibration(run: Run, tasks: Sequence[str]) -> Run:
    if run.trained_in is None:
        raise UserError(
            f"--calibrated: {run.model} has no temperature, because RegReason's plugin did not "
            f"train it; leave out the arm {run.name} or --calibrated"
        )
    if run.misfit:
        raise UserError(
            f"--calibrated: {run.model} was scored otherwise than it was trained, so its "
            "temperature does not fit these results; leave --calibrated out"
        )
    calibration = read_calibration(run.trained_in, model_arguments(run.config))
    for task in tasks:
        result = run.tasks[task]
        setting = result.setting
        check_fitted_for(
            calibration,
            run.trained_in / CALIBRATION,
            data_sha256=result.data["sha256"],
            setting=setting.setting,
            labels=[label + setting.label_end for label in setting.labels],
            normalise=setting.normalise,
            order="explanation_first" if setting.generative else "label_first",
        )
    return replace(run, calibration=calibration)


def temperature_of(run: Run) -> Interval | None:
    """The temperature of a model with its interval; None without a calibration."""
    if run.calibration is None:
        return None
    one = run.calibration
    return Interval(value=one.temperature, low=one.low, high=one.high)


def calibrated_answers(models: Sequence[Answers], runs: Sequence[Run]) -> list[Answers]:
    """The models' answers with calibrated probabilities, without probes.

    Returns:
        Nothing if a model has no calibration.
    """
    calibrated = []
    for answers, run in zip(models, runs, strict=True):
        if run.calibration is None:
            return []
        # (The log-probabilities are the scores but for a constant in each document.)
        logs = log_probabilities(answers.log_probabilities / run.calibration.temperature)
        calibrated.append(replace(answers, log_probabilities=logs, probes={}, layers={}))
    return calibrated


def as_calibrated(by_metric: Mapping[str, Figures]) -> dict[str, Figures]:
    """The figures of metrics of probabilities, under their names for calibrated ones."""
    names = {name: CALIBRATED + name for name in by_metric}
    return {new: by_metric[name] for name, new in names.items() if new in CALIBRATED_METRICS}
