"""The steps of a run that makes calls, for `annotate`, `explain` and batches.

Open the store, ask each rater one question first, make the calls that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from regreason_plugin.annotate.asked_again import AskedAgain
from regreason_plugin.annotate.calls import OK
from regreason_plugin.annotate.config import Alarm
from regreason_plugin.annotate.lanes import Lane, Tally
from regreason_plugin.annotate.preflight import FirstAnswer, ask_first, check_set_up
from regreason_plugin.annotate.quality_alarm import QualityAlarm
from regreason_plugin.annotate.questions import Question, sampling
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.annotate.store import Store
from regreason_plugin.annotate.token_limits import holds_under
from regreason_plugin.core.errors import UserError


class Watcher(Protocol):
    """A display of the progress."""

    def asking(self, what: str, tallies: Sequence[Tally]) -> AbstractContextManager[None]:
        """A context around the calls to raters, whose tallies change meanwhile.

        Args:
            what: Name of the step.
            tallies: One tally per rater.
        """

    def answered_first(self, first: FirstAnswer) -> None:
        """Show a rater's answer to its first question."""

    def writing(self) -> AbstractContextManager[Callable[[], object]]:
        """A context around the writing of ratings; yields a function to call for each rating."""


@contextmanager
def open_store_for_calls(
    path: Path, raters: Sequence[ServerRater], budget: float | None, *, batches: bool = False
) -> Iterator[Store]:
    """Open the store for a run that makes calls.

    Args:
        path: The store's file.
        raters: The raters.
        budget: Make no call that could raise the cost of the whole store above this amount.
        batches: Whether the run collects batches; other runs would wait for them for hours.

    Raises:
        UserError: A budget is set and the price of a rater or the maximum length of its answers is
            unknown, or a package is missing.
    """
    for rater in raters if budget is not None else ():
        if rater.price is None:
            raise UserError(
                f"--budget needs the price of rater {rater.name!r}; add its price to the config",
                field="price",
            )
        if budget is not None and rater.longest_answer is None:
            raise UserError(
                f"--budget needs the maximum length of an answer of rater {rater.name!r}; set "
                "max_tokens, or max_completion_tokens in request",
                field="max_tokens",
            )
    for package in ("openai", "tenacity", "aiohttp", "json_repair"):
        if find_spec(package) is None:
            raise UserError(
                f"calls to language models need the package {package}; run "
                "`pip install 'regreason[annotate]'`"
            )
    with Store(path) as store:
        # Called even if no call is left, because it removes the lock files of killed processes.
        store.take_over()
        for batch in [] if batches else store.batches():
            if batch.rater in {rater.name for rater in raters}:
                raise UserError(
                    f"{batch.calls:,} calls of rater {batch.rater!r} are in a batch; collect their "
                    "answers with `regreason annotate CONFIG.yml --batch`",
                    path=path,
                )
        _copy_answers(store, raters)
        yield store


@contextmanager
def open_store_to_read(path: Path, raters: Sequence[ServerRater]) -> Iterator[Store]:
    """Open the store to read it; if there is none, open an empty temporary store instead."""
    with (
        TemporaryDirectory() as scratch,
        Store(path if path.is_file() else Path(scratch) / "none.db") as store,
    ):
        _copy_answers(store, raters)
        yield store


def _copy_answers(store: Store, raters: Sequence[ServerRater]) -> None:
    for rater in raters:
        store.copy_answers(rater.name, rater.model, sampling(rater), holds_under)


def preflight(store: Store, lanes: Iterable[Lane], watcher: Watcher, budget: float | None) -> None:
    """Ask each rater its first question, one rater after the other, and show the answers.

    Raises:
        UserError: A key is wrong, or a server cannot be reached or refuses the request.
    """
    answers = []
    for lane in lanes:
        if first := ask_first(store, lane, budget):
            watcher.answered_first(first)
            answers.append(first)
    check_set_up(answers)


def ask(
    store: Store,
    lanes: list[Lane],
    watcher: Watcher,
    what: str,
    budget: float | None,
) -> int:
    """Make the calls that are left, and show the progress.

    Args:
        store: The store for the answers.
        lanes: One lane per rater, with counted tallies.
        watcher: Shows the progress.
        what: Name of the step, for the progress display.
        budget: Make no call that could raise the cost of the whole store above this amount.

    Returns:
        The number of calls that the budget did not allow.

    Raises:
        UserError: A key is wrong, all calls to a server fail, or the quality alarm rings.
    """
    if not any(lane.tally.left for lane in lanes):
        return 0
    # Imported here because a run with rules only needs no client.
    from regreason_plugin.annotate.ask import ask_all

    with watcher.asking(what, [lane.tally for lane in lanes]):
        return ask_all(store, lanes, budget=budget)


def unproven(lanes: Iterable[Lane]) -> list[Lane]:
    """The lanes with calls left whose rater has finished no call of this config yet."""
    return [lane for lane in lanes if lane.tally.left and not lane.tally.before]


def lane_of(
    store: Store,
    rater: ServerRater,
    questions: Callable[[], Iterator[list[Question]]],
    again: AskedAgain,
    alarm: Alarm,
) -> Lane:
    """A rater's lane.

    Args:
        store: The store of calls.
        rater: The rater.
        questions: Returns a new iterator over all its questions.
        again: The failed calls of earlier runs to make again.
        alarm: When too many unusable answers end the run.
    """
    answered = store.has_answer(rater.name, rater.model, sampling(rater))
    return Lane(
        rater,
        questions,
        lambda state: again.includes(state, rater, answered=answered),
        QualityAlarm(rater, alarm),
    )


def spent(store: Store, raters: Iterable[ServerRater]) -> float | None:
    """Cost of all calls in the store; None if no rater has a price, or one reports no tokens."""
    priced = [store.totals(rater.name) for rater in raters if rater.price]
    if not priced or any(states[OK] and not prompt for states, prompt, _, _ in priced):
        return None
    # Rounded, because a sum of floats depends on the order in which the answers arrive.
    return round(store.spent(), 6)
