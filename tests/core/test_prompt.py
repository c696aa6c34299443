"""The prompt: its form, its neutralised text, and its shortening."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regreason_plugin.core.paper import AXES, EIGHTEEN, LABELS, QUESTIONS
from regreason_plugin.core.prompt import (
    CUE,
    CUT_MARK,
    LABEL_CUE,
    ORDERS,
    Order,
    cut,
    neutralise,
    one_line,
    render_conversation,
    render_prompt,
    render_target,
    split_target,
)
from regreason_plugin.core.records import Conversation, Turn

# Special and added tokens of real tokenizers.
SPECIAL = [
    *("<s>", "</s>", "<unk>", "<pad>", "<mask>", "<bos>", "<eos>", "<|endoftext|>"),
    *("<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>"),
    *("<start_of_turn>", "<end_of_turn>", "<unused7>", "<h1>", "</table>", "<0x0A>"),
    *("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[CLS]", "[SEP]", "[gMASK]"),
    *("<think>", "</think>", "<tool_call>", "<extra_id_0>", "<<SYS>>", "<</SYS>>"),
    *("<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<|reserved_special_token_12|>"),
]
pieces = st.lists(
    st.sampled_from([*SPECIAL, "<", ">", "[", "]", " ", "\n", "User:", "x", "{{ 7*7 }}", "\x00"])
    | st.text(max_size=3),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("token", SPECIAL)
def test_every_special_token_is_broken_and_still_readable(token: str) -> None:
    text, places = neutralise(f"before{token}after")
    assert token not in text
    assert places >= 1
    assert text.replace(" ", "") == f"before{token}after"


@given(pieces)
def test_nothing_special_survives_and_twice_is_once(text: str) -> None:
    once, _ = neutralise(text)
    assert not [token for token in SPECIAL if token in once]
    assert "\x00" not in once
    assert not re.search(r"^\s*(User|Assistant|System|Rating|Assessment|Context):", once, re.M)
    assert neutralise(once) == (once, 0)


@pytest.mark.parametrize("text", ["a < b > c", "x[1] [sic] [note]", "5 <3", "{{ 7*7 }} {% raw %}"])
def test_ordinary_text_stays(text: str) -> None:
    assert neutralise(text) == (text, 0)


def test_lone_surrogates_become_writable() -> None:
    assert neutralise("a\ud800b")[0].encode() == "a\ufffdb".encode()


def conversation(*contents: str, context: str | None = None) -> Conversation:
    roles = ["user", "assistant"] * len(contents)
    turns = [
        Turn.model_validate({"role": role, "content": content})
        for role, content in zip(roles[-len(contents) :], contents, strict=True)
    ]
    return Conversation(id="x", dataset="coqa", group="g", conversation=turns, context=context)


def test_the_prompt_word_for_word() -> None:
    made = render_prompt(conversation("Who?", "Ann.", context="Ann ran."), "on_topic", EIGHTEEN)
    assert made == (
        f"Context:\nAnn ran.\n\nUser: Who?\nAssistant: Ann.\n\n{QUESTIONS['on_topic']}\nAssessment:"
    )


@given(pieces, pieces.filter(lambda text: text.strip() != ""), st.none() | pieces)
def test_every_prompt_has_the_form_that_templates_keep(
    question: str, response: str, context: str | None
) -> None:
    talk = conversation(question, response, context=context)
    for axis in AXES:
        prompt = render_prompt(talk, axis, EIGHTEEN)
        assert prompt == prompt.strip()
        assert prompt.startswith(render_conversation(talk))
        assert prompt.endswith(f"\n\n{QUESTIONS[axis]}\n{CUE}")
        assert prompt.count(f"\n{CUE}") == 1  # no text of a conversation can be read as a cue


@given(st.integers(1, 5), pieces.map(one_line), st.sampled_from(ORDERS))
def test_the_label_is_found_again_in_every_target(
    label: int, explanation: str, order: Order
) -> None:
    target = render_target(str(label), explanation, order)
    before, found, after = split_target(target, order, LABELS)
    assert (before + found + after, found) == (target, str(label))
    assert target == target.strip()  # because chat templates strip it
    if order == "label_first":
        assert before == ""
    else:
        assert before == f"{explanation}{LABEL_CUE} ".lstrip("\n")
        assert after == ""


def test_no_label_where_it_belongs_is_our_bug() -> None:
    with pytest.raises(ValueError, match="no label"):
        split_target("because\nRating: 3", "label_first", LABELS)


def words(text: str) -> int:
    return len(text.split())


long_word = st.text(st.sampled_from("ab"), min_size=1, max_size=4)
sentence = st.lists(long_word, min_size=1, max_size=30).map(" ".join)


@given(
    st.lists(sentence, min_size=1, max_size=6),
    st.none() | sentence,
    st.integers(40, 160),
)
def test_cutting_fits_keeps_the_head_of_the_response_and_the_newest_turns(
    contents: list[str], context: str | None, limit: int
) -> None:
    talk = conversation(*contents, context=context)
    shorter, what = cut(talk, limit, words, EIGHTEEN)
    for axis in AXES:
        assert words(render_prompt(shorter, axis, EIGHTEEN)) <= limit
        assert render_prompt(shorter, axis, EIGHTEEN).endswith(QUESTIONS[axis] + f"\n{CUE}")
    kept = shorter.conversation
    if what is None:
        assert shorter == talk
    elif what == "turns":
        assert kept == talk.conversation[-len(kept) :]
        assert shorter.context == talk.context
        # One more turn would not have fitted.
        more = talk.model_copy(update={"conversation": talk.conversation[-len(kept) - 1 :]})
        assert max(words(render_prompt(more, axis, EIGHTEEN)) for axis in AXES) > limit
    elif what == "context":
        assert [kept[-1]] == talk.conversation[-1:]
        assert talk.context is not None
        assert shorter.context is None or talk.context.startswith(
            shorter.context.removesuffix(CUT_MARK)
        )
    else:
        assert shorter.context is None
        head = kept[-1].content
        assert head.endswith(CUT_MARK)
        assert talk.conversation[-1].content.startswith(head.removesuffix(CUT_MARK))


def test_no_room_at_all_is_said() -> None:
    with pytest.raises(ValueError, match="leaves no room"):
        cut(conversation("q", "a"), 5, words, EIGHTEEN)


def test_one_endless_word_is_cut_by_characters() -> None:
    shorter, what = cut(conversation("q", "x" * 100_000), 500, len, EIGHTEEN)
    assert what == "response"
    assert 0 < len(render_prompt(shorter, "on_topic", EIGHTEEN)) <= 500
