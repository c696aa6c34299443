"""The plugin's keys in Axolotl's config: top-level keys that start with `regreason_`.

The keys are not grouped in a block, because `axolotl train --sweep` varies top-level keys only.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from regreason_plugin.core.errors import stop_on_user_error
from regreason_plugin.train.config_checks import check_packing
from regreason_plugin.train.findings import raise_first
from regreason_plugin.train.prefix_packing import check_prefix_packing


def _key(default: Any, description: str) -> Any:
    """Declare a key as Axolotl declares its own, with a description for the config's schema."""
    return Field(default=default, json_schema_extra={"description": description})


class RegReasonArgs(BaseModel):
    """The plugin's keys; Axolotl mixes this class into its config model.

    Attributes:
        regreason_arm: The arm to train; fills ``{arm}`` in paths.
        regreason_label_share: The label's share of the loss, above 0 and at most 1. None for no
            fixed share: the label's part of the loss then shrinks as the text after it grows.
        regreason_loss_mean: The tokens that the loss averages over. ``step``: the target tokens
            of a whole optimizer step and all processes. ``micro_batch`` or None: the target
            tokens of each micro-batch, as in Axolotl's own loss.
        regreason_label_smoothing: Probability mass that the loss spreads evenly over the
            vocabulary, at least 0 and below 1.
        regreason_class_weights: Weights of the classes in the loss on the label: ``balanced``, or a
            number above 0 for each label. Their mean over the train rows is made 1. None for equal
            weights.
        regreason_target_logits: Whether to compute logits only where a loss is taken, if model
            and loss allow it. The loss is the same; it takes less time and memory.
        regreason_prefix_packing: Whether to train rows that share a prefix in the same batch, and
            to compute the prefix once. The loss of a batch is the same.
        regreason_scope: The axis or the setting (``<dataset>_<axis>``) that the model is trained
            for; fills ``{scope}`` in paths. None for one joint model of all settings.
        regreason_variant: A name for anything else that a run changes, such as
            ``label_smoothing``; fills ``{variant}`` in paths. None if nothing else changes.
        regreason_budget: The quantity that is the same in every arm: ``rows`` (rows and epochs),
            ``steps`` (``max_steps`` optimizer steps) or ``tokens`` (``regreason_target_tokens``
            target tokens).
        regreason_target_tokens: Number of target tokens to train on with budget ``tokens``, over
            all processes. The training ends with the step that reaches this number;
            ``num_epochs`` must be left out.
        regreason_probe_steps: Number of steps between two measurements of the probe batch, which
            is also measured before the first step and at the end. None for no probes.
        regreason_probe_rows: Number of validation rows in the probe batch; all rows if there are
            fewer.
        regreason_eval: lm-eval tasks that score the trained model; None for no scoring.
        regreason_eval_include_path: Folder of additional task files, such as those of your own
            task; None for none.
        regreason_eval_limit: Number of documents per task, for trials; None for all.
        regreason_checked_config: Set by the plugin only. It tells Ray's workers that the config
            was checked, and holds the sha256 of the config as written.
    """

    regreason_arm: str | None = _key(None, "The arm to train; fills {arm} in paths")
    regreason_label_share: float | None = _key(
        None, "The label's share of the loss; null: it follows from the number of label tokens"
    )
    regreason_loss_mean: Literal["micro_batch", "step"] | None = _key(
        None, "The tokens that the loss averages over: those of a step or of each micro-batch"
    )
    regreason_label_smoothing: float = _key(0.0, "Label smoothing over the vocabulary")
    regreason_class_weights: str | dict[Any, float] | None = _key(
        None, "Weights of the classes in the loss on the label: balanced, or one per label"
    )
    regreason_target_logits: bool = _key(True, "Compute logits only where a loss is taken")
    regreason_prefix_packing: bool = _key(
        False, "Train rows that share a prefix together, and compute the prefix once"
    )
    regreason_scope: str | None = _key(
        None, "The axis or setting to train for; fills {scope} in paths"
    )
    regreason_variant: str | None = _key(
        None, "A name for anything else that the run changes; fills {variant} in paths"
    )
    regreason_budget: Literal["rows", "steps", "tokens"] = _key(
        "rows", "The quantity that is the same in every arm"
    )
    regreason_target_tokens: int | None = _key(
        None, "Number of target tokens to train on, with budget tokens"
    )
    regreason_probe_steps: int | None = _key(
        None, "Number of steps between two measurements of the probe batch"
    )
    regreason_probe_rows: int = _key(16, "Number of validation rows in the probe batch")
    regreason_eval: str | list[str] | None = _key(
        None, "lm-eval tasks that score the trained model"
    )
    regreason_eval_include_path: str | None = _key(None, "Folder of additional task files")
    regreason_eval_limit: int | None = _key(None, "Number of documents per task, for trials")
    regreason_checked_config: str | None = _key(
        None, "Set by the plugin only: tells Ray's workers that the config was checked"
    )

    @model_validator(mode="after")
    def _packing_separates_samples(self) -> Self:
        # Check here: Axolotl has just chosen the attention, and has not yet created output_dir.
        with stop_on_user_error():
            config = getattr(self, "axolotl_config_path", None)
            raise_first(check_packing(self, config))
            raise_first(check_prefix_packing(self, config))
        return self
