"""The tokens that Axolotl trains on, and those that lm-eval's `hf` scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.scoring import task_manager
from helpers.training_data import write_config
from lm_eval.tasks import TaskManager

from regreason_plugin.core.jsonl import file_sha256
from regreason_plugin.data_folder.folder import DataFolder

Trained = Callable[..., list[dict[str, Any]]]


@contextmanager
def trained_rows(file: Path) -> Iterator[Trained]:
    """Yield a function that loads a config's training rows as `axolotl train` does.

    The rows keep the order of the file.

    Args:
        file: File to which the config is written.
    """
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets
    from axolotl.integrations.base import PluginManager
    from axolotl.utils.tee import close_debug_log

    def load(values: dict[str, Any]) -> list[dict[str, Any]]:
        write_config(file, {**values, "shuffle_merged_datasets": False})
        cfg = load_cfg(str(file))
        PluginManager.get_instance().load_datasets(cfg)
        rows: list[dict[str, Any]] = load_datasets(cfg=cfg).train_dataset.to_list()
        return rows

    yield load
    close_debug_log()


def hf_scorer(model: Path, **arguments: Any) -> Any:
    """lm-eval's own model."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(model), device="cpu", **arguments)


def special_ids(model: Path) -> set[int]:
    """The ids of all tokens of a model's tokenizer that are not text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)


def label_requests(
    rows: list[dict[str, Any]],
    data: DataFolder,
    place: Path,
    manager: Callable[[Path], TaskManager] = task_manager,
    **chat: Any,
) -> dict[str, tuple[str, str]]:
    """The requests of the real tasks for the true label of each train row.

    The train rows replace the test file, so that the same rows are trained and scored.

    Returns:
        The pair (context, continuation) of a row's label, by row id.
    """
    shutil.copytree(data.path, place)
    questions = [{**row, "messages": row["messages"][:1]} for row in rows]
    file = place / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in questions), encoding="utf-8")
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["files"]["test.jsonl"] = file_sha256(file)
    (place / "manifest.json").write_text(json.dumps(manifest))
    # The folder may have several tasks; this is the one of these rows.
    setting = rows[0]["dataset"], rows[0]["axis"]
    declared = data.declaration
    naming = declared.task_name if data.order == "label_first" else declared.twin_name
    name = naming(*setting)
    task = manager(place).load_task_or_group([name])[name]
    task.build_all_requests(**chat)
    written = {row["id"]: row for row in rows}
    asked = {}
    for request in task.instances:
        row = written[request.doc["id"]]
        if request.request_type == "generate_until":
            # The answer of a model that writes exactly its training target.
            request.resps = [" " + row["messages"][1]["content"]]
        elif request.idx == row["label"] - (data.order == "label_first"):
            asked[row["id"]] = request.args
    return asked


def with_chat_template(values: dict[str, Any], **more: str) -> dict[str, Any]:
    """A config with Axolotl's strategy for chat models."""
    for name in ("datasets", "test_datasets"):
        for entry in values.get(name, []):
            entry |= {"type": "chat_template", "field_messages": "messages", **more}
    return values
