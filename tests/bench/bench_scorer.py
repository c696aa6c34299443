"""`regreason-hf` compared with `hf` on the 18 tasks: speed, memory, and the cost of the probes.

A random model of a realistic shape scores conversations of 200 to 500 tokens on three axes. Times
are measured in one process in which the ways take turns; memory is measured in a new process for
each way, because a process's peak never falls. Only the ratios are meaningful.

    bench_scorer.py                        vocabulary of 32,000, float32, all cores
    bench_scorer.py --vocabulary 152000    vocabulary of 152,000
    bench_scorer.py --lengths              conversations of 1, 2, 4 and 8 times the length

For a GPU, see tests/bench/gpu.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from helpers.long_conversations import LENGTHS, TOKENIZER, build_data
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from regreason_plugin.core.cost import Memory
from regreason_plugin.evaluate import scorer
from regreason_plugin.evaluate.model import DEFAULT_PROBES, RegReasonHF
from regreason_plugin.probes import forward
from regreason_plugin.probes.entropy import activation_entropies, distribution_entropy

ROOT = Path(__file__).parents[2]
HF = "hf"
OURS = "regreason-hf, no probes"
LIMIT = "limit: a bare forward pass"
CHEAP = "with probes output, label, activation, logit lens"
ALL = "with all probes, including matrix entropy"
HIDDEN = "probes without matrix, by output_hidden_states"
NAMES = (HF, OURS, LIMIT, CHEAP, ALL, HIDDEN)
Batch = tuple[torch.Tensor, Sequence[int], Sequence[int]]


# --- requests ---------------------------------------------------------------------------


class Listening(LM):  # type: ignore[misc]
    """A model that records the requests of the tasks and scores nothing."""

    requests: list[Any]

    def loglikelihood(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        """Record the requests."""
        self.requests = requests
        return [(0.0, False)] * len(requests)

    loglikelihood_rolling = generate_until = loglikelihood


def requests_of(each: int, times: int) -> list[Any]:
    """lm-eval's requests for the 18 tasks.

    Args:
        each: Documents per task.
        times: Factor of the conversations' length.
    """
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        # A third of the conversations are the test set.
        build_data(data, 5 * each, times)
        manager = TaskManager(
            include_path=str(ROOT / "lm_eval_tasks"),
            include_defaults=False,
            metadata={"data_dir": str(data)},
        )
        names = [name for name in manager.all_subtasks if name.startswith("regreason_")]
        listening = Listening()
        simple_evaluate(
            model=listening, tasks=names, task_manager=manager, limit=each, bootstrap_iters=0
        )
    return listening.requests


# --- the models --------------------------------------------------------------------------


def model_of(args: argparse.Namespace, times: int) -> Any:
    """A random model of the shape that the command line asks for."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=args.vocabulary,
        hidden_size=args.width,
        intermediate_size=args.width * 11 // 4,
        num_hidden_layers=args.layers,
        num_attention_heads=args.width // 64,
        num_key_value_heads=max(args.width // 256, 1),
        max_position_embeddings=max(2048, 2 * times * LENGTHS[1]),
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def scorer_of(name: str, model: Any, hf_batch: int) -> Callable[[list[Any]], Any]:
    """The scoring function of one way.

    Args:
        name: One of `NAMES`.
        model: The model.
        hf_batch: Batch size of `hf`.
    """
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    if name == HF:
        return HFLM(model, tokenizer=tokenizer, batch_size=hf_batch).loglikelihood
    probe = {OURS: "none", LIMIT: "none", ALL: "all"}.get(name, DEFAULT_PROBES)
    lm = RegReasonHF(
        model, tokenizer=tokenizer, batch_size="auto", max_batch_size=None, probe=probe
    )
    if name == LIMIT:
        batches: list[Batch] = []
        return lambda requests: bare_forward(model, batches or batches_of(lm, requests, batches))
    if name == HIDDEN:

        def score(requests: list[Any]) -> None:
            with passing(through_hidden_states):
                lm.loglikelihood(requests)

        return score
    return lm.loglikelihood


@contextmanager
def passing(function: Any) -> Iterator[None]:
    """Let the scorer make its forward passes with another function in the block."""
    original = scorer.logits_at
    scorer.logits_at = function
    try:
        yield
    finally:
        scorer.logits_at = original


def batches_of(lm: RegReasonHF, requests: list[Any], batches: list[Batch]) -> list[Batch]:
    """Score once, and record the tokens of each batch and the positions that need logits."""

    def listening(model: Any, inputs: Any, rows: Any, columns: Any, *others: Any) -> Any:
        batches.append((inputs["input_ids"], rows, columns))
        return forward.logits_at(model, inputs, rows, columns, *others)

    lm.loglikelihood(requests)  # its first call also compares packed rows with plain ones
    with passing(listening):
        lm.loglikelihood(requests)
    return batches


@torch.no_grad()
def bare_forward(model: Any, batches: list[Batch]) -> None:
    """The indispensable work: one pass over the unique tokens, and the head where needed."""
    for ids, rows, columns in batches:
        hidden = model.model(ids, use_cache=False).last_hidden_state
        model.lm_head(hidden[list(rows), list(columns)]).float().logsumexp(-1).sum().item()


@torch.no_grad()
def through_hidden_states(
    model: Any, inputs: Any, rows: Any, columns: Any, decisions: Any, *_: Any
) -> Any:
    """All probes but matrix, computed without hooks from all hidden states and all logits."""
    out = model(**inputs, use_cache=False, output_hidden_states=True)
    logits = out.logits[list(rows), list(columns)]
    at = [one.position for one in decisions]
    where = torch.tensor(rows)[at], torch.tensor(columns)[at]
    if at:
        *before, last = [hidden[where] for hidden in out.hidden_states]
        for states in before:
            distribution_entropy(model.lm_head(model.model.norm(states)))
        distribution_entropy(model.lm_head(last))
        activation_entropies(torch.stack([*before, last]))
        distribution_entropy(logits[at])
    return logits, [{} for _ in decisions]


# --- measuring ------------------------------------------------------------------------------


def seconds_of(names: Sequence[str], args: argparse.Namespace, times: int) -> dict[str, float]:
    """Median seconds of each way; the ways take turns, and a first round warms up."""
    requests, model = requests_of(args.documents, times), model_of(args, times)
    runs = {name: scorer_of(name, model, args.hf_batch) for name in names}
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(args.rounds + 1):
        for name, run in runs.items():
            print(f"round {number} of {args.rounds}: {name}", file=sys.stderr)
            started = time.perf_counter()
            run(requests)
            if number:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


def peak_mib() -> float:
    """Peak main memory of this process in MiB since `forget_peak`."""
    return Memory.so_far().peak_memory_mib


def forget_peak() -> None:
    """Reset the peak to the memory that the process has now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory_of(name: str) -> dict[str, float]:
    """Peak memory of a process that scores once in this way, and its memory before; in MiB."""
    command = [sys.executable, __file__, "--memory-of", name, *sys.argv[1:]]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_memory(args: argparse.Namespace) -> None:
    """Measure for `memory_of`, in the process that it starts."""
    requests, model = requests_of(args.documents, 1), model_of(args, 1)
    run = scorer_of(args.memory_of, model, args.hf_batch)
    forget_peak()
    before = peak_mib()
    run(requests)
    print(json.dumps({"before": before, "peak": peak_mib()}))


def table(args: argparse.Namespace) -> None:
    """Print the speed and memory of each way."""
    seconds = seconds_of(NAMES, args, 1)
    peaks = {name: memory_of(name) for name in NAMES if name != LIMIT}
    documents = 18 * args.documents
    row("", "seconds", "docs/s", "speed / hf", "speed / limit", "time / no probes",
        "peak MiB", "/ hf", "/ no probes", "above the model, MiB", "/ hf")  # fmt: skip
    row("---", *["---:"] * 10)
    for name, taken in seconds.items():
        cells = [
            f"{taken:.2f}",
            f"{documents / taken:.1f}",
            f"{seconds[HF] / taken:.2f}",
            f"{seconds[LIMIT] / taken:.2f}",
            f"{taken / seconds[OURS]:.2f}",
        ]
        if name in peaks:
            peak, hf, ours = (peaks[one]["peak"] for one in (name, HF, OURS))
            above, above_hf = (peaks[one]["peak"] - peaks[one]["before"] for one in (name, HF))
            cells += [f"{peak:.0f}", f"{peak / hf:.2f}", f"{peak / ours:.2f}"]
            cells += [f"{above:.0f}", f"{above / above_hf:.2f}"]
        row(name, *cells, *[""] * (10 - len(cells)))


def row(*cells: str) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def lengths_table(args: argparse.Namespace) -> None:
    """Print how the time grows with the length of the conversations."""
    row("length", "hf, seconds", "/ at 1", "regreason-hf, seconds", "/ at 1", "speed / hf")
    row(*["---:"] * 6)
    first: dict[str, float] = {}
    for times in (1, 2, 4, 8):
        seconds = seconds_of([HF, OURS], args, times)
        first = first or seconds
        cells = [f"{times} x"]
        for name in (HF, OURS):
            cells += [f"{seconds[name]:.1f}", f"{seconds[name] / first[name]:.2f}"]
        row(*cells, f"{seconds[HF] / seconds[OURS]:.2f}")


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--documents", type=int, default=2, help="documents per task")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hf-batch", type=int, default=16)
    parser.add_argument("--lengths", action="store_true")
    parser.add_argument("--memory-of", choices=NAMES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        measure_memory(args)
        return
    print(
        f"{date.today()}, {os.cpu_count()} cores, {cpu_name()}; Llama of width {args.width}, "
        f"{args.layers} layers, vocabulary {args.vocabulary}, float32; torch {torch.__version__}, "
        f"{18 * args.documents} documents, hf's batches of {args.hf_batch}, "
        f"median of {args.rounds}\n",
        flush=True,
    )
    (lengths_table if args.lengths else table)(args)


def cpu_name() -> str:
    """The CPU's model name, from the kernel."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.*)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
