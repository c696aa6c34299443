"""Result folders of several arms with known accuracies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from regreason_plugin.comparison.compare import compare
from regreason_plugin.comparison.comparison import Comparison
from regreason_plugin.core.paper import SETTINGS, task_name
from regreason_plugin.evaluate.results import Run

SHA = "ab" * 32
ALL = {task_name(*setting): 0.4 for setting in SETTINGS}
FIRST, SECOND, THIRD = list(ALL)[:3]


def results(accuracies: dict[str, float], **changes: Any) -> dict[str, Any]:
    """The content of a results file in lm_eval's format."""
    content = {
        "results": {
            task: {
                "alias": task,
                "acc,none": acc,
                "acc_stderr,none": 0.03,
                "qwk,none": None,
                "qwk_stderr,none": "N/A",
                "acc_stderr_stderr,none": "N/A",
                "majority_acc,none": 0.3,
            }
            for task, acc in accuracies.items()
        },
        "configs": {
            task: {"metadata": {"data": {"sha256": SHA, "origin": "generated"}}}
            for task in accuracies
        },
        "versions": dict.fromkeys(accuracies, 1.0),
        "n-shot": dict.fromkeys(accuracies, 0),
        "n-samples": {task: {"original": 200, "effective": 200} for task in accuracies},
        "config": {"model": "hf", "model_args": "pretrained=a|b", "limit": None, "random_seed": 0},
        "lm_eval_version": "0.4.11",
        "transformers_version": "5.16.1",
        "chat_template_sha": None,
    }
    for dotted, value in changes.items():
        place: Any = content
        *path, last = dotted.split("__")
        for key in path:
            place = place[key]
        place[last] = value
    return content


def save(folder: Path, content: dict[str, Any], date: str = "2026-01-01") -> None:
    """Write a results file and matching samples, in which the first documents are correct."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"results_{date}T00-00-00.json").write_text(json.dumps(content))
    for task, values in content["results"].items():
        count = content["n-samples"][task]["effective"]
        right = round(values["acc,none"] * count)
        lines = [json.dumps(sample(task, number, number < right)) for number in range(count)]
        (folder / f"samples_{task}_{date}T00-00-00.jsonl").write_text("\n".join(lines))


def sample(task: str, number: int, right: bool) -> dict[str, Any]:
    """A line of a samples file, for a document whose label cycles through 1 to 5."""
    label = number % 5 + 1
    best = label if right else label % 5 + 1
    return {
        "doc": {
            "id": f"{number:03d}",
            "group": f"{number:03d}",
            "label": label,
            "prompt": f"{task} {number}",
            "explanation": "why",
        },
        "doc_hash": f"{task} {number}",
        "prompt_hash": f"{task} {number}",
        "filtered_resps": [[str(-0.1 if one == best else -3.0), "False"] for one in range(1, 6)],
    }


def comparison_of(runs: list[Run], baseline: str, **options: Any) -> Comparison:
    """The comparison of some runs, without the documents behind it."""
    return compare(runs, baseline, **options).comparison
