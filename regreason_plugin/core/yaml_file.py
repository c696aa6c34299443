"""A user's YAML file: read with the line of every field, and mistakes as one sentence.

PyYAML reads it, as Axolotl and lm-eval do: another reader would take ``no`` or ``1e3`` for
something else than they do.
"""

from __future__ import annotations

from collections.abc import Sequence
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
            if isinstance(node, yaml.MappingNode):
                pairs = [pair for pair in node.value if pair[0].value == part]
                if not pairs:
                    break
                key, node = pairs[0]
                number = key.start_mark.line
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                node = node.value[part]
                number = node.start_mark.line
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
