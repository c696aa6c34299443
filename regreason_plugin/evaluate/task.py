"""The lm-eval task class of the 18 tasks, which that of the twins extends, and its base class."""

from __future__ import annotations

import inspect
import logging
import re
from functools import partial
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from regreason_plugin.core.errors import UserError, stop_on_user_error
from regreason_plugin.core.label_tokens import check_label_tokens
from regreason_plugin.core.model_use import ALLOW, ModelUse, check_use, tokenizer_of
from regreason_plugin.core.prompt import Order
from regreason_plugin.evaluate.probe_metrics import (
    AGGREGATIONS,
    document_probes,
    probe_names,
)
from regreason_plugin.metrics.label_metrics import macro_f1, macro_f1_stderr


class YamlTask(ConfigurableTask):  # type: ignore[misc]
    """An lm-eval task whose YAML file names a class, and which ``--metadata`` reaches all the same.

    Args:
        config: The content of the task file.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        config = {key: value for key, value in config.items() if key != "class"}
        config["metadata"] = {**(config.get("metadata") or {}), **_task_manager_metadata()}
        super().__init__(config=config)


class RegReasonTask(YamlTask):
    """An lm-eval YAML task that also reports the probes which a model attaches to its answers.

    Attributes:
        order: Whether the model writes the label or the explanation first.
        probes: Names of the probes attached to the answers; None for a model without probes.
    """

    order: Order = "label_first"
    probes: list[str] | None = None

    @stop_on_user_error()
    def build_all_requests(self, *, cache_requests: bool = False, **how: Any) -> None:
        """Check that the model fits the task, then make lm-eval's requests.

        Raises:
            UserError: The model was trained for another use, its tokenizer confuses or changes
                labels, or ``--cache_requests`` is set, which keys prompts by the task's name alone.
        """
        if cache_requests:
            raise UserError(
                "--cache_requests stores prompts under the task's name alone, so it could score "
                "prompts of another data folder; leave it out"
            )
        self._check_model(how)
        refuse_truncation()
        super().build_all_requests(**how)

    def fewshot_context(self, doc: dict[str, Any], *arguments: Any, **how: Any) -> Any:
        """The prompt with its few-shot examples, none of them from the document's own group.

        lm-eval passes the document to the sampler only if both come from a split of the same
        name. So the document's group is set on the sampler here.
        """
        if self.config.metadata["data"].get("split") == "train":
            self.sampler.scored_group = doc["group"]
        return super().fewshot_context(doc, *arguments, **how)

    def dump_config(self) -> dict[str, Any]:
        """The config for the results, with the metadata object itself instead of a copy.

        lm-eval takes the config before it passes on the chat template and the system
        instruction, so `build_all_requests` must still be able to add to the metadata.
        """
        return {**super().dump_config(), "metadata": self.config.metadata}

    def _check_model(self, how: dict[str, Any]) -> None:
        metadata = self.config.metadata
        allow = metadata.get(ALLOW, False)
        if not isinstance(allow, bool):
            raise UserError(f"{ALLOW} in --metadata is {allow!r}; write true, or leave it out")
        data = metadata["data"]
        labels = tuple(label + data["label_end"] for label in data["labels"])
        # (The metadata has no model arguments if Python code passed a model object to lm-eval.)
        if (tokenizer := tokenizer_of(metadata)) is not None:
            check_label_tokens(labels, tokenizer)
        differing = check_use(
            ModelUse(
                order=self.order,
                labels=labels,
                prompts={data["setting"][1]: data["prompt_sha256"]},
                chat_template=bool(how.get("apply_chat_template")),
                examples=self.config.num_fewshot or 0,
                system_instruction=bool(how.get("system_instruction")),
            ),
            metadata,
            render=how.get("chat_template") if how.get("apply_chat_template") else None,
            allow=allow,
            allowing=f"""add "{ALLOW}": true to --metadata, and the results will say so""",
        )
        if differing is not None:
            data["misfit"] = differing

    def label_answers(self, results: list[Any]) -> dict[str, list[tuple[float, bool]]]:
        """A document's answers for its labels, keyed by the prefix of the metrics' names."""
        return {"": results}

    @stop_on_user_error(of_one_rank=True)
    def apply_filters(self) -> list[Instance] | None:
        """Note which probes the model's answers have, then run lm-eval's filters."""
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
        """One document's item for each metric."""
        items: dict[str, Any] = super().process_results(doc, results)
        # --predict_only replaces our function by one that computes no metric.
        if self.probes is not None and callable(self.config.process_results):
            for prefix, answers in self.label_answers(results).items():
                items |= document_probes(answers, self.probes, doc["group"], prefix)
        return items

    def aggregation(self) -> dict[str, Any]:
        """The aggregation functions of the task file's metrics and of the probe metrics."""
        probes = {
            prefix + name: function
            for prefix in ("", "forced_")
            for name, function in AGGREGATIONS.items()
        }
        return {**probes, **super().aggregation(), **self._of_all_labels()}

    def _of_all_labels(self) -> dict[str, Any]:
        """The aggregations that need the number of declared labels; some may occur nowhere."""
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

    lm-eval 0.4.11 merges ``--metadata`` into the config of a plain task file. If the file names a
    class, it does not: the class's constructor gets the config from the file alone, and must
    load the documents there. Neither an argument nor a hook gives the constructor access to the
    TaskManager, so this function searches the call stack for it. Otherwise the data folder that
    the user names would be ignored silently.
    """
    frame = inspect.currentframe()
    while frame is not None:
        manager = frame.f_locals.get("self")
        if isinstance(manager, TaskManager):
            return dict(manager.metadata or {})
        frame = frame.f_back
    return {}


class _NoTruncation(logging.Filter):
    """Ends the run when ``hf`` warns that it cuts a prompt from the left.

    lm-eval has neither an argument that forbids the cut nor a hook at that point. ``hf``'s warning
    is the only place that knows the length of the final prompt, with few-shot examples and chat
    template, in the model's own tokens. ``hf`` starts with the longest request, so the run ends
    before the first forward pass.
    """

    @stop_on_user_error(of_one_rank=True)
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message.startswith("Combined length of context"):
            context, label, window = re.findall(r"\d+", message)[:3]
            raise UserError(
                f"a prompt of {context} tokens and its label of {label} do not fit the "
                f"model's window of {window} tokens, and lm-eval would cut off the prompt's "
                "beginning; build the data with --tokenizer and a smaller --max-prompt-tokens, "
                "or use fewer few-shot examples"
            )
        if message.startswith("Left truncation applied"):
            length, room = re.findall(r"\d+", message)[:2]
            raise UserError(
                f"a prompt of {length} tokens does not fit: with the explanation to write, the "
                f"model's window leaves {room} tokens for it, and lm-eval would cut off the "
                "prompt's beginning; build the data with --tokenizer and a smaller "
                "--max-prompt-tokens, use fewer few-shot examples, or leave more room with a "
                "smaller N in --gen_kwargs max_gen_toks=N"
            )
        # `refuse_truncation` lowers this logger's level. Messages below the level that the user
        # chose for lm-eval are still not printed.
        return record.levelno >= logging.getLogger("lm_eval").getEffectiveLevel()


def refuse_truncation() -> None:
    """End the run from now on if a prompt is longer than the window of an ``hf`` model."""
    logger = logging.getLogger("lm_eval.models.huggingface")
    if not any(isinstance(known, _NoTruncation) for known in logger.filters):
        # With --verbosity ERROR the logger would drop the warning before the filter sees it.
        logger.setLevel(min(logger.getEffectiveLevel(), logging.WARNING))
        logger.addFilter(_NoTruncation())
