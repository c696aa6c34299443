"""The page in a real browser, which must log no errors and request no other resource."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.comparison_example import ARMS, HOSTILE, disagreements, example
from helpers.page_scripts import FAINT, UNFOLD, WIDE, text_of
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from regreason_plugin.comparison import comparison as form
from regreason_plugin.comparison.disagreements import Disagreement
from regreason_plugin.comparison.verdict import answers
from regreason_plugin.metrics.metric_names import METRICS, TABLE_METRICS
from regreason_plugin.render.page import write_page

pytestmark = pytest.mark.integration

EVERYONE = ["label_only", *ARMS]
# By finding: the mark behind a difference in a heat map.
SIGNS = {
    "higher": "*",
    "lower": "*",
    "higher and same": "*≈",
    "same": "≈",
    "unclear": None,
    None: "°",
}
SECTIONS = [
    "Verdict",
    "Key figures",
    "Differences by setting",
    "Differences with their intervals",
    "Reliability",
    "Confusion",
    "Entropy by layer",
    "Learning curves",
    "Train rows and test rows",
    "Conversations on which the arms disagree",
    "All scores",
    "What was run",
]


def _number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


# --- what it says -------------------------------------------------------------------------


def test_the_verdict_comes_first_and_the_rest_in_order(show: Any) -> None:
    comparison = example()
    chrome = show(comparison, disagreements(3))
    assert text_of(chrome, "h2") == SECTIONS
    assert text_of(chrome, "#verdict h3") == [a.question for a in comparison.answers]
    assert text_of(chrome, "#verdict .short") == [a.short for a in comparison.answers]
    said = [sentence for answer in comparison.answers for sentence in answer.sentences]
    assert text_of(chrome, "#verdict article p:not(.short)") == [s.replace("`", "") for s in said]
    assert text_of(chrome, "#verdict .notes p") == comparison.notes
    assert "GENERATED data" in text_of(chrome, ".facts li")
    # The verdict fits into the first screen.
    lowest = chrome.execute_script(
        "return document.querySelector('.answers').getBoundingClientRect().bottom"
    )
    assert lowest < 800


def test_the_primary_question_is_the_first_and_the_largest(show: Any) -> None:
    one = example()
    comparison = one.model_copy(update={"answers": answers(one)})
    for width, most in ((1280, 500), (390, 800)):
        chrome = show(comparison, disagreements(3), width=width)
        first = chrome.find_element(By.CSS_SELECTOR, "#verdict article")
        assert first.get_attribute("class") == "primary better"
        assert "is the accuracy of explanation different from that of label_only?" in first.text
        assert "Higher: +0.034" in first.text
        assert "123 other tests stand behind this page" in first.text
        short = "return document.querySelector('.primary .short').getBoundingClientRect().bottom"
        assert chrome.execute_script(short) < most
        sizes = """return [...document.querySelectorAll(arguments[0])].map(
          (node) => parseFloat(getComputedStyle(node).fontSize))"""
        (largest,) = chrome.execute_script(sizes, ".primary .short")
        assert max(chrome.execute_script(sizes, "main *:not(svg *)")) == largest


def _with_findings(comparison: form.Comparison) -> form.Comparison:
    """A comparison with every kind of finding, independent of intervals; kappa is exploratory."""
    wanted: dict[tuple[str, int], form.Finding | None] = {
        ("explanation", 0): "higher and same",
        ("shuffled", 3): "same",
        ("filler", 17): "unclear",
        ("filler", 16): None,
    }
    differences = {arm: dict(by) for arm, by in comparison.differences.items()}
    for (arm, place), finding in wanted.items():
        task = comparison.settings[place].task
        old = differences[arm][task]
        changes = {"value": 0.04, "low": 0.02, "high": 0.06, "finding": finding}
        differences[arm][task] = {n: d.model_copy(update=changes) for n, d in old.items()}
    pooled = {arm: dict(by) for arm, by in comparison.pooled.items()}
    exploratory = {"finding": None}
    for by_metric in (*(by for of in differences.values() for by in of.values()), *pooled.values()):
        by_metric["qwk"] = by_metric["qwk"].model_copy(update=exploratory)
    return comparison.model_copy(update={"differences": differences, "pooled": pooled})


def test_heat_maps_hold_the_numbers_marks_and_colours_of_the_comparison(show: Any) -> None:
    comparison = _with_findings(example())
    chrome = show(comparison)
    script = """return [...document.querySelectorAll("[data-metric]")].map((panel) => [
      panel.dataset.metric,
      [...panel.querySelectorAll("tr:has(td)")].map((row) => [...row.querySelectorAll("td")].map(
        (cell) => [cell.firstChild.data, cell.className,
          cell.querySelector("b")?.textContent]))])"""
    maps = dict(chrome.execute_script(script))
    assert list(maps) == [name for name in TABLE_METRICS if name in comparison.metrics]
    for name, rows in maps.items():
        expected = [
            [comparison.differences[arm][s.task][name] for arm in ARMS] for s in comparison.settings
        ] + [[comparison.pooled[arm][name] for arm in ARMS]]
        assert len(rows) == len(expected)
        flip = -1 if METRICS[name].better == "lower" else 1
        for row, differences in zip(rows, expected, strict=True):
            for (text, shade, sign), d in zip(row, differences, strict=True):
                assert _number(text) == pytest.approx(d.value, abs=0.000501)
                # (If all figures are exploratory, the page says so once, without marks.)
                assert sign == (SIGNS[d.finding] if name != "qwk" else None)
                found = d.finding not in (None, "same", "unclear")
                side = {"p": 1, "n": -1, "z": 0, "s": 0}[shade[0]]
                assert side in ((0, 1 if d.value * flip > 0 else -1) if found else (0,))
                assert (shade == "same") is (d.finding == "same")
    signs = {sign for row in maps["acc"] for _, _, sign in row}
    assert signs == {*SIGNS.values()}
    panels = "return [...document.querySelectorAll('[data-metric]')].map((n) => n.textContent)"
    said = ["Exploratory: these figures" in text for text in chrome.execute_script(panels)]
    assert said == [name == "qwk" for name in maps]


def test_key_figures(show: Any) -> None:
    comparison = example()
    chrome = show(comparison)
    rows = {
        row.find_element(By.TAG_NAME, "th").text: row.text
        for row in chrome.find_elements(By.CSS_SELECTOR, ".figures tbody tr")
    }
    assert list(rows) == EVERYONE
    assert "baseline" in rows["label_only"]
    for arm in ARMS:
        d = comparison.pooled[arm]["acc"]
        text = rows[arm].replace("\N{MINUS SIGN}", "-")
        assert f"{d.value:+.3f}" in text
        assert f"{d.low:+.3f} to {d.high:+.3f}" in text
        assert "12 of 18" in text
        assert d.finding in text or "not enough to tell" in text or "within ±0.010" in text
        assert "900 groups" in text
        assert "no number of seeds" in text
    assert "by definition" in rows["explanation"]
    assert "0.20 to 1.30" in rows["shuffled"]
    assert "unbounded: 0.20 or less, or 1.30 or more" in rows["bag_of_words"]
    assert "unbounded: any share is possible" in rows["filler"]


def test_reliability_stands_beside_what_a_calibrated_model_shows(show: Any) -> None:
    comparison = example()
    ece = comparison.pooled_scores["shuffled"]["ece"].model_copy(update={"if_calibrated": 0.0123})
    of_arm = comparison.pooled_scores["shuffled"] | {"ece": ece}
    scores = comparison.pooled_scores | {"shuffled": of_arm}
    chrome = show(comparison.model_copy(update={"pooled_scores": scores}))
    captions = [" ".join(text.split()) for text in text_of(chrome, "#calibration figcaption")]
    assert captions == [
        f"{arm} ECE {scores[arm]['ece'].value:.3f}{' (0.012 if calibrated)' * (arm == 'shuffled')}"
        for arm in EVERYONE
    ]
    legend = text_of(chrome, "#calibration .grid > svg text")
    assert "range of a calibrated model" in legend
    # Each arm's band has the colour of its line.
    drawn = chrome.execute_script(
        """return [...document.querySelectorAll("#calibration figure svg")].map((svg) => {
          const line = svg.querySelector("[stroke-width='1.6']");
          const shades = [...svg.querySelectorAll("[fill-opacity='0.25']")];
          return [shades.length > 0, shades.every(
            (one) => getComputedStyle(one).fill === getComputedStyle(line).stroke)];
        })"""
    )
    assert drawn == [[True, True]] * len(EVERYONE)


@pytest.mark.parametrize("arms", [["explanation"], [f"arm{n}" for n in range(7)]])
def test_one_setting_and_one_seed_and_nothing_that_is_known(show: Any, arms: list[str]) -> None:
    whole = example(arms, seeds=1)
    (only, *_) = whole.settings
    nothing = form.Difference(value=None)
    comparison = whole.model_copy(
        update={
            "settings": [only],
            "differences": {
                arm: {only.task: dict.fromkeys(whole.metrics, nothing)} for arm in arms
            },
            "pooled": {arm: dict.fromkeys(whole.metrics, nothing) for arm in arms},
            "wins": {},
            "needed": {},
            "gap": {},
            "gap_of": None,
            "generalisation": {},
            "layers": {},
            "reliability": {},
            "confusion": {},
            "curves": {},
            "answers": whole.answers[:1],
            "notes": [],
        }
    )
    chrome = show(comparison, disagreeing=0)
    assert text_of(chrome, "h2") == [one for one in SECTIONS if one != "Train rows and test rows"]
    assert "#generalisation" not in chrome.page_source
    assert set(text_of(chrome, ".heat td")) == {"\N{EN DASH}"}
    assert "probe=all" in text_of(chrome, "#layers p")[0]
    assert "same label" in text_of(chrome, "#conversations p")[0]
    for section in ("calibration", "confusion", "learning"):
        assert len(text_of(chrome, f"#{section} p")) == 1
        assert text_of(chrome, f"#{section} figure, #{section} table") == []
    shown = chrome.find_element(By.TAG_NAME, "body").text
    assert "None" not in shown
    assert "nan" not in shown.lower().split()
    assert "1 of 18 settings" in shown


# --- conversations ------------------------------------------------------------------------


def _count(chrome: webdriver.Chrome) -> int:
    text = chrome.find_element(By.ID, "filter-count").text
    return int(text.split(" of ")[0].replace(",", ""))


def _choose(
    chrome: webdriver.Chrome, setting: str = "all", arm: str = "any", kind: str = ""
) -> None:
    Select(chrome.find_element(By.ID, "filter-setting")).select_by_visible_text(setting)
    Select(chrome.find_element(By.ID, "filter-arm")).select_by_visible_text(arm)
    Select(chrome.find_element(By.ID, "filter-kind")).select_by_value(kind)


def _kind(row: Disagreement, arms: list[str], kind: str) -> bool:
    base = row.predictions["label_only"] == row.label
    changed = any((row.predictions[arm] == row.label) is not base for arm in arms)
    return changed and base is (kind == "wrong")


def test_conversations_can_be_searched_and_chosen(show: Any) -> None:
    rows = [
        replace(row, prompt=row.prompt + (" Kühlschrank" if n % 9 == 0 else ""))
        for n, row in enumerate(disagreements(130))
    ]
    chrome = show(example(), rows)
    ids = "#conversations-table .id"
    assert "130 of 31,337" in text_of(chrome, "#conversations .lead")[0]
    assert (_count(chrome), len(text_of(chrome, ids))) == (130, 50)
    chrome.find_element(By.ID, "next").click()
    chrome.find_element(By.ID, "next").click()
    assert text_of(chrome, ids) == [row.id for row in rows[100:]]
    assert not chrome.find_element(By.ID, "next").is_enabled()

    for kind in ("right", "wrong"):
        for arm, arms in [("any", ARMS), ("filler", ["filler"])]:
            _choose(chrome, arm=arm, kind=kind)
            expected = [row.id for row in rows if _kind(row, arms, kind)]
            assert 0 < len(expected) < 130
            assert (_count(chrome), text_of(chrome, ids)) == (len(expected), expected[:50])
    _choose(chrome, setting="CoQA, questions on a story: on-topic")
    expected = [row.id for row in rows if row.task == "regreason_coqa_on_topic"]
    assert text_of(chrome, ids) == expected
    assert not chrome.find_element(By.ID, "pager").is_displayed()
    _choose(chrome)
    chrome.find_element(By.ID, "filter-text").send_keys("KÜHLSCHRANK")
    WebDriverWait(chrome, 5).until(lambda c: _count(c) == 15)
    assert text_of(chrome, ids) == [row.id for row in rows[::9]]
    chrome.find_element(By.ID, "filter-text").send_keys(" nowhere")
    WebDriverWait(chrome, 5).until(lambda c: _count(c) == 0)
    assert text_of(chrome, ids) == []


def test_a_conversation_shows_what_the_arms_made_of_it(show: Any) -> None:
    rows = disagreements(len(HOSTILE))
    chrome = show(example(), rows)
    bodies = chrome.find_elements(By.CSS_SELECTOR, "#conversations-table tbody")
    for row, body in zip(rows, bodies, strict=True):
        prompt = body.find_element(By.CLASS_NAME, "prompt")
        assert not prompt.is_displayed()
        body.find_element(By.TAG_NAME, "summary").click()
        assert prompt.is_displayed()
        assert prompt.get_property("textContent") == row.prompt
        explanation = body.find_element(By.CLASS_NAME, "explanation")
        assert explanation.get_property("textContent") == row.explanation
        assert body.find_element(By.CLASS_NAME, "label").text == str(row.label)
        for arm, cell in zip(EVERYONE, body.find_elements(By.CLASS_NAME, "answer"), strict=True):
            assert cell.text == str(row.predictions[arm])
            right = row.predictions[arm] == row.label
            assert ("right" in cell.get_attribute("class").split()) is right
            said = cell.find_element(By.TAG_NAME, "title").get_property("textContent")
            assert [float(p) for p in re.findall(r"0\.\d+|1\.0+", said)] == pytest.approx(
                row.probabilities[arm], abs=0.00051
            )
            heights = [
                float(bar.get_attribute("height"))
                for bar in cell.find_elements(By.TAG_NAME, "rect")
            ]
            assert [(h - 2) / 20 for h in heights] == pytest.approx(
                row.probabilities[arm], abs=0.051
            )


QUEUES = [*HOSTILE, "Billing", "Billing & refunds, a long name of a queue", "支払い", "شكوى"]
RATES = ["no", "yes"]


def two_tasks() -> tuple[form.Comparison, list[Disagreement]]:
    """A task with twelve labels and one with two; each confusion matrix has 50 on its diagonal."""
    whole = example()
    names = {"tickets": QUEUES, "answers": RATES}

    def table(size: int) -> list[list[int]]:
        return [[50 if i == j else i for j in range(size)] for i in range(size)]

    settings = [
        one.model_copy(
            update={
                "task": task,
                "dataset": task,
                "axis": "label",
                "title": f"The {task}",
                "axis_title": "label",
                "labels": [7 + place for place in range(len(labels))],
                "label_names": labels,
                "ordinal": False,
            }
        )
        for one, (task, labels) in zip(whole.settings, names.items(), strict=False)
    ]
    renamed = dict(zip((one.task for one in whole.settings), names, strict=False))

    def of(found: dict[str, Any]) -> dict[str, Any]:
        return {new: found[old] for old, new in renamed.items()}

    comparison = whole.model_copy(
        update={
            "settings": settings,
            "settings_in_paper": None,
            "scores": {arm: of(found) for arm, found in whole.scores.items()},
            "differences": {arm: of(found) for arm, found in whole.differences.items()},
            "confusion": {
                arm: {task: table(len(labels)) for task, labels in names.items()}
                for arm in EVERYONE
            },
            "classes": {
                arm: {
                    task: [
                        form.Label(
                            label=label, support=7, precision=None, recall=place / 20, f1=0.5
                        )
                        for place, label in enumerate(labels)
                    ]
                    for task, labels in names.items()
                }
                for arm in EVERYONE
            },
        }
    )
    rows = []
    for number, row in enumerate(disagreements(120)):
        task = list(names)[number % 2]
        size = len(names[task])
        probabilities = {arm: [0.3 / (size - 1)] * size for arm in EVERYONE}
        for place, arm in enumerate(EVERYONE):
            probabilities[arm][(number + place) % size] = 0.7
        rows.append(
            replace(
                row,
                task=task,
                label=number % size + 1,
                predictions={
                    arm: (number + place) % size + 1 for place, arm in enumerate(EVERYONE)
                },
                probabilities=probabilities,
            )
        )
    return comparison, rows


def test_labels_have_their_names_whatever_task_they_are_of(show: Any, tmp_path: Path) -> None:
    comparison, rows = two_tasks()
    chrome = show(comparison, rows, width=360)
    chrome.execute_script(UNFOLD)
    wide, room = chrome.execute_script(WIDE)
    assert wide == room
    assert "2 tasks" in text_of(chrome, ".facts li")
    assert text_of(chrome, "#confusion h3") == ["The tickets", "The answers"]
    counted = """return [...document.querySelectorAll(".confusion")].map((table) => [
      [...table.querySelectorAll("thead th")].slice(1).map((n) => n.textContent),
      [...table.querySelectorAll("tbody th")].map((n) => n.textContent),
      [...table.querySelectorAll("td")].map((n) => Number(n.textContent))]);"""
    twelve, *_, two = chrome.execute_script(counted)
    assert twelve[0] == [str(number) for number in range(1, 13)]
    assert twelve[1] == [f"{number}. {name}" for number, name in enumerate(QUEUES, start=1)]
    assert twelve[2][13] == 50
    assert twelve[2][12:24].count(1) == 11
    assert two == [RATES, RATES, [50, 0, 1, 50]]
    by_label = """return [...document.querySelectorAll(".labels")].map((table) =>
      [...table.querySelectorAll("tbody tr")].map((row) =>
        [...row.children].map((n) => n.textContent)));"""
    first, second = chrome.execute_script(by_label)
    assert [row[0] for row in first] == QUEUES
    assert first[3][1:5] == ["10", "\N{EN DASH}", "0.15", "0.50"]
    assert [row[0] for row in second] == RATES
    bodies = chrome.find_elements(By.CSS_SELECTOR, "#conversations-table tbody")
    for row, body in list(zip(rows, bodies, strict=False))[:6]:
        names = QUEUES if row.task == "tickets" else RATES
        said = [
            body.find_element(By.CLASS_NAME, name).get_property("textContent")
            for name in ("label", "rated", "chosen")
        ]
        first_arm = names[row.predictions["label_only"] - 1]
        assert said == [names[row.label - 1], names[row.label - 1], first_arm]
        bars = body.find_elements(By.CSS_SELECTOR, ".answer:nth-of-type(2) rect")
        assert len(bars) == len(names)
        picks = [bar.get_attribute("class") for bar in bars]
        assert picks.index("pick") == row.predictions["label_only"] - 1
    # The script renders the same rows as the template.
    script = """
    const still = new DOMParser().parseFromString(arguments[0], "text/html");
    const rows = (root) => [...root.querySelectorAll("#conversations-table tbody")].map(
      (body) => body.outerHTML.replace(/>\\s+</g, "><").replaceAll(' open=""', ""));
    return [rows(still), rows(document)];"""
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    still, live = chrome.execute_script(script, text)
    assert len(still) == 50
    assert still == live


def test_without_the_script_the_first_conversations_are_the_same(show: Any, tmp_path: Path) -> None:
    chrome = show(example(), disagreements(60))
    script = """
    const still = new DOMParser().parseFromString(arguments[0], "text/html");
    const rows = (root) => [...root.querySelectorAll("#conversations-table tbody")].map(
      (body) => body.outerHTML.replace(/>\\s+</g, "><"));
    return [rows(still), rows(document)];"""
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    still, live = chrome.execute_script(script, text)
    assert len(still) == 50
    assert still == live


# --- how it looks -------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_are_readable_and_the_button_changes_them(show: Any, theme: str) -> None:
    chrome = show(_with_findings(example()), disagreements(20), prefers_color_scheme=theme)
    back = "return getComputedStyle(document.documentElement).backgroundColor"
    own = chrome.execute_script(back)
    chrome.execute_script(UNFOLD)
    for _ in range(2):
        seen, faint = chrome.execute_script(FAINT)
        assert seen > 4000
        assert faint == []
        chrome.find_element(By.ID, "theme").click()
        other = chrome.execute_script(back)
        assert other != own
        own, other = other, own
    assert chrome.execute_script(back) == own
    dark = sum(map(int, re.findall(r"\d+", own))) < 3 * 128
    assert dark is (theme == "dark")


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(show: Any, width: int) -> None:
    arms = [*ARMS, "x" * 90, *HOSTILE[:3]]
    comparison = example(arms, command="regreason compare " + "y" * 300)
    chrome = show(comparison, disagreements(20, arms), width=width)
    chrome.execute_script(UNFOLD)
    wide, room = chrome.execute_script(WIDE)
    # A scroll bar makes the usable width of a wide window smaller.
    assert width - 20 <= wide == room <= width


def test_paper_has_no_controls_and_light_colours(show: Any) -> None:
    # 718 pixels is the text width on A4 paper, which is narrower than Letter.
    chrome = show(example(), disagreements(60), width=718, prefers_color_scheme="dark")
    assert all(n.is_displayed() for n in chrome.find_elements(By.CLASS_NAME, "control"))
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    controls = chrome.find_elements(By.CLASS_NAME, "control")
    assert len(controls) >= 5
    assert not any(node.is_displayed() for node in controls)
    script = "return getComputedStyle(document.documentElement).backgroundColor"
    assert chrome.execute_script(script) == "rgb(255, 255, 255)"
    assert all(n.is_displayed() for n in chrome.find_elements(By.CSS_SELECTOR, ".whole .panel"))
    folded = "return document.querySelector('.scores td').checkVisibility(" + (
        "{ contentVisibilityAuto: true, visibilityProperty: true }) && "
        "document.querySelector('.scores td').offsetHeight"
    )
    assert chrome.execute_script(folded)
    wide, room = chrome.execute_script(WIDE)
    assert wide == room


# --- what comes from outside --------------------------------------------------------------


def test_hostile_text_is_text_wherever_it_comes_from(show: Any) -> None:
    arms = HOSTILE
    whole = example(arms)
    bad = "".join(HOSTILE)
    comparison = whole.model_copy(
        update={
            "command": bad,
            "data": {bad: bad, "origin": "generated"},
            "versions": {bad: bad},
            "settings": [
                s.model_copy(
                    update={
                        **dict.fromkeys(("dataset", "axis", "title", "axis_title"), bad),
                        "label_names": [f"{number} {bad}" for number in range(5)],
                    }
                )
                for s in whole.settings
            ],
            "answers": [form.Answer(question=bad, short=bad, sentences=HOSTILE)],
            "notes": HOSTILE,
            "layers": {bad: next(iter(whole.layers.values()))},
            "gap_of": bad,
            "runs": [
                run.model_copy(
                    update={
                        "model": bad,
                        "model_args": bad,
                        "results": HOSTILE,
                        "environment": {bad: bad, "seed": run.seed},
                        "training": {"arm": run.arm, bad: {bad: [bad]}},
                    }
                )
                for run in whole.runs
            ],
        }
    )
    chrome = show(comparison, [replace(d, id=bad) for d in disagreements(16, arms)])
    assert chrome.title == " ".join(f"Compared with label_only: {', '.join(arms)}".split())
    count = "return document.querySelectorAll(arguments[0]).length"
    assert chrome.execute_script(count, "script") == 2
    assert chrome.execute_script(count, "img, iframe, object, embed, textarea, base") == 0
    assert chrome.execute_script(count, "a:not([href^='#']), [onerror], [onload], [onclick]") == 0
    assert text_of(chrome, "#verdict article p:not(.short)") == HOSTILE
    assert text_of(chrome, "#verdict .notes p") == HOSTILE
    assert text_of(chrome, "#scores th[scope=rowgroup] span:first-child")[0] == f"{bad}: {bad}"
    # (Unprintable characters are replaced by U+FFFD.)
    heads = text_of(chrome, "#confusion .confusion")
    assert all("5. 4 <script>alert(1)</script>" in head for head in heads)
    assert {row.split(" ")[0] for row in text_of(chrome, ".chosen")} <= {"0", "1", "2", "3", "4"}
    assert all(row.endswith(bad) for row in text_of(chrome, ".chosen"))
    assert text_of(chrome, ".command") == [bad]
    assert text_of(chrome, "#conversations-table thead .arm") == ["label_only", *arms]
    assert set(text_of(chrome, "#conversations-table .id")) == {bad}
    assert [text.strip() for text in text_of(chrome, "#intervals label")] == arms
    options = [option.text for option in Select(chrome.find_element(By.ID, "filter-arm")).options]
    assert options == ["any", *[" ".join(arm.split()) for arm in arms]]


# --- size ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_largest_page_is_small_fast_and_the_same_each_time(show: Any, tmp_path: Path) -> None:
    arms = [*ARMS, "mismatched", "random_words", "another", "eighth"]
    comparison = example(arms, seeds=5)
    rows = [
        replace(row, prompt=((row.prompt + " and so it goes on, ") * 40)[:2000])
        for row in disagreements(2000, arms)
    ]
    start = time.perf_counter()
    chrome = show(comparison, rows)
    wall = time.perf_counter() - start
    assert len(text_of(chrome, "#conversations-table .id")) == 50
    path = tmp_path / "report.html"
    assert path.stat().st_size < 15e6
    took = chrome.execute_script(
        "return performance.getEntriesByType('navigation')[0].loadEventEnd"
    )
    assert took < 3000, f"opened in {took:.0f} ms, {wall:.1f} s with the writing"
    write_page(comparison, rows, 31_337, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == path.read_bytes()
    write_page(comparison, [], 31_337, tmp_path / "alone.html")
    assert (tmp_path / "alone.html").stat().st_size < 1e6
