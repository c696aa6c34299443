"""Probes attached to a model's answers, followed through lm-eval to results and samples."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.probe_gaps import LAYERS, NAMES, TASK, TWIN, Probing, WithGaps, probe_keys
from helpers.scoring import evaluate
from helpers.scripted_model import Scripted
from lm_eval.utils import make_table

from regreason_plugin.core.paper import AXES, task_name
from regreason_plugin.data_folder.folder import DataFolder

pytestmark = pytest.mark.integration

MIDDLE = [2, 3, 4]


class Wrong(Probing):
    """A model with one probe value that is not finite."""

    def change(self, place: int, probe: dict[str, Any]) -> dict[str, Any] | None:
        if place == 2:
            probe["logit_lens_entropy_by_layer"][5] = math.nan
        return probe


def jackknife(values: Any, groups: list[str]) -> Any:
    """Delete-one-group standard errors of the mean over the first axis."""
    table, names = np.array(values), sorted(set(groups))
    without = np.array([table[[g != name for g in groups]].mean(axis=0) for name in names])
    spread = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    return np.sqrt((len(names) - 1) / len(names) * spread)


def check(found: dict[str, Any], documents: list[tuple[dict[str, Any], str]], prefix: str) -> None:
    """Check every probe metric against (probe, group) of the documents that have a probe."""
    entropies, groups = [p["output_entropy"] for p, _ in documents], [g for _, g in documents]
    assert found[f"{prefix}output_entropy,none"] == pytest.approx(np.mean(entropies))
    assert found[f"{prefix}output_entropy_stderr,none"] == pytest.approx(
        float(jackknife(entropies, groups))
    )
    for name in NAMES:
        key = f"{prefix}{name}"
        known = [(p[f"{name}_by_layer"], g) for p, g in documents if p[f"{name}_by_layer"]]
        values, groups = [v for v, _ in known], [g for _, g in known]
        mids = [np.mean([v[block] for block in MIDDLE]) for v in values]
        assert list(found[f"{key}_by_layer,none"]) == pytest.approx(list(np.mean(values, axis=0)))
        assert list(found[f"{key}_by_layer_se,none"]) == pytest.approx(
            list(jackknife(values, groups))
        )
        assert found[f"{key}_mid,none"] == pytest.approx(np.mean(mids))
        assert found[f"{key}_mid_stderr,none"] == pytest.approx(float(jackknife(mids, groups)))
        assert not isinstance(found[f"{key}_by_layer_stderr,none"], list | tuple)


# --- Figures ------------------------------------------------------------------------


def test_figures_of_a_task_with_gaps(data_folder: DataFolder) -> None:
    lm = WithGaps()
    results = evaluate(lm, [TASK], data_folder.path)
    found, samples = results["results"][TASK], results["samples"][TASK]
    documents = [(lm.probes[s["arguments"][0][0]], s["doc"]["group"]) for s in samples]
    check(found, [(p, g) for p, g in documents if p is not None], "")
    assert found["documents_without_probe,none"] == 1
    assert found["probe_values_undefined,none"] == 1
    assert found["deciding_token,none"] == ["\n", ":"]
    assert found["activation_entropy_definition,none"] == "absolute values"
    # `label_entropy` is still the metric of the task file, not the probe of the same name.
    assert found["label_entropy,none"] < math.log(5)
    assert results["n-samples"][TASK]["effective"] == len(samples)

    for sample, (probe, _) in zip(samples, documents, strict=True):
        shown = json.loads(json.dumps({key: sample[key] for key in sample["metrics"]}))
        for key in ("output_entropy", "deciding_token", *(f"{name}_by_layer" for name in NAMES)):
            assert shown[key] == (None if probe is None else probe[key])
        assert shown["documents_without_probe"] == int(probe is None)
        assert json.dumps(sample["filtered_resps"]) == json.dumps(
            [list(pair) for pair in sample["filtered_resps"]]
        )


def test_figures_of_a_twin(explanation_first_folder: DataFolder) -> None:
    lm = Probing()
    results = evaluate(lm, [TWIN], explanation_first_folder.path)
    samples = results["samples"][TWIN]
    for prefix, place in (("", 1), ("forced_", 6)):
        documents = [(lm.probes[s["arguments"][place][0]], s["doc"]["group"]) for s in samples]
        check(results["results"][TWIN], documents, prefix)  # type: ignore[arg-type]
        assert results["results"][TWIN][f"{prefix}deciding_token,none"] == ":"
        definition = results["results"][TWIN][f"{prefix}activation_entropy_definition,none"]
        assert definition == "absolute values"
        assert results["results"][TWIN][f"{prefix}documents_without_probe,none"] == 0
        for sample, (probe, _) in zip(samples, documents, strict=True):
            assert probe is not None
            assert sample[f"{prefix}output_entropy"] == probe["output_entropy"]


@pytest.mark.parametrize("task", [TASK, TWIN])
def test_a_model_without_probes(task: str, explanation_first_folder: DataFolder) -> None:
    results = evaluate(Scripted(" Well.\nRating: 2"), [task], explanation_first_folder.path)
    assert "acc,none" in results["results"][task]
    assert not probe_keys(results["results"][task])
    for sample in results["samples"][task]:
        assert not probe_keys(sample)
        assert not probe_keys(sample["metrics"])


def test_some_probes_only(data_folder: DataFolder) -> None:
    class OutputOnly(Probing):
        def change(self, place: int, probe: dict[str, Any]) -> dict[str, Any] | None:
            return {"output_entropy": probe["output_entropy"]}

    found = evaluate(OutputOnly(), [TASK], data_folder.path, limit=4)["results"][TASK]
    assert {key.partition(",")[0] for key in probe_keys(found) if "_stderr" not in key} == {
        *("output_entropy", "documents_without_probe", "probe_values_undefined")
    }


def test_no_document_has_a_probe(data_folder: DataFolder) -> None:
    class Nothing(Probing):
        def change(self, place: int, probe: dict[str, Any]) -> dict[str, Any] | None:
            return None

    found = evaluate(Nothing(), [TASK], data_folder.path, limit=4)["results"][TASK]
    assert found["documents_without_probe,none"] == 4
    assert "output_entropy,none" not in found


def test_a_group_has_its_figures_and_no_probes(data_folder: DataFolder) -> None:
    results = evaluate(WithGaps(), ["regreason-coqa"], data_folder.path, limit=5)
    tasks = [results["results"][task_name("coqa", axis)] for axis in AXES]
    group = results["results"]["regreason-coqa"]
    assert group["acc,none"] == pytest.approx(np.mean([task["acc,none"] for task in tasks]))
    assert not probe_keys(group)
    assert all("output_entropy,none" in task for task in tasks)


def test_predict_only_gives_no_figures(data_folder: DataFolder) -> None:
    results = evaluate(Probing(), [TASK], data_folder.path, limit=2, predict_only=True)
    assert not probe_keys(results["results"][TASK])
    assert len(results["samples"][TASK]) == 2


def test_each_task_of_a_run_says_what_it_was_scored_on(data_folder: DataFolder) -> None:
    # lm-eval loads tasks with a class in its own way, and some of them twice.
    results = evaluate(
        Probing(), ["regreason-coqa", "regreason_hh_chosen_on_topic"], data_folder.path, limit=1
    )
    assert len(results["configs"]) == 4
    for config in results["configs"].values():
        assert config["metadata"]["data"]["sha256"] == data_folder.sha256


# --- Caches, mistakes ---------------------------------------------------------------


def test_cached_answers_keep_their_probes(data_folder: DataFolder, tmp_path: Path) -> None:
    arguments = {"limit": 5, "use_cache": str(tmp_path / "cache")}
    first = evaluate(WithGaps(), [TASK], data_folder.path, **arguments)
    second_model = WithGaps()
    second = evaluate(second_model, [TASK], data_folder.path, **arguments)
    assert not second_model.asked
    assert second["results"] == first["results"]
    assert "matrix_entropy_mid,none" in second["results"][TASK]


def test_a_cache_of_a_run_without_probes_is_refused(
    data_folder: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = str(tmp_path / "cache")
    evaluate(Scripted(""), [TASK], data_folder.path, limit=2, use_cache=cache)
    with pytest.raises(SystemExit) as end:
        evaluate(Probing(), [TASK], data_folder.path, limit=4, use_cache=cache)
    assert end.value.code == 2
    assert "do not all have the same entropy probes" in capsys.readouterr().err


def test_answers_of_one_document_from_two_runs_are_refused(
    data_folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """A partly filled cache gives such answers: their probes come from different positions."""

    class Mixed(Probing):
        def loglikelihood(self, requests: list[Any], **others: Any) -> list[Any]:
            answers: list[Any] = super().loglikelihood(requests, **others)
            for answer in answers[::2]:
                answer.probe = {**answer.probe, "deciding_token": "elsewhere"}
            return answers

    with pytest.raises(SystemExit) as end:
        evaluate(Mixed(), [TASK], data_folder.path, limit=2)
    assert end.value.code == 2
    assert "decided after different tokens" in capsys.readouterr().err


def test_a_value_that_is_no_number_stops_the_run(
    data_folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        evaluate(Wrong(), [TASK], data_folder.path, limit=4)
    assert end.value.code == 2
    assert "logit_lens_entropy_by_layer is nan at layer 5" in capsys.readouterr().err


# --- What lm-eval prints and writes -------------------------------------------------


def test_the_table_stays_readable(data_folder: DataFolder) -> None:
    results = evaluate(WithGaps(), [TASK], data_folder.path, limit=6)
    rows = make_table(results).splitlines()
    assert max(map(len, rows)) < 140
    cells = {row.split("|")[5].strip(): row.split("|")[7].strip() for row in rows if "|" in row}
    values = results["results"][TASK]["activation_entropy_by_layer,none"]
    assert cells["activation_entropy_by_layer"] == (
        f"7 layers, {min(values):.4g} to {max(values):.4g}"
    )
    assert cells["documents_without_probe"] == "1"


def test_files_hold_lists(data_folder: DataFolder, tmp_path: Path) -> None:
    from lm_eval.loggers import EvaluationTracker

    results = evaluate(WithGaps(), [TASK], data_folder.path, limit=5)
    samples = results.pop("samples")
    tracker = EvaluationTracker(output_path=str(tmp_path))
    tracker.general_config_tracker.model_name_sanitized = "model"
    tracker.save_results_aggregated(results=results, samples=samples)
    tracker.save_results_samples(task_name=TASK, samples=samples[TASK])
    (file,) = tmp_path.rglob("results_*.json")
    found = json.loads(file.read_text(encoding="utf-8"))["results"][TASK]
    for key in ("matrix_entropy_by_layer,none", "matrix_entropy_by_layer_se,none"):
        assert found[key] == list(results["results"][TASK][key])
        assert len(found[key]) == LAYERS + 1
    (file,) = tmp_path.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line["output_entropy"] for line in lines] == [
        sample["output_entropy"] for sample in samples[TASK]
    ]
