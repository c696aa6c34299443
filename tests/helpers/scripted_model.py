"""A model whose answers a test determines."""

from __future__ import annotations

from typing import Any

from lm_eval.api.model import LM

LIKES_3 = [-5.0, -4.0, -1.0, -4.0, -5.0]


class Scripted(LM):  # type: ignore[misc]
    """A model that writes the same text for every prompt and records its requests."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.asked: list[tuple[str, Any]] = []

    def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
        self.asked += [request.args for request in requests]
        return [self.text for _ in requests]

    def loglikelihood(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        self.asked += [request.args for request in requests]
        return [(LIKES_3[int(request.args[1]) - 1], False) for request in requests]

    def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
        raise NotImplementedError

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"

    @property
    def tokenizer_name(self) -> str:
        return "scripted"
