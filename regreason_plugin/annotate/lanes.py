"""The lane of a rater: its calls, their estimated cost, and the progress so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from regreason_plugin.annotate.calls import OK, CallKey, Outcome, conversation_key
from regreason_plugin.annotate.pace import Waiting
from regreason_plugin.annotate.quality_alarm import ADVICE, QualityAlarm
from regreason_plugin.annotate.questions import ModelRater, Question
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.annotate.store import Store
from regreason_plugin.core.records import Conversation

# The usual ratio for English text, for estimates only.
CHARACTERS_A_TOKEN = 4.0
ANSWER_TOKENS = 80


@dataclass
class Tally:
    """One rater's progress in this run, for the progress display.

    Attributes:
        name: The rater's name.
        total: Number of all calls, finished or not.
        before: Number of calls that were finished before this run.
        states: Number of calls finished in this run, by state.
        prompt_tokens: Prompt tokens of this run's calls.
        answer_tokens: Answer tokens of this run's calls.
        cost: Cost of this run's calls, in the prices' currency.
        priced: Whether the rater's prices are known.
        ended: Whether the rater has made its last call in this run.
        waiting: Returns since when and why the rater's server gives no replies; None if it does.
    """

    name: str
    total: int = 0
    before: int = 0
    states: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0
    priced: bool = False
    ended: bool = False
    waiting: Callable[[], Waiting | None] = lambda: None

    @property
    def done(self) -> int:
        """Number of calls that succeeded in this run."""
        return self.states[OK]

    @property
    def failed(self) -> int:
        """Number of calls that failed in this run."""
        return self.states.total() - self.states[OK]

    def failures(self) -> Counter[str]:
        """Number of calls that failed in this run, by state."""
        # Copied in one step, because the progress display calls this from another thread.
        return Counter({kind: count for kind, count in list(self.states.items()) if kind != OK})

    @property
    def left(self) -> int:
        """Number of calls that are not finished yet."""
        return max(0, self.total - self.before - self.states.total())

    def add(self, outcome: Outcome) -> None:
        """Count a call that has finished."""
        self.states[outcome.state] += 1
        self.prompt_tokens += outcome.prompt_tokens
        self.answer_tokens += outcome.answer_tokens
        self.cost += outcome.cost


@dataclass
class Lane:
    """One rater with all its questions.

    Attributes:
        rater: The rater's config.
        questions: Returns a new iterator over all questions, one list per conversation.
        again: Returns whether a call that failed before with a state is made again.
        alarm: Counts the rater's unusable answers in this run.
        tally: The rater's progress.
        failed: Calls that have failed in this run, so that the run does not make them again.
    """

    rater: ServerRater
    questions: Callable[[], Iterable[list[Question]]]
    again: Callable[[str], bool]
    alarm: QualityAlarm
    tally: Tally = field(init=False)
    failed: set[CallKey] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.tally = Tally(self.rater.name, priced=self.rater.price is not None)


@dataclass
class LanePlan:
    """An estimate of the calls that a rater still has to make.

    Attributes:
        name: The rater's name.
        total: Number of all calls.
        done: Number of calls that have succeeded before.
        failed: Number of calls that have failed before.
        left: Number of calls that a run would make now.
        prompt_tokens: Estimated prompt tokens of the calls that are left.
        answer_tokens: Estimated answer tokens of the calls that are left.
        cost: Estimated cost of the calls that are left, in the prices' currency; None without
            prices.
        example: One whole prompt.
    """

    name: str
    total: int = 0
    done: int = 0
    failed: int = 0
    left: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float | None = None
    example: str = ""


def count_ratings(
    store: Store,
    raters: Sequence[ModelRater],
    lanes: Sequence[Lane],
    conversations: Iterable[Conversation],
) -> None:
    """Write the number of calls, and of finished calls, into the tallies of all raters.

    Each conversation is read once and no question is made from it, so that counting half a
    million calls takes seconds.

    Args:
        store: The store of calls.
        raters: The raters.
        lanes: The raters' lanes, in the same order.
        conversations: All conversations to rate.
    """
    number, finished = store.finished(map(conversation_key, conversations))
    for rater, lane in zip(raters, lanes, strict=True):
        kinds = rater.kinds()
        lane.tally.total += number * len(kinds)
        lane.tally.before += sum(
            count
            for (*kind, state), count in finished.items()
            if tuple(kind) in kinds and not lane.again(state)
        )


def count(store: Store, lanes: Sequence[Lane]) -> None:
    """Write the number of calls, and of finished calls, into the tallies of all lanes.

    Args:
        store: The store of calls.
        lanes: The lanes.
    """
    for lane in lanes:
        for _, outcome in with_outcomes(store, lane):
            lane.tally.total += 1
            lane.tally.before += not is_left(lane, outcome)


def estimate(store: Store, lanes: Sequence[Lane]) -> list[LanePlan]:
    """Estimate the calls that each rater still has to make, from the rendered prompts.

    The estimate counts four characters per prompt token. It takes the mean length of the rater's
    answers in the store, or 80 tokens if there are none, and as many second requests as the answers
    in the store needed.

    Args:
        store: The store of calls.
        lanes: One lane per rater.
    """
    plans = []
    for lane in lanes:
        plan = LanePlan(lane.rater.name)
        characters = 0
        for question, outcome in with_outcomes(store, lane):
            plan.example = plan.example or question.prompt()
            plan.total += 1
            if outcome is not None and outcome.state == OK:
                plan.done += 1
                continue
            plan.failed += outcome is not None
            if is_left(lane, outcome):
                plan.left += 1
                characters += len(question.prompt())
        mean = store.mean_answer(lane.rater.name) or ANSWER_TOKENS
        states, _, _, _ = store.totals(lane.rater.name)
        # An answer that cannot be used is asked for a second time, and paid twice.
        asked = 1 + sum(states[one] for one in ADVICE) / max(1, states.total())
        plan.prompt_tokens = round(characters / CHARACTERS_A_TOKEN * asked)
        plan.answer_tokens = round(plan.left * mean)
        price = lane.rater.price
        plan.cost = price.of(plan.prompt_tokens, plan.answer_tokens) if price else None
        plans.append(plan)
    return plans


def is_left(lane: Lane, outcome: Outcome | None) -> bool:
    """Whether a run makes a call with this outcome; None is a call without one."""
    return outcome is None or lane.again(outcome.state)


def with_outcomes(store: Store, lane: Lane) -> Iterator[tuple[Question, Outcome | None]]:
    """All questions of a lane, with the outcomes of those that are finished."""
    for questions in lane.questions():
        outcomes = store.outcomes([question.key for question in questions])
        for question in questions:
            yield question, outcomes.get(question.key)
