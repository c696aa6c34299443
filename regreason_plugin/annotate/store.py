"""The store of calls: SQLite, one row a call, readable with the sqlite3 shell.

A row's key is what determines the answer: the conversation's text, rater, model, axis, prompt and
sampling. A changed prompt is another call; an unchanged one is never made twice, in one run, in
the next, or by two processes at once: a process claims calls before it makes them, and holds a
lock that ends with it, so that claims of a killed process are taken over at once.
WAL needs all processes on one machine, and a local disk.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from regreason_plugin.annotate.full_disk import check_room, store_refusal
from regreason_plugin.annotate.locks import WorkerLock, if_ended, worker_names
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.records import Conversation

OK = "ok"
ASKING = "asking"
# Claimed by a process that ended before the answer came, after an earlier answer had failed.
_GIVEN_BACK = "given_back"
_UNFINISHED = (ASKING, _GIVEN_BACK)
_BUSY = 60.0  # seconds to wait for another process that writes
_KEPT = 2_000  # characters of an answer that could not be read
_VERSION = 1
# "RgRs", so that `file` and this program know the file.
_APPLICATION = 0x52675273

_SCHEMA = files("regreason_plugin.annotate").joinpath("calls.sql").read_text(encoding="utf-8")
_KEY = "conversation, rater, axis, prompt, prompt_sha256, model, sampling"
_IS_KEY = f"({_KEY}) = (?,?,?,?,?,?,?)"


class CallKey(NamedTuple):
    """What determines an answer; the columns of the primary key."""

    conversation: str
    rater: str
    axis: str
    prompt: str
    prompt_sha256: str
    model: str
    sampling: str


# All of a key but the conversation, and the state.
FinishedCall = tuple[str, str, str, str, str, str, str]


class Call(NamedTuple):
    """A call that may be made.

    Attributes:
        id: Of the conversation.
        worst: The most it can cost, in the prices' currency.
    """

    key: CallKey
    id: str
    worst: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What a finished call left.

    Attributes:
        state: ``ok``, or the name of what went wrong.
        answer: What the server said, where it could not be used.
        cost: Of all attempts, in the prices' currency.
    """

    state: str
    score: int | None = None
    explanation: str | None = None
    answer: str | None = None
    attempts: int = 1
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0


class Claimed(NamedTuple):
    """What came of an attempt to claim calls.

    Attributes:
        mine: To be made now, by this process.
        elsewhere: How many another process is making.
        unaffordable: How many the budget does not allow.
    """

    mine: list[Call]
    elsewhere: int
    unaffordable: int


def conversation_key(conversation: Conversation) -> str:
    """A conversation by its text: turns and context, not its id."""
    turns = [[turn.role, turn.content] for turn in conversation.conversation]
    text = json.dumps([conversation.context, turns])
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


class Store:
    """An open store.

    Args:
        path: Its file; made if it is not there.

    Raises:
        UserError: The file is something else, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, isolation_level=None, timeout=_BUSY)
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"cannot be used as a store: {error}", path=path) from None
        try:
            self._open_in_turn()
        except (sqlite3.DatabaseError, UserError) as error:
            self._database.close()
            if isinstance(error, UserError):
                raise
            raise UserError(f"cannot be used as a store: {error}", path=path) from None
        self._lock = WorkerLock(path)
        self._worker = self._lock.name

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        if refusal := store_refusal(error, self.path):
            raise refusal from error

    def close(self) -> None:
        """Give back what is claimed and not finished, and close."""
        try:
            self._give_back(self._worker)
        except sqlite3.OperationalError as error:
            if not store_refusal(error, self.path):
                raise  # (on a full disk the next run frees the claims: by then the lock is gone)
        finally:
            self._lock.release()
            self._database.close()

    # --- making calls -------------------------------------------------------------------

    def claim(
        self, calls: Sequence[Call], *, retry: bool = False, budget: float | None = None
    ) -> Claimed:
        """Claim those of some calls that are left, so that nobody else makes them.

        Args:
            calls: All with the same conversation and rater.
            retry: Also those that failed before.
            budget: Claim no call that could bring the whole store's cost above it.
        """
        known = self._states(calls)
        left = [call for call in calls if _is_left(known.get(call.key), retry)]
        if not left:
            return Claimed([], self._elsewhere(known), 0)
        check_room(self.path)
        mine, unaffordable = [], 0
        with self._transaction():
            known = self._states(calls)
            for call in calls:
                if not _is_left(known.get(call.key), retry):
                    continue
                if budget is not None and self._committed() + call.worst > budget:
                    unaffordable += 1
                    continue
                self._database.execute(
                    "INSERT INTO calls (conversation, rater, axis, prompt, prompt_sha256, model, "
                    "sampling, id, state, reserved, worker) VALUES (?,?,?,?,?,?,?,?,?,?,?) "
                    "ON CONFLICT DO UPDATE SET state = excluded.state, "
                    "reserved = excluded.reserved, worker = excluded.worker",
                    (*call.key, call.id, ASKING, call.worst, self._worker),
                )
                mine.append(call)
        return Claimed(mine, self._elsewhere(known), unaffordable)

    def finish(self, call: Call, outcome: Outcome) -> None:
        """Record what came of a call; it is on disk when this returns."""
        done = self._database.execute(
            "UPDATE calls SET state=?, score=?, explanation=?, answer=?, attempts=attempts+?, "
            "prompt_tokens=prompt_tokens+?, answer_tokens=answer_tokens+?, cost=cost+?, "
            f"reserved=0, worker=NULL, finished=strftime('%Y-%m-%dT%H:%M:%fZ') WHERE {_IS_KEY}",
            (
                outcome.state,
                outcome.score,
                outcome.explanation,
                None if outcome.answer is None else _storable(outcome.answer[:_KEPT]),
                outcome.attempts,
                outcome.prompt_tokens,
                outcome.answer_tokens,
                outcome.cost,
                *call.key,
            ),
        )
        if done.rowcount != 1:
            raise RuntimeError(f"an answer has no place in {self.path}: {call.key}")

    def take_over(self) -> None:
        """Free the claims of processes that have ended without giving them back."""
        rows = self._database.execute("SELECT DISTINCT worker FROM calls WHERE worker IS NOT NULL")
        named = {str(worker) for (worker,) in rows} | worker_names(self.path)
        for worker in sorted(named - {self._worker}):
            with if_ended(self.path, worker) as ended:
                if ended:
                    self._give_back(worker)

    # --- reading ------------------------------------------------------------------------

    def outcomes(self, keys: Sequence[CallKey]) -> dict[CallKey, Outcome]:
        """What is known of some calls on one conversation by one rater; claimed ones are not."""
        rows = self._rows(keys, "state, score, explanation")
        return {key: Outcome(*row) for key, row in rows.items() if row[0] not in _UNFINISHED}

    def finished(self, conversations: Iterable[str]) -> tuple[int, Counter[FinishedCall]]:
        """What is finished of all calls on some conversations, counted in one pass.

        Args:
            conversations: By `conversation_key`, in any order; twice is once.

        Returns:
            How many conversations these are, and the number of finished calls on them by all
            of their key but the conversation, and by state.
        """
        query = self._database.execute
        query("CREATE TEMP TABLE wanted (conversation TEXT PRIMARY KEY) WITHOUT ROWID")
        try:
            self._database.executemany(
                "INSERT OR IGNORE INTO wanted VALUES (?)", ((one,) for one in conversations)
            )
            (count,) = query("SELECT count(*) FROM wanted").fetchone()
            rows = query(
                "SELECT rater, axis, prompt, prompt_sha256, model, sampling, state "
                "FROM wanted CROSS JOIN calls USING (conversation) WHERE state NOT IN (?,?)",
                _UNFINISHED,
            )
            return count, Counter(rows)
        finally:
            query("DROP TABLE wanted")

    def spent(self) -> float:
        """What all calls have cost, in the prices' currency."""
        return float(self._database.execute("SELECT spent FROM spending").fetchone()[0])

    def totals(self, rater: str) -> tuple[Counter[str], int, int, float]:
        """Finished calls of a rater by state; tokens of prompts and of answers; cost."""
        states: Counter[str] = Counter()
        prompt_tokens = answer_tokens = 0
        cost = 0.0
        for state, count, prompt, answer, paid in self._database.execute(
            "SELECT state, count(*), sum(prompt_tokens), sum(answer_tokens), sum(cost) "
            "FROM calls WHERE rater=? AND state NOT IN (?,?) GROUP BY state",
            (rater, *_UNFINISHED),
        ):
            states[state] = count
            prompt_tokens += prompt
            answer_tokens += answer
            cost += paid
        return states, prompt_tokens, answer_tokens, cost

    # --- inside -------------------------------------------------------------------------

    def _open_in_turn(self) -> None:
        """Open, and wait for a process that opens or closes the store at the same moment."""
        until = time.monotonic() + _BUSY
        while True:
            try:
                return self._open()
            except sqlite3.OperationalError as error:
                # SQLite waits by itself, but not for the switch to WAL, which needs it alone.
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def _open(self) -> None:
        query = self._database.execute
        # Before anything is changed: it may be another program's database.
        if query("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._check_kind()
        query("PRAGMA journal_mode=WAL")
        # What a killed process has written is in the system's hands; only a loss of power
        # can take the last calls, never the store.
        query("PRAGMA synchronous=NORMAL")
        with self._transaction():
            if query("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in _statements(_SCHEMA):
                    query(statement)
                query(f"PRAGMA application_id={_APPLICATION}")
                query(f"PRAGMA user_version={_VERSION}")
        self._check_kind()

    def _check_kind(self) -> None:
        application = self._database.execute("PRAGMA application_id").fetchone()[0]
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if application != _APPLICATION:
            raise UserError("is a database, but no store of calls", path=self.path)
        if version != _VERSION:
            raise UserError(
                f"is a store of version {version}, and this program reads {_VERSION}",
                path=self.path,
            )

    def _states(self, calls: Sequence[Call]) -> dict[CallKey, tuple[str, str | None]]:
        return self._rows([call.key for call in calls], "state, worker")

    def _rows(self, keys: Sequence[CallKey], columns: str) -> dict[CallKey, Any]:
        """Some columns by key, for keys that have the conversation and the rater in common."""
        if not keys:
            return {}
        wanted = set(keys)
        rows = self._database.execute(
            f"SELECT {_KEY}, {columns} FROM calls WHERE conversation=? AND rater=?", keys[0][:2]
        )
        return {key: row[7:] for row in rows if (key := CallKey(*row[:7])) in wanted}

    def _elsewhere(self, known: dict[CallKey, tuple[str, str | None]]) -> int:
        return sum(worker not in (None, self._worker) for _, worker in known.values())

    def _committed(self) -> float:
        query = "SELECT spent + reserved FROM spending"
        return float(self._database.execute(query).fetchone()[0])

    def _give_back(self, worker: str) -> None:
        with self._transaction():
            self._database.execute(
                # One that had failed before keeps what it cost.
                "UPDATE calls SET state=?, reserved=0, worker=NULL WHERE worker=?",
                (_GIVEN_BACK, worker),
            )
            self._database.execute("DELETE FROM calls WHERE state=? AND attempts=0", (_GIVEN_BACK,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._database.in_transaction:  # a full disk has ended it already
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def _is_left(known: tuple[str, str | None] | None, retry: bool) -> bool:
    if known is None:
        return True
    state, worker = known
    return worker is None and (state == _GIVEN_BACK or (retry and state != OK))


def _storable(text: str) -> str:
    # JSON can spell a lone surrogate, UTF-8 cannot.
    return text.encode("utf-8", "replace").decode("utf-8")


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
