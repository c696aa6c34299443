"""A real `axolotl train` on a CPU runs every shipped config and one sweep file of each kind.

The command line overrides only the model, the number format, the quantisation and the keys that
need a GPU.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.axolotl import PYTHON, axolotl_train, forks
from helpers.tiny_families import save_family
from helpers.training_data import build_data, read_rows
from safetensors.torch import load_file
from transformers import AutoTokenizer

from regreason_plugin.data_folder.arms import ARMS
from regreason_plugin.data_folder.build import BuildOptions
from regreason_plugin.data_folder.mini import build_mini

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "axolotl_configs"
FILES = {
    str(file.relative_to(SHIPPED)): yaml.safe_load(file.read_text(encoding="utf-8"))
    for file in sorted(SHIPPED.rglob("*.yml"))
}
CONFIGS = {name: values for name, values in FILES.items() if "base_model" in values}
# test_train.py trains the tiny base, which has no arms.
TRAINED = [name for name in CONFIGS if name != "cpu/base.yml"]
SWEEPS = {name: values for name, values in FILES.items() if name not in CONFIGS}
# Small models in place of the big ones. A config with another base model needs an entry here.
FAMILIES = {
    "mistralai/Mistral-7B-v0.1": "mistral",
    "Qwen/Qwen3-8B": "qwen3",
    "meta-llama/Llama-3.1-8B-Instruct": "llama3",
}
ON_A_CPU = {
    "bf16": ["--bf16=false", "--tf32=false"],
    "lora_mlp_kernel": ["--no-lora-mlp-kernel", "--no-lora-qkv-kernel", "--no-lora-o-kernel"],
    "load_in_4bit": ["--adapter=lora", "--no-load-in-4bit"],
}
# One sweep file of each kind, cut to a few runs; `test_no_sweep_file_is_forgotten` checks the rest.
CUT_SWEEPS: dict[str, tuple[str, dict[str, int]]] = {
    "sweeps/arms_x_seeds.yml": ("gpu/mistral-7b-lora.yml", {"regreason_arm": 2, "seed": 2}),
    "sweeps/label_only_regularisers.yml": ("gpu/mistral-7b-qlora.yml", {"seed": 1}),
    "sweeps/axes.yml": ("cpu/lora.yml", {}),
    "sweeps/settings.yml": ("cpu/lora.yml", {"regreason_scope": 2}),
}
ROWS, STEPS = 40, 3


@dataclass(frozen=True)
class Trained:
    """Output and files of one command."""

    code: int
    output: str
    data: Path
    folder: Path
    model: str

    def runs(self) -> dict[str, Path]:
        """Folders of the finished runs, by their names below the config's output_dir."""
        found = sorted(self.folder.rglob("regreason.json"))
        return {str(file.parent.relative_to(self.folder)): file.parent for file in found}


def record_of(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "regreason.json").read_text(encoding="utf-8"))
    return record


def adapter_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter_model.safetensors")


def output_root(values: dict[str, Any]) -> str:
    """Folder of a config's runs: the part of output_dir before its braces."""
    return values["output_dir"].split("/{")[0]


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    folder = tmp_path_factory.mktemp("shipped")
    models = {
        base: str(save_family(family, tiny_model, folder / family))
        for base, family in FAMILIES.items()
    }
    data = build_data(folder / "data", rows=60).path
    options = BuildOptions(arms=("explanation",), scopes=("axis", "setting"))
    scoped = build_mini(folder / "scoped", options, per_dataset=30).path
    found = {}

    def checkout(name: str, config: str, rows: Path) -> Path:
        """A working folder with the shipped configs, and with data where this config expects it."""
        place = folder / re.sub(r"\W", "_", name)
        given = Path(CONFIGS[config]["datasets"][0]["path"].split("/train/")[0])
        (place / given).parent.mkdir(parents=True)
        (place / given).symlink_to(rows)
        (place / "axolotl_configs").symlink_to(SHIPPED)
        return place

    def train(name: str, config: str, rows: Path, *sweep: str) -> None:
        values = CONFIGS[config]
        place = checkout(name, config, rows)
        model = models.get(values["base_model"], values["base_model"])
        options = [option for key in ON_A_CPU if values.get(key) for option in ON_A_CPU[key]]
        options += [f"--base-model={model}", "--logging-steps=1"]
        done = axolotl_train(f"axolotl_configs/{config}", *sweep, PYTHON, *options, cwd=place)
        output = done.stdout + done.stderr
        found[name] = Trained(done.returncode, output, rows, place / output_root(values), model)

    for name in TRAINED:
        train(name, name, data)
    for name, (config, cut) in CUT_SWEEPS.items():
        values = {key: value[: cut.get(key)] for key, value in SWEEPS[name].items()}
        file = folder / Path(name).name
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        train(name, config, scoped if "regreason_scope" in values else data, f"--sweep={file}")
    # A worker of Ray Train, for which Axolotl loads the same config twice.
    config, values = "axolotl_configs/cpu/lora.yml", CONFIGS["cpu/lora.yml"]
    place = checkout("ray", "cpu/lora.yml", data)
    done = forks().run("helpers.ray_worker:train", config, '{"logging_steps": 1}', cwd=place)
    output = done.stdout + done.stderr
    root, model = place / output_root(values), values["base_model"]
    found["ray"] = Trained(done.returncode, output, data, root, model)
    return found


@pytest.mark.parametrize("name", TRAINED)
def test_a_config_trains(name: str, trained: dict[str, Trained]) -> None:
    found, values = trained[name], CONFIGS[name]
    assert found.code == 0, found.output[-4000:]
    ((folder, run),) = found.runs().items()
    arm, seed = values["regreason_arm"], values["seed"]
    assert folder == (f"{arm}-{seed}" if name.startswith("gpu/") else arm)
    record = record_of(run)
    assert (record["arm"], record["scope"], record["seed"]) == (arm, None, seed)
    assert (record["rows"], record["steps"], record["epochs"]) == (ROWS, STEPS, 1.0)
    # These are layers of the tiny model; no kernel or quantisation has replaced them.
    assert record["base_model"] == found.model
    weights = adapter_of(run)
    assert {value.dtype for value in weights.values()} == {torch.float32}
    moved = [float(value.abs().max()) for key, value in weights.items() if "lora_B" in key]
    # There are seven linear layers in each of two or four blocks; the B matrices start at zero.
    assert len(moved) in (14, 28)
    assert min(moved) > 0
    # For a base model the label follows a space; for a chat model it begins the turn.
    tokenizer = AutoTokenizer.from_pretrained(ROOT / found.model)
    space = "" if values["datasets"][0]["type"] == "chat_template" else " "
    rows = read_rows(found.data, f"train/{arm}.jsonl")
    labels = [
        len(tokenizer.encode(f"{space}{row['label']}", add_special_tokens=False)) for row in rows
    ]
    steps = re.findall(r"\{'loss'.*?'label_tokens_seen': (\d+)", found.output)
    seen = [int(number) for number in steps]
    assert seen[-1] == sum(labels)
    assert seen == sorted(seen)
    assert len(seen) == STEPS
    measured = "eval_label_loss" in found.output
    assert measured == bool(values.get("evals_per_epoch") or values.get("eval_strategy"))


def test_arms_x_seeds_gives_a_folder_each(trained: dict[str, Trained]) -> None:
    found = trained["sweeps/arms_x_seeds.yml"]
    assert found.code == 0, found.output[-4000:]
    runs = found.runs()
    arms = SWEEPS["sweeps/arms_x_seeds.yml"]["regreason_arm"]
    assert arms == list(ARMS)
    assert sorted(runs) == sorted(f"{arm}-{seed}" for arm in ARMS[:2] for seed in (1, 2))
    for name, run in runs.items():
        record = record_of(run)
        assert f"{record['arm']}-{record['seed']}" == name
        assert (record["rows"], record["steps"]) == (ROWS, STEPS)
    assert_all_differ(runs)


def test_the_regularisers_are_on_one_at_a_time(trained: dict[str, Trained]) -> None:
    found = trained["sweeps/label_only_regularisers.yml"]
    assert found.code == 0, found.output[-4000:]
    runs = found.runs()
    keys = ("arm", "seed", "label_smoothing", "lora_dropout", "weight_decay")
    assert {name: tuple(record_of(run)[key] for key in keys) for name, run in runs.items()} == {
        "label_smoothing/label_only-1": ("label_only", 1, 0.1, 0.0, 0.0),
        "lora_dropout/label_only-1": ("label_only", 1, 0.0, 0.1, 0.0),
        "weight_decay/label_only-1": ("label_only", 1, 0.0, 0.0, 0.1),
    }
    assert_all_differ(runs)


@pytest.mark.parametrize("name", ["sweeps/axes.yml", "sweeps/settings.yml"])
def test_a_model_a_scope(name: str, trained: dict[str, Trained]) -> None:
    found = trained[name]
    assert found.code == 0, found.output[-4000:]
    runs = found.runs()
    scopes = SWEEPS[name]["regreason_scope"][: 2 if name == "sweeps/settings.yml" else 3]
    assert sorted(runs) == sorted(f"{scope}/explanation" for scope in scopes)
    for run in runs.values():
        record = record_of(run)
        rows = [
            row
            for row in read_rows(found.data, "train/explanation.jsonl")
            if record["scope"] in (row["axis"], f"{row['dataset']}_{row['axis']}")
        ]
        assert f"{record['scope']}/{record['arm']}" == str(run.relative_to(found.folder))
        assert record["rows"] == len(rows) > 0
    assert_all_differ(runs)


def test_ray_trains_the_same(trained: dict[str, Trained]) -> None:
    """Run Axolotl's function for a worker, on the config that a worker receives."""
    found, plain = trained["ray"], trained["cpu/lora.yml"]
    assert found.code == 0, found.output[-4000:]
    ((name, run),) = found.runs().items()
    ((other_name, other),) = plain.runs().items()
    assert name == other_name
    # All options but use_ray itself, which is in the config.
    same = {"config_sha256": None, "cost": None}
    assert record_of(run)["cost"]["tokens"] == record_of(other)["cost"]["tokens"]
    assert {**record_of(run), **same} == {**record_of(other), **same}
    ours, theirs = adapter_of(run), adapter_of(other)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def assert_all_differ(runs: dict[str, Path]) -> None:
    adapters = {name: adapter_of(run) for name, run in runs.items()}
    for (one, ours), (other, theirs) in combinations(adapters.items(), 2):
        assert any(not torch.equal(ours[key], theirs[key]) for key in ours), (one, other)


def runs_of(config: dict[str, Any], sweep: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from axolotl.cli.utils.sweeps import generate_sweep_configs

    from regreason_plugin.train.data_files import fill_placeholders

    for values in generate_sweep_configs(config, sweep):
        fill_placeholders(values, "sweep")
        yield values


@pytest.mark.parametrize("name", SWEEPS)
def test_no_sweep_file_is_forgotten(name: str) -> None:
    """In every config that a sweep file is for, each run of the sweep has a separate folder."""
    counts = {
        "sweeps/arms_x_seeds.yml": 35,
        "sweeps/label_only_regularisers.yml": 15,
        "sweeps/axes.yml": 3,
        "sweeps/settings.yml": 18,
        "arms/all.yml": 7,
        "arms/paper.yml": 4,
    }
    assert name.startswith("arms/") or name in CUT_SWEEPS
    for config in TRAINED:
        if "seed" in SWEEPS[name] and "{seed}" not in CONFIGS[config]["output_dir"]:
            assert config == "cpu/lora.yml"
            continue
        runs = list(runs_of(CONFIGS[config], SWEEPS[name]))
        assert len(runs) == counts.get(name, 1)
        assert len({values["output_dir"] for values in runs}) == len(runs)
        assert not any("{" in values["output_dir"] for values in runs)
