"""Our plugin with Axolotl's trainer in place of ours, for comparison."""

from __future__ import annotations

from typing import Any

from regreason_plugin.train import RegReasonPlugin as Ours
from regreason_plugin.train.cost_meter import Meter


class RegReasonPlugin(Ours):
    """Our plugin without our trainer."""

    def get_trainer_cls(self, cfg: Any) -> None:
        """Let Axolotl choose its own trainer."""

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Run our checks only; Axolotl's trainer needs no preparation and counts no tokens."""
        trainer.prepare = lambda *_: None
        super().post_trainer_create(cfg, trainer)
        trainer.tally, trainer.meter = _NoTally(), Meter()


class _NoTally:
    def seen(self, _: Any) -> dict[str, int]:
        return {"label_tokens_seen": 0, "target_tokens_seen": 0}
