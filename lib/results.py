"""Results: from the lines of a batch's files to one outcome for each request sent in it.

Trusts lines, never counts, in whatever order they come, and holds one answer in memory at a time.
What a single line says is for `answers`.
"""

import gzip
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from lib import answers, models
from lib.models import Model
from lib.study import Field

MAX_LINE_BYTES, _CHUNK_BYTES = 16_000_000, 1_048_576
_TOO_LONG = b"too long"


@dataclass
class Tally:
    """What is no row: lines of no request, requests without a line, and with lines that differ."""

    n_strange: int = 0
    n_missing: int = 0
    torn: set[str] = field(default_factory=set)


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a result file (gzip), split at b"\\n" alone, without their ends.

    JSON strings may hold U+2028 and U+0085, at which str.splitlines would cut a line in two. A
    line beyond MAX_LINE_BYTES is not kept in memory: it becomes one that nobody can read.
    """
    rest = b""
    with gzip.open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield _TOO_LONG if _is_too_long(line) else line.rstrip(b"\r")
            if _is_too_long(rest):
                rest = _TOO_LONG
    if rest:
        yield rest.rstrip(b"\r")


def _is_too_long(line: bytes) -> bool:
    """Whether a line is, or is what was left of one that was."""
    return len(line) >= MAX_LINE_BYTES or line.startswith(_TOO_LONG)


def rows(
    sent: Iterable[tuple[str, str, int]],
    raw: Iterable[bytes],
    fields: Mapping[str, Field],
    model: Model,
    tally: Tally,
    settled: Collection[str] = (),
) -> Iterator[dict[str, Any]]:
    """A row for each request sent, in the order of the lines; what is no row goes to the `tally`.

    `sent` are custom_id, key and attempt of each. A request without a line is `missing`; lines
    repeated word for word count once. Lines about one request that differ can only be settled
    together: such requests are torn, and all has to be read again with them as `settled`. Two
    different valid answers to one request make it `invalid`.
    """
    asked = {name: (key, attempt) for name, key, attempt in sent}
    rates = [models.rates(model, long_input=is_long) for is_long in (False, True)]
    for row in _found(asked, raw, fields, tally, settled):
        row["key"], row["attempt"] = asked[row["custom_id"]]
        n_input = row["n_input_tokens"] or 0
        n_cached = min(row["n_cached_tokens"] or 0, n_input)
        rate = rates[models.is_long(model, n_input)]
        spend_usd = models.usd(rate, n_input, row["n_output_tokens"] or 0, n_cached)
        row["model"], row["spend_usd"] = model.name, spend_usd
        yield row


def _found(
    asked: Mapping[str, tuple],
    raw: Iterable[bytes],
    fields: Mapping[str, Field],
    tally: Tally,
    settled: Collection[str],
) -> Iterator[dict[str, Any]]:
    """What the lines say: the first one of each request at once, the settled ones at the end."""
    first: dict[str, int] = {}  # the hash of the first line about each request
    apart: dict[str, list[dict]] = {}
    for line in filter(None, raw):
        row = answers.outcome(line, fields)
        if row is None or (name := row["custom_id"]) not in asked:
            tally.n_strange += 1
        elif name in settled:
            apart.setdefault(name, []).append(row)
        elif name not in first:
            first[name] = hash(line)
            yield row
        elif first[name] != hash(line):
            tally.torn.add(name)
    yield from map(_settle, apart.values())
    for name in asked:
        if name not in first and name not in apart:
            tally.n_missing += 1
            yield answers.missing(name)


def _settle(candidates: list[dict]) -> dict[str, Any]:
    """The one outcome of a request from all lines about it, whatever their order."""
    contents = {row["content"] for row in candidates if row["outcome"] == "valid"}
    best = min(candidates, key=_order)
    if len(contents) < 2:
        return best
    what = f"{len(contents)} different answers to one request"
    return {**best, "outcome": "invalid", "message": what}


def _order(row: Mapping[str, Any]) -> tuple:
    return (row["outcome"] != "valid", orjson.dumps(row, option=orjson.OPT_SORT_KEYS))
