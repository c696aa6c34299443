"""Commands on a full disk: they print one sentence that names the file, and leave no partial file.

A limit on the size of files imitates a full disk without root: a write beyond the limit fails with
EFBIG at the same place at which a write to a full disk fails with ENOSPC.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.asking import write_conversations
from helpers.labelled_tables import write_scale
from helpers.rated_rows import make_rows
from helpers.raw_datasets import write_all
from helpers.results import draw_scores, write_results
from helpers.training_data import build_data

from regreason_plugin.annotate.calls import Call, CallKey, Outcome
from regreason_plugin.annotate.store import Store
from regreason_plugin.cli import main
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.paper import AXES, task_name

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "axolotl_configs" / "cpu" / "tiny-base")


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """A context in which no file can have more bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    bytecode = sys.dont_write_bytecode
    # Python would write a partial bytecode file for a module that is first imported here.
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        sys.dont_write_bytecode = bytecode
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _import() -> str:
    Path("in").mkdir()
    return f"import coqa --path {write_all(Path('in'), 40)['coqa']} --out out/c.jsonl"


def _annotate() -> str:
    write_conversations(Path("c.jsonl"), 30)
    Path("annotate.yml").write_text("conversations: [c.jsonl]\nout: out/ratings.jsonl\n")
    return "annotate annotate.yml"


def _aggregate() -> str:
    rows, _ = make_rows()
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "aggregate rows.jsonl --by mean --out out/ratings.jsonl"


def _build() -> str:
    build_data(Path("DATA"))
    return "build DATA.ratings.jsonl --out out/data"


def _own_task() -> str:
    write_scale(Path())
    arguments = "--data scale.parquet --text answer --label points --explanation reason"
    return f"task new scale {arguments} --model {TINY} --out"


def _task_new() -> str:
    return f"{_own_task()} out/scale"


def _build_task() -> str:
    assert main(f"{_own_task()} scale".split()) == 0
    return "build scale/task.yml --out out/data"


COQA = [task_name("coqa", axis) for axis in AXES]


def _results() -> str:
    for seed, name in enumerate("ab"):
        scores = {task: draw_scores(task, 60, 0.6, seed) for task in COQA}
        write_results(Path(name), scores)
    return "a b"


def _compare() -> str:
    _results()
    return "compare a=a b=b --baseline a --out out"


def _gate(option: str) -> Callable[[], str]:
    def command() -> str:
        _results()
        return f"gate a=a b=b --baseline a {option} out/page"

    return command


def _predict() -> str:
    build_data(Path("DATA"))
    rows = [{"text": f"a question about river {number}"} for number in range(30)]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return (
        f"predict in.jsonl --data DATA --model_args pretrained={TINY} --device cpu "
        "--batch_size 8 --text text --out out/p.csv"
    )


# Each command's arguments, and a limit in bytes that its largest file exceeds.
COMMANDS: dict[str, tuple[Callable[[], str], int]] = {
    "import": (_import, 2000),
    "annotate": (_annotate, 2000),
    "aggregate": (_aggregate, 2000),
    "mini": (lambda: "build mini --per-dataset 30 --out out/data", 20_000),
    "build": (_build, 5000),
    "build task": (_build_task, 5000),
    "task new": (_task_new, 2000),
    "compare": (_compare, 40_000),
    "gate --junit": (_gate("--junit"), 100),
    "gate --summary": (_gate("--summary"), 100),
    "configs": (lambda: "fetch configs --out out/configs", 5000),
    "prompts": (lambda: "fetch prompts --out out/prompts", 500),
    "predict": (_predict, 300),
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in its own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def everything() -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(Path().rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, limit = COMMANDS[name]
    command = make().split()
    before = everything()
    capsys.readouterr()
    with file_limit(limit):
        code = main(command)
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2, said
    assert said[-1].startswith("regreason: out/"), said
    assert "cannot be written: the file would exceed the size limit" in said[-1]
    assert everything() == before
    assert not Path("out").exists()
    # Without the limit the command succeeds. A second, failing run then leaves its files unchanged.
    assert main(command) in (0, 1, 3)
    whole = everything()
    assert len(whole) > len(before)
    assert not [path for path in whole if "partial" in path]
    if name in ("configs", "prompts", "task new", "predict", "import"):
        return  # these write nothing a second time
    with file_limit(limit):
        assert main(command) == 2
    assert everything() == whole


def test_predictions_that_are_there_stay_and_are_gone_on_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"text": f"a question about river {number}"} for number in range(600)]
    command = _predict().split()
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command[command.index("out/p.csv")] = "whole/p.csv"
    assert main(command) == 0
    whole = Path("whole/p.csv").read_bytes()
    command[command.index("whole/p.csv")] = "out/p.csv"
    capsys.readouterr()
    with file_limit(len(whole) * 2 // 3):
        assert main(command) == 2
    assert "regreason: out/p.csv: cannot be written" in capsys.readouterr().err
    there = Path("out/p.csv").read_bytes()
    assert there.count(b"\n") == 257  # the header and a step
    assert whole.startswith(there)
    assert main(command) == 0
    assert "Continuing after row 256" in capsys.readouterr().out
    assert Path("out/p.csv").read_bytes() == whole


def test_a_base_model_that_does_not_fit_is_not_half_there() -> None:
    from helpers.tiny_base import make_untrained_base

    with pytest.raises(UserError, match=r"^out/base: cannot be written: "), file_limit(1_000_000):
        make_untrained_base(Path("out/base"), per_dataset=30)
    assert everything() == {}
    assert not Path("out").exists()


# --- annotate keeps the answers that were paid for -----------------------------------------

STORE = """
import resource, sys
from pathlib import Path
from regreason_plugin.annotate.calls import Call, CallKey, Outcome
from regreason_plugin.annotate.store import Store
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.paper import AXES, task_name

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    with Store(Path(sys.argv[1])) as store:
        for number in range(10_000):
            key = CallKey(f"{number:032d}", "r", "naturalness", "p", "s", "m", "{}")
            (call,) = store.claim([Call(key, f"c{number}", 0.0)]).mine
            store.finish(call, Outcome("ok", 3, "because " * 20))
            print(number, flush=True)
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


def test_a_full_store_is_one_sentence_and_keeps_every_answer() -> None:
    run = subprocess.run(
        [sys.executable, "-c", STORE, "calls.db"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("calls.db: the store cannot be written (")
    assert "answers that are in the store are not asked for again" in run.stderr
    answered = len(run.stdout.splitlines())
    assert answered > 5
    keys = [
        CallKey(f"{number:032d}", "r", "naturalness", "p", "s", "m", "{}")
        for number in range(answered + 1)
    ]
    with Store(Path("calls.db")) as store:
        store.take_over()
        known = [store.outcomes([key]) for key in keys]
        assert [len(one) for one in known] == [1] * answered + [0]
        # The call whose answer could not be stored is made again.
        (again,) = store.claim([Call(keys[-1], "last", 0.0)]).mine
        store.finish(again, Outcome("ok", 3, "because"))
    assert sorted(path.name for path in Path().iterdir()) == ["calls.db"]


def test_no_call_is_made_that_finds_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    key = CallKey("0" * 32, "r", "naturalness", "p", "s", "m", "{}")
    with Store(Path("calls.db")) as store:
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1, 1, 1 << 20))
        with pytest.raises(UserError, match=r"only 1.0 MiB are free on the disk"):
            store.claim([Call(key, "c", 0.0)])
        assert store.finished(["0" * 32])[1].total() == 0


# --- a killed build ------------------------------------------------------------------------


def test_what_a_killed_build_left_goes_with_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "regreason_plugin", "build", "mini", "--per-dataset", "1000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    build = subprocess.Popen(
        [*command, "--out", "runs/data"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not any(Path().rglob("explanation.jsonl")) and not any(
            path.stat().st_size for path in Path().rglob(".explanation.jsonl.*")
        ):
            assert build.poll() is None
            time.sleep(0.02)
        # A second build removes nothing of one that still runs.
        left = [path for path in Path("runs").iterdir() if path.is_dir()]
        assert main(["build", "mini", "--per-dataset", "30", "--out", "runs/other"]) == 0
        assert all(path.is_dir() for path in left)
        assert build.poll() is None
    finally:
        build.kill()
    assert build.wait() == -signal.SIGKILL
    assert left
    assert all(any(path.rglob("*.jsonl*")) for path in left)  # texts
    assert main(["build", "mini", "--per-dataset", "30", "--out", "runs/data"]) == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["data", "other"]


# --- input and output ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "out", "option"),
    [
        (_build, "DATA.ratings.jsonl", "--out"),
        (_build, ".", "--out"),
        (_aggregate, "rows.jsonl", "--out"),
        (_import, "in", None),
        (_build_task, "scale/task.yml", "--out"),
        (_build_task, "scale", "--out"),
        (_gate("--junit"), "a/base/results_2026-01-01T00-00-00.000000.json", "--junit"),
    ],
)
def test_nothing_is_written_over_what_is_read(
    make: Callable[[], str], out: str, option: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    *command, _ = make().split()
    if option is None:  # the file that the command reads
        option, out = "--out", command[command.index("--path") + 1]
    if option == "--junit":
        command[command.index("a=a")] = f"a={out}"
    if out == ".":
        Path("manifest.json").write_text("{}")  # as of a data folder that holds its ratings
    before = everything()
    assert main([*command, out]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.endswith(f"name another {option}"), said
    assert "remove" not in said
    assert everything() == before


def test_annotate_writes_over_no_conversations(capsys: pytest.CaptureFixture[str]) -> None:
    _annotate()
    Path("annotate.yml").write_text("conversations: [c.jsonl]\nout: c.jsonl\n")
    before = everything()
    assert main(["annotate", "annotate.yml"]) == 2
    assert "is both read and written" in capsys.readouterr().err
    assert everything() == before
