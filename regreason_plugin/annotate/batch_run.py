"""`regreason annotate --batch`: collect the answers of batches, and send the calls that are left.

A run makes one round and never waits. The store holds the calls of a batch as claimed, so no other
run makes them. A batch is in the store before anything is sent, so a killed run loses none: the
next run looks for the batch on the server before it makes the calls again.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from regreason_plugin.annotate.ask import worst_cost
from regreason_plugin.annotate.asked_again import ONLY_SET_UP, AskedAgain
from regreason_plugin.annotate.batch_folder import BatchFolder
from regreason_plugin.annotate.batches import (
    MOST_BYTES,
    MOST_REQUESTS,
    BatchPlace,
    BatchServer,
    request_line,
    response_of,
)
from regreason_plugin.annotate.call_steps import Watcher, open_store_for_calls, spent
from regreason_plugin.annotate.calls import OK, Batch, Call, CallKey, Outcome, key_hash
from regreason_plugin.annotate.config import AnnotateConfig
from regreason_plugin.annotate.faults import Fault, QuotaFault, TransientFault
from regreason_plugin.annotate.lanes import Lane
from regreason_plugin.annotate.locks import only_batch_process
from regreason_plugin.annotate.questions import answer_reader
from regreason_plugin.annotate.reply import outcome_of
from regreason_plugin.annotate.run import Annotation, Finished, annotate
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.annotate.store import Store
from regreason_plugin.core.errors import UserError, say_once

# Seconds until a batch that the server does not list was certainly not made.
_UNLISTED = 60.0
# What a user types where only a person can find a batch.
_ADOPT, _FORGET = "UPDATE batches SET id = 'ITS ID'", "DELETE FROM batches"


def annotate_in_batches(
    config: AnnotateConfig,
    watcher: Watcher,
    *,
    again: AskedAgain = ONLY_SET_UP,
    budget: float | None = None,
    folder: Path | None = None,
) -> Finished:
    """Collect the answers of all batches that have ended, and send the calls that are left.

    When no call is left, write the ratings as `annotate` does.

    Args:
        config: The conversations, the raters and the output.
        watcher: Shows the writing of the ratings.
        again: The failed calls of earlier runs to make again.
        budget: Make no call that could raise the cost of the whole store above this amount.
        folder: The folder for batch files; None to send the batches to the raters' servers.

    Raises:
        UserError: A conversation, a prompt or a key is wrong, a batch has failed, or the quality
            alarm rings.
    """
    if not config.servers:
        return annotate(config, watcher)
    config = config.in_batches()
    with (
        open_store_for_calls(config.store_path, config.servers, budget, batches=True) as store,
        only_batch_process(store.path),
    ):
        annotation = Annotation(config, store, again)
        places: dict[str, BatchPlace] = {
            rater.name: BatchFolder(folder) if folder else BatchServer(rater)
            for rater in config.servers
        }
        round_ = _Round(store, places, budget)
        asyncio.run(round_.make(annotation))
        if round_.unaffordable or round_.waiting:
            return Finished(
                unaffordable=round_.unaffordable,
                waiting=round_.waiting,
                cost=spent(store, config.servers),
            )
        return annotation.write(watcher)


@dataclass
class _Round:
    """One round: collect, then send.

    Attributes:
        store: The store of calls.
        places: Where each rater's batches are sent.
        budget: Make no call that could raise the cost of the whole store above this amount.
        waiting: One line for each batch without answers.
        unaffordable: Number of calls that the budget did not allow.
        failed: Calls that failed in this round, so that it does not make them again.
    """

    store: Store
    places: dict[str, BatchPlace]
    budget: float | None
    waiting: list[str] = field(default_factory=list)
    unaffordable: int = 0
    failed: set[CallKey] = field(default_factory=set)

    async def make(self, annotation: Annotation) -> None:
        try:
            lanes = annotation.lanes()
            for lane in lanes:
                await self._collect(lane)
            merging = annotation.merge_lane()
            for step in (lanes, [merging] if merging else []):
                for lane in step:
                    await self._send_left(lane)
                # Explanations are merged when all of them are there.
                if self.waiting or self.unaffordable:
                    return
        finally:
            for place in self.places.values():
                await place.close()

    async def _collect(self, lane: Lane) -> None:
        """Store the answers of the rater's batches that have ended.

        Raises:
            UserError: A batch has failed as a whole, or the quality alarm rings. All answers are
                stored before.
        """
        messages = []
        for batch in self.store.batches(lane.rater.name):
            try:
                if message := await self._collect_one(batch, lane):
                    messages.append(message)
            except Fault as fault:
                raise _unreachable(lane.rater, batch.name, fault) from None
        if messages:
            raise UserError(messages[0])

    async def _collect_one(self, batch: Batch, lane: Lane) -> str | None:
        place = self.places[lane.rater.name]
        batch_id = batch.id
        if batch.file is not None:
            _check_place(batch, place)
        if batch_id is None and batch.file is not None:
            batch_id = await self._find(batch, place)
            if batch_id is None and time.time() - (batch.sent or 0) < _UNLISTED:
                self._wait_for(batch.name, batch.calls, "sent a moment ago, but not listed yet")
                return None
            if batch_id is not None:
                self.store.batch_is_made(batch.name, batch_id)
        if batch_id is None:
            # It was never sent.
            self.store.end_batch(batch.name)
            return None
        progress = await place.progress(batch_id)
        if not progress.ended:
            self._wait_for(batch.name, batch.calls, progress.state)
            return None
        results = await place.results(progress)
        message = None
        for call in self.store.batch_calls(batch.name):
            result = results.get(key_hash(call.key))
            outcome = _outcome(result, call, lane.rater, place) if result else None
            # Without an outcome, the server has not made the call or may succeed another time.
            if outcome is None:
                continue
            self.store.finish(call, outcome)
            if outcome.state != OK:
                self.failed.add(call.key)
            if outcome.prompt_tokens:
                rung = lane.alarm.ring(call.key.prompt, outcome.state, outcome.answer)
                message = message or rung
        self.store.end_batch(batch.name)
        if progress.state == "failed":
            return (
                f"batch {batch_id} of rater {lane.rater.name!r} has failed: "
                f"{progress.words or 'the server does not say why'}; correct the config or the "
                "account, then run the same command again"
            )
        if message and lane.alarm.stops:
            return f"stopped: {message}; then run the same command again"
        if message:
            say_once(f"warning: {message}")
        return None

    async def _find(self, batch: Batch, place: BatchPlace) -> str | None:
        try:
            return await place.find(batch)
        except TransientFault:
            raise
        except Fault as fault:
            shell, this = f"sqlite3 {self.store.path}", f"WHERE name = '{batch.name}'"
            raise UserError(
                f"a killed run may have made a batch of the file {batch.file}, but the server does "
                f"not list its batches ({fault.kind}); look for it yourself. If it is there, run: "
                f'{shell} "{_ADOPT} {this}"; if not, run: {shell} "{_FORGET} {this}"'
            ) from None

    async def _send_left(self, lane: Lane) -> None:
        keys: list[CallKey] = []
        lines: list[bytes] = []
        size = elsewhere = 0
        for questions in lane.questions():
            left = {one.key: one for one in questions if one.key not in self.failed}
            claimed = self.store.claim(
                [
                    one.call(0.0 if self.budget is None else worst_cost(lane.rater, one))
                    for one in left.values()
                ],
                again=lane.again,
                budget=self.budget,
            )
            self.unaffordable += claimed.unaffordable
            elsewhere += claimed.elsewhere
            for call in claimed.mine:
                line = request_line(lane.rater, left[call.key])
                if keys and (len(keys) == MOST_REQUESTS or size + len(line) > MOST_BYTES):
                    await self._send(lane.rater, keys, lines)
                    keys, lines, size = [], [], 0
                keys.append(call.key)
                lines.append(line)
                size += len(line)
        if keys:
            await self._send(lane.rater, keys, lines)
        if elsewhere and not self.waiting:
            self.waiting.append(f"another process makes {elsewhere:,} calls")

    async def _send(
        self, rater: ServerRater, keys: Sequence[CallKey], lines: Sequence[bytes]
    ) -> None:
        name = f"{rater.name}-{uuid.uuid4().hex[:12]}"
        self.store.start_batch(name, rater.name, keys)
        try:
            batch_id = await self.places[rater.name].send(
                name, b"".join(lines), lambda file: self.store.batch_is_uploaded(name, file)
            )
        except Fault as fault:
            if not isinstance(fault, TransientFault):
                # The server has refused it; after any other fault there may be such a batch.
                self.store.end_batch(name)
            raise _unreachable(rater, name, fault) from None
        except UserError:  # the server refuses the key
            self.store.end_batch(name)
            raise
        self.store.batch_is_made(name, batch_id)
        self._wait_for(name, len(keys), "sent")

    def _wait_for(self, name: str, calls: int, state: str) -> None:
        self.waiting.append(f"{name}: {calls:,} calls, {state}")


def _outcome(
    result: dict[str, object], call: Call, rater: ServerRater, place: BatchPlace
) -> Outcome | None:
    """The outcome of a call; None if it has to be made again."""
    response = response_of(result)
    if response is None:
        return None
    try:
        reply = place.read(response)
    except (TransientFault, QuotaFault):
        return None
    except Fault as fault:
        return Outcome(fault.kind, answer=fault.server_text or None)
    return outcome_of(reply, answer_reader(call.key.prompt), rater.price)


def _check_place(batch: Batch, place: BatchPlace) -> None:
    in_folder = Path(batch.file or "").is_absolute()
    if in_folder != isinstance(place, BatchFolder):
        raise UserError(
            f"batch {batch.name} is the file {batch.file}; collect it with --batch-files first"
            if in_folder
            else f"batch {batch.name} is on a server; collect it with --batch first"
        )


def _unreachable(rater: ServerRater, name: str, fault: Fault) -> UserError:
    words = f" ({fault.server_text})" if fault.server_text else ""
    return UserError(
        f"batch {name} of rater {rater.name!r} at {rater.base_url}: {fault.kind}{words}; the same "
        "command goes on from here, and makes no call twice"
    )
