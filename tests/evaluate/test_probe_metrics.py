"""Answers with probes, and probe metrics against their formulas written in numpy."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.layers import middle_mean
from regreason_plugin.evaluate import probe_metrics
from regreason_plugin.evaluate.probe_metrics import (
    Scored,
    distinct_texts,
    document_probes,
    probe_names,
)
from regreason_plugin.metrics import label_metrics
from regreason_plugin.metrics.metric_names import LAYERS

PROBE: dict[str, Any] = {
    "output_entropy": 1.5,
    "activation_entropy_by_layer": [0.1, 0.2, 0.4, 0.8],
    "matrix_entropy_by_layer": None,
    "activation_entropy_definition": "absolute values",
    "deciding_token": ":",
    "label_entropy": 1.1,
}


# --- Scored -------------------------------------------------------------------------


def test_scored_is_a_pair() -> None:
    scored = Scored(-1.25, True, PROBE)
    assert scored == (-1.25, True)
    assert hash(scored) == hash((-1.25, True))
    score, greedy = scored
    assert (score, greedy, scored[0], len(scored)) == (-1.25, True, -1.25, 2)
    assert json.dumps([scored]) == "[[-1.25, true]]"
    assert scored.probe == PROBE


@pytest.mark.parametrize("probe", [PROBE, None])
def test_scored_survives_copying_and_pickling(probe: dict[str, Any] | None) -> None:
    import dill

    scored = Scored(-1.25, True, probe)
    copies = [copy.copy(scored), copy.deepcopy(scored), dill.loads(dill.dumps(scored))]
    copies += [
        pickle.loads(pickle.dumps(scored, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    for one in copies:
        assert type(one) is Scored
        assert one == (-1.25, True)
        assert one.probe == probe
    if probe is not None:
        assert copies[1].probe["activation_entropy_by_layer"] is not PROBE


# --- A document's items -------------------------------------------------------------


def test_items_of_one_document_by_hand() -> None:
    names = probe_names([Scored(-1.0, False, PROBE)] * 5)
    assert names is not None
    items = document_probes([Scored(-1.0, False, PROBE)] * 5, names, "g", prefix="forced_")
    assert items == {
        "forced_output_entropy": 1.5,
        "forced_output_entropy_stderr": (1.5, "g"),
        "forced_activation_entropy_by_layer": [0.1, 0.2, 0.4, 0.8],
        "forced_activation_entropy_by_layer_se": ([0.1, 0.2, 0.4, 0.8], "g"),
        # L = 3: blocks 1 to 2.
        "forced_activation_entropy_mid": pytest.approx(0.3),
        "forced_activation_entropy_mid_stderr": (pytest.approx(0.3), "g"),
        "forced_matrix_entropy_by_layer": None,
        "forced_matrix_entropy_by_layer_se": (None, "g"),
        "forced_matrix_entropy_mid": None,
        "forced_matrix_entropy_mid_stderr": (None, "g"),
        "forced_activation_entropy_definition": "absolute values",
        "forced_deciding_token": ":",
        "forced_probe_values_undefined": 1,
        "forced_documents_without_probe": 0,
    }
    json.dumps(items, allow_nan=False)


def test_every_item_has_an_aggregation() -> None:
    every: dict[str, Any] = {name: [0.5, 0.5] for name in LAYERS}
    every |= {"output_entropy": 1.0, "deciding_token": ":"}
    every |= {"activation_entropy_definition": "absolute values"}
    answers = [Scored(-1.0, False, every)] * 5
    items = document_probes(answers, probe_names(answers) or [], "g")
    assert set(items) == set(probe_metrics.AGGREGATIONS)


def test_a_document_without_probe_has_the_keys_of_the_others() -> None:
    names = probe_names([Scored(-1.0, False, None), Scored(-1.0, False, PROBE)])
    assert names is not None
    without = document_probes([Scored(-1.0, False, None)] * 5, names, "g")
    with_probe = document_probes([Scored(-1.0, False, PROBE)] * 5, names, "g")
    assert list(without) == list(with_probe)
    assert without["documents_without_probe"] == 1
    assert without["probe_values_undefined"] == 0
    assert without["output_entropy"] is None


def test_which_probes_there_are() -> None:
    assert probe_names([(-1.0, False)] * 3) is None
    assert probe_names([Scored(-1.0, False, None)] * 3) == []
    assert probe_names([Scored(-1.0, False, PROBE)]) == [
        *("output_entropy", "activation_entropy_by_layer", "matrix_entropy_by_layer"),
        *("activation_entropy_definition", "deciding_token"),
    ]


@pytest.mark.parametrize("other", [(-1.0, False), Scored(-1.0, False, {"output_entropy": 1.0})])
def test_answers_of_different_runs_are_refused(other: tuple[float, bool]) -> None:
    with pytest.raises(UserError, match="--use_cache"):
        probe_names([Scored(-1.0, False, PROBE), other])


@pytest.mark.parametrize(
    ("layers", "expected"),
    # The blocks ceil(L/3) to floor(2L/3); the value of block n is n squared.
    [
        (1, None),
        (2, 1),  # 1
        (3, (1 + 4) / 2),  # 1, 2
        (4, 4),  # 2
        (5, (4 + 9) / 2),  # 2, 3
        (6, (4 + 9 + 16) / 3),  # 2, 3, 4
        (32, sum(n * n for n in range(11, 22)) / 11),  # 11 to 21
    ],
)
def test_middle(layers: int, expected: float | None) -> None:
    found = middle_mean([float(n * n) for n in range(layers + 1)])
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_refused(bad: float) -> None:
    def items(**wrong: Any) -> dict[str, Any]:
        answers = [Scored(-1.0, False, PROBE | wrong)] * 5
        return document_probes(answers, probe_names(answers) or [], "g")

    with pytest.raises(UserError, match=f"activation_entropy_by_layer is {bad} at layer 2,"):
        items(activation_entropy_by_layer=[0.1, 0.2, bad, 0.3])
    with pytest.raises(UserError, match=f"output_entropy is {bad}, which"):
        items(output_entropy=bad)


# --- Aggregations -------------------------------------------------------------------


def jackknife(values: list[list[float]], groups: list[str]) -> list[float]:
    """Delete-one-group standard errors of each layer's mean."""
    table = np.array(values)
    names = sorted(set(groups))
    without = np.array([table[[g != name for g in groups]].mean(axis=0) for name in names])
    factor = (len(names) - 1) / len(names)
    return list(np.sqrt(factor * ((without - without.mean(axis=0)) ** 2).sum(axis=0)))


def test_means_and_errors_by_layer() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((40, 7)).tolist()
    groups = [f"group {n}" for n in rng.integers(12, size=40)]
    # A document without values changes nothing, even if it is the only one of its group.
    items = [*zip(values, groups, strict=True), (None, "alone")]
    found = label_metrics.by_layer_mean([item for item, _ in items])
    assert found is not None
    assert list(found) == pytest.approx(list(np.array(values).mean(axis=0)))
    errors = label_metrics.by_layer_se(items)
    assert errors is not None
    assert list(errors) == pytest.approx(jackknife(values, groups))

    scalars = [row[3] for row in values]
    assert label_metrics.defined_mean([*scalars, None]) == pytest.approx(np.mean(scalars))
    assert label_metrics.mean_stderr([*zip(scalars, groups, strict=True), (None, "alone")]) == (
        pytest.approx(jackknife(values, groups)[3])
    )


def test_nothing_defined() -> None:
    assert label_metrics.defined_mean([None, None]) is None
    assert label_metrics.by_layer_mean([None, None]) is None
    assert label_metrics.by_layer_se([(None, "a"), (None, "b")]) is None
    assert label_metrics.mean_stderr([(None, "a"), (None, "b")]) == "N/A"


def test_no_error_by_layer_from_one_group() -> None:
    errors = label_metrics.by_layer_se([([0.1, 0.2], "a"), ([0.3, 0.5], "a"), (None, "b")])
    assert errors == (None, None)
    assert json.dumps(errors) == "[null, null]"


def test_by_layer_is_short_in_print_and_a_list_in_json() -> None:
    values = label_metrics.ByLayer([0.25, 0.75, 0.5])
    assert str(values) == repr(values) == "3 layers, 0.25 to 0.75"
    assert str(label_metrics.ByLayer([None, None])) == "2 layers, N/A"
    assert str(label_metrics.ByLayer([None, 0.5])) == "2 layers, 0.5 to 0.5"
    assert json.dumps(copy.deepcopy(values)) == "[0.25, 0.75, 0.5]"


def test_distinct_texts() -> None:
    assert distinct_texts([":", ":", None]) == ":"
    assert distinct_texts([":", "\n", ":"]) == ["\n", ":"]
    assert distinct_texts([None, None]) is None
