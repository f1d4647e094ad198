"""Sent: the input files of a run as they lie on disk, and what stands in their lines.

A shard's file holds exactly what was uploaded, packed or not; the ledger has its digest. It reads,
and decides nothing.
"""

import gzip
import hashlib
import itertools
import re
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson
import pandas as pd

from lib import ledger, models, prompts
from lib.runs import Run
from lib.services import Facts

_ID = re.compile(rb'\{"custom_id":"([\w-]+)"')


class Line(NamedTuple):
    """A line of an input file: its ids, and what the service may charge for it."""

    custom_id: str
    key: str
    attempt: int
    model: str
    n_input_tokens: int
    n_cap_tokens: int
    worst_usd: float


def check_lines(book: sqlite3.Connection, run: Run, shard: dict[str, Any]) -> None:
    """Raise DatabaseError when the ledger holds other lines than the very file that was sent.

    A flipped bit in the id of a line would pass for a line that was never sent.
    """
    if shard["purpose"] == "adopted":  # its other lines are another shard's
        return
    for path in local(run, shard["file"].removesuffix(".jsonl"))[:1]:
        held = [name for name, _, _ in ledger.lines(book, shard["shard"])]
        if ids(path) != held and digest(path)[0] == shard["sha256"]:
            raise sqlite3.DatabaseError(f"other lines in shard {shard['shard']} than in its file")


def write_lines(book: sqlite3.Connection, run: Run, shard: dict[str, Any]) -> None:
    """Write the lines of a shard into the ledger anew, as they stand in the file that was sent."""
    path = local(run, shard["file"].removesuffix(".jsonl"))[0]
    held = {key[:40]: key for _, key, _ in ledger.lines(book, shard["shard"])}
    keys = {**held, **{digits: key for digits, (key, _) in _input_tokens(run).items()}}
    found = (prompts.read_custom_id(name) for name in ids(path))
    rows = [
        (bytes.fromhex(keys.get(digits, digits.ljust(64, "0"))), attempt, shard["id"], line)
        for line, (digits, attempt) in enumerate(found)
    ]
    with ledger.writing(book):
        book.execute("DELETE FROM sends WHERE shard_id = ?", (shard["id"],))
        query = "INSERT INTO sends (key, attempt, shard_id, line) VALUES (?, ?, ?, ?)"
        book.executemany(query, rows)
    ledger.note(book, "lines written anew", shard["shard"], n_lines=len(rows))


def local(run: Run, shard: str) -> list[Path]:
    """The files of a shard that there are: as it was sent, and packed."""
    found = (run.path("shards") / f"{shard}{ending}" for ending in (".jsonl", ".jsonl.gz"))
    return [path for path in found if path.is_file()]


def opened(path: Path) -> IO[bytes]:
    """The bytes of a shard's file, packed or not, under whatever further name."""
    return gzip.open(path, "rb") if ".jsonl.gz" in path.name else path.open("rb")


def digest(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a shard's bytes as they were sent; nothing for a damaged file."""
    try:
        with opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except (OSError, EOFError, zlib.error):
        return "-", 0


def ids(path: Path) -> list[str]:
    """The ids of a shard's lines, as far as the file can be read."""
    try:
        with opened(path) as file:
            return [found[1].decode() for raw in file if (found := _ID.match(raw))]
    except (OSError, EOFError, zlib.error):
        return []


def lines(run: Run, facts: Facts, path: Path) -> Iterator[Line]:
    """The lines of an input file; one that no request of today asks for counts its bytes."""
    n_tokens = _input_tokens(run)
    asked = [(one.model, *one.fallback) for one in run.study.annotators.values()]
    known = {facts.called(model): model for model in itertools.chain.from_iterable(asked)}
    with opened(path) as file:
        for raw in file:
            read = orjson.loads(raw)
            body, name = read["body"], read["custom_id"]
            digits, attempt = prompts.read_custom_id(name)
            key, n_input = n_tokens.get(digits, (digits.ljust(64, "0"), len(raw)))
            model = known.get(body["model"], body["model"])
            about = models.facts(model)
            cap = int(body[about.cap_parameter])
            usd = models.worst_case_usd(about, n_input, cap)
            yield Line(name, key, attempt, model, n_input, cap, usd)


def _input_tokens(run: Run) -> dict[str, tuple[str, int]]:
    """Key and input tokens of each request, by the part of the key that a custom_id shows."""
    requests = pd.read_parquet(run.path("requests.parquet"), columns=["key", "n_input_tokens"])
    return {key[:40]: (key, int(n)) for key, n in requests.itertuples(index=False, name=None)}
