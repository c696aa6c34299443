"""A plugin beside ours: notes the shapes that the model's head sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin


class HeadPlugin(BasePlugin):
    """Writes ``head.jsonl`` beside the model: a list for each batch, rows and columns."""

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Listen to the head."""
        file = (Path(cfg.output_dir).parent / "head.jsonl").open("a", encoding="utf-8")

        def note(_module: Any, _args: Any, logits: Any) -> None:
            file.write(json.dumps(list(logits.shape[:2])) + "\n")
            file.flush()

        trainer.model.get_output_embeddings().register_forward_hook(note)
        return []
