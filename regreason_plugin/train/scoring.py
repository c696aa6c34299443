"""`regreason_eval` in a config: lm-eval scores the trained model, in a separate process.

The config's tasks are checked before the training. The scoring itself comes last, after the model
is unloaded and its record is written.
"""

from __future__ import annotations

import codecs
import difflib
import fnmatch
import os
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml

from regreason_plugin.core.declaration import Declaration
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.model_use import CALIBRATION, RECORD
from regreason_plugin.data_folder.folder import TEST, DataFolder, open_data_folder
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand
from regreason_plugin.evaluate.task_files import task_groups
from regreason_plugin.train.chat_template import uses_chat_template

RESULTS = "eval"
LOG = "eval.log"
CARD = "README.md"

# Variables that launchers set for the processes of a training; the scoring is a single process.
_OF_LAUNCHERS = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"),
    *("ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
)
_OF_LAUNCHERS_BEGIN = (
    *("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_", "TORCHELASTIC_"),
    *("OMPI_COMM_WORLD_", "PMI_", "MV2_COMM_WORLD_"),
)


@dataclass(frozen=True)
class Scoring:
    """The scoring that follows a training.

    Attributes:
        tasks: lm-eval tasks, groups and globs, as the config names them.
        limit: Number of documents per task; None for all.
        folder: The data folder of the training.
        include_path: Folder of additional task files; None for none.
    """

    tasks: tuple[str, ...]
    limit: int | None
    folder: DataFolder
    include_path: Path | None = None

    @property
    def has_ours(self) -> bool:
        """Whether some of the tasks are RegReason's, not lm-eval's own."""
        known = known_tasks(self.folder.declaration)
        return any(fnmatch.filter(known, name) for name in self.tasks)


# --- before the training ------------------------------------------------------------------


def known_tasks(declared: Declaration) -> dict[str, list[str]]:
    """Tasks and groups of a declaration, by name, each with the tasks that it selects."""
    tasks = [*declared.task_names(), *declared.task_names(generative=True)]
    return {task: [task] for task in tasks} | {
        group: declared.task_names(settings) for group, settings in task_groups(declared)
    }


def read_scoring(cfg: Any, folder: DataFolder, config: str) -> Scoring | None:
    """Read the scoring that a config asks for; None without ``regreason_eval``.

    Args:
        cfg: The config as written.
        folder: The data folder that the config trains on.
        config: Name of the config in an error.

    Raises:
        UserError: A task is unknown or does not suit the data, or the limit is wrong.
    """
    limit, tasks = cfg.get("regreason_eval_limit"), cfg.get("regreason_eval")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise UserError(
            "must be a whole number above 0, or left out for all documents",
            path=config,
            field="regreason_eval_limit",
        )
    if tasks is None:
        return None
    names = tasks.split(",") if isinstance(tasks, str) else tasks
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(name, str) and name.strip() for name in names)
    ):
        raise UserError(
            "must be the name of a task, a group or a glob such as 'regreason_*', or a list of "
            "them; leave it out for no scoring",
            path=config,
            field="regreason_eval",
        )
    include = cfg.get("regreason_eval_include_path")
    if include is not None and not (isinstance(include, str) and Path(include).is_dir()):
        raise UserError(
            "is not a folder; name the folder with the task files, or leave the key out",
            path=config,
            field="regreason_eval_include_path",
        )
    tasks = tuple(name.strip() for name in names)
    scoring = Scoring(tasks, limit, folder, Path(include) if include else None)
    try:
        _check_tasks(scoring)
    except UserError as error:
        raise UserError(str(error), path=config, field="regreason_eval") from None
    folder.verify(TEST)
    return scoring


def _check_tasks(scoring: Scoring) -> None:
    folder = scoring.folder
    declared = folder.declaration
    known = known_tasks(declared)
    wanted: Counter[str] = Counter()
    others = []
    for name in scoring.tasks:
        matching = fnmatch.filter(known, name)
        wanted.update(task for one in matching for task in known[one])
        if not matching:
            if name.startswith("regreason") or not _known_to_lm_eval(name, scoring.include_path):
                raise UserError(_unknown(name, declared))
            others.append(name)
    for task, times in wanted.items():
        if times > 1:
            raise UserError(
                f"selects {task} {times} times; a glob may match both a group and its tasks"
            )
    # In a user's own task, a glob may match both the task and its generative twin.
    twins = set(declared.task_names(generative=True))
    generative = [task for task in wanted if task in twins]
    first = [task for task in wanted if task not in twins]
    if first and folder.order == "explanation_first":
        raise UserError(
            f"{first[0]} asks for the label at once, but in {folder.path} the explanation comes "
            f"first; write {shlex.quote(declared.tasks_argument(generative=True))}"
        )
    if generative and folder.order == "label_first":
        raise UserError(
            f"{generative[0]} lets the model explain first, but in {folder.path} the label comes "
            f"first; write {shlex.quote(declared.tasks_argument())}"
        )
    if generative and others:
        raise UserError(
            f"{generative[0]} cannot run together with other tasks; leave out {others[0]}"
        )
    has = declared.task_names(folder.settings(), generative=bool(generative))
    if absent := wanted.keys() - set(has):
        raise UserError(
            f"{folder.path} has no test rows for {min(absent)}; it has test rows for "
            + ",".join(has)
        )
    if declared.group is None:
        _check_own_files(wanted, scoring.include_path)


def _unknown(name: str, declared: Declaration) -> str:
    known, every = known_tasks(declared), declared.tasks_argument()
    if declared.group is None:
        return f"unknown task {name!r}; the tasks of the data are {', '.join(known)}"
    close = difflib.get_close_matches(name, [every, *known], n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"{every!r} selects all tasks"
    return f"unknown task {name!r}; {hint}"


def _check_own_files(wanted: Collection[str], include: Path | None) -> None:
    """Refuse a user's own tasks if lm-eval would not find their files."""
    there = set()
    for file in sorted(include.rglob("*.yaml")) if include else ():
        try:
            # BaseLoader makes only text, lists and mappings, and accepts lm-eval's `!function`.
            content = yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506
        except (OSError, ValueError, yaml.YAMLError):
            continue  # lm-eval reports what is wrong with the file if it needs it
        if isinstance(content, dict):
            there.add(content.get("task"))
    if absent := sorted(set(wanted) - there):
        where = f"{include} has no file for it" if include else "the folder of its file is not set"
        raise UserError(
            f"{absent[0]} is a task of your own, but {where}; set regreason_eval_include_path to "
            "the folder that `regreason task new` wrote"
        )


def _known_to_lm_eval(name: str, include: Path | None) -> bool:
    # This takes seconds, so it is only called for names that are not RegReason's.
    from lm_eval.tasks import TaskManager

    more = str(include) if include else None
    return bool(TaskManager(include_path=more).match_tasks([name]))


def clear(output_dir: Path) -> None:
    """Delete what belongs to an earlier model, and nothing else.

    That is its record, its calibration, its card, and lm-eval's results and output.
    """
    for name in (RECORD, CALIBRATION, CARD, LOG):
        (output_dir / name).unlink(missing_ok=True)
    results = output_dir / RESULTS
    for pattern in ("results_*.json", "samples_*.jsonl"):
        # A list, because the loop deletes files.
        for file in list(results.rglob(pattern)):
            file.unlink()
            if file.parent != results and not any(file.parent.iterdir()):
                file.parent.rmdir()


# --- after the training -------------------------------------------------------------------


def command(cfg: Any, scoring: Scoring, template: dict[str, bool]) -> LmEvalCommand:
    """The command that loads the model in ``cfg.output_dir`` as it was trained, and scores it.

    Args:
        cfg: The config as Axolotl has completed it.
        scoring: The scoring, from `read_scoring`.
        template: Arguments of the chat template, from `chat_template.template_arguments`.
    """
    return LmEvalCommand(
        program=(sys.executable, "-m", "regreason_plugin", "eval"),
        model_args=model_arguments(cfg, template),
        chat_template=uses_chat_template(cfg),
        tasks=scoring.tasks,
        data_dir=scoring.folder.path,
        limit=scoring.limit,
        include_path=scoring.include_path,
        device=_device(),
        output_path=Path(cfg.output_dir) / RESULTS,
    )


def model_arguments(
    cfg: Any, template: Mapping[str, bool], output_dir: str | None = None
) -> dict[str, Any]:
    """lm-eval's ``--model_args``, with which it loads a model as it was trained.

    Args:
        cfg: The config as Axolotl has completed it.
        template: Arguments of the chat template, from `chat_template.template_arguments`.
        output_dir: Path of the model's folder; None for the config's output_dir.
    """
    output = output_dir or str(cfg.output_dir)
    places = {"pretrained": output}
    if cfg.adapter:
        places = {"pretrained": str(cfg.base_model), "peft": output}
        if uses_chat_template(cfg):
            # The model's folder holds the tokenizer with the chat template of the training.
            places["tokenizer"] = output
    return {**places, **loading_arguments(cfg), **template}


def loading_arguments(cfg: Any) -> dict[str, Any]:
    """The part of `model_arguments` that does not depend on the model's folder."""
    dtype = str(cfg.torch_dtype).removeprefix("torch.")
    arguments: dict[str, Any] = {"dtype": dtype}
    if cfg.trust_remote_code:
        arguments["trust_remote_code"] = True
    if not cfg.adapter:
        return arguments
    if cfg.revision_of_model:
        arguments["revision"] = str(cfg.revision_of_model)
    if not uses_chat_template(cfg) and cfg.tokenizer_config not in (None, cfg.base_model):
        arguments["tokenizer"] = str(cfg.tokenizer_config)
    if cfg.load_in_8bit:
        arguments["load_in_8bit"] = True
    if cfg.load_in_4bit:
        # Axolotl's own settings for 4 bits.
        arguments |= {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": dtype,
            **dict(cfg.bnb_config_kwargs or {}),
        }
    return arguments


def _device() -> str:
    if not torch.accelerator.is_available():
        return "cpu"
    kind = str(torch.accelerator.current_accelerator())
    return kind if kind == "mps" else f"{kind}:{torch.accelerator.current_device_index()}"


def score(cfg: Any, scoring: Scoring, template: dict[str, bool]) -> None:
    """Score the trained model; lm-eval's output goes to the console and to ``eval.log``.

    Raises:
        SystemExit: The scoring failed or was stopped; a line on standard error gives the command
            to score by hand.
    """
    scores, log = command(cfg, scoring, template), Path(cfg.output_dir) / LOG
    try:
        if open_data_folder(scoring.folder.path).sha256 != scoring.folder.sha256:
            raise UserError("was changed during the training", path=scoring.folder.path)
    except UserError as error:
        _stop(1, str(error), scores)
    print(f"regreason: scoring {cfg.output_dir} on {', '.join(scoring.tasks)}", flush=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        code = _run(scores.words(), log)
    except KeyboardInterrupt:
        _stop(130, "the scoring was stopped", scores)
    if code:
        _stop(1, f"the scoring failed with exit code {code}, see {log}", scores)


def _stop(code: int, why: str, by_hand: LmEvalCommand) -> NoReturn:
    print(
        f"regreason: {why}; the trained model is complete; to score it by hand: {by_hand.line()}",
        file=sys.stderr,
        flush=True,
    )
    raise SystemExit(code)


def _run(arguments: list[str], log: Path) -> int:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _OF_LAUNCHERS and not name.startswith(_OF_LAUNCHERS_BEGIN)
    }
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with (
        log.open("wb") as stream,
        _interruptible(),
        subprocess.Popen(  # noqa: S603  # a list that was made above
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        ) as child,
    ):
        assert child.stdout is not None
        try:
            # Read pieces, not lines: a progress bar does not end its lines.
            while piece := child.stdout.read(1 << 16):
                stream.write(piece)
                stream.flush()
                sys.stdout.write(decoder.decode(piece))
                sys.stdout.flush()
        except BaseException:
            child.terminate()
            raise
    return child.returncode


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the scoring; Axolotl's handler is still installed and would exit with 0."""
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    except ValueError:  # not the main thread, as under Ray: it gets no signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
