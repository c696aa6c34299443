"""The Axolotl plugin: arguments, dataset strategy, refusal of silent mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regreason_plugin.train.plugin import RegReasonPlugin

__all__ = ["RegReasonPlugin"]


def __getattr__(name: str) -> Any:
    # Axolotl is an extra, and slow to import: only who asks for the plugin needs it.
    if name == "RegReasonPlugin":
        from regreason_plugin.train.plugin import RegReasonPlugin

        return RegReasonPlugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
