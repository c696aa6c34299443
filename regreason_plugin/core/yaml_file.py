"""A user's YAML file: read with the line of every field, and mistakes as one sentence.

PyYAML reads it, as Axolotl and lm-eval do: another reader would take ``no`` or ``1e3`` for
something else than they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from regreason_plugin.core.errors import UserError


@dataclass(frozen=True)
class YamlFile:
    """What a file holds, and where.

    Attributes:
        value: Mappings, lists and scalars.
        root: The same with lines; None for an empty file.
    """

    value: Any
    root: yaml.Node | None

    def line(self, field: Sequence[str | int]) -> int:
        """In which line a field stands, from 1; one that is missing, where its mapping starts."""
        node, number = self.root, self.root.start_mark.line if self.root else 0
        for part in field:
            if not (found := _child(node, part)):
                break
            number, node = found
        return int(number) + 1


def read_yaml(
    path: Path, *, as_text: bool = False, folder_advice: str = "name a file in it"
) -> YamlFile:
    """Read and parse a file.

    Args:
        path: The file.
        as_text: Scalars stay as they are written, so that a label ``no`` needs no quotes.
        folder_advice: What to do where ``path`` is a folder.

    Raises:
        UserError: It is not there, is a folder, is no YAML, or has a key twice; without the line
            itself, in which a key of a server may stand.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        loader = (yaml.BaseLoader if as_text else yaml.SafeLoader)(text)
        root = loader.get_single_node()
        _refuse_twice(root, path)
        return YamlFile(loader.construct_document(root) if root is not None else None, root)
    except FileNotFoundError:
        raise UserError("no such file", path=path) from None
    except IsADirectoryError:
        raise UserError(f"is a folder; {folder_advice}", path=path) from None
    except UnicodeDecodeError as error:
        raise UserError(f"is no YAML: {error}", path=path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it has signs that YAML does not know"
        line = mark.line + 1 if mark else None
        raise UserError(f"is no YAML: {problem}", path=path, line=line) from None


def with_values(text: str, values: Mapping[Sequence[str | int], str]) -> str:
    """A YAML text with other values in some fields; its comments and all else stay.

    Args:
        text: Of a file.
        values: Scalars as YAML writes them, by field.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    places = []
    for field, value in values.items():
        node = root
        for part in field:
            found = _child(node, part)
            assert found, f"there is no {field}"
            node = found[1]
        assert node
        places.append((node.start_mark.index, node.end_mark.index, value))
    for start, end, value in sorted(places, reverse=True):
        space = "" if text[start - 1].isspace() else " "  # an empty value begins at its colon
        text = f"{text[:start]}{space}{value}{text[end:]}"
    return text


class _BlockDumper(yaml.SafeDumper):
    """Writes a text of several lines as a block."""


_BlockDumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def dump_yaml(keys: Mapping[str, Any]) -> str:
    """Keys with their values, in their order, as a reader likes to see them."""
    return yaml.dump(
        dict(keys), Dumper=_BlockDumper, allow_unicode=True, sort_keys=False, width=10**9
    )


def _child(node: yaml.Node | None, part: str | int) -> tuple[int, yaml.Node] | None:
    """What a mapping or a list has under a key or number: its line from 0, and its node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        return node.value[part].start_mark.line, node.value[part]
    return None


def _refuse_twice(node: yaml.Node | None, path: Path) -> None:
    """Refuse a key that stands twice in one mapping; YAML keeps the last without a word."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_twice(child, path)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            _refuse_twice(value, path)
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise UserError(
                    f"stands here twice (also line {lines[key.value]}), and only the last would "
                    "count; remove one",
                    path=path,
                    line=line,
                    field=key.value,
                )
            lines[key.value] = line
