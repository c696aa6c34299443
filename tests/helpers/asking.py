"""Helpers for `regreason annotate`: a folder to rate, and processes to kill."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from helpers.forked import Forked, ForkServer

FILES = ("ratings.jsonl", "ratings.about.json")


class Workplace:
    """A folder with conversations and a config that names a server.

    Args:
        folder: The folder.
        url: Address of the server.
        conversations: Number of conversations.
        raters: Keys of each rater in addition to name, model and base_url.
        more: Other keys of the config.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        conversations: int,
        raters: list[dict[str, Any]],
        **more: Any,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "annotate.yml"
        self.store = folder / "ratings.calls.db"
        self.ratings = folder / "ratings.jsonl"
        conversations_file = folder / "conversations.jsonl"
        write_conversations(conversations_file, conversations)
        self.keys: dict[str, Any] = {
            "conversations": [str(conversations_file)],
            "out": str(self.ratings),
            "raters": [
                {"name": f"rater-{n}", "model": f"model-{n}", "base_url": url, **rater}
                for n, rater in enumerate(raters, start=1)
            ],
            **more,
        }
        self.write()

    def write(self, **changed: Any) -> Path:
        """Write the config again with some keys changed."""
        self.keys.update(changed)
        self.config.write_text(yaml.safe_dump(self.keys), encoding="utf-8")
        return self.config

    def files(self) -> list[bytes]:
        """The contents of the two output files."""
        return [(self.folder / name).read_bytes() for name in FILES]

    def about(self) -> dict[str, Any]:
        """The content of the file about the ratings."""
        return json.loads((self.folder / FILES[1]).read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the ratings file."""
        lines = self.ratings.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def calls(self, columns: str = "axis, state, attempts") -> list[tuple[Any, ...]]:
        """Some columns of the store, read the way another program would."""
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as database:
            return database.execute(f"SELECT {columns} FROM calls ORDER BY 1, 2, 3").fetchall()

    def leftovers(self) -> list[str]:
        """Files that should be gone: locks, partials, and SQLite's files after a crash."""
        kept = {*FILES, "annotate.yml", "ratings.calls.db", "conversations.jsonl"}
        return sorted(path.name for path in self.folder.iterdir() if path.name not in kept)

    def prompts(self) -> dict[tuple[str, ...], str]:
        """Every call's prompt by the call's key, with those for merging; all must be answered."""
        from regreason_plugin.annotate.config import read_config
        from regreason_plugin.annotate.run import Annotation
        from regreason_plugin.annotate.store import Store

        with Store(self.store) as store:
            work = Annotation(read_config(self.config), store)
            lists = chain(*(lane.questions() for lane in work.lanes()), work.merge_questions())
            return {tuple(one.key): one.prompt() for some in lists for one in some}


def dump(store: Path) -> list[str]:
    """Every row of a store without time and worker, sorted, so that two stores can be compared."""
    columns = (
        "conversation, rater, axis, prompt, prompt_sha256, model, sampling, id, state, score, "
        "explanation, answer, attempts, prompt_tokens, answer_tokens, cost, reserved"
    )
    # A read-only connection would leave SQLite's own files behind.
    with closing(sqlite3.connect(store)) as database:
        rows = database.execute(f"SELECT {columns} FROM calls ORDER BY 1, 2, 3, 4, 5, 6, 7")
        return [json.dumps(row) for row in rows]


def write_talk(path: Path, request: str = "Is it far?", answer: str = "Not at all.") -> None:
    """Write a file with one conversation."""
    from regreason_plugin.core.jsonl import dumps

    turns = [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
    talk = {"id": "one", "dataset": "coqa", "group": "g", "conversation": turns}
    path.write_text(dumps(talk) + "\n", encoding="utf-8")


def write_conversations(path: Path, count: int) -> None:
    """Write conversations of the built-in benchmark, all with different texts."""
    from regreason_plugin.annotate.calls import conversation_key
    from regreason_plugin.core.jsonl import write_records
    from regreason_plugin.data.mini import mini_conversations

    seen: set[str] = set()
    found = []
    for conversation in mini_conversations(0, 30 + count):
        if len(found) == count:
            break
        if (key := conversation_key(conversation)) not in seen:
            seen.add(key)
            found.append(conversation)
    assert len(found) == count
    write_records(path, found)


@cache
def forks() -> ForkServer:
    """The fork server with the modules of `regreason annotate`; it ends with this process."""
    modules = ("aiohttp", "openai.resources.chat.completions", "regreason_plugin.annotate.run")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    server = ForkServer(*modules, "regreason_plugin.cli.annotate", environment=environment)
    atexit.register(server.close)
    return server


def start_regreason(*arguments: object, log: Path) -> Forked:
    """Start `regreason ARGUMENTS`; its output is appended to a log."""
    with log.open("ab") as stream:
        return forks().start("regreason", *arguments, stdout=stream)


def run_regreason(*arguments: object, log: Path) -> int:
    """Run `regreason ARGUMENTS` and return its exit code."""
    return start_regreason(*arguments, log=log).wait()


def fresh(folder: Path) -> Path:
    """Empty a folder, or create it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
