"""The words of the corpus: files, documents, skips, and ids that no two documents share.

Why something is not used is one of these reasons: duplicate, empty, hidden or system file, link to
a folder, malformed, no group, no id, no text member, not a file, not decodable, not encodable, not
in any source, outside the corpus by link, same id (other text), symlink loop, text of another type,
too large, too long, too short, unknown format, unreadable, unreadable date, vanished.
"""

import re
import urllib.parse
from dataclasses import dataclass
from typing import Any

MAX_RECORD_BYTES = 64 * 2**20

_RESERVED = re.compile(r"%(?=[0-9A-Fa-f]{2})|[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PASSAGE_END = re.compile(r"@(?=\d{3,}\Z)")
_ROW_END = re.compile(r"#(?=\d+\Z)")


class SkipError(Exception):
    """Raised inside this package if a file or record cannot be used; becomes a skipped row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class File:
    """One name below a source's folder; `reason` says why it is no readable file, if so.

    `rel` is the path below the folder with forward slashes, ending in one for a folder; `path` is
    what opens it, on `fs` if it is remote; `shown` is the path as the study writes it.
    """

    rel: str
    path: str
    n_bytes: int | None = None
    reason: str = ""
    detail: str = ""
    source: str = ""
    shown: str = ""
    format: str = ""
    fs: Any = None


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was read and cleaned, its columns named as in `documents.parquet`.

    `row` counts from 1 in tables and is None for whole files.
    """

    file: File
    row: int | None
    id: str
    text: str
    columns: dict[str, Any]


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
    return f"{source}/{_PASSAGE_END.sub('%40', _ROW_END.sub('%23', escaped(rel)))}"


def record_id(source: str, name: str) -> str:
    """The id of a record that carries its own; it never looks like the id of a passage.

    >>> record_id("reviews", "r-17"), record_id("reviews", "ann@2020")
    ('reviews/r-17', 'reviews/ann%402020')
    """
    return f"{source}/{_PASSAGE_END.sub('%40', escaped(name))}"


def shortened(value: object, n_chars: int = 80) -> str:
    """A value as details show it: on one line, cut to `n_chars` with an ellipsis."""
    text = escaped(value if isinstance(value, str) else repr(value))
    return text if len(text) <= n_chars else text[: n_chars - 1] + "…"


def _percent(character: str) -> str:
    # U+DC80 to U+DCFF stand for the undecodable bytes of a file name.
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return urllib.parse.quote(character.encode("utf-8", errors), safe="")
