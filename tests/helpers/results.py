"""lm_eval's result folders with samples of models that were never run: random answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from regreason_plugin.core.paper import SETTINGS, task_name

SHA = "ab" * 32
DATE = "2026-01-01T00-00-00.000000"
ALL = [task_name(*setting) for setting in SETTINGS]
SETTING_OF = dict(zip(ALL, SETTINGS, strict=True))


@dataclass(frozen=True)
class Task:
    """A user's task, as the metadata in its results describe it.

    Attributes:
        name: Name of the task and of its dataset.
        labels: Texts of the labels.
        ordinal: Whether the labels have an order.
        normalise: ``none`` or ``characters``.
        title: Title of the dataset.
        twin: Whether it is the task for models that explain first.
    """

    name: str
    labels: tuple[str, ...]
    ordinal: bool = False
    normalise: str = "none"
    title: str = ""
    twin: bool = False

    @property
    def task(self) -> str:
        """The task's name in lm_eval."""
        return self.name + "-gen" * self.twin

    @property
    def data(self) -> dict[str, Any]:
        """``metadata.data`` of the task's results."""
        return {
            "sha256": _sha(self.name),
            "origin": "own",
            "setting": [self.name, "label"],
            "labels": list(self.labels),
            "ordinal": self.ordinal,
            "normalise": self.normalise,
            "title": self.title or self.name,
            "question": "",
            "axis_title": "label",
        }


def documents(
    task: str | Task,
    count: int,
    group_size: int = 1,
    texts: list[str] | None = None,
    split: str = "test",
) -> list[dict[str, Any]]:
    """A task's documents, the same in every call; a dataset's axes share ids and groups."""
    if isinstance(task, Task):
        dataset, axis, labels = task.name, "label", len(task.labels)
    else:
        (dataset, axis), labels = SETTING_OF[task], 5
    random, of_split = _random(task, 1), "" if split == "test" else f" {split}"
    made = []
    for number in range(count):
        text = texts[number % len(texts)] if texts else f"Conversation {number}."
        made.append(
            {
                "id": f"{dataset}-{number:05d}" + of_split,
                "group": f"{dataset}-group-{number // group_size}" + of_split,
                "dataset": dataset,
                "axis": axis,
                "label": int(random.integers(1, labels + 1)),
                "score": 3.0,
                "explanation": f"Why {text}",
                "prompt": f"User: {text}\nAssistant: Yes.\n\nHow good?\nAssessment:",
            }
        )
    return made


def write_results(
    folder: Path,
    scores: Mapping[str, NDArray[np.float64]] | Mapping[Task, NDArray[np.float64]],
    *,
    group_size: int = 1,
    texts: list[str] | None = None,
    probes: dict[str, NDArray[np.float64]] | None = None,
    model: str = "base",
    adapter: str | None = None,
    changes: dict[str, Any] | None = None,
    samples: Iterable[str] | None = None,
    chosen: Iterable[int] | None = None,
    version: str = "0.4.11",
    split: str = "test",
    date: str = DATE,
) -> Path:
    """Write one model's results as lm_eval does.

    Args:
        folder: Folder of --output_path.
        scores: Log-likelihoods of the labels ``[documents, labels]``, by task.
        group_size: Number of documents per group.
        texts: Texts of the documents, used in turn.
        probes: Probe values by a name such as ``output_entropy``, one for each document; the
            same for every task.
        model: ``pretrained`` in the model arguments.
        adapter: ``peft`` in the model arguments, if any.
        changes: Changes of the results file, by the path to a key with ``/`` as separator.
        samples: Tasks whose samples are written; None for all.
        chosen: Documents that ``--samples`` chose, in any order; None for all.
        version: Version of lm-eval: 0.4.11 counts all documents of a task even if some were
            chosen; 0.4.13 counts those that it scored.
        split: Split of the documents.
        date: Date in the files' names.

    Returns:
        Path of the results file.
    """
    place = folder / model.replace("/", "__")
    place.mkdir(parents=True, exist_ok=True)
    accuracies, names, own, hashes, scored = {}, {}, {}, {}, {}
    for given, logits in scores.items():
        task = given.task if isinstance(given, Task) else given
        names[task] = logits
        rows = documents(given, len(logits), group_size, texts, split)
        compared = logits
        if isinstance(given, Task):
            own[task] = given.data
            if given.normalise == "characters":
                compared = logits / [len(label) for label in given.labels]
        right = compared.argmax(axis=1) + 1 == [row["label"] for row in rows]
        # lm_eval keeps the order of the documents, whatever the order in `chosen`.
        places = [n for n in range(len(rows)) if chosen is None or n in set(chosen)]
        accuracies[task] = float(right[places].mean())
        scored[task] = len(places)
        written = [
            _sample(number, rows[number], logits[number], right[number], probes or {})
            for number in places
        ]
        keys = ("doc_hash", "prompt_hash", "target_hash")
        hashes[task] = _sha("".join(row[key] for row in written for key in keys))
        if samples is None or task in set(samples):
            lines = [json.dumps(row, ensure_ascii=False) for row in written]
            file = place / f"samples_{task}_{date}.jsonl"
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    # Marks of the definition of the activation entropy.
    marks = {
        f"{prefix}activation_entropy_definition,none": "absolute values"
        for prefix in ("", "forced_")
        if f"{prefix}activation_entropy_by_layer" in (probes or {})
    }
    arguments = f"pretrained={model}" + (f",peft={adapter}" if adapter else "")
    content: dict[str, Any] = {
        "results": {
            task: {"alias": task, "acc,none": accuracy, "acc_stderr,none": 0.03, **marks}
            for task, accuracy in accuracies.items()
        },
        "configs": {
            task: {
                "metadata": {
                    "data": {
                        **own.get(task, {"sha256": SHA, "origin": "generated"}),
                        **({} if split == "test" else {"split": split}),
                    }
                }
            }
            for task in names
        },
        "versions": dict.fromkeys(names, 1.0),
        "n-shot": dict.fromkeys(names, 0),
        "n-samples": {
            task: {
                "original": len(logits),
                "effective": len(logits) if version == "0.4.11" else scored[task],
            }
            for task, logits in names.items()
        },
        "config": {"model": "hf", "model_args": arguments, "limit": None, "random_seed": 0},
        "task_hashes": hashes,
        "lm_eval_version": version,
        "transformers_version": "5.16.1",
        "chat_template_sha": None,
    }
    for path, value in (changes or {}).items():
        inner: Any = content
        *keys, last = path.split("/")
        for key in keys:
            inner = inner[key]
        inner[last] = value
    file = place / f"results_{date}.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def _sample(
    number: int,
    document: dict[str, Any],
    logits: NDArray[np.float64],
    right: bool,
    probes: dict[str, NDArray[np.float64]],
) -> dict[str, Any]:
    responses = [[str(float(score)), "False"] for score in logits]
    return {
        "doc_id": number,
        "doc": document,
        "target": str(document["label"] - 1),
        "arguments": {
            f"gen_args_{place}": {"arg_0": document["prompt"], "arg_1": f" {place + 1}"}
            for place in range(len(logits))
        },
        "resps": [[response] for response in responses],
        "filtered_resps": responses,
        "filter": "none",
        "doc_hash": _sha(json.dumps(document)),
        "prompt_hash": _sha(document["prompt"]),
        "target_hash": _sha(str(document["label"] - 1)),
        "acc": float(right),
        **{name: np.asarray(values)[number].tolist() for name, values in probes.items()},
    }


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _random(task: str | Task, seed: int) -> np.random.Generator:
    place = int(_sha(task.name)[:8], 16) if isinstance(task, Task) else ALL.index(task)
    return np.random.default_rng([place, seed])


def draw_scores(
    task: str | Task, count: int, accuracy: float, seed: int, *, sharpness: float = 1.0
) -> NDArray[np.float64]:
    """Log-likelihoods of the labels ``[count, labels]`` of a model with about this accuracy.

    Models with the same ``seed`` are correct about the same documents, as far as their accuracies
    allow.
    """
    random, size = _random(task, seed), len(task.labels) if isinstance(task, Task) else 5
    labels = np.array([row["label"] for row in documents(task, count)])
    ability, noise = random.random(count), random.normal(0, 0.3, (count, size))
    wrong = (labels - 1 + random.integers(1, size, count)) % size
    favourite = np.where(ability < accuracy, labels - 1, wrong)
    logits = noise
    logits[np.arange(count), favourite] += 2.0
    return log_softmax(sharpness * logits, axis=1)
