"""Fits the temperature of a trained model on validation rows (`regreason calibrate`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regreason_plugin.comparison.temperature import NoTemperatureError, fit_temperature
from regreason_plugin.core.declaration import Setting
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.core.model_use import RECORD, find_record
from regreason_plugin.core.records import Row
from regreason_plugin.core.version import __version__
from regreason_plugin.data_folder.folder import MANIFEST, DataFolder, open_data_folder
from regreason_plugin.data_folder.scopes import settings_of
from regreason_plugin.evaluate.answer_cache import folder_digest
from regreason_plugin.evaluate.calibration_file import (
    Calibration,
    LabelFit,
    ValidationRows,
    model_folder,
    score_arguments,
)
from regreason_plugin.metrics.answers import Array
from regreason_plugin.metrics.count_formulas import log_probabilities
from regreason_plugin.metrics.label_metrics import ece
from regreason_plugin.predict.classifier import Classifier
from regreason_plugin.predict.model_loading import read_model_args

# Rows that are scored together; the progress moves after each such step.
_STEP = 256


def calibrate(
    model_args: str,
    data: str | Path,
    *,
    batch_size: int | str = "auto",
    device: str | None = None,
    apply_chat_template: bool = False,
    on_rows: Callable[[int], object] = lambda rows: None,
) -> Calibration:
    """Fit the temperature of a trained model, and write it into the model's folder.

    One temperature is fitted on the validation rows of all settings that the model was trained
    for. No test row is read.

    Args:
        model_args: The model, written as for `Classifier`: ``pretrained=BASE,peft=ADAPTER``.
        data: The data folder that the model was trained on.
        batch_size: Rows per batch, or ``auto``.
        device: A device such as ``cpu``; None selects a GPU if there is one.
        apply_chat_template: Format prompts with the model's chat template.
        on_rows: Called after each step with the number of rows that it has scored.

    Returns:
        The temperature, its interval, and what it was fitted on, as in ``calibration.json``.

    Raises:
        UserError: The model is not in a folder or was not trained on these data, there are no
            validation rows, or no temperature fits best. Nothing is then written.

    Example:
        >>> from regreason_plugin import calibrate
        >>> model = "pretrained=BASE,peft=runs/tickets/models/label_only"
        >>> calibration = calibrate(model, "runs/tickets/data", device="cpu")
        >>> calibration.data.file
        'validation/label_only.jsonl'
    """
    arguments = read_model_args(model_args)
    place, folder = model_folder(arguments), open_data_folder(data)
    record = _training_of(arguments, folder)
    file, rows = _validation_rows(folder, record)
    setting = rows[0].dataset, rows[0].axis
    classifier = Classifier(
        model_args,
        data,
        setting=setting,
        batch_size=batch_size,
        device=device,
        apply_chat_template=apply_chat_template,
    )
    scores = np.zeros((len(rows), len(folder.declaration.labels)))
    for start in range(0, len(rows), _STEP):
        step = rows[start : start + _STEP]
        scores[start : start + _STEP] = classifier.prompt_scores(
            [row.messages[0].content for row in step]
        )
        on_rows(len(step))
    if not np.isfinite(scores).all():
        raise UserError(
            "the model's scores are not finite; dtype=float32 in --model_args may help", path=place
        )
    labels = np.array([row.label for row in rows])
    groups, member = np.unique([row.group for row in rows], return_inverse=True)
    try:
        fitted = fit_temperature(scores, labels, member)
    except NoTemperatureError as error:
        raise UserError(f"no temperature can be fitted: {error}", path=folder.path / file) from None
    calibration = Calibration(
        temperature=fitted.value,
        low=fitted.low,
        high=fitted.high,
        before=_fit_of(scores, rows),
        after=_fit_of(scores / fitted.value, rows),
        data=ValidationRows(
            sha256=folder.sha256,
            file=file,
            file_sha256=file_sha256(folder.path / file),
            origin=folder.origin,
            settings=sorted({(row.dataset, row.axis) for row in rows}),
            rows=len(rows),
            groups=len(groups),
        ),
        model=folder_digest(place),
        arguments=score_arguments(arguments),
        order=folder.order,
        labels=folder.declaration.written,
        normalise=folder.declaration.normalise,
        versions=_versions(),
    )
    calibration.write(place)
    return calibration


def _training_of(arguments: dict[str, Any], folder: DataFolder) -> dict[str, Any]:
    """The training record of the model.

    Raises:
        UserError: The model has none, or was trained on another data folder.
    """
    named_record = find_record(arguments)
    if named_record is None:
        raise UserError(
            f"has no {RECORD}, so nothing says that it was trained on the train rows of "
            f"{folder.path}; only a model that `axolotl train` has trained with RegReason's plugin "
            "can be calibrated",
            path=model_folder(arguments),
        )
    model, record = named_record
    data = record.get("data")
    trained_on = data if isinstance(data, dict) else {}
    if trained_on.get("sha256") != folder.sha256:
        raise UserError(
            f"{model} was not trained on the train rows of {folder.path} but on "
            f"{trained_on.get('path')}, whose content differs; name the data folder of its training"
        )
    return record


def _validation_rows(folder: DataFolder, record: dict[str, Any]) -> tuple[str, list[Row]]:
    """The validation rows of the settings that a model was trained for.

    A row has the same prompt and label in the files of all arms, so the model's own arm will do.

    Returns:
        The name of the file in the data folder, and the rows.

    Raises:
        UserError: There are none.
    """
    file, scope = f"validation/{record.get('arm')}.jsonl", record.get("scope")
    settings: set[Setting] = set()
    for name in scope.split("+") if scope else [None]:
        settings |= settings_of(name, folder.declaration)
    rows = []
    if folder.manifest.counts["validation"].rows:
        rows = [row for row in folder.rows(file) if (row.dataset, row.axis) in settings]
    if not rows:
        raise UserError(
            "the data folder has no validation rows"
            + (f" of {scope}" if scope else "")
            + ", and a temperature is never fitted on train or test rows; build the data with "
            "validation rows and train on it",
            path=folder.path / MANIFEST,
        )
    return file, rows


def _fit_of(scores: Array, rows: Sequence[Row]) -> LabelFit:
    logs = log_probabilities(scores)
    labels = np.array([row.label for row in rows])
    best = logs.argmax(axis=1)
    items = zip(
        np.exp(logs.max(axis=1)).tolist(),
        (best + 1 == labels).astype(float).tolist(),
        [row.group for row in rows],
        strict=True,
    )
    nll = -logs[np.arange(len(labels)), labels - 1].mean()
    return LabelFit(nll=float(nll), ece=ece(list(items)))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"regreason": __version__, **{name: version(name) for name in ("torch", "transformers")}}
