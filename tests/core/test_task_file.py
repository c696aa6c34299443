"""``task.yml`` is read as written, and a mistake in it gives one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from helpers.labelled_tables import LABELS
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.prompt import neutralise
from regreason_plugin.core.task_file import AXIS, Task, check_prompt, read_task
from regreason_plugin.task.new_task import NewTask, default_end, default_prompt, write_task

TASK = """\
name: tickets
title: Tickets
labels: [yes, "no", 1.0, null, ~]
prompt: |-
  {text}
  Answer:
data: {path: tickets.csv}
columns:
  text: message
  label: queue
"""


def task_of(folder: Path, text: str) -> Task:
    path = folder / "task.yml"
    path.write_text(text, encoding="utf-8")
    return read_task(path)


def test_scalars_are_taken_as_they_are_written(tmp_path: Path) -> None:
    task = task_of(tmp_path, TASK)
    assert task.labels == ("yes", "no", "1.0", "null", "~")
    assert (task.ordinal, task.normalise, task.values) == (False, "none", {})
    assert task.columns.named() == {"text": "message", "label": "queue"}
    assert (task.split.test, task.split.validation, task.split.seed) == (0.25, 0.1, 0)
    assert task.data.path == tmp_path / "tickets.csv"


def test_a_key_with_nothing_after_it_is_left_out(tmp_path: Path) -> None:
    text = TASK.replace("  label: queue", "  label: queue\n  id:\n  group:") + "values:\n"
    assert task_of(tmp_path, text) == task_of(tmp_path, TASK)


def test_declares_one_setting(tmp_path: Path) -> None:
    declared = task_of(tmp_path, TASK).declaration
    assert declared.settings == (("tickets", AXIS),)
    assert declared.task_name("tickets", AXIS) == "tickets"
    assert declared.labels == ("yes", "no", "1.0", "null", "~")
    assert declared.prompt == "{text}\nAnswer:"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "name: tickets",
            "name: Tickets",
            r"line 1, field name: 'Tickets' is not a valid task name",
        ),
        ("name: tickets", "name: regreason_x", r"line 1, field name: .* built-in"),
        ("name: tickets", "name: 9x", r"field name: '9x' is not a valid task name"),
        ("title: Tickets\n", "", r"line 1, field title: Field required"),
        ('"no"', "yes", r"line 3, field labels: label 'yes' is listed twice"),
        ('"no"', "<|im_end|>", r"line 3, field labels.1: .*special token"),
        ('"no"', '" no"', r"line 3, field labels.1: .*white space"),
        ('"no"', "[no]", r"line 3, field labels.1: "),
        ('[yes, "no", 1.0, null, ~]', "[yes]", r"line 3, field labels: "),
        ("{text}", "no field", r"line 4, field prompt: has to contain \{text\} exactly once"),
        ("{text}", "{text} {text}", r"line 4, field prompt: has to contain \{text\} exactly once"),
        ("{text}", "{{ text }} {text}", r"line 4, field prompt: .*template language would run"),
        ("{text}", "{% if 1 %} {text}", r"line 4, field prompt: .*template language would run"),
        ("{text}", "{text} {name}", r"line 4, field prompt: holds '\{name\}', but only"),
        ("{text}", "{text.__class__} {text}", r"line 4, field prompt: holds '\{text.__class__\}'"),
        ("|-", "|", r"line 4, field prompt: starts or ends with white space.*`\|-`"),
        ("  Answer:\n", "", r"line 4, field prompt: ends with the line of \{text\}"),
        ("path: tickets.csv", "", r"line 7, field data: needs either path.* or hub"),
        ("path: tickets.csv", "path: a, hub: b/c", r"line 7, field data: needs either path"),
        ("path: tickets.csv", "path: a, url: b", r"line 7, field data.url: Extra inputs"),
        ("text: message", "text: queue", r"line 8, field columns: the label column is the text"),
        ("  text: message\n", "", r"line 8, field columns.text: Field required"),
        ("  text: message", "  text: m\n  text: n", r"line 10, field text: is given twice"),
        ("title:", "ordinal: perhaps\ntitle:", r"line 2, field ordinal: "),
        (
            "title:",
            "normalise: words\ntitle:",
            r"line 2, field normalise: .*'none' or 'characters'",
        ),
        ("title:", "split: {test: 0.7, validation: 0.4}\ntitle:", r"line 2, field split: .*leave"),
        ("title:", "split: {test: nan}\ntitle:", r"line 2, field split.test: "),
        ("title:", "values: {a: b}\ntitle:", r"values: 'a' stands for 'b'"),
        ("title:", "colour: red\ntitle:", r"line 2, field colour: Extra inputs"),
        ("title:", "title: [\ntitle:", r"line \d+: is not YAML"),
    ],
)
def test_says_what_is_wrong_where(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in TASK
    with pytest.raises(UserError, match=said) as error:
        task_of(tmp_path, TASK.replace(old, new))
    assert str(error.value).startswith(str(tmp_path / "task.yml"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a folder; name the task.yml in it"),
        (lambda path: path.write_bytes(b""), "is not a task file"),
        (lambda path: path.write_bytes(b"- a\n"), "is not a task file"),
        (lambda path: path.write_bytes(b"name: \xff\n"), "is not YAML"),
    ],
)
def test_says_that_it_is_no_task(tmp_path: Path, make: Any, said: str) -> None:
    make(tmp_path / "task.yml")
    with pytest.raises(UserError, match=said):
        read_task(tmp_path / "task.yml")


def test_nothing_of_a_file_is_run(tmp_path: Path) -> None:
    label = '!!python/object/apply:os.mkdir ["made"]'
    with pytest.raises(UserError, match="field labels"):
        task_of(tmp_path, TASK.replace('"no"', label))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["task.yml"]


def is_label(text: str) -> bool:
    return (
        text == text.strip() != "" and len(text.splitlines()) == 1 and neutralise(text) == (text, 0)
    )


# Characters that mean something in YAML, Markdown, shells and templates, and any other text.
NASTY = st.sampled_from(
    [
        *(*LABELS, "- a", "# a", "a: b", "'", '"', "*a", "&a", "!a", "%a", "@a@", "@dest@", "a #b"),
        *("{text}", "{{ a }}", "null", "yes", "0x1f", "1e3", "2024-01-01", "=", "<<", "?", "[a]"),
        *("\\n", "`a`", "a|b", "$HOME", "\x07bell", "\x7f", "a\ufeffb", "a\u200fb", "a\u00adb"),
    ]
)
LABEL = (NASTY | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)).filter(is_label)


@settings(max_examples=60)
@given(
    labels=st.lists(LABEL, min_size=2, max_size=6, unique=True),
    columns=st.lists(LABEL, min_size=5, max_size=5, unique=True),
    ordinal=st.booleans(),
)
def test_labels_and_columns_survive_being_written(
    labels: list[str], columns: list[str], ordinal: bool
) -> None:
    names = dict(zip(("text", "label", "explanation", "id", "group"), columns, strict=True))
    with TemporaryDirectory() as folder:
        table = Path(folder) / f"{'a b' * 3}'.csv"
        task = Task.model_validate(
            {
                "name": "mine",
                "title": labels[0],
                "labels": labels,
                "label_end": default_end(labels),
                "ordinal": ordinal,
                "prompt": default_prompt(columns[1], labels, ordinal),
                "data": {"path": table},
                "columns": names,
                # The data's values are tested too; labels that look the same are not.
                "values": dict.fromkeys(columns, labels[-1]),
                "look_alikes": "keep",
            }
        )
        new = NewTask(task, Path(folder) / "deep" / "mine", "base", rows=9, explained=9)
        write_task(new)
        found = read_task(new.dest / "task.yml")
        assert found.data.path is not None
        assert found.data.path.resolve() == table.resolve()
        assert found.model_copy(update={"data": task.data}) == task
        lora = yaml.safe_load((new.dest / "mine.lora.yml").read_text(encoding="utf-8"))
        assert lora["base_model"] == "base"
        shutil.rmtree(new.dest)


@given(labels=st.lists(LABEL, min_size=2, max_size=50, unique=True), column=LABEL)
def test_a_default_prompt_is_one(labels: list[str], column: str) -> None:
    for ordinal in (True, False):
        assert check_prompt(default_prompt(column, labels, ordinal))


def test_no_label_is_the_beginning_of_another_as_written() -> None:
    assert default_end(["billing", "refund"]) == ""
    assert default_end(["billing", "billing dispute"]) == "."
    assert default_end(["billing", "billing. now"]) == ";"
    with pytest.raises(UserError, match="with every end marker"):
        default_end(["a", *(f"a{mark}x" for mark in ".;|#")])
    with pytest.raises(ValidationError, match="'a' is a prefix of 'ab'"):
        Declaration(labels=("a", "ab"), ordinal=False, datasets={}, axes={})
