"""Topical-Chat responses that people have scored: what any rater can be held against.

Mehri and Eskenazi 2020, "USR: An Unsupervised and Reference Free Evaluation Metric for Dialog
Generation", let three people score 360 responses, six systems in each of 60 dialogues; UniEval
publishes their means. Two of those scores have an axis here: "natural" (1 to 3) is naturalness, and
"maintains context" (1 to 3; UniEval's coherence) is the nearest there is to on-topic. The overall
score (1 to 5) is of no axis and is the label of a table, for a task of its own.
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

# The axes that people's scores have, with their names in the file and their highest.
_SCORES = {"naturalness": ("naturalness", 3), "on_topic": ("coherence", 3)}
_OVERALL = ("overall", 5)
# What the file has in place of knowledge.
_NO_KNOWLEDGE = "_nofact"


class Files(NamedTuple):
    """What is written into a folder.

    Attributes:
        conversations: A dialogue with one response each, to be rated.
        golden: People's labels of these, for `regreason aggregate --golden`.
        table: The same responses with people's labels, for `regreason task new`.
        config: Lets the built-in rules rate the conversations.
    """

    conversations: Path
    golden: Path
    table: Path
    config: Path


def write_topical_usr(out: Path, source: Path | None) -> Files:
    """Write the conversations, the golden set, the table and a config.

    Args:
        out: A folder.
        source: A copy of the published file, gzipped or not; None downloads it.

    Raises:
        UserError: It cannot be had, or is another file. Nothing is written.
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
            f"is not the file at {FILE.url} (its sha256 has to be {SHA256}); download that one",
            path=source or FILE.url,
        )
    return list(json.loads(content))


def _conversation(number: int, response: dict[str, Any]) -> Conversation:
    """A dialogue with a response; who speaks before the response is the user."""
    lines = [line.strip() for line in response["source"].strip().split("\n")]
    roles = ["assistant" if back % 2 else "user" for back in reversed(range(len(lines)))]
    turns = [turn(role, line) for role, line in zip(roles, lines, strict=True)]
    knowledge = response["context"].strip()
    one = conversation(
        TOPICAL_USR,
        [*turns, turn("assistant", response["system_output"])],
        # Some dialogues are the beginning of another.
        group=text_group(lines[0]),
        context=None if knowledge == _NO_KNOWLEDGE else knowledge,
        meta={"system": response["system_id"]},
    )
    # Not by content: two systems may have said the same, and people scored both.
    return one.model_copy(update={"id": f"{TOPICAL_USR}-{number}"})


def _label(scores: dict[str, float], name: str, highest: int) -> int:
    """People's mean score as a label of 1 to 5."""
    return round_half_up(rescale(scores[name], highest))
