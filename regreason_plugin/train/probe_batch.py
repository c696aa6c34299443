"""The probe batch: entropies of a few fixed validation prompts, measured during the training.

The batch holds the prompts whose ids have the lowest hashes, so every arm and every seed measures
the same prompts. Each prompt ends where the labels first differ, as in evaluation. With
explanation first, it ends where the generative twins score the label without an explanation.
`regreason_plugin.probes.measure` defines the quantities; each value is a mean over the batch:

- the log gets ``probe/output_entropy``, ``probe/label_entropy`` and, as means over the middle
  blocks, ``probe/<name>_mid``;
- ``probes.jsonl`` in output_dir gets one JSON object per measured step, which also has
  ``<name>_by_layer`` and the sha256 of the prompts' tokens. Curves with the same sha256 are
  comparable.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from transformers import TrainerCallback

from regreason_plugin.core.errors import stop_on_user_error
from regreason_plugin.core.paper import LABELS
from regreason_plugin.core.prompt import TARGET_DELIMITER, Order, render_target
from regreason_plugin.core.records import Row
from regreason_plugin.core.training_curves import LineFile
from regreason_plugin.probes import measure
from regreason_plugin.probes.anatomy import ProbeError
from regreason_plugin.train.chat_template import encode_like_lm_eval
from regreason_plugin.train.data_files import Sources
from regreason_plugin.train.row_tokens import load_reference

PROBES_FILE = "probes.jsonl"
# The scorer's defaults, without the matrix entropy, which costs more than all others.
_PROBES = "output+label+activation+logit_lens"
_WITHOUT_LAYERS = "output+label"


@dataclass(frozen=True)
class ProbeBatch:
    """Prompts up to the position where the labels first differ.

    Attributes:
        prompts: Token ids of each prompt.
        choices: The token of each label that follows a prompt, label 1 first; empty if labels
            share such a token or if it differs between prompts.
    """

    prompts: tuple[tuple[int, ...], ...]
    choices: tuple[int, ...]

    @property
    def sha256(self) -> str:
        """Hash of all tokens."""
        return hashlib.sha256(json.dumps([self.prompts, self.choices]).encode()).hexdigest()


def choose_rows(rows: Iterable[Row], number: int) -> list[Row]:
    """The ``number`` rows with the lowest hashes of id and axis, whatever the order of ``rows``."""

    def row_hash(row: Row) -> str:
        return hashlib.sha256(f"{row.id}\n{row.axis}".encode()).hexdigest()

    return sorted(rows, key=row_hash)[:number]


def make_batch(
    tokenizer: Any,
    rows: Sequence[Row],
    order: Order,
    template: dict[str, bool] | None,
    labels: Sequence[str] = LABELS,
) -> ProbeBatch:
    """Tokenize prompts as lm-eval does, up to the position where the labels first differ.

    Args:
        tokenizer: The tokenizer that lm-eval loads, with the training's chat template if there
            is one.
        rows: One or more rows.
        order: Whether label or explanation comes first.
        template: Arguments of the chat template, from `chat_template.template_arguments`; None
            if no template renders the prompts.
        labels: Texts of the labels, label 1 first.
    """
    prompts, choices = [], set()
    for row in rows:
        prompt = row.messages[0].content
        if template is not None:
            start = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                tokenize=False,
                add_generation_prompt=True,
                **template,
            )
        else:
            start = prompt + TARGET_DELIMITER
        wholes = [
            encode_like_lm_eval(tokenizer, start + render_target(label, "", order))
            for label in labels
        ]
        # A label that is a prefix of another has None where the longer one goes on.
        columns = list(zip_longest(*wholes))
        shared = next(at for at, column in enumerate(columns) if len(set(column)) > 1)
        prompts.append(tuple(wholes[0][:shared]))
        choices.add(columns[shared])
    common = choices.pop() if len(choices) == 1 else ()
    return ProbeBatch(
        tuple(prompts), common if len(set(common)) == len(labels) and None not in common else ()
    )


def load_batch(cfg: Any, sources: Sources, tokenizer: Any, template: dict[str, bool]) -> ProbeBatch:
    """Load the probe batch of a config.

    Args:
        cfg: The config as Axolotl has normalised it.
        sources: The data that the run trains on.
        tokenizer: The tokenizer of the training, for its chat template.
        template: Arguments of the chat template.
    """
    folder = sources.folder
    rows = [row for name in sources.validation for row in folder.rows(name)]
    reference = load_reference(cfg)
    reference.chat_template = tokenizer.chat_template
    chat = cfg.test_datasets[0].type == "chat_template"
    chosen = choose_rows(rows, cfg.regreason_probe_rows)
    labels = folder.declaration.written
    return make_batch(reference, chosen, folder.order, template if chat else None, labels)


def measure_batch(
    model: Any, batch: ProbeBatch, device: torch.device, rows: int, probes: str = _PROBES
) -> dict[str, Any]:
    """Means over a probe batch; the model's mode and the random state stay as they were.

    Args:
        model: A causal LM of transformers, or one wrapped by peft.
        batch: The prompts that the model reads.
        device: Device of the model's input.
        rows: Number of prompts in one forward pass.
        probes: Names of the probes, as in `measure`.

    Returns:
        Floats, and lists of L + 1 floats by layer, under the names of `measure`.

    Raises:
        UserError: As `measure`.
    """
    if not batch.choices:
        probes = probes.replace("+label", "")
    training = model.training
    devices = [device] if device.type == "cuda" else []
    measured: list[dict[str, Any]] = []
    with torch.random.fork_rng(devices):
        model.eval()
        try:
            for start in range(0, len(batch.prompts), rows):
                prompts = [torch.tensor(p) for p in batch.prompts[start : start + rows]]
                ids = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
                lengths = torch.tensor([len(prompt) for prompt in prompts])
                mask = torch.arange(ids.shape[1]) < lengths[:, None]
                measured += measure(
                    model, ids.to(device), mask.to(device), probe=probes, choices=batch.choices
                )
        finally:
            model.train(training)
    return {name: _mean([values[name] for values in measured]) for name in measured[0]}


def _mean(values: list[Any]) -> Any:
    if isinstance(values[0], list):
        return [sum(layer) / len(values) for layer in zip(*values, strict=True)]
    return None if values[0] is None else sum(values) / len(values)


class ProbeCallback(TrainerCallback):
    """Measures the probe batch before the first step, every ``every`` steps and at the end.

    Every process measures the whole batch, because a forward pass needs all processes if the
    weights are sharded over them.

    Args:
        trainer: The trainer, for its model and its log.
        batch: The prompts that the model reads.
        every: Number of steps between two measurements.
        file: File for the values by layer; None in every process but the first.
    """

    def __init__(self, trainer: Any, batch: ProbeBatch, every: int, file: LineFile | None) -> None:
        self._trainer = trainer
        self._batch = batch
        self._every = every
        self._file = file
        self._last: int | None = None
        self._probes = _PROBES

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure before the first step; a resumed training has done so already."""
        if state.global_step == 0:
            self._measure(args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure every ``every`` steps, and after the last step."""
        if state.global_step % self._every == 0 or control.should_training_stop:
            self._measure(args, state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure after the last step if an evaluation has stopped the training."""
        if control.should_training_stop and self._last != state.global_step:
            self._measure(args, state, control)

    @stop_on_user_error()
    def _measure(self, args: Any, state: Any, control: Any) -> None:
        self._last = state.global_step
        try:
            values = self._values(args)
        except ProbeError as error:
            if self._probes == _WITHOUT_LAYERS:
                raise
            if state.is_world_process_zero:
                print(f"regreason: no probes by layer: {error}", file=sys.stderr, flush=True)
            self._probes = _WITHOUT_LAYERS
            values = self._values(args)
        scalars = {
            f"probe/{name}": value for name, value in values.items() if isinstance(value, float)
        }
        # Trainer clears should_log after any line, and would skip the one it is about to write.
        should_log = control.should_log
        self._trainer.log(scalars)
        control.should_log = should_log
        if self._file is not None:
            about = {"prompts": len(self._batch.prompts), "prompts_sha256": self._batch.sha256}
            seen = {name: value for name, value in scalars.items() if name.endswith("_seen")}
            self._file.add(state.global_step, {**seen, **about, **values})

    def _values(self, args: Any) -> dict[str, Any]:
        with self._trainer.accelerator.autocast():
            return measure_batch(
                self._trainer.model,
                self._batch,
                args.device,
                args.per_device_eval_batch_size,
                self._probes,
            )
