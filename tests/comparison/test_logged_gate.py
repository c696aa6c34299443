"""`regreason gate` on any tasks of lm_eval, on results that real lm_eval wrote."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.stock_tasks import STOCK_RESULTS
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import t

from regreason_plugin.cli import main

pytestmark = pytest.mark.integration

BASE = STOCK_RESULTS / "0.4.13" / "main" / "base"
TUNED = STOCK_RESULTS / "0.4.13" / "main" / "tuned"
Values = Mapping[str, Mapping[str, list[float]]]


@pytest.fixture(autouse=True)
def no_step_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    """Copies a model's results, with other values of some metrics, in the order of the hashes."""

    def copied(name: str, values: Values, source: Path = BASE) -> Path:
        folder = tmp_path / name
        shutil.copytree(source, folder)
        (results,) = folder.glob("results_*.json")
        content = json.loads(results.read_text(encoding="utf-8"))
        for task, by_metric in values.items():
            (file,) = folder.glob(f"samples_{task}_2*.jsonl")
            rows = sorted(rows_of(file), key=lambda row: row["doc_hash"])
            for metric, of_documents in by_metric.items():
                for row, value in zip(rows, of_documents, strict=True):
                    row[metric] = value
                content["results"][task][f"{metric},none"] = float(np.mean(of_documents))
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        results.write_text(json.dumps(content), encoding="utf-8")
        return folder

    return copied


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def results_of(folder: Path) -> Any:
    (file,) = folder.glob("results_*.json")
    return json.loads(file.read_text(encoding="utf-8"))


def share(right: int, count: int = 12) -> list[float]:
    return [1.0] * right + [0.0] * (count - right)


def gate(base: Path, candidate: Path, *more: object) -> int:
    names = [f"base={base}", f"new={candidate}"]
    return main(["gate", *names, "--baseline", "base", *map(str, more)])


def decided(tmp_path: Path, base: Path, candidate: Path, *more: object) -> tuple[int, Any]:
    file = tmp_path / "gate.json"
    code = gate(base, candidate, *more, "--json", file)
    return code, json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def rules(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "gate.yml"
    file.write_text(text, encoding="utf-8")
    return file


def tango(losses: int, wins: int, n: int, critical: float) -> tuple[float, float]:
    """Tango's bounds with the correction of half a document; the likelihood's maximum by search."""

    def statistic(d: float) -> float:
        def surprise(q: float) -> float:
            cells = [(losses, q), (wins, q + d), (n - losses - wins, 1 - 2 * q - d)]
            return -sum(count * np.log(max(p, 1e-300)) for count, p in cells if count)

        ends = (max(0.0, -d), (1 - d) / 2)
        q = minimize_scalar(surprise, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
        away = wins - losses - n * d
        away = np.sign(away) * max(abs(away) - 0.5, 0)
        return float(away / np.sqrt(n * (2 * q + d - d * d)))

    value = (wins - losses) / n
    low = brentq(lambda d: statistic(d) - critical, -0.99999, value - 0.5 / n - 1e-9)
    high = brentq(lambda d: statistic(d) + critical, value + 0.5 / n + 1e-9, 0.99999)
    return low, high


# --- verdicts and figures -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "max_drop", "code", "word"),
    [(11, 0.5, 0, "PASS"), (1, 0.1, 1, "FAIL"), (11, 0.1, 3, "UNDECIDED")],
)
def test_the_verdicts_by_flags_and_by_a_file(
    edited: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    right: int,
    max_drop: float,
    code: int,
    word: str,
) -> None:
    base = edited("base", {"piqa": {"acc": share(11)}})
    candidate = edited("new", {"piqa": {"acc": share(right)}})
    assert gate(base, candidate, "--tasks", "piqa", "--max-drop", max_drop) == code
    by_flags = capsys.readouterr().out
    assert by_flags.startswith(f"{word}: acc in piqa changed by {(right - 11) / 12:+.4f} ")
    file = rules(tmp_path, f"rules:\n  - tasks: piqa\n    max_drop: {max_drop}\n")
    assert gate(base, candidate, "--rules", file) == code
    assert capsys.readouterr().out == by_flags
    command = f"compare baseline={base} candidate={candidate} --baseline baseline --tasks piqa "
    assert (command in by_flags) is (code == 1)


def test_the_value_of_a_group_of_tasks_is_lm_evals(tmp_path: Path) -> None:
    _, content = decided(tmp_path, BASE, TUNED, "--tasks", "mmlu", "--metric", "acc")
    values = [content["overall"][name] for name in ("baseline", "candidate")]
    groups = [results_of(folder)["groups"]["mmlu"]["acc,none"] for folder in (BASE, TUNED)]
    assert values == pytest.approx(groups, abs=1e-12)
    assert content["overall"]["documents"] == 28
    parts = {one["key"]: one["candidate"] for one in content["parts"]}
    assert parts == {
        task: pytest.approx(of["acc,none"], abs=1e-12)
        for task, of in results_of(TUNED)["results"].items()
        if task.startswith("mmlu_") and task in results_of(TUNED)["configs"]
    }


def test_the_bounds_of_independent_documents_are_tangos(
    edited: Callable[..., Path], tmp_path: Path
) -> None:
    base = edited("base", {"piqa": {"acc": share(9)}})
    candidate = edited("new", {"piqa": {"acc": share(5)}})
    _, content = decided(tmp_path, base, candidate, "--tasks", "piqa")
    change = content["overall"]["change"]
    low, high = tango(4, 0, 12, t.isf(0.05, 11))
    assert (change["low"], change["high"]) == pytest.approx((low, high), abs=1e-5)


def test_a_fail_is_corrected_for_the_requirements_of_all_rules(
    edited: Callable[..., Path], tmp_path: Path
) -> None:
    base = edited("base", {"piqa": {"acc": share(12)}})
    candidate = edited("new", {"piqa": {"acc": share(2)}})
    text = """
    alpha: 0.1
    rules:
      - {tasks: piqa, max_drop: 0.3, min: 0.01}
      - {tasks: mmlu, metric: acc, max_drop: 0.99, per: task}
    """
    code, content = decided(tmp_path, base, candidate, "--rules", rules(tmp_path, text))
    first, second = content["rules"]
    # A change and a floor; a change over all tasks and in each of four.
    assert first["requirements"] == second["requirements"] == 2 + 5
    change = first["overall"]["change"]
    low, _ = tango(10, 0, 12, t.isf(0.1, 11))
    _, high = tango(10, 0, 12, t.isf(0.1 / 7, 11))
    assert (change["low"], change["high"]) == pytest.approx((low, high), abs=1e-5)
    # So the verdict of a rule among others can be milder than that of the rule alone.
    assert (code, first["overall"]["verdict"]) == (3, "undecided")
    code, alone = decided(
        tmp_path, base, candidate, "--tasks", "piqa", "--max-drop", 0.3, "--alpha", 0.1
    )
    assert (code, alone["requirements"]) == (1, 1)
    _, same = decided(
        tmp_path, base, candidate, "--tasks", "piqa", "--max-drop", 0.3, "--alpha", 0.1 / 7
    )
    assert same["overall"]["change"]["high"] == pytest.approx(change["high"], abs=1e-12)


def test_every_task_must_pass_where_the_rule_says_so(
    edited: Callable[..., Path], tmp_path: Path
) -> None:
    values = {task: {"acc": share(12)} for task in ("piqa", "arc_easy", "hellaswag")}
    base = edited("base", values)
    candidate = edited("new", {**values, "piqa": {"acc": share(0)}})
    rule = """
alpha: 0.2
rules:
  - tasks: [piqa, arc_easy, hellaswag]
    metric: acc
    max_drop: 0.5
"""
    code, content = decided(tmp_path, base, candidate, "--rules", rules(tmp_path, rule))
    assert code == 0
    assert content["requirements"] == 1
    file = rules(tmp_path, f"{rule}    per: task\n")
    code, content = decided(tmp_path, base, candidate, "--rules", file)
    verdicts = {one["key"]: one["verdict"] for one in content["parts"]}
    assert code == 1
    assert content["requirements"] == 4
    assert verdicts == {"arc_easy": "pass", "hellaswag": "pass", "piqa": "fail"}
    assert content["says"].startswith("FAIL: acc in piqa changed by -1.0000 ")
    # The flag says the same.
    tasks = ("--tasks", "piqa,arc_easy,hellaswag", "--metric", "acc", "--max-drop", 0.5)
    flags = (*tasks, "--alpha", 0.2, "--per", "task")
    code, by_flags = decided(tmp_path, base, candidate, *flags)
    assert (code, by_flags["parts"]) == (1, content["parts"])


@pytest.mark.parametrize(("limit", "code"), [(0.2, 0), (0.5, 3), (0.99, 1)])
def test_a_floor(tmp_path: Path, limit: float, code: int) -> None:
    flags = ("--tasks", "piqa", "--max-drop", 0.9, "--min", limit)
    found, content = decided(tmp_path, BASE, TUNED, *flags)
    level = content["overall"]["level"]
    assert (found, content["requirements"]) == (code, 2)
    assert (level["value"], level["limit"]) == (pytest.approx(8 / 12), limit)


def test_a_ceiling_for_a_metric_where_lower_is_better(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = ("--tasks", "own_choices", "--metric", "brier", "--max-drop", 1)
    code, content = decided(tmp_path, BASE, TUNED, *task, "--max", 1.5)
    assert code == 0
    assert "the candidate's brier in own_choices is " in capsys.readouterr().out
    of = [results_of(folder)["results"]["own_choices"]["brier,none"] for folder in (BASE, TUNED)]
    # A change below zero is worse.
    assert content["overall"]["change"]["value"] == pytest.approx(of[0] - of[1], abs=1e-6)
    assert decided(tmp_path, TUNED, BASE, *task, "--max", 0.1)[0] == 1
    capsys.readouterr()
    assert gate(BASE, TUNED, *task, "--min", 0.1) == 2
    assert "use max" in capsys.readouterr().err
    assert gate(BASE, TUNED, "--tasks", "piqa", "--max", 0.1) == 2
    assert "max is for metrics where lower is better" in capsys.readouterr().err
    assert gate(BASE, TUNED, "--tasks", "piqa", "--max", 0.1, "--min", 0.1) == 2
    assert "give --min or --max, not both" in capsys.readouterr().err


def test_a_filter_of_the_answers_can_be_named(tmp_path: Path) -> None:
    text = """
    rules:
      - {tasks: gsm8k, metric: "exact_match,flexible-extract", max_drop: 0.7}
      - {tasks: gsm8k, max_drop: 0.7}
    """
    code, content = decided(tmp_path, BASE, TUNED, "--rules", rules(tmp_path, text))
    assert code == 0
    flexible, first = content["rules"]
    of = results_of(TUNED)["results"]["gsm8k"]
    assert flexible["overall"]["candidate"] == pytest.approx(
        of["exact_match,flexible-extract"], abs=1e-12
    )
    assert first["metric"] == "exact_match,strict-match"
    assert first["overall"]["candidate"] == pytest.approx(of["exact_match,strict-match"], abs=1e-12)


def test_tasks_with_other_first_metrics_are_gated_by_their_scores(tmp_path: Path) -> None:
    _, content = decided(tmp_path, BASE, TUNED, "--tasks", "piqa,triviaqa", "--max-drop", 0.5)
    of = results_of(TUNED)["results"]
    expected = (of["piqa"]["acc,none"] + of["triviaqa"]["exact_match,remove_whitespace"]) / 2
    assert content["metric"] == "score"
    assert content["overall"]["candidate"] == pytest.approx(expected, abs=1e-12)


def test_documents_of_one_passage_are_one_group(tmp_path: Path) -> None:
    text = "{tasks: drop, metric: f1, max_drop: 0.9}"
    counts = []
    for group_by in ("", "group_by: ''\n"):
        file = rules(tmp_path, f"{group_by}rules:\n  - {text}\n")
        _, content = decided(tmp_path, BASE, TUNED, "--rules", file)
        counts.append(content["overall"]["groups"])
    (file,) = BASE.glob("samples_drop_*.jsonl")
    assert counts == [len({row["doc"]["passage"] for row in rows_of(file)}), 12]


# --- files --------------------------------------------------------------------------------------


def test_a_report_of_several_rules_for_programs(
    edited: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = edited("base", {"piqa": {"acc": share(12)}})
    candidate = edited("new", {"piqa": {"acc": share(0)}})
    text = """
    rules:
      - {tasks: piqa, max_drop: 0.1}
      - {tasks: mmlu, metric: acc, max_drop: 0.4, per: task}
      - {tasks: gsm8k, metric: "exact_match,strict-match", max_drop: 0.9}
    """
    junit, summary = tmp_path / "junit.xml", tmp_path / "summary.md"
    files = ("--junit", junit, "--summary", summary)
    file = rules(tmp_path, text)
    code, content = decided(tmp_path, base, candidate, "--rules", file, *files)
    printed = capsys.readouterr().out
    assert code == 1
    says = "FAIL: 3 rules: 1 shown, 1 missed, 1 undecided"
    assert printed.startswith(f"{says}\n")
    assert (content["verdict"], content["says"]) == ("fail", says)
    assert [one["verdict"] for one in content["rules"]] == ["fail", "undecided", "pass"]
    suites = ElementTree.parse(junit).getroot()
    assert [suite.get("name") for suite in suites] == [
        f"regreason gate {tasks}" for tasks in ("piqa", "mmlu", "gsm8k")
    ]
    for node in (suites, *suites):
        assert int(node.get("tests", "")) == len(node.findall(".//testcase"))
        assert int(node.get("failures", "")) == len(node.findall(".//failure"))
    kinds = [[one.get("type") for one in suite.findall(".//failure")] for suite in suites]
    assert kinds == [["worse"], ["undecided"] * 3, []]
    markdown = summary.read_text(encoding="utf-8")
    assert markdown.startswith("### Gate: FAIL\n\n3 rules: 1 shown, 1 missed, 1 undecided.\n")
    assert markdown.count("| **all** |") == 3
    assert "\n**UNDECIDED: acc in mmlu\\_" in markdown or "\n**UNDECIDED: acc in mmlu_" in markdown


HOSTILE = "x<img src=x onerror=alert(1)>|`*_[a](b)\x1b[31m\u202e"


def test_a_hostile_name_of_a_task_stays_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for source in (BASE, TUNED):
        folder = tmp_path / source.name
        folder.mkdir()
        (results,) = source.glob("results_*.json")
        content = json.loads(results.read_text(encoding="utf-8"))
        for part in ("results", "configs", "n-samples", "higher_is_better", "task_hashes"):
            content[part] = {HOSTILE: content[part]["piqa"]}
        (folder / results.name).write_text(json.dumps(content), encoding="utf-8")
        (samples,) = source.glob("samples_piqa_*.jsonl")
        shutil.copy(samples, folder / samples.name.replace("piqa", HOSTILE))
        folders.append(folder)
    junit, summary = tmp_path / "junit.xml", tmp_path / "summary.md"
    files = ("--junit", junit, "--summary", summary)
    code, content = decided(tmp_path, *folders, "--max-drop", 0.9, *files)
    assert code == 0
    assert content["parts"][0]["key"] == HOSTILE
    markdown, printed = summary.read_text(encoding="utf-8"), capsys.readouterr().out
    for text in (markdown, printed, junit.read_text(encoding="utf-8")):
        assert "\x1b" not in text
        assert "\u202e" not in text
    # (A backslash makes the next character text.)
    unescaped = re.sub(r"\\.", "", markdown)
    assert not {*"<>`[]"} & {*unescaped}
    row = next(line for line in unescaped.splitlines() if "onerror" in line and line[0] == "|")
    assert row.count("|") == 10
    assert len(ElementTree.parse(junit).findall(".//testcase")) == 2


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--tasks", "nothing*"), "holds no results of the tasks nothing*"),
        (("--tasks", "cola"), "'mcc' of cola is no mean over documents; name one that can be"),
        (("--tasks", "wmt16*", "--metric", "bleu"), "'bleu' of wmt16-de-en is no mean over doc"),
        (("--tasks", "piqa", "--metric", "f1"), "'f1' of piqa is not one of its metrics"),
        (("--tasks", "piqa,cola"), "first metrics cannot be averaged, because .*cola: mcc; name"),
        (("--tasks", "piqa", "--per", "class"), "can be gated per task only"),
        (("--tasks", "piqa", "--group-by", "nowhere"), "nowhere"),
    ],
)
def test_wrong_flags_are_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], says: str
) -> None:
    junit = tmp_path / "junit.xml"
    assert gate(BASE, TUNED, *flags, "--junit", junit) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in says.split(".*"))
    assert error.count("\n") == 1
    assert not junit.exists()


def test_a_task_without_a_mean_does_not_hinder_the_gate_of_another(
    edited: Callable[..., Path], tmp_path: Path
) -> None:
    # The first metrics of both tasks are corpus metrics, which no mean over tasks can hold.
    flags = ("--tasks", "lambada_openai,wikitext", "--metric", "acc")
    assert gate(BASE, TUNED, *flags) == 2
    flags = ("--tasks", "lambada_openai", "--metric", "acc", "--max-drop", "0.5")
    assert gate(BASE, TUNED, *flags) == 0


def test_a_document_without_the_metric_is_refused(
    edited: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        edited("base", {"piqa": {"acc": share(6)}}),
        edited("new", {"piqa": {"acc": share(6)}}),
    ]
    for folder in folders:
        (file,) = folder.glob("samples_piqa_*.jsonl")
        rows = rows_of(file)
        # Half of the documents are right, so without two of them the mean is the same.
        for row in (rows[0], rows[-1]):
            del row["acc"]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert gate(*folders, "--tasks", "piqa") == 2
    assert "2 of 12 documents of piqa have no 'acc'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("rules:\n  - tasks: piqa\n    max_dorp: 0.1\n", 3, "max_dorp"),
        ("rules:\n  - tasks: piqa\n    max_drop: -0.1\n", 3, "rules.0.max_drop"),
        ("rules:\n  - tasks: piqa\n    per: class\n", 3, "rules.0.per"),
        ("rules:\n  - tasks: piqa\n    min: much\n", 3, "rules.0.min"),
        ("rules:\n  - tasks: piqa\n    min: 0.1\n    max: 0.2\n", 2, "give min or max, not both"),
        ("rules:\n  - metric: acc\n", 2, "tasks"),
        ("rules:\n  - tasks: []\n", 2, "tasks"),
        ("rules: []\n", 1, "rules"),
        ("alpha: 0.7\nrules:\n  - tasks: piqa\n", 1, "alpha"),
        ("looks: 3\nrules:\n  - tasks: piqa\n", 1, "looks"),
        ("- tasks: piqa\n", None, "it needs the key 'rules'"),
        ("rules:\n  - tasks: [piqa\n", None, "gate.yml"),
        ("rules:\n  - tasks: piqa\n  - tasks: nothing\n", None, "no task that both models have is"),
        ("rules:\n  - tasks: piqa\n    metric: f1\n", None, "'f1' of piqa is not one of its"),
    ],
)
def test_a_wrong_file_of_rules_is_refused_with_line_and_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, line: int | None, says: str
) -> None:
    file, junit = rules(tmp_path, text), tmp_path / "junit.xml"
    assert gate(BASE, TUNED, "--rules", file, "--junit", junit) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    if line is not None:
        assert f"{file}, line {line}, field " in error
    assert not junit.exists()


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--metric", "acc"),
        ("--max-drop", "0.2"),
        ("--min", "0.1"),
        ("--max", "0.1"),
        ("--per", "task"),
        ("--alpha", "0.1"),
        ("--tasks", "piqa"),
        ("--group-by", "passage"),
        ("--looks", "3"),
        ("--look", "1"),
    ],
)
def test_flags_beside_a_file_of_rules_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    file = rules(tmp_path, "rules:\n  - tasks: piqa\n")
    assert gate(BASE, TUNED, "--rules", file, flag, value) == 2
    assert f"{flag} does not go with --rules; write it into {file}" in capsys.readouterr().err
