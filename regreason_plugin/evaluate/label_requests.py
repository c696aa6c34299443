"""What a model is asked, sequence by sequence, and what it has answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from regreason_plugin.evaluate.prefix_tree import PrefixRow, Tokens
from regreason_plugin.probes.forward import ProbeValues


@dataclass(frozen=True)
class Continuation:
    """A continuation to score.

    Attributes:
        sequence: What the model reads: the context and the continuation without its last
            token, cut from the left to the model's window.
        tokens: Those that follow the sequence's last positions.
    """

    sequence: Tokens
    tokens: Tokens


@dataclass(eq=False)
class Context:
    """The continuations of one context, and where it is decided between them.

    Attributes:
        continuations: What may follow it.
        decides: The sequence and the place in it after which they part; None where no
            probe is wanted.
        choices: The tokens that can follow there.
        answers: Of each continuation, its log-likelihood and whether greedy decoding
            gives it.
        probe: What was measured where it is decided.
    """

    continuations: list[Continuation]
    decides: tuple[Tokens, int] | None = None
    choices: list[int] = field(default_factory=list)
    answers: dict[Continuation, tuple[float, bool]] = field(default_factory=dict)
    probe: ProbeValues | None = None

    @property
    def complete(self) -> bool:
        """Whether all of it is answered."""
        answered = len(self.answers) == len(set(self.continuations))
        return answered and (self.decides is None or self.probe is not None)


@dataclass
class Reading:
    """What one batch gave."""

    answers: dict[Continuation, tuple[float, bool]]
    probes: list[tuple[Context, ProbeValues]]


class RequestsBySequence:
    """Everything that is asked, by sequence."""

    def __init__(self, contexts: Iterable[Context]) -> None:
        self.continuations: dict[Tokens, dict[Continuation, list[Context]]] = defaultdict(dict)
        self.deciding: dict[Tokens, list[tuple[int, Context]]] = defaultdict(list)
        for context in contexts:
            for continuation in context.continuations:
                self.continuations[continuation.sequence].setdefault(continuation, []).append(
                    context
                )
            if context.decides is not None:
                sequence, place = context.decides
                self.deciding[sequence].append((place, context))

    def positions(self, row: PrefixRow) -> int:
        """At most how many positions of a row need logits."""
        return sum(
            max(len(one.tokens) for one in self.continuations[sequence]) for sequence in row.paths
        )

    def answer(self, reading: Reading) -> Iterator[Context]:
        """Hand out what a batch gave; yields the contexts that it completes."""
        touched: dict[Context, None] = {}
        for context, probe in reading.probes:
            context.probe = probe
            touched[context] = None
        for continuation, answer in reading.answers.items():
            for context in self.continuations[continuation.sequence][continuation]:
                context.answers[continuation] = answer
                touched[context] = None
        yield from (context for context in touched if context.complete)
