"""Cornell Movie Dialogs: exchanges between two characters of a film.

A conversation of the corpus is one conversation here. Its last line is rated: who speaks
it is the assistant, the other is the user, and two lines of one person in a row stay
two. Lines without text are dropped (and counted), so the last line is the last that says
something; what only one person is left to speak in is no conversation. Group: the film.

Two formats. The original ``movie_lines.txt`` and ``movie_conversations.txt``, which are
not UTF-8 and hold characters that some readers take for line ends. And ConvoKit's
``utterances.jsonl``, one utterance a line in any order, which ``reply_to`` puts in order.
Either way all lines are held in memory: the corpus has 300,000 short ones.
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
    """The conversation of a row: ``movie``, and ``lines`` of speaker and text.

    Raises:
        LeftOut: Fewer than two people say something.
    """
    said = [(speaker, clean(text)) for speaker, text in row["lines"]]
    spoken = [(speaker, text) for speaker, text in said if text]
    for _ in range(len(said) - len(spoken)):
        yield LeftOut("a line without text", broken=False)
    if len({speaker for speaker, _ in spoken}) < 2:
        raise LeftOut("fewer than two people say something", broken=False)
    answering = spoken[-1][0]
    yield conversation(
        dataset,
        [turn("assistant" if speaker == answering else "user", text) for speaker, text in spoken],
        group=named_group("film", row["movie"]),
        meta={"film": row["movie"]},
    )


def open_path(path: Path) -> SourceRows | Path:
    """The conversations of the original files, given their folder or one of them.

    Returns:
        What the original files hold; or the file of ConvoKit to read.

    Raises:
        UserError: A folder without either, or one of the two without the other.
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
    """The same files, downloaded (41 MB) to the Hub's cache."""
    from huggingface_hub import hf_hub_download

    try:
        lines, conversations = (
            Path(hf_hub_download(hub.repository, name, repo_type="dataset"))
            for name in (LINES, CONVERSATIONS)
        )
    except Exception as error:  # offline, not found, gated, a full disk: all the user's
        raise hub_error(hub.repository, hub, error) from error
    return _original(lines, conversations)


def _original(lines: Path, conversations: Path) -> SourceRows:
    def rows() -> Iterator[SourceRow]:
        spoken: dict[str, tuple[str, str]] = {}
        for number, text in _read(lines):
            fields = text.split(_SEPARATOR, 4)
            if len(fields) < 5:
                yield SourceRow(str(lines), number, LeftOut(f"not five fields of {LINES}"))
            else:
                spoken[fields[0].strip()] = (fields[1].strip(), fields[4])
        for number, text in _read(conversations):
            yield SourceRow(str(conversations), number, _exchange(text, spoken))

    return SourceRows(count_lines(conversations), rows())


def _exchange(text: str, spoken: dict[str, tuple[str, str]]) -> dict[str, Any] | LeftOut:
    fields = text.split(_SEPARATOR)
    ids = _IDS.fullmatch(fields[-1].strip())
    if len(fields) != 4 or ids is None:
        return LeftOut(f"not four fields of {CONVERSATIONS}")
    names = re.findall(r"\w+", ids[1])
    for name in names:
        if name not in spoken:
            return Malformed(f"is not in {LINES}", "line", name)
    return {"movie": fields[2].strip(), "lines": [spoken[name] for name in names]}


def _read(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as stream:
        # As bytes, lines end on LF alone; str.splitlines would also split at 0x85 and 0x1c.
        for number, raw in enumerate(stream, start=1):
            text = raw.rstrip(b"\r\n").decode("latin-1")
            if text.endswith(_SEPARATOR.rstrip()):
                text += " "  # an editor that strips spaces took it from before an empty text
            if text.strip():
                yield number, text


class _Utterance(NamedTuple):
    name: str
    speaker: str
    text: str
    after: str | None
    movie: str


def gather(rows: Iterable[SourceRow]) -> Iterator[SourceRow]:
    """ConvoKit's utterances as conversations, each where its first utterance stands."""
    found: dict[str, tuple[SourceRow, list[_Utterance]]] = {}
    # Of these an utterance is missing: what is left of them is another conversation.
    torn: set[str] = set()
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
            torn.add(name)
            yield row._replace(value=problem)
            continue
        # Without its value, as there are hundreds of megabytes of parses in it.
        found.setdefault(name, (row._replace(value={}), []))[1].append(utterance)
    for name, (row, utterances) in found.items():
        chain = None if name in torn else _chain(utterances)
        if chain is None:
            yield row._replace(
                value=Malformed("does not lead through the whole conversation", "reply_to")
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
    """In the order in which each replies to the one before; None if there is none."""
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
