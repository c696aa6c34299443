"""Our plugin with Axolotl's own trainer, to hold ours against."""

from __future__ import annotations

from typing import Any

from regreason_plugin.train import RegReasonPlugin as Ours
from regreason_plugin.train.cost_meter import Meter


class RegReasonPlugin(Ours):
    """Everything of ours but the trainer."""

    def get_trainer_cls(self, cfg: Any) -> None:
        """Let Axolotl choose."""

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Check as ours does; Axolotl's trainer has nothing to prepare, and counts nothing."""
        trainer.prepare = lambda *_: None
        super().post_trainer_create(cfg, trainer)
        trainer.tally, trainer.meter = _NoTally(), Meter()


class _NoTally:
    def seen(self, _: Any) -> dict[str, int]:
        return {"label_tokens_seen": 0, "target_tokens_seen": 0}
