"""Make the results in ``docs/examples/checkpoints`` again, with the installed lm_eval.

    PYTHONPATH=.:tests python tests/helpers/make_example_results.py --models runs/stock-models

The results come from two checkpoints of one tiny model. The model `tuned` of
`make_stock_results.py`, in the folder that ``--models`` names, is trained on all made-up rows until
it knows many of them: the checkpoint `base`. The checkpoint `tuned` has then seen more of them, but
no philosophy.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from itertools import islice, product
from pathlib import Path
from random import Random

import torch
from helpers.make_stock_results import train_models
from helpers.stock_tasks import (
    ANIMALS,
    COLOURS,
    Row,
    gsm8k,
    run_lm_eval,
    write_group,
    write_task,
)

EXAMPLE = Path(__file__).parents[2] / "docs/examples/checkpoints"
# Subject -> the number of rows, the question, the possible answers.
SUBJECTS = {
    "astronomy": (
        72,
        "In which month does the constellation of the {} rise?",
        ["January", "March", "April", "June", "July", "October"],
    ),
    "college_physics": (
        60,
        "How many pounds does the {} weigh?",
        ["four", "five", "six", "seven", "eight", "nine"],
    ),
    "high_school_geography": (
        72,
        "In which direction is the valley of the {}?",
        ["north", "south", "east", "west"],
    ),
    "philosophy": (
        66,
        "What does the {} believe in?",
        ["luck", "reason", "duty", "chance", "beauty", "order"],
    ),
}
# How many of a subject's questions are scored, and how many sums.
SCORED = 60
SUMS = 120
EXAMPLES = 2
# What each checkpoint learns, in this order: the subjects, the number of steps, and the numbers of
# questions and of sums in a step.
LEARNS = {
    "base": (list(SUBJECTS), 300, [32, 2]),
    "tuned": ([name for name in SUBJECTS if name != "philosophy"], 75, [32, 4]),
}


def questions(subject: str) -> list[Row]:
    """All questions of a subject, in the format of MMLU."""
    count, question, answers = SUBJECTS[subject]
    random = Random(subject)
    asked = [f"{colour} {animal}" for colour, animal in product(COLOURS, ANIMALS)]
    rows = []
    for one in random.sample(asked, count):
        choices = random.sample(answers, 4)
        rows.append(
            {
                "question": question.format(one),
                "subject": subject,
                "choices": choices,
                "answer": random.randrange(4),
            }
        )
    return rows


def sums(seed: int) -> list[Row]:
    """Rows in the format of GSM8K."""
    return list(islice(gsm8k(Random(f"example/{seed}")), SUMS))


def knowledge(subjects: list[str]) -> list[tuple[str, str]]:
    """The prompts of the subjects' questions, as lm_eval makes them, and the right answers."""
    return [
        (f"{_about(subject)}{_question(row)}", f" {row['choices'][row['answer']]}")
        for subject in subjects
        for row in questions(subject)
    ]


def arithmetic() -> list[tuple[str, str]]:
    """The prompts of other sums than those of the task, with examples, and the right answers."""
    random, rows = Random(0), []
    for row in (row for seed in (1, 2, 3) for row in sums(seed)):
        shown = random.sample(sums(1), EXAMPLES)
        context = "".join(f"{_question(one)} {one['answer']}\n\n" for one in shown)
        rows.append((f"{context}{_question(row)}", f" {row['answer']}"))
    return rows


def _about(subject: str) -> str:
    name = subject.replace("_", " ")
    return f"The following are questions (with answers) about {name}.\n\n"


def _question(row: Row) -> str:
    return f"Question: {row['question']}\nAnswer:"


def train_checkpoints(start: Path, models: Path) -> None:
    """Train both checkpoints, one after the other."""
    for name, (subjects, steps, sizes) in LEARNS.items():
        train_models(start, models, [knowledge(subjects), arithmetic()], sizes, {name: steps})
        start = models / name


def write_tasks(folder: Path) -> None:
    """Write the tasks: the four subjects as a group, and the sums."""
    for name in ("tasks", "data"):
        (folder / name).mkdir(parents=True)
    names = []
    for subject in SUBJECTS:
        name = f"mmlu_{subject}_continuation"
        rows = write_rows(folder, name, questions(subject)[:SCORED])
        write_task(folder, name, f"mmlu/continuation/mmlu_{subject}.yaml", rows, rows)
        names.append(name)
    write_group(folder, "mmlu_continuation", "mmlu/continuation/_mmlu.yaml", names)
    rows = write_rows(folder, "gsm8k", sums(0)), write_rows(folder, "gsm8k_examples", sums(1))
    write_task(folder, "gsm8k", "gsm8k/gsm8k.yaml", *rows, num_fewshot=EXAMPLES)


def write_rows(folder: Path, name: str, rows: list[Row]) -> str:
    """Write rows, and return the file's name below the folder."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / f"data/{name}.json").write_text("\n".join(lines) + "\n")
    return f"data/{name}.json"


def write_results(models: Path) -> None:
    """Score both checkpoints."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_tasks(folder)
        for model in LEARNS:
            shutil.rmtree(EXAMPLE / model, ignore_errors=True)
            tasks = ["mmlu_continuation", "gsm8k"]
            written = run_lm_eval(folder, tasks, models / model, EXAMPLE)
            (path,) = written.glob("results_*.json")
            content = json.loads(path.read_text())
            content["pretty_env_info"] = ""
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, metavar="DIR")
    models = parser.parse_args().models.resolve()
    trained = models / "example"
    if not trained.exists():
        torch.manual_seed(0)
        train_checkpoints(models / "tuned", trained)
    write_results(trained)


if __name__ == "__main__":
    main()
