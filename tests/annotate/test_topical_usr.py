"""People's scores of Topical-Chat responses, used as a golden set and as a separate task."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from helpers.real_prompts import DATA
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from sklearn.metrics import cohen_kappa_score

from regreason_plugin.cli import main

REAL = DATA / "topical-usr" / "topical_chat.json.gz"
needs_real_file = pytest.mark.skipif(
    not REAL.is_file(),
    reason=f"no topical-usr/{REAL.name}: name its folder in REGREASON_TEST_DATA",
)
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def real() -> list[dict[str, Any]]:
    return json.loads(gzip.decompress(REAL.read_bytes()))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command writes."""
    out = tmp_path_factory.mktemp("topical") / "usr"
    assert main(["fetch", "topical-usr", "--from", str(REAL), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def rated(folder: Path) -> Path:
    """The same folder with the ratings of the built-in rules."""
    assert main(["annotate", str(folder / "annotate.yml")]) == 0
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def as_label(scores: list[float], highest: int) -> list[int]:
    """Scores mapped linearly to 1 to 5 and rounded half up, independently of the package."""
    return [int((1 + 4 * (score - 1) / (highest - 1) + 0.5) // 1) for score in scores]


@needs_real_file
def test_conversations(folder: Path, real: list[dict[str, Any]]) -> None:
    conversations = lines(folder / "conversations.jsonl")
    assert len({one["id"] for one in conversations}) == len(conversations) == 360
    # Dialogues with the same first line are one group, which holds all their responses.
    groups: dict[str, set[str]] = {}
    for one, response in zip(conversations, real, strict=True):
        groups.setdefault(one["group"], set()).add(response["source"].split("\n")[0].strip())
        said = [turn["content"] for turn in one["conversation"]]
        assert said == [*map(str.strip, response["source"].strip().split("\n")), said[-1]]
        assert said[-1] == response["system_output"].strip()
        roles = [turn["role"] for turn in one["conversation"]]
        assert roles[-2:] == ["user", "assistant"]
        assert all(first != second for first, second in pairwise(roles))
        assert one["meta"] == {"system": response["system_id"]}
    assert all(len(first) == 1 for first in groups.values())
    assert len(groups) == 53
    known = Counter(one.get("context") is not None for one in conversations)
    assert known == {True: 360 - 48, False: 48}


@needs_real_file
def test_labels(folder: Path, real: list[dict[str, Any]]) -> None:
    # The scores are means of three people, so 1.3333333333 stands for four thirds.
    scores = {
        name: [round(response["scores"][name] * 3) / 3 for response in real]
        for name in ("naturalness", "coherence", "overall")
    }
    expected = {
        "naturalness": as_label(scores["naturalness"], 3),
        "on_topic": as_label(scores["coherence"], 3),
        "overall": as_label(scores["overall"], 5),
    }
    golden = lines(folder / "golden.jsonl")
    ids = [one["id"] for one in lines(folder / "conversations.jsonl")]
    for axis in ("naturalness", "on_topic"):
        rows = [row for row in golden if row["axis"] == axis]
        assert [row["id"] for row in rows] == ids
        assert [row["label"] for row in rows] == expected[axis]
    with (folder / "responses.csv").open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    for column, labels in expected.items():
        assert [int(row[column]) for row in table] == labels
    # Every label of the scale occurs.
    assert all(set(labels) == {1, 2, 3, 4, 5} for labels in expected.values())


@needs_real_file
def test_the_rules_are_held_against_people(rated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["aggregate", str(rated / "ratings.jsonl"), "--golden", str(rated / "golden.jsonl")]
    capsys.readouterr()
    assert main(command) == 0
    printed = capsys.readouterr().out
    labels = {(row["id"], row["axis"]): row["label"] for row in lines(rated / "ratings.jsonl")}
    golden = lines(rated / "golden.jsonl")
    people = np.array([row["label"] for row in golden])
    rules = np.array([labels[row["id"], row["axis"]] for row in golden])
    assert len(golden) == 720
    kappa = cohen_kappa_score(rules, people, weights="quadratic", labels=[1, 2, 3, 4, 5])
    (row,) = [line.split() for line in printed.splitlines() if line.strip().startswith("mean ")]
    mae, mse = np.abs(rules - people).mean(), ((rules - people) ** 2).mean()
    exact = (rules == people).mean()
    assert [float(number) for number in (row[1], *row[5:8])] == pytest.approx(
        [mae, mse, exact, kappa], abs=5e-4
    )
    assert float(row[2]) < mae < float(row[4])


@needs_real_file
def test_what_cannot_be_built_is_not_offered(
    rated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["annotate", str(rated / "annotate.yml")]) == 0
    assert "regreason aggregate" in (said := capsys.readouterr().out)
    assert "regreason build" not in said
    assert main(["build", str(rated / "ratings.jsonl"), "--out", str(rated / "data")]) == 2
    assert "unknown dataset 'topical_usr'" in capsys.readouterr().err


@needs_real_file
def test_the_table_as_a_separate_task(
    folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    new = ["task", "new", "topical_usr", "--data", str(folder / "responses.csv"), "--text", "text"]
    new += ["--label", "overall", "--group", "dialogue", "--out", "topical"]
    assert main([*new, "--model", str(tiny_model)]) == 0
    data = Path("runs/topical_usr/data")
    build = ["build", "topical/task.yml", "--out", str(data), "--tokenizer", str(tiny_model)]
    assert main([*build, "--max-prompt-tokens", "200"]) == 0
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    # Two systems gave the same response with the same score; the table has that row once.
    assert sum(count["rows"] for count in manifest["counts"].values()) == 359
    declared = manifest["declaration"]
    assert (declared["labels"], declared["ordinal"]) == (["1", "2", "3", "4", "5"], True)
    groups = {
        name: {row["group"] for row in lines(data / file)}
        for name, file in (("train", "train/label_only.jsonl"), ("test", "test.jsonl"))
    }
    assert groups["test"]
    assert not groups["train"] & groups["test"]

    results = simple_evaluate(
        model=HFLM(pretrained=str(tiny_model), dtype="float32", device="cpu", batch_size=4),
        tasks=["topical_usr"],
        task_manager=TaskManager(include_path="topical", include_defaults=False),
        limit=8,
    )
    scored = results["results"]["topical_usr"]
    assert np.isfinite([scored["nll,none"], scored["mae,none"]]).all()


@needs_real_file
def test_the_download(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content, asked = gzip.decompress(REAL.read_bytes()), []

    def get(url: str, **_: object) -> httpx.Response:
        asked.append(url)
        return httpx.Response(200, content=content, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    out = tmp_path / "usr"
    assert main(["fetch", "topical-usr", "--out", str(out)]) == 0
    for name in ("conversations.jsonl", "golden.jsonl", "responses.csv"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    (url,) = asked
    assert url.startswith("https://raw.githubusercontent.com/maszhongming/UniEval/")
    printed = capsys.readouterr().out
    assert "https://github.com/maszhongming/UniEval; licence: MIT" in printed
    # The command refuses another file, and the files written before stay.
    content = content.replace(b"3.0", b"2.0")
    assert main(["fetch", "topical-usr", "--out", str(out)]) == 2
    assert "is not the file at https://raw" in capsys.readouterr().err
    assert (out / "golden.jsonl").read_bytes() == (folder / "golden.jsonl").read_bytes()


def test_another_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, out = tmp_path / "other.json", tmp_path / "out"
    other.write_text("[]")
    assert main(["fetch", "topical-usr", "--from", str(other), "--out", str(out)]) == 2
    assert "other.json: is not the file at https://raw" in capsys.readouterr().err
    assert not out.exists()
