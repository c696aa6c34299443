"""The quality alarm: unusable answers that are paid end a run or make it warn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.asking import Workplace
from helpers.openai_server import Server, running

from regreason_plugin.annotate import client
from regreason_plugin.annotate.config import Alarm
from regreason_plugin.annotate.quality_alarm import QualityAlarm
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.cli import main
from regreason_plugin.core.errors import say_once

pytestmark = pytest.mark.integration

ONE: dict[str, Any] = {"prompts": ["scale-1-5"], "concurrency": 4}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(client, "_FIRST_WAIT", 0.01)
    with running() as running_server:
        yield running_server


@pytest.mark.parametrize(
    ("fault", "state", "advice", "change"),
    [
        ("truncated", "truncated", "raise max_tokens", {"max_tokens": 900}),
        ("broken-json", "broken_json", "set structured to json_schema", {"structured": "none"}),
        ("refusal", "refused", "use another model", {"model": "another"}),
    ],
)
def test_it_stops_a_run_of_unusable_answers_and_the_mended_command_goes_on(
    fault: str,
    state: str,
    advice: str,
    change: dict[str, Any],
    server: Server,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server.fault = lambda prompt, times: fault
    place = Workplace(tmp_path / "w", server.url, 120, [ONE])
    assert main(["annotate", str(place.config)]) == 2
    # Without the alarm, 360 calls with two readings each are 720 requests. 25 unusable answers make
    # half of 50; at most 3 other calls are under way.
    assert 50 <= server.total <= 50 + 2 * 3
    (line,) = [one for one in capfd.readouterr().err.splitlines() if "stopped: " in one]
    assert "'rater-1' with the prompt scale-1-5, 25 cannot be used" in line
    for said in (f"25 {state}", advice, f"({state})", "ratings.calls.db"):
        assert said in line
    # Every answer that was paid is in the store.
    stored = place.calls("state, attempts, conversation")
    assert {one[0] for one in stored} == {state}
    assert sum(one[1] for one in stored) == server.total
    server.fault = lambda prompt, times: None
    before = server.total
    rater = {**place.keys["raters"][0], **change}
    assert main(["annotate", str(place.write(raters=[rater]))]) == 0
    assert server.total - before == 360
    assert len(place.rows()) == 360


def test_a_prompt_that_fails_rings_although_the_others_do_well(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.fault = lambda prompt, times: "score-9" if "from 1 to 4" in prompt else None
    rater = {**ONE, "prompts": ["scale-1-4", "scale-1-5", "scale-1-5-examples"]}
    place = Workplace(tmp_path / "w", server.url, 30, [rater])
    assert main(["annotate", str(place.config)]) == 2
    assert (
        "with the prompt scale-1-4, 25 cannot be used: 25 score_out_of_range"
        in capfd.readouterr().err
    )
    place.write(alarm={"action": "warn"})
    say_once.cache_clear()
    assert main(["annotate", str(place.config)]) == 0
    said = capfd.readouterr()
    assert said.err.count("regreason: warning: of the last") == 1
    assert "rater-1 with scale-1-4: 90 of 90 answers cannot be used; score_out_of_range" in said.out
    assert "with scale-1-5:" not in said.out


def test_a_share_below_the_limit_is_no_alarm(server: Server, tmp_path: Path) -> None:
    # Two of three axes are fine, so a third of the answers is unusable.
    server.fault = lambda prompt, times: "broken-json" if "how natural" in prompt else None
    place = Workplace(tmp_path / "w", server.url, 40, [ONE])
    assert main(["annotate", str(place.config)]) == 0
    assert server.total == 80 + 2 * 40


def rater() -> ServerRater:
    return ServerRater(name="r", model="m", base_url="http://localhost/v1")


def rung(settings: Alarm, states: str) -> list[int]:
    """The numbers of the answers at which the alarm rings; ``x`` is unusable, ``.`` is usable."""
    alarm = QualityAlarm(rater(), settings)
    names = {"x": "truncated", ".": "ok"}
    return [n for n, one in enumerate(states, start=1) if alarm.ring("p", names[one], "text")]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ("xx", [2]),
        ("x...x...x...", []),
        ("..........x.x", [13]),
        ("x..xx", [4]),
        ("xxxxxxxx", [2]),
        ("", []),
    ],
)
def test_when_it_rings(states: str, expected: list[int]) -> None:
    assert rung(Alarm(last=4, share=0.5), states) == expected


def test_examples_are_printable_and_short() -> None:
    alarm = QualityAlarm(rater(), Alarm(last=1, share=1))
    message = alarm.ring("p", "truncated", "a\x1b[31m\u202eb\n\n  c" + "x" * 1000)
    assert message is not None
    assert repr("a [31m b c" + "x" * (150 - 10)) in message
    assert message.isprintable()


def test_the_alarm_is_a_key_of_the_config(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Workplace(tmp_path / "w", "http://localhost/v1", 1, [ONE], alarm={"share": 2})
    assert main(["annotate", str(place.config)]) == 2
    said = capfd.readouterr().err
    line = place.config.read_text(encoding="utf-8").splitlines().index("  share: 2") + 1
    assert f"annotate.yml, line {line}, field alarm.share" in said
    assert json.dumps(place.leftovers()) == "[]"
