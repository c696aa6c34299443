"""Runs the methods one after another, each in a separate process; skips finished ones."""

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
# Rough guesses of each method's seconds, used until it has run once.
_SECONDS = {"tfidf": 60.0, "head": 300.0, "zero_shot": 60.0, "few_shot": 120.0}


def run_baselines(
    folder: DataFolder, out: Path, methods: Sequence[str], seeds: Sequence[int], work: Work
) -> bool:
    """Run all methods that are not finished yet.

    Args:
        folder: The data folder.
        out: The folder for all results: one folder per method, and in that of ``head`` one
            folder per seed.
        methods: Names of the methods, in the order in which to run them.
        seeds: Seeds of ``head``.
        work: The job that all methods share; method, seed and output folder are filled in.

    Returns:
        False if a method failed; its error has been printed.

    Raises:
        UserError: A task, the model, the data or ``out`` cannot be used; no method has run.
    """
    work = replace(work, include_path=task_folder(folder, work.include_path))
    check(folder, methods, work)
    # A method starts by emptying its folder, so the folder must not hold other people's files.
    if not (out / LOCK).is_file():
        for results in (out / method for method in methods):
            if results.exists() and (not results.is_dir() or any(results.iterdir())):
                raise UserError(
                    "exists, but does not hold a baseline's results; name another --out",
                    path=results,
                )
    return run_stages(out, stages(folder, out, methods, seeds, work))


def check(folder: DataFolder, methods: Sequence[str], work: Work) -> None:
    """Refuse any input that would stop a method later, before the first method runs.

    Raises:
        UserError: As in `run_baselines`.
    """
    tasks = tasks_of(folder, work.tasks)
    needing = [name for name in methods if name in WITH_MODEL]
    if work.apply_chat_template and not needing:
        needing = ["--apply_chat_template"]
    if needing and work.model is None:
        raise UserError(
            f"{', '.join(needing)} needs --model BASE, the base model that the arms were trained "
            "from; --methods tfidf works without one"
        )
    for method in methods:
        # A method deletes the content of its folder before it starts.
        inputs = [folder.path, work.include_path, Path(work.model) if work.model else None]
        check_not_input(work.out / method, inputs)
    if "tfidf" in methods:
        read_rows(folder, list(tasks.values()))
    if "head" in methods:
        read_rows(folder, folder.settings())
    if needing:
        _check_untrained(str(work.model), folder)
        _check_model(str(work.model), "head" in methods, work.apply_chat_template)


def stages(
    folder: DataFolder, out: Path, methods: Sequence[str], seeds: Sequence[int], work: Work
) -> list[Stage]:
    """One stage per method, and one per seed of ``head``."""
    shared_inputs = hash_of(
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
                    hash_of(shared_inputs, argument, *model),
                    (results / COST).is_file,
                    clears=results,
                    seconds=_SECONDS[method],
                )
            )
    return planned


def _versions() -> list[str]:
    return [version(name) for name in ("regreason", "lm_eval")]


def _state(folder: Path | None) -> list[str]:
    """The state of a folder's content, to detect changes.

    Returns:
        Name, size and sha256 of each file; for files above 1 MiB, such as weights, the time of
        modification instead of the sha256.
    """
    if folder is None or not folder.is_dir():
        return []
    state = []
    for path in sorted(path for path in folder.rglob("*.*") if path.is_file()):
        status = path.stat()
        small = status.st_size < 2**20 and path.suffix != ".pyc"
        state.append(f"{path.name} {status.st_size}")
        state.append(file_sha256(path) if small else str(status.st_mtime_ns))
    return state


def _check_untrained(model: str, folder: DataFolder) -> None:
    record = find_record({"pretrained": model})
    if record and record[1].get("data", {}).get("sha256") == folder.sha256:
        raise UserError(
            f"--model {model} was trained on {folder.path}; name the base model that it was "
            f"trained from, {record[1].get('base_model')}"
        )


def _check_model(model: str, head: bool, chat: bool) -> None:
    from huggingface_hub import snapshot_download
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig, AutoTokenizer

    try:
        # The stages run offline, and the cost of a method does not include a download.
        if not Path(model).is_dir():
            snapshot_download(model, allow_patterns=_OF_A_MODEL)
        config = AutoConfig.from_pretrained(model)
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot load --model {model!r}: {reason}") from None
    if head and type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UserError(
            f"transformers has no classification head for {config.model_type} models; leave head "
            "out of --methods"
        )
    if chat and tokenizer.chat_template is None:
        raise UserError(f"--model {model!r} has no chat template; leave out --apply_chat_template")
