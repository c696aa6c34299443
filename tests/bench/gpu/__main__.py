"""The GPU benchmark: all parts (this is `make gpu`), or a single part.

python tests/bench/gpu                         run all parts; write docs/gpu.md after each part
python tests/bench/gpu scorer --seconds 180    run one part, which stops at its time limit
python tests/bench/gpu page                    write docs/gpu.md from the existing result files

With `--device cpu --shape tiny`, the parts run without a GPU on a model of two small blocks.
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

# Part, shape, and time limit in seconds; the parts with the fewest requirements come first.
ORDER = (
    ("scorer", SMOLLM2, 120),
    ("scorer", MISTRAL, 180),
    ("study", SMOLLM2, 630),
    ("lora", MISTRAL, 420),
    ("prefix", MISTRAL, 420),
    ("qlora", MISTRAL, 420),
)
PARTS = tuple(dict.fromkeys(part for part, _, _ in ORDER))
# Seconds after its time limit until a part that has not ended is killed.
GRACE = 60


def main() -> int:
    """Run one part or all parts.

    Returns:
        Exit code 1 if a part failed or ran out of memory, 0 otherwise.
    """
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
    """Run each part in a new process, so that neither memory nor a fault carries over."""
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
    """Run a command; after some seconds, kill it with all its processes. Returns 1 if it failed."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            return int(process.wait(seconds) != 0)
        except subprocess.TimeoutExpired:
            return 1
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _no_card() -> str:
    """The reason why no GPU can be used; empty if there is one.

    Another process checks, so that this one takes no GPU memory.
    """
    code = "import torch; print(torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"{sys.executable} cannot import PyTorch, which every part needs; install it there."
    return "" if done.stdout.endswith("True\n") else "PyTorch finds no CUDA GPU, so no part is run."


def _page(args: argparse.Namespace) -> Path:
    """The page to write: docs/gpu.md, or a file beside the results for a trial without a GPU."""
    if args.page is not None:
        return Path(args.page)
    return ROOT / "docs" / "gpu.md" if args.device == "cuda" else Path(args.out) / "gpu.md"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python tests/bench/gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "part", nargs="?", choices=(*PARTS, "page"), help="the part to run; default: all parts"
    )
    parser.add_argument("--seconds", type=float, help="time limit of each part, in seconds")
    parser.add_argument("--shape", choices=(*RANDOM, SMOLLM2), help="the model")
    parser.add_argument("--smollm2", type=Path, help="folder from `regreason base smollm2`")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/gpu", help="folder of results")
    parser.add_argument("--scratch", type=Path, default=ROOT / "runs/gpu/scratch",
                        help="folder for random models and data; a 7B takes 14 GiB")  # fmt: skip
    parser.add_argument("--page", type=Path, help="page to write; default: docs/gpu.md")
    parser.add_argument("--documents", type=int, default=20, help="scorer: documents per task")
    parser.add_argument("--rounds", type=int, default=3, help="scorer: timed rounds")
    parser.add_argument("--steps", type=int, default=50, help="trainings: steps of each")
    parser.add_argument(
        "--conversations", type=int, default=75, help="trainings: conversations per dataset"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
