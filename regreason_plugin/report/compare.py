"""Several arms against one: a row a setting, wins counted over all of them.

The differences are point estimates: each accuracy has its standard error beside it in
the JSON, the differences have none yet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from regreason_plugin import __version__
from regreason_plugin.errors import UserError
from regreason_plugin.jsonl import atomic_writer
from regreason_plugin.report.results import TASKS, Run
from regreason_plugin.report.same import (
    check_names,
    check_same_documents,
    check_same_setup,
    describe_data,
    tasks_of,
)
from regreason_plugin.settings import AXES, SETTINGS

FORMAT = 1


def compare(runs: list[Run], baseline: str) -> dict[str, Any]:
    """Hold every run against the baseline, task by task.

    Args:
        runs: Two or more, with different names.
        baseline: The name of the one to compare with.

    Returns:
        What ``comparison.json`` holds.

    Raises:
        UserError: The runs were not made on the same documents in the same way.
    """
    check_names(runs)
    names = [run.name for run in runs]
    if baseline not in names:
        raise UserError(f"--baseline {baseline!r} is none of {', '.join(names)}")
    base = next(run for run in runs if run.name == baseline)
    others = [run for run in runs if run.name != baseline]
    if not others:
        raise UserError("nothing to compare with the baseline; give NAME=RESULTS twice or more")
    tasks = tasks_of(base)
    _check_same_training(runs)
    for run in others:
        check_same_setup(base, run)
        for task in tasks:
            check_same_documents(base, run, task)

    rows = [_row(task, base, others) for task in tasks]
    data = base.tasks[tasks[0]].data
    return {
        "format": FORMAT,
        "regreason": __version__,
        "data": data,
        "baseline": baseline,
        "arms": [run.name for run in others],
        "settings": len(rows),
        "settings_in_paper": len(SETTINGS),
        "rows": rows,
        "wins": {
            run.name: {
                "wins": sum(row["arms"][run.name]["difference"] > 0 for row in rows),
                "ties": sum(row["arms"][run.name]["difference"] == 0 for row in rows),
                "of": len(rows),
                "mean_difference": sum(row["arms"][run.name]["difference"] for row in rows)
                / len(rows),
            }
            for run in others
        },
        "runs": {
            run.name: {
                "model": run.config.get("model"),
                "model_args": run.config.get("model_args"),
                "training": run.training,
                "evaluation_seeds": {
                    key: value for key, value in run.config.items() if key.endswith("_seed")
                },
                "sources": sorted({str(run.tasks[task].source) for task in tasks}),
                **run.environment,
            }
            for run in [base, *others]
        },
    }


def _check_same_training(runs: list[Run]) -> None:
    """Refuse arms trained on different data; a model that we did not train may be any."""
    trained = [run for run in runs if run.training]
    for run in trained[1:]:
        first = trained[0]
        if run.training["data"]["sha256"] != first.training["data"]["sha256"]:
            raise UserError(
                f"{run.name!r} and {first.name!r} were trained on different data "
                f"({run.training['data']['path']} and {first.training['data']['path']}); "
                "train both on the same folder",
                path=run.folder,
            )


def _row(task: str, base: Run, others: list[Run]) -> dict[str, Any]:
    dataset, axis = TASKS[task]
    own = base.tasks[task]
    return {
        "task": task,
        "dataset": dataset,
        "axis": axis,
        "documents": own.documents,
        "majority_acc": own.metrics.get("majority_acc"),
        "baseline": {"metrics": own.metrics, "stderrs": own.stderrs},
        "arms": {
            run.name: {
                "metrics": run.tasks[task].metrics,
                "stderrs": run.tasks[task].stderrs,
                "difference": _acc(run, task) - _acc(base, task),
            }
            for run in others
        },
    }


def _acc(run: Run, task: str) -> float:
    value = run.tasks[task].metrics["acc"]
    if value is None:
        raise UserError(f"task {task} has no accuracy", path=run.tasks[task].source)
    return value


def caption(comparison: dict[str, Any]) -> str:
    """What the numbers were made from, in one line."""
    count, whole = comparison["settings"], comparison["settings_in_paper"]
    return f"{describe_data(comparison['data'])}, {count} of {whole} settings"


def _cells(comparison: dict[str, Any]) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Header, body and footer of the table, as text."""
    arms = comparison["arms"]
    header = ["dataset", "axis", "n", "majority", comparison["baseline"]]
    for arm in arms:
        header += [arm, "diff"]
    body = []
    for row in comparison["rows"]:
        cells = [
            row["dataset"],
            AXES[row["axis"]],
            str(row["documents"]),
            _share(row["majority_acc"]),
            _share(row["baseline"]["metrics"]["acc"]),
        ]
        for arm in arms:
            result = row["arms"][arm]
            cells += [_share(result["metrics"]["acc"]), f"{result['difference']:+.3f}"]
        body.append(cells)
    mean = ["mean", "", "", *_means(comparison, lambda row: row["majority_acc"])]
    mean += _means(comparison, lambda row: row["baseline"]["metrics"]["acc"])
    wins = ["wins", "", "", "", ""]
    for arm in arms:
        mean += _means(comparison, lambda row, arm=arm: row["arms"][arm]["metrics"]["acc"])  # type: ignore[misc]
        count = comparison["wins"][arm]
        mean.append(f"{count['mean_difference']:+.3f}")
        ties = f" ({count['ties']} tied)" if count["ties"] else ""
        wins += [f"{count['wins']} of {count['of']}{ties}", ""]
    return header, body, [mean, wins]


def _means(comparison: dict[str, Any], of: Callable[[dict[str, Any]], float | None]) -> list[str]:
    values = [value for row in comparison["rows"] if (value := of(row)) is not None]
    return [_share(sum(values) / len(values) if values else None)]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def to_table(comparison: dict[str, Any]) -> Table:
    """The comparison for a terminal."""
    header, body, footer = _cells(comparison)
    table = Table(title=f"Accuracy: {caption(comparison)}", caption_justify="left")
    for name in header:
        left = name in {"dataset", "axis"}
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    previous = ""
    for cells in body:
        if previous and cells[0] != previous:
            table.add_section()
        previous = cells[0]
        table.add_row(*cells)
    table.add_section()
    for cells in footer:
        table.add_row(*cells, style="bold")
    return table


def _versions(comparison: dict[str, Any], run: dict[str, Any]) -> str:
    used = {
        "regreason": comparison["regreason"],
        "lm_eval": run["lm_eval_version"],
        **run["training"].get("versions", {"transformers": run["transformers_version"]}),
    }
    return "Made with " + ", ".join(f"{name} {number}" for name, number in used.items()) + "."


def print_table(comparison: dict[str, Any]) -> None:
    """Print the table, as wide as it needs to be: one cut by the terminal hides numbers."""
    table = to_table(comparison)
    width = Console(width=1000).measure(table).maximum
    Console(width=max(Console().width, width)).print(table)


def to_markdown(comparison: dict[str, Any]) -> str:
    """The comparison as a Markdown page."""
    header, body, footer = _cells(comparison)
    lines = [
        "# Comparison",
        "",
        f"Accuracy on {caption(comparison)}.",
        f"`diff` is an arm's accuracy minus that of `{comparison['baseline']}`; a win is a "
        "positive difference, however small. The differences have no interval: read them "
        "beside the standard errors in `comparison.json`.",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "|".join(" --- " if i < 2 else " ---: " for i in range(len(header))) + "|",
    ]
    lines += ["| " + " | ".join(cells) + " |" for cells in body]
    lines += ["| " + " | ".join(f"**{c}**" if c else "" for c in cells) + " |" for cells in footer]
    lines += ["", "| run | trained as | seed | rows | steps | target tokens | scored as |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | --- |"]
    for name, run in comparison["runs"].items():
        training = run["training"]
        keys = ("arm", "seed", "rows", "steps", "target_tokens")
        cells = [name, *(str(training.get(key, "-")) for key in keys)]
        arguments = run["model_args"] or ""
        if isinstance(arguments, dict):
            arguments = ",".join(f"{key}={value}" for key, value in arguments.items())
        arguments = arguments.replace("|", "\\|")
        lines.append("| " + " | ".join(cells) + f" | `{run['model']}` `{arguments}` |")
    base = comparison["runs"][comparison["baseline"]]
    lines += ["", _versions(comparison, base)]
    return "\n".join(lines) + "\n"


def write(comparison: dict[str, Any], out: Path) -> list[Path]:
    """Write ``comparison.json`` and ``comparison.md``.

    Returns:
        Their paths.
    """
    import json

    contents = {
        out / "comparison.json": json.dumps(comparison, indent=1, ensure_ascii=False) + "\n",
        out / "comparison.md": to_markdown(comparison),
    }
    for path, text in contents.items():
        with atomic_writer(path) as stream:
            stream.write(text.encode("utf-8"))
    return list(contents)
