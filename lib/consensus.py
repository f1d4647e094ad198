"""Consensus: what the votes on each item and field decide, and by how much.

Decides winners, ties, quorum and where a field applies, in whole units of weight inside DuckDB.
Refuses to label by row order, by name or by nothing: what is not decided says why.
"""

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import duckdb
import pandas as pd

from lib import votes as ballots
from lib import weights
from lib.errors import AccountingError
from lib.study import Field, Study

_KINDS = {"category": "closed", "boolean": "closed", "integer": "number"}
_COLUMNS = """item field value status share margin weight_for weight_answered weight_planned
    n_for n_against n_abstained weights candidates spread simulated""".split()
# The repeats of an annotator that voted on a field share its units. An entity list votes for each
# of its keys, and its weight has answered once.
_BALLOTS = """
WITH ballots AS (
    SELECT item, field, value, kind, units, CASE WHEN NOT shared THEN units ELSE units // count(*)
        OVER (PARTITION BY item, field, annotator) END AS w
    FROM votes JOIN panel USING (annotator) JOIN fields USING (field) WHERE abstained IS NULL),
answered AS (
    SELECT item, field, sum(w) AS answered, count(*) AS n_votes FROM ballots GROUP BY ALL),
named AS (
    SELECT item, field, kind, value, w FROM ballots WHERE kind <> 'entities' UNION ALL
    SELECT item, field, kind, unnest(from_json(value, '["VARCHAR"]')), w
    FROM ballots WHERE kind = 'entities'),
tallied AS (SELECT item, field, kind, value, sum(w) AS w, count(*) AS n FROM named GROUP BY ALL)
"""
_COUNTED = """,
leading AS (
    SELECT item, field, max(w) AS top, list({'value': value, 'w': w, 'n': n} ORDER BY value) AS ts
    FROM tallied GROUP BY ALL),
asked AS (
    SELECT item, field, sum(slot_units) AS planned, count(*) AS n_asked,
        count(abstained) AS n_abstained, coalesce(bool_or(simulated), false) AS simulated
    FROM votes JOIN panel USING (annotator) GROUP BY ALL),
joined AS (
    SELECT *, list_filter(ts, lambda t: t.w = top) AS leaders,
        list_filter(ts, lambda t: t.w * threshold_den >= threshold_num * answered) AS elected
    FROM asked JOIN fields USING (field) LEFT JOIN answered USING (item, field)
        LEFT JOIN leading USING (item, field))
SELECT item, field, kind, n_asked, n_abstained, simulated, coalesce(n_votes, 0) AS n_votes,
    coalesce(len(ts), 0) AS n_values, coalesce(len(leaders), 0) AS n_leaders,
    to_json(list_transform(leaders, lambda t: t.value)) AS leaders,
    to_json(list_transform(ts, lambda t: t.value)) AS named,
    to_json(list_transform(coalesce(elected, []), lambda t: t.value)) AS elected,
    to_json(map_from_entries(list_transform(ts, lambda t: {'k': t.value, 'v': t.n}))) AS n_by,
    to_json(map_from_entries(list_transform(ts, lambda t: {'k': t.value, 'v': t.w / scale})))
        AS weights,
    coalesce(answered * quorum_den > quorum_num * planned
        OR (answered = planned AND quorum_num = quorum_den), false) AS quorum,
    top / answered AS share, (top - coalesce(list_sort(list_transform(ts, lambda t: t.w), 'DESC')[2],
        0)) / planned AS margin,
    coalesce(top, 0) / scale AS weight_for, coalesce(answered, 0) / scale AS weight_answered,
    planned / scale AS weight_planned
FROM joined ORDER BY item, position
"""
_NUMBERS = """
SELECT item, field, value::DOUBLE AS number, w::BIGINT AS w FROM tallied WHERE kind = 'number'
ORDER BY item, field, number
"""
_HEAVY = """
SELECT item, field, value, sum(w)::BIGINT AS w FROM ballots JOIN fields USING (field)
WHERE heaviest
QUALIFY units = max(units) OVER (PARTITION BY item, field) GROUP BY ALL
"""
_ELECTED = """
SELECT item, field, value AS key, w / answered AS share, n AS n_votes,
    w * threshold_den >= threshold_num * answered AS elected
FROM tallied JOIN answered USING (item, field) JOIN fields USING (field)
WHERE kind = 'entities' ORDER BY item, position, key
"""


def decide(votes: Path | pd.DataFrame, study: Study) -> pd.DataFrame:
    """The consensus on every item and field, in the order of items and of the study's fields.

    status: decided, tie, no_quorum, not_applicable (the field's `when` is not decided as true) or
    listed (texts that differ); `value` is null unless decided. share = leader's weight / answered;
    margin = (leader - runner-up) / planned. The value of a number is the mean or median, `spread`
    its largest minus its smallest vote; that of entities a JSON array of the elected keys. n_for
    counts votes for the value. Raises AccountingError unless every slot has its row.
    """
    with ballots.database() as base:
        _tables(base, votes, study)
        table = base.execute(_BALLOTS + _COUNTED).df()
        numbers = base.execute(_BALLOTS + _NUMBERS).df()
        prefers = any(field.prefer == "heaviest" for field in study.fields.values())
        heavy = base.execute(_BALLOTS + _HEAVY).df() if prefers else pd.DataFrame()
    _check_complete(table, study)
    table = _conclude(table)
    table = _settle_ties(table, study.fields, heavy)
    table = _average(table, numbers, study.fields)
    return _where_applicable(table, study.fields)[_COLUMNS]


def elected(votes: Path | pd.DataFrame, study: Study) -> pd.DataFrame:
    """Every entity key that a vote names: item, field, key, share, n_votes, elected.

    Elected when the weight naming it reaches the field's threshold of the weight that answered,
    empty lists included, and the item has its quorum.
    """
    with ballots.database() as base:
        _tables(base, votes, study)
        return base.execute(_BALLOTS + _ELECTED).df()


def count(
    votes: Path | pd.DataFrame,
    labels: Sequence[str] | None = None,
    weight_of: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """The weighted majority on votes from anywhere: columns item, worker, label; a row an item.

    Labels outside `labels` abstain (n_abstained); workers without a weight have 1. Ties stay
    undecided, with their candidates; every row is a vote, also a second one of a worker.
    """
    frame = pd.read_parquet(votes) if isinstance(votes, Path) else votes
    frame = frame[["item", "worker", "label"]].astype("string")
    stray = frame["label"].isna() if labels is None else ~frame["label"].isin(list(labels))
    panel = _workers(frame["worker"], weight_of or {})
    table = frame.rename(columns={"worker": "annotator", "label": "value"})
    table = table.assign(field="label", simulated=False, abstained=stray.map({True: "stray"}))
    with ballots.database() as base:
        base.register("votes", table.astype({"abstained": "string"}))
        base.register("panel", panel)
        base.register("fields", _fields({"label": Field(description="-")}, Fraction(0), Fraction(1)))
        counted = base.execute(_BALLOTS + _COUNTED).df()
    return _conclude(counted)[_COLUMNS].drop(columns=["field", "spread"])


def _tables(base: duckdb.DuckDBPyConnection, votes: Path | pd.DataFrame, study: Study) -> None:
    """Votes, panel and fields, as the queries expect them."""
    if isinstance(votes, Path):
        base.read_parquet(str(votes)).create_view("votes")
    else:
        text = {"value": "string", "abstained": "string"}
        base.register("votes", votes.astype(text))
    base.register("panel", weights.of_annotators(study))
    voting = study.voting
    base.register("fields", _fields(study.fields, weights.exact(voting.quorum), weights.exact(voting.threshold)))


def _fields(fields: Mapping[str, Field], quorum: Fraction, threshold: Fraction) -> pd.DataFrame:
    rows = []
    for position, (name, field) in enumerate(fields.items()):
        passed = weights.exact(field.threshold) if field.threshold else threshold
        kind = _KINDS.get(field.type, field.type)
        rows.append((name, position, kind, field.prefer == "heaviest", *passed.as_integer_ratio()))
    names = ["field", "position", "kind", "heaviest", "threshold_num", "threshold_den"]
    table = pd.DataFrame(rows, columns=names)
    return table.assign(quorum_num=quorum.numerator, quorum_den=quorum.denominator)


def _workers(workers: pd.Series, weight_of: Mapping[str, float]) -> pd.DataFrame:
    """The panel table of workers that nobody planned."""
    names = sorted(workers.unique())
    written = [weights.exact_weight(weight_of.get(name, 1)) for name in names]
    scale = math.lcm(*(weight.denominator for weight in written))
    units = [int(weight * scale) for weight in written]
    table = pd.DataFrame({"annotator": names, "units": units, "slot_units": units})
    return table.assign(shared=False, scale=scale)


def _check_complete(table: pd.DataFrame, study: Study) -> None:
    n_wrong = int((table["n_asked"] != study.n_votes).sum())
    n_fields = table.groupby("item")["field"].size()
    if n_wrong or (n_fields != len(study.fields)).any():
        what = (
            f"{n_wrong} of {len(table)} item fields do not have a row for each of {study.n_votes} "
            f"votes, or items lack one of {len(study.fields)} fields. Collect the votes again with "
            "the study of this run."
        )
        raise AccountingError(what, n_wrong=n_wrong)


def _conclude(table: pd.DataFrame) -> pd.DataFrame:
    """Status and value of each row, before preferences and conditions."""
    table = table.assign(status="decided", spread=float("nan"), candidates=None)
    closed, listed = table["kind"].eq("closed"), table["kind"].eq("text") & table["n_values"].gt(1)
    tie = closed & table["n_leaders"].gt(1)
    table.loc[tie, "status"], table.loc[listed, "status"] = "tie", "listed"
    table.loc[~table["quorum"], "status"] = "no_quorum"
    table["candidates"] = table["leaders"].where(table["status"].eq("tie"))
    table["candidates"] = table["candidates"].mask(table["status"].eq("listed"), table["named"])
    single = table["leaders"].map(lambda text: json.loads(text)[0], na_action="ignore")
    table["value"] = table["elected"].where(table["kind"].eq("entities"), single)
    return _with_counts(table)


def _with_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Votes for and against the value; without a decision there is no value."""
    table["value"] = table["value"].where(table["status"].eq("decided"))
    single = table["value"].notna() & table["kind"].isin(["closed", "text"])
    named = zip(table["value"], table["n_by"], single, strict=True)
    table["n_for"] = [json.loads(n_by)[value] if one else 0 for value, n_by, one in named]
    table["n_against"] = (table["n_votes"] - table["n_for"]).where(single, 0)
    return table


def _settle_ties(table: pd.DataFrame, fields: Mapping[str, Field], heavy: pd.DataFrame) -> pd.DataFrame:
    """Ties of fields that say what they prefer."""
    heaviest = {key: rows for key, rows in heavy.groupby(["item", "field"])} if len(heavy) else {}
    for row in table.index[table["status"].eq("tie")]:
        item, name, leaders = table.loc[row, ["item", "field", "candidates"]]
        candidates = json.loads(leaders)
        prefer = fields[name].prefer
        ...
    return table
