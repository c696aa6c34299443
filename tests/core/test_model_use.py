"""Every command refuses a model that it would use differently than it was trained, with the reason.

Axolotl trains the adapters on the tiny base: one plain, one in the chat template, one that
explains first. The commands run in this process, which saves the time of their imports.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.axolotl import PYTHON, axolotl_train
from helpers.labelled_tables import write_answers
from helpers.scoring import find_our_tasks_only
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from regreason_plugin import cli
from regreason_plugin.evaluate.results import read_run

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
BASE = "axolotl_configs/cpu/tiny-base"
PLAIN, CHAT, FIRST = (f"models/{name}/label_only" for name in ("plain", "chat", "first"))


def save(model: Any, folder: Path, **how: Any) -> str:
    """Save a copy of the tiny base with other weights or in another format."""
    model.save_pretrained(folder, **how)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a task, its data in three forms, three adapters and several base models."""
    place = tmp_path_factory.mktemp("use")
    (place / "axolotl_configs").symlink_to(ROOT / "axolotl_configs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("OMP_NUM_THREADS", "1")
        write_answers(place)
        new = "task new answers --data answers.jsonl --text text --label verdict --explanation why"
        assert cli.main([*new.split(), "--group", "book", "--id", "id"]) == 0
        # Not earlier, because `task new` caches the names of lm-eval's tasks.
        find_our_tasks_only(patch)
        assert cli.main(["build", "answers/task.yml", "--out", "data"]) == 0
        first = ["--order", "explanation_first"]
        assert cli.main(["build", "answers/task.yml", "--out", "data-first", *first]) == 0
        edited = Path("answers/task.yml").read_text(encoding="utf-8")
        edited = edited.replace("Give the text's verdict", "Say what the text's verdict is")
        Path("answers/edited.yml").write_text(edited, encoding="utf-8")
        assert cli.main(["build", "answers/edited.yml", "--out", "data-edited"]) == 0
        train(place)
        yield place


def train(place: Path) -> None:
    config = yaml.safe_load(Path("answers/answers.lora.yml").read_text(encoding="utf-8"))
    for name, folder, kind in (
        ("plain", "data", None),
        ("chat", "data", "chat_template"),
        ("first", "data-first", None),
    ):
        entries = {
            key: [{**config[key][0], "path": f"{folder}/{split}/label_only.jsonl"}]
            for key, split in (("datasets", "train"), ("test_datasets", "validation"))
        }
        if kind:
            for (entry,) in entries.values():
                entry |= {"type": kind, "field_messages": "messages"}
        own = {
            **config,
            **entries,
            "regreason_arm": "label_only",
            "regreason_eval": None,
            "output_dir": f"models/{name}/{{arm}}",
            "dataset_prepared_path": f"prepared/{name}",
            "num_epochs": 1,
        }
        Path(f"{name}.yml").write_text(yaml.safe_dump(own), encoding="utf-8")
        done = axolotl_train(f"{name}.yml", PYTHON, cwd=place)
        assert done.returncode == 0, done.stderr[-3000:]

    def model() -> Any:
        return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)

    save(PeftModel.from_pretrained(model(), PLAIN).merge_and_unload(), place / PLAIN / "merged")
    other = model()
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.01)
    save(other, place / "other")
    save(model().bfloat16(), place / "rounded")
    save(model(), place / "sharded", max_shard_size="1MB")
    assert len(list(place.glob("sharded/*.safetensors"))) > 1


@pytest.fixture(params=["predict", "eval", "lm_eval"])
def use(
    request: pytest.FixtureRequest, place: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """A function that runs a command with a model; returns its exit code and standard error."""
    command = str(request.param)

    def run(
        model: str,
        *,
        data: str = "data",
        chat: bool = False,
        order: str = "label_first",
        allow: bool = False,
        more: list[str] | None = None,
    ) -> tuple[int, str]:
        flags = ["--apply_chat_template"] * chat
        shutil.rmtree(place / "out", ignore_errors=True)
        if command == "predict":
            arguments = ["predict", "answers.jsonl", "--out", "out/p.jsonl", "--limit", "4"]
            arguments += ["--model_args", model, "--data", data, "--id", "id", *flags]
            code = cli.main([*arguments, *(["--allow-misfit"] * allow)])
        else:
            metadata = {"data_dir": data, **({"allow_misfit": True} if allow else {})}
            task = "answers" if order == "label_first" else "answers-gen"
            arguments = ["--model", "hf", "--model_args", model, "--include_path", "answers"]
            arguments += ["--tasks", task, "--metadata", json.dumps(metadata), "--limit", "4"]
            arguments += ["--device", "cpu", "--log_samples", "--output_path", "out", *flags]
            arguments += more or []
            code = cli.main(["eval", *arguments]) if command == "eval" else lm_eval(arguments)
        return code, capfd.readouterr().err

    return run


def lm_eval(arguments: list[str]) -> int:
    """Run lm-eval's own command."""
    from lm_eval._cli import HarnessCLI

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lm_eval", *arguments])
        try:
            parser = HarnessCLI()
            parser.execute(parser.parse_args())
        except SystemExit as end:
            return int(end.code or 0)
    return 0


FITS = {
    "plain": {"model": f"pretrained={BASE},peft={PLAIN}"},
    "another copy": {"model": f"pretrained=sharded,peft={PLAIN}"},
    "merged": {"model": f"pretrained={PLAIN}/merged"},
    "chat": {"model": f"pretrained={BASE},peft={CHAT},tokenizer={CHAT}", "chat": True},
    "explains first": {
        "model": f"pretrained={BASE},peft={FIRST}",
        "data": "data-first",
        "order": "explanation_first",
    },
}
MISFITS = {
    "its own merged model": (
        {"model": f"pretrained={PLAIN}/merged,peft={PLAIN}"},
        f"was trained on {BASE}, and {PLAIN}/merged has other weights of the same shapes",
    ),
    "another base of its shape": (
        {"model": f"pretrained=other,peft={PLAIN}"},
        f"was trained on {BASE}, and other has other weights of the same shapes",
    ),
    "a template": (
        {"model": f"pretrained={BASE},peft={PLAIN}", "chat": True},
        "was trained without a chat template, and the run applies one",
    ),
    "a template on the merged model": (
        {"model": f"pretrained={PLAIN}/merged", "chat": True},
        "was trained without a chat template, and the run applies one",
    ),
    "no template": (
        {"model": f"pretrained={BASE},peft={CHAT}"},
        "was trained with its chat template, and the run leaves it out",
    ),
    "another prompt": (
        {"model": f"pretrained={BASE},peft={PLAIN}", "data": "data-edited"},
        "was trained on another prompt for label",
    ),
    "the label at once": (
        {"model": f"pretrained={BASE},peft={FIRST}"},
        "was trained to explain before its label, and the run asks for the label at once",
    ),
    "an explanation first": (
        {
            "model": f"pretrained={BASE},peft={PLAIN}",
            "data": "data-first",
            "order": "explanation_first",
        },
        "was trained to write its label first, and the run lets it explain first",
    ),
    "no beginning of text": (
        {"model": f"pretrained={BASE},peft={PLAIN},add_bos_token=False"},
        "was trained with a beginning-of-text token before the prompt",
    ),
}


@pytest.mark.parametrize("name", FITS)
def test_a_model_as_it_was_trained_is_used(
    name: str, use: Callable[..., tuple[int, str]], place: Path
) -> None:
    code, said = use(**FITS[name])
    assert code == 0, said[-2000:]
    assert "was trained" not in said
    assert any((place / "out").rglob("*.json*"))


@pytest.mark.parametrize("name", MISFITS)
def test_a_model_that_does_not_fit_is_refused(
    name: str, use: Callable[..., tuple[int, str]], place: Path
) -> None:
    how, words = MISFITS[name]
    code, said = use(**how)
    assert code == 2, said[-2000:]
    (line,) = [line for line in said.splitlines() if line.startswith("regreason: ")]
    assert words in line
    assert "To use it anyway, add " in line
    assert not (place / "out").exists()


def test_a_rounded_copy_of_the_base_is_told(use: Callable[..., tuple[int, str]]) -> None:
    from regreason_plugin.core.errors import say_once

    say_once.cache_clear()
    code, said = use(f"pretrained=rounded,peft={PLAIN}")
    assert code == 0
    assert (
        f"{PLAIN} was trained on {BASE}, and rounded has the same weights in another precision"
        in said
    )


@pytest.mark.parametrize("use", ["eval", "lm_eval"], indirect=True)
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--num_fewshot", "2"], "trained without examples in the prompt, and the run gives 2"),
        (["--system_instruction", "Be kind."], "trained without a system instruction"),
    ],
)
def test_what_only_lm_eval_can_add_is_refused(
    more: list[str], words: str, use: Callable[..., tuple[int, str]]
) -> None:
    code, said = use(f"pretrained={BASE},peft={PLAIN}", more=more)
    assert code == 2
    assert words in said


def test_an_override_stands_in_what_is_written(
    use: Callable[..., tuple[int, str]], place: Path, tmp_path: Path
) -> None:
    code, _ = use(f"pretrained=other,peft={PLAIN}", allow=True)
    assert code == 0
    words = "has other weights of the same shapes"
    written = list((place / "out").glob("p.jsonl.progress.json"))
    if written:
        assert json.loads(written[0].read_text())["made_from"]["allow_misfit"] is True
        return
    run = read_run("candidate", place / "out")
    assert len(run.misfit) == 1
    assert words in run.misfit[0]
    # Results from before this check existed, or of a model that Python code passed to lm-eval.
    results = shutil.copytree(place / "out", tmp_path / "older")
    (file,) = results.rglob("results_*.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["configs"]["answers"]["metadata"]["data"]["misfit"]
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(Exception, match="has other weights of the same shapes"):
        read_run("candidate", results)


def test_an_older_record_is_reported_and_used(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    older = place / "models/older"
    if not older.exists():
        shutil.copytree(place / PLAIN, older, ignore=shutil.ignore_patterns("merged", "check*"))
        record = json.loads((older / "regreason.json").read_text(encoding="utf-8"))
        del record["use"], record["template_arguments"]
        (older / "regreason.json").write_text(json.dumps(record), encoding="utf-8")
    arguments = ["predict", "answers.jsonl", "--out", "older.jsonl", "--limit", "2"]
    arguments += ["--model_args", f"pretrained=other,peft={older}", "--data", "data"]
    assert cli.main(arguments) == 0
    said = capfd.readouterr().err
    assert (
        f"{older} was trained on {BASE}, but its record does not identify the weights of that model"
        in said
    )
    # The run is compared with everything that such a record does hold.
    assert cli.main([*arguments[:3], "x.jsonl", *arguments[4:], "--apply_chat_template"]) == 2


def test_baselines_want_the_untrained_model(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["baselines", "data", "--out", "baselines", "--methods", "zero_shot"]
    assert cli.main([*arguments, "--model", f"{PLAIN}/merged"]) == 2
    assert f"was trained on data; name the base model that it was trained from, {BASE}" in (
        capfd.readouterr().err
    )
    assert not (place / "baselines").exists()
