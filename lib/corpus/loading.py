"""Loading: from the sources of a study to `documents.parquet` and `skipped.parquet`.

It decides the order (sources as the study names them, then path, then row), which of two equal
documents is kept (the first), and what becomes of long ones. Everything streams: a few megabytes
of text are in memory at a time, whatever the size of the corpus.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import tokens, yamls
from lib.corpus import find, members, passages, read, seen, sheets, tables, totals
from lib.corpus.passages import Passage
from lib.corpus.shapes import (
    TOO_LONG,
    UNKNOWN,
    Document,
    File,
    Skip,
    SkipError,
)
from lib.errors import CorpusError
from lib.study import Items, Source, Study

_CHUNK_CHARS = 4_000_000
_CHUNK_DOCUMENTS = 2_000
_TABLES = {"jsonl": tables.jsonl, "csv": tables.table, "parquet": tables.parquet}
_FORMATS = ("british-library", "txt", "json", *_TABLES)


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
        return (
            f"{self.n_found:,} found = {self.n_documents:,} documents used + {self.n_skipped:,} "
            f"skipped; {self.n_items:,} items with {self.n_tokens:,} tokens"
        )


def load(study: Study, folder: Path, token_counter: passages.Counter = tokens.count) -> Loaded:
    """Read the study's corpus into `folder`; gives the sums.

    `documents.parquet` and `skipped.parquet` are replaced whole or not at all. Raises CorpusError
    if a source matches nothing, keeps a column that no record has, or if no text is left.
    """
    schema = sheets.documents_schema(study)
    for name, source in study.corpus.items():
        read.check_encoding(source.encoding, name)
    within = find.search(study, folder)
    found: Counter[tuple[str, str]] = Counter()
    sums: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with sheets.writing(folder / "documents.parquet", schema) as documents:
        with sheets.writing(folder / "skipped.parquet", sheets.SKIPPED) as skipped:
            for piece in _pieces(study, within, found, token_counter):
                if isinstance(piece, Skip):
                    reasons[piece.reason] += 1
                    sheets.add(skipped, [sheets.skipped(piece)])
                else:
                    rows = list(piece)
                    sums.update(n_documents=1, n_items=len(rows), n_cut=_is_cut(rows, study))
                    sums["n_tokens"] += sum(row["n_tokens"] for row in rows)
                    sheets.add(documents, rows)
            sheets.store_found(skipped, found)
        _check_left(sums["n_documents"], reasons, folder)
    numbers = {name: sums[name] for name in ("n_documents", "n_items", "n_cut", "n_tokens")}
    loaded = Loaded(found.total(), reasons=dict(reasons.most_common()), **numbers)
    totals.check(loaded.n_found, loaded.n_documents, loaded.n_skipped, "the corpus")
    return loaded


def _pieces(
    study: Study, within: find.Search, found: Counter, count: passages.Counter
) -> Iterator[Skip | list[dict]]:
    """Skips, and the items of each document, as they come."""
    memory = seen.store()
    waiting: list[Document] = []
    n_chars = 0
    try:
        for piece in _documents(study, within, found):
            if isinstance(piece, Skip):
                yield piece
                continue
            try:
                seen.note(memory, piece)
            except SkipError as error:
                yield _skip_document(piece, error)
                continue
            waiting.append(piece)
            n_chars += len(piece.text)
            if n_chars >= _CHUNK_CHARS or len(waiting) >= _CHUNK_DOCUMENTS:
                yield from _chunk(waiting, study.items, count)
                waiting, n_chars = [], 0
        yield from _chunk(waiting, study.items, count)
    finally:
        memory.close()


def _documents(study: Study, within: find.Search, found: Counter) -> Iterator[Skip | Document]:
    for place in within.places:
        known: set[str] = set()
        for file in find.files(place, within):
            for piece in of_file(file, place.source, study.items.min_chars, known):
                found[file.source, file.format] += 1
                yield piece
        _check_keep(place.name, place.source, known)
    for file in find.unmatched(within):
        found[file.source, file.format] += 1
        yield _skip(file, None, None, SkipError(file.entry.reason, file.entry.detail))


def of_file(
    file: File, source: Source, min_chars: int, known: set[str]
) -> Iterator[Skip | Document]:
    """The documents of one file; what goes wrong with the file is one skip, with a row one each."""
    n_records = 0
    try:
        for row, record in _records(file, source):
            n_records += 1
            if isinstance(record, Mapping):
                known.update(record)
            try:
                if isinstance(record, SkipError):
                    raise record
                yield members.document(file, source, row, record, min_chars)
            except SkipError as error:
                name = members.name_of(file, source, row, record)
                yield _skip(file, row, name, error)
    except SkipError as error:
        after = f" (after {n_records:,} records)" if n_records else ""
        yield _skip(file, None, None, SkipError(error.reason, error.detail + after))


def _records(file: File, source: Source) -> Iterator[tuple[int | None, read.Record]]:
    if file.entry.reason:
        raise SkipError(file.entry.reason, file.entry.detail)
    if file.format not in _FORMATS:
        raise SkipError(UNKNOWN, f"no reader for .{file.format}; read are {', '.join(_FORMATS)}")
    if file.format in _TABLES:
        yield from _TABLES[file.format](file, source)
    elif file.format == "txt":
        yield None, read.whole(file, source.encoding)
    else:
        text = read.whole(file, source.encoding).removeprefix("\ufeff")
        yield from read.json_records(read.parsed(text), file.format)


def _chunk(
    documents: list[Document], items: Items, count: passages.Counter
) -> Iterator[Skip | list[dict]]:
    """The items of some documents, their tokens counted together."""
    counts = count([document.text for document in documents])
    for document, n_tokens in zip(documents, counts, strict=True):
        if n_tokens <= items.max_tokens:
            yield [_item(document, document.id, Passage(0, len(document.text), n_tokens))]
        elif items.long == "refuse":
            what = f"{n_tokens:,} tokens, at most {items.max_tokens:,} are allowed"
            yield _skip_document(document, SkipError(TOO_LONG, what))
        else:
            found = passages.split(document.text, items.max_tokens, count)
            if items.long == "cut":
                yield [_item(document, document.id, next(found))]
            else:
                yield _numbered(document, list(found))


def _numbered(document: Document, found: list[Passage]) -> list[dict]:
    if len(found) == 1:
        return [_item(document, document.id, found[0])]
    width = max(3, len(str(len(found))))
    names = (f"{document.id}@{n:0{width}}" for n in range(1, len(found) + 1))
    return [_item(document, name, passage) for name, passage in zip(names, found, strict=True)]


def _item(document: Document, name: str, passage: Passage) -> dict[str, Any]:
    """A row of `documents.parquet`."""
    text = document.text[passage.start : passage.end]
    return {
        **document.kept,
        "item": name,
        "document": document.id,
        "source": document.source,
        "format": document.format,
        "path": document.path,
        "group": document.group,
        "date": document.date,
        "text": text,
        "start": passage.start,
        "end": passage.end,
        "n_chars": len(text),
        "n_tokens": passage.n_tokens,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "n_document_chars": len(document.text),
        "n_cut_start": document.n_cut_start,
        "n_cut_end": document.n_cut_end,
    }


def _is_cut(rows: list[dict], study: Study) -> int:
    return int(study.items.long == "cut" and rows[0]["end"] < rows[0]["n_document_chars"])


def _skip(file: File, row: int | None, document: str | None, error: SkipError) -> Skip:
    n_bytes = file.entry.n_bytes if row is None else None
    place = (file.source, file.shown, file.format, row)
    return Skip(*place, document, error.reason, error.detail, n_bytes)


def _skip_document(document: Document, error: SkipError) -> Skip:
    place = (document.source, document.path, document.format, document.row)
    return Skip(*place, document.id, error.reason, error.detail, len(document.text.encode()))


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
