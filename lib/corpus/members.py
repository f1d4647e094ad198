"""Records become documents: the members that the source names, checked one by one.

It decides when a record is complete: text that can be sent, an id, a group and a date where the
source declares them. What it cannot understand is refused with the value in the detail, never
filled in. Every column of `keep` is text, whatever the file has: `4.5`, `true` and `{"a":1}` stand
as JSON writes them, null where the member is missing, so that one column has one type over all
files and `007` stays `007`.
"""

import datetime
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from lib import yamls
from lib.corpus import texts
from lib.corpus.shapes import Document, File, SkipError, path_id, record_id, shortened
from lib.study import Source

Record = str | Mapping[str, Any]
_MONTH_AND_YEAR = re.compile(r"[A-Za-z]{3}.*\d{4}|\d{4}.*[A-Za-z]{3}", re.DOTALL)


def identity(file: File, source: Source, row: int | None, record: Record | SkipError) -> str:
    """The id of a record; raises SkipError if the source declares one and it cannot be used."""
    if source.id and isinstance(record, SkipError):
        raise record
    if source.id and isinstance(record, Mapping):
        return record_id(file.source, _word(record, source.id, "no id"))
    name = path_id(file.source, file.rel)
    return name if row is None else f"{name}#{row}"


def document(
    file: File, source: Source, row: int | None, name: str, record: Record, min_chars: int
) -> Document:
    """The document that a record with the id `name` makes; raises SkipError."""
    members = {} if isinstance(record, str) else record
    text = record if isinstance(record, str) else _text(record, source.text)
    cut = texts.gutenberg(texts.normal(text))
    _encodable(cut.text, "text")
    _check_length(cut, min_chars)
    columns = {
        "group": _word(members, source.group, "no group") if members and source.group else None,
        "date": _date(members, source.date) if members and source.date else None,
        "n_cut_start": cut.n_start,
        "n_cut_end": cut.n_end,
        "title": cut.title,
        "author": cut.author,
        **{key: _kept(members[key], key) for key in source.keep if key in members},
    }
    return Document(file, row, name, cut.text, columns)


def moment(value: object) -> datetime.datetime | None:
    """A date or time as UTC without a zone, or None if it cannot be read for certain.

    Reads ISO 8601, a year, a year and month, and writings with the month as a word and a year of
    four digits. `03/04/2020` and numbers of seconds are not read: nothing tells what they mean.

    >>> moment("2020-03-04T12:00:00+02:00"), moment("1887"), moment("03/04/2020")
    (datetime.datetime(2020, 3, 4, 10, 0), datetime.datetime(1887, 1, 1, 0, 0), None)
    """
    if isinstance(value, datetime.datetime):
        found = value
    elif isinstance(value, str | int | datetime.date) and not isinstance(value, bool):
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
    iso = text.replace("/", "-")
    if re.fullmatch(r"\d{4}(-\d{2})?", iso):
        iso = f"{iso}-01-01"[:10]
    try:
        return datetime.datetime.fromisoformat(iso)
    except ValueError:
        return _with_month(text) if _MONTH_AND_YEAR.search(text) else None


def _with_month(text: str) -> datetime.datetime | None:
    import pandas as pd

    found = pd.to_datetime(text, errors="coerce")
    return None if found is pd.NaT else found.to_pydatetime()


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if name not in record:
        raise SkipError("no text member", _missing(name, record))
    if value is None:
        raise SkipError("empty", f"{name} is null")
    if not isinstance(value, str):
        what = f"{name} is {type(value).__name__}, not text: {shortened(value)}"
        raise SkipError("text of another type", what)
    return value


def _check_length(cut: texts.Cut, min_chars: int) -> None:
    n_chars = len(cut.text.strip())
    if not n_chars:
        n_cut = cut.n_start + cut.n_end
        after = f" after {n_cut:,} characters of licence were cut off" if n_cut else ""
        raise SkipError("empty", f"no text{after}")
    if n_chars < min_chars:
        raise SkipError("too short", f"{n_chars:,} characters, at least {min_chars:,} are wanted")


def _word(record: Mapping[str, Any], name: str, reason: str) -> str:
    """A text or number as an id or group; 3.0 is 3, as tables with gaps turn 3 into 3.0."""
    value = record.get(name)
    if isinstance(value, float) and math.isfinite(value):
        value = int(value) if value.is_integer() else repr(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise SkipError(reason, _missing(name, record))
    return _encodable(value, name)


def _date(record: Mapping[str, Any], name: str) -> datetime.datetime:
    if record.get(name) in (None, ""):
        raise SkipError("unreadable date", _missing(name, record))
    found = moment(record[name])
    if found is None:
        value = shortened(record[name])
        raise SkipError("unreadable date", f"{name} is {value!r}; write it as 2026-11-22")
    return found


def _kept(value: object, name: str) -> str | None:
    if isinstance(value, datetime.date):
        value = value.isoformat()
    elif value is not None and not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return _encodable(value, name) if value else value


def _encodable(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"{name}, character {error.start:,}: U+{ord(text[error.start]):04X} stands alone"
        raise SkipError("not encodable", what) from error
    return text


def _missing(name: str, record: Mapping[str, Any]) -> str:
    if name in record:
        return f"{name} is {shortened(record[name])!r}"
    if not record:
        return f"no member {name!r}: the record has none at all"
    return f"no member {name!r}.{yamls.nearest(name, record)}"
