"""The continuations to score, grouped by context and by input sequence, and their results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from regreason_plugin.packing.prefix_tree import PrefixRow, Tokens
from regreason_plugin.probes.forward import ProbeValues


@dataclass(frozen=True)
class Continuation:
    """A continuation to score.

    Attributes:
        sequence: The model's input: the context and the continuation without its last token,
            cut from the left to the model's window.
        tokens: The continuation's tokens. The last ``len(tokens)`` positions of the sequence
            predict them.
    """

    sequence: Tokens
    tokens: Tokens


@dataclass(eq=False)
class Context:
    """The continuations of one context, and the position that decides between them.

    Attributes:
        continuations: The continuations to score.
        decides: The deciding position, as a sequence and an index in it: the continuations
            differ in the token after it. None if no probe is measured.
        choices: The tokens with which the continuations go on after the deciding position.
        answers: For each continuation, its log-likelihood and whether greedy decoding gives it.
        probe: The probes' values at the deciding position.
    """

    continuations: list[Continuation]
    decides: tuple[Tokens, int] | None = None
    choices: list[int] = field(default_factory=list)
    answers: dict[Continuation, tuple[float, bool]] = field(default_factory=dict)
    probe: ProbeValues | None = None

    @property
    def complete(self) -> bool:
        """Whether all continuations are scored, and the probes measured if there are any."""
        answered = len(self.answers) == len(set(self.continuations))
        return answered and (self.decides is None or self.probe is not None)


@dataclass
class Reading:
    """The results of one batch.

    Attributes:
        answers: For each continuation, its log-likelihood and whether greedy decoding gives it.
        probes: Contexts with the probes' values at their deciding positions.
    """

    answers: dict[Continuation, tuple[float, bool]]
    probes: list[tuple[Context, ProbeValues]]


class RequestsBySequence:
    """All continuations and deciding positions, by input sequence.

    Attributes:
        continuations: For each sequence, its continuations, each with the contexts that have it.
        deciding: For each sequence, the deciding positions in it, each with its context.
    """

    def __init__(self, contexts: Iterable[Context]) -> None:
        self.continuations: dict[Tokens, dict[Continuation, list[Context]]] = defaultdict(dict)
        self.deciding: dict[Tokens, list[tuple[int, Context]]] = defaultdict(list)
        for context in contexts:
            for continuation in context.continuations:
                self.continuations[continuation.sequence].setdefault(continuation, []).append(
                    context
                )
            if context.decides is not None:
                sequence, position = context.decides
                self.deciding[sequence].append((position, context))

    def positions(self, row: PrefixRow) -> int:
        """An upper bound on the number of positions of a row that need logits."""
        return sum(
            max(len(one.tokens) for one in self.continuations[sequence]) for sequence in row.paths
        )

    def answer(self, reading: Reading) -> Iterator[Context]:
        """Store a batch's results in their contexts.

        Yields:
            The contexts that the batch completes.
        """
        touched: dict[Context, None] = {}
        for context, probe in reading.probes:
            context.probe = probe
            touched[context] = None
        for continuation, answer in reading.answers.items():
            for context in self.continuations[continuation.sequence][continuation]:
                context.answers[continuation] = answer
                touched[context] = None
        yield from (context for context in touched if context.complete)
