"""What the workflows may do, and the script that comments, run against hostile artefacts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.typed_commands import blocks

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github").rglob("*.yml"))
COMMENT = ROOT / ".github/workflows/eval-comment.yml"


def load(path: Path) -> dict[Any, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def steps(content: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    yield from content.get("runs", {}).get("steps", [])
    for job in content.get("jobs", {}).values():
        yield from job.get("steps", [])
        if "uses" in job:
            yield job


def events(content: dict[Any, Any]) -> set[str]:
    # YAML reads the key "on" as true.
    found = content.get(True, {})
    return {found} if isinstance(found, str) else set(found)


def test_all_files_are_seen() -> None:
    assert {"action.yml", "eval.yml", "eval-self.yml", "eval-comment.yml", "test.yml"} <= {
        path.name for path in FILES
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_value_is_put_into_a_scripts_text(path: Path) -> None:
    for step in steps(load(path)):
        assert "${{" not in step.get("run", "")
        # A variable outside of quotes is split and expanded, but within [[ ]].
        for line in re.sub(r"\$\(", "", step.get("run", "")).splitlines():
            outside = re.sub(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'|\[\[ .* \]\]|^\s*#.*", "", line)
            assert "$" not in outside.replace("$?", ""), line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_or_local(path: Path) -> None:
    for step in steps(load(path)):
        if uses := step.get("uses"):
            assert re.fullmatch(r"\./[\w./-]+|[\w-]+/[\w-]+@[0-9a-f]{40}", uses), uses
            if uses.startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_only_the_comment_may_write(path: Path) -> None:
    content = load(path)
    assert "pull_request_target" not in path.read_text()
    if "runs" in content:
        return
    jobs = list(content["jobs"].values())
    granted = [content["permissions"], *(job.get("permissions", {}) for job in jobs)]
    if path == COMMENT:
        assert granted == [{}, {"actions": "read", "pull-requests": "write"}]
        assert events(content) == {"workflow_run"}
        assert not any("uses" in step for step in steps(content))
    else:
        assert all(set(some.items()) <= {("contents", "read")} for some in granted)
        assert events(content) <= {"pull_request", "push", "workflow_call"}
    for job in jobs:
        assert "timeout-minutes" in job or "uses" in job


def test_the_comment_follows_the_workflow_of_that_name() -> None:
    (name,) = load(COMMENT)[True]["workflow_run"]["workflows"]
    assert load(ROOT / ".github/workflows/eval-self.yml")["name"] == name


def test_the_reusable_workflow_hands_on_what_the_action_takes() -> None:
    called = load(ROOT / ".github/workflows/eval.yml")
    action = load(ROOT / ".github/actions/regreason-eval/action.yml")
    (step,) = [s for s in steps(called) if s.get("uses", "").startswith("./")]
    inputs = called[True]["workflow_call"]["inputs"]
    given = step["with"]
    assert set(given) <= set(action["inputs"])
    assert {name for name, one in action["inputs"].items() if one.get("required")} <= set(given)
    for name, value in given.items():
        assert value == f"${{{{ inputs.{name} }}}}"
        assert inputs[name].get("default") == action["inputs"][name].get("default")
    self = load(ROOT / ".github/workflows/eval-self.yml")["jobs"]["tiny"]
    assert set(self["with"]) <= set(inputs)


def test_the_guides_examples_name_inputs_that_there_are() -> None:
    examples = [yaml.safe_load(one) for one in blocks(ROOT / "docs/guides/gate.md", "yaml")]
    (workflow,) = [one for one in examples if "jobs" in one]
    (step,) = [one for one in examples if isinstance(one, list)]
    called = load(ROOT / ".github/workflows/eval.yml")[True]["workflow_call"]["inputs"]
    assert set(workflow["jobs"]["gate"]["with"]) <= set(called)
    action = load(ROOT / ".github/actions/regreason-eval/action.yml")
    assert set(step[0]["with"]) <= set(action["inputs"])


# --- The script that comments ---------------------------------------------------------

FAKE_GH = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>calls.txt
case "$*" in
  *"/pulls "*) cat pulls.answer ;;
  *"/artifacts "*) cat artifacts.answer ;;
  *"/zip"*) cat zip.answer ;;
  *"--paginate"*) cat comments.answer ;;
  *"body=@"*) call="$*"; cat "${call##*body=@}" >posted.md ;;
  *) exit 1 ;;
esac
"""


class Host:
    """GitHub as the script sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "bin/gh").write_text(FAKE_GH)
        (folder / "bin/gh").chmod(0o755)
        self.pulls: list[dict[str, Any]] = []
        self.artifacts = [{"id": 5, "expired": False, "size_in_bytes": 900}]
        self.comments: list[dict[str, Any]] = []
        self.event = {
            "REPOSITORY": "some/where",
            "RUN_ID": "11",
            "NUMBER": "7",
            "HEAD_OWNER": "fork",
            "HEAD_BRANCH": "main",
            "HEAD_SHA": "ab",
            "SERVER": "https://host",
            "GH_TOKEN": "none",
        }

    def pack(self, name: str, content: bytes) -> None:
        with zipfile.ZipFile(self.folder / "zip.answer", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)

    def comment(self) -> subprocess.CompletedProcess[str]:
        for name in ("pulls", "comments"):
            (self.folder / f"{name}.answer").write_text(json.dumps(getattr(self, name)))
        answer = json.dumps({"artifacts": self.artifacts})
        (self.folder / "artifacts.answer").write_text(answer)
        (script,) = [step["run"] for step in steps(load(COMMENT))]
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            env={**self.event, "PATH": path, "RUNNER_TEMP": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def posted(self) -> str | None:
        file = self.folder / "posted.md"
        return file.read_text(encoding="utf-8") if file.exists() else None

    @property
    def calls(self) -> str:
        file = self.folder / "calls.txt"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    if any(shutil.which(program) is None for program in ("jq", "unzip", "iconv")):
        pytest.skip("a runner of GitHub has jq, unzip and iconv")
    made = Host(tmp_path)
    made.pack("gate.txt", b"PASS: accuracy changed by +0.0000\n")
    return made


def test_a_verdict_becomes_a_comment(host: Host) -> None:
    done = host.comment()
    assert done.returncode == 0, done.stderr
    assert host.posted is not None
    assert host.posted.startswith("<!-- regreason-gate -->\n[The run](https://host/some/where/")
    assert "```text\nPASS: accuracy changed by +0.0000\n" in host.posted
    assert "POST repos/some/where/issues/7/comments" in host.calls


def test_the_comment_is_written_again_and_nobody_elses(host: Host) -> None:
    mark = "<!-- regreason-gate --> x"
    host.comments = [
        {"id": 1, "user": {"login": "somebody"}, "body": mark},
        {"id": 2, "user": {"login": "github-actions[bot]"}, "body": "other"},
        {"id": 3, "user": {"login": "github-actions[bot]"}, "body": mark},
    ]
    assert host.comment().returncode == 0
    assert "PATCH repos/some/where/issues/comments/3 " in host.calls
    assert "POST" not in host.calls


def test_a_forks_pull_request_is_found_by_its_branch_and_commit(host: Host) -> None:
    host.event |= {"NUMBER": "", "HEAD_BRANCH": "$(touch owned)`touch owned`;'\""}
    host.pulls = [
        {"number": 8, "head": {"sha": "other"}},
        {"number": 9, "head": {"sha": "ab"}},
    ]
    assert host.comment().returncode == 0
    assert "issues/9/comments" in host.calls
    assert "head=fork:$(touch owned)`touch owned`;'\"" in host.calls
    assert not (host.folder / "owned").exists()
    host.pulls = host.pulls[:1]
    (host.folder / "posted.md").unlink()
    assert host.comment().returncode == 0
    assert host.posted is None


def test_what_an_artefact_holds_stays_text(host: Host) -> None:
    host.pack(
        "gate.txt",
        b"```\n@everyone ![x](https://evil/x.png) <script> `$(touch owned)`\x1b[31m\xff\n~~~\n",
    )
    assert host.comment().returncode == 0
    assert host.posted is not None
    body = host.posted.split("```text\n")[1]
    assert body.count("`") == 3
    assert body.endswith("\n```\n")
    assert "'''\n@everyone" in body
    assert "\x1b" not in body
    assert not (host.folder / "owned").exists()


def test_an_artefact_that_unpacks_to_much_is_cut(host: Host) -> None:
    host.pack("gate.txt", b"0" * 200_000_000)
    assert host.comment().returncode == 0
    assert host.posted is not None
    assert 20_000 <= len(host.posted) < 20_400


@pytest.mark.parametrize("name", ["../gate.txt", "other.txt", "gate.txt/../../x"])
def test_another_file_name_is_not_read(host: Host, name: str) -> None:
    host.pack(name, b"text")
    assert host.comment().returncode == 0
    assert host.posted is None


def test_no_artefact_or_one_too_large_says_nothing(host: Host) -> None:
    for artifacts in ([], [{"id": 5, "expired": False, "size_in_bytes": 200_000}]):
        host.artifacts = artifacts
        assert host.comment().returncode == 0
        assert host.posted is None
    assert "/zip" not in host.calls


@pytest.mark.parametrize("number", ["7; touch owned", "../1", "x"])
def test_a_number_that_is_none_stops_it(host: Host, number: str) -> None:
    host.event["NUMBER"] = number
    assert host.comment().returncode != 0
    assert host.calls == ""
