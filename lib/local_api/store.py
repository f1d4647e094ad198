"""The state on disk: one SQLite file for what is known, plain files for contents.

`files/ID` holds the bytes of a file, `incoming/` those of uploads under way, `work/BATCH` the
answers of a batch that is not finished. A content is complete on disk before its row exists, and a
row is committed before anybody is told, so that the process may be killed at any moment. The
journal is a rollback journal, which needs no shared memory and works on any file system.
"""

import json
import os
import sqlite3
import string
from collections.abc import Iterable
from pathlib import Path
from random import SystemRandom
from typing import NamedTuple

from lib.local_api import book
from lib.local_api.clock import Clock
from lib.local_api.context import UNFINISHED

SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (
  n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, purpose TEXT NOT NULL,
  filename TEXT NOT NULL, n_bytes INTEGER NOT NULL, created_at REAL NOT NULL, expires_at INTEGER,
  deleted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS batches (
  n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, endpoint TEXT NOT NULL,
  input_file_id TEXT NOT NULL, completion_window TEXT NOT NULL, metadata TEXT,
  output_expires_seconds INTEGER, status TEXT NOT NULL, model TEXT, errors TEXT,
  output_file_id TEXT, error_file_id TEXT, created_at REAL NOT NULL, in_progress_at REAL,
  expires_at INTEGER NOT NULL, finalizing_at REAL, completed_at REAL, failed_at REAL,
  expired_at REAL, cancelling_at REAL, cancelled_at REAL,
  n_requests INTEGER NOT NULL DEFAULT 0, n_completed INTEGER NOT NULL DEFAULT 0,
  n_failed INTEGER NOT NULL DEFAULT 0, n_input_tokens INTEGER NOT NULL DEFAULT 0,
  n_cached_tokens INTEGER NOT NULL DEFAULT 0, n_output_tokens INTEGER NOT NULL DEFAULT 0,
  n_reasoning_tokens INTEGER NOT NULL DEFAULT 0, queue TEXT,
  enqueued_tokens INTEGER NOT NULL DEFAULT 0, released_at REAL,
  order_seed INTEGER NOT NULL DEFAULT 0, n_input_bytes_done INTEGER NOT NULL DEFAULT 0,
  n_work_bytes INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS batches_by_status ON batches (status);
CREATE INDEX IF NOT EXISTS batches_by_time ON batches (created_at);
"""
ALPHANUMERIC = string.ascii_letters + string.digits
LIVE = "deleted = 0 AND (expires_at IS NULL OR expires_at > ?1)"
FOLDERS = ("files", "incoming", "work")


class Page(NamedTuple):
    """Which rows of a list are asked for: up to `n_rows` beyond row number `after`."""

    n_rows: int
    after: int | None
    oldest_first: bool = False


def opened(state: Path) -> sqlite3.Connection:
    """The database of a state folder, made when it is not there."""
    for name in FOLDERS:
        (state / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    db = sqlite3.connect(state / "service.sqlite")
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA journal_mode=DELETE")
    db.execute("PRAGMA synchronous=NORMAL")
    db.executescript(SCHEMA + book.SCHEMA)
    return db


def tidy(db: sqlite3.Connection, state: Path, now: float) -> None:
    """Remove contents that no live file and no unfinished batch needs."""
    live = db.execute(f"SELECT id FROM files WHERE {LIVE}", (now,))  # noqa: S608 - a constant
    needed = {row["id"] for row in live}
    marks = ",".join("?" * len(UNFINISHED))
    unfinished = db.execute(
        f"SELECT id, input_file_id FROM batches WHERE status IN ({marks})",  # noqa: S608 - marks
        UNFINISHED,
    ).fetchall()
    needed |= {row["input_file_id"] for row in unfinished}
    keep = {"files": needed, "work": {row["id"] for row in unfinished}, "incoming": set()}
    for folder, names in keep.items():
        for path in (state / folder).iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)


def drop_dead_files(db: sqlite3.Connection, state: Path, now: float) -> None:
    """Remove deleted and expired files that no unfinished batch reads."""
    in_use = {row["input_file_id"] for row in unfinished(db)}
    query = f"SELECT id FROM files WHERE NOT ({LIVE})"  # noqa: S608 - a constant
    dead = {row["id"] for row in db.execute(query, (now,))}
    with db:
        for file_id in dead - in_use:
            content_path(state, file_id).unlink(missing_ok=True)
            db.execute("DELETE FROM files WHERE id = ?", (file_id,))


def setting(db: sqlite3.Connection, name: str) -> str | None:
    """A value kept from one start to the next."""
    row = db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
    return row["value"] if row else None


def keep_setting(db: sqlite3.Connection, name: str, value: str) -> None:
    """Keep a value for later starts."""
    with db:
        db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))


def saved_clock(db: sqlite3.Connection) -> Clock | None:
    """The clock of the last process on this state."""
    value = setting(db, "clock")
    return Clock(**json.loads(value)) if value else None


def content_path(state: Path, file_id: str) -> Path:
    """Where the bytes of a file lie."""
    return state / "files" / file_id


def work_path(state: Path, batch_id: str) -> Path:
    """Where the answers of an unfinished batch lie."""
    return state / "work" / batch_id


def new_file_id() -> str:
    """`file-` and 22 letters or digits, as the API mints them."""
    return "file-" + "".join(SystemRandom().choices(ALPHANUMERIC, k=22))


def new_batch_id(created_at: float) -> str:
    """`batch_` and 32 hexadecimal digits, of which the first 8 are the second of creation.

    >>> new_batch_id(1766073619.5)[:14]
    'batch_69442513'
    """
    return f"batch_{int(created_at):08x}{os.urandom(12).hex()}"


def add_file(db: sqlite3.Connection, file: dict) -> None:
    """Insert a row of `files` in the current transaction; the caller commits."""
    db.execute(
        "INSERT INTO files (id, purpose, filename, n_bytes, created_at, expires_at)"
        " VALUES (:id, :purpose, :filename, :n_bytes, :created_at, :expires_at)",
        file,
    )


def live_file(db: sqlite3.Connection, file_id: str, now: float) -> sqlite3.Row | None:
    """A file that is neither deleted nor past its expiry."""
    query = f"SELECT * FROM files WHERE {LIVE} AND id = ?2"  # noqa: S608 - a constant
    return db.execute(query, (now, file_id)).fetchone()


def delete_file(db: sqlite3.Connection, file_id: str) -> None:
    """Mark a file as deleted."""
    with db:
        db.execute("UPDATE files SET deleted = 1 WHERE id = ?", (file_id,))


def input_in_use(db: sqlite3.Connection, file_id: str) -> bool:
    """Whether an unfinished batch still reads a file."""
    return any(row["input_file_id"] == file_id for row in unfinished(db))


def page_of_files(
    db: sqlite3.Connection, now: float, purpose: str | None, page: Page
) -> list[sqlite3.Row]:
    """A page of the live files, of all purposes or one."""
    sign, direction = (">", "ASC") if page.oldest_first else ("<", "DESC")
    return db.execute(
        f"SELECT * FROM files WHERE {LIVE} AND (?2 IS NULL OR purpose = ?2)"  # noqa: S608 - constants
        f" AND (?3 IS NULL OR n {sign} ?3) ORDER BY n {direction} LIMIT ?4",
        (now, purpose, page.after, page.n_rows),
    ).fetchall()


def add_batch(db: sqlite3.Connection, batch: dict) -> None:
    """Insert and commit a new batch in `validating`."""
    with db:
        db.execute(
            "INSERT INTO batches (id, endpoint, input_file_id, completion_window, metadata,"
            " output_expires_seconds, status, created_at, expires_at) VALUES (:id, :endpoint,"
            " :input_file_id, :completion_window, :metadata, :output_expires_seconds, 'validating',"
            " :created_at, :expires_at)",
            batch,
        )


def batch(db: sqlite3.Connection, batch_id: str) -> sqlite3.Row | None:
    """The row of a batch."""
    return db.execute("SELECT * FROM batches WHERE id = ?", (batch_id,)).fetchone()


def batch_of_result(db: sqlite3.Connection, file_id: str) -> str | None:
    """The batch of a result file."""
    query = "SELECT id FROM batches WHERE ?1 IN (output_file_id, error_file_id)"
    row = db.execute(query, (file_id,)).fetchone()
    return row["id"] if row else None


def batches_with_metadata(db: sqlite3.Connection, name: str) -> list[sqlite3.Row]:
    """Batches in whose metadata a name stands, or a word that holds it."""
    query = "SELECT * FROM batches WHERE instr(metadata, ?)"
    return db.execute(query, (name,)).fetchall()


def page_of_batches(db: sqlite3.Connection, page: Page) -> list[sqlite3.Row]:
    """A page of the batches, newest first."""
    query = "SELECT * FROM batches WHERE ?1 IS NULL OR n < ?1 ORDER BY n DESC LIMIT ?2"
    return db.execute(query, (page.after, page.n_rows)).fetchall()


def unfinished(db: sqlite3.Connection) -> list[sqlite3.Row]:
    """Batches under way, oldest first."""
    marks = ",".join("?" * len(UNFINISHED))
    query = f"SELECT * FROM batches WHERE status IN ({marks}) ORDER BY n"  # noqa: S608 - marks
    return db.execute(query, UNFINISHED).fetchall()


def change_batch(
    db: sqlite3.Connection,
    batch_id: str,
    files: Iterable[dict] = (),
    booked: Iterable[tuple] = (),
    **columns: object,
) -> None:
    """Set columns of a batch, add files and entries of the book, in one transaction."""
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    query = f"UPDATE batches SET {assignments} WHERE id = :batch_id"  # noqa: S608 - our own names
    with db:
        for file in files:
            add_file(db, file)
        book.write(db, booked)
        db.execute(query, {**columns, "batch_id": batch_id})


def n_batches_since(db: sqlite3.Connection, instant: float) -> int:
    """How many batches were created after a service time."""
    query = "SELECT count(*) FROM batches WHERE created_at > ?"
    return db.execute(query, (instant,)).fetchone()[0]


def enqueued_tokens(db: sqlite3.Connection, queue: str, now: float) -> int:
    """Tokens that unfinished batches of a queue hold, and ended ones not yet released."""
    query = (
        "SELECT coalesce(sum(enqueued_tokens), 0) FROM batches"
        " WHERE queue = ? AND (released_at IS NULL OR released_at > ?)"
    )
    return db.execute(query, (queue, now)).fetchone()[0]
