"""`regreason calibrate`, and `predict --calibrated`, with labels drawn at a known temperature."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

import regreason_plugin
from regreason_plugin import Classifier, calibrate
from regreason_plugin.cli import main
from regreason_plugin.core.declaration import Axis, Dataset, Declaration
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.model_use import CALIBRATION, RECORD, prompt_hashes
from regreason_plugin.data_folder.build import BuildOptions, build
from regreason_plugin.data_folder.folder import MANIFEST, DataFolder, open_data_folder
from regreason_plugin.evaluate.answer_cache import folder_digest
from regreason_plugin.train.scoring import clear

pytestmark = pytest.mark.integration

DECLARED = Declaration(
    labels=("wrong", "right", "maybe"),
    label_end=".",
    ordinal=False,
    rated=True,
    datasets={"replies": Dataset(title="Replies")},
    axes={"label": Axis(title="label"), "tone": Axis(title="tone")},
    task="{dataset}_{axis}",
    prompt="Is this reply right?\n\nReply: {text}\n\nVerdict:",
)
TRUE_TEMPERATURE = 2.5
Logits = NDArray[np.float64]
WORDS = ("the", "river", "rises", "in", "hills", "and", "a", "town", "floods")


def texts(count: int) -> list[str]:
    random = np.random.default_rng(7)
    return [" ".join([*random.choice(WORDS, random.integers(1, 9)), str(n)]) for n in range(count)]


def folder_with(
    out: Path, labels: Sequence[int], axes: Sequence[str] = ("label",), **options: Any
) -> DataFolder:
    """A data folder in which two texts make a group, and a text has the same label on all axes."""
    ratings = out.with_suffix(".jsonl")
    with ratings.open("w", encoding="utf-8") as stream:
        for number, (text, label) in enumerate(zip(texts(len(labels)), labels, strict=True)):
            for axis in axes:
                row = {
                    "id": f"r{number}",
                    "dataset": "replies",
                    "group": f"g{number // 2}",
                    "conversation": [{"role": "assistant", "content": text}],
                    "axis": axis,
                    "label": int(label),
                    "score": float(label),
                    "explanation": "because",
                }
                stream.write(json.dumps(row) + "\n")
    parts = {"train": 1, "validation": 3, "test": 1}
    options = {"arms": ("label_only", "explanation"), "parts": parts, **options}
    return build(ratings, out, BuildOptions(**options), declaration=DECLARED)


def trained(model: Path, folder: DataFolder, out: Path, **record: Any) -> Path:
    """A copy of a model with the record of a training on a data folder."""
    shutil.copytree(model, out)
    record = {
        "arm": "explanation",
        "scope": None,
        "order": folder.order,
        "chat_template": False,
        "data": {"path": str(folder.path), "sha256": folder.sha256},
        "use": {"labels": DECLARED.written, "prompts": prompt_hashes(DECLARED)},
        **record,
    }
    (out / RECORD).write_text(json.dumps(record), encoding="utf-8")
    return out


def model_args(model: Path) -> str:
    return f"pretrained={model},dtype=float32"


def scores_of(model: Path, folder: DataFolder, prompts: Sequence[str]) -> Logits:
    """The logarithms of a model's plain probabilities."""
    classifier = Classifier(model_args(model), folder.path, device="cpu")
    return np.log([list(one.probabilities.values()) for one in classifier(prompts)])


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Logits:
    """The tiny model's log-probabilities of the labels of 400 texts, ``[400, 3]``."""
    place = tmp_path_factory.mktemp("first") / "data"
    return scores_of(tiny_model, folder_with(place, [n % 3 + 1 for n in range(400)]), texts(400))


def drawn(logits: Logits, temperature: float, seed: int) -> list[int]:
    """Labels drawn from softmax(logits / temperature), by the Gumbel-max trick."""
    noise = np.random.default_rng(seed).gumbel(size=logits.shape)
    return [int(label) for label in (logits / temperature + noise).argmax(axis=1) + 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, logits: Logits) -> DataFolder:
    """A data folder whose labels are drawn from the tiny model at the true temperature."""
    place = tmp_path_factory.mktemp("drawn")
    return folder_with(place / "data", drawn(logits, TRUE_TEMPERATURE, 5))


@pytest.fixture
def model(tiny_model: Path, folder: DataFolder, tmp_path: Path) -> Path:
    return trained(tiny_model, folder, tmp_path / "model")


def command(model: Path, data: Path, *flags: str) -> int:
    arguments = ["--model_args", model_args(model), "--device", "cpu"]
    return main(["calibrate", str(data), *arguments, *flags])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("regreason: ")
    ]
    return lines[-1]


def test_the_temperature_fits_validation_rows_and_no_other(
    model: Path, folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = folder_digest(model)
    assert command(model, folder.path) == 0
    printed = capsys.readouterr().out
    kept = json.loads((model / CALIBRATION).read_text(encoding="utf-8"))
    assert kept["low"] < TRUE_TEMPERATURE < kept["high"]
    assert kept["low"] > 1.2  # or the model would not be known to be overconfident

    # The same from the texts, with another minimiser and scikit-learn's likelihood.
    known = dict(enumerate(texts(400)))
    rows = list(folder.rows("validation/label_only.jsonl"))
    labels = [row.label - 1 for row in rows]
    logs = scores_of(model, folder, [known[int(row.id[1:])] for row in rows])

    def nll(temperature: float) -> float:
        scaled = np.exp(logs / temperature)
        return float(log_loss(labels, scaled / scaled.sum(axis=1, keepdims=True), labels=[0, 1, 2]))

    found = minimize_scalar(nll, bounds=(0.1, 20), method="bounded", options={"xatol": 1e-9})
    assert kept["temperature"] == pytest.approx(found.x, rel=1e-4)
    assert kept["before"]["nll"] == pytest.approx(nll(1.0), rel=1e-5)
    assert kept["after"]["nll"] == pytest.approx(found.fun, rel=1e-5)
    assert kept["after"]["ece"] < kept["before"]["ece"]

    groups = {row.group for row in rows}
    assert kept["data"] == {
        "sha256": folder.sha256,
        "file": "validation/explanation.jsonl",
        "file_sha256": folder.manifest.files["validation/explanation.jsonl"],
        "origin": "rated",
        "settings": [["replies", "label"]],
        "rows": len(rows),
        "groups": len(groups),
    }
    # The file does not change the model's digest, so results and predictions stay the model's.
    assert kept["model"] == before == folder_digest(model)
    assert kept["arguments"] == {"dtype": "float32"}
    assert f"Fitted on {len(rows)} validation rows in {len(groups)} groups" in printed
    assert f"Temperature: {kept['temperature']:.4g}, 95 % interval {kept['low']:.4g} to" in printed
    assert "The model is overconfident" in printed


def test_one_is_said_where_the_interval_holds_it(
    tiny_model: Path, logits: Logits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = folder_with(tmp_path / "small", drawn(logits[:100], 1, 2))
    of_small = trained(tiny_model, small, tmp_path / "of small")
    code = command(of_small, small.path)
    printed = capsys.readouterr().out
    assert code == 0
    assert "The interval includes 1, a temperature that changes nothing: these rows do" in printed


def test_predictions_keep_their_labels_and_divide_their_scores(
    model: Path, folder: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(20)))
    arguments = ["--model_args", model_args(model), "--device", "cpu", "--data", str(folder.path)]

    def predict(out: Path, *flags: str) -> list[dict[str, Any]]:
        assert main(["predict", str(source), "--out", str(out), *arguments, *flags]) == 0
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]

    plain = predict(tmp_path / "plain.jsonl")
    calibrate(model_args(model), folder.path, device="cpu")
    assert predict(tmp_path / "again.jsonl") == plain
    # A finished file stays finished: the model's digest has not changed.
    assert predict(tmp_path / "plain.jsonl") == plain
    assert "Nothing left to do" in capsys.readouterr().out
    kept = json.loads((model / CALIBRATION).read_text(encoding="utf-8"))
    found = predict(tmp_path / "calibrated.jsonl", "--calibrated")
    assert f"divided by the temperature {kept['temperature']:.4g}" in capsys.readouterr().out
    for one, other in zip(plain, found, strict=True):
        assert one["label"] == other["label"]
        scaled = np.array(list(one["probabilities"].values())) ** (1 / kept["temperature"])
        expected = scaled / scaled.sum()
        assert list(other["probabilities"].values()) == pytest.approx(expected, rel=1e-5)
    # Another precision changes scores a little, which is said.
    half = f"pretrained={model},dtype=bfloat16"
    Classifier(half, folder.path, device="cpu", calibrated=True)
    assert "was fitted with dtype=float32, and this run has dtype=bfloat16" in error_of(capsys)
    classifier = Classifier(model_args(model), folder.path, device="cpu", calibrated=True)
    assert classifier.temperature == kept["temperature"]
    in_python = classifier(texts(20))
    for row, one in zip(found, in_python, strict=True):
        assert row["probabilities"] == pytest.approx(one.probabilities, rel=1e-6)
    # A file is not continued with another temperature.
    assert main(["predict", str(source), "--out", str(tmp_path / "plain.jsonl"), *arguments,
                 "--calibrated"]) == 2  # fmt: skip
    assert "was made with temperature None, now it is" in error_of(capsys)


def test_a_temperature_of_another_model_or_data_is_refused(
    tiny_model: Path, model: Path, folder: DataFolder, tmp_path: Path
) -> None:
    def refusal(used: Path, data: Path = folder.path, **how: Any) -> str:
        with pytest.raises(UserError) as refused:
            Classifier(model_args(used), data, device="cpu", calibrated=True, **how)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    assert "has no calibration.json; fit its temperature with `regreason cal" in refusal(model)
    calibrate(model_args(model), folder.path, device="cpu")
    other = trained(tiny_model, folder, tmp_path / "other", seed=2)
    shutil.copy(model / CALIBRATION, other)
    assert "was fitted for other files of this model" in refusal(other)
    another = folder_with(tmp_path / "another", [n % 3 + 1 for n in range(60)])
    assert "was fitted on another data folder than the one that is used" in refusal(
        model, another.path
    )
    assert "is not a folder on this machine" in refusal(Path("org/model"))
    kept = json.loads((model / CALIBRATION).read_text(encoding="utf-8"))
    for changed, message in {
        "labels": "was fitted with labels ['a'], and the model is used with ['wrong.', 'right.'",
        "normalise": "was fitted with normalise characters, and the model is used with none",
        "order": "was fitted with order explanation_first, and the model is used with label_first",
    }.items():
        value = {"labels": ["a"], "normalise": "characters", "order": "explanation_first"}[changed]
        (model / CALIBRATION).write_text(json.dumps({**kept, changed: value}))
        assert message in refusal(model)
    settings = {**kept["data"], "settings": [["replies", "tone"]]}
    (model / CALIBRATION).write_text(json.dumps({**kept, "data": settings}))
    assert "was fitted on validation rows of replies tone, not of replies label" in refusal(model)
    (model / CALIBRATION).write_text(json.dumps({**kept, "temperature": 0}))
    assert "field temperature" in refusal(model)
    # A new training in the same folder removes the file of the old model.
    clear(model)
    assert not (model / CALIBRATION).exists()


def test_a_model_in_a_misfit_is_not_calibrated(
    tiny_model: Path, folder: DataFolder, tmp_path: Path
) -> None:
    calibrated = trained(tiny_model, folder, tmp_path / "model")
    calibrate(model_args(calibrated), folder.path, device="cpu")
    with pytest.raises(UserError, match="does not fit a model that is used otherwise"):
        Classifier(
            model_args(calibrated),
            folder.path,
            device="cpu",
            apply_chat_template=True,
            allow_misfit=True,
            calibrated=True,
        )


def test_what_cannot_be_calibrated_is_refused_and_nothing_is_written(
    tiny_model: Path,
    model: Path,
    folder: DataFolder,
    logits: Logits,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refusal(used: Path, data: Path) -> str:
        capsys.readouterr()
        assert command(used, data) == 2
        assert not (used / CALIBRATION).exists()
        return error_of(capsys)

    assert "has no regreason.json, so nothing says that it was trained on the train rows" in (
        refusal(shutil.copytree(tiny_model, tmp_path / "untrained"), folder.path)
    )
    another = folder_with(tmp_path / "another", [n % 3 + 1 for n in range(60)])
    message = refusal(model, another.path)
    assert f"was not trained on the train rows of {another.path} but on {folder.path}" in message

    # A data folder without validation rows, which `build` of today does not write.
    place = folder_with(tmp_path / "none", [n % 3 + 1 for n in range(60)]).path
    manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    manifest["counts"]["validation"]["rows"] = 0
    (place / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    without = open_data_folder(place)
    message = refusal(trained(tiny_model, without, tmp_path / "of none"), without.path)
    assert "the data folder has no validation rows, and a temperature is never fitted" in message

    best = logits[:60]
    for name, labels, words in (
        ("right", best.argmax(axis=1) + 1, "the true label has the highest score in every row"),
        ("wrong", best.argmin(axis=1) + 1, "the true labels score no higher than the other labels"),
    ):
        data = folder_with(tmp_path / name, labels.tolist())
        message = refusal(trained(tiny_model, data, tmp_path / f"of {name}"), data.path)
        assert f"no temperature can be fitted: {words}" in message
        assert str(data.path / "validation/explanation.jsonl") in message

    scoped = folder_with(tmp_path / "scoped", [n % 3 + 1 for n in range(60)], ("label", "tone"))
    strange = trained(tiny_model, scoped, tmp_path / "strange", use={"labels": ["a", "b"]})
    assert "was trained on the labels 'a', 'b'" in refusal(strange, scoped.path)


def test_a_model_of_one_scope_is_calibrated_on_its_rows(
    tiny_model: Path, logits: Logits, tmp_path: Path
) -> None:
    data = folder_with(tmp_path / "data", drawn(logits[:200], 2, 6), ("label", "tone"))
    joint = calibrate(
        model_args(trained(tiny_model, data, tmp_path / "joint")), data.path, device="cpu"
    )
    tone = trained(tiny_model, data, tmp_path / "tone", scope="tone")
    alone = calibrate(model_args(tone), data.path, device="cpu")
    assert alone.data.settings == [("replies", "tone")]
    assert joint.data.rows == 2 * alone.data.rows
    assert joint.data.groups == alone.data.groups
    # Both axes have the same labels and prompts here, so the rows of one tell nothing new.
    assert joint.temperature == pytest.approx(alone.temperature, rel=1e-4)
    with pytest.raises(UserError, match="of replies tone, not of replies label"):
        Classifier(
            model_args(tone),
            data.path,
            setting=("replies", "label"),
            device="cpu",
            calibrated=True,
        )


def test_models_that_explain_first_and_chat(tiny_model: Path, tmp_path: Path) -> None:
    data = folder_with(tmp_path / "data", [n % 3 + 1 for n in range(20)], order="explanation_first")
    used = trained(tiny_model, data, tmp_path / "model", chat_template=True)
    arguments = {"device": "cpu", "apply_chat_template": True}
    with pytest.raises(UserError, match="was trained with its chat template"):
        calibrate(model_args(used), data.path, device="cpu")
    classifier = Classifier(model_args(used), data.path, **arguments)
    known = dict(enumerate(texts(20)))
    rows = list(data.rows("validation/label_only.jsonl"))
    expected = classifier([known[int(row.id[1:])] for row in rows])
    scores = classifier.prompt_scores([row.messages[0].content for row in rows])
    logs = np.log([list(one.probabilities.values()) for one in expected])
    gaps = scores - scores[:, :1]
    assert gaps == pytest.approx(logs - logs[:, :1], abs=1e-4)
    with pytest.raises(UserError, match="a prompt has .* tokens, but the model's window leaves"):
        classifier.prompt_scores(["a river " * 3000])


def test_the_package_names_it() -> None:
    assert regreason_plugin.calibrate is calibrate
