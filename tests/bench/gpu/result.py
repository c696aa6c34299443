"""The result of a part: a small JSON file that is rewritten with every new figure.

The file holds every figure measured so far, even if the part reaches its time limit or the machine
goes away.
"""

from __future__ import annotations

import json
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

from bench.gpu.machine import machine

from regreason_plugin.core.whole_files import atomic_writer

# The states of a part. If a file still says RUNNING after its process has ended, it was cut off.
RUNNING = "running"
DONE = "done"
STOPPED = "stopped at its time limit"
SKIPPED = "skipped"
OUT_OF_MEMORY = "out of memory"
FAILED = "failed"

_MEMORY_WORDS = ("out of memory", "OutOfMemoryError", "can't allocate memory")


class SkipPart(Exception):  # noqa: N818  # skipping a part is not an error
    """The part cannot run here; the message says why."""


class TimeIsUpError(BaseException):
    """The part has reached its time limit.

    Not an `Exception`, because libraries catch those and try again.
    """


class Result:
    """The figures of one part so far.

    Args:
        file: The JSON file that holds the figures.
        values: Values that are known before the measurement.
    """

    def __init__(self, file: Path, **values: Any) -> None:
        self.file = file
        self.values: dict[str, Any] = {**values, "rows": []}

    def update(self, **values: Any) -> None:
        """Add values of the whole part, and rewrite the file."""
        self.values |= values
        with atomic_writer(self.file) as stream:
            stream.write(json.dumps(self.values, indent=1).encode("utf-8") + b"\n")

    def put_row(self, row: dict[str, Any]) -> None:
        """Add a row to the part's table, or replace the row with the same name."""
        others = [one for one in self.values["rows"] if one["name"] != row["name"]]
        self.update(rows=[*others, row])


def run_part(
    part: str,
    shape: str,
    seconds: float,
    out: Path,
    measure: Callable[[Result], None],
    device: str,
) -> Result:
    """Measure a part within a time limit, and write its figures and its final state.

    Args:
        part: The part's name.
        shape: The name of the model's shape.
        seconds: The time limit, in seconds.
        out: The folder of the result files.
        measure: Function that measures, and adds each figure to the result at once.
        device: ``cuda`` or ``cpu``.

    Returns:
        The result, with the part's state and, unless it is done, the reason.
    """
    out.mkdir(parents=True, exist_ok=True)
    started = perf_counter()
    result = Result(out / f"{part}-{shape}.json", part=part, shape=shape, limit=seconds)
    result.update(state=RUNNING, date=datetime.now(UTC).date().isoformat(), reason="")
    state, reason = DONE, ""
    try:
        with time_limit(seconds):
            if find_spec("torch") is None:
                raise ModuleNotFoundError("No module named 'torch'", name="torch")
            result.update(machine=machine())
            if device == "cuda" and result.values["machine"]["card"] is None:
                raise SkipPart("PyTorch finds no CUDA GPU")
            measure(result)
    except TimeIsUpError:
        state, reason = STOPPED, f"the part reached its time limit of {seconds:.0f} s"
    except SkipPart as error:
        state, reason = SKIPPED, str(error)
    except ModuleNotFoundError as error:
        state, reason = SKIPPED, f"the module {error.name} is not installed"
    except Exception as error:
        traceback.print_exc()
        state = OUT_OF_MEMORY if is_out_of_memory(str(error), error) else FAILED
        reason = said_lines(str(error))[0][:300] or type(error).__name__
    result.update(state=state, reason=reason, seconds=round(perf_counter() - started, 1))
    return result


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeIsUpError` in the block after some seconds."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeIsUpError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def is_out_of_memory(text: str, error: BaseException | None = None) -> bool:
    """Return whether an error, or a process's output, reports that memory ran out."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "OutOfMemoryError" in names or any(words in text for words in _MEMORY_WORDS)


def said_lines(text: str) -> list[str]:
    """The lines of a text that are not blank; one empty line if there are none."""
    return [line.strip() for line in text.splitlines() if line.strip()] or [""]
