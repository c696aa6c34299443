"""The HH-RLHF importer, on the quirks of the format and on the real file."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from helpers.raw_datasets import imported
from helpers.real_prompts import DATA

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.records import Conversation
from regreason_plugin.data.hh import parse_turns
from regreason_plugin.data.source_rows import Malformed

# The real file is not part of the repository; CONTRIBUTING.md says where the tests look for it.
REAL = DATA / "hh-rlhf" / "helpful-base-test.jsonl.gz"
needs_real_file = pytest.mark.skipif(
    not REAL.is_file(), reason=f"no {REAL.name}: name its folder's parent in REGREASON_TEST_DATA"
)


def pair(chosen: str, rejected: str = "\n\nHuman: q\n\nAssistant: other") -> str:
    return json.dumps({"chosen": chosen, "rejected": rejected}) + "\n"


def load(
    path: Path, out: Path, dataset: str = "hh_chosen"
) -> tuple[list[Conversation], Counter[str]]:
    conversations, done = imported(dataset, path, out)
    return conversations, done.left_out


def test_turns_are_split_at_their_marks_only() -> None:
    turns = parse_turns(
        "\n\nHuman: What is this?\n\nIt says Assistant: and\nHuman: in one line"
        "\n\nAssistant: A mark.\n\nHuman:\n\nHuman: twice?\n\nAssistant: Yes.\n\nNo.",
        "chosen",
    )
    assert [(turn.role, turn.content) for turn in turns] == [
        ("user", "What is this?\n\nIt says Assistant: and\nHuman: in one line"),
        ("assistant", "A mark."),
        ("user", ""),
        ("user", "twice?"),
        ("assistant", "Yes.\n\nNo."),
    ]
    with pytest.raises(Malformed, match="does not start with a turn"):
        parse_turns("Hello \n\nHuman: q", "chosen")


def test_what_cannot_be_rated_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        pair("\n\nHuman: q\n\nAssistant: a")
        + pair("\n\nHuman: q\n\nAssistant:")
        + pair("\n\nHuman: q\n\nAssistant: a\n\nHuman: more")
        + pair("\n\nAssistant: a")
        + pair("\n\nHuman: q\n\nAssistant: a")
    )
    conversations, skipped = load(path, tmp_path / "out.jsonl")
    assert len(conversations) == 1
    assert skipped == {
        "no response at the end": 2,
        "no message from the user": 1,
        "duplicate conversation": 1,
    }


@pytest.mark.parametrize(
    ("line", "reason", "expected"),
    [
        ('{"chosen": 3, "rejected": ""}\n', "chosen is not a text", "field chosen: is not a text"),
        ('{"rejected": ""}\n', "chosen is missing", "field chosen: is missing"),
        ('{"chosen": "", "rejected": 1}\n', "rejected is not a text", "field rejected: is no"),
        (
            pair("Once upon a time"),
            "chosen does not start with a turn",
            "field chosen: does not start with a turn .got 'Once upon a time'",
        ),
        ('{"chosen": "\n', "not a JSON object", "not a JSON object"),
    ],
)
def test_what_is_no_pair_is_counted_or_stops(
    tmp_path: Path, line: str, reason: str, expected: str
) -> None:
    path, out = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    path.write_text(pair("\n\nHuman: q\n\nAssistant: a") + line)
    conversations, skipped = load(path, out)
    assert len(conversations) == 1
    assert skipped == {reason: 1}
    out.unlink()
    with pytest.raises(UserError, match=f"pairs.jsonl, line 2.*{expected}"):
        imported("hh_chosen", path, out, strict=True)
    assert not out.exists()


def test_a_pair_is_whole_or_left_out(tmp_path: Path) -> None:
    """If one side cannot be rated, both are left out, so both datasets have the same pairs."""
    path = tmp_path / "pairs.jsonl"
    good, empty = "\n\nHuman: q\n\nAssistant: a", "\n\nHuman: q\n\nAssistant:"
    path.write_text(pair(good, empty) + pair(empty, good) + pair(good))
    for dataset in ("hh_chosen", "hh_rejected"):
        conversations, skipped = load(path, tmp_path / "out.jsonl", dataset)
        assert len(conversations) == 1
        assert skipped == {"no response at the end": 2}


@needs_real_file
def test_the_real_file(tmp_path: Path) -> None:
    with gzip.open(REAL, "rt", encoding="utf-8") as stream:
        pairs = [json.loads(line) for line in stream]
    assert len(pairs) == 2354
    groups: list[set[str]] = []
    for dataset, side in {"hh_chosen": "chosen", "hh_rejected": "rejected"}.items():
        conversations, skipped = load(REAL, tmp_path / dataset, dataset)
        assert len(conversations) + sum(skipped.values()) == len(pairs)
        assert len(conversations) >= 2350
        groups.append({conversation.group for conversation in conversations})
        responses = {pair[side].rpartition("\n\nAssistant:")[2].strip() for pair in pairs}
        for conversation in conversations:
            assert conversation.conversation[-1].content in responses
            for turn in conversation.conversation:
                assert "\n\nHuman:" not in turn.content
                assert "\n\nAssistant:" not in turn.content
    # Both sides of a pair are in the same group.
    assert groups[0] == groups[1]
    # Counted independently: pairs whose first human turn, in lower case, occurs more than once.
    first = [pair["chosen"].split("\n\nAssistant:")[0].casefold() for pair in pairs]
    shared = sum(count for count in Counter(first).values() if count > 1)
    assert shared == pytest.approx(289, abs=30)
    assert len(groups[0]) <= len(set(first))


@needs_real_file
@pytest.mark.parametrize("limit", [100, 1500])
def test_both_sides_of_the_real_pairs_are_in_both_samples(tmp_path: Path, limit: int) -> None:
    with gzip.open(REAL, "rt", encoding="utf-8") as stream:
        ends = [
            tuple(
                side.rpartition("\n\nAssistant:")[2].strip() for side in json.loads(line).values()
            )
            for line in stream
        ]
    samples = []
    for dataset in ("hh_chosen", "hh_rejected"):
        conversations, _ = imported(dataset, REAL, tmp_path / dataset, limit=limit, seed=11)
        samples.append(conversations)
    assert len(samples[0]) == len(samples[1]) == limit
    assert [one.group for one in samples[0]] == [one.group for one in samples[1]]
    for chosen, rejected in zip(*samples, strict=True):
        assert (chosen.conversation[-1].content, rejected.conversation[-1].content) in ends
