"""Asking language models everything that is not in the store yet.

Each rater has a lane of its own, so that a slow server holds up no other: one task goes through
the conversations and claims what is left of each, as many tasks as the rater's concurrency make
the calls. Nothing is kept of a call once it is in the store, so memory does not grow with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from regreason_plugin.annotate.answers import Unreadable
from regreason_plugin.annotate.client import Fault, Server
from regreason_plugin.annotate.lanes import Lane
from regreason_plugin.annotate.questions import Question
from regreason_plugin.annotate.store import OK, Call, CallKey, Outcome, Store
from regreason_plugin.core.errors import UserError

# An answer that cannot be read is asked for once more: servers are seldom wholly deterministic.
_READINGS = 2
# A server that fails so often in a row is not there, or is not what the config says it is.
_GIVE_UP_AFTER = 100
_LOOK_AGAIN = 1.0
# Of what a prompt becomes on the server: marks of turns around it.
_TEMPLATE_TOKENS = 64


def ask_all(
    store: Store, lanes: list[Lane], *, retry: bool = False, budget: float | None = None
) -> int:
    """Make every call that is left.

    Args:
        store: Where the answers go.
        lanes: One a rater.
        retry: Also make those again that failed in an earlier run.
        budget: Make no call that could bring the store's whole cost above it.

    Returns:
        How many calls the budget did not allow.

    Raises:
        UserError: A key is missing or refused, or a server does nothing but fail.
    """
    servers = [Server(lane.rater) for lane in lanes]
    return asyncio.run(_ask_all(store, lanes, servers, retry, budget))


async def _ask_all(
    store: Store, lanes: list[Lane], servers: list[Server], retry: bool, budget: float | None
) -> int:
    store.take_over()
    tasks = [
        asyncio.create_task(_LaneRun(store, lane, server, retry, budget).run())
        for lane, server in zip(lanes, servers, strict=True)
    ]
    try:
        return sum(await asyncio.gather(*tasks))
    finally:
        await _cancel(tasks)
        for server in servers:
            await server.close()


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _LaneRun:
    def __init__(
        self, store: Store, lane: Lane, server: Server, retry: bool, budget: float | None
    ) -> None:
        self._store = store
        self._lane = lane
        self._rater = lane.rater
        self._server = server
        self._retry = retry
        self._budget = budget
        self._queue: asyncio.Queue[tuple[Call, Question] | None] = asyncio.Queue(
            self._rater.concurrency
        )
        self._failures = 0
        # What has failed in this run, where failed calls are made again: not once more in it.
        self._failed: set[CallKey] = set()

    async def run(self) -> int:
        """Pass after pass, until nothing is left that is not another process's or too dear."""
        while True:
            before = self._lane.tally.states.total()
            elsewhere, unaffordable = await self._pass()
            made = self._lane.tally.states.total() - before
            if elsewhere:
                await asyncio.sleep(_LOOK_AGAIN)
                self._store.take_over()
            elif not (unaffordable and made):  # what they could have cost at most may be free now
                self._lane.tally.ended = True
                return unaffordable

    async def _pass(self) -> tuple[int, int]:
        workers = [asyncio.create_task(self._work()) for _ in range(self._rater.concurrency)]
        producer = asyncio.create_task(self._produce())
        try:
            # The first to fail ends all of them.
            await asyncio.gather(producer, *workers)
        finally:
            await _cancel([producer, *workers])
        return producer.result()

    async def _produce(self) -> tuple[int, int]:
        elsewhere = unaffordable = 0
        for questions in self._lane.questions():
            calls = {one.key: one for one in questions if one.key not in self._failed}
            claimed = self._store.claim(
                [one.call(self._worst(one)) for one in calls.values()],
                retry=self._retry,
                budget=self._budget,
            )
            elsewhere += claimed.elsewhere
            unaffordable += claimed.unaffordable
            for call in claimed.mine:
                await self._queue.put((call, calls[call.key]))
            if not claimed.mine:
                # A long way through what is done already must not hold up the others.
                await asyncio.sleep(0)
        for _ in range(self._rater.concurrency):
            await self._queue.put(None)
        return elsewhere, unaffordable

    def _worst(self, question: Question) -> float:
        """The most a call can cost: no tokenizer makes more tokens than bytes of a text."""
        if self._budget is None or self._rater.price is None:
            return 0.0
        prompt = len(question.prompt().encode("utf-8")) + _TEMPLATE_TOKENS
        return _READINGS * self._rater.price.of(prompt, self._rater.max_tokens)

    async def _work(self) -> None:
        while (item := await self._queue.get()) is not None:
            call, question = item
            outcome = await self._ask(question)
            self._store.finish(call, outcome)
            if self._retry and outcome.state != OK:
                self._failed.add(call.key)
            self._lane.tally.add(outcome)
            self._give_up_on(outcome)
            self._check_count(outcome)

    async def _ask(self, question: Question) -> Outcome:
        prompt = question.prompt()
        attempts = prompt_tokens = answer_tokens = 0
        state, answer, score, explanation = "", None, None, None
        for _ in range(_READINGS):
            try:
                reply, tried = await self._server.ask(prompt, question.schema)
            except Fault as fault:
                attempts += fault.attempts
                state, answer = fault.kind, fault.server_text or None
                break
            attempts += tried
            prompt_tokens += reply.prompt_tokens
            answer_tokens += reply.answer_tokens
            state, answer = reply.stop or OK, reply.text
            if state == OK:
                try:
                    score, explanation = question.read(reply.text)
                except Unreadable as unreadable:
                    state = str(unreadable)
            if state == OK:
                answer = None
                break
        price = self._rater.price
        cost = price.of(prompt_tokens, answer_tokens) if price else 0.0
        return Outcome(
            state, score, explanation, answer, attempts, prompt_tokens, answer_tokens, cost
        )

    def _check_count(self, outcome: Outcome) -> None:
        if self._budget is not None and outcome.state == OK and not outcome.prompt_tokens:
            raise UserError(
                f"the server of rater {self._rater.name!r} does not say how many tokens an answer "
                "took, so that no --budget can be kept; leave it out"
            )

    def _give_up_on(self, outcome: Outcome) -> None:
        self._failures = 0 if outcome.prompt_tokens or outcome.state == OK else self._failures + 1
        if self._failures >= _GIVE_UP_AFTER:
            raise UserError(
                f"{self._failures} calls in a row to rater {self._rater.name!r} at "
                f"{self._rater.base_url} came to nothing, the last with {outcome.state}"
                f"{f' ({outcome.answer[:150]})' if outcome.answer else ''}; mend the server or "
                "the config and run the same command with --retry-failed"
            )
