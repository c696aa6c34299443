"""`regreason check`: a config for every finding, and numbers compared with independent counts."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.training_data import build_data, config, read_rows, write_config
from lm_eval._cli.utils import try_parse_json
from lm_eval.utils import simple_parse_args_string
from transformers import AutoTokenizer

from regreason_plugin.cli import main
from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.data_folder.folder import DataFolder

pytestmark = pytest.mark.integration

Change = Callable[[dict[str, Any]], object]
Check = Callable[..., "Checked"]


@dataclass(frozen=True)
class Checked:
    """Output of the command."""

    code: int
    lines: list[str]
    report: str

    def of(self, level: str) -> list[str]:
        """Findings of a level, without the file's name."""
        found = [line for line in self.lines if line.startswith(f"{level}: ")]
        return [re.sub(r"^[\w ]+: (\S*config\.yml(, field |: ))?", "", line) for line in found]

    def fact(self, name: str) -> str:
        """A line of the report."""
        (line,) = re.findall(rf"^{re.escape(name)}  +(.*)$", self.report, flags=re.MULTILINE)
        return str(line).strip()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return build_data(tmp_path_factory.mktemp("check") / "data")


@pytest.fixture
def check(
    data: DataFolder,
    tiny_model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Check:
    """A function that checks a config with changes; it fails if the command writes anything."""
    monkeypatch.chdir(tmp_path)

    def run(change: Change | None = None, *arguments: str, **changes: Any) -> Checked:
        values = config(tiny_model, data.path, tmp_path / "out", **changes)
        if change is not None:
            change(values)
        write_config(Path("config.yml"), values)
        before = sorted(tmp_path.rglob("*"))
        code = main(["check", "config.yml", *arguments])
        assert sorted(tmp_path.rglob("*")) == before
        said = capfd.readouterr()
        return Checked(code, said.err.splitlines(), said.out)

    return run


def key(name: str, value: Any) -> Change:
    """Set a top-level key."""
    return lambda values: values.update({name: value})


def entry(field: str, value: Any, *, name: str = "datasets") -> Change:
    """Set a key of the first file."""
    return lambda values: values[name][0].update({field: value})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (key("plugins", []), "plugins: must list regreason_plugin.RegReasonPlugin: "),
        (
            key("plugins", ["regreason_plugin.RegReasonPlugin", "no.such.Plugin"]),
            "plugins: 'no.such.Plugin' cannot be imported, and Axolotl would train without it",
        ),
        (key("plugins", "regreason_plugin"), "plugins: must be a list of names"),
        (key("datasets", ["data"]), "datasets: must be a list of entries with keys"),
        (
            key("learning_rte", 1),
            "learning_rte: Axolotl does not know this key and would ignore it; did",
        ),
        (
            entry("spilt", "train"),
            "datasets[0].spilt: Axolotl does not know this key and would ignore it",
        ),
        (key("excess_length_strategy", "drop"), "excess_length_strategy: must be raise"),
        (key("val_set_size", 0.1), "val_set_size: must be 0"),
        (key("train_on_inputs", True), "train_on_inputs: must be false"),
        (key("regreason_arm", "shufled"), "regreason_arm: unknown arm 'shufled'; did you mean"),
        (
            key("output_dir", "models/{lora_rank}"),
            "output_dir: {lora_rank} has no value; set the key lora_rank",
        ),
        (entry("path", "nowhere/train/{arm}.jsonl"), "nowhere: no such data folder"),
        (entry("type", "alpaca"), "datasets[0].type: must be regreason_plugin.train.strategy"),
        (key("sequence_len", 60), "sequence_len: "),
        (key("regreason_eval", "regreason_coqa_ontopic"), "regreason_eval: unknown task"),
        (key("deepspeed", "zero9.json"), "deepspeed: "),
        (key("base_model", "./nowhere"), "base_model: no such folder: ./nowhere"),
        (key("learning_rate", None), "learning_rate: Axolotl refuses it: Field required"),
        (key("adapter", "loraa"), "Axolotl refuses it: Adapter 'loraa'"),
        (
            lambda v: v.update(sample_packing=True, attn_implementation="someone/kernel"),
            "sample_packing: with this attention, packed samples would read each other",
        ),
        (
            lambda v: v.update(regreason_prefix_packing=True, micro_batch_size=1),
            "micro_batch_size: must be at least 2 with regreason_prefix_packing",
        ),
        (
            lambda v: v.update(regreason_prefix_packing=True, neftune_noise_alpha=5),
            "neftune_noise_alpha: must be left out with regreason_prefix_packing: its noise",
        ),
        (
            lambda v: v.update(regreason_prefix_packing=True, torch_compile=True),
            "torch_compile: must be off with regreason_prefix_packing: it needs all logits",
        ),
        (
            lambda v: v.update(regreason_prefix_packing=True, regreason_target_logits=False),
            "regreason_target_logits: must be true with regreason_prefix_packing",
        ),
        (
            lambda v: v.update(regreason_prefix_packing=True, attn_implementation="someone/kernel"),
            "attn_implementation: is someone/kernel, which cannot read several prompts in one row",
        ),
    ],
)
def test_a_wrong_config_is_told_with_field_and_remedy(
    change: Change, line: str, check: Check
) -> None:
    def drop_none(values: dict[str, Any]) -> None:
        change(values)
        for name in [name for name, value in values.items() if value is None]:
            del values[name]

    found = check(drop_none)
    assert found.code == 2
    assert found.report == ""
    assert [one for one in found.of("error") if one.startswith(line)], found.lines


def test_all_errors_are_listed_not_only_the_first(check: Check, data: DataFolder) -> None:
    def change(values: dict[str, Any]) -> None:
        values["datasets"][0].update(path=f"{data.path}/test.jsonl", weight=2)
        values["test_datasets"][0]["path"] = f"{data.path}/train/{{arm}}.jsonl"
        values.update(val_set_size=0.1, sede=1, train_on_inputs=True, output_dir="{rank}")

    found = check(change, "--excess-length-strategy", "drop")
    assert found.code == 2
    assert {one.split(":")[0] for one in found.of("error")} == {
        *("val_set_size", "sede", "train_on_inputs", "output_dir", "excess_length_strategy"),
        *("datasets[0].weight", "datasets[0].path", "test_datasets[0].path"),
    }
    assert len(found.of("error")) == 8
    # A wrong key does not hide an error that shows in the tokens only.
    found = check(key("val_set_size", 0.1), sequence_len=60)
    assert [one.split(":")[0] for one in found.of("error")][:2] == ["val_set_size", "sequence_len"]
    assert all(line.startswith(("error: config.yml, ", "warning: ", "not checked: "))
               for line in found.lines if ": " in line and not line.startswith(" "))  # fmt: skip


def test_options_are_axolotls_and_a_wrong_one_is_told(check: Check) -> None:
    assert check(None, "--seed", "3", "--num-epochs=2").fact("Epochs") == "2"
    found = check(None, "--sede", "3")
    assert found.code == 2
    assert found.lines == ["regreason: axolotl train has no option --sede; did you mean '--seed'?"]


def test_a_config_that_is_no_yaml(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yml").write_text("seed: 1\nbase_model: [\n")
    assert main(["check", "config.yml"]) == 2
    assert "regreason: config.yml, line 3: is not YAML" in capfd.readouterr().err
    Path("config.yml").write_text("seed: 1\nadapter: lora\nseed: 2\n")
    assert main(["check", "config.yml"]) == 2
    assert "config.yml, line 3, field seed: is given twice (also on line 1)" in (
        capfd.readouterr().err
    )
    Path("config.yml").write_text("- seed\n")
    assert main(["check", "config.yml"]) == 2
    assert "config.yml: must hold keys with values" in capfd.readouterr().err


def test_arms_with_other_rows(check: Check, data: DataFolder, tmp_path: Path) -> None:
    """The rows were changed by hand, with a manifest to match."""
    copy = tmp_path / "copy"
    shutil.copytree(data.path, copy)
    manifest = json.loads((copy / "manifest.json").read_text())

    def rewrite(arm: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
        file = copy / f"train/{arm}.jsonl"
        rows = read_rows(copy, f"train/{arm}.jsonl")
        change(rows)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        manifest["files"][f"train/{arm}.jsonl"] = file_sha256(file)
        (copy / "manifest.json").write_text(json.dumps(manifest))

    here = entry("path", f"{copy}/train/{{arm}}.jsonl")
    alone: dict[str, Any] = {"test_datasets": None}
    assert check(here, **alone).code == 0
    rewrite("shuffled", lambda rows: rows.insert(0, rows.pop()))
    (line,) = check(here, **alone).of("error")
    assert "shuffled.jsonl: row 1 differs from that in train/explanation.jsonl" in line
    rewrite("shuffled", lambda rows: rows.append(rows.pop(0)))
    assert check(here, **alone).code == 0
    rewrite("filler", lambda rows: rows[2]["messages"][0].update(content="another prompt"))
    (line,) = check(here, **alone).of("error")
    assert "filler.jsonl: row 3 differs from that in train/explanation.jsonl" in line


def test_missing_arms_are_not_checked(check: Check, data: DataFolder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data.path, copy)
    (copy / "train/filler.jsonl").unlink()
    found = check(entry("path", f"{copy}/train/{{arm}}.jsonl"), test_datasets=None)
    assert found.code == 0
    assert (
        "train/filler.jsonl: does not exist, so its rows were not compared"
        in found.of("not checked")[0]
    )


def test_rows_that_are_too_long_are_counted(
    check: Check, data: DataFolder, tiny_model: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    lengths = {
        name: [
            len(tokenizer(" ".join(turn["content"] for turn in row["messages"])).input_ids) + 1
            for row in read_rows(data.path, name)
        ]
        for name in ("train/explanation.jsonl", "validation/explanation.jsonl")
    }
    train, validation = lengths.values()
    limit = sorted(train)[-4]
    found = check(key("sequence_len", limit))
    longer = sum(length > limit for length in train)
    assert 0 < longer < len(train)
    told = f"{longer} of {len(train)} rows of explanation's train files are longer than {limit}"
    assert f"{told} tokens, the longest has {max(train)}" in found.of("error")[0]
    assert len(found.of("error")) == 1 + any(length > limit for length in validation)


def test_the_report_says_what_prefix_packing_saves(
    check: Check, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    axes = ("naturalness", "comprehensiveness", "on_topic")
    data = build_data(tmp_path_factory.mktemp("axes") / "data", texts=["rain " * 40], axes=axes)

    def of_axes(values: dict[str, Any]) -> None:
        for name in ("datasets", "test_datasets"):
            path = values[name][0]["path"]
            values[name][0]["path"] = path.replace(
                path.rpartition("/data/")[0], str(data.path.parent)
            )

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = read_rows(data.path, "train/explanation.jsonl")
    prompts, prefixes = [], set()
    plain = 0
    for row in rows:
        prompt, answer = (turn["content"] for turn in row["messages"])
        prompts.append(tokenizer(prompt).input_ids)
        ids = [*tokenizer(f"{prompt} {answer}").input_ids, tokenizer.eos_token_id]
        plain += len(ids)
        # Groups have one conversation each, so this counts the tokens of each conversation's tree.
        prefixes |= {(row["id"], *ids[:end]) for end in range(1, len(ids) + 1)}
    shared = sum(len(set(column)) == 1 for column in zip(*prompts, strict=False))
    conversations, batches = len(rows) // 3, math.ceil(len(rows) / 6)
    packed = len(prefixes) - (conversations - batches) * shared
    fewer = f"{packed:,} tokens an epoch, {plain / packed:.2f} times fewer"
    assert plain / packed > 1.5

    on = check(of_axes, micro_batch_size=6, regreason_prefix_packing=True)
    assert on.code == 0, on.lines
    assert on.fact("Prefix packing") == fewer
    assert on.fact("Steps") == str(batches)
    # With 8 rows at most, a batch still has two whole conversations.
    on = check(of_axes, micro_batch_size=8, regreason_prefix_packing=True)
    assert on.fact("Steps") == str(batches)
    off = check(of_axes, micro_batch_size=8)
    assert off.fact("Steps") == str(math.ceil(len(rows) / 8))
    assert off.fact("Prefix packing").startswith("off; regreason_prefix_packing: true leaves")


def test_the_report_counts_what_is_trained(
    check: Check, data: DataFolder, tiny_model: Path
) -> None:
    found = check(micro_batch_size=4, gradient_accumulation_steps=2, num_epochs=3, warmup_ratio=0.2)
    assert found.code == 0, found.lines
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = read_rows(data.path, "train/explanation.jsonl")
    label, target, all_tokens = 0, 0, 0
    for row in rows:
        prompt, answer = (turn["content"] for turn in row["messages"])
        before = len(tokenizer(prompt).input_ids)
        label += len(tokenizer(f"{prompt} {row['label']}").input_ids) - before
        whole = len(tokenizer(f"{prompt} {answer}").input_ids) + 1
        target += whole - before
        all_tokens += whole
    steps = len(rows) * 3 // 8
    assert len(rows) * 3 % 8 == 0
    assert found.fact("Rows") == str(len(rows))
    assert found.fact("Batch") == "8 rows (4 x 2 accumulated x 1 processes)"
    assert found.fact("Steps") == str(steps)
    assert found.fact("Warm-up") == f"{int(0.2 * steps)} steps"
    assert found.fact("Epochs") == "3"
    assert found.fact("Tokens an epoch") == f"{all_tokens:,}"
    assert found.fact("Label tokens") == f"{label:,}"
    assert found.fact("Other target tokens") == f"{target - label:,}"
    assert found.fact("Label's part") == f"{label / target:.1%}"
    assert data.sha256.startswith(found.fact("Data sha256"))


def test_processes_share_the_steps(check: Check) -> None:
    one, four = check(), check(None, "--processes", "4")
    assert int(one.fact("Steps")) == 10
    assert int(four.fact("Steps")) == 3
    assert four.fact("Batch") == "16 rows (4 x 1 accumulated x 4 processes)"


def test_an_epoch_ends_with_what_is_left(check: Check) -> None:
    found = check(micro_batch_size=16, num_epochs=2)
    # An epoch has steps of 16, 16 and 8 rows; there are two epochs.
    assert (found.fact("Steps"), found.fact("Epochs")) == ("6", "2")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (key("lora_dropout", 0.05), "lora_dropout: is 0.05: this regulariser"),
        (key("weight_decay", 0.01), "weight_decay: is 0.01: this regulariser"),
        (
            key("regreason_label_smoothing", 0.1),
            "regreason_label_smoothing: is 0.1: this regulariser",
        ),
        (
            lambda values: values.pop("seed"),
            "seed: is left out, so every run uses the same seed, 42",
        ),
        (key("sample_packing", True), "sample_packing: longer texts fill more sequences"),
        (key("group_by_length", True), "group_by_length: orders the rows by length"),
    ],
)
def test_what_can_hurt_a_comparison_is_a_warning(change: Change, line: str, check: Check) -> None:
    assert not [one for one in check().of("warning") if one.startswith(line.split(":")[0])]
    found = check(change)
    assert found.code == 0, found.lines
    assert [one for one in found.of("warning") if one.startswith(line)], found.lines


def test_a_regulariser_of_label_only_is_a_control(check: Check) -> None:
    found = check(regreason_arm="label_only", weight_decay=0.01, lora_dropout=0.1)
    assert not [one for one in found.of("warning") if "regulariser" in one]


def test_labels_cut_into_different_numbers_of_tokens(check: Check, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    cuts = {n: len(tokenizer.encode(f" {n}", add_special_tokens=False)) for n in "12345"}
    assert len(set(cuts.values())) > 1
    shown = ", ".join(f"{label} into {count}" for label, count in cuts.items())
    assert f"different numbers of tokens ({shown})" in "".join(check().of("warning"))


def test_special_tokens_that_neutralising_does_not_know(
    check: Check, tiny_model: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(tiny_model, odd)
    tokenizer = AutoTokenizer.from_pretrained(odd)
    tokenizer.add_special_tokens({"extra_special_tokens": ["@@odd@@"]})
    tokenizer.save_pretrained(odd)
    found = check(base_model=str(odd))
    assert found.code == 0, found.lines
    assert "RegReason does not neutralise 1 special tokens of this tokenizer ('@@odd@@')" in (
        "".join(found.of("warning"))
    )
    data = build_data(tmp_path / "held", texts=["a @@odd@@ word"])
    found = check(
        entry("path", f"{data.path}/train/{{arm}}.jsonl"), base_model=str(odd), test_datasets=None
    )
    assert found.code == 2
    assert "its text holds '@@odd@@', a special token" in "".join(found.of("error"))


CHAT = {"type": "chat_template", "field_messages": "messages", "ds_type": "json"}


def test_a_chat_template(check: Check, data: DataFolder, tiny_model: Path) -> None:
    """One template needs no argument, one needs an argument of lm-eval, one cannot be scored."""
    own = "{{ bos_token }}" + AutoTokenizer.from_pretrained(tiny_model).chat_template
    files = [{"path": f"{data.path}/train/{{arm}}.jsonl", **CHAT}]
    changes: dict[str, Any] = {"datasets": files, "test_datasets": None, "chat_template": "jinja"}
    found = check(chat_template_jinja=own, **changes)
    assert found.code == 0, found.lines
    assert " --apply_chat_template " in found.report
    assert int(found.fact("Label tokens")) == 40  # a turn begins with its label, which is one token
    thinking = own.replace(
        "assistant\n{% endif %}",
        "assistant\n{% if enable_thinking is defined and not enable_thinking %}EMPTY{% endif %}"
        "{% endif %}",
    ).replace(
        "{{ message['content'] }}",
        "{% if message['role'] == 'assistant' %}EMPTY{% endif %}{{ message['content'] }}",
    )
    found = check(chat_template_jinja=thinking, **changes)
    assert found.code == 0, found.lines
    assert ",enable_thinking=False --apply_chat_template" in found.report
    spaced = own.replace("{{ message['content'] }}", " {{ message['content'] }}")
    found = check(chat_template_jinja=spaced, **changes)
    assert found.code == 2
    (line,) = found.of("error")
    assert "the chat template renders training and evaluation differently: trained on '<s>" in line
    assert re.search(r"assistant\\n ?[1-5]' \(lm_eval --apply_chat_template\)", line)


def model_arguments(line: str) -> dict[str, Any]:
    """The ``--model_args`` of a printed command, as bash and lm-eval read them."""
    words = shlex.split(line)
    given = words[words.index("--model_args") + 1]
    return dict(try_parse_json(given) if given.startswith("{") else simple_parse_args_string(given))


def test_the_command_scores_what_was_trained(check: Check, data: DataFolder) -> None:
    report = check().report
    command = report.strip().splitlines()[-1]
    assert command.startswith("regreason eval --model regreason-hf --model_args pretrained=")
    assert re.search(r",peft=\S+/out/models/explanation[, ]", command)
    assert "--tasks regreason_coqa_on_topic " in command
    assert json.dumps({"data_dir": str(data.path)}) in command
    assert "--apply_chat_template" not in command


def test_the_command_loads_the_model_as_the_scoring_after_the_training_does(
    check: Check, tiny_model: Path, tmp_path: Path
) -> None:
    """Precision, quantization, revision and tokenizer are those of the training."""
    tokenizer = shutil.copytree(tiny_model, tmp_path / "its,tokenizer")
    found = check(
        **{"bf16": True, "adapter": "qlora", "load_in_4bit": True, "revision_of_model": "v2"},
        tokenizer_config=str(tokenizer),
    )
    assert found.code == 0, found.lines
    output = str(tmp_path / "out/models/explanation")
    expected = {
        "pretrained": str(tiny_model),
        "peft": output,
        "revision": "v2",
        "tokenizer": str(tokenizer),
        "dtype": "bfloat16",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "bfloat16",
    }
    assert model_arguments(found.report.strip().splitlines()[-1]) == expected
    whole = check(adapter=None, lora_r=None, lora_alpha=None, bf16=False, learning_rate=1e-5)
    assert model_arguments(whole.report.strip().splitlines()[-1]) == {
        "pretrained": output,
        "dtype": "float32",
    }


def test_a_model_that_is_not_here_leaves_the_rest(check: Check) -> None:
    found = check(base_model="someone/no-such-model")
    assert found.code == 0, found.lines
    assert [line.split(":")[0] for line in found.of("not checked")] == [
        "the memory a GPU needs",
        "tokens, lengths, labels, chat template",
    ]
    assert found.fact("Rows") == "40"
    assert "GPU memory" not in found.report
    assert found.fact("Steps") == "10"
    assert "Label tokens" not in found.report


def test_a_gpu_config_needs_no_gpu(check: Check) -> None:
    found = check(
        **{"bf16": True, "tf32": True, "adapter": "qlora", "load_in_4bit": True},
        **{"attn_implementation": "flash_attention_2", "optimizer": "adamw_bnb_8bit"},
        gradient_checkpointing=True,
    )
    assert found.code == 0, found.lines
    assert found.fact("Adapter") == "qlora, r 8, alpha 16 on 4-bit weights"
    assert found.fact("GPU memory").startswith("about 0.5 GiB")


def test_a_sweep_says_once_what_all_runs_share(check: Check, tmp_path: Path) -> None:
    sweep = write_config(
        tmp_path / "sweep.yml",
        {"regreason_arm": ["label_only", "explanation"], "seed": [1, 2]},
    )
    named = {"output_dir": "models/{arm}-{seed}"}
    found = check(None, "--sweep", str(sweep), **named, weight_decay=0.1)
    assert found.code == 0, found.lines
    (decay,) = [one for one in found.of("warning") if one.startswith("weight_decay")]
    assert decay.endswith("]")
    assert decay.count("regreason_arm explanation") == 2
    assert "label_only, seed" not in decay
    (cuts,) = [one for one in found.of("warning") if "different numbers" in one]
    assert not cuts.endswith("]")
    table = re.findall(r"^(explanation|label_only) +([12]) ", found.report, flags=re.MULTILINE)
    assert sorted(table) == [(a, s) for a in ("explanation", "label_only") for s in "12"]
    (loop,) = re.findall(r"^for run in (.*); do$", found.report, flags=re.MULTILINE)
    assert sorted(loop.split()) == [
        f"models/{arm}-{seed}" for arm in ("explanation", "label_only") for seed in (1, 2)
    ]
    assert ',peft="$run",' in found.report
    assert '--output_path "$run"/results' in found.report
    assert found.fact("Steps") == "10"
    # Both seeds have the same folder, so the second training would stop.
    found = check(None, "--sweep", str(sweep), output_dir="models/{arm}")
    assert found.code == 2
    assert len(found.of("error")) == 2
    assert "models/explanation is also the folder of the run with" in "".join(found.of("error"))
    # Axolotl would make one run per letter.
    write_config(sweep, {"regreason_arm": "label_only"})
    found = check(None, "--sweep", str(sweep))
    assert found.lines == [f"regreason: {sweep}, field regreason_arm: must be a list of values"]


@pytest.mark.slow
def test_as_a_process(data: DataFolder, tiny_model: Path, tmp_path: Path) -> None:
    """Standard error has the findings only, whatever Axolotl logs, and the exit code is 2."""
    values = config(tiny_model, data.path, tmp_path / "out", sede=1, val_set_size=0.1)
    write_config(tmp_path / "config.yml", values)
    environment = {k: v for k, v in os.environ.items() if k != "AXOLOTL_DO_NOT_TRACK"}
    done = subprocess.run(
        [sys.executable, "-m", "regreason_plugin", "check", "config.yml"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in errors] == [
        "config.yml, field sede",
        "config.yml, field val_set_size",
    ]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["config.yml"]


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("regreason.json", "a model trained with another config; put the keys"),
        ("regreason_state.json", "an unfinished training with another config (regreason_st"),
        ("checkpoint-4/regreason_state.json", "an unfinished training with another config (chec"),
        ("model-00001-of-00002.safetensors", "model-00001-of-00002.safetensors, but no regrea"),
    ],
)
def test_a_fixed_folder_of_another_run(file: str, what: str, check: Check, tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / file).parent.mkdir(parents=True)
    (model / file).write_text('{"config_sha256": "0123"}')
    found = check(output_dir=str(model))
    assert found.code == 2
    (error,) = found.of("error")
    assert error.startswith(f"output_dir: {model} holds {what}")


@pytest.mark.parametrize(
    ("changes", "processes", "warned"),
    [
        ({}, 1, False),
        ({"gradient_accumulation_steps": 8}, 1, True),
        ({}, 2, True),
        ({"gradient_accumulation_steps": 8, "regreason_loss_mean": "micro_batch"}, 1, True),
        ({"gradient_accumulation_steps": 8, "regreason_loss_mean": "step"}, 2, False),
        ({"gradient_accumulation_steps": 8, "regreason_label_share": 0.5}, 2, False),
    ],
)
def test_a_loss_that_depends_on_how_a_step_is_cut_is_a_warning(
    changes: dict[str, Any], processes: int, warned: bool, check: Check
) -> None:
    found = check(None, "--processes", str(processes), **changes)
    assert found.code == 0, found.lines
    said = [
        one for one in found.of("warning") if one.startswith("regreason_loss_mean: is not step")
    ]
    assert len(said) == warned
    ours = "step" in changes.values() or "regreason_label_share" in changes
    mean = "a whole step" if ours else "each micro-batch (Axolotl's own loss)"
    assert found.fact("Loss is a mean over") == mean
