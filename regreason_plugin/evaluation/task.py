"""The lm-eval task class of the 18 tasks, which their generative twins extend."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from regreason_plugin.errors import stop_on_user_error
from regreason_plugin.evaluation.metrics import macro_f1, macro_f1_stderr
from regreason_plugin.evaluation.probe_metrics import (
    AGGREGATIONS,
    document_probes,
    probe_names,
)
from regreason_plugin.label_tokens import check_label_tokens
from regreason_plugin.prompt import TARGET_DELIMITER


class RegReasonTask(ConfigurableTask):  # type: ignore[misc]
    """A task of YAML that also reports the probes of a model that attaches them.

    Attributes:
        probes: Which probes the answers have; None of a model without probes.
    """

    probes: list[str] | None = None

    def __init__(self, config: dict[str, Any]) -> None:
        config = {key: value for key, value in config.items() if key != "class"}
        config["metadata"] = {**config["metadata"], **_task_manager_metadata()}
        super().__init__(config=config)

    def label_answers(self, results: list[Any]) -> dict[str, list[tuple[float, bool]]]:
        """A document's answers for the five labels, by the prefix of their metrics."""
        return {"": results}

    @stop_on_user_error(of_one_rank=True)
    def apply_filters(self) -> list[Instance] | None:
        """The model has answered; what lm-eval does next, and which probes there are."""
        self.probes = probe_names(
            answer
            for instance in self.instances
            if instance.request_type == "loglikelihood"
            for answer in instance.resps
        )
        filtered: list[Instance] | None = super().apply_filters()
        return filtered

    @stop_on_user_error(of_one_rank=True)
    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        """What a document contributes to each metric."""
        items: dict[str, Any] = super().process_results(doc, results)
        # --predict_only puts lm-eval's own function in the place of ours.
        if self.probes is not None and callable(self.config.process_results):
            for prefix, answers in self.label_answers(results).items():
                items |= document_probes(answers, self.probes, doc["group"], prefix)
        return items

    @stop_on_user_error()
    def doc_iterator(self, *args: Any, **kwargs: Any) -> Any:
        """As lm-eval, which asks for the documents before it makes the requests.

        Raises:
            UserError: The model's tokenizer cannot keep the labels apart.
        """
        from transformers import PreTrainedTokenizerBase

        declared = self.config.metadata.get("data", {})
        lm = _model()
        tokenizer = getattr(lm, "tokenizer", None)
        if declared and isinstance(tokenizer, PreTrainedTokenizerBase):
            end = declared["label_end"]

            def encode(label: str) -> list[int]:
                tokens: list[int] = lm._encode_pair("Label:", TARGET_DELIMITER + label)[1]
                return tokens

            check_label_tokens([label + end for label in declared["labels"]], tokenizer, encode)
        return super().doc_iterator(*args, **kwargs)

    def aggregation(self) -> dict[str, Any]:
        """The aggregations of the task file's metrics and of the probes'."""
        probes = {
            prefix + name: function
            for prefix in ("", "forced_")
            for name, function in AGGREGATIONS.items()
        }
        return {**probes, **super().aggregation(), **self._of_all_labels()}

    def _of_all_labels(self) -> dict[str, Any]:
        """The aggregations that have to know how many labels there are, not only those seen."""
        declared = self.config.metadata.get("data", {}).get("labels")
        if not declared:
            return {}
        count = len(declared)
        return {
            prefix + name: partial(function, count=count)
            for prefix in ("", "forced_")
            for name, function in {"macro_f1": macro_f1, "macro_f1_stderr": macro_f1_stderr}.items()
        }


def _task_manager_metadata() -> dict[str, Any]:
    """The metadata of the TaskManager that is loading a task.

    lm-eval 0.4.11 gives it to plain task files but not to those with a class, and
    a data folder named by --metadata would be passed over without a word. Nothing
    that it hands to the class leads there, so the caller is looked for on the stack.
    """
    for frame in _callers():
        manager = frame.f_locals.get("self")
        if isinstance(manager, TaskManager):
            return dict(manager.metadata or {})
    return {}


def _model() -> Any:
    """The model that lm-eval runs a task on, which it does not tell the task; None outside it."""
    for frame in _callers():
        model = frame.f_locals.get("lm")
        if hasattr(model, "_encode_pair"):
            return model
    return None


def _callers() -> Iterator[FrameType]:
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back
