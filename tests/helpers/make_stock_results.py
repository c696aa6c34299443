"""Make the results in ``tests/comparison/stock_results`` again, with the installed lm_eval.

    PYTHONPATH=.:tests python tests/helpers/make_stock_results.py --models runs/stock-models

The first call trains two models on rows of other seeds, `tuned` for longer than `base`, and keeps
them in the folder; a call in an environment with another version of lm_eval then scores the same
models.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import chdir
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import torch
from helpers.stock_tasks import STOCK_RESULTS, run_lm_eval, write_stock_tasks
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

TINY_BASE = Path(__file__).parents[2] / "axolotl_configs/cpu/tiny-base"
STEPS = {"base": 300, "tuned": 500}
# Run -> the tasks (none: all), more flags of lm_eval.
RUNS: dict[str, tuple[list[str], list[str]]] = {
    "main": ([], []),
    **{
        f"fewshot_{seed}": (
            ["piqa"],
            ["--num_fewshot", "2", "--limit", "8", "--seed", f"0,1234,1234,{seed}"],
        )
        for seed in (1, 2, 3)
    },
    "chat": (["piqa", "triviaqa"], ["--apply_chat_template", "--limit", "4"]),
    "samples_5_2_9": (["piqa"], ["--samples", '{"piqa": [5, 2, 9]}']),
    "samples_2_5_9": (["piqa"], ["--samples", '{"piqa": [2, 5, 9]}']),
}


def train_models(
    start: Path,
    models: Path,
    rows: list[list[tuple[str, str]]],
    sizes: list[int],
    steps: Mapping[str, int],
) -> None:
    """Train a model on prompts with their answers, and save it after some steps.

    Args:
        start: The folder of the model.
        models: Gets a folder for each saved model.
        rows: The prompts and answers of each data set.
        sizes: How many rows of each data set a step takes.
        steps: By the name of the saved model: the step after which it is saved.
    """
    tokenizer = AutoTokenizer.from_pretrained(start)
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    random = Random(0)
    for step in range(1, max(steps.values()) + 1):
        for some, size in zip(rows, sizes, strict=True):
            pairs = [_tokens(tokenizer, *row) for row in random.sample(some, size)]
            ids, labels = (
                torch.nn.utils.rnn.pad_sequence(list(one), batch_first=True, padding_value=padding)
                for one, padding in zip(zip(*pairs, strict=True), (0, -100), strict=True)
            )
            model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        for name in (name for name, last in steps.items() if last == step):
            model.save_pretrained(models / name)
            tokenizer.save_pretrained(models / name)


def _tokens(tokenizer: Any, context: str, answer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The last tokens of a prompt with its answer, and the labels: the answer's tokens."""
    prompt = tokenizer(context).input_ids
    ids = [*tokenizer(context + answer).input_ids, tokenizer.eos_token_id]
    labels = [-100] * len(prompt) + ids[len(prompt) :]
    return torch.tensor(ids[-160:]), torch.tensor(labels[-160:])


def _answers(seed: int) -> Iterator[tuple[str, str]]:
    """The prompt and the right answer of each row, alone and after another row's."""
    with tempfile.TemporaryDirectory() as folder:
        names = write_stock_tasks(Path(folder) / "stock", seed)
        with chdir(Path(folder) / "stock"):
            manager = TaskManager(include_path="tasks", include_defaults=False)
            for task in _tasks(manager.load_task_or_group(names)):
                rows = [_answer(task, doc) for doc in task.eval_docs]
                yield from rows
                for example, (context, answer) in pairwise(rows):
                    yield f"{''.join(example)}\n\n{context}", answer


def _tasks(tree: dict[Any, Any]) -> Iterator[Any]:
    for value in tree.values():
        yield from _tasks(value) if isinstance(value, dict) else [value]


def _answer(task: Any, doc: dict[str, Any]) -> tuple[str, str]:
    context, target = task.doc_to_text(doc), task.doc_to_target(doc)
    if task.config.task == "drop":
        target = " " + " ".join(doc["answers"][0])
    elif task.OUTPUT_TYPE == "multiple_choice":
        target = task.config.target_delimiter + task.doc_to_choice(doc)[target]
    elif task.OUTPUT_TYPE == "generate_until":
        first = target[0] if isinstance(target, list) else target
        target = task.config.target_delimiter + first.strip()
        if task.config.task.startswith("gsm8k_cot"):
            target = " " + doc["answer"].split("\n")[0]
    return context, target


def write_results(models: Path, results: Path) -> None:
    """Score both models in each way of `RUNS`, into ``<version>/<run>/<model>``."""
    with tempfile.TemporaryDirectory() as folder:
        stock = Path(folder) / "stock"
        names = write_stock_tasks(stock)
        for run, (tasks, flags) in RUNS.items():
            for model in STEPS:
                written = run_lm_eval(stock, tasks or names, models / model, results / run, *flags)
                (path,) = written.glob("results_*.json")
                content = json.loads(path.read_text())
                content["pretty_env_info"] = ""
                path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, metavar="DIR")
    models = parser.parse_args().models.resolve()
    if not models.exists():
        rows = [row for seed in range(1, 9) for row in _answers(seed)]
        train_models(TINY_BASE, models, [rows], [16], STEPS)
    results = STOCK_RESULTS / version("lm_eval")
    shutil.rmtree(results, ignore_errors=True)
    write_results(models, results)


if __name__ == "__main__":
    main()
