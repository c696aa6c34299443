"""Whether two models answered the same documents, one by one, before their answers are paired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.samples import Answers

# How many ids a message names.
_SHOWN = 3


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
    check_same_ids(base.task, base.ids, other.ids, names, other.source)
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


def check_same_ids(
    task: str, base: Sequence[str], other: Sequence[str], names: tuple[str, str], source: Path
) -> None:
    """Refuse results of a task that are of different documents.

    Args:
        task: Its name.
        base: The ids of the documents that the one model answered.
        other: Those of the other.
        names: What the two are called in a message, in this order.
        source: A file of the other, for the message.

    Raises:
        UserError: They differ; it counts them and names the first.
    """
    alone = ((names[0], {*base} - {*other}), (names[1], {*other} - {*base}))
    if said := [_alone(name, sorted(ids)) for name, ids in alone if ids]:
        raise UserError(
            f"{task} of {names[1]!r} and of {names[0]!r} have other documents: "
            f"{' and '.join(said)}; score both on the same data with the same --limit, or "
            "choose the same documents with --samples",
            path=source,
        )


def _alone(name: str, ids: list[str]) -> str:
    shown = ", ".join(map(repr, ids[:_SHOWN]))
    if len(ids) == 1:
        return f"{shown} is in {name!r} alone"
    return f"{len(ids)} are in {name!r} alone ({shown}{', ...' if len(ids) > _SHOWN else ''})"


# The label before the content, which it is a part of: the message says what it is.
_ALIKE: dict[str, Callable[[Answers], Sequence[Any]]] = {
    "the label": lambda answers: answers.labels.tolist(),
    "the group": lambda answers: answers.groups,
    "the content or the prompt": lambda answers: answers.hashes,
}
