"""Axolotl's trainer with our loss, and a log of how the label is learnt.

Without ``regreason_label_share`` and ``regreason_label_smoothing`` the loss is Axolotl's own,
untouched: what is logged beside it is read off the logits that were made for it.
"""

from __future__ import annotations

from typing import Any

import torch
from axolotl.core.trainers import AxolotlTrainer
from torch import Tensor, nn

from regreason_plugin.training.cpu_processes import several_on_a_cpu
from regreason_plugin.training.label_loss import count_tokens, shared_loss, token_sums
from regreason_plugin.training.label_place import LabelPlace
from regreason_plugin.training.tally import Tally

Batch = dict[str, Any]


class RegReasonTrainer(AxolotlTrainer):  # type: ignore[misc]  # axolotl is untyped
    """Trains as Axolotl's does; the plugin calls `prepare` before the first step.

    Attributes:
        tally: Of the steps since the last line of the log.
    """

    _place: LabelPlace | None = None
    _share: float | None = None

    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator; on a CPU, keep what the processes know of each other."""
        if several_on_a_cpu():
            # (The arguments have lost what the config says of it.)
            self.args.accelerator_config.use_configured_state = True
        super().create_accelerator_and_postprocess()

    def prepare(self, place: LabelPlace, share: float | None) -> None:
        """Say where the label is, and which share of the loss it has.

        Args:
            place: Of the label in a row's target.
            share: r of `label_loss`; None for Axolotl's own loss.
        """
        self._place = place
        self._share = share
        self.tally = Tally(place)
        self._evaluated = Tally(place)
        if share is not None:
            # With a loss function of its own, Trainer takes no other loss, and leaves the
            # mean over accumulated batches to it.
            self.compute_loss_func = self._shared_loss

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Any]:
        """The batches of one optimizer step, and how many tokens it has.

        Returns:
            The batches, and with a label share ``[2]``, as of `count_tokens`, over all
            batches and processes; without, what Trainer counts.
        """
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._share is None or not batches:
            return batches, items
        assert self._place is not None
        counts = torch.stack([count_tokens(batch["labels"], self._place) for batch in batches])
        return batches, self.accelerator.reduce(counts.sum(dim=0).to(device), reduction="sum")

    def _shared_loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        assert self._place is not None
        assert self._share is not None
        smoothing = self.args.label_smoothing_factor
        sums = token_sums(outputs.logits, labels, self._place, smoothing)
        if self.model.training:
            # Gradients are averaged over processes, but the counts are those of all.
            share: Tensor = shared_loss(sums, num_items_in_batch, self._share)
            return share * int(self.accelerator.num_processes)
        return shared_loss(sums, sums.counts, self._share)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Axolotl's loss or ours; what it says of the label goes into the tally."""
        labels = inputs["labels"]
        loss, outputs = super().compute_loss(
            model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
        )
        # (Fused losses make no logits.)
        if self._place is not None and getattr(outputs, "logits", None) is not None:
            (self.tally if model.training else self._evaluated).add(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, and beside the training loss what the tally has."""
        if "loss" in logs and self._place is not None:
            logs.update(self.tally.take(self.accelerator))
        super().log(logs, start_time)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Evaluate; the metrics say how the label is predicted."""
        if self._place is not None:
            self._evaluated.reset()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self._place is not None:
            found = self._evaluated.take(self.accelerator)
            output.metrics.update(
                {
                    f"{metric_key_prefix}_{name}": value
                    for name, value in found.items()
                    if not name.endswith("_seen")
                }
            )
        return output
