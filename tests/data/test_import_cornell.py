"""Cornell Movie Dialogs, in the original files and as ConvoKit's utterances."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from helpers.raw_datasets import convokit, imported, texts, write_cornell, write_lines

from regreason_plugin.core.errors import UserError

SPOKEN = [("u0", "Did you hear it?"), ("u2", "Hear what?"), ("u0", "The rain."), ("u2", "No.")]
SAID = [
    ("user", "Did you hear it?"),
    ("assistant", "Hear what?"),
    ("user", "The rain."),
    ("assistant", "No."),
]


@pytest.mark.parametrize("name", ["", "movie_lines.txt", "movie_conversations.txt"])
def test_the_original_files(tmp_path: Path, name: str) -> None:
    folder = write_cornell(tmp_path / "corpus", [("m0", SPOKEN), ("m1", SPOKEN[:3])])
    (one, two), done = imported("cornell", folder / name, tmp_path / "out.jsonl")
    assert texts(one) == SAID
    # The last speaker is the assistant.
    assert texts(two) == [
        ("assistant", "Did you hear it?"),
        ("user", "Hear what?"),
        ("assistant", "The rain."),
    ]
    assert (one.group, two.group) == ("film-m0", "film-m1")
    assert one.meta == {"film": "m0"}
    assert not done.left_out


@pytest.mark.parametrize("old", [False, True])
def test_convokit_in_any_order(tmp_path: Path, old: bool) -> None:
    utterances = convokit("m0", 100, SPOKEN, old=old) + convokit("m7", 200, SPOKEN[:2], old=old)
    for seed in range(5):
        random.Random(seed).shuffle(utterances)
        path = write_lines(tmp_path / "utterances.jsonl", utterances)
        for given in (path, tmp_path):
            conversations, done = imported("cornell", given, tmp_path / "out.jsonl")
            found = {one.group: texts(one) for one in conversations}
            assert found == {"film-m0": SAID, "film-m7": SAID[:2]}
            assert not done.left_out


def test_both_formats_give_the_same_ids(tmp_path: Path) -> None:
    folder = write_cornell(tmp_path / "corpus", [("m0", SPOKEN)])
    path = write_lines(tmp_path / "utterances.jsonl", convokit("m0", 100, SPOKEN))
    (one,), _ = imported("cornell", folder, tmp_path / "one.jsonl")
    (two,), _ = imported("cornell", path, tmp_path / "two.jsonl")
    assert one == two


def test_bytes_that_end_no_line_and_are_no_utf8(tmp_path: Path) -> None:
    spoken = [("u0", "Caf\xe9\x85 no\x1cw\x0b?"), ("u1", "It\x92s a +++$+++ b \x96 yes")]
    folder = write_cornell(tmp_path / "corpus", [("m0", spoken)])
    (got,), done = imported("cornell", folder, tmp_path / "out.jsonl")
    assert texts(got) == [
        ("user", "Caf\u00e9\u2026 now?"),
        ("assistant", "It\u2019s a +++$+++ b \u2013 yes"),
    ]
    assert not done.left_out


def test_lines_without_text_are_dropped_and_counted(tmp_path: Path) -> None:
    exchanges = [
        ("m0", [*SPOKEN[:2], ("u0", ""), ("u2", " ")]),
        ("m0", [("u0", "Alone?"), ("u2", "")]),
        ("m0", [("u0", "To myself."), ("u0", "Again.")]),
        ("m0", [*SPOKEN[:2], ("u2", "And more.")]),
    ]
    folder = write_cornell(tmp_path / "corpus", exchanges)
    (folder / "movie_lines.txt").write_bytes(
        # Like a file from an editor that strips white space at the ends of lines.
        b"\r\n".join(
            line.rstrip() for line in (folder / "movie_lines.txt").read_bytes().split(b"\n")
        )
    )
    (one, two), done = imported("cornell", folder, tmp_path / "out.jsonl", strict=True)
    assert texts(one) == SAID[:2]
    assert texts(two) == [*SAID[:2], ("assistant", "And more.")]
    assert done.left_out == {"a line without text": 3, "fewer than two people speak": 2}


def test_broken_lines(tmp_path: Path) -> None:
    folder = write_cornell(tmp_path / "corpus", [("m0", SPOKEN[:2]), ("m0", SPOKEN[2:])])
    lines, conversations = folder / "movie_lines.txt", folder / "movie_conversations.txt"
    with lines.open("ab") as stream:
        stream.write(b"L9 +++$+++ u0\n")
    with conversations.open("ab") as stream:
        stream.write(b"u0 +++$+++ u2 +++$+++ m0 +++$+++ ['L101', 'L999']\n")
        stream.write(b"u0 +++$+++ u2 +++$+++ m0 +++$+++ __import__('os')\n")
        stream.write(b"u0 +++$+++ m0 +++$+++ ['L101']\n")
    found, done = imported("cornell", folder, tmp_path / "out.jsonl")
    assert len(found) == 2
    assert done.left_out == {
        "does not have the five fields of movie_lines.txt": 1,
        "line is not in movie_lines.txt": 1,
        "does not have the four fields of movie_conversations.txt": 2,
    }
    with pytest.raises(UserError, match="movie_lines.txt, line 5: does not have the five fields"):
        imported("cornell", folder, tmp_path / "strict.jsonl", strict=True)
    lines.write_bytes(lines.read_bytes().replace(b"L9 +++$+++ u0\n", b""))
    with pytest.raises(UserError, match=r"movie_conversations.txt, line 3.*\(got 'L999'\)"):
        imported("cornell", folder, tmp_path / "strict.jsonl", strict=True)


def test_convokit_broken(tmp_path: Path) -> None:
    good = convokit("m0", 100, SPOKEN)
    torn = convokit("m0", 200, SPOKEN)
    torn[1]["text"] = None
    # The rest of this one is still a chain, but not the whole conversation.
    cut = convokit("m0", 700, SPOKEN)
    cut[-1]["text"] = None
    astray = convokit("m0", 300, SPOKEN)
    astray[2]["reply_to"] = "L999"
    filmless = convokit("m0", 400, SPOKEN[:2])
    for utterance in filmless:
        utterance["meta"] = {}
    forked = convokit("m0", 500, SPOKEN[:3])
    forked[2]["reply_to"] = "L500"
    homeless = {**convokit("m0", 600, SPOKEN)[0], "conversation_id": None}
    rows = [*good, *torn, *cut, *astray, *filmless, *forked, homeless, "{"]
    conversations, done = imported("cornell", write_lines(tmp_path / "u.jsonl", rows))
    assert [texts(one) for one in conversations] == [SAID]
    assert done.left_out == {
        "text is missing": 2,
        "reply_to does not link all utterances of the conversation": 4,
        "meta.movie_id is missing": 2,
        "conversation_id is missing": 1,
        "not a JSON object": 1,
    }
    with pytest.raises(UserError, match="u.jsonl, line 6, field text: is missing"):
        imported("cornell", tmp_path / "u.jsonl", tmp_path / "other.jsonl", strict=True)


def test_what_is_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        imported("cornell", tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no movie_lines.txt and no movie_conv.*utterances"):
        imported("cornell", tmp_path)
    (tmp_path / "movie_lines.txt").write_text("")
    with pytest.raises(UserError, match="has no movie_conversations.txt$"):
        imported("cornell", tmp_path / "movie_lines.txt")
