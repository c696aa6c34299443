"""Position of the label among the tokens of a row's target, in any batch.

No column of ours can mark the label: collators pad and pack batches and drop extra columns, and
with a chat template Axolotl makes the tokens. But the target of a row is one contiguous run of
tokens that the loss is taken on. The label stands at the beginning of this run, or right before
the few tokens that end the text. The column ``labels`` alone therefore shows the label's position;
`locate_labels` checks this on every row before the first step.
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
class LabelPosition:
    """The position of the label in a run of target tokens.

    Attributes:
        labels: Token sequences of the labels, leading spaces included. The longest comes first,
            because one sequence may be a prefix (or a suffix) of another.
        first: Whether the label stands at the beginning of the run; otherwise it is at the end.
        after: Number of tokens that follow a label at the end, such as the end of text.
        choices: The last token of each label that the data declare, label 1 first, if the labels
            differ in that token only. Scoring then predicts the label whose token is the most
            likely of these. Empty if the labels differ earlier, because then no single position
            decides between them.
        numbers: For each of ``labels``, the number of the label that it is, 1 for the first.
    """

    labels: tuple[Tokens, ...]
    first: bool
    after: int = 0
    choices: Tokens = ()
    numbers: tuple[int, ...] = ()

    def mask(self, labels: Tensor) -> Tensor:
        """Mask of the positions that hold a token of a label.

        Args:
            labels: ``[B, T]`` token ids, -100 where no loss is taken; padded or packed.

        Returns:
            ``[B, T]``, bool.
        """
        return self.which(labels) != 0

    def which(self, labels: Tensor) -> Tensor:
        """For each position, the place in ``self.labels`` of the label that it belongs to, plus 1.

        Args:
            labels: As for `mask`.

        Returns:
            ``[B, T]``; 0 at positions that hold no token of a label.
        """
        target = torch.nn.functional.pad(labels != IGNORE, (1, 1))
        which = torch.zeros_like(labels)
        if self.first:  # True where a run begins: the token before is no target
            open_ends = target[:, 1:-1] & ~target[:, :-2]
        else:  # True where a label ends: the run ends `after` tokens later
            ends = target[:, 1:-1] & ~target[:, 2:]
            open_ends = _shifted(ends, -self.after)
        for place, tokens in enumerate(self.labels, start=1):
            offsets = range(len(tokens)) if self.first else range(1 - len(tokens), 1)
            matches = open_ends.clone()
            for offset, token in zip(offsets, tokens, strict=True):
                matches &= _shifted(labels == token, -offset)
            for offset in offsets:
                which.masked_fill_(_shifted(matches, offset), place)
            open_ends &= ~matches
        return which

    def of(self, target: Sequence[int]) -> Tokens | None:
        """The label's tokens in one whole run; None if the run has no label at this position."""
        end = len(target) - self.after
        for tokens in self.labels:
            start = 0 if self.first else end - len(tokens)
            if start >= 0 and tuple(target[start : start + len(tokens)]) == tokens:
                return tokens
        return None


def _shifted(mask: Tensor, step: int) -> Tensor:
    """The mask, moved ``step`` positions to the right, or to the left if ``step`` is negative."""
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
) -> LabelPosition:
    """Find the position of the label, and check it on every row.

    Args:
        rows: The ``labels`` of every tokenized row.
        expected: Number of rows with each label.
        tokenizer: The tokenizer that made the rows.
        order: Whether label or explanation comes first.
        texts: Texts of the labels, label 1 first.
        normalise: How scoring makes labels comparable, as in `declaration.Declaration`.

    Raises:
        UserError: The target of a row is not contiguous, a row has no label at the expected
            position, or the labels found are not those of the data; and as `check_label_tokens`.
    """
    check_label_tokens(texts, tokenizer)
    first = order == "label_first"
    special = special_tokens(tokenizer)
    label_place = LabelPosition((), first)
    # If one label is a prefix (or a suffix) of another, a label that was seen before may match
    # a row that holds the longer label. Every row is then decoded.
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
                    f"tokenized row {number} has no label where order {order} expects it: "
                    f"{text[:60] if first else text[-60:]!r}"
                )
            longest_first = sorted({*label_place.labels, tokens}, key=lambda one: (-len(one), one))
            label_place = LabelPosition(tuple(longest_first), first, ended)
        counts[tokens] += 1
    labels: Counter[int] = Counter()
    cuts: dict[int, set[Tokens]] = {number: set() for number in range(1, len(texts) + 1)}
    for tokens, count in counts.items():
        number = list(texts).index(tokenizer.decode(list(tokens)).strip()) + 1
        labels[number] += count
        cuts[number].add(tokens)
    if labels != expected:
        raise UserError(
            f"the tokenized rows have the labels {_counts(labels)}, but the train files have "
            f"{_counts(expected)}; delete the folder dataset_prepared_path and try again"
        )
    number_of = {tokens: number for number, own in cuts.items() for tokens in own}
    label_place = replace(
        label_place, numbers=tuple(number_of[tokens] for tokens in label_place.labels)
    )
    if normalise == "none" or len({len(text) for text in texts}) == 1:
        label_place = replace(label_place, choices=_choices(list(cuts.values())))
    return label_place


def _choices(cuts: Sequence[set[Tokens]]) -> Tokens:
    """The last token of each label, if the labels differ in that token only; otherwise empty.

    Args:
        cuts: Token sequences of each label. If a label has more than one, the result is empty.
    """
    if any(len(cut) != 1 for cut in cuts):
        return ()
    labels = [tokens for (tokens,) in cuts]
    last = tuple(tokens[-1] for tokens in labels)
    alike = len({tokens[:-1] for tokens in labels}) == 1 and len(set(last)) == len(last)
    return last if alike else ()


def _target(row: Sequence[int], number: int) -> list[int]:
    """The tokens that the loss is taken on, which must be contiguous."""
    positions = [at for at, token in enumerate(row) if token != IGNORE]
    if not positions or positions[-1] - positions[0] + 1 != len(positions):
        raise UserError(
            f"the target of tokenized row {number} is empty or not contiguous, so the plugin "
            "cannot tell the label's tokens from the others"
        )
    return list(row[positions[0] : positions[-1] + 1])


def _end_tokens(target: Sequence[int], tokenizer: Any, special: dict[int, str]) -> int:
    """Number of tokens after the last visible one, which only end the text."""
    end = len(target)
    while end and (target[end - 1] in special or not tokenizer.decode([target[end - 1]]).strip()):
        end -= 1
    return len(target) - end


def _read_label(
    target: Sequence[int], tokenizer: Any, first: bool, wanted: set[str]
) -> Tokens | None:
    """The tokens at the beginning or the end of a target that decode to a wanted label."""
    for count in range(1, len(target) + 1):
        tokens = list(target[:count] if first else target[-count:])
        text = tokenizer.decode(tokens).strip()
        if text in wanted:
            # The space before the label belongs to the label: its cue does not end with one.
            while not first and count < len(target) and _is_space(target[-count - 1], tokenizer):
                count += 1
            return tuple(target[:count] if first else target[len(target) - count :])
    return None


def _label_line(target: str, first: bool) -> str:
    """The line of a target that holds the label, without the cue before it.

    The label fills the rest of its line. If one label is a prefix of another, the whole line
    shows which of the two it is.
    """
    if first:
        return target.strip().partition("\n")[0].strip()
    return target.rpartition(LABEL_CUE.lstrip())[2].strip()


def _is_space(token: int, tokenizer: Any) -> bool:
    text = tokenizer.decode([token])
    return not text.strip(" ") and "\n" not in text


def _counts(counter: Counter[int]) -> str:
    return ", ".join(f"{count} x {label}" for label, count in sorted(counter.items()))


def label_cuts(place: LabelPosition, tokenizer: Any) -> dict[str, int]:
    """Number of tokens in each label, by the label's text."""
    return dict(
        sorted((tokenizer.decode(list(tokens)).strip(), len(tokens)) for tokens in place.labels)
    )


def check_label_cuts(cuts: Mapping[str, int], config: str) -> Iterator[Finding]:
    """Warn of labels with different numbers of tokens.

    This is no error: training splits labels as lm-eval does, so the sum over a label's tokens is
    its log-probability. A trained model also loses nothing by a second token that always follows
    the first. An untrained model does, so it prefers labels with fewer tokens.

    Args:
        cuts: Number of tokens in each label, from `label_cuts`.
        config: Name of the config in the warning.
    """
    if len(set(cuts.values())) > 1:
        shown = ", ".join(f"{label} into {count}" for label, count in cuts.items())
        yield finding(
            "warning",
            f"its tokenizer splits the labels into different numbers of tokens ({shown}): a "
            "trained model learns this, but an untrained one prefers the shorter labels, and the "
            "longer labels weigh more in the loss",
            path=config,
            field="base_model",
        )
