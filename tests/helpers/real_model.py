"""SmolLM2-135M-Instruct, and real or invented texts for it.

The texts are sentence pairs with a label and an explanation (e-SNLI's, or our own), and
conversations with ratings on three axes (HH-RLHF's, or our own; the ratings are invented).
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal

import pytest
from filelock import FileLock
from helpers.real_prompts import FILES

from regreason_plugin.base.source import PACKAGE
from regreason_plugin.core.declaration import Axis, Dataset, Declaration
from regreason_plugin.core.jsonl import write_records
from regreason_plugin.core.paper import AXES
from regreason_plugin.core.prompt import Order
from regreason_plugin.core.records import Rating, Turn
from regreason_plugin.data.hh import parse_turns
from regreason_plugin.data_folder.build import BuildOptions, build
from regreason_plugin.data_folder.folder import DataFolder

Source = Literal["own", "real"]

# "entailment" has two of the model's tokens.
NLI = Declaration(
    labels=("contradiction", "entailment", "neutral"),
    ordinal=False,
    datasets={"nli": Dataset(title="Sentence pairs")},
    axes={"label": Axis(title="label")},
    prompt="{text}\nContradiction, entailment or neutral?\nAnswer:",
)
CONVERSATIONS = "hh_chosen"
_PEOPLE = ("nurse", "farmer", "girl", "pilot", "old man", "cook", "dancer", "boy")
_DEEDS = ("reading a letter", "eating soup", "painting a door", "waving")
_PLACES = ("in the garden", "at the station", "on a roof")


def package_installed() -> bool:
    """Whether the package is installed from which `regreason base` works without the Hub."""
    try:
        distribution(PACKAGE)
    except PackageNotFoundError:
        return False
    return importlib.util.find_spec("gguf") is not None


def smollm2_folder() -> Path:
    """The model's folder in float32: the one in REGREASON_TEST_SMOLLM2, or one in the cache.

    The folder in the cache is written once per machine. The test is skipped without either.
    """
    if named := os.environ.get("REGREASON_TEST_SMOLLM2"):
        folder = Path(named)
        assert (folder / "config.json").is_file(), f"REGREASON_TEST_SMOLLM2: {named} is no model"
        return folder
    if not package_installed():
        pytest.skip(
            "SmolLM2 is not here: run `make real-model`, or name its folder in "
            "REGREASON_TEST_SMOLLM2"
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regreason-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / "smollm2-float32"
    command = [sys.executable, "-m", "regreason_plugin", "base", "smollm2", "--out", str(folder)]
    # One of several workers writes it and the others wait. A separate process frees its memory.
    with FileLock(cache / "smollm2.lock"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def require(source: Source, *names: str) -> None:
    """Skip the test if it needs real texts and they are not here."""
    if source == "real" and not all(FILES[name].is_file() for name in names):
        pytest.skip("the real texts are not here: name their folder in REGREASON_TEST_DATA")


def best_source(*names: str) -> Source:
    """Real texts if they are here, otherwise our own."""
    return "real" if all(FILES[name].is_file() for name in names) else "own"


def nli_pairs(source: Source) -> list[dict[str, Any]]:
    """Sentence pairs with ``group``, ``text``, ``label`` (1 to 3) and ``explanation``."""
    return _esnli() if source == "real" else _own_pairs()


def nli_data(
    folder: Path, source: Source, order: Order = "label_first", explanation: str | None = None
) -> DataFolder:
    """Build a data folder of 24 sentence pairs, six of them for training.

    Args:
        folder: The folder to write.
        source: Source of the texts.
        order: Whether the label or the explanation comes first.
        explanation: Explanation of every row; None for the rows' own explanations.
    """
    ratings = [
        Rating.model_validate(
            {
                "id": f"pair-{number}",
                "dataset": "nli",
                "axis": "label",
                "conversation": [{"role": "assistant", "content": pair["text"]}],
                "score": float(pair["label"]),
                **{name: pair[name] for name in ("group", "label")},
                "explanation": explanation or pair["explanation"],
            },
            context={"declaration": NLI},
        )
        for number, pair in enumerate(nli_pairs(source))
    ]
    options = BuildOptions(
        order=order,
        arms=("label_only", "explanation"),
        parts={"train": 2, "validation": 1, "test": 5},
    )
    return _built(folder, ratings, options, NLI)


def rated_data(folder: Path, source: Source, order: Order = "label_first") -> DataFolder:
    """Build a data folder of eighteen conversations on three axes, a third of them for testing."""
    conversations = _hh() if source == "real" else _own_conversations()
    ratings = [
        Rating(
            id=f"chat-{number}",
            dataset=CONVERSATIONS,
            group=f"chat-{number}",
            conversation=turns,
            axis=axis,
            label=(number + place) % 5 + 1,
            score=float((number + place) % 5 + 1),
            explanation=f"The answer has {len(turns[-1].content.split())} words.",
        )
        for number, turns in enumerate(conversations)
        for place, axis in enumerate(AXES)
    ]
    options = BuildOptions(order=order, arms=("label_only", "explanation"))
    return _built(folder, ratings, options)


def _built(folder: Path, ratings: list[Rating], options: BuildOptions, *declared: Any) -> Any:
    file = folder.with_name(f"{folder.name}.ratings.jsonl")
    write_records(file, iter(ratings))
    return build(file, folder, options, **({"declaration": declared[0]} if declared else {}))


def _own_pairs() -> list[dict[str, Any]]:
    pairs = []
    for number, who in enumerate(_PEOPLE):
        deed, place = _DEEDS[number % 4], _PLACES[number % 3]
        for label, hypothesis, why in (
            (1, f"The {who} is asleep.", f"Nobody asleep is {deed}."),
            (2, f"The {who} is {place}.", f"It says that the {who} is {place}."),
            (3, f"The {who} is tired.", f"It does not say whether the {who} is tired."),
        ):
            text = f"The {who} is {deed} {place}.\n{hypothesis}"
            pairs.append({"group": who, "text": text, "label": label, "explanation": why})
    return pairs


def _esnli() -> list[dict[str, Any]]:
    """The shortest pairs for the first premises that occur with all three labels."""
    with gzip.open(FILES["esnli"], "rt", encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if len(row["text"].split()) <= 22]
    groups: dict[str, dict[str, Any]] = {}
    for row in rows:
        groups.setdefault(row["premise"], {}).setdefault(row["label"], row)
    whole = [group for group in groups.values() if len(group) == 3][:8]
    return [
        {
            "group": row["premise"],
            "text": row["text"],
            "label": NLI.labels.index(row["label"]) + 1,
            "explanation": row["explanation_1"],
        }
        for group in whole
        for row in group.values()
    ]


def _own_conversations() -> list[list[Turn]]:
    return [
        [
            Turn(role="user", content=f"Where is the {who}, and why?"),
            Turn(role="assistant", content=f"The {who} is {place}, {_DEEDS[number % 4]}."),
        ]
        for number, who in enumerate(_PEOPLE)
        for place in _PLACES
    ][:18]


def _hh() -> list[list[Turn]]:
    """The first short conversations of HH-RLHF."""
    found: list[list[Turn]] = []
    with gzip.open(FILES["hh"], "rt", encoding="utf-8") as stream:
        for line in stream:
            turns = parse_turns(json.loads(line)["chosen"], "chosen")
            words = sum(len(turn.content.split()) for turn in turns)
            if words <= 60 and all(turn.content.strip() for turn in turns):
                found.append(turns)
            if len(found) == 18:
                break
    return found
