"""A config that would silently train the wrong thing stops with one line and exit code 2."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.plugin_calls import refused, register
from helpers.training_data import build_data, config

from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.data_folder.folder import DataFolder

pytestmark = pytest.mark.integration

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return build_data(tmp_path_factory.mktemp("refusals") / "data")


def key(name: str, value: Any) -> Change:
    """Set a top-level key."""
    return lambda values: values.update({name: value})


def without(name: str) -> Change:
    """Leave a top-level key out."""
    return lambda values: values.pop(name)


def entry(field: str, value: Any, *, name: str = "datasets") -> Change:
    """Set a key of the first file."""
    return lambda values: values[name][0].update({field: value})


def path(name: str, file: str) -> Change:
    """Point the first file at another one of the data folder."""
    return lambda values: values[name][0].update(
        path="/".join([*values[name][0]["path"].split("/")[:-2], file])
    )


UNKNOWN = "Axolotl does not know this key and would ignore it; "
ARM_MISSING = "{arm} has no value; set the key regreason_arm on the top level or in the sweep"
NOT_TRAIN = "must be a file of train/, not of "
BY_STEP, MICRO_BATCH = {"regreason_loss_mean": "step"}, {"regreason_loss_mean": "micro_batch"}
NO_TEST = "the test set must not take part in a training"
CUT = "axolotl.integrations.cut_cross_entropy"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (key("learning_rte", 1), f"learning_rte: {UNKNOWN}did you mean learning_rate?"),
        (key("regreason_arms", "x"), f"regreason_arms: {UNKNOWN}did you mean regreason_arm?"),
        (key("zzzzzz", 1), f"zzzzzz: {UNKNOWN}remove it"),
        (entry("weight", 0.5), f"datasets[0].weight: {UNKNOWN}"),
        (
            entry("spilt", "train", name="test_datasets"),
            f"test_datasets[0].spilt: {UNKNOWN}did you mean split?",
        ),
        (key("regreason_label_share", 0), "regreason_label_share: must be a number above 0"),
        (key("regreason_label_share", 1.5), "regreason_label_share: must be a number above 0"),
        (key("regreason_label_share", "half"), "regreason_label_share: must be a number above 0"),
        (key("regreason_label_smoothing", 1), "regreason_label_smoothing: must be a number from 0"),
        (
            lambda values: values.update(regreason_label_share=0.5, context_parallel_size=2),
            "context_parallel_size: must be 1 with regreason_label_share",
        ),
        (
            key("regreason_checked_config", "x"),
            "regreason_checked_config: is set by the plugin itself",
        ),
        (
            lambda values: values.update(
                regreason_label_share=0.5,
                plugins=[*values["plugins"], f"{CUT}.CutCrossEntropyPlugin"],
            ),
            "cut_cross_entropy: must be false with regreason_label_share",
        ),
        (
            lambda values: values.update(
                regreason_label_share=0.5,
                plugins=[*values["plugins"], "axolotl.integrations.liger.LigerPlugin"],
                liger_fused_linear_cross_entropy=True,
            ),
            "liger_fused_linear_cross_entropy: must be false with regreason_label_share",
        ),
        (
            lambda values: values.update(regreason_label_share=0.5, use_eaft=True),
            "use_eaft: must be false with regreason_label_share",
        ),
        (
            key("regreason_loss_mean", "steps"),
            "regreason_loss_mean: must be step or micro_batch; left out, it is micro_batch",
        ),
        (
            lambda values: values.update(regreason_label_share=0.5, **MICRO_BATCH),
            "regreason_loss_mean: must be step, or left out, with regreason_label_share, which",
        ),
        (
            lambda values: values.update(**BY_STEP, context_parallel_size=2),
            "context_parallel_size: must be 1 with regreason_loss_mean: step: the plugin",
        ),
        (
            lambda values: values.update(
                **BY_STEP, plugins=[*values["plugins"], f"{CUT}.CutCrossEntropyPlugin"]
            ),
            "cut_cross_entropy: must be false with regreason_loss_mean: step: the plugin computes",
        ),
        (
            lambda values: values.update(
                **BY_STEP,
                plugins=[*values["plugins"], "axolotl.integrations.liger.LigerPlugin"],
                liger_fused_linear_cross_entropy=True,
            ),
            "liger_fused_linear_cross_entropy: must be false with regreason_loss_mean: step",
        ),
        (
            lambda values: values.update(**BY_STEP, use_eaft=True),
            "use_eaft: must be false with regreason_loss_mean: step",
        ),
        (
            lambda values: values.update(**MICRO_BATCH, use_eaft=True),
            "use_eaft: must be false with regreason_loss_mean: micro_batch",
        ),
        (key("regreason_budget", "row"), "regreason_budget: must be rows, steps or tokens"),
        (
            key("max_steps", 9),
            "max_steps: belongs to regreason_budget: steps, but the budget is rows",
        ),
        (
            lambda values: values.update(regreason_budget="tokens", max_steps=9),
            "max_steps: belongs to regreason_budget: steps, but the budget is tokens",
        ),
        (
            key("regreason_target_tokens", 9),
            "regreason_target_tokens: belongs to regreason_budget: tokens, but the budget is rows",
        ),
        (
            key("regreason_budget", "steps"),
            "max_steps: must be a number above 0 with regreason_budget: steps",
        ),
        (
            lambda values: values.update(regreason_budget="tokens", regreason_target_tokens=0),
            "regreason_target_tokens: must be a number above 0 with regreason_budget: tokens",
        ),
        (
            lambda values: values.update(regreason_budget="tokens", regreason_target_tokens=9),
            "num_epochs: must be left out with regreason_budget: tokens",
        ),
        (key("regreason_probe_steps", 0), "regreason_probe_steps: must be a number of steps above"),
        (key("regreason_probe_rows", 0), "regreason_probe_rows: must be a number of rows above 0"),
        (
            lambda values: values.update(regreason_probe_steps=5, test_datasets=[]),
            "regreason_probe_steps: needs validation rows to measure",
        ),
        (
            lambda values: values.update(regreason_probe_steps=5, fsdp_config={"reshard": True}),
            "fsdp_config: hides the layers that regreason_probe_steps measures",
        ),
        (key("dataloader_drop_last", True), "dataloader_drop_last: must be off"),
        (key("sample_packing_sequentially", True), "sample_packing_sequentially: must be off"),
        (key("excess_length_strategy", "drop"), "excess_length_strategy: must be raise"),
        (without("excess_length_strategy"), "excess_length_strategy: must be raise"),
        (key("val_set_size", 0.05), "val_set_size: must be 0"),
        (key("train_on_inputs", True), "train_on_inputs: must be false"),
        (key("dataset_exact_deduplication", True), "dataset_exact_deduplication: must be off"),
        (key("dataset_shard_num", 2), "dataset_shard_num: must be off"),
        (key("streaming", True), "streaming: must be off"),
        (key("skip_prepare_dataset", True), "skip_prepare_dataset: must be off"),
        (key("pretraining_dataset", "x"), "pretraining_dataset: must be off"),
        (key("push_dataset_to_hub", "me/data"), "push_dataset_to_hub: must be off"),
        (key("rl", "dpo"), "rl: must be off"),
        (key("tokenizer_use_mistral_common", True), "tokenizer_use_mistral_common: must be off"),
        (entry("type", "alpaca"), "datasets[0].type: must be regreason_plugin.train.strategy"),
        (entry("type", "chat_template"), "test_datasets[0].type: must be the same for every file"),
        (entry("ds_type", "csv"), "datasets[0].ds_type: must be json"),
        (entry("split", "train[:50%]"), "datasets[0].split: must be train"),
        (entry("shards", 2), "datasets[0].shards: must be off"),
        (entry("data_files", "x.jsonl"), "datasets[0].data_files: has no effect if path"),
        (entry("name", "x"), "datasets[0].name: is set by the plugin itself"),
        (entry("roles_to_train", ["user"]), "datasets[0].roles_to_train: must be [assistant]"),
        (
            key("regreason_arm", "shufled"),
            "regreason_arm: unknown arm 'shufled'; did you mean 'shuffled'?",
        ),
        (key("regreason_arm", ["shuffled"]), f"datasets[0].path: {ARM_MISSING}"),
        (without("regreason_arm"), f"datasets[0].path: {ARM_MISSING}"),
        (key("output_dir", "models/{lora_rank}"), "output_dir: {lora_rank} has no value"),
        (
            path("datasets", "train/shuffled.jsonl"),
            "test_datasets[0].path: is of arm 'explanation', but datasets[0].path is of arm 'shuf",
        ),
        (path("datasets", "test.jsonl"), f"datasets[0].path: {NO_TEST}"),
        (path("datasets", "validation/{arm}.jsonl"), f"datasets[0].path: {NOT_TRAIN}validation/"),
        (
            path("test_datasets", "train/{arm}.jsonl"),
            "test_datasets[0].path: must be a file of validation/, not of train/",
        ),
        (path("test_datasets", "test.jsonl"), f"test_datasets[0].path: {NO_TEST}"),
        (entry("path", ""), f"datasets[0].path: {NOT_TRAIN}this folder/"),
        (without("datasets"), "datasets: lists no train file"),
    ],
)
def test_one_line_names_file_and_key(
    change: Change,
    line: str,
    data: DataFolder,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    values = config(tmp_path / "model", data.path, tmp_path / "out")
    change(values)
    assert refused(values, tmp_path, capfd).startswith(line)


def test_arms_that_differ_between_files(
    data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values = config(tmp_path, data.path, tmp_path / "out", regreason_arm=None)
    values["output_dir"] = str(tmp_path / "out")
    path("datasets", "train/shuffled.jsonl")(values)
    path("test_datasets", "validation/filler.jsonl")(values)
    line = refused(values, tmp_path, capfd)
    assert line.startswith("test_datasets[0].path: is of arm 'filler', but datasets[0].path is of")


def test_files_of_two_data_folders(
    data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = build_data(tmp_path / "other", first_label=1)
    values = config(tmp_path, data.path, tmp_path / "out")
    values["test_datasets"][0]["path"] = f"{other.path}/validation/{{arm}}.jsonl"
    line = refused(values, tmp_path, capfd)
    assert line.startswith("test_datasets[0].path: is in another data folder than")


def test_a_file_named_twice(
    data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values = config(tmp_path, data.path, tmp_path / "out")
    values["datasets"] *= 2
    assert "datasets[1].path: is the same file as datasets[0].path" in refused(
        values, tmp_path, capfd
    )


def test_data_that_is_not_there(
    data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values = config(tmp_path, tmp_path / "nowhere", tmp_path / "out")
    assert "nowhere: no such data folder" in refused(values, tmp_path, capfd)
    copy = tmp_path / "copy"
    shutil.copytree(data.path, copy)
    (copy / "manifest.json").unlink()
    values = config(tmp_path, copy, tmp_path / "out")
    assert "is not a data folder: it has no manifest.json" in refused(values, tmp_path, capfd)


def test_data_that_was_changed(
    data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data.path, copy)
    file = copy / "train/explanation.jsonl"
    file.write_bytes(file.read_bytes().replace(b"great", b"grand", 1))
    values = config(tmp_path, copy, tmp_path / "out")
    assert "explanation.jsonl: does not match the manifest" in refused(values, tmp_path, capfd)


def test_an_arm_with_fewer_rows_than_the_others(
    data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data.path, copy)
    file = copy / "train/explanation.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[1:]))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["train/explanation.jsonl"] = file_sha256(file)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    values = config(tmp_path, copy, tmp_path / "out")
    line = refused(values, tmp_path, capfd)
    assert "has 39 rows, but the manifest counts 40 for every arm" in line


def test_paths_without_placeholders_work(data: DataFolder, tmp_path: Path) -> None:
    values = config(tmp_path, data.path, tmp_path / "out", regreason_arm=None)
    values["datasets"][0]["path"] = f"{data.path}/train/shuffled.jsonl"
    values["test_datasets"] = []
    values["output_dir"] = str(tmp_path / "mine/sweep0003")
    cfg = register(values, tmp_path / "config.yml")
    assert cfg.output_dir == str(tmp_path / "mine/sweep0003")
    assert cfg.datasets[0].path == f"{data.path}/train/shuffled.jsonl"


def test_a_sweep_names_its_folders_by_the_placeholders(data: DataFolder, tmp_path: Path) -> None:
    output = tmp_path / "{arm}/seed-{seed}-lr-{learning_rate}"
    values = config(tmp_path, data.path, tmp_path, output_dir=f"{output}/sweep0002")
    cfg = register(values, tmp_path / "config.yml")
    assert cfg.output_dir == str(tmp_path / "explanation/seed-1-lr-0.002")
    assert cfg.datasets[0].path.endswith("/train/explanation.jsonl")
    assert cfg.test_datasets[0].path.endswith("/validation/explanation.jsonl")


def test_a_sweep_does_not_train_two_configs_into_one_folder(
    data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "models/explanation"
    output.mkdir(parents=True)
    values = config(tmp_path, data.path, tmp_path)
    values["output_dir"] += "/sweep0001"
    plugin = _plugin_of(register(values, tmp_path / "config.yml"))
    (output / "regreason.json").write_text(json.dumps({"config_sha256": plugin.config_sha256}))
    values = config(tmp_path, data.path, tmp_path)
    values["output_dir"] += "/sweep0002"
    register(values, tmp_path / "another.yml")  # the same config again
    values = config(tmp_path, data.path, tmp_path, learning_rate=1)
    line = refused(values, tmp_path, capfd)
    assert line.startswith(f"output_dir: {output} holds a model trained with another config")


def _leave_record(output: Path, sha256: str) -> None:
    (output / "regreason.json").write_text(json.dumps({"config_sha256": sha256}))


def _leave_checkpoint(output: Path, sha256: str) -> None:
    (output / "checkpoint-4").mkdir()
    (output / "checkpoint-4/regreason_state.json").write_text(json.dumps({"config_sha256": sha256}))


def _leave_killed(output: Path, sha256: str) -> None:
    (output / "adapter_model.safetensors").touch()
    (output / "regreason_state.json").write_text(json.dumps({"config_sha256": sha256}))


def _leave_weights(output: Path, _: str) -> None:
    (output / "adapter_model.safetensors").touch()


HOLDS = [
    (_leave_record, "a model trained with another config"),
    (
        _leave_checkpoint,
        "an unfinished training with another config (checkpoint-4/regreason_state.json)",
    ),
    (_leave_killed, "an unfinished training with another config (regreason_state.json)"),
    (
        _leave_weights,
        "adapter_model.safetensors, but no regreason.json that says how it was trained",
    ),
]


@pytest.mark.parametrize(("leave", "what"), HOLDS)
def test_two_arms_are_not_trained_into_one_fixed_folder(
    leave: Callable[[Path, str], None],
    what: str,
    data: DataFolder,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "model"
    values = config(tmp_path, data.path, tmp_path, output_dir=str(output))
    cfg = register(values, tmp_path / "config.yml")
    assert not output.exists()
    output.mkdir()
    leave(output, _plugin_of(cfg).config_sha256)
    if leave is not _leave_weights:
        register(dict(values), tmp_path / "config.yml")  # the same config again
        register({**values, "auto_resume_from_checkpoints": True}, tmp_path / "config.yml")
    line = refused({**values, "regreason_arm": "shuffled"}, tmp_path, capfd)
    assert line.startswith(f"output_dir: {output} holds {what}; put the keys that differ into")
    # Commands that do not train may use the folder, and do not lock it.
    for reading in ("merge_lora", "is_preprocess"):
        register({**values, reading: True}, tmp_path / "config.yml")
    assert (output / ".regreason.lock").exists() is False


HOLD = """
import sys, time
from pathlib import Path
from regreason_plugin.train.output_lock import OutputLock
lock = OutputLock(Path(sys.argv[1]), "config")
print("held", flush=True)
time.sleep(600)
"""


def test_two_trainings_at_once_do_not_write_one_folder(
    data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "models/explanation"
    values = config(tmp_path, data.path, tmp_path)
    command = [sys.executable, "-c", HOLD, str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            line = refused(values, tmp_path, capfd)
        finally:
            other.kill()
    assert line.startswith(f"output_dir: another run of Axolotl is using {output}; wait")
    # A killed process leaves the file, but not the lock.
    assert [path.name for path in output.iterdir()] == [".regreason.lock"]
    values = config(tmp_path, data.path, tmp_path)
    register(values, tmp_path / "config.yml")
    assert [path.name for path in output.iterdir()] == []


def test_a_folder_that_cannot_be_written_to(
    data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file/model"
    line = refused(config(tmp_path, data.path, tmp_path, output_dir=str(output)), tmp_path, capfd)
    assert line.startswith(f"output_dir: {output} cannot be written to (Not a directory); name")


def test_other_processes_of_a_run_do_not_lock(
    data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regreason_plugin.train.output_lock import OutputLock

    lock = OutputLock(tmp_path / "models/explanation", "config")
    monkeypatch.setenv("RANK", "1")
    plugin = _plugin_of(register(config(tmp_path, data.path, tmp_path), tmp_path / "config.yml"))
    assert plugin.lock is None
    lock.release()
    assert not (tmp_path / "models").exists()


def test_a_checkpoint_of_another_config_is_not_gone_on_from(
    data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"auto_resume_from_checkpoints": True}
    values = config(tmp_path, data.path, tmp_path / "out", **options)
    cfg = register(values, tmp_path / "config.yml")
    plugin = _plugin_of(cfg)
    begun = register(config(tmp_path, data.path, tmp_path / "out"), tmp_path / "config.yml")
    # A resumed run counts as the same config.
    assert _plugin_of(begun).config_sha256 == plugin.config_sha256
    checkpoint = Path(cfg.output_dir) / "checkpoint-4"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    about = {"arm": "explanation", "data_sha256": data.sha256, "config_sha256": "0123"}
    (checkpoint / "regreason_state.json").write_text(json.dumps(about))
    rows = data.manifest.counts["train"].rows
    trainer = SimpleNamespace(
        train_dataset=range(rows), accelerator=SimpleNamespace(num_processes=1)
    )
    with pytest.raises(SystemExit) as stop:
        plugin.post_trainer_create(cfg, trainer)
    assert stop.value.code == 2
    error = capfd.readouterr().err
    assert f"{checkpoint}: was written with config_sha256 0123, but this training has" in error


def _plugin_of(_: Any) -> Any:
    from axolotl.integrations.base import PluginManager

    (plugin,) = PluginManager.get_instance().plugins.values()
    return plugin


def test_packing_needs_attention_that_separates_samples(
    data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from axolotl.utils.config import validate_config

    values = config(tmp_path, data.path, tmp_path / "out", sample_packing=True)
    cfg = register(values, tmp_path / "config.yml")
    assert validate_config(cfg).sample_packing
    values = config(tmp_path, data.path, tmp_path / "out", sample_packing=True)
    values["attn_implementation"] = "someone/kernel"
    cfg = register(values, tmp_path / "config.yml")
    with pytest.raises(SystemExit) as stop:
        validate_config(cfg)
    assert stop.value.code == 2
    assert "field sample_packing: with this attention" in capfd.readouterr().err


def test_every_key_of_the_shipped_configs_is_known(
    data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    # In the current folder, a demo may have left models of other configs.
    monkeypatch.chdir(tmp_path)

    root = Path(__file__).parents[2]
    for file in (root / "axolotl_configs/cpu").glob("lora*.yml"):
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        for name in ("datasets", "test_datasets"):
            for entry in values[name]:
                entry["path"] = entry["path"].replace("runs/demo/data", str(data.path))
        cfg = register(values, file)
        assert cfg.output_dir == "runs/demo/models/explanation"
        for sweep in (root / "axolotl_configs/arms").glob("*.yml"):
            (arms,) = yaml.safe_load(sweep.read_text(encoding="utf-8")).values()
            assert set(arms) <= set(data.manifest.arms)


def test_the_arm_that_the_files_are_not_of(
    data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values = config(tmp_path, data.path, tmp_path / "out", test_datasets=None)
    path("datasets", "train/shuffled.jsonl")(values)
    line = refused(values, tmp_path, capfd)
    assert line.startswith("regreason_arm: is 'explanation', but datasets[0].path is of arm 'sh")
