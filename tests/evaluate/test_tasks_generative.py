"""The generative twins: the model writes an explanation, then the labels are scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.scoring import PlainScorer, evaluate, task_manager
from helpers.scripted_model import Scripted
from lm_eval.models.huggingface import HFLM

from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.evaluate.explanation_first import before_label, split_generation

pytestmark = pytest.mark.integration

TASK = "regreason-gen_coqa_on_topic"


@pytest.mark.parametrize(
    ("generated", "explanation", "reached"),
    [
        (" It drifts away.\nRating: 2", "It drifts away.", True),
        ("It drifts away.\nRating: 2\nUser: more", "It drifts away.", True),
        ("\nRating: 2", "", True),
        ("Rating: 2", "", True),
        ("It drifts", "It drifts", False),
        (" It drifts.\nAnd on it goes", "It drifts.", False),
        ("", "", False),
        ("on </s>  two\nlines\nRating: 1", "on < /s> two lines", True),
    ],
)
def test_split_generation(generated: str, explanation: str, reached: bool) -> None:
    assert split_generation(generated) == (explanation, reached)


def test_contexts_and_figures(explanation_first_folder: DataFolder) -> None:
    lm = Scripted(" It drifts away.\nRating: 2")
    results = evaluate(lm, [TASK], explanation_first_folder.path, limit=3)
    sample = results["samples"][TASK][0]
    prompt = sample["doc"]["prompt"]
    assert lm.asked[0] == (prompt, {"until": ["\n\n"], "do_sample": False, "max_gen_toks": 256})
    after = [(f"{prompt} It drifts away.\nRating:", f" {label}") for label in range(1, 6)]
    forced = [(f"{prompt} {before_label('')}", f" {label}") for label in range(1, 6)]
    assert sample["arguments"][1:] == after + forced
    assert lm.asked[3:8] == after

    labels = np.array([one["doc"]["label"] for one in results["samples"][TASK]])
    found = results["results"][TASK]
    for prefix in ("", "forced_"):
        assert found[f"{prefix}acc,none"] == pytest.approx((labels == 3).mean())
        assert found[f"{prefix}mae,none"] == pytest.approx(np.abs(labels - 3).mean())
        assert found[f"{prefix}spearman,none"] is None
    assert found["reached_cue,none"] == 1.0
    data = results["configs"][TASK]["metadata"]["data"]
    assert data["sha256"] == explanation_first_folder.sha256
    assert data["order"] == "explanation_first"


def test_without_the_cue(explanation_first_folder: DataFolder) -> None:
    lm = Scripted(" It goes on")
    results = evaluate(lm, [TASK], explanation_first_folder.path, limit=2)
    assert results["results"][TASK]["reached_cue,none"] == 0.0
    prompt = results["samples"][TASK][0]["doc"]["prompt"]
    assert lm.asked[2][0] == f"{prompt} It goes on\nRating:"


def test_chat_template_and_few_shot(explanation_first_folder: DataFolder) -> None:
    lm = Scripted("It drifts away.\nRating: 2")
    evaluate(
        lm,
        [TASK],
        explanation_first_folder.path,
        limit=1,
        num_fewshot=1,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
    )
    context = lm.asked[0][0]
    shown = [
        f"<user>{row.messages[0].content}<assistant>{row.messages[1].content}<user>"
        for row in explanation_first_folder.rows("train/explanation.jsonl")
    ]
    # A few-shot example equals a training row, with no delimiter between turn and answer.
    assert sum(context.startswith(example) for example in shown) == 1
    assert lm.asked[1] == (f"{context}It drifts away.\nRating:", " 1")
    assert lm.asked[6] == (f"{context}{before_label('')}", " 1")


def test_targets_of_training_are_the_contexts_scored(
    explanation_first_folder: DataFolder,
) -> None:
    for arm in ("explanation", "label_only"):
        for row in explanation_first_folder.rows(f"train/{arm}.jsonl"):
            target = row.messages[1].content
            assert target == f"{before_label(row.explanation)} {row.label}"


def test_equal_to_plain_transformers_in_two_stages(
    tiny_model: Path, explanation_first_folder: DataFolder
) -> None:
    lm = HFLM(pretrained=str(tiny_model), device="cpu", batch_size=4)
    results = evaluate(
        lm, [TASK], explanation_first_folder.path, limit=4, gen_kwargs="max_gen_toks=12"
    )
    scorer = PlainScorer(tiny_model)
    for sample in results["samples"][TASK]:
        prompt = sample["doc"]["prompt"]
        explanation, _ = split_generation(scorer.generate(prompt, 12))
        assert split_generation(sample["resps"][0][0])[0] == explanation
        scores = [score for score, _ in sample["filtered_resps"][1:]]
        assert scores[:5] == pytest.approx(
            scorer.labels(f"{prompt} {explanation}\nRating:"), abs=1e-3
        )
        assert scores[5:] == pytest.approx(scorer.labels(f"{prompt} {before_label('')}"), abs=1e-3)


def test_cache_gives_the_same(
    tiny_model: Path, explanation_first_folder: DataFolder, tmp_path: Path
) -> None:
    found = []
    for _ in range(2):
        lm = HFLM(pretrained=str(tiny_model), device="cpu", batch_size=4)
        found.append(
            evaluate(
                lm,
                [TASK],
                explanation_first_folder.path,
                limit=3,
                gen_kwargs="max_gen_toks=8",
                use_cache=str(tmp_path / "cache"),
            )["results"]
        )
    assert found[0] == found[1]


def test_predict_only_gives_no_figures(explanation_first_folder: DataFolder) -> None:
    results = evaluate(
        Scripted("Well.\nRating: 1"),
        [TASK],
        explanation_first_folder.path,
        limit=1,
        predict_only=True,
    )
    assert not [key for key in results["results"][TASK] if key.startswith("acc")]


def test_labels_asked_before_the_explanations(
    explanation_first_folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    # Which of two tasks runs first depends on the version of lm-eval. In one of the two orders,
    # the labels come before the explanations, and the task refuses; the other order works.
    refused = 0
    for tasks in (["regreason_coqa_on_topic", TASK], [TASK, "regreason_coqa_on_topic"]):
        lm = Scripted(" Well.\nRating: 1")
        try:
            results = evaluate(lm, tasks, explanation_first_folder.path, limit=1)
        except SystemExit:
            assert "run them without other tasks" in capsys.readouterr().err
            refused += 1
        else:
            arguments = results["samples"][TASK][0]["arguments"]
            assert arguments[1][0] == f"{arguments[0][0]} Well.\nRating:"
    assert refused == 1


def test_a_prompt_that_leaves_no_room_to_explain(
    tiny_model: Path, explanation_first_folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = HFLM(pretrained=str(tiny_model), device="cpu", batch_size=4, max_length=300)
    with pytest.raises(SystemExit) as end:
        evaluate(lm, [TASK], explanation_first_folder.path, gen_kwargs="max_gen_toks=200")
    assert end.value.code == 2
    assert "--gen_kwargs max_gen_toks=N" in capsys.readouterr().err


def test_missing_folder_named_by_metadata(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # lm-eval 0.4.11 does not pass the metadata to tasks with a class.
    manager = task_manager(tmp_path / "nowhere")
    with pytest.raises(SystemExit) as end:
        manager.load_task_or_group([TASK])
    assert end.value.code == 2
    assert "no such data folder" in capsys.readouterr().err


def test_samples_are_json(explanation_first_folder: DataFolder) -> None:
    results = evaluate(Scripted("Well.\nRating: 1"), [TASK], explanation_first_folder.path, limit=1)
    json.dumps(results["samples"][TASK], default=str)
    json.dumps(results["configs"][TASK], default=str)
