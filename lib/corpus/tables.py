"""Tables become records, row by row and in bounded memory: JSON Lines, CSV and Parquet.

A row that cannot be read is one skipped row with its number, and the rest is used. Values come as
they stand: in CSV every value is text, `NA`, `null` and `007` included. Rows count from 1: lines
in JSON Lines, records below the header in CSV, rows in Parquet.
"""

import csv
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO

from lib.corpus import read
from lib.corpus.read import Record
from lib.corpus.shapes import (
    EMPTY,
    MALFORMED,
    MAX_RECORD_BYTES,
    NOT_DECODABLE,
    TOO_LARGE,
    File,
    SkipError,
)
from lib.study import Source

_PARQUET_ROWS = 256
_MAX_UNPACKED_BYTES = 8 * 2**30


def jsonl(file: File, source: Source) -> Iterator[tuple[int, Record]]:
    """The objects of a JSON Lines file by line number; lines of white space are no records."""
    with read.opened(file) as data, read.stream(data, source.encoding, "\n") as lines:
        row = 0
        while line := lines.readline(MAX_RECORD_BYTES):
            row += 1
            if len(line) == MAX_RECORD_BYTES and not line.endswith("\n"):
                yield row, _too_large(lines)
            elif line.strip():
                yield row, _line(line)


def table(file: File, source: Source) -> Iterator[tuple[int, Record]]:
    """The rows of a CSV file as RFC 4180 has them; line ends may also be a lone CR or LF."""
    csv.field_size_limit(MAX_RECORD_BYTES)
    with read.opened(file) as data, read.stream(data, source.encoding, "") as lines:
        rows = csv.reader(lines, strict=True)
        header = _header(rows)
        row = 0
        while True:
            first = rows.line_num + 1
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                row += 1
                yield row, SkipError(MALFORMED, f"CSV, lines {first}-{rows.line_num}: {error}")
                continue
            if cells:
                row += 1
                yield row, _cells(cells, header)


def parquet(file: File, source: Source) -> Iterator[tuple[int, Record]]:
    """The rows of a Parquet file, with the members that the source asks for."""
    import pyarrow
    import pyarrow.parquet

    members = [source.id, source.text, source.group, source.date, *source.keep]
    with read.opened(file) as data, tempfile.SpooledTemporaryFile(2**26) as unpacked:
        held: Any = data
        if file.entry.rel.lower().endswith(".gz"):
            _unpack(data, unpacked)
            held = unpacked
        try:
            with pyarrow.parquet.ParquetFile(held) as rows:
                columns = [name for name in rows.schema_arrow.names if name in members]
                row = 0
                for batch in rows.iter_batches(_PARQUET_ROWS, columns=columns):
                    for record in batch.to_pylist():
                        row += 1
                        yield row, record
        except UnicodeDecodeError as error:
            raise SkipError(NOT_DECODABLE, f"text in Parquet: {read.undecodable(error)}") from error
        except (pyarrow.ArrowException, OSError) as error:
            raise SkipError(MALFORMED, f"Parquet: {str(error).splitlines()[0]}") from error


def _line(line: str) -> Record:
    stray = read.stray_byte(line)
    if stray:
        return stray
    try:
        return read.as_object(read.parsed(line.rstrip("\r\n")))
    except SkipError as error:
        return error


def _too_large(lines: TextIO) -> SkipError:
    """Move to the end of a line that is longer than a record may be, without holding it."""
    n_more = 0
    while piece := lines.readline(2**20):
        n_more += len(piece)
        if piece.endswith("\n"):
            break
    n_chars = MAX_RECORD_BYTES + n_more
    return SkipError(TOO_LARGE, f"a line of {n_chars:,} characters, at most {MAX_RECORD_BYTES:,}")


def _header(rows: Iterator[list[str]]) -> list[str]:
    try:
        header = next(rows)
    except StopIteration:
        raise SkipError(EMPTY, "CSV without a header line") from None
    except csv.Error as error:
        raise SkipError(MALFORMED, f"CSV header: {error}") from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise SkipError(MALFORMED, f"CSV: the column {twice[0]!r} stands twice in the header")
    return header


def _cells(cells: list[str], header: list[str]) -> Record:
    if len(cells) != len(header):
        return SkipError(MALFORMED, f"CSV: {len(cells)} cells, the header has {len(header)}")
    return read.stray_byte("\n".join(cells)) or dict(zip(header, cells, strict=True))


def _unpack(data: BinaryIO, into: BinaryIO) -> None:
    n_bytes = 0
    while piece := data.read(2**20):
        n_bytes += len(piece)
        if n_bytes > _MAX_UNPACKED_BYTES:
            raise SkipError(TOO_LARGE, f"more than {_MAX_UNPACKED_BYTES:,} bytes unpacked")
        into.write(piece)
    into.seek(0)
