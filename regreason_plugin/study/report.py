"""Writes the report of a study: tables, learning curves and the comparison."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from regreason_plugin.comparison.comparability import describe_data
from regreason_plugin.comparison.compare import Compared
from regreason_plugin.comparison.comparison import Comparison
from regreason_plugin.core.markdown import render
from regreason_plugin.core.numbers import number
from regreason_plugin.core.stages import console
from regreason_plugin.core.whole_files import atomic_writer, together
from regreason_plugin.evaluate.baselines import METHODS
from regreason_plugin.evaluate.baselines.table import METRICS, read_outcome
from regreason_plugin.render import tables
from regreason_plugin.render.report_files import write
from regreason_plugin.render.tables import Cells
from regreason_plugin.render.terminal import print_table
from regreason_plugin.study.condition_scores import (
    COMPARED,
    ENTROPIES,
    FORCED,
    SCORES,
    Figures,
    Mean,
)
from regreason_plugin.study.curves import draw
from regreason_plugin.study.hyperparameters import Chosen
from regreason_plugin.study.plan import Plan


def write_report(
    plan: Plan,
    chosen: Chosen,
    figures: dict[str, Figures],
    compared: Compared,
    missing: Sequence[int] = (),
) -> list[Path]:
    """Write ``study.md``, ``study.json``, ``curves.png`` and all files of a comparison.

    Args:
        plan: The plan of the study, with only the finished seeds.
        chosen: The chosen keys.
        figures: The figures of every condition, by name.
        compared: The comparison of the label-first conditions with the first one.
        missing: The seeds that are not finished.

    Returns:
        The paths of the files.
    """
    contents = {
        plan.out / "study.md": _markdown(plan, chosen, figures, compared.comparison, missing),
        plan.out / "study.json": _numbers(plan, chosen, figures),
        plan.out / "curves.png": draw(plan),
    }
    with together():
        for path, content in contents.items():
            with atomic_writer(path) as stream:
                stream.write(content)
        return [*contents, *write(compared, plan.out)]


def print_report(comparison: Comparison) -> None:
    """Print the main table in the terminal."""
    title = (
        f"Means over all settings, and differences to the first row. {tables.caption(comparison)}"
    )
    console.print()
    print_table(console, _against_baseline(comparison, COMPARED), title)


def _against_baseline(comparison: Comparison, metrics: Sequence[str]) -> Cells:
    """A row for each condition: the baseline's means, then the others' differences to it."""
    base = comparison.pooled_scores[comparison.baseline]
    known = [name for name in metrics if name in base]
    rows = [[f"{comparison.baseline} (mean)", *(tables.interval(base[name]) for name in known)]]
    for arm in comparison.arms:
        pooled = comparison.pooled[arm]
        rows.append([arm, *(tables.difference(pooled[name]) for name in known)])
    return Cells(["condition", *known], rows, [], words=1, fixed=1)


def _baseline_methods(plan: Plan) -> Cells | None:
    """A row for each method of `regreason baselines`: its means over settings and seeds."""
    methods = [name for name in plan.study.baselines if (plan.baselines / name).is_dir()]
    if not methods:
        return None
    tasks = plan.open_data("label_first")
    names = tasks.declaration.task_names(tasks.settings())
    rows = []
    for name in methods:
        outcome = read_outcome(plan.baselines, name, names)
        rows.append([METHODS[name], *(number(outcome.metrics[metric]) for metric in METRICS)])
    return Cells(["method", *METRICS.values()], rows, [], words=1, fixed=1)


def _explanation_first(figures: dict[str, Figures]) -> Cells | None:
    later = {n: one for n, one in figures.items() if one.condition.order == "explanation_first"}
    if not later:
        return None
    # (Kappa is undefined for labels without an order.)
    shown = [
        metric
        for metric in (*SCORES, *(FORCED + name for name in SCORES))
        if not any(math.isnan(value) for one in later.values() for value in one.values[metric])
    ]
    header = [f"{name.removeprefix(FORCED)}, forced" if FORCED in name else name for name in shown]
    rows = [[name, *(_mean(one.mean(key)) for key in shown)] for name, one in later.items()]
    return Cells(["condition", *header], rows, [], words=1, fixed=1)


def _mean(mean: Mean) -> str:
    value = number(mean.value)
    return value if mean.half_width is None else f"{value} ± {mean.half_width:.3f}"


def _markdown(
    plan: Plan,
    chosen: Chosen,
    figures: dict[str, Figures],
    comparison: Comparison,
    missing: Sequence[int],
) -> bytes:
    data = plan.open_data("label_first")
    training = figures[plan.study.conditions[0].name].runs[0].training
    text = render(
        "study/study.md.j2",
        study=plan.study,
        chosen=chosen,
        missing=missing,
        data=data,
        described=describe_data({"origin": data.origin, "sha256": data.sha256}),
        counts=data.manifest.counts,
        settings=len(data.settings()),
        training=training,
        versions={**training["versions"], "lm_eval": version("lm_eval")},
        losses=[[*map(str, keys.values()), number(loss, 4)] for keys, loss in chosen.losses],
        c=comparison,
        over=tables.interval_scope(comparison),
        marks=tables.mark_legend(comparison),
        scores=_against_baseline(comparison, COMPARED),
        entropies=_against_baseline(comparison, ENTROPIES),
        explanation_first=_explanation_first(figures),
        generalisation=tables.generalisation(comparison) if comparison.generalisation else None,
        about_generalisation=(
            tables.about_generalisation(comparison) if comparison.generalisation else ""
        ),
        costs=tables.costs(comparison),
        about_costs=tables.about_costs(comparison),
        baseline_methods=_baseline_methods(plan),
    )
    return text.encode("utf-8")


def _numbers(plan: Plan, chosen: Chosen, figures: dict[str, Figures]) -> bytes:
    content: dict[str, Any] = {
        "format": 2,
        "title": plan.study.title,
        "origin": plan.open_data("label_first").origin,
        "seeds": plan.study.seeds,
        "chosen": chosen.keys,
        "choice": [{**keys, "loss": loss} for keys, loss in chosen.losses],
        "conditions": {
            name: {
                "arm": one.condition.arm,
                "order": one.condition.order,
                "keys": one.condition.keys,
                "by_seed": one.values,
            }
            for name, one in figures.items()
        },
    }
    return json.dumps(content, indent=1).encode("utf-8") + b"\n"
