"""Users' YAML files, read with the line of every field; mistakes become `UserError`.

PyYAML reads the files, because Axolotl and lm-eval use it too. Another reader would interpret
values such as ``no`` or ``1e3`` differently.
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
    """The content of a YAML file with the lines of its fields.

    Attributes:
        value: The content as mappings, lists and scalars.
        root: The same content as YAML nodes, which know their lines; None for an empty file.
    """

    value: Any
    root: yaml.Node | None

    def line(self, field: Sequence[str | int]) -> int:
        """The line of a field, counted from 1; for a missing field, the line of its mapping."""
        node, number = self.root, self.root.start_mark.line if self.root else 0
        for part in field:
            if not (child := _child(node, part)):
                break
            number, node = child
        return int(number) + 1


def read_yaml(
    path: Path, *, as_text: bool = False, folder_advice: str = "name a file in it"
) -> YamlFile:
    """Read and parse a file.

    Args:
        path: The file.
        as_text: Whether scalars stay text, so that a label such as ``no`` needs no quotes.
        folder_advice: End of the message if ``path`` is a folder.

    Raises:
        UserError: The file is missing, is a folder, is not YAML, or has a key twice in one
            mapping. The message does not quote the line, which may hold a server's key.
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
        raise UserError(f"is not YAML: {error}", path=path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it has characters that YAML does not allow"
        line = mark.line + 1 if mark else None
        raise UserError(f"is not YAML: {problem}", path=path, line=line) from None


def with_values(text: str, values: Mapping[Sequence[str | int], str]) -> str:
    """Replace the values of some fields in a YAML text; comments and all other text stay.

    Args:
        text: Content of a YAML file.
        values: New scalars in YAML's notation, by field.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    changes = []
    for field, value in values.items():
        node = root
        for part in field:
            child = _child(node, part)
            assert child, f"there is no {field}"
            node = child[1]
        assert node
        changes.append((node.start_mark.index, node.end_mark.index, value))
    for start, end, value in sorted(changes, reverse=True):
        space = "" if text[start - 1].isspace() else " "  # an empty value begins at the colon
        text = f"{text[:start]}{space}{value}{text[end:]}"
    return text


class _BlockDumper(yaml.SafeDumper):
    """A dumper that writes texts of several lines as blocks."""


_BlockDumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def dump_yaml(keys: Mapping[str, Any]) -> str:
    """YAML of keys and values in their order, with long lines unbroken and texts as blocks."""
    return yaml.dump(
        dict(keys), Dumper=_BlockDumper, allow_unicode=True, sort_keys=False, width=10**9
    )


def _child(node: yaml.Node | None, part: str | int) -> tuple[int, yaml.Node] | None:
    """The line (counted from 0) and the node of a mapping's key or a list's index.

    Returns:
        None if the mapping lacks the key, or ``node`` is neither a mapping nor a list.
    """
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        return node.value[part].start_mark.line, node.value[part]
    return None


def _refuse_twice(node: yaml.Node | None, path: Path) -> None:
    """Check that no mapping has a key twice; PyYAML would silently keep the last value.

    Raises:
        UserError: A mapping has a key twice.
    """
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
                    f"is given twice (also on line {lines[key.value]}), and only the last would "
                    "count; remove one",
                    path=path,
                    line=line,
                    field=key.value,
                )
            lines[key.value] = line
