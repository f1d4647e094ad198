"""Files become records: the text of a whole file, or the members of each row of a table.

It decides what can be read: which bytes are text (UTF-8, what a byte order mark says, or the
declared encoding), which text is JSON (one value, each key once, finite numbers), and how large a
record may be. It refuses to replace or drop what it cannot decode. Tables are in `tables`.
"""

import codecs
import contextlib
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, TextIO

from lib.corpus.shapes import (
    EMPTY,
    MALFORMED,
    MAX_RECORD_BYTES,
    NO_TEXT,
    NOT_DECODABLE,
    TOO_LARGE,
    UNREADABLE,
    VANISHED,
    File,
    SkipError,
    shortened,
)
from lib.errors import CorpusError

Record = str | Mapping[str, Any] | SkipError
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


def check_encoding(name: str, source: str) -> None:
    """Raise CorpusError if Python knows no text encoding of that name."""
    try:
        "x".encode(name)
    except LookupError as error:
        what = f"source {source!r}: unknown encoding {name!r}."
        raise CorpusError(
            f"{what} Write utf-8, latin-1, cp1252 or another one that Python knows."
        ) from error


@contextlib.contextmanager
def opened(file: File) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked if its name ends in .gz; faults become SkipError."""
    try:
        with contextlib.ExitStack() as stack:
            path = file.entry.path
            raw = file.fs.open(path, "rb") if file.fs else io.FileIO(path)
            data = stack.enter_context(io.BufferedReader(stack.enter_context(raw), 2**18))
            packed = data.peek(2)[:2] == b"\x1f\x8b"
            if file.entry.rel.lower().endswith(".gz"):
                data = stack.enter_context(gzip.GzipFile(fileobj=data))
            elif packed:
                raise SkipError(NOT_DECODABLE, "packed by gzip: add .gz to its name")
            yield data
    except FileNotFoundError as error:
        raise SkipError(VANISHED, "it was there when the folder was searched") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SkipError(UNREADABLE, f"damaged gzip: {error}") from error
    except UnicodeDecodeError as error:
        raise SkipError(NOT_DECODABLE, f"not {error.encoding}: {error.reason}") from error
    except OSError as error:
        raise SkipError(UNREADABLE, error.strerror or str(error)) from error


def whole(file: File, encoding: str) -> str:
    """The text of a file of at most 64 MiB; raises SkipError if it is larger or no text."""
    with opened(file) as data:
        held = data.read(MAX_RECORD_BYTES + 1)
    if len(held) > MAX_RECORD_BYTES:
        raise SkipError(TOO_LARGE, f"more than {MAX_RECORD_BYTES:,} bytes in one record")
    return decoded(held, encoding)


def decoded(data: bytes, encoding: str) -> str:
    """Bytes as text, by their byte order mark or else the declared encoding."""
    used = _by_mark(data) or encoding
    try:
        text = data.decode(used)
    except UnicodeDecodeError as error:
        raise SkipError(NOT_DECODABLE, undecodable(error)) from error
    n_zeros = text.count("\x00")
    if n_zeros * 20 > len(text):
        what = f"{n_zeros:,} of {len(text):,} characters are NUL: binary, or UTF-16 without a mark"
        raise SkipError(NOT_DECODABLE, f"{what}; declare its encoding")
    return text


def undecodable(error: UnicodeDecodeError) -> str:
    """Which byte is not text in which encoding."""
    byte = error.object[error.start]
    return f"byte {error.start:,} (0x{byte:02x}) is not {error.encoding}"


def stream(data: BinaryIO, encoding: str, newline: str) -> TextIO:
    """Bytes as lines of text; bytes that are not text become U+DC80 to U+DCFF (`stray_byte`)."""
    start = data.peek(4)[:4]
    used = _by_mark(start) or encoding
    return io.TextIOWrapper(data, used, errors="surrogateescape", newline=newline)


def stray_byte(text: str) -> SkipError | None:
    """What is wrong with a record that holds bytes which are not text, or None."""
    found = None if text.isascii() else _ESCAPED_BYTE.search(text)
    if not found:
        return None
    offset = len(text[: found.start()].encode("utf-8", "surrogateescape"))
    return SkipError(
        NOT_DECODABLE, f"byte {offset:,} of the record (0x{ord(found[0]) - 0xDC00:02x})"
    )


def parsed(text: str) -> object:
    """The value of a JSON text; raises SkipError for what is not exactly JSON.

    Python's reader by itself lets NaN, numbers beyond all bounds and repeated keys pass.
    """
    try:
        return _JSON.decode(text)
    except json.JSONDecodeError as error:
        raise SkipError(
            MALFORMED, f"JSON, line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except RecursionError as error:
        raise SkipError(MALFORMED, "JSON: nested too deeply") from error
    except ValueError as error:
        raise SkipError(MALFORMED, "JSON: a number has too many digits") from error


def json_records(value: object, wanted: str) -> Iterator[tuple[int | None, Record]]:
    """The records of a JSON file: an object, the objects of a list, or the text of a page list.

    `wanted` is the format; "british-library" accepts nothing but a page list.
    """
    if isinstance(value, list) and not value:
        raise SkipError(EMPTY, "an empty list")
    if isinstance(value, list) and (wanted == "british-library" or isinstance(value[0], list)):
        yield None, pages(value)
    elif wanted == "british-library" or not isinstance(value, list | dict):
        raise SkipError(NO_TEXT, f"expected a list of [page, text], found {shortened(value, 40)}")
    elif isinstance(value, dict):
        yield None, value
    else:
        for row, record in enumerate(value, start=1):
            yield row, as_object(record)


def as_object(value: object) -> Record:
    """A JSON value that must be an object with members."""
    if isinstance(value, dict):
        return value
    return SkipError(NO_TEXT, f"expected an object, found {shortened(value, 40)}")


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
                raise SkipError(NO_TEXT, what)
    return "\n".join(text for text in texts if text)


def _by_mark(data: bytes) -> str:
    return next((name for mark, name in _BOMS if data.startswith(mark)), "")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in members if keys.count(key) > 1)
        raise SkipError(MALFORMED, f"JSON: the member {shortened(twice)!r} stands twice")
    return members


def _no_constant(word: str) -> None:
    raise SkipError(MALFORMED, f"JSON: {word} is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if abs(number) == float("inf"):
        raise SkipError(MALFORMED, f"JSON: the number {shortened(digits, 40)} is too large")
    return number


_JSON = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
