"""Files become records: the text of a whole file, or the members of each row of a table.

It decides what can be read: which bytes are text (UTF-8, what a byte order mark says, or the
declared encoding), which text is JSON (one value, each key once, finite numbers), and how large a
record may be. It refuses to replace or drop what it cannot decode.

Tables (JSON Lines, CSV, Parquet) are read row by row in bounded memory. A row that cannot be read
is one skipped row with its number, and the rest is used. Values come as they stand: in CSV every
value is text, `NA`, `null` and `007` included. Rows count from 1: lines in JSON Lines, records
below the header in CSV, rows in Parquet.
"""

import codecs
import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, TextIO

from lib.corpus.shapes import MAX_RECORD_BYTES, File, SkipError, shortened
from lib.study import FORMATS, Source

Record = str | Mapping[str, Any] | SkipError
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_PARQUET_ROWS = 256


def records(file: File, source: Source) -> Iterator[tuple[int | None, Record]]:
    """The records of a file with their rows, which are None where the whole file is one record.

    Raises SkipError for what is wrong with the file; what is wrong with a row comes as a SkipError
    in its place.
    """
    if file.reason:
        raise SkipError(file.reason, file.detail)
    if file.format not in FORMATS[1:]:
        what = f"no reader for .{file.format}; read are {', '.join(FORMATS[1:])}"
        raise SkipError("unknown format", what)
    with _opened(file) as data:
        if file.format == "txt":
            yield None, _whole(data, source.encoding)
        elif file.format == "jsonl":
            with _lines(data, source.encoding, "\n") as lines:
                yield from _jsonl(lines)
        elif file.format == "csv":
            with _lines(data, source.encoding, "") as lines:
                yield from _csv(lines)
        elif file.format == "parquet":
            yield from _parquet(data, source)
        else:
            text = _whole(data, source.encoding).removeprefix("\ufeff")
            yield from _json(_parsed(text), file.format)


@contextlib.contextmanager
def _opened(file: File) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked if its name ends in .gz; faults become SkipError."""
    path = file.path
    try:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(file.fs.open(path, "rb") if file.fs else io.FileIO(path))
            data = stack.enter_context(io.BufferedReader(raw, 2**18))
            if file.rel.lower().endswith(".gz"):
                data = stack.enter_context(gzip.GzipFile(fileobj=data))
            elif data.peek(2)[:2] == b"\x1f\x8b":
                raise SkipError("not decodable", "packed by gzip: add .gz to its name")
            yield data
    except FileNotFoundError as error:
        raise SkipError("vanished", "it was there when the folder was searched") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SkipError("unreadable", f"damaged gzip: {error}") from error
    except UnicodeDecodeError as error:
        raise SkipError("not decodable", f"not {error.encoding}: {error.reason}") from error
    except OSError as error:
        raise SkipError("unreadable", error.strerror or str(error)) from error


def _whole(data: BinaryIO, encoding: str) -> str:
    """The text of a file, by its byte order mark or else the declared encoding."""
    held = data.read(MAX_RECORD_BYTES + 1)
    if len(held) > MAX_RECORD_BYTES:
        raise SkipError("too large", f"more than {MAX_RECORD_BYTES:,} bytes in one record")
    try:
        text = held.decode(_by_mark(held) or encoding)
    except UnicodeDecodeError as error:
        raise SkipError("not decodable", _undecodable(error)) from error
    n_zeros = text.count("\x00")
    if n_zeros * 20 > len(text):
        what = f"{n_zeros:,} of {len(text):,} characters are NUL: binary, or UTF-16 without a mark"
        raise SkipError("not decodable", f"{what}; declare its encoding")
    return text


def _lines(data: BinaryIO, encoding: str, newline: str) -> TextIO:
    """Bytes as lines of text; bytes that are not text become U+DC80 to U+DCFF (`_stray_byte`)."""
    used = _by_mark(data.peek(4)[:4]) or encoding
    return io.TextIOWrapper(data, used, errors="surrogateescape", newline=newline)


def _by_mark(data: bytes) -> str:
    return next((name for mark, name in _BOMS if data.startswith(mark)), "")


def _undecodable(error: UnicodeDecodeError) -> str:
    return f"byte {error.start:,} (0x{error.object[error.start]:02x}) is not {error.encoding}"


def _stray_byte(text: str) -> SkipError | None:
    """What is wrong with a record that holds bytes which are not text, or None."""
    found = None if text.isascii() else _ESCAPED_BYTE.search(text)
    if not found:
        return None
    offset = len(text[: found.start()].encode("utf-8", "surrogateescape"))
    what = f"byte {offset:,} of the record (0x{ord(found[0]) - 0xDC00:02x})"
    return SkipError("not decodable", what)


def _json(value: object, wanted: str) -> Iterator[tuple[int | None, Record]]:
    """The records of a JSON file: an object, the objects of a list, or the text of a page list."""
    if isinstance(value, list) and not value:
        raise SkipError("empty", "an empty list")
    if isinstance(value, list) and (wanted == "british-library" or isinstance(value[0], list)):
        yield None, pages(value)
    elif isinstance(value, list):
        for row, record in enumerate(value, start=1):
            yield row, _object(record)
    elif isinstance(value, dict) and wanted == "json":
        yield None, value
    else:
        what = f"expected a list of [page, text], found {shortened(value, 40)}"
        raise SkipError("no text member", what)


def pages(value: list) -> str:
    """The text of a British Library volume: its pages joined by line ends.

    Empty and null pages are left out, so that offsets count nothing but text and line ends.

    >>> pages([[1, ""], [2, "One"], [3, None], [4, "two."]])
    'One\\ntwo.'
    """
    texts = []
    for n, page in enumerate(value, start=1):
        match page:
            case [int() | str(), str() | None as text]:
                texts.append(text)
            case _:
                what = f"page {n}: expected [number, text or null], found {shortened(page, 40)}"
                raise SkipError("no text member", what)
    return "\n".join(text for text in texts if text)


def _jsonl(lines: TextIO) -> Iterator[tuple[int, Record]]:
    """The objects of a JSON Lines file by line number; lines of white space are no records."""
    row = 0
    while line := lines.readline(MAX_RECORD_BYTES):
        row += 1
        if len(line) == MAX_RECORD_BYTES and not line.endswith("\n"):
            while line and not line.endswith("\n"):
                line = lines.readline(MAX_RECORD_BYTES)
            yield (
                row,
                SkipError("too large", f"a line of more than {MAX_RECORD_BYTES:,} characters"),
            )
        elif line.strip():
            try:
                yield row, _stray_byte(line) or _object(_parsed(line.rstrip("\r\n")))
            except SkipError as error:
                yield row, error


def _csv(lines: TextIO) -> Iterator[tuple[int, Record]]:
    """The rows of a CSV file as RFC 4180 has them; line ends may also be a lone CR or LF."""
    csv.field_size_limit(MAX_RECORD_BYTES)
    rows = csv.reader(lines, strict=True)
    header, row = _header(rows), 0
    while True:
        first = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            row += 1
            yield row, SkipError("malformed", f"CSV, lines {first}-{rows.line_num}: {error}")
            continue
        if cells:
            row += 1
            yield row, _cells(cells, header)


def _header(rows: Iterator[list[str]]) -> list[str]:
    try:
        header = next(rows, None)
    except csv.Error as error:
        raise SkipError("malformed", f"CSV header: {error}") from error
    if header is None:
        raise SkipError("empty", "CSV without a header line")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise SkipError("malformed", f"CSV: the column {twice[0]!r} stands twice in the header")
    return header


def _cells(cells: list[str], header: list[str]) -> Record:
    if len(cells) != len(header):
        return SkipError("malformed", f"CSV: {len(cells)} cells, the header has {len(header)}")
    return _stray_byte("\n".join(cells)) or dict(zip(header, cells, strict=True))


def _parquet(data: BinaryIO, source: Source) -> Iterator[tuple[int, Record]]:
    """The rows of a Parquet file, with the members that the source asks for."""
    import pyarrow
    import pyarrow.parquet

    members = [source.id, source.text, source.group, source.date, *source.keep]
    try:
        with pyarrow.parquet.ParquetFile(data) as rows:
            columns = [name for name in rows.schema_arrow.names if name in members]
            batches = rows.iter_batches(_PARQUET_ROWS, columns=columns)
            records = (record for batch in batches for record in batch.to_pylist())
            yield from enumerate(records, start=1)
    except UnicodeDecodeError as error:
        raise SkipError("not decodable", f"text in Parquet: {_undecodable(error)}") from error
    except gzip.BadGzipFile:
        raise
    except (pyarrow.ArrowException, OSError) as error:
        raise SkipError("malformed", f"Parquet: {str(error).splitlines()[0]}") from error


def _object(value: object) -> Record:
    if isinstance(value, dict):
        return value
    return SkipError("no text member", f"expected an object, found {shortened(value, 40)}")


def _parsed(text: str) -> object:
    """The value of a JSON text; raises SkipError for what is not exactly JSON.

    Python's reader by itself lets NaN, numbers beyond all bounds and repeated keys pass.
    """
    try:
        return _JSON.decode(text)
    except json.JSONDecodeError as error:
        what = f"JSON, line {error.lineno}, column {error.colno}: {error.msg}"
    except RecursionError:
        what = "JSON: nested too deeply"
    except ValueError:
        what = "JSON: a number has too many digits"
    raise SkipError("malformed", what)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in members if keys.count(key) > 1)
        raise SkipError("malformed", f"JSON: the member {shortened(twice)!r} stands twice")
    return members


def _no_constant(word: str) -> None:
    raise SkipError("malformed", f"JSON: {word} is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if abs(number) == float("inf"):
        raise SkipError("malformed", f"JSON: the number {shortened(digits, 40)} is too large")
    return number


_JSON = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
