"""Writes a comparison by setting as a LaTeX table with booktabs, for a paper."""

from __future__ import annotations

import re

from regreason_plugin.comparison.comparison import Comparison, Difference
from regreason_plugin.comparison.finding_words import (
    EXPLORATORY,
    SAME,
    is_found,
    mark,
    primary_line,
)
from regreason_plugin.comparison.notes import about_data
from regreason_plugin.core.numbers import number, signed
from regreason_plugin.core.printable import one_line
from regreason_plugin.render import tables

# TeX's special characters; the quotation mark, which babel makes active; brackets and the star,
# which a preceding \\ would read as its argument.
_SPECIALS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    # Separates two characters that TeX would join into one: --, '', ,,, ``, ?` and !`.
    "": "{}",
}
_SPECIAL = re.compile(
    r"(?<=-)(?=-)|(?<=')(?=')|(?<=,)(?=,)|(?<=[`?!])(?=`)|[\\{}$&#_%~^<>|\"\[\]*]"
)


def escape(name: object) -> str:
    """The name as LaTeX for plain text on one line, right in every font encoding."""
    return _SPECIAL.sub(lambda match: _SPECIALS[match[0]], one_line(name))


def _in_math(sentence: str) -> str:
    """A sentence of this package, escaped, with its signs as formulas."""
    text = escape(sentence).replace("±", r"$\pm$")
    return text.replace(SAME, r"$\approx$").replace(EXPLORATORY, r"$^{\circ}$")


def to_latex(comparison: Comparison) -> str:
    r"""A ``table*`` to ``\input``: a row for each setting, with differences to the baseline."""
    c, arms, metric = comparison, comparison.arms, comparison.main
    symmetric, logged = _all_symmetric(c), c.protocol == "logged"
    first = ("group", "task") if logged else ("dataset", "axis")
    # (Room for a star between a difference and its interval.)
    columns = rf"llr*{{{len(arms)}}}{{r@{{\ \ }}l}}"
    heads = [_over_two(escape(arm)) for arm in arms]
    body = []
    previous = ""
    for setting in c.settings:
        if previous and setting.dataset != previous:
            body.append(r"\addlinespace")
        name = escape(setting.dataset) if setting.dataset != previous else ""
        previous = setting.dataset
        score = c.scores[c.baseline][setting.task].get(metric)
        cells = [name, escape(setting.axis_title), number(score.value if score else None)]
        differences = [c.differences[arm][setting.task].get(metric) for arm in arms]
        body.append(_row([*cells, *(_cell(one, symmetric) for one in differences)]))
    score = c.pooled_scores[c.baseline].get(metric)
    pooled = [_cell(c.pooled[arm].get(metric), symmetric) for arm in arms]
    below = [_row(["pooled", "", number(score.value if score else None), *pooled])]
    if metric == "acc" or logged:
        below.append(_row(["wins", "", "", *(_over_two(tables.wins(c, arm)) for arm in arms)]))
    text = [
        *_comment(c),
        r"\begin{table*}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_caption(c, symmetric)}}}",
        r"\label{tab:regreason-settings}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row([*first, escape(c.baseline), *heads]),
        r"\midrule",
        *body,
        r"\midrule",
        *below,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
    ]
    return "\n".join(text) + "\n"


def _over_two(text: str) -> str:
    return r"\multicolumn{2}{c}{" + text + "}"


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


# By mark: the superscript behind a number.
_RAISED = {"*": "*", SAME: r"\approx", EXPLORATORY: r"\circ"}


def _cell(difference: Difference | None, symmetric: bool) -> str:
    """Two cells: the difference, and its interval."""
    if difference is None or difference.value is None:
        return _over_two("--")
    value = signed(difference.value)
    if is_found(difference):
        value = rf"\mathbf{{{value}}}"
    raised = "".join(_RAISED[sign] for sign in mark(difference))
    value = f"${value}$" + (rf"\rlap{{$^{{{raised}}}$}}" if raised else "")
    if difference.low is None or difference.high is None:
        return f"{value} &"
    if symmetric:
        return rf"{value} & $\pm${(difference.high - difference.low) / 2:.3f}"
    return f"{value} & (${signed(difference.low)}$, ${signed(difference.high)}$)"


def _all_symmetric(comparison: Comparison) -> bool:
    """Whether every interval is symmetric around its difference, as t intervals are."""
    metric = comparison.main
    by_metric = [one for by_task in comparison.differences.values() for one in by_task.values()]
    differences = [one.get(metric) for one in (*by_metric, *comparison.pooled.values())]
    return all(
        abs(one.low + one.high - 2 * one.value) < 1e-6
        for one in differences
        if one and one.value is not None and one.low is not None and one.high is not None
    )


def _caption(comparison: Comparison, symmetric: bool) -> str:
    spread = tables.interval_scope(comparison)
    if spread and symmetric:
        spread = rf"$\pm$: half the width of the {_in_math(spread)}. "
    elif spread:
        spread = f"In brackets: {_in_math(spread)}. "
    title = tables.title_of(comparison, comparison.main)
    marks = " ".join(map(_in_math, tables.mark_legend(comparison)))
    return (
        f"{_in_math(primary_line(comparison, str))} "
        f"{escape(title[0].upper() + title[1:])} of {escape(comparison.baseline)}, and each arm's "
        f"difference to it. {spread}{marks} {escape(tables.caption(comparison))}."
    )


def _data(comparison: Comparison) -> str:
    if comparison.protocol == "logged":
        return about_data(comparison)
    return f"sha256 {comparison.data['sha256']}"


def _comment(comparison: Comparison) -> list[str]:
    lines = [
        f"Made by: {one_line(comparison.command)}",
        f"regreason {comparison.regreason}; data: {one_line(_data(comparison))}",
        r"Put \usepackage{booktabs} into the preamble, and \input this file. If many arms make the "
        r"table too wide, use sidewaystable of the package rotating.",
    ]
    names = [comparison.baseline, *comparison.arms, tables.caption(comparison)]
    names += [name for one in comparison.settings for name in (one.dataset, one.axis_title)]
    if not all(map(str.isascii, names)):
        lines.append(
            "Has letters outside ASCII: if pdfLaTeX stops, use LuaLaTeX and a font that has them."
        )
    return [f"% {line}" for line in lines]
