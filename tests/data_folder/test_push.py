"""`regreason push` against a server that imitates the Hub: the uploaded files and the messages."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from regreason_plugin.cli import main
from regreason_plugin.data_folder.build import BuildOptions
from regreason_plugin.data_folder.mini import build_mini

pytestmark = pytest.mark.integration

TOKEN = "hf_markerthatmustnotshow"


class Hub:
    """Answers like the Hub, and records the requests."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.files: dict[str, bytes] = {}
        self.refuse: dict[str, int] = {}
        self.url = ""

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        kind = path.removeprefix("/api/").removeprefix("datasets/lab/data/").split("/")[0]
        if kind in self.refuse:
            return self.refuse[kind], {"error": f"no, and your token is {TOKEN}"}
        if kind == "commit":
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    value = item["value"]
                    assert value["encoding"] == "base64"
                    self.files[value["path"]] = base64.b64decode(value["content"])
                self.calls.append((f"commit {item['key']}", item["value"]))
            return 200, {"commitUrl": "x", "commitOid": "c" * 40, "success": True}
        sent = json.loads(body) if body else None
        self.calls.append((path, sent))
        if kind == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in sent["files"]
            ]
            return 200, {"files": files}
        if kind == "repos":
            return 200, {"url": f"{self.url}/datasets/lab/data", "name": "lab/data"}
        return 200, {"id": "lab/data", "sha": "c" * 40, "errors": [], "warnings": []}


@pytest.fixture
def hub() -> Iterator[tuple[Hub, str]]:
    played = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else self._chunks()
            played.tokens.add(self.headers.get("Authorization"))
            status, answer = played.answer(self.path, body)
            sent = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def _chunks(self) -> bytes:
            body = b""
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            return body

        do_GET = do_POST = do_HEAD = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        played.url = f"http://127.0.0.1:{server.server_port}"
        yield played, played.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = BuildOptions(arms=("label_only", "explanation"), scopes=("axis",))
    folder = tmp_path_factory.mktemp("push") / "data"
    return build_mini(folder, options, per_dataset=60).path


@pytest.fixture
def data(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "data")


def run(
    data: Path, endpoint: str, *options: str, repo: str = "lab/data", **environment: str
) -> tuple[int, str]:
    """Run the command; return its exit code and output."""
    known = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-m", "regreason_plugin", "push", str(data), "--repo", repo, *options],
        env={
            **known,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(data.parent / "hf"),
            "HF_TOKEN": TOKEN,
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    printed = done.stdout + done.stderr
    assert TOKEN not in printed
    assert "Traceback" not in printed
    for path in data.parent.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
    return done.returncode, printed


def test_the_bytes_that_arrive_are_the_folder_s(data: Path, hub: tuple[Hub, str]) -> None:
    played, endpoint = hub
    (data / "notes.txt").write_text("private")
    (data / "train" / "old.jsonl").write_text("{}")
    code, printed = run(data, endpoint, "--private")
    assert code == 0, printed
    manifest = json.loads((data / "manifest.json").read_bytes())
    expected = {*manifest["files"], "manifest.json", "README.md"}
    assert "train/naturalness/explanation.jsonl" in expected
    assert set(played.files) == expected
    for name, content in played.files.items():
        assert content == (data / name).read_bytes()
    made = dict(played.calls)["/api/repos/create"]
    assert (made["name"], made["organization"]) == ("data", "lab")
    assert made["type"] == "dataset"
    assert made.get("private") is True or made.get("visibility") == "private"
    # One commit, so that the Hub never has a partial folder.
    assert [name for name, _ in played.calls].count("commit header") == 1
    assert played.tokens == {f"Bearer {TOKEN}"}
    assert f"{endpoint}/datasets/lab/data" in printed
    assert "notes.txt" in printed
    assert "train/old.jsonl" in printed


def test_a_public_one_is_not_private(data: Path, hub: tuple[Hub, str]) -> None:
    played, endpoint = hub
    assert run(data, endpoint)[0] == 0
    made = dict(played.calls)["/api/repos/create"]
    assert made.get("private") is not True
    assert made.get("visibility") != "private"


def change(data: Path) -> None:
    with (data / "train" / "explanation.jsonl").open("a") as stream:
        stream.write("\n")


def remove_card(data: Path) -> None:
    (data / "README.md").unlink()


def reach_out(data: Path) -> None:
    (data.parent / "secret.txt").write_text("private")
    manifest = json.loads((data / "manifest.json").read_bytes())
    manifest["files"]["../secret.txt"] = "0" * 64
    (data / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (change, "explanation.jsonl: does not match the manifest"),
        (remove_card, "README.md: is missing; build the data again"),
        (reach_out, "lists '../secret.txt', which cannot be a file of a data folder"),
    ],
)
def test_what_the_manifest_does_not_vouch_for_stays_here(
    data: Path, hub: tuple[Hub, str], spoil: Any, expected: str
) -> None:
    played, endpoint = hub
    spoil(data)
    code, printed = run(data, endpoint)
    assert code == 2
    assert expected in printed
    assert not played.calls


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HF_TOKEN": ""}, "there is no token for the Hub; run `hf auth login`"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_before_anything_is_sent(
    data: Path, hub: tuple[Hub, str], environment: dict[str, str], expected: str
) -> None:
    played, endpoint = hub
    code, printed = run(data, endpoint, **environment)
    assert code == 2
    assert expected in printed
    assert not played.calls


@pytest.mark.parametrize("repo", ["data", "lab/data/x", "lab/da ta", "/data", "lab/", "../data"])
def test_a_repository_has_an_owner_and_a_name(
    built: Path, repo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(built), "--repo", repo]) == 2
    assert f"--repo {repo!r} is not ORG/NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("repos", 401, "refused lab/data with 401: the token is not valid"),
        ("preupload", 403, "refused lab/data with 403: the token has no write access"),
        ("preupload", 404, "refused lab/data with 404: there is no such user"),
        ("commit", 429, "refused lab/data with 429: too many requests"),
        ("validate-yaml", 400, "README.md: the Hub does not accept the card's front matter"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    data: Path, hub: tuple[Hub, str], kind: str, status: int, expected: str
) -> None:
    played, endpoint = hub
    played.refuse[kind] = status
    code, printed = run(data, endpoint)
    assert code == 2
    assert expected in printed
    assert not played.files


def test_no_network(data: Path) -> None:
    code, printed = run(data, "http://127.0.0.1:9")
    assert code == 2
    assert "the Hub at http://127.0.0.1:9 cannot be reached" in printed
