"""Speed and memory of `regreason predict`; memory must not grow with the number of rows.

    python tests/bench/bench_predict.py               100,000 rows without a model, 20,000 with one
    python tests/bench/bench_predict.py model 100000  100,000 rows with a model

Memory is the resident set size (RSS) of the process at that number of rows. The model is a Llama
with two layers of width 64 and random weights, so small that the benchmark measures the code around
the model.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from regreason_plugin.predict.input_rows import read_rows
from regreason_plugin.predict.prediction_file import predict_file
from regreason_plugin.predict.predictions import Lines, Prediction

LABELS = ["billing", "delivery", "delivery, late", "something else"]
WORDS = "the invoice of my parcel is late and nobody knows why it has two lines"
LINES = 10  # of each table


def write_rows(path: Path, count: int) -> None:
    """Write rows with texts of 5 to 60 words."""
    draw, words = random.Random(0), WORDS.split()
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            text = " ".join(draw.choices(words, k=draw.randint(5, 60)))
            stream.write(json.dumps({"id": f"row-{number}", "text": f"{number} {text}"}) + "\n")


def resident() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def stub(values: Sequence[Any]) -> list[Prediction]:
    """A classifier without a model: uniform probabilities."""
    shares = dict.fromkeys(LABELS, 1 / len(LABELS))
    return [Prediction(LABELS[len(value) % len(LABELS)], shares) for value in values]


def model(folder: Path) -> Any:
    """A classifier with a random model, for a task with four labels."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from regreason_plugin import Classifier

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    pieces.train_from_iterator([WORDS, *LABELS], trainer)
    known = PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="</s>", pad_token="</s>")
    config = LlamaConfig(
        vocab_size=len(known),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    known.save_pretrained(folder / "model")
    task = {
        "name": "tickets",
        "title": "Tickets",
        "labels": LABELS,
        "label_end": ".",
        "prompt": "What is this about?\n\n{text}\n\nAnswer:",
        "data": {"path": "rows.jsonl"},
        "columns": {"text": "text", "label": "label"},
    }
    (folder / "task.yml").write_text(yaml.safe_dump(task))
    return Classifier(f"pretrained={folder / 'model'}", task=folder / "task.yml", device="cpu")


def main(kinds: Sequence[str], count: int | None) -> None:
    """Print one table per kind of classifier, ``stub`` or ``model``."""
    for kind in kinds:
        rows = count or {"stub": 100_000, "model": 20_000}[kind]
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_rows(folder / "rows.jsonl", rows)
            classify = stub if kind == "stub" else model(folder)
            print(f"\n{kind}\n\n| rows | MiB | rows/s |\n| ---: | ---: | ---: |", flush=True)
            run(folder, classify, rows)


def run(folder: Path, classify: Any, rows: int) -> None:
    """Classify all rows, and print a line after every tenth of them."""
    done, started = 0, time.monotonic()

    def on_rows(step: int) -> None:
        nonlocal done
        before, done = done, done + step
        if before * LINES // rows != done * LINES // rows:
            speed = done / (time.monotonic() - started)
            print(f"| {done:,} | {resident():.0f} | {speed:,.0f} |", flush=True)

    predict_file(
        read_rows(folder / "rows.jsonl", "text"),
        classify,
        Lines("jsonl", LABELS, False),
        folder / "out.jsonl",
        {},
        on_rows=on_rows,
    )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(arguments[:1] or ("stub", "model"), int(arguments[1]) if len(arguments) > 1 else None)
