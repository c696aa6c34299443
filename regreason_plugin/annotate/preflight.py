"""The preflight: each rater answers one call before the others are made."""

from __future__ import annotations

import time
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import get_args

from regreason_plugin.annotate.asked_again import REFUSED_REQUEST, SET_UP
from regreason_plugin.annotate.calls import OK, Outcome
from regreason_plugin.annotate.config import Alarm
from regreason_plugin.annotate.lanes import Lane
from regreason_plugin.annotate.quality_alarm import QualityAlarm
from regreason_plugin.annotate.questions import Question, sampling
from regreason_plugin.annotate.server_rater import ServerRater, Structured
from regreason_plugin.annotate.store import Store
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.printable import one_line

# Questions that a server refuses before its set-up is taken to be wrong. It may refuse one because
# of its conversation, as too long; so the last question is about another one.
_TRIES = 3
# States of a request that a server refuses, perhaps because of its form (status 400, 422, another).
_FORM_REFUSED = {"bad_request", "refused_request"}


@dataclass(frozen=True)
class FirstAnswer:
    """A rater's answer to its first question.

    Attributes:
        rater: The rater.
        outcome: The answer as read.
        seconds: Seconds that the call took; None if the answer was in the store.
        left: Number of calls that this rater still has to make.
        accepted: Other values of ``structured`` with which the server gives a usable answer, the
            strictest first; only looked for if it refused the rater's own.
    """

    rater: ServerRater
    outcome: Outcome
    seconds: float | None
    left: int
    accepted: tuple[Structured, ...] = ()

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the calls left take if all take as long as this one; None if unknown."""
        return None if self.seconds is None else self.left * self.seconds / self.rater.concurrency

    @property
    def cost_left(self) -> float | None:
        """Cost of the calls left if all cost as much as this one; None if unknown."""
        counted = self.rater.price is not None and self.outcome.prompt_tokens > 0
        return self.left * self.outcome.cost if counted else None


def ask_first(store: Store, lane: Lane, budget: float | None) -> FirstAnswer | None:
    """Ask a rater its first question, and at most two more if the server refuses the request.

    If the server refuses all of them, the last question is asked with each other value of
    ``structured``, so that the message can name those that the server accepts.

    The answers go into the store, so no call is made twice.

    Args:
        store: The store for the answers.
        lane: The rater's lane, with a counted tally.
        budget: Make no call that could raise the cost of the whole store above this amount.

    Returns:
        The last answer; None if there is no question, if the budget does not allow the call, or if
        another process is making it.

    Raises:
        UserError: The server refuses the key.
    """
    first = None
    some = list(islice(lane.questions(), _TRIES))
    questions = [some[0][0], some[0][-1], some[-1][-1]] if some else []
    for question in {one.key: one for one in questions}.values():
        finished, started = lane.tally.states.total(), time.monotonic()
        # The copy shares the tally, so that the progress display counts these calls too.
        outcome = _ask(store, copy(lane), question, budget)
        seconds = time.monotonic() - started
        lane.tally.ended = False
        if outcome is None:
            return None
        asked = lane.tally.states.total() > finished
        first = FirstAnswer(lane.rater, outcome, seconds if asked else None, lane.tally.left)
        if outcome.state not in REFUSED_REQUEST:
            break
    if first and first.outcome.state in _FORM_REFUSED:
        first = replace(first, accepted=_accepted(store, lane, question, budget))
    return first


def _ask(store: Store, lane: Lane, question: Question, budget: float | None) -> Outcome | None:
    # Imported here because a run with rules only needs no client.
    from regreason_plugin.annotate.ask import ask_all

    lane.questions = partial(list, [[question]])
    ask_all(store, [lane], budget=budget, wait=False)
    return store.outcome(question.key)


def _accepted(
    store: Store, lane: Lane, question: Question, budget: float | None
) -> tuple[Structured, ...]:
    """The other values of ``structured`` with which a server gives a usable answer."""
    accepted = []
    for form in get_args(Structured):
        if form == lane.rater.structured:
            continue
        rater = lane.rater.model_copy(update={"structured": form})
        asked = question._replace(key=question.key._replace(sampling=sampling(rater)))
        other = Lane(rater, list, lane.again, QualityAlarm(rater, Alarm()))
        outcome = _ask(store, other, asked, budget)
        if outcome and outcome.state == OK:
            accepted.append(form)
    return tuple(accepted)


def check_set_up(answers: Iterable[FirstAnswer]) -> None:
    """Check that no call failed because of the set-up.

    Raises:
        UserError: A server was not reached, or refused the request; the message has its words.
    """
    for one in answers:
        if one.outcome.state not in SET_UP:
            continue
        words = one_line(one.outcome.answer or "", 300)
        mend = "correct the config or the server"
        if one.accepted:
            mend = (
                f"the server refuses `structured: {one.rater.structured}` and answers with "
                f"{' or '.join(f'`structured: {form}`' for form in one.accepted)}; set it in the "
                "config"
            )
        raise UserError(
            f"the first call to rater {one.rater.name!r} at {one.rater.base_url} has failed "
            f"({one.outcome.state}{f': {words}' if words else ''}); {mend}, then run the same "
            "command again"
        )
