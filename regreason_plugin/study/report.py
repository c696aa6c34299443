"""The study's tables and figure, as they came out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from regreason_plugin.build.folder import open_data_folder
from regreason_plugin.compare.compare import Compared
from regreason_plugin.compare.comparison import Comparison
from regreason_plugin.core.markdown import render
from regreason_plugin.core.numbers import number
from regreason_plugin.core.stages import console
from regreason_plugin.core.whole_files import atomic_writer, together
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
from regreason_plugin.study.hyperparameters import Choice
from regreason_plugin.study.plan import Plan


def write_report(
    plan: Plan, choice: Choice, figures: dict[str, Figures], compared: Compared
) -> list[Path]:
    """Write ``study.md``, ``study.json``, ``curves.png`` and all files of a comparison.

    Args:
        plan: The finished study.
        choice: The hyperparameters.
        figures: Of every condition.
        compared: The label-first conditions against the first.

    Returns:
        Their paths.
    """
    contents = {
        plan.out / "study.md": _markdown(plan, choice, figures, compared.comparison),
        plan.out / "study.json": _numbers(plan, choice, figures),
        plan.out / "curves.png": draw(plan),
    }
    with together():
        for path, content in contents.items():
            with atomic_writer(path) as stream:
                stream.write(content)
        return [*contents, *write(compared, plan.out)]


def print_report(comparison: Comparison) -> None:
    """The main table, for a terminal."""
    title = f"Means over all settings. {tables.caption(comparison)}"
    console.print()
    print_table(console, _against_baseline(comparison, COMPARED), title)


def _against_baseline(comparison: Comparison, metrics: Sequence[str]) -> Cells:
    """A row a condition: the baseline's means, of the others the differences to it."""
    base = comparison.pooled_scores[comparison.baseline]
    rows = [[f"{comparison.baseline} (mean)", *(tables.interval(base[name]) for name in metrics)]]
    for arm in comparison.arms:
        pooled = comparison.pooled[arm]
        rows.append([arm, *(tables.difference(pooled[name]) for name in metrics)])
    return Cells(["condition", *metrics], rows, [], words=1, fixed=1)


def _explanation_first(figures: dict[str, Figures]) -> Cells:
    header = ["condition", *SCORES, *(f"{name}, forced" for name in SCORES)]
    rows = [
        [
            name,
            *(_mean(one.mean(metric)) for metric in SCORES),
            *(_mean(one.mean(FORCED + metric)) for metric in SCORES),
        ]
        for name, one in figures.items()
        if one.condition.order == "explanation_first"
    ]
    return Cells(header, rows, [], words=1, fixed=1)


def _mean(mean: Mean) -> str:
    value = number(mean.value)
    return value if mean.half_width is None else f"{value} ± {mean.half_width:.3f}"


def _markdown(
    plan: Plan, choice: Choice, figures: dict[str, Figures], comparison: Comparison
) -> bytes:
    data = open_data_folder(plan.data("label_first"))
    training = figures[plan.conditions[0].name].runs[0].training
    text = render(
        "study/study.md.j2",
        plan=plan,
        choice=choice,
        data=data,
        counts=data.manifest.counts,
        training=training,
        versions={**training["versions"], "lm_eval": version("lm_eval")},
        losses=[
            [f"{one.learning_rate:g}", str(one.num_epochs), number(loss, 4)]
            for one, loss in choice.losses
        ],
        c=comparison,
        over=tables.interval_scope(comparison),
        marks=tables.mark_legend(comparison),
        scores=_against_baseline(comparison, COMPARED),
        entropies=_against_baseline(comparison, ENTROPIES),
        explanation_first=_explanation_first(figures),
    )
    return text.encode("utf-8")


def _numbers(plan: Plan, choice: Choice, figures: dict[str, Figures]) -> bytes:
    content: dict[str, Any] = {
        "format": 1,
        "origin": "generated",
        "seeds": plan.seeds,
        "learning_rate": choice.learning_rate,
        "num_epochs": choice.num_epochs,
        "choice": [
            {"learning_rate": one.learning_rate, "num_epochs": one.num_epochs, "loss": loss}
            for one, loss in choice.losses
        ],
        "conditions": {
            name: {
                "arm": one.condition.arm,
                "order": one.condition.order,
                "changes": one.condition.changes,
                "by_seed": one.values,
            }
            for name, one in figures.items()
        },
    }
    return json.dumps(content, indent=1).encode("utf-8") + b"\n"
