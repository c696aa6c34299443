"""The file that `regreason annotate` reads.

conversations: [hh_chosen.jsonl, hh_rejected.jsonl]   # files of one conversation a line
out: ratings.jsonl                                    # one rating a conversation and axis
raters: [rules-strict, rules-even, rules-lenient]     # optional; these are all there are
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from regreason_plugin.annotation.ensemble import rate
from regreason_plugin.annotation.rules import RULE_RATERS
from regreason_plugin.errors import UserError, nearest
from regreason_plugin.jsonl import check_unique, read_records, validate, write_records
from regreason_plugin.schema import Conversation, Rating


class AnnotateConfig(BaseModel):
    """What to rate, by whom, and where to write it; paths as seen from where it is run."""

    model_config = ConfigDict(extra="forbid")

    conversations: list[Path] = Field(min_length=1)
    out: Path
    raters: list[str] = Field(
        default_factory=lambda: [rater.name for rater in RULE_RATERS], min_length=1
    )


def read_config(path: Path) -> AnnotateConfig:
    """Read and check the file.

    Raises:
        UserError: It is not there, no YAML mapping, or a key or rater is unknown.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("no such file", path=path) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"is not YAML: {error}", path=path) from None
    if not isinstance(value, dict):
        raise UserError("is no mapping; it needs the keys conversations and out", path=path)
    config = validate(AnnotateConfig, value, path, 1)
    known = [rater.name for rater in RULE_RATERS]
    for name in config.raters:
        if name not in known:
            raise UserError(
                f"unknown rater {name!r}; {nearest(name, known)}", path=path, field="raters"
            )
    return config


def annotate(config: AnnotateConfig, on_rating: Callable[[], object] = lambda: None) -> int:
    """Rate every conversation on every axis and write the ratings, whole or not at all.

    Returns:
        The number of ratings.

    Raises:
        UserError: A conversation is wrong, or an id stands in two files.
    """
    raters = [rater for rater in RULE_RATERS if rater.name in config.raters]

    def conversations() -> Iterator[Conversation]:
        seen: dict[tuple[str, str], int] = {}
        for path in config.conversations:
            for number, conversation in enumerate(
                read_records(path, Conversation, unique=False), start=1
            ):
                check_unique(seen, {"id": conversation.id}, path, number)
                yield conversation

    def counted() -> Iterator[Rating]:
        for rating in rate(conversations(), raters):
            on_rating()
            yield rating

    return write_records(config.out, counted())
