"""Scoring of the task files by lm-eval, and of the same prompts without it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from torch.utils import collect_env
from transformers import AutoModelForCausalLM, AutoTokenizer

from regreason_plugin.core.declaration import Declaration
from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.predict.predictions import Prediction

# This call takes most of a second, and lm-eval repeats it for every evaluation.
collect_env.get_pretty_env_info = cache(collect_env.get_pretty_env_info)
TASKS = Path(__file__).parents[2] / "lm_eval_tasks"


def task_manager(data_dir: Path | None = None, **metadata: Any) -> TaskManager:
    """A task manager with our tasks only, which load in milliseconds."""
    if data_dir is not None:
        metadata["data_dir"] = str(data_dir)
    return TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)


def find_our_tasks_only(patch: pytest.MonkeyPatch) -> None:
    """Let every TaskManager skip lm-eval's own 14,000 tasks, which saves 3 s."""
    made = TaskManager.__init__

    def make(self: TaskManager, *arguments: Any, include_path: Any = None, **others: Any) -> None:
        more = [include_path] if isinstance(include_path, str | Path) else include_path or []
        folders = [str(TASKS), *map(str, more)]
        made(self, *arguments, **others | {"include_path": folders, "include_defaults": False})

    patch.setattr(TaskManager, "__init__", make)


def evaluate(
    lm: Any, tasks: list[str], data_dir: Path, split: str = "test", **arguments: Any
) -> dict[str, Any]:
    """Do what `lm_eval` does after reading its command line."""
    metadata = {} if split == "test" else {"split": split}
    results = simple_evaluate(
        model=lm, tasks=tasks, task_manager=task_manager(data_dir, **metadata), **arguments
    )
    assert results is not None
    return dict(results)


def write_task(folder: DataFolder, out: Path, kind: str, name: str = "mine") -> None:
    """Write the lm-eval task of a data folder."""
    out.mkdir()
    dataset, axis = folder.settings()[0]
    (out / "task.yaml").write_text(
        f"include: {json.dumps(str(TASKS / kind))}\ntask: {name}\n"
        f"dataset_kwargs:\n  setting: [{dataset}, {axis}]\n"
    )


def lm_eval_samples(
    lm: Any, folder: DataFolder, out: Path, kind: str = "_label_first.yml", **arguments: Any
) -> dict[str, dict[str, Any]]:
    """A model's logged samples for the task of a data folder, by document."""
    write_task(folder, out, kind)
    manager = TaskManager(
        include_path=str(out), include_defaults=False, metadata={"data_dir": str(folder.path)}
    )
    results = simple_evaluate(model=lm, tasks=["mine"], task_manager=manager, **arguments)
    return {sample["doc"]["id"]: sample for sample in results["samples"]["mine"]}


def check_same(
    found: Sequence[Prediction],
    samples: Sequence[dict[str, Any]],
    declaration: Declaration,
    within: float = 1e-5,
) -> None:
    """Check that two models' samples agree: equal labels, and log-probabilities up to float32."""
    for prediction, sample in zip(found, samples, strict=True):
        resps = [one[0] for one in sample["resps"]]
        if isinstance(resps[0], str):  # a generated text, followed by the labels' scores
            resps = resps[1 : 1 + len(declaration.labels)]
        scores = [float(score) for score, _ in resps]
        if declaration.normalise == "characters":
            scores = [s / len(label) for s, label in zip(scores, declaration.written, strict=True)]
        norm = max(scores) + math.log(sum(math.exp(score - max(scores)) for score in scores))
        assert prediction.label == declaration.labels[scores.index(max(scores))]
        assert list(prediction.probabilities) == list(declaration.labels)
        logs = [math.log(value) for value in prediction.probabilities.values()]
        assert logs == pytest.approx([score - norm for score in scores], rel=1e-6, abs=within)
        right = declaration.labels[sample["doc"]["label"] - 1] == prediction.label
        assert sample["acc"] == right


def lm_eval_command(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the real `lm_eval` command as users type it, with the tasks of this checkout."""
    return subprocess.run(
        [sys.executable, "-m", "lm_eval", *arguments, "--include_path", str(TASKS)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


class PlainScorer:
    """Scores continuations with transformers alone, one at a time and without padding."""

    def __init__(
        self, folder: Path, adapter: Path | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        if adapter is not None:
            from peft import PeftModel

            self.model = PeftModel.from_pretrained(self.model, adapter)
        self.model.eval()

    def chat(self, messages: list[dict[str, str]]) -> str:
        """Messages in the model's chat template, up to the beginning of the answer."""
        return str(
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )

    def score(self, context: str, continuation: str) -> float:
        """The log-likelihood of a continuation."""
        ids = self.tokenizer(context + continuation).input_ids
        start = len(self.tokenizer(context).input_ids)
        with torch.no_grad():
            logits = self.model(torch.tensor([ids])).logits[0]
        log_probabilities = torch.log_softmax(logits, dim=-1)
        return float(sum(log_probabilities[at - 1, ids[at]] for at in range(start, len(ids))))

    def labels(self, context: str) -> list[float]:
        """The log-likelihoods of the five labels."""
        return [self.score(context, f" {label}") for label in range(1, 6)]

    def generate(self, context: str, tokens: int) -> str:
        """The text that greedy decoding writes after a context, up to an empty line."""
        ids = self.tokenizer(context, return_tensors="pt").input_ids
        with torch.no_grad():
            out = self.model.generate(ids, do_sample=False, max_new_tokens=tokens)
        text = self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        return str(text).split("\n\n")[0]
