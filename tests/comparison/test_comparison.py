"""The format of comparison.json: writing, reading and schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.comparison_example import example

from regreason_plugin.comparison.comparison import Comparison, load_comparison, save
from regreason_plugin.core.errors import UserError

SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "comparison.schema.json"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    comparison = example()
    save(comparison, tmp_path / "comparison.json")
    assert load_comparison(tmp_path / "comparison.json") == comparison


def test_another_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "comparison.json"
    save(example(), file)
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, "format": 3}), encoding="utf-8")
    with pytest.raises(UserError, match="is not a comparison of format 9"):
        load_comparison(file)


def test_the_schema_in_the_docs_is_of_this_form() -> None:
    # If this fails: write the schema anew; changed fields also need a new FORMAT.
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == Comparison.model_json_schema()
