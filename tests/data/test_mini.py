from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import islice

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.tree import DecisionTreeClassifier

from regreason_plugin.annotate.rules import rate
from regreason_plugin.core.jsonl import dumps
from regreason_plugin.core.paper import EIGHTEEN
from regreason_plugin.core.prompt import neutralise, render_prompt
from regreason_plugin.core.records import Conversation, Rating
from regreason_plugin.data import mini
from regreason_plugin.data.groups import first_user_turn_group, text_group
from regreason_plugin.data.mini import mini_conversations

SETTINGS = mini.MINI_SETTINGS
AXES = tuple(mini.MINI_AXES)
DATASETS = tuple(dict(SETTINGS))
Ratings = dict[tuple[str, str], list[Rating]]


@pytest.fixture(scope="module")
def conversations() -> list[Conversation]:
    return list(mini_conversations())


@pytest.fixture(scope="module")
def ratings(conversations: list[Conversation]) -> Ratings:
    by_setting: Ratings = defaultdict(list)
    for rating in rate(conversations, axes=AXES):
        by_setting[rating.dataset, rating.axis].append(rating)
    return by_setting


def as_bytes(conversations: list[Conversation]) -> bytes:
    return "\n".join(dumps(c.model_dump()) for c in conversations).encode()


def words(rating: Rating) -> int:
    return len(rating.conversation[-1].content.split())


def labels(ratings: list[Rating]) -> list[int]:
    return [rating.label for rating in ratings]


def test_six_thousand_conversations_with_their_own_ids(conversations: list[Conversation]) -> None:
    assert Counter(c.dataset for c in conversations) == dict.fromkeys(DATASETS, 1000)
    assert len({c.id for c in conversations}) == len(conversations) == 6000


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from regreason_plugin.data.mini import mini_conversations;"
        "from regreason_plugin.core.jsonl import dumps;"
        "lines = [dumps(c.model_dump()) for c in mini_conversations(7, 20)];"
        "print(hashlib.sha256('\\n'.join(lines).encode()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = hashlib.sha256(as_bytes(list(mini_conversations(7, 20)))).hexdigest()
    assert other.stdout.strip() == here


def test_another_seed_shares_no_conversation(conversations: list[Conversation]) -> None:
    other = {c.id for c in mini_conversations(1, 200)}
    assert not other & {c.id for c in conversations}


def test_a_smaller_benchmark_is_the_head_of_a_larger_one(conversations: list[Conversation]) -> None:
    assert list(islice(mini_conversations(per_dataset=30), 30)) == conversations[:30]


def test_answers_of_a_pair_share_all_but_the_last_message(
    conversations: list[Conversation],
) -> None:
    chosen, rejected = (
        [c for c in conversations if c.dataset == name] for name in ("hh_chosen", "hh_rejected")
    )
    for one, two in zip(chosen, rejected, strict=True):
        assert one.conversation[:-1] == two.conversation[:-1]
        assert one.conversation[-1] != two.conversation[-1]
        assert one.group == two.group


def test_chosen_answers_are_better_on_average(ratings: Ratings) -> None:
    for axis in AXES:
        chosen, rejected = (
            np.mean([r.score for r in ratings[name, axis]]) for name in ("hh_chosen", "hh_rejected")
        )
        assert chosen > rejected + 0.1


def test_groups_are_computed_from_the_text(conversations: list[Conversation]) -> None:
    films = set()
    for conversation in conversations:
        if conversation.dataset == "cornell":
            assert conversation.meta
            films.add((conversation.meta["film"], conversation.group))
        elif conversation.context:
            assert conversation.group == text_group(conversation.context)
        else:
            assert conversation.group == first_user_turn_group(conversation.conversation)
    assert len(films) == 100
    assert len({group for _, group in films}) == 100


def test_groups_are_small_enough_to_split_and_some_are_shared(
    conversations: list[Conversation],
) -> None:
    for dataset in DATASETS:
        sizes = Counter(c.group for c in conversations if c.dataset == dataset)
        assert len(sizes) >= 90
        assert max(sizes.values()) <= 80
        assert max(sizes.values()) >= 2


def test_every_conversation_has_the_shape_of_its_dataset(
    conversations: list[Conversation],
) -> None:
    for conversation in conversations:
        roles = [turn.role for turn in conversation.conversation]
        assert roles[-1] == "assistant"
        assert roles == [("user", "assistant")[place % 2] for place in range(len(roles))]
        assert bool(conversation.context) == (conversation.dataset in ("amazon_qa", "coqa"))


def test_no_placeholder_and_nothing_to_neutralise(conversations: list[Conversation]) -> None:
    for conversation in conversations:
        texts = [conversation.context or "", *(t.content for t in conversation.conversation)]
        for text in texts:
            assert "{" not in text
            assert neutralise(text) == (text, 0)


def test_every_noun_fits_its_article(conversations: list[Conversation]) -> None:
    material = mini._TEXT
    nouns = {*material["adjectives"], *material["vague"], *material["elsewhere"]}
    for dataset in material["datasets"].values():
        nouns |= {*dataset["topics"]}
    assert not {noun for noun in nouns if noun[0] in "aeiou"}


@pytest.mark.parametrize(("dataset", "axis"), SETTINGS)
def test_every_setting_is_worth_learning(ratings: Ratings, dataset: str, axis: str) -> None:
    counts = Counter(labels(ratings[dataset, axis]))
    shares = {label: counts[label] / 1000 for label in range(1, 6)}
    assert 0.24 <= max(shares.values()) <= 0.36
    # This share makes sure that a test split of 267 rows has even the rarest label.
    assert min(shares.values()) >= 0.06


@pytest.mark.parametrize(("dataset", "axis"), SETTINGS)
def test_no_axis_shows_in_the_length(ratings: Ratings, dataset: str, axis: str) -> None:
    chosen = ratings[dataset, axis]
    lengths, truth = [words(r) for r in chosen], labels(chosen)
    assert abs(spearmanr(lengths, truth).statistic) < 0.3
    train, test = slice(0, 700), slice(700, None)
    tree = DecisionTreeClassifier(max_leaf_nodes=8, random_state=0)
    tree.fit(np.array(lengths[train])[:, None], truth[train])
    accuracy = tree.score(np.array(lengths[test])[:, None], truth[test])
    majority = max(Counter(truth[test]).values()) / len(truth[test])
    assert accuracy <= majority + 0.06


@pytest.mark.parametrize("dataset", DATASETS)
def test_no_axis_is_a_copy_of_another(ratings: Ratings, dataset: str) -> None:
    by_axis = [labels(ratings[dataset, axis]) for axis in AXES]
    correlations = np.asarray(spearmanr(by_axis, axis=1).statistic)
    assert np.abs(correlations[~np.eye(3, dtype=bool)]).max() < 0.15


@pytest.mark.parametrize(("dataset", "axis"), SETTINGS)
def test_labels_follow_the_degrees_with_some_noise(
    ratings: Ratings, dataset: str, axis: str
) -> None:
    degrees = [(r.meta or {})["degrees"][axis] for r in ratings[dataset, axis]]
    agreement = np.mean(np.array(degrees) == labels(ratings[dataset, axis]))
    assert 0.7 <= agreement < 1.0
    assert spearmanr(degrees, labels(ratings[dataset, axis])).statistic > 0.85


def test_garbling_always_changes_a_sentence() -> None:
    from random import Random

    patterns = mini._TEXT["answers"] + mini._TEXT["sentences"]
    for pattern in patterns:
        sentence = pattern.format(topic="lamp", one="fair price", two="poor size")
        for seed in range(30):
            assert mini.garble(sentence, Random(seed)) != sentence


def test_prompts_are_short(conversations: list[Conversation]) -> None:
    lengths = [len(render_prompt(c, "on_topic", EIGHTEEN).split()) for c in conversations]
    assert max(lengths) <= 110
