"""What is said of a ratings file in a file beside it: who rated, how, and what was lost.

``ratings.jsonl`` has ``ratings.about.json``. `regreason build` makes the dataset card from it;
ratings that come from elsewhere have none, and their card then says less.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import parse_object, validate
from regreason_plugin.core.whole_files import atomic_writer


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AboutRater(_Part):
    """Who rates.

    Attributes:
        model: As the server knows it; none for rules.
        sampling: Temperature and what else decides an answer beside the prompt.
        prompts: sha256 of each prompt that it was asked with, by the prompt's name.
    """

    name: str
    model: str | None = None
    sampling: dict[str, float | int | str] = Field(default_factory=dict)
    prompts: dict[str, str] = Field(default_factory=dict)


class About(_Part):
    """A ratings file's history.

    Attributes:
        ratings_sha256: Of the file's bytes, so that this is never read beside another file.
        merged_by: The rater that merged the explanations, if one did.
        aggregator: How the scores became one.
        minimum: Usable scores that a conversation needs on an axis.
        conversations: How many were rated, by dataset.
        calls: Number of finished calls by outcome: ``ok`` or an error's name.
        dropped: Number of conversations x axes without a label, by reason.
        notes: Counts of what else happened on the way, by what.
        tokens: ``prompt`` and ``answer``, as the servers counted them.
        cost: In the currency of the prices in the config; none where no price is known.
    """

    format: int = 1
    ratings_sha256: str
    raters: list[AboutRater]
    merged_by: AboutRater | None = None
    aggregator: str
    minimum: int
    conversations: dict[str, int]
    calls: dict[str, int] = Field(default_factory=dict)
    dropped: dict[str, int] = Field(default_factory=dict)
    notes: dict[str, int] = Field(default_factory=dict)
    tokens: dict[str, int] = Field(default_factory=dict)
    cost: float | None = None
    versions: dict[str, str]


def about_path(ratings: Path) -> Path:
    """Where a ratings file's `About` is."""
    return ratings.with_name(ratings.name.split(".jsonl")[0] + ".about.json")


def write_about(ratings: Path, about: About) -> Path:
    """Write it beside the ratings, whole or not at all.

    Returns:
        Its path.
    """
    path = about_path(ratings)
    with atomic_writer(path) as stream:
        stream.write(about.model_dump_json(indent=1, exclude_none=True).encode("utf-8") + b"\n")
    return path


def read_about(ratings: Path, sha256: str) -> About | None:
    """Read what is said of a ratings file.

    Args:
        ratings: The file.
        sha256: Of its bytes.

    Returns:
        None where there is no such file.

    Raises:
        UserError: It is broken, or says it is of other ratings.
    """
    path = about_path(ratings)
    if not path.is_file():
        return None
    about = validate(About, parse_object(path.read_bytes(), path, 1), path, 1)
    if about.ratings_sha256 != sha256:
        raise UserError(
            f"is of another version of {ratings.name}; make the ratings again, or remove it",
            path=path,
            field="ratings_sha256",
        )
    return about
