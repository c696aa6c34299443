"""`calibration.json` beside a trained model: its temperature, and what this was fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from regreason_plugin.core.declaration import Normalise, Setting
from regreason_plugin.core.errors import UserError, say_once
from regreason_plugin.core.jsonl import parse_object, validate
from regreason_plugin.core.model_use import CALIBRATION, adapter_of
from regreason_plugin.core.prompt import Order
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.data_folder.folder import Origin
from regreason_plugin.evaluate.answer_cache import IRRELEVANT_ARGUMENTS, folder_digest

# Model arguments that say where a model is; its digest identifies its files.
_PLACES = frozenset({"pretrained", "peft", "tokenizer", "probe"})


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelFit(_Part):
    """How well probabilities fit the labels of the validation rows.

    Attributes:
        nll: Mean negative log-likelihood of the labels, in nats.
        ece: Expected calibration error, with 15 bins of equal width.
    """

    nll: float
    ece: float


class ValidationRows(_Part):
    """The rows that a temperature was fitted on.

    Attributes:
        sha256: The sha256 of the data folder's manifest, which identifies the folder.
        file: Name of the validation file in the folder.
        file_sha256: The sha256 of that file.
        origin: ``generated`` for the mini benchmark, else ``rated``.
        settings: The datasets and axes of the rows.
        rows: Number of rows.
        groups: Number of groups of rows.
    """

    sha256: str
    file: str
    file_sha256: str
    origin: Origin
    settings: list[Setting]
    rows: int = Field(ge=1)
    groups: int = Field(ge=1)


class Calibration(_Part):
    """The temperature of a model.

    Attributes:
        temperature: The temperature T: probabilities are softmax(scores / T).
        low: Lower end of the 95 % confidence interval of T; None if undefined.
        high: Upper end; None if undefined or infinite.
        before: The fit of the plain probabilities.
        after: The fit of softmax(scores / T), on the same rows.
        data: The validation rows.
        model: The `folder_digest` of the model's folder.
        arguments: The model arguments that may change scores, such as ``dtype``.
        order: Whether the model writes the label first or the explanation first.
        labels: Labels as the model writes them.
        normalise: How the scores of labels of unequal length are made comparable.
        versions: Versions of packages.
    """

    format: Literal[1] = 1
    temperature: float = Field(gt=0, allow_inf_nan=False)
    low: float | None
    high: float | None
    before: LabelFit
    after: LabelFit
    data: ValidationRows
    model: str
    arguments: dict[str, Any]
    order: Order
    labels: tuple[str, ...]
    normalise: Normalise
    versions: dict[str, str]

    @property
    def may_be_one(self) -> bool:
        """Whether the interval includes 1, a temperature that changes nothing."""
        if self.low is None:
            return True
        return self.low <= 1 and (self.high is None or self.high >= 1)

    def write(self, folder: Path) -> Path:
        """Write the file into the model's folder.

        Returns:
            The path of the file.
        """
        file = folder / CALIBRATION
        with atomic_writer(file) as stream:
            stream.write(self.model_dump_json(indent=2).encode() + b"\n")
        return file


def model_folder(arguments: Mapping[str, Any]) -> Path:
    """The folder of the model that arguments of lm-eval name: the adapter's, else the model's.

    Raises:
        UserError: The model is not a folder on this machine.
    """
    model = adapter_of(arguments) or str(arguments.get("pretrained"))
    folder = Path(model, "" if adapter_of(arguments) else str(arguments.get("subfolder") or ""))
    if not folder.is_dir():
        raise UserError(
            f"{model} is not a folder on this machine, and {CALIBRATION} is kept in the model's "
            "folder; download the model first"
        )
    return folder


def score_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The model arguments that may change a model's scores, apart from its files."""
    return {
        name: value
        for name, value in sorted(arguments.items())
        if name not in IRRELEVANT_ARGUMENTS | _PLACES and value is not None
    }


def read_calibration(folder: Path, arguments: Mapping[str, Any]) -> Calibration:
    """Read a model's calibration, and check that it was fitted for this model.

    A line on standard error names arguments, such as ``dtype``, that differ from those at the fit.

    Args:
        folder: The model's folder.
        arguments: The model's arguments, as in lm-eval's ``--model_args``.

    Raises:
        UserError: The model has no calibration, or it was fitted for other files of the model.
    """
    file = folder / CALIBRATION
    if not file.is_file():
        raise UserError(
            f"has no {CALIBRATION}; fit its temperature with `regreason calibrate`", path=folder
        )
    calibration = validate(Calibration, parse_object(file.read_bytes(), file, 1), file, 1)
    if calibration.model != folder_digest(folder):
        raise UserError(
            "was fitted for other files of this model (it was trained again or changed since); run "
            "`regreason calibrate` again",
            path=file,
        )
    fitted, used = calibration.arguments, score_arguments(arguments)
    for name in sorted(fitted.keys() | used.keys()):
        # (Results of lm-eval may hold the text of a number or of a truth value.)
        if str(fitted.get(name)) != str(used.get(name)):
            say_once(
                f"{file} was fitted with {name}={fitted.get(name)}, and this run has "
                f"{name}={used.get(name)}"
            )
    return calibration


def check_fitted_for(
    calibration: Calibration,
    file: Path,
    *,
    data_sha256: str | None,
    setting: Setting,
    labels: Sequence[str],
    normalise: Normalise,
    order: Order,
) -> None:
    """Check that a temperature was fitted for the labels that a run scores.

    Args:
        calibration: The calibration.
        file: Its file, for messages.
        data_sha256: The sha256 of the run's data folder; None if it has none.
        setting: The dataset and axis that the run scores.
        labels: The run's labels as the model writes them.
        normalise: How the run makes scores comparable.
        order: Whether the run lets the model write the label first.

    Raises:
        UserError: The temperature was fitted on other data or for other labels.
    """
    if data_sha256 not in (None, calibration.data.sha256):
        raise UserError(
            "was fitted on another data folder than the one that is used; name that folder, or run "
            "`regreason calibrate` again",
            path=file,
        )
    if setting not in calibration.data.settings:
        known = ", ".join(" ".join(one) for one in calibration.data.settings)
        raise UserError(
            f"was fitted on validation rows of {known}, not of {' '.join(setting)}; train and "
            "calibrate a model for it",
            path=file,
        )
    differing = {
        "labels": (list(calibration.labels), list(labels)),
        "normalise": (calibration.normalise, normalise),
        "order": (calibration.order, order),
    }
    for name, (fitted, used) in differing.items():
        if fitted != used:
            raise UserError(
                f"was fitted with {name} {fitted}, and the model is used with {used}; run "
                "`regreason calibrate` again",
                path=file,
            )
