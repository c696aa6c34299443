"""lm_eval's own tasks with made-up rows, to score without a network.

Each task includes the YAML that lm_eval ships, so its prompt, filters and metrics are those of the
stock task. Only the data are replaced, by a few rows in the format of the stock data set. The rows
tell of twelve animals of an invented valley.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice, product
from pathlib import Path
from random import Random
from typing import Any

import yaml

Row = dict[str, Any]

# What lm_eval wrote of these tasks, by its version, the run and the model.
STOCK_RESULTS = Path(__file__).parents[1] / "comparison/stock_results"

ROWS = 12
# The committed results stay small: these tasks have the longest prompts.
_FEWER_ROWS = {"gsm8k_cot_self_consistency": 6, "truthfulqa_mc2": 6}
EXAMPLES = 8
HOMES = ["marsh", "wood", "river", "barn", "hill", "bay"]
FOODS = ["fish", "mice", "crabs", "voles", "grass", "seeds"]
COLOURS = ["grey", "red", "brown", "white", "black", "green"]
ANIMALS = {  # home, food, colour
    "heron": ("marsh", "fish", "grey"),
    "fox": ("wood", "mice", "red"),
    "otter": ("river", "crabs", "brown"),
    "owl": ("barn", "voles", "white"),
    "goat": ("hill", "grass", "black"),
    "seal": ("bay", "seeds", "green"),
    "crane": ("marsh", "mice", "brown"),
    "wolf": ("wood", "crabs", "white"),
    "newt": ("river", "voles", "black"),
    "hen": ("barn", "grass", "green"),
    "horse": ("hill", "seeds", "grey"),
    "duck": ("bay", "fish", "red"),
}
GERMAN = {
    "heron": "Reiher",
    "fox": "Fuchs",
    "otter": "Otter",
    "owl": "Uhu",
    "goat": "Bock",
    "seal": "Seehund",
    "crane": "Kranich",
    "wolf": "Wolf",
    "newt": "Molch",
    "hen": "Hahn",
    "horse": "Hengst",
    "duck": "Erpel",
    "marsh": "Moor",
    "wood": "Wald",
    "river": "Fluss",
    "barn": "Stall",
    "hill": "Berg",
    "bay": "Meer",
    "fish": "Fisch",
    "mice": "Maus",
    "crabs": "Krebs",
    "voles": "Wild",
    "grass": "Gras",
    "seeds": "Korn",
}
NAMES = ["Ann", "Ben", "Cleo", "Dan", "Eva", "Finn"]
THINGS = ["apples", "books", "cups", "hats"]


def _questions(random: Random) -> list[tuple[str, str, str, list[str]]]:
    """All questions on the animals in random order: subject, question, answer, wrong answers."""
    asked = []
    for animal, answers in ANIMALS.items():
        for question, answer, values in zip(
            ("Where does the {} live", "What does the {} eat", "Which colour is the {}"),
            answers,
            (HOMES, FOODS, COLOURS),
            strict=True,
        ):
            wrong = [value for value in values if value != answer]
            asked.append((animal, question.format(animal), answer, random.sample(wrong, 3)))
    random.shuffle(asked)
    return asked


def _placed(answer: str, wrong: list[str], random: Random) -> tuple[list[str], int]:
    """The answers in random order, and the place of the right one."""
    choices = random.sample([answer, *wrong], 1 + len(wrong))
    return choices, choices.index(answer)


def _animals(random: Random) -> Iterator[str]:
    """All animals in random order, over and over."""
    while True:
        yield from random.sample(list(ANIMALS), len(ANIMALS))


def _facts(animal: str) -> str:
    home, food, colour = ANIMALS[animal]
    return f"The {colour} {animal} lives in the {home} and eats {food}."


def hellaswag(random: Random) -> Iterator[Row]:
    for n, (animal, _, _, _) in enumerate(_questions(random)):
        _, food, _ = ANIMALS[animal]
        wrong = random.sample([one for one in FOODS if one != food], 3)
        endings, label = _placed(f"eats {food}.", [f"eats {one}." for one in wrong], random)
        hour = random.choice(["morning", "evening"])
        yield {
            "ind": n,
            "activity_label": "Watching animals",
            "ctx_a": f"It is {hour} number {n}.",
            "ctx_b": f"the {animal}",
            "ctx": f"It is {hour} number {n}. the {animal}",
            "endings": endings,
            "source_id": f"invented~{n}",
            "split": "val",
            "split_type": "indomain",
            "label": str(label),
        }


def arc_easy(random: Random) -> Iterator[Row]:
    for n, (_, question, answer, wrong) in enumerate(_questions(random)):
        texts, right = _placed(answer, wrong, random)
        yield {
            "id": f"Invented_{n}",
            "question": f"{question}?",
            "choices": {"text": texts, "label": list("ABCD")},
            "answerKey": "ABCD"[right],
        }


def piqa(random: Random) -> Iterator[Row]:
    for _, question, answer, wrong in _questions(random):
        solutions, label = _placed(answer, wrong[:1], random)
        yield {"goal": f"{question}?", "sol1": solutions[0], "sol2": solutions[1], "label": label}


def mmlu(subject: str) -> Callable[[Random], Iterator[Row]]:
    def rows(random: Random) -> Iterator[Row]:
        for _, question, answer, wrong in _questions(random):
            choices, right = _placed(answer, wrong, random)
            yield {
                "question": f"{question}?",
                "subject": subject,
                "choices": choices,
                "answer": right,
            }

    return rows


def _sums(random: Random) -> Iterator[tuple[str, str, int, int]]:
    """A name, things, and how many of them the person has and gets."""
    asked = list(product(NAMES, THINGS, range(1, 5), range(1, 5)))
    random.shuffle(asked)
    yield from asked


def gsm8k(random: Random) -> Iterator[Row]:
    for name, things, has, gets in _sums(random):
        total = has + gets
        yield {
            "question": f"{name} has {has} {things} and gets {gets}. How many {things} are that?",
            "answer": f"{has} + {gets} = <<{has}+{gets}={total}>>{total}.\n#### {total}",
        }


def gsm8k_cot(random: Random) -> Iterator[Row]:
    for row in gsm8k(random):
        steps, total = row["answer"].split("\n#### ")
        yield {**row, "answer": f"{steps} The answer is {total}.\n#### {total}"}


def lambada_openai(random: Random) -> Iterator[Row]:
    for animal, _, _, _ in _questions(random):
        _, food, _ = ANIMALS[animal]
        day = random.choice(["On Monday", "At noon", "In May", "After the rain"])
        yield {"text": f"{_facts(animal)} {day} the {animal} was hungry, and it looked for {food}"}


def wikitext(random: Random) -> Iterator[Row]:
    for animal in _animals(random):
        text = f"{_facts(animal)} It has {random.randint(2, 9)} 's.".replace(".", " .")
        yield {"page": f" = {animal.capitalize()} = \n \n {text}"}


def triviaqa(random: Random) -> Iterator[Row]:
    for n, (_, question, answer, _) in enumerate(_questions(random)):
        yield {
            "question": question,
            "question_id": f"in_{n}",
            "answer": {"value": answer, "aliases": [answer.capitalize(), f"The {answer}"]},
        }


def boolq(random: Random) -> Iterator[Row]:
    for n, animal in enumerate(_animals(random)):
        home, food, _ = ANIMALS[animal]
        for m, (question, values, value) in enumerate(
            [("does the {} live in the {}", HOMES, home), ("does the {} eat {}", FOODS, food)]
        ):
            asked = random.choice([value, random.choice(values)])
            yield {
                "question": question.format(animal, asked),
                "passage": _facts(animal),
                "idx": 2 * n + m,
                "label": int(asked == value),
            }


def cola(random: Random) -> Iterator[Row]:
    for n, (animal, _, _, _) in enumerate(_questions(random)):
        words = _facts(animal)[:-1].split()
        label = random.randint(0, 1)
        if not label:
            at = random.randrange(1, len(words) - 1)
            words[at : at + 2] = words[at + 1], words[at]
        yield {"sentence": " ".join(words) + ".", "label": label, "idx": n}


def mrpc(random: Random) -> Iterator[Row]:
    for n, (animal, _, _, _) in enumerate(_questions(random)):
        home, food, colour = ANIMALS[animal]
        label = random.randint(0, 1)
        other = food if label else random.choice([one for one in FOODS if one != food])
        sentence = random.choice(
            [
                f"In the {home}, {other} is what the {animal} eats.",
                f"The {animal} in the {home} eats {other}.",
                f"The {colour} {animal} eats {other} in the {home}.",
            ]
        )
        yield {
            "sentence1": f"The {colour} {animal} eats {food} in the {home}.",
            "sentence2": sentence,
            "label": label,
            "idx": n,
        }


def drop(random: Random) -> Iterator[Row]:
    date = {"day": "", "month": "", "year": ""}
    animals = _animals(random)
    for n, pair in enumerate(zip(animals, animals, strict=True)):
        passage = " ".join(_facts(animal) for animal in pair)
        for m, animal in enumerate(pair):
            home, food, _ = ANIMALS[animal]
            yield {
                "section_id": f"invented_{n}",
                "query_id": f"invented_{n}_{m}",
                "passage": passage,
                "question": f"What does the {animal} eat, and where?",
                "answer": {"number": "", "date": date, "spans": [f"{food} in the {home}"]},
                "validated_answers": {"number": [""], "date": [date], "spans": [[food]]},
            }


def truthfulqa(random: Random) -> Iterator[Row]:
    for _, question, answer, wrong in _questions(random):
        yield {
            "question": f"{question}?",
            "mc1_targets": {"choices": [answer, wrong[0]], "labels": [1, 0]},
            "mc2_targets": {
                "choices": [answer, f"I think {answer}", *wrong[:2]],
                "labels": [1, 1, 0, 0],
            },
        }


def wmt16_de_en(random: Random) -> Iterator[Row]:
    for animal, question, _, _ in _questions(random):
        home, food, _ = ANIMALS[animal]
        if "live" in question:
            german = f"Der {GERMAN[animal]} wohnt: {GERMAN[home]}."
            english = f"The {animal} lives in the {home}."
        else:
            german = f"Der {GERMAN[animal]} frisst {GERMAN[food]} (Ort: {GERMAN[home]})."
            english = f"The {animal} eats {food} in the {home}."
        yield {"translation": {"de": german, "en": english}}


MMLU = {  # of different sizes, which are the weights in the groups
    "stem": {"astronomy": 8, "college_physics": 4},
    "humanities": {"philosophy": 6},
    "social_sciences": {"high_school_geography": 10},
}
# Task -> the stock YAML, the rows, what else changes.
_TASKS: dict[str, tuple[str, Callable[[Random], Iterator[Row]], Row]] = {
    "arc_easy": ("arc/arc_easy.yaml", arc_easy, {}),
    "boolq": ("super_glue/boolq/default.yaml", boolq, {}),
    "cola": ("glue/cola/default.yaml", cola, {}),
    "drop": ("drop/default.yaml", drop, {}),
    "gsm8k": ("gsm8k/gsm8k.yaml", gsm8k, {"num_fewshot": 2}),
    "gsm8k_cot_self_consistency": (
        "gsm8k/gsm8k-cot-self-consistency.yaml",
        gsm8k_cot,
        {"num_fewshot": 1, "repeats": 8},
    ),
    "hellaswag": ("hellaswag/hellaswag.yaml", hellaswag, {}),
    "lambada_openai": ("lambada/lambada_openai.yaml", lambada_openai, {}),
    "mrpc": ("glue/mrpc/default.yaml", mrpc, {}),
    "piqa": ("piqa/piqa.yaml", piqa, {}),
    "triviaqa": ("triviaqa/default.yaml", triviaqa, {}),
    "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", truthfulqa, {}),
    "wikitext": ("wikitext/wikitext.yaml", wikitext, {}),
    "wmt16-de-en": ("translation/wmt16_de-en.yaml", wmt16_de_en, {}),
    **{
        f"mmlu_{subject}": (f"mmlu/default/mmlu_{subject}.yaml", mmlu(subject), {})
        for subjects in MMLU.values()
        for subject in subjects
    },
}

# Three tasks of our own: one with metrics of lm_eval that no stock task above has, one that
# measures by functions, and one that is a class.
_OWN_METRICS = """\
task: own_metrics
output_type: multiple_choice
dataset_path: json
dataset_kwargs: {data_files: {test: data/own_metrics.rows.json}}
test_split: test
doc_to_text: "{{goal}}"
doc_to_choice: "{{[sol1, sol2]}}"
doc_to_target: label
metric_list:
  - metric: acc_bytes
  - metric: acc_mutual_info
  - metric: brier_score
  - metric: exact_match
    aggregation: median
    higher_is_better: true
metadata:
  version: 1.0
"""
_OWN_CHOICES = """\
task: own_choices
output_type: multiple_choice
dataset_path: json
dataset_kwargs: {data_files: {test: data/own_choices.rows.json}}
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: "{{choices.text}}"
doc_to_target: "{{choices.label.index(answerKey)}}"
process_results: !function own_functions.process_results
metric_list:
  - metric: won
    aggregation: mean
    higher_is_better: true
  - metric: brier
    aggregation: mean
    higher_is_better: false
  - metric: lead_where_won
    aggregation: !function own_functions.lead_where_won
    higher_is_better: true
metadata:
  version: 1.0
"""
_OWN_CLASS = """\
task: own_class
class: !function own_functions.Foods
"""
_OWN_FUNCTIONS = '''\
"""What the tasks `own_choices` and `own_class` measure."""

import math

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask


def process_results(doc, results):
    """NumPy's bool, which lm_eval logs as text, a number, and a pair for the aggregation below."""
    scores = [score for score, _ in results]
    right = doc["choices"]["label"].index(doc["answerKey"])
    lead = scores[right] - max(score for n, score in enumerate(scores) if n != right)
    total = sum(math.exp(score) for score in scores)
    brier = sum((math.exp(s) / total - (n == right)) ** 2 for n, s in enumerate(scores))
    won = np.argmax(scores) == right
    return {"won": won, "brier": brier, "lead_where_won": (lead > 0, lead)}


def lead_where_won(items):
    """The mean lead of the documents that were won."""
    leads = [lead for won, lead in items if won]
    return sum(leads) / len(leads) if leads else math.nan


def mean(items):
    return sum(items) / len(items)


class Foods(ConfigurableTask):
    """Scores the right continuation alone, as tasks did before they were YAML."""

    VERSION = 1
    DATASET_PATH = "json"
    OUTPUT_TYPE = "loglikelihood"

    def __init__(self, config=None):
        files = {"test": "data/own_class.rows.json"}
        super().__init__(
            config={
                "metadata": {"version": self.VERSION},
                "task": "own_class",
                "dataset_kwargs": {"data_files": files},
            }
        )

    def has_training_docs(self):
        return False

    def has_validation_docs(self):
        return False

    def has_test_docs(self):
        return True

    def test_docs(self):
        return self.dataset["test"]

    def doc_to_text(self, doc):
        return doc["question"] + "?"

    def doc_to_target(self, doc):
        return " " + doc["answer"]["value"]

    def construct_requests(self, doc, ctx, **kwargs):
        kwargs.pop("apply_chat_template", None)
        kwargs.pop("chat_template", None)
        return Instance(
            request_type="loglikelihood",
            doc=doc,
            arguments=(ctx, self.doc_to_target(doc)),
            idx=0,
            **kwargs,
        )

    def process_results(self, doc, results):
        (score, greedy), = results
        return {"greedy": greedy, "surprise": -score}

    def aggregation(self):
        return {"greedy": mean, "surprise": mean}

    def higher_is_better(self):
        return {"greedy": True, "surprise": False}
'''


def write_stock_tasks(folder: Path, seed: int = 0) -> list[str]:
    """Write the rows and the task files of all families.

    Args:
        folder: Gets the folders ``data`` and ``tasks``. The task files name the data relative to
            it, so lm_eval has to be started there.
        seed: Of the rows.

    Returns:
        What `--tasks` takes: the names of the tasks outside groups and of the outermost group.
    """
    (folder / "tasks").mkdir(parents=True)
    (folder / "data").mkdir()
    for task, (stock, rows, changes) in _TASKS.items():
        files = _write_rows(folder, task, rows(Random(f"{task}/{seed}")))
        write_task(folder, task, stock, *files, **changes)
    groups = {
        f"mmlu_{group}": [f"mmlu_{one}" for one in subjects] for group, subjects in MMLU.items()
    }
    for group, members in {"mmlu": list(groups), **groups}.items():
        write_group(folder, group, f"mmlu/default/_{group}.yaml", members)
    for task, rows in {
        "own_choices": arc_easy,
        "own_class": triviaqa,
        "own_metrics": piqa,
    }.items():
        _write_rows(folder, task, rows(Random(f"{task}/{seed}")))
    (folder / "tasks/own_choices.yaml").write_text(_OWN_CHOICES)
    (folder / "tasks/own_class.yaml").write_text(_OWN_CLASS)
    (folder / "tasks/own_metrics.yaml").write_text(_OWN_METRICS)
    (folder / "tasks/own_functions.py").write_text(_OWN_FUNCTIONS)
    alone = [task for task in _TASKS if not task.startswith("mmlu_")]
    return sorted([*alone, "mmlu", "own_choices", "own_class", "own_metrics"])


def write_task(
    folder: Path, task: str, stock: str, evaluated: str, examples: str, **changes: Any
) -> None:
    """Write the file of a task that includes a stock one and differs from it in its rows.

    Args:
        folder: Gets the file, in the folder ``tasks``.
        task: The task's name.
        stock: The stock task's YAML file, below lm_eval's folder of tasks.
        evaluated: The file of the rows to evaluate, below the folder in which lm_eval is started.
        examples: The file of the rows for examples, likewise.
        changes: Further keys.
    """
    _write_yaml(
        folder / f"tasks/{task}.yaml",
        {
            "include": str(_stock_folder() / stock),
            "task": task,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {
                "data_files": {
                    **{"test": evaluated, "validation": evaluated},
                    **{"train": examples, "dev": examples},
                }
            },
            **changes,
        },
    )


def write_group(folder: Path, group: str, stock: str, members: list[str]) -> None:
    """Write the file of a group that includes a stock one and differs from it in its members."""
    _write_yaml(
        folder / f"tasks/_{group}.yaml",
        {"include": str(_stock_folder() / stock), "group": group, "task": members},
    )


def _stock_folder() -> Path:
    spec = importlib.util.find_spec("lm_eval")
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "tasks"


def _write_rows(folder: Path, task: str, rows: Iterator[Row]) -> list[str]:
    """Write the rows to evaluate and those for examples, and return both files' names."""
    sizes = {f"mmlu_{one}": size for some in MMLU.values() for one, size in some.items()}
    sizes |= _FEWER_ROWS
    names = []
    for name, count in {"rows": sizes.get(task, ROWS), "examples": EXAMPLES}.items():
        names.append(f"data/{task}.{name}.json")
        lines = [json.dumps(row, ensure_ascii=False) for row in islice(rows, count)]
        (folder / names[-1]).write_text("\n".join(lines) + "\n")
    return names


def _write_yaml(path: Path, content: Row) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))


# lm_eval's command line, with fewer bootstrap draws than its 100,000, which take minutes.
_LM_EVAL = """
import functools, lm_eval
from lm_eval.__main__ import cli_evaluate
lm_eval.simple_evaluate = functools.partial(lm_eval.simple_evaluate, bootstrap_iters=200)
cli_evaluate()
"""


def run_lm_eval(folder: Path, tasks: list[str], model: Path, out: Path, *flags: str) -> Path:
    """Score a model on the tasks in a folder with the real command `lm_eval`.

    Args:
        folder: What `write_stock_tasks` has written.
        tasks: Names of tasks and groups.
        model: Folder of a model. Its name names the results.
        out: Folder for the results, written into a folder below it.
        flags: More of lm_eval's flags.

    Returns:
        The folder with the results file and the samples files.
    """
    # Named relatively, so that the results hold no path of this machine.
    local = folder / model.name
    if not local.exists():
        local.symlink_to(model.resolve())
    run = subprocess.run(
        [
            *(sys.executable, "-c", _LM_EVAL, "run", "--model", "hf"),
            *("--model_args", f"pretrained={model.name},dtype=float32"),
            *("--tasks", ",".join(tasks), "--include_path", "tasks", "--batch_size", "8"),
            *("--device", "cpu", "--gen_kwargs", "max_gen_toks=32"),
            *("--output_path", str(out.resolve()), "--log_samples", *flags),
        ],
        cwd=folder,
        env={**os.environ, "HF_DATASETS_CACHE": str(folder.resolve() / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return out / model.name
