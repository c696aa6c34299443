"""A tokenizer that normalises text is refused, with the cause, wherever labels become tokens."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from regreason_plugin.cli import main
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.label_tokens import check_label_tokens
from regreason_plugin.evaluate.model import register
from regreason_plugin.predict.classifier import Classifier
from regreason_plugin.task import new_task
from regreason_plugin.train.label_span import locate_labels

pytestmark = pytest.mark.integration

LOWER = {"type": "Lowercase"}
NFKC = {"type": "NFKC"}
SPACES = {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}


def tokenizer_of(model: Path, place: Path, normalizer: dict[str, Any]) -> Path:
    """Write a model whose tokenizer changes text before it splits it."""
    shutil.copytree(model, place)
    file = place / "tokenizer.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values["normalizer"] = normalizer
    file.write_text(json.dumps(values), encoding="utf-8")
    return place


@pytest.mark.parametrize(
    ("normalizer", "labels", "said"),
    [
        (LOWER, ["Good", "good"], "gives labels 'Good' and 'good' the same tokens, so the model"),
        (LOWER, ["good", "Bad"], "changes label 'Bad' to 'bad', so the model can neither"),
        (NFKC, ["1\u00b2", "12"], "gives labels '1²' and '12' the same tokens"),
        (NFKC, ["cafe\u0301", "tea"], "changes label 'cafe\u0301' to 'caf\u00e9'"),
        (SPACES, ["so so", "so  so"], "has nothing where 'so so' has U+0020 SPACE"),
        (SPACES, ["so  so", "bad"], "has U+0020 SPACE where 'so so' has nothing"),
    ],
)
def test_labels_that_do_not_come_back(
    tiny_model: Path, tmp_path: Path, normalizer: dict[str, Any], labels: list[str], said: str
) -> None:
    place = tokenizer_of(tiny_model, tmp_path / "model", normalizer)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        check_label_tokens(labels, AutoTokenizer.from_pretrained(place))
    assert "under `values`" in str(error.value)
    assert check_label_tokens(labels, AutoTokenizer.from_pretrained(tiny_model)) > 1
    # The same check with the labels as training encodes them.
    with pytest.raises(UserError, match=re.escape(said)):
        locate_labels([], Counter(), AutoTokenizer.from_pretrained(place), "label_first", labels)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a task that has the labels Good and good, and its data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(new_task, "check_is_free", lambda name: None)
    rows = [f"text {n},{label}" for n, label in enumerate(["Good", "good"] * 20)]
    Path("t.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    columns = ("--text", "text", "--label", "label", "--keep-labels", "--model", "model")
    assert main(["task", "new", "mine", "--data", "t.csv", *columns]) == 0
    assert main(["build", "mine/task.yml", "--out", "runs/mine/data"]) == 0
    return tmp_path


SAME = "gives labels 'Good' and 'good' the same tokens, so the model cannot tell them apart"


def test_check_says_the_cause(
    made: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_model, made / "model")
    assert main(["check", "mine/mine.lora.yml"]) in (0, 1)
    assert "the same tokens" not in capfd.readouterr().err
    shutil.rmtree(made / "model")
    tokenizer_of(tiny_model, made / "model", LOWER)
    assert main(["check", "mine/mine.lora.yml"]) == 2
    said = capfd.readouterr().err
    assert f"error: the model's tokenizer {SAME}" in said
    assert "dataset_prepared_path" not in said


@pytest.mark.parametrize("model", ["hf", "regreason-hf"])
@pytest.mark.parametrize("task", ["mine", "mine-gen"])
def test_scoring_says_the_cause(
    made: Path, tiny_model: Path, model: str, task: str, capfd: pytest.CaptureFixture[str]
) -> None:
    register()

    def score(place: Path) -> Any:
        arguments = {"pretrained": str(place), "dtype": "float32"}
        # The command passes the model's arguments to the tasks in this way.
        manager = TaskManager(include_path="mine", include_defaults=False, metadata=arguments)
        return simple_evaluate(
            model=model, model_args=arguments, tasks=[task], task_manager=manager, device="cpu",
            limit=1, bootstrap_iters=0,
        )  # fmt: skip

    if task == "mine":
        assert score(tiny_model)["results"]
    with pytest.raises(SystemExit) as end:
        score(tokenizer_of(tiny_model, made / "model", LOWER))
    assert end.value.code == 2
    assert SAME in capfd.readouterr().err


def test_predicting_says_the_cause(made: Path, tiny_model: Path) -> None:
    place = tokenizer_of(tiny_model, made / "model", LOWER)
    with pytest.raises(UserError, match=SAME):
        Classifier(f"pretrained={place}", "runs/mine/data", device="cpu")
    (made / "task.yml").write_text(
        Path("mine/task.yml").read_text().replace("  - Good\n", "  - Fine\n").replace("../", "")
    )
    with pytest.raises(UserError, match="changes label 'Fine.*' to 'fine"):
        Classifier(f"pretrained={place}", task=made / "task.yml", device="cpu")


def test_the_eighteen_settings_are_unharmed(tiny_model: Path, tmp_path: Path) -> None:
    place = tokenizer_of(tiny_model, tmp_path / "model", LOWER)
    assert check_label_tokens(list("12345"), AutoTokenizer.from_pretrained(place)) == 2
