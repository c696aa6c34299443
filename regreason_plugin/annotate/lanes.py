"""One rater's work, and what is told of it as it goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from regreason_plugin.annotate.config import ServerRater
from regreason_plugin.annotate.questions import Question
from regreason_plugin.annotate.store import OK, Outcome


@dataclass
class Tally:
    """What one rater has done in this run, for who watches.

    Attributes:
        name: The rater's.
        model: Its model.
        total: Calls that there are, in the store or not.
        before: Of these, finished before this run.
        states: Finished in this run, by state.
        cost: In the prices' currency.
        priced: Whether its prices are known.
        ended: No more is asked.
    """

    name: str
    model: str
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
    tally: Tally
