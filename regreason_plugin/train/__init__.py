"""The Axolotl plugin: config keys, dataset strategy, trainer, and the checks before a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regreason_plugin.train.plugin import RegReasonPlugin

__all__ = ["RegReasonPlugin"]


def __getattr__(name: str) -> Any:
    # Import on first use: Axolotl is an optional dependency and slow to import.
    if name == "RegReasonPlugin":
        from regreason_plugin.train.plugin import RegReasonPlugin

        return RegReasonPlugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
