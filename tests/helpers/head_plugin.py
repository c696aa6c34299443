"""A second Axolotl plugin that records the shapes of the inputs of the model's head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin


class HeadPlugin(BasePlugin):
    """Writes ``head.jsonl`` next to the model's folder: rows and columns of each batch."""

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Add a hook that records the head's inputs."""
        file = (Path(cfg.output_dir).parent / "head.jsonl").open("a", encoding="utf-8")

        def note(_module: Any, _args: Any, logits: Any) -> None:
            file.write(json.dumps(list(logits.shape[:2])) + "\n")
            file.flush()

        trainer.model.get_output_embeddings().register_forward_hook(note)
        return []
