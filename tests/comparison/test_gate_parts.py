"""`regreason gate` with several requirements: parts of the documents, a floor, planned looks."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.results import ALL, Task, draw_scores, write_results
from scipy.stats import norm

from regreason_plugin.cli import main
from regreason_plugin.comparison.gate_bounds import accuracy_change

pytestmark = pytest.mark.integration

TASKS = ALL[:3]
COUNT = 200


@pytest.fixture(autouse=True)
def no_step_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def made(folder: Path, accuracies: tuple[float, ...], count: int = COUNT) -> Path:
    """Results with the given accuracy in each of `TASKS`."""
    scores = {
        task: draw_scores(task, count, accuracy, 1)
        for task, accuracy in zip(TASKS, accuracies, strict=True)
    }
    write_results(folder, scores, group_size=2)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return made(tmp_path / "base", (0.7, 0.7, 0.7))


@pytest.fixture
def gate(base: Path, tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    def run(candidate: Path, *more: object, base: Path = base) -> tuple[int, dict[str, Any]]:
        names = [f"baseline={base}", f"candidate={candidate}", "--baseline", "baseline"]
        names += ["--json", str(tmp_path / "gate.json"), "--junit", str(tmp_path / "gate.xml")]
        code = main(["gate", *names, *map(str, more)])
        file = tmp_path / "gate.json"
        return code, json.loads(file.read_text()) if code != 2 else {}

    return run


Gate = Callable[..., tuple[int, dict[str, Any]]]


def rows(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.rglob("samples_*"), key=lambda file: file.name)
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def accuracies(folder: Path, of: Callable[[dict[str, Any]], str]) -> dict[str, float]:
    right = defaultdict(list)
    for row in rows(folder):
        right[of(row["doc"])].append(row["acc"])
    return {name: float(np.mean(values)) for name, values in right.items()}


def shown(decision: dict[str, Any], model: str) -> dict[str, float]:
    return {part["key"]: part[model] for part in decision["parts"]}


PARTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "setting": lambda document: f"{document['dataset']} {document['axis']}",
    "class": lambda document: str(document["label"]),
    "axis": lambda document: str(document["axis"]),
}


@pytest.mark.parametrize("per", PARTS)
def test_every_part_is_measured_and_has_to_pass(
    base: Path, gate: Gate, tmp_path: Path, per: str, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate = made(tmp_path / "new", (0.7, 0.69, 0.68))
    code, decision = gate(candidate, "--per", per, "--max-drop", 0.2)
    assert (code, decision["verdict"]) == (0, "pass")
    for model, folder in (("baseline", base), ("candidate", candidate)):
        assert shown(decision, model) == pytest.approx(accuracies(folder, PARTS[per]))
    assert {part["verdict"] for part in decision["parts"]} == {"pass"}
    many = len(decision["parts"]) + 1
    assert decision["requirements"] == many
    printed = capsys.readouterr().out
    assert f"({many} requirements: {many} shown)" in printed.splitlines()[0]
    assert printed.count("PASS") == many + 1
    suite = ElementTree.parse(tmp_path / "gate.xml").find("testsuite")
    assert suite is not None
    assert len(suite.findall("testcase")) == many
    assert suite.attrib["failures"] == "0"


def test_a_field_that_divides_no_task_serves_every_metric(
    base: Path, gate: Gate, tmp_path: Path
) -> None:
    candidate = made(tmp_path / "new", (0.7, 0.69, 0.68))
    options = ("--metric", "qwk", "--max-drop", 0.2, "--per")
    by_axis, by_setting = (gate(candidate, *options, per)[1] for per in ("axis", "setting"))
    found = {part["key"]: part["change"] for part in by_axis["parts"]}
    assert found == {part["key"].split()[1]: part["change"] for part in by_setting["parts"]}


def test_one_part_that_is_worse_fails_where_all_documents_pass(
    gate: Gate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate = made(tmp_path / "new", (0.7, 0.4, 0.7))
    assert gate(candidate, "--max-drop", 0.15)[0] == 0
    capsys.readouterr()
    code, decision = gate(candidate, "--max-drop", 0.15, "--per", "setting")
    assert code == 1
    assert [part["verdict"] for part in decision["parts"]] == ["pass", "fail", "pass"]
    assert decision["overall"]["verdict"] == "pass"
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(
        "FAIL: accuracy in Chatbot Arena conversations, comprehensiveness changed by -0."
    )
    assert first.endswith("below -0.1500 (4 requirements: 3 shown, 1 missed)")
    failures = ElementTree.parse(tmp_path / "gate.xml").findall(".//failure/..")
    assert [case.attrib["name"] for case in failures] == [
        "verdict",
        "chatbot_arena comprehensiveness",
    ]


def test_a_fail_is_corrected_for_the_number_of_requirements_and_a_pass_is_not(
    base: Path, gate: Gate, tmp_path: Path
) -> None:
    candidate = made(tmp_path / "new", (0.7, 0.6, 0.65))
    groups: dict[str, list[float]] = defaultdict(list)
    for one, other in zip(rows(base), rows(candidate), strict=True):
        groups[one["doc"]["group"]].append(other["acc"] - one["acc"])
    changes = [np.array(values) for values in groups.values()]
    wins, losses, sizes = (
        np.array([float(of(one)) for one in changes])
        for of in (lambda x: (x > 0).sum(), lambda x: (x < 0).sum(), len)
    )
    change = accuracy_change(wins, losses, sizes)
    for options, count in (((), 1), (("--per", "setting"), 4), (("--min", 0.2), 2)):
        _, decision = gate(candidate, *options)
        found = decision["overall"]["change"]
        assert found["low"] == pytest.approx(change.bounds(0.05)[0])
        assert found["high"] == pytest.approx(change.bounds(0.05 / count)[1])


def test_a_label_that_no_document_has_is_said_and_is_no_pass(
    gate: Gate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Task("moods", ("calm", "glad", "sad", "cross", "torn", "numb", "keen"))
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        write_results(folder, {task: draw_scores(task, 6, 0.9, 1)})
    code, decision = gate(folders[1], "--per", "class", "--max-drop", 0.9, base=folders[0])
    assert code == 3
    absent = [part for part in decision["parts"] if not part["documents"]]
    assert absent
    assert {part["verdict"] for part in absent} == {"undecided"}
    assert {part["candidate"] for part in absent} == {None}
    assert f"no document is in class {absent[0]['key']}" in (tmp_path / "gate.xml").read_text()
    assert "UNDECIDED: no document is in class " in capsys.readouterr().out.splitlines()[0]
    # A class with a single group has no bounds either.
    few = [part for part in decision["parts"] if part["groups"] == 1]
    assert all(part["verdict"] == "undecided" for part in few)


@pytest.mark.parametrize(
    ("floor", "code", "says"),
    [
        (0.5, 0, "PASS: "),
        (0.66, 3, "which may or may not be above 0.6600"),
        (0.9, 1, "FAIL: the candidate's accuracy is 0.6"),
    ],
)
def test_a_floor_under_the_candidates_own_metric(
    gate: Gate,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    floor: float,
    code: int,
    says: str,
) -> None:
    candidate = made(tmp_path / "new", (0.7, 0.7, 0.68))
    exit_code, decision = gate(candidate, "--max-drop", 0.1, "--min", floor)
    assert exit_code == code
    assert says in capsys.readouterr().out.splitlines()[0]
    level = decision["overall"]["level"]
    # Documents of a group are hardly correlated in these results, so Wilson's interval of
    # independent documents is close.
    share, n, z = level["value"], 600, norm.isf(0.05)
    half = z * (share * (1 - share) / n + z**2 / 4 / n**2) ** 0.5 / (1 + z**2 / n)
    wilson = (share + z**2 / 2 / n) / (1 + z**2 / n) - half
    assert level["low"] == pytest.approx(wilson, abs=0.015)
    assert decision["overall"]["change"]["low"] > -0.1


def test_a_ceiling_where_lower_is_better(
    gate: Gate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate = made(tmp_path / "new", (0.7, 0.7, 0.68))
    options = ("--metric", "nll", "--max-drop", 1)
    assert gate(candidate, *options, "--max", 2)[0] == 0
    assert gate(candidate, *options, "--max", 0.5)[0] == 1
    first = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("FAIL: the candidate's negative log-likelihood is 1.")
        and ", above 0.5000 (2 requirements: 1 shown, 1 missed)" in line
        for line in first
    )


def test_a_look_is_recorded_everywhere_and_spends_less(
    gate: Gate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate = made(tmp_path / "new", (0.7, 0.7, 0.69))
    _, plain = gate(candidate)
    capsys.readouterr()
    code, decision = gate(
        candidate, "--looks", 4, "--look", 2, "--summary", tmp_path / "summary.md"
    )
    assert code == 3
    assert decision["look"] == {
        "number": 2,
        "planned": 4,
        "alpha": pytest.approx(0.00554, abs=1e-5),
        "spent": pytest.approx(2 * norm.sf(norm.isf(0.025) / 0.5**0.5)),
    }
    assert decision["overall"]["change"]["low"] < plain["overall"]["change"]["low"]
    told = "Look 2 of 4 planned, at 2/4 of all effective groups: "
    for text in (
        capsys.readouterr().out,
        (tmp_path / "gate.xml").read_text(),
        (tmp_path / "summary.md").read_text(),
    ):
        assert told in text
        assert "0.0056 of alpha 0.05 is spent so far" in text
        assert "The next look is planned at 3/4 of all effective groups" in text
    assert "last look planned" in " ".join(gate(candidate, "--looks", 4, "--look", 4)[1]["notes"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--look", "1"), "--look needs --looks"),
        (("--looks", "3"), "--looks 3 needs --look"),
        (("--looks", "3", "--look", "4"), "--look 4 is more than the 3 looks planned"),
        (("--looks", "21", "--look", "4"), "plan at most 20"),
        (("--metric", "ece"), "use --metric miscalibration"),
        (("--metric", "nll", "--min", "1"), "use --max"),
        (("--max", "1"), "use --min"),
        (("--metric", "qwk", "--per", "class"), "not a mean over documents; use --metric acc"),
        (("--per", "mood"), "the document has no field 'mood'; its fields are axis, dataset"),
        (("--per", "id"), "--per id makes 200 parts"),
    ],
)
def test_mistakes_are_one_sentence_and_nothing_is_written(
    gate: Gate,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    says: str,
) -> None:
    candidate = made(tmp_path / "new", (0.7, 0.7, 0.68))
    assert gate(candidate, *options)[0] == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert says in printed.err
    assert not (tmp_path / "gate.json").exists()
    assert not (tmp_path / "gate.xml").exists()
