"""Decides the order of a task's labels, and whether they form an ordered scale."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Collection, Sequence
from typing import NamedTuple

from regreason_plugin.core.errors import UserError, nearest

# Common scales, low to high. They only serve to suggest --ordinal, never to decide the order.
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
    """The order of a task's labels.

    Attributes:
        labels: The labels, in order.
        ordinal: Whether they form an ordered scale.
        why: A sentence that explains the decision to the user.
    """

    labels: tuple[str, ...]
    ordinal: bool
    why: str


def declared_order(text: str, found: Collection[str]) -> LabelOrder:
    """Read the value of ``--ordinal``: labels from low to high, separated and quoted as in CSV.

    Args:
        text: The value of the option.
        found: The labels of the data.

    Raises:
        UserError: The value does not name every label of the data exactly once.
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
                f"--ordinal leaves out {label!r}, a label of the data; name all labels, from low "
                "to high"
            )
    return LabelOrder(labels, True, "The labels form a scale, in the order of --ordinal.")


def inferred_order(found: Collection[str]) -> LabelOrder:
    """The order without ``--ordinal``: only consecutive integers are treated as a scale."""
    integers = sorted(int(label) for label in found if re.fullmatch(r"-?\d+", label))
    if list(map(str, integers)) == sorted(found, key=_by_number) and (
        len(integers) > 2 and integers[-1] - integers[0] == len(integers) - 1
    ):
        return LabelOrder(
            tuple(map(str, integers)),
            True,
            f"The labels are the integers from {integers[0]} to {integers[-1]}, so they are "
            "treated as a scale; if they are names, write `ordinal: false` in task.yml.",
        )
    if len(found) == 2:
        labels = tuple(sorted(found, key=_by_number))
        return LabelOrder(
            labels,
            False,
            f"Of the two labels, AUROC treats the second, {labels[1]!r}, as the positive one; if "
            "that is wrong, swap them in task.yml.",
        )
    scale = _scale(found)
    if scale:
        return LabelOrder(
            scale,
            False,
            "The labels look like a scale but are treated as names without an order; if they are "
            f"a scale, add --ordinal {shlex.quote(csv_line(scale))}",
        )
    return LabelOrder(
        tuple(sorted(found, key=lambda label: (label.casefold(), label))),
        False,
        "The labels are treated as names without an order; if they are a scale, add --ordinal.",
    )


def csv_line(labels: Sequence[str]) -> str:
    """Join labels into a line that `declared_order` reads back."""
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
