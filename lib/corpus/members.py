"""Records become documents: the members that the source names, checked one by one.

It decides when a record is complete: text that can be sent, an id, a group and a date where the
source declares them. What it cannot understand is refused with the value in the detail, never
filled in. Every column of `keep` is text, whatever the file has: `4.5`, `true` and `{"a":1}` stand
as JSON writes them, null where the member is missing, so that one column has one type over all
files and `007` stays `007`.
"""

import datetime
import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from lib import yamls
from lib.corpus import clean
from lib.corpus.shapes import (
    EMPTY,
    NO_DATE,
    NO_GROUP,
    NO_ID,
    NO_TEXT,
    NOT_ENCODABLE,
    TOO_SHORT,
    WRONG_TYPE,
    Document,
    File,
    SkipError,
    path_id,
    record_id,
    shortened,
)
from lib.study import Source

_MONTH_AND_YEAR = re.compile(r"[A-Za-z]{3}.*\d{4}|\d{4}.*[A-Za-z]{3}", re.DOTALL)


def document(
    file: File, source: Source, row: int | None, record: str | Mapping[str, Any], min_chars: int
) -> Document:
    """The document that a record makes; raises SkipError."""
    members = {} if isinstance(record, str) else record
    name = _id(file, source, row, record)
    cut = clean.gutenberg(
        clean.normal(record if isinstance(record, str) else _text(record, source))
    )
    digest = _digest(cut.text)
    _long_enough(cut, min_chars)
    header = {"title": cut.title, "author": cut.author}
    return Document(
        id=name,
        source=file.source,
        format=file.format,
        path=file.shown,
        row=row,
        text=cut.text,
        sha256=digest,
        group=_group(members, source.group),
        date=_date(members, source.date),
        n_cut_start=cut.n_start,
        n_cut_end=cut.n_end,
        kept=header | {key: _kept(members[key], key) for key in source.keep if key in members},
    )


def name_of(file: File, source: Source, row: int | None, record: object) -> str | None:
    """The id of a record for the skipped table, None where it has none or cannot be read."""
    if isinstance(record, SkipError) and source.id:
        return None
    try:
        return _id(file, source, row, record)
    except SkipError:
        return None


def moment(value: object) -> datetime.datetime | None:
    """A date or time as UTC without a zone, or None if it cannot be read for certain.

    Reads ISO 8601, a year, a year and month, and writings with the month as a word and a year of
    four digits. `03/04/2020` and numbers of seconds are not read: nothing tells what they mean.

    >>> moment("2020-03-04T12:00:00+02:00"), moment("1887"), moment("03/04/2020")
    (datetime.datetime(2020, 3, 4, 10, 0), datetime.datetime(1887, 1, 1, 0, 0), None)
    """
    if isinstance(value, datetime.datetime):
        found = value
    elif isinstance(value, datetime.date):
        found = datetime.datetime(value.year, value.month, value.day)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        found = _written(str(value).strip())
    else:
        return None
    try:
        zoned = found and found.utcoffset() is not None
        return found.astimezone(datetime.UTC).replace(tzinfo=None) if zoned else found
    except (ValueError, OverflowError):
        return None


def _written(text: str) -> datetime.datetime | None:
    if text.isdecimal() and len(text) not in (4, 8):
        return None
    text = re.sub(r"^(\d{4})/(\d{1,2})/(\d{1,2})", r"\1-\2-\3", text)
    if re.fullmatch(r"\d{4}(-\d{2})?", text):
        text = f"{text}-01-01"[:10]
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        return _with_month(text) if _MONTH_AND_YEAR.search(text) else None


def _with_month(text: str) -> datetime.datetime | None:
    import pandas as pd

    try:
        found = pd.to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found.to_pydatetime() if isinstance(found, pd.Timestamp) else None


def _id(file: File, source: Source, row: int | None, record: object) -> str:
    if source.id and isinstance(record, Mapping):
        value = _word(record.get(source.id))
        if value is None or not value.strip():
            raise SkipError(NO_ID, _missing(source.id, record))
        _digest(value, source.id)
        return record_id(file.source, value)
    name = path_id(file.source, file.entry.rel)
    return name if row is None else f"{name}#{row}"


def _text(record: Mapping[str, Any], source: Source) -> str:
    if source.text not in record:
        raise SkipError(NO_TEXT, _missing(source.text, record))
    value = record[source.text]
    if value is None:
        raise SkipError(EMPTY, f"{source.text} is null")
    if not isinstance(value, str):
        what = f"{source.text} is {type(value).__name__}, not text: {shortened(value)}"
        raise SkipError(WRONG_TYPE, what)
    return value


def _long_enough(cut: clean.Cut, min_chars: int) -> None:
    n_chars = len(cut.text.strip())
    if not n_chars:
        after = f" after {cut.n_start + cut.n_end:,} characters of licence were cut off"
        raise SkipError(EMPTY, f"no text{after if cut.n_start + cut.n_end else ''}")
    if n_chars < min_chars:
        raise SkipError(TOO_SHORT, f"{n_chars:,} characters, at least {min_chars:,} are wanted")


def _group(members: Mapping[str, Any], name: str | None) -> str | None:
    if name is None or not members:
        return None
    value = _word(members.get(name))
    if value is None or not value.strip():
        raise SkipError(NO_GROUP, _missing(name, members))
    _digest(value, name)
    return value


def _date(members: Mapping[str, Any], name: str | None) -> datetime.datetime | None:
    if name is None or not members:
        return None
    if members.get(name) in (None, ""):
        raise SkipError(NO_DATE, _missing(name, members))
    found = moment(members[name])
    if found is None:
        value = shortened(members[name])
        raise SkipError(NO_DATE, f"{name} is {value!r}; write it as 2026-11-22")
    return found


def _word(value: object) -> str | None:
    """A text or number as an id or group; 3.0 is 3, as tables with gaps turn 3 into 3.0."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def _kept(value: object, name: str) -> str | None:
    if value is None or isinstance(value, str):
        text = value
    elif isinstance(value, datetime.date):
        text = value.isoformat()
    else:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    _digest(text or "", name)
    return text


def _digest(text: str, name: str = "text") -> bytes:
    try:
        return hashlib.sha256(text.encode()).digest()
    except UnicodeEncodeError as error:
        what = f"{name}, character {error.start:,}: U+{ord(text[error.start]):04X} stands alone"
        raise SkipError(NOT_ENCODABLE, what) from error


def _missing(name: str, record: Mapping[str, Any]) -> str:
    if name in record:
        return f"{name} is {shortened(record[name])!r}"
    if not record:
        return f"no member {name!r}: the record has none at all"
    return f"no member {name!r}.{yamls.nearest(name, record)}"
