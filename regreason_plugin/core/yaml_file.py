"""Mistakes in a YAML file as one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from regreason_plugin.core.errors import UserError


@contextmanager
def told_in_one_sentence(path: Path, instead: str = "name a file in it") -> Iterator[None]:
    """Turn what goes wrong while a file is read and parsed into an error that names it.

    Args:
        path: The file.
        instead: What to do where it is a folder.

    Raises:
        UserError: It is not there, is a folder, or is no YAML; without the line itself, in which
            a key may stand.
    """
    try:
        yield
    except FileNotFoundError:
        raise UserError("no such file", path=path) from None
    except IsADirectoryError:
        raise UserError(f"is a folder; {instead}", path=path) from None
    except UnicodeDecodeError as error:
        raise UserError(f"is not YAML: {error}", path=path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "it has signs that YAML does not know"
        line = mark.line + 1 if mark else None
        raise UserError(f"is not YAML: {problem}", path=path, line=line) from None
