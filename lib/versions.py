"""Versions of the ledger: its tables, and the step from each version to the next.

A step is one transaction, and a copy of the ledger as it was lies beside it before the step begins.
A ledger of a later version is never touched.
"""

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from lib import runs, study
from lib.errors import VotebookError

VERSION = 2
STATES = ("planned", "uploading", "uploaded", "submitting", "submitted", "collected", "released")
_TIMES = """unseen_at, short_at, not_before, changed_at, expires_at, submitted_at, ended_at,
  collected_at"""
_FACTS = "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
_SHARDS = """CREATE TABLE shards (
  id INTEGER PRIMARY KEY, shard TEXT NOT NULL UNIQUE, model TEXT NOT NULL, purpose TEXT NOT NULL,
  state TEXT NOT NULL, file TEXT NOT NULL, sha256 TEXT NOT NULL, size_bytes INTEGER NOT NULL,
  n_requests INTEGER NOT NULL, n_input_tokens INTEGER NOT NULL,
  n_cap_tokens INTEGER NOT NULL DEFAULT 0, reserved_usd REAL NOT NULL,
  fields TEXT NOT NULL REFERENCES facts (name), lost_usd REAL NOT NULL DEFAULT 0, unseen_at TEXT,
  n_short INTEGER NOT NULL DEFAULT 0, short_at TEXT, n_refusals INTEGER NOT NULL DEFAULT 0,
  not_before TEXT, changed_at TEXT NOT NULL,
  file_id TEXT UNIQUE, batch_id TEXT UNIQUE, status TEXT, n_completed INTEGER, n_failed INTEGER,
  expires_at TEXT, settled_usd REAL, submitted_at TEXT, ended_at TEXT, collected_at TEXT,
  error TEXT)"""
# A line of a shard: the 32 bytes of its key, so that a million of them take 50 MB. The primary key
# is the promise that no attempt at a request is ever planned twice.
_SENDS = """CREATE TABLE sends (
  key BLOB NOT NULL, attempt INTEGER NOT NULL, shard_id INTEGER NOT NULL REFERENCES shards (id),
  line INTEGER NOT NULL, PRIMARY KEY (key, attempt)) WITHOUT ROWID"""
_LIMITS = """CREATE TABLE limits (
  model TEXT PRIMARY KEY, limit_tokens INTEGER, window_tokens INTEGER,
  n_refusals INTEGER NOT NULL DEFAULT 0, refused_at TEXT)"""
_EVENTS = """CREATE TABLE events (
  id INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, shard TEXT, detail TEXT NOT NULL)"""
_COLUMNS = """shard, model, purpose, state, file, sha256, size_bytes, n_requests, n_input_tokens,
  reserved_usd, fields, lost_usd, unseen_at, n_refusals, not_before, changed_at, file_id, batch_id,
  status, n_completed, n_failed, expires_at, settled_usd, submitted_at, ended_at, collected_at,
  error"""
_FIELDS = re.compile("fields [0-9a-f]{16}")
# Every step ends in the latest form, also the one from nothing.
_STEPS = {
    0: (_FACTS, _SHARDS, _SENDS, _LIMITS, _EVENTS),
    1: (
        "ALTER TABLE sends RENAME TO sends_1",
        "ALTER TABLE shards RENAME TO shards_1",
        _SHARDS,
        f"INSERT INTO shards ({_COLUMNS}) SELECT {_COLUMNS} FROM shards_1 ORDER BY rowid",  # noqa: S608 - our columns
        _SENDS,
        """INSERT INTO sends
           SELECT packed(key), attempt, id, sends_1.rowid
           FROM sends_1 JOIN shards USING (shard) ORDER BY key, attempt""",
        "ALTER TABLE limits RENAME TO limits_1",
        _LIMITS,
        "INSERT INTO limits (model, limit_tokens) SELECT model, limit_tokens FROM limits_1",
        "DROP TABLE limits_1",
        "DROP TABLE sends_1",
        "DROP TABLE shards_1",
    ),
}


def prepare(connection: sqlite3.Connection, *, thorough: bool) -> None:
    """Set how the ledger is written; raise DatabaseError for one that is damaged."""
    for pragma in ("journal_mode=DELETE", "synchronous=EXTRA", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    if thorough and connection.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("integrity_check failed")


def bring(connection: sqlite3.Connection, path: Path, *, read_only: bool) -> sqlite3.Connection:
    """The ledger in the form of today, which for a reader of an older one is a copy in memory.

    Raises VotebookError for one of a later version.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        what = f"the ledger {path} has version {version}; this Votebook knows {VERSION}. Update it."
        raise VotebookError(what, path=str(path), version=version)
    if version == VERSION:
        if said := fault(connection):
            raise sqlite3.DatabaseError(said)
        return connection
    if read_only:
        older, connection = connection, sqlite3.connect(":memory:", isolation_level=None)
        with contextlib.closing(older):
            older.backup(connection)
    elif version:
        copy(connection, path.with_name(f"{path.stem}.version{version}{path.suffix}"))
    _step(connection)
    return connection


def fault(connection: sqlite3.Connection) -> str | None:
    """What stands in a ledger of today's form and cannot be, though SQLite can read it.

    A flipped bit in a value leaves the file whole: columns, states, times and details are looked
    at, and the fields by their digest.
    """
    query = "SELECT m.name || '.' || p.name FROM sqlite_master AS m, pragma_table_info(m.name) AS p"
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        for statement in _STEPS[0]:
            fresh.execute(statement)
        missing = sorted(set(fresh.execute(query)) - set(map(tuple, connection.execute(query))))
    if missing:
        return f"it has no {missing[0][0]}"
    lost = "SELECT shard FROM shards WHERE fields NOT IN (SELECT name FROM facts)"
    if found := connection.execute(lost).fetchone():
        return f"the fields of shard {found[0]} are not there"
    at = ""
    try:
        for at, state, *times in connection.execute(f"SELECT shard, state, {_TIMES} FROM shards"):  # noqa: S608 - our columns
            if state not in STATES:
                return f"shard {at} is {state!r}, which is no state"
            _check_times(times)
        for at, detail in connection.execute("SELECT at, detail FROM events"):
            _check_times([at])
            json.loads(detail)
        for at, value in connection.execute("SELECT name, value FROM facts"):
            held = json.loads(value) if value[:1] in ("{", "[") else None
            if _FIELDS.fullmatch(at) and study.digest(held)[:16] != at[7:]:
                return f"{at} are not those of that name"
    except (ValueError, TypeError) as error:
        return f"{at}: {error}"
    return None


def _check_times(times: Iterable[str | None]) -> None:
    """Raise ValueError for a time that is none, or has no zone."""
    for time in times:
        if time is not None and not datetime.fromisoformat(time).tzinfo:
            raise ValueError(f"{time} has no zone")


def copy(connection: sqlite3.Connection, path: Path) -> None:
    """Lay a copy of a ledger at `path`, whole or not at all."""
    with runs.replacing(path) as part, contextlib.closing(sqlite3.connect(part)) as target:
        connection.backup(target)


def _step(connection: sqlite3.Connection) -> None:
    """Take the one step to the form of today, unless somebody else has taken it meanwhile."""
    connection.create_function("packed", 1, bytes.fromhex, deterministic=True)
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for statement in () if version == VERSION else _STEPS[version]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    runs.crash_point("tables made")
    connection.execute("COMMIT")
    runs.crash_point("tables kept")
