"""A model whose probes are missing for some documents."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from helpers.scripted_model import Scripted

from regreason_plugin.evaluate.probe_metrics import Scored

TASK = "regreason_coqa_on_topic"


TWIN = "regreason-gen_coqa_on_topic"


LAYERS = 6


NAMES = [
    *("activation_entropy", "activation_entropy_square"),
    *("logit_lens_entropy", "matrix_entropy"),
]


def random_probe(context: str) -> dict[str, Any]:
    """Probe values that depend on the context alone."""
    rng = np.random.default_rng(zlib.crc32(context.encode()))
    by_layer = {f"{name}_by_layer": rng.random(LAYERS + 1).tolist() for name in NAMES}
    entropy = float(rng.random())
    texts = {"activation_entropy_definition": "absolute values", "deciding_token": ":"}
    return {"output_entropy": entropy, "label_entropy": 9.0, **texts, **by_layer}


class Probing(Scripted):
    """A model that attaches a probe to each answer and keeps it in `probes`, by context."""

    def __init__(self, text: str = " Well.\nRating: 2") -> None:
        super().__init__(text)
        self.probes: dict[str, dict[str, Any] | None] = {}

    def change(self, place: int, probe: dict[str, Any]) -> dict[str, Any] | None:
        """The probe of the context at this index; subclasses change it."""
        return probe

    def loglikelihood(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        answers = []
        for request, pair in zip(requests, super().loglikelihood(requests), strict=True):
            context = request.args[0]
            if context not in self.probes:
                self.probes[context] = self.change(len(self.probes), random_probe(context))
            answers.append(Scored(*pair, self.probes[context]))
        return answers


class WithGaps(Probing):
    """The first context has no probe; the third has no matrix entropy and another token."""

    def change(self, place: int, probe: dict[str, Any]) -> dict[str, Any] | None:
        gap = {"matrix_entropy_by_layer": None, "deciding_token": "\n"}
        return {0: None, 2: probe | gap}.get(place, probe)


def probe_keys(keys: Any) -> list[str]:
    """The keys that come from a probe."""
    return [
        key
        for key in keys
        if ("entropy" in key and "label_entropy" not in key) or "prob" in key or "token" in key
    ]
