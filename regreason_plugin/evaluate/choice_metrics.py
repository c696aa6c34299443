"""Our label metrics for any multiple-choice task of lm-eval.

For ``output_type: multiple_choice``, lm-eval passes values only to metrics that it names itself; a
registered metric of any other name gets none, and is missing from the results without a word
(0.4.11 and 0.4.13). A function under ``process_results`` gets the document, but not its choices
and its target. So a task file names `ChoiceMetricsTask` as its ``class``. The class computes
lm-eval's own metrics as usual and adds ours.

Importing this module registers the metrics and their aggregations under the names that
``metric_list`` uses. lm-eval's main branch also finds the functions below through the package's
entry points, so each function must have the name that its entry point gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NoReturn, TypeVar

# lm-eval loads its own metrics only while the registry is empty, so they come first.
import lm_eval.api.metrics  # noqa: F401
from lm_eval.api.registry import register_aggregation, register_metric
from lm_eval.utils import handle_non_serializable, hash_string

from regreason_plugin.core.errors import UserError, stop_on_user_error
from regreason_plugin.evaluate.task import YamlTask
from regreason_plugin.metrics import label_metrics

M = TypeVar("M", bound=Callable[..., Any])

# Aggregations of the metrics that are no mean over documents, and of their standard errors.
_AGGREGATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "ece": (label_metrics.ece, label_metrics.ece_stderr),
    "macro_f1": (label_metrics.macro_f1, label_metrics.macro_f1_stderr),
    "qwk": (label_metrics.qwk, label_metrics.qwk_stderr),
}
for _name, (_function, _) in _AGGREGATIONS.items():
    register_aggregation(_name)(_function)


def _metric(name: str, aggregation: str, *, higher_is_better: bool) -> Callable[[M], M]:
    """lm-eval's decorator for metrics, with types."""
    decorator: Callable[[M], M] = register_metric(
        metric=name, aggregation=aggregation, higher_is_better=higher_is_better
    )
    return decorator


@_metric("brier", "mean", higher_is_better=False)
def brier(items: Any) -> NoReturn:
    """Brier score, summed over the choices; the mean is lm-eval's ``brier_score``."""
    _stop_without_class("brier")


@_metric("ece", "ece", higher_is_better=False)
def ece(items: Any) -> NoReturn:
    """Expected calibration error of the most likely choice, with 15 bins of equal width."""
    _stop_without_class("ece")


@_metric("macro_f1", "macro_f1", higher_is_better=True)
def macro_f1(items: Any) -> NoReturn:
    """Unweighted mean over the choices' positions of their F1."""
    _stop_without_class("macro_f1")


@_metric("nll", "mean", higher_is_better=False)
def nll(items: Any) -> NoReturn:
    """Negative log-probability of the right choice among the choices, in nats."""
    _stop_without_class("nll")


@_metric("qwk", "qwk", higher_is_better=True)
def qwk(items: Any) -> NoReturn:
    """Cohen's kappa with quadratic weights, for choices that are listed in their order."""
    _stop_without_class("qwk")


METRICS = ("brier", "ece", "macro_f1", "nll", "qwk")


@stop_on_user_error()
def _stop_without_class(metric: str) -> NoReturn:
    """End the run: only for a generated answer does lm-eval call a registered metric itself."""
    raise UserError(
        f"the metric {metric} needs output_type: multiple_choice, and ChoiceMetricsTask as the "
        "task's class"
    )


class ChoiceMetricsTask(YamlTask):
    """An lm-eval multiple-choice task whose ``metric_list`` may also name our `METRICS`.

    Probabilities are the softmax of the choices' log-likelihoods, as in lm-eval's ``brier_score``.
    Metrics that are no mean over documents also get a standard error: a jackknife over documents,
    where documents with the same content count as one.

    Args:
        config: The content of the task file.

    Raises:
        SystemExit: ``output_type`` is not ``multiple_choice``; or, while scoring, a document has
            not exactly one right choice, or a score is not finite. Code 2, with one line on
            standard error.
    """

    @stop_on_user_error()
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        if self.OUTPUT_TYPE != "multiple_choice":
            raise UserError(
                f"the task {self.config.task} has output_type: {self.OUTPUT_TYPE}; its class "
                "ChoiceMetricsTask needs multiple_choice"
            )

    @stop_on_user_error(of_one_rank=True)
    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        """One document's item for each metric, lm-eval's own first."""
        items: dict[str, Any] = super().process_results(doc, results)
        # (--predict_only leaves none of our metrics in the list.)
        named = {name for name in METRICS if name in self._metric_fn_list}
        if not named:
            return items
        choices = self.doc_to_choice(doc)
        # With acc_mutual_info, the scores without a prompt follow those of the choices.
        scores = [score for score, _ in results[: len(choices)]]
        group = hash_string(json.dumps(doc, default=handle_non_serializable, ensure_ascii=False))
        named |= {f"{name}_stderr" for name in named & _AGGREGATIONS.keys()}
        ours = label_metrics.document_metrics(self._right_choice(doc, choices) + 1, scores, group)
        return items | {name: item for name, item in ours.items() if name in named}

    def aggregation(self) -> dict[str, Any]:
        """The aggregation functions of the metrics and of their standard errors."""
        known: dict[str, Any] = super().aggregation()
        errors = {f"{name}_stderr": error for name, (_, error) in _AGGREGATIONS.items()}
        if "macro_f1" in self._metric_fn_list:
            count = self._most_choices
            known = {**known, "macro_f1": partial(label_metrics.macro_f1, count=count)}
            errors["macro_f1_stderr"] = partial(label_metrics.macro_f1_stderr, count=count)
        return {**errors, **known}

    @cached_property
    def _most_choices(self) -> int:
        return max(len(self.doc_to_choice(doc)) for doc in self.task_docs)

    def _right_choice(self, doc: dict[str, Any], choices: list[str]) -> int:
        """The index of the document's right choice, from 0.

        Raises:
            UserError: There are several right choices, or the target is none of the choices.
        """
        # With several inputs for one target, such as in Winogrande, doc_to_text is the index.
        target = self.doc_to_text(doc) if self.multiple_input else self.doc_to_target(doc)
        if isinstance(target, str) and target in choices:
            return choices.index(target)
        if isinstance(target, int) and 0 <= target < len(choices):
            return target
        raise UserError(
            f"the task {self.config.task} has a document with the target {target!r}, but our "
            f"metrics need one of its {len(choices)} choices"
        )
