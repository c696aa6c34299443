"""The `regreason` command: thin, one function a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from regreason_plugin.cli import baselines, data, gate, models, predict, task
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.version import __version__
from regreason_plugin.core.whole_files import refusal


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 done; 2 the input is wrong, one line on standard error. Bugs keep their traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["eval"]:  # the rest is lm_eval's own
            return models.run_eval(arguments[1:])
        if arguments[:1] == ["check"]:  # the rest may be Axolotl's own
            return models.run_check(arguments[1:])
        parsed = _parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = parsed.run
        return command(parsed)
    except UserError as error:
        print(f"regreason: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # Of a library that writes by itself: our own writers name the file.
        if (said := refusal(error)) is None:
            raise
        print(f"regreason: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("regreason: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="regreason",
        description="Fine-tune language models as classifiers with explanations attached to "
        "their labels, and measure whether it helps.",
    )
    parser.add_argument("--version", action="version", version=f"regreason {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    data.add_commands(command)
    models.add_commands(command)
    gate.add_commands(command)
    predict.add_commands(command)
    baselines.add_commands(command)
    task.add_commands(command)
    return parser
