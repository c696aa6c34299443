"""Overhead of the plugin: the time of a training step, and of tokenizing 45,000 rows.

    bench_training.py             both benchmarks
    bench_training.py --steps 0   only the tokenizing

The trainings take turns step by step (tests/bench/turns.py), and the two ways of tokenizing round
by round, so that other load on the machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
# One thread, because tokenizing is measured per core.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

sys.path.insert(0, str(Path(__file__).parents[1]))
import mistral_common
import torch
import yaml
from axolotl.integrations.base import PluginManager
from axolotl.utils.data.wrappers import get_dataset_wrapper
from axolotl.utils.dict import DictDefault
from bench.turns import PLUGIN, ROOT, Step, take_turns
from datasets import disable_caching, load_dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from regreason_plugin.data_folder.mini import build_mini

TOKENIZER = ROOT / "axolotl_configs" / "cpu" / "tiny-base"
WARM_UP = 10
PROBE_STEPS = 50
OURS = "regreason_plugin.RegReasonPlugin"
# Our plugin with Axolotl's own trainer: the same checks before the first step and the same rows.
PLAIN = "helpers.plain_plugin.RegReasonPlugin"
AXOLOTL = "Axolotl's trainer"
PROBED = f"label share, and probes every {PROBE_STEPS} steps"
TRAININGS: dict[str, dict[str, Any]] = {
    AXOLOTL: {"plugins": [PLAIN]},
    "Axolotl's trainer again": {"plugins": [PLAIN]},
    "the plugin": {"plugins": [OURS]},
    "the plugin with a label share": {"plugins": [OURS], "regreason_label_share": 0.5},
    PROBED: {
        "plugins": [OURS],
        "regreason_label_share": 0.5,
        "regreason_probe_steps": PROBE_STEPS,
    },
}


# --- the time of a step -----------------------------------------------------------------


def step_seconds(args: argparse.Namespace) -> dict[str, list[Step]]:
    """What every step of each training took."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        build_mini(scratch / "data", per_dataset=args.conversations)
        write_model(scratch / "base", args)
        configs = {
            name: write_config(name, scratch, number, args) for number, name in enumerate(TRAININGS)
        }
        return take_turns(configs, args.steps, WARM_UP, args.threads)


def write_config(name: str, scratch: Path, number: int, args: argparse.Namespace) -> Path:
    """Write the shipped config with a bigger model and the changes of ``name``."""
    values = yaml.safe_load((ROOT / "axolotl_configs/cpu/lora.yml").read_text(encoding="utf-8"))
    values |= TRAININGS[name]
    values["plugins"] = [*values["plugins"], PLUGIN]
    for key in ("datasets", "test_datasets"):
        for entry in values[key]:
            entry["path"] = entry["path"].replace("runs/demo/data", str(scratch / "data"))
    values |= {
        "base_model": str(scratch / "base"),
        "dataset_prepared_path": str(scratch / f"{number}/prepared"),
        "output_dir": str(scratch / f"{number}/model"),
        "micro_batch_size": args.batch,
        "num_epochs": 1000,
        "max_steps": WARM_UP + args.steps + 1,
        "regreason_budget": "steps",
        "logging_steps": args.logging_steps,
        "eval_strategy": "no",
        "save_strategy": "no",
    }
    values.pop("evals_per_epoch", None)
    config = scratch / f"{number}.yml"
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    return config


def write_model(folder: Path, args: argparse.Namespace) -> None:
    """Write a random Llama. The plugin's overhead is in the logits, so vocabulary size matters."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=args.vocabulary,
            hidden_size=args.width,
            intermediate_size=args.width * 11 // 4,
            num_hidden_layers=args.layers,
            num_attention_heads=args.width // 64,
            num_key_value_heads=max(args.width // 128, 1),
            max_position_embeddings=2048,
        )
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder)


def steps_table(args: argparse.Namespace) -> None:
    """Print each training's step time, and the median of its ratios to Axolotl's own steps."""
    seconds = step_seconds(args)
    row("", "ms per step", f"/ {AXOLOTL}", "middle half of the steps",
        "CPU ms per step", f"/ {AXOLOTL}", "middle half of the steps")  # fmt: skip
    row("---", *["---:"] * 6)
    probed: list[str] = []
    for name, taken in seconds.items():
        cells = []
        for clock in (0, 1):
            ours, axolotls = ([one[clock] for one in times] for times in (taken, seconds[AXOLOTL]))
            ratios = [one / other for one, other in zip(ours, axolotls, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            cells += [f"{1000 * statistics.median(ours):.0f}", f"{middle:.3f}"]
            cells.append(f"{low:.3f} to {high:.3f}")
            if name == PROBED:
                # The median over steps is blind to the one step in fifty that has a probe.
                probes = ours[PROBE_STEPS - WARM_UP - 1 :: PROBE_STEPS]
                extra = statistics.mean(probes) - statistics.median(ours)
                over = middle + extra / PROBE_STEPS / statistics.median(axolotls)
                probed += [f"{1000 * statistics.mean(probes):.0f} with a probe", f"{over:.3f}", ""]
        row(name, *cells)
    row("label share and probes, mean over all steps", *probed)


# --- tokenizing ---------------------------------------------------------------------------


def tokenizing(args: argparse.Namespace, scratch: Path) -> dict[str, Callable[[], int]]:
    """By strategy: a function that tokenizes the same rows and returns the number of tokens."""
    folder = args.tokenizer or str(mistral_tokenizer(scratch / "tokenizer"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cfg = DictDefault(
        tokenizer_config=folder,
        chat_template="chatml",
        sequence_len=2048,
        train_on_inputs=False,
        dataset_num_proc=None,  # in this process
    )
    PluginManager.get_instance().register(OURS)
    data = scratch / "data"
    build_mini(data, per_dataset=args.rows // 11 + 10)  # a third of the rows is not for training
    path = str(data / "train/explanation.jsonl")
    rows = load_dataset("json", data_files=path, split="train").select(range(args.rows))

    def run(type_: str) -> int:
        entry = DictDefault(path=path, type=type_, field_messages="messages")
        # With caching, the second round would read the results of the first one.
        disable_caching()
        done, _ = get_dataset_wrapper(entry, tokenizer, cfg, type_, rows)
        assert len(done) == args.rows
        return sum(map(len, done["input_ids"]))

    return {
        "chat_template": lambda: run("chat_template"),
        "regreason_plugin": lambda: run("regreason_plugin.train.strategy"),
    }


def mistral_tokenizer(folder: Path) -> Path:
    """Write the tokenizer of the Mistral 7B v0.1 family, a file of which comes with axolotl."""
    folder.mkdir()
    data = Path(mistral_common.__file__).parent / "data"
    shutil.copy(data / "tokenizer.model.v1", folder / "tokenizer.model")
    values = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def tokenizing_table(args: argparse.Namespace) -> None:
    """Print the rows per second of both ways, on one core."""
    with tempfile.TemporaryDirectory() as scratch:
        ways = tokenizing(args, Path(scratch))
        wall: dict[str, list[float]] = {name: [] for name in ways}
        core: dict[str, list[float]] = {name: [] for name in ways}
        tokens: dict[str, int] = {}
        for number in range(args.rounds):
            for name, run in ways.items():
                print(f"round {number + 1} of {args.rounds}: {name}", file=sys.stderr)
                started, used = time.perf_counter(), time.process_time()
                tokens[name] = run()
                wall[name].append(time.perf_counter() - started)
                core[name].append(time.process_time() - used)
    row("type", "tokens per row", "seconds", "CPU seconds", "rows per CPU second",
        "speed / chat_template", "lowest", "highest")  # fmt: skip
    row("---", *["---:"] * 7)
    for name, used in core.items():
        ratios = [other / one for one, other in zip(used, core["chat_template"], strict=True)]
        row(
            name,
            f"{tokens[name] / args.rows:.0f}",
            f"{statistics.median(wall[name]):.1f}",
            f"{statistics.median(used):.1f}",
            f"{args.rows / statistics.median(used):.0f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f}",
            f"{max(ratios):.2f}",
        )


def row(*cells: str) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--steps", type=int, default=2 * PROBE_STEPS, help="training steps, 50 or more; 0 to skip"
    )
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--logging-steps", type=int, default=1)
    parser.add_argument("--conversations", type=int, default=100, help="per dataset")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rows", type=int, default=45_000, help="rows to tokenize; 0 to skip")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of tokenizing")
    parser.add_argument("--tokenizer", help="folder of the tokenizer to benchmark")
    args = parser.parse_args()
    print(f"{date.today()}, {os.cpu_count()} cores; torch {torch.__version__}; ", end="")
    if args.steps:
        print(
            f"Llama of width {args.width}, {args.layers} layers, vocabulary {args.vocabulary}, "
            f"LoRA, float32, {args.batch} rows per step, a log line every "
            f"{args.logging_steps} steps, {args.steps} steps, {args.threads} threads\n"
        )
        steps_table(args)
        print()
    if args.rows:
        name = args.tokenizer or "the tokenizer of Mistral-7B-v0.1"
        print(f"{args.rows} rows of arm explanation, {args.rounds} rounds, {name}\n")
        tokenizing_table(args)


if __name__ == "__main__":
    main()
