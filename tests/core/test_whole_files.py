"""Files and folders appear whole or not at all; leftovers of killed processes are removed."""

from __future__ import annotations

import errno
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import (
    append,
    atomic_writer,
    check_not_input,
    pending,
    refusal,
    together,
    whole_folder,
)

SIGKILLED = """
import sys, time
from pathlib import Path
from regreason_plugin.core.whole_files import atomic_writer, whole_folder

file, folder = map(Path, sys.argv[1:])
with atomic_writer(file) as stream, whole_folder(folder) as new:
    stream.write(b"x" * 1_000_000)
    with atomic_writer(new / "text") as text:
        text.write(b"a text that is nobody's business")
    print("written", flush=True)
    time.sleep(600)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, content: bytes) -> None:
    with atomic_writer(path) as stream:
        stream.write(content)


def started(folder: Path) -> subprocess.Popen[bytes]:
    """Start a process that writes ``file`` and ``data`` and does not end."""
    command = [sys.executable, "-c", SIGKILLED, str(folder / "file"), str(folder / "data")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    return process


def test_leftovers_of_a_killed_process_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    killed, living = started(tmp_path), started(tmp_path)
    try:
        assert len(names(tmp_path)) == 4
        write(tmp_path / "other", b"1")
        assert len(names(tmp_path)) == 5  # both processes are running
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        left = set(names(tmp_path))
        write(tmp_path / "other", b"2")
        assert len(left - set(names(tmp_path))) == 2
        assert len(names(tmp_path)) == 3
    finally:
        living.kill()
        living.wait()
    with whole_folder(tmp_path / "data") as new:
        write(new / "text", b"3")
    assert names(tmp_path) == ["data", "other"]


def test_files_and_folders_with_other_names_stay(tmp_path: Path) -> None:
    kept = [".file.partial", "x.regreason-partial", ".git", ".file.12ab.regreason-partial.txt"]
    for name in kept:
        (tmp_path / name).mkdir()
    write(tmp_path / "file", b"1")
    assert names(tmp_path) == sorted([*kept, "file"])


def test_a_folder_that_was_there_is_put_back_by_whoever_comes_next(tmp_path: Path) -> None:
    """After a kill between the two renames, the old folder is in the leftover and none in place."""
    left = tmp_path / ".data.12ab34cd.regreason-partial"
    for part in ("old", "new"):
        (left / part).mkdir(parents=True)
        (left / part / "which").write_text(part)
    write(tmp_path / "file", b"1")
    assert names(tmp_path) == ["data", "file"]
    assert (tmp_path / "data" / "which").read_text() == "old"


def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    data = tmp_path / "made" / "data"
    with whole_folder(data) as new:
        write(new / "a", b"1")
    with pytest.raises(RuntimeError), whole_folder(data) as new:
        write(new / "b", b"2")
        raise RuntimeError
    assert names(data) == ["a"]
    with whole_folder(data) as new:
        write(new / "b" / "c", b"2")
    assert names(data) == ["b"]
    assert names(tmp_path / "made") == ["data"]


def test_several_files_appear_together_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with pytest.raises(RuntimeError), together():
        write(out / "a", b"1")
        write(out / "b" / "c", b"2")
        assert not (out / "a").exists()
        assert pending(out / "a").read_bytes() == b"1"
        raise RuntimeError
    assert names(tmp_path) == []  # the folders that were made for them are gone too
    (tmp_path / "a").write_bytes(b"old")
    with together():
        write(tmp_path / "a", b"1")
        with together():
            write(tmp_path / "b", b"2")
        assert (tmp_path / "a").read_bytes() == b"old"
        assert not (tmp_path / "b").exists()
    assert (tmp_path / "a").read_bytes() == b"1"
    assert names(tmp_path) == ["a", "b"]
    assert pending(tmp_path / "a") == tmp_path / "a"


def _write_often(folder: Path, name: str, times: int) -> None:
    for number in range(times):
        write(folder / name, f"{name} {number}".encode())


def test_processes_that_write_into_one_folder_do_not_hinder_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=_write_often, args=(tmp_path, f"file{number % 2}", 100))
        for number in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert names(tmp_path) == ["file0", "file1"]
    assert (tmp_path / "file0").read_text() == "file0 99"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("folder", "it is a folder; name a file"),
        ("file/out", "part of the path is a file and not a folder"),
        ("n" * 254, "the name is too long"),
    ],
)
def test_a_place_where_no_file_can_be(tmp_path: Path, place: str, says: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=says) as caught:
        write(tmp_path / place, b"1")
    assert str(tmp_path / place) in str(caught.value)
    assert names(tmp_path) == ["file", "folder"]


# Limits the size of files. Beyond it, the system fails with EFBIG as it fails with ENOSPC on a full
# disk, which only root can simulate.
LIMITED = """
import resource, signal, sys
from pathlib import Path
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import append, atomic_writer, together, whole_folder

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
out = Path(sys.argv[1])

def file():
    with atomic_writer(out) as stream:
        for _ in range(100):
            stream.write(b"x" * 100)

def folder():
    with whole_folder(out) as new:
        with atomic_writer(new / "small") as stream:
            stream.write(b"x" * 10)
        with atomic_writer(new / "sub" / "large") as stream:
            stream.write(b"x" * 1001)

def several():
    with together():
        for name, size in (("small", 10), ("large", 100_000)):
            with atomic_writer(out / name) as stream:
                stream.write(b"x" * size)

def line():
    append(out, b"x" * 990)
    append(out, b"y" * 100)

try:
    globals()[sys.argv[2]]()
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("what", "named"), [("file", ""), ("folder", "/sub/large"), ("several", "/large")]
)
@pytest.mark.parametrize("there", [False, True])
def test_what_is_too_large_leaves_nothing_and_keeps_what_was_there(
    tmp_path: Path, what: str, named: str, there: bool
) -> None:
    out = tmp_path / "a" / "out"
    if there:
        old = out if what == "file" else out / "small"
        old.parent.mkdir(parents=True)
        old.write_text("old")
    said = subprocess.run(
        [sys.executable, "-c", LIMITED, str(out), what], capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith(f"{out}{named}: cannot be written: the file would exceed the size limit")
    left = [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert left == ([old] if there else [])
    if there:
        assert old.read_text() == "old"
    else:
        assert names(tmp_path) == []


def test_a_line_that_does_not_fit_is_not_half_there(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "log"), "line"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "cannot be written" in said
    assert (tmp_path / "log").read_bytes() == b"x" * 990


def test_a_full_device(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="/dev/full: cannot be written: the disk is full"):
        append(Path("/dev/full"), b"x")


def test_what_the_system_refuses_is_a_sentence_and_our_bugs_are_not() -> None:
    for number in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "EFBIG"):
        error = OSError(getattr(errno, number), "what", "a/b")
        assert str(refusal(error)).startswith("a/b: cannot be read or written: ")
        assert str(refusal(error, Path("c"))).startswith("c: cannot be written: ")
    assert refusal(OSError(errno.EBADF, "what")) is None
    assert refusal(OSError("of a library")) is None


def test_input_and_output_are_not_one_file(tmp_path: Path) -> None:
    source = tmp_path / "in" / "rows.jsonl"
    source.parent.mkdir()
    source.write_text("{}")
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source)
    for out in (source, tmp_path / "link", tmp_path / "hard", tmp_path / "in/../in/rows.jsonl"):
        with pytest.raises(UserError, match="is both read and written; name another --out") as said:
            check_not_input(out, [None, tmp_path / "none", source])
        assert "remove" not in str(said.value)
    with pytest.raises(UserError, match=r"holds the input .*rows.jsonl; name another --to"):
        check_not_input(tmp_path / "in", [source], "--to")
    check_not_input(tmp_path / "in" / "new.jsonl", [source, source.parent])


def test_a_lock_ends_with_its_file(tmp_path: Path) -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(3):
        write(tmp_path / "a", b"1")
        with together():
            write(tmp_path / "b", b"1")
        with whole_folder(tmp_path / "c"):
            time.sleep(0)
    assert len([*Path("/proc/self/fd").iterdir()]) == before


MODEL = """
import resource, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import writing

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
out = Path(sys.argv[1])
try:
    with writing(out):
        save_file({"a": torch.zeros(10_000)}, out / "model.safetensors")
except UserError as error:
    print(error)
"""


def test_a_model_that_does_not_fit_is_a_sentence_too(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MODEL, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"{tmp_path}: cannot be written: the file would exceed the size limit")
