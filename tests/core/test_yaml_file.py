"""A user's YAML file: the line of a field, keys that are given twice, replaced values."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.yaml_file import dump_yaml, read_yaml, with_values

TEXT = """\
# A comment.
seed: 1  # behind a value
empty:
data:
  - path: a/b.jsonl
    split: no
"""


def write(folder: Path, text: str) -> Path:
    (folder / "a.yml").write_text(text, encoding="utf-8")
    return folder / "a.yml"


def test_a_field_has_the_line_it_stands_in(tmp_path: Path) -> None:
    file = read_yaml(write(tmp_path, TEXT))
    assert file.value == {"seed": 1, "empty": None, "data": [{"path": "a/b.jsonl", "split": False}]}
    lines = {("seed",): 2, ("data",): 4, ("data", 0): 5, ("data", 0, "split"): 6}
    assert {field: file.line(field) for field in lines} == lines
    # A missing field has the line of its mapping.
    assert file.line(("data", 0, "type")) == 5
    assert read_yaml(write(tmp_path, "")).line(("a",)) == 1


def test_scalars_as_they_are_written(tmp_path: Path) -> None:
    value = read_yaml(write(tmp_path, TEXT), as_text=True).value
    assert (value["seed"], value["data"][0]["split"]) == ("1", "no")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", r"line 3, field a: is given twice \(also on line 1\)"),
        ("l:\n  - {a: 1}\n  - {a: 1, a: 2}\n", r"line 3, field a: is given twice"),
        ("a: [\n", "line 2: is not YAML: "),
        ("a: !!python/name:os.system\n", "line 1: is not YAML: "),
    ],
)
def test_what_is_wrong_and_where(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_yaml(write(tmp_path, text))


def test_values_take_the_place_of_others_and_nothing_else_changes() -> None:
    changed = with_values(TEXT, {("data", 0, "path"): "c", ("empty",): "x", ("seed",): "12345"})
    assert changed == (
        TEXT.replace("a/b.jsonl", "c")
        .replace("empty:", "empty: x")
        .replace("seed: 1", "seed: 12345")
    )


def test_a_text_of_several_lines_is_a_block() -> None:
    keys = {"one": "a: b", "prompt": "{text}\n\nAnswer:"}
    written = dump_yaml(keys)
    assert "prompt: |-\n  {text}\n" in written
    assert yaml.safe_load(written) == keys
