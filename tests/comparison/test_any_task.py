"""Labelled tables of a user's own: from the data to training tokens and scores."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.labelled_tables import write_answers, write_scale, write_tickets
from helpers.scoring import PlainScorer
from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from sklearn.metrics import cohen_kappa_score, f1_score, roc_auc_score
from transformers import AutoTokenizer

from regreason_plugin.cli import main
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.prompt import TARGET_DELIMITER
from regreason_plugin.data_folder.folder import DataFolder, open_data_folder
from regreason_plugin.evaluate.results import read_run
from regreason_plugin.evaluate.samples import read_answers
from regreason_plugin.task import new_task
from regreason_plugin.train.label_span import IGNORE, locate_labels
from regreason_plugin.train.probe_batch import make_batch
from regreason_plugin.train.row_tokens import RowTokenizer
from regreason_plugin.train.scoring import Scoring, command, read_scoring

pytestmark = pytest.mark.integration

TASKS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "tickets": (write_tickets, "tickets.csv --text message --label queue --id ticket"),
    "scale": (write_scale, "scale.parquet --text answer --label points --explanation reason"),
    "answers": (
        write_answers,
        "answers.jsonl --text text --label verdict --explanation why --id id --group book",
    ),
}
ORDINAL = {"qwk", "mae", "spearman", "within_1", "undefined"}


@dataclass(frozen=True)
class Made:
    """A task folder and its data folder."""

    name: str
    folder: Path
    data: DataFolder

    def rows(self, name: str) -> list[dict[str, Any]]:
        lines = (self.data.path / name).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module", params=TASKS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A task and its data, made with the commands that `task new` prints."""
    name = request.param
    place = tmp_path_factory.mktemp(name)
    write, arguments = TASKS[name]
    write(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        # Listing lm-eval's own tasks takes seconds, and another test checks that names are free.
        patch.setattr(new_task, "check_is_free", lambda name: None)
        assert main(["task", "new", name, "--data", *arguments.split()]) == 0
        assert main(["build", f"{name}/task.yml", "--out", "data"]) == 0
    return Made(name, place / name, open_data_folder(place / "data"))


def test_the_arms_have_the_same_rows_and_no_group_is_on_two_sides(made: Made) -> None:
    arms = made.data.manifest.arms
    assert (len(arms) == 1) == (made.name == "tickets")
    groups: dict[str, set[str]] = {"test": {row["group"] for row in made.rows("test.jsonl")}}
    for split in ("train", "validation"):
        by_arm = [made.rows(f"{split}/{arm}.jsonl") for arm in arms]
        groups[split] = {row["group"] for row in by_arm[0]}
        for rows in by_arm[1:]:
            for one, other in zip(by_arm[0], rows, strict=True):
                assert one["messages"][0] == other["messages"][0]
                assert (one["id"], one["label"]) == (other["id"], other["label"])
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & (groups["train"] | groups["test"])
    written = made.data.declaration.written
    for arm in arms:
        for row in made.rows(f"train/{arm}.jsonl"):
            label, newline, text = row["messages"][1]["content"].partition("\n")
            assert label == written[row["label"] - 1]
            assert (newline == "") == (text == "") == (arm == "label_only")
    assert len({row["label"] for row in made.rows("train/label_only.jsonl")}) == len(written)


def test_a_config_has_its_task_scored_after_the_training(made: Made) -> None:
    config = yaml.safe_load((made.folder / f"{made.name}.lora.yml").read_text(encoding="utf-8"))
    assert config["regreason_eval_include_path"] == made.name

    def read(**changes: str | None) -> Scoring:
        asked = {"regreason_eval": made.name, "regreason_eval_include_path": str(made.folder)}
        found = read_scoring({**asked, **changes}, made.data, "c.yml")
        assert found is not None
        return found

    scoring = read()
    assert scoring.has_ours
    cfg = Values(adapter=None, output_dir="model", torch_dtype="float32", datasets=[Values()])
    words = command(cfg, scoring, {}).words()
    assert words[words.index("--include_path") + 1] == str(made.folder)
    assert words[words.index("--tasks") + 1] == made.name
    for changes, expected in (
        ({"regreason_eval_include_path": None}, "but the folder of its file is not set; set"),
        ({"regreason_eval_include_path": str(made.data.path)}, "has no file for it; set"),
        (
            {"regreason_eval_include_path": "nowhere"},
            "regreason_eval_include_path: is not a folder",
        ),
        ({"regreason_eval": f"{made.name}-gen"}, f"the label comes first; write {made.name}$"),
        ({"regreason_eval": f"{made.name}*"}, "lets the model explain first"),
        ({"regreason_eval": "regreason_*"}, f"tasks of the data are {made.name}, {made.name}-gen"),
    ):
        with pytest.raises(UserError, match=expected):
            read(**changes)


class Values(dict[str, Any]):
    """A config as Axolotl completes it: a missing key is None."""

    __getattr__ = dict.get


@pytest.mark.parametrize("made", ["tickets"], indirect=True)
def test_the_order_of_the_rows_changes_nothing(made: Made, tmp_path: Path) -> None:
    task = (made.folder / "task.yml").read_text(encoding="utf-8")
    table = made.folder.parent / "tickets.csv"
    with table.open(encoding="utf-8", newline="") as stream:
        header, *rows = list(csv.reader(stream))
    random.Random(5).shuffle(rows)
    with (tmp_path / "tickets.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    (tmp_path / "tickets").mkdir()
    (tmp_path / "tickets/task.yml").write_text(task, encoding="utf-8")
    assert main(["build", str(tmp_path / "tickets/task.yml"), "--out", str(tmp_path / "data")]) == 0
    for name, sha256 in made.data.manifest.files.items():
        found = hashlib.sha256((tmp_path / "data" / name).read_bytes()).hexdigest()
        assert found == sha256, name


@pytest.mark.parametrize("order", ["label_first", "explanation_first"])
def test_the_label_is_found_among_the_trained_tokens(
    made: Made, tiny_model: Path, tmp_path: Path, order: str
) -> None:
    """Multi-token labels, one a prefix of another, in both orders, by lm-eval's own ids."""
    task = str(made.folder / "task.yml")
    assert main(["build", task, "--out", str(tmp_path / "data"), "--order", order]) == 0
    data = open_data_folder(tmp_path / "data")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    written = data.declaration.written
    rows = RowTokenizer(tokenizer, data.order, written)
    for arm in data.manifest.arms:
        train = list(data.rows(f"train/{arm}.jsonl"))
        prompts, targets = ([row.messages[turn].content for row in train] for turn in (0, 1))
        tokenized = rows.tokenize([row.id for row in train], prompts, targets)
        expected = Counter(row.label for row in train)
        labels = [row.labels for row in tokenized]
        place = locate_labels(labels, expected, tokenizer, data.order, written)
        for row, ids, prompt, target in zip(train, tokenized, prompts, targets, strict=True):
            label = written[row.label - 1]
            found = place.of([token for token in ids.labels if token != IGNORE])
            assert found is not None
            assert tokenizer.decode(list(found)).strip() == label
            before = target[: target.rindex(label)] if order == "explanation_first" else ""
            # The tokens that lm-eval feeds for this choice after the same text.
            context = (prompt + TARGET_DELIMITER + before).rstrip()
            whole = tokenizer(prompt + TARGET_DELIMITER + before + label).input_ids
            assert ids.input_ids[: len(whole)] == whole
            assert tuple(whole[len(tokenizer(context).input_ids) :]) == found


def test_a_probe_batch_stops_where_the_labels_part(made: Made, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = list(made.data.rows("validation/label_only.jsonl"))[:2]
    written = made.data.declaration.written
    batch = make_batch(tokenizer, rows, "label_first", None, written)
    for row, prompt in zip(rows, batch.prompts, strict=True):
        wholes = [
            tuple(tokenizer(row.messages[0].content + TARGET_DELIMITER + label).input_ids)
            for label in written
        ]
        assert all(whole[: len(prompt)] == prompt for whole in wholes)
        assert len({whole[len(prompt)] for whole in wholes}) > 1


def evaluate(
    made: Made, lm: Any, data: Path, limit: int | None = None, out: Path | None = None
) -> dict[str, Any]:
    tracker = EvaluationTracker(output_path=str(out)) if out else None
    manager = TaskManager(
        include_path=str(made.folder), include_defaults=False, metadata={"data_dir": str(data)}
    )
    results = simple_evaluate(
        model=lm,
        tasks=[made.name],
        task_manager=manager,
        limit=limit,
        log_samples=True,
        evaluation_tracker=tracker,
    )
    assert results is not None
    if tracker:
        tracker.save_results_aggregated(results=results, samples=results["samples"])
        tracker.save_results_samples(made.name, results["samples"][made.name])
    return dict(results)


def test_scores_are_hfs_and_the_metrics_are_scikit_learns(made: Made, tiny_model: Path) -> None:
    lm = HFLM(pretrained=str(tiny_model), device="cpu", dtype="float32", batch_size=8)
    results = evaluate(made, lm, made.data.path)
    values = results["results"][made.name]
    samples = results["samples"][made.name]
    written = made.data.declaration.written
    plain = PlainScorer(tiny_model)
    scores = []
    for number, sample in enumerate(samples):
        found = [float(score) for score, _ in sample["filtered_resps"]]
        scores.append(found)
        if number < 3:
            prompt = sample["doc"]["prompt"]
            expected = [plain.score(prompt, TARGET_DELIMITER + label) for label in written]
            assert found == pytest.approx(expected, abs=1e-3)
    labels = [sample["doc"]["label"] for sample in samples]
    predicted = [int(np.argmax(row)) + 1 for row in scores]
    known = range(1, len(written) + 1)
    assert values["acc,none"] == pytest.approx(np.mean(np.equal(labels, predicted)))
    macro = f1_score(labels, predicted, labels=known, average="macro", zero_division=0)
    assert values["macro_f1,none"] == pytest.approx(macro)
    metrics = {key.partition(",")[0] for key in values}
    assert (metrics & ORDINAL != set()) == (made.name == "scale")
    if made.name == "scale":
        kappa = cohen_kappa_score(labels, predicted, labels=known, weights="quadratic")
        assert values["qwk,none"] == pytest.approx(kappa)
    assert ("auroc" in metrics) == (made.name == "answers")
    if made.name == "answers":
        margin = [row[1] - row[0] for row in scores]
        area = roc_auc_score([label == 2 for label in labels], margin)
        assert values["auroc,none"] == pytest.approx(area)
        groups = np.array([sample["doc"]["group"] for sample in samples])
        without = []
        for group in np.unique(groups):
            kept = groups != group
            without.append(roc_auc_score(np.array(labels)[kept] == 2, np.array(margin)[kept]))
        error = ((len(without) - 1) * np.var(without)) ** 0.5
        assert values["auroc_stderr,none"] == pytest.approx(error)
    data = results["configs"][made.name]["metadata"]["data"]
    assert data["labels"] == list(made.data.declaration.labels)
    assert data["sha256"] == made.data.sha256


@pytest.mark.parametrize("made", ["tickets"], indirect=True)
def test_length_normalisation_is_a_choice(made: Made, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "tickets").mkdir()
    text = (made.folder / "task.yml").read_text(encoding="utf-8")
    text = text.replace("normalise: none", "normalise: characters").replace(
        "path: ../tickets.csv", f"path: {made.folder.parent}/tickets.csv"
    )
    task = tmp_path / "tickets" / "task.yml"
    task.write_text(text, encoding="utf-8")
    assert main(["build", str(task), "--out", str(tmp_path / "data")]) == 0
    lm = HFLM(pretrained=str(tiny_model), device="cpu", dtype="float32", batch_size=8)
    written = made.data.declaration.written
    by_choice = {}
    for name, data in (("none", made.data.path), ("characters", tmp_path / "data")):
        results = evaluate(made, lm, data, limit=20, out=tmp_path / name)
        samples = results["samples"][made.name]
        by_choice[name] = [sample["macro_f1"][1] for sample in samples]
        for sample in samples:
            scores = np.array([float(score) for score, _ in sample["filtered_resps"]])
            if name == "characters":
                scores = scores / [len(label) for label in written]
            assert sample["macro_f1"][1] == int(np.argmax(scores)) + 1
            log_probability = scores - np.logaddexp.reduce(scores)
            assert sample["nll"] == pytest.approx(-log_probability[sample["doc"]["label"] - 1])
        # A report divides by the same lengths, which include the end marker of a label.
        read = read_answers(read_run(name, tmp_path / name).tasks[made.name])
        logs = read.log_probabilities[np.arange(20), read.labels - 1]
        assert -logs.mean() == pytest.approx(results["results"][made.name]["nll,none"])
    assert by_choice["none"] != by_choice["characters"]
