"""Part `scorer`: lm-eval's `hf`, `regreason-hf`, and `regreason-hf` with probes.

All three score the requests of the eighteen tasks (tests/bench/bench_scorer.py) at batch size
`auto`. The first round warms up: `hf` searches for its batch size, and `regreason-hf` compares
packed rows with plain ones. The rounds after it are timed; in each, the three ways take turns.
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
    """Score in each way, round after round, and record speed, memory and differences.

    Args:
        result: Receives the figures.
        shape: The model's shape, a key of `model_shapes.WORDS`.
        device: The model's device, ``cuda`` or ``cpu``.
        smollm2: Folder of SmolLM2; None if there is none.
        documents: Number of documents per task.
        rounds: Number of timed rounds.
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
    """The largest absolute difference between the log-likelihoods of the same requests."""
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
    """Peak memory since creation: of PyTorch's tensors on a GPU, or of this process on a CPU."""

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
        """Wait until the GPU has finished its work."""
        if self._cuda:
            self._cuda.synchronize()

    def mib(self) -> float:
        """The peak since creation, in MiB."""
        from bench.bench_scorer import peak_mib

        return self._cuda.max_memory_allocated() / MIB if self._cuda else peak_mib()
