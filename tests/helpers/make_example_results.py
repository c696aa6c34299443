"""Make the results in ``docs/examples/checkpoints`` again, with the installed lm_eval.

    PYTHONPATH=.:tests python tests/helpers/make_example_results.py --models runs/example-models

The first call trains one tiny model and keeps two of its checkpoints in the folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import yaml
from helpers.make_stock_results import answer_of, tasks_of, train_models
from helpers.stock_tasks import run_lm_eval, write_stock_tasks
from lm_eval.tasks import TaskManager

EXAMPLE = Path(__file__).parents[2] / "docs/examples/checkpoints"
# The name of each checkpoint, and its number of training steps.
STEPS = {"base": 900, "tuned": 1500}
SIZES = {
    "mmlu_astronomy": 72,
    "mmlu_college_physics": 60,
    "mmlu_high_school_geography": 78,
    "mmlu_philosophy": 66,
    "gsm8k": 120,
}
# In the prompts of GSM8K.
EXAMPLES = 2


def training_rows(seed: int) -> Iterator[tuple[str, str]]:
    """The prompt, as lm_eval makes it, and the right answer of other rows of the same tasks."""
    with tempfile.TemporaryDirectory() as folder:
        write_stock_tasks(Path(folder) / "stock", seed, SIZES)
        with chdir(Path(folder) / "stock"):
            manager = TaskManager(include_path="tasks", include_defaults=False)
            for task in tasks_of(manager.load_task_or_group([*SIZES, "arc_easy"])):
                task.set_fewshot_seed(seed)
                examples = EXAMPLES if task.config.task == "gsm8k" else 0
                for doc in task.eval_docs:
                    yield task.fewshot_context(doc, examples), answer_of(task, doc)[1]


def write_results(models: Path) -> None:
    """Score both checkpoints on MMLU without examples and on GSM8K with two."""
    with tempfile.TemporaryDirectory() as folder:
        stock = Path(folder) / "stock"
        write_stock_tasks(stock, sizes=SIZES)
        for path in stock.glob("tasks/mmlu_*.yaml"):
            task = yaml.safe_load(path.read_text())
            del task["num_fewshot"]
            path.write_text(yaml.safe_dump(task, sort_keys=False))
        for model in STEPS:
            shutil.rmtree(EXAMPLE / model, ignore_errors=True)
            written = run_lm_eval(stock, ["mmlu", "gsm8k"], models / model, EXAMPLE)
            (path,) = written.glob("results_*.json")
            content = json.loads(path.read_text())
            content["pretty_env_info"] = ""
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, metavar="DIR")
    models = parser.parse_args().models.resolve()
    if not models.exists():
        train = [row for seed in range(1, 5) for row in training_rows(seed)]
        train_models(models, train, STEPS)
    write_results(models)


if __name__ == "__main__":
    main()
