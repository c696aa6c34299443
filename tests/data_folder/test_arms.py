"""Property tests of the arms: what each keeps of an explanation and what it destroys."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import chisquare

from regreason_plugin.data_folder.arms import (
    FILLER_WORD,
    Vocabulary,
    bag_of_words,
    count_one,
    filler,
    other_explanation,
    random_words,
    row_random,
    shuffled,
)

word_lists = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=40)
vocabularies = word_lists.map(lambda words: Vocabulary(Counter(words)))
seeds = st.integers(0, 10**6)


def draw(seed: int) -> Random:
    return row_random(seed, "arm", "id", "axis")


@given(word_lists, seeds)
def test_shuffled_is_a_permutation_and_another_one_if_there_is_any(
    words: list[str], seed: int
) -> None:
    mixed = shuffled(words, draw(seed))
    assert Counter(mixed) == Counter(words)
    assert (mixed != words) == (len(set(words)) > 1)


@given(word_lists, vocabularies, seeds)
def test_draws_use_known_words_and_keep_the_number(
    words: list[str], vocabulary: Vocabulary, seed: int
) -> None:
    for arm in (bag_of_words, random_words):
        drawn = arm(words, vocabulary, count_one, draw(seed))
        assert len(drawn) == len(words)
        assert set(drawn) <= set(vocabulary.words)
    assert filler(words, count_one) == [FILLER_WORD] * len(words)


@given(word_lists, vocabularies, seeds)
def test_with_tokens_the_length_matches_to_within_one_word(
    words: list[str], vocabulary: Vocabulary, seed: int
) -> None:
    budget = sum(map(len, words))  # a "token" a character
    longest = max(map(len, vocabulary.words))
    for arm in (bag_of_words, random_words):
        drawn = arm(words, vocabulary, len, draw(seed))
        total = sum(map(len, drawn))
        assert total <= max(budget, longest)
        assert budget - total < max(longest, 1) or budget < min(map(len, vocabulary.words))
    assert abs(sum(map(len, filler(words, len))) - budget) <= len(FILLER_WORD)


def test_bag_of_words_follows_the_counts_and_random_words_does_not() -> None:
    counts = Counter({"often": 70, "sometimes": 25, "rarely": 5})
    vocabulary = Vocabulary(counts)
    words = ["w"] * 3000
    bag = Counter(bag_of_words(words, vocabulary, count_one, draw(1)))
    uniform = Counter(random_words(words, vocabulary, count_one, draw(1)))
    as_counted = [3000 * counts[word] / 100 for word in vocabulary.words]
    evenly = [1000.0] * 3
    bag_of = [bag[word] for word in vocabulary.words]
    uniform_of = [uniform[word] for word in vocabulary.words]
    assert chisquare(bag_of, as_counted).pvalue > 1e-4
    assert chisquare(uniform_of, evenly).pvalue > 1e-4
    assert chisquare(bag_of, evenly).pvalue < 1e-30


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=50), st.integers(0, 49), seeds)
def test_a_donor_never_has_the_same_text(texts: list[str], own: int, seed: int) -> None:
    assume(own < len(texts))
    given_text = other_explanation(
        texts[own], list(range(len(texts))), texts.__getitem__, draw(seed)
    )
    if set(texts) == {texts[own]}:
        assert given_text is None
    else:
        assert given_text in set(texts) - {texts[own]}


def test_a_donor_is_found_among_many_that_are_the_same() -> None:
    texts = ["same"] * 5000 + ["other"]
    assert other_explanation("same", list(range(5001)), texts.__getitem__, draw(3)) == "other"
    assert other_explanation("same", [], texts.__getitem__, draw(3)) is None


def test_a_row_draws_by_seed_arm_id_and_axis_only() -> None:
    keys = [
        (seed, arm, row, axis) for seed in (0, 1) for arm in "ab" for row in "xy" for axis in "mn"
    ]
    first = {key: row_random(*key).random() for key in keys}
    assert len(set(first.values())) == len(keys)
    assert first == {key: row_random(*key).random() for key in reversed(keys)}
    # A fixed value, because a change would silently change the data of every user.
    assert round(row_random(0, "shuffled", "id", "axis").random(), 12) == 0.385578978481
