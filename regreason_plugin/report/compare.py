"""Several arms against one: a row a setting, wins counted over all of them.

An arm is one trained model or several that differ in the seed. The differences are point
estimates: each accuracy has its standard error beside it in the JSON. Only over three seeds
or more has the mean difference an interval.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from regreason_plugin import __version__
from regreason_plugin.errors import UserError
from regreason_plugin.jsonl import atomic_writer
from regreason_plugin.markdown import code, escape
from regreason_plugin.report.arms import by_name
from regreason_plugin.report.results import TASKS, Run, TaskResult
from regreason_plugin.report.same import (
    check_same_documents,
    check_same_protocol,
    check_same_setup,
    describe_data,
    tasks_of,
)
from regreason_plugin.report.seeds import ENOUGH_SEEDS, LEVEL, half_width
from regreason_plugin.settings import AXES, SETTINGS

FORMAT = 2
# Of the interval over seeds.
OVER = "over training seeds, these test documents only"

Seeds = list[Run]


def compare(runs: list[Run], baseline: str) -> dict[str, Any]:
    """Hold every arm against the baseline, task by task.

    Where arms have several seeds, a number is the mean over them, and a difference the mean
    of the differences between models of the same seed. Arms with unequal seeds are compared
    by their means alone.

    Args:
        runs: A run a model; those of one name are the seeds of an arm. Two names or more.
        baseline: The name of the one to compare with.

    Returns:
        What ``comparison.json`` holds.

    Raises:
        UserError: The runs were not made on the same documents in the same way.
    """
    arms = by_name(runs)
    if baseline not in arms:
        raise UserError(f"--baseline {baseline!r} is none of {', '.join(arms)}")
    base = arms[baseline]
    others = {name: arm for name, arm in arms.items() if name != baseline}
    if not others:
        raise UserError("nothing to compare with the baseline; give NAME=RESULTS twice or more")
    tasks = tasks_of(base[0])
    ordered = [*base, *(run for arm in others.values() for run in arm)]
    _check_same_training(ordered)
    for run in ordered[1:]:
        check_same_protocol(base[0], run)
        check_same_setup(base[0], run)
        for task in tasks:
            check_same_documents(base[0], run, task)

    rows = [_row(task, base, others) for task in tasks]
    return {
        "format": FORMAT,
        "regreason": __version__,
        "data": base[0].tasks[tasks[0]].data,
        "baseline": baseline,
        "arms": list(others),
        "settings": len(rows),
        "settings_in_paper": len(SETTINGS),
        "rows": rows,
        "wins": {
            name: {
                "wins": sum(row["arms"][name]["difference"] > 0 for row in rows),
                "ties": sum(row["arms"][name]["difference"] == 0 for row in rows),
                "of": len(rows),
                "mean_difference": sum(row["arms"][name]["difference"] for row in rows) / len(rows),
            }
            for name in others
        },
        "seeds": {name: [run.seed for run in arm] for name, arm in arms.items()},
        "over_seeds": {name: _over_seeds(tasks, base, arm) for name, arm in others.items()},
        "runs": {
            name: {**_scored_as(arm[0], tasks), "seeds": [_scored_as(run, tasks) for run in arm]}
            for name, arm in [(baseline, base), *others.items()]
        },
    }


def _scored_as(run: Run, tasks: list[str]) -> dict[str, Any]:
    return {
        "model": run.config.get("model"),
        "model_args": run.config.get("model_args"),
        "training": run.training,
        "evaluation_seeds": {
            key: value for key, value in run.config.items() if key.endswith("_seed")
        },
        "sources": sorted({str(run.tasks[task].source) for task in tasks}),
        **run.environment,
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


def _row(task: str, base: Seeds, others: dict[str, Seeds]) -> dict[str, Any]:
    dataset, axis = TASKS[task]
    first = base[0].tasks[task]
    return {
        "task": task,
        "dataset": dataset,
        "axis": axis,
        "documents": first.documents,
        "majority_acc": first.metrics.get("majority_acc"),
        "baseline": _mean_result(task, base),
        "arms": {
            name: {**_mean_result(task, arm), "difference": _difference(task, base, arm)}
            for name, arm in others.items()
        },
    }


def _mean_result(task: str, arm: Seeds) -> dict[str, Any]:
    """An arm's metrics: of one seed with their standard errors, of several the means.

    The errors of several seeds share the documents, so that of their mean is not known
    here; each seed's own stand beside it.
    """
    results = [run.tasks[task] for run in arm]
    if len(results) == 1:
        return {"metrics": results[0].metrics, "stderrs": results[0].stderrs}
    names = results[0].metrics.keys() & set.intersection(*(set(r.metrics) for r in results))
    return {
        "metrics": {name: _mean_of(results, name) for name in results[0].metrics if name in names},
        "stderrs": dict.fromkeys(results[0].stderrs),
        "by_seed": [
            {"seed": run.seed, "metrics": result.metrics, "stderrs": result.stderrs}
            for run, result in zip(arm, results, strict=True)
        ],
    }


def _mean_of(results: list[TaskResult], metric: str) -> float | None:
    values = [value for result in results if (value := result.metrics[metric]) is not None]
    # A mean over fewer seeds would be another quantity.
    return statistics.fmean(values) if len(values) == len(results) else None


def _pairs(base: Seeds, arm: Seeds) -> list[tuple[Run, Run]] | None:
    """The models to hold side by side; None where the seeds of the arms differ."""
    alone = len(base) == len(arm) == 1
    if alone or [run.seed for run in base] == [run.seed for run in arm]:
        return list(zip(base, arm, strict=True))
    return None


def _difference(task: str, base: Seeds, arm: Seeds) -> float:
    pairs = _pairs(base, arm)
    if pairs is None:
        ours, theirs = ([_acc(run, task) for run in runs] for runs in (base, arm))
        return statistics.fmean(theirs) - statistics.fmean(ours)
    found = statistics.fmean(_acc(run, task) - _acc(own, task) for own, run in pairs)
    # What cancels out over seeds is a tie, not a win by a rounding error.
    return 0.0 if abs(found) < 1e-12 else found


def _over_seeds(tasks: list[str], base: Seeds, arm: Seeds) -> dict[str, Any]:
    """How the mean difference over the settings varies with the seed."""
    pairs = _pairs(base, arm)
    if pairs is None:
        return {"paired": False, "mean_differences": None, "interval": None}
    means = [
        statistics.fmean(_acc(run, task) - _acc(own, task) for task in tasks) for own, run in pairs
    ]
    return {"paired": True, "mean_differences": means, "interval": _interval(means)}


def _interval(values: list[float]) -> dict[str, Any] | None:
    """The t interval of a mean; None of fewer than three values."""
    half = half_width(values)
    if half is None:
        return None
    mean = statistics.fmean(values)
    return {"low": mean - half, "high": mean + half, "level": LEVEL, "over": OVER}


def _acc(run: Run, task: str) -> float:
    value = run.tasks[task].metrics["acc"]
    if value is None:
        raise UserError(f"task {task} has no accuracy", path=run.tasks[task].source)
    return value


def caption(comparison: dict[str, Any]) -> str:
    """What the numbers were made from, in one line."""
    count, whole = comparison["settings"], comparison["settings_in_paper"]
    seeds = {len(found) for found in comparison.get("seeds", {}).values()}
    mean = ", mean over seeds" if seeds - {1} else ""
    if len(seeds) == 1:
        mean = mean.replace("seeds", f"{seeds.pop()} seeds")
    return f"{describe_data(comparison['data'])}, {count} of {whole} settings{mean}"


def notes(comparison: dict[str, Any]) -> list[str]:
    """What has to be said of numbers over several seeds, a sentence each."""
    seeds = comparison.get("seeds", {})
    if all(len(found) == 1 for found in seeds.values()):
        return []
    over = comparison["over_seeds"]
    unpaired = [name for name, found in over.items() if not found["paired"]]
    few = [name for name, found in over.items() if found["paired"] and found["interval"] is None]
    said = []
    if len(unpaired) < len(over):
        said.append("A difference is the mean of the differences between models of one seed.")
    if any(found["interval"] for found in over.values()):
        said.append(f"The interval is a 95 % t interval {OVER}.")
    if few:
        said.append(f"No interval over fewer than {ENOUGH_SEEDS} seeds: {', '.join(few)}.")
    if unpaired:
        ours = _list(seeds[comparison["baseline"]])
        theirs = "; ".join(f"{name} has {_list(seeds[name])}" for name in unpaired)
        said.append(
            f"Other seeds than {comparison['baseline']}, which has {ours}: {theirs}. There a "
            "difference is that of the means, not paired by seed, and has no interval."
        )
    return said


def _list(seeds: list[Any]) -> str:
    return ", ".join(map(str, seeds))


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
    return header, body, [mean, *_seed_cells(comparison), wins]


def _seed_cells(comparison: dict[str, Any]) -> list[list[str]]:
    """Interval and number of seeds, where there are several."""
    seeds = comparison.get("seeds", {})
    if all(len(found) == 1 for found in seeds.values()):
        return []
    interval, count = [["95 % over seeds"], ["seeds"]]
    interval += ["", "", "", ""]
    count += ["", "", "", str(len(seeds[comparison["baseline"]]))]
    for arm in comparison["arms"]:
        found = comparison["over_seeds"][arm]["interval"]
        interval += ["", f"{found['low']:+.3f} to {found['high']:+.3f}" if found else ""]
        count += [str(len(seeds[arm])), ""]
    return [interval, count] if any(interval[1:]) else [count]


def _means(comparison: dict[str, Any], of: Callable[[dict[str, Any]], float | None]) -> list[str]:
    values = [value for row in comparison["rows"] if (value := of(row)) is not None]
    return [_share(sum(values) / len(values) if values else None)]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def to_table(comparison: dict[str, Any]) -> Table:
    """The comparison for a terminal."""
    header, body, footer = _cells(comparison)
    # (As Text: a name with brackets is no markup.)
    table = Table(title=Text(f"Accuracy: {caption(comparison)}"), caption_justify="left")
    for name in header:
        left = name in {"dataset", "axis"}
        table.add_column(Text(name), justify="left" if left else "right", no_wrap=True)
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
    console = Console(width=max(Console().width, width))
    console.print(table)
    for note in notes(comparison):
        console.print(Text(note))


def to_markdown(comparison: dict[str, Any]) -> str:
    """The comparison as a Markdown page."""
    header, body, footer = _cells(comparison)
    seeds = notes(comparison)
    which = "differences in a setting" if seeds else "differences"
    lines = [
        "# Comparison",
        "",
        f"Accuracy on {escape(caption(comparison))}.",
        f"`diff` is an arm's accuracy minus that of {code(comparison['baseline'])}; a win is a "
        f"positive difference, however small. The {which} have no interval: read them "
        "beside the standard errors in `comparison.json`.",
        *map(escape, seeds),
        "",
        "| " + " | ".join(map(escape, header)) + " |",
        "|" + "|".join(" --- " if i < 2 else " ---: " for i in range(len(header))) + "|",
    ]
    lines += ["| " + " | ".join(cells) + " |" for cells in body]
    lines += ["| " + " | ".join(f"**{c}**" if c else "" for c in cells) + " |" for cells in footer]
    lines += ["", "| run | trained as | seed | rows | steps | target tokens | scored as |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | --- |"]
    lines += [
        _run_line(name, run) for name, arm in comparison["runs"].items() for run in arm["seeds"]
    ]
    base = comparison["runs"][comparison["baseline"]]
    lines += ["", _versions(comparison, base)]
    return "\n".join(lines) + "\n"


def _run_line(name: str, run: dict[str, Any]) -> str:
    keys = ("arm", "seed", "rows", "steps", "target_tokens")
    cells = [escape(name), *(escape(run["training"].get(key, "-")) for key in keys)]
    arguments = run["model_args"] or ""
    if isinstance(arguments, dict):
        arguments = ",".join(f"{key}={value}" for key, value in arguments.items())
    return "| " + " | ".join(cells) + f" | {code(run['model'])} {code(arguments)} |"


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
