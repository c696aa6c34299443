"""`regreason fetch configs`: copies the shipped configs so that they work in their new folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from regreason_plugin.cli import main
from regreason_plugin.task import shipped_configs

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "axolotl_configs"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_by_default_the_same_bytes_under_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", "configs"]) == 0
    copied = tree(tmp_path / "axolotl_configs")
    assert copied == tree(SHIPPED)
    assert {"README.md", "cpu/tiny-base/model.safetensors", "deepspeed/zero3.json"} <= set(copied)
    printed = capsys.readouterr().out.splitlines()
    written = {line.removeprefix("Written: axolotl_configs/") for line in printed}
    assert set(copied) <= written
    assert printed[-1].endswith(
        "axolotl train axolotl_configs/cpu/lora.yml --sweep axolotl_configs/arms/explanation.yml"
    )
    # A second run has nothing to do and does not complain.
    assert main(["fetch", "configs"]) == 0
    assert "Written" not in capsys.readouterr().out


@pytest.mark.parametrize("place", ["mine/configs", "absolute"])
def test_what_names_its_folder_names_the_copy(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dest = str(tmp_path / "there") if place == "absolute" else place
    assert main(["fetch", "configs", "--out", dest]) == 0
    base = yaml.safe_load(Path(dest, "cpu/lora.yml").read_text())["base_model"]
    assert base == f"{dest}/cpu/tiny-base"
    assert Path(base, "config.json").is_file()
    for name, content in tree(Path(dest)).items():
        own = (SHIPPED / name).read_bytes()
        if name.endswith((".yml", ".md", ".json")):
            # No command and no path still names the checkout's folder.
            assert b"axolotl_configs/" not in content
            assert own == content.replace(dest.encode(), b"axolotl_configs")
        else:
            assert own == content


def test_a_changed_file_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "axolotl_configs/cpu/lora.yml"
    mine.parent.mkdir(parents=True)
    mine.write_text("seed: 7\n")
    assert main(["fetch", "configs"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(
        "regreason: axolotl_configs/cpu/lora.yml: already exists with other content;"
    )
    assert tree(tmp_path) == {"axolotl_configs/cpu/lora.yml": b"seed: 7\n"}


@pytest.mark.parametrize(
    ("dest", "expected"),
    [("a b", "letters, digits"), ("a: {b}", "letters, digits"), ("file", "is not a folder")],
)
def test_a_folder_that_cannot_be(
    dest: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    assert main(["fetch", "configs", "--out", dest]) == 2
    assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_from_a_wheel_the_package_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Like an installed wheel: the folder is inside the package, not next to it.
    package = tmp_path / "site-packages/regreason_plugin"
    inside = package / "axolotl_configs/cpu"
    inside.mkdir(parents=True)
    (inside / "lora.yml").write_text("base_model: axolotl_configs/cpu/tiny-base\n")
    monkeypatch.setattr(shipped_configs, "__file__", str(package / "task/shipped_configs.py"))
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", "configs", "--out", "mine"]) == 0
    assert tree(tmp_path / "mine") == {"cpu/lora.yml": b"base_model: mine/cpu/tiny-base\n"}


def test_every_deepspeed_file_is_json() -> None:
    for file in (SHIPPED / "deepspeed").glob("*.json"):
        assert json.loads(file.read_text())["zero_optimization"]["stage"] in (1, 2, 3)
