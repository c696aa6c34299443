"""The provenance of a ratings file: the raters, their settings, and the calls that failed.

The provenance of ``ratings.jsonl`` is written to ``ratings.about.json`` beside it. `regreason
build` makes the dataset card from it. Ratings from other sources have no such file, so their card
says less.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import parse_object, validate
from regreason_plugin.core.whole_files import atomic_writer


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RaterProvenance(_Part):
    """The provenance of one rater's scores.

    Attributes:
        name: The rater's name.
        model: The model's name on the server; None for rules.
        sampling: Temperature and all other settings that determine an answer besides the prompt.
        prompts: SHA-256 of each of the rater's prompts, by the prompt's name.
        served: Number of answers by the model's name in the server's replies, where it has one.
        days: Number of answers by day (UTC).
    """

    name: str
    model: str | None = None
    sampling: dict[str, JsonValue] = Field(default_factory=dict)
    prompts: dict[str, str] = Field(default_factory=dict)
    served: dict[str, int] = Field(default_factory=dict)
    days: dict[str, int] = Field(default_factory=dict)


class About(_Part):
    """The provenance of a ratings file.

    Attributes:
        format: Version of this format.
        ratings_sha256: SHA-256 of the ratings file's bytes; readers refuse any other file.
        raters: The raters.
        merged_by: The rater that merged the explanations; None if they were not merged.
        aggregator: The aggregator that made one score of many.
        minimum: Number of usable scores that a conversation needs on an axis.
        conversations: Number of conversations rated, by dataset.
        calls: Number of finished calls by outcome: ``ok`` or the name of a fault.
        answers: The same numbers by rater, prompt and outcome.
        dropped: Number of conversations x axes without a label, by reason.
        notes: Number of other events, by description.
        tokens: Numbers of ``prompt`` and ``answer`` tokens, as the servers counted them.
        cost: Cost of all calls, in the currency of the config's prices; None if no price is known.
        versions: Version of each package that made the ratings.
    """

    format: int = 1
    ratings_sha256: str
    raters: list[RaterProvenance]
    merged_by: RaterProvenance | None = None
    aggregator: str
    minimum: int
    conversations: dict[str, int]
    calls: dict[str, int] = Field(default_factory=dict)
    answers: dict[str, dict[str, dict[str, int]]] = Field(default_factory=dict)
    dropped: dict[str, int] = Field(default_factory=dict)
    notes: dict[str, int] = Field(default_factory=dict)
    tokens: dict[str, int] = Field(default_factory=dict)
    cost: float | None = None
    versions: dict[str, str]


def provenance_path(ratings: Path) -> Path:
    """Path of the provenance file of a ratings file."""
    return ratings.with_name(ratings.name.split(".jsonl")[0] + ".about.json")


def write_about(ratings: Path, about: About) -> Path:
    """Write the provenance file beside the ratings, whole or not at all.

    Returns:
        The path of the provenance file.
    """
    path = provenance_path(ratings)
    with atomic_writer(path) as stream:
        stream.write(about.model_dump_json(indent=1, exclude_none=True).encode("utf-8") + b"\n")
    return path


def read_provenance(ratings: Path, sha256: str) -> About | None:
    """Read the provenance of a ratings file.

    Args:
        ratings: The ratings file.
        sha256: SHA-256 of the ratings file's bytes.

    Returns:
        The provenance; None if there is no provenance file.

    Raises:
        UserError: The provenance file is not valid, or belongs to other ratings.
    """
    path = provenance_path(ratings)
    if not path.is_file():
        return None
    about = validate(About, parse_object(path.read_bytes(), path, 1), path, 1)
    if about.ratings_sha256 != sha256:
        raise UserError(
            f"describes another version of {ratings.name}; make the ratings again, or remove this "
            "file",
            path=path,
            field="ratings_sha256",
        )
    return about
