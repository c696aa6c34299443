"""The seven arms: what stands after the label in place of the explanation.

| arm | keeps | destroys |
| --- | --- | --- |
| label_only | | everything |
| explanation | everything | |
| shuffled | its own words and its length | their order |
| bag_of_words | vocabulary, frequency, length | which words belong to this label |
| mismatched | grammar | the tie to this conversation |
| random_words | vocabulary, length | frequency |
| filler | length | everything else |

Words are what white space separates. A row's random state is a function of (seed, arm,
id, axis) and of nothing else, so neither row order nor other rows change its draw.
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

# Length of a word inside a text: its tokens with a tokenizer, else 1.
WordLength = Callable[[str], int]


def one_each(word: str) -> int:
    """The length of a word where lengths are counted in words."""
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
        """All different words, sorted, so that their order is nobody's accident."""
        return sorted(self.counts)

    @cached_property
    def cumulative(self) -> list[int]:
        """Running totals of the counts, for weighted draws."""
        return list(accumulate(self.counts[word] for word in self.words))


def shuffled(words: list[str], rng: random.Random) -> list[str]:
    """A permutation of the words, another order wherever there is one."""
    if len(set(words)) < 2:
        return list(words)
    while True:
        permuted = rng.sample(words, len(words))
        if permuted != words:
            return permuted


def _draw(words: list[str], length: WordLength, draw: Callable[[], str]) -> list[str]:
    """Draw words until they are as long as the given ones, to within one word."""
    budget = sum(length(word) for word in words)
    drawn: list[str] = []
    misses = 0
    # A word that does not fit any more is drawn again a few times rather than ending
    # the text there: otherwise every text would come out half a word short.
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
    """Independent draws in proportion to the train counts, of the same length."""
    return _draw(
        words,
        length,
        lambda: rng.choices(vocabulary.words, cum_weights=vocabulary.cumulative)[0],
    )


def random_words(
    words: list[str], vocabulary: Vocabulary, length: WordLength, rng: random.Random
) -> list[str]:
    """Independent uniform draws from the train vocabulary, of the same length."""
    return _draw(words, length, lambda: rng.choice(vocabulary.words))


def filler(words: list[str], length: WordLength) -> list[str]:
    """One word, repeated to the same length."""
    total = sum(length(word) for word in words)
    return [FILLER_WORD] * max(1, round(total / length(FILLER_WORD)))


def arm_words(
    arm: str, words: list[str], vocabulary: Vocabulary, length: WordLength, rng: random.Random
) -> list[str]:
    """What an arm has in place of an explanation's words.

    Args:
        arm: Any but ``mismatched``, whose words are another row's (`donor`).
        words: The explanation's.
        vocabulary: Of the row's dataset and axis.
        length: As texts are measured.
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


def donor(
    text: str, others: list[int], text_of: Callable[[int], str], rng: random.Random
) -> str | None:
    """The explanation of another train row, its text different.

    Args:
        text: The row's own explanation.
        others: Row numbers to choose from.
        text_of: Gives the explanation of a row number.
        rng: The row's random state.

    Returns:
        A different text, or None when there is none.
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
