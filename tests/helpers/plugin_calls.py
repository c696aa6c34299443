"""Calls of the plugin in the order in which Axolotl makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def register(values: dict[str, Any], file: Path) -> Any:
    """Register the plugin as Axolotl's `load_cfg` does, and return the resulting config."""
    from axolotl.integrations.base import PluginManager
    from axolotl.utils.dict import DictDefault

    cfg = DictDefault(values)
    cfg.axolotl_config_path = str(file)
    manager = PluginManager.get_instance()
    manager.plugins.clear()
    for name in values["plugins"]:
        manager.register(name)
    for plugin in manager.plugins.values():
        plugin.register(cfg)
        if lock := getattr(plugin, "lock", None):
            lock.release()
    return cfg


def refused(values: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The line with which the plugin refuses a config; checks the exit code, and for new files."""
    file = tmp_path / "config.yml"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        register(values, file)
    assert stop.value.code == 2
    assert sorted(tmp_path.rglob("*")) == before
    error = capfd.readouterr().err.splitlines()
    (line,) = [line for line in error if line.startswith("regreason: ")]
    return line.removeprefix("regreason: ").replace(f"{file}, field ", "")
