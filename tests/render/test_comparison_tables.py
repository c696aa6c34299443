"""A comparison as text: its numbers are shown exactly, and names are never markup."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.comparison_example import ARMS, HOSTILE, example
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console

from regreason_plugin.comparison.comparison import (
    Answer,
    Comparison,
    Difference,
    Gap,
    Interval,
    Score,
)
from regreason_plugin.render import latex
from regreason_plugin.render.csv_file import to_csv
from regreason_plugin.render.latex import to_latex
from regreason_plugin.render.markdown_page import to_markdown
from regreason_plugin.render.terminal import print_comparison

# Every shape of a difference: undefined; exploratory; found higher although its interval holds
# zero; rounded to zero and found the same; unclear although its interval excludes zero and p is
# small; found lower by less than the margin.
SHAPES = [
    Difference(value=None),
    Difference(value=0.0123456),
    Difference(value=0.03, low=-0.01, high=0.05, p=0.2, p_corrected=0.6, finding="higher"),
    Difference(value=-0.0001, low=-0.02, high=0.02, p_corrected=0.01, finding="same"),
    Difference(
        value=-0.1,
        low=-0.17,
        high=-0.02,
        p=1e-9,
        p_corrected=1e-7,
        finding="unclear",
        mcnemar_p=0.25,
    ),
    Difference(value=-0.004, low=-0.007, high=-0.001, finding="lower and same"),
]
AS_TEXT = [
    "-",
    "+0.012°",
    "+0.030* (-0.010 to +0.050)",
    "0.000≈ (-0.020 to +0.020)",
    "-0.100 (-0.170 to -0.020)",
    "-0.004*≈ (-0.007 to -0.001)",
]
IN_LATEX = [
    "--",
    r"$+0.012$\rlap{$^{\circ}$}",
    r"$\mathbf{+0.030}$\rlap{$^{*}$} ($-0.010$, $+0.050$)",
    r"$0.000$\rlap{$^{\approx}$} ($-0.020$, $+0.020$)",
    "$-0.100$ ($-0.170$, $-0.020$)",
    r"$\mathbf{-0.004}$\rlap{$^{*\approx}$} ($-0.007$, $-0.001$)",
]


@cache
def hostile() -> Comparison:
    return example(HOSTILE)


@cache
def small() -> Comparison:
    """A comparison with one arm, one metric, and a setting for each shape of a difference."""
    whole = example(["x"])
    tasks = [setting.task for setting in whole.settings][: len(SHAPES)]
    differences = {task: {"acc": shape} for task, shape in zip(tasks, SHAPES, strict=True)}
    return whole.model_copy(
        update={
            "metrics": ["acc"],
            "settings": whole.settings[: len(SHAPES)],
            "differences": {"x": differences},
            "runs": [],
        }
    )


def renamed(name: str) -> Comparison:
    """The small comparison with another name for its arm."""
    one = small()

    def new(by_arm: dict[str, Any]) -> dict[str, Any]:
        return {name if arm == "x" else arm: value for arm, value in by_arm.items()}

    by_arm = (
        *("seeds", "scores", "differences", "pooled_scores", "pooled", "wins", "needed", "gap"),
        *("costs", "detectable", "generalisation"),
    )
    changes = {field: new(getattr(one, field)) for field in by_arm}
    changes["layers"] = {metric: new(layers) for metric, layers in one.layers.items()}
    changes["primary"] = one.primary and one.primary.model_copy(update={"arm": name})
    return one.model_copy(update={**changes, "arms": [name]})


def plain(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


SPECIALS = "=+-@;,|\"'\t\r\n aé1_$\\{}[]*`<>#%&~^?!.:/w\uff1d\uff20"
ANY = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
NAMES = st.text(st.sampled_from(SPECIALS), min_size=1) | st.text(ANY, min_size=1)
# (`compare` refuses the baseline's name and empty names before anything is rendered.)
NAMES = NAMES.filter(lambda name: name != "label_only" and plain(name) != "")


# --- the terminal -------------------------------------------------------------------------


def printed(comparison: Comparison, width: int, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    print_comparison(comparison, console)
    return file.getvalue()


def cells(line: str) -> list[str]:
    return [" ".join(cell.split()) for cell in re.split("[│┃]", line)[1:-1]]


def test_terminal_says_the_verdict_first_and_then_every_setting() -> None:
    one = small()
    text = printed(one, 200, terminal=False)
    order = [answer.question for answer in one.answers]
    order += [one.answers[0].short, one.answers[0].sentences[0]]
    assert all(text.index(part) < text.index("chatbot_arena") for part in order)
    arms, *rows = [cells(line) for line in text.splitlines() if "│" in line]
    assert arms[0] == "x"
    assert arms[3] == "higher (primary)"
    # (The first of these rows is the baseline's in the table of arms.)
    rows = rows[1:]
    for row, setting, shape in zip(rows, one.settings, AS_TEXT, strict=False):
        base = one.scores["label_only"][setting.task]["acc"].value
        start = [setting.dataset, setting.axis.replace("_", "-"), "200", "0.300", f"{base:.3f}"]
        assert row == [*start, shape]
    pooled = one.pooled["x"]["acc"]
    assert rows[len(SHAPES)][-1] == "+0.034* (+0.011 to +0.057)"
    assert (pooled.value, pooled.low, pooled.high) == (0.034, 0.011, 0.057)
    assert rows[len(SHAPES) + 1][-1] == "12 of 18 (2 tied)"
    assert "GENERATED" in text
    assert text.index("GENERATED data: conv") > text.index("accuracy")


def test_a_file_gets_whole_tables_and_a_narrow_terminal_parts_that_fit() -> None:
    one = example()
    wide = printed(one, 80, terminal=False)
    assert sum("┃ dataset" in line for line in wide.splitlines()) == 1
    narrow = printed(one, 100, terminal=True)
    assert max(map(len, narrow.splitlines())) <= 100
    assert sum("┃ dataset" in line for line in narrow.splitlines()) == len(ARMS)
    both = printed(one, 130, terminal=True)
    assert max(map(len, both.splitlines())) <= 130
    assert sum("┃ dataset" in line for line in both.splitlines()) == 2
    # The parts hold the same numbers as the whole table.
    numbers = re.compile(r"[+-]\d\.\d{3}[*≈]* *\([^)]*\)")
    assert sorted(numbers.findall(wide)) == sorted(numbers.findall(narrow))
    assert len(numbers.findall(wide)) > 18 * len(ARMS)


def test_no_name_moves_the_cursor_or_is_markup() -> None:
    name = "\x1b[31m[red]a[/red]\r\x07\u202eb\x9b"
    answer = Answer(question=f"Is {name}?", short=name, sentences=[name])
    one = renamed(name).model_copy(update={"answers": [answer], "notes": [name]})
    text = printed(one, 200, terminal=False)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert text.count("[31m[red]a[/red]") == 9


# --- Markdown -----------------------------------------------------------------------------


def parse(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


def shown(token: Token) -> str:
    """The text of a line as a reader sees it."""
    return "".join(
        " " if child.type in {"softbreak", "hardbreak"} else child.content
        for child in token.children or []
    )


def tables_of(tokens: list[Token]) -> list[list[list[str]]]:
    found: list[list[list[str]]] = []
    for token, inner in pairwise(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in {"th_open", "td_open"}:
            found[-1][-1].append(shown(inner))
    return found


def kinds(tokens: list[Token]) -> set[str]:
    return {one.type for token in tokens for one in (token, *(token.children or []))}


HARMLESS = {
    *("heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "text"),
    *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close", "fence"),
    *("strong_open", "strong_close", "code_inline", "softbreak", "text_special"),
    *(f"{part}_open" for part in ("table", "thead", "tbody", "tr", "th", "td")),
    *(f"{part}_close" for part in ("table", "thead", "tbody", "tr", "th", "td")),
}


def test_markdown_tables_hold_the_numbers_beside_hostile_names() -> None:
    one = hostile()
    text = to_markdown(one)
    tokens = parse(text)
    assert kinds(tokens) <= HARMLESS
    arms, accuracy, contrasts, pooled, needed, gaps, costs, runs = tables_of(tokens)
    names = [plain(name) for name in HOSTILE]
    assert accuracy[0] == ["dataset", "axis", "n", "majority", "label_only", *names]
    assert pooled[0] == ["pooled metric", "better", "label_only", *names]
    for row, setting in zip(accuracy[1:], one.settings, strict=False):
        found = [one.differences[arm][setting.task]["acc"] for arm in HOSTILE]
        values = [-0.0 if abs(one.value or 0) < 0.0005 else one.value or 0 for one in found]
        expected = [f"{value:+.3f}" if value else "0.000" for value in values]
        assert [re.split(r"[*≈ ]", cell)[0] for cell in row[5:]] == expected
    assert accuracy[-2][5:] == ["12 of 18 (2 tied)"] * len(HOSTILE)
    assert arms[0] == ["arm", "accuracy", "difference", "finding", "detectable"]
    assert [row[0] for row in arms[1:]] == [*names, "label_only"]
    assert [row[4] for row in arms[1:-1]] == ["0.028 (0.020 to 0.045)"] * len(names)
    assert contrasts[0] == ["minus", *names[:-1]]
    assert [row[0] for row in contrasts[1:]] == names[1:]
    assert [row[0] for row in needed[1:]] == names
    assert needed[1][1:] == ["0.020", "900", "no number is enough"]
    # (In the example each arm's loss on train rows is 0.1 below that of the arm before it.)
    assert gaps[0] == ["arm", "train rows", "test rows", "gap", "gap minus that of label_only"]
    assert gaps[1] == ["label_only", *_of(0.6), *_of(1.1), *_of(0.5, "°"), "-"]
    assert gaps[2] == [names[0], *_of(0.5), *_of(1.1), *_of(0.6, "°"), *_of(0.1, "°")]
    assert [row[0] for row in gaps[3:]] == names[1:]
    assert costs[0] == ["per model", "label_only", *names]
    tokens_read = [f"{place},000,000" for place in range(1, len(names) + 2)]
    assert costs[2] == ["tokens read in training", *tokens_read]
    assert len(runs) == 1 + 3 * (1 + len(HOSTILE))
    assert runs[-1][0] == names[-1]
    # All lines of a table have equally many cells.
    lines = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines if "chatbot" in line}
    assert widths == {6 + len(HOSTILE)}
    assert not re.search(r"\*\*[+-]?\d", text)


def _of(value: float, mark: str = "") -> list[str]:
    """A figure of the example as text; its interval ends 0.05 below and above it."""
    sign = "+" * bool(mark)
    low, high = (f"{end:{sign}.3f}" for end in (value - 0.05, value + 0.05))
    return [f"{value:{sign}.3f}{mark} ({low} to {high})"]


def test_markdown_writes_every_shape_of_a_difference() -> None:
    accuracy = tables_of(parse(to_markdown(small())))[1]
    assert [row[-1] for row in accuracy[1 : 1 + len(SHAPES)]] == AS_TEXT


def test_the_share_of_the_gain_is_said_as_a_set() -> None:
    one = example()
    page = tables_of(parse(to_markdown(one)))
    assert page[4] == [
        ["arm", "share", "set"],
        ["shuffled", "0.60", "0.20 to 1.30"],
        ["bag_of_words", "0.60", "up to 0.20, or 1.30 and more"],
        ["filler", "0.60", "no value is excluded"],
    ]
    undefined = Gap(value=None, kind="everything", low=None, high=None)
    text = to_markdown(one.model_copy(update={"gap": {"filler": undefined}}))
    assert tables_of(parse(text))[4][1] == ["filler", "-", "no value is excluded"]


@settings(max_examples=150, deadline=None)
@given(NAMES)
def test_a_name_in_markdown_is_text(name: str) -> None:
    answer = Answer(question=name, short=name, sentences=[name])
    one = renamed(name).model_copy(
        update={"answers": [answer], "notes": [name], "command": name, "baseline": "label_only"}
    )
    tokens = parse(to_markdown(one))
    assert kinds(tokens) <= HARMLESS
    accuracy = tables_of(tokens)[1]
    assert accuracy[0][-1] == plain(name)
    assert [row[-1] for row in accuracy[1 : 1 + len(SHAPES)]] == AS_TEXT
    lines = [shown(token) for token in tokens if token.type == "inline"]
    assert lines.count(plain(name)) >= 2
    assert f"{plain(name)} {plain(name)}" in lines


def test_an_address_in_a_sentence_is_no_link() -> None:
    """GitHub turns bare addresses into links, unless they contain a backslash."""
    one = small().model_copy(update={"notes": ["see https://x.example/a and WWW.x.example"]})
    text = to_markdown(one)
    assert "://" not in text
    assert not re.search(r"(?i)www\.", text)
    assert "see https://x.example/a and WWW.x.example" in [shown(token) for token in parse(text)]


# --- CSV ----------------------------------------------------------------------------------


def read(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), float_precision="round_trip", keep_default_na=False)


def same(cell: Any, value: float | str | None) -> bool:
    if value is None:
        return bool(cell == "")
    return bool(cell == value) if isinstance(value, str) else float(cell) == value


def test_csv_holds_every_number_to_the_last_digit() -> None:
    one = example()
    text = to_csv(one)
    assert text == to_csv(one)
    assert "\r" not in text
    frame = read(text)
    everyone = ["label_only", *ARMS]
    by_layer = frame[frame["layer"] != ""].set_index(["metric", "arm", "layer"])
    frame = frame[frame["layer"] == ""].drop(columns="layer")
    between = frame[~frame["minus"].isin(["", "label_only"])]
    frame = frame.drop(between.index)
    pairs = {(one.arm, one.minus): one.differences for one in one.contrasts}
    assert len(between) == len(pairs) * len(one.metrics)
    for _, row in between.iterrows():
        found = pairs[row["arm"], row["minus"]][row["metric"]]
        told = [float(row[key]) for key in ("difference", "diff_low", "diff_high", "p_corrected")]
        assert told == [found.value, found.low, found.high, found.p_corrected]
        assert (row["finding"], row["value"], row["role"]) == (found.finding, "", "family")
    assert len(frame) == (18 + 1) * len(everyone) * len(one.metrics)
    assert len(by_layer) == sum(len(layers) for of in one.layers.values() for layers in of.values())
    for (metric, arm, layer), row in by_layer.iterrows():
        found = one.layers[metric.removesuffix("_by_layer")][arm][int(layer)]
        told = [float(row[key]) for key in ("value", "low", "high")]
        assert told == [found.value, found.low, found.high]
        assert (row["task"], row["difference"], row["p"], row["seeds"]) == ("pooled", "", "", 3)
    rows = frame.set_index(["task", "arm", "metric"])
    assert rows.index.is_unique
    sizes = {setting.task: (setting.documents, setting.groups) for setting in one.settings}
    first = ("pooled", "explanation", "acc")
    assert list(rows[rows["role"] == "primary"].index) == [first]
    exploratory = {"explanation": one.pooled["explanation"] | {"acc": Difference(value=0.1)}}
    told = read(
        to_csv(one.model_copy(update={"primary": None, "pooled": {**one.pooled, **exploratory}}))
    )
    assert set(told["role"]) == {"", "family", "exploratory"}
    (alone,) = told[told["role"] == "exploratory"].to_dict("records")
    assert (alone["arm"], alone["metric"], alone["finding"]) == ("explanation", "acc", "")
    for (task, arm, metric), row in rows.iterrows():
        where = task != "pooled"
        score = (one.scores[arm][task] if where else one.pooled_scores[arm])[metric]
        found = Difference(value=None)
        if arm != "label_only":
            found = (one.differences[arm][task] if where else one.pooled[arm])[metric]
        expected = {
            **{key: getattr(score, key) for key in ("value", "low", "high")},
            **{key: getattr(score, key) for key in ("seed_sd", "if_calibrated")},
            "minus": None if arm == "label_only" else "label_only",
            "effective_groups": 100.0 if where else 90.0,
            "role": None if arm == "label_only" else row["role"],
            "difference": found.value,
            "diff_low": found.low,
            "diff_high": found.high,
            **found.model_dump(exclude={"value", "low", "high"}),
        }
        assert all(same(row[key], value) for key, value in expected.items()), (task, arm, metric)
        assert set(expected) | {"dataset", "axis", "documents", "groups", "seeds"} == set(row.index)
        assert row["seeds"] == 3
        size = sizes.get(task, (18 * 200, ""))
        assert (str(row["documents"]), str(row["groups"])) == tuple(map(str, size))
        assert f"regreason_{row['dataset']}_{row['axis']}" == task or not where


def test_csv_holds_what_is_described_without_a_difference() -> None:
    whole = example(["x"])
    one = whole.model_copy(
        update={
            "metrics": [name for name in whole.metrics if name != "ece"],
            "pooled": {"x": {n: d for n, d in whole.pooled["x"].items() if n != "ece"}},
            "pooled_scores": {
                arm: {
                    **scores,
                    "ece": Score(value=0.2, by_seed=[0.1, 0.3], seed_sd=0.14, if_calibrated=0.07),
                }
                for arm, scores in whole.pooled_scores.items()
            },
        }
    )
    frame = read(to_csv(one)).query("metric == 'ece' and task == 'pooled'")
    assert list(frame["arm"]) == ["label_only", "x"]
    columns = ["value", "low", "seed_sd", "if_calibrated", "difference", "finding", "role", "minus"]
    for _, row in frame.iterrows():
        assert [str(row[name]) for name in columns] == ["0.2", "", "0.14", "0.07", *[""] * 4]


def test_csv_leaves_what_is_undefined_empty_and_negative_numbers_numbers() -> None:
    frame = read(to_csv(small())).query("arm == 'x' and metric == 'acc' and task != 'pooled'")
    assert list(frame["difference"]) == ["", "0.0123456", "0.03", "-0.0001", "-0.1", "-0.004"]
    findings = ["", "", "higher", "same", "unclear", "lower and same"]
    assert list(frame["finding"]) == findings
    assert list(frame["mcnemar_p"]) == ["", "", "", "", "0.25", ""]


@settings(max_examples=300, deadline=None)
@given(NAMES)
def test_no_cell_of_a_csv_for_spreadsheets_runs_in_one(name: str) -> None:
    text = to_csv(renamed(name), spreadsheet_safe=True)
    # Check every character that a spreadsheet may use as the separator.
    for delimiter in ",;\t|":
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            for cell in row:
                try:
                    float(cell)
                except ValueError:
                    assert not cell.startswith(("\t", "\r", "\n"))
                    assert not cell.strip().startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20"))
    arms = {row["arm"] for row in csv.DictReader(io.StringIO(text, newline=""))}
    kept = "".join(character if character.isprintable() else "\ufffd" for character in name)
    assert {arm.replace("'", "") for arm in arms} == {"label_only", kept.replace("'", "")}


@settings(max_examples=300, deadline=None)
@given(NAMES)
def test_names_in_the_csv_are_as_they_were_given(name: str) -> None:
    text = to_csv(renamed(name))
    arms = {row["arm"] for row in csv.DictReader(io.StringIO(text, newline=""))}
    assert arms == {"label_only", name}


def test_a_harmless_name_stays_as_it_is() -> None:
    for name in ("label-only", "a=b", "lr 1e-4, 3 epochs", "O'Brien", "Ünïcode, 中文"):
        assert set(read(to_csv(renamed(name), spreadsheet_safe=True))["arm"]) == {
            "label_only",
            name,
        }
    for name in ("-3", "=x", "+1", "@me", "a\rb"):
        assert set(read(to_csv(renamed(name)))["arm"]) == {"label_only", name}


# --- LaTeX --------------------------------------------------------------------------------

WORDS = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "char34": '"',
}


def typeset(source: str) -> str:
    """The text that TeX typesets from a source without formulas; fails where TeX would fail."""
    out, place, depth = "", 0, 0
    while place < len(source):
        character = source[place]
        if character == "\\":
            found = re.compile(r"\\([a-zA-Z]+\d*|.)").match(source, place)
            assert found is not None, "a backslash at the end"
            word = found[1]
            out += WORDS[word] if len(word) > 1 else word
            assert len(word) > 1 or word in "{}$&#_%"
            place = found.end()
            # TeX skips spaces after a control word, so a brace must end the word.
            assert len(word) == 1 or source[place] in "{}"
            continue
        assert character not in '$&#_%~^|<>"', character
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
        if character not in "{}":
            out += character
        place += 1
    assert depth == 0
    return out


@settings(max_examples=300, deadline=None)
@given(NAMES)
def test_a_name_in_latex_is_typeset_as_it_is(name: str) -> None:
    source = latex.escape(name)
    assert typeset(source) == plain(name)
    # A preceding line end would read [ or * as its argument; the other pairs would become one sign.
    assert not source.startswith(("[", "*"))
    assert not re.search(r"--|''|,,|``|\?`|!`", source)


def rows_of(source: str) -> list[list[str]]:
    """The cells of the tabular, with the two cells of an arm joined."""
    inside = source.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = []
    for line in inside.splitlines():
        if not line.endswith(r"\\"):
            assert line in {"", r"\midrule", r"\addlinespace"}
            continue
        given = [cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))]
        merged = given[:3]
        rest = given[3:]
        while rest:
            if rest[0].startswith(r"\multicolumn{2}{c}{"):
                merged.append(rest.pop(0).removeprefix(r"\multicolumn{2}{c}{").removesuffix("}"))
            else:
                merged.append(" ".join(rest[:2]).strip())
                del rest[:2]
        rows.append(merged)
    return rows


def test_latex_has_a_row_a_setting_pooled_and_wins() -> None:
    one = small()
    source = to_latex(one)
    rows = rows_of(source)
    assert rows[0] == ["dataset", "axis", r"label\_only", "x"]
    bases = [one.scores["label_only"][s.task]["acc"].value for s in one.settings]
    for row, base, cell in zip(rows[1:], bases, IN_LATEX, strict=False):
        assert row[2:] == [f"{base:.3f}", cell]
    assert [row[0] for row in rows[1:7]] == [r"chatbot\_arena", "", "", r"hh\_chosen", "", ""]
    pooled = one.pooled["x"]["acc"]
    assert (pooled.value, pooled.low, pooled.high) == (0.034, 0.011, 0.057)
    assert rows[7][3] == r"$\mathbf{+0.034}$\rlap{$^{*}$} ($+0.011$, $+0.057$)"
    assert rows[8] == ["wins", "", "", "12 of 18 (2 tied)"]
    top = source.split(r"\begin{table*}")[0].splitlines()
    assert all(line.startswith("% ") for line in top)
    assert one.command in top[0]
    assert "ab" * 32 in top[1]
    assert r"\usepackage{booktabs}" in top[2]
    assert "GENERATED" in source.split(r"\caption")[1]


def test_latex_writes_half_widths_where_every_interval_is_symmetric() -> None:
    one = example(["x"])
    rows = rows_of(to_latex(one))
    assert all(row[3].endswith(r" $\pm$0.050") for row in rows[1:19])
    assert rows[19][3].endswith(r" $\pm$0.023")
    assert r"$\pm$: half the width of the 95 \% intervals over seeds and groups" in to_latex(one)


def test_latex_with_hostile_names_has_as_many_cells_in_every_row() -> None:
    rows = rows_of(to_latex(hostile()))
    assert {len(row) for row in rows} == {3 + len(HOSTILE)}
    assert [typeset(cell) for cell in rows[0][3:]] == [plain(name) for name in HOSTILE]


def test_a_command_over_several_lines_stays_a_comment() -> None:
    text = "compare 'a\n\\input{x}\r\\input{y}\x85\\input{z}'"
    source = to_latex(small().model_copy(update={"command": text}))
    lines = [line for line in re.split(r"[\n\r\x85]", source) if "input{" in line]
    assert len(lines) == 1
    assert lines[0].startswith("% ")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles_with_hostile_names(tmp_path: Path) -> None:
    ascii_only = [name for name in HOSTILE if name.isascii()]
    names = [*ascii_only, '[1] x -- `a\' "q"', "*"]
    (tmp_path / "settings.tex").write_text(to_latex(example(names)))
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{settings}\end{document}"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape"]
    made = subprocess.run(
        [*command, "paper.tex"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert made.returncode == 0, made.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 1000


# --- all of them --------------------------------------------------------------------------


def test_what_is_undefined_everywhere_is_written_as_such() -> None:
    one = small()
    nothing = Score(value=None, by_seed=[None])
    empty = one.model_copy(
        update={
            "scores": {
                arm: {task: {"acc": nothing} for task in by} for arm, by in one.scores.items()
            },
            "pooled_scores": {arm: {"acc": nothing} for arm in one.pooled_scores},
            "pooled": {"x": {"acc": Difference(value=None)}},
            "answers": [],
            "notes": [],
            "needed": {},
            "detectable": {},
            "gap": {},
            "layers": {"matrix_entropy": {arm: [Interval(value=None)] for arm in one.scores}},
        }
    )
    arms, accuracy, pooled, *_ = tables_of(parse(to_markdown(empty)))
    assert {row[4] for row in accuracy[1 : 2 + len(SHAPES)]} == {"-"}
    assert arms[1] == ["x", "-", "-", "exploratory (primary)", "-"]
    assert pooled[1][2:] == ["-", "-"]
    assert rows_of(to_latex(empty))[7] == ["pooled", "", "-", "--"]
    assert "In brackets" not in to_markdown(empty)
    frame = read(to_csv(empty))
    assert set(frame["value"]) == {""}
    assert not any(math.isinf(0 if cell == "" else float(cell)) for cell in frame["difference"])
    assert "pooled" in printed(empty, 100, terminal=True)
