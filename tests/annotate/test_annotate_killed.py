"""`regreason annotate` killed at any moment, and run twice at once, in real processes."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from helpers.asking import Workplace, dump, run_regreason, start_regreason
from helpers.forked import Forked
from helpers.openai_server import Server, running

from regreason_plugin.annotate.calls import OK, CallKey

pytestmark = pytest.mark.integration

CONCURRENCY = 2
# The two raters share no prompt, so each prompt that the server counts is one call.
RATERS = [
    {"concurrency": CONCURRENCY, "prompts": ["scale-1-4", "scale-1-5"]},
    {"concurrency": CONCURRENCY, "prompts": ["scale-1-5-examples"]},
]
IN_FLIGHT = CONCURRENCY * len(RATERS)
CONVERSATIONS = 12
CALLS = CONVERSATIONS * 3 * (3 + 1)  # on each of 3 axes: 3 prompts and 1 merging call


def workplace(folder: Path, server: Server) -> Workplace:
    return Workplace(folder, server.url, CONVERSATIONS, RATERS, merge={"rater": "rater-1"})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    with running() as server:
        place = workplace(tmp_path_factory.mktemp("undisturbed"), server)
        assert run_regreason("annotate", place.config, log=place.folder.with_suffix(".log")) == 0
        assert server.total == CALLS
        assert set(server.requests.values()) == {1}
    assert place.leftovers() == []
    return place


def wait_until(there: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def finished_prompts(place: Workplace, prompts: dict[tuple[str, ...], str]) -> list[str]:
    """The prompts of the calls that a killed process left as answered in the store."""
    if not place.store.exists() or not place.store.stat().st_size:
        return []
    rows = place.calls(", ".join(CallKey._fields) + ", state") if _has_table(place) else []
    return [prompts[tuple(row[:-1])] for row in rows if row[-1] == OK]


def _has_table(place: Workplace) -> bool:
    # Opened for writing, because a reader may have to roll back the journal after a kill.
    with closing(sqlite3.connect(f"file:{place.store}?mode=rw", uri=True)) as database:
        return bool(database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


@pytest.mark.slow
def test_killed_at_twenty_moments(undisturbed: Workplace, tmp_path: Path) -> None:
    draw = random.Random(20)
    prompts = undisturbed.prompts()
    assert len(prompts) == CALLS
    log = tmp_path / "log"
    kills = 0
    during: Counter[str] = Counter()
    seen: list[tuple[list[str], Counter[str]]] = []
    with running(Server(delay=0.03)) as server:
        place = workplace(tmp_path / "killed", server)

        def kill(process: Forked, moment: str) -> bool:
            nonlocal kills
            code = process.kill()
            if code == -9:
                kills += 1
                during[moment] += 1
                finished = finished_prompts(place, prompts)
                seen.append((finished, Counter(server.requests)))
            else:
                assert code == 0, log.read_text()
            return code == -9

        # Kills while the process starts, then after a number of requests, in rating and in merging.
        for _ in range(4):
            process = start_regreason("annotate", place.config, log=log)
            time.sleep(draw.uniform(0, 0.1))
            assert kill(process, "start")
        for after in sorted(draw.sample(range(5, CALLS - 5), 12)):
            process = start_regreason("annotate", place.config, log=log)
            wait_until(lambda: len(server.requests) >= after or process.poll() is not None)  # noqa: B023
            time.sleep(draw.uniform(0, 0.04))
            merging = any("<explanations>\n" in prompt for prompt in server.requests)
            assert kill(process, "merge" if merging else "rate")
        # Kills while it writes the ratings: all calls are answered.
        assert run_regreason("annotate", place.config, log=log) == 0, log.read_text()
        longest = 0.4
        while kills < 20:
            for path in (place.ratings, place.ratings.with_name("ratings.about.json")):
                path.unlink(missing_ok=True)
            process = start_regreason("annotate", place.config, log=log)
            time.sleep(draw.uniform(0, longest))
            if not kill(process, "write"):
                longest *= 0.8
            elif place.ratings.exists():
                assert place.ratings.read_bytes() == undisturbed.ratings.read_bytes()
        assert run_regreason("annotate", place.config, log=log) == 0, log.read_text()

    assert during["rate"] > 3
    assert during["merge"] > 1
    assert place.files() == undisturbed.files()
    assert dump(place.store) == dump(undisturbed.store)
    # Only partial files may be left over.
    assert [name for name in place.leftovers() if not name.endswith(".partial")] == []

    assert set(server.requests) == set(prompts.values())
    assert server.total - CALLS <= kills * IN_FLIGHT
    assert max(server.requests.values()) <= 1 + kills
    for finished, counts in seen:
        for prompt in finished:
            assert server.requests[prompt] == counts[prompt]
    assert sum(len(finished) for finished, _ in seen) > CALLS


def test_two_at_once_ask_everything_once(undisturbed: Workplace, tmp_path: Path) -> None:
    with running(Server(delay=0.02)) as server:
        one = workplace(tmp_path / "one", server)
        two = workplace(tmp_path / "two", server)
        two.write(store=str(one.store))
        started = [
            start_regreason("annotate", place.config, log=place.folder.with_suffix(".log"))
            for place in (one, two)
        ]
        assert [process.wait() for process in started] == [0, 0]
        assert set(server.requests.values()) == {1}
        assert server.total == CALLS
    # More calls at once than one process makes, so both processes took part.
    assert server.most_at_once > IN_FLIGHT
    assert one.files() == two.files() == undisturbed.files()
    assert dump(one.store) == dump(undisturbed.store)
    assert one.leftovers() == []


@pytest.mark.parametrize("after", [20, 90, 125])
def test_of_two_one_is_killed_and_the_other_takes_over(
    undisturbed: Workplace, tmp_path: Path, after: int
) -> None:
    with running(Server(delay=0.02)) as server:
        one = workplace(tmp_path / "one", server)
        two = workplace(tmp_path / "two", server)
        two.write(store=str(one.store))
        log = tmp_path / "log"
        killed = start_regreason("annotate", one.config, log=log)
        other = start_regreason("annotate", two.config, log=log)
        wait_until(lambda: len(server.requests) >= after)
        assert killed.kill() == -9
        assert other.wait() == 0, log.read_text()
        assert server.total - CALLS <= IN_FLIGHT
        assert max(server.requests.values()) <= 2
    assert two.files() == undisturbed.files()
    assert dump(one.store) == dump(undisturbed.store)
    assert one.leftovers() == []


def test_many_may_make_the_same_store_at_once(tmp_path: Path) -> None:
    """Five processes create the store and their locks while the others create and check theirs."""
    with running() as server:
        for round_ in range(3):
            places = [
                Workplace(tmp_path / f"{round_}-{n}", server.url, 2, [{"prompts": ["scale-1-5"]}])
                for n in range(5)
            ]
            for place in places:
                place.write(store=str(places[0].store))
            server.requests.clear()
            log = tmp_path / "log"
            started = [start_regreason("annotate", place.config, log=log) for place in places]
            codes = [process.wait() for process in started]
            assert codes == [0] * len(places), log.read_text()
            assert set(server.requests.values()) == {1}
            assert len({place.ratings.read_bytes() for place in places}) == 1
            assert places[0].leftovers() == []


def test_a_stopped_process_keeps_its_claims(tmp_path: Path) -> None:
    """Claims are taken over only from a process that has ended, not from one that is slow."""
    with running(Server(delay=0.3)) as server:
        one = Workplace(tmp_path / "one", server.url, 2, [{"concurrency": 3}])
        two = Workplace(tmp_path / "two", server.url, 2, [{"concurrency": 3}], store=str(one.store))
        log = tmp_path / "log"
        first = start_regreason("annotate", one.config, log=log)
        wait_until(lambda: server.total >= 3)
        os.kill(first.pid, signal.SIGSTOP)
        second = start_regreason("annotate", two.config, log=log)
        # The second process makes its own calls, then waits for those that the first has claimed.
        wait_until(lambda: len(server.requests) >= 3 + 12)
        time.sleep(1.5)
        assert second.poll() is None
        os.kill(first.pid, signal.SIGCONT)
        assert [process.wait() for process in (first, second)] == [0, 0], log.read_text()
        assert set(server.requests.values()) == {1}
    assert one.files() == two.files()
