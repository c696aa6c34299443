"""A prompt that lm-eval would cut ends the run instead."""

from __future__ import annotations

import logging
import re

from regreason_plugin.core.errors import UserError, stop_on_user_error


class _NoTruncation(logging.Filter):
    """Turns hf's warning that it cuts a prompt from the left into the end of the run.

    The warning is the one place that knows the final prompt (with few-shot examples
    and chat template) in the model's own tokens. hf starts with its longest request,
    so it comes before the first forward pass.
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
