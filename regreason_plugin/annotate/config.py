"""The config files of `regreason annotate` and `regreason explain`.

`regreason fetch prompts` copies a template of each, with every key explained.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from regreason_plugin.annotate.prompts import STYLES
from regreason_plugin.annotate.raters import PROMPTS
from regreason_plugin.annotate.rules import RULE_RATERS, RULED_AXES
from regreason_plugin.core.errors import UserError, nearest
from regreason_plugin.core.jsonl import Model, validate
from regreason_plugin.core.paper import AXES
from regreason_plugin.core.yaml_file import read_yaml

Structured = Literal["json_schema", "json_object", "none"]

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Price(_Part):
    """The price of a million tokens, in any currency that is the same for all raters.

    Attributes:
        prompt: Price of a million prompt tokens.
        answer: Price of a million answer tokens.
    """

    prompt: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    answer: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    def of(self, prompt_tokens: int, answer_tokens: int) -> float:
        """The cost of some prompt tokens and answer tokens."""
        return (self.prompt * prompt_tokens + self.answer * answer_tokens) / 1e6


class ServerRater(_Part):
    """A language model behind an address.

    Attributes:
        name: The rater's name in all files.
        model: The model's name on the server.
        base_url: Address of a server that speaks the OpenAI protocol, up to ``/v1``.
        api_key_env: Name of the environment variable that holds the key; None for a server
            without keys.
        prompts: The prompt styles to ask with; each style gives one score.
        temperature: Sampling temperature; 0 takes the most probable answer.
        max_tokens: Maximum length of an answer, in tokens.
        sampling: Further options of every request, such as ``seed`` or ``top_p``.
        structured: How the request asks the server for JSON.
        concurrency: Maximum number of calls at once.
        timeout: Seconds after which a call fails.
        retries: Maximum number of retries after a fault that may pass.
        price: Price of a million tokens; None if unknown.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: str = Field(min_length=1)
    base_url: str
    api_key_env: str | None = None
    prompts: tuple[str, ...] = Field(default=STYLES, min_length=1)
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    max_tokens: Annotated[int, Field(ge=1)] = 300
    sampling: dict[str, float | int] = Field(default_factory=dict)
    structured: Structured = "json_schema"
    # The client opens at most 1000 connections.
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    timeout: Annotated[float, Field(gt=0)] = 120.0
    retries: Annotated[int, Field(ge=0)] = 4
    price: Price | None = None

    @field_validator("name")
    @classmethod
    def _is_no_rule(cls, name: str) -> str:
        if name.startswith("rules-"):
            raise ValueError("names that start with rules- are reserved for the built-in rules")
        return name

    @field_validator("prompts")
    @classmethod
    def _are_different(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(prompts)) < len(prompts):
            raise ValueError("lists a prompt twice; list each prompt once, as each gives one score")
        return prompts

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("is not an address such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "contains a user name, a password or a query; remove it and name the key's "
                "environment variable in api_key_env"
            )
        return url.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _is_variable(cls, name: str | None) -> str | None:
        # The message must not repeat the value: somebody may have written the key itself here.
        if name is not None and not _VARIABLE.fullmatch(name):
            raise ValueError("is not the name of an environment variable, such as OPENAI_API_KEY")
        return name

    @field_validator("sampling")
    @classmethod
    def _says_nothing_twice(cls, sampling: dict[str, float | int]) -> dict[str, float | int]:
        for key in ("model", "temperature", "max_tokens"):
            if key in sampling:
                raise ValueError(f"{key} does not belong here; it is a key of the rater itself")
        for key in ("n", "stream", "messages", "response_format"):
            if key in sampling:
                raise ValueError(
                    f"{key} cannot be set: a call has one message and one answer, in one piece"
                )
        return sampling

    def request_options(self) -> dict[str, float | int]:
        """The options of every request that determine an answer besides model and prompt."""
        options = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return dict(sorted({**options, **self.sampling}.items()))


class MergeConfig(_Part):
    """How a rater merges the explanations of all raters into one.

    Attributes:
        rater: Name of the rater that writes the merged explanation.
        max_words: Maximum length of the merged explanation, in words; a longer one is cut, at the
            end of a sentence if possible.
    """

    rater: str
    max_words: Annotated[int, Field(ge=5)] = 60


class Alarm(_Part):
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


class AnnotateConfig(_Part):
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


class ExplainConfig(_Part):
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
    config = _read(AnnotateConfig, path, "the keys conversations and out")
    _check(config, path)
    return config


def read_explain_config(path: Path) -> ExplainConfig:
    """Read and check the config of `regreason explain`.

    Raises:
        UserError: See `read_config`.
    """
    config = _read(ExplainConfig, path, "the key raters")
    _check_names([rater.name for rater in config.raters], path)
    return config


def _read(model: type[Model], path: Path, needed: str) -> Model:
    file = read_yaml(path)
    if not isinstance(file.value, dict):
        raise UserError(f"is not a YAML mapping; write a mapping with {needed}", path=path)
    return validate(model, file.value, path, file.line)


def _check_names(names: list[str], path: Path) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"two raters are named {name!r}; give each rater a different name",
                path=path,
                field="raters",
            )


def _check(config: AnnotateConfig, path: Path) -> None:
    from regreason_plugin.annotate.aggregate import AGGREGATORS

    _check_names([rater if isinstance(rater, str) else rater.name for rater in config.raters], path)
    unruled = [axis for axis in AXES if axis not in RULED_AXES]
    if unruled and len(config.servers) < len(config.raters):
        raise UserError(
            f"the built-in rules cannot rate the axis {', '.join(unruled)}; use only raters behind "
            "a server, or add a rule to regreason_plugin/annotate/rules.py",
            path=path,
            field="raters",
        )
    if config.aggregate not in AGGREGATORS:
        raise UserError(
            f"unknown aggregator {config.aggregate!r}; "
            f"{nearest(config.aggregate, list(AGGREGATORS))}",
            path=path,
            field="aggregate",
        )
    servers = [server.name for server in config.servers]
    if config.merge and config.merge.rater not in servers:
        raise UserError(
            f"{config.merge.rater!r} is not one of the raters behind a server "
            f"({', '.join(servers) or 'there are none'}); only those can merge explanations",
            path=path,
            field="merge.rater",
        )
    asked = config.scores_asked
    if config.minimum is not None and config.minimum > asked:
        raise UserError(
            f"a conversation gets {asked} scores on an axis, so it can never have "
            f"{config.minimum}; lower minimum",
            path=path,
            field="minimum",
        )
