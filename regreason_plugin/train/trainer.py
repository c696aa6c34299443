"""Axolotl's trainer with our loss, and a log of how the label is learnt.

The loss is ours with ``regreason_label_share`` or ``regreason_loss_mean: step``. Otherwise it is
Axolotl's own, untouched: what is logged beside it is read off the logits that were made for it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from axolotl.core.trainers import AxolotlTrainer
from axolotl.utils.samplers import get_dataset_lengths
from torch import Tensor, nn

from regreason_plugin.core.cpu_processes import several_on_a_cpu
from regreason_plugin.core.training_curves import LineFile
from regreason_plugin.train.checkpoint import write_state
from regreason_plugin.train.cost_meter import Meter
from regreason_plugin.train.label_loss import TokenSums, count_tokens, step_loss, token_sums
from regreason_plugin.train.label_span import LabelPlace
from regreason_plugin.train.log_metrics import Tally
from regreason_plugin.train.row_tokens import IGNORE
from regreason_plugin.train.target_logits import TargetLogits
from regreason_plugin.train.whole_epoch_sampler import WholeEpochSampler

Batch = dict[str, Any]


class RegReasonTrainer(AxolotlTrainer, TargetLogits):  # type: ignore[misc]  # axolotl is untyped
    """Trains as Axolotl's does; the plugin calls `prepare` before the first step.

    Attributes:
        tally: Of the steps since the last line of the log.
        meter: Of what the training takes.
    """

    label_place: LabelPlace | None = None
    _share: float | None = None
    _by_step = False
    _eval_sums: TokenSums | None = None
    _says_no_logits = True

    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator; on a CPU, keep what the processes know of each other."""
        if several_on_a_cpu():
            # (The arguments have lost what the config says of it.)
            self.args.accelerator_config.use_configured_state = True
        super().create_accelerator_and_postprocess()

    def prepare(
        self,
        place: LabelPlace,
        share: float | None,
        by_step: bool,
        about: dict[str, Any],
        file: LineFile | None = None,
        resumed: dict[str, Any] | None = None,
    ) -> None:
        """Say where the label is, what the loss is, and where the log goes.

        Args:
            place: Of the label in a row's target.
            share: r of `label_loss`, whose means are those of a step; None for none.
            by_step: Take the loss's mean over a step without a share, too; else it is
                Axolotl's own.
            about: What a checkpoint says of the training, beside our counts.
            file: A copy of the log; None in all processes but the first.
            resumed: What the checkpoint to go on from says.
        """
        self.label_place = place
        self._share = share
        self._by_step = by_step or share is not None
        self._about = about
        self._file = file
        self.tally = Tally(place)
        self.evaluated = Tally(place)
        self.meter = Meter(resumed and resumed["took"])
        if resumed is not None:
            self.tally.restore(resumed["tally"], self.accelerator)
        if self._by_step:
            # With a loss function of its own, Trainer takes no other loss, and leaves the
            # mean over accumulated batches to it.
            self.compute_loss_func = self._step_loss

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """A loader whose processes come to its end together."""
        # (Axolotl turns this off for packed rows, and so for the evaluation that comes next:
        # where that is not packed, a process with one batch more would wait for ever.)
        self.accelerator.even_batches = self.args.accelerator_config.even_batches
        return super()._get_dataloader(*args, **kwargs)

    def _create_multipack_sampler(self, base_sampler: Any, dataset: Any) -> WholeEpochSampler:
        """Sample packing that loses no rows; of training and evaluation alike."""
        args = self.args
        several = args.multipack_real_batches
        batch_size = args.per_device_train_batch_size
        return WholeEpochSampler(
            base_sampler,
            lengths=get_dataset_lengths(dataset),
            batch_max_len=args.max_seq_length * (1 if several else batch_size),
            batch_size=batch_size if several else 1,
            group_size=args.sample_packing_group_size,
            bin_size=args.sample_packing_bin_size,
            processes=self.accelerator.num_processes,
        )

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Any]:
        """The batches of one optimizer step, and how many tokens it has.

        Returns:
            The batches, and for a loss of ours ``[2]``, as of `count_tokens`, over all batches
            and processes; for Axolotl's, what Trainer counts.
        """
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not self._by_step or not batches:
            return batches, items
        assert self.label_place is not None
        counts = torch.stack([count_tokens(batch["labels"], self.label_place) for batch in batches])
        return batches, self.accelerator.reduce(counts.sum(dim=0).to(device), reduction="sum")

    def _step_loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        assert self.label_place is not None
        smoothing = self.args.label_smoothing_factor
        if self.model.training:
            sums = token_sums(outputs.logits, labels, self.label_place, smoothing)
            # Gradients are averaged over processes, but the counts are those of all.
            loss: Tensor = step_loss(sums, num_items_in_batch, self._share)
            return loss * int(self.accelerator.num_processes)
        sums = token_sums(outputs.logits, self._each_row_once(labels), self.label_place, smoothing)
        before = self._eval_sums
        self._eval_sums = sums if before is None else TokenSums(*map(torch.add, before, sums))
        return step_loss(sums, sums.counts, self._share)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Axolotl's loss or ours; what it says of the label goes into the tally."""
        if self.label_place is not None and model.training:
            self.meter.add(inputs)
        loss, outputs = super().compute_loss(
            model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
        )
        if self.label_place is not None:
            logits, labels = getattr(outputs, "logits", None), self.loss_labels
            if logits is None:
                self._say_no_logits()
            if model.training:
                self.tally.add(logits, labels)
            else:
                self.evaluated.add(logits, self._each_row_once(labels))
        return (loss, outputs) if return_outputs else loss

    def _say_no_logits(self) -> None:
        if self._says_no_logits and self.is_world_process_zero():
            print(
                "regreason: this loss makes no logits, so the log has no label_loss, "
                "explanation_loss and accuracy of labels",
                file=sys.stderr,
                flush=True,
            )
        self._says_no_logits = False

    def _each_row_once(self, labels: Tensor) -> Tensor:
        """The labels without the rows that fill the last batches of several processes."""
        state = self.accelerator.gradient_state
        packed = self.args.sample_packing and self.args.eval_sample_packing is not False
        if packed or not state.end_of_dataloader or state.remainder <= 0:
            return labels
        own = max(0, state.remainder - self.accelerator.process_index * len(labels))
        labels = labels.clone()
        labels[own:] = IGNORE
        return labels

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, and beside the training loss what the tally has; also to our own file."""
        if self.label_place is None:
            super().log(logs, start_time)
            return
        if "loss" in logs:
            logs.update(self.tally.take(self.accelerator))
        logs.update(self.tally.seen(self.accelerator))
        super().log(logs, start_time)
        if self._file is not None:
            self._file.add(self.state.global_step, {**logs, "seconds": self.meter.seconds()})

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Evaluate; the metrics say how the label is predicted.

        A loss of ours is that of all rows at once: Trainer's mean over batches would depend on
        how they are cut.
        """
        if self.label_place is not None:
            self.evaluated.reset()
            self._eval_sums = None
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self._eval_sums is not None:
            parts = (self.accelerator.reduce(one, reduction="sum") for one in self._eval_sums)
            sums = TokenSums(*parts)
            loss = step_loss(sums, sums.counts, self._share)
            output.metrics[f"{metric_key_prefix}_loss"] = loss.item()
        if self.label_place is not None:
            found = self.evaluated.take(self.accelerator)
            output.metrics.update(
                {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
            )
        return output

    def _save_checkpoint(self, model: nn.Module, trial: Any, **kwargs: Any) -> Any:
        """Save a checkpoint, our counts with it."""
        if self.label_place is not None:
            step = self.state.global_step
            state = {
                "step": step,
                **self._about,
                "tally": self.tally.state(self.accelerator),
                "took": self.meter.state(self.accelerator),
            }
            if self.args.should_save:
                write_state(Path(self.args.output_dir) / f"checkpoint-{step}", state)
        return super()._save_checkpoint(model, trial, **kwargs)
