"""A comparison as a page of GitHub's Markdown, which is also a CI job's summary."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from regreason_plugin.compare.comparison import Comparison, RunRecord
from regreason_plugin.core.markdown import block, code, escape
from regreason_plugin.core.numbers import NONE, number
from regreason_plugin.render import tables
from regreason_plugin.render.tables import Cells


def to_markdown(comparison: Comparison) -> str:
    """The verdict, the tables, and what was run."""
    baseline = comparison.baseline
    arms = ", ".join(map(code, comparison.arms))
    lines = [f"# {code(baseline)} against {arms}", "", f"{_text(tables.caption(comparison))}."]
    # Where a name has backticks of its own, which are a pair cannot be told.
    ticks = any("`" in name for name in (baseline, *comparison.arms))
    say = _text if ticks else _sentence
    lines += ["", "## Verdict"]
    for answer in comparison.answers:
        lines += ["", f"**{say(answer.question)}** {say(answer.short)}", ""]
        lines += [f"- {say(sentence)}" for sentence in answer.sentences]
    if comparison.notes:
        lines += [
            "",
            "To read the numbers:",
            "",
            *(f"- {say(note)}" for note in comparison.notes),
        ]
    lines += ["", "## Accuracy", ""]
    lines += [f"Of {code(baseline)}; of the others, the difference to it.", ""]
    lines += [*_table(tables.accuracy(comparison)), ""]
    lines += [f"- {_text(line)}" for line in tables.legend(comparison)]
    lines += ["", "## All metrics", "", "Means over the settings, and the differences to them.", ""]
    lines += _table(tables.pooled(comparison))
    for setting in tables.of_ones_own(comparison):
        lines += ["", f"## By label: {_text(setting.title)}", "", "Precision / recall.", ""]
        lines += _table(tables.by_label(comparison, setting))
    lines += [*_gap(comparison), *_power(comparison), *_costs(comparison), *_runs(comparison)]
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    """A sentence of the verdict, what stands between backticks as code."""
    parts = enumerate(text.split("`"))
    return "".join(code(part) if at % 2 else _spaced(part) for at, part in parts).strip()


def _spaced(part: str) -> str:
    """Text between two spans of code, with the spaces next to them."""
    before, after = (" " * part.startswith(" ")), (" " * (part.endswith(" ") and part != " "))
    return f"{before}{_text(part)}{after}"


def _text(text: object) -> str:
    """Plain text at any place: no markup, no list at a line's start, no address made a link."""
    plain = re.sub(r"(?<=:)(?=//)|(?<=\bwww)(?=\.)", r"\\", escape(text), flags=re.IGNORECASE)
    return re.sub(r"^(\d*)([.)+](?=\s|$)|-|=+$)", r"\1\\\2", plain)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(cells: Cells) -> list[str]:
    names = [*map(_text, cells.header[: cells.fixed]), *map(code, cells.header[cells.fixed :])]
    # The last fixed column is the baseline's.
    names[cells.fixed - 1] = code(cells.header[cells.fixed - 1])
    sides = [":---" if place < cells.words else "---:" for place in range(len(names))]
    return [
        _row(names),
        _row(sides),
        *(_row(map(escape, row)) for row in cells.body),
        *(_row(f"**{escape(cell)}**" if cell else "" for cell in row) for row in cells.footer),
    ]


def _gap(comparison: Comparison) -> list[str]:
    if not comparison.gap or comparison.gap_of is None:
        return []
    return [
        "",
        f"## Share of the gain of {code(comparison.gap_of)} that an arm keeps",
        "",
        f"Of the pooled accuracy; 1 is the difference between {code(comparison.gap_of)} and "
        f"{code(comparison.baseline)}. Fieller's {100 * comparison.level:g} % set.",
        "",
        _row(["arm", "share", "set"]),
        _row([":---", "---:", ":---"]),
        *(
            _row([code(arm), NONE if gap.value is None else f"{gap.value:.2f}", tables.gap(gap)])
            for arm, gap in comparison.gap.items()
        ),
    ]


def _power(comparison: Comparison) -> list[str]:
    """What the data could have shown, and what showing a named difference would take."""
    power = f"{comparison.power:g}"
    asked = bool(comparison.needed)
    header = ["arm", "detectable", *(["difference asked for", "groups", "seeds"] if asked else [])]
    lines = [
        "",
        "## What could have been shown",
        "",
        "`detectable` is the smallest difference of the pooled accuracy that is found with a "
        f"probability of {power}.",
    ]
    if asked:
        lines += [
            f"`groups` and `seeds`: how many would find the difference asked for with {power}, "
            "each with the other as it is.",
        ]
    lines += ["", _row(header), _row([":---", *["---:"] * (len(header) - 1)])]
    for arm in comparison.arms:
        cells = [code(arm), tables.detectable(comparison, arm)]
        lines.append(_row([*cells, *(_needed(comparison, arm) if asked else [])]))
    return lines


def _needed(comparison: Comparison, arm: str) -> list[str]:
    found = comparison.needed.get(arm)
    if found is None:
        return [NONE] * 3
    groups, seeds = (
        "no number is enough" if count is None else f"{count:,}"
        for count in (found.groups, found.seeds)
    )
    # Of fewer than three seeds nothing is known about how they vary.
    few = comparison.pooled[arm]["acc"].over != "seeds and groups"
    return [number(found.difference), groups, NONE if few else seeds]


def _costs(comparison: Comparison) -> list[str]:
    costs = tables.costs(comparison)
    if not costs.body:
        return []
    about = _text(tables.about_costs(comparison))
    return ["", "## What it took", "", about, "", *_table(costs)]


def _runs(comparison: Comparison) -> list[str]:
    versions = {"regreason": comparison.regreason, **comparison.versions}
    return [
        "",
        "## What was run",
        "",
        block(comparison.command, "shell"),
        "",
        f"Data: sha256 {code(comparison.data['sha256'])}. {comparison.draws:,} bootstrap draws "
        f"with seed {comparison.bootstrap_seed}. Made with "
        + ", ".join(f"{_text(name)} {_text(number)}" for name, number in versions.items())
        + ".",
        "",
        _row(["arm", "seed", "trained as", "rows", "steps", "target tokens", "scored as", "with"]),
        _row([":---", "---:", ":---", "---:", "---:", "---:", ":---", ":---"]),
        *map(_run, comparison.runs),
    ]


def _run(run: RunRecord) -> str:
    trained = (_value(run.training.get(key)) for key in ("rows", "steps", "target_tokens"))
    libraries = ", ".join(
        f"{name.removesuffix('_version')} {run.environment[name]}"
        for name in ("lm_eval_version", "transformers_version")
        if run.environment.get(name) is not None
    )
    return _row(
        [
            code(run.arm),
            NONE if run.seed is None else str(run.seed),
            _value(run.training.get("arm")),
            *trained,
            f"{code(run.model)} {code(run.model_args)}",
            _text(libraries) or NONE,
        ]
    )


def _value(value: Any) -> str:
    if value is None:
        return NONE
    return f"{value:,}" if isinstance(value, int) else _text(value)
