"""The generative twins: the model writes its explanation, then the labels are scored.

One document makes eleven requests: a generation; the five labels after the explanation
that was generated (the protocol's figures); the five labels after no explanation at all
(``forced_...``). lm-eval runs the kinds of requests in the order in which they first
appear, so the generation is done when the labels are asked for, and a request that
makes its context only then can hold it.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from lm_eval.api.instance import Instance

from regreason_plugin.core.errors import UserError, stop_on_user_error
from regreason_plugin.core.prompt import LABEL_CUE, TARGET_DELIMITER, one_line, render_target
from regreason_plugin.evaluate.documents import Document, label_metrics, labels
from regreason_plugin.evaluate.task import RegReasonTask
from regreason_plugin.metrics.label_metrics import Item


def split_generation(generated: str) -> tuple[str, bool]:
    """The explanation in what a model wrote, and whether it came to the label's cue.

    Without the cue the explanation is the first line: what follows is no part of it.
    """
    # Leading white space depends on the tokenizer's decoder; a cue that comes first
    # still begins a line.
    text = "\n" + generated.strip()
    before, cue, _ = text.partition(LABEL_CUE)
    explanation = before if cue else text.strip().partition("\n")[0]
    return one_line(explanation), bool(cue)


def before_label(explanation: str) -> str:
    """A target up to its label, the delimiter before the label left out."""
    return render_target("1", explanation, "explanation_first")[: -len(TARGET_DELIMITER + "1")]


class LabelAfterExplanation(Instance):  # type: ignore[misc]
    """A label to score after an explanation that another request will have generated.

    Attributes:
        generation: That request.
    """

    generation: Instance

    @property
    @stop_on_user_error(of_one_rank=True)
    def args(self) -> tuple[str, str]:
        """Context and continuation, made when the model asks for them."""
        if not self.generation.resps:
            raise UserError(
                "the regreason-gen_ tasks score labels after explanations that are not "
                "written yet: run them without other tasks and without --write_out"
            )
        explanation, _ = split_generation(self.generation.resps[0])
        context, continuation = self.arguments
        return context + before_label(explanation), continuation


class ExplanationFirstTask(RegReasonTask):
    """A task of the explanation_first protocol on any model that lm-eval has."""

    order = "explanation_first"

    def label_answers(self, results: list[Any]) -> dict[str, list[tuple[float, bool]]]:
        """After the model's own explanation, and forced at once."""
        count = (len(results) - 1) // 2
        return {"": results[1 : 1 + count], "forced_": results[1 + count :]}

    def construct_requests(self, doc: Document, ctx: str, **kwargs: Any) -> list[Instance]:
        """The generation first, then its labels, then the forced ones."""
        # A chat template ends where the answer starts; a plain prompt needs the space
        # that training puts there.
        start = ctx if kwargs.pop("apply_chat_template", False) else ctx + TARGET_DELIMITER
        kwargs.pop("chat_template", None)
        generation = Instance(
            request_type="generate_until",
            doc=doc,
            arguments=(ctx, deepcopy(self.config.generation_kwargs)),
            idx=0,
            **kwargs,
        )
        requests = [generation]
        for label in labels(doc):
            after = LabelAfterExplanation(
                request_type="loglikelihood",
                doc=doc,
                arguments=(start, TARGET_DELIMITER + label),
                idx=len(requests),
                **kwargs,
            )
            after.generation = generation
            requests.append(after)
        for label in labels(doc):
            requests.append(
                Instance(
                    request_type="loglikelihood",
                    doc=doc,
                    arguments=(start + before_label(""), TARGET_DELIMITER + label),
                    idx=len(requests),
                    **kwargs,
                )
            )
        return requests


@stop_on_user_error(of_one_rank=True)
def score_both(document: Document, results: list[Any]) -> dict[str, Any]:
    """``process_results``: after the model's own explanation, and forced at once."""
    generated, scored = results[0], [score for score, _ in results[1:]]
    group, count = document["group"], len(scored) // 2
    reached = float(split_generation(generated)[1])
    return {
        **label_metrics(document, scored[:count]),
        **label_metrics(document, scored[count:], "forced_"),
        "reached_cue": reached,
        "reached_cue_stderr": Item((reached, group)),
    }
