"""What has been read already: finds documents that come twice, by text and by id.

Keeps 16-byte digests in a private SQLite database that moves to a temporary file when it outgrows
its cache (16 MB), so that memory does not grow with the corpus. On disk it takes about 100 MB per
million documents.
"""

import hashlib
import sqlite3

from lib.corpus.shapes import DUPLICATE, OTHER_TEXT, Document, SkipError


def store() -> sqlite3.Connection:
    """An empty memory of documents; the caller closes it."""
    memory = sqlite3.connect("", isolation_level=None)
    memory.executescript(
        "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384;"
        "CREATE TABLE texts (digest BLOB PRIMARY KEY, document TEXT) WITHOUT ROWID;"
        "CREATE TABLE ids (digest BLOB PRIMARY KEY, place TEXT) WITHOUT ROWID; BEGIN"
    )
    return memory


def note(memory: sqlite3.Connection, document: Document) -> None:
    """Remember a document; raises SkipError if its text or its id is there already.

    The same words about another group are another document. The first one in order is kept. Ids
    are remembered for documents that are used, so an id whose first record was a duplicate of
    another document is still free.
    """
    text = hashlib.sha256(document.sha256 + str(document.group or "").encode()).digest()[:16]
    if not _new(memory, "texts", text, document.id):
        kept = _value(memory, "SELECT document FROM texts WHERE digest = ?", text)
        raise SkipError(DUPLICATE, f"the same text as {kept}, which is kept")
    place = document.path if document.row is None else f"{document.path}, row {document.row}"
    name = hashlib.sha256(document.id.encode()).digest()[:16]
    if not _new(memory, "ids", name, place):
        memory.execute("DELETE FROM texts WHERE digest = ?", (text,))
        first = _value(memory, "SELECT place FROM ids WHERE digest = ?", name)
        raise SkipError(OTHER_TEXT, f"the id stands first in {first}, which is kept")


def _new(memory: sqlite3.Connection, table: str, digest: bytes, value: str) -> bool:
    query = f"INSERT OR IGNORE INTO {table} VALUES (?, ?)"  # noqa: S608 - a name from this module
    return memory.execute(query, (digest, value)).rowcount == 1


def _value(memory: sqlite3.Connection, query: str, digest: bytes) -> str:
    return memory.execute(query, (digest,)).fetchone()[0]
