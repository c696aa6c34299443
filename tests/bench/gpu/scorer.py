"""Part `scorer`: `regreason-hf` against lm-eval's `hf`, and then with probes.

Both score the requests of the eighteen tasks (tests/bench/bench_scorer.py) at batch size `auto`.
The first round warms up: `hf` looks for its batch size there, and `regreason-hf` holds packed rows
against plain ones. The rounds after it are timed, and take turns.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.gpu.model_shapes import load
from bench.gpu.result import Result

HF = "hf"
OURS = "regreason-hf"
PROBED = "regreason-hf, probes output, label, activation"
WAYS = {HF: None, OURS: "none", PROBED: "output+label+activation"}
MIB = 2**20


def measure(
    result: Result, shape: str, device: str, smollm2: Path | None, documents: int, rounds: int
) -> None:
    """Score in each way, again and again, and keep speed, memory and differences.

    Args:
        result: Where the figures go.
        shape: Of the model.
        device: Where it runs.
        smollm2: Its folder.
        documents: How many a task.
        rounds: How many are timed.
    """
    from bench.bench_scorer import requests_of

    model, tokenizer = load(shape, device, smollm2)
    requests = requests_of(documents, 1)
    asked = len({(one.task_name, one.doc_id) for one in requests})
    result.update(
        dtype=str(model.dtype).removeprefix("torch."), documents=asked, requests=len(requests)
    )
    scorers = {name: _scorer(name, model, tokenizer) for name in WAYS}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    rows: dict[str, dict[str, Any]] = {}
    reference: list[Any] = []
    for number in range(rounds + 1):
        for name, scorer in scorers.items():
            peak = _Peak(device)
            read = scorer.scorer.tokens_read if name != HF else 0
            started = perf_counter()
            answers = scorer.loglikelihood(requests)
            peak.wait()
            took = perf_counter() - started
            if number == 0:
                rows[name] = {"name": name, "first_seconds": took, "peak_mib": peak.mib()}
                if name == HF:
                    reference = answers
                else:
                    rows[name] |= {
                        "largest_difference": largest_difference(answers, reference),
                        "tokens_read": scorer.scorer.tokens_read - read,
                        "packed": scorer.scorer.packs,
                    }
            else:
                seconds[name].append(took)
                rows[name]["timed_rounds"] = number
                rows[name]["seconds"] = statistics.median(seconds[name])
                rows[name]["documents_per_second"] = asked / rows[name]["seconds"]
            result.put_row(rows[name])


def largest_difference(answers: list[Any], others: list[Any]) -> float:
    """Of the log-likelihoods of the same requests."""
    return max(abs(one[0] - other[0]) for one, other in zip(answers, others, strict=True))


def _scorer(name: str, model: Any, tokenizer: Any) -> Any:
    from lm_eval.models.huggingface import HFLM

    from regreason_plugin.evaluate.model import RegReasonHF

    if name == HF:
        return HFLM(model, tokenizer=tokenizer, batch_size="auto")
    return RegReasonHF(
        model, tokenizer=tokenizer, batch_size="auto", max_batch_size=None, probe=WAYS[name]
    )


class _Peak:
    """The most memory from now on: of PyTorch's tensors on a card, else of this process."""

    def __init__(self, device: str) -> None:
        import torch
        from bench.bench_scorer import forget_peak

        self._cuda = torch.cuda if device == "cuda" else None
        if self._cuda:
            self._cuda.empty_cache()
            self._cuda.reset_peak_memory_stats()
        else:
            forget_peak()

    def wait(self) -> None:
        """For what the card still has to do."""
        if self._cuda:
            self._cuda.synchronize()

    def mib(self) -> float:
        """Since it was made."""
        from bench.bench_scorer import peak_mib

        return self._cuda.max_memory_allocated() / MIB if self._cuda else peak_mib()
