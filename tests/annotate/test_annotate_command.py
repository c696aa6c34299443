"""`regreason annotate` on the command line: requests, repeated calls, dry runs and budgets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.asking import Workplace, run_regreason, start_regreason, write_talk
from helpers.openai_server import Server, running

from regreason_plugin.cli import main

pytestmark = pytest.mark.integration

ONE: dict[str, Any] = {"prompts": ["scale-1-5"], "concurrency": 4}
PRICE = {"prompt": 1000, "answer": 1000}
# The cost of one call, from the token counts that the server reports.
COST = (100 + 20) * 1000 / 1e6


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as running_server:
        yield running_server


def test_what_is_sent(server: Server, tmp_path: Path) -> None:
    sampling = {"seed": 7, "top_k": 40}
    raters = [
        {**ONE, "temperature": 0.5, "max_tokens": 99, "request": sampling},
        {**ONE, "structured": "json_object", "prompts": ["scale-1-4"]},
        {**ONE, "structured": "none", "prompts": ["scale-1-5-examples"]},
    ]
    place = Workplace(tmp_path / "w", server.url, 1, raters, merge={"rater": "rater-1"})
    assert main(["annotate", str(place.config)]) == 0
    by_model: dict[str, list[dict[str, Any]]] = {}
    for body in server.bodies:
        by_model.setdefault(body["model"], []).append(body)
        assert [message["role"] for message in body["messages"]] == ["user"]
        assert not body.get("stream")
    first, *merged = by_model["model-1"][0], *by_model["model-1"][3:]
    described = first.pop("response_format")["json_schema"]["schema"]
    assert described["properties"]["score"]["enum"] == [1, 2, 3, 4, 5]
    assert list(described["properties"]) == ["explanation", "score"] == described["required"]
    del first["messages"]
    assert first == {"model": "model-1", "temperature": 0.5, "max_tokens": 99, **sampling}
    assert len(merged) == 3
    for body in merged:
        assert list(body["response_format"]["json_schema"]["schema"]["properties"]) == [
            "explanation"
        ]
    assert by_model["model-2"][0]["response_format"] == {"type": "json_object"}
    assert "response_format" not in by_model["model-3"][0]
    # The prompt for merging has exactly the three explanations of the raters.
    row = place.rows()[0]
    said = [one["explanation"] for one in row["ratings"]]
    prompt = next(
        b["messages"][0]["content"] for b in merged if said[0] in b["messages"][0]["content"]
    )
    assert re.findall(r"<explanation>\n(.*)\n</explanation>", prompt) == said
    assert row["explanation"] == row["merged"]["explanation"]


def test_only_what_has_changed_is_asked(server: Server, tmp_path: Path) -> None:
    place = Workplace(tmp_path / "w", server.url, 3, [ONE], merge={"rater": "rater-1"})
    assert main(["annotate", str(place.config)]) == 0
    files = place.files()
    assert server.total == 9 + 9

    def asked(**changed: Any) -> int:
        before = server.total
        assert main(["annotate", str(place.write(**changed))]) == 0
        return server.total - before

    assert asked() == 0
    mine = tmp_path / "mine"
    assert main(["fetch", "prompts", "--out", str(mine)]) == 0
    assert asked(prompts=str(mine)) == 0
    assert place.files() == files

    # A changed prompt for one axis repeats that axis's 3 calls, and the 3 that merge them.
    path = mine / "scale-1-5/on_topic.txt"
    path.write_text(path.read_text(encoding="utf-8") + "\nBe strict.\n", encoding="utf-8")
    assert asked() == 3 + 3
    assert place.files() != files
    (mine / "merge.txt").write_text("{conversation} {explanations} {words}", encoding="utf-8")
    assert asked() == 9
    assert asked(prompts=None) == 0
    assert place.files()[0] == files[0]

    rater = place.keys["raters"][0]
    assert asked(merge={"rater": "rater-1", "max_words": 30}) == 9
    assert asked(raters=[{**rater, "concurrency": 9, "timeout": 60, "retries": 1}]) == 0
    assert asked(raters=[{**rater, "temperature": 0.1}]) == 18
    assert asked(raters=[{**rater, "model": "other"}]) == 18
    assert asked(raters=[rater, "rules-even"]) == 9  # merging again, with the rule's explanations
    assert asked(merge=None) == 0
    # Calls are keyed by a conversation's text, so a new id makes no new call.
    (file,) = place.keys["conversations"]
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    renamed = [json.dumps({**json.loads(line), "id": f"new-{n}"}) for n, line in enumerate(lines)]
    Path(file).write_text("\n".join(renamed) + "\n", encoding="utf-8")
    assert asked() == 0


def test_the_same_text_twice_is_asked_once(server: Server, tmp_path: Path) -> None:
    place = Workplace(tmp_path / "w", server.url, 2, [ONE], merge={"rater": "rater-1"})
    (file,) = place.keys["conversations"]
    lines = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    twins = [{**line, "id": f"{line['id']}-twin"} for line in lines]
    text = "".join(json.dumps(line) + "\n" for line in lines + twins)
    Path(file).write_text(text, encoding="utf-8")
    assert main(["annotate", str(place.config)]) == 0
    assert server.total == 6 + 6
    assert set(server.requests.values()) == {1}
    rows = place.rows()
    assert [row["score"] for row in rows[:6]] == [row["score"] for row in rows[6:]]


def numbers(output: str, rater: str) -> list[str]:
    """The cells of a rater's row in the printed table."""
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in output.splitlines()]
    (row,) = [row for row in rows if row[0] == rater and len(row) > 1]
    return row[1:]


def test_a_dry_run_says_what_will_be_asked(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.fault = lambda prompt, times: "400" if "how natural" in prompt else None
    raters = [
        {**ONE, "prompts": ["scale-1-4", "scale-1-5"], "price": PRICE},
        {**ONE, "prompts": ["scale-1-5-examples"]},
    ]
    place = Workplace(tmp_path / "w", server.url, 4, raters)

    def dry(*more: str) -> str:
        before = sorted(path.name for path in place.folder.iterdir())
        requests = server.total
        assert main(["annotate", str(place.config), "--dry-run", *more]) == 0
        assert sorted(path.name for path in place.folder.iterdir()) == before
        assert server.total == requests
        return capfd.readouterr().out

    said = dry()
    assert not place.store.exists()
    total, answered, failed, left, tokens, _, cost = numbers(said, "rater-1")
    assert (total, answered, failed, left) == ("24", "0", "0", "24")
    assert numbers(said, "rater-2")[:4] == ["12", "0", "0", "12"]
    assert numbers(said, "rater-2")[6] == numbers(said, "all")[6] == "unknown"
    prompts = place.prompts()
    place.store.unlink()
    lengths = sum(len(prompt) for key, prompt in prompts.items() if key[1] == "rater-1")
    assert int(tokens.replace(",", "")) == round(lengths / 4)
    assert float(cost.replace(",", "")) == pytest.approx((lengths / 4 + 24 * 80) / 1000, abs=0.01)
    # The output shows one whole prompt exactly as it will be sent.
    shown = [prompt for prompt in prompts.values() if prompt in said]
    assert len(shown) == 1

    assert main(["annotate", str(place.config)]) == 0
    assert server.total == 24 + 12
    assert shown[0] in server.requests
    capfd.readouterr()

    assert numbers(dry(), "rater-1")[:4] == ["24", "16", "8", "0"]
    said = dry("--retry-failed")
    assert numbers(said, "rater-1")[:4] == ["24", "16", "8", "8"]
    assert numbers(said, "all")[:4] == ["36", "24", "12", "12"]
    before = server.total
    assert main(["annotate", str(place.config), "--retry-failed"]) == 0
    assert server.total - before == 12
    # With twice as many conversations, only the calls for the new ones are left.
    capfd.readouterr()
    more = Workplace(tmp_path / "more", server.url, 8, raters, store=str(place.store))
    assert main(["annotate", str(more.config), "--dry-run"]) == 0
    assert numbers(capfd.readouterr().out, "all")[:4] == ["72", "24", "12", "36"]


def test_a_narrow_terminal_cuts_no_number(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regreason_plugin.cli.console.console._width", 80)
    price = {"prompt": 1e5, "answer": 1e5}
    place = Workplace(tmp_path / "w", "http://localhost/v1", 40, [{**ONE, "price": price}])
    place.write(merge={"rater": "rater-1"})
    assert main(["annotate", str(place.config), "--dry-run"]) == 0
    said = capfd.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("│")]
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "\u2026" in line]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    (rating, merging, both) = rows[-3:]
    assert rating[:5] == ["rater-1", "120", "0", "0", "120"]
    assert merging[:5] == ["rater-1, merging", "120", "0", "0", "120"]
    tokens_in, tokens_out, cost = (
        [float(row[column].replace(",", "")) for row in (rating, merging, both)]
        for column in (5, 6, 7)
    )
    assert tokens_in[0] + tokens_in[1] == tokens_in[2]
    assert tokens_out == [120 * 80, 120 * 80, 240 * 80]
    assert cost[2] == pytest.approx((tokens_in[2] + tokens_out[2]) / 10)


def test_a_dry_run_of_rules_costs_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Workplace(tmp_path / "w", "http://localhost/v1", 2, [])
    place.write(raters=["rules-even"])
    assert main(["annotate", str(place.config), "--dry-run"]) == 0
    assert "no calls are made" in capfd.readouterr().out
    assert main(["annotate", str(place.config)]) == 0
    assert not place.store.exists()


def left(output: str) -> int:
    (number,) = re.findall(r"Stopped by the budget: ([\d,]+) calls are left", output)
    return int(number.replace(",", ""))


def test_a_budget_is_kept_and_a_higher_one_goes_on(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Workplace(tmp_path / "w", server.url, 20, [{**ONE, "price": PRICE, "max_tokens": 50}])
    worst = 2 * max(len(prompt.encode()) + 64 + 50 for prompt in place.prompts().values()) / 1000
    spent = 0.0
    for budget in (0.0, 0.05, 5.0, 5.0, 6.0):
        assert main(["annotate", str(place.config), "--budget", str(budget)]) == 3
        spent = server.total * COST
        assert spent <= budget + 1e-9
        assert set(server.requests.values()) <= {1}
        # The budget is used up: one more call might have exceeded it.
        assert spent + worst > budget
        said = capfd.readouterr().out
        assert left(said) == 60 - server.total
        assert "higher --budget" in said
        assert not place.ratings.exists()
        assert {row[1] for row in place.calls()} <= {"ok"}
    assert main(["annotate", str(place.config), "--budget", "100"]) == 0
    assert server.total == 60
    assert len(place.rows()) == 60
    assert place.about()["cost"] == pytest.approx(60 * COST)
    # All answers are in the store, so a budget of 0 is enough.
    assert main(["annotate", str(place.config), "--budget", "0"]) == 0
    assert server.total == 60


def test_a_budget_holds_for_merging_and_for_retries_too(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rater = {**ONE, "price": PRICE, "max_tokens": 50}
    place = Workplace(tmp_path / "w", server.url, 5, [rater], merge={"rater": "rater-1"})
    server.fault = lambda prompt, times: (
        "score-9" if times <= 2 and "how natural" in prompt else None
    )
    assert main(["annotate", str(place.config), "--budget", "6.5"]) == 3
    assert server.total * COST <= 6.5
    assert main(["annotate", str(place.config)]) == 0
    failed = [row for row in place.calls() if row[1] == "score_out_of_range"]
    assert len(failed) == 5
    spent = server.total * COST
    capfd.readouterr()
    asked = [prompt for prompt in place.prompts().values() if "how natural" in prompt]
    retry = ("--retry-failed", "score_out_of_range")
    # The budget allows one or two of the five retries.
    budget = spent + 2 * min(len(prompt.encode()) + 64 + 50 for prompt in asked) / 1000 + COST
    assert main(["annotate", str(place.config), *retry, "--budget", str(budget)]) == 3
    assert server.total * COST <= budget
    assert left(capfd.readouterr().out) > 0
    assert main(["annotate", str(place.config), *retry]) == 0
    assert {row[1] for row in place.calls()} == {"ok"}


def test_two_at_once_keep_one_budget(server: Server, tmp_path: Path) -> None:
    server.delay = 0.01
    rater = {**ONE, "price": PRICE, "max_tokens": 50}
    one, two = (Workplace(tmp_path / name, server.url, 20, [rater]) for name in ("one", "two"))
    two.write(store=str(one.store))
    log = tmp_path / "log"
    started = [
        start_regreason("annotate", place.config, "--budget", "6", log=log) for place in (one, two)
    ]
    assert [process.wait() for process in started] == [3, 3], log.read_text()
    assert 0 < server.total * COST <= 6
    assert set(server.requests.values()) == {1}
    assert one.leftovers() == []
    assert run_regreason("annotate", one.config, log=log) == 0
    assert server.total == 60
    assert set(server.requests.values()) == {1}


@pytest.mark.parametrize("budget", ["nan", "inf", "-1", "much"])
def test_a_budget_is_an_amount(budget: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["annotate", "x.yml", f"--budget={budget}"])
    assert stop.value.code == 2
    assert "--budget" in capfd.readouterr().err


def test_a_budget_needs_prices(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Workplace(tmp_path / "w", server.url, 1, [{**ONE, "price": PRICE}, ONE])
    assert main(["annotate", str(place.config), "--budget", "1"]) == 2
    assert "rater-2" in capfd.readouterr().err
    assert place.leftovers() == []
    assert not place.store.exists()
    assert server.total == 0


def test_it_shows_what_it_does(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Workplace(tmp_path / "w", server.url, 2, [ONE, {**ONE, "price": PRICE}])
    assert main(["annotate", str(place.config)]) == 0
    said = capfd.readouterr()
    assert "0 calls left" in said.err
    # The table is not cut, even if the log is not a terminal and has no width.
    for word in ("rater-1", "done", "failed", "calls/s", "tokens in", "time left"):
        assert word in said.err
    cells = numbers(said.err.replace("┃", "│"), "rater-2")
    assert cells[:4] == ["6", "0", "0", "0"]
    assert cells[5:8] == ["600", "120", f"{6 * COST:.2f}"]
    assert f"6 ratings: {place.ratings}" in said.out


def test_rules_need_no_client_and_a_server_without_one_is_told_what_to_install(
    tmp_path: Path,
) -> None:
    """The packages cannot be imported, as after an installation without the annotate extra."""
    write_talk(tmp_path / "talks.jsonl")
    (tmp_path / "rules.yml").write_text("conversations: [talks.jsonl]\nout: rules.jsonl\n")
    (tmp_path / "server.yml").write_text(
        "conversations: [talks.jsonl]\nout: served.jsonl\n"
        "raters: [{name: a, model: m, base_url: 'http://localhost:1/v1'}]\n"
    )
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'openai', 'tenacity', 'crowdkit', 'json_repair'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, p=None: None if n == 'openai' else found(n, p)\n"
        "from regreason_plugin.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )

    def run(config: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, "annotate", config],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    assert run("rules.yml").returncode == 0
    assert len((tmp_path / "rules.jsonl").read_text().splitlines()) == 3
    refused = run("server.yml")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "pip install 'regreason[annotate]'" in refused.stderr
    assert not (tmp_path / "served.jsonl").exists()


def test_a_dry_run_sends_no_control_characters_to_the_terminal(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Workplace(tmp_path / "w", server.url, 1, [ONE])
    talks = place.folder / "talks.jsonl"
    write_talk(talks, "Is it \x1b]0;owned\x07far?", "Not \x9b31mat all.")
    place.write(conversations=[str(talks)])
    assert main(["annotate", str(place.config), "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert "Is it \ufffd]0;owned\ufffdfar?" in said
    assert not {"\x1b", "\x07", "\x9b"} & set(said)
