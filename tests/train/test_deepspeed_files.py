"""DeepSpeed's own check accepts the shipped files, with "auto" filled in as in a training."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[2] / "axolotl_configs/deepspeed"
FILES = {file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))}
HIDDEN = 32


def checked(given: dict[str, Any], tmp_path: Path) -> tuple[dict[str, Any], Any]:
    """A file's settings as transformers completes them, and as DeepSpeed then reads them."""
    import torch
    from deepspeed.runtime.config import DeepSpeedConfig
    from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=8,
        max_grad_norm=0.3,
        use_cpu=True,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(hidden_size=HIDDEN, num_hidden_layers=1, intermediate_size=8, vocab_size=8)
        )
    settings = HfTrainerDeepSpeedConfig(copy.deepcopy(given))
    settings.trainer_config_process(arguments)
    settings.trainer_config_finalize(arguments, model, 100)
    return settings.config, DeepSpeedConfig(settings.config)


@pytest.mark.parametrize("name", FILES)
def test_deepspeed_takes_it(name: str, tmp_path: Path) -> None:
    filled, read = checked(FILES[name], tmp_path)
    assert '"auto"' not in json.dumps(filled)
    assert read.zero_config.stage == int(name[4])
    sizes = (read.train_batch_size, read.train_micro_batch_size_per_gpu)
    assert (*sizes, read.gradient_accumulation_steps) == (16, 2, 8)
    assert read.gradient_clipping == 0.3
    offloaded = read.zero_config.offload_optimizer, read.zero_config.offload_param
    assert [part and part.device for part in offloaded] == (
        ["cpu", "cpu"] if name == "zero3_offload" else [None, None]
    )
    if name != "zero1":
        assert read.zero_config.reduce_bucket_size == HIDDEN * HIDDEN
    if name.startswith("zero3"):
        # Without this key, only a shard of the weights is saved.
        assert read.zero_config.gather_16bit_weights_on_model_save


@pytest.mark.parametrize("name", FILES)
def test_a_mistyped_key_is_found(name: str, tmp_path: Path) -> None:
    zero = FILES[name]["zero_optimization"]
    for key in zero:
        wrong = {other: value for other, value in zero.items() if other != key}
        wrong[f"{key}x"] = zero[key]
        given = {**FILES[name], "zero_optimization": wrong}
        if zero[key] == "auto":
            # Nothing fills this "auto" in, and DeepSpeed silently drops the key.
            assert '"auto"' in json.dumps(checked(given, tmp_path)[0])
        else:
            with pytest.raises((ValidationError, ValueError), match=f"{key}x"):
                checked(given, tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_every_key_outside_is_deepspeeds(name: str) -> None:
    """DeepSpeed silently ignores a mistyped key here, so the test compares keys with its names."""
    from deepspeed.runtime import constants, precision_config
    from deepspeed.runtime.zero import config as zero

    known = {
        value
        for module in (constants, precision_config, zero)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    assert set(FILES[name]) <= known
    assert "gradient_cliping" not in known
    for part in ("bf16", "fp16"):
        assert FILES[name][part] == {"enabled": "auto"}
