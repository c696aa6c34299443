"""`UserError`, the error for a user's mistake, and the messages on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path


class UserError(Exception):
    """An input is wrong; the message says what is wrong, where, and what to do.

    The command line prints the message as one line on standard error and exits with code 2. Any
    other exception is a bug of RegReason and keeps its traceback.

    Args:
        message: One sentence: what is wrong and what to do about it.
        path: The file that holds the mistake.
        line: The line of the mistake, counted from 1.
        field: The field that holds the mistake, as a dotted path.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        where = [str(path)] if path is not None else []
        if line is not None:
            where.append(f"line {line}")
        if field:
            where.append(f"field {field}")
        place = ", ".join(where)
        text = f"{place}: {message}" if place else message
        # Always one line, even if the message quotes several, so that log readers see all of it.
        super().__init__(" ".join(text.split()))


_passed_on: ContextVar[bool] = ContextVar("_passed_on", default=False)


@contextmanager
def raising_user_errors() -> Iterator[None]:
    """Within the block, `stop_on_user_error` raises the `UserError` and the process goes on.

    `regreason check` and `Classifier` need this, because they handle the error themselves.
    """
    token = _passed_on.set(True)
    try:
        yield
    finally:
        _passed_on.reset(token)


@contextmanager
def stop_on_user_error(*, of_one_rank: bool = False) -> Iterator[None]:
    """End the process on a `UserError`, with one line on standard error and exit code 2.

    It wraps functions that Axolotl and lm-eval call, because these print the traceback of any
    exception but SystemExit. It is also a decorator: ``@stop_on_user_error()``.

    Args:
        of_one_rank: True if only one of several processes has read the wrong document; this
            process then prints the message. Otherwise all processes meet the mistake, and the
            first prints the message.
    """
    try:
        yield
    except UserError as error:
        if _passed_on.get():
            raise
        if of_one_rank or os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"regreason: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None


@lru_cache(maxsize=64)
def say_once(text: str) -> None:
    """Print a message on standard error once; of several processes, only the first prints it."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"regreason: {text}", file=sys.stderr, flush=True)


def nearest(word: str, known: list[str]) -> str:
    """A hint for an unknown word.

    Returns:
        ``did you mean 'x'?`` if a known word is similar, otherwise ``known: a, b, c``.
    """
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)
