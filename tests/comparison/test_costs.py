"""The cost of each arm, from the records of its models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.comparison_example import example
from helpers.results import ALL
from helpers.seeded_models import model

from regreason_plugin.comparison.arms import by_name, read_arms
from regreason_plugin.comparison.costs import cost_of
from regreason_plugin.core.cost import Machine, MethodCost
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import read_run
from regreason_plugin.render.tables import about_costs, costs

MACHINE = {"system": "Linux x86_64", "cores": 2, "threads": 1, "gpu": None}
FIRST = {ALL[0]: 0.5}


def trained(seconds: Any, **changes: Any) -> dict[str, Any]:
    cost = {"seconds": seconds, "tokens": 1000, "machine": MACHINE}
    return {**cost, "peak_memory_mib": 900.0, "peak_gpu_mib": None, **changes}


def scored(seconds: float, documents: int = 200, **changes: Any) -> dict[str, Any]:
    cost = {"seconds": seconds, "documents": documents, "machine": MACHINE}
    memory = {"peak_memory_mib": 700.0, "peak_gpu_mib": None}
    return {"config__regreason_scoring": {**cost, **memory, **changes}}


def test_the_mean_over_an_arms_seeds(tmp_path: Path) -> None:
    runs = [
        read_run("x", model(tmp_path, "x", seed, FIRST, scored(float(seed)), cost=cost))
        for seed, cost in ((1, trained(10.0)), (2, trained(20.0, peak_memory_mib=1100.0)))
    ]
    # Different costs are not different training settings: these models are seeds of one arm.
    (arm,) = by_name(read_arms([str(tmp_path)])).values()
    assert [run.seed for run in arm] == [1, 2]
    cost = cost_of(runs)
    assert (cost.training_seconds, cost.training_tokens) == (15.0, 1000.0)
    # 1 and 2 seconds for 200 documents each.
    assert cost.scoring_ms == pytest.approx(7.5)
    assert (cost.peak_memory_mib, cost.peak_gpu_mib) == (1000.0, None)
    assert cost.machines == ["Linux x86_64, 1 of 2 cores"]


def test_of_a_gpu_the_larger_peak_counts_and_the_gpu_is_named(tmp_path: Path) -> None:
    gpu = {**MACHINE, "gpu": "NVIDIA H100"}
    runs = [
        read_run(
            "x",
            model(
                tmp_path, "x", 1, FIRST,
                scored(1.0, peak_gpu_mib=50.0, machine=gpu),
                cost=trained(1.0, peak_gpu_mib=80.0, machine=gpu),
            ),
        )
    ]  # fmt: skip
    cost = cost_of(runs)
    assert (cost.peak_gpu_mib, cost.machines) == (80.0, ["NVIDIA H100"])


def test_what_one_seed_lacks_is_no_mean_of_the_others(tmp_path: Path) -> None:
    runs = [
        read_run("x", model(tmp_path, "x", 1, FIRST, scored(1.0), cost=trained(10.0))),
        read_run("x", model(tmp_path, "x", 2, FIRST, cost=trained(20.0, tokens=None))),
    ]
    cost = cost_of(runs)
    assert (cost.training_seconds, cost.training_tokens, cost.scoring_ms) == (15.0, None, None)
    nothing = cost_of([read_run("x", model(tmp_path, "y", 1, FIRST))])
    assert nothing.peak_memory_mib is nothing.training_seconds is None
    assert nothing.machines == []


def test_a_method_of_baselines_has_its_own_record(tmp_path: Path) -> None:
    folder = model(tmp_path, "head", 1, FIRST)
    MethodCost(
        method="head", seed=1, training_seconds=3.0, training_tokens=7, training_rows=2,
        documents=200, scoring_ms=0.5, peak_memory_mib=400.0, peak_gpu_mib=None,
        machine=Machine(**MACHINE), versions={},
    ).write(folder / "eval")  # fmt: skip
    cost = cost_of([read_run("head", folder)])
    assert (cost.training_seconds, cost.training_tokens, cost.scoring_ms) == (3.0, 7.0, 0.5)


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    run = read_run("x", model(tmp_path, "x", 1, FIRST, scored(1.0), cost=trained("?")))
    with pytest.raises(UserError, match=r"broken cost record of 'x' \(seconds: "):
        cost_of([run])


def test_the_table_has_what_any_arm_says() -> None:
    one = example(["a"])
    gpu = one.costs["a"].model_copy(update={"peak_gpu_mib": 2048.0, "machines": ["NVIDIA H100"]})
    none = json.loads(one.costs["label_only"].model_dump_json())
    nothing = type(gpu)(**{**dict.fromkeys(none), "machines": []})
    some = one.model_copy(update={"costs": {"label_only": nothing, "a": gpu}})
    table = costs(some)
    assert table.header == ["per model", "label_only", "a"]
    assert table.body == [
        ["training (seconds)", "-", "101"],
        ["tokens read in training", "-", "2,000,000"],
        ["scoring (ms per document)", "-", "1.25"],
        ["peak main memory (GiB)", "-", "1.5"],
        ["peak GPU memory (GiB)", "-", "2"],
    ]
    assert "on NVIDIA H100. " in about_costs(some)
    assert costs(one.model_copy(update={"costs": {"label_only": nothing, "a": nothing}})).body == []
