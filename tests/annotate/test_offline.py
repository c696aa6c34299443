"""Calls made without a server give the ratings of a run with one."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.asking import Workplace, dump
from helpers.openai_server import Server, good_answer, running

from regreason_plugin import CallAnswer, UserError, annotation_calls, store_answers
from regreason_plugin.annotate.calls import Call, CallKey
from regreason_plugin.annotate.offline import AnnotationCall
from regreason_plugin.annotate.store import Store
from regreason_plugin.cli import main

pytestmark = pytest.mark.integration

# Nothing listens there, and no variable holds the key: a call would fail.
NOWHERE = "http://127.0.0.1:9/v1"
GUIDE = Path(__file__).parents[2] / "docs/guides/annotate.md"
PRICE = {"prompt": 3, "answer": 5}
RATERS: list[dict[str, Any]] = [
    {"prompts": ["scale-1-5", "scale-1-4-examples"], "price": PRICE},
    {"prompts": ["scale-1-5"], "temperature": 0.7, "request": {"seed": 3}, "structured": "none"},
]


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as running_server:
        yield running_server


def without_server(folder: Path, conversations: int = 3, **more: Any) -> Workplace:
    raters = [{**rater, "api_key_env": "REGREASON_NO_SUCH_KEY"} for rater in RATERS]
    return Workplace(folder, NOWHERE, conversations, raters, **more)


def generate(
    calls: list[AnnotationCall], text: Callable[[str], str] = good_answer, finish: str = "stop"
) -> list[CallAnswer]:
    """A generator that answers like the test server, and counts tokens like it."""
    return [
        CallAnswer(
            call.key, text(call.prompt), finish, 100, 20, call.rater.replace("rater", "model")
        )
        for call in calls
    ]


def test_ratings_and_store_are_those_of_a_run_with_a_server(server: Server, tmp_path: Path) -> None:
    merge = {"rater": "rater-1"}
    with_server = Workplace(tmp_path / "with", server.url, 3, RATERS, merge=merge)
    assert main(["annotate", str(with_server.config)]) == 0
    place = without_server(tmp_path / "without", merge=merge)
    rounds = []
    while calls := list(annotation_calls(place.config)):
        rounds.append(len(calls))
        assert store_answers(place.config, reversed(generate(calls))) == {"ok": len(calls)}
    # Three conversations on three axes: three scores, then one merged explanation.
    assert rounds == [27, 9]
    assert server.total == 36
    assert main(["annotate", str(place.config)]) == 0
    assert place.files() == with_server.files()
    assert dump(place.store) == dump(with_server.store)
    # 18 rating calls and 9 merging calls of the rater with a price.
    assert place.about()["cost"] == pytest.approx(27 * (3 * 100 + 5 * 20) / 1e6)
    assert place.leftovers() == []


def test_a_call_says_what_the_request_would(server: Server, tmp_path: Path) -> None:
    with_server = Workplace(tmp_path / "with", server.url, 1, RATERS)
    assert main(["annotate", str(with_server.config)]) == 0
    sent = {
        (body["model"], body["messages"][0]["content"]): (
            {k: v for k, v in body.items() if k not in {"model", "messages", "response_format"}},
            body.get("response_format", {}).get("json_schema", {}).get("schema"),
        )
        for body in server.bodies
    }
    calls = list(annotation_calls(without_server(tmp_path / "without", 1).config))
    made = {
        (one.rater.replace("rater", "model"), one.prompt): (one.options, one.schema)
        for one in calls
    }
    assert made == sent
    assert len(made) == 9


@pytest.mark.parametrize(
    ("text", "finish", "state"),
    [
        ('{"explanation": "It goes on and', "length", "truncated"),
        ('{"explanation": "Fine.", "score": 9}', "stop", "score_out_of_range"),
        ("<think>Hm.", "stop", "only_thinking"),
        ("", "content_filter", "refused"),
    ],
)
def test_answers_that_cannot_be_used_have_the_states_of_a_run(
    text: str, finish: str, state: str, tmp_path: Path
) -> None:
    place = without_server(tmp_path / "w")
    bad, *good = annotation_calls(place.config)
    assert store_answers(place.config, generate([bad], lambda prompt: text, finish)) == {state: 1}
    assert store_answers(place.config, generate(good)) == {"ok": 26}
    # An answer that cannot be used is not replaced, and not paid twice.
    before = dump(place.store)
    assert store_answers(place.config, generate([bad])) == {}
    assert dump(place.store) == before
    # Neither the function nor the command makes the call again by itself.
    assert list(annotation_calls(place.config)) == []
    assert main(["annotate", str(place.config)]) == 0
    assert place.about()["calls"] == {"ok": 26, state: 1}
    (call,) = [row for row in place.calls("state, rater, prompt") if row[0] == state]
    by_prompt = place.about()["answers"]
    assert by_prompt[call[1]].pop(call[2]) == {"ok": 8, state: 1}
    assert [one for prompts in by_prompt.values() for one in prompts.values()] == [{"ok": 9}] * 2
    assert place.calls("state, answer, score")[-1][0] in {"ok", state}
    assert [row[1] for row in place.calls("state, answer, score") if row[0] == state] == [text]


def test_mended_json_is_marked(tmp_path: Path) -> None:
    place = without_server(tmp_path / "w", 1)
    answers = generate(
        list(annotation_calls(place.config)), lambda prompt: '{"explanation": "Fine.", "score": 3,}'
    )
    assert store_answers(place.config, answers) == {"ok": 9}
    assert main(["annotate", str(place.config)]) == 0
    assert place.about()["notes"]["answers whose JSON was mended"] == 9


def test_a_stopped_job_goes_on_and_an_answer_counts_once(tmp_path: Path) -> None:
    place = without_server(tmp_path / "w")
    some = list(islice(annotation_calls(place.config), 10))
    assert store_answers(place.config, generate(some)) == {"ok": 10}
    before = dump(place.store)
    assert store_answers(place.config, generate(some, lambda prompt: "{}")) == {}
    assert dump(place.store) == before
    left = [call.key for call in annotation_calls(place.config)]
    assert len(left) == 17
    assert not {call.key for call in some} & set(left)


def test_failed_calls_are_made_again_on_request(tmp_path: Path) -> None:
    place = without_server(tmp_path / "w", 1)
    calls = list(annotation_calls(place.config))
    assert store_answers(place.config, generate(calls, lambda prompt: "{}")) == {"score_missing": 9}
    # The first rater has temperature 0, so the same request gives the same answer.
    again = list(annotation_calls(place.config, retry_failed=True))
    assert again == [call for call in calls if call.rater == "rater-2"]
    assert len(again) == 3
    answers = generate(again)
    assert store_answers(place.config, answers) == {}
    assert store_answers(place.config, answers, retry_failed=True) == {"ok": 3}
    assert list(annotation_calls(place.config, retry_failed=True)) == []
    # Both answers of a repeated call are counted.
    tokens = place.calls("rater, state, prompt_tokens, attempts")
    assert tokens == [("rater-1", "score_missing", 100, 1)] * 6 + [("rater-2", "ok", 200, 2)] * 3


def test_a_call_that_a_running_process_makes_is_left_to_it(tmp_path: Path) -> None:
    place = without_server(tmp_path / "w", 1)
    calls = list(annotation_calls(place.config))
    *columns, id_ = json.loads(calls[0].key)
    with Store(place.store) as store:
        store.claim([Call(CallKey(*columns), id_)])
        assert store_answers(place.config, generate(calls)) == {"ok": 8}
    assert [call.key for call in annotation_calls(place.config)] == [calls[0].key]


def test_one_rater_at_a_time_and_merging_after_all(tmp_path: Path) -> None:
    place = without_server(tmp_path / "w", 1, merge={"rater": "rater-1"})
    first = list(annotation_calls(place.config, "rater-1"))
    assert [call.rater for call in first] == ["rater-1"] * 6
    store_answers(place.config, generate(first))
    # The explanations of the other rater are missing.
    assert list(annotation_calls(place.config, "rater-1")) == []
    second = list(annotation_calls(place.config, "rater-2"))
    assert [call.rater for call in second] == ["rater-2"] * 3
    store_answers(place.config, generate(second))
    assert list(annotation_calls(place.config, "rater-2")) == []
    merging = list(annotation_calls(place.config, "rater-1"))
    assert len(merging) == 3
    assert list(merging[0].schema["properties"]) == ["explanation"]  # type: ignore[index]
    store_answers(place.config, generate(merging))
    assert main(["annotate", str(place.config)]) == 0
    assert all(row["merged"]["explanation"] for row in place.rows())


def test_wrong_keys_and_names_are_refused_in_one_sentence(tmp_path: Path) -> None:
    place = without_server(tmp_path / "w", 1, merge={"rater": "rater-1"})
    with pytest.raises(UserError, match="no rater behind a server is named 'rater-3'"):
        next(annotation_calls(place.config, "rater-3"))
    (call, *_) = annotation_calls(place.config)
    *columns, id_ = json.loads(call.key)
    foreign = json.dumps([*columns[:3], "merge", *columns[4:-1], "{}", id_])
    for key in ("", "[]", "7", call.key + " x", foreign):
        with pytest.raises(UserError, match="names no call of"):
            store_answers(place.config, [CallAnswer(key, good_answer(call.prompt))])
    raters = [{**rater, "temperature": 1.5} for rater in place.keys["raters"]]
    place.write(raters=raters)
    with pytest.raises(UserError, match="do not change the config in between"):
        store_answers(place.config, generate([call]))
    assert dump(place.store) == []


def test_the_example_of_the_guide_runs_with_a_model_that_answers_like_the_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rater = {"name": "qwen2.5-7b", "model": "Qwen/Qwen2.5-7B-Instruct", "request": {"seed": 1}}
    with_server = Workplace(tmp_path / "with", server.url, 2, [rater])
    assert main(["annotate", str(with_server.config)]) == 0
    place = Workplace(tmp_path / "annotation", NOWHERE, 2, [rater])
    (example,) = re.findall(r"```python\n(from itertools.*?)```", GUIDE.read_text("utf-8"), re.S)
    schemas = []

    class FakeModel:
        def __init__(self, name: str) -> None:
            assert name == rater["model"]

        def chat(self, messages: list[Any], sampling: list[dict[str, Any]]) -> list[Any]:
            for one in sampling:
                schemas.append(one.pop("structured_outputs"))
                assert one == {"temperature": 0.0, "max_tokens": 300, "seed": 1}
            return [
                SimpleNamespace(
                    prompt_token_ids=[0] * 100,
                    outputs=[
                        SimpleNamespace(
                            text=good_answer(message["content"]),
                            token_ids=[0] * 20,
                            finish_reason="stop",
                        )
                    ],
                )
                for (message,) in messages
            ]

    fakes = {"LLM": FakeModel, "SamplingParams": dict}
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(**fakes))
    params = SimpleNamespace(StructuredOutputsParams=lambda json: json)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
    monkeypatch.chdir(tmp_path)
    exec(example.replace("5000", "10"), {})
    sent = [body["response_format"]["json_schema"]["schema"] for body in server.bodies]
    assert sorted(map(repr, schemas)) == sorted(map(repr, sent))
    assert len(schemas) == 24
    assert main(["annotate", str(place.config)]) == 0
    assert place.files() == with_server.files()
