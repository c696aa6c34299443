"""Our metrics in the multiple-choice task of the guide, and as lm-eval's plugins."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.typed_commands import blocks
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TINY = ROOT / "axolotl_configs/cpu/tiny-base"
GUIDE = ROOT / "docs/guides/score.md"
CHOICES = ["low", "medium", "high"]
MESSAGES = {
    "low": ["My pen is blue.", "Thanks a lot!", "See you soon.", "Where is the map?"],
    "medium": ["The lamp flickers.", "My parcel is late.", "The page loads slowly.", "Which key?"],
    "high": ["The server burns!", "Nobody can log in!", "Water is coming in!", "Call me at once!"],
}
BRIER = "{metric: brier, aggregation: mean, higher_is_better: false}"
ROWS = [{"message": text, "urgency": name} for name in CHOICES for text in MESSAGES[name]]


@pytest.fixture(scope="module")
def tiny() -> Any:
    return HFLM(pretrained=str(TINY), device="cpu", dtype="float32", batch_size=16)


@pytest.fixture
def urgency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the guide's task, in the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = Path("urgency")
    folder.mkdir()
    for language in ("python", "yaml"):
        for block in blocks(GUIDE, language):
            if block.startswith("# urgency/"):
                name, _, text = block.removeprefix("# ").partition("\n")
                Path(name).write_text(text, encoding="utf-8")
    write_rows(ROWS)
    return folder


def write_rows(rows: list[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    Path("urgency/messages.jsonl").write_text(lines, encoding="utf-8")


def change(folder: Path, **replacements: str) -> None:
    """Replace the values of top-level keys of the task file; a key without a line gets one."""
    file = folder / "urgency.yaml"
    text = file.read_text(encoding="utf-8")
    for key, value in replacements.items():
        line = f"{key}: {value}\n" if value else ""
        text, count = re.subn(rf"^{key}:.*\n(?:  .*\n)*", line, text, flags=re.MULTILINE)
        text += "" if count else line
    file.write_text(text, encoding="utf-8")


def scored(lm: Any, folder: Path, **arguments: Any) -> dict[str, Any]:
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return dict(simple_evaluate(model=lm, tasks=["urgency"], task_manager=manager, **arguments))


def test_the_guides_task_equals_scikit_learn(tiny: Any, urgency: Path) -> None:
    results = scored(tiny, urgency)
    found = results["results"]["urgency"]
    samples = sorted(results["samples"]["urgency"], key=lambda sample: sample["doc_id"])
    scores = np.array([[float(score) for ((score, _),) in s["resps"]] for s in samples])
    assert scores.shape == (12, 3)
    probabilities = softmax(scores, axis=1)
    truth, predicted = np.repeat([0, 1, 2], 4), scores.argmax(axis=1)
    assert len(set(predicted)) > 1
    one_hot = np.eye(3)[truth]
    # (scikit-learn's log_loss would clip the probabilities.)
    errors = -log_softmax(scores, axis=1)[np.arange(12), truth]
    confidence, right = probabilities.max(axis=1), predicted == truth
    gap = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            gap += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    expected = {
        "acc": accuracy_score(truth, predicted),
        "brier": float(((probabilities - one_hot) ** 2).sum(axis=1).mean()),
        "nll": float(errors.mean()),
        "macro_f1": f1_score(truth, predicted, average="macro", labels=[0, 1, 2], zero_division=0),
        "qwk": cohen_kappa_score(truth, predicted, weights="quadratic", labels=[0, 1, 2]),
        "ece": gap,
    }
    for name, value in expected.items():
        assert found[f"{name},none"] == pytest.approx(value, abs=1e-6), name
    # Over documents, the error of a mean is lm-eval's; the others are jackknives.
    assert found["nll_stderr,none"] == pytest.approx(errors.std(ddof=1) / 12**0.5, rel=1e-5)
    without = np.array(
        [
            cohen_kappa_score(
                np.delete(truth, n), np.delete(predicted, n), weights="quadratic", labels=[0, 1, 2]
            )
            for n in range(12)
        ]
    )
    jackknife = (11 / 12 * ((without - without.mean()) ** 2).sum()) ** 0.5
    assert found["qwk_stderr,none"] == pytest.approx(jackknife, rel=1e-6)
    assert all(isinstance(found[f"{name}_stderr,none"], float) for name in expected)


def test_brier_is_lm_evals_brier_score(tiny: Any, urgency: Path) -> None:
    listed = "{metric: brier_score, aggregation: brier_score, higher_is_better: false}"
    change(urgency, metric_list=f"[{listed}, {BRIER}]")
    found = scored(tiny, urgency)["results"]["urgency"]
    assert found["brier,none"] == pytest.approx(found["brier_score,none"], rel=1e-12)
    # lm-eval has an error for the one with a value for each document only.
    assert found["brier_score_stderr,none"] == "N/A"
    assert found["brier_stderr,none"] > 0


def test_choices_may_differ_between_documents(tiny: Any, urgency: Path) -> None:
    write_rows([row | {"choices": CHOICES[: 2 if n < 8 else 3]} for n, row in enumerate(ROWS)])
    change(urgency, doc_to_choice="choices")
    results = scored(tiny, urgency)
    samples = sorted(results["samples"]["urgency"], key=lambda sample: sample["doc_id"])
    scores = [[float(score) for ((score, _),) in s["resps"]] for s in samples]
    assert [len(of_one) for of_one in scores] == [2] * 8 + [3] * 4
    truth, predicted = np.repeat([0, 1, 2], 4), [int(np.argmax(of_one)) for of_one in scores]
    found = results["results"]["urgency"]
    expected = f1_score(truth, predicted, average="macro", labels=[0, 1, 2], zero_division=0)
    assert found["macro_f1,none"] == pytest.approx(expected)
    right = [log_softmax(of_one)[one] for of_one, one in zip(scores, truth, strict=True)]
    assert found["nll,none"] == pytest.approx(-float(np.mean(right)), abs=1e-6)


def test_scores_without_the_prompt_are_not_taken_for_choices(tiny: Any, urgency: Path) -> None:
    expected = scored(tiny, urgency)["results"]["urgency"]
    mutual = "{metric: acc_mutual_info, aggregation: mean, higher_is_better: true}"
    change(urgency, metric_list=f"[{mutual}, {BRIER}]")
    found = scored(tiny, urgency)["results"]["urgency"]
    assert {"acc_mutual_info,none", "brier,none"} <= set(found)
    assert found["brier,none"] == pytest.approx(expected["brier,none"], abs=1e-6)
    assert "nll,none" not in found


def test_predict_only_computes_no_metric(tiny: Any, urgency: Path) -> None:
    (first, *_) = scored(tiny, urgency, predict_only=True)["samples"]["urgency"]
    assert first["metrics"] == []


def test_two_folders_may_load_the_metrics(urgency: Path) -> None:
    second = Path("second")
    second.mkdir()
    for file in urgency.iterdir():
        text = file.read_text(encoding="utf-8").replace("task: urgency", "task: again")
        (second / file.name).write_text(text, encoding="utf-8")
    manager = TaskManager(include_path=[str(urgency), str(second)], include_defaults=False)
    assert sorted(manager.all_tasks) == ["again", "urgency"]
    manager.load_task_or_group(["again", "urgency"])


@pytest.mark.parametrize(
    ("changes", "rows", "said"),
    [
        (
            {"output_type": "generate_until"},
            ROWS,
            "the task urgency has output_type: generate_until; its class ChoiceMetricsTask needs "
            "multiple_choice",
        ),
        (
            {
                "output_type": "generate_until",
                "class": "",
                "doc_to_choice": "",
                "metric_list": f"[{BRIER}]",
            },
            ROWS,
            "the metric brier needs output_type: multiple_choice, and ChoiceMetricsTask as the "
            "task's class",
        ),
        (
            {},
            [ROWS[0], {"message": "Help!", "urgency": "urgent"}],
            "the task urgency has a document with the target 'urgent', but our metrics need one "
            "of its 3 choices",
        ),
        (
            {},
            [row | {"urgency": [0, 1]} for row in ROWS[:2]],
            "the task urgency has a document with the target [0, 1], but our metrics need one of "
            "its 3 choices",
        ),
    ],
    ids=["other output", "no class", "no choice", "two right choices"],
)
def test_a_mistake_is_one_sentence(
    tiny: Any,
    urgency: Path,
    changes: dict[str, str],
    rows: list[dict[str, Any]],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(urgency, **changes)
    write_rows(rows)
    with pytest.raises(SystemExit) as stopped:
        scored(tiny, urgency)
    assert stopped.value.code == 2
    assert f"regreason: {said}\n" in capsys.readouterr().err


# --- Plugins ------------------------------------------------------------------------

# What the main branch does with an entry point (docs/plugins.md and tests/test_plugins.py there):
# the name is registered with the entry point as a placeholder, unless lm-eval has the name itself;
# the object is loaded when it is asked for; a decorator in its module may register the name again,
# if entry point and decorated object agree.
MAIN_BRANCH = """
import importlib.metadata, sys
import lm_eval.api.metrics, lm_eval.models
from lm_eval.api import registry
from lm_eval.api.model import LM

groups = {
    "lm_eval.models": registry.model_registry,
    "lm_eval.filters": registry.filter_registry,
    "lm_eval.metrics": registry.metric_registry,
    "lm_eval.aggregations": registry.aggregation_registry,
}
register = registry.Registry.register

def registering(self, *names, target=None):
    def decorate(loaded):
        for name in names:
            held = self._objs.get(name)
            if getattr(held, "value", None) == f"{loaded.__module__}:{loaded.__name__}":
                del self._objs[name]
        return register(self, *names)(loaded)
    return decorate if target is None else register(self, *names, target=target)

registry.Registry.register = registering
declared = {}
for group, known in groups.items():
    for point in importlib.metadata.entry_points(group=group):
        if point.dist.name == "regreason":
            assert point.name not in known, f"lm-eval has {point.name} itself"
            known.register(point.name, target=point)
            declared[group, point.name] = point
assert not any(name.startswith("regreason_plugin") for name in sys.modules), "not lazy"
for (group, name), point in declared.items():
    assert groups[group].get(name) is point.load()

from regreason_plugin.evaluate import choice_metrics, model
from regreason_plugin.metrics import label_metrics

assert registry.get_model("regreason-hf") is model.RegReasonHF and issubclass(model.RegReasonHF, LM)
model.register()
assert registry.get_model("regreason-hf") is model.RegReasonHF
mean = registry.get_aggregation("mean")
for name in choice_metrics.METRICS:
    assert registry.get_metric(name) is getattr(choice_metrics, name)
    assert registry.is_higher_better(name) is (name in ("macro_f1", "qwk"))
    aggregation = registry.get_metric_aggregation(name)
    assert aggregation is getattr(label_metrics, name, mean)
    if name in registry.aggregation_registry:
        assert registry.get_aggregation(name) is aggregation
print(sorted(name for _, name in declared))
"""


def test_the_main_branch_finds_the_declared_plugins() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN_BRANCH], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    metrics = ["brier", "ece", "macro_f1", "nll", "qwk"]
    assert done.stdout.strip() == str(sorted([*metrics, "ece", "macro_f1", "qwk", "regreason-hf"]))
