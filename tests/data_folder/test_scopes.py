"""Scopes: one model for all settings, per axis or per setting, as the listed train files decide."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.plugin_calls import refused, register
from helpers.training_data import config, read_rows

from regreason_plugin.cli import main
from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.core.paper import AXES, SETTINGS
from regreason_plugin.data_folder.build import BuildOptions
from regreason_plugin.data_folder.folder import DataFolder, open_data_folder
from regreason_plugin.data_folder.mini import build_mini
from regreason_plugin.data_folder.scopes import SCOPE_KINDS

pytestmark = pytest.mark.integration

ARMS = ("label_only", "shuffled")


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    options = BuildOptions(arms=ARMS)
    return build_mini(tmp_path_factory.mktemp("scopes") / "data", options, per_dataset=60)


@pytest.fixture(scope="module")
def scoped(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    options = BuildOptions(arms=ARMS, scopes=SCOPE_KINDS)
    return build_mini(tmp_path_factory.mktemp("scopes") / "data", options, per_dataset=60)


def test_a_scope_has_the_rows_of_the_joint_file_byte_for_byte(scoped: DataFolder) -> None:
    expected = {"test.jsonl"}
    for split in ("train", "validation"):
        for arm in ARMS:
            name = f"{split}/{arm}.jsonl"
            expected.add(name)
            lines = (scoped.path / name).read_bytes().splitlines(keepends=True)
            rows = [json.loads(line) for line in lines]
            for dataset, axis in [*SETTINGS, *((None, axis) for axis in AXES)]:
                scope = f"{dataset}_{axis}" if dataset else axis
                own = [
                    line
                    for line, row in zip(lines, rows, strict=True)
                    if row["axis"] == axis and dataset in (None, row["dataset"])
                ]
                if own:
                    file = f"{split}/{scope}/{arm}.jsonl"
                    expected.add(file)
                    assert (scoped.path / file).read_bytes() == b"".join(own)
    assert set(scoped.manifest.files) == expected
    for name, sha256 in scoped.manifest.files.items():
        assert file_sha256(scoped.path / name) == sha256
    on_disk = {str(p.relative_to(scoped.path)) for p in scoped.path.rglob("*.*") if p.is_file()}
    assert on_disk == expected | {"manifest.json", "README.md"}


def test_nothing_else_of_the_data_changes(joint: DataFolder, scoped: DataFolder) -> None:
    plain, other = (json.loads((f.path / "manifest.json").read_text()) for f in (joint, scoped))
    assert len(plain["files"]) == 5
    assert plain["files"].items() <= other["files"].items()
    assert {**plain, "files": None} == {**other, "files": None}


def test_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["build", "mini", "--out", str(tmp_path / "data"), "--per-dataset", "30", "--arms"]
    assert main([*command, "filler", "--scopes", "axis"]) == 0
    folder = open_data_folder(tmp_path / "data")
    train = {name for name in folder.manifest.files if name.startswith("train/")}
    assert train == {"train/filler.jsonl", *(f"train/{axis}/filler.jsonl" for axis in AXES)}
    assert main([*command, "filler", "--scopes", "axes"]) == 2
    assert "unknown scope 'axes'; did you mean 'axis'?" in capsys.readouterr().err


def scoped_config(data: DataFolder, scope: str | None, tmp_path: Path) -> dict[str, Any]:
    values = config(tmp_path / "model", data.path, tmp_path, regreason_arm="shuffled")
    for name, split in (("datasets", "train"), ("test_datasets", "validation")):
        values[name][0]["path"] = f"{data.path}/{split}/{{scope}}/{{arm}}.jsonl"
    values["output_dir"] = f"{tmp_path}/{{scope}}/{{variant}}/{{arm}}-{{seed}}"
    values["regreason_scope"] = scope
    return values


@pytest.mark.parametrize(
    ("scope", "variant", "output"),
    [
        (None, None, "shuffled-1"),
        ("on_topic", None, "on_topic/shuffled-1"),
        ("coqa_on_topic", "dropout", "coqa_on_topic/dropout/shuffled-1"),
        (None, "dropout", "dropout/shuffled-1"),
    ],
)
def test_what_a_config_trains(
    scope: str | None, variant: str | None, output: str, scoped: DataFolder, tmp_path: Path
) -> None:
    from axolotl.integrations.base import PluginManager

    values = scoped_config(scoped, scope, tmp_path)
    cfg = register({**values, "regreason_variant": variant}, tmp_path / "config.yml")
    assert cfg.output_dir == f"{tmp_path}/{output}"
    (plugin,) = PluginManager.get_instance().plugins.values()
    sources = plugin.sources
    name = "/".join(filter(None, ["train", scope, "shuffled.jsonl"]))
    assert (sources.arm, sources.scope, sources.files) == ("shuffled", scope, (name,))
    rows = read_rows(scoped.path, "train/label_only.jsonl")
    wanted = [
        row for row in rows if scope in (None, row["axis"], f"{row['dataset']}_{row['axis']}")
    ]
    assert sources.rows == len(wanted) > 0
    assert sources.labels() == Counter(row["label"] for row in wanted)


def test_several_settings_make_a_scope_of_their_own(scoped: DataFolder, tmp_path: Path) -> None:
    from axolotl.integrations.base import PluginManager

    values = scoped_config(scoped, None, tmp_path)
    for name, split in (("datasets", "train"), ("test_datasets", "validation")):
        entry = values[name][0]
        values[name] = [
            {**entry, "path": f"{scoped.path}/{split}/{scope}/{{arm}}.jsonl"}
            for scope in ("coqa_on_topic", "cornell_naturalness")
        ]
    register(values, tmp_path / "config.yml")
    (plugin,) = PluginManager.get_instance().plugins.values()
    assert plugin.sources.scope == "coqa_on_topic+cornell_naturalness"
    labels = scoped.manifest.counts["train"].labels
    assert plugin.sources.rows == sum(labels["regreason_coqa_on_topic"].values()) + sum(
        labels["regreason_cornell_naturalness"].values()
    )


@pytest.mark.parametrize(
    ("train", "validation", "scope", "line"),
    [
        (
            ["", "on_topic"], [], None,
            "datasets[1].path: train/on_topic/shuffled.jsonl shares rows with train/shuffled.jsonl "
            "(datasets[0].path), which would count twice",
        ),
        (
            ["coqa_on_topic", "on_topic"], [], None,
            "datasets[1].path: train/on_topic/shuffled.jsonl shares rows with train/coqa_on_topic/",
        ),
        (["on_topic", "on_topic"], [], None, "datasets[1].path: is the same file as"),
        (
            ["on_topic"], ["naturalness"], None,
            "test_datasets: validates on naturalness, but datasets trains on on_topic; list "
            "the same scopes in both",
        ),
        (["on_topic"], [""], None, "test_datasets: validates on all settings, but "),
        (
            ["coqa_on_topic", "cornell_on_topic"], ["coqa_on_topic"], None,
            "test_datasets: validates on coqa_on_topic, but datasets trains on coqa_on_topic and",
        ),
        (
            ["on_topic"], [], "naturalness",
            "regreason_scope: is 'naturalness', but datasets[0].path is of scope 'on_topic'; write "
            "{scope} in the paths",
        ),
        ([""], [], "on_topic", "regreason_scope: is 'on_topic', but datasets[0].path is of no sc"),
        (["{scope}"], [], "on_topc", "regreason_scope: unknown scope 'on_topc'; did you mean 'on"),
        (["on_topc"], [], None, "datasets[0].path: unknown scope 'on_topc'; did you mean 'on_topi"),
    ],
)  # fmt: skip
def test_what_would_count_twice_or_validate_something_else(
    train: list[str],
    validation: list[str],
    scope: str | None,
    line: str,
    scoped: DataFolder,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    values = scoped_config(scoped, scope, tmp_path)
    for name, split, scopes in (
        ("datasets", "train", train),
        ("test_datasets", "validation", validation),
    ):
        entry = values[name][0]
        values[name] = [
            {**entry, "path": f"{scoped.path}/{split}/{place}/{{arm}}.jsonl".replace("//", "/")}
            for place in scopes
        ]
    assert refused(values, tmp_path, capfd).startswith(line)


def test_a_folder_without_scopes(
    joint: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = refused(scoped_config(joint, "coqa_on_topic", tmp_path), tmp_path, capfd)
    assert f"{joint.path} has no train/coqa_on_topic/shuffled.jsonl; build the data with" in line
    assert "`--scopes setting`" in line


def test_a_scope_with_fewer_rows_than_the_manifest_counts(
    scoped: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(scoped.path, copy)
    name = "train/on_topic/shuffled.jsonl"
    lines = (copy / name).read_bytes().splitlines(keepends=True)
    (copy / name).write_bytes(b"".join(lines[1:]))
    line = refused(scoped_config(open_data_folder(copy), "on_topic", tmp_path), tmp_path, capfd)
    assert f"{name}: does not match the manifest" in line
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"][name] = file_sha256(copy / name)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    line = refused(scoped_config(open_data_folder(copy), "on_topic", tmp_path), tmp_path, capfd)
    assert f"{name}: has {len(lines) - 1} rows, but the manifest counts {len(lines)}" in line
