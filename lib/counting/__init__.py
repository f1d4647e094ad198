"""Counting votes from anywhere: a weighted majority for every item, straight from a file.

The rules are those of a study's consensus: declared labels, weights that the runs of a model share,
quorum, and ties that stay open. The votes may come from people or models, complete or not: planned
is what was asked of an item. Memory is bounded; the file is never loaded.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import pandas as pd

from lib import averages, runs, tally, weights, yamls
from lib.counting import polls
from lib.errors import StudyError

MOST_RUNS = 40  # more have no common whole unit within 64 bits
Labels = Sequence[str] | Mapping[str, Sequence[str]]
_BATCH = 2048
_NUMBERS = """
WITH said AS (
    SELECT item, {field} annotator, units, slot_units, if(isfinite(
        try_cast(value AS DOUBLE)), try_cast(value AS DOUBLE), NULL) AS number
    FROM votes JOIN panel USING (annotator)),
weighed AS (
    SELECT *, units // greatest(1, least(units // slot_units, count(number) OVER (
        PARTITION BY item, {field} annotator))) AS w FROM said)
SELECT item, {field} list(number ORDER BY number, w) FILTER (number IS NOT NULL) AS numbers,
    list(w ORDER BY number, w) FILTER (number IS NOT NULL) AS w, count(*) AS n_asked,
    sum(slot_units)::BIGINT AS planned
FROM weighed GROUP BY ALL ORDER BY ALL
"""


def count(
    votes: Path | pd.DataFrame,
    labels: Labels = (),
    weight_of: Mapping[str, float] | None = None,
    quorum: float = 0.5,
    *,
    per_run: bool = False,
) -> pd.DataFrame:
    """The consensus on every item, in the order of items; see `write` for what may be given."""
    with polls.opened(votes, per_run=per_run) as base:
        query = _query(base, labels, weight_of or {}, quorum)
        columns = "item, field" if "field" in polls.columns(base) else "item"
        return base.sql(f"{query} ORDER BY {columns}").to_arrow_table().to_pandas()


def write(
    votes: Path | pd.DataFrame,
    target: Path,
    labels: Labels = (),
    weight_of: Mapping[str, float] | None = None,
    quorum: float = 0.5,
    *,
    per_run: bool = False,
) -> None:
    """Write the consensus on every item to the Parquet file `target`, whole or not at all.

    `votes` is a CSV or Parquet file, or a table, with item (or task), worker and label, and
    optionally field, model, repeat and weight; a model may stand for its worker. A voter is a model
    where there are models, else a worker; its runs are its workers, or the repeats. The votes of a
    voter on an item share its weight, as many as it has runs, and every vote beyond them weighs as
    much as one of those: the second vote of a worker without runs has a full weight of its own.
    With `per_run` each run is a voter. Weights come from `weight_of` by model or worker, else from
    their column, else they are 1. `labels` are the declared ones, by field where there are fields;
    others abstain; without any, all that occur count. More than `quorum` of the weight that was
    asked must have answered. Columns: item, field, and tally.COLUMNS as in consensus.parquet; in no
    particular order.

    Raises StudyError for what cannot be read, a missing column, no votes at all, and a weight that
    is none or that differs within a voter.
    """
    with polls.opened(votes, per_run=per_run) as base, runs.replacing(target) as part:
        query = _query(base, labels, weight_of or {}, quorum)
        base.execute(
            f"COPY ({query}) TO {tally.text(str(part))} (FORMAT parquet, COMPRESSION zstd)"
        )


def average(
    votes: Path | pd.DataFrame,
    combine: str,
    weight_of: Mapping[str, float] | None = None,
    quorum: float = 0.5,
    *,
    per_run: bool = False,
) -> pd.DataFrame:
    """The weighted mean or median of numbers on every item; `write` says what may be given.

    What is no finite number abstains. Columns: item, field where there is one, value, status
    (decided, no_quorum), spread, n_for (votes that are numbers) and n_abstained.
    """
    with polls.opened(votes, per_run=per_run) as base:
        _register(base, weight_of or {})
        part, rows = weights.exact(quorum), []
        place = ["item", *(["field"] if "field" in polls.columns(base) else [])]
        cursor = base.execute(_NUMBERS.format(field="field, " * (len(place) - 1)))
        while some := cursor.fetchmany(_BATCH):
            for *where, numbers, units, n_asked, planned in some:
                enough = bool(numbers) and sum(units) > part * planned
                value = averages.centre(numbers, units, combine) if enough else None
                spread = max(numbers) - min(numbers) if numbers else None
                n_for, status = len(numbers or ()), "decided" if enough else "no_quorum"
                rows.append((*where, value, status, spread, n_for, n_asked - n_for))
    columns = [*place, "value", "status", "spread", "n_for", "n_abstained"]
    return pd.DataFrame(rows, columns=columns)


def declared(votes: Path | pd.DataFrame, labels: Labels = ()) -> dict[str, list[str]]:
    """The labels that count, by field ("" where the votes have none): as declared, else all."""
    with polls.opened(votes) as base:
        return _declared(base, labels)


def panel(
    votes: Path | pd.DataFrame, weight_of: Mapping[str, float]
) -> dict[str, tuple[str, int, float]]:
    """Where each run has its own vote: model -> model, its runs, and the weight of each of them.

    Without models none; where the runs of a model differ in weight, each is a voter of its own.
    """
    with polls.opened(votes, per_run=True) as base:
        if "run_of" not in polls.columns(base):
            return {}
        of_model = base.execute("SELECT DISTINCT worker, run_of FROM given").fetchall()
        table = _panel(base, "worker", weight_of).set_index("annotator")["weight"].to_dict()
    groups: dict[tuple[str, float], list[str]] = {}
    for worker, model in sorted(of_model):
        groups.setdefault((model, table[worker]), []).append(worker)
    return {
        model if len(ones) > 1 else ones[0]: (model, len(ones), weight)
        for (model, weight), ones in groups.items()
    }


def strays(votes: Path | pd.DataFrame, labels: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Labels that occur and are not declared: field, label, n_votes; the most frequent first."""
    found = polls.labels(votes).dropna(subset="label")
    found = found if "field" in found else found.assign(field="")
    pairs = zip(found["field"], found["label"], strict=True)
    stray = found[[label not in labels[field] for field, label in pairs]]
    order = ["n_votes", "field", "label"]
    stray = stray.sort_values(order, ascending=[False, True, True], ignore_index=True)
    return stray[["field", "label", "n_votes"]]


def _query(
    base: duckdb.DuckDBPyConnection, labels: Labels, weight_of: Mapping[str, float], quorum: float
) -> str:
    """Count the votes; gives the query of the consensus."""
    panel = _register(base, weight_of)
    shares = bool(panel["shared"].any())
    equal = panel["units"].nunique() == 1 and not shares
    weighing = tally.Weighing(
        scale=int(panel["scale"].iloc[0]),
        quorum=weights.exact(quorum).as_integer_ratio(),
        shares=shares,
        equal_units=int(panel["units"].iloc[0]) if equal else None,
    )
    parts, columns = [], ", ".join(tally.COLUMNS)
    for n, (field, values) in enumerate(_declared(base, labels).items()):
        where = f"field = {tally.text(field)}" if field else "true"
        head = f"{tally.text(field)} AS field, " if field else ""
        tallied = tally.count(base, str(n), values, where, weighing)
        parts.append(f"SELECT item, {head}{columns} FROM ({tallied})")  # noqa: S608 - quoted
    return " UNION ALL ".join(parts)


def _register(base: duckdb.DuckDBPyConnection, weight_of: Mapping[str, float]) -> pd.DataFrame:
    """Make the views `votes` and `panel` as `tally` reads them; gives the panel."""
    voter = "model" if "model" in polls.columns(base) else "worker"
    base.execute(
        f"""CREATE VIEW votes AS SELECT *, {voter} AS annotator, label AS value,
        NULL::BOOLEAN AS simulated FROM given"""  # noqa: S608 - our names
    )
    panel = _panel(base, voter, weight_of)
    base.register("panel", panel)
    return panel


def _panel(
    base: duckdb.DuckDBPyConnection, voter: str, weight_of: Mapping[str, float]
) -> pd.DataFrame:
    """The voters with their weights in whole units; the runs of a model share its units."""
    weighed = "weight" in polls.columns(base)
    low, high = ("min(weight)", "max(weight)") if weighed else ("1.0", "1.0")
    n_runs = "count(DISTINCT worker)" if voter == "model" else "1"
    model = "any_value(run_of)" if "run_of" in polls.columns(base) else "NULL"
    found = base.execute(
        f"""SELECT {voter} AS voter, {model} AS model, {low} AS low, {high} AS high,
        {n_runs} AS n_runs FROM given GROUP BY ALL ORDER BY ALL"""  # noqa: S608 - our names
    ).df()
    known = {*found["voter"], *found["model"].dropna()}
    unknown = sorted(set(weight_of) - known)
    if unknown:
        near = yamls.nearest(unknown[0], known)
        raise StudyError(f"a weight is given for {unknown[0]!r}, who has no vote.{near}")
    written = {}
    for row in found.itertuples():
        weight = weight_of.get(row.voter, weight_of.get(row.model))
        if weight is None and row.low != row.high:
            what = (
                f"the weight of {row.voter!r} is {row.low:g} in some rows, {row.high:g} in others"
            )
            raise StudyError(f"{what}. A voter has one weight.")
        weight = row.low if weight is None else weight
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


def _declared(base: duckdb.DuckDBPyConnection, labels: Labels) -> dict[str, list[str]]:
    """The labels by field; the field is "" where the votes have none."""
    if "field" not in polls.columns(base):
        if isinstance(labels, Mapping):
            raise StudyError(f"labels are given for {', '.join(labels)}, and no vote has a field.")
        if not (found := list(labels) or _occurring(base, "true", {})):
            raise StudyError("no vote has a label.")
        return {"": found}
    rows = base.execute("SELECT DISTINCT field FROM given ORDER BY field NULLS LAST").fetchall()
    fields = [row[0] for row in rows]
    if None in fields:
        raise StudyError("some votes have no field, and others have one.")
    for name in labels if isinstance(labels, Mapping) else ():
        if name not in fields:
            near = yamls.nearest(name, fields)
            raise StudyError(f"labels are given for {name!r}, a field of no vote.{near}")
    found = {}
    for field in fields:
        mine = labels.get(field, ()) if isinstance(labels, Mapping) else labels
        found[field] = list(mine) or _occurring(base, "field = $field", {"field": field})
        if not found[field]:
            raise StudyError(f"no vote on the field {field!r} has a label.")
    return found


def _occurring(base: duckdb.DuckDBPyConnection, where: str, given: dict[str, str]) -> list[str]:
    query = f"SELECT DISTINCT label FROM given WHERE label IS NOT NULL AND {where} ORDER BY label"  # noqa: S608 - our words
    return [row[0] for row in base.execute(query, given).fetchall()]
