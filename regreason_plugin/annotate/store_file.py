"""The SQLite file of a store of calls: opening it, its tables and its version."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from regreason_plugin.core.errors import UserError

_BUSY = 60.0  # seconds to wait for another process that writes
_VERSION = 1
# "RgRs" in ASCII: identifies the file to this program and to the Unix command `file`.
_APPLICATION = 0x52675273
_SCHEMA = files("regreason_plugin.annotate").joinpath("calls.sql").read_text(encoding="utf-8")
# Apart from the schema, because stores of earlier programs get it too.
_BATCHES = """CREATE TABLE IF NOT EXISTS batches (
    name  TEXT PRIMARY KEY,    -- the worker of its calls
    rater TEXT NOT NULL,
    file  TEXT,                -- the server's id of the uploaded requests
    id    TEXT,                -- the server's id of the batch
    sent  REAL                 -- when the server was asked to make the batch, seconds since 1970
) WITHOUT ROWID"""


def open_store_file(path: Path) -> sqlite3.Connection:
    """Open a store's file, or make it.

    Raises:
        UserError: The file is not a store, or a store of another version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, isolation_level=None, timeout=_BUSY)
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"cannot be opened as a store of calls: {error}", path=path) from None
    try:
        _open_in_turn(database, path)
    except (sqlite3.DatabaseError, UserError) as error:
        database.close()
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot be opened as a store of calls: {error}", path=path) from None
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """A block whose changes are all made, or none of them after an error."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if database.in_transaction:  # SQLite ends the transaction itself on a full disk
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _open_in_turn(database: sqlite3.Connection, path: Path) -> None:
    """Prepare the database; wait if another process opens or closes it at the same moment."""
    until = time.monotonic() + _BUSY
    while True:
        try:
            return _prepare(database, path)
        except sqlite3.OperationalError as error:
            # SQLite's own timeout does not cover the switch to WAL, which needs the file alone.
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    query = database.execute
    # Checked before any change, because the file may be another program's database.
    if query("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        _check_kind(database, path)
    query("PRAGMA journal_mode=WAL")
    # With NORMAL, the rows that a killed process wrote are safe; a loss of power can lose the
    # last calls, but cannot damage the store.
    query("PRAGMA synchronous=NORMAL")
    with transaction(database):
        if query("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            for statement in _statements(_SCHEMA):
                query(statement)
            query(f"PRAGMA application_id={_APPLICATION}")
            query(f"PRAGMA user_version={_VERSION}")
        _check_kind(database, path)
        if "served" not in {row[1] for row in query("PRAGMA table_info(calls)")}:
            # A store of an earlier program, which stays readable for it.
            query("ALTER TABLE calls ADD COLUMN served TEXT")
        query(_BATCHES)


def _check_kind(database: sqlite3.Connection, path: Path) -> None:
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if application != _APPLICATION:
        raise UserError(
            "is an SQLite database, but not a store of calls; choose another file",
            path=path,
        )
    if version != _VERSION:
        raise UserError(
            f"is a store of version {version}, but this program reads version {_VERSION}; "
            "choose another file",
            path=path,
        )


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
