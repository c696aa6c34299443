"""The committed results of stock tasks are what lm_eval writes."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from helpers.stock_tasks import STOCK_RESULTS, run_lm_eval, write_stock_tasks
from helpers.tiny_base import TINY_BASE

MODELS = ["base", "tuned"]
VERSIONS = ["0.4.11", "0.4.13"]
FOLDERS = sorted(path.parent for path in STOCK_RESULTS.glob("*/*/*/results_*.json"))
# Where metric_list names no aggregation, lm_eval takes the metric's own; a class has no list.
MEANS = {"acc", "acc_bytes", "acc_mutual_info"}
# 0.4.11 logs NumPy's bool as text.
TEXTS = {"True": 1.0, "False": 0.0}
MEANS_OF_CLASSES = {"own_class": {"greedy", "surprise"}}


def read_results(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("results_*.json")
    return dict(json.loads(path.read_text()))


def read_samples(folder: Path, task: str) -> list[dict[str, Any]]:
    (path,) = folder.glob(f"samples_{task}_????-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def mean_metrics(task: str, config: dict[str, Any]) -> set[str]:
    return MEANS_OF_CLASSES.get(task, set()) | {
        one["metric"]
        for one in config.get("metric_list", [])
        if one.get("aggregation", "mean" if one["metric"] in MEANS else None) == "mean"
    }


def means(folder: Path) -> dict[tuple[str, str], float]:
    """The mean of each metric that is a mean, by task and by metric with its filter."""
    found = {}
    for task, config in read_results(folder)["configs"].items():
        values = defaultdict(list)
        for sample in read_samples(folder, task):
            for metric in mean_metrics(task, config):
                value = sample[metric]
                column = values[f"{metric},{sample['filter']}"]
                column.append(TEXTS[value] if isinstance(value, str) else float(value))
        for name, column in values.items():
            found[task, name] = math.fsum(column) / len(column)
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(STOCK_RESULTS)))
def test_the_mean_over_documents_is_the_result(folder: Path) -> None:
    results = read_results(folder)["results"]
    for (task, metric), mean in means(folder).items():
        assert results[task][metric] == pytest.approx(mean, abs=1e-12, rel=0)


def test_each_version_has_each_run_of_both_models() -> None:
    runs = {path.relative_to(STOCK_RESULTS / path.parts[-3]).as_posix() for path in FOLDERS}
    assert {path.parts[-3] for path in FOLDERS} == set(VERSIONS)
    assert len(FOLDERS) == len(VERSIONS) * len(runs)
    assert {run.split("/")[1] for run in runs} == set(MODELS)


@pytest.mark.parametrize("lm_eval", VERSIONS)
def test_the_models_differ_on_most_metrics(lm_eval: str) -> None:
    base, tuned = (
        {
            (task, metric): value
            for task, values in read_results(STOCK_RESULTS / lm_eval / "main" / model)[
                "results"
            ].items()
            for metric, value in values.items()
            if "," in metric and "_stderr" not in metric
        }
        for model in MODELS
    )
    assert len({task for task, _ in base}) >= 22
    different = {key for key in base if base[key] != tuned[key]}
    assert len(different) > 0.75 * len(base)
    assert {metric for _, metric in different} >= {
        *("acc,none", "acc_norm,none", "mcc,none", "f1,none", "bleu,none", "perplexity,none"),
        *("exact_match,maj@8", "word_perplexity,none"),
    }


@pytest.mark.parametrize("lm_eval", VERSIONS)
def test_a_group_is_the_mean_over_all_its_documents(lm_eval: str) -> None:
    folder = STOCK_RESULTS / lm_eval / "main/tuned"
    content = read_results(folder)
    leaves = {
        "mmlu_stem": ["mmlu_astronomy", "mmlu_college_physics"],
        "mmlu_humanities": ["mmlu_philosophy"],
        "mmlu_social_sciences": ["mmlu_high_school_geography"],
    }
    leaves["mmlu"] = [task for tasks in leaves.values() for task in tasks]
    for group, tasks in leaves.items():
        values = [sample["acc"] for task in tasks for sample in read_samples(folder, task)]
        assert content["groups"][group]["acc,none"] == pytest.approx(sum(values) / len(values))
    assert len(values) == 28


def test_both_versions_log_the_same_samples_except_for_numpy_bools() -> None:
    old, new = (sorted((STOCK_RESULTS / one).rglob("samples_*.jsonl")) for one in VERSIONS)
    assert len(old) == len(new)
    for one, other in zip(old, new, strict=True):
        text = one.read_text()
        if "own_choices" in one.name:
            text = text.replace('"won": "True"', '"won": true')
            text = text.replace('"won": "False"', '"won": false')
        assert text == other.read_text()


@pytest.mark.parametrize("lm_eval", VERSIONS)
def test_lm_eval_numbers_documents_wrongly_where_samples_are_not_sorted(lm_eval: str) -> None:
    numbers = {}
    for run in ("main", "samples_5_2_9", "samples_2_5_9"):
        samples = read_samples(STOCK_RESULTS / lm_eval / run / "base", "piqa")
        numbers[run] = {sample["doc_hash"]: sample["doc_id"] for sample in samples}
    right = {text: n for text, n in numbers["main"].items() if n in (2, 5, 9)}
    assert numbers["samples_2_5_9"] == right
    swapped = {2: 5, 5: 2, 9: 9}
    assert numbers["samples_5_2_9"] == {text: swapped[n] for text, n in right.items()}


@pytest.mark.parametrize("lm_eval", VERSIONS)
def test_few_shot_seeds_change_the_prompts_alone(lm_eval: str) -> None:
    runs = [
        read_samples(STOCK_RESULTS / lm_eval / f"fewshot_{seed}/tuned", "piqa")
        for seed in (1, 2, 3)
    ]
    documents = [[sample["doc_hash"] for sample in run] for run in runs]
    prompts = [{sample["prompt_hash"] for sample in run} for run in runs]
    assert documents[0] == documents[1] == documents[2]
    assert prompts[0] != prompts[1] != prompts[2] != prompts[0]


def test_no_fact_of_the_machine_is_in_the_results() -> None:
    for folder in FOLDERS:
        content = read_results(folder)
        assert content["pretty_env_info"] == ""
        for path in folder.iterdir():
            assert not re.search(r'"/\w+/|site-packages', path.read_text())


@pytest.mark.e2e
def test_the_installed_lm_eval_writes_the_same_keys(tmp_path: Path) -> None:
    installed = version("lm_eval")
    if installed not in VERSIONS:
        pytest.skip(f"no results of lm_eval {installed} are committed")
    write_stock_tasks(tmp_path / "stock")
    tasks = ["boolq", "gsm8k", "mmlu_stem"]
    new = run_lm_eval(tmp_path / "stock", tasks, TINY_BASE, tmp_path / "out", "--limit", "3")
    old = STOCK_RESULTS / installed / "main/base"
    committed, content = read_results(old), read_results(new)
    assert content.keys() == committed.keys()
    for task in ["boolq", "gsm8k", "mmlu_stem", "mmlu_astronomy", "mmlu_college_physics"]:
        assert content["results"][task].keys() == committed["results"][task].keys()
    for task in ["boolq", "gsm8k", "mmlu_astronomy", "mmlu_college_physics"]:
        assert content["configs"][task].keys() == committed["configs"][task].keys()
        shapes = [
            {(sample["filter"], *sample) for sample in read_samples(folder, task)}
            for folder in (old, new)
        ]
        assert shapes[0] == shapes[1]
