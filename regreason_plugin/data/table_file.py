"""The rows of a local table, whatever it is stored in."""

from __future__ import annotations

from pathlib import Path

from regreason_plugin.core.errors import UserError
from regreason_plugin.data.csv_rows import csv_rows
from regreason_plugin.data.importer import Rows
from regreason_plugin.data.sources import FORMATS, file_rows

CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
# In small letters or in capitals.
ENDINGS = (*CSV, *FORMATS)


def table_rows(path: Path, wanted: frozenset[str]) -> Rows:
    """The rows of a file.

    Args:
        path: CSV with a header, lines of JSON, a list of JSON objects, or parquet; each may be
            gzipped.
        wanted: The columns that are asked for; of a parquet file no others are read.

    Raises:
        UserError: The file is not there, or not what its name says.
    """
    name = path.name.lower()
    if name.endswith(CSV):
        return csv_rows(path, wanted)
    if path.is_file() and not name.endswith(FORMATS):
        raise UserError(f"has none of the endings {', '.join(ENDINGS)}", path=path)
    return file_rows(path, wanted)
