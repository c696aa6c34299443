"""Parts `lora`, `qlora` and `prefix`: `axolotl train` with and without our plugin.

The config is axolotl_configs/gpu/mistral-7b-lora.yml (bfloat16), or mistral-7b-qlora.yml (4 bits).
Its base model is replaced by a random model of the same shape. The training without our plugin has
the same config and the same rows, but Axolotl's own trainer and loss
(tests/helpers/plain_plugin.py), as in bench_training.py. Part `prefix` compares prefix packing with
it, in batches of two conversations with three axes.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from bench.gpu.model_shapes import random_folder
from bench.gpu.result import Result, is_out_of_memory, said_lines

ROOT = Path(__file__).parents[3]
CONFIGS = {
    "lora": "mistral-7b-lora.yml",
    "qlora": "mistral-7b-qlora.yml",
    "prefix": "mistral-7b-lora.yml",
}
_AXOLOTL = "helpers.plain_plugin.RegReasonPlugin"
_OURS = "regreason_plugin.RegReasonPlugin"
_SIX = {"micro_batch_size": 6, "gradient_accumulation_steps": 3}
_BOTH = {"Axolotl's trainer": {"plugins": [_AXOLOTL]}, "with the plugin": {"plugins": [_OURS]}}
# The trainings of each part, with the keys that they change in the config.
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "lora": _BOTH,
    "qlora": _BOTH,
    "prefix": {
        "Axolotl's trainer": {"plugins": [_AXOLOTL], **_SIX},
        "with prefix packing": {"plugins": [_OURS], **_SIX, "regreason_prefix_packing": True},
    },
}
CLOCK = "bench.gpu.step_clock.StepClockPlugin"
# The environment variable with the path of the step clock's file.
STEP_FILE = "BENCH_STEP_FILE"
# Number of first steps that are not timed, because they compile kernels and allocate memory.
WARM_UP = 5
# Replacements for the keys that need a GPU (as in tests/train/test_shipped_configs.py).
ON_A_CPU = {
    **{"bf16": False, "tf32": False, "adapter": "lora", "load_in_4bit": False},
    **{"lora_mlp_kernel": False, "lora_qkv_kernel": False, "lora_o_kernel": False},
}


def measure(
    result: Result,
    shape: str,
    device: str,
    scratch: Path,
    steps: int,
    conversations: int,
) -> None:
    """Train in each of the part's ways; record speed, memory and the estimate of `check`.

    Args:
        result: Receives the figures; its ``part`` decides the config.
        shape: Shape of the random base model, a key of `model_shapes.RANDOM`.
        device: Device of the training, ``cuda`` or ``cpu``.
        scratch: Folder for the base model, the data and the trained models.
        steps: Number of steps of each training.
        conversations: Number of conversations per dataset.
    """
    part = result.values["part"]
    for module in ("axolotl", "peft", *(["bitsandbytes"] if part == "qlora" else [])):
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named '{module}'", name=module)
    scratch.mkdir(parents=True, exist_ok=True)
    base = random_folder(shape, device, scratch).resolve()
    data = _data(scratch, conversations).resolve()
    shipped = ROOT / "axolotl_configs" / "gpu" / CONFIGS[part]
    values = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    result.update(config=f"axolotl_configs/gpu/{shipped.name}", steps=steps)
    for number, (name, changes) in enumerate(WAYS[part].items()):
        folder = scratch / f"{part}-{shape}-{number}"
        config = _write_config(folder, values | changes, base, data, steps, device)
        if number == 0:
            result.update(estimate_gib=_estimate(config))
        with _recorded(result, name, folder / "steps.jsonl"):
            run_axolotl(config, folder)


def _data(scratch: Path, conversations: int) -> Path:
    from helpers.long_conversations import build_data

    data = scratch / f"data-{conversations}"
    if not data.is_dir():
        build_data(data, conversations, 1)
    return data


def _write_config(
    folder: Path,
    values: dict[str, Any],
    base: Path,
    data: Path,
    steps: int,
    device: str,
) -> Path:
    """Write the shipped config with another base model, other data and a number of steps."""
    values = values | {
        "plugins": [*values["plugins"], CLOCK],
        "base_model": str(base),
        "datasets": _at(values["datasets"], data),
        "test_datasets": _at(values["test_datasets"], data),
        "dataset_prepared_path": str((folder / "prepared").resolve()),
        "dataset_num_proc": 0,
        "output_dir": str((folder / "model").resolve()),
        "num_epochs": 1000,
        "max_steps": steps,
        "regreason_budget": "steps",
        "save_strategy": "no",
    }
    values.pop("evals_per_epoch")
    if device == "cpu":
        values |= ON_A_CPU
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "steps.jsonl").write_text("")
    config = folder / "config.yml"
    config.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return config


def _at(entries: list[dict[str, Any]], data: Path) -> list[dict[str, Any]]:
    return [{**one, "path": re.sub(r"^runs/mistral-7b/data", str(data), one["path"])}
            for one in entries]  # fmt: skip


def _estimate(config: Path) -> float | None:
    """The memory in GiB that `regreason check` estimates for a config; None if it prints none."""
    from helpers.axolotl import environment

    done = subprocess.run(
        [sys.executable, "-m", "regreason_plugin", "check", str(config)],
        env=environment() | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"`regreason check` refuses the config: {said_lines(done.stderr)[-1]}")
    found = re.search(r"about ([\d.]+) GiB", done.stdout)
    return float(found[1]) if found else None


def run_axolotl(config: Path, folder: Path) -> None:
    """Run `axolotl train`; the process is killed if this function is interrupted."""
    from helpers.axolotl import environment

    log = folder / "train.log"
    program = Path(sys.executable).with_name("axolotl")
    command = [str(program) if program.is_file() else "axolotl", "train", str(config)]
    with (
        log.open("w", encoding="utf-8") as stream,
        subprocess.Popen(
            [*command, "--launcher", "python"],
            env=environment() | {STEP_FILE: str((folder / "steps.jsonl").resolve())},
            stdout=stream,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            code = process.wait()
        finally:
            process.kill()
    if code:
        said = log.read_text(encoding="utf-8", errors="replace")
        print(said[-4000:], file=sys.stderr)
        if is_out_of_memory(said):
            raise MemoryError("axolotl train ran out of memory")
        raise RuntimeError(f"axolotl train failed: {said_lines(said)[-1]}")


@contextmanager
def _recorded(result: Result, name: str, file: Path) -> Iterator[None]:
    """Record the steps of the training in the block, however it ends."""
    try:
        yield
    finally:
        steps = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        if steps:
            result.put_row({"name": name, **summary(steps)})


def summary(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Samples per second in the median step after the warm-up, and the peak memory.

    Args:
        steps: The lines that the step clock has written.
    """
    timed = [one["seconds"] for one in steps[WARM_UP:]] or [one["seconds"] for one in steps]
    return {
        "steps": len(steps),
        "rows_per_step": steps[-1]["rows"],
        "step_seconds": statistics.median(timed),
        "samples_per_second": steps[-1]["rows"] / statistics.median(timed),
        "peak_mib": max(one["peak_mib"] for one in steps),
        "reserved_mib": steps[-1]["reserved_mib"],
    }
