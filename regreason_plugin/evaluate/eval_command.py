"""``regreason eval``: lm-eval's own command, with our model and our tasks known to it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from regreason_plugin.core.errors import UserError
from regreason_plugin.data_folder.folder import DataFolder


def main(argv: list[str]) -> int:
    """Run lm-eval with these arguments, all of which are its own.

    Returns:
        The exit code.

    Raises:
        UserError: As `_parsed`.
    """
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    from regreason_plugin.evaluate.model import register

    setup_logging()
    register()
    # It reads the command line itself.
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
    """End the process group of `accelerate launch` once every process is done.

    A process that ends while the group's threads run may abort, and the launcher then kills the
    others, of which the first may still be writing the results.
    """
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def _settings(args: Any) -> dict[str, Any]:
    """What lm-eval will go by: the command line, which goes before a file of ``--config``."""
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.utils import simple_parse_args_string

    settings = {name: value for name, value in vars(args).items() if value}
    if settings.get("config"):
        settings = {**EvaluatorConfig.load_yaml_config(settings["config"]), **settings}
    if isinstance(arguments := settings.get("model_args"), str):
        settings["model_args"] = simple_parse_args_string(arguments)
    return settings


def _check_model(settings: dict[str, Any]) -> None:
    """Refuse an adapter on another base or tokenizer than its own, whatever the tasks.

    (What only our tasks prescribe, such as the prompt, they check themselves.)
    """
    from regreason_plugin.core.model_use import ALLOW, ModelUse, check_use

    allow = bool(settings.get("metadata", {}).get(ALLOW))
    allowing = f"""add --metadata '{{"{ALLOW}": true}}'"""
    check_use(ModelUse(), settings.get("model_args", {}), allow=allow, allowing=allowing)


def _parsed(cli: Any, argv: list[str]) -> Any:
    """The arguments as lm-eval reads them.

    Raises:
        UserError: Pairs of names and values are none; lm-eval 0.4.11 ends in a traceback.
    """
    try:
        return cli.parse_args()
    except ValueError as error:
        parts = [part for word in argv if "=" in word for part in word.split(",")]
        wrong = next((f"{part!r} is no name=value" for part in parts if "=" not in part), error)
        raise UserError(
            f"{wrong}: pairs as in --model_args pretrained=BASE,peft=ADAPTER have commas between "
            "them, so a value holds none; one that does goes into a JSON object, as in "
            '--model_args \'{"pretrained": "BASE", "peft": "a,b"}\''
        ) from None


def _own_cache(settings: dict[str, Any]) -> str | None:
    """A path of ``--use_cache`` for this model alone; lm-eval's keys do not hold the model.

    ``regreason-hf`` keeps models apart itself, also where another command calls it.
    """
    from regreason_plugin.evaluate.answer_cache import answers_digest
    from regreason_plugin.evaluate.model import NAME

    path: str | None = settings.get("use_cache")
    model = settings.get("model", "hf")
    if path is None or model == NAME:
        return path
    return f"{path}_{answers_digest(model, settings.get('model_args', {}))}"


def checkout_tasks() -> Path | None:
    """The task files of a checkout; None once installed, where lm-eval finds them itself."""
    tasks = Path(__file__).parents[2] / "lm_eval_tasks"
    return tasks if tasks.is_dir() else None


def task_folder(folder: DataFolder, named: str | Path | None = None) -> Path | None:
    """The folder with the task files of some data; None where lm-eval finds them by itself.

    Args:
        folder: The data that was built from the task.
        named: By the user; None for where `regreason task new` puts them.

    Raises:
        UserError: They are not there.
    """
    if folder.declaration.group is not None:
        return None if named is None else Path(named)
    tasks = Path(named or next(iter(folder.declaration.datasets)))
    if not any(tasks.rglob("*.yaml")):
        raise UserError(
            f"the data is of a task of its own, and {tasks}/ has no task file here; name its "
            "folder with --include_path",
            path=folder.path,
        )
    return tasks


def _include_paths(named: Any) -> Any:
    """The checkout's tasks before the user's own, in the form that lm-eval takes."""
    ours = checkout_tasks()
    if ours is None:
        return named
    # An editable install leaves a copy below lm-eval, which may be older. The later
    # path wins on both versions; 0.4.13 says so once a task, and no argument of it stops that.
    logging.getLogger("lm_eval.tasks._index").addFilter(
        lambda record: "overrides existing task" not in record.getMessage()
    )
    return [str(ours), *([named] if named else [])]
