"""How well each model knew the validation labels on the way, from its training's log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regreason_plugin.report.comparison import Curve
from regreason_plugin.report.results import Run
from regreason_plugin.training.curves import LOG, read_log


def curves_of(arm: Sequence[Run]) -> list[Curve]:
    """A curve for each model of an arm whose log is beside it; none of one evaluation only."""
    found = []
    for run in arm:
        lines = [line for line in _log(run) if "eval_label_acc" in line]
        lines = [line for line in lines if line["eval_label_acc"] is not None]
        if len(lines) > 1:
            found.append(
                Curve(
                    seed=run.seed if isinstance(run.seed, int) else None,
                    tokens=[int(line["target_tokens_seen"]) for line in lines],
                    accuracy=[float(line["eval_label_acc"]) for line in lines],
                )
            )
    return found


def _log(run: Run) -> list[dict[str, Any]]:
    there = run.trained_in is not None and (run.trained_in / LOG).is_file()
    return read_log(run.trained_in) if run.trained_in and there else []
