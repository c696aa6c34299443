"""The commands in a new task's README, as a shell parses them, and the explanation-first task."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from helpers.labelled_tables import write_answers, write_scale, write_tickets
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from regreason_plugin.cli import command_parser, main
from regreason_plugin.data_folder.folder import open_data_folder
from regreason_plugin.task import new_task

pytestmark = pytest.mark.integration

NEW = {
    "tickets": (write_tickets, "tickets.csv --text message --label queue --id ticket"),
    "scale": (write_scale, "scale.parquet --text answer --label points --explanation reason"),
    "answers": (
        write_answers,
        "answers.jsonl --text text --label verdict --explanation why --id id --group book",
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with the three tables, their tasks, and the data folders built from them."""
    folder = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # test_task_new.py tests the search among lm-eval's own tasks, which takes long.
        patch.setattr(new_task, "check_is_free", lambda name: None)
        for name, (make, arguments) in NEW.items():
            make(Path())
            command = ["task", "new", name, "--data", *arguments.split()]
            assert main([*command, "--model", str(tiny_model)]) == 0
            (build, *_) = commands(name)
            program, *typed = build.split()
            assert program == "regreason"
            assert main(typed) == 0
    return folder


@pytest.fixture(autouse=True)
def _stand(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def commands(name: str) -> list[str]:
    """The command blocks of a README."""
    text = Path(name, "README.md").read_text(encoding="utf-8")
    return re.findall(r"^   ```sh\n(.*?)^   ```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", NEW)
def test_rows_go_where_the_task_says(name: str) -> None:
    folder = open_data_folder(Path("runs", name, "data"))
    counts = {split: count.rows for split, count in folder.manifest.counts.items()}
    whole = sum(counts.values())
    assert whole == {"tickets": 300, "scale": 210, "answers": 120}[name]
    assert counts["test"] / whole == pytest.approx(0.25, abs=0.02)
    assert counts["validation"] / whole == pytest.approx(0.1, abs=0.02)


def test_its_twin_lets_the_model_explain_first(tiny_model: Path) -> None:
    manager = TaskManager(include_path="answers", include_defaults=False)
    model = HFLM(pretrained=str(tiny_model), dtype="float32", device="cpu", batch_size=8)
    results = simple_evaluate(
        model=model,
        tasks=["answers-gen"],
        task_manager=manager,
        limit=3,
        num_fewshot=1,
        gen_kwargs="max_gen_toks=8",
    )
    assert results is not None
    found = {key.split(",")[0] for key in results["results"]["answers-gen"]}
    assert {"acc", "auroc", "forced_acc", "forced_auroc", "reached_cue"} <= found
    assert "qwk" not in found
    context = results["samples"]["answers-gen"][0]["arguments"][0][0]
    # The prompt has an example from the train file: its explanation, then its label.
    assert re.search(r"\nAnswer: \d+ and \d+ make .*\nRating: (right|wrong)\n", context)


@pytest.mark.parametrize("name", NEW)
def test_a_shell_reads_every_command(name: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for program in ("regreason", "axolotl", "lm_eval"):
        stub = tmp_path / program
        stub.write_text(
            "#!/usr/bin/env python3\nimport json, sys\n"
            f"print(json.dumps([{program!r}, *sys.argv[1:]]), file=open({str(log)!r}, 'a'))\n",
            encoding="utf-8",
        )
        stub.chmod(0o755)
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands(name))],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True,
    )
    typed = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    arms = (
        ["base", "label_only"] if name == "tickets" else ["label_only", "explanation", "shuffled"]
    )
    assert [program for program, *_ in typed] == [
        "regreason",
        "axolotl",
        *["lm_eval"] * len(arms),
        "regreason",
        "regreason",
    ]
    assert typed[1] == [
        "axolotl",
        "train",
        f"{name}/{name}.lora.yml",
        "--sweep",
        f"{name}/arms.yml",
    ]
    for arm, (_, *given) in zip(arms, typed[2:-2], strict=True):
        flags = dict(zip(given[0::2], given[1::2], strict=False))
        adapter = f",peft=runs/{name}/models/{arm}" if arm != "base" else ""
        assert given[given.index("--model_args") + 1].endswith(adapter)
        assert given[given.index("--output_path") + 1] == f"runs/{name}/results/{arm}"
        assert (flags["--tasks"], flags["--include_path"]) == (name, name)
    compared = command_parser().parse_args(typed[-2][1:])
    assert (compared.baseline, compared.out) == (arms[0], Path("runs", name))
