"""The HH-RLHF importer, on its quirks and on the real file."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from regreason_plugin.conversations.hh import hub_pairs, import_hh, local_pairs, parse_turns
from regreason_plugin.errors import UserError
from regreason_plugin.schema import Conversation

# The real file is not part of the repository; see README, "By hand, on real text".
DATA = Path(os.environ.get("REGREASON_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
REAL = DATA / "hh-rlhf" / "helpful-base-test.jsonl.gz"
needs_real_file = pytest.mark.skipif(
    not REAL.is_file(), reason=f"no {REAL.name}: name its folder's parent in REGREASON_TEST_DATA"
)


def pair(chosen: str, rejected: str = "\n\nHuman: q\n\nAssistant: other") -> str:
    return json.dumps({"chosen": chosen, "rejected": rejected}) + "\n"


def load(path: Path, dataset: str = "hh_chosen") -> tuple[list[Conversation], Counter[str]]:
    skipped: Counter[str] = Counter()
    return list(import_hh(dataset, local_pairs(path), skipped)), skipped


def test_turns_are_split_at_their_marks_only() -> None:
    turns = parse_turns(
        "\n\nHuman: What is this?\n\nIt says Assistant: and\nHuman: in one line"
        "\n\nAssistant: A mark.\n\nHuman:\n\nHuman: twice?\n\nAssistant: Yes.\n\nNo."
    )
    assert [(turn.role, turn.content) for turn in turns] == [
        ("user", "What is this?\n\nIt says Assistant: and\nHuman: in one line"),
        ("assistant", "A mark."),
        ("user", ""),
        ("user", "twice?"),
        ("assistant", "Yes.\n\nNo."),
    ]
    with pytest.raises(ValueError, match="does not start with a turn"):
        parse_turns("Hello \n\nHuman: q")


def test_what_cannot_be_rated_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        pair("\n\nHuman: q\n\nAssistant: a")
        + pair("\n\nHuman: q\n\nAssistant:")
        + pair("\n\nHuman: q\n\nAssistant: a\n\nHuman: more")
        + pair("\n\nAssistant: a")
        + pair("\n\nHuman: q\n\nAssistant: a")
    )
    conversations, skipped = load(path)
    assert len(conversations) == 1
    assert skipped == {
        "no response at its end": 2,
        "nobody asks anything": 1,
        "stands in the file twice": 1,
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"chosen": 3, "rejected": ""}\n', "line 1, field chosen: is not a text"),
        ('{"rejected": ""}\n', "line 1, field chosen: is not a text"),
        (pair("Once upon a time"), "line 1, field chosen: does not start with a turn"),
    ],
)
def test_what_is_no_pair_stops(tmp_path: Path, line: str, expected: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(line)
    with pytest.raises(UserError, match=expected):
        load(path)


def test_the_hub_out_of_reach_is_one_sentence() -> None:
    with pytest.raises(UserError, match="cannot be loaded from the Hub .*--path"):
        hub_pairs("helpful-base", "test")


@needs_real_file
def test_the_real_file() -> None:
    with gzip.open(REAL, "rt", encoding="utf-8") as stream:
        pairs = [json.loads(line) for line in stream]
    assert len(pairs) == 2354
    groups: list[set[str]] = []
    for dataset, side in {"hh_chosen": "chosen", "hh_rejected": "rejected"}.items():
        conversations, skipped = load(REAL, dataset)
        assert len(conversations) + sum(skipped.values()) == len(pairs)
        assert len(conversations) >= 2350
        groups.append({conversation.group for conversation in conversations})
        responses = {pair[side].rpartition("\n\nAssistant:")[2].strip() for pair in pairs}
        for conversation in conversations:
            assert conversation.conversation[-1].content in responses
            for turn in conversation.conversation:
                assert "\n\nHuman:" not in turn.content
                assert "\n\nAssistant:" not in turn.content
    # Both sides of a pair are in one group, whichever side one looks at.
    assert len(groups[0] ^ groups[1]) <= 4
    # By an independent count: pairs whose first human turn, put in lower case, occurs again.
    first = [pair["chosen"].split("\n\nAssistant:")[0].casefold() for pair in pairs]
    shared = sum(count for count in Counter(first).values() if count > 1)
    assert shared == pytest.approx(289, abs=30)
    assert len(groups[0]) <= len(set(first))
