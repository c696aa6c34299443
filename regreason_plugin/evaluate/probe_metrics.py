"""From the probes on a model's answers to metric items, and from those to results.

A metric in a task's ``metric_list`` has to be in every result (lm-eval's W&B logger looks
it up in each sample), and a model without probes has none of these. So they are not
listed there: `RegReasonTask` adds them, and their aggregations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.layers import middle_mean
from regreason_plugin.metrics.label_metrics import (
    Item,
    by_layer_mean,
    by_layer_se,
    defined_mean,
    mean_stderr,
    total,
)
from regreason_plugin.metrics.metric_names import ACTIVATION_DEFINITION, LAYERS

BY_LAYER = "_by_layer"
# What is text, the same in every document as a rule.
_TEXTS = (ACTIVATION_DEFINITION, "deciding_token")
PROBES = ("output_entropy", *LAYERS, *_TEXTS)


class Scored(tuple[float, bool]):
    """A pair (log-likelihood, is greedy) with the probes of its document as an attribute.

    To lm-eval and in JSON it is the plain pair that every model returns. The probes stay
    with it through pickling (``--use_cache``, gathering from other processes) and copying.

    Attributes:
        probe: Values by probe name, as `probe_metrics` reads them; None where the document
            has no probe.
    """

    probe: dict[str, Any] | None

    def __new__(cls, score: float, is_greedy: bool, probe: dict[str, Any] | None) -> Scored:
        """The pair; the class says what the probe is."""
        scored = super().__new__(cls, (score, is_greedy))
        scored.probe = probe
        return scored

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self, self.probe)


def probe_names(answers: Iterable[tuple[float, bool]]) -> list[str] | None:
    """Which probes the model attached to its answers; None of a model without probes.

    Every document then has an item of each: lm-eval reads the number of documents off
    whichever metric comes last, and gathers processes metric by metric.

    Raises:
        UserError: The answers do not have the same probes, so they are not of one run.
    """
    probe_sets = {
        frozenset(answer.probe or ()) if isinstance(answer, Scored) else None
        for answer in answers
        if not (isinstance(answer, Scored) and answer.probe is None)
    }
    if len(probe_sets) > 1:
        raise UserError(
            "the model's answers do not all have the same entropy probes, as happens with the "
            "--use_cache path of another model; name a new one"
        )
    # Nothing is there where answers could have probes and none of them does.
    names = probe_sets.pop() if probe_sets else frozenset[str]()
    return None if names is None else [name for name in PROBES if name in names]


def document_probes(
    answers: Sequence[tuple[float, bool]], names: Sequence[str], group: str, prefix: str = ""
) -> dict[str, Any]:
    """What one document contributes to each metric, the keys as lm-eval reports them.

    Args:
        answers: The model's answers for the labels; their probes are the document's.
        names: The probes of this run.
        group: The document's group.
        prefix: Goes before every key.

    Raises:
        UserError: A value is not finite, or the answers were decided at different places.
    """
    probe = getattr(answers[0], "probe", None)
    places = {(getattr(answer, "probe", None) or {}).get("deciding_token") for answer in answers}
    if len(places) > 1:
        raise UserError(
            "the labels of a document were decided after different tokens, as happens with a "
            "--use_cache path that holds a part of them only; name a new one"
        )
    items: dict[str, Any] = {}
    for name in names:
        value = None if probe is None else probe[name]
        if name in _TEXTS:
            items[name] = value
        elif name == "output_entropy":
            items |= _with_error(name, _finite(name, [value])[0], group)
        else:
            values = None if value is None else _finite(name, value, by_layer=True)
            items |= {name: values, f"{name}_se": Item((values, group))}
            mid = None if values is None else middle_mean(values)
            items |= _with_error(f"{name.removesuffix(BY_LAYER)}_mid", mid, group)
    missing = 0 if probe is None else sum(probe[name] is None for name in names)
    items |= {"probe_values_undefined": missing, "documents_without_probe": int(probe is None)}
    return {prefix + name: item for name, item in items.items()}


def distinct_texts(items: Sequence[str | None]) -> str | list[str] | None:
    """One text if it is the same in all documents that have one, else all of them."""
    texts = sorted({item for item in items if item is not None})
    return texts[0] if len(texts) == 1 else texts or None


def _with_error(name: str, value: float | None, group: str) -> dict[str, Any]:
    return {name: value, f"{name}_stderr": Item((value, group))}


def _finite(name: str, values: Sequence[Any], *, by_layer: bool = False) -> list[Any]:
    for layer, value in enumerate(values):
        if value is not None and not math.isfinite(value):
            where = f" at layer {layer}" if by_layer else ""
            raise UserError(
                f"the model's {name} is {value}{where}, which is not finite; load it with "
                "dtype=float32 or dtype=bfloat16 in --model_args"
            )
    return list(values)


def _aggregations() -> dict[str, Callable[[Any], Any]]:
    means = ["output_entropy", *(f"{name.removesuffix(BY_LAYER)}_mid" for name in LAYERS)]
    aggregations: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys(means, defined_mean),
        **dict.fromkeys((f"{name}_stderr" for name in means), mean_stderr),
        **dict.fromkeys(LAYERS, by_layer_mean),
        **dict.fromkeys((f"{name}_se" for name in LAYERS), by_layer_se),
        **dict.fromkeys(_TEXTS, distinct_texts),
        "probe_values_undefined": total,
        "documents_without_probe": total,
    }
    return aggregations


AGGREGATIONS = _aggregations()
