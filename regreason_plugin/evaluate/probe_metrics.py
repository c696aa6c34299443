"""Turns the probes attached to a model's answers into metrics of lm-eval.

A metric in a task's ``metric_list`` must be in every result, because lm-eval's W&B logger looks
it up in each sample. Models without probes have no probe metrics. So the list leaves them out,
and `RegReasonTask` adds them and their aggregation functions.
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
# Values that are texts, usually the same in every document.
_TEXTS = (ACTIVATION_DEFINITION, "deciding_token")
PROBES = ("output_entropy", *LAYERS, *_TEXTS)


class Scored(tuple[float, bool]):
    """A pair (log-likelihood, is greedy) with the probes of its document as an attribute.

    For lm-eval and in JSON it is the plain pair that every model returns. The attribute survives
    copying and pickling (``--use_cache``, gathering from other processes).

    Attributes:
        probe: Values by probe name, as `document_probes` reads them; None if the document has no
            probe.
    """

    probe: dict[str, Any] | None

    def __new__(cls, score: float, is_greedy: bool, probe: dict[str, Any] | None) -> Scored:
        """Make a pair with its probe; see the class for the arguments."""
        scored = super().__new__(cls, (score, is_greedy))
        scored.probe = probe
        return scored

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self, self.probe)


def probe_names(answers: Iterable[tuple[float, bool]]) -> list[str] | None:
    """Names of the probes that a model attached to its answers; None for a model without probes.

    Every document must then have an item for each of these, even an empty one: lm-eval takes the
    number of documents from whichever metric comes last, and gathers the processes' items metric
    by metric.

    Raises:
        UserError: Answers have different probes, so they do not come from one run.
    """
    probe_sets = {
        frozenset(answer.probe or ()) if isinstance(answer, Scored) else None
        for answer in answers
        if not (isinstance(answer, Scored) and answer.probe is None)
    }
    if len(probe_sets) > 1:
        raise UserError(
            "the model's answers do not all have the same entropy probes, as happens if "
            "--use_cache names the path of another model; name a new path"
        )
    # The set is empty if the model measures probes, but no answer has one.
    names = probe_sets.pop() if probe_sets else frozenset[str]()
    return None if names is None else [name for name in PROBES if name in names]


def document_probes(
    answers: Sequence[tuple[float, bool]], names: Sequence[str], group: str, prefix: str = ""
) -> dict[str, Any]:
    """One document's item for each probe metric, by the name of the metric.

    Args:
        answers: The model's answers for the labels; their probes are the document's.
        names: Names of the probes of this run.
        group: The document's group.
        prefix: The beginning of every metric's name.

    Raises:
        UserError: A value is not finite, or the answers have different deciding positions.
    """
    probe = getattr(answers[0], "probe", None)
    tokens = {(getattr(answer, "probe", None) or {}).get("deciding_token") for answer in answers}
    if len(tokens) > 1:
        raise UserError(
            "the labels of a document were decided after different tokens, as happens if the "
            "--use_cache path holds only some of the labels' answers; name a new path"
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
    """The text, if all documents that have one have the same; else the sorted list of texts."""
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
