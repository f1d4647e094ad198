"""Counting votes from anywhere: a weighted majority for every item, straight from a file.

The rules are those of a study's consensus: declared labels, weights that the runs of a model share,
quorum, and ties that stay open. The votes may come from people or models, complete or not: planned
is what was asked of an item. Memory is bounded; the file is never loaded.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pandas as pd

from lib import runs, tally, weights, yamls
from lib import votes as ballots
from lib.errors import StudyError

MOST_RUNS = 40  # more have no common whole unit within 64 bits
_NAMES = {
    "item": ("item", "task"),
    "worker": ("worker", "annotator", "voter"),
    "label": ("label", "value"),
    "field": ("field",),
    "model": ("model",),
    "weight": ("weight",),
}
_NEEDED = ("item", "worker", "label")


def count(
    votes: Path | pd.DataFrame,
    labels: Sequence[str] | Mapping[str, Sequence[str]] = (),
    weight_of: Mapping[str, float] | None = None,
    quorum: float = 0.5,
) -> pd.DataFrame:
    """The consensus on every item, in the order of items; see `write` for what may be given."""
    with _opened(votes) as base:
        query = _query(base, labels, weight_of or {}, quorum)
        columns = "item, field" if "field" in _columns(base) else "item"
        return base.execute(f"{query} ORDER BY {columns}").df()


def write(
    votes: Path | pd.DataFrame,
    target: Path,
    labels: Sequence[str] | Mapping[str, Sequence[str]] = (),
    weight_of: Mapping[str, float] | None = None,
    quorum: float = 0.5,
) -> None:
    """Write the consensus on every item to the Parquet file `target`, whole or not at all.

    `votes` is a CSV or Parquet file, or a table, with item (or task), worker and label, and
    optionally field, model and weight. Runs of one model share its weight; without a model each
    worker has a vote. Weights come from `weight_of` by model or worker, else from their column,
    else they are 1. `labels` are the declared ones, by field where there are fields; others
    abstain; without any, all that occur count. More than `quorum` of the weight that was asked must
    have answered. Every row is a vote, also the second one of a worker. Columns: as those of
    consensus.parquet. The rows are in no particular order.

    Raises StudyError for a missing column, a weight that is none or that differs within a voter.
    """
    with _opened(votes) as base, runs.replacing(target) as part:
        query = _query(base, labels, weight_of or {}, quorum)
        base.execute(f"COPY ({query}) TO '{part}' (FORMAT parquet, COMPRESSION zstd)")


def repeated(votes: Path | pd.DataFrame) -> int:
    """How many votes are a second one of the same worker on the same item and field."""
    with _opened(votes) as base:
        place = ", ".join(name for name in ("item", "worker", "field") if name in _columns(base))
        query = f"SELECT count(*) - count(DISTINCT ({place})) FROM given"  # noqa: S608 - our names
        return base.execute(query).fetchone()[0]


def labels_in(votes: Path | pd.DataFrame) -> pd.DataFrame:
    """The labels that occur, by field where there are fields, with their number of votes."""
    with _opened(votes) as base:
        place = "field, label" if "field" in _columns(base) else "label"
        query = f"SELECT {place}, count(*) AS n_votes FROM given GROUP BY ALL ORDER BY ALL"  # noqa: S608 - our names
        return base.execute(query).df()


@contextlib.contextmanager
def _opened(votes: Path | pd.DataFrame) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the votes as the view `given`, its columns under the names used here."""
    with ballots.database() as base:
        # One pass over one column group is bound by memory: a second thread only adds overhead.
        base.execute("SET threads = 1")
        if isinstance(votes, pd.DataFrame):
            base.register("file", votes)
        elif votes.suffix == ".parquet":
            base.read_parquet(str(votes)).create_view("file")
        else:
            base.read_csv(str(votes), all_varchar=True, header=True).create_view("file")
        found = base.table("file").columns
        chosen = {
            name: next((one for one in known if one in found), None)
            for name, known in _NAMES.items()
        }
        for name in _NEEDED:
            if chosen[name] is None:
                what = f"the votes have no column {' or '.join(_NAMES[name])}."
                near = yamls.nearest(name, found)
                raise StudyError(f"{what}{near} Columns there: {', '.join(found)}.")
        kinds = {"weight": "DOUBLE"}
        columns = [
            f'"{one}"::{kinds.get(name, "VARCHAR")} AS {name}'
            for name, one in chosen.items()
            if one is not None
        ]
        base.execute(f"CREATE VIEW given AS SELECT {', '.join(columns)} FROM file")  # noqa: S608 - quoted
        yield base


def _query(
    base: duckdb.DuckDBPyConnection,
    labels: Sequence[str] | Mapping[str, Sequence[str]],
    weight_of: Mapping[str, float],
    quorum: float,
) -> str:
    """The query that gives the consensus, once the panel of the voters is registered."""
    voter = "model" if "model" in _columns(base) else "worker"
    base.execute(
        f"""CREATE VIEW votes AS SELECT *, {voter} AS annotator, label AS value,
        NULL::BOOLEAN AS simulated FROM given"""  # noqa: S608 - our names
    )
    panel = _panel(base, voter, weight_of)
    base.register("panel", panel)
    of_field = _declared(base, labels)
    equal = panel["units"].nunique() == 1 and not panel["shared"].any()
    weighing = tally.Weighing(
        scale=int(panel["scale"].iloc[0]),
        quorum=weights.exact(quorum).as_integer_ratio(),
        shares=bool(panel["shared"].any()),
        equal_units=int(panel["units"].iloc[0]) if equal else None,
    )
    parts, columns = [], ", ".join(tally.COLUMNS)
    for n, (field, values) in enumerate(of_field.items()):
        where = "true" if field is None else f"field = {tally.text(field)}"
        head = "" if field is None else f"{tally.text(field)} AS field, "
        tallied = tally.count(base, str(n), values, where, weighing)
        parts.append(f"SELECT item, {head}{columns} FROM ({tallied})")  # noqa: S608 - quoted
    return " UNION ALL ".join(parts)


def _panel(
    base: duckdb.DuckDBPyConnection, voter: str, weight_of: Mapping[str, float]
) -> pd.DataFrame:
    """The voters with their weights in whole units; the runs of a model share its units."""
    weighed = "weight" in _columns(base)
    low, high = ("min(weight)", "max(weight)") if weighed else ("1.0", "1.0")
    n_runs = "count(DISTINCT worker)" if voter == "model" else "1"
    found = base.execute(
        f"""SELECT {voter} AS voter, {low} AS low, {high} AS high,
        {n_runs} AS n_runs FROM given GROUP BY ALL ORDER BY ALL"""  # noqa: S608 - our names
    ).df()
    unknown = sorted(set(weight_of) - set(found["voter"]))
    if unknown:
        near = yamls.nearest(unknown[0], found["voter"])
        raise StudyError(f"a weight is given for {unknown[0]!r}, who has no vote.{near}")
    written = {}
    for row in found.itertuples():
        weight = weight_of.get(row.voter, row.low)
        if row.voter not in weight_of and row.low != row.high:
            what = (
                f"the weight of {row.voter!r} is {row.low:g} in some rows, {row.high:g} in others"
            )
            raise StudyError(f"{what}. A voter has one weight.")
        if not 0 < weight < float("inf"):
            raise StudyError(f"the weight of {row.voter!r} is {weight}. Expected a number above 0.")
        written[row.voter] = float(weight)
    most = int(found["n_runs"].max()) if voter == "model" and len(found) else 1
    if most > MOST_RUNS:
        what = f"a model has {most} runs, and at most {MOST_RUNS} can share a weight exactly."
        raise StudyError(f"{what} Leave the column model out, so that every run has its own vote.")
    table = weights.in_units(written, most).assign(shared=most > 1)
    if most > 1:
        table["slot_units"] = table["units"] // found["n_runs"]
    return table


def _declared(
    base: duckdb.DuckDBPyConnection, labels: Sequence[str] | Mapping[str, Sequence[str]]
) -> dict[str | None, list[str]]:
    """The labels by field; the field is None where the votes have none."""
    fields: list[str | None] = [None]
    if "field" in _columns(base):
        rows = base.execute("SELECT DISTINCT field FROM given ORDER BY field").fetchall()
        fields = [row[0] for row in rows]
    declared = {}
    for field in fields:
        mine = labels.get(field, ()) if isinstance(labels, Mapping) else labels
        where = "true" if field is None else "field = $field"
        given = {} if field is None else {"field": field}
        declared[field] = list(mine) or [
            row[0]
            for row in base.execute(
                f"""SELECT DISTINCT label FROM given
                WHERE label IS NOT NULL AND {where} ORDER BY label""",  # noqa: S608 - our words
                given,
            ).fetchall()
        ]
    return declared


def _columns(base: duckdb.DuckDBPyConnection) -> list[str]:
    return base.table("given").columns
