"""The pages of the site that are generated: the commands, and the keys of the config files.

mkdocs calls `on_files` before it reads the pages (``hooks`` in mkdocs.yml).
"""

from __future__ import annotations

import argparse
import inspect
import re
import types
import typing
from typing import Any, get_args, get_origin

from griffe import Docstring, DocstringSectionAttributes, Parser
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from regreason_plugin.annotate.config import AnnotateConfig, ExplainConfig, MergeConfig
from regreason_plugin.annotate.server_rater import ServerRater
from regreason_plugin.cli import GROUPS, command_parser
from regreason_plugin.comparison.gate_file import GateFile, GateRule
from regreason_plugin.core.task_file import Columns, Data, SplitRule, Task
from regreason_plugin.study import study_file
from regreason_plugin.train.config_keys import RegReasonArgs

# A page's part for each file that a user writes: title, where the keys stand, their model.
_FILES: dict[str, tuple[str, dict[str, type[BaseModel]]]] = {
    "Axolotl config": (
        "The keys that the plugin adds to the YAML file of `axolotl train`. All other keys are "
        "Axolotl's own.",
        {"": RegReasonArgs},
    ),
    "task.yml": (
        "A task of your own, read by `regreason build`, `predict`, `explain` and the lm-eval task. "
        "`regreason task new` writes one with every key explained.",
        {"": Task, "data": Data, "columns": Columns, "split": SplitRule},
    ),
    "STUDY.yml": (
        "Read by `regreason study`.",
        {
            "": study_file.StudyFile,
            "data": study_file.Data,
            "conditions.NAME": study_file.Condition,
            "choose": study_file.Choice,
            "scoring": study_file.Scoring,
            "limits": study_file.Limits,
        },
    ),
    "annotate.yml": (
        "Read by `regreason annotate`. `regreason fetch prompts` writes one with every key "
        "explained.",
        {"": AnnotateConfig, "raters[]": ServerRater, "merge": MergeConfig},
    ),
    "explain.yml": ("Read by `regreason explain`.", {"": ExplainConfig}),
    "gate.yml": (
        "Read by `regreason gate --rules`, for any tasks of lm_eval.",
        {"": GateFile, "rules[]": GateRule},
    ),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of docs/."""
    pages = {"reference/commands.md": commands_page(), "reference/config_keys.md": keys_page()}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def commands_page() -> str:
    """Every command: its help, its usage and its arguments, from the parser."""
    parser = command_parser()
    (subparsers,) = (
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    lines = [
        "# Commands",
        "",
        "Generated from the parser that reads the command line. "
        "[Exit codes](exit_codes.md) are the same for every command.",
    ]
    for group, commands in GROUPS.items():
        lines += ["", f"## {group.capitalize()}"]
        for name, (_, run) in commands.items():
            command = subparsers.choices[name]
            lines += ["", f"### regreason {name}", "", *_help(inspect.getdoc(run) or "")]
            # What `eval` takes are lm-eval's own flags.
            if name != "eval":
                lines += ["", "```text", _usage(command), "```", "", *_arguments(command)]
    return "\n".join(lines) + "\n"


def _help(text: str) -> list[str]:
    """A command's help as Markdown: paragraphs, and the example as a block."""
    said, _, example = text.partition("\nExample:\n")
    lines = said.strip().splitlines()
    if example:
        lines += ["", "```bash", *inspect.cleandoc("\n" + example).splitlines(), "```"]
    return lines


def _usage(command: argparse.ArgumentParser) -> str:
    return re.sub(r"^usage: ", "", command.format_usage().strip()).replace("\n       ", "\n")


def _arguments(command: argparse.ArgumentParser) -> list[str]:
    rows = []
    for action in command._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = action.metavar or ",".join(map(str, action.choices or ()))
        # (The value of an option with two of them is a tuple.)
        values = value if isinstance(value, tuple) else (value,)
        shown = " ".join([*action.option_strings, *values]).strip()
        required = "**Required.** " if action.required and action.option_strings else ""
        rows.append(f"| `{_cell(shown)}` | {required}{_cell(_sentence(action.help or ''))} |")
    return ["| argument | meaning |", "| --- | --- |", *rows] if rows else []


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def keys_page() -> str:
    """Every key of the files that a user writes, from the models that validate them."""
    lines = ["# Config keys", "", "Generated from the models that validate the files."]
    for title, (about, models) in _FILES.items():
        lines += ["", f"## {title}", "", about]
        for where, model in models.items():
            if where:
                lines += ["", f"### `{where}` in {title}", "", _summary(model)]
            lines += ["", *_keys(model)]
    return "\n".join(lines) + "\n"


def _summary(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").partition("\n\n")[0].replace("\n", " ")


def _keys(model: type[BaseModel]) -> list[str]:
    meanings = _meanings(model)
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "required" if default is PydanticUndefined else f"`{_default(default)}`"
        kind = _cell(_type(field.annotation))
        lines.append(f"| `{name}` | {kind} | {_cell(shown)} | {_cell(meanings[name])} |")
    return lines


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """What a field's description, or the docstring's Attributes section, says of each key.

    Raises:
        KeyError: A key has neither: the page is made of them.
    """
    sections = Docstring(inspect.getdoc(model) or "").parse(Parser.google, warnings=False)
    said = {
        attribute.name: attribute.description.replace("\n", " ")
        for section in sections
        if isinstance(section, DocstringSectionAttributes)
        for attribute in section.value
    }
    said |= {
        name: field.description for name, field in model.model_fields.items() if field.description
    }
    if missing := model.model_fields.keys() - said.keys():
        raise KeyError(f"{model.__name__} does not say what {sorted(missing)} are")
    return said


def _type(annotation: Any) -> str:
    """A type in the words of a YAML file."""
    words = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    if annotation in words:
        return words[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(one) for one in arguments if one is not type(None))
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}" if arguments else "list"
    if origin is dict or annotation is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "block"
    return "path" if getattr(annotation, "__name__", "") == "Path" else "any"


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "see below"
    if value is None or value == {} or value == ():
        return "none"
    if value == "":
        return "empty"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
