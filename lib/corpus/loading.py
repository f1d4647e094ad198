"""Loading: from the sources of a study to `documents.parquet` and `skipped.parquet`.

It decides the order (sources as the study names them, then path, then row), which of two equal
documents is kept (the first), and what becomes of long ones. Everything streams: a few megabytes
of text are in memory at a time, whatever the size of the corpus.
"""

import contextlib
import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import tokens, words, yamls
from lib.corpus import find, members, read, sheets, texts
from lib.corpus.shapes import Document, File, SkipError
from lib.errors import CorpusError
from lib.study import Items, Source, Study

Row = dict[str, Any]

_CHUNK_CHARS = 4_000_000
_CHUNK_DOCUMENTS = 2_000
# Beyond 16 MB it moves to a temporary file, about 100 MB per million documents.
_MEMORY = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384;
CREATE TABLE seen (digest BLOB PRIMARY KEY, first TEXT) WITHOUT ROWID; BEGIN
"""


@dataclass(frozen=True)
class Loaded:
    """What loading did, in numbers; `reasons` counts what was skipped, most frequent first."""

    n_found: int
    n_documents: int
    n_items: int
    n_cut: int
    n_tokens: int
    reasons: Mapping[str, int]

    @property
    def n_skipped(self) -> int:
        """Everything that was found and not used."""
        return sum(self.reasons.values())

    def __repr__(self) -> str:
        """One line that a notebook can show."""
        used = words.n_of(self.n_documents, "document")
        items, n_tokens = words.n_of(self.n_items, "item"), words.n_of(self.n_tokens, "token")
        found = f"{self.n_found:,} found = {used} used + {self.n_skipped:,} skipped"
        return f"{found}; {items} with {n_tokens}"


def load(study: Study, folder: Path, token_counter: texts.Counter = tokens.count) -> Loaded:
    """Read the study's corpus into `folder`; gives the sums.

    `documents.parquet` and `skipped.parquet` are replaced whole or not at all. Raises CorpusError
    if a source matches nothing, keeps a column that no record has, or if no text is left.
    """
    schema = sheets.documents_schema(study)
    within = find.search(study, folder)
    found: Counter[tuple[str, str]] = Counter()
    reasons: Counter[str] = Counter()
    sums = Counter(n_documents=0, n_items=0, n_cut=0, n_tokens=0)
    with sheets.writing(folder / "documents.parquet", schema) as documents:
        with sheets.writing(folder / "skipped.parquet", sheets.SKIPPED) as skipped:
            for piece in _pieces(study, within, found, token_counter):
                if isinstance(piece, dict):
                    reasons[piece["reason"]] += 1
                    sheets.add(skipped, piece)
                    continue
                sums.update(n_documents=1, n_items=len(piece))
                for row in piece:
                    is_cut = study.items.long == "cut" and row["end"] < row["n_document_chars"]
                    sums.update(n_cut=is_cut, n_tokens=row["n_tokens"])
                    sheets.add(documents, row)
            sheets.store_found(skipped, found)
        _check_left(sums["n_documents"], reasons, folder)
    loaded = Loaded(found.total(), reasons=dict(reasons.most_common()), **sums)
    sheets.check(loaded.n_found, loaded.n_documents, loaded.n_skipped, "the corpus")
    return loaded


def _pieces(
    study: Study, within: find.Search, found: Counter, count: texts.Counter
) -> Iterator[Row | list[Row]]:
    """Skips, and the items of each document, as they come."""
    waiting: list[Document] = []
    n_chars = 0
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as memory:
        memory.executescript(_MEMORY)
        for piece in _documents(study, within, found):
            if isinstance(piece, dict):
                yield piece
                continue
            try:
                _note(memory, piece)
            except SkipError as error:
                yield _refused(piece, error)
                continue
            waiting.append(piece)
            n_chars += len(piece.text)
            if n_chars >= _CHUNK_CHARS or len(waiting) >= _CHUNK_DOCUMENTS:
                yield from _chunk(waiting, study.items, count)
                waiting, n_chars = [], 0
        yield from _chunk(waiting, study.items, count)


def _documents(study: Study, within: find.Search, found: Counter) -> Iterator[Row | Document]:
    for place in within.places:
        known: set[str] = set()
        for file in find.files(place, within):
            for piece in of_file(file, place.source, study.items.min_chars, known):
                found[file.source, file.format] += 1
                yield piece
        _check_keep(place.name, place.source, known)
    for file in find.unmatched(within):
        found[file.source, file.format] += 1
        error = SkipError(file.reason, file.detail)
        yield _skip(file, None, None, error, file.n_bytes)


def of_file(
    file: File, source: Source, min_chars: int, known: set[str]
) -> Iterator[Row | Document]:
    """The documents of one file; what goes wrong with the file is one skip, with a row one each.

    The names of all members that its records have are added to `known`.
    """
    n_records = 0
    try:
        for row, record in read.records(file, source):
            n_records += 1
            if isinstance(record, Mapping):
                known.update(record)
            name = None
            try:
                name = members.identity(file, source, row, record)
                if isinstance(record, SkipError):
                    raise record
                yield members.document(file, source, row, name, record, min_chars)
            except SkipError as error:
                yield _skip(file, row, name, error, file.n_bytes if row is None else None)
        if not n_records:
            raise SkipError("empty", "there is no record in it")
    except SkipError as error:
        after = f" (after {words.n_of(n_records, 'record')})" if n_records else ""
        error = SkipError(error.reason, error.detail + after)
        yield _skip(file, None, None, error, file.n_bytes)


def _note(memory: sqlite3.Connection, document: Document) -> None:
    """Remember a document; raises SkipError if its text or its id is there already.

    The same words about another group are another document. The first one in order is kept. Ids
    are remembered for documents that are used, so an id whose first record was a duplicate of
    another document is still free.
    """
    kept = _first(memory, text := _digest("text", document.columns["group"] or "", document.text))
    if kept:
        raise SkipError("duplicate", f"the same text as {kept}, which is kept")
    kept = _first(memory, name := _digest("id", document.id))
    if kept:
        raise SkipError("same id, other text", f"the id stands first in {kept}, which is kept")
    row = "" if document.row is None else f", row {document.row}"
    places = [(text, document.id), (name, f"{document.file.shown}{row}")]
    memory.executemany("INSERT INTO seen VALUES (?, ?)", places)


def _first(memory: sqlite3.Connection, digest: bytes) -> str | None:
    found = memory.execute("SELECT first FROM seen WHERE digest = ?", (digest,)).fetchone()
    return found and found[0]


def _digest(*words: str) -> bytes:
    return hashlib.sha256("\0".join(words).encode()).digest()[:16]


def _chunk(
    documents: list[Document], items: Items, count: texts.Counter
) -> Iterator[Row | list[Row]]:
    """The items of some documents, their tokens counted together."""
    counts = count([document.text for document in documents])
    for document, n_tokens in zip(documents, counts, strict=True):
        if n_tokens <= items.max_tokens:
            found = [texts.Passage(0, len(document.text), n_tokens)]
        elif items.long == "refuse":
            what = f"{n_tokens:,} tokens, at most {items.max_tokens:,} are allowed"
            yield _refused(document, SkipError("too long", what))
            continue
        else:
            passages = texts.split(document.text, items.max_tokens, count)
            found = [next(passages)] if items.long == "cut" else list(passages)
        width = max(3, len(str(len(found))))
        yield [
            _item(document, passage, f"@{n:0{width}}" if len(found) > 1 else "")
            for n, passage in enumerate(found, start=1)
        ]


def _item(document: Document, passage: texts.Passage, ending: str) -> Row:
    """A row of `documents.parquet`."""
    text = document.text[passage.start : passage.end]
    return {
        **document.columns,
        "item": document.id + ending,
        "document": document.id,
        "source": document.file.source,
        "format": document.file.format,
        "path": document.file.shown,
        "text": text,
        "start": passage.start,
        "end": passage.end,
        "n_chars": len(text),
        "n_tokens": passage.n_tokens,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "n_document_chars": len(document.text),
    }


def _refused(document: Document, error: SkipError) -> Row:
    n_bytes = len(document.text.encode())
    return _skip(document.file, document.row, document.id, error, n_bytes)


def _skip(
    file: File, row: int | None, document: str | None, error: SkipError, n_bytes: int | None
) -> Row:
    """A row of `skipped.parquet`: what is not used, where it stands and why."""
    place = (file.source, file.shown, file.format, row, document)
    values = (*place, error.reason, error.detail, n_bytes)
    return dict(zip(sheets.SKIPPED.names, values, strict=True))


def _check_keep(name: str, source: Source, known: set[str]) -> None:
    for column in source.keep:
        if known and column not in known:
            hint = yamls.nearest(column, known)
            what = f"source {name!r}: no record has the column {column!r} that `keep` names.{hint}"
            raise CorpusError(f"{what} Correct `keep` in study.yml.", source=name, column=column)


def _check_left(n_documents: int, reasons: Counter, folder: Path) -> None:
    if n_documents:
        return
    why = ", ".join(f"{reason} {n:,}" for reason, n in reasons.most_common())
    what = f"no document is left: {reasons.total():,} found and skipped ({why})."
    raise CorpusError(
        f"{what} See {yamls.shown(folder / 'skipped.parquet')}.", reasons=dict(reasons)
    )
