"""Axolotl's trainer with RegReason's loss, and a log of how well the model learns the label.

With ``regreason_label_share`` or ``regreason_loss_mean: step``, the loss is that of `label_loss`.
Otherwise it is Axolotl's own loss, unchanged; the label's metrics in the log are then computed
from the logits that Axolotl's loss used.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from axolotl.core.trainers import AxolotlTrainer
from axolotl.utils.samplers import get_dataset_lengths
from torch import Tensor, nn
from torch.utils.data import RandomSampler

from regreason_plugin.core.cpu_processes import several_on_a_cpu
from regreason_plugin.core.training_curves import LineFile
from regreason_plugin.train.checkpoint import write_state
from regreason_plugin.train.cost_meter import Meter, count_read
from regreason_plugin.train.families import Families
from regreason_plugin.train.label_loss import TokenSums, count_tokens, step_loss, token_sums
from regreason_plugin.train.label_span import LabelPosition
from regreason_plugin.train.log_metrics import Tally
from regreason_plugin.train.row_tokens import IGNORE
from regreason_plugin.train.target_logits import TargetLogits
from regreason_plugin.train.whole_epoch_sampler import FamilySampler, WholeEpochSampler

Batch = dict[str, Any]


class RegReasonTrainer(AxolotlTrainer, TargetLogits):  # type: ignore[misc]  # axolotl is untyped
    """Axolotl's trainer, extended; the plugin calls `prepare` before the first step.

    Attributes:
        families: The train rows that are drawn into the same batch; None without prefix packing.
        tally: Metrics of the label over the steps since the last line of the log.
        meter: Time and tokens that the training has taken.
    """

    label_place: LabelPosition | None = None
    families: Families | None = None
    _share: float | None = None
    _by_step = False
    _weights: Sequence[float] | None = None
    _eval_sums: TokenSums | None = None
    _says_no_logits = True

    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator; several processes on a CPU keep their process group."""
        if several_on_a_cpu():
            # The config has this setting, but the training arguments have lost it.
            self.args.accelerator_config.use_configured_state = True
        super().create_accelerator_and_postprocess()

    def prepare(
        self,
        place: LabelPosition,
        share: float | None,
        by_step: bool,
        weights: Sequence[float] | None,
        about: dict[str, Any],
        file: LineFile | None = None,
        resumed: dict[str, Any] | None = None,
    ) -> None:
        """Set the position of the label, the loss and the file of the log.

        Args:
            place: Position of the label in a row's target.
            share: The r of `label_loss`, which takes its means over a step; None for no share.
            by_step: Whether to take the loss's mean over a step even without a share; otherwise
                the loss is Axolotl's own.
            weights: The class weight of each of ``place.labels``; None for equal weights.
            about: Facts about the training, which each checkpoint stores beside the counts.
            file: File that gets a copy of the log; None in every process but the first.
            resumed: State of the checkpoint from which the training resumes; None for a new
                training.
        """
        self.label_place = place
        self._share = share
        self._by_step = by_step or share is not None
        self._weights = weights
        self._about = about
        self._file = file
        self.tally = Tally(place)
        self.evaluated = Tally(place)
        self.meter = Meter(resumed and resumed["took"])
        if resumed is not None:
            self.tally.restore(resumed["tally"], self.accelerator)
        if self._by_step:
            # With compute_loss_func, Trainer computes no other loss and leaves the mean over
            # accumulated batches to that function.
            self.compute_loss_func = self._step_loss

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """A data loader that gives every process the same number of batches."""
        # Axolotl turns even_batches off for packed rows and leaves it off for the evaluation that
        # follows. If that evaluation is not packed, a process with one more batch waits forever.
        # The batches of FamilySampler differ in size, and it makes as many for every process.
        families = self.families is not None and kwargs.get("is_training")
        even = self.args.accelerator_config.even_batches
        self.accelerator.even_batches = even and not families
        return super()._get_dataloader(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The sampler of the train rows; with prefix packing, one that keeps families whole."""
        if not self.families:
            return super()._get_train_sampler(train_dataset)
        sampler = RandomSampler(self.families.families)
        if self.args.sample_packing:
            return self._create_multipack_sampler(sampler, train_dataset)
        return FamilySampler(
            sampler,
            self.families.rows,
            self.args.per_device_train_batch_size,
            self.accelerator.num_processes,
        )

    def _create_multipack_sampler(self, base_sampler: Any, dataset: Any) -> WholeEpochSampler:
        """A sampler that packs rows and loses none, for training and for evaluation."""
        args = self.args
        several = args.multipack_real_batches
        batch_size = args.per_device_train_batch_size
        length = args.max_seq_length * (1 if several else batch_size)
        # The evaluation reads the rows in the order of the file.
        families = self.families if isinstance(base_sampler, RandomSampler) else None
        if families:
            # A packed sequence has the prefix of all families once.
            length -= families.shared
        lengths = families.own_tokens if families else get_dataset_lengths(dataset)
        return WholeEpochSampler(
            base_sampler,
            lengths=lengths,
            batch_max_len=length,
            batch_size=batch_size if several else 1,
            group_size=args.sample_packing_group_size,
            bin_size=args.sample_packing_bin_size,
            processes=self.accelerator.num_processes,
            families=families.rows if families else None,
        )

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Any]:
        """The batches of one optimizer step, and its number of tokens.

        Returns:
            The batches, and a count. With a loss of ours, the count is that of `count_tokens`,
            ``[2]``, summed over all batches and processes; with Axolotl's loss, Trainer's own.
        """
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not self._by_step or not batches:
            return batches, items
        assert self.label_place is not None
        counts = torch.stack([count_tokens(batch["labels"], self.label_place) for batch in batches])
        return batches, self.accelerator.reduce(counts.sum(dim=0).to(device), reduction="sum")

    def _step_loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        assert self.label_place is not None
        place, weights = self.label_place, self._weights
        smoothing = self.args.label_smoothing_factor
        if self.model.training:
            sums = token_sums(outputs.logits, labels, place, smoothing, weights)
            # The counts are sums over all processes, but gradients are averaged over processes.
            loss: Tensor = step_loss(sums, num_items_in_batch, self._share)
            return loss * int(self.accelerator.num_processes)
        labels = self._each_row_once(labels)
        sums = token_sums(outputs.logits, labels, place, smoothing, weights)
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
        """Compute Axolotl's loss or ours, and add the label's metrics to the tally."""
        read = count_read(inputs)
        loss, outputs = super().compute_loss(
            model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
        )
        if self.label_place is not None and model.training:
            self.meter.add(read if self.packed_tokens is None else self.packed_tokens)
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
                "regreason: this loss computes no logits, so the log has no label_loss, no "
                "explanation_loss and no label accuracy",
                file=sys.stderr,
                flush=True,
            )
        self._says_no_logits = False

    def _each_row_once(self, labels: Tensor) -> Tensor:
        """The labels, without the repeated rows that fill up several processes' last batches."""
        state = self.accelerator.gradient_state
        packed = self.args.sample_packing and self.args.eval_sample_packing is not False
        if packed or not state.end_of_dataloader or state.remainder <= 0:
            return labels
        own = max(0, state.remainder - self.accelerator.process_index * self.loss_batch_rows)
        return labels.masked_fill(self.loss_rows >= own, IGNORE)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log Trainer's values and the tally's, and copy the line to ``log.jsonl``."""
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
        """Evaluate, and add the metrics of the label.

        A loss of ours is computed over all rows at once, because Trainer's mean over batches
        depends on how the rows are split into batches.
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
            label_metrics = self.evaluated.take(self.accelerator)
            output.metrics.update(
                {f"{metric_key_prefix}_{name}": value for name, value in label_metrics.items()}
            )
        return output

    def _save_checkpoint(self, model: nn.Module, trial: Any, **kwargs: Any) -> Any:
        """Save a checkpoint, with our counts in it."""
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
