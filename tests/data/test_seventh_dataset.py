"""A seventh dataset and a fourth axis: after the edit of one file, every command knows them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from helpers.training_data import WORDS

from regreason_plugin.core.paper import AXES, DATASETS
from regreason_plugin.data.mini import MINI_SETTINGS
from regreason_plugin.data_folder.mini import write_mini_ratings

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TINY = ROOT / "axolotl_configs/cpu/tiny-base"
DATASET = """\
  forum:
    title: Forum answers
    home: https://example.org/forum
"""
AXIS = """\
  politeness:
    title: politeness
    question: How polite is the last message, from 1 (rude) to 5 (kind)?
"""
TASK = "regreason_forum_politeness"
MINI = (
    "from pathlib import Path; from regreason_plugin.data_folder import mini;"
    "mini.write_mini_ratings(Path('mini.jsonl'), 3, 4); print(mini.mini_tasks())"
)


def run(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the copy, where it can import no other package of this name."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(where)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one edited file, and with the files generated from it."""
    where = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("regreason_plugin", "lm_eval_tasks", "axolotl_configs/sweeps"):
        shutil.copytree(ROOT / folder, where / folder, ignore=ignore)
    declared = where / "regreason_plugin/core/paper.yml"
    text = declared.read_text().rstrip("\n") + "\n"
    assert text.count("\naxes:\n") == 1
    declared.write_text(text.replace("\naxes:\n", f"{DATASET}\naxes:\n") + AXIS)
    made = run(where, "-m", "regreason_plugin.evaluate.task_files")
    assert made.returncode == 0, made.stderr
    assert "written: lm_eval_tasks/forum/gen_politeness.yaml" in made.stdout
    settings = (len(DATASETS) + 1) * (len(AXES) + 1)
    assert made.stdout.endswith(f"{settings} settings, each with its twin: lm_eval_tasks\n")
    return where


def conversation(number: int) -> dict[str, object]:
    word = WORDS[number % 5 + 1]
    return {
        "id": f"forum-{number}",
        "dataset": "forum",
        "group": f"thread-{number}",
        "conversation": [
            {"role": "user", "content": f"Why does it fail, attempt {number}?"},
            {"role": "assistant", "content": f"That is a {word} question, number {number}."},
        ],
    }


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_it_is_built_and_scored(copy: Path) -> None:
    ratings = [
        {
            **conversation(number),
            "axis": "politeness",
            "label": number % 5 + 1,
            "score": float(number % 5 + 1),
            "explanation": f"Calls the question {WORDS[number % 5 + 1]}, in attempt {number}.",
        }
        for number in range(60)
    ]
    write_lines(copy / "ratings.jsonl", ratings)
    built = run(copy, "-m", "regreason_plugin", "build", "ratings.jsonl", "--out", "data")
    assert built.returncode == 0, built.stderr
    test = [json.loads(line) for line in (copy / "data/test.jsonl").read_text().splitlines()]
    prompt = test[0]["messages"][0]["content"]
    assert "How polite is the last message, from 1 (rude) to 5 (kind)?" in prompt

    scored = run(
        copy,
        *("-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={TINY}"),
        *("--tasks", TASK, "--device", "cpu"),
        *("--include_path", "lm_eval_tasks", "--output_path", "results"),
        *("--metadata", json.dumps({"data_dir": "data"})),
    )
    assert scored.returncode == 0, scored.stderr[-2000:]
    (file,) = (copy / "results").rglob("results_*.json")
    results = json.loads(file.read_text())
    # The share of the test split's most frequent label, which does not depend on the model.
    labels = Counter(row["label"] for row in test)
    expected = max(labels.values()) / labels.total()
    assert results["results"][TASK]["majority_acc,none"] == pytest.approx(expected)
    assert results["n-samples"][TASK]["effective"] == len(test)
    about = results["configs"][TASK]["metadata"]["data"]
    assert (about["title"], about["axis_title"]) == ("Forum answers", "politeness")


def test_the_rules_say_that_they_have_none_for_it(copy: Path) -> None:
    write_lines(copy / "conversations.jsonl", [conversation(number) for number in range(5)])
    (copy / "annotate.yml").write_text("conversations: [conversations.jsonl]\nout: rated.jsonl\n")
    rated = run(copy, "-m", "regreason_plugin", "annotate", "annotate.yml")
    assert (rated.returncode, rated.stderr.count("\n")) == (2, 1), rated.stderr
    assert "the built-in rules cannot rate the axis politeness; use only raters" in rated.stderr
    assert not (copy / "rated.jsonl").exists()


def test_a_rater_without_a_prompt_for_it_is_told_which(copy: Path) -> None:
    write_lines(copy / "conversations.jsonl", [conversation(number) for number in range(5)])
    (copy / "servers.yml").write_text(
        "conversations: [conversations.jsonl]\nout: rated.jsonl\nraters:\n"
        "  - {name: a, model: m, base_url: 'http://localhost:9/v1'}\n"
    )
    asked = run(copy, "-m", "regreason_plugin", "annotate", "servers.yml", "--dry-run")
    assert (asked.returncode, asked.stderr.count("\n")) == (2, 1), asked.stderr
    assert "scale-1-4/politeness.txt: no such prompt" in asked.stderr
    # The existing prompts can still be copied, so that the user can add the missing one.
    copied = run(copy, "-m", "regreason_plugin", "fetch", "prompts", "--out", "prompts")
    assert copied.returncode == 0, copied.stderr
    assert (copy / "prompts/scale-1-4/on_topic.txt").is_file()


def test_an_import_says_that_there_is_no_importer(copy: Path) -> None:
    answer = run(copy, "-m", "regreason_plugin", "import", "forum", "--out", "forum.jsonl")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1), answer.stderr
    assert "there is no importer for forum; write its conversations yourself" in answer.stderr


def test_the_mini_benchmark_stays_what_it_was(copy: Path, tmp_path: Path) -> None:
    made = run(copy, "-c", MINI)
    assert made.returncode == 0, made.stderr
    assert write_mini_ratings(tmp_path / "mini.jsonl", 3, 4) == 4 * len(MINI_SETTINGS)
    assert (copy / "mini.jsonl").read_bytes() == (tmp_path / "mini.jsonl").read_bytes()
    # The tasks are listed, because a glob would include tasks without rows.
    tasks = made.stdout.strip().split(",")
    assert len(tasks) == len(set(tasks)) == len(MINI_SETTINGS)
    assert not [task for task in tasks if "forum" in task or "politeness" in task]
