"""Labels that look the same are found, shown with their difference, and merged or kept."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
import yaml

from regreason_plugin.cli import main
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.look_alikes import difference, find_twins, merged
from regreason_plugin.core.task_file import Task, read_task
from regreason_plugin.data.labelled_table import read_labelled
from regreason_plugin.data_folder.build import BuildOptions, build_task

TINY = str(Path(__file__).parents[2] / "axolotl_configs" / "cpu" / "tiny-base")
# Two labels, and the character of the second that the message names. The letters of other scripts
# are examples in Unicode Technical Standard 39, and letters of Russian and Greek keyboards.
TWINS = [
    ("refund", "Refund", "U+0052 LATIN CAPITAL LETTER R"),
    ("straße", "STRASSE", "U+0053 LATIN CAPITAL LETTER S"),
    ("caf\u00e9", "cafe\u0301", "U+0065 LATIN SMALL LETTER E, U+0301 COMBINING ACUTE ACCENT"),
    ("1\u00b2", "12", "U+0032 DIGIT TWO"),
    ("fine", "\ufb01ne", "U+FB01 LATIN SMALL LIGATURE FI"),
    ("good", "go\u200bod", "U+200B ZERO WIDTH SPACE"),
    ("good", "good\ufeff", "U+FEFF ZERO WIDTH NO-BREAK SPACE"),
    ("good", "go\u00adod", "U+00AD SOFT HYPHEN"),
    ("good", "\u2066good", "U+2066 LEFT-TO-RIGHT ISOLATE"),
    ("❤", "❤\ufe0f", "U+FE0F VARIATION SELECTOR-16"),
    ("not good", "not\u00a0good", "U+00A0 NO-BREAK SPACE"),
    ("not good", "not  good", "U+0020 SPACE"),
    ("not good", "not\u3000good", "U+3000 IDEOGRAPHIC SPACE"),
    ("not good", "not\tgood", "U+0009"),
    ("paypal", "p\u0430yp\u0430l", "U+0430 CYRILLIC SMALL LETTER A"),
    ("paypal", "p\u03b1ypal", "U+03B1 GREEK SMALL LETTER ALPHA"),
    ("BAD", "\u0412AD", "U+0412 CYRILLIC CAPITAL LETTER VE"),
    ("bad", "\u0412AD", "U+0412 CYRILLIC CAPITAL LETTER VE"),
    ("HIGH", "\u0397IGH", "U+0397 GREEK CAPITAL LETTER ETA"),
    ("IT", "\u0406T", "U+0406 CYRILLIC CAPITAL LETTER BYELORUSSIAN-UKRAINIAN I"),
    ("\u0413\u0414", "\u0393\u0414", "U+0393 GREEK CAPITAL LETTER GAMMA"),
    ("\u0259", "\u04d9", "U+04D9 CYRILLIC SMALL LETTER SCHWA"),
    ("возврат", "Возврат", "U+0412 CYRILLIC CAPITAL LETTER VE"),
    ("hot", "h\u0585t", "U+0585 ARMENIAN SMALL LETTER OH"),
    ("don't know", "don\u2019t know", "U+2019 RIGHT SINGLE QUOTATION MARK"),
    ('"lost"', "\u201clost\u201d", "U+201C LEFT DOUBLE QUOTATION MARK"),
    ("well-known", "well\u2013known", "U+2013 EN DASH"),
    ("good", "\uff47\uff4f\uff4f\uff44", "U+FF47 FULLWIDTH LATIN SMALL LETTER G"),
    ("good", "\U0001d420ood", "U+1D420 MATHEMATICAL BOLD SMALL G"),
]


@pytest.mark.parametrize(("one", "other", "named"), TWINS)
def test_twins_are_found_and_what_differs_is_named(one: str, other: str, named: str) -> None:
    assert find_twins([one, "else", other]) == [(one, other)]
    assert find_twins([other, one]) == [(other, one)]
    assert named in difference(one, other)
    assert named in difference(other, one)


@pytest.mark.parametrize(
    "labels",
    [
        *(["1", "2", "3"], ["-1", "0", "1"], ["O", "0"], ["l", "1"], ["I", "1", "|"]),
        *(["resume", "résumé"], ["ab", "a b"], ["modern", "modem"], ["да", "нет"], ["発", "发"]),
        *(["good", "good."], ["и", "й"], ["true", "false"], ["A", "B"], ["+", "-"], ["3", "٣"]),
    ],
)
def test_labels_that_look_different_are_no_twins(labels: list[str]) -> None:
    assert find_twins(labels) == []


def test_twins_of_twins_are_one_group() -> None:
    # The small ve does not look like b, but both capitals look like B.
    small, large = "\u0432", "\u0412"
    labels = [small, "x", large, "B", "X", "b"]
    assert find_twins(labels) == [(small, large, "B", "b"), ("x", "X")]
    counts = dict(zip(labels, (1, 5, 1, 9, 5, 2), strict=True))
    assert merged(counts) == {"X": "x", small: "B", large: "B", "b": "B"}


def test_every_character_of_the_table_is_another_than_it_looks_like() -> None:
    path = Path(str(find_twins.__code__.co_filename)).parent / "look_alikes.txt"
    lines = [line.split("\t") for line in path.read_text().splitlines() if "\t" in line]
    codes = [code for _, text in lines for code in text.split()]
    assert len(codes) == len(set(codes)) > 400
    likes = [like for like, _ in lines]
    # No look-alike looks like a third character; otherwise one pass would not suffice.
    assert not {f"{ord(like):04X}" for like in likes} & set(codes)
    assert all(unicodedata.name(chr(int(code, 16))) and int(code, 16) > 127 for code in codes)


# --- the commands -------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the commands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(*labels: str) -> None:
    rows = [f'text {n},"{label}"' for n, label in enumerate(labels)]
    Path("t.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")


def new(*more: str) -> int:
    columns = ("--text", "text", "--label", "label", "--model", TINY)
    return main(["task", "new", "mine", "--data", "t.csv", *columns, *more])


LABELS = ["good"] * 6 + ["bad"] * 6 + ["Good", "g\u043eod", "b\u0430d"]


def test_refused_until_somebody_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    table(*LABELS)
    assert new() == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "t.csv, field label: labels that look the same are different classes: " in said
    assert (
        "'good' has U+0067 LATIN SMALL LETTER G where 'Good' has U+0047 LATIN CAPITAL LETTER G"
    ) in said
    assert "U+043E CYRILLIC SMALL LETTER O" in said
    assert "--merge-labels to make them one label" in said
    assert not Path("mine").exists()


def test_merged_they_have_the_spelling_of_the_most(capsys: pytest.CaptureFixture[str]) -> None:
    # One text has both spellings, which is not a contradiction once they are merged.
    table(*LABELS)
    with Path("t.csv").open("a", encoding="utf-8") as stream:
        stream.write("text 0,GOOD\n")
    assert new("--merge-labels") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Merged into 'good', because they look the same" in said
    assert re.search(r"\bgood 8 53\.3%", said)
    task = read_task(Path("mine/task.yml"))
    assert task.labels == ("bad", "good")
    assert task.values == {
        "Good": "good",
        "g\u043eod": "good",
        "GOOD": "good",
        "b\u0430d": "bad",
    }
    assert task.look_alikes == "refuse"
    assert [row.number for row in read_labelled(task)] == [2] * 6 + [1] * 6 + [2, 2, 1]


def test_kept_apart_they_are_classes_of_their_own() -> None:
    table(*[label for label in LABELS for _ in range(8)])
    assert new("--keep-labels") == 0
    task = read_task(Path("mine/task.yml"))
    assert set(task.labels) == set(LABELS)
    assert task.look_alikes == "keep"
    folder, _ = build_task(Path("mine/task.yml"), Path("data"), BuildOptions())
    assert set(folder.declaration.labels) == set(LABELS)


def test_one_flag_or_the_other() -> None:
    table(*LABELS)
    with pytest.raises(SystemExit) as error:
        new("--keep-labels", "--merge-labels")
    assert error.value.code == 2


def test_a_task_with_twins_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    table("good", "bad", "good", "bad")
    assert new() == 0
    path = Path("mine/task.yml")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("  - good\n", "  - good\n  - b\u0430d\n"), encoding="utf-8")
    said = r"task.yml, line \d+: labels .* U\+0430 CYRILLIC .* or write look_alikes: keep"
    with pytest.raises(UserError, match=said):
        read_task(path)
    assert main(["build", str(path), "--out", "data"]) == 2
    assert not Path("data").exists()


def test_a_label_of_the_table_that_looks_like_the_tasks(place: Path) -> None:
    table("good", "bad", "good", "bad", "good\u200b")
    task = {"name": "mine", "title": "Mine", "prompt": "{text}\nAnswer:", "labels": ["bad", "good"]}
    task |= {"data": {"path": "t.csv"}, "columns": {"text": "text", "label": "label"}}
    Path("task.yml").write_text(yaml.safe_dump(task), encoding="utf-8")
    said = r"the same as one of them: 'good\\u200b' has U\+200B ZERO WIDTH SPACE where 'good' has"
    with pytest.raises(UserError, match=said):
        list(read_labelled(read_task(Path("task.yml"))))
    task["values"] = {"good\u200b": "good"}
    Path("task.yml").write_text(yaml.safe_dump(task), encoding="utf-8")
    found = [row.number for row in read_labelled(read_task(Path("task.yml")))]
    assert found == [2, 1, 2, 1, 2]
    assert isinstance(read_task(Path("task.yml")), Task)
