"""The command `calibrate`, which fits the temperature of a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from regreason_plugin.cli.console import batch_size, console, print_whole, progress, say

if TYPE_CHECKING:
    from regreason_plugin.evaluate.calibration_file import Calibration


def add_calibrate(calibrate: argparse.ArgumentParser) -> None:
    """Add the arguments of `calibrate`."""
    calibrate.add_argument(
        "data", type=Path, metavar="DATA", help="the data folder that the model was trained on"
    )
    calibrate.add_argument(
        "--model_args",
        required=True,
        metavar="ARGS",
        help="the model, as lm_eval takes it: pretrained=BASE,peft=ADAPTER[,dtype=...]",
    )
    calibrate.add_argument(
        "--apply_chat_template",
        action="store_true",
        help="put each prompt into the model's chat template, for models trained with it",
    )
    calibrate.add_argument(
        "--batch_size",
        type=batch_size,
        default="auto",
        metavar="N",
        help="rows in a batch; default: auto",
    )
    calibrate.add_argument(
        "--device", metavar="D", help="cpu, cuda, ...; default: a GPU if there is one"
    )


def run_calibrate(args: argparse.Namespace) -> int:
    r"""Fit the temperature of a trained model on validation rows.

    Reads the validation rows of the data folder that the model was trained on, and
    scores their labels. Chooses the temperature T at which softmax(scores / T) fits
    these labels best, and writes calibration.json into the model's folder: T with
    its 95 % confidence interval over groups of rows, how well the probabilities
    fit before and after, and the hashes of model and data. `predict --calibrated`
    and `compare --calibrated` use it. No label changes, and no test row is read.

    Example:
        regreason calibrate runs/tickets/data --model_args pretrained=BASE,peft=ADAPTER
    """
    from regreason_plugin.core.model_use import CALIBRATION
    from regreason_plugin.evaluate.calibration_file import model_folder
    from regreason_plugin.predict.model_loading import read_model_args

    folder = model_folder(read_model_args(args.model_args))
    with progress() as advance:
        advance("score validation rows", 0)
        from regreason_plugin.predict.calibration import calibrate

        calibration = calibrate(
            args.model_args,
            args.data,
            batch_size=args.batch_size,
            device=args.device,
            apply_chat_template=args.apply_chat_template,
            on_rows=lambda rows: advance("score validation rows", rows),
        )
    _say_result(calibration)
    say(f"Written: {folder / CALIBRATION}")
    return 0


def _say_result(calibration: Calibration) -> None:
    data = calibration.data
    if data.origin == "generated":
        say("The validation rows are generated.")
    say(f"Temperature: {calibration.temperature:.4g}, {_interval(calibration)}")
    say(f"Fitted on {data.rows:,} validation rows in {data.groups:,} groups: {data.file}")
    if calibration.low is not None and calibration.high is None:
        say(
            "The interval has no upper end: these rows do not show that the model's scores tell "
            "more about the labels than chance does."
        )
    if calibration.may_be_one:
        say(
            "The interval includes 1, a temperature that changes nothing: these rows do not show "
            "that the model needs one."
        )
    elif calibration.temperature > 1:
        say("The model is overconfident: its probabilities become less extreme.")
    else:
        say("The model is underconfident: its probabilities become more extreme.")
    table = Table("on these validation rows", box=None, pad_edge=False)
    for column in ("before", "after"):
        table.add_column(column, justify="right")
    before, after = calibration.before, calibration.after
    table.add_row("negative log-likelihood, nats", f"{before.nll:.4f}", f"{after.nll:.4f}")
    table.add_row("expected calibration error", f"{before.ece:.4f}", f"{after.ece:.4f}")
    print_whole(console, table)


def _interval(calibration: Calibration) -> str:
    if calibration.low is None:
        return "without an interval, because all rows that tell anything are of one group"
    if calibration.high is None:
        return f"95 % interval {calibration.low:.4g} to infinity"
    return f"95 % interval {calibration.low:.4g} to {calibration.high:.4g}"
