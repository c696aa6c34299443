"""Placeholders in paths, and the name of a config in messages."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest

from regreason_plugin.core.errors import UserError
from regreason_plugin.train.data_files import fill_placeholders
from regreason_plugin.train.findings import config_name


def filled(**values: Any) -> dict[str, Any]:
    fill_placeholders(values, "x.yml")
    return values


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ("models/{arm}", "models/shuffled"),
        ("models/{arm}/sweep0004", "models/shuffled"),
        ("models/{arm}-{seed}/sweep0012", "models/shuffled-0"),
        ("models/{regreason_arm}/{learning_rate}", "models/shuffled/0.001"),
        ("models/sweep0004", "models/sweep0004"),
        ("models/{arm}/sweep", "models/shuffled/sweep"),
    ],
)
def test_output_dir(given: str, output: str) -> None:
    values = filled(output_dir=given, regreason_arm="shuffled", seed=0, learning_rate=0.001)
    assert values["output_dir"] == output


def test_every_data_path() -> None:
    values = filled(
        regreason_arm="filler",
        datasets=[{"path": "a/{arm}.jsonl"}, {"path": "b/{arm}.jsonl"}],
        test_datasets=[{"path": "c/{arm}.jsonl"}],
    )
    assert [entry["path"] for entry in values["datasets"]] == ["a/filler.jsonl", "b/filler.jsonl"]
    assert values["test_datasets"] == [{"path": "c/filler.jsonl"}]


def test_a_placeholder_without_a_value() -> None:
    with pytest.raises(
        UserError, match=r"x.yml, field output_dir: \{seed\} has no value; set the key seed"
    ):
        filled(output_dir="models/{seed}")


def test_a_sweeps_temporary_config_is_named_by_its_run() -> None:
    temporary = f"{tempfile.gettempdir()}/tmpx1.yaml"
    run = {"axolotl_config_path": temporary, "output_dir": "models/{arm}/sweep0002"}
    assert config_name(run) == "run sweep0002 of the sweep"
    assert config_name({**run, "output_dir": "models/{arm}"}) == temporary
    assert config_name({**run, "axolotl_config_path": "my.yml"}) == "my.yml"
