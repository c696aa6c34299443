"""The seven arms: each puts another text in the place of the explanation.

| arm | keeps of the explanation | destroys |
| --- | --- | --- |
| label_only | | everything |
| explanation | everything | |
| shuffled | its words and its length | the order of the words |
| bag_of_words | vocabulary, word frequency, length | which words belong to this label |
| mismatched | grammar | the connection to this conversation |
| random_words | vocabulary, length | word frequency |
| filler | length | everything else |

White space separates words. A row's random state depends only on (seed, arm, id, axis), so
neither the order of the rows nor any other row changes its draws.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal

ARMS: tuple[str, ...] = (
    "label_only",
    "explanation",
    "shuffled",
    "bag_of_words",
    "mismatched",
    "random_words",
    "filler",
)
PAPER_ARMS: tuple[str, ...] = ARMS[:4]
FILLER_WORD = "and"
Mismatched = Literal["any", "same_label"]

# The length of a word inside a text: its number of tokens, or 1 without a tokenizer.
WordLength = Callable[[str], int]


def count_one(word: str) -> int:
    """The length of a word if lengths are counted in words: always 1."""
    return 1


def row_random(seed: int, arm: str, row_id: str, axis: str) -> random.Random:
    """The random state of one row in one arm."""
    key = "\0".join((str(seed), arm, row_id, axis)).encode("utf-8")
    return random.Random(int.from_bytes(hashlib.sha256(key).digest(), "big"))


@dataclass(frozen=True)
class Vocabulary:
    """The words of the train explanations of one dataset and axis, with their counts."""

    counts: Counter[str]

    @cached_property
    def words(self) -> list[str]:
        """The distinct words, sorted, so that draws do not depend on the order of the rows."""
        return sorted(self.counts)

    @cached_property
    def cumulative(self) -> list[int]:
        """Running totals of the counts, for weighted draws."""
        return list(accumulate(self.counts[word] for word in self.words))


def shuffled(words: list[str], rng: random.Random) -> list[str]:
    """A random permutation of the words that differs from the given order if any does."""
    if len(set(words)) < 2:
        return list(words)
    while True:
        permuted = rng.sample(words, len(words))
        if permuted != words:
            return permuted


def _draw(words: list[str], length: WordLength, draw: Callable[[], str]) -> list[str]:
    """Draw words until their total length equals that of ``words``, to within one word."""
    budget = sum(length(word) for word in words)
    drawn: list[str] = []
    misses = 0
    # A word that exceeds the budget is drawn again, up to 20 times per text. If it ended the
    # text, texts would be half a word too short on average.
    while budget > 0 and misses < 20:
        word = draw()
        if length(word) > budget:
            misses += 1
            continue
        drawn.append(word)
        budget -= length(word)
    return drawn or [draw()]


def bag_of_words(
    words: list[str], vocabulary: Vocabulary, length: WordLength, rng: random.Random
) -> list[str]:
    """Words drawn independently in proportion to their train counts, up to the same length."""
    return _draw(
        words,
        length,
        lambda: rng.choices(vocabulary.words, cum_weights=vocabulary.cumulative)[0],
    )


def random_words(
    words: list[str], vocabulary: Vocabulary, length: WordLength, rng: random.Random
) -> list[str]:
    """Words drawn independently and uniformly from the train vocabulary, up to the same length."""
    return _draw(words, length, lambda: rng.choice(vocabulary.words))


def filler(words: list[str], length: WordLength) -> list[str]:
    """One word, repeated to the same length."""
    total = sum(length(word) for word in words)
    return [FILLER_WORD] * max(1, round(total / length(FILLER_WORD)))


def arm_words(
    arm: str, words: list[str], vocabulary: Vocabulary, length: WordLength, rng: random.Random
) -> list[str]:
    """The words that an arm has in place of the explanation's words.

    Args:
        arm: Any arm but ``mismatched``, for which `other_explanation` finds another row.
        words: The words of the explanation.
        vocabulary: The vocabulary of the row's dataset and axis.
        length: The function that measures a word.
        rng: The row's random state in this arm.
    """
    draws: dict[str, Callable[[], list[str]]] = {
        "label_only": lambda: [],
        "explanation": lambda: words,
        "shuffled": lambda: shuffled(words, rng),
        "bag_of_words": lambda: bag_of_words(words, vocabulary, length, rng),
        "random_words": lambda: random_words(words, vocabulary, length, rng),
        "filler": lambda: filler(words, length),
    }
    return draws[arm]()


def other_explanation(
    text: str, others: list[int], text_of: Callable[[int], str], rng: random.Random
) -> str | None:
    """Draw the explanation of another train row, with a different text.

    Args:
        text: The row's own explanation.
        others: The numbers of the rows to choose from.
        text_of: Returns the explanation of a row, given its number.
        rng: The row's random state.

    Returns:
        An explanation that differs from ``text``, or None if there is none.
    """
    if not others:
        return None
    for _ in range(32):  # nearly always the first draw
        candidate = text_of(rng.choice(others))
        if candidate != text:
            return candidate
    start = rng.randrange(len(others))
    for number in others[start:] + others[:start]:
        candidate = text_of(number)
        if candidate != text:
            return candidate
    return None
