"""What the plugin adds to Axolotl's config: top-level keys that start with `regreason_`.

Top-level, not a block, because `axolotl train --sweep` varies top-level keys only.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator
from typing_extensions import Self

from regreason_plugin.core.errors import stop_on_user_error
from regreason_plugin.train.config_checks import check_packing
from regreason_plugin.train.findings import raise_first


def _key(default: Any, description: str) -> Any:
    """A key as Axolotl's own are declared, whose schema describes it."""
    return Field(default=default, json_schema_extra={"description": description})


class RegReasonArgs(BaseModel):
    """Mixed into Axolotl's config model.

    Attributes:
        regreason_arm: The arm to train; fills ``{arm}`` in paths.
        regreason_label_share: The label's share of the loss, above 0 and at most 1; None for
            none: the longer the text after the label, the smaller its part.
        regreason_loss_mean: What the loss is the mean over: ``step``, the target tokens of a
            whole optimizer step and all processes; None or ``micro_batch``, Axolotl's own loss,
            a mean over each micro-batch.
        regreason_label_smoothing: The share of probability that the loss spreads evenly over
            the vocabulary, at least 0 and below 1.
        regreason_target_logits: Make logits only in the columns of a batch where a loss is taken,
            where model and loss allow it: the same loss, sooner and in less memory.
        regreason_scope: The axis or the setting (``<dataset>_<axis>``) that a model is trained
            for; fills ``{scope}`` in paths. None for one model of all.
        regreason_variant: A name for what else a run changes, such as ``label_smoothing``;
            fills ``{variant}`` in paths. None for nothing.
        regreason_budget: What is the same in every arm: ``rows`` (rows and epochs), ``steps``
            (``max_steps`` says how many) or ``tokens`` (``regreason_target_tokens``).
        regreason_target_tokens: How many target tokens to train on, with budget ``tokens``, all
            processes together; the training ends with the step that reaches them, and
            ``num_epochs`` is left out.
        regreason_probe_steps: Steps between two measurements of the probe batch, which is also
            measured before the first step and at the end; None for none.
        regreason_probe_rows: How many validation rows the probe batch has; all of them if they
            are fewer.
        regreason_eval: lm-eval tasks to score the trained model on; None for none.
        regreason_eval_include_path: A folder of more task files, such as that of a task of one's
            own; None for none.
        regreason_eval_limit: Documents a task, for trials; None for all.
        regreason_checked_config: For the plugin alone, which tells Ray's workers with it that
            the config was checked, and its sha256 as written.
    """

    regreason_arm: str | None = _key(None, "The arm to train; fills {arm} in paths")
    regreason_label_share: float | None = _key(
        None, "The label's share of the loss; without it that of its tokens"
    )
    regreason_loss_mean: Literal["micro_batch", "step"] | None = _key(
        None, "What the loss is the mean over"
    )
    regreason_label_smoothing: float = _key(0.0, "Label smoothing over the vocabulary")
    regreason_target_logits: bool = _key(True, "Logits only where a loss is taken")
    regreason_scope: str | None = _key(None, "The axis or setting to train; fills {scope} in paths")
    regreason_variant: str | None = _key(None, "A name of what else is changed; fills {variant}")
    regreason_budget: Literal["rows", "steps", "tokens"] = _key(
        "rows", "What is the same in every arm"
    )
    regreason_target_tokens: int | None = _key(
        None, "Target tokens to train on, with budget tokens"
    )
    regreason_probe_steps: int | None = _key(
        None, "Steps between two measurements of the probe batch"
    )
    regreason_probe_rows: int = _key(16, "Validation rows in the probe batch")
    regreason_eval: str | list[str] | None = _key(
        None, "lm-eval tasks to score the trained model on"
    )
    regreason_eval_include_path: str | None = _key(None, "A folder of more task files")
    regreason_eval_limit: int | None = _key(None, "Documents a task, for trials")
    regreason_checked_config: str | None = _key(
        None, "For the plugin alone: what Ray's workers are told"
    )

    @model_validator(mode="after")
    def _packing_separates_samples(self) -> Self:
        # Only known once Axolotl has chosen the attention, and here is the last place
        # before it creates output_dir.
        with stop_on_user_error():
            raise_first(check_packing(self, getattr(self, "axolotl_config_path", None)))
        return self
