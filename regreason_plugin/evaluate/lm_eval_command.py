"""Builds the command that scores a model with lm-eval, as a list of words or as a shell line.

All commands come from here: those that the demo, the study and the end of a training run, the
flags that the baselines use inside their own process, and those that `regreason check`, a model
card and the README of a new task print.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regreason_plugin.core.splits import Split


@dataclass(frozen=True, kw_only=True)
class LmEvalCommand:
    """A command that scores one model on some tasks.

    Attributes:
        model_args: The values of ``--model_args`` by name, such as ``pretrained``, ``peft``,
            ``dtype`` or ``load_in_4bit``.
        tasks: Names of tasks and groups, and globs.
        data_dir: The data folder; None if the task files name one.
        split: The split whose rows are scored.
        program: The words before the flags.
        model: lm-eval's name of the kind of model.
        batch_size: Rows per batch, or ``auto``.
        device: The device, such as ``cpu``; None for lm-eval's choice.
        shots: Number of examples before each prompt.
        limit: Documents per task; None for all.
        include_path: A folder of further task files; None for none.
        chat_template: Put prompts into the model's chat template.
        output_path: The path of results and samples; None to write none.
    """

    model_args: Mapping[str, Any]
    tasks: Sequence[str]
    data_dir: Path | str | None = None
    split: Split = "test"
    program: Sequence[str] = ("regreason", "eval")
    model: str = "regreason-hf"
    batch_size: str = "auto"
    device: str | None = None
    shots: int = 0
    limit: int | None = None
    include_path: Path | str | None = None
    chat_template: bool = False
    output_path: Path | str | None = None

    def flags(self) -> list[str]:
        """The arguments after the program."""
        flags = ["--model", self.model, "--model_args", _model_args_text(self.model_args)]
        flags += ["--apply_chat_template"] * self.chat_template
        metadata = {} if self.data_dir is None else {"data_dir": str(self.data_dir)}
        if self.split != "test":
            metadata["split"] = self.split
        for flag, value in (
            ("--tasks", ",".join(self.tasks)),
            ("--include_path", self.include_path),
            ("--metadata", _json(metadata) if metadata else None),
            ("--num_fewshot", self.shots or None),
            ("--limit", self.limit),
            ("--batch_size", self.batch_size),
            ("--device", self.device),
        ):
            if value is not None:
                flags += [flag, str(value)]
        if self.output_path is not None:
            flags += ["--log_samples", "--output_path", str(self.output_path)]
        return flags

    def words(self) -> list[str]:
        """The program and the flags, one list item per word."""
        return [*self.program, *self.flags()]

    def line(self, *, variable: str | None = None, width: int | None = None) -> str:
        """The command as typed in a shell.

        Args:
            variable: The name of a shell variable that words contain as ``$NAME``, and that the
                shell is to expand; everything else is quoted.
            width: Characters per line; longer lines are broken before a flag. None for one line.
        """
        lines = [""]
        for word in self.words():
            quoted = _quoted(word, variable)
            if width is not None and word.startswith("--"):
                lines.append(quoted)
            else:
                lines[-1] += f" {quoted}" if lines[-1] else quoted
        joined = lines[:1]
        for part in lines[1:]:
            if len(joined[-1]) + len(part) + len("  \\") > (width or 0):
                joined.append(f"  {part}")
            else:
                joined[-1] += f" {part}"
        return " \\\n".join(joined)


def _model_args_text(arguments: Mapping[str, Any]) -> str:
    """``name=value`` pairs if lm-eval parses them to the same values, else a JSON object."""
    from lm_eval.utils import simple_parse_args_string

    pairs = ",".join(f"{name}={value}" for name, value in arguments.items())
    # lm-eval 0.4.13 splits pairs only at commas outside of quotes and brackets.
    plain = not re.search(r"""["'()[\]{}]""", pairs)
    return pairs if plain and simple_parse_args_string(pairs) == arguments else _json(arguments)


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False)


def _quoted(word: str, variable: str | None) -> str:
    if variable is None:
        return shlex.quote(word)
    literal = re.split(rf"\${variable}\b", word)
    return f'"${variable}"'.join(shlex.quote(text) if text else "" for text in literal)
