"""`--use_cache`: several models may share one path, and each gets its own answers."""

from __future__ import annotations

import json
import logging
import logging.handlers
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.adapters import BASE, KINDS, adapter
from helpers.scoring import evaluate, find_our_tasks_only
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM

from regreason_plugin.data_folder.folder import DataFolder
from regreason_plugin.evaluate import model
from regreason_plugin.evaluate.answer_cache import answers_digest, folder_digest
from regreason_plugin.evaluate.eval_command import main
from regreason_plugin.evaluate.model import RegReasonHF

pytestmark = pytest.mark.integration

TASK = "regreason_coqa_on_topic"
TWIN = "regreason-gen_coqa_on_topic"


@pytest.fixture(autouse=True)
def _own_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])
    find_our_tasks_only(monkeypatch)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters of the same config, with different seeds."""
    folder = tmp_path_factory.mktemp("adapters")
    return [adapter(folder / f"seed{seed}", seed=seed, **KINDS["layers"]) for seed in (1, 2)]


def figures(results: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in results["results"][TASK].items()
        if key in ("acc,none", "nll,none", "brier,none")
    }


def command(data: DataFolder, out: Path, *arguments: str) -> dict[str, Any]:
    """Run `regreason eval` on a few documents, and read the results file."""
    code = main(
        [
            *("--tasks", TASK, "--device", "cpu", "--limit", "5", "--batch_size", "4"),
            *("--metadata", json.dumps({"data_dir": str(data.path)}), "--output_path", str(out)),
            *arguments,
        ]
    )
    assert code == 0
    (file,) = out.glob("*/results_*.json")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("model", ["hf", "regreason-hf"])
def test_regreason_eval_keeps_adapters_apart(
    model: str,
    adapters: list[Path],
    data_folder: DataFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # (The handler is on lm-eval's own logger, because lm-eval may change those of its parents.)
    kept = logging.handlers.BufferingHandler(capacity=1000)
    logger = logging.getLogger("lm_eval.api.model")
    monkeypatch.setattr(logger, "handlers", [kept])

    def answered() -> int:
        """How often all answers came from the cache, since the last call."""
        count = sum("Requests remaining: 0" in record.getMessage() for record in kept.buffer)
        kept.flush()
        return count

    def run(name: str, place: Path, *more: str) -> dict[str, Any]:
        model_args = f"pretrained={BASE},peft={place}"
        return figures(
            command(
                data_folder, tmp_path / name, "--model", model, "--model_args", model_args, *more
            )
        )

    expected = [run(f"alone{n}", place) for n, place in enumerate(adapters)]
    assert expected[0] != expected[1]
    cache = ("--use_cache", str(tmp_path / "cache"))
    assert [run(f"cached{n}", place, *cache) for n, place in enumerate(adapters)] == expected
    assert answered() == 0
    again = [run(f"again{n}", place, *cache) for n, place in enumerate(adapters)]
    assert again == expected
    assert answered() == 2


def test_the_cache_of_a_config_file_too(
    adapters: list[Path], data_folder: DataFolder, tmp_path: Path
) -> None:
    nll = []
    for number, place in enumerate(adapters):
        config = tmp_path / f"{number}.yml"
        model_args = {"pretrained": str(BASE), "peft": str(place)}
        config.write_text(
            yaml.safe_dump({"model_args": model_args, "use_cache": str(tmp_path / "cache")})
        )
        found = command(data_folder, tmp_path / f"out{number}", "--config", str(config))
        nll.append(figures(found)["nll,none"])
    assert nll[0] != nll[1]
    assert len(list(tmp_path.glob("cache_*_rank0.db"))) == 2


def test_regreason_hf_keeps_adapters_apart_whoever_calls_it(
    adapters: list[Path],
    data_folder: DataFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also under plain `lm_eval`, which chooses the name of the cache file."""

    def run(**arguments: Any) -> tuple[dict[str, Any], int]:
        lm = RegReasonHF(str(BASE), device="cpu", batch_size=4, **arguments)
        results = evaluate(lm, [TASK], data_folder.path, limit=5, use_cache=cache)
        return figures(results), lm.scorer.tokens_read

    cache: str | None = None
    kinds: list[dict[str, Any]] = [
        {},
        *({"peft": str(place)} for place in adapters),
        {"peft": str(adapters[0]), "dtype": "bfloat16"},
    ]
    expected = [run(**arguments)[0] for arguments in kinds]
    assert len({one["nll,none"] for one in expected}) == len(kinds)
    cache = str(tmp_path / "cache")
    assert [run(**arguments)[0] for arguments in kinds] == expected
    assert [run(**arguments) for arguments in kinds] == [(one, 0) for one in expected]
    # The cache key includes the probes,
    found, read = run(peft=str(adapters[0]), probe="none")
    assert found == pytest.approx(expected[1])
    assert read > 0
    # and their definition.
    monkeypatch.setattr(model, "ACTIVATION_WEIGHTS", "softmax")
    found, read = run(peft=str(adapters[0]))
    assert found == expected[1]
    assert read > 0


def test_an_adapter_trained_anew_in_its_folder_is_another(
    adapters: list[Path], data_folder: DataFolder, tmp_path: Path
) -> None:
    place = tmp_path / "adapter"
    found = []
    for source in adapters:
        shutil.copytree(source, place, dirs_exist_ok=True)
        lm = RegReasonHF(str(BASE), peft=str(place), device="cpu")
        cache = str(tmp_path / "cache")
        found.append(figures(evaluate(lm, [TASK], data_folder.path, limit=5, use_cache=cache)))
    assert found[0] != found[1]


def test_generated_texts_are_apart_too(
    adapters: list[Path], explanation_first_folder: DataFolder, tmp_path: Path
) -> None:
    texts = []
    for place in adapters:
        lm = RegReasonHF(str(BASE), peft=str(place), device="cpu", batch_size=4)
        results = evaluate(
            lm,
            [TWIN],
            explanation_first_folder.path,
            limit=2,
            gen_kwargs="max_gen_toks=8",
            use_cache=str(tmp_path / "cache"),
        )
        texts.append([sample["filtered_resps"][0] for sample in results["samples"][TWIN]])
    assert texts[0] != texts[1]


def test_a_model_as_an_object_is_not_cached(
    data_folder: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm = RegReasonHF(AutoModelForCausalLM.from_pretrained(BASE), tokenizer=str(BASE))
    with pytest.raises(SystemExit) as end:
        evaluate(lm, [TASK], data_folder.path, limit=2, use_cache=str(tmp_path / "cache"))
    assert end.value.code == 2
    assert "--use_cache needs pretrained= as a name or a folder" in capsys.readouterr().err


def test_what_makes_another_key(adapters: list[Path], tmp_path: Path) -> None:
    base = {"pretrained": str(BASE), "peft": str(adapters[0])}
    same = answers_digest("hf", base)
    how = {"batch_size": 8, "device": "cpu", "max_batch_size": None}
    assert answers_digest("hf", {**base, **how}) == same
    others = [
        answers_digest("hf", {**base, **change})
        for change in (
            {"peft": str(adapters[1])},
            {"tokenizer": str(adapters[0])},
            {"dtype": "float16"},
            {"load_in_4bit": True},
            {"add_bos_token": True},
            {"max_length": 512},
            {"revision": "v2"},
            {"chat_template_args": {"enable_thinking": False}},
            {"note": "x" * 5000},
        )
    ]
    others.append(answers_digest("vllm", base))
    assert len({same, *others}) == len(others) + 1


def test_a_large_file_is_read_all_over(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(80 * 2**20))
    before = folder_digest(tmp_path)
    with weights.open("r+b") as stream:
        stream.seek(40 * 2**20)
        stream.write(b"\1" * 2**20)
    assert folder_digest(tmp_path) != before
    (tmp_path / "trainer.log").write_text("no part of the model")
    (tmp_path / "vocab.txt").write_text("a")
    changed = folder_digest(tmp_path)
    (tmp_path / "vocab.txt").write_text("b")
    assert folder_digest(tmp_path) != changed


@pytest.mark.parametrize("task", [TASK, TWIN])
def test_prompts_that_lm_eval_kept_are_refused(
    task: str,
    data_folder: DataFolder,
    explanation_first_folder: DataFolder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """lm-eval keys them by the task's name, so it could score prompts of an older data folder."""
    folder = data_folder if task == TASK else explanation_first_folder
    lm = HFLM(str(BASE), device="cpu")
    with pytest.raises(SystemExit) as end:
        evaluate(lm, [task], folder.path, limit=2, cache_requests=True)
    assert end.value.code == 2
    assert "--cache_requests" in capsys.readouterr().err
