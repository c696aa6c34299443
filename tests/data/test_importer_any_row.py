"""For any row, an importer yields conversations or a reason; it never fails in another way."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from helpers.raw_datasets import arena_row, convokit, coqa_hub, coqa_story, hh_row, qar_row
from hypothesis import given, settings
from hypothesis import strategies as st

from regreason_plugin.core.jsonl import dumps
from regreason_plugin.core.records import Conversation
from regreason_plugin.data.importing import IMPORTERS
from regreason_plugin.data.source_rows import LeftOut, SourceRow

ROWS: dict[str, list[list[dict[str, Any]]]] = {
    "hh_chosen": [[hh_row("q?")]],
    "hh_rejected": [[hh_row("q?")]],
    "chatbot_arena": [[arena_row("q?")]],
    "amazon_qa": [
        [{"query": "q?", "answer": "a"}],
        [{"query": "q?", "pos": ["a", "b"]}],
        [qar_row("q?", ("a", [1, 2]), ("b", [2, 2]))],
    ],
    "coqa": [
        [coqa_story("Story.", ("q?", "a"), ("r?", "b"))],
        [coqa_hub("Story.", ("q?", "a"), ("r?", "b"))],
    ],
    "cornell": [convokit("m0", 1, [("u0", "q?"), ("u1", "a"), ("u0", "b")])],
}
# Lone surrogates, control characters, and texts that have a meaning in some format.
TEXT = st.text(st.characters() | st.characters(categories=["Cs", "Cc"]), max_size=5) | (
    st.sampled_from(["unknown", "NA", "\n\nAssistant:", "\n\nHuman: x", "L1", "user", "&#0;"])
)
LEAF = st.none() | st.booleans() | st.integers(-2, 3) | st.floats(allow_nan=False) | TEXT
JSON = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [at, *(place for key, part in inner for place in places(part, (*at, key)))]


@pytest.mark.parametrize("dataset", ROWS)
@settings(max_examples=100)
@given(data=st.data())
def test_any_row(dataset: str, data: st.DataObject) -> None:
    importer = IMPORTERS[dataset]
    rows: list[Any] = copy.deepcopy(data.draw(st.sampled_from(ROWS[dataset])))
    for _ in range(data.draw(st.integers(0, 3))):
        left = [at for at in places(rows) if len(at) > 1]
        if not left:
            break
        *way, last = data.draw(st.sampled_from(left))
        inside: Any = rows
        for key in way:
            inside = inside[key]
        if isinstance(inside, dict) and data.draw(st.booleans()):
            del inside[last]
        else:
            inside[last] = data.draw(JSON)
    found = [SourceRow("f", number, row) for number, row in enumerate(rows, start=1)]
    if importer.gather:
        found = list(importer.gather(iter(found)))
    for row in found:
        if isinstance(row.value, LeftOut):
            assert "f, line" in str(row.error(row.value))
            continue
        try:
            taken = list(importer.convert(dataset, row.value))
        except LeftOut as left_out:
            taken = [left_out]
        for one in taken:
            if isinstance(one, LeftOut):
                assert one.counted
                assert "f, line" in str(row.error(one))
            else:
                line = dumps(one.model_dump(exclude_none=True)).encode("utf-8")
                assert Conversation.model_validate(json.loads(line)) == one
                assert one.dataset == dataset
