"""Labels that look the same but differ, so that a model would learn one class as two.

Two labels are twins if they differ only in case, in composed or decomposed accents and other forms
of the same characters (NFKD), in invisible characters, in spaces, or in characters of another
script that look the same (the part of Unicode Technical Standard 39 in ``look_alikes.txt``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from itertools import chain, combinations

# Default_Ignorable_Code_Point of the Unicode character database.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# A message names at most this many pairs, and of each label at most this many characters.
_PAIRS = 5
_CHARACTERS = 3


def find_twins(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of labels that look the same, each in the order of ``labels``.

    Case is folded both before and after look-alikes are replaced, because a Cyrillic capital VE
    looks like B, but its small letter does not look like b.
    """
    known: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        keys = _keys(label)
        # Being twins is transitive: the label joins all groups that share one of its keys.
        joined = {id(known[key]): known[key] for key in keys if key in known}
        group = [*chain(*joined.values()), label]
        known |= dict.fromkeys(chain(*map(_keys, group)), group)
    groups = {id(group): tuple(group) for group in known.values() if len(group) > 1}
    return list(groups.values())


def check_twins(labels: Iterable[str], advice: str) -> None:
    """Check that no two labels look the same.

    Args:
        labels: All labels of a task.
        advice: What the user can do; the end of the message.

    Raises:
        ValueError: Two labels look the same; the message names the characters that differ.
    """
    pairs = [pair for group in find_twins(labels) for pair in combinations(group, 2)]
    if not pairs:
        return
    shown = "; ".join(difference(*pair) for pair in pairs[:_PAIRS])
    more = f"; and {len(pairs) - _PAIRS} more such pairs" if len(pairs) > _PAIRS else ""
    raise ValueError(f"labels that look the same are different classes: {shown}{more}; {advice}")


def difference(one: str, other: str) -> str:
    """The difference between two texts as a clause that names the differing characters."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    end = 0
    while end < min(len(one), len(other)) - start and one[-1 - end] == other[-1 - end]:
        end += 1
    first, second = (_named(text[start : len(text) - end]) for text in (one, other))
    return f"{one!r} has {first} where {other!r} has {second}"


def merged(counts: Mapping[str, int]) -> dict[str, str]:
    """The most frequent label of each group of twins, by every other label of the group.

    Args:
        counts: Number of rows by label.
    """
    stands_for = {}
    for group in find_twins(counts):
        most = max(group, key=lambda label: counts[label])
        stands_for.update({label: most for label in group if label != most})
    return stands_for


def _keys(label: str) -> tuple[str, str]:
    """The keys of a label; two labels that share one of them are twins."""
    return _folded(label), _folded(_decomposed(label).translate(_look_alikes()))


def _named(text: str) -> str:
    if not text:
        return "nothing"
    names = [f"U+{ord(c):04X} {unicodedata.name(c, '')}".strip() for c in text[:_CHARACTERS]]
    return ", ".join(names) + (", ..." if len(text) > _CHARACTERS else "")


def _decomposed(text: str) -> str:
    return unicodedata.normalize("NFKD", _UNSEEN.sub("", text))


def _folded(text: str) -> str:
    folded = _decomposed(_decomposed(text).casefold())
    return " ".join(_UNSEEN.sub("", folded).split())


@cache
def _look_alikes() -> dict[int, str]:
    """The character that another looks like, by the other's code point."""
    text = (files("regreason_plugin.core") / "look_alikes.txt").read_text(encoding="utf-8")
    lines = (line.split("\t") for line in text.splitlines() if "\t" in line)
    return {int(code, 16): like for like, codes in lines for code in codes.split()}
