"""The page of raters' answers, in a real browser; see `conftest.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.asking import Workplace
from helpers.openai_server import running
from selenium import webdriver
from selenium.webdriver.common.by import By

from regreason_plugin.cli import main

pytestmark = pytest.mark.integration

SCRIPT = '<script>document.title = "run"</script><img src="http://127.0.0.1:9/x">'


def test_each_answer_stands_beside_its_conversation_and_is_text(
    tmp_path: Path, browser: webdriver.Chrome
) -> None:
    page = tmp_path / "answers.html"
    with running() as server:
        server.fault = lambda prompt, times: None if "how natural" in prompt else SCRIPT
        rater = {"prompts": ["scale-1-5"]}
        place = Workplace(tmp_path, server.url, 6, [rater], alarm={"action": "warn"}, minimum=1)
        assert main(["annotate", str(place.config)]) == 0
    assert main(["annotate", str(place.config), "--show", "100", "--page", str(page)]) == 0

    calls = {
        (row[0], row[1]): row[2:] for row in place.calls("id, axis, score, explanation, answer")
    }
    conversations = {
        one["id"]: one["conversation"][-1]["content"]
        for one in map(json.loads, (tmp_path / "conversations.jsonl").open(encoding="utf-8"))
    }
    browser.get(page.as_uri())
    assert browser.title == "Raters' answers"
    articles = browser.find_elements(By.TAG_NAME, "article")
    assert len(articles) == len(calls) == 18
    for article in articles:
        axis, _, identity = article.find_element(By.CLASS_NAME, "about").text.split(", ", 2)
        score, explanation, answer = calls[identity, axis]
        assert " ".join(conversations[identity].split()) in " ".join(article.text.split())
        if explanation is None:
            assert answer == SCRIPT
            assert SCRIPT in article.text
        else:
            assert f"score\n{score}" in article.text
            assert explanation in article.text
    assert not browser.find_elements(By.CSS_SELECTOR, "script, img")
