"""Time and memory of trainings and scorings, and the machine on which they were measured."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from regreason_plugin.core.whole_files import atomic_writer

# The file that `regreason baselines` writes next to a method's results.
COST = "cost.json"
# The key below ``config`` in lm-eval's results that holds a `ScoringCost`.
SCORING = "regreason_scoring"
_PACKAGES = ("regreason", "lm_eval", "scikit-learn", "torch", "transformers", "peft")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Machine(_Part):
    """The machine on which seconds and memory were measured.

    Attributes:
        system: Operating system and processor.
        cores: Number of CPU cores.
        threads: Number of threads that PyTorch may use; scikit-learn's fits use one.
        gpu: Name of the GPU; None without one.
    """

    system: str
    cores: int
    threads: int
    gpu: str | None

    @classmethod
    def here(cls) -> Machine:
        """Describe the machine that runs this process."""
        import torch

        return cls(
            system=f"{platform.system()} {platform.machine()}",
            cores=os.cpu_count() or 1,
            threads=torch.get_num_threads(),
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        )

    def describe(self) -> str:
        """The GPU's name, or the system with its threads and cores, as a phrase for reports."""
        return self.gpu or f"{self.system}, {self.threads} of {self.cores} cores"


class Memory(_Part):
    """Peak memory of a process.

    Attributes:
        peak_memory_mib: Peak main memory of the whole process, libraries included, in MiB.
        peak_gpu_mib: Peak memory of PyTorch's tensors on the process's GPU, in MiB; None without
            a GPU.
    """

    peak_memory_mib: float
    peak_gpu_mib: float | None

    @classmethod
    def so_far(cls) -> Memory:
        """Peak memory of this process until now."""
        import torch

        gpu = torch.cuda.is_available()
        return cls(
            peak_memory_mib=_peak_memory() / 2**20,
            peak_gpu_mib=torch.cuda.max_memory_allocated() / 2**20 if gpu else None,
        )


class TrainingCost(Memory):
    """Time, memory and tokens of a training.

    With several processes, the memory is that of the first process. In a sweep that runs in one
    process (Axolotl's ``--launcher python``), it is the peak over all trainings so far.

    Attributes:
        seconds: Seconds from the first step to the last, with validation and checkpoints but
            without loading the model. For a resumed training, the sum over all its parts whose
            record survived.
        tokens: Prompt and target tokens that the model read, counted once per reading, without
            padding; None if the batches do not tell padding from text.
        machine: The machine on which the training ended.
    """

    seconds: float
    tokens: int | None
    machine: Machine


class ScoringCost(Memory):
    """Time and memory of scoring; with several processes, those of the first process.

    Attributes:
        seconds: Seconds in the model, without loading it and without computing the metrics.
        documents: Number of documents that were scored in these seconds.
        machine: The machine on which the process ran.
    """

    seconds: float
    documents: int
    machine: Machine


class ScoringClock:
    """A stopwatch for the time in a model, which also counts the documents that were scored."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._documents: set[tuple[str | None, int | None]] = set()

    @contextmanager
    def on(self, requests: Sequence[Any]) -> Iterator[None]:
        """Add the time of the ``with`` block, in which these requests of lm-eval are scored."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started
        # A set, because a document has one request per label, and further requests if the model
        # explains first.
        self._documents.update((request.task_name, request.doc_id) for request in requests)

    @property
    def documents(self) -> int:
        """The number of distinct documents that were scored."""
        return len(self._documents)

    def cost(self) -> ScoringCost:
        """The cost until now, with this process's peak memory and this machine."""
        return ScoringCost(
            seconds=self.seconds,
            documents=self.documents,
            machine=Machine.here(),
            **Memory.so_far().model_dump(),
        )


class MethodCost(Memory):
    """Time, memory and tokens of a method of `regreason baselines`, which runs in its own process.

    Attributes:
        method: The method's name.
        seed: Seed of the training; None for a method without random draws.
        training_seconds: Seconds for reading the rows, for training every candidate and for
            choosing among the candidates on the validation rows, without loading the model; 0
            for a method that is not trained.
        training_tokens: Tokens read in training, counted once per reading, without padding and
            validation; None for a method without a tokenizer.
        training_rows: Rows read in training, counted once per reading, without validation.
        documents: Number of documents that were scored.
        scoring_ms: Milliseconds per document in the model, without loading it and without
            computing the metrics.
        machine: The machine on which the method ran.
        versions: Versions of the packages that affect the figures, by name.
    """

    method: str
    seed: int | None = None
    training_seconds: float
    training_tokens: int | None
    training_rows: int
    documents: int
    scoring_ms: float
    machine: Machine
    versions: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write ``cost.json``.

        A method writes this file last, so a folder that holds it belongs to a finished method.
        """
        with atomic_writer(folder / COST) as stream:
            stream.write(self.model_dump_json(indent=2).encode("utf-8") + b"\n")


def measured(
    method: str,
    *,
    seed: int | None = None,
    training_seconds: float = 0.0,
    training_tokens: int | None = 0,
    training_rows: int = 0,
    documents: int,
    scoring_seconds: float,
) -> MethodCost:
    """The cost of a method, with this process's peak memory and this machine filled in."""
    return MethodCost(
        method=method,
        seed=seed,
        training_seconds=training_seconds,
        training_tokens=training_tokens,
        training_rows=training_rows,
        documents=documents,
        scoring_ms=1000 * scoring_seconds / documents,
        machine=Machine.here(),
        versions={package: version(package) for package in _PACKAGES},
        **Memory.so_far().model_dump(),
    )


def read_cost(folder: Path) -> MethodCost:
    """Read ``cost.json`` of a finished method."""
    return MethodCost.model_validate_json((folder / COST).read_bytes())


def _peak_memory() -> int:
    """Peak main memory of this process, in bytes."""
    status = Path("/proc/self/status")
    # Not ru_maxrss: on Linux it includes the parent's memory at the moment of the fork.
    if status.is_file() and (peak_kb := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(peak_kb[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
