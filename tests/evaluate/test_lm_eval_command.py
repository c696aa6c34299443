"""Scoring commands from the builder, as a shell and lm-eval's parser read them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lm_eval._cli import HarnessCLI

from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand


def as_a_shell_reads(line: str, **variables: str) -> list[str]:
    """The words of a line after bash has expanded its variables."""
    show = "import sys; print('\\0'.join(sys.argv[1:]), end='')"
    assignments = [f"{name}={value}" for name, value in variables.items()]
    done = subprocess.run(
        [
            "env",
            *assignments,
            "bash",
            "-euc",
            f'show() {{ "$PYTHON" -c "$SHOW" "$@"; }}; show {line}',
        ],
        env={"PYTHON": sys.executable, "SHOW": show},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("\0")


@pytest.mark.parametrize(
    "model_args",
    [
        {"pretrained": "a/base", "peft": "runs/x", "dtype": "float32", "load_in_4bit": True},
        {"pretrained": "a,b", "dtype": "auto"},  # in a pair, a comma would end the value
        {"pretrained": "2024", "revision": "1e3"},  # in pairs, these would be parsed as numbers
        {"pretrained": "true"},
        {"pretrained": "it's $HOME", "probe": "output+label", "renyi_alpha": 2.0},
        {"pretrained": "a", "bnb": {"nested": [1]}},
    ],
)
def test_lm_eval_reads_what_was_meant(
    model_args: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = LmEvalCommand(
        program=("lm_eval",),
        model="hf",
        model_args=model_args,
        tasks=["regreason_*", "other"],
        data_dir="it's/DATA",
        limit=5,
        shots=2,
        include_path=Path("own tasks"),
        chat_template=True,
        device="cpu",
        output_path="out put",
    )
    for line in (command.line(), command.line(width=60)):
        words = as_a_shell_reads(line)
        assert words == command.words()
    assert len(command.line(width=60).splitlines()) > 3
    monkeypatch.setattr(sys, "argv", command.words())
    read = HarnessCLI().parse_args()
    assert read.model == "hf"
    assert read.model_args == model_args
    assert read.tasks in ("regreason_*,other", ["regreason_*,other"], ["regreason_*", "other"])
    assert read.metadata == {"data_dir": "it's/DATA"}
    assert (read.limit, read.num_fewshot, read.device) == (5, 2, "cpu")
    assert (read.include_path, read.output_path) == ("own tasks", "out put")
    assert read.log_samples
    assert read.apply_chat_template


@pytest.mark.parametrize(
    ("data_dir", "split", "metadata"),
    [
        ("DATA", "train", {"data_dir": "DATA", "split": "train"}),
        ("DATA", "test", {"data_dir": "DATA"}),
        (None, "validation", {"split": "validation"}),
        (None, "test", None),
    ],
)
def test_rows_of_another_split_are_asked_for(
    data_dir: str | None,
    split: Any,
    metadata: dict[str, str] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = LmEvalCommand(
        program=("lm_eval",), model_args={"pretrained": "a"}, tasks=["t"], data_dir=data_dir,
        split=split,
    )  # fmt: skip
    monkeypatch.setattr(sys, "argv", command.words())
    assert (HarnessCLI().parse_args().metadata or None) == metadata


def test_a_variable_stays_one_and_all_else_is_literal() -> None:
    command = LmEvalCommand(
        model_args={"pretrained": "$base", "peft": "my runs/$run", "dtype": "float32"},
        tasks=["t"],
        output_path="$run/results",
    )
    words = as_a_shell_reads(command.line(variable="run"), run="a b", base="wrong")
    assert words[words.index("--model_args") + 1] == (
        "pretrained=$base,peft=my runs/a b,dtype=float32"
    )
    assert words[-1] == "a b/results"
