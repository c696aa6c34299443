"""Label loss on train rows and on test rows: reading, comparing, and refusing results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.results import ALL, SHA, documents, draw_scores, write_results
from numpy.typing import NDArray
from scipy import stats

from regreason_plugin.cli import main
from regreason_plugin.comparison.arms import read_arms
from regreason_plugin.comparison.compare import compare
from regreason_plugin.comparison.comparison import Comparison
from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.results import read_run

TASK, OTHER = ALL[:2]
TEST_DATE, TRAIN_DATE = (f"2026-01-0{day}T00-00-00.000000" for day in (1, 2))
SIZES = {"test": 90, "train": 60}
Scores = dict[str, NDArray[np.float64]]


def drawn(split: str, seed: int, sharpness: float, tasks: tuple[str, ...] = (TASK,)) -> Scores:
    """A model that is more confident, and more often right, on its train rows."""
    accuracy = 0.5 if split == "test" else 0.8
    return {
        task: draw_scores(task, SIZES[split], accuracy, 10 * seed + len(split), sharpness=sharpness)
        for task in tasks
    }


def write_model(
    folder: Path,
    seed: int,
    sharpness: float = 1.0,
    *,
    splits: tuple[str, ...] = ("test", "train"),
    tasks: tuple[str, ...] = (TASK,),
    record: dict[str, Any] | None = None,
    changes: dict[str, Any] | None = None,
    group_size: int = 1,
) -> dict[str, Scores]:
    """A trained model with results on the rows of these splits.

    Args:
        folder: The model's folder, whose name is ``ARM-SEED``.
        seed: The seed of its training.
        sharpness: How confident the model is.
        splits: The splits that were scored.
        tasks: The tasks that were scored.
        record: Changes to the training record.
        changes: Changes to the results on train rows.
        group_size: Documents per group.

    Returns:
        The labels' log-likelihoods, by split and task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = {"arm": folder.name.partition("-")[0], "seed": seed, "data": {"sha256": SHA}}
    (folder / "regreason.json").write_text(json.dumps({**known, **(record or {})}))
    scores = {split: drawn(split, seed, sharpness, tasks) for split in splits}
    for split, of_split in scores.items():
        write_results(
            folder,
            of_split,
            split=split,
            date=TEST_DATE if split == "test" else TRAIN_DATE,
            adapter=str(folder),
            changes=changes if split == "train" else None,
            group_size=group_size,
        )
    return scores


def losses(task: str, scores: Scores) -> NDArray[np.float64]:
    """Each document's loss: minus the log-probability of its label."""
    labels = np.array([row["label"] for row in documents(task, len(scores[task]))])
    return -np.log(np.exp(scores[task]) / np.exp(scores[task]).sum(1, keepdims=True))[
        np.arange(len(labels)), labels - 1
    ]


def compared(folder: Path, baseline: str = "label_only") -> Comparison:
    return compare(read_arms([str(folder)]), baseline).comparison


# --- the figures ------------------------------------------------------------------------------


def test_of_one_seed_the_gap_is_welchs_with_one_event_more_a_side(tmp_path: Path) -> None:
    """Groups of one document; the unseen event is as large as the largest document's."""
    by_arm = {
        arm: write_model(tmp_path / f"{arm}-1", 1, sharpness)
        for arm, sharpness in (("label_only", 3.0), ("explanation", 1.0))
    }
    found = compared(tmp_path).generalisation
    assert list(found) == ["label_only", "explanation"]
    loss = {
        arm: {split: losses(TASK, scores[split]) for split in SIZES}
        for arm, scores in by_arm.items()
    }
    of_difference = {
        split: loss["explanation"][split] - loss["label_only"][split] for split in SIZES
    }
    for value, of_split in (
        (found["label_only"].gap, loss["label_only"]),
        (found["explanation"].gap, loss["explanation"]),
        (found["explanation"].difference, of_difference),
    ):
        variances = [
            values.var(ddof=1) / len(values)
            + max(((values - values.mean()) ** 2).max(), 1.0) / len(values) ** 2
            for values in of_split.values()
        ]
        freedom = sum(variances) ** 2 / sum(
            variance**2 / (len(values) - 1)
            for variance, values in zip(variances, of_split.values(), strict=True)
        )
        gap = of_split["test"].mean() - of_split["train"].mean()
        reach = stats.t.ppf(0.975, freedom) * sum(variances) ** 0.5
        assert value is not None
        assert value.value == pytest.approx(gap, abs=1e-6)
        assert (value.low, value.high) == pytest.approx((gap - reach, gap + reach), abs=1e-5)
    for arm, one in found.items():
        assert one.train.value == pytest.approx(loss[arm]["train"].mean(), abs=1e-6)
        assert one.test.value == pytest.approx(loss[arm]["test"].mean(), abs=1e-6)
        assert (one.train_documents, one.test_documents) == (60, 90)
        assert one.over == "groups"
    assert found["label_only"].difference is None


def test_of_three_seeds_and_two_settings_it_is_the_mean_of_means(tmp_path: Path) -> None:
    tasks = (TASK, OTHER)
    loss: dict[str, NDArray[np.float64]] = {}
    for arm, sharpness in (("label_only", 3.0), ("explanation", 1.0)):
        by_seed = []
        for seed in (1, 2, 3):
            scores = write_model(
                tmp_path / f"{arm}-{seed}", seed, sharpness, tasks=tasks, group_size=3
            )
            by_seed.append(
                [[losses(task, scores[split]).mean() for split in SIZES] for task in tasks]
            )
        # For each seed, the mean over the two settings on test rows and on train rows.
        loss[arm] = np.array(by_seed).mean(axis=1)
    c = compared(tmp_path)
    found = c.generalisation
    for arm, (test, train) in ((arm, values.mean(axis=0)) for arm, values in loss.items()):
        assert found[arm].test.value == pytest.approx(test, abs=1e-6)
        assert found[arm].train.value == pytest.approx(train, abs=1e-6)
        assert found[arm].gap.value == pytest.approx(test - train, abs=1e-6)
        assert found[arm].over == "seeds and groups"
        # The figures on test rows equal those elsewhere in the comparison.
        score = c.pooled_scores[arm]["nll"]
        assert (found[arm].test.low, found[arm].test.high) == (score.low, score.high)
    one = found["explanation"]
    assert one.difference is not None
    gaps = {arm: values[:, 0] - values[:, 1] for arm, values in loss.items()}
    difference = gaps["explanation"] - gaps["label_only"]
    assert one.difference.value == pytest.approx(difference.mean(), abs=1e-6)
    # The interval includes the variance between seeds.
    low, high = one.difference.low, one.difference.high
    assert low is not None
    assert high is not None
    assert (high - low) / 2 > stats.t.ppf(0.975, 2) * (difference.var(ddof=1) / 3) ** 0.5


def test_a_model_and_its_copy_have_the_same_gap(tmp_path: Path) -> None:
    for arm in ("label_only", "explanation"):
        write_model(tmp_path / f"{arm}-1", 1)
    one = compared(tmp_path).generalisation["explanation"].difference
    assert one is not None
    assert one.value == 0
    assert one.low is not None
    assert one.low < 0


# --- which results count ----------------------------------------------------------------------


def test_train_rows_change_no_other_figure(tmp_path: Path) -> None:
    for arm, sharpness in (("label_only", 3.0), ("explanation", 1.0)):
        write_model(tmp_path / "with" / f"{arm}-1", 1, sharpness)
        write_model(tmp_path / "without" / f"{arm}-1", 1, sharpness, splits=("test",))
    both, alone = (
        compared(tmp_path / name).model_dump(exclude={"runs", "generalisation"})
        for name in ("with", "without")
    )
    assert both == alone
    assert compared(tmp_path / "without").generalisation == {}
    assert "train rows" not in " ".join(compared(tmp_path / "with").notes)


def test_results_of_train_rows_are_a_run_of_their_own(tmp_path: Path) -> None:
    write_model(tmp_path / "x-1", 1, changes={"config/limit": 60.0})
    run = read_run("x", tmp_path)
    assert run.tasks[TASK].documents == 90
    # The results on train rows are newer.
    assert run.config["limit"] is None
    assert run.superseded == []
    assert run.train is not None
    assert run.train.tasks[TASK].documents == 60
    assert run.train.config["limit"] == 60
    assert run.train.seed == run.seed == 1


def test_validation_rows_stand_for_nothing_else(tmp_path: Path) -> None:
    write_model(tmp_path / "x-1", 1, splits=("test",))
    scores = drawn("train", 1, 1.0)
    write_results(
        tmp_path / "x-1",
        scores,
        split="validation",
        date=TRAIN_DATE,
        adapter=str(tmp_path / "x-1"),
    )
    run = read_run("x", tmp_path)
    assert run.tasks[TASK].documents == 90
    assert run.train is None


def test_an_arm_without_train_rows_is_named(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_model(tmp_path / f"label_only-{seed}", seed)
        write_model(tmp_path / f"shuffled-{seed}", seed)
        # One of the arm's two models was not scored on train rows.
        splits = ("test", "train") if seed == 1 else ("test",)
        write_model(tmp_path / f"explanation-{seed}", seed, splits=splits)
    c = compared(tmp_path)
    assert set(c.generalisation) == {"label_only", "shuffled"}
    assert c.generalisation["shuffled"].difference is not None
    note = "No generalisation gap for `explanation`: not every model was scored on train rows."
    assert note in c.notes
    against = compared(tmp_path, "explanation")
    assert {one.difference for one in against.generalisation.values()} == {None}


def test_an_untrained_model_has_a_gap_as_well(tmp_path: Path) -> None:
    write_model(tmp_path / "explanation-1", 1)
    for split in SIZES:
        date = TEST_DATE if split == "test" else TRAIN_DATE
        write_results(tmp_path / "plain", drawn(split, 5, 1.0), split=split, date=date)
    runs = read_arms([f"{name}={tmp_path / name}" for name in ("plain", "explanation-1")])
    found = compare(runs, "plain").comparison.generalisation
    assert set(found) == {"plain", "explanation-1"}


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "validation"])
def test_other_rows_never_pass_for_test_rows(
    split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path / "x", drawn("train", 1, 1.0), split=split)
    with pytest.raises(UserError, match=f"on {split} rows only; score its test rows too"):
        read_run("x", tmp_path / "x")
    write_results(tmp_path / "y", drawn("test", 1, 1.0))
    both = [f"a={tmp_path / 'y'}", f"b={tmp_path / 'x'}", "--baseline", "a"]
    assert main(["gate", *both]) == 2
    assert main(["compare", *both, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("rows only") == 2
    assert not (tmp_path / "out").exists()


def test_no_other_word_passes_for_a_split(tmp_path: Path) -> None:
    write_results(tmp_path, drawn("train", 1, 1.0), split="training")
    with pytest.raises(UserError, match=r"metadata\.data\.split"):
        read_run("x", tmp_path)


# Changes to every model's results on train rows, and the message about the first model.
UNLIKE_ITS_TEST_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "data": (
        {f"configs/{TASK}/metadata/data/sha256": "cd" * 32},
        f"the test rows and the train rows of 'label_only' in {TASK} differ in data",
    ),
    "examples": (
        {f"n-shot/{TASK}": 2},
        f"the train rows of 'label_only' in {TASK} differ in few-shot examples (0 and 2)",
    ),
    "template": (
        {"chat_template_sha": "x"},
        "the train rows of 'label_only' differ in chat template (None and 'x')",
    ),
    "loading": (
        {"config/model_args": "pretrained=base,load_in_4bit=True,batch_size=8"},
        "the train rows of 'label_only' differ in how the model was loaded "
        "({} and {'load_in_4bit': 'True'})",
    ),
}


@pytest.mark.parametrize("case", UNLIKE_ITS_TEST_ROWS)
def test_train_rows_scored_otherwise_than_test_rows_are_refused(case: str, tmp_path: Path) -> None:
    changes, message = UNLIKE_ITS_TEST_ROWS[case]
    arms = ("label_only", "explanation")
    for arm in arms:
        write_results(tmp_path / arm, drawn("test", 1, 1.0), date=TEST_DATE)
        scores = drawn("train", 1, 1.0)
        write_results(tmp_path / arm, scores, split="train", date=TRAIN_DATE, changes=changes)
    runs = read_arms([f"{arm}={tmp_path / arm}" for arm in arms])
    with pytest.raises(UserError, match=re.escape(message)):
        compare(runs, "label_only")


# A difference in one of two models, and the message about it.
UNLIKE_THE_OTHER: dict[str, tuple[Callable[[Path], object], str]] = {
    "limit": (
        lambda folder: write_model(folder, 1, changes={"config/limit": 60.0}),
        "'explanation on train rows' and 'label_only on train rows' differ in --limit",
    ),
    "documents": (
        lambda folder: (
            write_model(folder, 1, splits=("test",)),
            write_results(
                folder,
                {TASK: drawn("train", 1, 1.0)[TASK][:50]},
                split="train",
                date=TRAIN_DATE,
                adapter=str(folder),
            ),
        ),
        "have different documents: 10 are in 'label_only on train rows' only",
    ),
    "scope": (
        lambda folder: write_model(folder, 1, record={"scope": "coherence"}),
        "'explanation, scope coherence' was trained on coherence only, not on the train rows of "
        f"{TASK}",
    ),
}


@pytest.mark.parametrize("case", UNLIKE_THE_OTHER)
def test_train_rows_of_one_model_alone_are_refused(case: str, tmp_path: Path) -> None:
    write, message = UNLIKE_THE_OTHER[case]
    write_model(tmp_path / "label_only-1", 1)
    write(tmp_path / "explanation-1")
    with pytest.raises(UserError, match=re.escape(message)):
        compared(tmp_path)


def test_train_rows_that_no_model_was_trained_on_are_refused(tmp_path: Path) -> None:
    for arm in ("label_only", "explanation"):
        other = {"data": {"sha256": "ef" * 32, "path": "data/other"}}
        write_model(tmp_path / f"{arm}-1", 1, record=other)
    with pytest.raises(UserError, match=r"other data than it was trained on \(data/other\)"):
        compared(tmp_path)


@pytest.mark.parametrize("scope", [TASK.removeprefix("regreason_"), "naturalness+on_topic"])
def test_a_model_of_its_own_scope_has_seen_its_rows(scope: str, tmp_path: Path) -> None:
    for arm in ("label_only", "explanation"):
        write_model(tmp_path / f"{arm}-1", 1, record={"scope": scope})
    assert len(compared(tmp_path).generalisation) == 2
