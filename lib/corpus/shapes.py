"""The words of the corpus: files, documents, and the reasons why something is not used.

It decides the names of the reasons, which stand in `skipped.parquet` and in tables, and how ids
and paths are written so that no two documents share one.
"""

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

MAX_RECORD_BYTES = 64 * 2**20
NO_SOURCE = "(none)"

DUPLICATE = "duplicate"
EMPTY = "empty"
HIDDEN = "hidden or system file"
LINK_OUT = "outside the corpus by link"
LINK_FOLDER = "link to a folder"
LINK_LOOP = "symlink loop"
MALFORMED = "malformed"
NOT_A_FILE = "not a file"
NOT_DECODABLE = "not decodable"
NOT_ENCODABLE = "not encodable"
NOT_IN_SOURCE = "not in any source"
NO_DATE = "unreadable date"
NO_GROUP = "no group"
NO_ID = "no id"
NO_TEXT = "no text member"
OTHER_TEXT = "same id, other text"
TOO_LARGE = "too large"
TOO_LONG = "too long"
TOO_SHORT = "too short"
UNKNOWN = "unknown format"
UNREADABLE = "unreadable"
VANISHED = "vanished"
WRONG_TYPE = "text of another type"

_RESERVED = re.compile(r"%(?=[0-9A-Fa-f]{2})|[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PASSAGE_END = re.compile(r"@(?=\d{3,}\Z)")
_ROW_END = re.compile(r"#(?=\d+\Z)")


class SkipError(Exception):
    """Raised inside this package if a file or record cannot be used; becomes a skipped row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Entry:
    """One name below a source's folder; `reason` says why it is no readable file, if so.

    `rel` is the path below the folder with forward slashes, ending in one for a folder; `path` is
    what opens it.
    """

    rel: str
    path: str
    n_bytes: int | None = None
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """An entry with the source that it is read for; `shown` is the path as the study writes it."""

    source: str
    shown: str
    format: str
    entry: Entry
    fs: Any = None


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was read and cleaned; `row` counts from 1 in tables, None for whole files.

    `kept` holds title, author and the columns that the source keeps.
    """

    id: str
    source: str
    format: str
    path: str
    row: int | None
    text: str
    sha256: bytes
    group: str | None = None
    date: datetime | None = None
    n_cut_start: int = 0
    n_cut_end: int = 0
    kept: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skip:
    """Something that is not used, where it stands and why: a row of `skipped.parquet`."""

    source: str
    path: str
    format: str
    row: int | None
    document: str | None
    reason: str
    detail: str
    n_bytes: int | None


def escaped(name: str) -> str:
    r"""A name in which control characters and undecodable bytes are percent-escaped.

    Distinct names stay distinct: a `%` that looks like an escape is escaped too.

    >>> escaped("a\nb"), escaped("100%0A"), escaped("50 %")
    ('a%0Ab', '100%250A', '50 %')
    """
    return _RESERVED.sub(lambda found: _percent(found[0]), name)


def path_id(source: str, rel: str) -> str:
    """The id of a document that is a file; it never looks like the id of a row or a passage.

    >>> path_id("books", "a/b.txt"), path_id("books", "a.json#1")
    ('books/a/b.txt', 'books/a.json%231')
    """
    return record_id(source, _ROW_END.sub("%23", escaped(rel)), escape=False)


def record_id(source: str, name: str, escape: bool = True) -> str:
    """The id of a record that carries its own; it never looks like the id of a passage.

    >>> record_id("reviews", "r-17"), record_id("reviews", "ann@2020")
    ('reviews/r-17', 'reviews/ann%402020')
    """
    return f"{source}/{_PASSAGE_END.sub('%40', escaped(name) if escape else name)}"


def shortened(value: object, n_chars: int = 80) -> str:
    """A value as details show it: on one line, cut to `n_chars` with an ellipsis."""
    text = escaped(value if isinstance(value, str) else repr(value))
    return text if len(text) <= n_chars else text[: n_chars - 1] + "…"


def _percent(character: str) -> str:
    # U+DC80 to U+DCFF stand for the undecodable bytes of a file name.
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return urllib.parse.quote(character.encode("utf-8", errors), safe="")
