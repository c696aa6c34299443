"""Stages run in the right order and in parallel, and finished stages do not run again."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from regreason_plugin.core.stages import (
    Stage,
    mark_finished,
    run_stages,
    seconds_left,
    unfinished,
)

pytestmark = pytest.mark.integration

# Records its start and its end, and waits for the file of another stage if one is named.
SCRIPT = """
import sys, time
from pathlib import Path
name, out, wait = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
with (out / "times").open("a") as times:
    times.write(f"start {name}\\n")
    times.flush()
    limit = time.monotonic() + 20
    while wait and not (out / wait).exists():
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.02)
    if name == "broken":
        sys.exit(3)
    (out / name).touch()
    times.write(f"end {name}\\n")
"""


def stage(out: Path, name: str, *after: str, wait: str = "", inputs: str = "1") -> Stage:
    command = ["python", "-c", SCRIPT, name, str(out), wait]
    return Stage(name, command, inputs, (out / name).is_file, after=after)


def times(out: Path) -> list[str]:
    return (out / "times").read_text().splitlines()


def test_two_at_once_and_none_before_what_it_waits_for(tmp_path: Path) -> None:
    # `a` ends only after `b` has run, so running one at a time would never end.
    stages = [
        stage(tmp_path, "a", wait="b"),
        stage(tmp_path, "a2", "a"),
        stage(tmp_path, "b"),
        stage(tmp_path, "last", "a2", "b"),
    ]
    assert run_stages(tmp_path, stages, jobs=2)
    order = times(tmp_path)
    assert order.index("end a") < order.index("start a2")
    assert order.index("end b") < order.index("end a")
    assert order[-2:] == ["start last", "end last"]


def test_one_at_a_time_by_default(tmp_path: Path) -> None:
    assert run_stages(tmp_path, [stage(tmp_path, name) for name in "abc"])
    assert times(tmp_path) == [f"{what} {name}" for name in "abc" for what in ("start", "end")]


def test_only_what_changed_runs_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_stages(tmp_path, [stage(tmp_path, "a"), stage(tmp_path, "b"), stage(tmp_path, "c")])
    (tmp_path / "c").unlink()
    capsys.readouterr()
    again = [stage(tmp_path, "a"), stage(tmp_path, "b", inputs="2"), stage(tmp_path, "c")]
    assert run_stages(tmp_path, again)
    assert times(tmp_path)[6:] == ["start b", "end b", "start c", "end c"]
    assert capsys.readouterr().out.count("done before") == 1


def test_a_failure_loses_nothing_that_runs_and_starts_nothing_more(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = [
        stage(tmp_path, "slow", wait="go"),
        stage(tmp_path, "broken"),
        stage(tmp_path, "never", "slow"),
    ]
    stages[0] = Stage(
        "slow",
        ["sh", "-c", f"sleep 1; touch {tmp_path}/slow"],
        "1",
        (tmp_path / "slow").is_file,
    )
    started = time.monotonic()
    assert not run_stages(tmp_path, stages, jobs=2)
    assert time.monotonic() - started >= 1
    error = capfd.readouterr().err
    assert "regreason: broken exited with 3; its whole output: " in error
    assert (tmp_path / "slow").is_file()
    assert not (tmp_path / "never").exists()
    assert '"slow"' in (tmp_path / "stages.json").read_text()


def test_a_command_that_leaves_nothing_has_failed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    empty = Stage("empty", ["true"], "1", (tmp_path / "empty").is_file)
    assert not run_stages(tmp_path, [empty])
    assert "empty exited with 0 but left no result" in capfd.readouterr().err


def test_nothing_is_started_that_would_not_end_in_time(tmp_path: Path) -> None:
    long = replace(stage(tmp_path, "b"), seconds=3600)
    after = replace(stage(tmp_path, "c", "b"), seconds=1)
    soon = [replace(stage(tmp_path, name), seconds=1) for name in ("a", "d")]
    stages = [soon[0], long, after, soon[1]]
    assert run_stages(tmp_path, stages, until=time.monotonic() + 60)
    # A stage that ends in time runs even if an earlier one would not end in time.
    assert times(tmp_path) == ["start a", "end a", "start d", "end d"]
    assert unfinished(tmp_path, stages) == [long, after]
    assert run_stages(tmp_path, stages)
    assert unfinished(tmp_path, stages) == []


def test_the_time_left_is_that_of_its_kind_over_the_jobs(tmp_path: Path) -> None:
    stages = [replace(stage(tmp_path, f"train {n}"), seconds=40) for n in "abcd"]
    assert seconds_left(tmp_path, stages, jobs=2) == 80
    mark_finished(tmp_path, stages[:1])
    # Its result was made elsewhere, so it has no time for estimates; and its file is missing.
    assert unfinished(tmp_path, stages) == stages
    (tmp_path / "train a").touch()
    assert unfinished(tmp_path, stages) == stages[1:]
    assert seconds_left(tmp_path, stages, jobs=8) == 40


def test_stages_at_once_have_a_gpu_each(tmp_path: Path) -> None:
    def asking(name: str, other: str) -> Stage:
        # Both have to run at once, because each waits for the other's file.
        script = (
            f'echo "$CUDA_VISIBLE_DEVICES" > {tmp_path}/{name}; '
            f"while [ ! -e {tmp_path}/{other} ]; do sleep 0.02; done"
        )
        return Stage(name, ["sh", "-c", script], "1", (tmp_path / name).is_file)

    assert run_stages(tmp_path, [asking("a", "b"), asking("b", "a")], jobs=2, gpus=(3, 5))
    assert sorted((tmp_path / name).read_text() for name in "ab") == ["3\n", "5\n"]


def test_a_command_is_asked_for_when_it_is_due(tmp_path: Path) -> None:
    first = stage(tmp_path, "a")

    def words() -> list[str]:
        assert (tmp_path / "a").is_file()
        return ["touch", str(tmp_path / "b")]

    assert run_stages(tmp_path, [first, Stage("b", words, "1", (tmp_path / "b").is_file, ("a",))])
    assert str(tmp_path / "b") in (tmp_path / "stages.json").read_text()
