"""The store of calls: claims, budgets, retries and locks."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import time
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread, Timer
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.asking import dump
from hypothesis import given, settings
from hypothesis import strategies as st

from regreason_plugin.annotate.calls import ASKING, OK, Call, CallKey, Outcome, conversation_key
from regreason_plugin.annotate.locks import WorkerLock, ended_worker, worker_names
from regreason_plugin.annotate.store import Store
from regreason_plugin.annotate.token_limits import holds_under
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.records import Conversation, Turn


def call(number: int = 0, worst: float = 0.0, conversation: str = "c") -> Call:
    key = CallKey(conversation, "rater", "on_topic", f"p{number}", "0" * 16, "m", "{}")
    return Call(key, "id", worst)


FINE = Outcome(OK, 3, "Fine.", None, 1, 100, 20, 0.5)
FAILED = Outcome("stalled", attempts=3, prompt_tokens=7, cost=0.25)


def talk(*turns: str, **more: str) -> Conversation:
    said = [
        Turn(role="assistant" if n % 2 else "user", content=text) for n, text in enumerate(turns)
    ]
    return Conversation(
        **{"id": "x", "dataset": "coqa", "group": "g", "conversation": said, **more}
    )


def test_a_conversation_is_known_by_its_text() -> None:
    base = conversation_key(talk("a", "b"))
    assert base == conversation_key(talk("a", "b", id="other", dataset="cornell", group="h"))
    others = [talk("a", "c"), talk("b", "a"), talk("a", "b", context="x"), talk("a", "b", "a", "b")]
    assert len({base, *map(conversation_key, others)}) == 5


def test_what_is_claimed_is_nobody_else_s(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as one, Store(tmp_path / "s.db") as two:
        calls = [call(n) for n in range(4)]
        assert one.claim(calls[:2]) == (calls[:2], 0, 0)
        assert two.claim(calls) == (calls[2:], 2, 0)
        # A process's own claims do not count as elsewhere, and are not claimed again.
        assert one.claim(calls) == ([], 2, 0)
        one.take_over()
        assert one.claim(calls) == ([], 2, 0)
        one.finish(calls[0], FINE)
        two.finish(calls[2], FAILED)
        assert one.outcomes([each.key for each in calls]) == {
            calls[0].key: Outcome(OK, 3, "Fine."),
            calls[2].key: Outcome("stalled"),
        }
        assert one.claim(calls) == ([], 1, 0)
        assert two.claim(calls) == ([], 1, 0)
    with Store(tmp_path / "s.db") as three:
        # Both stores gave back their claims when they were closed.
        assert three.claim(calls).mine == [calls[1], calls[3]]
    assert [path.name for path in tmp_path.iterdir()] == ["s.db"]


def test_a_retry_adds_to_what_was_paid(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        store.claim([call()])
        store.finish(call(), FAILED)
        assert store.claim([call()]).mine == []
        assert store.claim([call()], again=lambda state: True).mine == [call()]
        # A claimed call has no outcome.
        assert store.outcomes([call().key]) == {}
        store.finish(call(), FINE)
        assert store.claim([call()], again=lambda state: True).mine == []
        (row,) = map(json.loads, dump(store.path))
        assert row[8:] == [OK, 3, "Fine.", None, 4, 107, 20, 0.75, 0]
        assert store.spent() == 0.75
        assert store.totals("rater") == ({OK: 1}, 107, 20, 0.75)


def test_a_retry_that_is_given_back_keeps_what_was_paid_and_is_left(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        store.claim([call(0), call(1)])
        store.finish(call(0), FAILED)
        store.claim([call(0)], again=lambda state: True)
    with Store(tmp_path / "s.db") as store:
        (row,) = map(json.loads, dump(store.path))
        assert row[12:] == [3, 7, 0, 0.25, 0]
        assert store.outcomes([call(0).key]) == {}
        assert store.claim([call(0), call(1)]).mine == [call(0), call(1)]


def test_an_answer_without_a_row_is_an_error(tmp_path: Path) -> None:
    with (
        Store(tmp_path / "s.db") as store,
        pytest.raises(RuntimeError, match="has no row for the answer"),
    ):
        store.finish(call(), FINE)


def test_an_answer_that_is_kept_is_short_and_can_be_stored(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        store.claim([call()])
        store.finish(call(), Outcome("broken_json", answer="\ud800" + "x" * 1_000_000))
        (row,) = map(json.loads, dump(store.path))
        assert row[11] == "?" + "x" * 1_999


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 9), st.floats(0, 4), st.sampled_from([OK, "stalled", None])),
        max_size=40,
    ),
    budget=st.floats(0, 20),
)
@settings(max_examples=60)
def test_a_budget_is_never_exceeded(
    steps: list[tuple[int, float, str | None]],
    budget: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("budget") / "s.db"
    with Store(path) as store:
        spent = 0.0
        open_calls: dict[CallKey, Call] = {}
        for number, worst, state in steps:
            wanted = call(number, worst)
            claimed = store.claim([wanted], again=lambda state: True, budget=budget)
            assert len(claimed.mine) + claimed.elsewhere + claimed.unaffordable <= 1
            for mine in claimed.mine:
                open_calls[mine.key] = mine
                reserved = sum(one.worst for one in open_calls.values())
                assert spent + reserved <= budget + 1e-9
            if claimed.unaffordable:
                reserved = sum(one.worst for one in open_calls.values())
                assert spent + reserved + worst > budget - 1e-9
            if state and (mine := open_calls.pop(wanted.key, None)):
                store.finish(mine, Outcome(state, 3, "x", cost=mine.worst * 0.7))
                spent += mine.worst * 0.7
            assert store.spent() == pytest.approx(spent)
    with sqlite3.connect(path) as database:
        kept = database.execute("SELECT spent, reserved FROM spending").fetchone()
        summed = database.execute("SELECT total(cost), total(reserved) FROM calls").fetchone()
    database.close()
    assert kept == pytest.approx(summed, abs=1e-9)
    assert summed[1] == 0


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    Store(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=9")
    database.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"s\.db: is a store of version 9"):
        Store(path)
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    """A process that is killed while it creates a store leaves an empty file."""
    (tmp_path / "s.db").touch()
    with Store(tmp_path / "s.db") as store:
        assert store.claim([call()]).mine == [call()]
        assert json.loads(dump(store.path)[0])[8] == ASKING


@pytest.mark.parametrize("name", ["s.db", "a [1]*?.db", "a-worker-b.db"])
def test_locks_of_ended_processes_go(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with Store(path) as store:
        (tmp_path / f"{name}-worker-0123456789ab").touch()
        assert len(worker_names(path)) == 2
        store.take_over()
        assert len(worker_names(path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_lock_is_held_until_it_is_released(tmp_path: Path) -> None:
    lock = WorkerLock(tmp_path / "s.db")
    with ended_worker(tmp_path / "s.db", lock.name) as ended:
        assert not ended
    assert worker_names(tmp_path / "s.db") == {lock.name}
    lock.release()
    assert worker_names(tmp_path / "s.db") == set()


def test_a_lock_that_was_taken_away_before_it_was_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes a new lock file for one of a killed process, and removes it."""
    name = "0123456789ab"
    monkeypatch.setattr(uuid, "uuid4", lambda: SimpleNamespace(hex=name))
    path = tmp_path / f"s.db-worker-{name}"
    held, go_on = Event(), Event()

    def rival() -> None:
        with ended_worker(tmp_path / "s.db", name) as ended:
            assert ended
            held.set()
            go_on.wait()

    thread = Thread(target=rival)
    thread.start()
    assert held.wait(10)
    old = path.stat().st_ino
    link = tmp_path / "keeps the number in use"
    link.hardlink_to(path)
    Timer(0.3, go_on.set).start()
    started = time.monotonic()
    lock = WorkerLock(tmp_path / "s.db")
    assert time.monotonic() - started > 0.2
    thread.join()
    assert path.stat().st_ino != old
    with ended_worker(tmp_path / "s.db", lock.name) as ended:
        assert not ended
    lock.release()
    assert not path.exists()


def test_finished_calls_are_counted_as_the_rows_say(tmp_path: Path) -> None:
    """Some conversations are left out and one is repeated; claimed calls are not finished."""
    texts = [f"{number:032x}" for number in range(6)]
    states = (OK, "truncated", None)
    expected: Counter[tuple[str, ...]] = Counter()
    with Store(tmp_path / "calls.db") as store:
        for place, text in enumerate(texts):
            for order, rater in enumerate(("one", "two")):
                key = CallKey(text, rater, "axis", "scale-1-5", "hash", "model", "{}")
                (call,) = store.claim([Call(key, "id")]).mine
                state = states[(place + order) % 3]
                if state is None:
                    continue
                store.finish(call, Outcome(state))
                if place < 4:
                    expected[(*key[1:], state)] += 1
        asked = [*texts[:4], texts[0], "f" * 32]
        assert store.finished(iter(asked)) == (5, expected)
        assert store.finished(iter(asked)) == (5, expected)
        assert store.finished(iter(())) == (0, Counter())


def opened_at_once(path: str, start: Any, failed: Any) -> None:
    """Open a store, claim a call and close the store, in a new process; report any error."""
    start.wait()
    try:
        with Store(Path(path)) as store:
            store.claim([Call(CallKey("0" * 32, "one", "a", "p", "h", "m", "{}"), "id")])
    except BaseException as error:
        failed.put(repr(error))


def test_processes_may_make_and_open_a_store_at_the_same_moment(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    failed = context.SimpleQueue()
    for turn in range(25):
        start = context.Barrier(4)
        arguments = (str(tmp_path / f"{turn}.db"), start, failed)
        processes = [context.Process(target=opened_at_once, args=arguments) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    assert failed.empty(), failed.get()


def test_a_store_of_an_earlier_program_is_read_and_gets_the_served_model(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Store(path) as store:
        store.claim([call(0)])
        store.finish(call(0), FINE)
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE calls DROP COLUMN served")
    database.close()
    with Store(path) as store:
        assert store.outcome(call(0).key) == FINE
        store.claim([call(1)])
        store.finish(call(1), replace(FINE, served="m-0613"))
        served, days = store.origins("rater", "m", "{}")
        assert served == {"m-0613": 1}
        assert days.total() == 2
        assert set(days) <= {f"{datetime.now(UTC) - timedelta(hours=n):%Y-%m-%d}" for n in (0, 1)}


@pytest.mark.parametrize(
    ("old", "new", "holds"),
    [
        ({"max_tokens": 300}, {"max_tokens": 900}, True),
        ({"max_tokens": 900}, {"max_tokens": 300}, False),
        ({"max_tokens": 300}, {"max_tokens": 300}, False),
        ({"max_tokens": 300}, {}, True),
        ({}, {"max_tokens": 300}, False),
        ({"max_tokens": 300}, {"max_completion_tokens": 300}, True),
        ({"max_tokens": 300, "seed": 1}, {"max_tokens": 900}, False),
        ({"max_tokens": 300, "seed": 1}, {"max_tokens": 900, "seed": 2}, False),
    ],
)
def test_under_which_limits_an_answer_holds(
    old: dict[str, Any], new: dict[str, Any], holds: bool
) -> None:
    assert holds_under(json.dumps(old), json.dumps(new)) is holds


def test_copied_answers_cost_nothing(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        for number, outcome in enumerate((FINE, FAILED)):
            store.claim([call(number)])
            store.finish(call(number), outcome)
        for _ in range(2):
            store.copy_answers("rater", "m", '{"a": 1}', lambda old, new: old == "{}")
        copies = [call(number).key._replace(sampling='{"a": 1}') for number in range(2)]
        assert store.outcomes(copies) == {copies[0]: Outcome(OK, 3, "Fine.")}
        assert store.spent() == 0.75
        assert store.totals("rater") == ({OK: 2, "stalled": 1}, 107, 20, 0.75)
        store.copy_answers("other", "m", '{"a": 1}', lambda old, new: True)
        assert sum(store.totals("rater")[0].values()) == 3
