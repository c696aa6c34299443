"""The parts of `make gpu`: result files, time limits, and the page with the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from bench.gpu import page, study, training
from bench.gpu.model_shapes import MISTRAL, SMOLLM2, TINY, load
from bench.gpu.result import Result, SkipPart, run_part

ROOT = Path(__file__).parents[2]
COMMAND = ROOT / "tests" / "bench" / "gpu"
ROW = {"name": "hf", "first_seconds": 2.0, "peak_mib": 512.0}


def run(out: Path, measure: Any, shape: str = TINY, seconds: float = 60) -> dict[str, Any]:
    """The result file of a part that runs a given measurement."""
    run_part("scorer", shape, seconds, out, measure, "cpu")
    return read(out, f"scorer-{shape}")


def read(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    return found


def cells(text: str, first: str) -> dict[str, str]:
    """The row of a table whose first cell is ``first``: its cells by column name."""
    lines = text.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(f"| {first} |"))
    head = max(n for n in range(at) if not lines[n].startswith("|")) + 1
    names, values = ([cell.strip() for cell in lines[n].strip("|").split(" |")] for n in (head, at))
    return dict(zip(names, values, strict=True))


# --- a part -------------------------------------------------------------------------------


def test_a_figure_is_in_the_file_as_soon_as_it_is_known(tmp_path: Path) -> None:
    seen = {}

    def measure(result: Result) -> None:
        result.put_row(ROW)
        result.put_row({**ROW, "seconds": 1.5})
        seen.update(read(tmp_path, "scorer-tiny"))

    found = run(tmp_path, measure)
    assert (seen["state"], seen["rows"]) == ("running", [{**ROW, "seconds": 1.5}])
    assert (found["state"], found["rows"]) == ("done", seen["rows"])


def test_a_part_ends_at_its_time_limit_and_keeps_its_figures(tmp_path: Path) -> None:
    def measure(result: Result) -> None:
        result.put_row(ROW)
        # Some libraries try a smaller batch after any exception.
        for _ in range(2):
            try:
                time.sleep(15)
            except Exception:
                continue

    found = run(tmp_path, measure, seconds=5)
    assert (found["state"], found["rows"]) == ("stopped at its time limit", [ROW])
    assert "5 s" in found["reason"]


def test_running_out_of_memory_differs_from_other_failures(tmp_path: Path) -> None:
    def on_a_card(result: Result) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def on_a_cpu(result: Result) -> None:
        result.update(dtype="float32", documents=18, requests=90)
        result.put_row(ROW)
        torch.empty(1 << 60, dtype=torch.uint8)

    def otherwise(result: Result) -> None:
        raise RuntimeError("shapes do not fit\nand a second line")

    assert run(tmp_path, otherwise)["state"] == "failed"
    assert run(tmp_path, otherwise)["reason"] == "shapes do not fit"
    found = run(tmp_path, on_a_cpu)
    assert (found["state"], found["rows"]) == ("out of memory", [ROW])
    assert run(tmp_path, on_a_card, MISTRAL)["state"] == "out of memory"
    page.write(tmp_path, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert (
        "Out of memory with the shape of Mistral-7B-v0.1, random weights: CUDA out of memory. "
        "Tried to allocate 2.00 GiB." in text
    )


def test_a_part_without_its_module_names_it(tmp_path: Path) -> None:
    def measure(result: Result) -> None:
        __import__("no_such_module.inner")

    found = run(tmp_path, measure)
    assert found["state"] == "skipped"
    assert found["reason"] == "the module no_such_module is not installed"


def test_smollm2_without_its_folder_is_skipped(tmp_path: Path) -> None:
    with pytest.raises(SkipPart, match="no SmolLM2 folder"):
        load(SMOLLM2, "cpu", None)
    with pytest.raises(SkipPart, match="holds no model"):
        load(SMOLLM2, "cpu", tmp_path)


def program(folder: Path, name: str, script: str) -> Path:
    """Write a script under a program's name, and the same script as `python` beside it."""
    for one in ("python", name):
        (folder / one).write_text(f"#!/bin/sh\n{script}\n")
        (folder / one).chmod(0o755)
    return folder / "python"


def test_a_training_that_runs_out_of_memory_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "echo 'torch.OutOfMemoryError: CUDA out of memory.'; echo 'launcher failed'; exit 1"
    monkeypatch.setattr(sys, "executable", str(program(tmp_path, "axolotl", said)))
    found = run(tmp_path, lambda _: training.run_axolotl(tmp_path / "config.yml", tmp_path))
    assert (found["state"], found["reason"]) == ("out of memory", "axolotl train ran out of memory")


@pytest.mark.parametrize(
    ("script", "state", "reason"),
    [
        ("echo 21 trainings; echo 'no runs/esnli.csv' >&2; exit 2", "skipped", "no runs/esnli.csv"),
        ("echo nothing; exit 1", "failed", "exit code 1"),
        ('echo "$*"; echo; echo the end', "done", ""),
    ],
)
def test_the_study_refuses_fails_or_ends(
    script: str, state: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").touch()
    scratch = tmp_path / "scratch"
    monkeypatch.setattr(sys, "executable", str(program(tmp_path, "regreason", script)))
    found = run(tmp_path, lambda result: study.measure(result, 630, tmp_path, scratch))
    assert found["state"] == state
    assert reason in found["reason"]
    if state == "done":
        file = scratch / "esnli.yml"
        assert found["output"] == [f"-m regreason_plugin study {file} --minutes 10", "the end"]
        # The study that ran is the shipped one with the given base and without the kept runs.
        values = yaml.safe_load(file.read_text())
        shipped = yaml.safe_load((ROOT / "studies" / "esnli.yml").read_text())
        changed = {key for key in shipped if values.get(key) != shipped[key]}
        assert changed == {"out", "base", "kept"}
        assert "kept" not in values
        assert values["base"] == str(tmp_path)


def test_without_a_study_its_part_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").touch()
    monkeypatch.setattr(study, "STUDY", ROOT / "studies" / "none.yml")
    found = run(tmp_path, lambda result: study.measure(result, 600, tmp_path, tmp_path))
    assert (found["state"], found["reason"]) == ("skipped", "there is no studies/none.yml")


# --- steps ----------------------------------------------------------------------------------


def test_samples_a_second_leave_out_the_warm_up() -> None:
    seconds = [90.0, 80.0, 70.0, 60.0, 50.0, 2.0, 4.0, 9.0]
    lines = [
        {"seconds": one, "rows": 16, "peak_mib": 100.0 + one, "reserved_mib": None}
        for one in seconds
    ]
    found = training.summary(lines)
    assert found["steps"] == 8
    assert found["samples_per_second"] == 16 / 4.0
    assert found["peak_mib"] == 190.0
    # A training that stopped during the warm-up has no other steps.
    assert training.summary(lines[:3])["samples_per_second"] == 16 / 80.0


# --- the page -------------------------------------------------------------------------------


def values(part: str, shape: str, **others: Any) -> dict[str, Any]:
    versions = {"torch": "2.13.0", "peft": None}
    machine = {"card": "NVIDIA A", "card_gib": 24.0, "driver": "600.1", "versions": versions}
    known = {"part": part, "shape": shape, "state": "done", "reason": "", "date": "2030-01-02"}
    return {**known, "seconds": 61.2, "machine": machine, "rows": [], **others}


def test_the_page_holds_what_was_measured(tmp_path: Path) -> None:
    rows = [
        {**ROW, "timed_rounds": 3, "seconds": 20.0, "documents_per_second": 18.0},
        {"name": "regreason-hf", "first_seconds": 3.0, "peak_mib": 256.0, "timed_rounds": 3,
         "seconds": 5.0, "documents_per_second": 72.0, "largest_difference": 0.03125,
         "packed": True},
        {"name": "with probes", "first_seconds": 3.0, "peak_mib": 256.0, "timed_rounds": 3,
         "seconds": 6.0, "documents_per_second": 60.0, "largest_difference": 0.25, "packed": True},
    ]  # fmt: skip
    steps = {"steps": 50, "rows_per_step": 16, "reserved_mib": 12288.0}
    trained = [
        {**steps, "name": "Axolotl's trainer", "samples_per_second": 8.0, "peak_mib": 10240.0},
        {**steps, "name": "with the plugin", "samples_per_second": 6.0, "peak_mib": 5120.0},
    ]
    parts = [
        values("qlora", MISTRAL, rows=trained, config="axolotl_configs/gpu/x.yml", steps=50,
               estimate_gib=10.0),
        values("scorer", SMOLLM2, state="skipped", reason="no SmolLM2 folder was given"),
        values("scorer", MISTRAL, rows=rows, dtype="bfloat16", documents=360, requests=1800),
        values("lora", MISTRAL, rows=trained[:1], state="running", config="y.yml", steps=50,
               estimate_gib=20.0),
    ]  # fmt: skip
    for one in parts:
        (tmp_path / f"{one['part']}-{one['shape']}.json").write_text(json.dumps(one))
    page.write(tmp_path, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert [title.split(":")[0] for title in titles[1:]] == [
        *("## Scoring and probes", "## Scoring and probes"),
        *("## LoRA in bfloat16", "## LoRA in 4 bits"),
    ]
    assert "NVIDIA A, 24 GiB | 600.1 | 2030-01-02 | 61 | done" in text
    assert cells(text, "peft")["version"] == "none"
    ours, probed = cells(text, "regreason-hf"), cells(text, "with probes")
    assert (ours["documents/s"], ours["speed / hf"]) == ("72.0", "4.00")
    assert ours["peak memory, GiB"] == "0.25"
    assert ours["largest difference to hf"] == "0.03125"
    assert probed["time / regreason-hf without probes"] == "1.20"
    assert cells(text, "hf")["largest difference to hf"] == ""
    plugin = cells(text, "with the plugin")
    assert (plugin["samples/s"], plugin["speed / Axolotl's trainer"]) == ("6.00", "0.75")
    assert (plugin["peak of the tensors, GiB"], plugin["peak / estimate"]) == ("5.00", "0.50")
    assert plugin["reserved by PyTorch, GiB"] == "12.00"
    assert "Skipped with SmolLM2-135M-Instruct: no SmolLM2 folder was given." in text
    assert text.count("The part was cut off") == 1
    assert "is a trial" not in text


def test_a_page_with_figures_is_kept_on_a_machine_without_a_gpu(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    page.write_without_card(file)
    without = file.read_text()
    page.write_without_card(file)
    assert file.read_text() == without
    file.write_text("# On a GPU\n\n| measured |\n")
    page.write_without_card(file)
    assert file.read_text() == "# On a GPU\n\n| measured |\n"


def test_the_shipped_page_says_what_the_command_would(tmp_path: Path) -> None:
    shipped = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    if page.NO_CARD not in shipped:
        pytest.skip("the page has figures")
    page.write_without_card(tmp_path / "page.md")
    assert shipped == (tmp_path / "page.md").read_text(encoding="utf-8")


# --- the command ----------------------------------------------------------------------------


def command(*options: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(COMMAND), *options],
        cwd=cwd,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": "", **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.e2e
def test_without_a_card_no_part_is_started(tmp_path: Path) -> None:
    done = command("--out", "out", "--page", "page.md", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "PyTorch finds no CUDA GPU" in done.stdout
    assert page.NO_CARD in (tmp_path / "page.md").read_text()
    assert not (tmp_path / "out").exists()
    alone = command("qlora", "--out", "out", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert read(tmp_path / "out", "qlora-mistral-7b")["reason"] == "PyTorch finds no CUDA GPU"


WITHOUT = """\
from importlib.machinery import PathFinder

ABSENT = {names!r}
original = PathFinder.find_spec.__func__


def find_spec(cls, name, *others):
    return None if name.partition(".")[0] in ABSENT else original(cls, name, *others)


PathFinder.find_spec = classmethod(find_spec)
"""


@pytest.mark.e2e
@pytest.mark.slow
def test_the_scorer_needs_no_more_than_lm_eval_and_a_training_names_what_it_lacks(
    tmp_path: Path,
) -> None:
    absent = (
        *("axolotl", "peft", "bitsandbytes", "deepspeed", "torchao", "rich", "orjson", "openai"),
        *("krippendorff", "statsmodels", "matplotlib", "crowdkit", "tenacity"),
    )
    (tmp_path / "sitecustomize.py").write_text(WITHOUT.format(names=absent))
    options = ("--device", "cpu", "--shape", "tiny", "--out", "out", "--rounds", "1")
    options += ("--documents", "1", "--scratch", "scratch")
    # All parts at once: a skipped part does not keep the later ones from running.
    done = command(*options, "--seconds", "300", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    scored = read(tmp_path / "out", "scorer-tiny")
    assert scored["state"] == "done", scored
    assert len(scored["rows"]) == 3
    for part in ("lora", "qlora", "prefix"):
        trained = read(tmp_path / "out", f"{part}-tiny")
        assert trained["state"] == "skipped"
        assert trained["reason"] == "the module axolotl is not installed"
    for name in ("scorer-smollm2", "study-smollm2"):
        assert "no SmolLM2 folder" in read(tmp_path / "out", name)["reason"]
    text = (tmp_path / "out" / "gpu.md").read_text()
    assert text.count("the module axolotl is not installed.") == 3
    # The page says that it is a trial; it is not written to docs/.
    assert "none: a trial on a CPU" in text
    assert "A part without a GPU is a trial" in text
