"""A killed demo continues where it stopped, and runs the commands that it prints."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CHECKOUT = Path(__file__).parents[2]
COMMAND = "import sys; from regreason_plugin.cli import main; sys.exit(main())"


class Demo:
    """`regreason demo` in a separate process group, with its output read line by line."""

    def __init__(self, out: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", COMMAND, "demo", "--out", str(out)],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "COLUMNS": "400"},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def wait_for(self, reached: Callable[[], bool], seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.2)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def test_a_killed_demo_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    book = out / "stages.json"
    first = Demo(out)
    # Kill it during the first training, when its log exists but its adapter does not.
    log = out / "logs" / "train-label_only.log"
    first.wait_for(lambda: log.is_file() and log.stat().st_size > 0)
    first.kill()
    finished = json.loads(book.read_text())
    assert list(finished) == ["data"]
    assert not (out / "models" / "label_only" / "regreason.json").exists()
    manifest = (out / "data" / "manifest.json").stat()

    second = Demo(out)
    second.wait_for(lambda: "train label_only" in second.text and "$ axolotl" in second.text)
    second.wait_for(lambda: log.is_file() and log.stat().st_mtime > manifest.st_mtime + 1)
    second.kill()
    head, _, tail = second.text.partition("train label_only")
    assert "done before" in head
    assert "done before" not in tail
    assert (out / "data" / "manifest.json").stat().st_mtime_ns == manifest.st_mtime_ns
    # A reader can type the printed command: the files that it names exist.
    typed = next(line for line in second.lines if "$ axolotl train" in line)
    words = shlex.split(typed.split("$", 1)[1])
    assert (CHECKOUT / words[2]).is_file()
    assert (CHECKOUT / words[words.index("--sweep") + 1]).is_file()


def test_changed_inputs_are_not_taken_for_finished(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    first = Demo(out)
    first.wait_for((out / "stages.json").is_file)
    first.kill()
    book = json.loads((out / "stages.json").read_text())
    book["data"]["inputs"] = "of an older version"
    (out / "stages.json").write_text(json.dumps(book))
    second = Demo(out)
    second.wait_for(lambda: "[2/" in second.text)
    second.kill()
    assert "done before" not in second.text
