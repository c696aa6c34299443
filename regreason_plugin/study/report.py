"""The study's tables and picture, as they came out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from regreason_plugin.build.folder import DataFolder, open_data_folder
from regreason_plugin.compare.compare import Compared
from regreason_plugin.compare.comparison import Comparison
from regreason_plugin.core.stages import console
from regreason_plugin.core.whole_files import atomic_writer, together
from regreason_plugin.render import tables
from regreason_plugin.render.report_files import write
from regreason_plugin.render.tables import Cells
from regreason_plugin.render.terminal import print_table
from regreason_plugin.study.condition_scores import ENTROPIES, FORCED, SCORES, Figures, Mean
from regreason_plugin.study.curves import draw
from regreason_plugin.study.hyperparameters import Choice
from regreason_plugin.study.plan import Plan


def write_report(
    plan: Plan, choice: Choice, figures: dict[str, Figures], compared: Compared
) -> list[Path]:
    """Write ``study.md``, ``study.json``, ``curves.png`` and all files of a comparison.

    Args:
        plan: The finished study.
        choice: The hyperparameters.
        figures: Of every condition.
        compared: The label-first conditions against the first.

    Returns:
        Their paths.
    """
    contents = {
        plan.out / "study.md": _markdown(plan, choice, figures, compared.comparison),
        plan.out / "study.json": _numbers(plan, choice, figures),
        plan.out / "curves.png": draw(plan),
    }
    with together():
        for path, content in contents.items():
            with atomic_writer(path) as stream:
                stream.write(content)
        return [*contents, *write(compared, plan.out)]


def print_report(comparison: Comparison) -> None:
    """The main table, for a terminal."""
    title = f"Means over all settings. {tables.caption(comparison)}"
    console.print()
    print_table(console, _against_baseline(comparison, SCORES), title)


def _against_baseline(comparison: Comparison, metrics: Sequence[str]) -> Cells:
    """A row a condition: the baseline's means, of the others the differences to it."""
    base = comparison.pooled_scores[comparison.baseline]
    rows = [[f"{comparison.baseline} (mean)", *(tables.interval(base[name]) for name in metrics)]]
    for arm in comparison.arms:
        pooled = comparison.pooled[arm]
        rows.append([arm, *(tables.difference(pooled[name]) for name in metrics)])
    return Cells(["condition", *metrics], rows, [], words=1, fixed=1)


def _explanation_first(figures: dict[str, Figures]) -> Cells:
    header = ["condition", *SCORES, *(f"{name}, forced" for name in SCORES)]
    rows = [
        [
            name,
            *(_number(found.mean(metric)) for metric in SCORES),
            *(_number(found.mean(FORCED + metric)) for metric in SCORES),
        ]
        for name, found in figures.items()
        if found.condition.order == "explanation_first"
    ]
    return Cells(header, rows, [], words=1, fixed=1)


def _number(mean: Mean) -> str:
    value = f"{mean.value:.3f}"
    return value if mean.half_width is None else f"{value} ± {mean.half_width:.3f}"


def _markdown(
    plan: Plan, choice: Choice, figures: dict[str, Figures], comparison: Comparison
) -> bytes:
    data = open_data_folder(plan.data("label_first"))
    baseline = comparison.baseline
    lines = ["## Set-up", "", *_setup(plan, choice, data, figures), ""]
    lines += ["## Choosing the hyperparameters", ""]
    lines += [
        "Loss on the labels of the validation rows at the end of the training, in nats; "
        f"`{baseline}`, a seed of its own.",
        "",
    ]
    losses = [
        [f"{one.learning_rate:g}", str(one.num_epochs), f"{loss:.4f}"]
        for one, loss in choice.losses
    ]
    lines += _table(Cells(["learning rate", "epochs", "validation loss"], losses, [], 1, 1))
    lines += ["", "## Verdict", "", f"Of `{plan.command}`, by rule, from the numbers below.", ""]
    for answer in comparison.answers:
        lines += [f"**{answer.question}** {answer.short}", ""]
        lines += [*(f"- {sentence}" for sentence in answer.sentences), ""]
    lines += [
        "## Label first",
        "",
        f"The first line is the mean of `{baseline}` over the settings; all others are differences "
        f"to it. Of nll and ece lower is better. In brackets: {tables.over(comparison)}. "
        f"`*`: {tables.HOLM}, over the conditions of one metric.",
        "",
        *_table(_against_baseline(comparison, SCORES)),
        "",
        "## Entropies",
        "",
        "The same, of the entropies where the label is decided; `_mid` is the mean over the middle "
        "blocks, by three definitions of the activation entropy.",
        "",
        *_table(_against_baseline(comparison, ENTROPIES)),
        "",
    ]
    lines += [
        "## Explanation first",
        "",
        "Scored by the generative twins: after the model's own explanation, and with the label "
        "forced at once. Means over seeds; ± is half of a 95 % t interval over them, for these "
        "test documents only. Never to be read against the tables above: it is another protocol.",
        "",
        *_table(_explanation_first(figures)),
        "",
        "## Learning curves",
        "",
        "![Accuracy on the validation labels by tokens trained on](curves.png)",
        "",
    ]
    return "\n".join(lines).encode("utf-8")


def _setup(plan: Plan, choice: Choice, data: DataFolder, figures: dict[str, Figures]) -> list[str]:
    rows = {split: count.rows for split, count in data.manifest.counts.items()}
    training = figures[plan.conditions[0].name].runs[0].training
    versions = {**training["versions"], "lm_eval": version("lm_eval")}
    seeds = ", ".join(map(str, plan.seeds))
    return [
        f"- Data: the mini benchmark, GENERATED, {plan.per_dataset} conversations a dataset, "
        f"sha256 {data.sha256[:12]}; {rows['train']} train, {rows['validation']} validation, "
        f"{rows['test']} test rows in 18 settings; the same rows in every condition.",
        "- Model: the tiny base, a LoRA on all linear layers (axolotl_configs/cpu/lora.yml), "
        f"{training['steps']} steps.",
        f"- Everywhere: learning rate {choice.learning_rate:g}, {choice.num_epochs} epochs.",
        f"- Training seeds: {seeds}.",
        "- " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
    ]


def _table(cells: Cells) -> list[str]:
    sides = [":---" if place < cells.words else "---:" for place in range(len(cells.header))]
    return [f"| {' | '.join(row)} |" for row in (cells.header, sides, *cells.body)]


def _numbers(plan: Plan, choice: Choice, figures: dict[str, Figures]) -> bytes:
    content: dict[str, Any] = {
        "format": 1,
        "origin": "generated",
        "seeds": plan.seeds,
        "learning_rate": choice.learning_rate,
        "num_epochs": choice.num_epochs,
        "choice": [
            {"learning_rate": one.learning_rate, "num_epochs": one.num_epochs, "loss": loss}
            for one, loss in choice.losses
        ],
        "conditions": {
            name: {
                "arm": found.condition.arm,
                "order": found.condition.order,
                "changes": found.condition.changes,
                "by_seed": found.values,
            }
            for name, found in figures.items()
        },
    }
    return json.dumps(content, indent=1).encode("utf-8") + b"\n"
