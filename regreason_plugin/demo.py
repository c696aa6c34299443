"""`regreason demo`: builds, trains, scores and compares on the mini benchmark.

Each stage is a command that a reader could type.
"""

from __future__ import annotations

import os
from pathlib import Path

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.core.stages import Stage, console, hash_of, run_stages
from regreason_plugin.core.training_extra import check_axolotl
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand

CONFIGS = Path("axolotl_configs")
TASKS = Path("lm_eval_tasks")
LORA = CONFIGS / "cpu" / "lora.yml"
BASE = CONFIGS / "cpu" / "tiny-base"
# The folder that the shipped config names; for another --out the demo writes a changed copy.
SHIPPED_OUT = "runs/demo"


def run_demo(out: Path, arms: tuple[str, ...], seed: int = 0) -> int:
    """Run the demo, or continue one that was stopped.

    Args:
        out: Folder for all files of the demo.
        arms: Arms to train, among them ``label_only``, the baseline.
        seed: Seed of the data and of the training.

    Returns:
        0, or 1 if a command failed.

    Raises:
        UserError: The current folder is not a checkout, Axolotl is not installed, or ``arms``
            lacks the baseline or another arm.
    """
    check_surroundings("demo")
    if "label_only" not in arms or len(arms) < 2:
        raise UserError("--arms needs label_only, the baseline, and at least one other arm")
    if not run_stages(out, _stages(out, arms, seed), jobs=default_jobs()):
        return 1
    _show_result(out, arms)
    return 0


def check_surroundings(command: str) -> None:
    """Check that the configs, task files and Axolotl are there.

    Args:
        command: Name of the command for the message.

    Raises:
        UserError: The current folder is not a checkout, or Axolotl is not installed.
    """
    if not (LORA.is_file() and TASKS.is_dir()):
        raise UserError(
            f"the {command} needs a checkout of RegReason as the current folder: change into the "
            f"folder that holds {CONFIGS}/ and {TASKS}/"
        )
    check_axolotl()


def default_jobs() -> int:
    """Number of parallel stages: one thread each, as more do not speed up so small a model."""
    return max(1, min(os.cpu_count() or 1, 4))


def eval_command(model: Path, data: Path, results: Path, tasks: str, probe: str) -> list[str]:
    """The command that scores an adapter of the demo.

    It takes lm_eval's own flags. `lm_eval --model hf` without `probe` gives the same label
    probabilities: `hf` cuts rows off the output head, which shifts the scores of all labels
    equally, since each label is one token.
    """
    model_args = {
        "pretrained": str(BASE),
        "peft": str(model),
        "dtype": "float32",
        "probe": probe,
    }
    return LmEvalCommand(
        model_args=model_args, tasks=[tasks], data_dir=data, device="cpu", output_path=results
    ).words()


def base_hash() -> str:
    """Hash of the tiny base model and its tokenizer."""
    return hash_of(*(file_sha256(path) for path in sorted(BASE.iterdir()) if path.is_file()))


def tasks_hash() -> str:
    """Hash of all task files."""
    files = sorted(path for path in TASKS.rglob("*.*") if path.is_file())
    return hash_of(*map(file_sha256, files))


def _stages(out: Path, arms: tuple[str, ...], seed: int) -> list[Stage]:
    from regreason_plugin.data_folder.mini import mini_fingerprint, mini_tasks

    data = out / "data"
    config = _config_for(out)
    made_from = hash_of(mini_fingerprint(), str(seed))
    stages = [
        Stage(
            "data",
            ["regreason", "build", "mini", "--out", str(data), "--seed", str(seed)],
            made_from,
            (data / "manifest.json").is_file,
            seconds=15,
        )
    ]
    trained_from = hash_of(made_from, file_sha256(config), base_hash())
    tasks = tasks_hash()
    for arm in arms:
        model = out / "models" / arm
        sweep = CONFIGS / "arms" / f"{arm}.yml"
        stages.append(
            Stage(
                f"train {arm}",
                ["axolotl", "train", str(config), "--sweep", str(sweep), "--seed", str(seed)],
                hash_of(trained_from, arm, file_sha256(sweep)),
                (model / "regreason.json").is_file,
                after=("data",),
                clears=model,
                seconds=220,
            )
        )
        results = out / "results" / arm
        stages.append(
            Stage(
                f"eval {arm}",
                eval_command(model, data, results, mini_tasks(), "all"),
                hash_of(trained_from, arm, tasks),
                lambda results=results: any(results.rglob("results_*.json")),  # type: ignore[misc]
                after=(f"train {arm}",),
                clears=results,
                seconds=60,
            )
        )
    evaluated = tuple(f"eval {arm}" for arm in arms)
    made_from = hash_of(*(stage.inputs for stage in stages))
    runs = [f"{arm}={out / 'results' / arm}" for arm in arms]
    compare = ["regreason", "compare", *runs, "--baseline", "label_only", "--out", str(out)]
    stages.append(
        Stage(
            "compare",
            compare,
            made_from,
            (out / "comparison.json").is_file,
            after=evaluated,
            seconds=8,
        )
    )
    return stages


def _config_for(out: Path) -> Path:
    if out == Path(SHIPPED_OUT):
        return LORA
    config = out / LORA.name
    text = LORA.read_text(encoding="utf-8").replace(SHIPPED_OUT, str(out))
    with atomic_writer(config) as stream:
        stream.write(text.encode("utf-8"))
    return config


def _show_result(out: Path, arms: tuple[str, ...]) -> None:
    from regreason_plugin.comparison.comparison import load_comparison
    from regreason_plugin.render.terminal import print_comparison

    console.print()
    print_comparison(load_comparison(out / "comparison.json"), console)
    paths = {
        "page": out / "report.html",
        "table": out / "comparison.md",
        "numbers": out / "comparison.json",
        "entropies": out / "figures" / "entropy_by_layer.png",
        "data": out / "data",
        "adapters": out / "models",
        "lm_eval results": out / "results",
        "logs": out / "logs",
    }
    for content, path in paths.items():
        console.print(f"  {content:<16} {path}", highlight=False)
    console.print(
        f"\nOne seed, {len(arms)} arms, a model of 1M weights, generated text: differences in so "
        "small an experiment say little about a 7B model. Next: follow the README's steps with "
        "your own text and base model.",
        highlight=False,
    )
