"""All methods one after another, each in a process of its own; finished ones are kept."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from regreason_plugin.core.cost import COST
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.core.model_use import find_record
from regreason_plugin.core.stages import LOCK, Stage, hash_of, run_stages
from regreason_plugin.core.whole_files import check_not_input
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.evaluate.baselines import WITH_MODEL
from regreason_plugin.evaluate.baselines.training_rows import read_rows, tasks_of
from regreason_plugin.evaluate.baselines.work import Work
from regreason_plugin.evaluate.eval_command import checkout_tasks, task_folder

_OF_A_MODEL = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
# Rough guesses, until a stage of the kind has run.
_SECONDS = {"tfidf": 60.0, "head": 300.0, "zero_shot": 60.0, "few_shot": 120.0}


def run_baselines(
    folder: DataFolder, out: Path, methods: Sequence[str], seeds: Sequence[int], work: Work
) -> bool:
    """Run what is not done yet.

    Args:
        folder: The data.
        out: Every method gets a folder in it, and every seed of ``head`` one in that.
        methods: Names, in the order to run them in.
        seeds: Of ``head``.
        work: What all share; method, seed and folder are filled in.

    Returns:
        False when one failed, which has been said.

    Raises:
        UserError: A task, the model, the data or ``out`` will not do; nothing is run.
    """
    work = replace(work, include_path=task_folder(folder, work.include_path))
    check(folder, methods, work)
    # Half-finished work is cleared away, and nothing else may be.
    if not (out / LOCK).is_file():
        for results in (out / method for method in methods):
            if results.exists() and (not results.is_dir() or any(results.iterdir())):
                raise UserError("is there and no baseline; name another --out", path=results)
    return run_stages(out, stages(folder, out, methods, seeds, work))


def check(folder: DataFolder, methods: Sequence[str], work: Work) -> None:
    """Refuse what would stop a method, before the first one runs.

    Raises:
        UserError: As `run_baselines`.
    """
    tasks = tasks_of(folder, work.tasks)
    asking = [name for name in methods if name in WITH_MODEL]
    if work.apply_chat_template and not asking:
        asking = ["--apply_chat_template"]
    if asking and work.model is None:
        raise UserError(
            f"{', '.join(asking)} needs --model BASE, the model that the arms were trained from; "
            "--methods tfidf needs none"
        )
    for method in methods:
        # Whatever is in it goes before the method begins.
        inputs = [folder.path, work.include_path, Path(work.model) if work.model else None]
        check_not_input(work.out / method, inputs)
    if "tfidf" in methods:
        read_rows(folder, list(tasks.values()))
    if "head" in methods:
        read_rows(folder, folder.settings())
    if asking:
        _check_untrained(str(work.model), folder)
        _check_model(str(work.model), "head" in methods, work.apply_chat_template)


def stages(
    folder: DataFolder, out: Path, methods: Sequence[str], seeds: Sequence[int], work: Work
) -> list[Stage]:
    """A stage a method, and a seed of ``head``."""
    made_from = hash_of(
        folder.sha256, *_state(checkout_tasks()), *_state(work.include_path), *_versions()
    )
    planned = []
    for method in methods:
        for seed in seeds if method == "head" else (None,):
            results = out / method if seed is None else out / method / f"seed-{seed}"
            uses_model = method in WITH_MODEL or work.apply_chat_template
            one = replace(
                work,
                method=method,
                out=results,
                seed=seed,
                model=work.model if uses_model else None,
            )
            argument = one.argument()
            model = _state(Path(one.model)) if one.model else []
            planned.append(
                Stage(
                    method if seed is None else f"{method} seed-{seed}",
                    [
                        Path(sys.executable).name,
                        "-m",
                        "regreason_plugin.evaluate.baselines",
                        argument,
                    ],
                    hash_of(made_from, argument, *model),
                    (results / COST).is_file,
                    clears=results,
                    seconds=_SECONDS[method],
                )
            )
    return planned


def _versions() -> list[str]:
    return [version(name) for name in ("regreason", "lm_eval")]


def _state(folder: Path | None) -> list[str]:
    """What tells a folder's content now from another time's; weights by size and time only."""
    if folder is None or not folder.is_dir():
        return []
    state = []
    for path in sorted(path for path in folder.rglob("*.*") if path.is_file()):
        about = path.stat()
        small = about.st_size < 2**20 and path.suffix != ".pyc"
        state.append(f"{path.name} {about.st_size}")
        state.append(file_sha256(path) if small else str(about.st_mtime_ns))
    return state


def _check_untrained(model: str, folder: DataFolder) -> None:
    record = find_record({"pretrained": model})
    if record and record[1].get("data", {}).get("sha256") == folder.sha256:
        raise UserError(
            f"--model {model} was trained on {folder.path}; name the model that it was trained "
            f"from, {record[1].get('base_model')}"
        )


def _check_model(model: str, head: bool, chat: bool) -> None:
    from huggingface_hub import snapshot_download
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig, AutoTokenizer

    try:
        # The stages are kept off the Hub, and a download is no cost of theirs.
        if not Path(model).is_dir():
            snapshot_download(model, allow_patterns=_OF_A_MODEL)
        config = AutoConfig.from_pretrained(model)
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--model {model!r} cannot be loaded ({reason})") from None
    if head and type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UserError(
            f"transformers has no classification head for {config.model_type} models; leave head "
            "out of --methods"
        )
    if chat and tokenizer.chat_template is None:
        raise UserError(f"{model!r} has no chat template; leave --apply_chat_template out")
