"""One rater's work: what there is to ask, what it would cost, and how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from regreason_plugin.annotate.config import ServerRater
from regreason_plugin.annotate.questions import AskedRater, Question
from regreason_plugin.annotate.store import OK, Outcome, Store, conversation_key
from regreason_plugin.core.records import Conversation

# Of English text, by the usual tokenizers; an estimate, and called one.
CHARACTERS_A_TOKEN = 4.0
_ANSWER_TOKENS = 80


@dataclass
class Tally:
    """What one rater has done in this run, for who watches.

    Attributes:
        name: The rater's.
        total: Calls that there are, in the store or not.
        before: Of these, finished before this run.
        states: Finished in this run, by state.
        cost: In the prices' currency.
        priced: Whether its prices are known.
        ended: No more is asked.
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

    @property
    def done(self) -> int:
        """Finished well in this run."""
        return self.states[OK]

    @property
    def failed(self) -> int:
        """Finished otherwise in this run."""
        return self.states.total() - self.states[OK]

    def failures(self) -> Counter[str]:
        """Those by what went wrong."""
        # A copy at once: who watches does so from another thread.
        return Counter({kind: count for kind, count in list(self.states.items()) if kind != OK})

    @property
    def left(self) -> int:
        """Not finished yet."""
        return max(0, self.total - self.before - self.states.total())

    def add(self, outcome: Outcome) -> None:
        """Count a call that has finished."""
        self.states[outcome.state] += 1
        self.prompt_tokens += outcome.prompt_tokens
        self.answer_tokens += outcome.answer_tokens
        self.cost += outcome.cost


@dataclass
class Lane:
    """One rater's work.

    Attributes:
        rater: Its config.
        questions: All its questions, anew at every call, a list a conversation.
        tally: What is told of it.
    """

    rater: ServerRater
    questions: Callable[[], Iterable[list[Question]]]
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(self.rater.name, priced=self.rater.price is not None)


@dataclass
class LanePlan:
    """What is left of a rater's work.

    Attributes:
        total: All its calls.
        done: Answered before.
        failed: Asked before, to no use.
        left: To be asked now.
        prompt_tokens: Of those, estimated.
        answer_tokens: The same.
        cost: The same, in the prices' currency; none without prices.
        example: One prompt.
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
    raters: Sequence[AskedRater],
    tallies: Sequence[Tally],
    conversations: Iterable[Conversation],
    *,
    retry: bool,
) -> None:
    """Write into each rater's tally how many calls there are, and how many are finished.

    Every conversation is read once, and no question is made of it: half a million calls are
    counted in seconds.
    """
    number, finished = store.finished(map(conversation_key, conversations))
    for rater, tally in zip(raters, tallies, strict=True):
        kinds = rater.kinds()
        tally.total += number * len(kinds)
        tally.before += sum(
            count
            for (*kind, state), count in finished.items()
            if tuple(kind) in kinds and (state == OK or not retry)
        )


def count(store: Store, lanes: Sequence[Lane], *, retry: bool) -> None:
    """Write into every lane's tally how many calls there are, and how many are finished."""
    for lane in lanes:
        for _, outcome in _with_outcomes(store, lane):
            lane.tally.total += 1
            lane.tally.before += outcome is not None and (outcome.state == OK or not retry)


def estimate(store: Store, lanes: Sequence[Lane], *, retry: bool) -> list[LanePlan]:
    """What each rater would be asked, from the prompts as they would be sent.

    A token is taken for four characters, an answer for 80 tokens, or for the mean of the answers
    in the store where there are some.
    """
    plans = []
    for lane in lanes:
        plan = LanePlan(lane.rater.name)
        characters = 0
        for question, outcome in _with_outcomes(store, lane):
            plan.example = plan.example or question.prompt()
            plan.total += 1
            if outcome is not None and outcome.state == OK:
                plan.done += 1
                continue
            plan.failed += outcome is not None
            if outcome is None or retry:
                plan.left += 1
                characters += len(question.prompt())
        states, _, answered, _ = store.totals(lane.rater.name)
        mean = answered / states.total() if states.total() else _ANSWER_TOKENS
        plan.prompt_tokens = round(characters / CHARACTERS_A_TOKEN)
        plan.answer_tokens = round(plan.left * mean)
        price = lane.rater.price
        plan.cost = price.of(plan.prompt_tokens, plan.answer_tokens) if price else None
        plans.append(plan)
    return plans


def _with_outcomes(store: Store, lane: Lane) -> Iterator[tuple[Question, Outcome | None]]:
    for questions in lane.questions():
        outcomes = store.outcomes([question.key for question in questions])
        for question in questions:
            yield question, outcomes.get(question.key)
