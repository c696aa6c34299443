"""A comparison of real lm_eval results, checked against lm_eval's figures and scikit-learn's."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.group_contributions import allowance
from helpers.probe_gaps import WithGaps
from helpers.scoring import evaluate
from sklearn.metrics import cohen_kappa_score, f1_score

from regreason_plugin.cli import main
from regreason_plugin.comparison.arms import read_arms
from regreason_plugin.comparison.compare import Compared, compare
from regreason_plugin.comparison.disagreements import MOST
from regreason_plugin.core.paper import AXES, generative_task_name, task_name
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.evaluate.probe_metrics import Scored

pytestmark = pytest.mark.integration

PROTOCOLS = {
    "label_first": [task_name("coqa", axis) for axis in AXES],
    "explanation_first": [generative_task_name("coqa", axis) for axis in AXES],
}


class Guessing(WithGaps):
    """Scores that depend on the prompt, the label and the seed; some documents have no probes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def loglikelihood(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        answers = super().loglikelihood(requests, **kwargs)
        scores = [
            np.random.default_rng([zlib.crc32("".join(request.args).encode()), self.seed]).normal()
            for request in requests
        ]
        return [
            Scored(score, False, getattr(answer, "probe", None))
            for answer, score in zip(answers, scores, strict=True)
        ]


def score(
    model: Any, tasks: list[str], data: DataFolder, out: Path, **arguments: Any
) -> dict[str, Any]:
    """Score a model as `lm_eval --log_samples --output_path` does."""
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(out))
    results = evaluate(
        model, tasks, data.path, log_samples=True, evaluation_tracker=tracker, **arguments
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in tasks:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    pattern = f"{out.stem}_*.json" if out.suffix else "results_*.json"
    (file,) = (out.parent if out.suffix else out).rglob(pattern)
    return dict(json.loads(file.read_text(encoding="utf-8"))["results"])


@pytest.fixture(scope="module", params=PROTOCOLS)
def scored(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    data_folder: DataFolder,
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A folder with the results of two models, and their figures."""
    folder = tmp_path_factory.mktemp("scored")
    said = {
        name: score(Guessing(seed), PROTOCOLS[request.param], data_folder, folder / name)
        for seed, name in enumerate(("label_only", "explanation"))
    }
    return folder, said


@pytest.fixture(scope="module")
def compared(scored: tuple[Path, dict[str, dict[str, Any]]]) -> Compared:
    folder, said = scored
    runs = read_arms([f"{name}={folder / name}" for name in said])
    return compare(runs, "label_only")


def test_every_score_is_the_one_that_lm_eval_reports(
    scored: tuple[Path, dict[str, dict[str, Any]]], compared: Compared
) -> None:
    _, said = scored
    comparison = compared.comparison
    # A model that explains first is probed with the label forced at once.
    forced = "forced_" * (comparison.protocol == "explanation_first")
    probed = {f"{forced}output_entropy", f"{forced}matrix_entropy_mid"}
    assert {"acc", "qwk", "miscalibration", "nll", *probed} <= {*comparison.metrics}
    assert "ece" not in comparison.metrics
    for name, results in said.items():
        for task, values in results.items():
            # The tasks print the plain calibration error only; the comparison has both.
            for metric in {*comparison.metrics, "ece"} - {"miscalibration"}:
                # Both arms lack probes for the same documents, which are left out of both.
                assert comparison.scores[name][task][metric].value == pytest.approx(
                    values[f"{metric},none"], abs=1e-6
                ), (name, task, metric)
        layers = comparison.layers[f"{forced}activation_entropy"][name]
        key = f"{forced}activation_entropy_by_layer,none"
        by_task = [values[key] for values in results.values()]
        assert [one.value for one in layers] == pytest.approx(np.mean(by_task, axis=0), abs=1e-6)


def test_standard_errors_are_those_of_the_results(
    scored: tuple[Path, dict[str, dict[str, Any]]], compared: Compared
) -> None:
    """A difference's error from the samples alone: leave out one group of both, by scikit-learn."""
    folder, said = scored
    for task in said["label_only"]:
        rows = {
            name: sorted(
                (
                    json.loads(line)
                    for file in (folder / name).rglob(f"samples_{task}_*.jsonl")
                    for line in file.read_text(encoding="utf-8").splitlines()
                ),
                key=lambda row: row["doc_id"],
            )
            for name in said
        }
        labels = np.array([row["doc"]["label"] for row in rows["label_only"]])
        groups = np.array([row["doc"]["group"] for row in rows["label_only"]])
        predicted = {name: np.array([row["qwk"][1] for row in of]) for name, of in rows.items()}
        for metric, function in {
            "qwk": lambda a, b: cohen_kappa_score(a, b, weights="quadratic", labels=range(1, 6)),
            "macro_f1": lambda a, b: f1_score(
                a, b, labels=range(1, 6), average="macro", zero_division=0
            ),
        }.items():
            without = [
                function(labels[groups != g], predicted["explanation"][groups != g])
                - function(labels[groups != g], predicted["label_only"][groups != g])
                for g in np.unique(groups)
            ]
            # CR2 divides a group's square by 1 - share, so that a heavier group counts for more.
            shares = np.unique(groups, return_counts=True)[1] / len(groups)
            count = len(without)
            away = (count - 1) / count * (without - np.mean(without))
            seen = (away**2 / (1 - shares)).sum()
            ahead = (predicted["explanation"] == labels).astype(float)
            ahead -= predicted["label_only"] == labels
            expected = (seen * allowance(ahead, np.unique(groups, return_inverse=True)[1])) ** 0.5
            found = compared.comparison.differences["explanation"][task][metric]
            assert found.se == pytest.approx(expected, rel=1e-6), (task, metric)


def test_the_documents_of_which_arms_disagree(
    scored: tuple[Path, dict[str, dict[str, Any]]], compared: Compared
) -> None:
    folder, said = scored
    expected = {}
    for task in said["label_only"]:
        by_arm = []
        for name in said:
            (file,) = (folder / name).rglob(f"samples_{task}_*.jsonl")
            rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
            by_arm.append({row["doc"]["id"]: (row["qwk"][1], row["doc"]) for row in rows})
        for one, (prediction, document) in by_arm[0].items():
            if prediction != by_arm[1][one][0]:
                expected[task, one] = (document["prompt"], prediction, by_arm[1][one][0])
    assert 0 < len(expected) < MOST
    assert compared.disagreeing == len(expected)
    found = {
        (one.task, one.id): (one.prompt, *one.predictions.values())
        for one in compared.disagreements
    }
    assert found == expected


def test_what_cannot_be_paired_writes_nothing(
    scored: tuple[Path, dict[str, dict[str, Any]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, said = scored
    task = next(iter(said["label_only"]))
    (file,) = (folder / "explanation").rglob(f"samples_{task}_*.jsonl")
    lines = file.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[3])

    def refused(text: str | None) -> str:
        kept = file.read_bytes()
        file.unlink() if text is None else file.write_text(text, encoding="utf-8")
        given = [f"{name}={folder / name}" for name in said]
        code = main(["compare", *given, "--baseline", "label_only", "--out", str(tmp_path / "out")])
        file.write_bytes(kept)
        assert code == 2
        assert not (tmp_path / "out").exists()
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("regreason: ")
        return error

    def changed(**values: Any) -> str:
        return "\n".join([*lines[:3], json.dumps({**row, **values}), *lines[4:]])

    assert "run lm_eval with --log_samples" in refused(None)
    assert "holds no documents" in refused("")
    assert f"{len(lines) - 1} documents, but results_" in refused("\n".join(lines[1:]))
    assert "occurs twice" in refused("\n".join([*lines[:-1], lines[0]]))
    assert ":4: is not JSON" in refused("\n".join([*lines[:3], "{", *lines[4:]])).replace(
        ", line 4:", ":4:"
    )
    assert "the content or the prompt of 1 of" in refused(changed(prompt_hash="other"))
    scores = [[text, "False"] for text in ("nan", "-1", "-2", "-3", "-4")]
    if row["filtered_resps"] and isinstance(row["filtered_resps"][0], str):
        scores = [row["filtered_resps"][0], *scores]
    assert "not 5 finite numbers" in refused(changed(filtered_resps=scores))
    label = row["doc"]["label"]
    wrong = [row["filtered_resps"][0]] if isinstance(row["filtered_resps"][0], str) else []
    best = label if row["acc"] == 0 else label % 5 + 1
    wrong += [[str(-0.1 if one == best else -9.0), "False"] for one in range(1, 6)]
    assert "they are not of one run" in refused(changed(filtered_resps=wrong))


# --- chosen documents, and a file as --output_path -----------------------------------------

TASK = PROTOCOLS["label_first"][0]


def scored_documents(folder: Path) -> dict[str, tuple[int, list[float]]]:
    """The label and the label scores of each document in lm_eval's samples file, by id."""
    (file,) = folder.rglob(f"samples_{TASK}_*.jsonl")
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {
        row["doc"]["id"]: (row["doc"]["label"], [float(pair[0]) for pair in row["filtered_resps"]])
        for row in rows
    }


def test_chosen_documents_are_paired_in_whatever_order_they_were_named(
    tmp_path: Path, data_folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, (name, chosen) in enumerate({"a": [5, 2, 9, 0], "b": [0, 9, 2, 5]}.items()):
        score(Guessing(seed), [TASK], data_folder, tmp_path / name, samples={TASK: chosen})
    documents = {name: scored_documents(tmp_path / name) for name in "ab"}
    assert len(documents["a"]) == 4
    assert documents["a"].keys() == documents["b"].keys()
    right = {
        name: [1 + int(np.argmax(scores)) == label for label, scores in of.values()]
        for name, of in documents.items()
    }
    runs = [f"{name}={tmp_path / name}" for name in "ab"]
    assert main(["compare", *runs, "--baseline", "a", "--out", str(tmp_path / "out")]) == 0
    made = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert [setting["documents"] for setting in made["settings"]] == [4]
    for name in "ab":
        assert made["scores"][name][TASK]["acc"]["value"] == np.mean(right[name])
    gate = ["gate", f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}", "--baseline", "a"]
    capsys.readouterr()
    assert main(gate) in (0, 1, 3)
    change = np.mean(right["b"]) - np.mean(right["a"])
    assert f"accuracy changed by {change:+.4f}" in capsys.readouterr().out


def test_other_chosen_documents_are_named(
    tmp_path: Path, data_folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {"a": [0, 1, 2], "b": [2, 3, 4, 5, 6, 7]}
    for seed, (name, places) in enumerate(chosen.items()):
        score(Guessing(seed), [TASK], data_folder, tmp_path / name, samples={TASK: places})
    ids = {name: set(scored_documents(tmp_path / name)) for name in "ab"}
    runs = [f"{name}={tmp_path / name}" for name in "ab"]
    for command in (
        ["compare", *runs, "--baseline", "a", "--out", str(tmp_path / "out")],
        ["gate", f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}", "--baseline", "a"],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert "2 are in" in error
        assert "5 are in" in error
        assert all(repr(one) in error for one in ids["a"] - ids["b"])
        assert repr(min(ids["b"] - ids["a"])) in error
        assert "--samples" in error
        assert not (tmp_path / "out").exists()


def test_chosen_documents_that_lack_a_line(
    tmp_path: Path, data_folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate("ab"):
        score(Guessing(seed), [TASK], data_folder, tmp_path / name, samples={TASK: [0, 3, 4]})
        (file,) = (tmp_path / name).rglob("samples_*.jsonl")
        file.write_text("".join(file.read_text("utf-8").splitlines(keepends=True)[:-1]), "utf-8")
    runs = [f"{name}={tmp_path / name}" for name in "ab"]
    assert main(["compare", *runs, "--baseline", "a", "--out", str(tmp_path / "out")]) == 2
    assert "holds 2 documents" in capsys.readouterr().err


def test_a_file_as_output_path_is_found_by_the_name_that_was_typed(
    tmp_path: Path, data_folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("one.json", "two.json")):
        score(Guessing(seed), [TASK], data_folder, Path("runs", name))
    assert not Path("runs/one.json").exists()
    command = ["compare", "a=runs/one.json", "b=runs/two.json", "--baseline", "a", "--out", "out"]
    assert main(command) == 0
    made = json.loads(Path("out/comparison.json").read_text(encoding="utf-8"))
    said = {
        arm: json.loads(next(Path("runs").glob(f"{stem}_*.json")).read_text(encoding="utf-8"))
        for arm, stem in {"a": "one", "b": "two"}.items()
    }
    for arm, content in said.items():
        value = content["results"][TASK]["acc,none"]
        assert made["scores"][arm][TASK]["acc"]["value"] == pytest.approx(value, abs=1e-6)
    assert main(["gate", "a=runs/one.json", "b=runs/two.json", "--baseline", "a"]) in (
        0,
        1,
        3,
    )
