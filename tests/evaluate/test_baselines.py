"""Baselines on the arms' rows, checked against scikit-learn, transformers and lm-eval."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.labelled_tables import LABELS, write_tickets
from helpers.scoring import evaluate
from lm_eval.api.instance import Instance
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from regreason_plugin.cli import main
from regreason_plugin.core import stages
from regreason_plugin.core.declaration import Declaration
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.evaluate.baselines import head, run, scoring, tfidf
from regreason_plugin.evaluate.baselines.classifier_lm import ClassifierLM
from regreason_plugin.evaluate.baselines.method import do
from regreason_plugin.evaluate.baselines.training_rows import Examples, Rows
from regreason_plugin.evaluate.baselines.work import Work
from regreason_plugin.metrics.label_metrics import comparable

pytestmark = pytest.mark.integration

TASK = "regreason_coqa_on_topic"
_opened: list[str] | None = None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open":
        _opened.append(str(arguments[0]))


sys.addaudithook(_listen)


@contextmanager
def opened() -> Iterator[list[str]]:
    """Record the files that are opened inside the context."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


@pytest.fixture(scope="module")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Data folder and task files of a task with 12 awkward labels, which the texts determine."""
    folder = tmp_path_factory.mktemp("tickets")
    table = write_tickets(folder)
    task, data = folder / "tickets", folder / "data"
    columns = ("--text", "message", "--label", "queue")
    assert not main(["task", "new", "tickets", "--data", str(table), *columns, "--out", str(task)])
    assert not main(["build", str(task / "task.yml"), "--out", str(data), "--arms", "label_only"])
    return data, task


def rows_of(file: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row["messages"][0]["content"] for row in rows], np.array([row["label"] for row in rows])


def results_of(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read lm-eval's results and samples, the samples sorted by document."""
    (file,) = out.rglob("results_*.json")
    (samples,) = out.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return json.loads(file.read_text(encoding="utf-8")), sorted(rows, key=lambda row: row["doc_id"])


def probabilities(samples: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    return np.exp([[float(score) for score, _ in row["filtered_resps"]] for row in samples])


@pytest.fixture
def before_scoring(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The data files that were opened before test documents were scored."""
    score, kept = scoring.score_classifier, []

    with opened() as files:

        def watched(*args: Any, **named: Any) -> None:
            kept.extend(file for file in files if file.endswith(".jsonl"))
            score(*args, **named)

        monkeypatch.setattr(scoring, "score_classifier", watched)
        yield kept


def test_tfidf_is_scikit_learns(
    tickets: tuple[Path, Path], tmp_path: Path, before_scoring: list[str]
) -> None:
    data, task = tickets
    cost = do(Work("tfidf", data, tmp_path, include_path=task))
    results, samples = results_of(tmp_path)
    found = results["results"]["tickets"]
    assert found["acc,none"] == 1.0
    assert found["majority_acc,none"] < 0.2

    train, labels = rows_of(data / "train" / "label_only.jsonl")
    held_out, held_out_labels = rows_of(data / "validation" / "label_only.jsonl")
    test = [row["doc"]["prompt"] for row in samples]
    vectorizers = [
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True),
    ]
    weights = hstack([one.fit_transform(train) for one in vectorizers]).tocsr()

    def features(texts: list[str]) -> Any:
        return hstack([one.transform(texts) for one in vectorizers]).tocsr()

    models = {
        strength: LogisticRegression(C=strength, max_iter=2000).fit(weights, labels)
        for strength in (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
    }
    losses = {
        strength: log_loss(
            held_out_labels, model.predict_proba(features(held_out)), labels=model.classes_
        )
        for strength, model in models.items()
    }
    chosen = min(losses, key=lambda strength: losses[strength])
    assert results["config"]["model"] == "tfidf"
    assert results["config"]["model_args"]["C"] == {"tickets": chosen}
    expected = models[chosen].predict_proba(features(test))
    assert probabilities(samples) == pytest.approx(expected, abs=1e-9)

    assert {Path(file).parent.name for file in before_scoring} == {"train", "validation"}
    assert cost.training_seconds > 0
    assert cost.scoring_ms > 0
    assert cost.peak_memory_mib > 50
    assert (cost.documents, cost.training_rows) == (len(samples), len(train))
    assert cost.training_tokens is None


def test_head_is_transformers_own(
    tickets: tuple[Path, Path], tiny_model: Path, tmp_path: Path, before_scoring: list[str]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    data, task = tickets
    out = tmp_path / "seed-3"
    given = {"epochs": 2, "learning_rate": 0.003, "include_path": task}
    cost = do(Work("head", data, out, model=str(tiny_model), seed=3, **given))
    results, samples = results_of(out)
    history = json.loads((out / "history.json").read_text(encoding="utf-8"))
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert len(losses) == 2
    assert losses[1] < losses[0] < math.log(len(LABELS))
    found = results["results"]["tickets"]
    assert found["acc,none"] > 2 * found["majority_acc,none"]

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=len(LABELS))
    model = PeftModel.from_pretrained(base, out).eval()

    def alone(texts: list[str]) -> np.ndarray[Any, Any]:
        """Probabilities of each text in a separate batch, without padding."""
        with torch.no_grad():
            logits = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in texts]
        return torch.softmax(torch.stack(logits).double(), dim=-1).numpy()

    expected = alone([row["doc"]["prompt"] for row in samples])
    assert probabilities(samples) == pytest.approx(expected, abs=1e-5)

    assert {Path(file).parent.name for file in before_scoring} == {"train", "validation"}
    record = json.loads((out / "regreason.json").read_text(encoding="utf-8"))
    assert (record["arm"], record["seed"]) == ("head", 3)
    train, _ = rows_of(data / "train" / "label_only.jsonl")
    assert cost.training_tokens == 2 * sum(len(tokenizer(text).input_ids) for text in train)
    assert cost.training_seconds > 0
    assert cost.scoring_ms > 0
    assert not (out / "checkpoints").exists()


def test_the_epoch_of_the_lowest_validation_loss_is_kept(tiny_model: Path, tmp_path: Path) -> None:
    """Validation labels contradict the train labels, so that the validation loss rises."""
    setting = ("coqa", "on_topic")
    texts = [f"{colour} {number}" for colour in ("red", "blue") for number in range(24)]
    train = Examples(texts, [1] * 24 + [2] * 24)
    against = Examples(texts[::3], [2] * 8 + [1] * 8)
    options = head.HeadOptions(seed=0, epochs=3, learning_rate=0.003)
    trained = head.train(
        str(tiny_model), Rows({setting: train}, {setting: against}), 2, tmp_path, options
    )
    losses = [entry["eval_loss"] for entry in trained.history if "eval_loss" in entry]
    assert losses[0] < losses[2]
    scores = trained.head.log_probabilities(setting, against.prompts)
    kept = log_loss(against.labels, np.exp(scores), labels=[1, 2])
    assert kept == pytest.approx(min(losses), abs=1e-4)


@pytest.mark.slow
def test_scored_resumed_and_compared(
    data_folder: DataFolder,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run the whole command twice, and compare its results."""
    # More threads than cores would be slower than one thread.
    monkeypatch.setattr(stages.os, "cpu_count", lambda: 1)
    out = tmp_path / "results"
    command = ["baselines", str(data_folder.path), "--out", str(out), "--tasks", TASK]
    command += ["--methods", "tfidf,zero_shot", "--model", str(tiny_model)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "macro-F1" in shown
    assert f"tfidf={out / 'tfidf'}" in shown.replace("\n", "")
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.json*")}

    assert main(command) == 0
    assert capsys.readouterr().out.count("done before") == 2
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json*")} == files

    given = [f"{name}={out / name}" for name in ("zero_shot", "tfidf")]
    compared = tmp_path / "compared"
    assert main(["compare", *given, "--baseline", "zero_shot", "--out", str(compared)]) == 0
    comparison = json.loads((compared / "comparison.json").read_text(encoding="utf-8"))
    for name in ("zero_shot", "tfidf"):
        results, samples = results_of(out / name)
        for metric in ("acc", "macro_f1", "nll", "ece"):
            assert comparison["scores"][name][TASK][metric]["value"] == pytest.approx(
                results["results"][TASK][f"{metric},none"]
            )
        cost = json.loads((out / name / "cost.json").read_text(encoding="utf-8"))
        assert cost["documents"] == len(samples)
        assert cost["scoring_ms"] > 0
        assert comparison["costs"][name]["scoring_ms"] == pytest.approx(cost["scoring_ms"])
    assert comparison["differences"]["tfidf"][TASK]["acc"]["se"] > 0


def test_prompts_in_a_chat_template_are_those_of_hf(
    data_folder: DataFolder, tiny_model: Path, tmp_path: Path
) -> None:
    from lm_eval.models.huggingface import HFLM

    given = {"model": str(tiny_model), "apply_chat_template": True}
    do(Work("tfidf", data_folder.path, tmp_path, (TASK,), **given))
    results, samples = results_of(tmp_path)
    hf = HFLM(pretrained=str(tiny_model), device="cpu", batch_size=4)
    options = {"apply_chat_template": True, "log_samples": True, "limit": 3}
    for theirs in evaluate(hf, [TASK], data_folder.path, **options)["samples"][TASK]:
        ours = samples[theirs["doc_id"]]
        for key in ("doc_hash", "prompt_hash", "target_hash"):
            assert ours[key] == theirs[key]
        assert ours["arguments"]["gen_args_0"]["arg_0"].startswith("<|im_start|>user")
    from lm_eval.utils import hash_string

    assert results["chat_template_sha"] == hash_string(hf.chat_template(True))


def test_a_label_without_a_train_row_keeps_a_chance() -> None:
    examples = Examples(["a red one", "a blue one", "the red", "the blue"], [1, 3, 1, 3])
    setting = ("coqa", "on_topic")
    classifier = tfidf.fit(Rows({setting: examples}, {setting: examples}), 3)
    found = np.exp(classifier.log_probabilities(setting, ["red", "green"]))
    assert found.sum(axis=1) == pytest.approx([1, 1])
    assert found[:, 1] == pytest.approx(1 / (4 + 3))
    assert found[0].argmax() == 0
    fitted = classifier.fitted[setting].pipeline().predict_proba(["red", "green"])
    assert found[:, [0, 2]] == pytest.approx(6 / 7 * fitted)


def test_validation_rows_choose_the_penalty() -> None:
    """With validation labels that contradict the train labels, the strongest penalty is best."""
    setting = ("coqa", "on_topic")
    texts = ["a red one", "a blue one", "the red", "the blue"]
    train, against = Examples(texts, [1, 2, 1, 2]), Examples(texts, [2, 1, 2, 1])
    for held_out, strength in ((train, 1000.0), (against, 0.01)):
        fitted = tfidf.fit(Rows({setting: train}, {setting: held_out}), 2).fitted[setting]
        assert strength == fitted.regression.C


@pytest.mark.parametrize(("normalise", "end"), [("none", ""), ("characters", ""), ("none", ".")])
def test_a_label_scores_its_probability_however_scores_are_normalised(
    normalise: Any, end: str
) -> None:
    labels = ("no", "yes, always", "it depends")
    declaration = Declaration(
        labels=labels,
        label_end=end,
        ordinal=False,
        normalise=normalise,
        datasets={"one": {"title": "One"}},
        axes={"label": {"title": "Label"}},
    )
    expected = np.log([[0.2, 0.5, 0.3]])

    class Fixed:
        def log_probabilities(self, setting: Any, prompts: Any) -> Any:
            return expected

    lm = ClassifierLM(Fixed(), declaration, {"one": ("one", "label")})
    requests = [
        Instance("loglikelihood", {}, ("Well?", f" {label}{end}"), place, metadata=("one", 0, 1))
        for place, label in enumerate(labels)
    ]
    answers = lm.loglikelihood(requests)
    assert [greedy for _, greedy in answers] == [False, True, False]
    scores = comparable([score for score, _ in answers], labels, normalise)
    assert scores == pytest.approx(expected[0])


def test_a_folder_of_something_else_is_left_alone(
    data_folder: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "tfidf" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    command = ["baselines", str(data_folder.path), "--out", str(tmp_path), "--methods", "tfidf"]
    assert main(command) == 2
    assert "tfidf: exists, but does not hold a baseline's results" in capsys.readouterr().err
    assert mine.read_text() == "mine"


def test_a_task_of_its_own_needs_its_files(
    tickets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["baselines", str(tickets[0]), "--out", str(tmp_path), "--methods", "tfidf"]
    assert main(command) == 2
    assert "name the folder of the task with --include_path" in capsys.readouterr().err


def test_what_a_method_is_made_from_decides_whether_it_is_done(
    data_folder: DataFolder, tiny_model: Path, tmp_path: Path
) -> None:
    def inputs(folder: DataFolder = data_folder, **changed: Any) -> list[str]:
        work = Work("", folder.path, tmp_path, model=str(tiny_model), **changed)
        return [one.inputs for one in run.stages(folder, tmp_path, ["tfidf", "head"], [1], work)]

    first, head = inputs()
    assert inputs() == [first, head]
    assert inputs(epochs=5)[0] == first
    assert inputs(epochs=5)[1] != head
    assert inputs(tasks=(TASK,))[0] != first
    work = Work("", data_folder.path, tmp_path)
    (stage,) = run.stages(data_folder, tmp_path, ["tfidf"], [], work)
    # cost.json is written last, so a killed method is not finished and starts again.
    (tmp_path / "tfidf").mkdir()
    assert not stage.done()
    assert stage.clears == tmp_path / "tfidf"
    (tmp_path / "tfidf" / "cost.json").touch()
    assert stage.done()
    other = DataFolder(data_folder.path, data_folder.manifest, "0" * 64)
    assert not {*inputs(other)} & {first, head}


def without_arm(data: DataFolder, tmp_path: Path) -> Path:
    return change_manifest(data, tmp_path, lambda files: files.pop("train/label_only.jsonl"))


def change_manifest(data: DataFolder, tmp_path: Path, change: Callable[[Any], Any]) -> Path:
    folder = tmp_path / "changed"
    folder.mkdir()
    manifest = json.loads((data.path / "manifest.json").read_text(encoding="utf-8"))
    change(manifest["files"])
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def one_label(data: DataFolder, tmp_path: Path) -> Path:
    """A copy of the folder in which all train rows of one setting have label 3."""
    import hashlib
    import shutil

    folder = tmp_path / "changed"
    shutil.copytree(data.path, folder)
    file = folder / "train" / "label_only.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if (row["dataset"], row["axis"]) == ("coqa", "on_topic"):
            row["label"] = 3
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["train/label_only.jsonl"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("options", "make", "message"),
    [
        (["--methods", "tfdif"], None, "unknown method 'tfdif'; did you mean 'tfidf'?"),
        (["--methods", "head"], None, "head needs --model BASE"),
        (["--methods", "tfidf", "--tasks", "coqa"], None, "the data has no task 'coqa'"),
        (["--methods", "tfidf"], without_arm, "lists no train/label_only.jsonl"),
        (
            ["--methods", "tfidf", "--tasks", TASK],
            one_label,
            "all rows of coqa on_topic have the label '3', but a classifier needs at least two",
        ),
        (
            ["--methods", "zero_shot", "--model", "./no-such"],
            None,
            "cannot load --model './no-such'",
        ),
        (["--methods", "tfidf", "--apply_chat_template"], None, "needs --model BASE"),
    ],
)
def test_a_mistake_is_one_sentence(
    data_folder: DataFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    make: Callable[[DataFolder, Path], Path] | None,
    message: str,
) -> None:
    data = make(data_folder, tmp_path) if make else data_folder.path
    out = tmp_path / "results"
    assert main(["baselines", str(data), "--out", str(out), *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("regreason: ")
    assert message in line
    assert not out.exists()
