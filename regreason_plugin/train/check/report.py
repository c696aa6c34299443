"""Output of `regreason check`: findings, one per line, and a description of each training."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from regreason_plugin.core.errors import UserError
from regreason_plugin.evaluate.eval_command import task_folder
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand
from regreason_plugin.evaluate.task_files import task_groups
from regreason_plugin.train.chat_template import uses_chat_template
from regreason_plugin.train.check.check import Checked
from regreason_plugin.train.check.memory import GIB
from regreason_plugin.train.findings import Finding
from regreason_plugin.train.scoring import model_arguments

_MEMORY = "GPU memory"
_PARTS = "  of which"
# Prefix packing is only mentioned if it leaves so many times fewer tokens.
_WORTHWHILE = 1.1
_STYLES = {"error": "bold red", "warning": "yellow", "not checked": "cyan"}


def print_findings(checked: list[Checked], console: Console) -> Counter[str]:
    """Print each finding once, with the runs that have it if not all runs of the sweep do.

    Args:
        checked: The runs.
        console: The console to print to.

    Returns:
        Number of findings of each level.
    """
    runs: dict[Finding, list[str]] = {}
    for one in checked:
        for finding in dict.fromkeys(one.findings):
            runs.setdefault(finding, []).append(one.run.name)
    for level, style in _STYLES.items():
        for finding, names in runs.items():
            if finding.level == level:
                line = Text(f"{level}: ", style=style).append(finding.text, style="default")
                if len(names) < len(checked):
                    line.append(f" [{_names(names)}]", style="dim")
                # No line breaks, even in a narrow terminal, so that a line can be copied.
                console.print(line, soft_wrap=True)
    return Counter(finding.level for finding in runs)


def _names(names: list[str]) -> str:
    shown = "; ".join(names[:3])
    return f"{shown}; and {len(names) - 3} more runs" if len(names) > 3 else shown


def print_report(checked: list[Checked], console: Console) -> None:
    """Print a description of each training, and the commands that score the models.

    Args:
        checked: The runs; facts that differ between runs become a table.
        console: The console to print to.
    """
    facts = [dict(_facts(one)) for one in checked]
    names = list(dict.fromkeys(name for one in facts for name in one))
    same = [name for name in names if len({one.get(name) for one in facts}) == 1]
    if _MEMORY not in same:
        same = [name for name in same if name != _PARTS]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name in same:
        grid.add_row(name, facts[0].get(name, ""))
    console.print(grid, highlight=False)
    # If arms differ, the sweep's column shows them; the parts of the memory are too wide.
    different = [name for name in names if name not in (*same, "Arm", _PARTS)]
    if different:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        swept = list(dict.fromkeys(key for one in checked for key in one.run.values))
        for key in swept:
            table.add_column(key.removeprefix("regreason_"), vertical="bottom", overflow="fold")
        for name in different:
            words = [*name.split(), *(one.get(name, "") for one in facts)]
            width = max(map(len, words))
            table.add_column(name, justify="right", vertical="bottom", min_width=width)
        for one, values in zip(checked, facts, strict=True):
            run = (str(one.run.values.get(key, "-")) for key in swept)
            table.add_row(*run, *(values.get(name, "-") for name in different))
        console.print()
        console.print(table, highlight=False)
    lines = _scoring_lines(checked)
    if lines:
        console.print()
        console.print("To score it:" if len(checked) == 1 else "To score them:", style="bold")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _scoring_lines(checked: list[Checked]) -> list[str]:
    """Commands that score the models; a shell loop if they differ in the model's folder only."""
    known = [one for one in checked if one.cfg is not None and one.sources is not None]
    outputs = [str(one.cfg.output_dir) for one in known]
    in_loop = {scoring_command(one, "$run").line(variable="run") for one in known}
    # No loop if a folder's name holds a comma: its `--model_args` are written differently.
    if len(known) < 2 or len(in_loop) > 1 or any("," in output for output in outputs):
        return [
            scoring_command(one, output).line() for one, output in zip(known, outputs, strict=True)
        ]
    return [f"for run in {shlex.join(outputs)}; do", f"    {in_loop.pop()}", "done"]


def _facts(one: Checked) -> Iterator[tuple[str, str]]:
    cfg, sources = one.cfg, one.sources
    assert cfg is not None
    yield "Base model", str(cfg.base_model)
    yield "Adapter", _adapter(cfg)
    if sources is not None:
        folder = sources.folder
        yield "Arm", sources.arm
        yield "Order", folder.order
        yield "Data", f"{folder.path} ({folder.origin})"
        yield "Data sha256", folder.sha256[:16]
        yield "Rows", f"{sources.rows:,}"
    if one.schedule is not None:
        yield "Batch", _batch(cfg, one.schedule.batch)
        yield "Steps", f"{one.schedule.steps:,}"
        yield "Warm-up", f"{one.schedule.warm_up:,} steps"
        yield "Epochs", f"{one.schedule.epochs:.4g}"
    if one.tokens is not None:
        counts = one.tokens
        yield "Longest allowed", f"{cfg.sequence_len:,} tokens"
        yield "Longest row", f"{max(counts.lengths):,}"
        yield "Tokens an epoch", f"{sum(counts.lengths):,}"
        if one.schedule is not None and one.schedule.packed_tokens is not None:
            yield from _prefix_packing(cfg, sum(counts.lengths), one.schedule.packed_tokens)
        yield "Label tokens", f"{counts.label:,}"
        yield "Other target tokens", f"{counts.other:,}"
        yield "Label's part", f"{counts.label / counts.target:.1%}"
    share = cfg.regreason_label_share
    own = "not fixed: the label's part of the target tokens"
    yield "Label's share of loss", own if share is None else f"{share:.1%} (regreason_label_share)"
    by_step = share is not None or cfg.regreason_loss_mean == "step"
    step, micro_batch = "a whole step", "each micro-batch (Axolotl's own loss)"
    yield "Loss is a mean over", step if by_step else micro_batch
    if one.memory is not None:
        yield _MEMORY, f"about {_gib(sum(one.memory.values()))} GiB"
        yield _PARTS, ", ".join(f"{n} {_gib(b)}" for n, b in one.memory.items())


def _prefix_packing(cfg: Any, tokens: int, packed: int) -> Iterator[tuple[str, str]]:
    """What prefix packing saves, or would save if it were on."""
    fewer = f"{packed:,} tokens an epoch, {tokens / packed:.2f} times fewer"
    if cfg.regreason_prefix_packing:
        yield "Prefix packing", fewer
    elif tokens / packed >= _WORTHWHILE:
        yield "Prefix packing", f"off; regreason_prefix_packing: true leaves {fewer}"


def _gib(number: float) -> str:
    gib = number / GIB
    if gib < 0.05:
        return "<0.1" if gib else "0"
    return f"{gib:.0f}" if gib >= 100 else f"{gib:.1f}"


def _adapter(cfg: Any) -> str:
    if not cfg.adapter:
        return "none: all weights are trained"
    bits = (
        " on 4-bit weights" if cfg.load_in_4bit else " on 8-bit weights" if cfg.load_in_8bit else ""
    )
    return f"{cfg.adapter}, r {cfg.lora_r}, alpha {cfg.lora_alpha}{bits}"


def _batch(cfg: Any, batch: int) -> str:
    micro, accumulated = cfg.micro_batch_size, cfg.gradient_accumulation_steps
    what = f"sequences of {cfg.sequence_len:,} tokens" if cfg.sample_packing else "rows"
    processes = batch // (micro * accumulated)
    return f"{batch} {what} ({micro} x {accumulated} accumulated x {processes} processes)"


def scoring_command(one: Checked, output_dir: str) -> LmEvalCommand:
    """The command that loads a run's model as it was trained, and scores it.

    Args:
        one: The run; its config and its data must be free of faults.
        output_dir: Path of the model's folder in the command.
    """
    cfg, sources = one.cfg, one.sources
    assert sources is not None
    try:
        include = task_folder(sources.folder, cfg.regreason_eval_include_path)
    except UserError:
        include = Path("TASK")  # for the user to fill in
    return LmEvalCommand(
        model_args=model_arguments(cfg, one.template, output_dir),
        chat_template=uses_chat_template(cfg),
        tasks=_tasks(one),
        data_dir=sources.folder.path,
        include_path=include,
        output_path=f"{output_dir}/results",
    )


def _tasks(one: Checked) -> list[str]:
    """Tasks for the settings that the data have and the model is trained for."""
    assert one.sources is not None
    folder, scope = one.sources.folder, one.cfg.regreason_scope
    settings = [
        (dataset, axis)
        for dataset, axis in folder.settings()
        if scope in (None, axis, f"{dataset}_{axis}")
    ]
    declared = folder.declaration
    generative = folder.order == "explanation_first"
    if not generative:
        for group, members in task_groups(declared):
            if settings == members:
                return [group]
    elif declared.group and settings == list(declared.settings):
        return [declared.tasks_argument(generative=True)]
    return declared.task_names(settings, generative=generative)
