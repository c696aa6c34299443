"""The probe batch: entropies of the same few validation prompts, while the model learns.

The prompts are those whose ids hash lowest, so every arm and every seed has the same. A prompt
goes on to where the labels part, as in evaluation: with explanation first, to where the
generative twins force the label at once. What is measured is defined at
`regreason_plugin.probes.measure`; each is the mean over the batch:

- to the log: ``probe/output_entropy``, ``probe/label_entropy`` and, over the middle blocks,
  ``probe/<name>_mid``;
- to ``probes.jsonl`` in output_dir, one JSON object a step, also ``<name>_by_layer``, with the
  sha256 of the prompts' tokens: curves are comparable where it is the same.
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
# Those of the scorer: the matrix entropy costs more than all others.
_PROBES = "output+label+activation+logit_lens"
_WITHOUT_LAYERS = "output+label"


@dataclass(frozen=True)
class ProbeBatch:
    """Prompts up to where their labels part.

    Attributes:
        prompts: Their tokens.
        choices: The tokens of the labels that follow, one a label; none if labels share one.
    """

    prompts: tuple[tuple[int, ...], ...]
    choices: tuple[int, ...]

    @property
    def sha256(self) -> str:
        """Of all tokens."""
        return hashlib.sha256(json.dumps([self.prompts, self.choices]).encode()).hexdigest()


def choose_rows(rows: Iterable[Row], number: int) -> list[Row]:
    """The rows whose ids hash lowest, whatever the order they come in."""

    def place(row: Row) -> str:
        return hashlib.sha256(f"{row.id}\n{row.axis}".encode()).hexdigest()

    return sorted(rows, key=place)[:number]


def make_batch(
    tokenizer: Any,
    rows: Sequence[Row],
    order: Order,
    template: dict[str, bool] | None,
    labels: Sequence[str] = LABELS,
) -> ProbeBatch:
    """Tokenize prompts as lm-eval does, up to where the labels part.

    Args:
        tokenizer: As lm-eval loads it, with the chat template of the training if it has one.
        rows: One or more.
        order: Whether label or explanation comes first.
        template: What the chat template needs, as `chat.template_arguments`; None where
            prompts are not rendered by one.
        labels: Their texts.
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
        # (A label may be the beginning of another, and end where that goes on.)
        columns = list(zip_longest(*wholes))
        shared = next(place for place, column in enumerate(columns) if len(set(column)) > 1)
        prompts.append(tuple(wholes[0][:shared]))
        choices.add(columns[shared])
    one = choices.pop() if len(choices) == 1 else ()
    return ProbeBatch(
        tuple(prompts), one if len(set(one)) == len(labels) and None not in one else ()
    )


def load_batch(cfg: Any, sources: Sources, tokenizer: Any, template: dict[str, bool]) -> ProbeBatch:
    """The probe batch of a config.

    Args:
        cfg: The config as Axolotl has normalised it.
        sources: What the run trains on.
        tokenizer: What Axolotl trains with; its chat template is taken.
        template: What that template needs.
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
    """The means over a probe batch; the model's mode and the random state stay.

    Args:
        model: A causal LM of transformers, or one wrapped by peft.
        batch: What it reads.
        device: Where its input goes.
        rows: How many prompts at once.
        probes: What to measure, as of `measure`.

    Returns:
        Floats, and lists of L + 1 floats by layer, by the names of `measure`.

    Raises:
        UserError: As `measure`.
    """
    if not batch.choices:
        probes = probes.replace("+label", "")
    training = model.training
    devices = [device] if device.type == "cuda" else []
    found: list[dict[str, Any]] = []
    with torch.random.fork_rng(devices):
        model.eval()
        try:
            for start in range(0, len(batch.prompts), rows):
                prompts = [torch.tensor(p) for p in batch.prompts[start : start + rows]]
                ids = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
                lengths = torch.tensor([len(prompt) for prompt in prompts])
                mask = torch.arange(ids.shape[1]) < lengths[:, None]
                found += measure(
                    model, ids.to(device), mask.to(device), probe=probes, choices=batch.choices
                )
        finally:
            model.train(training)
    return {name: _mean([one[name] for one in found]) for name in found[0]}


def _mean(values: list[Any]) -> Any:
    if isinstance(values[0], list):
        return [sum(layer) / len(values) for layer in zip(*values, strict=True)]
    return None if values[0] is None else sum(values) / len(values)


class ProbeCallback(TrainerCallback):
    """Measures the probe batch before the first step, every so many steps and at the end.

    Every process measures all of it: where weights are spread over processes, all of them have
    to take part.

    Args:
        trainer: Whose model and log it is.
        batch: What the model reads.
        every: Steps between two measurements.
        file: Where the lists by layer go; None in all processes but the first.
    """

    def __init__(self, trainer: Any, batch: ProbeBatch, every: int, file: LineFile | None) -> None:
        self._trainer = trainer
        self._batch = batch
        self._every = every
        self._file = file
        self._last: int | None = None
        self._probes = _PROBES

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the first step; a resumed training has had it."""
        if state.global_step == 0:
            self._measure(args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Every so many steps, and after the last."""
        if state.global_step % self._every == 0 or control.should_training_stop:
            self._measure(args, state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the last step where an evaluation stopped the training."""
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
        # (Trainer takes any line of the log for the one that it is about to write.)
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
