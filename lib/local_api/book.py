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
SELECT custom_id, sum(status = 200) AS n_executions, sum(status != 200) AS n_refusals,
  sum(n_input_tokens) AS n_input_tokens, sum(n_output_tokens) AS n_output_tokens,
  group_concat(DISTINCT b.id) AS batches
FROM book JOIN batches b ON b.n = book.batch GROUP BY custom_id HAVING n_executions > ?
ORDER BY custom_id
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
    ids = {row["custom_id"]: {**row, "batches": row["batches"].split(",")} for row in map(dict, rows)}
    for entry in ids.values():
        del entry["custom_id"]
    sums = dict(db.execute(SUMS).fetchone())
    return {"object": "votebook.book", **sums, "custom_ids": ids}


def _entries(records: bytes) -> Iterator[tuple]:
    """custom_id, status and tokens of each answer."""
    for record in records.split(b"\n")[:-1]:
        line = orjson.loads(b"{" + record[1:])
        response = line["response"]
        usage = (response["body"] or {}).get("usage") or {}
        yield (line["custom_id"], response["status_code"], *_counts(usage))


def _counts(usage: dict) -> tuple[int, int, int, int]:
    """Input, cached, output and reasoning tokens, in the words of either endpoint."""
    word = ("prompt", "completion") if "prompt_tokens" in usage else ("input", "output")
    details = [usage.get(f"{one}_tokens_details") or {} for one in word]
    return (
        usage.get(f"{word[0]}_tokens", 0),
        details[0].get("cached_tokens", 0),
        usage.get(f"{word[1]}_tokens", 0),
        details[1].get("reasoning_tokens", 0),
    )
