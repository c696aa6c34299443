"""The page of a comparison of any tasks of lm_eval, in a real browser; see `conftest.py`."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.page_scripts import FAINT, UNFOLD, WIDE, text_of
from helpers.stock_tasks import STOCK_RESULTS
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from regreason_plugin.comparison.arms import read_arms
from regreason_plugin.comparison.compare import Compared, compare

pytestmark = pytest.mark.integration

SOURCE = STOCK_RESULTS / "0.4.13" / "main"
SECTIONS = [
    "Verdict",
    "Key figures",
    "Differences by task",
    "Differences with their intervals",
    "Agreement",
    "Reliability",
    "Confusion",
    "Documents on which the arms disagree",
    "All scores",
    "What was run",
]


def compared(folder: Path, *tasks: str, group_by: str | None = None) -> Compared:
    arguments = [f"{arm}={folder / arm}" for arm in ("base", "tuned")]
    return compare(read_arms(arguments, list(tasks) or None), "base", group_by=group_by)


@pytest.fixture(scope="module")
def everything() -> Compared:
    return compared(SOURCE)


@pytest.fixture
def shown(show: Any) -> Callable[..., Any]:
    def opened(one: Compared, **options: Any) -> Any:
        return show(one.comparison, one.disagreements, one.disagreeing, **options)

    return opened


def samples_of(arm: str, task: str, folder: Path = SOURCE) -> list[dict[str, Any]]:
    (file,) = (folder / arm).glob(f"samples_{task}_2*.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def count_of(chrome: Any) -> int:
    return int(chrome.find_element(By.ID, "filter-count").text.split(" of ")[0])


def choose(chrome: Any, task: str = "all", kind: str = "") -> list[str]:
    """The shown documents' numbers after a choice in the filters."""
    Select(chrome.find_element(By.ID, "filter-setting")).select_by_visible_text(task)
    Select(chrome.find_element(By.ID, "filter-kind")).select_by_value(kind)
    return text_of(chrome, "#conversations-table .id")


def opened_row(chrome: Any, task: str) -> Any:
    choose(chrome, task)
    body = chrome.find_element(By.CSS_SELECTOR, "#conversations-table tbody")
    chrome.execute_script("arguments[0].querySelector('details').open = true", body)
    return body


def content(node: Any, selector: str) -> list[str]:
    return [
        one.get_property("textContent") for one in node.find_elements(By.CSS_SELECTOR, selector)
    ]


# --- sections -----------------------------------------------------------------------------------


def test_sections_that_apply_and_no_other(shown: Any, everything: Compared) -> None:
    chrome = shown(everything)
    assert text_of(chrome, "h2") == SECTIONS
    # Every link of the navigation leads to a section, and every section has a link.
    links = text_of(chrome, "nav a")
    assert len(links) == len(SECTIONS)
    targets = "return [...document.querySelectorAll('nav a')].map((a) => a.hash.slice(1))"
    ids = "return [...document.querySelectorAll('main > section')].map((s) => s.id)"
    assert chrome.execute_script(targets) == chrome.execute_script(ids)
    # (The documents tell of seeds.)
    chrome.execute_script("document.getElementById('conversations-table').remove()")
    chrome.execute_script(UNFOLD)
    text = chrome.find_element(By.TAG_NAME, "body").text
    # Nothing was trained here, and tasks are no settings.
    assert not re.search(r"\b(settings?|seeds?|trained|axis|axes|conversations?)\b", text)
    assert not re.search(r"\b(None|nan|undefined)\b", text)


def test_written_answers_alone_have_no_calibration(shown: Any) -> None:
    chrome = shown(compared(SOURCE, "gsm8k", "triviaqa"))
    assert text_of(chrome, "h2") == [
        one for one in SECTIONS if one not in ("Reliability", "Confusion")
    ]
    assert "#calibration" not in chrome.page_source
    assert "#confusion" not in chrome.page_source
    assert text_of(chrome, "#conversations-table svg") == []


def test_a_corpus_metric_alone_has_neither_agreement_nor_documents(shown: Any) -> None:
    chrome = shown(compared(SOURCE, "wikitext"))
    assert "No task has a main metric that is right or wrong" in text_of(chrome, "#agreement p")[0]
    assert text_of(chrome, "#conversations table") == []
    assert "such as BLEU, have no values of single" in text_of(chrome, "#conversations p")[0]


# --- figures ------------------------------------------------------------------------------------


def test_agreement_is_counted_by_document(shown: Any, everything: Compared) -> None:
    chrome = shown(everything)
    rows = """return [...document.querySelectorAll("#agreement tbody tr")].map(
      (row) => [...row.children].map((cell) => cell.textContent))"""
    by_task = {row[0]: [int(cell) for cell in row[2:]] for row in chrome.execute_script(rows)}
    metrics = {"piqa": "acc", "triviaqa": "exact_match", "own_class": "greedy"}
    for task, metric in metrics.items():
        right = {
            arm: {row["doc_hash"]: bool(row[metric]) for row in samples_of(arm, task)}
            for arm in ("base", "tuned")
        }
        pairs = [(right["base"][one], right["tuned"][one]) for one in right["base"]]
        expected = [(True, True), (True, False), (False, True), (False, False)]
        assert by_task[task] == [pairs.count(one) for one in expected]
    # Means of other values than 0 and 1, and corpus metrics, have no such counts.
    assert not {"truthfulqa_mc2", "cola", "wikitext"} & {*by_task}


def test_of_an_error_zero_is_right(tmp_path: Path) -> None:
    folder = tmp_path / "errors"
    shutil.copytree(SOURCE, folder)
    for file in folder.glob("*/results_*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        content["higher_is_better"]["triviaqa"] = {"exact_match": False}
        file.write_text(json.dumps(content), encoding="utf-8")
    as_error, as_score = compared(folder, "triviaqa"), compared(SOURCE, "triviaqa")
    turned, plain = (one.comparison.agreement["tuned"]["triviaqa"] for one in (as_error, as_score))
    assert (turned.both_right, turned.only_arm) == (plain.both_wrong, plain.only_baseline)
    right = {one.id: one.right for one in as_score.disagreements}
    for one in as_error.disagreements:
        assert one.right == {arm: not value for arm, value in right[one.id].items()}


def test_each_task_has_its_own_metrics(shown: Any, everything: Compared) -> None:
    chrome = shown(everything)
    rows = """return [...document.querySelectorAll("#scores details")].map((fold) =>
      [...fold.querySelectorAll("tbody")].map((body) => [
        body.querySelector("[scope=rowgroup] span").textContent,
        [...body.querySelectorAll("tr:has(td)")].map((row) => [
          row.querySelector("th").textContent, row.querySelector(".value").textContent])]))"""
    scores, tests = (dict(fold) for fold in chrome.execute_script(rows))
    assert [*scores] == [*tests] == [one.task for one in everything.comparison.settings]
    for task, expected in {
        "cola": ["mcc", "acc"],
        "gsm8k": ["exact_match,strict-match", "exact_match,flexible-extract"],
        "wikitext": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
        "own_class": ["greedy", "surprise"],
    }.items():
        assert [name for name, _ in scores[task]][: len(expected)] == expected
        assert [name for name, _ in tests[task]][: len(expected)] == expected
    # F1 by label needs labels: choices that all documents share.
    assert "macro-F1" in dict(scores["boolq"])
    assert "macro-F1" not in dict(scores["arc_easy"])
    (file,) = (SOURCE / "base").glob("results_*.json")
    of_base = json.loads(file.read_text(encoding="utf-8"))["results"]
    for name, value in scores["wikitext"]:
        expected = of_base["wikitext"][f"{name},none"]
        assert float(value.replace("\N{MINUS SIGN}", "-")) == pytest.approx(expected, abs=5.1e-4)
    # The main metric of a task of the mean has a corrected p; the other metrics have none. (The
    # primary test does not reject here, so no figure makes a claim.)
    cells = """return [...document.querySelectorAll("#scores details:nth-of-type(2) tbody")].map(
      (body) => [...body.querySelectorAll("tr:has(td)")].map((row) => [
        row.querySelector(".finding").textContent, row.cells[7].textContent]))"""
    for setting, rows_of_task in zip(
        everything.comparison.settings, chrome.execute_script(cells), strict=True
    ):
        assert {finding for finding, _ in rows_of_task} == {"exploratory"}
        corrected = [p != "\N{EN DASH}" for _, p in rows_of_task]
        assert corrected == [setting.pooled, *[False] * (len(corrected) - 1)]


def test_tasks_stand_below_their_group(shown: Any, everything: Compared) -> None:
    chrome = shown(everything)
    heads = """return [...document.querySelectorAll(".heat tbody:has([scope=rowgroup])")].map(
      (body) => [...body.querySelectorAll("th")].map((head) => head.textContent))"""
    assert chrome.execute_script(heads) == [
        [
            "mmlu",
            "mmlu_astronomy",
            "mmlu_college_physics",
            "mmlu_high_school_geography",
            "mmlu_philosophy",
        ]
    ]


# --- documents ----------------------------------------------------------------------------------


def test_a_document_shows_prompt_target_and_both_answers(shown: Any, everything: Compared) -> None:
    chrome = shown(everything)
    assert count_of(chrome) == everything.disagreeing
    for task, metric in (
        ("triviaqa", "exact_match"),
        ("gsm8k_cot_self_consistency", "exact_match"),
    ):
        body = opened_row(chrome, task)
        (id_,) = content(body, ".id")
        rows = {
            arm: next(row for row in samples_of(arm, task) if str(row["doc_id"]) == id_)
            for arm in ("base", "tuned")
        }
        prompt = rows["base"]["arguments"]["gen_args_0"]["arg_0"]
        assert content(body, ".prompt") == [prompt]
        # A prompt may begin with examples, so its end stands above the fold.
        assert content(body, "summary") == [prompt[-160:]]
        assert content(body, ".label") == content(body, ".rated") == [rows["base"]["target"]]
        answers = [row["filtered_resps"][0] for row in rows.values()]
        assert content(body, ".chosen") == content(body, ".answered") == answers
        right = ["right" if row[metric] else "wrong" for row in rows.values()]
        cells = body.find_elements(By.CSS_SELECTOR, ".answer")
        assert [cell.get_attribute("class").split()[1] for cell in cells] == right
        assert content(body, "svg") == []
    body = opened_row(chrome, "arc_easy")
    assert [
        len(cell.find_elements(By.TAG_NAME, "rect"))
        for cell in body.find_elements(By.CSS_SELECTOR, ".answer")
    ] == [4, 4]


def test_documents_can_be_searched_and_chosen(shown: Any, everything: Compared) -> None:
    chrome = shown(everything)
    right = {
        arm: {str(row["doc_id"]): row["acc"] == 1 for row in samples_of(arm, "boolq")}
        for arm in ("base", "tuned")
    }
    for kind, value in (("right", True), ("wrong", False)):
        expected = {
            one
            for one, of_tuned in right["tuned"].items()
            if of_tuned is value and right["base"][one] is not value
        }
        assert expected
        assert {*choose(chrome, "boolq", kind)} == expected
    choose(chrome)
    # Words of a prompt, of an answer, and of nothing.
    chrome.find_element(By.ID, "filter-text").send_keys("DOES THE HERON EAT SEEDS")
    WebDriverWait(chrome, 5).until(lambda c: count_of(c) == 1)
    assert text_of(chrome, "#conversations-table .where") == ["boolq"]
    chrome.find_element(By.ID, "filter-text").send_keys(" nowhere")
    WebDriverWait(chrome, 5).until(lambda c: count_of(c) == 0)


def test_the_script_shows_the_documents_as_the_page_does(
    shown: Any, everything: Compared, tmp_path: Path
) -> None:
    chrome = shown(everything)
    script = """
    const still = new DOMParser().parseFromString(arguments[0], "text/html");
    const rows = (root) => [...root.querySelectorAll("#conversations-table tbody")].map(
      (body) => body.outerHTML.replace(/>\\s+</g, "><"));
    return [rows(still), rows(document)];"""
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    still, live = chrome.execute_script(script, text)
    assert len(still) == 50
    assert still == live


# --- text from outside --------------------------------------------------------------------------

# (The name of a task is part of the name of a file.)
NAME = "<script>alert(1)<img src=x onerror=alert(2)>\x1b[31m\u202e"
TAGS = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
BAD = (
    f"{TAGS}"
    "<!-- ]]> &amp; \u0000\u0007\u001b[31m \u202e\u2066right\u2069 \u2028 `code` {{ 7 * 7 }} "
)
LONG = "long" * 2_200


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Results in which every text of a document, and every name of a task or group, is hostile."""
    for arm in ("base", "tuned"):
        folder = tmp_path / "hostile" / arm
        folder.mkdir(parents=True)
        (results,) = (SOURCE / arm).glob("results_*.json")
        old = json.loads(results.read_text(encoding="utf-8"))
        names = {task: f"{NAME}{task}" for task in ("boolq", "triviaqa")}
        for part in ("results", "configs", "n-samples", "n-shot", "versions", "higher_is_better"):
            old[part] = {names[task]: old[part][task] for task in names}
        old["task_hashes"] = {}
        old["group_subtasks"] = {f"{BAD}group": [*names.values()]}
        (folder / results.name).write_text(json.dumps(old), encoding="utf-8")
        for task, name in names.items():
            (samples,) = (SOURCE / arm).glob(f"samples_{task}_2*.jsonl")
            rows = samples_of(arm, task)
            for row in rows:
                for request in row["arguments"].values():
                    request["arg_0"] = f"{BAD}{LONG}\ud800{request['arg_0']}"
                    if task == "boolq":
                        request["arg_1"] = f"{BAD}\udfff{request['arg_1'].strip()}"
                if task == "triviaqa":
                    row["target"] = f"{BAD}{LONG}{row['target']}"
                    row["filtered_resps"] = [f"{LONG}{BAD}\ud800{row['filtered_resps'][0]}"]
                if "passage" in row["doc"]:
                    row["doc"]["passage"] += f"\ud800{BAD}"
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / samples.name.replace(task, name)).write_text(text, encoding="utf-8")
    return tmp_path / "hostile"


@pytest.mark.parametrize("width", [360, 1280])
def test_hostile_text_stays_text(shown: Any, hostile: Path, width: int) -> None:
    one = compared(hostile)
    assert len(one.disagreements) == one.disagreeing > 10
    chrome = shown(one, width=width)
    chrome.execute_script(UNFOLD)
    count = "return document.querySelectorAll(arguments[0]).length"
    assert chrome.execute_script(count, "script") == 2
    assert chrome.execute_script(count, "img, iframe, object, embed, textarea, base") == 0
    assert chrome.execute_script(count, "a:not([href^='#']), [onerror], [onload], [onclick]") == 0
    wide, room = chrome.execute_script(WIDE)
    assert width - 20 <= wide == room <= width
    for selector in (".prompt", ".label", ".chosen", ".rated", ".answered", ".confusion th"):
        texts = [text for text in text_of(chrome, selector) if text != "right label"]
        assert texts
        assert all(TAGS in text or text in "12" for text in texts), selector
    for selector in (".where", "#agreement th[scope=row]", ".heat tbody th[scope=row]"):
        assert {*text_of(chrome, selector)} == {f"{NAME}boolq", f"{NAME}triviaqa"}
    assert TAGS in text_of(chrome, ".heat th[scope=rowgroup]")[0]
    # A cell shows the beginning of an answer; the unfolded part shows all of it.
    heights = """return [...document.querySelectorAll(".chosen, .clipped .label")].map(
      (one) => one.getBoundingClientRect().height)"""
    assert max(chrome.execute_script(heights)) < 90
    assert all(LONG in text for text in text_of(chrome, ".prompt"))
    assert chrome.execute_script("return document.title").startswith("Compared with base")


# --- how it looks -------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_are_readable(shown: Any, everything: Compared, theme: str) -> None:
    chrome = shown(everything, prefers_color_scheme=theme)
    chrome.execute_script(UNFOLD)
    seen, faint = chrome.execute_script(FAINT)
    assert seen > 1500
    assert faint == []


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(shown: Any, everything: Compared, width: int) -> None:
    chrome = shown(everything, width=width)
    chrome.execute_script(UNFOLD)
    wide, room = chrome.execute_script(WIDE)
    assert width - 20 <= wide == room <= width


def test_a_very_long_prompt_is_shortened_in_the_middle(tmp_path: Path) -> None:
    folder = tmp_path / "long"
    shutil.copytree(SOURCE, folder)
    for arm in ("base", "tuned"):
        (file,) = (folder / arm).glob("samples_triviaqa_2*.jsonl")
        rows = samples_of(arm, "triviaqa")
        for row in rows:
            row["arguments"]["gen_args_0"]["arg_0"] = f"first {'x' * 1_000_000} last"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    one = compared(folder, "triviaqa").disagreements[0]
    assert one.prompt.startswith("first x")
    assert one.prompt.endswith("x last")
    assert "\n[990,011 characters are left out]\n" in one.prompt
    assert len(one.prompt) < 10_100
