"""Cornell Movie Dialogs: exchanges between two characters of a film.

Each conversation of the corpus gives one conversation. Its last line is rated: the speaker of that
line is the assistant, the other speaker is the user. Two consecutive lines of one speaker stay two
turns. Lines without text are dropped and counted, so the last line always has text. A conversation
in which only one person speaks is left out. The group is the film.

There are two formats. The original ``movie_lines.txt`` and ``movie_conversations.txt`` are not
UTF-8 and contain characters that some readers treat as line ends. ConvoKit's ``utterances.jsonl``
has one utterance per line, and ``reply_to`` puts the utterances in order. In both cases all lines
are held in memory: the corpus has 300,000 short ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import count_lines
from regreason_plugin.core.records import Conversation
from regreason_plugin.data.groups import named_group
from regreason_plugin.data.importer import Importer, conversation, text_of, turn
from regreason_plugin.data.row_readers import hub_error
from regreason_plugin.data.source_rows import HubDataset, LeftOut, Malformed, SourceRow, SourceRows
from regreason_plugin.data.text_cleaning import clean

LINES = "movie_lines.txt"
CONVERSATIONS = "movie_conversations.txt"
UTTERANCES = "utterances.jsonl"

_SEPARATOR = " +++$+++ "
_IDS = re.compile(r"\[\s*('\w+'(\s*,\s*'\w+')*)\s*\]")


def convert(dataset: str, row: dict[str, Any]) -> Iterator[Conversation | LeftOut]:
    """Yield the conversation of a row, which has ``movie``, and ``lines`` of speaker and text.

    Raises:
        LeftOut: Fewer than two people speak.
    """
    lines = [(speaker, clean(text)) for speaker, text in row["lines"]]
    spoken = [(speaker, text) for speaker, text in lines if text]
    for _ in range(len(lines) - len(spoken)):
        yield LeftOut("a line without text", broken=False)
    if len({speaker for speaker, _ in spoken}) < 2:
        raise LeftOut("fewer than two people speak", broken=False)
    answering = spoken[-1][0]
    yield conversation(
        dataset,
        [turn("assistant" if speaker == answering else "user", text) for speaker, text in spoken],
        group=named_group("film", row["movie"]),
        meta={"film": row["movie"]},
    )


def open_path(path: Path) -> SourceRows | Path:
    """Open the original files, given their folder or one of the two.

    Returns:
        The conversations of the original files; or, if the path is not one of theirs, the path of
        ConvoKit's file.

    Raises:
        UserError: The folder has files of neither format, or only one of the two original files.
    """
    if not path.is_dir() and path.name not in (LINES, CONVERSATIONS):
        return path
    if not path.exists():
        raise UserError("no such file", path=path)
    folder = path if path.is_dir() else path.parent
    missing = [name for name in (LINES, CONVERSATIONS) if not (folder / name).is_file()]
    if not missing:
        return _original(folder / LINES, folder / CONVERSATIONS)
    if path.is_dir():
        for name in (UTTERANCES, f"{UTTERANCES}.gz"):
            if (path / name).is_file():
                return path / name
    also = f", nor {UTTERANCES} of ConvoKit" if path.is_dir() else ""
    raise UserError(f"has no {' and no '.join(missing)}{also}", path=folder)


def open_hub(hub: HubDataset) -> SourceRows:
    """Open the original files from the Hub, downloaded (41 MB) to the Hub's cache."""
    from huggingface_hub import hf_hub_download

    try:
        lines, conversations = (
            Path(hf_hub_download(hub.repository, name, repo_type="dataset"))
            for name in (LINES, CONVERSATIONS)
        )
    except Exception as error:  # offline, not found, gated, full disk: the user can fix all of them
        raise hub_error(hub.repository, hub, error) from error
    return _original(lines, conversations)


def _original(lines: Path, conversations: Path) -> SourceRows:
    def rows() -> Iterator[SourceRow]:
        spoken: dict[str, tuple[str, str]] = {}
        for number, text in _read(lines):
            fields = text.split(_SEPARATOR, 4)
            if len(fields) < 5:
                reason = f"does not have the five fields of {LINES}"
                yield SourceRow(str(lines), number, LeftOut(reason))
            else:
                spoken[fields[0].strip()] = (fields[1].strip(), fields[4])
        for number, text in _read(conversations):
            yield SourceRow(str(conversations), number, _exchange(text, spoken))

    return SourceRows(count_lines(conversations), rows())


def _exchange(text: str, spoken: dict[str, tuple[str, str]]) -> dict[str, Any] | LeftOut:
    fields = text.split(_SEPARATOR)
    ids = _IDS.fullmatch(fields[-1].strip())
    if len(fields) != 4 or ids is None:
        return LeftOut(f"does not have the four fields of {CONVERSATIONS}")
    names = re.findall(r"\w+", ids[1])
    for name in names:
        if name not in spoken:
            return Malformed(f"is not in {LINES}", "line", name)
    return {"movie": fields[2].strip(), "lines": [spoken[name] for name in names]}


def _read(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as stream:
        # A binary stream ends lines only at LF; str.splitlines would also split at 0x85 and 0x1c.
        for number, raw in enumerate(stream, start=1):
            text = raw.rstrip(b"\r\n").decode("latin-1")
            if text.endswith(_SEPARATOR.rstrip()):
                text += " "  # the space before an empty text, if an editor stripped it
            if text.strip():
                yield number, text


class _Utterance(NamedTuple):
    name: str
    speaker: str
    text: str
    after: str | None
    movie: str


def gather(rows: Iterable[SourceRow]) -> Iterator[SourceRow]:
    """Gather ConvoKit's utterances into conversations, in the order of their first utterances."""
    conversations: dict[str, tuple[SourceRow, list[_Utterance]]] = {}
    # Conversations that lack an utterance; the rest would be a different conversation.
    incomplete: set[str] = set()
    for row in rows:
        if isinstance(row.value, LeftOut):
            yield row
            continue
        name = row.value.get("conversation_id", row.value.get("root"))
        if not isinstance(name, str):
            yield row._replace(value=Malformed("is missing", "conversation_id"))
            continue
        try:
            utterance = _utterance(row.value)
        except Malformed as problem:
            incomplete.add(name)
            yield row._replace(value=problem)
            continue
        # The value is dropped, because the parses in it take hundreds of megabytes.
        conversations.setdefault(name, (row._replace(value={}), []))[1].append(utterance)
    for name, (row, utterances) in conversations.items():
        chain = None if name in incomplete else _chain(utterances)
        if chain is None:
            yield row._replace(
                value=Malformed("does not link all utterances of the conversation", "reply_to")
            )
        else:
            lines = [(utterance.speaker, utterance.text) for utterance in chain]
            yield row._replace(value={"movie": chain[0].movie, "lines": lines})


def _utterance(row: dict[str, Any]) -> _Utterance:
    after = row.get("reply_to", row.get("reply-to"))
    meta = row.get("meta")
    return _Utterance(
        text_of(row, "id"),
        text_of(row, "speaker" if "speaker" in row else "user"),
        text_of(row, "text"),
        after if isinstance(after, str) else None,
        text_of(meta if isinstance(meta, dict) else {}, "movie_id", "meta."),
    )


def _chain(utterances: list[_Utterance]) -> list[_Utterance] | None:
    """The utterances, each as the reply to the one before; None if they form no such chain."""
    following = {utterance.after: utterance for utterance in utterances}
    chain: list[_Utterance] = []
    last = None
    while last in following and len(chain) < len(utterances):
        chain.append(following[last])
        last = chain[-1].name
    return chain if len(chain) == len(utterances) == len(following) else None


IMPORTER = Importer(
    datasets=("cornell",),
    convert=convert,
    forms=tuple(
        frozenset({"id", "text", speaker, conversation})
        for speaker, conversation in (("speaker", "conversation_id"), ("user", "root"))
    ),
    also=frozenset({"reply_to", "reply-to", "meta"}),
    hub={"default": HubDataset("spawn99/CornellMovieDialogCorpus")},
    open_path=open_path,
    open_hub=open_hub,
    gather=gather,
)
