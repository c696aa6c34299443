"""The mini benchmark as a data folder: generated conversations, rated by the rules."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

from regreason_plugin.annotate.rules import rate
from regreason_plugin.build.build import BuildOptions, Progress, build
from regreason_plugin.build.folder import DataFolder
from regreason_plugin.core.jsonl import write_records
from regreason_plugin.core.paper import SETTINGS, generative_task_name, task_name
from regreason_plugin.core.records import Rating
from regreason_plugin.core.version import __version__
from regreason_plugin.core.whole_files import scratch_folder
from regreason_plugin.data.mini import MINI_AXES, MINI_SETTINGS, mini_conversations


def mini_fingerprint() -> str:
    """Changes whenever the code or the words that make the mini benchmark change."""
    package = Path(str(files("regreason_plugin")))
    digest = hashlib.sha256(__version__.encode())
    rooms = ("data", "annotate", "build", "core")
    for room in rooms:
        place = package / room
        sources = sorted(place.rglob("*.*")) if place.is_dir() else [place]
        for source in sources:
            if source.suffix in {".py", ".yml"}:
                digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def build_mini(
    out: Path,
    options: BuildOptions | None = None,
    *,
    per_dataset: int = 1000,
    on_progress: Progress = lambda stage, rows: None,
) -> DataFolder:
    """Generate, rate and build the mini benchmark.

    Args:
        out: The data folder to make.
        options: As for `build`; its seed also seeds the generator.
        per_dataset: Conversations a dataset.
        on_progress: As for `build`, with the stage ``rate`` before its two.

    Raises:
        UserError: As `build`.
    """
    options = options or BuildOptions()
    with scratch_folder(out) as scratch:
        ratings = scratch / "ratings.jsonl"
        write_mini_ratings(ratings, options.seed, per_dataset, lambda: on_progress("rate", 1))
        return build(ratings, out, options, on_progress=on_progress)


def mini_tasks(*, generative: bool = False) -> str:
    """All tasks of the mini benchmark, as ``--tasks`` names them."""
    if MINI_SETTINGS == SETTINGS:
        return "regreason-gen_*" if generative else "regreason_*"
    make = generative_task_name if generative else task_name
    return ",".join(make(*setting) for setting in MINI_SETTINGS)


def write_mini_ratings(
    path: Path, seed: int, per_dataset: int = 1000, on_row: Callable[[], object] = lambda: None
) -> int:
    """Write the mini benchmark's ratings, one a conversation and axis.

    Returns:
        How many.
    """

    def counted() -> Iterator[Rating]:
        for rating in rate(mini_conversations(seed, per_dataset), axes=tuple(MINI_AXES)):
            on_row()
            yield rating

    return write_records(path, counted())
