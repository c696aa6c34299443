"""The files that `regreason annotate` and `regreason explain` read.

`regreason fetch prompts` copies one of each with every key explained.
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
    """Of a million tokens, in any one currency."""

    prompt: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    answer: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    def of(self, prompt_tokens: int, answer_tokens: int) -> float:
        """What so many tokens cost."""
        return (self.prompt * prompt_tokens + self.answer * answer_tokens) / 1e6


class ServerRater(_Part):
    """A language model behind an address.

    Attributes:
        name: Stands in every file beside the score.
        model: As the server knows it.
        base_url: Of a server that speaks the OpenAI protocol, up to ``/v1``.
        api_key_env: The environment variable with its key; none for a server without keys.
        prompts: Which of the prompts it is asked with; every one is a score of its own.
        temperature: 0 for the likeliest answer.
        max_tokens: The longest answer.
        sampling: What else is passed on with every request, such as ``seed`` or ``top_p``.
        structured: How the server is told to answer with JSON.
        concurrency: Calls at once.
        timeout: Seconds until a call is given up.
        retries: Further attempts after a fault that may pass.
        price: Of a million tokens, in any one currency.
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
    # More connections the client does not open.
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    timeout: Annotated[float, Field(gt=0)] = 120.0
    retries: Annotated[int, Field(ge=0)] = 4
    price: Price | None = None

    @field_validator("name")
    @classmethod
    def _is_no_rule(cls, name: str) -> str:
        if name.startswith("rules-"):
            raise ValueError("names that start with rules- are those of the built-in rules")
        return name

    @field_validator("prompts")
    @classmethod
    def _are_different(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(prompts)) < len(prompts):
            raise ValueError("has a prompt twice; each is a score of its own")
        return prompts

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("is no address such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("holds a user, a password or a query; keys come from api_key_env")
        return url.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _is_variable(cls, name: str | None) -> str | None:
        # Whoever writes the key itself here must not find it in an error message.
        if name is not None and not _VARIABLE.fullmatch(name):
            raise ValueError("is no name of an environment variable, such as OPENAI_API_KEY")
        return name

    @field_validator("sampling")
    @classmethod
    def _says_nothing_twice(cls, sampling: dict[str, float | int]) -> dict[str, float | int]:
        for key in ("model", "temperature", "max_tokens"):
            if key in sampling:
                raise ValueError(f"{key} is a key of the rater itself")
        for key in ("n", "stream", "messages", "response_format"):
            if key in sampling:
                raise ValueError(f"{key} is not for samplings: a call has one answer, in one piece")
        return sampling

    def request_options(self) -> dict[str, float | int]:
        """What decides an answer beside the prompt, sent with every request."""
        options = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return dict(sorted({**options, **self.sampling}.items()))


class MergeConfig(_Part):
    """How the explanations of all raters become one.

    Attributes:
        rater: Whose model writes it.
        max_words: The longest explanation; a longer one is cut, at the end of a sentence if
            there is one.
    """

    rater: str
    max_words: Annotated[int, Field(ge=5)] = 60


def _rater(value: Any) -> Any:
    """A rule's name, or what describes a server; told apart here for one clear error."""
    if not isinstance(value, str):
        return ServerRater.model_validate(value)
    known = [rater.name for rater in RULE_RATERS]
    if value not in known:
        raise ValueError(
            f"unknown rater {value!r}; {nearest(value, known)}; a language model needs the keys "
            "name, model and base_url"
        )
    return value


class AnnotateConfig(_Part):
    """What to rate, by whom, and where to write it; paths as seen from where it is run.

    Attributes:
        conversations: Files of one conversation a line.
        out: The ratings, one a conversation and axis.
        raters: Names of built-in rules, or servers.
        store: The store of calls; by default beside ``out``.
        prompts: A folder of prompts to use in place of the package's.
        aggregate: How many scores become one (`aggregate.AGGREGATORS`).
        minimum: Usable scores that a conversation needs on an axis; by default half of those
            that were asked for, rounded up.
        merge: How explanations become one; by default the one nearest the label is taken.
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

    @property
    def servers(self) -> list[ServerRater]:
        """The raters that are asked over a network."""
        return [rater for rater in self.raters if isinstance(rater, ServerRater)]

    @property
    def scores_asked(self) -> int:
        """How many scores a conversation is to get on an axis."""
        return sum(
            len(rater.prompts) if isinstance(rater, ServerRater) else len(PROMPTS)
            for rater in self.raters
        )

    @property
    def scores_needed(self) -> int:
        """How many of them have to be usable."""
        return self.minimum or math.ceil(self.scores_asked / 2)

    @property
    def store_path(self) -> Path:
        """Where the store is."""
        return self.store or _beside(self.out)


def _explainer(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(
            f"{value!r} cannot explain a label; a language model needs the keys name, model and "
            "base_url"
        )
    return value


class ExplainConfig(_Part):
    """Who explains the labels of a table; paths as seen from where it is run.

    Attributes:
        raters: Asked in this order: each only for rows that all before it have failed on.
        store: The store of calls; by default beside the file that is written.
        prompts: A folder with an ``explain.txt`` to use in place of the package's.
        max_words: The longest explanation; a longer one is cut, at the end of a sentence if
            there is one.
    """

    raters: list[Annotated[ServerRater, BeforeValidator(_explainer)]] = Field(min_length=1)
    store: Path | None = None
    prompts: Path | None = None
    max_words: Annotated[int, Field(ge=5)] = 60

    def store_path(self, out: Path) -> Path:
        """Where the store is.

        Args:
            out: The file that is written.
        """
        return self.store or _beside(out)


def _beside(out: Path) -> Path:
    return out.with_name(out.name.split(".jsonl")[0] + ".calls.db")


def read_config(path: Path) -> AnnotateConfig:
    """Read and check the config of `regreason annotate`.

    Raises:
        UserError: It is not there, no YAML mapping, or a key or rater is unknown.
    """
    config = _read(AnnotateConfig, path, "the keys conversations and out")
    _check(config, path)
    return config


def read_explain_config(path: Path) -> ExplainConfig:
    """Read and check the config of `regreason explain`.

    Raises:
        UserError: As `read_config`.
    """
    config = _read(ExplainConfig, path, "the key raters")
    _check_names([rater.name for rater in config.raters], path)
    return config


def _read(model: type[Model], path: Path, needed: str) -> Model:
    file = read_yaml(path)
    if not isinstance(file.value, dict):
        raise UserError(f"is no mapping; it needs {needed}", path=path)
    return validate(model, file.value, path, file.line)


def _check_names(names: list[str], path: Path) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"{name!r} is there twice; raters need names of their own",
                path=path,
                field="raters",
            )


def _check(config: AnnotateConfig, path: Path) -> None:
    from regreason_plugin.annotate.aggregate import AGGREGATORS

    _check_names([rater if isinstance(rater, str) else rater.name for rater in config.raters], path)
    unruled = [axis for axis in AXES if axis not in RULED_AXES]
    if unruled and len(config.servers) < len(config.raters):
        raise UserError(
            f"the built-in rules have no rule for {', '.join(unruled)}; name raters behind a "
            "server, or write the rule in regreason_plugin/annotate/rules.py",
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
            f"{config.merge.rater!r} is none of the raters behind a server"
            f" ({', '.join(servers) or 'there are none'}); rules cannot merge explanations",
            path=path,
            field="merge.rater",
        )
    asked = config.scores_asked
    if config.minimum is not None and config.minimum > asked:
        raise UserError(
            f"a conversation has {asked} scores on an axis, never {config.minimum}",
            path=path,
            field="minimum",
        )
