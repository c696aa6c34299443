"""`regreason annotate --batch`: the same ratings as without batches, also after faults."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers.asking import Workplace, dump
from helpers.batch_api import BatchApi, Line
from helpers.openai_server import Server, running

from regreason_plugin.annotate import batch_run
from regreason_plugin.annotate.locks import only_batch_process
from regreason_plugin.annotate.store import Store
from regreason_plugin.cli import main

pytestmark = pytest.mark.integration

RATERS = [
    {"prompts": ["scale-1-4", "scale-1-5"], "price": {"prompt": 1000, "answer": 1000}},
    {
        "prompts": ["scale-1-5-examples"],
        "price": {"prompt": 0, "answer": 0},
        "structured": "guided_json",
    },
]
CONVERSATIONS = 4
RATINGS = CONVERSATIONS * 3 * 3
MERGES = CONVERSATIONS * 3


def workplace(folder: Path, url: str) -> Workplace:
    return Workplace(folder, url, CONVERSATIONS, RATERS, merge={"rater": "rater-1"})


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The same work without batches."""
    with running() as server:
        place = workplace(tmp_path_factory.mktemp("plain"), server.url)
        assert main(["annotate", str(place.config)]) == 0
    return place


@pytest.fixture
def plain_bodies(tmp_path: Path) -> list[Line]:
    with running() as server:
        assert main(["annotate", str(workplace(tmp_path / "bodies", server.url).config)]) == 0
    return server.bodies


@pytest.fixture
def server() -> Iterator[BatchApi]:
    with running(BatchApi()) as started:
        assert isinstance(started, BatchApi)
        yield started


@pytest.fixture
def place(server: BatchApi, tmp_path: Path) -> Workplace:
    return workplace(tmp_path / "batches", server.url)


def once(place: Workplace, *flags: str) -> int:
    return main(["annotate", str(place.config), "--batch", *flags])


def to_the_end(place: Workplace) -> int:
    """Run the command until it ends with another code than 3; return the number of runs."""
    for runs in range(1, 10):
        if (code := once(place)) != 3:
            assert code == 0
            return runs
        # A batch that is not listed counts as not made after a minute.
        with closing(sqlite3.connect(place.store)) as database, database:
            database.execute("UPDATE batches SET sent = 0")
    raise AssertionError("it never ends")


def without_cost(rows: list[str]) -> list[Any]:
    return [json.loads(row)[:-2] for row in rows]


def check_same(place: Workplace, plain: Workplace) -> None:
    """The ratings and the store are those of the run without batches, at half the price."""
    assert place.ratings.read_bytes() == plain.ratings.read_bytes()
    assert without_cost(dump(place.store)) == without_cost(dump(plain.store))
    assert place.leftovers() == []
    with closing(sqlite3.connect(place.store)) as database:
        assert database.execute("SELECT * FROM batches").fetchall() == []


def test_the_same_ratings_at_half_the_price(
    place: Workplace, plain: Workplace, server: BatchApi, plain_bodies: list[Line]
) -> None:
    server.ready = False
    assert once(place) == 3
    assert len(server.batches) == 2
    # Waiting asks for nothing and writes nothing.
    assert once(place) == 3
    assert len(server.batches) == 2
    assert not place.ratings.exists()
    server.ready = True
    assert once(place) == 3  # the explanations are merged in a batch of their own
    assert len(server.batches) == 3
    assert once(place) == 0
    check_same(place, plain)
    assert set(server.requests.values()) == {1}
    assert server.total == RATINGS + MERGES
    whole = (RATINGS * 2 / 3 + MERGES) * (100 + 20) * 1000 / 1e6
    assert plain.about()["cost"] == pytest.approx(whole)
    assert place.about()["cost"] == pytest.approx(whole / 2)
    assert {**place.about(), "cost": 0} == {**plain.about(), "cost": 0}

    def sort(bodies: list[Line]) -> list[str]:
        return sorted(json.dumps(body, sort_keys=True) for body in bodies)

    assert sort(server.bodies) == sort(plain_bodies)


def test_the_limits_of_a_batch(
    place: Workplace, plain: Workplace, server: BatchApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_run, "MOST_REQUESTS", 10)
    assert once(place) == 3
    sizes = [server.files[one["input_file_id"]].count(b"\n") for one in server.batches.values()]
    assert sizes == [10, 10, 4, 10, 2]
    monkeypatch.setattr(batch_run, "MOST_REQUESTS", 50_000)
    longest = max(map(len, server.files.values()))
    monkeypatch.setattr(batch_run, "MOST_BYTES", longest // 3)
    to_the_end(place)
    made = [server.files[one["input_file_id"]] for one in [*server.batches.values()][5:]]
    assert len(made) > 1
    assert max(map(len, made)) <= longest // 3
    check_same(place, plain)
    assert set(server.requests.values()) == {1}


def half(lines: list[Line]) -> tuple[list[Line], list[Line]]:
    expired = {"code": "batch_expired", "message": "This request could not be executed."}
    late = [{**one, "response": None, "error": expired} for one in lines[1::2]]
    return lines[::2], late


def overloaded(lines: list[Line]) -> tuple[list[Line], list[Line]]:
    body = {"error": {"message": "later"}}
    failed = [{**one, "response": {"status_code": 500, "body": body}} for one in lines[::3]]
    return [one for n, one in enumerate(lines) if n % 3], failed


def strange(lines: list[Line]) -> tuple[list[Line], list[Line]]:
    unknown = {**lines[0], "custom_id": "nobody"}
    other = json.loads(json.dumps(lines[0]))
    other["response"]["body"]["choices"][0]["message"]["content"] = "score: 1"
    return [unknown, {"no": "id"}, *lines, other, *lines[::-1]], [other]


@pytest.mark.parametrize(
    ("ends_as", "changed"),
    [("expired", half), ("cancelled", half), ("completed", overloaded), ("completed", strange)],
)
def test_faults_give_calls_back(
    place: Workplace,
    plain: Workplace,
    server: BatchApi,
    ends_as: str,
    changed: Callable[[list[Line]], tuple[list[Line], list[Line]]],
) -> None:
    server.ends_as, server.changed = ends_as, changed
    assert once(place) == 3
    assert once(place) == 3
    server.ends_as, server.changed = "completed", lambda lines: (lines, [])
    to_the_end(place)
    check_same(place, plain)


def test_a_refused_request_is_final_and_retried_on_demand(
    place: Workplace, plain: Workplace, server: BatchApi
) -> None:
    def refused(lines: list[Line]) -> tuple[list[Line], list[Line]]:
        body = {"error": {"message": "too\nlong"}}
        failed = {**lines[0], "response": {"status_code": 400, "body": body}}
        return lines[1:], [failed]

    server.changed = refused
    to_the_end(place)
    assert [row for row in place.calls("state, answer, attempts") if row[0] != "ok"] == [
        ("bad_request", "400 too long", 1)
    ] * 3
    server.changed = lambda lines: (lines, [])
    # First the two scores, then the merged explanation.
    assert once(place, "--retry-failed") == 3
    assert once(place, "--retry-failed") == 3
    to_the_end(place)
    assert place.ratings.read_bytes() == plain.ratings.read_bytes()


def test_a_failed_batch_stops_with_the_server_s_words(
    place: Workplace, plain: Workplace, server: BatchApi, capsys: pytest.CaptureFixture[str]
) -> None:
    server.ends_as = "failed"
    assert once(place) == 3
    assert once(place) == 2
    assert "has failed: no such model; correct the config" in capsys.readouterr().err
    assert len(server.batches) == 2
    server.ends_as = "completed"
    for batch in server.batches.values():
        batch["status"] = "in_progress"
    to_the_end(place)
    check_same(place, plain)


@pytest.mark.parametrize(
    ("status", "said", "made"),
    [
        (400, "bad_request (400 no)", 0),
        (401, "refuses calls without a key", 0),
        (200, "broken_body (made)", 1),
        (502, "server_error (502 no)", 1),
    ],
)
def test_a_batch_is_made_or_not_whatever_the_reply(
    place: Workplace,
    plain: Workplace,
    server: BatchApi,
    capsys: pytest.CaptureFixture[str],
    status: int,
    said: str,
    made: int,
) -> None:
    server.refuses = status
    assert once(place) == 2
    assert said in capsys.readouterr().err
    assert len(server.batches) == made
    with Store(place.store) as store:
        assert len(store.batches()) == made
    server.refuses = None
    to_the_end(place)
    check_same(place, plain)
    assert set(server.requests.values()) == {1}
    assert len(server.batches) == 3


def test_a_server_without_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(Server()) as server:
        place = workplace(tmp_path / "w", server.url)
        assert once(place) == 2
        assert "not_found" in capsys.readouterr().err
        assert main(["annotate", str(place.config)]) == 0


def test_calls_in_batches_are_nobody_else_s(
    place: Workplace, server: BatchApi, capsys: pytest.CaptureFixture[str]
) -> None:
    server.ready = False
    assert once(place) == 3
    for flags in ([], ["--check"]):
        assert main(["annotate", str(place.config), *flags]) == 2
        assert "24 calls of rater 'rater-1' are in a batch; collect" in capsys.readouterr().err
    assert server.total == 0


def test_an_answer_of_a_prompt_that_has_changed_is_kept(
    place: Workplace, plain: Workplace, server: BatchApi, tmp_path: Path
) -> None:
    server.ready = False
    assert once(place) == 3
    server.ready = True
    mine = tmp_path / "mine"
    assert main(["fetch", "prompts", "--out", str(mine)]) == 0
    file = mine / "scale-1-5/on_topic.txt"
    file.write_text(file.read_text(encoding="utf-8") + "\nBe strict.\n", encoding="utf-8")
    place.write(prompts=str(mine))
    to_the_end(place)
    place.write(prompts=None)
    to_the_end(place)
    assert place.ratings.read_bytes() == plain.ratings.read_bytes()
    assert set(server.requests.values()) == {1}


# --- kills ------------------------------------------------------------------------------------


def killed_at(place: Workplace, method: str, time: int, *, after: bool) -> None:
    """Run the command in a process that is killed before or after a call to the store's method."""

    def child() -> None:
        original, times = getattr(Store, method), 0

        def last(*args: Any) -> Any:
            nonlocal times
            times += 1
            if times == time and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*args)
            if times == time:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(Store, method, last)
        os._exit(once(place))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("method", "time", "runs_before"),
    [
        ("start_batch", 1, 0),  # nothing is sent; the calls belong to the process, or to a batch
        ("start_batch", 2, 0),  # one batch is sent, the other is not
        ("batch_is_uploaded", 1, 0),  # the file is uploaded
        ("batch_is_made", 1, 0),  # the batch is made
        ("finish", 7, 1),  # some answers are stored
        ("end_batch", 1, 1),  # all answers of a batch are stored
        ("batch_is_made", 1, 1),  # the batch that merges is made
    ],
)
def test_killed(
    place: Workplace,
    plain: Workplace,
    server: BatchApi,
    method: str,
    time: int,
    runs_before: int,
    after: bool,
) -> None:
    for _ in range(runs_before):
        assert once(place) == 3
    killed_at(place, method, time, after=after)
    to_the_end(place)
    check_same(place, plain)
    assert set(server.requests.values()) == {1}
    assert len(server.batches) == 3


def test_a_batch_that_may_still_appear_is_waited_for(
    place: Workplace, server: BatchApi, capsys: pytest.CaptureFixture[str]
) -> None:
    killed_at(place, "batch_is_uploaded", 1, after=True)
    assert once(place) == 3
    assert "24 calls, sent a moment ago, but not listed yet" in capsys.readouterr().out
    assert server.total == 0


@pytest.mark.parametrize("made", [False, True])
def test_a_server_that_lists_nothing(
    place: Workplace,
    plain: Workplace,
    server: BatchApi,
    capsys: pytest.CaptureFixture[str],
    made: bool,
) -> None:
    if made:
        killed_at(place, "batch_is_made", 1, after=False)
    else:
        killed_at(place, "batch_is_uploaded", 1, after=True)
    server.lists = False
    assert once(place) == 2
    said = capsys.readouterr().err
    assert "a batch of the file file-0, but the server does not list its batches" in said
    update, delete = re.findall(r'sqlite3 \S+ "(.*?)"', said)
    with closing(sqlite3.connect(place.store)) as database, database:
        database.execute(update.replace("ITS ID", "batch_0") if made else delete)
    to_the_end(place)
    check_same(place, plain)
    assert set(server.requests.values()) == {1}


# --- other cases ------------------------------------------------------------------------------


def test_the_budget(place: Workplace, server: BatchApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert once(place, "--budget", "0.01") == 3
    assert len(server.batches) == 1  # of the rater without a price
    assert main(["annotate", str(place.config), "--batch", "--dry-run"]) == 0
    costs = re.findall(r"rater-1 .*?([\d.]+) +\n", capsys.readouterr().out)
    assert main(["annotate", str(place.config), "--dry-run"]) == 0
    whole = re.findall(r"rater-1 .*?([\d.]+) +\n", capsys.readouterr().out)
    assert len(costs) == len(whole)
    for half_price, full in zip(costs, whole, strict=True):
        assert float(half_price) == pytest.approx(float(full) / 2, abs=0.011)


def test_two_at_once(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(place.store), only_batch_process(place.store):
        assert once(place) == 2
    assert "another process sends or collects batches" in capsys.readouterr().err


def test_a_store_of_an_earlier_program(place: Workplace, plain: Workplace) -> None:
    with Store(place.store):
        pass
    with closing(sqlite3.connect(place.store)) as database, database:
        database.execute("DROP TABLE batches")
    to_the_end(place)
    check_same(place, plain)


def test_unusable_answers_ring_the_alarm(
    place: Workplace, server: BatchApi, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write(alarm={"last": 8, "share": 0.5})
    server.fault = lambda prompt, times: "What?"
    assert once(place) == 3
    assert once(place) == 2
    said = capsys.readouterr().err
    assert "stopped: of the last 4 answers of rater 'rater-1' with all its prompts" in said
    assert {row[0] for row in place.calls("state, axis, prompt") if row[0] != "asking"} == {
        "broken_json"
    }
    assert len(server.batches) == 2


# --- folders ----------------------------------------------------------------------------------


def run_batch(folder: Path, most: int = 1_000_000) -> int:
    """What `vllm run-batch` does: results for every file of requests, at most some of each."""
    api = BatchApi()
    for requests in folder.glob("*.jsonl"):
        if ".results" not in requests.name:
            lines = requests.read_text(encoding="utf-8").splitlines()[:most]
            results = (json.dumps(api.result(json.loads(line))) + "\n" for line in lines)
            requests.with_suffix(".results.jsonl").write_text("".join(results), encoding="utf-8")
    return api.total


def test_a_folder_of_batch_files(
    place: Workplace, plain: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "requests"
    flags = ["annotate", str(place.config), "--batch-files", str(folder)]
    assert main(flags) == 3
    assert {file.name[:8] for file in folder.iterdir()} == {"rater-1-", "rater-2-"}
    run_batch(folder, most=5)
    assert main(flags) == 3
    assert f"5 of 24 results in {folder}" in capsys.readouterr().out
    assert once(place) == 2
    assert "collect it with --batch-files first" in capsys.readouterr().err
    # A batch that is given up: its results count, and the other calls are made again.
    next(folder.glob("rater-2-????????????.jsonl")).unlink()
    assert main(flags) == 3
    assert place.calls("state, axis, rater").count(("ok", "on_topic", "rater-2")) > 0
    run_batch(folder)
    assert main(flags) == 3
    run_batch(folder)
    assert main(flags) == 0
    check_same(place, plain)
    folder.rename(tmp_path / "moved")
    assert main(flags) == 0


def test_a_folder_that_is_gone(
    place: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "requests"
    assert main(["annotate", str(place.config), "--batch-files", str(folder)]) == 3
    folder.rename(tmp_path / "moved")
    other = str(tmp_path / "other")
    assert main(["annotate", str(place.config), "--batch-files", other]) == 2
    assert "move the folder with the batch files back" in capsys.readouterr().err


def test_a_batch_on_a_server_is_not_in_a_folder(
    place: Workplace, tmp_path: Path, server: BatchApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert once(place) == 3
    assert main(["annotate", str(place.config), "--batch-files", str(tmp_path / "r")]) == 2
    assert "is on a server; collect it with --batch first" in capsys.readouterr().err
