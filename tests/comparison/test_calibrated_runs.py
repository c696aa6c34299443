"""`compare --calibrated`: metrics of the probabilities that each model's temperature calibrates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.results import SHA, Task, documents, draw_scores, write_results
from scipy.special import softmax
from sklearn.metrics import log_loss

from regreason_plugin.cli import main
from regreason_plugin.comparison.compare import compare
from regreason_plugin.comparison.comparison import Comparison, load_comparison
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.model_use import RECORD
from regreason_plugin.evaluate.answer_cache import folder_digest
from regreason_plugin.evaluate.calibration_file import Calibration, LabelFit, ValidationRows
from regreason_plugin.evaluate.results import Run, read_run
from regreason_plugin.metrics.metric_names import CALIBRATED_METRICS
from regreason_plugin.render.markdown_page import to_markdown
from regreason_plugin.render.reliability_figure import plain_error

TASK = Task("tickets", ("bill", "ship", "lost"), normalise="characters")
COUNT = 240
TEMPERATURES = {"plain": 1.7, "told": 0.6}
# Metrics that a temperature changes and that have tests.
CHANGED = ("miscalibration", "nll", "overconfidence", "label_entropy")


def calibration_of(model: Path, temperature: float, **changes: Any) -> Calibration:
    fit = LabelFit(nll=1.0, ece=0.1)
    data = ValidationRows(
        sha256=TASK.data["sha256"],
        file="validation/label_only.jsonl",
        file_sha256=SHA,
        origin="rated",
        settings=[("tickets", "label")],
        rows=30,
        groups=20,
    )
    known = {
        "temperature": temperature,
        "low": temperature / 1.2,
        "high": temperature * 1.2,
        "before": fit,
        "after": fit,
        "data": data,
        "model": folder_digest(model),
        "arguments": {},
        "order": "label_first",
        "labels": TASK.labels,
        "normalise": "characters",
        "versions": {},
    }
    return Calibration(**{**known, **changes})


def scores_of(arm: str) -> np.ndarray[Any, Any]:
    of = {"plain": (0.55, 3.0), "told": (0.6, 6.0)}[arm]
    scores = draw_scores(TASK, COUNT, of[0], 3, sharpness=of[1])
    # Logged scores are not normalised.
    return scores * [len(label) for label in TASK.labels]


def results_of(place: Path, arm: str, divided_by: float = 1.0) -> Path:
    """An arm's results, and its model's folder with record and calibration."""
    model = place / "models" / arm
    model.mkdir(parents=True)
    data = {"sha256": TASK.data["sha256"], "path": "data"}
    (model / RECORD).write_text(json.dumps({"arm": arm, "seed": 1, "data": data}))
    calibration_of(model, TEMPERATURES[arm]).write(model)
    scores = {TASK: scores_of(arm) / divided_by}
    write_results(place / arm, scores, group_size=3, adapter=str(model))
    return place / arm


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return [read_run(arm, results_of(tmp_path, arm)) for arm in TEMPERATURES]


def compared(runs: list[Run], **options: Any) -> Comparison:
    return compare(runs, "plain", **options).comparison


def test_plain_figures_and_tests_stay_the_same(runs: list[Run]) -> None:
    plain, both = compared(runs), compared(runs, calibrated=True)
    assert plain.family == both.family
    assert plain.primary == both.primary
    assert set(both.metrics) - set(plain.metrics) == set(CALIBRATED_METRICS) - {"calibrated_ece"}
    for name, figure in plain.pooled["told"].items():
        assert both.pooled["told"][name] == figure, name
    for arm in TEMPERATURES:
        for name, score in plain.pooled_scores[arm].items():
            assert both.pooled_scores[arm][name] == score, name
    assert plain.answers == both.answers
    for name in set(both.metrics) - set(plain.metrics):
        one = both.pooled["told"][name]
        assert one.p is not None
        assert (one.p_corrected, one.finding) == (None, None)
    with pytest.raises(UserError, match="there is no metric 'calibrated_nll' to test"):
        compared(runs, calibrated=True, primary="told:calibrated_nll")


def test_the_same_as_results_whose_scores_were_divided(runs: list[Run], tmp_path: Path) -> None:
    both = compared(runs, calibrated=True)
    divided = compared(
        [
            read_run(arm, results_of(tmp_path / "divided", arm, temperature))
            for arm, temperature in TEMPERATURES.items()
        ]
    )
    for name in CHANGED:
        found, expected = both.pooled["told"][f"calibrated_{name}"], divided.pooled["told"][name]
        for field in ("value", "low", "high", "p"):
            assert getattr(found, field) == pytest.approx(getattr(expected, field), rel=1e-5), name
        assert found.value != pytest.approx(both.pooled["told"][name].value, rel=0.01), name
    labels = [row["label"] - 1 for row in documents(TASK, COUNT)]
    lengths = [len(label) for label in TASK.labels]
    for arm, temperature in TEMPERATURES.items():
        score = both.pooled_scores[arm]
        expected = divided.pooled_scores[arm]
        for name in ("ece", *CHANGED):
            one, other = score[f"calibrated_{name}"], expected[name]
            assert one.value == pytest.approx(other.value, rel=1e-5), name
        found = score["calibrated_ece"].if_calibrated
        assert found == pytest.approx(expected["ece"].if_calibrated, rel=1e-5)
        probabilities = softmax(scores_of(arm) / lengths / temperature, axis=1)
        loss = log_loss(labels, probabilities, labels=[0, 1, 2])
        assert score["calibrated_nll"].value == pytest.approx(loss, rel=1e-6)
        assert score["acc"].value == pytest.approx((probabilities.argmax(1) == labels).mean())


def test_what_a_reader_sees(tmp_path: Path) -> None:
    folders = {arm: results_of(tmp_path, arm) for arm in TEMPERATURES}
    given = [f"{arm}={folder}" for arm, folder in folders.items()]
    out = tmp_path / "out"
    flags = ["--baseline", "plain", "--out", str(out), "--calibrated"]
    assert main(["compare", *given, *flags]) == 0
    comparison = load_comparison(out / "comparison.json")
    assert comparison.command.endswith(" --calibrated")
    assert [run.temperature.value for run in comparison.runs if run.temperature] == [1.7, 0.6]
    (note,) = [note for note in comparison.notes if "own temperature" in note]
    assert "`plain` 1.700 (1.417 to 2.040); `told` 0.600 (0.500 to 0.720)" in note
    page, csv = to_markdown(comparison), (out / "comparison.csv").read_text(encoding="utf-8")
    assert "negative log-likelihood, calibrated" in page
    assert "negative log-likelihood, calibrated" in (out / "report.html").read_text("utf-8")
    assert "pooled" in csv
    assert ",calibrated_ece," in csv
    rows = [line for line in csv.splitlines() if ",calibrated_nll," in line and ",told," in line]
    assert rows
    assert all(line.endswith(",exploratory") for line in rows)
    ece = comparison.pooled_scores["told"]["calibrated_ece"].value
    assert plain_error(comparison, "told").endswith(f"\nECE {ece:.3f} after its temperature")


def test_what_has_no_fitting_temperature_is_refused(tmp_path: Path, runs: list[Run]) -> None:
    def refusal(changed: Run) -> str:
        with pytest.raises(UserError) as refused:
            compared([runs[0], changed], calibrated=True)
        return str(refused.value)

    model = tmp_path / "models" / "told"
    other = calibration_of(model, 0.6)
    data = other.data.model_copy(update={"sha256": SHA})
    other.model_copy(update={"data": data}).write(model)
    assert "was fitted on another data folder than the one that is used" in refusal(runs[1])
    other.model_copy(update={"labels": ("bill", "ship")}).write(model)
    assert "was fitted with labels ['bill', 'ship'], and the model is used" in refusal(runs[1])
    other.model_copy(update={"model": "0" * 16}).write(model)
    assert "was fitted for other files of this model" in refusal(runs[1])
    (model / "calibration.json").unlink()
    assert "has no calibration.json; fit its temperature with `regreason calib" in refusal(runs[1])
    write_results(tmp_path / "base", {TASK: scores_of("told")}, group_size=3)
    message = refusal(read_run("base", tmp_path / "base"))
    assert "--calibrated: base has no temperature, because RegReason's plugin did not" in message
