"""In which order a task's labels stand, and whether that order means something."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Collection, Sequence
from typing import NamedTuple

from regreason_plugin.core.errors import UserError, nearest

# Words people order, low to high. They only ever make a hint.
_SCALES = (
    "very low,low,medium,moderate,high,very high",
    "none,low,minor,moderate,major,severe,critical",
    "very bad,bad,poor,fair,average,ok,okay,good,very good,excellent",
    "very negative,negative,neutral,mixed,positive,very positive",
    "never,rarely,seldom,sometimes,often,usually,always",
    "strongly disagree,disagree,neutral,neither agree nor disagree,agree,strongly agree",
    "small,medium,large",
    "beginner,intermediate,advanced,expert",
)
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


class LabelOrder(NamedTuple):
    """What was decided.

    Attributes:
        labels: In their order.
        ordinal: Whether it means something.
        why: A sentence for the user.
    """

    labels: tuple[str, ...]
    ordinal: bool
    why: str


def declared_order(text: str, found: Collection[str]) -> LabelOrder:
    """The order of ``--ordinal``, low to high; quotes as in CSV around a label with a comma.

    Raises:
        UserError: It is not an order of the labels found in the data.
    """
    row = next(csv.reader([text], skipinitialspace=True), [])
    labels = tuple(label.strip() for label in row)
    for label in labels:
        if label not in found:
            raise UserError(
                f"--ordinal names {label!r}, a label that no row has; "
                f"{nearest(label, sorted(found))}"
            )
        if labels.count(label) > 1:
            raise UserError(f"--ordinal names {label!r} twice")
    for label in sorted(found):
        if label not in labels:
            raise UserError(
                f"--ordinal leaves out {label!r}, a label of the data; it has to name "
                "all of them, low to high"
            )
    return LabelOrder(labels, True, "The labels are a scale, in the order of --ordinal.")


def inferred_order(found: Collection[str]) -> LabelOrder:
    """The order of labels of which nobody said one: integers in a row are a scale."""
    integers = sorted(int(label) for label in found if re.fullmatch(r"-?\d+", label))
    if list(map(str, integers)) == sorted(found, key=_by_number) and (
        len(integers) > 2 and integers[-1] - integers[0] == len(integers) - 1
    ):
        return LabelOrder(
            tuple(map(str, integers)),
            True,
            f"The labels are the integers from {integers[0]} to {integers[-1]}, so their order "
            "is taken for a scale; write `ordinal: false` if they are names.",
        )
    if len(found) == 2:
        labels = tuple(sorted(found, key=_by_number))
        return LabelOrder(
            labels,
            False,
            f"Two labels: AUROC takes the second, {labels[1]!r}, for the positive one; change "
            "their order in task.yml if it is the other.",
        )
    scale = _scale(found)
    if scale:
        return LabelOrder(
            scale,
            False,
            "The labels look like a scale but are taken for names; if their order means "
            f"something, add --ordinal {shlex.quote(csv_line(scale))}",
        )
    return LabelOrder(
        tuple(sorted(found, key=lambda label: (label.casefold(), label))),
        False,
        "The labels are taken for names, without an order; --ordinal names one.",
    )


def csv_line(labels: Sequence[str]) -> str:
    """As `declared_order` reads it."""
    quoted = ('"' + label.replace('"', '""') + '"' for label in labels)
    return ",".join(
        text if {",", '"'} & set(label) else label
        for label, text in zip(labels, quoted, strict=True)
    )


def _scale(found: Collection[str]) -> tuple[str, ...] | None:
    numbers = {label: _NUMBER.match(label) for label in found}
    if all(numbers.values()) and len({_number(label) for label in found}) == len(found):
        return tuple(sorted(found, key=_number))
    for scale in _SCALES:
        words = scale.split(",")
        if all(label.casefold() in words for label in found):
            return tuple(sorted(found, key=lambda label: words.index(label.casefold())))
    return None


def _number(label: str) -> float:
    match = _NUMBER.match(label)
    return float(match[0]) if match else 0.0


def _by_number(label: str) -> tuple[float, str, str]:
    return _number(label), label.casefold(), label
