"""What the product does on a GPU: `make gpu`, or one part of it as a command of its own.

python tests/bench/gpu                         all parts in order, and docs/gpu.md after each
python tests/bench/gpu scorer --seconds 180    one part, which stops itself at its time limit
python tests/bench/gpu page                    docs/gpu.md from the result files that are there

`--device cpu --shape tiny` tries the parts without a card, with a model of two small blocks.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE.parents[1]), str(ROOT)]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from bench.gpu import page, scorer, study, training  # noqa: E402
from bench.gpu.model_shapes import MISTRAL, RANDOM, SMOLLM2  # noqa: E402
from bench.gpu.result import Result, run_part  # noqa: E402

# Part, shape, and time limit in seconds; what needs least comes first.
ORDER = (
    ("scorer", SMOLLM2, 120),
    ("scorer", MISTRAL, 180),
    ("study", SMOLLM2, 630),
    ("lora", MISTRAL, 420),
    ("qlora", MISTRAL, 420),
)
PARTS = tuple(dict.fromkeys(part for part, _, _ in ORDER))
# A part that has not ended this long after its limit is killed.
GRACE = 60


def main() -> int:
    """Run a part or all of them; 1 if one failed or ran out of memory."""
    args = _parser().parse_args()
    if args.part == "page":
        page.write(args.out, _page(args))
        return 0
    if args.part is None:
        return _all_parts(args)
    shape = args.shape or (SMOLLM2 if args.part == "study" else MISTRAL)
    seconds = args.seconds or next(limit for part, _, limit in ORDER if part == args.part)

    def measure(result: Result) -> None:
        if args.part == "scorer":
            scorer.measure(result, shape, args.device, args.smollm2, args.documents, args.rounds)
        elif args.part == "study":
            study.measure(result, seconds, args.smollm2, args.scratch)
        else:
            training.measure(
                result, shape, args.device, args.scratch, args.steps, args.conversations
            )

    result = run_part(args.part, shape, seconds, args.out, measure, args.device)
    print(f"{args.part}, {shape}: {result.values['state']} {result.values['reason']}".rstrip())
    return int(result.values["state"] in page.UNFINISHED)


def _all_parts(args: argparse.Namespace) -> int:
    """Each part in a process of its own, so that none takes memory or a fault to the next."""
    if args.device == "cuda" and (missing := _no_card()):
        print(missing)
        page.write_without_card(_page(args))
        return 0
    failed = 0
    for part, given_shape, limit in ORDER:
        shape = args.shape if args.shape and given_shape == MISTRAL else given_shape
        seconds = args.seconds or limit
        options = [part, "--shape", shape, "--seconds", str(seconds)]
        for name in ("device", "out", "scratch", "smollm2", "documents", "rounds", "steps",
                     "conversations"):  # fmt: skip
            if (value := getattr(args, name)) is not None:
                options += [f"--{name}", str(value)]
        print(f"--- {part}, {shape}, at most {seconds:.0f} s", flush=True)
        failed |= _in_a_process([sys.executable, str(HERE), *options], seconds + GRACE)
        page.write(args.out, _page(args))
    return failed


def _in_a_process(command: list[str], seconds: float) -> int:
    """Run it; whatever of it is left after so many seconds is killed. 1 if it failed."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            return int(process.wait(seconds) != 0)
        except subprocess.TimeoutExpired:
            return 1
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _no_card() -> str:
    """Why there is no card; empty with one. Another process asks, and gives the memory back."""
    code = "import torch; print(torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"{sys.executable} cannot import PyTorch, which every part needs."
    return "" if done.stdout.endswith("True\n") else "No CUDA card is at hand."


def _page(args: argparse.Namespace) -> Path:
    """Figures of a trial without a card do not go into the documentation."""
    if args.page is not None:
        return Path(args.page)
    return ROOT / "docs" / "gpu.md" if args.device == "cuda" else Path(args.out) / "gpu.md"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python tests/bench/gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", nargs="?", choices=(*PARTS, "page"), help="default: all parts")
    parser.add_argument("--seconds", type=float, help="the time limit of the part, or of each")
    parser.add_argument("--shape", choices=(*RANDOM, SMOLLM2), help="the model")
    parser.add_argument("--smollm2", type=Path, help="a folder of `regreason base smollm2`")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/gpu", help="of the result files")
    parser.add_argument("--scratch", type=Path, default=ROOT / "runs/gpu/scratch",
                        help="of random models and data; a 7B takes 14 GiB")  # fmt: skip
    parser.add_argument("--page", type=Path, help="default: docs/gpu.md")
    parser.add_argument("--documents", type=int, default=20, help="a task, for the scorer")
    parser.add_argument("--rounds", type=int, default=3, help="timed, for the scorer")
    parser.add_argument("--steps", type=int, default=50, help="of a training")
    parser.add_argument("--conversations", type=int, default=75, help="a dataset, to train on")
    return parser


if __name__ == "__main__":
    sys.exit(main())
