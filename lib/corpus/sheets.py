"""The two tables of the corpus on disk, written row group by row group.

It decides the columns and types of `documents.parquet` and `skipped.parquet`. How many documents
were found stands in the metadata of `skipped.parquet`, counted where they were read, so that
`census` can compare it with what was written.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lib import runs
from lib.corpus.shapes import Skip
from lib.errors import CorpusError
from lib.study import Study

FOUND = b"votebook.found"
_GROUP_ROWS = 10_000
_GROUP_CHARS = 8_000_000
_DOCUMENTS = (
    *((name, pa.string()) for name in ("item", "document", "source", "format", "path", "group")),
    ("date", pa.timestamp("us")),
    ("text", pa.string()),
    *((name, pa.int64()) for name in ("start", "end", "n_chars", "n_tokens")),
    ("sha256", pa.string()),
    *((name, pa.int64()) for name in ("n_document_chars", "n_cut_start", "n_cut_end")),
    *((name, pa.string()) for name in ("title", "author")),
)
SKIPPED = pa.schema(
    [
        *((name, pa.string()) for name in ("source", "path", "format")),
        ("row", pa.int64()),
        *((name, pa.string()) for name in ("document", "reason", "detail")),
        ("n_bytes", pa.int64()),
    ]
)


@dataclass
class Sheet:
    """A Parquet file that is being written: rows wait until they fill a row group."""

    schema: pa.Schema
    writer: pq.ParquetWriter
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    n_chars: int = 0
    n_rows: int = 0


def documents_schema(study: Study) -> pa.Schema:
    """The columns of `documents.parquet`: the fixed ones, then what the sources keep, as text.

    `start` and `end` count characters in the document's text as it is after cleaning, which has
    `n_document_chars` of them; `n_cut_start` and `n_cut_end` count the characters of licence cut
    off before and after it. Raises CorpusError if a source keeps a column that has another meaning.
    """
    names = [name for name, _ in _DOCUMENTS]
    kept = dict.fromkeys(name for source in study.corpus.values() for name in source.keep)
    for name in kept:
        if name in names and name not in ("title", "author"):
            what = f"keep: {name!r} is a column of documents.parquet already, with another meaning."
            raise CorpusError(f"{what} Leave it out, or rename it in the corpus.", column=name)
    added = [(name, pa.string()) for name in kept if name not in names]
    return pa.schema([*_DOCUMENTS, *added])


@contextlib.contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[Sheet]:
    """A sheet that takes the place of `path` when the block ends well."""
    with (
        runs.replacing(path) as part,
        pq.ParquetWriter(part, schema, compression="zstd") as writer,
    ):
        sheet = Sheet(schema, writer)
        yield sheet
        _flush(sheet)


def add(sheet: Sheet, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows; columns that a row does not have are null."""
    for row in rows:
        sheet.rows.append(row)
        sheet.n_chars += len(row.get("text", ""))
        sheet.n_rows += 1
        if len(sheet.rows) >= _GROUP_ROWS or sheet.n_chars >= _GROUP_CHARS:
            _flush(sheet)


def skipped(skip: Skip) -> dict[str, Any]:
    """A skip as a row of `skipped.parquet`."""
    return {name: getattr(skip, name) for name in SKIPPED.names}


def store_found(sheet: Sheet, found: Mapping[tuple[str, str], int]) -> None:
    """Write down how many documents were found by source and format."""
    rows = [[*key, n] for key, n in found.items()]
    sheet.writer.add_key_value_metadata({FOUND.decode(): json.dumps(rows)})


def found_in(path: Path) -> dict[tuple[str, str], int]:
    """How many documents were found by source and format, as `store_found` wrote it."""
    metadata = pq.read_metadata(path).metadata or {}
    return {(source, kind): n for source, kind, n in json.loads(metadata.get(FOUND, b"[]"))}


def _flush(sheet: Sheet) -> None:
    if sheet.rows:
        sheet.writer.write_table(pa.Table.from_pylist(sheet.rows, schema=sheet.schema))
    sheet.rows.clear()
    sheet.n_chars = 0
