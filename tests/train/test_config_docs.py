"""The comments of the shipped configs: every key is explained, with its true default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from axolotl.utils.dict import DictDefault
from lm_eval.utils import simple_parse_args_string

from regreason_plugin.train.config_keys import RegReasonArgs
from regreason_plugin.train.scoring import loading_arguments

SHIPPED = Path(__file__).parents[2] / "axolotl_configs"
CONFIGS = {
    str(file.relative_to(SHIPPED)): file.read_text(encoding="utf-8")
    for file in sorted(SHIPPED.rglob("*.yml"))
    if "base_model" in yaml.safe_load(file.read_text(encoding="utf-8"))
}
# The config whose comments hold for the other GPU configs as well.
REFERENCE = "gpu/mistral-7b-qlora.yml"
SHORT = [name for name in CONFIGS if name.startswith("gpu/") and name != REFERENCE]
# Keys without a default in Axolotl's schema; the default is elsewhere in its code.
ELSEWHERE = {
    "adapter": "all weights",
    "attn_implementation": "the choice of transformers",
    "chat_template": "the tokenizer's",
    "dataset_num_proc": "the number of cores",
    "dataset_prepared_path": "last_run_prepared",
    "evals_per_epoch": "never",
    "excess_length_strategy": "drop",
    "logging_steps": "a 200th of all steps",
    "lora_mlp_kernel": "on",
    "lora_qkv_kernel": "on",
    "lora_o_kernel": "on",
    "max_grad_norm": "1",
    "adam_beta2": "0.999",
    "regreason_arm": "the arm of the files below",
    "save_strategy": "once per epoch",
    "save_total_limit": "4",
    "seed": "42",
    "warmup_ratio": "0.03",
    "warmup_steps": "3 % of all steps",
    # Keys of a dataset's entry.
    "ds_type": "json",
    "field": "text",
    "field_messages": "messages",
    "split": "test",
}
WORDS: dict[str, Any] = {"false": False, "true": True, "none": None, "off": False}


class Key(NamedTuple):
    name: str
    nested: bool
    comment: str


def keys_of(text: str) -> list[Key]:
    """Keys with the comments right above them; keys without a blank line between share one."""
    keys: list[Key] = []
    comment: list[str] = []
    fresh = True
    for line in text.splitlines():
        content = line.strip()
        if content.startswith("#"):
            comment = [content[1:].strip()] if fresh else [*comment, content[1:].strip()]
            fresh = False
            continue
        fresh = True
        if not content:
            comment = []
        elif found := re.match(r"(\s*)(?:- )?(\w+):(?:\s|$)", line):
            keys.append(Key(found[2], bool(found[1]), " ".join(comment)))
    return keys


def stated(comment: str) -> str | None:
    """The default that a comment states; empty for "No default.", None if it states none."""
    if "No default." in comment:
        return ""
    found = re.search(r"Default(?: here)?: (.+?)(?:[,.:;](?:\s|$)|$)", comment)
    return found[1] if found else None


def schema() -> dict[str, Any]:
    from axolotl.utils.schemas.config import AxolotlConfigWCapabilities

    fields = {**AxolotlConfigWCapabilities.model_fields, **RegReasonArgs.model_fields}
    return {
        name: None if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in fields.items()
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_is_explained_where_it_stands(name: str) -> None:
    keys = keys_of(CONFIGS[name])
    values = yaml.safe_load(CONFIGS[name])
    assert {key.name for key in keys if not key.nested} == set(values)
    explained = set()
    if name in SHORT:
        explained = {key.name for key in keys_of(CONFIGS[REFERENCE])}
        assert Path(REFERENCE).name in CONFIGS[name]
        # A short config is shorter than the reference, and explains each difference in place.
        assert len(CONFIGS[name]) < 0.6 * len(CONFIGS[REFERENCE])
    for key in keys:
        if key.name in explained and (key.nested or name in SHORT) and not key.comment:
            continue
        # A path stands in the line of its list, and equal entries are explained once.
        if key.name in ("path", "enable_thinking") or (key.nested and key.name in explained):
            continue
        assert stated(key.comment) is not None, key
        assert len(key.comment) > 20, key
        explained.add(key.name)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_defaults_are_those_of_axolotl(name: str) -> None:
    defaults = schema()
    compared = 0
    entries = set()
    for key in keys_of(CONFIGS[name]):
        said = stated(key.comment)
        if name in SHORT and not key.comment:
            continue  # the reference explains it
        if key.nested:
            # Nested keys are explained in the first entry only.
            if key.name not in ELSEWHERE or key.name in entries:
                continue
            entries.add(key.name)
        if key.name in ELSEWHERE:
            assert said == ELSEWHERE[key.name], key
            assert key.nested or not defaults[key.name], key
            continue
        true = defaults[key.name]
        compared += 1
        if said == "":
            assert true is None, key
        elif said in WORDS:
            assert true == WORDS[said] or (true is None and not WORDS[said]), (key, true)
        elif isinstance(true, int | float):
            assert float(said) == true, (key, true)
        elif true is None:
            assert float(said) == 0, key
        else:
            assert said == true, (key, true)
    assert compared > 15 or name in SHORT


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "cpu/base.yml"])
def test_every_key_of_the_plugin_is_there(name: str) -> None:
    values = yaml.safe_load(CONFIGS[name])
    given = {key: value for key, value in values.items() if key.startswith("regreason_")}
    # The shipped values change only the arm, and the loss's mean if a step is split.
    cut = values.get("gradient_accumulation_steps", 1) > 1
    assert given.pop("regreason_loss_mean") == ("step" if cut else None)
    defaults = RegReasonArgs().model_dump(
        exclude={"regreason_checked_config", "regreason_loss_mean"}
    )
    assert {**given, "regreason_arm": None} == defaults


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith("gpu/")])
def test_the_head_says_what_a_user_needs(name: str) -> None:
    text, values = CONFIGS[name], yaml.safe_load(CONFIGS[name])
    head = text.split("\n# ---")[0]
    assert "# Licence of the model: " in head
    assert f"axolotl train axolotl_configs/{name}" in head
    (model_args,) = re.findall(r"--model_args (\S+)", head)
    given = simple_parse_args_string(model_args)
    thinking = {"enable_thinking": False} if "chat_template_kwargs" in values else {}
    # `regreason check` and the scoring after a training load the model in this way.
    as_trained = {"torch_dtype": torch.bfloat16 if values["bf16"] else None, **values}
    assert given == {
        "pretrained": values["base_model"],
        "peft": re.sub("{.*", "", values["output_dir"]) + "explanation-1",
        **loading_arguments(DictDefault(as_trained)),
        **thinking,
    }
    chat = values["datasets"][0]["type"] == "chat_template"
    assert ("regreason eval --model regreason-hf --apply_chat_template" in head) == chat
    assert ("enable_thinking=False" in head) == ("chat_template_kwargs" in values)
    # The lengths that the build allows fit into sequence_len.
    limits = re.search(r"--max-prompt-tokens (\d+) --max-target-tokens (\d+)", head)
    assert limits
    assert int(limits[1]) + int(limits[2]) < values["sequence_len"] - 60
    rows = values["micro_batch_size"] * values["gradient_accumulation_steps"]
    assert rows == 16


def test_a_wrong_default_is_found() -> None:
    text = "# How many there are of them at once. Default: 2.\nmicro_batch_size: 4\n"
    (key,) = keys_of(text)
    assert stated(key.comment) == "2"
    assert schema()["micro_batch_size"] == 1
