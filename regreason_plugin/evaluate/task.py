"""The lm-eval task class of the 18 tasks, which their generative twins extend."""

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


class RegReasonTask(ConfigurableTask):  # type: ignore[misc]
    """A task of YAML that also reports the probes of a model that attaches them.

    Attributes:
        order: Which comes first in what a model writes for it, label or explanation.
        probes: Which probes the answers have; None of a model without probes.
    """

    order: Order = "label_first"
    probes: list[str] | None = None

    def __init__(self, config: dict[str, Any]) -> None:
        config = {key: value for key, value in config.items() if key != "class"}
        config["metadata"] = {**config["metadata"], **_task_manager_metadata()}
        super().__init__(config=config)

    @stop_on_user_error()
    def build_all_requests(self, *, cache_requests: bool = False, **how: Any) -> None:
        """Check that the model fits the task, then make lm-eval's requests.

        Raises:
            UserError: It was trained for something else, its tokenizer cannot keep the labels
                apart, or there is ``--cache_requests``, which tells prompts apart by the task's
                name.
        """
        if cache_requests:
            raise UserError(
                "--cache_requests keeps prompts by the task's name alone and would score those of "
                "other data; leave it out"
            )
        self._check_model(how)
        refuse_truncation()
        super().build_all_requests(**how)

    def fewshot_context(self, doc: dict[str, Any], *arguments: Any, **how: Any) -> Any:
        """The prompt with its examples, of which none is of the document's own group.

        lm-eval tells its sampler of the document only where both are of one split by name.
        """
        if self.config.metadata["data"].get("split") == "train":
            self.sampler.scored_group = doc["group"]
        return super().fewshot_context(doc, *arguments, **how)

    def dump_config(self) -> dict[str, Any]:
        """The config for the results, whose metadata may still be filled.

        lm-eval asks for it before it tells how the model is used.
        """
        return {**super().dump_config(), "metadata": self.config.metadata}

    def _check_model(self, how: dict[str, Any]) -> None:
        metadata = self.config.metadata
        allow = metadata.get(ALLOW, False)
        if not isinstance(allow, bool):
            raise UserError(f"metadata {ALLOW} is {allow!r}; write true, or leave it out")
        data = metadata["data"]
        labels = tuple(label + data["label_end"] for label in data["labels"])
        # (A model that Python code hands to lm-eval leaves no arguments here.)
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

    lm-eval 0.4.11 merges ``--metadata`` into the config of a plain task file, but not into that of
    a file with a class, whose constructor gets the file's own config and nothing else, and which
    has to load its documents there. No argument and no hook leads from it to the TaskManager, so
    the caller is looked for on the stack; without it, a data folder that the user names would be
    passed over without a word.
    """
    frame = inspect.currentframe()
    while frame is not None:
        manager = frame.f_locals.get("self")
        if isinstance(manager, TaskManager):
            return dict(manager.metadata or {})
        frame = frame.f_back
    return {}


class _NoTruncation(logging.Filter):
    """Turns hf's warning that it cuts a prompt from the left into the end of the run.

    lm-eval has no argument that forbids it and no hook there, and hf's warning is the one place
    that knows the final prompt (with few-shot examples and chat template) in the model's own
    tokens. hf starts with its longest request, so it comes before the first forward pass.
    """

    @stop_on_user_error(of_one_rank=True)
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message.startswith("Combined length of context"):
            context, label, window = re.findall(r"\d+", message)[:3]
            raise UserError(
                f"a prompt of {context} tokens and its label of {label} do not fit the "
                f"model's window of {window}, and lm-eval would cut the prompt's head off; "
                "build the data with --tokenizer and a smaller --max-prompt-tokens, or use "
                "fewer few-shot examples"
            )
        if message.startswith("Left truncation applied"):
            length, room = re.findall(r"\d+", message)[:2]
            raise UserError(
                f"a prompt of {length} tokens does not fit the {room} that the model's window "
                "leaves beside the explanation it is to write, and lm-eval would cut the "
                "prompt's head off; build the data with --tokenizer and a smaller "
                "--max-prompt-tokens, use fewer few-shot examples, or leave more room with "
                "--gen_kwargs max_gen_toks=N"
            )
        # The logger's own level is lowered below; what lm-eval was told not to print
        # still is not printed.
        return record.levelno >= logging.getLogger("lm_eval").getEffectiveLevel()


def refuse_truncation() -> None:
    """From now on a prompt longer than the window of an ``hf`` model ends the run."""
    logger = logging.getLogger("lm_eval.models.huggingface")
    if not any(isinstance(known, _NoTruncation) for known in logger.filters):
        # With --verbosity ERROR the warning would not even be made.
        logger.setLevel(min(logger.getEffectiveLevel(), logging.WARNING))
        logger.addFilter(_NoTruncation())
