"""The store of calls: an SQLite file with one row per call, readable with the sqlite3 shell.

A row is keyed by everything that determines the answer: the conversation's text, rater, model,
axis, prompt and sampling. A changed prompt makes a new call; an unchanged call is never made twice,
be it in one run, in a later run or by two processes at once. A process claims calls before it makes
them, and holds a lock that ends with the process, so that other processes take over the claims of a
killed one at once. SQLite's write-ahead log (WAL) needs a local disk, and all processes on one
machine.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from heapq import nsmallest
from pathlib import Path
from typing import Any

from regreason_plugin.annotate.calls import (
    ASKING,
    OK,
    Batch,
    Call,
    CallKey,
    Claimed,
    FinishedCall,
    Outcome,
    key_hash,
)
from regreason_plugin.annotate.full_disk import check_room, store_refusal
from regreason_plugin.annotate.locks import WorkerLock, ended_worker, worker_names
from regreason_plugin.annotate.store_file import open_store_file, transaction

# The state of a call that failed before, and was claimed again by a process that then ended.
_GIVEN_BACK = "given_back"
_UNFINISHED = (ASKING, _GIVEN_BACK)
_KEPT = 2_000  # characters that the store keeps of an answer's text
_KEY = "conversation, rater, axis, prompt, prompt_sha256, model, sampling"
_IS_KEY = f"({_KEY}) = (?,?,?,?,?,?,?)"


class Store:
    """An open store of calls.

    Args:
        path: The store's file; created if it does not exist.

    Raises:
        UserError: The file is not a store, or a store of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = open_store_file(path)
        self._lock = WorkerLock(path)
        self._worker = self._lock.name

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        if refusal := store_refusal(error, self.path):
            raise refusal from error

    def close(self) -> None:
        """Give back the claims of unfinished calls, and close the database."""
        try:
            self._give_back(self._worker)
        except sqlite3.OperationalError as error:
            if not store_refusal(error, self.path):
                raise
            # On a full disk the claims stay; the next run frees them, as this process's lock ends.
        finally:
            self._lock.release()
            self._database.close()

    # --- making calls -------------------------------------------------------------------

    def claim(
        self,
        calls: Sequence[Call],
        *,
        again: Callable[[str], bool] = lambda state: False,
        budget: float | None = None,
    ) -> Claimed:
        """Claim all calls that are left, so that no other process makes them.

        Args:
            calls: Calls that have the conversation and the rater in common.
            again: Returns whether to claim calls that have failed before with a state.
            budget: Claim no call that could raise the cost of the whole store above this amount.

        Raises:
            UserError: The disk has too little room for the answers.
        """
        known = self._states(calls)
        left = [call for call in calls if _is_left(known.get(call.key), again)]
        if not left:
            return Claimed([], self._elsewhere(known), 0)
        check_room(self.path)
        mine, unaffordable = [], 0
        with transaction(self._database):
            known = self._states(calls)
            for call in calls:
                if not _is_left(known.get(call.key), again):
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
        """Record the outcome of a call; it is in the file when this method returns."""
        done = self._database.execute(
            "UPDATE calls SET state=?, score=?, explanation=?, answer=?, attempts=attempts+?, "
            "prompt_tokens=prompt_tokens+?, answer_tokens=answer_tokens+?, cost=cost+?, served=?, "
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
                outcome.served,
                *call.key,
            ),
        )
        if done.rowcount != 1:
            raise RuntimeError(f"{self.path} has no row for the answer to {call.key}")

    def take_over(self) -> None:
        """Free the claims of processes that ended without giving them back; batches keep theirs."""
        rows = self._database.execute("SELECT DISTINCT worker FROM calls WHERE worker IS NOT NULL")
        named = {str(worker) for (worker,) in rows} | worker_names(self.path)
        named -= {batch.name for batch in self.batches()}
        for worker in sorted(named - {self._worker}):
            with ended_worker(self.path, worker) as ended:
                if ended:
                    self._give_back(worker)

    # --- batches ------------------------------------------------------------------------

    def start_batch(self, name: str, rater: str, keys: Iterable[CallKey]) -> None:
        """Hand this process's claims of some calls to a new batch, which keeps them.

        Args:
            name: The batch's name, as no process and no other batch has it.
            rater: The rater's name.
            keys: The calls.
        """
        with transaction(self._database):
            self._database.execute("INSERT INTO batches (name, rater) VALUES (?,?)", (name, rater))
            self._database.executemany(
                f"UPDATE calls SET worker=? WHERE {_IS_KEY} AND worker=?",
                ((name, *key, self._worker) for key in keys),
            )

    def batch_is_uploaded(self, name: str, file: str) -> None:
        """Record the id of a batch's requests, just before the server is asked for the batch."""
        query = "UPDATE batches SET file=?, sent=? WHERE name=?"
        self._database.execute(query, (file, time.time(), name))

    def batch_is_made(self, name: str, id_: str) -> None:
        """Record the server's id of a batch."""
        self._database.execute("UPDATE batches SET id=? WHERE name=?", (id_, name))

    def batches(self, rater: str | None = None) -> list[Batch]:
        """The batches whose answers are not all stored, of one rater or of all."""
        rows = self._database.execute(
            "SELECT name, rater, file, id, sent, (SELECT count(*) FROM calls WHERE worker = name) "
            "FROM batches WHERE ?1 IS NULL OR rater = ?1 ORDER BY sent, name",
            (rater,),
        )
        return [Batch(*row) for row in rows]

    def batch_calls(self, name: str) -> list[Call]:
        """The calls of a batch whose answers are not stored yet."""
        rows = self._database.execute(f"SELECT {_KEY}, id FROM calls WHERE worker=?", (name,))
        return [Call(CallKey(*row[:7]), row[7]) for row in rows]

    def end_batch(self, name: str) -> None:
        """Forget a batch; the calls that it has not answered are left to be made."""
        self._give_back(name)
        self._database.execute("DELETE FROM batches WHERE name=?", (name,))

    # --- copies -------------------------------------------------------------------------

    def copy_answers(
        self, rater: str, model: str, sampling: str, holds: Callable[[str, str], bool]
    ) -> None:
        """Copy a rater's usable answers to a sampling under which they hold as well.

        The copies cost nothing and count no tokens. Calls that already have a row stay as they are.

        Args:
            rater: The rater's name.
            model: The model's name.
            sampling: The new sampling.
            holds: Returns whether answers with a sampling hold under another.
        """
        query = self._database.execute
        rows = query(
            "SELECT DISTINCT sampling FROM calls WHERE (rater, model) = (?,?)", (rater, model)
        )
        for (other,) in rows.fetchall():
            if not holds(other, sampling):
                continue
            kept = "id, state, score, explanation, finished, served"
            with transaction(self._database):
                query(
                    f"INSERT OR IGNORE INTO calls ({_KEY}, {kept}) SELECT conversation, rater, "
                    f"axis, prompt, prompt_sha256, model, ?, {kept} FROM calls "
                    "WHERE (rater, model, sampling, state) = (?,?,?,?)",
                    (sampling, rater, model, other, OK),
                )

    # --- reading ------------------------------------------------------------------------

    def outcomes(self, keys: Sequence[CallKey]) -> dict[CallKey, Outcome]:
        """The outcomes of those calls that are finished.

        Args:
            keys: Keys that have the conversation and the rater in common.
        """
        rows = self._rows(keys, "state, score, explanation")
        return {key: Outcome(*row) for key, row in rows.items() if row[0] not in _UNFINISHED}

    def outcome(self, key: CallKey) -> Outcome | None:
        """The whole outcome of one call; None if it is not finished."""
        columns = "state, score, explanation, answer, attempts, prompt_tokens, answer_tokens, cost"
        row = self._rows([key], f"{columns}, served").get(key)
        return Outcome(*row) if row and row[0] not in _UNFINISHED else None

    def has_answer(self, rater: str, model: str, sampling: str) -> bool:
        """Whether there is a usable answer of a rater with a model and a sampling."""
        query = (
            "SELECT EXISTS (SELECT 1 FROM calls WHERE (rater, model, sampling, state) = (?,?,?,?))"
        )
        return bool(self._database.execute(query, (rater, model, sampling, OK)).fetchone()[0])

    def finished(self, conversations: Iterable[str]) -> tuple[int, Counter[FinishedCall]]:
        """Count the finished calls on some conversations in one pass.

        Args:
            conversations: `conversation_key` of each, in any order; a repeated one counts once.

        Returns:
            The number of different conversations, and the number of finished calls on them by
            `FinishedCall`: all columns of the key except the conversation, then the state.
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
        """Cost of all calls, in the prices' currency."""
        return float(self._database.execute("SELECT spent FROM spending").fetchone()[0])

    def origins(self, rater: str, model: str, sampling: str) -> tuple[Counter[str], Counter[str]]:
        """Where and when a rater's usable answers come from.

        Returns:
            The number of answers by the model's name in the server's replies, where it has one, and
            by day (UTC).
        """
        served, days = Counter[str](), Counter[str]()
        for name, day, number in self._database.execute(
            "SELECT served, substr(finished, 1, 10), count(*) FROM calls "
            "WHERE (rater, model, sampling, state) = (?,?,?,?) GROUP BY 1, 2",
            (rater, model, sampling, OK),
        ):
            days[day] += number
            if name:
                served[name] += number
        return served, days

    def mean_answer(self, rater: str) -> float | None:
        """Mean number of answer tokens of a rater's calls; None if no call has any."""
        query = "SELECT avg(answer_tokens) FROM calls WHERE rater=? AND answer_tokens>0"
        mean: float | None = self._database.execute(query, (rater,)).fetchone()[0]
        return mean

    def totals(self, rater: str) -> tuple[Counter[str], int, int, float]:
        """Totals over the finished calls of a rater.

        Returns:
            The number of calls by state, the prompt tokens, the answer tokens, and the cost in the
            prices' currency.
        """
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

    def draw(
        self, rater: str, model: str, sampling: str, number: int
    ) -> dict[str, tuple[int, list[CallKey]]]:
        """Draw finished calls of each state, spread over conversations, axes and prompts.

        Args:
            rater: The rater's name.
            model: The model's name.
            sampling: The rater's sampling.
            number: The largest number of calls of one state.

        Returns:
            By state, the commonest first: the number of all its calls, and those drawn.
        """
        drawn = {}
        for state, count in self._database.execute(
            "SELECT state, count(*) FROM calls WHERE (rater, model, sampling) = (?,?,?) "
            "AND state NOT IN (?,?) GROUP BY state ORDER BY 2 DESC, 1",
            (rater, model, sampling, *_UNFINISHED),
        ).fetchall():
            rows = self._database.execute(
                f"SELECT {_KEY} FROM calls WHERE (rater, model, sampling, state) = (?,?,?,?)",
                (rater, model, sampling, state),
            )
            # The order of hashes is random and the same every time.
            keys = nsmallest(number, (CallKey(*row) for row in rows), key=key_hash)
            drawn[state] = (count, keys)
        return drawn

    def mended(self, rater: str) -> int:
        """The number of a rater's usable answers whose JSON was mended."""
        query = "SELECT count(*) FROM calls WHERE rater=? AND state=? AND answer IS NOT NULL"
        return int(self._database.execute(query, (rater, OK)).fetchone()[0])

    # --- inside -------------------------------------------------------------------------

    def _states(self, calls: Sequence[Call]) -> dict[CallKey, tuple[str, str | None]]:
        return self._rows([call.key for call in calls], "state, worker")

    def _rows(self, keys: Sequence[CallKey], columns: str) -> dict[CallKey, Any]:
        """The given columns by key; the keys have the conversation and the rater in common."""
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
        with transaction(self._database):
            self._database.execute(
                # The row of a call that failed before is kept, because it holds that call's cost.
                "UPDATE calls SET state=?, reserved=0, worker=NULL WHERE worker=?",
                (_GIVEN_BACK, worker),
            )
            self._database.execute("DELETE FROM calls WHERE state=? AND attempts=0", (_GIVEN_BACK,))


def _is_left(known: tuple[str, str | None] | None, again: Callable[[str], bool]) -> bool:
    if known is None:
        return True
    state, worker = known
    return worker is None and (state == _GIVEN_BACK or (state != OK and again(state)))


def _storable(text: str) -> str:
    # JSON can spell a lone surrogate, which UTF-8 cannot encode.
    return text.encode("utf-8", "replace").decode("utf-8")
