"""The config files of `regreason annotate` and `regreason explain`.

`regreason fetch prompts` copies a template of each, with every key explained.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
)

from regreason_plugin.annotate.raters import PROMPTS
from regreason_plugin.annotate.rules import RULE_RATERS, RULED_AXES
from regreason_plugin.annotate.server_rater import Part, ServerRater
from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.jsonl import Model, validate
from regreason_plugin.core.paper import AXES
from regreason_plugin.core.yaml_file import YamlFile, read_yaml


class MergeConfig(Part):
    """How a rater merges the explanations of all raters into one.

    Attributes:
        rater: Name of the rater that writes the merged explanation.
        max_words: Maximum length of the merged explanation, in words; a longer one is cut, at the
            end of a sentence if possible.
    """

    rater: str
    max_words: Annotated[int, Field(ge=5)] = 60


class Alarm(Part):
    """When a run stops or warns because too many of a rater's answers cannot be used.

    Attributes:
        last: How many of the last answers count, of each rater and of each of its prompts.
        share: The share of ``last`` that may not be unusable.
        action: ``stop`` ends the run; ``warn`` prints a message and goes on.
    """

    last: Annotated[int, Field(ge=1, le=100_000)] = 50
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    action: Literal["stop", "warn"] = "stop"


def _rater(value: Any) -> Any:
    """The name of a rule, or the description of a server.

    Pydantic would report an error for each of the two types; here the user gets a single one.
    """
    if not isinstance(value, str):
        return ServerRater.model_validate(value)
    known = [rater.name for rater in RULE_RATERS]
    if value not in known:
        raise ValueError(
            f"unknown rater {value!r}; {nearest(value, known)}; a rater that is a language model "
            "needs the keys name, model and base_url"
        )
    return value


class AnnotateConfig(Part):
    """The config of `regreason annotate`; its paths are relative to the working folder.

    Attributes:
        conversations: Files with one conversation per line.
        out: The ratings file to write, one rating per conversation and axis.
        raters: Names of built-in rules, or descriptions of servers.
        store: The store of calls; by default a file beside ``out``.
        prompts: A folder of prompts that replaces the package's.
        aggregate: The aggregator that makes one score of many, one of `aggregate.AGGREGATORS`.
        minimum: Number of usable scores that a conversation needs on an axis; by default half of
            the scores that were asked for, rounded up.
        merge: How explanations are merged; by default the explanation whose score is nearest the
            label is taken.
        alarm: When too many unusable answers stop the run.
    """

    conversations: list[Path] = Field(min_length=1)
    out: Path
    raters: list[Annotated[str | ServerRater, BeforeValidator(_rater)]] = Field(
        default=[rater.name for rater in RULE_RATERS], min_length=1
    )
    store: Path | None = None
    prompts: Path | None = None
    aggregate: str = "mean"
    minimum: Annotated[int, Field(ge=1)] | None = None
    merge: MergeConfig | None = None
    alarm: Alarm = Alarm()

    @property
    def servers(self) -> list[ServerRater]:
        """The raters that are language models behind servers."""
        return [rater for rater in self.raters if isinstance(rater, ServerRater)]

    def in_batches(self) -> AnnotateConfig:
        """The config with the prices of calls in batches."""
        raters = [one if isinstance(one, str) else one.in_batches() for one in self.raters]
        return self.model_copy(update={"raters": raters})

    @property
    def scores_asked(self) -> int:
        """Number of scores that are asked for, per conversation and axis."""
        return sum(
            len(rater.prompts) if isinstance(rater, ServerRater) else len(PROMPTS)
            for rater in self.raters
        )

    @property
    def scores_needed(self) -> int:
        """Number of usable scores that a conversation needs on an axis."""
        return self.minimum or math.ceil(self.scores_asked / 2)

    @property
    def store_path(self) -> Path:
        """Path of the store."""
        return self.store or _beside(self.out)


def _explainer(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(
            f"{value!r} cannot explain a label, only a language model can; describe one with the "
            "keys name, model and base_url"
        )
    return value


class ExplainConfig(Part):
    """The config of `regreason explain`; its paths are relative to the working folder.

    Attributes:
        raters: The raters, in the order in which they are asked: each is asked only about the rows
            on which all earlier raters have failed.
        store: The store of calls; by default a file beside the table that is written.
        prompts: A folder with an ``explain.txt`` that replaces the package's.
        max_words: Maximum length of an explanation, in words; a longer one is cut, at the end of a
            sentence if possible.
        alarm: When too many unusable answers stop the run.
    """

    raters: list[Annotated[ServerRater, BeforeValidator(_explainer)]] = Field(min_length=1)
    store: Path | None = None
    prompts: Path | None = None
    max_words: Annotated[int, Field(ge=5)] = 60
    alarm: Alarm = Alarm()

    def store_path(self, out: Path) -> Path:
        """Path of the store.

        Args:
            out: The table that `regreason explain` writes.
        """
        return self.store or _beside(out)


def _beside(out: Path) -> Path:
    return out.with_name(out.name.split(".jsonl")[0] + ".calls.db")


def read_config(path: Path) -> AnnotateConfig:
    """Read and check the config of `regreason annotate`.

    Raises:
        UserError: The file is missing or not a YAML mapping, or a key or its value is wrong.
    """
    config, file = _read(AnnotateConfig, path, "the keys conversations and out")
    _check(config, file, path)
    return config


def read_explain_config(path: Path) -> ExplainConfig:
    """Read and check the config of `regreason explain`.

    Raises:
        UserError: See `read_config`.
    """
    config, file = _read(ExplainConfig, path, "the key raters")
    _check_names([rater.name for rater in config.raters], file, path)
    return config


def _read(model: type[Model], path: Path, needed: str) -> tuple[Model, YamlFile]:
    file = read_yaml(path)
    if not isinstance(file.value, dict):
        raise UserError(f"is not a YAML mapping; write a mapping with {needed}", path=path)
    return validate(model, file.value, path, file.line), file


def _wrong(message: str, file: YamlFile, path: Path, *field: str | int) -> UserError:
    return UserError(message, path=path, line=file.line(field), field=".".join(map(str, field)))


def _check_names(names: list[str], file: YamlFile, path: Path) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise _wrong(
                f"two raters are named {name!r}; give each rater a different name",
                file,
                path,
                *("raters", number),
            )


def _check(config: AnnotateConfig, file: YamlFile, path: Path) -> None:
    from regreason_plugin.annotate.aggregate import AGGREGATORS

    names = [rater if isinstance(rater, str) else rater.name for rater in config.raters]
    _check_names(names, file, path)
    unruled = [axis for axis in AXES if axis not in RULED_AXES]
    if unruled and len(config.servers) < len(config.raters):
        raise _wrong(
            f"the built-in rules cannot rate the axis {', '.join(unruled)}; use only raters behind "
            "a server, or add a rule to regreason_plugin/annotate/rules.py",
            file,
            path,
            "raters",
        )
    if config.aggregate not in AGGREGATORS:
        raise _wrong(
            f"unknown aggregator {config.aggregate!r}; "
            f"{nearest(config.aggregate, list(AGGREGATORS))}",
            file,
            path,
            "aggregate",
        )
    servers = [server.name for server in config.servers]
    if config.merge and config.merge.rater not in servers:
        raise _wrong(
            f"{config.merge.rater!r} is not one of the raters behind a server "
            f"({', '.join(servers) or 'there are none'}); only those can merge explanations",
            file,
            path,
            *("merge", "rater"),
        )
    asked = config.scores_asked
    if config.minimum is not None and config.minimum > asked:
        raise _wrong(
            f"a conversation gets {asked} scores on an axis, so it can never have "
            f"{config.minimum}; lower minimum",
            file,
            path,
            "minimum",
        )
