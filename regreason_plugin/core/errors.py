"""The one error that stands for a user's mistake."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path


class UserError(Exception):
    """An input is wrong; the message says where and what to do.

    The command line prints it as one line on standard error and exits with 2.
    Everything else that is raised is a bug of ours and keeps its traceback.

    Args:
        message: One sentence: what is wrong and what to do about it.
        path: The file it stands in.
        line: Its line, counted from 1.
        field: The field, as a dotted path.
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
        # One line whatever the message quotes: a log reader sees it whole.
        super().__init__(" ".join(text.split()))


_passed_on: ContextVar[bool] = ContextVar("_passed_on", default=False)


@contextmanager
def user_errors_passed_on() -> Iterator[None]:
    """Within it, `stop_on_user_error` stops nothing: who checks a config goes on."""
    token = _passed_on.set(True)
    try:
        yield
    finally:
        _passed_on.reset(token)


@contextmanager
def stop_on_user_error(*, of_one_rank: bool = False) -> Iterator[None]:
    """End the process on a `UserError`: one line on standard error, exit code 2.

    For what Axolotl and lm-eval call, which would print the traceback of any exception
    but SystemExit. Also a decorator: ``@stop_on_user_error()``.

    Args:
        of_one_rank: The mistake shows in a document that only one of several processes
            has, so that one says it. Otherwise all have made it, and the first says it.
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
    """Say something once a process on standard error; of several processes the first says it."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"regreason: {text}", file=sys.stderr, flush=True)


def nearest(word: str, known: list[str]) -> str:
    """A hint naming the known words, the most similar first.

    Returns:
        ``did you mean 'x'?`` where one is close, else ``known: a, b, c``.
    """
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)
