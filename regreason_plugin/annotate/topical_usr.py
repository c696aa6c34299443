"""Topical-Chat responses with people's scores, a golden set for any rater.

In Mehri and Eskenazi 2020, "USR: An Unsupervised and Reference Free Evaluation Metric for Dialog
Generation", three people scored 360 responses, those of six systems in each of 60 dialogues;
UniEval publishes the mean scores. Two of these scores match an axis: "natural" (1 to 3) is
naturalness, and "maintains context" (1 to 3; named coherence by UniEval) is the closest to
on-topic. The overall score (1 to 5) matches no axis; it becomes the label of a table, for a
separate task.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

from regreason_plugin.annotate.scores import rescale, round_half_up
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import dumps, open_bytes, write_records
from regreason_plugin.core.paper import TOPICAL_USR
from regreason_plugin.core.records import Conversation
from regreason_plugin.core.whole_files import atomic_writer, together
from regreason_plugin.core.yaml_file import dump_yaml
from regreason_plugin.data.groups import text_group
from regreason_plugin.data.importer import conversation, turn
from regreason_plugin.data.public_file import PublicFile

FILE = PublicFile(
    "maszhongming/UniEval",
    "9d9b51dc716f40f6b454a4455c7fe2f843aabfbb",
    "reproduce/data/dialogue/topical_chat.json",
)
SHA256 = "f6361daa6fe162f636d2071a60322a784acd770be0bf3a6920ac949d751b978a"

# By axis: the name of people's score in the file, and its highest value.
_SCORES = {"naturalness": ("naturalness", 3), "on_topic": ("coherence", 3)}
_OVERALL = ("overall", 5)
# The file's placeholder for a dialogue without background knowledge.
_NO_KNOWLEDGE = "_nofact"


class Files(NamedTuple):
    """The files that `write_topical_usr` writes.

    Attributes:
        conversations: The conversations to rate: each is a dialogue with one response.
        golden: People's labels of the conversations, for `regreason aggregate --golden`.
        table: The same responses with people's labels, for `regreason task new`.
        config: A config of `regreason annotate` in which the built-in rules rate the conversations.
    """

    conversations: Path
    golden: Path
    table: Path
    config: Path


def write_topical_usr(out: Path, source: Path | None) -> Files:
    """Write the conversations, the golden set, the table and a config.

    Args:
        out: The folder to write to.
        source: A copy of the published file, gzipped or not; None to download the file.

    Raises:
        UserError: The file cannot be downloaded or read, or is not the published one. Nothing is
            written then.
    """
    responses = _read(source)
    names = ("conversations.jsonl", "golden.jsonl", "responses.csv", "annotate.yml")
    files = Files(*(out / name for name in names))
    conversations = [
        _conversation(number, response) for number, response in enumerate(responses, start=1)
    ]
    golden, table = io.StringIO(), io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(("text", "dialogue", "system", *_SCORES, _OVERALL[0]))
    for response, one in zip(responses, conversations, strict=True):
        scores = response["scores"]
        labels = {axis: _label(scores, *score) for axis, score in _SCORES.items()}
        for axis, label in labels.items():
            golden.write(dumps({"id": one.id, "axis": axis, "label": label}) + "\n")
        said = [turn.content for turn in one.conversation]
        text = "\n".join([*(f"- {line}" for line in said[:-1]), f"Response: {said[-1]}"])
        overall = _label(scores, *_OVERALL)
        rows.writerow((text, one.group, response["system_id"], *labels.values(), overall))
    config = {"conversations": [str(files.conversations)], "out": str(out / "ratings.jsonl")}
    with together():
        write_records(files.conversations, conversations)
        for path, content in (
            (files.golden, golden.getvalue()),
            (files.table, table.getvalue()),
            (files.config, dump_yaml(config)),
        ):
            with atomic_writer(path) as stream:
                stream.write(content.encode())
    return files


def _read(source: Path | None) -> list[dict[str, Any]]:
    if source is None:
        content = FILE.download()
    else:
        with open_bytes(source) as stream:
            content = stream.read()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(
            f"is not the file at {FILE.url}, whose sha256 is {SHA256}; download that file",
            path=source or FILE.url,
        )
    return list(json.loads(content))


def _conversation(number: int, response: dict[str, Any]) -> Conversation:
    """A dialogue with a response as a conversation; the user speaks last before the response."""
    lines = [line.strip() for line in response["source"].strip().split("\n")]
    roles = ["assistant" if back % 2 else "user" for back in reversed(range(len(lines)))]
    turns = [turn(role, line) for role, line in zip(roles, lines, strict=True)]
    knowledge = response["context"].strip()
    one = conversation(
        TOPICAL_USR,
        [*turns, turn("assistant", response["system_output"])],
        # Some dialogues are the beginning of another one, so their first line is the group.
        group=text_group(lines[0]),
        context=None if knowledge == _NO_KNOWLEDGE else knowledge,
        meta={"system": response["system_id"]},
    )
    # The id is numbered, not a hash of the text, because equal responses have separate scores.
    return one.model_copy(update={"id": f"{TOPICAL_USR}-{number}"})


def _label(scores: dict[str, float], name: str, highest: int) -> int:
    """People's mean score as a label from 1 to 5."""
    return round_half_up(rescale(scores[name], highest))
