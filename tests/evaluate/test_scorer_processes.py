"""`regreason-hf` under `accelerate launch`: two processes share the work, and agree with one.

Stock `hf` does not share the work on a CPU: each process scores everything and writes results.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.scoring import evaluate
from lm_eval.models.huggingface import HFLM

from regreason_plugin.core.paper import AXES, task_name
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.evaluate.model import RegReasonHF

pytestmark = [pytest.mark.integration, pytest.mark.slow]

GROUP = "regreason-coqa"
TASKS = [task_name("coqa", axis) for axis in AXES]
# An odd number, so that one rank gets three documents and the other two.
LIMIT = 5

# The `regreason` command, which also records what this process's model was asked.
WATCHED = """
import json, os, sys
import torch.distributed
from regreason_plugin.cli import main
from regreason_plugin.evaluate.model import RegReasonHF

score = RegReasonHF._loglikelihood_tokens

def watched(self, requests, *args, **kwargs):
    answers = score(self, requests, *args, **kwargs)
    with open(os.path.join(os.environ["NOTES"], os.environ["RANK"] + ".json"), "x") as file:
        contexts = sorted({texts[0] for texts, _, _ in requests})
        note = {"pid": os.getpid(), "rank": self.rank, "world_size": self.world_size}
        note |= {"contexts": contexts, "requests": len(requests)}
        json.dump(note | {"tokens_read": self.scorer.tokens_read}, file)
    return answers

RegReasonHF._loglikelihood_tokens = watched
code = main()
with open(os.path.join(os.environ["NOTES"], os.environ["RANK"] + ".grouped"), "x") as file:
    json.dump(torch.distributed.is_initialized(), file)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def launched(
    tiny_model: Path, data_folder: DataFolder, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The results of two processes, and the records of each."""
    folder = tmp_path_factory.mktemp("launched")
    script = folder / "watched.py"
    script.write_text(WATCHED)
    notes = folder / "notes"
    notes.mkdir()
    # (With `--cpu`, accelerate starts only one process, whatever the number, unless under mpirun.)
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"),
        *("--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", str(script), "eval"),
        *("--model", "regreason-hf", "--model_args", f"pretrained={tiny_model},probe=all"),
        *("--tasks", GROUP, "--metadata", json.dumps({"data_dir": str(data_folder.path)})),
        *("--device", "cpu", "--batch_size", "4", "--limit", str(LIMIT)),
        *("--log_samples", "--output_path", str(folder / "out")),
    ]
    # A user's shell has no ACCELERATE_ variables, but an earlier test may have set some.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ACCELERATE_")}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**kept, "NOTES": str(notes), "HF_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    (results,) = (folder / "out").rglob("results_*.json")  # written once
    samples = list((folder / "out").rglob("samples_*.jsonl"))
    assert len(samples) == len(TASKS)
    return {
        "notes": [json.loads((notes / f"{rank}.json").read_text()) for rank in (0, 1)],
        "grouped": [json.loads((notes / f"{rank}.grouped").read_text()) for rank in (0, 1)],
        "results": json.loads(results.read_text(encoding="utf-8"))["results"],
        "samples": {
            task: [
                json.loads(line)
                for path in samples
                if task in path.name
                for line in path.read_text(encoding="utf-8").splitlines()
            ]
            for task in TASKS
        },
    }


@pytest.fixture(scope="module")
def alone(tiny_model: Path, data_folder: DataFolder) -> dict[str, Any]:
    """The same results, computed in this process alone."""
    lm = RegReasonHF(str(tiny_model), device="cpu", batch_size=4, probe="all")
    assert (lm.rank, lm.world_size) == (0, 1)
    found = evaluate(lm, [GROUP], data_folder.path, limit=LIMIT)
    return {**found, "tokens_read": lm.scorer.tokens_read}


def test_no_rank_ends_within_its_group(launched: dict[str, Any]) -> None:
    # The group's threads may abort an exiting process, and the launcher then kills the others.
    assert launched["grouped"] == [False, False]


def test_each_rank_scores_its_half(launched: dict[str, Any], alone: dict[str, Any]) -> None:
    first, second = launched["notes"]
    assert first["pid"] != second["pid"]
    assert [(note["rank"], note["world_size"]) for note in (first, second)] == [(0, 2), (1, 2)]
    contexts = {sample["arguments"][0][0] for task in TASKS for sample in alone["samples"][task]}
    assert len(contexts) == LIMIT * len(TASKS)
    assert (len(first["contexts"]), len(second["contexts"])) == (9, 6)
    assert {*first["contexts"], *second["contexts"]} == contexts
    assert not {*first["contexts"]} & {*second["contexts"]}
    # lm-eval repeats requests on the rank that has fewer. That costs nothing: together the
    # processes read as many tokens as a single process, which packs a conversation's axes, too.
    assert first["requests"] == second["requests"] == 45
    assert first["tokens_read"] + second["tokens_read"] == alone["tokens_read"]
    assert min(first["tokens_read"], second["tokens_read"]) > 0.2 * alone["tokens_read"]


def test_figures_of_one_process(
    launched: dict[str, Any], alone: dict[str, Any], tiny_model: Path, data_folder: DataFolder
) -> None:
    for name in (GROUP, *TASKS):
        found, expected = launched["results"][name], alone["results"][name]
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            same(found[key], value, f"{name} {key}")
    for task in TASKS:
        assert launched["results"][task]["documents_without_probe,none"] == 0
        assert len(launched["results"][task]["matrix_entropy_by_layer,none"]) == 3

    hf = HFLM(str(tiny_model), device="cpu", batch_size=4)
    stock = evaluate(hf, [GROUP], data_folder.path, limit=LIMIT)["results"]
    figures = 0
    for name in (GROUP, *TASKS):
        for key, value in stock[name].items():
            if key.endswith(",none"):
                same(launched["results"][name][key], value, f"{name} {key}")
                figures += 1
    assert figures > 20


def test_samples_of_one_process(launched: dict[str, Any], alone: dict[str, Any]) -> None:
    probes = ("output_entropy", "logit_lens_entropy_by_layer", "matrix_entropy_by_layer")
    for task in TASKS:
        found = sorted(launched["samples"][task], key=lambda sample: sample["doc_id"])
        assert [sample["doc_id"] for sample in found] == list(range(LIMIT))
        for sample, expected in zip(found, alone["samples"][task], strict=True):
            for key in ("doc_id", "doc_hash", "prompt_hash"):
                assert sample[key] == expected[key]
            assert sample["metrics"] == expected["metrics"]
            assert {*probes} <= {*sample["metrics"]}
            for key in sample["metrics"]:
                same(sample[key], expected[key], f"{task} {sample['doc_id']} {key}")
            scores = [float(response[0]) for response in sample["filtered_resps"]]
            same(scores, [one[0] for one in expected["filtered_resps"]], task)
    # The values differ from each other; otherwise the comparison would prove little.
    entropies = {round(s["output_entropy"], 5) for task in TASKS for s in launched["samples"][task]}
    assert len(entropies) == LIMIT * len(TASKS)


def same(found: Any, expected: Any, what: str) -> None:
    """Compare nested values, numbers to 1e-5; JSON files have lists instead of tuples."""
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys(), what
        for key, value in expected.items():
            same(found[key], value, f"{what} {key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), what
        for one, other in zip(found, expected, strict=True):
            same(one, other, what)
    elif isinstance(expected, int | float):
        assert float(found) == pytest.approx(expected, abs=1e-5, nan_ok=True), what
    else:
        assert found == expected, what
