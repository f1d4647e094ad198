"""Polls: files of votes from anywhere, and of their truth, with the names used here.

Decides which column is what, and refuses what cannot be read. Memory is bounded; a file is never
loaded. Counting is for `counting`, and what a count is worth for `measured`.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pandas as pd

from lib import scratch, words, yamls
from lib.errors import StudyError

_NAMES = {
    "item": ("item", "task"),
    "worker": ("worker", "annotator", "voter"),
    "label": ("label", "value"),
    "field": ("field",),
    "model": ("model",),
    "repeat": ("repeat", "run"),
    "weight": ("weight",),
}
_TRUE = ("truth", "label", "value")
_UNREADABLE = (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.BinderException)
_OVERVIEW = """
SELECT count(*) AS n_votes, count(DISTINCT item) AS n_items, count(DISTINCT {voter}) AS n_voters,
    count(DISTINCT ({voter}, worker)) AS n_runs, count(*) - count(label) AS n_missing,
    count(*) - count(DISTINCT ({place})) AS n_repeated,
    count(*) FILTER (item IS NULL OR worker IS NULL) AS n_nameless
FROM given
"""


@contextlib.contextmanager
def opened(
    votes: Path | pd.DataFrame, *, per_run: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the votes as the view `given`: item, worker, label, and what else is there.

    A worker is what votes once on an item: with repeats, each of them. Where a row has no model,
    its worker is one. With `per_run` the model is only known as `run_of`, so that each worker has a
    vote of its own.
    """
    # One pass over one column group is bound by memory: a second thread only adds overhead.
    with scratch.database(n_threads=1) as base, _said_plainly(votes):
        read(base, "file", votes)
        columns = _columns(base.table("file").columns, per_run=per_run)
        listed = ", ".join(f"{one} AS {name}" for name, one in columns.items())
        base.execute(f"CREATE VIEW given AS SELECT {listed} FROM file")  # noqa: S608 - quoted
        if not base.execute("SELECT 1 FROM given LIMIT 1").fetchall():
            raise StudyError(f"{_shown(votes)}: there are no votes below the header.")
        yield base


def read(base: duckdb.DuckDBPyConnection, name: str, table: Path | pd.DataFrame) -> None:
    """Make a CSV or Parquet file, or a table, a view of the database; CSV cells are texts."""
    if isinstance(table, pd.DataFrame):
        base.register(name, table)
        return
    if not table.is_file():
        raise StudyError(f"{_shown(table)}: there is no such file.", file=str(table))
    if not table.stat().st_size:
        raise StudyError(f"{_shown(table)}: the file is empty.", file=str(table))
    with _said_plainly(table):
        if table.suffix == ".parquet":
            base.read_parquet(str(table)).create_view(name)
        else:
            base.read_csv(str(table), all_varchar=True, header=True).create_view(name)


def columns(base: duckdb.DuckDBPyConnection) -> list[str]:
    """The columns that the opened votes have."""
    return base.view("given").columns


def overview(votes: Path | pd.DataFrame) -> dict[str, int]:
    """What is in the votes: n_votes, n_items, n_voters, n_runs, n_missing, n_repeated.

    n_voters counts models where they are known, n_missing empty labels, and n_repeated second votes
    of the same worker (or repeat) on the same item and field. Raises StudyError for rows without an
    item or worker.
    """
    with opened(votes) as base:
        place = ", ".join(name for name in ("item", "worker", "field") if name in columns(base))
        voter = "model" if "model" in columns(base) else "worker"
        found = base.execute(_OVERVIEW.format(voter=voter, place=place)).df()
    counts = {name: int(found[name].iloc[0]) for name in found}
    if n := counts.pop("n_nameless"):
        of = words.n_of(counts["n_votes"], "vote")
        raise StudyError(f"there is no item or no worker in {n:,} of {of}.")
    return counts


def labels(votes: Path | pd.DataFrame) -> pd.DataFrame:
    """The labels that occur, by field where there are fields, with their number of votes."""
    with opened(votes) as base:
        place = "field, label" if "field" in columns(base) else "label"
        query = f"SELECT {place}, count(*) AS n_votes FROM given GROUP BY ALL ORDER BY ALL"  # noqa: S608 - our names
        return base.execute(query).df()


def truth(
    path: Path | pd.DataFrame, labels: Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """True labels: field, item, truth. `labels` are those that each field may have; else any.

    Raises StudyError for a missing column, an empty file, two truths for one item, and a truth that
    no vote may say.
    """
    with scratch.database() as base:
        read(base, "file", path)
        found = base.table("file").columns
        item = next((name for name in ("item", "task") if name in found), None)
        true = next((name for name in _TRUE if name in found), None)
        if item is None or true is None:
            what = (
                f"the truth has no column {'item or task' if item is None else ', '.join(_TRUE)}."
            )
            raise StudyError(f"{what} Columns there: {', '.join(found)}.")
        field = "field" if "field" in found else "''"
        table = base.execute(
            f"""SELECT {field}::VARCHAR AS field, "{item}"::VARCHAR AS item,
            "{true}"::VARCHAR AS truth FROM file"""  # noqa: S608 - quoted
        ).df()
    _check_truth(table, labels)
    return table


@contextlib.contextmanager
def _said_plainly(file: Path | pd.DataFrame) -> Iterator[None]:
    """What the database says of a file that it cannot read, in a line."""
    try:
        yield
    except _UNREADABLE as error:
        what = str(error).strip().splitlines()[0]
        raise StudyError(f"{_shown(file)} cannot be read: {what}") from None


def _shown(votes: Path | pd.DataFrame) -> str:
    return yamls.shown(votes) if isinstance(votes, Path) else "the table"


def _columns(found: Sequence[str], *, per_run: bool) -> dict[str, str]:
    """The expression for each name used here, from the columns of a file."""
    several = {name: [one for one in known if one in found] for name, known in _NAMES.items()}
    chosen = {name: ones[0] for name, ones in several.items() if ones}
    for name in ("item", "worker", "label"):
        if name not in chosen and not (name == "worker" and "model" in chosen):
            what = f"the votes have no column {' or '.join(_NAMES[name])}."
            near = yamls.nearest(name, found)
            raise StudyError(f"{what}{near} Columns there: {', '.join(found)}.")
    kinds = {"weight": "DOUBLE"}
    table = {name: f'"{one}"::{kinds.get(name, "VARCHAR")}' for name, one in chosen.items()}
    table.setdefault("worker", table.get("model", ""))
    if "model" in table:
        table["model"] = f"coalesce({table['model']}, {table['worker']})"
    if repeat := table.pop("repeat", None):
        table.setdefault("model", table["worker"])
        table["worker"] = f"{table['worker']} || coalesce(' ' || {repeat}, '')"
    if per_run and "model" in table:
        table["run_of"] = table.pop("model")
    return table


def _check_truth(table: pd.DataFrame, labels: Mapping[str, Sequence[str]] | None) -> None:
    if table.empty:
        raise StudyError("the truth has no rows below its header.")
    if n := int(table.isna().any(axis="columns").sum()):
        rows = words.n_of(n, "row")
        raise StudyError(f"no item, field or label in {rows} of the truth. Remove what is open.")
    twice = table[table.duplicated(["field", "item"])]
    if len(twice):
        one = twice.iloc[0]
        what = f"the truth says {words.n_of(len(twice), 'item')} twice, such as {one['item']!r}"
        raise StudyError(
            f"{what}{f' ({one.field})' if one['field'] else ''}. Keep one row of each."
        )
    if labels is None:
        return
    for row in table[["field", "truth"]].drop_duplicates().itertuples():
        if row.field not in labels:
            near = yamls.nearest(row.field, labels)
            fields = ", ".join(filter(None, labels)) or "none, so remove that column"
            raise StudyError(f"the truth names the field {row.field!r}.{near} Fields: {fields}.")
        if row.truth not in labels[row.field]:
            near = yamls.nearest(row.truth, labels[row.field])
            known = ", ".join(labels[row.field])
            raise StudyError(f"the truth has the label {row.truth!r}.{near} Labels: {known}.")
