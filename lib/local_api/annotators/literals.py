"""Numbers and strings that satisfy the limits of a schema.

Decides valid values for minimum, maximum, multipleOf, pattern and format. Refuses to run a
pattern of the request against a text unless it cannot backtrack, so that no request can hang the
service; groups with look-around, back references and the like yield an empty string.
"""

import math
import re
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

_FORMATS = {
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "date": "2000-01-01",
    "duration": "P1D",
    "email": "nobody@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}
_FORMAT_SHAPES = {
    "date-time": r"(?<!\d)\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\dZ",
    "date": r"(?<![\d-])\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])(?![\d-])",
    "email": r"(?<![\w.])\w{1,40}@\w{1,40}\.(?:com|org|net|edu)\b",
    "ipv4": r"(?<![\d.])\d{1,2}\.\d{1,2}\.\d{1,2}\.\d{1,2}(?![\d.])",
}
_ATOM = r"(?:\\[dw]|\[[\w -]+\]|[\w \-/:])(?:\{\d{1,2}\})?"
_CANNOT_BACKTRACK = re.compile(rf"\^?((?:{_ATOM}){{1,12}})\$?")
_CLASSES = {"d": "0", "w": "a", "s": " ", "D": "a", "W": " ", "S": "a", "n": "\n", "t": "\t"}
_UNREADABLE = ("(?=", "(?!", "(?<", "(?P", "\\b", "\\1", "\\k", "\\p", "\\u", "\\x")


def fitted(value: float, schema: Mapping[str, Any]) -> int | float:
    """The number nearest to `value` that a number schema allows (best effort when none does).

    >>> fitted(7.4, {"type": "integer", "maximum": 5}), fitted(0.5, {"multipleOf": 0.25})
    (5, 0.5)
    """
    low, high = bounds(schema)
    is_integer = schema.get("type") == "integer"
    step = schema.get("multipleOf") or (1 if is_integer else None)
    clamped = min(max(value, low), high)
    if step:
        return _stepped(clamped, step, is_integer, schema)
    if _is_open_end(clamped, schema):
        ends = (low if math.isfinite(low) else high - 2, high if math.isfinite(high) else low + 2)
        clamped = (ends[0] + ends[1]) / 2
    return clamped


def bounds(schema: Mapping[str, Any]) -> tuple[float, float]:
    """The lowest and highest number of a schema, infinite where it sets none."""
    lows = [schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema]
    highs = [schema[key] for key in ("maximum", "exclusiveMaximum") if key in schema]
    return max(lows, default=-math.inf), min(highs, default=math.inf)


def middle(schema: Mapping[str, Any]) -> float:
    """A value to give when nothing is known: the middle of the bounds, else the nearest to 0."""
    low, high = bounds(schema)
    if math.isfinite(low) and math.isfinite(high):
        return low + (high - low) / 2
    return min(max(0.0, low), high)


def _stepped(value: float, step: float, is_integer: bool, schema: Mapping[str, Any]) -> int | float:
    """The nearest allowed multiple of a step, tried outwards."""
    unit = Decimal(str(step))
    nearest = int((Decimal(str(value)) / unit).to_integral_value())
    for away in range(256):
        for count in (nearest + away, nearest - away):
            found = _plain(count * unit)
            if _fits(found, step, is_integer, schema):
                return found
    return _plain(nearest * unit)


def _plain(number: Decimal) -> int | float:
    return int(number) if number == number.to_integral_value() else float(number)


def _fits(found: float, step: float, is_integer: bool, schema: Mapping[str, Any]) -> bool:
    """Whether a multiple is allowed, also for a validator that divides floats."""
    low, high = bounds(schema)
    inside = low <= found <= high and not _is_open_end(found, schema)
    whole = isinstance(found, int) or not is_integer
    return inside and whole and (found / step).is_integer() if step else False


def _is_open_end(value: float, schema: Mapping[str, Any]) -> bool:
    return value in (schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum"))


def found_in(text: str, schema: Mapping[str, Any]) -> str | None:
    """The first piece of the text that has the schema's format or simple pattern, if any."""
    shape = _FORMAT_SHAPES.get(schema.get("format", ""))
    if "pattern" in schema:
        simple = _CANNOT_BACKTRACK.fullmatch(schema["pattern"])
        shape = rf"(?<!\w){simple[1]}(?!\w)" if simple else None
    try:
        match = re.search(shape, text) if shape else None
    except re.error:
        return None
    return match[0] if match else None


def made_up(schema: Mapping[str, Any], seed: int) -> str | None:
    """A string with the schema's pattern or format; None when it has neither."""
    if "pattern" in schema:
        return from_pattern(schema["pattern"])
    if schema.get("format") == "uuid":
        return str(uuid.UUID(int=seed << 64 | seed, version=4))
    return _FORMATS.get(schema.get("format", ""))


def from_pattern(pattern: str) -> str:
    """A short string that matches a simple pattern; "" for one with look-around or references.

    >>> from_pattern("^[A-Z]{2}-\\\\d{3}(/x|y)?$")
    'AA-000'
    """
    if any(mark in pattern for mark in _UNREADABLE):
        return ""
    made, _ = _alternatives(pattern, 0)
    return made


def _alternatives(pattern: str, at: int) -> tuple[str, int]:
    """The first alternative of a group or of the whole pattern, and where it ends."""
    first: str | None = None
    while True:
        made, at = _sequence(pattern, at)
        first = made if first is None else first
        if at >= len(pattern) or pattern[at] == ")":
            return first, at
        at += 1


def _sequence(pattern: str, at: int) -> tuple[str, int]:
    made = []
    while at < len(pattern) and pattern[at] not in "|)":
        atom, at = _atom(pattern, at)
        least, at = _least(pattern, at)
        made.append(atom * least)
    return "".join(made), at


def _atom(pattern: str, at: int) -> tuple[str, int]:
    """What one element of a pattern matches, and the place behind it."""
    sign = pattern[at]
    readers: dict[str, Callable[[str, int], tuple[str, int]]] = {"(": _group, "[": _set}
    if sign in readers:
        return readers[sign](pattern, at + 1)
    if sign == "\\":
        sign = pattern[at + 1 : at + 2]
        return _CLASSES.get(sign, sign), at + 2
    return {"^": "", "$": "", ".": "a"}.get(sign, sign), at + 1


def _group(pattern: str, at: int) -> tuple[str, int]:
    made, end = _alternatives(pattern, at + 2 if pattern.startswith("?:", at) else at)
    return made, end + 1


def _set(pattern: str, at: int) -> tuple[str, int]:
    """The first member of a character set, or a sign outside a negated one."""
    end = pattern.find("]", at + 1)
    members = pattern[at : len(pattern) if end < 0 else end]
    after = len(pattern) if end < 0 else end + 1
    if members.startswith("^"):
        return next(sign for sign in "a0 -_~\x7f" if sign not in members[1:]), after
    if members.startswith("\\"):
        return _CLASSES.get(members[1:2], members[1:2]), after
    return members[:1], after


def _least(pattern: str, at: int) -> tuple[int, int]:
    """How often the element before `at` must stand there, and the place behind the quantifier."""
    sign = pattern[at : at + 1]
    if sign in ("?", "*", "+"):
        at += 1
        least = 1 if sign == "+" else 0
    elif braces := re.compile(r"\{(\d+)(?:,\d*)?\}").match(pattern, at):
        at, least = braces.end(), int(braces[1])
    else:
        return 1, at
    return min(least, 1000), at + (pattern[at : at + 1] == "?")
