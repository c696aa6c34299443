"""What trains, but can silently hurt a comparison of the arms: warnings, never errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from regreason_plugin.train.findings import Finding, finding

_REGULARISERS = (
    "lora_dropout",
    "weight_decay",
    "regreason_label_smoothing",
    "neftune_noise_alpha",
)


def check_comparison(
    cfg: Any, arm: str | None, processes: int, written: Any | None = None
) -> Iterator[Finding]:
    """Settings that would make arms differ in more than their text.

    Args:
        cfg: The config as Axolotl has validated it.
        arm: The arm that is trained; None if not known.
        processes: How many train.
        written: As the user wrote it, to tell what was left out; None if not known.
    """

    def warn(field: str, message: str) -> Finding:
        return finding("warning", message, path=cfg.axolotl_config_path, field=field)

    if arm not in (None, "label_only"):
        for name in _REGULARISERS:
            if cfg.get(name):
                yield warn(
                    name,
                    f"is {cfg[name]}, a regulariser of its own that blurs what the text after the "
                    "label does; set it to 0 in every arm but a control of label_only",
                )
    if written is not None and written.get("seed") is None:
        yield warn("seed", f"is left out; every run will have Axolotl's, {cfg.seed}")
    if cfg.regreason_label_share is None and cfg.regreason_loss_mean != "step":
        accumulated = cfg.gradient_accumulation_steps or 1
        apart = processes // (cfg.context_parallel_size or 1) // (cfg.tensor_parallel_size or 1)
        if accumulated * apart > 1:
            yield warn(
                "regreason_loss_mean",
                "is not step, so the loss is a mean over each micro-batch, and depends on how a "
                f"step is cut, here in {accumulated} accumulated x {apart} processes; set it to "
                "step in every arm",
            )
    if cfg.sample_packing and cfg.regreason_budget == "rows":
        yield warn(
            "sample_packing",
            "longer texts fill more sequences, so arms of the same rows take different numbers "
            "of steps; set regreason_budget to steps or tokens, or sample_packing to false",
        )
    if cfg.group_by_length:
        yield warn(
            "group_by_length",
            "gives every arm another order of rows, that of its own lengths; set it to false",
        )
    if cfg.early_stopping_patience or cfg.load_best_model_at_end:
        yield warn(
            "early_stopping_patience" if cfg.early_stopping_patience else "load_best_model_at_end",
            "chooses by the validation loss, which in a longer arm is mostly the text's; train "
            "every arm to the end",
        )
