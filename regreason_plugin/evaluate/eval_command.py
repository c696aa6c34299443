"""``regreason eval``: lm-eval's own command, with RegReason's model and tasks registered."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.data_folder.folder import DataFolder


def main(argv: list[str]) -> int:
    """Run lm-eval.

    Args:
        argv: The arguments, as lm-eval's own command takes them.

    Returns:
        The exit code.

    Raises:
        UserError: An argument such as ``--model_args`` cannot be parsed, or the model has
            another base model or tokenizer than it was trained with.
    """
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    from regreason_plugin.evaluate.model import register

    setup_logging()
    register()
    # lm-eval reads sys.argv itself.
    sys.argv = ["lm_eval", *argv]
    try:
        cli = HarnessCLI()
        args = _parsed(cli, argv)
        if hasattr(args, "include_path"):
            args.include_path = _include_paths(args.include_path)
            settings = _settings(args)
            _check_model(settings)
            args.use_cache = _own_cache(settings)
        cli.execute(args)
        _leave_together()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _leave_together() -> None:
    """Destroy the process group of `accelerate launch` once every process has finished.

    A process that exits while the group's threads still run may abort. The launcher then kills
    the other processes, and the first of them may still be writing the results.
    """
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def _settings(args: Any) -> dict[str, Any]:
    """The effective settings: the command line, which overrides the file of ``--config``."""
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.utils import simple_parse_args_string

    settings = {name: value for name, value in vars(args).items() if value}
    if settings.get("config"):
        settings = {**EvaluatorConfig.load_yaml_config(settings["config"]), **settings}
    if isinstance(arguments := settings.get("model_args"), str):
        settings["model_args"] = simple_parse_args_string(arguments)
    return settings


def _check_model(settings: dict[str, Any]) -> None:
    """Refuse an adapter whose base model or tokenizer differs from its training's, for any task.

    (Our tasks check what only they determine, such as the prompt.)

    Raises:
        UserError: They differ, and ``allow_misfit`` is not set.
    """
    from regreason_plugin.core.model_use import ALLOW, ModelUse, check_use

    allow = bool(settings.get("metadata", {}).get(ALLOW))
    allowing = f"""add --metadata '{{"{ALLOW}": true}}'"""
    check_use(ModelUse(), settings.get("model_args", {}), allow=allow, allowing=allowing)


def _parsed(cli: Any, argv: list[str]) -> Any:
    """Parse the command line with lm-eval's parser.

    Raises:
        UserError: An argument is no list of name=value pairs; lm-eval 0.4.11 would print a
            traceback.
    """
    try:
        return cli.parse_args()
    except ValueError as error:
        parts = [part for word in argv if "=" in word for part in word.split(",")]
        wrong = next((f"{part!r} is no name=value" for part in parts if "=" not in part), error)
        raise UserError(
            f"{wrong}: commas separate the pairs, as in --model_args pretrained=BASE,peft=ADAPTER; "
            "if a value contains a comma, write a JSON object, as in "
            '--model_args \'{"pretrained": "BASE", "peft": "a,b"}\''
        ) from None


def _own_cache(settings: dict[str, Any]) -> str | None:
    """The path of ``--use_cache`` with a digest of the model, as lm-eval's keys lack the model.

    For ``regreason-hf`` the path stays the same: it separates models itself, under any command.
    """
    from regreason_plugin.evaluate.answer_cache import answers_digest
    from regreason_plugin.evaluate.model import NAME

    path: str | None = settings.get("use_cache")
    model = settings.get("model", "hf")
    if path is None or model == NAME:
        return path
    return f"{path}_{answers_digest(model, settings.get('model_args', {}))}"


def checkout_tasks() -> Path | None:
    """The folder of the task files in a checkout; None if installed, where lm-eval finds them."""
    tasks = Path(__file__).parents[2] / "lm_eval_tasks"
    return tasks if tasks.is_dir() else None


def task_folder(folder: DataFolder, named: str | Path | None = None) -> Path | None:
    """The folder with the task files for a data folder; None if lm-eval finds them itself.

    Args:
        folder: The data folder that was built from the task.
        named: The folder that the user named; None for the folder that `regreason task new`
            writes.

    Raises:
        UserError: The folder has no task file.
    """
    if folder.declaration.group is not None:
        return None if named is None else Path(named)
    tasks = Path(named or next(iter(folder.declaration.datasets)))
    if not any(tasks.rglob("*.yaml")):
        raise UserError(
            f"holds data of the user's own task, but there is no task file in {tasks}/; name the "
            "folder of the task with --include_path",
            path=folder.path,
        )
    return tasks


def _include_paths(named: Any) -> Any:
    """The value of ``--include_path``: the checkout's task files, then the user's."""
    ours = checkout_tasks()
    if ours is None:
        return named
    # An editable install leaves a copy of the task files, perhaps an older one, in lm-eval's own
    # folder. In both versions of lm-eval the later path wins. Version 0.4.13 logs a line per
    # overridden task, which no argument turns off.
    logging.getLogger("lm_eval.tasks._index").addFilter(
        lambda record: "overrides existing task" not in record.getMessage()
    )
    return [str(ours), *([named] if named else [])]
