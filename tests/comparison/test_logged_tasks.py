"""Comparisons of any tasks of lm_eval, on results that real lm_eval wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.stock_tasks import STOCK_RESULTS
from sklearn.metrics import f1_score, log_loss
from statsmodels.stats.contingency_tables import mcnemar

from regreason_plugin.cli import main
from regreason_plugin.comparison.arms import Arms, read_arms
from regreason_plugin.comparison.compare import Compared, compare
from regreason_plugin.comparison.logged_comparability import check_logged_comparable
from regreason_plugin.comparison.logged_scores import read_logged_tasks
from regreason_plugin.comparison.task_scores import TaskScores
from regreason_plugin.core.errors import UserError

VERSIONS = ("0.4.11", "0.4.13")
# A function in the task's own file; and a median, which lm_eval 0.4.11 takes from unsorted values.
UNKNOWN = {("own_choices", "lead_where_won"), ("own_metrics", "exact_match")}
# lm_eval's standard errors that are not those of a mean of independent documents.
GROUPED = {"boolq", "drop"}
# Metrics whose standard errors lm_eval draws at random.
DRAWN = {"mcc", "f1", "perplexity", "bleu", "chrf", "ter", "exact_match"}


def arms_of(version: str, run: str = "main") -> list[str]:
    return [f"{arm}={STOCK_RESULTS / version / run / arm}" for arm in ("base", "tuned")]


def scores_of(version: str, group_by: str | None = None) -> dict[str, TaskScores]:
    arms = Arms.of(read_arms(arms_of(version)), "base")
    tasks = check_logged_comparable(arms)
    scores = read_logged_tasks(arms.models, arms.partners, tasks, group_by)
    return {one.task: one for one in scores}


def results_of(version: str, arm: str, run: str = "main") -> dict[str, Any]:
    (file,) = (STOCK_RESULTS / version / run / arm).glob("results_*.json")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def samples_of(version: str, arm: str, task: str) -> list[dict[str, Any]]:
    (file,) = (STOCK_RESULTS / version / "main" / arm).glob(f"samples_{task}_????-*.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def compared(arguments: list[str], **options: Any) -> Compared:
    return compare(read_arms(arguments), "base", **options)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., list[str]]:
    """Copy the results of a version, so that a test may spoil them."""

    def copy(version: str = "0.4.13", run: str = "main") -> list[str]:
        shutil.copytree(STOCK_RESULTS / version / run, tmp_path / run)
        return [f"{arm}={tmp_path / run / arm}" for arm in ("base", "tuned")]

    return copy


def change_samples(
    argument: str, task: str, change: Callable[[list[dict[str, Any]]], object]
) -> None:
    """Change the samples of a task in the results of an argument such as ``base=FOLDER``."""
    (file,) = Path(argument.partition("=")[2]).glob(f"samples_{task}_*.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    change(rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_value_is_lm_evals(version: str) -> None:
    scores = scores_of(version)
    seen = 0
    for model, arm in enumerate(("base", "tuned")):
        results = results_of(version, arm)
        for task in results["configs"]:
            for key, value in results["results"][task].items():
                name, comma, of_filter = key.partition(",")
                if not comma or name.endswith("_stderr"):
                    continue
                metric = name if of_filter == "none" else key
                if metric in scores[task].left_out:
                    assert (task, metric) in UNKNOWN
                    continue
                ours = scores[task].statistics[metric].values[model]
                assert ours == pytest.approx(value, rel=1e-12, abs=1e-12), (task, key)
                seen += 1
    assert seen > 60


@pytest.mark.parametrize("version", VERSIONS)
def test_standard_errors_of_independent_documents_are_lm_evals(version: str) -> None:
    comparison = compared(arms_of(version), group_by="").comparison
    seen = 0
    for arm in ("base", "tuned"):
        results = results_of(version, arm)["results"]
        for task, of_task in comparison.scores[arm].items():
            for metric, score in of_task.items():
                name, _, of_filter = metric.partition(",")
                stderr = results[task].get(f"{name}_stderr,{of_filter or 'none'}")
                if not isinstance(stderr, float) or name == "brier_score":
                    continue
                if (task, name) == ("own_metrics", "exact_match"):
                    # A median of zeros and ones.
                    continue
                if name in DRAWN and not of_filter:
                    # Two estimates from 200 and from 1,000 (100 for bleu) random draws.
                    assert score.se == pytest.approx(stderr, rel=0.35, abs=0.02), (task, metric)
                else:
                    assert score.se == pytest.approx(stderr, rel=1e-8, abs=1e-12), (task, metric)
                seen += 1
    assert seen > 50


def test_a_metric_of_the_group_is_the_mean_that_lm_eval_weights_by_size() -> None:
    scores = scores_of("0.4.13")
    subjects = [one for task, one in scores.items() if task.startswith("mmlu_")]
    assert {one.setting.dataset for one in subjects} == {"mmlu"}
    for model, arm in enumerate(("base", "tuned")):
        values = np.concatenate([one.values["acc"][model] for one in subjects])
        expected = results_of("0.4.13", arm)["groups"]["mmlu"]["acc,none"]
        assert values.mean() == pytest.approx(expected, abs=1e-7)


def test_a_group_of_tasks_has_the_figures_of_all_its_documents() -> None:
    comparison = compared(arms_of("0.4.13")).comparison
    groups = {group.name: group for group in comparison.task_groups}
    mmlu = groups["mmlu"]
    assert len(mmlu.tasks) == 4
    expected = {
        arm: results_of("0.4.13", arm)["groups"]["mmlu"]["acc,none"] for arm in ("base", "tuned")
    }
    for arm, value in expected.items():
        assert mmlu.scores[arm].value == pytest.approx(value, abs=1e-7)
    difference = mmlu.differences["tuned"]
    assert difference.value == pytest.approx(expected["tuned"] - expected["base"], abs=1e-7)
    # No test of the family is about it.
    assert difference.finding is None
    # Subjects in a group of their own with a single task are no group.
    assert all(len(group.tasks) > 1 for group in groups.values())
    table = np.zeros((2, 2))
    for task in mmlu.tasks:
        one = comparison.agreement["tuned"][task]
        table += [[one.both_wrong, one.only_arm], [one.only_baseline, one.both_right]]
    assert difference.mcnemar_p == pytest.approx(mcnemar(table, exact=True).pvalue, abs=1e-8)


def test_the_mean_over_tasks_is_that_of_their_first_metrics() -> None:
    comparison = compared(arms_of("0.4.13")).comparison
    pooled = [setting.task for setting in comparison.settings if setting.pooled]
    assert "cola" not in pooled
    assert "wikitext" not in pooled
    results = {arm: results_of("0.4.13", arm)["results"] for arm in ("base", "tuned")}
    firsts = {
        arm: [
            next(v for key, v in of[task].items() if "," in key and isinstance(v, int | float))
            for task in pooled
        ]
        for arm, of in results.items()
    }
    assert comparison.primary is not None
    assert (comparison.primary.arm, comparison.primary.metric) == ("tuned", "score")
    assert comparison.pooled["tuned"]["score"].value == pytest.approx(
        np.mean(firsts["tuned"]) - np.mean(firsts["base"]), abs=1e-8
    )


def test_a_single_task_has_mcnemars_test_and_its_own_metrics() -> None:
    comparison = compared(arms_of("0.4.13")).comparison
    by_document = {
        arm: {row["doc_hash"]: row["acc"] for row in samples_of("0.4.13", arm, "piqa")}
        for arm in ("base", "tuned")
    }
    table = np.zeros((2, 2))
    for document, right in by_document["base"].items():
        table[int(right), int(by_document["tuned"][document])] += 1
    difference = comparison.differences["tuned"]["piqa"]["acc"]
    assert difference.mcnemar_p == pytest.approx(mcnemar(table, exact=True).pvalue, abs=1e-8)
    one = comparison.agreement["tuned"]["piqa"]
    assert [
        one.both_wrong,
        one.only_arm,
        one.only_baseline,
        one.both_right,
    ] == table.ravel().tolist()


def test_label_metrics_come_from_the_choices() -> None:
    one = scores_of("0.4.13")["cola"]
    for model, arm in enumerate(("base", "tuned")):
        rows = samples_of("0.4.13", arm, "cola")
        scores = np.array([[float(pair[0]) for pair in row["filtered_resps"]] for row in rows])
        shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        right = [int(row["target"]) for row in rows]
        expected = {
            "nll": log_loss(right, shares, labels=[0, 1]),
            "macro_f1": f1_score(
                right, scores.argmax(axis=1), labels=[0, 1], average="macro", zero_division=0
            ),
            "acc": np.mean(scores.argmax(axis=1) == right),
        }
        for metric, value in expected.items():
            assert one.statistics[metric].values[model] == pytest.approx(value, abs=1e-9), metric


def test_documents_with_one_passage_are_one_group() -> None:
    grouped, alone = scores_of("0.4.13")["drop"], scores_of("0.4.13", "")["drop"]
    passages = {row["doc"]["passage"] for row in samples_of("0.4.13", "base", "drop")}
    assert grouped.group_field == "passage"
    assert len(grouped.sums.groups) == len(passages) < len(alone.sums.groups)
    by_section = scores_of_task("drop", "section_id")
    assert by_section.group_field == "section_id"


def scores_of_task(task: str, group_by: str) -> TaskScores:
    arms = Arms.of(read_arms(arms_of("0.4.13"), [task]), "base")
    return read_logged_tasks(arms.models, arms.partners, [task], group_by)[0]


def test_the_order_of_chosen_documents_does_not_matter(tmp_path: Path) -> None:
    # lm_eval gives documents 2 and 5 each other's numbers if they were chosen as [5, 2, 9].
    folders = [STOCK_RESULTS / "0.4.11" / f"samples_{run}" for run in ("2_5_9", "5_2_9")]
    arguments = [f"base={folders[0] / 'base'}", f"tuned={folders[1] / 'tuned'}"]
    mixed = compared(arguments).comparison
    straight = compared([f"{arm}={folders[0] / arm}" for arm in ("base", "tuned")]).comparison
    assert mixed.pooled == straight.pooled
    assert mixed.agreement == straight.agreement


def test_runs_with_several_few_shot_seeds_are_the_runs_of_an_arm() -> None:
    folders = [STOCK_RESULTS / "0.4.11" / f"fewshot_{seed}" for seed in (1, 2, 3)]
    arguments = [
        f"{arm}={','.join(str(folder / arm) for folder in folders)}" for arm in ("base", "tuned")
    ]
    comparison = compared(arguments).comparison
    assert comparison.seeds == {"base": [1, 2, 3], "tuned": [1, 2, 3]}
    difference = comparison.pooled["tuned"]["acc"]
    assert difference.over == "seeds and groups"
    assert difference.df_seeds == 2
    expected = [
        results_of("0.4.11", "tuned", f"fewshot_{seed}")["results"]["piqa"]["acc,none"]
        for seed in (1, 2, 3)
    ]
    assert comparison.pooled_scores["tuned"]["acc"].by_seed == pytest.approx(expected, abs=1e-8)


def test_other_few_shot_seeds_are_refused() -> None:
    first, second = (STOCK_RESULTS / "0.4.11" / f"fewshot_{seed}" for seed in (1, 2))
    with pytest.raises(UserError, match="other prompts .* few-shot seeds are 1 and 2"):
        compared([f"base={first / 'base'}", f"tuned={second / 'tuned'}"])


def test_mixed_versions_are_refused() -> None:
    arguments = [arms_of("0.4.11")[0], arms_of("0.4.13")[1]]
    with pytest.raises(UserError, match="differ in lm_eval's version"):
        compared(arguments)


def test_another_prompt_is_refused(copied: Callable[..., list[str]]) -> None:
    arguments = copied()
    change_samples(arguments[1], "piqa", lambda rows: rows[3].update(prompt_hash="0" * 64))
    with pytest.raises(UserError, match="piqa .* other prompts for 1 of 12 documents"):
        compared(arguments)


def test_missing_and_truncated_samples_are_refused(copied: Callable[..., list[str]]) -> None:
    arguments = copied()
    folder = Path(arguments[1].partition("=")[2])
    (file,) = folder.glob("samples_piqa_*.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(UserError, match="is not JSON"):
        compared(arguments)
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="holds 11 documents, but results_.* says 12"):
        compared(arguments)
    file.unlink()
    with pytest.raises(UserError, match="run lm_eval with --log_samples"):
        compared(arguments)


def test_samples_of_another_run_are_refused(copied: Callable[..., list[str]]) -> None:
    arguments = copied()
    change_samples(arguments[1], "hellaswag", lambda rows: rows[0].update(acc=1 - rows[0]["acc"]))
    with pytest.raises(UserError, match="has another acc than .* they are not of one run"):
        compared(arguments)


def test_a_metric_without_a_named_aggregation_is_checked_too(
    copied: Callable[..., list[str]],
) -> None:
    # The stock boolq names none for its accuracy, so lm_eval takes the mean.
    arguments = copied()
    change_samples(arguments[1], "boolq", lambda rows: rows[0].update(acc=1 - rows[0]["acc"]))
    with pytest.raises(UserError, match="has another acc than"):
        compared(arguments)


def test_other_generation_settings_are_named(copied: Callable[..., list[str]]) -> None:
    arguments = copied()

    def notes_with(*settings: dict[str, float]) -> str:
        for argument, kwargs in zip(arguments, settings, strict=True):
            (file,) = Path(argument.partition("=")[2]).glob("results_*.json")
            content = json.loads(file.read_text(encoding="utf-8"))
            content["config"]["gen_kwargs"] = kwargs
            file.write_text(json.dumps(content), encoding="utf-8")
        return " ".join(compared(arguments).comparison.notes)

    assert "different settings (none and temperature=0.7)" in notes_with({}, {"temperature": 0.7})
    # The order of the keys is no setting.
    same = notes_with({"top_p": 0.9, "temperature": 1}, {"temperature": 1, "top_p": 0.9})
    assert "different settings" not in same


def test_two_runs_in_one_folder_are_refused(copied: Callable[..., list[str]]) -> None:
    arguments = copied()
    folder = Path(arguments[1].partition("=")[2])
    for file in list(folder.iterdir()):
        name = file.name.replace("2026-", "2027-")
        shutil.copy(file, folder / name)
    with pytest.raises(UserError, match="are two runs of one model on .* keep one of them"):
        compared(arguments)


def test_a_task_that_one_arm_lacks_is_named(copied: Callable[..., list[str]]) -> None:
    arguments = copied()
    folder = Path(arguments[1].partition("=")[2])
    (file,) = folder.glob("results_*.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    for part in ("results", "configs"):
        del content[part]["piqa"]
    file.write_text(json.dumps(content), encoding="utf-8")
    comparison = compared(arguments).comparison
    assert "piqa" not in {setting.task for setting in comparison.settings}
    assert "Not compared, because not every model has them: piqa of `base`." in comparison.notes


def test_equal_documents_are_paired_in_their_order(copied: Callable[..., list[str]]) -> None:
    def make_equal(rows: list[dict[str, Any]]) -> None:
        for row in rows[1:3]:
            row |= {key: rows[0][key] for key in ("doc_hash", "prompt_hash", "target_hash")}

    arguments = copied()
    for argument in arguments:
        change_samples(argument, "piqa", make_equal)
    scores = compared(arguments).comparison
    expected = compared(arms_of("0.4.13")).comparison
    assert scores.pooled["tuned"]["score"].value == expected.pooled["tuned"]["score"].value


def test_tasks_and_groups_of_tasks_can_be_chosen(tmp_path: Path) -> None:
    comparison = compare(read_arms(arms_of("0.4.13"), ["mmlu", "arc_*"]), "base").comparison
    tasks = [setting.task for setting in comparison.settings]
    assert tasks[0] == "arc_easy"
    assert len(tasks) == 5
    assert all(task.startswith("mmlu_") for task in tasks[1:])
    # Every task's first metric is the accuracy, so it needs no name of its own.
    assert comparison.primary is not None
    assert comparison.primary.metric == "acc"


def test_tasks_whose_metrics_cannot_be_averaged_are_refused() -> None:
    with pytest.raises(UserError, match=r"cannot be averaged \(lambada_openai: .*--tasks"):
        compare(read_arms(arms_of("0.4.13"), ["wikitext", "lambada_openai"]), "base")


@pytest.mark.parametrize(
    ("task", "metric"),
    [("cola", "mcc"), ("mrpc", "f1"), ("wikitext", "word_perplexity"), ("wmt16-de-en", "bleu")],
)
def test_corpus_metrics_are_bootstrapped_in_pairs(task: str, metric: str) -> None:
    comparison = compare(read_arms(arms_of("0.4.13"), [task]), "base").comparison
    if metric == "f1":
        difference = comparison.differences["tuned"][task]["f1"]
    else:
        assert comparison.primary is not None
        assert comparison.primary.metric == metric
        difference = comparison.pooled["tuned"][metric]
    assert difference.se is not None
    # A drawn sample is the same for both models: a model minus itself has no variance.
    same = [arms_of("0.4.13")[0], arms_of("0.4.13")[0].replace("base=", "tuned=")]
    copy = compare(read_arms(same, [task]), "base").comparison
    assert copy.differences["tuned"][task][metric].se == 0
    assert difference.se > 0


def test_disagreements_hold_prompt_target_and_both_answers() -> None:
    result = compared(arms_of("0.4.13"))
    rows = {arm: samples_of("0.4.13", arm, "triviaqa") for arm in ("base", "tuned")}
    shown = [one for one in result.disagreements if one.task == "triviaqa"]
    assert shown
    for one in shown:
        for arm, of_arm in rows.items():
            row = next(row for row in of_arm if str(row["doc_id"]) == one.id)
            assert one.prompt == row["arguments"]["gen_args_0"]["arg_0"]
            assert one.names[0] == row["target"]
            assert one.names[one.predictions[arm] - 1] == row["filtered_resps"][0]
            assert one.right[arm] == bool(row["exact_match"])


def test_the_command_writes_a_page_of_what_applies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    code = main(
        ["compare", *arms_of("0.4.13"), "--baseline", "base", "--tasks", "mmlu", "--out", str(out)]
    )
    assert code == 0
    assert "Primary question: is the acc of `tuned` different" in capsys.readouterr().out
    page = (out / "report.html").read_text(encoding="utf-8")
    assert 'id="agreement"' in page
    for absent in ("layers", "learning"):
        assert f'id="{absent}"' not in page
    text = (out / "comparison.md").read_text(encoding="utf-8")
    assert "mmlu_astronomy" in text


def test_bad_input_ends_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    folders = [arms_of("0.4.11")[0], arms_of("0.4.13")[1]]
    assert main(["compare", *folders, "--baseline", "base", "--out", str(out)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("regreason: ")
    assert "differ in lm_eval's version" in said
    assert not out.exists()
