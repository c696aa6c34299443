"""A folder of batch files, for a cluster without a server.

A batch is ``NAME.jsonl``; a program such as vLLM's `run-batch` makes ``NAME.results.jsonl`` of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from regreason_plugin.annotate.batches import Progress, by_custom_id
from regreason_plugin.annotate.calls import Batch
from regreason_plugin.annotate.faults import status_fault
from regreason_plugin.annotate.reply import Reply, read_reply
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import atomic_writer, writing


class BatchFolder:
    """A folder as a `BatchPlace`; the id of a batch is the absolute path of its file.

    Args:
        folder: The folder; created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)

    async def send(self, name: str, lines: bytes, started: Callable[[str], None]) -> str:
        """Write the requests, whole or not at all."""
        path = self._folder / f"{name}.jsonl"
        started(str(path))
        with atomic_writer(path) as stream:
            stream.write(lines)
        return str(path)

    async def find(self, batch: Batch) -> str | None:
        """The path of a batch's file if it was written."""
        return batch.file if batch.file and Path(batch.file).exists() else None

    async def progress(self, batch_id: str) -> Progress:
        """Compare the numbers of requests and of results; no file of requests means cancelled.

        Raises:
            UserError: The folder is gone.
        """
        requests = Path(batch_id)
        if not requests.parent.is_dir():
            raise UserError("is gone; move the folder with the batch files back", path=batch_id)
        results = requests.with_suffix(".results.jsonl")
        done = _count(results)
        files = (str(results),) if results.exists() else ()
        if not requests.exists():
            return Progress("cancelled", files=files)
        if done < (number := _count(requests)):
            return Progress(f"{done:,} of {number:,} results in {results}")
        return Progress("completed", files=files)

    async def results(self, progress: Progress) -> dict[str, Any]:
        """Read the results of a batch."""
        return by_custom_id(
            line for file in progress.files for line in Path(file).read_bytes().splitlines()
        )

    def read(self, response: httpx2.Response) -> Reply:
        """Read the reply out of a response."""
        if not response.is_success:
            raise status_fault(response)
        return read_reply("application/json", response.content)

    async def close(self) -> None:
        """Nothing is open."""


def _count(path: Path) -> int:
    """The number of complete lines; 0 if there is no file."""
    return path.read_bytes().count(b"\n") if path.exists() else 0
