"""Scores continuations and measures probes at the deciding position, in one forward pass.

The input is a list of contexts with their continuations. Sequences that share a prefix are
packed into rows (`prefix_tree`), and rows of similar length into batches. Each batch is one
forward pass that computes logits only at the positions that are needed (`probes.forward`).
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn

from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.label_requests import (
    Context,
    Continuation,
    Reading,
    RequestsBySequence,
)
from regreason_plugin.packing.packing_check import PackingCheck, difference
from regreason_plugin.packing.prefix_tree import (
    LONGEST_ROW,
    PrefixRow,
    Tokens,
    packed_rows,
    single_rows,
)
from regreason_plugin.packing.row_batch import (
    OutOfMemoryError,
    batch_inputs,
    naming_out_of_memory_batch,
)
from regreason_plugin.probes.anatomy import ProbeError, text_config
from regreason_plugin.probes.forward import Decision, ProbeValues, logits_at

# Tokens per batch if no batch size is given. Larger batches are not faster.
TOKENS_ON_A_CPU = 4096
TOKENS_ON_A_GPU = 32768
# Logits per batch, at most: a rolling likelihood needs them at every position.
LOGITS = 2**28


class Scorer:
    """Scores contexts with one model, in batches that fit into memory.

    Args:
        model: A causal LM, in eval mode.
        device: The device of the model's input.
        probes: The probes to measure at the deciding position.
        optional_probes: The probes among these to leave out, with a message, if the model's
            layers cannot be probed. If another probe cannot be measured, that is an error.
        alpha: The order of the matrix entropy.
        batch_rows: Rows per batch; None for as many as the number of tokens per batch allows.
        max_rows: Rows per batch, at most; None for no limit.
        autocast: The dtype of the forward pass, if not the model's own.
        softmax_dtype: The dtype of the softmax, if more precise than float32.

    Attributes:
        packs: Whether sequences that share a prefix are packed into one row.
        tokens_read: Number of tokens that went through the model, without padding and checks.
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
        self._check = PackingCheck()

    def score(self, contexts: Iterable[Context]) -> Iterator[Context]:
        """Score all continuations, the longest rows first.

        Yields:
            Each context, as soon as its scores and probes are complete.
        """
        requests = RequestsBySequence(contexts)
        queue = self._plan_rows(requests.continuations, requests)
        while queue:
            batch = self._take(queue, requests)
            reading: Reading | None = None
            failed: Sequence[PrefixRow] = ()
            try:
                reading = self._read(batch, requests, self.probes)
                if self.packs and self._packing_made_nan(reading, batch, requests):
                    reading = None
            except ProbeError as error:
                self._leave_out_probes(error)
                queue.extendleft(reversed(batch))
                continue
            except OutOfMemoryError as error:
                failed = error.batch
            if failed:
                # (Not inside the handler: there the error keeps the failed pass's tensors alive.)
                self._halve(failed)
            if reading is None:
                rest = chain.from_iterable(row.paths for row in (*batch, *queue))
                queue = self._plan_rows(rest, requests)
                continue
            self.tokens_read += sum(len(row.tokens) for row in batch)
            yield from requests.answer(reading)

    def _plan_rows(
        self, sequences: Iterable[Tokens], requests: RequestsBySequence
    ) -> deque[PrefixRow]:
        """The rows to read, packed if the model reads packed rows correctly."""
        sequences = list(sequences)
        while True:
            rows = self._rows(sequences)
            if not self.packs:
                return deque(rows)
            rows_to_check = self._check.rows_to_check(rows)
            if not rows_to_check:
                return deque(rows)
            mistake: str | None = None
            failed: Sequence[PrefixRow] = ()
            try:
                mistake = self._difference(rows_to_check, requests)
            except OutOfMemoryError as error:
                failed = error.batch
            if failed:
                self._halve(failed)
            elif mistake is None:
                self._check.trust(rows_to_check)
                return deque(rows)
            else:
                self._stop_packing(mistake)

    def _difference(self, rows: Sequence[PrefixRow], requests: RequestsBySequence) -> str | None:
        """The error of packed rows against single rows, as in `packing_check.difference`."""

        def read(
            batch: Sequence[PrefixRow], chosen: set[Tokens], padded_to: int
        ) -> dict[Tokens, Tensor]:
            return self._log_probabilities(batch, requests, chosen, padded_to)

        dtype: torch.dtype = self.autocast or self.model.dtype  # type: ignore[assignment]
        return difference(rows, self._batches(deque(rows), requests), read, dtype)

    def _batches(
        self, queue: deque[PrefixRow], requests: RequestsBySequence
    ) -> Iterator[list[PrefixRow]]:
        while queue:
            yield self._take(queue, requests)

    def _stop_packing(self, why: str) -> None:
        self.packs = False
        say(
            f"{type(self.model).__name__} cannot read several prompts in one row ({why}); "
            "continuing with one prompt per row, as hf does"
        )

    def _leave_out_probes(self, error: ProbeError) -> None:
        """Continue without the optional probes, which need access to the model's layers.

        Raises:
            ProbeError: No probe is optional, or some answers already have probes.
        """
        remaining = self.probes - self.optional_probes
        if remaining == self.probes or self.tokens_read:
            raise error
        say(f"no probes by layer: {error}")
        self.probes = remaining

    def _rows(self, sequences: Iterable[Tokens]) -> list[PrefixRow]:
        """The sequences as rows, packed if `packs`, the longest row first."""
        if self.packs:
            linear = 6 * text_config(self.model).hidden_size
            rows = packed_rows(sequences, linear, longest=min(self.batch_tokens, LONGEST_ROW))
        else:
            rows = single_rows(sequences)
        return sorted(rows, key=lambda row: -len(row.tokens))

    def _take(self, queue: deque[PrefixRow], requests: RequestsBySequence) -> list[PrefixRow]:
        """The next batch: rows of similar length, as many as the limits allow."""
        vocabulary = text_config(self.model).vocab_size
        batch = [queue.popleft()]
        logits = vocabulary * requests.positions(batch[0])
        while queue and (self.max_rows is None or len(batch) < self.max_rows):
            logits += vocabulary * requests.positions(queue[0])
            if self.batch_rows is not None:
                full = len(batch) >= self.batch_rows
            else:
                tokens = len(batch[0].tokens) * (len(batch) + 1)
                full = tokens > self.batch_tokens or logits > LOGITS
            if full:
                break
            batch.append(queue.popleft())
        return batch

    def _log_probabilities(
        self,
        batch: Sequence[PrefixRow],
        requests: RequestsBySequence,
        chosen: set[Tokens],
        padded_to: int,
    ) -> dict[Tokens, Tensor]:
        """The next-token log-probabilities of some sequences of a batch.

        Returns:
            By sequence, ``[n, V]`` at the n positions whose next token is scored.
        """
        places, _, _ = self._positions(batch, requests)
        by_sequence = {}
        with naming_out_of_memory_batch(batch):
            logits, _ = self._forward(batch, places, padded_to=padded_to)
            for number, row in enumerate(batch):
                for sequence in chosen & row.paths.keys():
                    longest = max(len(one.tokens) for one in requests.continuations[sequence])
                    wanted = [places[number, place] for place in row.paths[sequence][-longest:]]
                    by_sequence[sequence] = (
                        logits[wanted].to(self.softmax_dtype).log_softmax(dim=-1)
                    )
        return by_sequence

    def _packing_made_nan(
        self, reading: Reading, batch: Sequence[PrefixRow], requests: RequestsBySequence
    ) -> bool:
        """Whether packed rows gave a NaN where single rows give a number.

        If so, packing stops.
        """
        with_nan = {
            continuation.sequence
            for continuation, (score, _) in reading.answers.items()
            if score != score
        }
        shared = chain.from_iterable(row.paths for row in batch if len(row.paths) > 1)
        suspect = next((sequence for sequence in shared if sequence in with_nan), None)
        if suspect is None:
            return False
        plain = self._read(single_rows([suspect]), requests)
        if any(math.isnan(score) for score, _ in plain.answers.values()):
            return False
        self._stop_packing("log-likelihoods are NaN")
        return True

    def _halve(self, batch: Sequence[PrefixRow]) -> None:
        """Halve the size of a batch after one did not fit into memory.

        Raises:
            UserError: A single sequence does not fit.
        """
        clear_device_cache(garbage_collection=True)
        tokens = len(batch) * len(batch[0].tokens)
        if len(batch) > 1 and self.batch_rows is not None:
            self.batch_rows = len(batch) // 2
            say(f"out of memory; continuing with {self.batch_rows} rows per batch")
        elif len(batch) > 1 or batch[0].branches:
            self.batch_tokens = tokens // 2
            say(f"out of memory; continuing with {self.batch_tokens} tokens per batch")
        else:
            raise UserError(
                f"out of memory with a single sequence of {tokens} tokens; use a smaller dtype or "
                "load_in_4bit=True in --model_args, or shorter prompts"
            )

    def _read(
        self,
        batch: Sequence[PrefixRow],
        requests: RequestsBySequence,
        probes: frozenset[str] = frozenset(),
    ) -> Reading:
        """Run a batch through the model."""
        places, steps, deciding = self._positions(batch, requests)
        contexts = [context for context, _ in deciding] if probes else []
        decisions = [decision for _, decision in deciding] if probes else []
        with naming_out_of_memory_batch(batch):
            logits, values = self._forward(batch, places, decisions, probes)
            answers = _answers(logits, list(steps.values()), self.softmax_dtype)
        return Reading(
            dict(zip(steps, answers, strict=True)), list(zip(contexts, values, strict=True))
        )

    def _positions(
        self, batch: Sequence[PrefixRow], requests: RequestsBySequence
    ) -> tuple[
        dict[tuple[int, int], int],
        dict[Continuation, list[tuple[int, int]]],
        list[tuple[Context, Decision]],
    ]:
        """The positions of a batch at which logits are needed.

        Returns:
            places: Each position, as (row, column), and its index among the logits.
            steps: For each continuation, one pair per token: the index of the position that
                predicts the token, and the token.
            deciding: Each context that is decided in this batch, with its decision.
        """
        places: dict[tuple[int, int], int] = {}
        steps: dict[Continuation, list[tuple[int, int]]] = {}
        for number, row in enumerate(batch):
            for sequence, path in row.paths.items():
                for continuation in requests.continuations[sequence]:
                    tokens = continuation.tokens
                    steps[continuation] = [
                        (places.setdefault((number, place), len(places)), token)
                        for place, token in zip(path[-len(tokens) :], tokens, strict=True)
                    ]
        deciding = []
        for number, row in enumerate(batch):
            for sequence, path in row.paths.items():
                for place, context in requests.deciding[sequence]:
                    # A continuation has a token after this position, so `places` holds it.
                    index = places[number, path[place]]
                    decision = Decision(index, path[: place + 1], context.choices)
                    deciding.append((context, decision))
        return places, steps, deciding

    def _forward(
        self,
        batch: Sequence[PrefixRow],
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


def _answers(
    logits: Tensor, steps: Sequence[Sequence[tuple[int, int]]], dtype: torch.dtype
) -> list[tuple[float, bool]]:
    """Each continuation's log-likelihood, and whether greedy decoding gives the continuation.

    Args:
        logits: ``[n, V]``.
        steps: For each continuation, pairs of an index into n and the token that follows.
        dtype: The dtype of the softmax.
    """
    # A few positions at a time, so that no second copy of all logits is in memory.
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
    """Print a message to the user on standard error."""
    print(f"regreason: {text}", file=sys.stderr)
