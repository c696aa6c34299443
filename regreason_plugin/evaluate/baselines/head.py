"""A classification head with LoRA on the base model, from transformers and peft unchanged.

One model is trained on all settings together, as the arms are: all settings have the same
labels, and the prompt identifies the setting. A separate model per setting would be trained on a
fraction of the rows.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from regreason_plugin.core.base_weights import read_base_weights
from regreason_plugin.core.declaration import Setting
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.model_use import RECORD, ModelUse, prompt_hashes
from regreason_plugin.core.whole_files import atomic_writer, together, writing
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.evaluate.baselines.classifier_lm import Array, in_template
from regreason_plugin.evaluate.baselines.training_rows import Examples, Rows

HISTORY = "history.json"
# The name of this kind of model in training records and results.
HEAD = "sequence classification"
# The same as in axolotl_configs/cpu/lora.yml.
RANK = 32
ALPHA = 64
_PACKAGES = ("regreason", "torch", "transformers", "peft")


@dataclass(frozen=True)
class HeadOptions:
    """Hyperparameters of a head's training.

    Attributes:
        seed: Determines the initial weights of head and adapter, and the order of rows.
        epochs: Passes over the train rows; the epoch with the lowest validation loss is kept.
        learning_rate: The peak learning rate, between a warmup and a cosine decay.
        batch_size: Rows per optimizer step, and per batch in scoring.
        chat: Whether prompts are put into the model's chat template.
    """

    seed: int
    epochs: int = 3
    learning_rate: float = 2e-4
    batch_size: int = 16
    chat: bool = False


@dataclass(frozen=True)
class Trained:
    """A trained head, with what its training took.

    Attributes:
        head: The classifier.
        seconds: Duration in seconds, including validation and the choice of an epoch.
        tokens: Tokens read in training, summed over epochs, without padding.
        rows: Rows read in training, summed over epochs.
        steps: Number of optimizer steps.
        history: The trainer's log: losses by step and by epoch.
    """

    head: Head
    seconds: float
    tokens: int
    rows: int
    steps: int
    history: list[dict[str, Any]]


class Head:
    """A base model with a classification head, which scores labels.

    Args:
        model: A model of transformers for sequence classification.
        tokenizer: The model's tokenizer.
        batch_size: Prompts per batch.
        chat: Whether the prompts are already in the chat template.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int, chat: bool) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._batch_size = batch_size
        self._chat = chat

    def encode(self, text: str) -> list[int]:
        """The token ids of a prompt.

        Raises:
            UserError: The prompt is longer than the model's window.
        """
        # A chat template already contains the token for the beginning of a text.
        ids: list[int] = self.tokenizer(text, add_special_tokens=not self._chat).input_ids
        window = getattr(self.model.config, "max_position_embeddings", None)
        if window is not None and len(ids) > window:
            raise UserError(
                f"a prompt has {len(ids)} tokens, but the base model reads at most {window}; "
                "build the data with --tokenizer and a smaller --max-prompt-tokens (the prompt "
                f"begins {text[:40]!r})"
            )
        return ids

    def log_probabilities(self, setting: Setting, prompts: Sequence[str]) -> Array:
        """The log-probability of each label after each of N prompts, ``[N, labels]``.

        ``setting`` is ignored: the prompt identifies the setting.
        """
        encoded = [self.encode(prompt) for prompt in prompts]
        order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index]))
        scores: Array = np.zeros((len(encoded), self.model.config.num_labels))
        self.model.eval()
        for start in range(0, len(order), self._batch_size):
            indices = order[start : start + self._batch_size]
            batch = self.tokenizer.pad(
                {"input_ids": [encoded[index] for index in indices]}, return_tensors="pt"
            )
            with torch.no_grad():
                logits = self.model(**batch.to(self.model.device)).logits
            scores[indices] = torch.log_softmax(logits.double(), dim=-1).cpu().numpy()
        return scores


def train(base: str, rows: Rows, labels: int, out: Path, options: HeadOptions) -> Trained:
    """Train a head and save its adapter to ``out``.

    Args:
        base: The base model, a folder or a Hub name.
        rows: Train and validation rows of all settings.
        labels: The number of labels.
        out: The adapter's folder; it also holds the trainer's checkpoints during the training.
        options: Hyperparameters.

    Raises:
        UserError: A prompt is longer than the model's window, or a file cannot be written.
    """
    set_seed(options.seed)
    head = _untrained(base, labels, options)

    def encoded(examples: dict[Setting, Examples]) -> list[dict[str, Any]]:
        return [
            {"input_ids": head.encode(_within(head, prompt, options.chat)), "labels": label - 1}
            for one in examples.values()
            for prompt, label in zip(one.prompts, one.labels, strict=True)
        ]

    train_rows, validation_rows = encoded(rows.train), encoded(rows.validation)
    gpu = torch.cuda.is_available()
    trainer = Trainer(
        model=head.model,
        args=TrainingArguments(
            output_dir=str(out / "checkpoints"),
            seed=options.seed,
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            weight_decay=0.0,
            per_device_train_batch_size=options.batch_size,
            per_device_eval_batch_size=options.batch_size,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            save_only_model=True,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            logging_steps=10,
            report_to="none",
            bf16=gpu,
            use_cpu=not gpu,
            gradient_checkpointing=gpu,
            gradient_checkpointing_kwargs={"use_reentrant": False} if gpu else None,
        ),
        train_dataset=train_rows,
        eval_dataset=validation_rows,
        data_collator=DataCollatorWithPadding(head.tokenizer),
    )
    started = time.perf_counter()
    with writing(out):
        trainer.train()
        seconds = time.perf_counter() - started
        shutil.rmtree(out / "checkpoints")
        head.model.save_pretrained(out)
    return Trained(
        head,
        seconds,
        tokens=options.epochs * sum(len(row["input_ids"]) for row in train_rows),
        rows=options.epochs * len(train_rows),
        steps=int(trainer.state.global_step),
        history=list(trainer.state.log_history),
    )


def write_record(
    trained: Trained, out: Path, folder: DataFolder, base: str, options: HeadOptions
) -> None:
    """Write the training record next to the adapter, so that `compare` knows arm and seed."""
    record = {
        "arm": "head",
        "order": folder.order,
        "data": {"path": str(folder.path), "sha256": folder.sha256, "origin": folder.origin},
        "base_model": base,
        "adapter": "lora",
        "chat_template": options.chat,
        "use": ModelUse(
            labels=folder.declaration.written,
            prompts=prompt_hashes(folder.declaration),
            head=HEAD,
            weights=read_base_weights(base),
        ).model_dump(mode="json", exclude_none=True),
        **{key: value for key, value in asdict(options).items() if key != "chat"},
        "lora_r": RANK,
        "lora_alpha": ALPHA,
        "rows": trained.rows // options.epochs,
        "steps": trained.steps,
        "versions": {name: version(name) for name in _PACKAGES},
    }
    with together():
        for name, content in ((HISTORY, trained.history), (RECORD, record)):
            with atomic_writer(out / name) as stream:
                stream.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def load_tokenizer(base: str) -> Any:
    """The base model's tokenizer, with padding on the right."""
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="right")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _within(head: Head, prompt: str, chat: bool) -> str:
    return in_template(head.tokenizer, [{"role": "user", "content": prompt}]) if chat else prompt


def _untrained(base: str, labels: int, options: HeadOptions) -> Head:
    tokenizer = load_tokenizer(base)
    gpu = torch.cuda.is_available()
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=labels, dtype=torch.bfloat16 if gpu else torch.float32
    )
    # The model needs the padding token's id to find the last real token, which the head reads.
    model.config.pad_token_id = tokenizer.pad_token_id
    model = get_peft_model(
        model,
        LoraConfig(
            task_type="SEQ_CLS",
            r=RANK,
            lora_alpha=ALPHA,
            lora_dropout=0.0,
            target_modules="all-linear",
        ),
    )
    for parameter in model.parameters():
        # Trained weights are float32: in bfloat16, small optimizer steps would be rounded away.
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return Head(model, tokenizer, options.batch_size, options.chat)
