"""The config of a rater that is a language model behind a server."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)

from regreason_plugin.annotate.prompts import STYLES

# How a request asks for JSON, the strictest way first.
Structured = Literal["json_schema", "guided_json", "tool", "json_object", "none"]
# The name of the function that `structured: tool` makes the model call with its answer.
TOOL = "answer"

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Names whose values are secrets; `stop_token`, `max_tokens` and `prompt_cache_key` are none.
_SECRET = re.compile(
    r"(?!prompt_cache_key$)(?:.*[-_.])?(?:key|apikey|secret|signature|password|passwd|credentials?|"
    r"authori[sz]ation|cookie|(?:access|api|auth)[-_]?token)|token|code|sig",
    re.IGNORECASE,
)
# Headers that the client sets from the request itself.
_OWN_HEADERS = {"connection", "content-length", "content-type", "host", "transfer-encoding"}
# The fields of a request that limit the answer's length in tokens.
_LENGTHS = ("max_completion_tokens", "max_tokens", "max_new_tokens", "num_predict")


def _is_secret(name: str) -> bool:
    return _SECRET.fullmatch(name) is not None


class Part(BaseModel):
    """A mapping in a config, which refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Price(Part):
    """The price of a million tokens, in any currency that is the same for all raters.

    Attributes:
        prompt: Price of a million prompt tokens.
        answer: Price of a million answer tokens.
        batch: The share of these prices that a call in a batch costs.
    """

    prompt: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    answer: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    batch: Annotated[float, Field(ge=0, le=1)] = 0.5

    def of(self, prompt_tokens: int, answer_tokens: int) -> float:
        """The cost of some prompt tokens and answer tokens."""
        return (self.prompt * prompt_tokens + self.answer * answer_tokens) / 1e6


def _is_variable(name: str) -> str:
    # The message must not repeat the value: somebody may have written the key itself here.
    if not _VARIABLE.fullmatch(name):
        raise ValueError("is not the name of an environment variable, such as OPENAI_API_KEY")
    return name


class FromEnvironment(Part):
    """A header's value that stands in an environment variable.

    Attributes:
        env: Name of the environment variable.
    """

    env: str

    _check = field_validator("env")(_is_variable)


def _header(value: Any) -> Any:
    """A header's value; pydantic would report an error for each of its two types."""
    return value if isinstance(value, str) else FromEnvironment.model_validate(value)


Header = Annotated[str | FromEnvironment, BeforeValidator(_header)]


class ServerRater(Part):
    """A language model behind an address.

    Attributes:
        name: The rater's name in all files.
        model: The model's name on the server.
        base_url: Address of a server that speaks the OpenAI protocol, up to ``/v1``; it may end
            with a query such as ``?api-version=2024-10-21``.
        api_key_env: Name of the environment variable that holds the key; None for a server
            without keys.
        prompts: The prompt styles to ask with; each style gives one score.
        temperature: Sampling temperature; 0 takes the most probable answer, null sends none.
        max_tokens: Maximum length of an answer, in tokens; null sends none.
        request: Further fields of every request's body, such as ``seed`` or ``reasoning_effort``;
            null removes the field.
        headers: Headers of every request: the value, or ``{env: NAME}`` for a secret in the
            environment variable NAME.
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
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = 0.0
    max_tokens: Annotated[int, Field(ge=1)] | None = 300
    request: dict[str, JsonValue] = Field(default_factory=dict)
    headers: dict[str, Header] = Field(default_factory=dict)
    structured: Structured = "json_schema"
    # The client opens at most 1000 connections.
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    timeout: Annotated[float, Field(gt=0)] = 120.0
    retries: Annotated[int, Field(ge=0)] = 4
    price: Price | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_no_old_key(cls, value: Any) -> Any:
        if isinstance(value, dict) and "sampling" in value:
            raise ValueError("the key sampling is named request now; rename it")
        return value

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
        # Reading the port raises a ValueError if it is none.
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
            raise ValueError("is not an address such as http://localhost:8000/v1")
        names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
        if len(set(names)) < len(names):
            raise ValueError("has a query that names a parameter twice")
        if parts.username or parts.password or parts.fragment or any(map(_is_secret, names)):
            raise ValueError(
                "contains a user name, a password, a key or a fragment (#); remove it and name the "
                "key's environment variable in api_key_env or headers"
            )
        return url if parts.query else url.rstrip("/?")

    _check_variable = field_validator("api_key_env")(
        lambda name: None if name is None else _is_variable(name)
    )

    @field_validator("request")
    @classmethod
    def _says_nothing_twice(cls, request: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for key, value in request.items():
            if key == "model" or (key in {"temperature", "max_tokens"} and value is not None):
                raise ValueError(f"{key} does not belong here; it is a key of the rater itself")
            if key in {"n", "stream", "messages", "response_format", "tools", "tool_choice"}:
                raise ValueError(
                    f"{key} cannot be set: a call has one message and one answer, in one piece"
                )
            if _is_secret(key):
                raise ValueError(
                    f"{key} looks like a secret, which the store would keep; name its environment "
                    "variable in api_key_env or headers"
                )
        try:
            json.dumps(request, allow_nan=False)
        except ValueError:
            raise ValueError("contains a number that JSON cannot write (nan or inf)") from None
        return request

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, Header]) -> dict[str, Header]:
        for name, value in headers.items():
            if not _HEADER.fullmatch(name) or name.lower() in _OWN_HEADERS:
                raise ValueError(
                    "has a name that is no header, or a header that the client sets itself "
                    f"({', '.join(sorted(_OWN_HEADERS))})"
                )
            if isinstance(value, str) and _is_secret(name):
                raise ValueError(
                    f"{name} looks like a secret; put its value into an environment variable and "
                    "write {env: NAME}"
                )
            if isinstance(value, str) and not re.fullmatch(r"[ -~]*", value):
                raise ValueError(f"the value of {name} has characters outside printable ASCII")
        return headers

    @model_validator(mode="after")
    def _has_one_key(self) -> ServerRater:
        if self.api_key_env and "authorization" in map(str.lower, self.headers):
            raise ValueError(
                "api_key_env and the header Authorization are the same; leave one of them out"
            )
        return self

    @property
    def address(self) -> str:
        """The address without its query."""
        return urlsplit(self.base_url)._replace(query="").geturl().rstrip("/")

    @property
    def query(self) -> dict[str, str]:
        """The query of the address, by name."""
        return dict(parse_qsl(urlsplit(self.base_url).query, keep_blank_values=True))

    @property
    def longest_answer(self) -> int | None:
        """Maximum length of an answer, in tokens; None if the request does not limit it."""
        body = self.request_body()
        return next((int(one) for key in _LENGTHS if isinstance(one := body.get(key), int)), None)

    def request_body(self) -> dict[str, JsonValue]:
        """The fields of every request's body besides model, messages and `structured`'s."""
        fields: dict[str, JsonValue] = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            **self.request,
        }
        return {name: fields[name] for name in sorted(fields) if fields[name] is not None}

    def structured_fields(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The fields of a request's body that ask for JSON; empty for ``structured: none``.

        Args:
            schema: The JSON schema of the answer.
        """
        if self.structured == "json_schema":
            described = {"name": "answer", "strict": True, "schema": schema}
            return {"response_format": {"type": "json_schema", "json_schema": described}}
        if self.structured == "json_object":
            return {"response_format": {"type": "json_object"}}
        if self.structured == "guided_json":
            return {"guided_json": schema}
        if self.structured == "tool":
            function = {"type": "function", "function": {"name": TOOL}}
            tool = {"type": "function", "function": {"name": TOOL, "parameters": schema}}
            return {"tools": [tool], "tool_choice": function}
        return {}

    def in_batches(self) -> ServerRater:
        """The rater with the prices of its calls in batches."""
        price = self.price
        if price is None:
            return self
        lower = Price(prompt=price.prompt * price.batch, answer=price.answer * price.batch, batch=1)
        return self.model_copy(update={"price": lower})

    def request_options(self) -> dict[str, JsonValue]:
        """All that determines an answer besides model and prompt: body and query."""
        query = urlsplit(self.base_url).query
        return {**self.request_body(), **({"query of base_url": query} if query else {})}
