"""A comparison's settings as a table for a paper, with booktabs."""

from __future__ import annotations

import re

from regreason_plugin.compare.comparison import Comparison, Difference
from regreason_plugin.core.markdown import one_line
from regreason_plugin.core.numbers import number, signed
from regreason_plugin.render import tables

# TeX's own characters; a quotation mark, which babel makes active; brackets and a star, which a
# line's end takes for its argument.
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
    # Between two that would draw together: --, '', ,,, ``, ?` and !`.
    "": "{}",
}
_SPECIAL = re.compile(
    r"(?<=-)(?=-)|(?<=')(?=')|(?<=,)(?=,)|(?<=[`?!])(?=`)|[\\{}$&#_%~^<>|\"\[\]*]"
)


def escape(name: object) -> str:
    """As plain text on one line, in every font encoding."""
    return _SPECIAL.sub(lambda found: _SPECIALS[found[0]], one_line(name))


def to_latex(comparison: Comparison) -> str:
    r"""A ``table*`` to ``\input``: a row a setting, differences of accuracy to the baseline."""
    arms = comparison.arms
    symmetric = _all_symmetric(comparison)
    # (Room for a star between a difference and its interval.)
    columns = rf"llr*{{{len(arms)}}}{{r@{{\ \ }}l}}"
    heads = [r"\multicolumn{2}{c}{" + escape(arm) + "}" for arm in arms]
    body = []
    previous = ""
    for setting in comparison.settings:
        if previous and setting.dataset != previous:
            body.append(r"\addlinespace")
        name = escape(setting.dataset) if setting.dataset != previous else ""
        previous = setting.dataset
        score = comparison.scores[comparison.baseline][setting.task]["acc"].value
        found = [comparison.differences[arm][setting.task]["acc"] for arm in arms]
        cells = [name, escape(setting.axis_title), number(score)]
        body.append(_row([*cells, *(_cell(one, symmetric) for one in found)]))
    score = comparison.pooled_scores[comparison.baseline]["acc"].value
    pooled = [_cell(comparison.pooled[arm]["acc"], symmetric) for arm in arms]
    wins = [r"\multicolumn{2}{c}{" + tables.wins(comparison, arm) + "}" for arm in arms]
    text = [
        *_comment(comparison),
        r"\begin{table*}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_caption(comparison, symmetric)}}}",
        r"\label{tab:regreason-settings}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row(["dataset", "axis", escape(comparison.baseline), *heads]),
        r"\midrule",
        *body,
        r"\midrule",
        _row(["pooled", "", number(score), *pooled]),
        _row(["wins", "", "", *wins]),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
    ]
    return "\n".join(text) + "\n"


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(found: Difference, symmetric: bool) -> str:
    """The difference, and its interval in a column of its own."""
    if found.value is None:
        return r"\multicolumn{2}{c}{--}"
    value = f"${signed(found.value)}$"
    if tables.is_shown(found):
        value = rf"$\mathbf{{{signed(found.value)}}}$\rlap{{$^{{*}}$}}"
    if found.low is None or found.high is None:
        return f"{value} &"
    if symmetric:
        return rf"{value} & $\pm${(found.high - found.low) / 2:.3f}"
    return f"{value} & (${signed(found.low)}$, ${signed(found.high)}$)"


def _all_symmetric(comparison: Comparison) -> bool:
    """Whether every interval is a half width to either side, as t intervals are."""
    of_settings = [by_task.values() for by_task in comparison.differences.values()]
    found = [one["acc"] for by_task in of_settings for one in by_task]
    found += [pooled["acc"] for pooled in comparison.pooled.values()]
    return all(one.df is not None for one in found if one.low is not None)


def _caption(comparison: Comparison, symmetric: bool) -> str:
    spread = tables.over(comparison)
    if spread and symmetric:
        spread = rf"$\pm$: half of the {escape(spread)}. "
    elif spread:
        spread = f"In brackets: {escape(spread)}. "
    return (
        f"Accuracy of {escape(comparison.baseline)}, and differences to it. {spread}"
        f"Bold with a star: {escape(tables.HOLM)}. {escape(tables.caption(comparison))}."
    )


def _comment(comparison: Comparison) -> list[str]:
    told = [
        f"Made by: {one_line(comparison.command)}",
        f"regreason {comparison.regreason}; data: sha256 {one_line(comparison.data['sha256'])}",
        r"Needs \usepackage{booktabs} in the preamble; \input this file. With many arms, put it "
        r"on a page of its own (package rotating, sidewaystable).",
    ]
    names = [comparison.baseline, *comparison.arms, tables.caption(comparison)]
    names += [name for one in comparison.settings for name in (one.dataset, one.axis_title)]
    if not all(map(str.isascii, names)):
        told.append(
            "Has letters outside ASCII: take LuaLaTeX and a font with them if pdfLaTeX stops."
        )
    return [f"% {line}" for line in told]
