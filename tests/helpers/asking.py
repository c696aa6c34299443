"""What the tests of `regreason annotate` share: a folder to rate, and processes to kill.

python annotation_help.py       what `Warmed` starts: forks a command for each line it reads
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

FILES = ("ratings.jsonl", "ratings.about.json")


class Workplace:
    """A folder with conversations and a config that names a server.

    Args:
        folder: Where it is.
        url: The server's.
        conversations: How many.
        raters: Keys of each rater beside name, model and base_url.
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
        """Write the config again, with some keys changed."""
        self.keys.update(changed)
        self.config.write_text(yaml.safe_dump(self.keys), encoding="utf-8")
        return self.config

    def files(self) -> list[bytes]:
        """The two files that it comes to."""
        return [(self.folder / name).read_bytes() for name in FILES]

    def about(self) -> dict[str, Any]:
        """What is said of the ratings."""
        return json.loads((self.folder / FILES[1]).read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    def rows(self) -> list[dict[str, Any]]:
        """The ratings."""
        lines = self.ratings.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def calls(self, columns: str = "axis, state, attempts") -> list[tuple[Any, ...]]:
        """Some columns of the store, read as another program would."""
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as database:
            return database.execute(f"SELECT {columns} FROM calls ORDER BY 1, 2, 3").fetchall()

    def leftovers(self) -> list[str]:
        """Files that should have gone: locks, halves, what SQLite leaves after a crash."""
        kept = {*FILES, "annotate.yml", "ratings.calls.db", "conversations.jsonl"}
        return sorted(path.name for path in self.folder.iterdir() if path.name not in kept)

    def prompts(self) -> dict[tuple[str, ...], str]:
        """Every call's prompt by the call's key, those of merging too, once all is answered."""
        from regreason_plugin.annotate.config import read_config
        from regreason_plugin.annotate.run import Annotation
        from regreason_plugin.annotate.store import Store

        with Store(self.store) as store:
            work = Annotation(read_config(self.config), store)
            lists = chain(*(lane.questions() for lane in work.lanes()), work.merge_questions())
            return {tuple(one.key): one.prompt() for some in lists for one in some}


def dump(store: Path) -> list[str]:
    """Every row of a store but its time and worker, sorted: for comparing two stores."""
    columns = (
        "conversation, rater, axis, prompt, prompt_sha256, model, sampling, id, state, score, "
        "explanation, answer, attempts, prompt_tokens, answer_tokens, cost, reserved"
    )
    # (A read-only connection would leave SQLite's own files behind.)
    with closing(sqlite3.connect(store)) as database:
        rows = database.execute(f"SELECT {columns} FROM calls ORDER BY 1, 2, 3, 4, 5, 6, 7")
        return [json.dumps(row) for row in rows]


def write_talk(path: Path, request: str = "Is it far?", answer: str = "Not at all.") -> None:
    """A file of one conversation."""
    from regreason_plugin.core.jsonl import dumps

    turns = [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
    talk = {"id": "one", "dataset": "coqa", "group": "g", "conversation": turns}
    path.write_text(dumps(talk) + "\n", encoding="utf-8")


def write_conversations(path: Path, count: int) -> None:
    """Some conversations of the built-in benchmark, no two with the same text."""
    from regreason_plugin.annotate.store import conversation_key
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


class Warmed:
    """A process that has imported everything, and forks one that runs a command.

    Each is a process of its own, as a fresh command would be, without the seconds of its imports.
    """

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._answer()

    def start(self, *arguments: object, log: Path) -> int:
        """Start `regreason ARGUMENTS`; its process id."""
        return int(self._say(["start", [str(one) for one in arguments], str(log)]))

    def wait(self, pid: int) -> int:
        """Its exit code; minus the signal's number where one has ended it."""
        return int(self._say(["wait", pid]))

    def ended(self, pid: int) -> bool:
        """Whether it has ended by itself; `wait` then still tells how."""
        try:
            info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # a grandchild: ask the system
            return _is_zombie(pid)
        return info is not None

    def kill(self, pid: int) -> int:
        """Kill it, and wait; 0 where it had ended well before."""
        os.kill(pid, signal.SIGKILL)
        return self.wait(pid)

    def run(self, *arguments: object, log: Path) -> int:
        """Start and wait."""
        return self.wait(self.start(*arguments, log=log))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _say(self, message: list[Any]) -> str:
        assert self._process.stdin is not None
        print(json.dumps(message), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def warmed() -> Iterator[Warmed]:
    """One, ended with the block."""
    process = Warmed()
    try:
        yield process
    finally:
        process.close()


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _is_zombie(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return status.rpartition(")")[2].split()[0] == "Z"


def _main() -> None:
    # What the command imports on its way; nothing here may start a thread.
    import aiohttp  # noqa: F401
    import openai.resources.chat.completions  # noqa: F401

    import regreason_plugin.annotate.run
    import regreason_plugin.cli.annotate  # noqa: F401
    from regreason_plugin.cli import main

    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        what, argument, *more = json.loads(line)
        if what == "wait":
            print(os.waitstatus_to_exitcode(os.waitpid(argument, 0)[1]), flush=True)
            continue
        child = os.fork()
        if child == 0:
            _child(main, argument, Path(more[0]))
        print(child, flush=True)


def _child(main: Any, arguments: list[str], log: Path) -> None:
    os.close(0)
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    code = 1
    try:
        code = main(arguments)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _main()
