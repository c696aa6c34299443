"""The card of a trained model: ``README.md`` beside it, for its readers and for the Hub.

It takes the place of the one that Axolotl writes, which holds the whole config and knows
neither arm nor data. What it says comes from ``regreason.json`` and from lm-eval's results.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from regreason_plugin.compare.comparability import tasks_of
from regreason_plugin.compare.comparison import some_settings
from regreason_plugin.core.cost import TrainingCost
from regreason_plugin.core.markdown import block, code, escape
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand
from regreason_plugin.evaluate.results import Run, TaskResult, read_run
from regreason_plugin.evaluate.samples import documents_of
from regreason_plugin.evaluate.task_setting import declaration_of, in_paper
from regreason_plugin.train.record import read_record

METRICS = ("acc", "macro_f1", "qwk", "auroc", "nll", "ece")
# As many labels are named.
_MOST = 20

# What an arm puts after the label, or before it.
_ARMS = {
    "label_only": "the label alone",
    "explanation": "the label and its explanation",
    "shuffled": "the label and the words of its explanation in another order",
    "bag_of_words": "the label and words drawn from the explanations' word counts",
    "mismatched": "the label and the explanation of another row",
    "random_words": "the label and words drawn from the explanations' vocabulary",
    "filler": "the label and one word, repeated",
}
# Names of fields that need more than their underscores taken away.
_TITLES = {
    "order": "which comes first",
    "label_share": "label's share of the loss",
    "lora_dropout": "LoRA dropout",
    "rows": "train rows",
    "config_sha256": "sha256 of the config",
}
# Told elsewhere in the card, or a place on a machine.
_ELSEWHERE = {
    *("arm", "base_model", "adapter", "data", "versions", "cost"),
    *("use", "template_arguments", "model_arguments", "loss_mean"),
}


def write_card(output_dir: Path, results: Path | None = None) -> None:
    """Write the card of a finished training beside its model.

    Args:
        output_dir: The folder with the model and its ``regreason.json``.
        results: lm-eval's folder, where the model was scored on tasks of ours.

    Raises:
        UserError: The results are broken or of several models.
    """
    record = read_record(output_dir)
    assert record is not None, "the record is written first"
    run = read_run(output_dir.name, results) if results else None
    text = model_card(record, run, output_dir)
    with atomic_writer(output_dir / "README.md") as stream:
        stream.write(text.encode("utf-8"))


def model_card(record: dict[str, Any], run: Run | None, folder: Path = Path()) -> str:
    """The card's text.

    Args:
        record: What ``regreason.json`` holds.
        run: The model's results; None where it was not scored.
        folder: Of the card, as seen from where a local base model's path starts.
    """
    base, arm = record["base_model"], record["arm"]
    kind = f"{record['adapter']} adapter" if record["adapter"] else "fully fine-tuned model"
    parts = [
        _front_matter(record),
        f"# {escape(arm)}, seed {escape(record['seed'])}",
        f"A {escape(kind)} on {code(base)} that {_does(record['data'])}. It was "
        "trained with [RegReason](https://arxiv.org/abs/2511.02044), an open implementation of "
        "Regularization Through Reasoning, and Axolotl, in one arm of a "
        f"comparison: {code(arm)}, {_ARMS.get(arm, 'an arm of its own')}.",
        "## Training",
        _training(record),
        _data(record["data"]),
        "## Scores",
        _scores(run) if run else "Not scored yet.",
        "## Use",
        _loading(record),
        _where_to_score(record),
        block(_scoring(record, folder), "bash"),
        "## Licence",
        f"The licence of the base model, {code(base)}, applies. The data have their own.",
    ]
    return "\n\n".join(parts) + "\n"


def _does(data: dict[str, Any]) -> str:
    """What the model is asked for."""
    declared = declaration_of(data)
    if not data.get("declaration"):
        first, *_, last = declared.labels
        return f"rates the last message of a conversation from {escape(first)} to {escape(last)}"
    names = ", ".join(code(label) for label in declared.labels[:_MOST])
    more = ", ..." if len(declared.labels) > _MOST else ""
    titles = " and ".join(escape(dataset.title) for dataset in declared.datasets.values())
    order = ", low to high" if declared.ordinal else ""
    return f"gives a text ({titles}) one of {len(declared.labels)} labels{order}: {names}{more}"


def _front_matter(record: dict[str, Any]) -> str:
    adapter = record["adapter"]
    front: dict[str, Any] = {"library_name": "peft" if adapter else "transformers"}
    # The Hub takes its own names only, no folders.
    if _on_the_hub(record["base_model"]):
        front["base_model"] = record["base_model"]
    front["pipeline_tag"] = "text-generation"
    front["tags"] = ["regreason", "axolotl", *([str(adapter)] if adapter else [])]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---"


def _on_the_hub(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()


def _training(record: dict[str, Any]) -> str:
    lines = ["| | |", "| --- | --- |"]
    for key, value in record.items():
        if key in _ELSEWHERE or (value is None and key != "label_share"):
            continue
        title = _TITLES.get(key, key.replace("_", " "))
        lines.append(f"| {escape(title)} | {_value(key, value)} |")
        if key == "label_share":
            by_step = value is not None or record.get("loss_mean") == "step"
            mean = "a whole step" if by_step else "each micro-batch (Axolotl's own loss)"
            lines.append(f"| loss is a mean over | {mean} |")
    if cost := record.get("cost"):
        lines += _cost(TrainingCost.model_validate(cost))
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return "\n".join([*lines, f"| versions | {escape(versions)} |"])


def _cost(cost: TrainingCost) -> list[str]:
    tokens = [] if cost.tokens is None else [f"| tokens read | {cost.tokens:,} |"]
    kinds = (("memory", cost.peak_memory_mib), ("GPU memory", cost.peak_gpu_mib))
    memory = [f"| {kind} at most (GiB) | {mib / 1024:.3g} |" for kind, mib in kinds if mib]
    took = f"| time (seconds) | {cost.seconds:,.0f}, on {escape(cost.machine.describe())} |"
    return [*tokens, took, *memory]


def _value(key: str, value: Any) -> str:
    if key == "label_share":
        return "none: its part of the target tokens" if value is None else escape(value)
    if key == "order":
        return "label" if value == "label_first" else "explanation"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        return code(json.dumps(value, ensure_ascii=False))
    return escape(f"{value:,}" if isinstance(value, int) and key != "seed" else value)


def _data(data: dict[str, Any]) -> str:
    said = f"Data: sha256 {code(data['sha256'])} of the manifest, origin {code(data['origin'])}."
    if data["origin"] == "generated":
        said += (
            "\n\n**The conversations are GENERATED and their ratings come from rules (mini "
            "benchmark): no number here says anything about real text.**"
        )
    return said


def _scores(run: Run) -> str:
    tasks = tasks_of(run)
    settings = [run.tasks[task].setting for task in tasks]
    several = some_settings(len(tasks), in_paper(settings))
    lacking = {
        *(() if any(one.ordinal for one in settings) else ("qwk",)),
        *(() if all(len(one.labels) == 2 for one in settings) else ("auroc",)),
    }
    metrics = [metric for metric in METRICS if metric not in lacking]
    data = sorted({run.tasks[task].data["sha256"] for task in tasks})
    limit = run.config.get("limit")
    counts = {task: documents_of(run.tasks[task]) for task in tasks}
    said = (
        f"On the test documents of the data folder {', '.join(map(code, data))}, "
        f"{several}, with lm-eval "
        f"{escape(run.environment['lm_eval_version'])}; ± is a standard error over groups of "
        "documents, of this one trained model."
    )
    if limit:
        said += f" **Only the first {limit:g} documents of each task: a trial.**"
    elif any(counts[task] < run.tasks[task].original for task in tasks):
        said += " **Only chosen documents (lm_eval's `--samples`): a trial.**"
    head = ["task", "n", "majority", *metrics]
    lines = [" | ".join(head), " | ".join(["---", *["---:"] * (len(head) - 1)])]
    for task in tasks:
        result = run.tasks[task]
        majority = _number(result.metrics.get("majority_acc"))
        cells = [_cell(result, metric) for metric in metrics]
        lines.append(" | ".join([escape(task), str(counts[task]), majority, *cells]))
    means = [_mean(run, tasks, metric) for metric in ("majority_acc", *metrics)]
    lines.append(" | ".join([f"**mean, {several.removesuffix(' settings')}**", "", *means]))
    table = "\n".join([said, "", *(f"| {line} |" for line in lines)])
    return "\n\n".join([table, *(f"**{escape(note)}**" for note in run.misfit_notes)])


def _cell(result: TaskResult, metric: str) -> str:
    error = result.stderrs.get(metric)
    shown = _number(result.metrics.get(metric))
    return shown if error is None or not math.isfinite(error) else f"{shown} ± {error:.3f}"


def _mean(run: Run, tasks: list[str], metric: str) -> str:
    values = [run.tasks[task].metrics.get(metric) for task in tasks]
    known = [value for value in values if value is not None]
    # A mean over fewer settings would be another quantity.
    return _number(statistics.fmean(known) if len(known) == len(values) else None)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _loading(record: dict[str, Any]) -> str:
    base = repr(str(record["base_model"]))
    if not record["adapter"]:
        return block(
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("MODEL")  # this folder\n'
            'tokenizer = AutoTokenizer.from_pretrained("MODEL")',
            "python",
        )
    return block(
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"base = {base}\n"
        "model = AutoModelForCausalLM.from_pretrained(base)\n"
        'model = PeftModel.from_pretrained(model, "ADAPTER")  # this folder\n'
        "tokenizer = AutoTokenizer.from_pretrained(base)",
        "python",
    )


def _where_to_score(record: dict[str, Any]) -> str:
    task = " and the folder that `regreason task new` wrote (`TASK`)"
    return (
        f"To score it on a data folder of RegReason (`DATA`)"
        f"{task if record['data'].get('declaration') else ''}, standing in the folder of this card:"
    )


def _scoring(record: dict[str, Any], folder: Path) -> str:
    model = {"pretrained": "."}
    if record["adapter"]:
        model = {"pretrained": _seen_from(folder, str(record["base_model"])), "peft": "."}
    # (Records of earlier versions do not say how the model is loaded.)
    model |= record.get("model_arguments", {})
    if "tokenizer" in model:
        model["tokenizer"] = _seen_from(folder, model["tokenizer"])
    chat = bool(record.get("chat_template"))
    if chat:
        # The one with the template that was trained with.
        model |= {"tokenizer": ".", **record.get("template_arguments", {})}
    declared = declaration_of(record["data"])
    return LmEvalCommand(
        model_args=model,
        chat_template=chat,
        tasks=[declared.tasks_argument(generative=record["order"] == "explanation_first")],
        data_dir="DATA",
        include_path="TASK" if declared.group is None else None,
    ).line()


def _seen_from(folder: Path, model: str) -> str:
    """A local model's path as seen from a folder; a name on the Hub as it is."""
    path = Path(model)
    return os.path.relpath(path, folder) if path.is_dir() and not path.is_absolute() else model
