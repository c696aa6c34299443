"""The mini benchmark as a data folder: generated conversations, rated by the built-in rules."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from regreason_plugin.annotate.rules import rate
from regreason_plugin.core.jsonl import write_records
from regreason_plugin.core.paper import EIGHTEEN
from regreason_plugin.core.records import Rating
from regreason_plugin.core.version import __version__
from regreason_plugin.data.mini import MINI_AXES, MINI_SETTINGS, mini_conversations
from regreason_plugin.data_folder.build import build_documents
from regreason_plugin.data_folder.folder import MANIFEST, DataFolder, open_data_folder
from regreason_plugin.data_folder.row_writer import BuildOptions, Progress
from regreason_plugin.data_folder.sources import Source


def mini_fingerprint() -> str:
    """A hash of the version, code and words that the mini benchmark is made from."""
    package = Path(str(files("regreason_plugin")))
    digest = hashlib.sha256(__version__.encode())
    for room in ("data", "annotate", "data_folder", "core"):
        for source in sorted((package / room).iterdir()):
            if source.suffix in {".py", ".yml", ".j2"}:
                digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def mini_data_folder() -> DataFolder:
    """The data folder of the mini benchmark, built at first use in the user's cache folder.

    The folder's name has a hash of the package's version and of the code that generates the data,
    so a changed generator never uses old data.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "regreason" / f"mini-{mini_fingerprint()}"
    if not (folder / MANIFEST).is_file():
        build_mini(folder)
    return open_data_folder(folder)


def build_mini(
    out: Path,
    options: BuildOptions | None = None,
    *,
    per_dataset: int = 1000,
    on_progress: Progress = lambda stage, rows: None,
) -> DataFolder:
    """Generate, rate and build the mini benchmark.

    Args:
        out: The data folder to write.
        options: The build options; their seed is also the generator's.
        per_dataset: The number of conversations per dataset.
        on_progress: See `build.build`.

    Raises:
        UserError: See `build.build_documents`.
    """
    options = options or BuildOptions()
    documents = (
        (number, rating.model_dump(exclude_none=True))
        for number, rating in enumerate(_mini_ratings(options.seed, per_dataset), start=1)
    )
    source = Source("the mini benchmark", "the mini benchmark", EIGHTEEN, documents, unit="row")
    return build_documents(source, out, options, on_progress=on_progress)


def mini_tasks(*, generative: bool = False) -> str:
    """The argument of ``--tasks`` that selects all tasks of the mini benchmark."""
    return EIGHTEEN.tasks_argument(MINI_SETTINGS, generative=generative)


def write_mini_ratings(path: Path, seed: int, per_dataset: int = 1000) -> int:
    """Write the mini benchmark's ratings, one per conversation and axis.

    Returns:
        The number of ratings.
    """
    return write_records(path, _mini_ratings(seed, per_dataset))


def _mini_ratings(seed: int, per_dataset: int) -> Iterator[Rating]:
    return rate(mini_conversations(seed, per_dataset), axes=tuple(MINI_AXES))
