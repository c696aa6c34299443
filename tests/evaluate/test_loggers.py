"""lm-eval's W&B and Trackio loggers, given our results: what they log is read back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.probe_gaps import NAMES, TASK, TWIN, WithGaps, probe_keys
from helpers.scoring import evaluate, lm_eval_command
from helpers.scripted_model import Scripted

from regreason_plugin.core.paper import AXES, task_name
from regreason_plugin.data_folder.folder import DataFolder

pytestmark = pytest.mark.integration

GROUP = "regreason-coqa"
TASKS = [task_name("coqa", axis) for axis in AXES]
MODELS: dict[str, Callable[[], Any]] = {
    "with probes": WithGaps,
    "without probes": lambda: Scripted(" Well.\nRating: 2"),
}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for all files of W&B, which runs offline."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("DIR", "DATA_DIR", "CACHE_DIR", "CONFIG_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb"))
    (tmp_path / "wandb").mkdir()
    yield tmp_path / "wandb"
    # W&B reads the environment once per process, unless it is torn down.
    wandb.teardown()


def as_json(value: Any) -> Any:
    """The value after a round trip through JSON."""
    return json.loads(json.dumps(value, default=list))


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a logged table."""
    (file,) = folder.rglob(f"media/table/**/{name}_[0-9]*.table.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def artifacts(folder: Path) -> list[Any]:
    """The contents of all logged JSON artifacts."""
    found = []
    for file in folder.rglob("artifacts/staging/*"):
        try:
            found.append(json.loads(file.read_text(encoding="utf-8")))
        except ValueError:
            continue
    return found


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("task", [GROUP, TWIN])
def test_wandb(kind: str, task: str, explanation_first_folder: DataFolder, offline: Path) -> None:
    from lm_eval.loggers import WandbLogger

    results = evaluate(MODELS[kind](), [task], explanation_first_folder.path, limit=6)
    samples = results.pop("samples")
    logger = WandbLogger({"project": "regreason"})
    logger.post_init(results)
    logger.log_eval_result()
    logger.log_eval_samples(samples)
    summary = dict(logger.run.summary)
    logger.run.finish()

    for name in samples:
        found = results["results"][name]
        assert len(found) > 20
        for key, value in found.items():
            metric, filtered, _ = key.rpartition(",none")
            if filtered:
                # W&B's summary leaves out values that are null.
                assert as_json(summary.get(f"{name}/{metric}")) == as_json(value), key
        # The sample tables have every metric of the task file, whatever the type of its items.
        rows = table(offline, f"{name}_eval_results")
        assert [row["nll"] for row in rows] == [s["nll"] for s in samples[name]]
        assert [row["qwk"] for row in rows] == [list(s["qwk"]) for s in samples[name]]
        assert [row["nll_stderr"] for row in rows] == [list(s["nll_stderr"]) for s in samples[name]]

    name = TWIN if task == TWIN else TASK
    cells = {(row["Tasks"], row["Metric"]): row for row in table(offline, "eval_results")}
    acc = results["results"][name]
    assert cells[name, "acc"]["Value"] == str(acc["acc,none"])
    assert cells[name, "acc"]["Stderr"] == f"{acc['acc_stderr,none']:.4f}"
    if task == GROUP:
        (row,) = [row for row in table(offline, "group_eval_results") if row["Metric"] == "acc"]
        assert row["Value"] == str(results["groups"][GROUP]["acc,none"])

    logged = artifacts(offline)
    (stored,) = [one for one in logged if isinstance(one, dict) and "results" in one]
    probes = [key for key in stored["results"][name] if probe_keys([key])]
    assert bool(probes) == (kind == "with probes")
    assert sorted(len(one) for one in logged if isinstance(one, list)) == [6] * len(samples)
    if probes:
        assert cells[name, "activation_entropy_by_layer"]["Value"].startswith("7 layers, ")
        for key in (f"{probe}_by_layer,none" for probe in NAMES):
            assert stored["results"][name][key] == list(results["results"][name][key])
            assert len(stored["results"][name][key]) == 7


@pytest.mark.slow
def test_wandb_from_the_command_line(
    tiny_model: Path, data_folder: DataFolder, tmp_path: Path, offline: Path
) -> None:
    # lm-eval catches errors of its logger, and reports them in one line.
    run = lm_eval_command(
        *("--model", "hf", "--model_args", f"pretrained={tiny_model}", "--device", "cpu"),
        *("--tasks", GROUP, "--limit", "3", "--output_path", "out", "--log_samples"),
        *("--metadata", json.dumps({"data_dir": str(data_folder.path)})),
        *("--wandb_args", "project=regreason"),
        cwd=tmp_path,
        env={"LMEVAL_LOG_LEVEL": "INFO"},
    )
    assert run.returncode == 0, run.stderr
    assert "Logging to W&B failed" not in run.stderr
    (file,) = tmp_path.glob("out/*/results_*.json")
    found = json.loads(file.read_text(encoding="utf-8"))["results"]
    cells = {(row["Tasks"], row["Metric"]): row for row in table(offline, "eval_results")}
    for name in TASKS:
        assert cells[name, "nll"]["Value"] == str(found[name]["nll,none"])
        assert len(table(offline, f"{name}_eval_results")) == 3


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("task", [GROUP, TWIN])
def test_trackio(
    kind: str,
    task: str,
    explanation_first_folder: DataFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("lm_eval.loggers.trackio_logger", reason="not in lm_eval 0.4.11")
    # Trackio reads the name of its folder once, when it is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio")
    from lm_eval.loggers import TrackioLogger
    from trackio.utils import TRACKIO_DIR

    results = evaluate(MODELS[kind](), [task], explanation_first_folder.path, limit=6)
    samples = results.pop("samples")
    project = f"regreason-{kind}-{task}".replace(" ", "-")
    logger = TrackioLogger({"project": project})
    logger.post_init(results)
    logger.log_eval_result()
    logger.log_eval_samples(samples)
    logger.finish()

    (file,) = Path(TRACKIO_DIR).glob(f"{project}*.db")
    with sqlite3.connect(file) as database:
        metrics: dict[str, Any] = {}
        for (text,) in database.execute("SELECT metrics FROM metrics ORDER BY id"):
            metrics.update(json.loads(text))
        traces = [json.loads(text) for (text,) in database.execute("SELECT metadata FROM traces")]
    for name, shown in samples.items():
        for key, value in results["results"][name].items():
            # Trackio stores numbers, but not lists.
            if key.endswith(",none") and isinstance(value, int | float):
                assert metrics[f"{name}/{key.removesuffix(',none')}"] == pytest.approx(value)
        found = {trace["doc_id"]: trace for trace in traces if trace["task"] == name}
        assert set(found) == {sample["doc_id"] for sample in shown}
        for sample in shown:
            trace = found[sample["doc_id"]]
            assert trace["nll"] == pytest.approx(sample["nll"])
            assert bool(probe_keys(trace)) == (kind == "with probes")
            if kind == "with probes":
                assert trace["output_entropy"] == sample["output_entropy"]
                assert trace["matrix_entropy_by_layer"] == sample["matrix_entropy_by_layer"]
