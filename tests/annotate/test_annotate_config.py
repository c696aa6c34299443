"""The config template of `annotate`: it explains every key, states true defaults, and runs."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.openai_server import running

from regreason_plugin.annotate.config import (
    AnnotateConfig,
    MergeConfig,
    Price,
    ServerRater,
    read_config,
)
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
