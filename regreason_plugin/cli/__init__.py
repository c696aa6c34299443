"""The `regreason` command line: one function for each command."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence

from regreason_plugin.cli import (
    aggregate,
    annotate,
    base,
    baselines,
    calibrate,
    data,
    fetch,
    gate,
    models,
    power,
    predict,
    task,
)
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.version import __version__
from regreason_plugin.core.whole_files import refusal

AddArguments = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], int]
# In the order of `regreason --help`. A command's help is the docstring of its function.
GROUPS: dict[str, dict[str, tuple[AddArguments, Run]]] = {
    "data": {
        "fetch": (fetch.add_fetch, fetch.run_fetch),
        "import": (data.add_import, data.run_import),
        "annotate": (annotate.add_annotate, annotate.run_annotate),
        "aggregate": (aggregate.add_aggregate, aggregate.run_aggregate),
        "task": (task.add_task, task.run_task),
        "explain": (annotate.add_explain, annotate.run_explain),
        "build": (data.add_build, data.run_build),
        "push": (data.add_push, data.run_push),
    },
    "train": {
        "base": (base.add_base, base.run_base),
        "check": (models.add_check, models.run_check),
    },
    "score": {
        "eval": (models.add_eval, models.run_eval),
        "baselines": (baselines.add_baselines, baselines.run_baselines),
    },
    "compare": {
        "compare": (models.add_compare, models.run_compare),
        "gate": (gate.add_gate, gate.run_gate),
        "power": (power.add_power, power.run_power),
    },
    "use": {
        "calibrate": (calibrate.add_calibrate, calibrate.run_calibrate),
        "predict": (predict.add_predict, predict.run_predict),
        "demo": (models.add_demo, models.run_demo),
        "study": (models.add_study, models.run_study),
    },
}
_DESCRIPTION = """\
Fine-tune language models as classifiers with explanations attached to their labels,
and measure whether it helps. Training itself is `axolotl train CONFIG.yml`, scoring
`lm_eval --tasks 'regreason_*'`."""
_EXIT_CODES = """\
`regreason COMMAND --help` says what a command reads and writes. Exit codes: 0, done;
1, the gate failed, or a stage of a demo or study failed; 2, the input is wrong;
3, the gate cannot decide, or a budget or time limit ended the command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code. For wrong input it is 2, with one line on standard error; a bug in our code
        raises.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["eval"]:  # the rest is lm_eval's own
            return models.run_eval(argparse.Namespace(lm_eval_options=arguments[1:]))
        parser = command_parser()
        parsed, unknown = parser.parse_known_args(arguments)
        if unknown and parsed.run is not models.run_check:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        parsed.axolotl_options = unknown
        run: Run = parsed.run
        return run(parsed)
    except UserError as error:
        from regreason_plugin.core.printable import one_line

        # It may quote a server or a file, whose characters could move the cursor.
        print(f"regreason: {one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        # From a library that writes files itself; our own writers name the file.
        if (said := refusal(error)) is None:
            raise
        print(f"regreason: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("regreason: stopped", file=sys.stderr)
        return 130


def command_parser() -> argparse.ArgumentParser:
    """The parser of all commands; the flags of `eval` are parsed by lm_eval."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="regreason",
        usage="regreason [-h] [--version] COMMAND ...",
        description=_DESCRIPTION,
        epilog=_list_of_commands(),
        formatter_class=as_written,
    )
    parser.add_argument("--version", action="version", version=f"regreason {__version__}")
    commands = parser.add_subparsers(
        required=True, metavar="COMMAND", prog="regreason", help=argparse.SUPPRESS
    )
    for group in GROUPS.values():
        for name, (add_arguments, run) in group.items():
            command = commands.add_parser(
                name, description=inspect.getdoc(run), formatter_class=as_written
            )
            add_arguments(command)
            command.set_defaults(run=run)
    return parser


def _list_of_commands() -> str:
    lines = []
    for group, commands in GROUPS.items():
        lines.append(f"{group}:")
        for name, (_, run) in commands.items():
            summary = (inspect.getdoc(run) or "").partition("\n")[0]
            lines.append(f"  {name:<10}  {summary}")
    return "\n".join([*lines, "", _EXIT_CODES])
