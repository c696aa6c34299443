"""Words and marks follow the findings alone, whatever the intervals and p-values are."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from helpers.comparison_example import example
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import QuadMesh
from rich.console import Console

from regreason_plugin.comparison.comparison import (
    Comparison,
    Contrast,
    Difference,
    Finding,
    Interval,
    Primary,
)
from regreason_plugin.comparison.finding_words import claim, primary_line
from regreason_plugin.comparison.verdict import answers
from regreason_plugin.render import figures, tables
from regreason_plugin.render.csv_file import to_csv
from regreason_plugin.render.latex import to_latex
from regreason_plugin.render.markdown_page import to_markdown
from regreason_plugin.render.page import write_page
from regreason_plugin.render.style import style
from regreason_plugin.render.terminal import print_comparison

ARMS = ["explanation", "shuffled"]
# Metrics of each kind (higher is better, lower is better, neither), and those of the verdict.
METRICS = [
    *("acc", "macro_f1", "mae", "nll", "label_entropy", "output_entropy"),
    *("activation_entropy_mid", "activation_entropy_square_mid"),
]
FINDINGS: list[Finding | None] = [*get_args(Finding), None]
# Words that only a finding may use.
CLAIMS = re.compile(
    r"\b(higher|lower|better|worse|sharper|keeps|gains|loses|above|below|clearly|significant\w*)\b"
    r"|\bthe same\b|by less than",
    re.IGNORECASE,
)
MARKS = re.compile(r"(?<=\d)[*≈◆]")


@cache
def blank(seeds: int) -> Comparison:
    """The example comparison with two arms and two settings."""
    one = example(ARMS, seeds=seeds, metrics=METRICS, layers={}, curves={}, runs=[])
    kept = one.settings[:2]
    tasks = [setting.task for setting in kept]

    def of(by_arm: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {arm: {task: by_task[task] for task in tasks} for arm, by_task in by_arm.items()}

    return one.model_copy(
        update={
            "settings": kept,
            "scores": of(one.scores),
            "differences": of(one.differences),
            "notes": [],
        }
    )


def drawn(
    random: np.random.Generator, find: Callable[[], Finding | None], seeds: int = 3
) -> Comparison:
    """Random differences, intervals and p-values, with findings that ``find`` supplies."""
    one = blank(seeds)
    over = "seeds and groups" if seeds >= 3 else "groups"

    def difference() -> Difference:
        value = float(random.normal(0, 0.3)) or 0.01
        # About half of the intervals exclude zero.
        low, high = value - random.uniform(0.001, 0.1), value + random.uniform(0.001, 0.1)
        p, same = (float(10 ** random.uniform(-9, 0)) for _ in range(2))
        finding = find()
        corrected = None if finding is None else p
        return Difference(
            value=value,
            low=float(low),
            high=float(high),
            se=0.02,
            df_seeds=9.0,
            df_groups=9.0,
            p=p,
            p_corrected=corrected,
            p_same=same,
            p_same_corrected=None if finding is None else same,
            finding=finding,
            mcnemar_p=p,
            over=over,
        )

    def figure() -> Interval:
        value = float(random.normal(0, 0.3)) or 0.01
        return Interval(
            value=value, low=value - random.uniform(0, 0.3), high=value + random.uniform(0, 0.3)
        )

    def by_metric() -> dict[str, Difference]:
        return {name: difference() for name in one.metrics}

    made = one.model_copy(
        update={
            "differences": {
                arm: {setting.task: by_metric() for setting in one.settings} for arm in one.arms
            },
            "pooled": {arm: by_metric() for arm in one.arms},
            "generalisation": {
                arm: of_arm.model_copy(
                    update={
                        "train": figure(),
                        "test": figure(),
                        "gap": figure(),
                        "difference": of_arm.difference and figure(),
                    }
                )
                for arm, of_arm in one.generalisation.items()
            },
            "contrasts": [
                Contrast(arm="shuffled", minus="explanation", differences=by_metric()),
            ],
        }
    )
    return made.model_copy(update={"answers": answers(made)})


def seen(random: np.random.Generator) -> Callable[[], Finding | None]:
    """Random findings; generators with the same seed give the same findings."""
    return lambda: FINDINGS[int(random.integers(len(FINDINGS)))]


class _Text(HTMLParser):
    """Collects the text and the tooltips of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden = tag in {"style", "script"}
        self.parts += [value or "" for name, value in attrs if name in {"title", "aria-label"}]

    def handle_endtag(self, tag: str) -> None:
        self.hidden = False

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


def page(comparison: Comparison, path: Path) -> str:
    write_page(comparison, [], 0, path)
    return path.read_text(encoding="utf-8")


def text_of(html: str) -> str:
    parser = _Text()
    parser.feed(html)
    return "\n".join(parser.parts)


def markdown(comparison: Comparison) -> str:
    """The Markdown page without escapes of marks."""
    return re.sub(r"\\([*|.])", r"\1", to_markdown(comparison))


def printed(comparison: Comparison) -> str:
    file = io.StringIO()
    print_comparison(comparison, Console(file=file, width=300, color_system=None))
    return file.getvalue()


def said(comparison: Comparison) -> str:
    return "\n".join(
        text for answer in comparison.answers for text in (answer.short, *answer.sentences)
    )


def without_numbers(text: str) -> str:
    """The text with # for every number, and without the rules of tables."""
    # ("< 0.001" and "= 0.2" are both just a number.)
    text = re.sub(r"(\\?<|\\textless\{\}|=) (?=\d)", "", text)
    text = re.sub(r"[+\-\N{MINUS SIGN}]?\d[\d.,]*", "#", text)
    return " ".join(re.sub(r"[─━┏┓┳┡┩╇└┘┴├┤┼│┃]+", " ", text).split())


# --- what is said depends on nothing but the findings -----------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]))
def test_words_and_marks_are_the_same_for_other_intervals(seed: int, seeds: int) -> None:
    one, two = (
        drawn(np.random.default_rng([seed, n]), seen(np.random.default_rng(seed)), seeds)
        for n in (1, 2)
    )
    for text in (said, markdown, printed, to_latex):
        assert without_numbers(text(one)) == without_numbers(text(two))
    assert one.pooled["explanation"]["acc"].low != two.pooled["explanation"]["acc"].low


@pytest.mark.parametrize("seed", range(4))
def test_the_page_says_the_same_for_other_intervals(seed: int, tmp_path: Path) -> None:
    one, two = (
        text_of(
            page(
                drawn(np.random.default_rng([seed, n]), seen(np.random.default_rng(seed))),
                tmp_path / f"{n}.html",
            )
        )
        for n in (1, 2)
    )
    # (Charts may differ in how many numbers stand at their axes.)
    one, two = (re.sub(r"(# )+", "# ", without_numbers(text)) for text in (one, two))
    assert one == two


# --- where nothing is found, nothing is said --------------------------------------------------

# Fixed text, which may hold such words whatever is found: questions and explanations.
ALWAYS = (
    "Is the entropy of the middle layers higher, and the output sharper?",
    "How much of what explanation gains does each other arm keep?",
    "How much of what `explanation` gains does each other arm keep?",
    "An output with less entropy is sharper, which says nothing about its calibration.",
)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 3]),
    st.sampled_from([["unclear"], [None], ["unclear", None]]),
    st.sampled_from([None, "explanation:acc", "shuffled:nll"]),
)
def test_nothing_is_claimed_where_nothing_is_found(
    seed: int, seeds: int, findings: list[Finding | None], asked: str | None
) -> None:
    random = np.random.default_rng(seed)
    one = drawn(random, lambda: findings[int(random.integers(len(findings)))], seeds)
    arm, _, metric = (asked or "").partition(":")
    primary = Primary(arm=arm, metric=metric, rejects=False) if asked else None
    one = one.model_copy(update={"primary": primary})
    one = one.model_copy(update={"answers": answers(one)})
    texts = [said(one), markdown(one), printed(one), to_latex(one), primary_line(one)]
    for text in texts:
        assert not MARKS.search(text)
        assert r"\mathbf" not in text
        words = text
        for fixed in (*ALWAYS, *tables.legend(one)):
            words = words.replace(fixed, "")
        # A column of the table of metrics holds the better direction.
        words = re.sub(r"[|│┃] (higher|lower|better) +(?=[|│┃])", "", words)
        for sentence in tables.mark_legend(one):
            words = words.replace(latex_of(sentence), "")
        assert not CLAIMS.search(words), CLAIMS.search(words)
    assert not re.search(r"(?m),(higher|lower|same)", to_csv(one))


def latex_of(sentence: str) -> str:
    """A sentence of the legend as `to_latex` writes it."""
    signs = {"±": r"$\pm$", "≈": r"$\approx$", "°": r"$^{\circ}$", "*": "{*}"}
    return "".join(signs.get(character, character) for character in sentence)


@pytest.mark.parametrize("findings", [["unclear"], [None]])
def test_a_page_without_findings_has_neither_words_nor_colours(
    findings: list[Finding | None], tmp_path: Path
) -> None:
    one = drawn(np.random.default_rng(5), lambda: findings[0], seeds=1)
    one = one.model_copy(
        update={"primary": Primary(arm="explanation", metric="acc", rejects=False)}
    )
    one = one.model_copy(update={"answers": answers(one)})
    html = page(one, tmp_path / "report.html")
    heat = re.findall(r'<table class="heat">.*?</table>', html, re.DOTALL)
    cells = re.findall(r'<td class="([a-z0-9 ]+)"', "".join(heat))
    assert set(cells) == {"z"}
    assert '<article class="primary open">' in html
    verdict = html[html.index('<section id="verdict">') : html.index('<section id="settings">')]
    words = " ".join(text_of(verdict).split())
    for fixed in (*ALWAYS, *(answer.question.replace("`", "") for answer in one.answers)):
        words = words.replace(fixed, "")
    assert not CLAIMS.search(words), CLAIMS.search(words)
    assert not MARKS.search(text_of(html))
    with style():
        meshes = [
            child
            for child in figures.accuracy_heatmap(one).axes[0].get_children()
            if isinstance(child, QuadMesh)
        ]
        assert all(np.ma.getmaskarray(np.ma.masked_invalid(m.get_array())).all() for m in meshes)
        for axes in figures.differences(one).axes:
            points = [line for line in axes.lines if line.get_marker() in {"o", "D"}]
            assert {point.get_markerfacecolor() for point in points} <= {"white"}


# --- each finding has its words ---------------------------------------------------------------

WORDS = {
    "higher": "higher",
    "lower": "lower",
    "same": "the same within ±0.010",
    "higher and same": "higher, by less than 0.010",
    "lower and same": "lower, by less than 0.010",
    "unclear": "not enough to tell",
    None: "exploratory",
}
OF_LOSS = {
    "higher": "higher (worse)",
    "lower": "lower (better)",
    "same": "the same within ±0.010",
    "higher and same": "higher (worse), by less than 0.010",
    "lower and same": "lower (better), by less than 0.010",
    "unclear": "not enough to tell",
    None: "exploratory",
}
SIGNS = {
    "higher": "*",
    "lower": "*",
    "same": "≈",
    "higher and same": "*≈",
    "lower and same": "*≈",
    "unclear": "",
    None: "°",
}


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize("seeds", [1, 3])
def test_each_finding_has_exactly_its_words_everywhere(
    finding: Finding | None, seeds: int, tmp_path: Path
) -> None:
    one = drawn(np.random.default_rng(3), lambda: finding, seeds)
    models = ", of these trained models" * (seeds < 3 and finding not in (None, "unclear"))
    words, loss = WORDS[finding] + models, OF_LOSS[finding] + models
    accuracy = one.pooled["explanation"]["acc"]
    assert claim(one, accuracy, "acc") == claim(one, accuracy, "label_entropy") == words
    assert claim(one, one.pooled["explanation"]["nll"], "nll") == loss
    capital = "Cannot be said" if finding is None else words[0].upper() + words[1:]
    assert one.answers[0].short.startswith(capital)
    assert one.answers[1].short == f"Accuracy: {words}"
    assert one.answers[1].sentences[0].endswith(f"): {words}.")
    assert one.answers[1].sentences[1] == (
        f"By setting, the accuracy of `explanation` is: {words} in 2."
    )
    # A share of the gain is no test of the family: a figure, whatever is found.
    share = " times the difference of `explanation`, "
    shares = [sentence for sentence in one.answers[2].sentences if share in sentence]
    assert shares
    assert all(f"{share}exploratory, " in sentence for sentence in shares)
    assert not any("keeps" in sentence for sentence in one.answers[2].sentences)
    gains = finding in ("higher", "higher and same")
    assert one.answers[2].short.startswith("exploratory: " if gains else "cannot be said")
    assert one.answers[2].sentences[-1].endswith(f"): {words}.")
    middle, output = one.answers[3].short.split("; ")
    assert middle == f"middle blocks {words}"
    assert output == f"output over the vocabulary {words}"
    texts = [
        markdown(one),
        printed(one),
        text_of(page(one, tmp_path / "report.html")),
        to_latex(one).replace(r"$\pm$", "±"),
    ]
    assert all(capital in text for text in texts)
    shown = f"{accuracy.value:+.3f}"
    for text in texts[:2]:
        assert f"{shown}{SIGNS[finding]}" in text
        assert sum(text.count(sign) for sign in "*≈°" if sign not in SIGNS[finding]) <= 60
    assert (r"\mathbf" in texts[3]) is ("*" in SIGNS[finding])


def test_a_margin_keeps_its_digits() -> None:
    one = drawn(np.random.default_rng(3), lambda: "same")
    for margin, text in ((0.01, "0.010"), (0.0005, "0.0005"), (0.25, "0.250")):
        other = one.model_copy(update={"margin": margin})
        said_of = claim(other, one.pooled["explanation"]["acc"], "acc")
        assert said_of == f"the same within ±{text}"


def test_the_primary_question_comes_first_everywhere(tmp_path: Path) -> None:
    one = drawn(np.random.default_rng(3), lambda: "higher")
    question = "Primary question: is the accuracy of `explanation` different from that of"
    assert one.answers[0].question == f"{question} `label_only`?"
    for text in (markdown(one), printed(one), to_latex(one)):
        plain = text.replace("`", "").replace("\\_", "_")
        at = plain.index(question.replace("`", ""))
        # No figure comes before the question.
        assert not re.search(r"[+-]\d\.\d{3}", plain[:at])
    html = page(one, tmp_path / "report.html")
    shown = text_of(html)
    assert shown.index("Primary question") < shown.index("Does ")
    assert tables.arms(one).body[0][:1] == ["explanation"]
    other = one.model_copy(update={"primary": Primary(arm="shuffled", metric="nll", rejects=True)})
    arms = tables.arms(other)
    assert arms.header[1] == "negative log-likelihood"
    assert arms.body[0][0] == "shuffled"
    assert arms.body[0][3] == "higher (worse) (primary)"
    assert arms.body[1][3] == "higher (worse)"
    assert "negative log-likelihood of `shuffled`" in answers(other)[0].question


def test_how_many_tests_there_are_and_whether_they_claim() -> None:
    one = drawn(np.random.default_rng(3), lambda: None)

    def sentences(**changes: Any) -> list[str]:
        return answers(one.model_copy(update=changes))[0].sentences

    asked = Primary(arm="explanation", metric="acc", rejects=False)
    assert sentences(primary=asked, family=1_234)[-2:] == [
        "1,234 other tests stand behind this page; they are corrected together (Holm).",
        "The primary test does not reject, so all other figures are exploratory.",
    ]
    rejects = asked.model_copy(update={"rejects": True})
    assert sentences(primary=rejects)[-1].startswith("The primary test rejects, so they may")
    none = sentences(primary=None)
    assert none[0] == (
        "Name a primary question with `--primary ARM[:METRIC]`, such as "
        "`--primary explanation:acc`."
    )
    assert none[-1] == "All figures are exploratory: none makes a claim."
    found = sentences(primary=asked)
    assert any("within ±0.010 (`--margin`, default 0.01)" in text for text in found)
    assert any("0.028 with a probability of 80 %" in t and "0.020 to 0.045" in t for t in found)
