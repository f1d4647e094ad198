"""Ranges: a run's tables some items at a time, so that memory does not grow with the corpus.

Decides where a range ends, and never within an item. A file in the order of items, as `votes`
writes it, has ranges of bounded size; another one is read in larger ones, with the same results.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb
import pandas as pd

from lib import scratch

_GROUPS = """
SELECT coalesce(stats_max_value, stats_max) AS last, sum(row_group_num_rows)::BIGINT
FROM parquet_metadata(?) WHERE path_in_schema = 'item' AND last IS NOT NULL
GROUP BY last ORDER BY last
"""
_TEXTS = ("value", "said", "abstained")


class Range(NamedTuple):
    """The rows of a Parquet file whose item comes after one and is not after another, by code
    points; null is no bound.
    """

    path: Path
    after: str | None = None
    last: str | None = None


Rows = Path | Range | pd.DataFrame


def of(path: Path, n_rows: int) -> Iterator[Range]:
    """The ranges of a file in the order of items: each has `n_rows` or one row group at most where
    the file is in that order, and every item is in one of them alone.
    """
    with scratch.database() as base:
        groups = base.execute(_GROUPS, [str(path)]).fetchall()
    ends, n, before = [], 0, None
    for last, n_there in groups:
        if n and n + n_there > n_rows:
            ends.append(before)
            n = 0
        n, before = n + n_there, last
    for after, last in itertools.pairwise([None, *ends, None]):
        yield Range(path, after, last)


def see(base: duckdb.DuckDBPyConnection, name: str, rows: Rows) -> None:
    """Let a database have these rows as the view `name`."""
    if isinstance(rows, pd.DataFrame):
        texts = dict.fromkeys((one for one in _TEXTS if one in rows), "string")
        base.register(name, rows.astype(texts))
        return
    part, item = _range(rows), duckdb.ColumnExpression("item")
    found = base.read_parquet(str(part.path))
    if part.after is not None:
        found = found.filter(item > duckdb.ConstantExpression(part.after))
    if part.last is not None:
        found = found.filter(item <= duckdb.ConstantExpression(part.last))
    found.create_view(name)


def read(rows: Rows) -> pd.DataFrame:
    """These rows as a table."""
    if isinstance(rows, pd.DataFrame):
        return rows
    part = _range(rows)
    bounds = [("item", ">", part.after), ("item", "<=", part.last)]
    return pd.read_parquet(part.path, filters=[one for one in bounds if one[2] is not None] or None)


def within(part: Range, items: pd.Series) -> pd.Series:
    """Which of these items the range has, or would have if they were in its file."""
    after = items.gt(part.after) if part.after is not None else pd.Series(True, index=items.index)
    return after & items.le(part.last) if part.last is not None else after


def _range(rows: Path | Range) -> Range:
    return rows if isinstance(rows, Range) else Range(rows)
