"""Words and marks for findings: the only way from a difference to a claim.

This module reads neither intervals nor uncorrected p values. A figure without a `finding` is
exploratory, and no word or mark calls it higher, lower or the same.
"""

from __future__ import annotations

from collections.abc import Callable

from regreason_plugin.comparison.comparison import Comparison, Difference, metric_of
from regreason_plugin.core.numbers import NONE, ends, p_value, signed

FOUND, SAME, EXPLORATORY = "*", "\N{ALMOST EQUAL TO}", "\N{DEGREE SIGN}"
UNCLEAR = "not enough to tell"
_MARKS = {
    "higher": FOUND,
    "lower": FOUND,
    "same": SAME,
    "higher and same": FOUND + SAME,
    "lower and same": FOUND + SAME,
    "unclear": "",
    None: EXPLORATORY,
}


def is_found(difference: Difference | None) -> bool:
    """Whether the corrected tests find the difference higher or lower."""
    return difference is not None and FOUND in _MARKS[difference.finding]


def mark(difference: Difference) -> str:
    """A star for higher or lower, an almost-equal sign for the same, a ring for exploratory."""
    return _MARKS[difference.finding]


def margin_text(comparison: Comparison) -> str:
    """The margin as text, such as ``0.010``; with all its digits if it has more than three."""
    text = f"{comparison.margin:.3f}"
    return text if float(text) == comparison.margin else f"{comparison.margin:g}"


def claim(comparison: Comparison, difference: Difference, metric: str) -> str:
    """The finding in words.

    Examples are ``higher``, ``lower (better), of these trained models``, ``the same within
    ±0.010``, ``higher, by less than 0.010``, ``not enough to tell`` and ``exploratory``.

    Args:
        comparison: The comparison, which holds the equivalence margin.
        difference: The difference whose finding is worded.
        metric: The metric of the difference; if lower is better, the words say so.
    """
    if difference.finding is None:
        return "exploratory"
    if difference.finding == "unclear":
        return UNCLEAR
    if difference.finding == "same":
        text = f"the same within ±{margin_text(comparison)}"
    else:
        direction, _, small = difference.finding.partition(" and ")
        text = direction
        if metric_of(comparison, metric).better == "lower":
            text += " (better)" if direction == "lower" else " (worse)"
        text += f", by less than {margin_text(comparison)}" if small else ""
    return text + (f", {these_models(comparison)}" if difference.over == "groups" else "")


def these_models(comparison: Comparison) -> str:
    """The scope of a claim that does not hold for other models, such as ones trained again."""
    return f"of these{' trained' * (comparison.protocol != 'logged')} models"


def capital(text: str) -> str:
    """Capitalise the first letter of a sentence; a name in backticks stays unchanged."""
    return text[:1].upper() + text[1:]


def listed(items: list[str]) -> str:
    """Join items as in ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def with_interval(comparison: Comparison, difference: Difference) -> str:
    """A difference with its interval, such as ``+0.034 (95 % interval +0.011 to +0.057)``."""
    if difference.value is None:
        return "undefined"
    interval = ends(difference.low, difference.high, sign=True)
    said = f"{100 * comparison.level:g} % interval {interval}" if interval else "no interval"
    return f"{signed(difference.value)} ({said})"


def p_text(p: float | None, name: str = "p") -> str:
    """A p value, such as ``p = 0.003`` or ``p < 0.001``; an empty string without a p value."""
    text = p_value(p)
    if text == NONE:
        return ""
    return f"{name} {text}" if text.startswith("<") else f"{name} = {text}"


# --- the primary question -----------------------------------------------------------------


def is_primary(comparison: Comparison, arm: str, metric: str) -> bool:
    """Whether a pooled difference to the baseline is the one of the primary question."""
    primary = comparison.primary
    return primary is not None and (primary.arm, primary.metric) == (arm, metric)


def _in_backticks(name: str) -> str:
    return f"`{name}`"


def primary_question(comparison: Comparison, named: Callable[[str], str] = _in_backticks) -> str:
    """The primary question as a sentence, or a statement that none is declared.

    Args:
        comparison: The comparison.
        named: Formats the name of an arm.
    """
    primary = comparison.primary
    if primary is None:
        return "Primary question: none is declared"
    title = metric_of(comparison, primary.metric).title
    return (
        f"Primary question: is the {title} of {named(primary.arm)} "
        f"different from that of {named(comparison.baseline)}?"
    )


def primary_short(comparison: Comparison) -> str:
    """The answer to the primary question in a few words, such as ``Higher: +0.034``."""
    primary = comparison.primary
    if primary is None:
        return "Nothing is claimed"
    difference = comparison.pooled[primary.arm][primary.metric]
    if difference.finding is None:
        return "Cannot be said"
    return f"{capital(claim(comparison, difference, primary.metric))}: {signed(difference.value)}"


def primary_line(comparison: Comparison, named: Callable[[str], str] = _in_backticks) -> str:
    """The primary question and its answer in one line, for a caption.

    Args:
        comparison: The comparison.
        named: Formats the name of an arm.
    """
    primary = comparison.primary
    if primary is None:
        return f"{primary_question(comparison)}; all figures are exploratory."
    difference = comparison.pooled[primary.arm][primary.metric]
    answer = capital(claim(comparison, difference, primary.metric))
    if difference.finding is None:
        answer = "Cannot be said"
    parts = [f"{answer}: {with_interval(comparison, difference)}", p_text(difference.p)]
    return f"{primary_question(comparison, named)} {', '.join(filter(None, parts))}."


def about_family(comparison: Comparison) -> list[str]:
    """The number of other tests and whether they may make claims; one sentence each."""
    primary, count = comparison.primary, comparison.family
    if count == 1:
        tests = "1 other test stands behind this page"
    else:
        tests = f"{count:,} other tests stand behind this page; they are corrected together (Holm)"
    if primary is None:
        return ["All figures are exploratory: none makes a claim."]
    if count == 0:
        return ["No other test stands behind this page: all other figures are exploratory."]
    if not primary.rejects:
        said = "The primary test does not reject, so all other figures are exploratory."
    else:
        said = "The primary test rejects, so they may make claims; all else is exploratory."
    return [f"{tests}.", said]
