"""`regreason demo`: the whole way on the mini benchmark, each station by its own command."""

from __future__ import annotations

import os
from pathlib import Path

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.core.stages import Stage, console, hash_of, program, run_stages
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand

CONFIGS = Path("axolotl_configs")
TASKS = Path("lm_eval_tasks")
LORA = CONFIGS / "cpu" / "lora.yml"
BASE = CONFIGS / "cpu" / "tiny-base"
# The folder that the shipped config names; another --out gets a copy of it.
SHIPPED_OUT = "runs/demo"


def run_demo(out: Path, arms: tuple[str, ...], seed: int = 0) -> int:
    """Run or finish the demo.

    Args:
        out: Everything is written below it.
        arms: Which arms to train; ``label_only`` is what they are compared with.
        seed: Of the data and of the training.

    Returns:
        0, or 1 when a command failed.

    Raises:
        UserError: Not in a checkout, or Axolotl is not installed.
    """
    check_surroundings("demo")
    if "label_only" not in arms or len(arms) < 2:
        raise UserError("--arms needs label_only, the baseline, and at least one other arm")
    if not run_stages(out, _stages(out, arms, seed), jobs=default_jobs()):
        return 1
    _show_result(out, arms)
    return 0


def check_surroundings(command: str) -> None:
    """Refuse to start where configs, tasks or programs are missing.

    Raises:
        UserError: Not in a checkout, or Axolotl or lm_eval is not installed.
    """
    if not (LORA.is_file() and TASKS.is_dir()):
        raise UserError(
            f"the {command} runs in a checkout of RegReason: change into the folder that holds "
            f"{CONFIGS}/ and {TASKS}/"
        )
    for name in ("axolotl", "lm_eval"):
        if program(name) is None:
            raise UserError(f"{name} is not installed here; `make setup` installs it")


def default_jobs() -> int:
    """How many stages run at once: one thread each, since a model this small gains by no more."""
    return max(1, min(os.cpu_count() or 1, 4))


def eval_command(model: Path, data: Path, results: Path, tasks: str, probe: str) -> list[str]:
    """lm_eval's own flags; `lm_eval --model hf` without `probe` gives the same label probabilities.

    (The labels have one token each, so that the rows that `hf` cuts off the head do not matter.)
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
    """Of the tiny base model and its tokenizer."""
    return hash_of(*(file_sha256(path) for path in sorted(BASE.iterdir()) if path.is_file()))


def tasks_hash() -> str:
    """Of the task files."""
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
    places = {
        "page": out / "report.html",
        "table": out / "comparison.md",
        "numbers": out / "comparison.json",
        "entropies": out / "figures" / "entropy_by_layer.png",
        "data": out / "data",
        "adapters": out / "models",
        "lm_eval results": out / "results",
        "logs": out / "logs",
    }
    for what, place in places.items():
        console.print(f"  {what:<16} {place}", highlight=False)
    console.print(
        f"\nOne seed, {len(arms)} arms, a 1M-weight model on generated text: differences this "
        "small a study makes say little about a 7B model. Next: the README's steps by hand, "
        "on your own text and base model.",
        highlight=False,
    )
