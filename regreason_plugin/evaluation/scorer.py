"""Log-likelihoods of continuations, and the probes where they part, in one pass.

What is asked comes as contexts with their continuations. Sequences that share a prefix
become rows (`prefix_tree`), rows of about one length become batches, and a batch is one
forward pass that makes logits of the asked positions only (`probes.forward`).
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from regreason_plugin.errors import UserError
from regreason_plugin.evaluation.packed import batch_inputs
from regreason_plugin.evaluation.prefix_tree import Row, Tokens, packed_rows, single_rows
from regreason_plugin.probes.anatomy import ProbeError, text_config
from regreason_plugin.probes.forward import Decision, ProbeValues, logits_at

# Tokens a batch where no batch size is given. Larger ones are not faster.
TOKENS_ON_A_CPU = 4096
TOKENS_ON_A_GPU = 32768
# Logits a batch: a rolling likelihood asks for every position.
LOGITS = 2**28
# No row of several sequences is longer: its mask grows with the square.
LONGEST_ROW = 8192
# By how much a packed pass may differ from a plain one before it counts as wrong: root mean
# square over the vocabulary, of log-probabilities. Plain passes of different shapes differ
# too, more so in low precision: where the difference is larger, theirs is measured, and so
# many times as much is allowed.
_TOLERANCE = {torch.float32: 2e-5, torch.float64: 2e-5}
_LOW_PRECISION_TOLERANCE = 5e-3
_NOISE_FACTOR = 5.0


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
        optional_probes: Those of them to leave out, with a word, if the model's layers cannot
            be probed; for others that is an error.
        alpha: The order of the matrix entropy.
        batch_rows: Rows a batch; None for as many as a number of tokens allows.
        max_rows: Never more rows than this.
        autocast: The precision to run in, if not the model's own.
        softmax_dtype: The precision of the softmax, if more than float32.

    Attributes:
        packs: Whether sequences that share a prefix are packed into one row.
        tokens_read: How many tokens went through the model, padding and checks left out.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        *,
        probes: frozenset[str] = frozenset(),
        optional_probes: frozenset[str] = frozenset(),
        alpha: float = 1.0,
        batch_rows: int | None = None,
        max_rows: int | None = None,
        autocast: torch.dtype | None = None,
        softmax_dtype: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.device = device
        self.probes = probes
        self.optional_probes = optional_probes
        self.alpha = alpha
        self.batch_rows = batch_rows
        self.max_rows = max_rows
        self.autocast = autocast
        self.softmax_dtype = torch.promote_types(torch.float32, softmax_dtype or torch.float32)
        self.batch_tokens = TOKENS_ON_A_CPU if device.type == "cpu" else TOKENS_ON_A_GPU
        self.packs = True
        self.tokens_read = 0
        # Of what was held against plain rows: the largest shift and the longest sequence.
        self._held_shift = self._held_length = 0

    def score(self, contexts: Iterable[Context]) -> Iterator[Context]:
        """Answer what is asked, the longest rows first.

        Yields:
            Each context as soon as all of it is answered.
        """
        plan = _Plan(contexts)
        queue = self._plan_rows(plan.asked, plan)
        while queue:
            batch = self._take(queue, plan)
            reading: _Reading | None = None
            try:
                reading = self._read(batch, plan, self.probes)
            except ProbeError as error:
                self._leave_out_probes(error)
                queue.extendleft(reversed(batch))
                continue
            except _OutOfMemoryError as error:
                self._halve(error.batch)
            # (Only now nothing holds on to the tensors of the failed pass.)
            if reading is None:
                clear_device_cache(garbage_collection=True)
            if reading is None or (self.packs and self._packing_made_nan(reading, batch, plan)):
                rest = chain.from_iterable(row.paths for row in (*batch, *queue))
                queue = self._plan_rows(rest, plan)
                continue
            self.tokens_read += sum(len(row.tokens) for row in batch)
            yield from plan.answer(reading)

    def _plan_rows(self, sequences: Iterable[Tokens], plan: _Plan) -> deque[Row]:
        """Rows to read, packed if this model can take them so."""
        sequences = list(sequences)
        while True:
            rows = self._rows(sequences)
            if not self.packs:
                return deque(rows)
            doubtful = self._doubtful(rows)
            difference: str | None = None
            fits = True
            try:
                difference = self._difference(doubtful, plan) if doubtful else None
            except _OutOfMemoryError as error:
                self._halve(error.batch)
                fits = False
            if not fits:
                clear_device_cache(garbage_collection=True)
            elif difference is None:
                self._hold(doubtful)
                return deque(rows)
            else:
                self._stop_packing(difference)

    def _stop_packing(self, why: str) -> None:
        self.packs = False
        say(
            f"{type(self.model).__name__} cannot read several prompts in one row ({why}); going on "
            "with one prompt a row, as hf does"
        )

    def _leave_out_probes(self, error: ProbeError) -> None:
        """Go on without the probes by layer, unless someone asked for them."""
        left = self.probes - self.optional_probes
        if left == self.probes or self.tokens_read:
            raise error
        say(f"no probes by layer: {error}")
        self.probes = left

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

    def _doubtful(self, rows: Sequence[Row]) -> list[Row]:
        """The rows to hold against plain ones before any is trusted.

        A model may not take such a mask, or take it and not heed it, or go by places
        instead of positions: that shows most where the two are furthest apart, in the
        longest texts, and behind padding.
        """
        shared = [row for row in rows if len(row.paths) > 1]
        shifts = [max(map(row.shift, row.paths)) for row in shared]
        lengths = [max(map(len, row.paths)) for row in shared]
        if not shared or (max(shifts) <= self._held_shift and max(lengths) <= self._held_length):
            return []
        chosen = {
            shifts.index(max(shifts)),
            lengths.index(max(lengths)),
            len(shared) - 1,  # the shortest
        }
        return [shared[number] for number in sorted(chosen)]

    def _hold(self, rows: Iterable[Row]) -> None:
        """Remember what was found right."""
        for row in rows:
            self._held_shift = max(self._held_shift, *map(row.shift, row.paths))
            self._held_length = max(self._held_length, *map(len, row.paths))

    def _difference(self, rows: Sequence[Row], plan: _Plan) -> str | None:
        """How packed rows differ from their sequences alone; None if they do not.

        Raises:
            Exception: Whatever the model raises on plain rows: packing is not to blame.
        """
        # Of each row the sequence that is furthest from its position, which has most before
        # it that it must not see, and the first, which has most after it.
        chosen = {max(row.paths, key=row.shift) for row in rows} | {
            next(iter(row.paths)) for row in rows
        }
        plain: dict[Tokens, Tensor] = {}
        for sequence in sorted(chosen):
            plain |= self._log_probabilities(single_rows([sequence]), plan, chosen)
        try:
            packed: dict[Tokens, Tensor] = {}
            queue = deque(rows)
            while queue:
                packed |= self._log_probabilities(self._take(queue, plan), plan, chosen)
            off = _distance(packed, plain)
            dtype = self.autocast or self.model.dtype
            tolerance = _TOLERANCE.get(dtype, _LOW_PRECISION_TOLERANCE)  # type: ignore[arg-type]
            if off <= tolerance:
                return None
            # The same sequences in as long rows, with nothing to confuse.
            other: dict[Tokens, Tensor] = {}
            with _noticing_memory(rows[:1]):
                for row in single_rows(chosen):
                    longest = len(rows[0].tokens)
                    other |= self._log_probabilities([row], plan, chosen, padded_to=longest)
            noise = _distance(other, plain)
        except _OutOfMemoryError:
            raise
        except Exception as error:
            return f"{type(error).__name__}: " + str(error).partition("\n")[0]
        return None if off <= _NOISE_FACTOR * noise else f"log-probabilities are off by {off:.2g}"

    def _log_probabilities(
        self, batch: Sequence[Row], plan: _Plan, chosen: set[Tokens], padded_to: int = 0
    ) -> dict[Tokens, Tensor]:
        """Of some sequences of a batch, ``[n, V]`` at the n positions that are asked for."""
        places, _, _ = self._wanted(batch, plan)
        found = {}
        with _noticing_memory(batch):
            logits, _ = self._forward(batch, places, padded_to=padded_to)
            for number, row in enumerate(batch):
                for sequence in chosen & row.paths.keys():
                    asked = max(len(one.continuation) for one in plan.asked[sequence])
                    wanted = [places[number, place] for place in row.paths[sequence][-asked:]]
                    found[sequence] = logits[wanted].to(self.softmax_dtype).log_softmax(dim=-1)
        return found

    def _packing_made_nan(self, reading: _Reading, batch: Sequence[Row], plan: _Plan) -> bool:
        """Whether packed rows gave what is no number and plain rows give one."""
        bad = {asked.sequence for asked, (score, _) in reading.answers.items() if score != score}
        rows = [row for row in batch if len(row.paths) > 1 and bad & row.paths.keys()]
        if not rows:
            return False
        plain = self._read(single_rows(sorted(bad)[:1]), plan)
        if any(math.isnan(score) for score, _ in plain.answers.values()):
            return False
        self._stop_packing("log-likelihoods are not numbers")
        return True

    def _halve(self, batch: Sequence[Row]) -> None:
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
        places, steps, deciding = self._wanted(batch, plan)
        contexts = [context for context, _ in deciding] if probes else []
        decisions = [decision for _, decision in deciding] if probes else []
        with _noticing_memory(batch):
            logits, values = self._forward(batch, places, decisions, probes)
            answers = _answers(logits, list(steps.values()), self.softmax_dtype)
        return _Reading(
            dict(zip(steps, answers, strict=True)), list(zip(contexts, values, strict=True))
        )

    def _wanted(
        self, batch: Sequence[Row], plan: _Plan
    ) -> tuple[
        dict[tuple[int, int], int],
        dict[Asked, list[tuple[int, int]]],
        list[tuple[Context, Decision]],
    ]:
        """What is asked of a batch.

        Returns:
            The places whose logits are wanted, a row and a place in it each, numbered; of
            each continuation, such a number and the token that follows there, in turn; where
            it is decided.
        """
        places: dict[tuple[int, int], int] = {}
        steps: dict[Asked, list[tuple[int, int]]] = {}
        for number, row in enumerate(batch):
            for sequence, path in row.paths.items():
                for asked in plan.asked[sequence]:
                    tokens = asked.continuation
                    steps[asked] = [
                        (places.setdefault((number, place), len(places)), token)
                        for place, token in zip(path[-len(tokens) :], tokens, strict=True)
                    ]
        deciding = []
        for number, row in enumerate(batch):
            for sequence, path in row.paths.items():
                for place, context in plan.deciding[sequence]:
                    # One of the continuations goes on there, so its logits are asked for.
                    index = places[number, path[place]]
                    decision = Decision(index, path[: place + 1], context.choices)
                    deciding.append((context, decision))
        return places, steps, deciding

    def _forward(
        self,
        batch: Sequence[Row],
        places: Iterable[tuple[int, int]],
        decisions: Sequence[Decision] = (),
        probes: frozenset[str] = frozenset(),
        padded_to: int = 0,
    ) -> tuple[Tensor, list[ProbeValues]]:
        inputs, within = batch_inputs(batch, self.model, self.device, padded_to)
        rows, columns = zip(*places, strict=True)
        autocast = torch.autocast(
            self.device.type, self.autocast, enabled=self.autocast is not None
        )
        with within, autocast:
            return logits_at(self.model, inputs, rows, columns, decisions, probes, self.alpha)


def _distance(one: dict[Tokens, Tensor], other: dict[Tokens, Tensor]) -> float:
    """The largest root mean square, over the vocabulary, of the differences at a position.

    What is equal, infinities too, differs by 0; a NaN on one side only by infinity.
    """
    largest = 0.0
    for sequence, ours in one.items():
        theirs = other[sequence].to(ours.device)
        same = (ours == theirs) | (ours.isnan() & theirs.isnan())
        off = (ours - theirs).masked_fill(same, 0.0).square().mean(dim=-1).sqrt()
        largest = max(largest, float(off.nan_to_num(math.inf).max()))
    return largest


class _OutOfMemoryError(Exception):
    """There was too little memory for a batch."""

    def __init__(self, batch: Sequence[Row]) -> None:
        super().__init__(f"{len(batch)} rows of at most {len(batch[0].tokens)} tokens")
        self.batch = batch


@contextmanager
def _noticing_memory(batch: Sequence[Row]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, _OutOfMemoryError) or _out_of_memory(error):
            raise _OutOfMemoryError(batch) from error
        raise


def _out_of_memory(error: Exception) -> bool:
    """Whether a device, or this machine, had no memory left.

    accelerate knows most of the texts that libraries have for it.
    """
    return (
        isinstance(error, MemoryError)
        or should_reduce_batch_size(error)
        or any(text in str(error) for text in ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED"))
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
