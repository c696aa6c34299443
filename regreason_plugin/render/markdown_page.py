"""A comparison as a page of GitHub's Markdown, which is also a CI job's summary."""

from __future__ import annotations

from typing import Any

from regreason_plugin.comparison.comparison import Comparison, RunRecord
from regreason_plugin.comparison.finding_words import main_metric
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
    """The verdict, the tables, and what was run."""
    c = comparison
    contrasts = tables.contrasts(c)
    # Where a name has backticks of its own, which are a pair cannot be told.
    ticks = any("`" in name for name in (c.baseline, *c.arms))
    return render(
        "render/comparison.md.j2",
        c=c,
        say=plain_text if ticks else sentence,
        caption=tables.caption(c),
        main=tables.title_of(main_metric(c)),
        arms=_named(tables.arms(c), "lrrlr"),
        by_setting=_table(tables.by_setting(c)),
        contrasts=_named(contrasts, "lr", arms=True) if contrasts else None,
        legend=tables.legend(c),
        pooled=_table(tables.pooled(c)),
        by_label=[
            (setting.title, _table(tables.by_label(c, setting)))
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
    # The last fixed column is the baseline's.
    words = cells.fixed - 1
    header = [*map(plain_text, cells.header[:words]), *map(code, cells.header[words:])]
    # (Only the names of the rows below are bold: a bold number would be a claim.)
    below = [[Markdown(f"**{escape(row[0])}**"), *row[1:]] for row in cells.footer]
    return table([*cells.body, *below], header, "l" * cells.words + "r")


def _named(cells: Cells, sides: str, *, arms: bool = False) -> Markdown:
    """A table whose rows, and columns with ``arms``, are named by arms."""
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
    # Of fewer than three seeds nothing is known about how they vary.
    few = comparison.pooled[arm]["acc"].over != "seeds and groups"
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
