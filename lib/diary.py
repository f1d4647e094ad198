"""The diary: the ledger's events as lines of JSON for people to read and grep; never read back."""

import json
import sqlite3
from pathlib import Path

from lib import runs


def last(book: sqlite3.Connection) -> int:
    """The number of the latest event; 0 before the first."""
    return book.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]


def write(book: sqlite3.Connection, path: Path) -> None:
    """Write all events, oldest first: at, kind, shard, and the members of their details."""
    rows = book.execute("SELECT at, kind, shard, detail FROM events ORDER BY id")
    with runs.replacing(path) as part, part.open("w", encoding="utf-8") as file:
        for at, kind, shard, detail in rows:
            line = {"at": at, "kind": kind, "shard": shard, **json.loads(detail)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
