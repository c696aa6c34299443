"""The parts `lora` and `qlora` of `make gpu` on a CPU, with a base of two small blocks."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bench.gpu import training
from bench.gpu.model_shapes import TINY
from bench.gpu.result import run_part
from helpers.axolotl import programs
from safetensors.torch import load_file

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
STEPS = 7


@pytest.fixture(autouse=True)
def _commands_are_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts look for `axolotl` and `regreason` beside the interpreter; here those are forks."""
    monkeypatch.setattr(sys, "executable", str(programs() / "python"))


def trained(part: str, folder: Path, steps: int, conversations: int = 10) -> dict[str, Any]:
    run_part(
        part,
        TINY,
        800,
        folder / "out",
        lambda result: training.measure(
            result, TINY, "cpu", folder / "scratch", steps, conversations
        ),
        "cpu",
    )
    found: dict[str, Any] = json.loads((folder / "out" / f"{part}-tiny.json").read_text())
    return found


def lines(folder: Path, part: str, number: int) -> list[dict[str, Any]]:
    file = folder / "scratch" / f"{part}-tiny-{number}" / "steps.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_both_trainings_make_their_steps(tmp_path: Path) -> None:
    found = trained("qlora", tmp_path, STEPS)
    assert found["state"] == "done", found
    assert [row["name"] for row in found["rows"]] == ["Axolotl's trainer", "with the plugin"]
    shipped = yaml.safe_load((ROOT / "axolotl_configs/gpu/mistral-7b-qlora.yml").read_text())
    rows = shipped["micro_batch_size"] * shipped["gradient_accumulation_steps"]
    adapters = []
    for number, row in enumerate(found["rows"]):
        model = next((tmp_path / "scratch" / f"qlora-tiny-{number}" / "model").parent.rglob(
            "regreason.json"))  # fmt: skip
        record = json.loads(model.read_text())
        assert (record["steps"], row["steps"], row["rows_per_step"]) == (STEPS, STEPS, rows)
        weights = load_file(model.with_name("adapter_model.safetensors"))
        moved = [float(one.abs().max()) for name, one in weights.items() if "lora_B" in name]
        assert len(moved) == 14
        assert min(moved) > 0
        adapters.append(weights)
        seconds = [one["seconds"] for one in lines(tmp_path, "qlora", number)]
        assert len(seconds) == STEPS
        # The first five steps are the warm-up.
        expected = rows / np.median(seconds[5:])
        assert row["samples_per_second"] == pytest.approx(expected)
        assert 100 < row["peak_mib"] < 1e5
    # The adapters differ: the plugin's loss is a mean over the whole step, Axolotl's is not.
    assert any(not one.equal(adapters[1][name]) for name, one in adapters[0].items())
    # The estimate is half a GiB for CUDA's context, plus a little for this small model.
    assert 0.5 <= found["estimate_gib"] < 0.7


def test_prefix_packing_trains_the_same_number_of_rows(tmp_path: Path) -> None:
    found = trained("prefix", tmp_path, STEPS)
    assert found["state"] == "done", found
    plain, packed = found["rows"]
    assert (plain["name"], packed["name"]) == ("Axolotl's trainer", "with prefix packing")
    assert plain["rows_per_step"] == packed["rows_per_step"] == 18
    record = next((tmp_path / "scratch" / "prefix-tiny-1").rglob("regreason.json"))
    assert json.loads(record.read_text())["prefix_packing"] is True


def test_the_limit_ends_a_training_that_keeps_its_steps(tmp_path: Path) -> None:
    made: list[int] = []

    def stop_after_three() -> None:
        file = tmp_path / "scratch" / "lora-tiny-0" / "steps.jsonl"
        until = time.monotonic() + 600
        while not (file.is_file() and len(file.read_text().splitlines()) >= 3):
            if time.monotonic() > until:
                return
            time.sleep(0.1)
        # The same signal as at the time limit.
        os.kill(os.getpid(), signal.SIGALRM)

    watcher = threading.Thread(target=stop_after_three)
    watcher.start()
    found = trained("lora", tmp_path, 10_000)
    watcher.join()
    assert found["state"] == "stopped at its time limit", found
    (row,) = found["rows"]
    assert row["name"] == "Axolotl's trainer"
    assert 3 <= row["steps"] < 10_000
    for _ in range(2):
        made.append(len(lines(tmp_path, "lora", 0)))
        time.sleep(3)
    # The training has ended: no further step is written.
    assert made[0] == made[1]
