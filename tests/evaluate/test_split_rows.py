"""Train and validation rows are scored in the same way as test rows."""

from __future__ import annotations

import hashlib
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.scoring import PlainScorer, evaluate, task_manager
from helpers.training_data import build_data
from lm_eval.models.huggingface import HFLM
from scipy.special import log_softmax

from regreason_plugin.core.paper import generative_task_name
from regreason_plugin.data_folder.build import BuildOptions, build
from regreason_plugin.data_folder.folder import DataFolder

pytestmark = pytest.mark.integration

TASK = "regreason_coqa_on_topic"


@pytest.fixture(scope="module")
def lm(tiny_model: Path) -> Any:
    return HFLM(pretrained=str(tiny_model), device="cpu", batch_size=16)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """20 groups of 3 conversations each, in three splits."""
    return build_data(tmp_path_factory.mktemp("grouped") / "DATA", rows=60, group_size=3)


def data_block(results: dict[str, Any]) -> dict[str, Any]:
    return dict(results["configs"][TASK]["metadata"]["data"])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_row_of_the_split_is_scored_as_by_plain_transformers(
    lm: Any, tiny_model: Path, grouped: DataFolder, split: str
) -> None:
    results = evaluate(lm, [TASK], grouped.path, split=split)
    rows = list(grouped.rows(f"{split}/label_only.jsonl"))
    samples = results["samples"][TASK]
    assert sorted(sample["doc"]["id"] for sample in samples) == sorted(row.id for row in rows)
    scorer = PlainScorer(tiny_model)
    log_probabilities = log_softmax(
        [scorer.labels(row.messages[0].content) for row in rows], axis=1
    )
    right = log_probabilities[np.arange(len(rows)), [row.label - 1 for row in rows]]
    assert results["results"][TASK]["nll,none"] == pytest.approx(-right.mean(), abs=1e-4)
    assert data_block(results)["split"] == split
    assert data_block(results)["sha256"] == grouped.sha256


def test_test_rows_say_that_they_are(lm: Any, grouped: DataFolder) -> None:
    assert data_block(evaluate(lm, [TASK], grouped.path, limit=1))["split"] == "test"


def test_the_first_rows_are_whole_groups_in_an_order_of_chance(grouped: DataFolder) -> None:
    task = task_manager(grouped.path, split="train").load_task_or_group([TASK])[TASK]
    rows = list(grouped.rows("train/label_only.jsonl"))
    order = sorted(
        {row.group for row in rows},
        key=lambda group: hashlib.sha256(
            f"{grouped.manifest.seed}".encode() + b"\0" + group.encode()
        ).hexdigest(),
    )
    assert order != sorted(order)
    expected = [row.id for group in order for row in rows if row.group == group]
    assert [document["id"] for document in task.eval_docs] == expected
    groups = [group for group, _ in groupby(document["group"] for document in task.eval_docs)]
    assert len(groups) == len(set(groups))


def test_an_example_is_never_of_the_scored_rows_group(grouped: DataFolder) -> None:
    group_of = {
        row.messages[0].content: row.group for row in grouped.rows("train/label_only.jsonl")
    }
    task = task_manager(grouped.path, split="train").load_task_or_group([TASK])[TASK]
    task.set_fewshot_seed(1)
    # As many examples as the other groups have rows: one more from the own group would show.
    shots = len(group_of) - 3
    for document in task.eval_docs:
        context = task.fewshot_context(document, num_fewshot=shots)
        examples = [text for text in group_of if f"{text} " in context]
        assert len(examples) == shots
        assert document["group"] not in {group_of[text] for text in examples}
        assert context.endswith(document["prompt"])
        assert context.count(document["prompt"]) == 1


def test_a_folder_without_label_only_has_the_same_prompts(
    grouped: DataFolder, tmp_path: Path
) -> None:
    ratings = grouped.path.with_name("DATA.ratings.jsonl")
    other = build(ratings, tmp_path / "DATA", BuildOptions(arms=("shuffled", "filler")))
    prompts = [
        [
            (document["id"], document["label"], document["prompt"])
            for document in task_manager(folder.path, split="train")
            .load_task_or_group([TASK])[TASK]
            .eval_docs
        ]
        for folder in (grouped, other)
    ]
    assert prompts[0] == prompts[1]


def test_twins_score_test_rows_only(
    grouped: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = generative_task_name("coqa", "on_topic")
    with pytest.raises(SystemExit) as end:
        task_manager(grouped.path, split="train").load_task_or_group([twin])
    assert end.value.code == 2
    assert "explain first score test rows only; leave split out" in capsys.readouterr().err
