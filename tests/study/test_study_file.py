"""Study files: the shipped ones, and the message for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.axolotl import ROOT

from regreason_plugin.annotate.config import read_config
from regreason_plugin.annotate.rules import RULE_RATERS
from regreason_plugin.cli import main
from regreason_plugin.core.errors import UserError
from regreason_plugin.study.plan import Plan
from regreason_plugin.study.study_file import StudyFile, read_study

MINI = ROOT / "studies/mini.yml"


def read(tmp_path: Path, **changes: Any) -> StudyFile:
    values = yaml.safe_load(MINI.read_text()) | changes
    file = tmp_path / "study.yml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return read_study(file)


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_mini_study_asks_for_every_arm_and_regime() -> None:
    study = read_study(MINI)
    assert len(study.conditions) == 13
    plain = [one for one in study.conditions if one.order == "label_first" and not one.keys]
    assert len({one.arm for one in plain}) == 7
    assert {(one.arm, key) for one in study.conditions for key in one.keys} == {
        ("label_only", "regreason_label_smoothing"),
        ("label_only", "lora_dropout"),
        ("explanation", "regreason_label_share"),
        ("bag_of_words", "regreason_label_share"),
    }
    assert {one.arm for one in study.conditions if one.order == "explanation_first"} == {
        "explanation",
        "shuffled",
    }


def test_the_hh_study_compares_the_papers_arms_with_prefix_packing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotation = read_config(ROOT / "studies/hh/annotate.yml")
    monkeypatch.chdir(tmp_path)
    for needed in ("studies/esnli/lora.yml", str(annotation.out)):
        (tmp_path / needed).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / needed).write_text((ROOT / needed).read_text() if "lora" in needed else "{}")
    (tmp_path / "runs/smollm2").mkdir()
    study = read_study(ROOT / "studies/hh.yml")
    assert [one.arm for one in study.conditions] == [
        *("label_only", "explanation", "shuffled", "bag_of_words"),
    ]
    assert study.training["regreason_prefix_packing"] is True
    # A batch holds whole conversations of three axes, and whole pairs of them.
    assert study.training["micro_batch_size"] % 6 == 0
    assert study.data.ratings == annotation.out
    assert {str(one) for one in annotation.raters} == {one.name for one in RULE_RATERS}


def test_the_esnli_studies_ask_the_papers_question() -> None:
    study, low = (read_study(ROOT / f"studies/{name}.yml") for name in ("esnli", "esnli_low_data"))
    assert [one.name for one in study.conditions] == [
        *("label_only", "explanation", "bag_of_words", "shuffled"),
        *("explanation-share", "bag_of_words-share", "label_only-smoothing"),
    ]
    assert len(study.seeds) == len(low.seeds) == 3
    assert (study.data.at_most["train"], low.data.at_most["train"]) == (900, 300)
    # Both studies have the same validation and test rows.
    for split in ("validation", "test"):
        assert study.data.at_most[split] == low.data.at_most[split]
    assert low.training["num_epochs"] == 6
    # The config differs from the shipped one only in data, batch, learning rate and logging. (The
    # finished runs were trained under the longer name of the same plugin, which is in their key.)
    ours, shipped = (
        yaml.safe_load((ROOT / name).read_text())
        for name in ("studies/esnli/lora.yml", "axolotl_configs/cpu/lora.yml")
    )
    assert ours.pop("plugins") == ["regreason_plugin.train.RegReasonPlugin"]
    assert shipped.pop("plugins") == ["regreason_plugin.RegReasonPlugin"]
    differ = {key for key in ours if ours[key] != shipped[key]}
    assert differ <= {
        *("datasets", "test_datasets", "micro_batch_size", "learning_rate", "logging_steps"),
    }
    left_out = {key: value for key, value in shipped.items() if key not in ours}
    places = {"base_model", "dataset_prepared_path", "output_dir", "seed", "regreason_arm"}
    defaults = {None, 0, "rows", 16, True}
    assert all(value in defaults for key, value in left_out.items() if key not in places), left_out


def test_the_papers_study_reads_a_ratings_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 8, field data\.ratings: there is no file ratings"):
        read_study(ROOT / "studies/paper.yml")
    values = yaml.safe_load((ROOT / "studies/paper.yml").read_text())
    ratings = tmp_path / "ratings.jsonl"
    ratings.touch()
    study = read(tmp_path, **{**values, "data": {"ratings": str(ratings)}})
    assert {"label_only", "explanation", "shuffled", "bag_of_words"} <= {
        one.arm for one in study.conditions
    }
    assert study.choose is not None
    assert len(study.choose.candidates()) == 3


def test_conditions_differ_in_nothing_else(tmp_path: Path) -> None:
    study = read(tmp_path, out=str(tmp_path / "out"))
    plan = Plan(study)
    chosen = {"learning_rate": 0.001, "num_epochs": 2}
    configs = {
        (one.name, seed): plan.config(one, chosen, seed, plan.model(one, seed))
        for one in study.conditions
        for seed in (1, 2)
    }
    base = configs["label_only", 1]
    assert base | chosen == base
    places = {"datasets", "test_datasets", "output_dir", "regreason_arm"}
    for condition in study.conditions:
        for seed in (1, 2):
            values = configs[condition.name, seed]
            assert values.keys() >= base.keys()
            differ = {key for key in values if values[key] != base.get(key)} - places
            assert differ == set(condition.keys) | ({"seed"} if seed != 1 else set())
            for name, split in (("datasets", "train"), ("test_datasets", "validation")):
                path = plan.data(condition.order) / split / "{arm}.jsonl"
                assert values[name][0]["path"] == str(path)


def test_a_key_without_a_value_is_taken_out_of_the_config(tmp_path: Path) -> None:
    tokens = {
        "arm": "label_only",
        "regreason_budget": "tokens",
        "regreason_target_tokens": 900,
        "num_epochs": None,
    }
    conditions = {"label_only": None, "explanation": None, "budget": tokens}
    study = read(tmp_path, conditions=conditions, training={"weight_decay": None})
    plan = Plan(study)
    plain, _, budget = (
        plan.config(one, {"num_epochs": 2}, 1, tmp_path) for one in study.conditions
    )
    assert plain["num_epochs"] == 2
    assert "num_epochs" not in budget
    assert budget["regreason_target_tokens"] == 900
    assert "weight_decay" not in {*plain, *budget}
    # Keys that the config itself leaves without a value stay in it.
    assert plain["regreason_scope"] is None


def test_a_base_that_is_not_here_is_told_before_anything_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read(tmp_path, base="models/none", out=str(tmp_path / "out"))
    assert main(["study", str(tmp_path / "study.yml")]) == 2
    said = capsys.readouterr().err
    assert "field base: there is no model 'models/none', neither as a folder" in said
    assert "regreason base smollm2 --out models/none" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": [1, 1]}, "seeds: a seed is listed twice"),
        ({"seeds": [0, 1]}, "seed 0 is one of the study's seeds"),
        ({"conditions": {"label_only": None}}, "at least 2"),
        ({"conditions": {"label_only": None, "explanations": None}}, "there is no arm"),
        ({"conditions": {"label_only": None, "../x": {"arm": "shuffled"}}}, "cannot name a folder"),
        (
            {"conditions": {"label_only": None, "b": {"arm": "shuffled", "seed": 3}}},
            "seed is set by the study itself",
        ),
        (
            {
                "conditions": {
                    "a": {"arm": "label_only", "order": "explanation_first"},
                    "explanation": None,
                }
            },
            "the first one is the baseline",
        ),
        ({"training": {"learning_rate": "2e-4"}}, "YAML reads 2e-4 as text, not as a number"),
        ({"choose": {"grid": {}}}, "at least 1"),
        ({"choose": {"condition": "x", "grid": {"num_epochs": [1]}}}, "there is no condition 'x'"),
        (
            {"data": {"mini": 30, "ratings": "r.jsonl"}},
            "needs exactly one of task, ratings and mini",
        ),
        ({"config": "nowhere.yml"}, "there is no file nowhere.yml"),
        ({"limits": {"minutes": 0}}, "greater than 0"),
        ({"epochs": 3}, "not permitted"),
    ],
)
def test_the_message_for_each_mistake(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as raised:
        read(tmp_path, **changes)
    assert said in str(raised.value)
    assert str(tmp_path / "study.yml") in str(raised.value)
