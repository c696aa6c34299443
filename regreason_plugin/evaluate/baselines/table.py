"""Prints a table of all methods: their metrics and their cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from regreason_plugin.core.cost import COST, MethodCost, read_cost

METRICS = {"acc": "acc", "macro_f1": "macro-F1", "nll": "NLL", "ece": "ECE"}


@dataclass(frozen=True)
class Outcome:
    """The results of one method, averaged over its seeds.

    Attributes:
        method: The method's name.
        metrics: Means over tasks and seeds, by metric.
        majority: The accuracy of a classifier that always gives each task's most frequent test
            label.
        costs: One cost per seed.
    """

    method: str
    metrics: dict[str, float]
    majority: float
    costs: list[MethodCost]

    def mean(self, key: str) -> float | None:
        """The mean over seeds of one field of the costs; None if no cost has a value."""
        values = [value for cost in self.costs if (value := getattr(cost, key)) is not None]
        return fmean(values) if values else None


def read_outcome(out: Path, method: str, tasks: Sequence[str]) -> Outcome:
    """Read the results and costs of a finished method from the folder of all results."""
    folders = sorted(file.parent for file in (out / method).rglob(COST))
    scores = [_results(folder, tasks) for folder in folders]
    return Outcome(
        method,
        {name: fmean(score[name] for score in scores) for name in METRICS},
        fmean(score["majority_acc"] for score in scores),
        [read_cost(folder) for folder in folders],
    )


def _results(folder: Path, tasks: Sequence[str]) -> dict[str, float]:
    """Unweighted means over tasks of the metrics that lm-eval reported."""
    newest = max(folder.rglob("results_*.json"), key=lambda file: file.name)
    results = json.loads(newest.read_text(encoding="utf-8"))["results"]
    return {
        name: fmean(results[task][f"{name},none"] for task in tasks)
        for name in (*METRICS, "majority_acc")
    }


def print_outcomes(outcomes: Sequence[Outcome], tasks: int, console: Console) -> None:
    """Print the table, and a note on how its numbers were obtained.

    Args:
        outcomes: One per method, a row each.
        tasks: The number of tasks that the means are taken over.
        console: The console to print to.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    gpu = any(cost.peak_gpu_mib is not None for one in outcomes for cost in one.costs)
    costs = ["train s", "tokens", "ms/doc", "RAM GiB", *(["GPU GiB"] if gpu else [])]
    table.add_column("")
    for title in (*METRICS.values(), *costs):
        table.add_column(title, justify="right")
    for one in outcomes:
        cells = [
            _number(one.mean("training_seconds"), ",.1f"),
            _number(one.mean("training_tokens"), ",.0f"),
            _number(one.mean("scoring_ms"), ",.2f"),
            _number(one.mean("peak_memory_mib"), ",.2f", 1024),
        ]
        if gpu:
            cells.append(_number(one.mean("peak_gpu_mib"), ",.2f", 1024))
        seeds = f" x{len(one.costs)}" if len(one.costs) > 1 else ""
        table.add_row(one.method + seeds, *(f"{one.metrics[name]:.3f}" for name in METRICS), *cells)
    table.add_row("majority", f"{outcomes[0].majority:.3f}", style="dim")
    console.print(table)
    machine = outcomes[0].costs[0].machine
    console.print(
        f"Means over {tasks} task{'s' * (tasks > 1)} and, if there are several, over seeds (x). "
        "Seconds, milliseconds and memory were measured once, on this machine "
        f"({machine.describe()}).",
        highlight=False,
    )


def _number(value: float | None, form: str, unit: float = 1.0) -> str:
    return "-" if value is None else format(value / unit, form)
