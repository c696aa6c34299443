"""The generative twins: the model writes an explanation, then the labels are scored after it.

A document with five labels makes eleven requests: one generation; the five labels after the
generated explanation (the task's main metrics); and the five labels without an explanation
(``forced_...``). lm-eval runs the types of requests in the order of their first occurrence, so
the generation is finished before any label is scored. A label's request builds its context only
at that time, and so can include the explanation.
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
    """Split the explanation off a generated text.

    Returns:
        The explanation, in one line, and whether the text reached the cue for the label. Without
        the cue, the explanation is the first line.
    """
    # Leading white space depends on the tokenizer's decoder, so it is stripped. The new line put
    # in front lets the cue be recognised at the very beginning, too.
    text = "\n" + generated.strip()
    before, cue, _ = text.partition(LABEL_CUE)
    explanation = before if cue else text.strip().partition("\n")[0]
    return one_line(explanation), bool(cue)


def before_label(explanation: str) -> str:
    """A target text up to its label, without the delimiter before the label."""
    return render_target("1", explanation, "explanation_first")[: -len(TARGET_DELIMITER + "1")]


class LabelAfterExplanation(Instance):  # type: ignore[misc]
    """A request to score a label after an explanation that another request generates.

    Attributes:
        generation: The request that generates the explanation.
    """

    generation: Instance

    @property
    @stop_on_user_error(of_one_rank=True)
    def args(self) -> tuple[str, str]:
        """Context and continuation, built when the model reads them.

        Raises:
            UserError: The explanation has not been generated yet.
        """
        if not self.generation.resps:
            raise UserError(
                "the regreason-gen_ tasks must generate explanations before they score labels; "
                "run them without other tasks and without --write_out"
            )
        explanation, _ = split_generation(self.generation.resps[0])
        context, continuation = self.arguments
        return context + before_label(explanation), continuation


class ExplanationFirstTask(RegReasonTask):
    """A task in which the model explains first; it works with any model of lm-eval."""

    order = "explanation_first"

    def label_answers(self, results: list[Any]) -> dict[str, list[tuple[float, bool]]]:
        """The label answers after the model's explanation, and those without (``forced_``)."""
        count = (len(results) - 1) // 2
        return {"": results[1 : 1 + count], "forced_": results[1 + count :]}

    def construct_requests(self, doc: Document, ctx: str, **kwargs: Any) -> list[Instance]:
        """The generation, then the labels after the explanation, then the forced labels."""
        # A chat template ends where the answer starts; a plain prompt needs the delimiter that
        # training puts there.
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
    """``process_results`` of the twins: metrics after the model's explanation, and forced."""
    generated, scored = results[0], [score for score, _ in results[1:]]
    group, count = document["group"], len(scored) // 2
    reached = float(split_generation(generated)[1])
    return {
        **label_metrics(document, scored[:count]),
        **label_metrics(document, scored[count:], "forced_"),
        "reached_cue": reached,
        "reached_cue_stderr": Item((reached, group)),
    }
