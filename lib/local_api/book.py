"""The book: which requests of batches were run, and what each cost in tokens.

It is the service's own account, written together with the counts of the batch, so that a test can
judge a client by what was paid and not by what the client believes. A request that was refused is
in it without tokens and is no execution.
"""

import sqlite3
from collections.abc import Iterable, Iterator

import orjson

SCHEMA = """
CREATE TABLE IF NOT EXISTS book (
  batch INTEGER NOT NULL, custom_id TEXT NOT NULL, status INTEGER NOT NULL,
  n_input_tokens INTEGER NOT NULL, n_cached_tokens INTEGER NOT NULL,
  n_output_tokens INTEGER NOT NULL, n_reasoning_tokens INTEGER NOT NULL);
"""
TOKENS = ("n_input_tokens", "n_cached_tokens", "n_output_tokens", "n_reasoning_tokens")
PER_ID = """
SELECT e.custom_id, sum(e.status = 200) AS n_executions, sum(e.status != 200) AS n_refusals,
  sum(e.n_input_tokens) AS n_input_tokens, sum(e.n_cached_tokens) AS n_cached_tokens,
  sum(e.n_output_tokens) AS n_output_tokens, sum(e.n_reasoning_tokens) AS n_reasoning_tokens,
  group_concat(DISTINCT b.id) AS batches
FROM book e JOIN batches b ON b.n = e.batch GROUP BY e.custom_id HAVING n_executions > ?
ORDER BY e.custom_id
"""
SUMS = """
SELECT count(DISTINCT custom_id) AS n_custom_ids, coalesce(sum(status = 200), 0) AS n_executions,
  coalesce(sum(status != 200), 0) AS n_refusals,
  coalesce(sum(n_input_tokens), 0) AS n_input_tokens,
  coalesce(sum(n_cached_tokens), 0) AS n_cached_tokens,
  coalesce(sum(n_output_tokens), 0) AS n_output_tokens,
  coalesce(sum(n_reasoning_tokens), 0) AS n_reasoning_tokens
FROM book
"""


def entries(batch: int, records: bytes) -> list[tuple]:
    """The entries for answers that are about to be counted."""
    return [(batch, *entry) for entry in _entries(records)]


def tokens(records: bytes) -> dict[str, int]:
    """The tokens of answers, summed."""
    found = [entry[2:] for entry in _entries(records)]
    return {name: sum(entry[place] for entry in found) for place, name in enumerate(TOKENS)}


def write(db: sqlite3.Connection, made: Iterable[tuple]) -> None:
    """Insert entries in the current transaction; the caller commits."""
    db.executemany("INSERT INTO book VALUES (?, ?, ?, ?, ?, ?, ?)", made)


def read(db: sqlite3.Connection, more_than: int) -> dict:
    """The whole book, with the custom_ids that were executed more often than so many times."""
    rows = db.execute(PER_ID, (more_than,)).fetchall()
    ids = {
        row["custom_id"]: {**row, "batches": row["batches"].split(",")} for row in map(dict, rows)
    }
    for entry in ids.values():
        del entry["custom_id"]
    sums = dict(db.execute(SUMS).fetchone())
    return {"object": "votebook.book", **sums, "custom_ids": ids}


def _entries(records: bytes) -> Iterator[tuple]:
    """custom_id, status and tokens of each answer."""
    for record in records.split(b"\n")[:-1]:
        line = orjson.loads(b"{" + record[1:])
        response = line["response"]
        yield (line["custom_id"], response["status_code"], *_counts(_part(response, "body")))


def _counts(body: dict) -> tuple[int, ...]:
    """Input, cached, output and reasoning tokens, in the words of either endpoint."""
    usage = _part(body, "usage")
    sent, made = ("prompt", "completion") if "prompt_tokens" in usage else ("input", "output")
    found = (
        usage.get(f"{sent}_tokens"),
        _part(usage, f"{sent}_tokens_details").get("cached_tokens"),
        usage.get(f"{made}_tokens"),
        _part(usage, f"{made}_tokens_details").get("reasoning_tokens"),
    )
    return tuple(n if isinstance(n, int) and n > 0 else 0 for n in found)


def _part(value: dict, name: str) -> dict:
    """A member that is an object; empty when it is none, as an upstream may answer anything."""
    part = value.get(name)
    return part if isinstance(part, dict) else {}
