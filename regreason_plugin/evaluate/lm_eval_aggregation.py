"""lm_eval's own functions that make a metric from the values of all documents."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from regreason_plugin.evaluate.logged_task import LoggedMetric

# Values computed from the documents' values may differ from lm_eval's in the last digits.
ROUNDING = 1e-9
Aggregate = Callable[[list[Any]], float]


def aggregation_of(metric: LoggedMetric, items: list[Any]) -> Aggregate | None:
    """lm_eval's own function that makes a metric from the documents' values.

    Args:
        metric: The metric.
        items: The documents' values, with which the function is tried.

    Returns:
        None if lm_eval does not know the function here, or if the function gives another value
        than the results do.
    """
    from lm_eval.api import metrics as _  # noqa: F401 - registers lm_eval's functions
    from lm_eval.api.registry import aggregation_registry, metric_agg_registry

    by_name = ((aggregation_registry, metric.aggregation), (metric_agg_registry, metric.name))
    for functions, name in by_name:
        if name not in functions:
            continue
        function: Aggregate = functions.get(name)
        try:
            value = value_of(function, items)
        except Exception:  # noqa: S112 - a function may refuse the values of another
            continue
        if math.isclose(value, metric.value, rel_tol=ROUNDING, abs_tol=ROUNDING):
            return function
    return None


def is_mean(metric: LoggedMetric) -> bool:
    """Whether lm_eval's value has to be the mean over the documents, by the task's own words."""
    if metric.aggregation is not None or not metric.listed:
        return metric.aggregation == "mean"
    from lm_eval.api.metrics import mean
    from lm_eval.api.registry import metric_agg_registry

    return metric.name in metric_agg_registry and metric_agg_registry.get(metric.name) is mean


def value_of(function: Aggregate, items: list[Any]) -> float:
    """A metric over documents, without the warnings of libraries about single bootstrap samples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(function(items))
