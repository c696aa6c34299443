"""`regreason gate` as a user calls it: its verdicts, its files and its error messages."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.results import ALL, DATE, documents, draw_scores, write_results
from sklearn.metrics import cohen_kappa_score, f1_score

from regreason_plugin.cli import main

pytestmark = pytest.mark.integration

TASKS = ALL[:3]
COUNT = 200


@pytest.fixture(autouse=True)
def no_step_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return made(tmp_path / "base", 0.7)


def made(folder: Path, accuracy: float, **options: Any) -> Path:
    count, tasks = options.pop("count", COUNT), options.pop("tasks", TASKS)
    scores = {task: draw_scores(task, count, accuracy, 1) for task in tasks}
    write_results(folder, scores, group_size=options.pop("group_size", 2), **options)
    return folder


def gate(base: Path, candidate: Path, *more: object) -> int:
    names = [f"baseline={base}", f"candidate={candidate}"]
    return main(["gate", *names, "--baseline", "baseline", *map(str, more)])


@pytest.mark.parametrize(
    ("accuracy", "max_drop", "code", "word"),
    [(0.7, 0.05, 0, "PASS"), (0.5, 0.05, 1, "FAIL"), (0.7, 0.001, 3, "UNDECIDED")],
)
def test_the_verdicts(
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    accuracy: float,
    max_drop: float,
    code: int,
    word: str,
) -> None:
    candidate, junit, summary = made(tmp_path / "new", accuracy), tmp_path / "j", tmp_path / "s.md"
    summary.write_text("before\n")
    options = ("--max-drop", max_drop, "--junit", junit, "--summary", summary)
    assert gate(base, candidate, *options) == code
    printed = capsys.readouterr().out
    first = printed.splitlines()[0]
    assert first.startswith(f"{word}: accuracy changed by ")
    # Three axes of two conversations form a group of six documents.
    assert ", 100 effective groups), " in first
    right = {folder: _accuracy(folder) for folder in (base, candidate)}
    assert f"changed by {right[candidate] - right[base]:+.4f}" in first
    assert summary.read_text().startswith(f"before\n### Gate: {word}\n")
    total = next(x for x in summary.read_text().splitlines() if x.startswith("| **all**"))
    assert f"**{right[base]:.4f}** | **{right[candidate]:.4f}**" in total
    failure = ElementTree.parse(junit).find(".//failure")
    assert (failure is None) == (code == 0)
    if failure is not None:
        assert failure.attrib == {"type": "worse" if code == 1 else "undecided", "message": first}
    if code == 1:
        assert f"regreason compare baseline={base} candidate={candidate}" in printed
    if code == 3:
        # The message does not suggest another look: looks must be planned beforehand.
        assert "as many documents" not in printed
        assert "plan the looks with --looks beforehand" in printed


def _accuracy(folder: Path) -> float:
    right = []
    for file in folder.rglob("samples_*"):
        right += [json.loads(line)["acc"] for line in file.read_text().splitlines()]
    return float(np.mean(right))


@pytest.mark.parametrize("metric", ["macro_f1", "qwk", "mae", "nll", "miscalibration"])
def test_the_other_metrics_against_their_own_definitions(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str
) -> None:
    candidate = made(tmp_path / "new", 0.6)
    assert gate(base, candidate, "--metric", metric, "--max-drop", 5) == 0
    assert gate(base, candidate, "--metric", metric, "--max-drop", 0) in (1, 3)
    shown = next(line for line in capsys.readouterr().out.splitlines() if "│ all" in line)
    before, after, change = (float(cell) for cell in re.findall(r"[+-]?\d\.\d{4}", shown)[:3])
    expected = [
        np.mean([_slowly(metric, task, draw_scores(task, COUNT, acc, 1)) for task in TASKS])
        for acc in (0.7, 0.6)
    ]
    assert (before, after) == pytest.approx(expected, abs=6e-5)
    sign = 1 if metric in ("macro_f1", "qwk") else -1
    assert change == pytest.approx(sign * (expected[1] - expected[0]), abs=6e-5)


def _slowly(metric: str, task: str, scores: np.ndarray) -> float:  # type: ignore[type-arg]
    labels = np.array([row["label"] for row in documents(task, len(scores))])
    predictions = scores.argmax(axis=1) + 1
    if metric == "macro_f1":
        return float(f1_score(labels, predictions, average="macro"))
    if metric == "qwk":
        return float(cohen_kappa_score(labels, predictions, weights="quadratic"))
    if metric == "mae":
        return float(np.abs(labels - predictions).mean())
    if metric == "nll":
        return float(-scores[np.arange(len(scores)), labels - 1].mean())
    # The U-statistic of its definition, pair by pair; each group has two documents.
    confidence, right = np.exp(scores.max(axis=1)), labels == predictions
    bins, groups = np.ceil(confidence * 15), np.arange(len(scores)) // 2
    gaps, value = confidence - right, 0.0
    pairs = (bins[:, None] == bins) & (groups[:, None] != groups)
    for one in np.unique(bins):
        chosen = pairs & (bins[:, None] == one)
        if chosen.any():
            share = (bins == one).mean()
            value += 100 * share * np.outer(gaps, gaps)[chosen].mean()
    return value


def test_a_copy_of_the_baseline_passes_by_the_interval(base: Path, tmp_path: Path) -> None:
    candidate = tmp_path / "copy"
    shutil.copytree(base, candidate)
    assert gate(base, candidate, "--max-drop", 0.05) == 0
    assert gate(base, candidate, "--max-drop", 0.01) == 3


def test_in_github_actions_the_step_summary_is_written(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    candidate = made(tmp_path / "new", 0.7)
    assert gate(base, candidate, "--max-drop", 0.05) == 0
    step = (tmp_path / "step.md").read_text()
    assert "### Gate: PASS" in step
    assert gate(base, candidate, "--max-drop", 0.05, "--summary", tmp_path / "own.md") == 0
    assert (tmp_path / "step.md").read_text() == step
    assert (tmp_path / "own.md").read_text() == step


def test_the_junit_file_is_of_the_schema_that_readers_share(base: Path, tmp_path: Path) -> None:
    from lxml import etree

    gate(base, made(tmp_path / "new", 0.5), "--junit", tmp_path / "junit.xml")
    schema = etree.XMLSchema(etree.fromstring(_JUNIT))
    schema.assertValid(etree.parse(tmp_path / "junit.xml"))
    suite = ElementTree.parse(tmp_path / "junit.xml").find("testsuite")
    assert suite is not None
    assert int(suite.attrib["tests"]) == len(suite.findall("testcase")) == 1 + len(TASKS)
    assert int(suite.attrib["failures"]) == len(suite.findall(".//failure")) == 1


# The common part of the schemas of Jenkins and Surefire.
_JUNIT = """<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
<xs:attributeGroup name="counts">
 <xs:attribute name="name" type="xs:string" use="required"/>
 <xs:attribute name="tests" type="xs:nonNegativeInteger" use="required"/>
 <xs:attribute name="failures" type="xs:nonNegativeInteger" use="required"/>
 <xs:attribute name="errors" type="xs:nonNegativeInteger" use="required"/>
 <xs:attribute name="skipped" type="xs:nonNegativeInteger"/>
 <xs:attribute name="time" type="xs:decimal"/>
</xs:attributeGroup>
<xs:element name="failure"><xs:complexType mixed="true">
 <xs:attribute name="message" type="xs:string"/>
 <xs:attribute name="type" type="xs:string" use="required"/></xs:complexType></xs:element>
<xs:element name="testcase"><xs:complexType><xs:sequence>
 <xs:element ref="failure" minOccurs="0"/>
 <xs:element name="system-out" type="xs:string" minOccurs="0"/></xs:sequence>
 <xs:attribute name="name" type="xs:string" use="required"/>
 <xs:attribute name="classname" type="xs:string" use="required"/>
 <xs:attribute name="time" type="xs:decimal"/></xs:complexType></xs:element>
<xs:element name="testsuite"><xs:complexType>
 <xs:sequence><xs:element ref="testcase" maxOccurs="unbounded"/></xs:sequence>
 <xs:attributeGroup ref="counts"/></xs:complexType></xs:element>
<xs:element name="testsuites"><xs:complexType>
 <xs:sequence><xs:element ref="testsuite" maxOccurs="unbounded"/></xs:sequence>
 <xs:attributeGroup ref="counts"/></xs:complexType></xs:element>
</xs:schema>"""


@pytest.mark.parametrize("name", ["<b> & \"q\" 'a'", "back`tick|bar*", "ctl\x1b[31m\x07"])
def test_a_folders_name_is_text_everywhere(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    candidate = made(tmp_path / name, 0.5)
    options = ("--junit", tmp_path / "j.xml", "--summary", tmp_path / "s.md")
    assert gate(base, candidate, *options) == 1
    failure = ElementTree.parse(tmp_path / "j.xml").find(".//failure")
    assert failure is not None
    assert failure.text is not None
    plain = re.sub("[\x07\x1b]", "\ufffd", name).replace("'", "'\"'\"'")
    assert plain in failure.text
    assert "\x1b" not in capsys.readouterr().out
    fenced = (tmp_path / "s.md").read_text().split("```sh\n")[1]
    assert "\x1b" not in fenced
    assert fenced.endswith("\n```\n\n")


def _samples(folder: Path, task: str = TASKS[0]) -> Path:
    return folder / "base" / f"samples_{task}_{DATE}.jsonl"


def _edit(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        rows = [json.loads(line) for line in _samples(folder).read_text().splitlines()]
        change(rows)
        _samples(folder).write_text("".join(json.dumps(row) + "\n" for row in rows))

    return edit


def _nan(rows: list[dict[str, Any]]) -> None:
    rows[3]["filtered_resps"][2][0] = "nan"


def _other_prompt(rows: list[dict[str, Any]]) -> None:
    for row in rows[5:]:
        row["prompt_hash"] = "0" * 64


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda folder: _samples(folder).unlink(), "run lm_eval with --log_samples"),
        (lambda folder: _samples(folder).write_text(""), "holds no documents"),
        (_edit(lambda rows: rows.append(rows[0])), "occurs twice"),
        (_edit(lambda rows: rows.pop()), "holds 199 documents"),
        (_edit(_nan), "5 finite numbers"),
        (_edit(_other_prompt), "the content or the prompt of 195 of 200 documents"),
        (_edit(lambda rows: rows[0]["doc"].update(id="other")), "is in 'baseline' only"),
        (_edit(lambda rows: rows[0]["doc"].update(group="other")), "differ in the group"),
        (lambda folder: shutil.rmtree(folder / "base"), "holds no results_"),
        (lambda folder: shutil.rmtree(folder), "no such results folder"),
    ],
)
def test_broken_folders_are_named_in_one_sentence(
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    break_it: Callable[[Path], None],
    says: str,
) -> None:
    candidate = made(tmp_path / "new", 0.7)
    break_it(candidate)
    _refused(base, candidate, tmp_path, says, capsys)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"changes": {"config/limit": 20}}, "differ in --limit (20 and None)"),
        ({"changes": {"lm_eval_version": "0.4.13"}}, "differ in lm_eval's version"),
        ({"changes": {"chat_template_sha": "1"}}, "differ in chat template"),
        ({"changes": {f"versions/{TASKS[0]}": 2.0}}, "differ in task version"),
        ({"tasks": TASKS[:2]}, f"'candidate' has no results of {TASKS[2]}"),
        ({"tasks": ALL[:4]}, f"'baseline' has no results of {ALL[3]}"),
        ({"count": 60}, "have different documents: "),
    ],
)
def test_folders_that_do_not_belong_together(
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    says: str,
) -> None:
    _refused(base, made(tmp_path / "new", 0.7, **options), tmp_path, says, capsys)


def test_the_baseline_itself_is_no_candidate(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _refused(base, base / "base", tmp_path, "are the same results", capsys)


def test_several_models_in_a_folder(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate = made(made(tmp_path / "new", 0.7), 0.7, model="other")
    _refused(base, candidate, tmp_path, "holds results of 2 models", capsys)


@pytest.mark.parametrize(("count", "size"), [(1, 1), (6, 6)])
def test_one_document_or_one_group_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, size: int
) -> None:
    folders = [
        made(tmp_path / name, 0.7, count=count, group_size=size, tasks=ALL[:1])
        for name in ("one", "two")
    ]
    _refused(*folders, tmp_path, f"has {count} document", capsys)


def test_a_metric_that_is_undefined_without_a_group(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        made(tmp_path / name, 0.7, count=2, group_size=1, tasks=ALL[:1]) for name in ("one", "two")
    ]
    assert gate(*folders, "--metric", "qwk") == 2
    assert "qwk of " in (says := capsys.readouterr().err)
    assert "use --metric acc" in says
    assert gate(*folders) == 3


def _refused(
    base: Path, candidate: Path, tmp_path: Path, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--junit", tmp_path / "j.xml", "--summary", tmp_path / "s.md")
    assert gate(base, candidate, *options) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("regreason: ")
    assert says in printed.err
    assert not (tmp_path / "j.xml").exists()
    assert not (tmp_path / "s.md").exists()


def test_what_cannot_be_written_is_said_and_nothing_is(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate, folder = made(tmp_path / "new", 0.7), tmp_path / "folder"
    folder.mkdir()
    assert gate(base, candidate, "--junit", tmp_path / "j.xml", "--summary", folder) == 2
    assert gate(base, candidate, "--junit", folder, "--summary", tmp_path / "s.md") == 2
    assert capsys.readouterr().err.count("cannot be written") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "folder", "new"]


@pytest.mark.parametrize("option", [("--alpha", "0.5"), ("--alpha", "nan"), ("--max-drop", "-1")])
def test_options_out_of_their_range(base: Path, option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        gate(base, base, *option)
    assert stopped.value.code == 2


def test_an_unknown_metric_is_refused(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(base, base, "--metric", "bleu") == 2
    assert "--metric bleu: known: acc, " in capsys.readouterr().err
