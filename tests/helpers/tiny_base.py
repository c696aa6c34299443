"""The script that makes the tiny base, loaded from its file because it is in no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

TINY_BASE = Path(__file__).parents[2] / "axolotl_configs/cpu/tiny-base"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_tiny_base", TINY_BASE.with_name("make_tiny_base.py")
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = _load()
base_corpus = script.base_corpus
make_untrained_base = script.make_untrained_base
