"""What work takes: time and memory, and the machine that they are of."""

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

# Beside the results of a method of `regreason baselines`.
COST = "cost.json"
# Of lm-eval's results: the key of ``config`` that has it.
SCORING = "regreason_scoring"
_PACKAGES = ("regreason", "lm_eval", "scikit-learn", "torch", "transformers", "peft")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Machine(_Part):
    """Where it ran; seconds and memory are of this machine alone.

    Attributes:
        system: Operating system and processor.
        cores: Of the CPU.
        threads: That PyTorch may use; scikit-learn's fits use one.
        gpu: Its name; None on a CPU.
    """

    system: str
    cores: int
    threads: int
    gpu: str | None

    @classmethod
    def here(cls) -> Machine:
        """This one."""
        import torch

        return cls(
            system=f"{platform.system()} {platform.machine()}",
            cores=os.cpu_count() or 1,
            threads=torch.get_num_threads(),
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        )

    def describe(self) -> str:
        """For a reader."""
        return self.gpu or f"{self.system}, {self.threads} of {self.cores} cores"


class Memory(_Part):
    """The most that a process had.

    Attributes:
        peak_memory_mib: Main memory of the whole process, libraries included.
        peak_gpu_mib: Memory of PyTorch's tensors on the process's GPU; None on a CPU.
    """

    peak_memory_mib: float
    peak_gpu_mib: float | None

    @classmethod
    def so_far(cls) -> Memory:
        """Of this process."""
        import torch

        gpu = torch.cuda.is_available()
        return cls(
            peak_memory_mib=_peak_memory() / 2**20,
            peak_gpu_mib=torch.cuda.max_memory_allocated() / 2**20 if gpu else None,
        )


class TrainingCost(Memory):
    """What a training took; of several processes, memory is that of the first.

    A sweep in one process (Axolotl's ``--launcher python``) has the memory of all its trainings so
    far.

    Attributes:
        seconds: From the first step to the last, validation and checkpoints included; of a
            resumed training, of all its parts as far as they were kept. Not loading a model.
        tokens: Of prompts and targets that were read, as often as they were, padding left out;
            None where the batches do not tell padding from text.
        machine: Where it ran, or ended.
    """

    seconds: float
    tokens: int | None
    machine: Machine


class ScoringCost(Memory):
    """What scoring took; of several processes, the first one's part.

    Attributes:
        seconds: In the model; not loading it, nor the metrics.
        documents: How many were scored in them.
        machine: Where it ran.
    """

    seconds: float
    documents: int
    machine: Machine


class ScoringClock:
    """Time spent in a model, and the documents it was spent on."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._documents: set[tuple[str | None, int | None]] = set()

    @contextmanager
    def on(self, requests: Sequence[Any]) -> Iterator[None]:
        """Count what is done within, for these requests of lm-eval."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started
        # (A document has a request a label; one that explains first has more beside them.)
        self._documents.update((request.task_name, request.doc_id) for request in requests)

    @property
    def documents(self) -> int:
        """How many it was."""
        return len(self._documents)

    def cost(self) -> ScoringCost:
        """With this process's memory, and this machine."""
        return ScoringCost(
            seconds=self.seconds,
            documents=self.documents,
            machine=Machine.here(),
            **Memory.so_far().model_dump(),
        )


class MethodCost(Memory):
    """What a method of `regreason baselines` took, in a process of its own.

    Attributes:
        method: Its name.
        seed: Of its training; None of a method without a random draw.
        training_seconds: Reading rows, every candidate that validation chose among, and that
            choice; not loading a model. 0 of what is not trained.
        training_tokens: Tokens read in training, padding and validation left out, as often as
            they were read; None of a method without a tokenizer.
        training_rows: Rows read in training, likewise.
        documents: How many were scored.
        scoring_ms: Milliseconds a document in the model; not loading it, nor the metrics.
        machine: Where it ran.
        versions: Of the packages that matter.
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
        """Write ``cost.json``, which comes last: where it is, the method has finished."""
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
    """The cost of a method, with this process's memory and this machine."""
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
    """The most main memory that this process has had, in bytes."""
    status = Path("/proc/self/status")
    # Linux counts into ru_maxrss what the parent had when it started the child.
    if status.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
