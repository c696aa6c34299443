from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_base import TINY_BASE as SHIPPED
from helpers.tiny_base import base_corpus, make_untrained_base, script
from hypothesis import given
from hypothesis import strategies as st

from regreason_plugin.core.paper import AXES, EIGHTEEN, QUESTIONS
from regreason_plugin.core.prompt import CUE, LABEL_CUE, render_conversation, render_prompt
from regreason_plugin.data.mini import mini_conversations


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(base_corpus(per_dataset=300))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(SHIPPED)


def test_the_same_seed_gives_the_same_corpus(texts: list[str]) -> None:
    assert list(base_corpus(per_dataset=300)) == texts
    assert set(base_corpus(1, per_dataset=300)) != set(texts)


def test_no_benchmark_conversation_is_in_it(texts: list[str]) -> None:
    responses = {text.rpartition("Assistant: ")[2].partition("\n\n")[0] for text in texts}
    assert len(responses) > 1700
    for seed in (0, 1):
        benchmark = {c.conversation[-1].content for c in mini_conversations(seed)}
        assert not benchmark & responses


def test_the_task_itself_is_not_in_it(texts: list[str]) -> None:
    for text in texts:
        assert CUE not in text
        assert LABEL_CUE not in text
        assert not any(question in text for question in QUESTIONS.values())


def test_no_remark_judges_by_a_number(texts: list[str]) -> None:
    numbers = re.compile(r"(Room|Page|Floor|Day|Row): \d|From 1 to 5: .*|Count 1, 2, 3, 4, 5\.")
    for text in texts:
        for line in text.splitlines():
            assert not re.search(r"\d", line) or numbers.fullmatch(line), line


def test_numbers_say_nothing_of_the_conversation() -> None:
    digits = {degree: Counter[str]() for degree in range(1, 6)}
    conversations = {render_conversation(c): c for c in mini_conversations(script.CORPUS_SEED, 300)}
    for text in base_corpus(per_dataset=300):
        conversation = conversations[text.rpartition("\n\n")[0]]
        found = re.search(r": (\d)$", text, re.MULTILINE)
        if found and conversation.meta:
            digits[conversation.meta["degrees"]["on_topic"]][found.group(1)] += 1
    for counts in digits.values():
        assert len(counts) == 9
        assert max(counts.values()) < 0.25 * sum(counts.values())


def test_remarks_are_true() -> None:
    for text in islice(base_corpus(per_dataset=20), 100):
        conversation, _, remarks = text.rpartition("\n\n")
        response = conversation.rpartition("Assistant: ")[2].lower()
        left_out = re.search(r"Left out, with nothing on them: (.+)\.", remarks)
        for thing in left_out.group(1).split(" or ") if left_out else ():
            assert not re.search(rf"\b{thing}\b", response) or thing == "nothing"
        strayed = re.search(r"Sentences that stray from .*?: \w+, (.+)\.", remarks)
        for thing in strayed.group(1).split(" and ") if strayed else ():
            assert thing == "nothing" or re.search(rf"\b{thing}\b", response)


def test_an_untrained_base_is_a_model_folder(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    make_untrained_base(tmp_path, per_dataset=5)
    lines = (tmp_path / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == list(base_corpus(per_dataset=5))
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert model.config.num_hidden_layers == 4
    assert len(tokenizer) <= model.config.vocab_size
    assert model.config.eos_token_id == tokenizer.eos_token_id


# --- the base that ships ----------------------------------------------------------------


def test_the_shipped_base_is_small_and_holds_no_pickle() -> None:
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja", ".md"}


def test_the_shipped_base_is_a_llama_in_full_precision() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(SHIPPED)
    assert model.config.model_type == "llama"
    assert model.dtype == torch.float32


def test_tokens_begin_like_those_of_real_models(tokenizer: Any) -> None:
    assert tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert tokenizer.pad_token not in (None, tokenizer.eos_token)


@pytest.mark.parametrize("label", list("12345"))
def test_a_label_is_one_token_and_the_prompt_stays_as_it_is(tokenizer: Any, label: str) -> None:
    conversation = next(mini_conversations())
    for axis in AXES:
        prompt = tokenizer(render_prompt(conversation, axis, EIGHTEEN)).input_ids
        whole = tokenizer(f"{render_prompt(conversation, axis, EIGHTEEN)} {label}\nWell.").input_ids
        assert whole[: len(prompt)] == prompt
        assert tokenizer.decode(whole[len(prompt)]) == f" {label}"


def test_prompts_are_short_in_tokens(tokenizer: Any) -> None:
    lengths = [
        len(tokenizer(render_prompt(c, "on_topic", EIGHTEEN)).input_ids)
        for c in mini_conversations(0, 50)
    ]
    assert sum(lengths) / len(lengths) < 120
    assert max(lengths) < 160


@given(text=st.text())
def test_any_text_has_tokens(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert tokenizer.decode(ids) == text


def test_the_shipped_files_are_what_the_command_makes(tokenizer: Any) -> None:
    assert tokenizer.chat_template == script.CHAT_TEMPLATE


def test_the_chat_template_holds_every_turn_once(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Ask."}, {"role": "assistant", "content": "3\nWell."}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert whole == f"{prompt}3\nWell.</s>\n"
    assert whole.startswith("<s>")
    assert whole.count("<s>") == 1
