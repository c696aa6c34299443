"""Writes a comparison as GitHub Markdown, for a file or as the summary of a CI job."""

from __future__ import annotations

from typing import Any

from regreason_plugin.comparison.comparison import Comparison, RunRecord, run_noun, setting_noun
from regreason_plugin.core.markdown import (
    Markdown,
    block,
    code,
    escape,
    plain_text,
    render,
    sentence,
    table,
)
from regreason_plugin.core.numbers import NONE, number
from regreason_plugin.render import tables
from regreason_plugin.render.tables import Cells


def to_markdown(comparison: Comparison) -> str:
    """The page: verdict, tables, and the models that were run."""
    c = comparison
    contrasts = tables.contrasts(c)
    # If a name contains a backtick, the backticks of the sentences cannot be paired reliably.
    ticks = any("`" in name for name in (c.baseline, *c.arms))
    return render(
        "render/comparison.md.j2",
        c=c,
        noun=setting_noun(c),
        run=run_noun(c),
        say=plain_text if ticks else sentence,
        caption=tables.caption(c),
        main=tables.title_of(c, c.main),
        arms=_named(tables.arms(c), "lrrlr"),
        by_setting=_table(tables.by_setting(c)),
        contrasts=_named(contrasts, "lr", arms=True) if contrasts else None,
        task_groups=_table(tables.task_groups(c)) if c.task_groups else None,
        about_task_groups=tables.about_task_groups(c),
        legend=tables.legend(c),
        pooled=_table(tables.pooled(c)),
        by_label=[
            (tables.setting_title(setting), _table(tables.by_label(c, setting)))
            for setting in tables.own_settings(c)
        ],
        gap=[[code(arm), number(gap.value, 2), tables.gap(gap)] for arm, gap in c.gap.items()],
        needed=[[code(arm), *_needed(c, arm)] for arm in c.arms if c.needed],
        generalisation=_named(tables.generalisation(c), "lr") if c.generalisation else None,
        about_generalisation=tables.about_generalisation(c) if c.generalisation else "",
        costs=_table(tables.costs(c)) if tables.costs(c).body else None,
        about_costs=tables.about_costs(c),
        command=block(c.command, "shell"),
        versions={"regreason": c.regreason, **c.versions}.items(),
        runs=map(_run, c.runs),
    )


def _table(cells: Cells) -> Markdown:
    # The last fixed column holds the baseline.
    words = cells.fixed - 1
    header = [*map(plain_text, cells.header[:words]), *map(code, cells.header[words:])]
    # (In the footer only the names are bold: a bold number would be a claim.)
    below = [[Markdown(f"**{escape(row[0])}**"), *row[1:]] for row in cells.footer]
    return table([*cells.body, *below], header, "l" * cells.words + "r")


def _named(cells: Cells, sides: str, *, arms: bool = False) -> Markdown:
    """A table whose rows are named by arms; with ``arms``, the columns are, too."""
    header = [cells.header[0], *(map(code, cells.header[1:]) if arms else cells.header[1:])]
    return table([[code(row[0]), *row[1:]] for row in cells.body], header, sides)


def _needed(comparison: Comparison, arm: str) -> list[str]:
    needed = comparison.needed.get(arm)
    if needed is None:
        return [NONE] * 3
    groups, seeds = (
        "no number is enough" if count is None else f"{count:,}"
        for count in (needed.groups, needed.seeds)
    )
    # The variance over seeds is unknown with fewer than three seeds.
    usual = comparison.main if comparison.protocol == "logged" else "acc"
    few = comparison.pooled[arm][usual].over != "seeds and groups"
    return [number(needed.difference), groups, NONE if few else seeds]


def _run(run: RunRecord) -> list[str]:
    libraries = ", ".join(
        f"{name.removesuffix('_version')} {run.environment[name]}"
        for name in ("lm_eval_version", "transformers_version")
        if run.environment.get(name) is not None
    )
    return [
        code(run.arm),
        NONE if run.seed is None else str(run.seed),
        *(_value(run.training.get(key)) for key in ("arm", "rows", "steps", "target_tokens")),
        Markdown(f"{code(run.model)} {code(run.model_args)}"),
        plain_text(libraries or NONE),
    ]


def _value(value: Any) -> str:
    if value is None:
        return NONE
    return f"{value:,}" if isinstance(value, int) else plain_text(value)
