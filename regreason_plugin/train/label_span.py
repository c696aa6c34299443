"""Where the label is among the tokens of a row's target, in any batch.

Collators pad and pack batches and hand on no column of ours, and with a chat template Axolotl
makes the tokens. But a target is one run of tokens that the loss is taken on, and the label
stands at its beginning, or before the few tokens that end the text. So ``labels`` alone say
where it is; that they do is checked on every row before the first step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.label_tokens import check_label_tokens
from regreason_plugin.core.paper import LABELS
from regreason_plugin.core.prompt import LABEL_CUE, Order
from regreason_plugin.train.findings import Finding, finding
from regreason_plugin.train.row_tokens import IGNORE, special_tokens

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class LabelPlace:
    """The place of the label in a run of target tokens.

    Attributes:
        labels: The labels as the tokenizer cuts them, a leading space included; the longest
            first, since one may begin (or end) with another.
        first: Whether a run begins with its label; else it ends with it.
        after: How many tokens follow it where the run ends with it, such as the end of text.
        choices: The last tokens of all labels that the data declare, label 1 first, if they are
            the same up to there: then the likeliest of these is the label that scoring predicts.
            Empty if labels part earlier, so that no one position decides between them.
    """

    labels: tuple[Tokens, ...]
    first: bool
    after: int = 0
    choices: Tokens = ()

    def mask(self, labels: Tensor) -> Tensor:
        """Which positions hold a token of a label.

        Args:
            labels: ``[B, T]`` token ids, -100 where no loss is taken; padded or packed.

        Returns:
            ``[B, T]`` of bool.
        """
        target = torch.nn.functional.pad(labels != IGNORE, (1, 1))
        mask = torch.zeros_like(labels, dtype=torch.bool)
        if self.first:  # a run begins here: nothing before it is a target
            open_ends = target[:, 1:-1] & ~target[:, :-2]
        else:  # the label ends here: a run ends so many tokens later
            ends = target[:, 1:-1] & ~target[:, 2:]
            open_ends = _shifted(ends, -self.after)
        for tokens in self.labels:
            places = range(len(tokens)) if self.first else range(1 - len(tokens), 1)
            here = open_ends.clone()
            for step, token in zip(places, tokens, strict=True):
                here &= _shifted(labels == token, -step)
            for step in places:
                mask |= _shifted(here, step)
            open_ends &= ~here
        return mask

    def of(self, target: Sequence[int]) -> Tokens | None:
        """The label's tokens in one whole run; None if it has none there."""
        end = len(target) - self.after
        for tokens in self.labels:
            start = 0 if self.first else end - len(tokens)
            if start >= 0 and tuple(target[start : start + len(tokens)]) == tokens:
                return tokens
        return None


def _shifted(mask: Tensor, step: int) -> Tensor:
    """Each True so many positions further to the right, or to the left if negative."""
    moved = torch.zeros_like(mask)
    if step == 0:
        return mask
    if step > 0:
        moved[:, step:] = mask[:, :-step]
    else:
        moved[:, :step] = mask[:, -step:]
    return moved


def locate_labels(
    rows: Iterable[Sequence[int]],
    expected: Counter[int],
    tokenizer: Any,
    order: Order,
    texts: Sequence[str] = LABELS,
    normalise: str = "none",
) -> LabelPlace:
    """Find the place of the label, and hold it against every row.

    Args:
        rows: The ``labels`` of every tokenized row.
        expected: How many rows have which label.
        tokenizer: What made them.
        order: Whether label or explanation comes first.
        texts: The labels, label 1 first.
        normalise: How scoring compares them, as `declaration.Declaration`.

    Raises:
        UserError: A row's target is not one run, it has no label at the place, or the
            labels found there are not those of the data; or as `check_label_tokens`.
    """
    check_label_tokens(texts, tokenizer)
    first = order == "label_first"
    special = special_tokens(tokenizer)
    label_place = LabelPlace((), first)
    # Then a row may have a label that begins (or ends) with another, seen before.
    ambiguous = any(
        one != other and (other.startswith(one) if first else other.endswith(one))
        for one in texts
        for other in texts
    )
    counts: Counter[Tokens] = Counter()
    after: set[int] = set()
    for number, row in enumerate(rows):
        target = _target(row, number)
        tokens = None if ambiguous else label_place.of(target)
        if tokens is None:
            ended = 0 if first else _end_tokens(target, tokenizer, special)
            whole = target[: len(target) - _end_tokens(target, tokenizer, special)]
            line = _label_line(tokenizer.decode(list(whole)), first)
            wanted = {line} & set(texts) or set(texts)
            tokens = _read_label(target[: len(target) - ended], tokenizer, first, wanted)
            after.add(ended)
            if tokens is None or len(after) > 1:
                text = tokenizer.decode(target)
                raise UserError(
                    f"tokenized row {number} has no label where order {order} has it: "
                    f"{text[:60] if first else text[-60:]!r}"
                )
            longest_first = sorted({*label_place.labels, tokens}, key=lambda one: (-len(one), one))
            label_place = LabelPlace(tuple(longest_first), first, ended)
        counts[tokens] += 1
    labels: Counter[int] = Counter()
    cuts: dict[int, set[Tokens]] = {number: set() for number in range(1, len(texts) + 1)}
    for tokens, count in counts.items():
        number = list(texts).index(tokenizer.decode(list(tokens)).strip()) + 1
        labels[number] += count
        cuts[number].add(tokens)
    if labels != expected:
        raise UserError(
            f"the labels found in the tokenized rows are {_counts(labels)}, those of the train "
            f"files {_counts(expected)}; remove the folder dataset_prepared_path and try again"
        )
    if normalise == "none" or len({len(text) for text in texts}) == 1:
        label_place = replace(label_place, choices=_choices(list(cuts.values())))
    return label_place


def _choices(cuts: Sequence[set[Tokens]]) -> Tokens:
    """Each label's last token, if it has one cut and all labels differ in that token only."""
    if any(len(cut) != 1 for cut in cuts):
        return ()
    labels = [tokens for (tokens,) in cuts]
    last = tuple(tokens[-1] for tokens in labels)
    alike = len({tokens[:-1] for tokens in labels}) == 1 and len(set(last)) == len(last)
    return last if alike else ()


def _target(row: Sequence[int], number: int) -> list[int]:
    """The tokens that the loss is taken on, which have to be one run."""
    places = [at for at, token in enumerate(row) if token != IGNORE]
    if not places or places[-1] - places[0] + 1 != len(places):
        raise UserError(
            f"tokenized row {number} does not have its target in one piece, so the tokens of the "
            "label cannot be told from the others"
        )
    return list(row[places[0] : places[-1] + 1])


def _end_tokens(target: Sequence[int], tokenizer: Any, special: dict[int, str]) -> int:
    """How many tokens after the last visible one only end the text."""
    end = len(target)
    while end and (target[end - 1] in special or not tokenizer.decode([target[end - 1]]).strip()):
        end -= 1
    return len(target) - end


def _read_label(
    target: Sequence[int], tokenizer: Any, first: bool, wanted: set[str]
) -> Tokens | None:
    """The tokens at the beginning or the end of a text that read as one of some labels."""
    for count in range(1, len(target) + 1):
        tokens = list(target[:count] if first else target[-count:])
        text = tokenizer.decode(tokens).strip()
        if text in wanted:
            # The space before it is its own: the label's cue does not end with one.
            while not first and count < len(target) and _is_space(target[-count - 1], tokenizer):
                count += 1
            return tuple(target[:count] if first else target[len(target) - count :])
    return None


def _label_line(target: str, first: bool) -> str:
    """The line of a target that holds the label, without the cue before it.

    A label ends with its line, so of two labels of which one begins the other it is the one
    that the whole line is.
    """
    if first:
        return target.strip().partition("\n")[0].strip()
    return target.rpartition(LABEL_CUE.lstrip())[2].strip()


def _is_space(token: int, tokenizer: Any) -> bool:
    text = tokenizer.decode([token])
    return not text.strip(" ") and "\n" not in text


def _counts(counter: Counter[int]) -> str:
    return ", ".join(f"{count} x {label}" for label, count in sorted(counter.items()))


def label_cuts(place: LabelPlace, tokenizer: Any) -> dict[str, int]:
    """Into how many tokens each label is cut."""
    return dict(
        sorted((tokenizer.decode(list(tokens)).strip(), len(tokens)) for tokens in place.labels)
    )


def check_label_cuts(cuts: Mapping[str, int], config: str) -> Iterator[Finding]:
    """Labels cut into different numbers of tokens.

    A warning and no error: training cuts them as lm-eval does, so a sum over a label's tokens
    is its probability, and one that is always followed by its second token costs a trained
    model nothing. It is not so for a model before its training.

    Args:
        cuts: As `label_cuts`.
        config: What to call the config.
    """
    if len(set(cuts.values())) > 1:
        shown = ", ".join(f"{label} into {count}" for label, count in cuts.items())
        yield finding(
            "warning",
            f"its tokenizer cuts the labels into different numbers of tokens ({shown}): a trained "
            "model learns that, but the scores of an untrained one lean to the shorter, and the "
            "longer weigh more in the loss",
            path=config,
            field="base_model",
        )
