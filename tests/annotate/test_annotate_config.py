"""The config template of `annotate`: it explains every key, states true defaults, and runs."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.asking import Workplace, write_talk
from helpers.openai_server import running

from regreason_plugin.annotate.config import AnnotateConfig, MergeConfig, read_config
from regreason_plugin.annotate.questions import sampling
from regreason_plugin.annotate.server_rater import Price, ServerRater
from regreason_plugin.cli import main
from regreason_plugin.core.jsonl import dumps
from regreason_plugin.core.paper import AXES

pytestmark = pytest.mark.integration

SHIPPED = files("regreason_plugin.annotate").joinpath("annotate.yml").read_text(encoding="utf-8")


def comments() -> dict[str, str]:
    """By key: the comment above the key's first occurrence."""
    found: dict[str, str] = {}
    comment: list[str] = []
    for line in SHIPPED.splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.lstrip("# "))
        elif key := re.match(r"(?:- )?([a-z_]+):", text):
            found.setdefault(key[1], " ".join(comment))
            comment = []
        else:
            comment = []
    return found


def test_every_key_is_there_and_explained() -> None:
    explained = comments()
    for model in (AnnotateConfig, ServerRater):
        for key in model.model_fields:
            assert "default" in explained[key].lower(), key
    (merge,) = [value for key, value in yaml.safe_load(SHIPPED).items() if key == "merge"]
    assert set(merge) == set(MergeConfig.model_fields)
    assert set(yaml.safe_load(SHIPPED)["raters"][0]["price"]) == set(Price.model_fields)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("temperature", "Default: 0."),
        ("max_tokens", "Default: 300."),
        ("structured", "Default: json_schema."),
        ("concurrency", "Default: 32."),
        ("timeout", "Default: 120."),
        ("retries", "Default: 4."),
    ],
)
def test_the_defaults_are_what_happens(key: str, said: str) -> None:
    assert said in comments()[key]
    default = ServerRater(name="x", model="y", base_url="http://localhost/v1")
    word = said.removeprefix("Default: ").rstrip(".")
    assert str(getattr(default, key)).removesuffix(".0") == word
    # The template sets the key to its default, so that the line changes nothing.
    assert yaml.safe_load(SHIPPED)["raters"][0][key] == getattr(default, key)


def rater(**keys: Any) -> ServerRater:
    return ServerRater.model_validate(
        {"name": "x", "model": "y", "base_url": "http://localhost/v1", **keys}
    )


# The settings of stores that exist; other bytes would make every call again.
BEFORE = '"structured": "json_schema", "temperature": 0.0}'


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({}, f'{{"max_tokens": 300, {BEFORE}'),
        (
            {"request": {"seed": 7, "repeat_penalty": 1.3}},
            f'{{"max_tokens": 300, "repeat_penalty": 1.3, "seed": 7, {BEFORE}',
        ),
        ({"headers": {"X-Team": "a"}}, f'{{"max_tokens": 300, {BEFORE}'),
        ({"max_tokens": None}, f"{{{BEFORE}"),
        ({"request": {"max_tokens": None}}, f"{{{BEFORE}"),
        (
            {"temperature": None, "request": {"max_tokens": None, "max_completion_tokens": 9}},
            '{"max_completion_tokens": 9, "structured": "json_schema"}',
        ),
        (
            {"request": {"chat_template_kwargs": {"enable_thinking": False}, "stop": ["a"]}},
            '{"chat_template_kwargs": {"enable_thinking": false}, "max_tokens": 300, "stop": ["a"]'
            f", {BEFORE}",
        ),
        (
            {"base_url": "http://localhost/v1?api-version=2024-10-21"},
            '{"max_tokens": 300, "query of base_url": "api-version=2024-10-21", ' + BEFORE,
        ),
    ],
)
def test_the_key_of_a_call_has_what_determines_the_answer(keys: dict[str, Any], key: str) -> None:
    assert sampling(rater(**keys)) == key


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"sampling": {"seed": 7}}, "sampling is named request now"),
        ({"request": {"temperature": 1}}, "key of the rater itself"),
        ({"request": {"max_tokens": 1}}, "key of the rater itself"),
        ({"request": {"model": None}}, "key of the rater itself"),
        ({"request": {"stream": True}}, "one message and one answer"),
        ({"request": {"x": float("nan")}}, "nan"),
        ({"request": {"access_token": "x"}}, "looks like a secret"),
        ({"headers": {"Content-Length": "3"}}, "client sets itself"),
        ({"headers": {"a b": "3"}}, "no header"),
        ({"headers": {"x-goog-api-key": "3"}}, "{env: NAME}"),
        ({"headers": {"x": {"env": "a-b"}}}, "name of an environment variable"),
        ({"headers": {"Authorization": {"env": "A"}}, "api_key_env": "B"}, "leave one of them"),
        ({"base_url": "http://localhost/v1?api-key=3"}, "a key"),
        ({"base_url": "http://localhost/v1#a"}, "fragment"),
        ({"base_url": "http://localhost/v1?a=1&a=2"}, "twice"),
        ({"base_url": "http://localhost:99999/v1"}, "ort"),
        ({"base_url": "localhost:8000"}, "is not an address"),
    ],
)
def test_a_wrong_request_is_refused(
    keys: dict[str, Any], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Workplace(tmp_path / "w", "http://localhost/v1", 1, [keys])
    assert main(["annotate", str(place.config)]) == 2
    (line,) = [one for one in capfd.readouterr().err.splitlines() if "regreason: " in one]
    assert says in line
    assert not place.store.exists()


def test_fields_that_only_look_like_secrets_are_sent() -> None:
    request = {"prompt_cache_key": "a", "stop_token_ids": [1], "min_tokens": 2, "key_layer": 3}
    assert rater(request=request).request_body().items() >= request.items()


@pytest.mark.parametrize(
    ("keys", "longest"),
    [
        ({}, 300),
        ({"max_tokens": None}, None),
        ({"request": {"max_tokens": None, "max_completion_tokens": 9}}, 9),
    ],
)
def test_the_longest_answer(keys: dict[str, Any], longest: int | None) -> None:
    assert rater(**keys).longest_answer == longest


def test_a_budget_needs_the_longest_answer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = {"max_tokens": None, "price": {"prompt": 1, "answer": 1}}
    place = Workplace(tmp_path / "w", "http://localhost/v1", 1, [keys])
    assert main(["annotate", str(place.config), "--budget", "1"]) == 2
    assert "max_completion_tokens" in capfd.readouterr().err


def test_the_template_has_the_papers_twelve_scores() -> None:
    config = AnnotateConfig.model_validate(yaml.safe_load(SHIPPED))
    assert config.scores_asked == 12
    assert (
        config.scores_needed
        == AnnotateConfig.model_validate({**yaml.safe_load(SHIPPED), "minimum": None}).scores_needed
    )


def test_the_template_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", "prompts", "--out", "mine"]) == 0
    (tmp_path / "runs/hh").mkdir(parents=True)
    for name in ("chosen", "rejected"):
        talk = {
            "id": name,
            "dataset": f"hh_{name}",
            "group": "g",
            "conversation": [
                {"role": "user", "content": "Is it far?"},
                {"role": "assistant", "content": f"Not at all, {name}."},
            ],
        }
        (tmp_path / "runs/hh" / f"{name}.jsonl").write_text(dumps(talk) + "\n")
    with running() as server:
        text = re.sub(r"http://localhost:\d+/v1", server.url, SHIPPED)
        (tmp_path / "mine" / "annotate.yml").write_text(text)
        # Two of the raters have no price.
        assert main(["annotate", "mine/annotate.yml", "--budget", "1"]) == 2
        assert not server.requests
        assert main(["annotate", "mine/annotate.yml"]) == 0
        asked = [(body["model"], body["messages"][0]["content"]) for body in server.bodies]
    config = read_config(tmp_path / "mine" / "annotate.yml")
    merges = [prompt for _, prompt in asked if "<explanations>" in prompt]
    assert len(asked) == len(set(asked)) == 2 * 3 * 12 + 2 * 3
    assert len(merges) == 2 * 3
    assert {model for model, _ in asked} == {rater.model for rater in config.servers}
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in (tmp_path / "runs/hh/ratings.jsonl").read_text().splitlines()
    ]
    assert [row["axis"] for row in rows] == [*AXES, *AXES]
    for row in rows:
        assert len(row["ratings"]) == 12
        stretched = [1 + 4 * (one["score"] - 1) / (one["scale"] - 1) for one in row["ratings"]]
        assert row["score"] == pytest.approx(sum(stretched) / 12, abs=1e-6)
        assert row["explanation"] == row["merged"]["explanation"]
        # The prompt for merging has all twelve explanations and no other.
        (question,) = [
            one
            for one in merges
            if row["conversation"][-1]["content"] in one
            and one.count("<explanation>\n") == 12
            and all(rating["explanation"] in one for rating in row["ratings"])
        ][:1]
        assert question.count("At most 60 words") == 1


@pytest.mark.parametrize(
    ("changed", "line", "field"),
    [
        ("aggregate: medium", 9, "aggregate"),
        ("minimum: 4", 9, "minimum"),
        ("merge: {rater: b}", 9, "merge.rater"),
        ("merge:\n  max_words: 9\n  rater: b", 11, "merge.rater"),
        ("alarm: {last: 0}", 9, "alarm.last"),
    ],
)
def test_a_wrong_key_is_named_with_its_line(
    changed: str, line: int, field: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_talk(tmp_path / "talk.jsonl")
    config = tmp_path / "annotate.yml"
    config.write_text(
        f"# A comment.\nconversations: [{tmp_path}/talk.jsonl]\nout: {tmp_path}/ratings.jsonl\n"
        "raters:\n  - name: a\n    model: m\n    base_url: http://localhost/v1\n"
        f"    prompts: [scale-1-5]\n{changed}\n"
    )
    assert main(["annotate", str(config)]) == 2
    assert f"{config}, line {line}, field {field}" in capfd.readouterr().err


def test_the_second_rater_of_a_name_is_named_with_its_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "annotate.yml"
    rater = "  - name: a\n    model: m\n    base_url: http://localhost/v1\n"
    config.write_text(f"conversations: [x]\nout: y.jsonl\nraters:\n{rater}{rater}")
    assert main(["annotate", str(config)]) == 2
    assert f"{config}, line 7, field raters.1" in capfd.readouterr().err
