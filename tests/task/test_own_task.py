"""The five commands of a new task's README, as typed: build, train, score, compare, predict.

The training starts as a real process, as in the README; the other commands are forks.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers.labelled_tables import write_answers
from helpers.scoring import PlainScorer
from helpers.typed_commands import blocks, typed

from regreason_plugin.comparison.comparison import load_comparison
from regreason_plugin.evaluate.results import read_run

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
BASE = "axolotl_configs/cpu/tiny-base"
ARMS = ("label_only", "explanation")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder in which a task was made, and the commands of the task's README."""
    place = tmp_path_factory.mktemp("own")
    (place / "axolotl_configs").symlink_to(ROOT / "axolotl_configs")
    write_answers(place)
    arguments = "--data answers.jsonl --text text --label verdict --explanation why --group book"
    typed(f"regreason task new answers {arguments} --id id", place)
    return place, blocks(place / "answers/README.md", "sh")


def check_what_is_printed(place: Path, train: str) -> None:
    """Run the scoring commands that `regreason check` and the model's card print."""
    check = train.strip().replace("axolotl train", "regreason check")
    printed = typed(f"{check} --num-epochs 1 2>&-", place).partition("To score them:\n")[2]
    assert "--include_path answers " in printed
    typed(printed, place)
    model = place / "runs/answers/models/explanation"
    card = (model / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"```bash\n(.*?)```", card, flags=re.DOTALL)
    command = command.replace("TASK", str(place / "answers")).replace("DATA", "../../data")
    typed(f"{command.strip()} --device cpu --output_path card", model)
    # Both load the model as `regreason_eval` did after the training.
    expected = read_run("answers", model / "eval").tasks["answers"]
    for folder in (model / "results", model / "card"):
        found = read_run("answers", folder).tasks["answers"]
        assert found.metrics == pytest.approx(expected.metrics, abs=1e-6)
    # The README's model `hf` cuts the base model's embeddings, so its scores differ a little.
    plain = read_run("answers", place / "runs/answers/results/explanation").tasks["answers"]
    assert plain.metrics["nll"] == pytest.approx(expected.metrics["nll"], abs=0.02)


def test_the_readmes_commands_make_a_comparison_and_predictions(
    commands: tuple[Path, list[str]],
) -> None:
    place, (build, train, score, compare, predict) = commands
    typed(build, place)
    # Two of the three arms, in one process, which saves starts of Axolotl.
    sweep = place / "answers/arms.yml"
    sweep.write_text(f"regreason_arm: [{', '.join(ARMS)}]\n", encoding="utf-8")
    # Each arm is also scored after its training, by regreason_eval.
    config = place / "answers/answers.lora.yml"
    asked = config.read_text(encoding="utf-8").replace(
        "\nregreason_eval:\n", "\nregreason_eval: answers\n"
    )
    config.write_text(asked, encoding="utf-8")
    typed(train.strip() + " --num-epochs 1 --launcher python", place, forked=False)
    for arm in ARMS:
        record = json.loads((place / f"runs/answers/models/{arm}/regreason.json").read_text())
        assert (record["arm"], record["rows"]) == (arm, 78)
    typed(score.replace(" shuffled;", ";"), place)
    check_what_is_printed(place, train)
    typed(compare.replace("shuffled=runs/answers/results/shuffled", ""), place)
    comparison = load_comparison(place / "runs/answers/comparison.json")
    for arm in ARMS:
        after = read_run(arm, place / f"runs/answers/models/{arm}/eval")
        value = comparison.scores[arm]["answers"]["nll"].value
        assert after.tasks["answers"].metrics["nll"] == pytest.approx(value, abs=0.02)
        card = (place / f"runs/answers/models/{arm}/README.md").read_text(encoding="utf-8")
        assert "| time (seconds) | " in card
        assert "Not scored yet" not in card
        # `lm_eval --model hf` does not report the time of scoring.
        cost = comparison.costs[arm]
        assert cost.training_seconds
        assert cost.scoring_ms is None
    (setting,) = comparison.settings
    assert setting.task == "answers"
    assert {"acc", "macro_f1", "nll", "miscalibration"} <= set(comparison.metrics)
    assert not {"qwk", "mae"} & set(comparison.metrics)
    # New rows: a table without labels.
    test = [
        json.loads(line)
        for line in (place / "runs/answers/data/test.jsonl").read_text().splitlines()
    ]
    by_id = {row["id"]: row for row in map(json.loads, (place / "answers.jsonl").open())}
    new = place / "NEW.csv"
    texts = [by_id[row["id"]]["text"] for row in test]
    new.write_text("text\n" + "".join(f'"{text}"\n' for text in texts), encoding="utf-8")
    typed(predict, place)
    predicted = [
        json.loads(line) for line in (place / "runs/answers/predicted.jsonl").open(encoding="utf-8")
    ]
    samples = {}
    (file,) = (place / "runs/answers/results/explanation").rglob("samples_answers_*.jsonl")
    for row in map(json.loads, file.open(encoding="utf-8")):
        samples[row["doc"]["id"]] = row
    scorer = PlainScorer(ROOT / BASE, place / "runs/answers/models/explanation")
    for row, found in zip(test, predicted, strict=True):
        sample = samples[row["id"]]
        scores = [float(score) for score, _ in sample["filtered_resps"]]
        assert found["label"] == sample["doc"]["labels"][scores.index(max(scores))]
    # Scored with transformers alone. The README does not set the precision, hence the tolerance.
    sample = samples[test[0]["id"]]
    label, prompt = sample["doc"]["labels"][0], test[0]["messages"][0]["content"]
    expected = scorer.score(prompt, f" {label}")
    assert float(sample["filtered_resps"][0][0]) == pytest.approx(expected, abs=1e-2)
