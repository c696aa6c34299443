"""The study's tables and picture, as they came out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from regreason_plugin.jsonl import atomic_writer
from regreason_plugin.stages import console
from regreason_plugin.study.choice import Choice
from regreason_plugin.study.curves import draw
from regreason_plugin.study.figures import ENTROPIES, FORCED, SCORES, Figures, Mean, read_figures
from regreason_plugin.study.plan import Plan
from regreason_plugin.targets.folder import DataFolder, open_data_folder

# Better is higher, but for these.
_LOWER = ("nll", "ece")


def write_report(plan: Plan, choice: Choice) -> list[Path]:
    """Write ``study.md``, ``study.json`` and ``curves.png``.

    Returns:
        Their paths.
    """
    figures = read_figures(plan)
    contents = {
        plan.out / "study.md": _markdown(plan, choice, figures).encode("utf-8"),
        plan.out / "study.json": _numbers(plan, choice, figures),
        plan.out / "curves.png": draw(plan),
    }
    for path, content in contents.items():
        with atomic_writer(path) as stream:
            stream.write(content)
    return list(contents)


def print_report(plan: Plan) -> None:
    """The main table, for a terminal."""
    figures = read_figures(plan)
    header, rows = _against_baseline(figures, SCORES)
    table = Table(title=f"Mean over {len(plan.seeds)} seeds and all settings (GENERATED data)")
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print()
    console.print(table, width=max(console.width, console.measure(table).maximum))


def _against_baseline(
    figures: dict[str, Figures], metrics: Iterable[str]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the baseline's means, of the others the differences to it."""
    metrics = list(metrics)
    baseline, *others = figures
    base = figures[baseline]
    header = ["condition", *metrics]
    rows = [[f"{baseline} (mean)", *(_number(base.mean(metric)) for metric in metrics)]]
    for name in others:
        found = figures[name]
        if found.condition.order == "label_first":
            differences = [found.minus(base, metric) for metric in metrics]
            rows.append([name, *(_number(one, signed=True) for one in differences)])
    return header, rows


def _explanation_first(figures: dict[str, Figures]) -> tuple[list[str], list[list[str]]]:
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
    return header, rows


def _number(mean: Mean, *, signed: bool = False) -> str:
    value = f"{mean.value:+.3f}" if signed else f"{mean.value:.3f}"
    return value if mean.half_width is None else f"{value} ± {mean.half_width:.3f}"


def _markdown(plan: Plan, choice: Choice, figures: dict[str, Figures]) -> str:
    data = open_data_folder(plan.data("label_first"))
    baseline = plan.conditions[0].name
    lines = ["## Set-up", "", *_setup(plan, choice, data, figures), ""]
    lines += ["## Choosing the hyperparameters", ""]
    lines += [
        "Loss on the labels of the validation rows at the end of the training, in nats; "
        f"`{baseline}`, a seed of its own.",
        "",
    ]
    lines += _table(
        ["learning rate", "epochs", "validation loss"],
        [
            [f"{one.learning_rate:g}", str(one.num_epochs), f"{loss:.4f}"]
            for one, loss in choice.losses
        ],
    )
    lines += [
        "",
        "## Label first",
        "",
        f"The first line is the mean of `{baseline}`; all others are differences to it, seed by "
        f"seed. Of {' and '.join(_LOWER)} lower is better. ± is half of a 95 % t interval over "
        "the training seeds, for these test documents only, and not corrected for the number of "
        "comparisons.",
        "",
        *_table(*_against_baseline(figures, SCORES)),
        "",
        "## Entropies",
        "",
        "The same, of the entropies where the label is decided; `_mid` is the mean over the middle "
        "blocks, by three definitions of the activation entropy.",
        "",
        *_table(*_against_baseline(figures, ENTROPIES)),
        "",
        "## Explanation first",
        "",
        "Scored by the generative twins: after the model's own explanation, and with the label "
        "forced at once. Means over seeds. Never to be read against the tables above: it is "
        "another protocol.",
        "",
        *_table(*_explanation_first(figures)),
        "",
        "## Learning curves",
        "",
        "![Accuracy on the validation labels by tokens trained on](curves.png)",
        "",
    ]
    return "\n".join(lines)


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


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [
        "| " + " | ".join(header) + " |",
        "|" + "|".join(" ---: " if number else " --- " for number in range(len(header))) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


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
