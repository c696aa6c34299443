"""The card of a trained model: ``README.md`` in its folder, for readers and for the Hub.

It replaces the card that Axolotl writes, which holds the whole config but neither arm nor data.
Its content comes from ``regreason.json`` and from lm-eval's results.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from regreason_plugin.comparison.comparability import tasks_of
from regreason_plugin.comparison.comparison import some_settings
from regreason_plugin.core.cost import TrainingCost
from regreason_plugin.core.markdown import Markdown, block, code, render
from regreason_plugin.core.numbers import number
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.evaluate.lm_eval_command import LmEvalCommand
from regreason_plugin.evaluate.results import Run, read_run
from regreason_plugin.evaluate.samples import documents_of
from regreason_plugin.evaluate.task_results import TaskResult
from regreason_plugin.evaluate.task_setting import declaration_of, in_paper
from regreason_plugin.train.record import read_record

METRICS = ("acc", "macro_f1", "qwk", "auroc", "nll", "ece")
# Largest number of labels that the card lists.
_MOST = 20

# The target of each arm.
_ARMS = {
    "label_only": "the label alone",
    "explanation": "the label and its explanation",
    "shuffled": "the label and the words of its explanation in another order",
    "bag_of_words": "the label and words drawn from the explanations' word counts",
    "mismatched": "the label and the explanation of another row",
    "random_words": "the label and words drawn from the explanations' vocabulary",
    "filler": "the label and one word, repeated",
}
# Titles of fields of the record. Any other title is the field's name without underscores.
_TITLES = {
    "order": "first in the target",
    "label_share": "label's share of the loss",
    "lora_dropout": "LoRA dropout",
    "rows": "train rows",
    "config_sha256": "sha256 of the config",
}
# Fields that stand elsewhere in the card, or that name a place on the machine of the training.
_ELSEWHERE = {
    *("arm", "base_model", "adapter", "data", "versions", "cost"),
    *("use", "template_arguments", "model_arguments", "loss_mean"),
}


def write_card(output_dir: Path, results: Path | None = None) -> None:
    """Write the model card of a finished training.

    Args:
        output_dir: The folder with the model and its ``regreason.json``.
        results: Folder of lm-eval's results; None if the model was not scored on our tasks.

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
    """Text of the card.

    Args:
        record: Content of ``regreason.json``.
        run: The model's results; None if the model was not scored.
        folder: Folder of the card, relative to the folder in which a local base model's path
            starts.
    """
    return render(
        "train/model_card.md.j2",
        record=record,
        declared=declaration_of(record["data"]),
        own_task=bool(record["data"].get("declaration")),
        most=_MOST,
        front=_front_matter(record),
        arm=_ARMS.get(record["arm"], "the text of a custom arm"),
        training=list(_training(record)),
        scores=_scores(run) if run else None,
        loading=_loading(record),
        scoring=block(_scoring(record, folder), "bash"),
    )


def _front_matter(record: dict[str, Any]) -> Markdown:
    """Metadata for the Hub."""
    base, adapter = str(record["base_model"]), record["adapter"]
    metadata = ModelCardData(
        library_name="peft" if adapter else "transformers",
        # The Hub accepts names of its own models, but no folders.
        base_model=base if _on_the_hub(base) else None,
        pipeline_tag="text-generation",
        tags=["regreason", "axolotl", *([str(adapter)] if adapter else [])],
    )
    return Markdown(metadata.to_yaml())


def _on_the_hub(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()


def _training(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Titles and values of the training's settings and cost."""
    for key, value in record.items():
        if key in _ELSEWHERE or (value is None and key != "label_share"):
            continue
        yield _TITLES.get(key, key.replace("_", " ")), _value(key, value)
        if key == "label_share":
            by_step = value is not None or record.get("loss_mean") == "step"
            mean = "a whole step" if by_step else "each micro-batch (Axolotl's own loss)"
            yield "loss is a mean over", mean
    if record.get("cost"):
        cost = TrainingCost.model_validate(record["cost"])
        if cost.tokens is not None:
            yield "tokens read", f"{cost.tokens:,}"
        yield "time (seconds)", f"{cost.seconds:,.0f}, on {cost.machine.describe()}"
        kinds = (("memory", cost.peak_memory_mib), ("GPU memory", cost.peak_gpu_mib))
        for kind, mib in kinds:
            if mib:
                yield f"peak {kind} (GiB)", f"{mib / 1024:.3g}"
    versions = record["versions"].items()
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions)


def _value(key: str, value: Any) -> str:
    if key == "label_share":
        return "not fixed: the label's part of the target tokens" if value is None else str(value)
    if key == "order":
        return "label" if value == "label_first" else "explanation"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        return code(json.dumps(value, ensure_ascii=False))
    return f"{value:,}" if isinstance(value, int) and key != "seed" else str(value)


def _scores(run: Run) -> dict[str, Any]:
    """The table of a model's scores, and the facts that the card states about it."""
    tasks = {task: run.tasks[task] for task in tasks_of(run)}
    settings = [result.setting for result in tasks.values()]
    several = some_settings(len(tasks), in_paper(settings))
    lacking = {
        *(() if any(one.ordinal for one in settings) else ("qwk",)),
        *(() if all(len(one.labels) == 2 for one in settings) else ("auroc",)),
    }
    metrics = [metric for metric in METRICS if metric not in lacking]
    counts = {task: documents_of(result) for task, result in tasks.items()}
    means = [_mean(tasks.values(), metric) for metric in ("majority_acc", *metrics)]
    return {
        "data": sorted({result.data["sha256"] for result in tasks.values()}),
        "several": several,
        "lm_eval": run.environment["lm_eval_version"],
        "limit": run.config.get("limit"),
        "chosen": any(counts[task] < result.original for task, result in tasks.items()),
        "header": ["task", "n", "majority", *metrics],
        "rows": [
            *(
                [
                    task,
                    str(counts[task]),
                    number(result.metrics.get("majority_acc")),
                    *(_cell(result, metric) for metric in metrics),
                ]
                for task, result in tasks.items()
            ),
            [Markdown(f"**mean, {several.removesuffix(' settings')}**"), "", *means],
        ],
        "notes": run.misfit_notes,
    }


def _cell(result: TaskResult, metric: str) -> str:
    error = result.stderrs.get(metric)
    shown = number(result.metrics.get(metric))
    return shown if error is None or not math.isfinite(error) else f"{shown} ± {error:.3f}"


def _mean(results: Iterable[TaskResult], metric: str) -> str:
    values = [result.metrics.get(metric) for result in results]
    known = [value for value in values if value is not None]
    # A mean over some of the settings would be a different quantity.
    return number(statistics.fmean(known) if len(known) == len(values) else None)


def _loading(record: dict[str, Any]) -> Markdown:
    base = repr(str(record["base_model"]))
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
    model = """model = AutoModelForCausalLM.from_pretrained("MODEL")  # this folder
tokenizer = AutoTokenizer.from_pretrained("MODEL")"""
    adapter = f"""base = {base}
model = AutoModelForCausalLM.from_pretrained(base)
model = PeftModel.from_pretrained(model, "ADAPTER")  # this folder
tokenizer = AutoTokenizer.from_pretrained(base)"""
    if record["adapter"]:
        return block(f"from peft import PeftModel\n{imports}{adapter}", "python")
    return block(imports + model, "python")


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
        # The model's folder holds the tokenizer with the chat template of the training.
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
    """Path of a local model relative to a folder; a Hub name or an absolute path is unchanged."""
    path = Path(model)
    return os.path.relpath(path, folder) if path.is_dir() and not path.is_absolute() else model
