"""Whether two models answered the same documents, one by one, before their answers are paired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from regreason_plugin.errors import UserError
from regreason_plugin.report.samples import Answers


def check_same_answers(base: Answers, other: Answers, names: tuple[str, str]) -> None:
    """Refuse to pair answers to different documents, or to the same in another prompt.

    Args:
        base: The one model's.
        other: The other's, of the same task.
        names: What the two are called in a message, in this order.

    Raises:
        UserError: They differ in the documents' ids, contents or prompts, labels or groups;
            names the first such document.
    """
    if base.ids != other.ids:
        first, name = _only_in_one(base, other, names)
        raise UserError(
            f"{base.task} of {names[1]!r} and of {names[0]!r} have other documents: {first!r} is "
            f"in {name!r} alone; score both on the same data with the same --limit",
            path=other.source,
        )
    for what, of in _ALIKE.items():
        ours, theirs = of(base), of(other)
        different = [i for i, (one, two) in enumerate(zip(ours, theirs, strict=True)) if one != two]
        if different:
            raise UserError(
                f"{base.task} of {names[1]!r} and of {names[0]!r} differ in {what} of "
                f"{len(different)} of {len(base.ids)} documents, the first "
                f"{base.ids[different[0]]!r}; score both on the same data with the same prompt",
                path=other.source,
            )


# The label before the content, which it is a part of: the message says what it is.
_ALIKE: dict[str, Callable[[Answers], Sequence[Any]]] = {
    "the label": lambda answers: answers.labels.tolist(),
    "the group": lambda answers: answers.groups,
    "the content or the prompt": lambda answers: answers.hashes,
}


def _only_in_one(base: Answers, other: Answers, names: tuple[str, str]) -> tuple[str, str]:
    """The first document that one of the two lacks, and which one has it."""
    only = dict.fromkeys(set(base.ids) - set(other.ids), names[0])
    only.update(dict.fromkeys(set(other.ids) - set(base.ids), names[1]))
    first = min(only)
    return first, only[first]
