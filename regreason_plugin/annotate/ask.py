"""Making all calls to language models whose answers are not in the store yet.

Each rater has its own lane, so that a slow server does not hold up the others. In a lane, one task
goes through the conversations and claims the calls that are left; `concurrency` other tasks make
them. A finished call is kept in the store only, so memory does not grow with the number of calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from regreason_plugin.annotate.calls import OK, Call, Outcome
from regreason_plugin.annotate.client import Server
from regreason_plugin.annotate.faults import Fault
from regreason_plugin.annotate.lanes import Lane
from regreason_plugin.annotate.questions import Question
from regreason_plugin.annotate.reply import outcome_of
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.annotate.store import Store
from regreason_plugin.core.errors import UserError, say_once

# A call whose answer cannot be read is made once more: few servers are wholly deterministic.
_READINGS = 2
# After this many failures in a row, the server is down or not the one that the config describes.
_GIVE_UP_AFTER = 100
# Seconds until the next check whether another process has finished its calls.
_LOOK_AGAIN = 1.0
# Allowance for the tokens that the server's chat template adds to a prompt.
_TEMPLATE_TOKENS = 64


def ask_all(
    store: Store, lanes: list[Lane], *, budget: float | None = None, wait: bool = True
) -> int:
    """Make every call that is left.

    Args:
        store: The store for the answers.
        lanes: One lane per rater.
        budget: Make no call that could raise the cost of the whole store above this amount.
        wait: Wait until other processes have finished the calls that they have claimed.

    Returns:
        The number of calls that the budget did not allow.

    Raises:
        UserError: A key is missing or refused, 100 calls in a row to a server have failed, or the
            quality alarm rings.
    """
    servers = [Server(lane.rater) for lane in lanes]
    return asyncio.run(_ask_all(store, lanes, servers, budget, wait))


def worst_cost(rater: ServerRater, question: Question) -> float:
    """The highest possible cost of a request, as no tokenizer makes more tokens than bytes."""
    prompt = len(question.prompt().encode("utf-8")) + _TEMPLATE_TOKENS
    return rater.price.of(prompt, rater.longest_answer or 0) if rater.price else 0.0


async def _ask_all(
    store: Store, lanes: list[Lane], servers: list[Server], budget: float | None, wait: bool
) -> int:
    store.take_over()
    tasks = [
        asyncio.create_task(_LaneRun(store, lane, server, budget, wait).run())
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
        self, store: Store, lane: Lane, server: Server, budget: float | None, wait: bool
    ) -> None:
        self._store = store
        self._lane = lane
        self._rater = lane.rater
        self._server = server
        lane.tally.waiting = lambda: server.waiting
        self._budget = budget
        self._wait = wait
        self._queue: asyncio.Queue[tuple[Call, Question] | None] = asyncio.Queue(
            self._rater.concurrency
        )
        self._failures = 0
        # The message of the alarm that ends this run.
        self._ended = ""

    async def run(self) -> int:
        """Make passes over the questions until no call is left that the budget allows.

        With `wait`, calls that another process has claimed count as left: the lane waits for them.

        Returns:
            The number of calls that the budget did not allow.

        Raises:
            UserError: The quality alarm has rung. The calls under way are finished and stored.
        """
        while True:
            before = self._lane.tally.states.total()
            elsewhere, unaffordable = await self._pass()
            if self._ended:
                raise UserError(self._ended)
            made = self._lane.tally.states.total() - before
            if elsewhere and self._wait:
                await asyncio.sleep(_LOOK_AGAIN)
                self._store.take_over()
            # After a pass that made calls, the budget may allow more: finished calls free the
            # difference between their highest possible cost and their actual cost.
            elif not (unaffordable and made):
                self._lane.tally.ended = True
                return unaffordable

    async def _pass(self) -> tuple[int, int]:
        workers = [asyncio.create_task(self._work()) for _ in range(self._rater.concurrency)]
        producer = asyncio.create_task(self._produce())
        try:
            # The first task that raises ends all of them.
            await asyncio.gather(producer, *workers)
        finally:
            await _cancel([producer, *workers])
        return producer.result()

    async def _produce(self) -> tuple[int, int]:
        elsewhere = unaffordable = 0
        for questions in self._lane.questions():
            if self._ended:
                break
            calls = {one.key: one for one in questions if one.key not in self._lane.failed}
            claimed = self._store.claim(
                [one.call(self._worst(one)) for one in calls.values()],
                again=self._lane.again,
                budget=self._budget,
            )
            elsewhere += claimed.elsewhere
            unaffordable += claimed.unaffordable
            for call in claimed.mine:
                await self._queue.put((call, calls[call.key]))
            if not claimed.mine:
                # Lets the other lanes run while this one skips many finished conversations.
                await asyncio.sleep(0)
        for _ in range(self._rater.concurrency):
            await self._queue.put(None)
        return elsewhere, unaffordable

    def _worst(self, question: Question) -> float:
        """The highest possible cost of a call, as no tokenizer makes more tokens than bytes."""
        return 0.0 if self._budget is None else _READINGS * worst_cost(self._rater, question)

    async def _work(self) -> None:
        while (item := await self._queue.get()) is not None:
            call, question = item
            if self._ended:
                continue
            outcome, replied = await self._ask(question)
            self._store.finish(call, outcome)
            if self._lane.again(outcome.state):
                self._lane.failed.add(call.key)
            self._lane.tally.add(outcome)
            if replied:
                self._watch(question.key.prompt, outcome)
            self._give_up_on(outcome)
            self._check_count(outcome)

    async def _ask(self, question: Question) -> tuple[Outcome, bool]:
        """Make a call; return its outcome, and whether the last request got a reply."""
        prompt = question.prompt()
        replied, served = False, None
        attempts = prompt_tokens = answer_tokens = 0
        outcome = Outcome("")
        for _ in range(_READINGS):
            try:
                reply, tried = await self._server.ask(prompt, question.schema)
            except Fault as fault:
                attempts += fault.attempts
                replied = False
                outcome = Outcome(fault.kind, answer=fault.server_text or None)
                break
            attempts += tried
            replied, served = True, reply.served
            prompt_tokens += reply.prompt_tokens
            answer_tokens += reply.answer_tokens
            outcome = outcome_of(reply, question.read)
            if outcome.state == OK or self._ended:
                break
        price = self._rater.price
        cost = price.of(prompt_tokens, answer_tokens) if price else 0.0
        outcome = replace(
            outcome,
            attempts=attempts,
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            cost=cost,
            served=served,
        )
        return outcome, replied

    def _watch(self, prompt: str, outcome: Outcome) -> None:
        """Let the quality alarm count an answer; if it rings, end this run or print a warning."""
        message = self._lane.alarm.ring(prompt, outcome.state, outcome.answer)
        if message and self._lane.alarm.stops:
            self._ended = self._ended or (
                f"stopped: {message}; then run the same command again. All answers are in "
                f"{self._store.path}. (`alarm` in the config sets when to stop)"
            )
        elif message:
            say_once(f"warning: {message}")

    def _check_count(self, outcome: Outcome) -> None:
        if self._budget is not None and outcome.state == OK and not outcome.prompt_tokens:
            raise UserError(
                f"the server of rater {self._rater.name!r} does not report the number of tokens, "
                "so the cost is unknown and --budget cannot be kept; run without --budget"
            )

    def _give_up_on(self, outcome: Outcome) -> None:
        self._failures = 0 if outcome.prompt_tokens or outcome.state == OK else self._failures + 1
        if self._failures >= _GIVE_UP_AFTER:
            raise UserError(
                f"{self._failures} calls in a row to rater {self._rater.name!r} at "
                f"{self._rater.base_url} have failed, the last with {outcome.state}"
                f"{f' ({outcome.answer[:150]})' if outcome.answer else ''}; correct the server or "
                "the config, then run the same command with --retry-failed"
            )
