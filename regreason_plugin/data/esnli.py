"""The dev split of e-SNLI as a table: two sentences, their relation, and three explanations.

Camburu et al. 2018, "e-SNLI: Natural Language Inference with Natural Language Explanations". The
repository has the split in six files with one line per row, in the form that the paper's models
read: punctuation separated from words, explanations in lower case. These files are downloaded. The
repository also has ``esnli_dev.csv``, in the form that people wrote, which can be converted from a
local copy.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.jsonl import open_bytes
from regreason_plugin.core.whole_files import atomic_writer
from regreason_plugin.data.public_file import PublicFile
from regreason_plugin.data.row_readers import CSV, file_rows

HOME = "https://github.com/OanaMariaCamburu/e-SNLI"
LICENCE = "explanations MIT; the sentences are SNLI's, CC BY-SA 4.0"
# The sha256 of the table made from the six files.
SHA256 = "7b03152ebad4963dcdd79d19919daff17e3e3d3c250ce543eff34703f2af0e70"

_COLUMNS = ("premise", "hypothesis", "label", "explanation_1", "explanation_2", "explanation_3")
_IN_ORIGINAL = (
    *("Sentence1", "Sentence2", "gold_label"),
    *("Explanation_1", "Explanation_2", "Explanation_3"),
)
_REPOSITORY = "OanaMariaCamburu/e-SNLI"
_SENTENCES = "c39b05bcceff28b1ea0a7fcb2fec8bea086f7e94"
_PREPROCESSED = "38f9d62ad6da930d0575e97bafa26023822130a5"
_THIRD = "b42870ea843fcea851e767e4cc98228206506db2"
# In the order of `_COLUMNS`.
FILES = (
    PublicFile(_REPOSITORY, _SENTENCES, "dataset/s1.dev"),
    PublicFile(_REPOSITORY, _SENTENCES, "dataset/s2.dev"),
    PublicFile(_REPOSITORY, _PREPROCESSED, "dataset/eSNLI/labels.dev"),
    PublicFile(_REPOSITORY, _PREPROCESSED, "dataset/eSNLI/preproc1_expl_1.dev"),
    PublicFile(_REPOSITORY, _PREPROCESSED, "dataset/eSNLI/preproc1_expl_2.dev"),
    PublicFile(_REPOSITORY, _THIRD, "dataset/preproc1_expl_3.dev"),
)


class Written(NamedTuple):
    """A table that was written.

    Attributes:
        rows: The number of rows.
        premises: The number of distinct premises, which are the groups.
        as_published: Whether the table is, byte for byte, the one made from the six files.
    """

    rows: int
    premises: int
    as_published: bool


def write_esnli(out: Path, source: Path | None) -> Written:
    """Write the table.

    Args:
        out: A CSV file.
        source: A folder with copies of the six files; or ``esnli_dev.csv``, or a table that this
            function wrote, each gzipped or not. None downloads the six files.

    Raises:
        UserError: The source cannot be downloaded or read, or has other content. Nothing is
            written.
    """
    rows = list(_rows(source))
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow((*_COLUMNS[:2], "text", *_COLUMNS[2:]))
    for premise, hypothesis, *others in rows:
        both = f"Premise: {premise}\nHypothesis: {hypothesis}"
        table.writerow((premise, hypothesis, both, *others))
    content = text.getvalue().encode()
    as_published = hashlib.sha256(content).hexdigest() == SHA256
    if source is None and not as_published:
        raise UserError(
            f"the files downloaded from {HOME} are not the ones that this release expects (the "
            f"sha256 of the table is not {SHA256}); please report it"
        )
    with atomic_writer(out) as stream:
        stream.write(content)
    return Written(len(rows), len({row[0] for row in rows}), as_published)


def _rows(source: Path | None) -> Iterator[tuple[str, ...]]:
    """The cells of each row, in the order of `_COLUMNS`."""
    if source is not None and not source.is_dir():
        yield from _table_rows(source)
        return
    columns = [_lines(file, source) for file in FILES]
    if len({len(column) for column in columns}) > 1:
        numbers = ", ".join(
            f"{file.name} {len(column):,}" for file, column in zip(FILES, columns, strict=True)
        )
        raise UserError(f"the files have different numbers of lines: {numbers}", path=source)
    yield from zip(*columns, strict=True)


def _lines(file: PublicFile, folder: Path | None) -> list[str]:
    if folder is None:
        content = file.download()
    else:
        with open_bytes(folder / file.name) as stream:
            content = stream.read()
    # A byte that is not UTF-8 becomes U+FFFD. The table then differs from the published one, which
    # `Written.as_published` reports.
    lines = content.decode(errors="replace").removesuffix("\n").split("\n")
    return [line.strip() for line in lines]


def _table_rows(path: Path) -> Iterator[tuple[str, ...]]:
    rows = file_rows(path, frozenset((*_COLUMNS, *_IN_ORIGINAL)), CSV)
    for columns in (_IN_ORIGINAL, _COLUMNS):
        if set(columns) <= (rows.fields or set()):
            for row in rows.rows:
                assert isinstance(row.value, dict)  # of a CSV
                yield tuple(row.value[name].strip() for name in columns)
            return
    raise UserError(
        f"has neither the columns {', '.join(_IN_ORIGINAL)} nor {', '.join(_COLUMNS)}; name a "
        f"copy of esnli_dev.csv from {HOME}",
        path=path,
    )
