"""Log-likelihoods of continuations, and the probes where they part, in one pass.

What is asked comes as contexts with their continuations. Sequences that share a prefix
become rows (`prefix_tree`), rows of about one length become batches, and a batch is one
forward pass that makes logits of the asked positions only (`probes.forward`).
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from regreason_plugin.errors import UserError
from regreason_plugin.evaluation.packed import batch_inputs
from regreason_plugin.evaluation.prefix_tree import Row, Tokens, packed_rows, single_rows
from regreason_plugin.probes.anatomy import text_config
from regreason_plugin.probes.forward import Decision, ProbeValues, logits_at

# Tokens a batch where no batch size is given. Larger ones are not faster.
TOKENS_ON_A_CPU = 4096
TOKENS_ON_A_GPU = 32768
# Logits a batch: a rolling likelihood asks for every position.
LOGITS = 2**28
# No row of several sequences is longer: its mask grows with the square.
LONGEST_ROW = 8192
# By how much a packed pass may differ from a plain one before it counts as wrong. Plain
# passes of different shapes differ too, more so in low precision: where the difference
# is larger, theirs is measured, and so many times as much is allowed.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_LOW_PRECISION_TOLERANCE = 2e-2
_NOISE_FACTOR = 4.0


@dataclass(frozen=True)
class Asked:
    """A continuation to score.

    Attributes:
        sequence: What the model reads: the context and the continuation without its last
            token, cut from the left to the model's window.
        continuation: The tokens that follow the sequence's last positions.
    """

    sequence: Tokens
    continuation: Tokens


@dataclass(eq=False)
class Context:
    """The continuations of one context, and where it is decided between them.

    Attributes:
        asked: The continuations.
        decides: The sequence and the place in it after which they part; None where no
            probe is wanted.
        choices: The tokens that can follow there.
        answers: Of each continuation, its log-likelihood and whether greedy decoding
            gives it.
        probe: What was measured where it is decided.
    """

    asked: list[Asked]
    decides: tuple[Tokens, int] | None = None
    choices: list[int] = field(default_factory=list)
    answers: dict[Asked, tuple[float, bool]] = field(default_factory=dict)
    probe: ProbeValues | None = None

    @property
    def complete(self) -> bool:
        """Whether all of it is answered."""
        answered = len(self.answers) == len(set(self.asked))
        return answered and (self.decides is None or self.probe is not None)


@dataclass
class _Reading:
    """What one batch gave."""

    answers: dict[Asked, tuple[float, bool]]
    probes: list[tuple[Context, ProbeValues]]


class _Plan:
    """Everything that is asked, by sequence."""

    def __init__(self, contexts: Iterable[Context]) -> None:
        self.asked: dict[Tokens, dict[Asked, list[Context]]] = defaultdict(dict)
        self.deciding: dict[Tokens, list[tuple[int, Context]]] = defaultdict(list)
        for context in contexts:
            for asked in context.asked:
                self.asked[asked.sequence].setdefault(asked, []).append(context)
            if context.decides is not None:
                sequence, place = context.decides
                self.deciding[sequence].append((place, context))

    def positions(self, row: Row) -> int:
        """At most how many positions of a row need logits."""
        return sum(
            max(len(asked.continuation) for asked in self.asked[sequence]) for sequence in row.paths
        )

    def answer(self, reading: _Reading) -> Iterator[Context]:
        """Hand out what a batch gave; yields the contexts that it completes."""
        touched: dict[Context, None] = {}
        for context, probe in reading.probes:
            context.probe = probe
            touched[context] = None
        for asked, answer in reading.answers.items():
            for context in self.asked[asked.sequence][asked]:
                context.answers[asked] = answer
                touched[context] = None
        yield from (context for context in touched if context.complete)


class Scorer:
    """A model and how large its batches may be.

    Args:
        model: A causal LM, in eval mode.
        device: Where its input goes.
        probes: What to measure where it is decided.
        alpha: The order of the matrix entropy.
        batch_rows: Rows a batch; None for as many as a number of tokens allows.
        max_rows: Never more rows than this.
        autocast: The precision to run in, if not the model's own.
        softmax_dtype: The precision of the softmax, if more than float32.

    Attributes:
        packs: Whether sequences that share a prefix are packed into one row.
        tokens_read: How many tokens went through the model, padding left out.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        *,
        probes: frozenset[str] = frozenset(),
        alpha: float = 1.0,
        batch_rows: int | None = None,
        max_rows: int | None = None,
        autocast: torch.dtype | None = None,
        softmax_dtype: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.probes = probes
        self.alpha = alpha
        self.batch_rows = batch_rows
        self.max_rows = max_rows
        self.autocast = autocast
        self.softmax_dtype = torch.promote_types(torch.float32, softmax_dtype or torch.float32)
        self.batch_tokens = TOKENS_ON_A_CPU if device.type == "cpu" else TOKENS_ON_A_GPU
        self.packs = True
        self.tokens_read = 0
        # The longest packed row that was held against plain ones.
        self._held = 0

    def score(self, contexts: Iterable[Context]) -> Iterator[Context]:
        """Answer what is asked, the longest rows first.

        Yields:
            Each context as soon as all of it is answered.
        """
        plan = _Plan(contexts)
        queue = deque(self._rows(plan.asked))
        while queue:
            batch = self._take(queue, plan)
            reading = self._run(batch, plan)
            if reading is None:
                rest = chain.from_iterable(row.paths for row in (*batch, *queue))
                queue = deque(self._rows(rest))
            else:
                self.tokens_read += sum(len(row.tokens) for row in batch)
                yield from plan.answer(reading)

    def _rows(self, sequences: Iterable[Tokens]) -> list[Row]:
        """Rows, the longest first."""
        if self.packs:
            linear = 6 * text_config(self.model).hidden_size
            rows = packed_rows(sequences, linear, longest=min(self.batch_tokens, LONGEST_ROW))
        else:
            rows = single_rows(sequences)
        return sorted(rows, key=lambda row: -len(row.tokens))

    def _take(self, queue: deque[Row], plan: _Plan) -> list[Row]:
        """The next batch: rows of about one length, as many as the budget allows."""
        vocabulary = text_config(self.model).vocab_size
        batch = [queue.popleft()]
        logits = vocabulary * plan.positions(batch[0])
        while queue and (self.max_rows is None or len(batch) < self.max_rows):
            logits += vocabulary * plan.positions(queue[0])
            if self.batch_rows is not None:
                full = len(batch) >= self.batch_rows
            else:
                tokens = len(batch[0].tokens) * (len(batch) + 1)
                full = tokens > self.batch_tokens or logits > LOGITS
            if full:
                break
            batch.append(queue.popleft())
        return batch

    def _run(self, batch: list[Row], plan: _Plan) -> _Reading | None:
        """Read a batch; None when its sequences have to be put into rows anew.

        The first packed batch, and each that is longer than those before it, is held
        against the same sequences run alone: a model may not take such a mask, or take
        it and not heed it.
        """
        branching = [row for row in batch if row.branches]
        unsure = bool(branching) and len(branching[0].tokens) > self._held
        try:
            reading = self._read(batch, plan, self.probes)
            difference = self._difference(reading, branching, plan) if unsure else None
        except UserError:
            raise
        except Exception as error:
            if should_reduce_batch_size(error):
                self._halve(batch)
                clear_device_cache(garbage_collection=True)
                return None
            if not unsure:
                raise
            difference = f"{type(error).__name__}: " + str(error).partition("\n")[0]
        if difference:
            self.packs = False
            say(
                f"{type(self.model).__name__} cannot read several prompts in one row "
                f"({difference}); going on with one prompt a row, as hf does"
            )
            return None
        if unsure:
            self._held = len(branching[0].tokens)
        return reading

    def _difference(self, packed: _Reading, branching: list[Row], plan: _Plan) -> str | None:
        """How a packed batch differs from its sequences alone; None if it does not."""
        # The longest and the shortest row; in each, the sequence that comes last, which
        # has most before it that it must not see.
        chosen = {list(row.paths)[-1] for row in (branching[0], branching[-1])}
        plain = self._read(single_rows(chosen), plan).answers
        off = max(abs(packed.answers[one][0] - plain[one][0]) for one in plain)
        dtype = self.autocast or self.model.dtype
        if off <= _TOLERANCE.get(dtype, _LOW_PRECISION_TOLERANCE):  # type: ignore[arg-type]
            return None
        alone = {
            asked: answer
            for sequence in chosen
            for asked, answer in self._read(single_rows([sequence]), plan).answers.items()
        }
        noise = max(abs(alone[one][0] - plain[one][0]) for one in plain)
        return None if off <= _NOISE_FACTOR * noise else f"log-likelihoods are off by {off:.2g}"

    def _halve(self, batch: list[Row]) -> None:
        """Make batches smaller after one was too large for the memory."""
        tokens = len(batch) * len(batch[0].tokens)
        if len(batch) > 1 and self.batch_rows is not None:
            self.batch_rows = len(batch) // 2
            say(f"out of memory; going on with {self.batch_rows} rows a batch")
        elif len(batch) > 1 or batch[0].branches:
            self.batch_tokens = tokens // 2
            say(f"out of memory; going on with {self.batch_tokens} tokens a batch")
        else:
            raise UserError(
                f"out of memory with a single sequence of {tokens} tokens; use a smaller dtype or "
                "load_in_4bit=True in --model_args, or shorter prompts"
            )

    def _read(
        self, batch: Sequence[Row], plan: _Plan, probes: frozenset[str] = frozenset()
    ) -> _Reading:
        """Run a batch."""
        places: dict[tuple[int, int], int] = {}  # (row, place) -> index among the logits
        steps: dict[Asked, list[tuple[int, int]]] = {}  # (such an index, what follows there)
        for number, row in enumerate(batch):
            for sequence, path in row.paths.items():
                for asked in plan.asked[sequence]:
                    tokens = asked.continuation
                    steps[asked] = [
                        (places.setdefault((number, place), len(places)), token)
                        for place, token in zip(path[-len(tokens) :], tokens, strict=True)
                    ]
        contexts: list[Context] = []
        decisions: list[Decision] = []
        for number, row in enumerate(batch if probes else ()):
            for sequence, path in row.paths.items():
                for place, context in plan.deciding[sequence]:
                    contexts.append(context)
                    # One of the continuations goes on there, so its logits are asked for.
                    index = places[number, path[place]]
                    decisions.append(Decision(index, path[: place + 1], context.choices))
        inputs, within = batch_inputs(batch, self.model, self.device)
        rows, columns = zip(*places, strict=True)
        autocast = torch.autocast(
            self.device.type, self.autocast, enabled=self.autocast is not None
        )
        with within, autocast:
            logits, values = logits_at(
                self.model, inputs, rows, columns, decisions, probes, self.alpha
            )
        answers = _answers(logits, list(steps.values()), self.softmax_dtype)
        return _Reading(
            dict(zip(steps, answers, strict=True)), list(zip(contexts, values, strict=True))
        )


def _answers(
    logits: Tensor, steps: Sequence[Sequence[tuple[int, int]]], dtype: torch.dtype
) -> list[tuple[float, bool]]:
    """Of each continuation, its log-likelihood and whether each of its tokens is the likeliest.

    Args:
        logits: ``[n, V]``.
        steps: Of each continuation, pairs of an index into n and the token that follows.
        dtype: The precision of the softmax.
    """
    # A few positions at a time: there is never a second copy of all logits.
    parts = torch.split(logits, max(1, 2**24 // logits.shape[-1]))
    norms = torch.cat([part.to(dtype).logsumexp(dim=-1) for part in parts])
    likeliest = logits.argmax(dim=-1)
    index, token = torch.tensor(list(chain.from_iterable(steps)), device=logits.device).T
    scores = (logits[index, token].to(dtype) - norms[index]).tolist()
    greedy = (likeliest[index] == token).tolist()
    answers = []
    start = 0
    for one in steps:
        end = start + len(one)
        answers.append((sum(scores[start:end]), all(greedy[start:end])))
        start = end
    return answers


def say(text: str) -> None:
    """A line to the user, beside what lm-eval prints."""
    print(f"regreason: {text}", file=sys.stderr)
