"""Consensus: what the votes on each item and field decide, and by how much.

Decides winners, ties, quorum and where a field applies, in whole units of weight inside DuckDB.
Refuses to label by row order, by name or by nothing: what is not decided says why.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping

import duckdb
import numpy as np
import pandas as pd

from lib import averages, ranges, scratch, tally, weights
from lib.errors import AccountingError
from lib.fields import Field
from lib.ranges import Rows
from lib.study import Study, Voting

_KINDS = {"category": "closed", "boolean": "closed", "integer": "number"}
_SINGLE = ("closed", "text")  # a vote gives one value, which others can give too
_COLUMNS = ["item", "field", "value", "status", "share", "margin", "weight_for", "weight_answered"]
_COLUMNS += ["weight_planned", "n_for", "n_against", "n_abstained", "weights", "candidates"]
_COLUMNS += ["spread", "together", "simulated"]
# The repeats of an annotator that voted on a field share its units. An entity list votes for each
# of its keys, and its weight has answered once. Votes without weight (`mode: alarm`) name entities
# that are not elected, and have no part in numbers and texts.
_BALLOTS = """
WITH ballots AS (
    SELECT item, field, value, kind, units, CASE WHEN NOT shared THEN units ELSE units // count(*)
        OVER (PARTITION BY item, field, annotator) END AS w
    FROM votes JOIN panel USING (annotator) JOIN fields USING (field)
    WHERE abstained IS NULL AND (units > 0 OR kind = 'entities')),
answered AS (
    SELECT item, field, sum(w) AS answered, count(*) AS n_votes FROM ballots GROUP BY ALL),
named AS (
    SELECT item, field, kind, value, w FROM ballots WHERE kind <> 'entities' UNION ALL
    SELECT item, field, kind, unnest(from_json(value, '["VARCHAR"]')), w
    FROM ballots WHERE kind = 'entities'),
tallied AS (SELECT item, field, kind, value, sum(w) AS w, count(*) AS n FROM named GROUP BY ALL),
asked AS (
    SELECT item, field, sum(slot_units) AS planned, count(*) AS n_asked,
        count(abstained) AS n_abstained, coalesce(bool_or(simulated), false) AS simulated
    FROM votes JOIN panel USING (annotator) SEMI JOIN fields USING (field) GROUP BY ALL),
weighed AS (
    SELECT *, coalesce(answered * quorum_den > quorum_num * planned, false) AS quorum
    FROM asked JOIN fields USING (field) LEFT JOIN answered USING (item, field))
"""
_COUNTED = """,
led AS (
    SELECT item, field, max(w) AS top, list({'value': value, 'w': w, 'n': n} ORDER BY value) AS ts
    FROM tallied GROUP BY ALL),
joined AS (
    SELECT *, list_filter(ts, lambda t: t.w = top) AS leaders,
        list_filter(ts, lambda t: t.w * threshold_den >= threshold_num * answered) AS elected
    FROM weighed LEFT JOIN led USING (item, field))
SELECT position, item, field, kind, n_asked, n_abstained, simulated,
    coalesce(n_votes, 0) AS n_votes,
    CASE WHEN NOT quorum THEN 'no_quorum' WHEN kind = 'text' AND len(ts) > 1 THEN 'listed'
        ELSE 'decided' END AS status,
    CASE WHEN status <> 'decided' THEN NULL WHEN kind = 'entities' THEN to_json(list_transform(
        coalesce(elected, []), lambda t: t.value))::VARCHAR ELSE leaders[1].value END AS value,
    if(kind = 'text' AND status = 'decided', leaders[1].n, 0) AS n_for,
    if(status = 'listed', to_json(list_transform(ts, lambda t: t.value))::VARCHAR, NULL)
        AS candidates,
    to_json(map_from_entries(list_transform(ts, lambda t: {'k': t.value, 'v': t.w / scale})))
        ::VARCHAR AS weights,
    top / answered AS share,
    (top - coalesce(list_sort(list_transform(ts, lambda t: t.w), 'DESC')[2], 0)) / planned
        AS margin,
    coalesce(top, 0) / scale AS weight_for, coalesce(answered, 0) / scale AS weight_answered,
    planned / scale AS weight_planned
FROM joined
"""
_NUMBERS = """
SELECT item, field, value::DOUBLE AS number, w::BIGINT AS w FROM tallied WHERE kind = 'number'
ORDER BY item, field, number
"""
_HEAVY = """
SELECT item, field, value, sum(w) FROM (
    SELECT item, field, value, units, max(units) OVER (PARTITION BY item, field) AS most,
        CASE WHEN NOT shared THEN units
            ELSE units // count(*) OVER (PARTITION BY item, field, annotator) END AS w
    FROM votes JOIN panel USING (annotator) JOIN ties USING (item, field) WHERE abstained IS NULL)
WHERE units = most GROUP BY ALL
"""
_ELECTED = """
SELECT item, field, value AS key, w / answered AS share, n AS n_votes,
    quorum, quorum AND w * threshold_den >= threshold_num * answered AS elected, simulated
FROM tallied JOIN weighed USING (item, field, kind) WHERE kind = 'entities'
ORDER BY item, position, key
"""


# Whether one single answer gave every decided value of an item.
_TOGETHER = """
WITH won AS (SELECT item, field, value, count(*) OVER (PARTITION BY item) AS n_won FROM decided)
SELECT item, bool_or(n_same = n_won) AS together FROM (
    SELECT item, annotator, repeat, any_value(n_won) AS n_won, count(*) AS n_same
    FROM votes JOIN won USING (item, field, value) GROUP BY item, annotator, repeat)
GROUP BY item HAVING any_value(n_won) > 1
"""


def decide(votes: Rows, study: Study) -> pd.DataFrame:
    """The consensus on every item and field, in the order of items and of the study's fields.

    status: decided, tie, no_quorum, not_applicable (the field's `when` is not decided as true) or
    listed (texts that differ); `value` is null unless decided. share = leader's weight / answered;
    margin = (leader - runner-up) / planned. The value of a number is the mean or median, `spread`
    its largest minus its smallest vote; that of entities a JSON array of the elected keys. n_for
    counts votes for the value. `together` says whether one single answer gave all the values that
    are decided on the item (numbers and lists aside); null where fewer than two are. Raises
    AccountingError unless every slot has its row.
    """
    with _tables(votes, study) as (base, scale):
        table = base.sql(_counted(base, study, scale)).to_arrow_table().to_pandas()
        _check_complete(table, study)
        table = _settled(table.assign(spread=np.nan), base, study.fields)
        if table["kind"].eq("number").any():
            numbers = base.execute(_BALLOTS + _NUMBERS).df()
            table = averages.averaged(table, numbers, study.fields)
        table = _where_applicable(_against(table), study.fields)
        return _together(table, base, study.fields)[_COLUMNS]


def elected(votes: Rows, study: Study) -> pd.DataFrame:
    """Every entity key that a vote names: item, field, key, share, n_votes, quorum, elected,
    simulated, applies.

    Elected when the weight that names it reaches the field's threshold of the weight that answered,
    empty lists included, the item has its quorum, and the field applies to it.
    """
    with _tables(votes, study) as (base, _):
        table = base.sql(_BALLOTS + _ELECTED).to_arrow_table().to_pandas()
    lists = {name: one for name, one in study.fields.items() if one.type == "entities"}
    when = {name: one.when for name, one in lists.items() if one.when}
    applies = ~table["field"].isin(list(when))
    if when:
        conditions = {name: study.fields[name] for name in when.values()}
        said = decide(votes, study.model_copy(update={"fields": conditions}))
        true = pd.MultiIndex.from_frame(said.loc[said["value"].eq("true"), ["item", "field"]])
        applies |= pd.MultiIndex.from_arrays([table["item"], table["field"].map(when)]).isin(true)
    return table.assign(elected=table["elected"] & applies, applies=applies)


def _counted(base: duckdb.DuckDBPyConnection, study: Study, scale: int) -> str:
    """The query that counts all votes: a pass for each closed field, and one for the others."""
    shares = weights.shared(study) and any(one.repeats > 1 for one in study.annotators.values())
    weighing = tally.Weighing(
        scale=scale,
        quorum=weights.exact(study.voting.quorum).as_integer_ratio(),
        shares=shares,
    )
    parts = []
    for position, (name, field) in enumerate(study.fields.items()):
        if _kind(field) == "closed":
            where = f"field = {tally.text(name)}"
            tallied = tally.count(base, name, sorted(field.allowed), where, weighing)
            head = f"{position} AS position, '{name}' AS field, 'closed' AS kind"
            parts.append(f"SELECT {head}, * FROM ({tallied})")  # noqa: S608 - names are checked
    if len(parts) < len(study.fields):
        parts.append(_BALLOTS + _COUNTED)
    whole = " UNION ALL BY NAME ".join(f"({part})" for part in parts)
    return f"SELECT * FROM ({whole}) ORDER BY item, position"  # noqa: S608 - our queries


@contextlib.contextmanager
def _tables(votes: Rows, study: Study) -> Iterator[tuple[duckdb.DuckDBPyConnection, int]]:
    """A database with votes, panel and fields as the queries expect them, and the panel's scale."""
    with scratch.database() as base:
        ranges.see(base, "votes", votes)
        base.register("panel", panel := weights.of_annotators(study))
        scale = int(panel["scale"].max())
        base.register("fields", _fields(study.fields, study.voting, scale))
        yield base, scale


def _fields(fields: Mapping[str, Field], voting: Voting, scale: int) -> pd.DataFrame:
    quorum, rows = weights.exact(voting.quorum), []
    for position, (name, field) in enumerate(fields.items()):
        threshold = weights.exact(field.threshold or voting.threshold)
        if _kind(field) != "closed":
            rows.append((name, position, _kind(field), *threshold.as_integer_ratio()))
    names = ["field", "position", "kind", "threshold_num", "threshold_den"]
    table = pd.DataFrame(rows, columns=names)
    part = {"quorum_num": quorum.numerator, "quorum_den": quorum.denominator}
    return table.assign(**part, scale=scale)


def _kind(field: Field) -> str:
    """How a field is counted: closed values, numbers, entity lists or texts."""
    return _KINDS.get(field.type, field.type)


def _check_complete(table: pd.DataFrame, study: Study) -> None:
    n_wrong = int(table["n_asked"].ne(study.n_votes).sum())
    is_first = table["item"].ne(table["item"].shift())  # the table is in the order of items
    n_expected = int(is_first.sum()) * len(study.fields)
    if n_wrong or len(table) != n_expected:
        what = (
            f"{len(table)} item fields instead of {n_expected}, and {n_wrong} of them do not have "
            f"one row for each of the {study.n_votes} votes of panel {study.panel}. "
            "Collect the votes again with this study."
        )
        raise AccountingError(what, n_found=len(table), n_expected=n_expected)


def _heavy(base: duckdb.DuckDBPyConnection, ties: pd.DataFrame) -> dict[tuple, dict[str, int]]:
    """How the annotators with the largest weight voted on ties: (item, field) -> value -> units."""
    base.register("ties", ties)
    found: dict[tuple, dict[str, int]] = {}
    for item, name, value, units in base.execute(_HEAVY).fetchall():
        found.setdefault((item, name), {})[value] = units
    return found


def _settled(
    table: pd.DataFrame, base: duckdb.DuckDBPyConnection, fields: Mapping[str, Field]
) -> pd.DataFrame:
    """Ties decided where their field prefers one of the candidates."""
    preferring = [name for name, field in fields.items() if field.prefer]
    if not preferring:
        return table
    ties = table[table["status"].eq("tie") & table["field"].isin(preferring)]
    heavy = _heavy(base, ties[["item", "field"]])
    for tie in ties.itertuples():
        of_heavy = heavy.get((tie.item, tie.field), {})
        value = _preferred(fields[tie.field], json.loads(tie.candidates), of_heavy)
        if value is not None:
            settled = [value, "decided", None, json.loads(tie.n_by_leader)[value]]
            table.loc[tie.Index, ["value", "status", "candidates", "n_for"]] = settled
    return table


def _preferred(field: Field, candidates: list[str], heavy: Mapping[str, int]) -> str | None:
    if field.prefer == "schema order":
        return next(value for value in field.allowed if value in candidates)
    if field.prefer != "heaviest":
        return field.prefer if field.prefer in candidates else None
    most = max(heavy.get(value, 0) for value in candidates)
    leaders = [value for value in candidates if heavy.get(value, 0) == most]
    return leaders[0] if len(leaders) == 1 else None


def _against(table: pd.DataFrame) -> pd.DataFrame:
    """Votes against the value; numbers and entity lists have none for or against."""
    single = table["value"].notna() & table["kind"].isin(_SINGLE)
    return table.assign(n_against=(table["n_votes"] - table["n_for"]).where(single, 0))


def _where_applicable(table: pd.DataFrame, fields: Mapping[str, Field]) -> pd.DataFrame:
    """Fields whose condition is not decided as true do not apply to the item."""
    true = table["status"].eq("decided") & table["value"].eq("true")
    for name, field in fields.items():
        if field.when:
            items = table.loc[true & table["field"].eq(field.when), "item"]
            outside = table["field"].eq(name) & ~table["item"].isin(items)
            table.loc[outside, ["value", "candidates"]] = None
            table.loc[outside, "status"] = "not_applicable"
            table.loc[outside, ["n_for", "n_against"]] = 0
    return table


def _together(
    table: pd.DataFrame, base: duckdb.DuckDBPyConnection, fields: Mapping[str, Field]
) -> pd.DataFrame:
    """Whether the decided values of an item ever occurred together; fields vote alone."""
    together = pd.Series(pd.NA, index=table.index, dtype="boolean")
    if sum(_kind(field) in _SINGLE for field in fields.values()) > 1:
        decided = table["status"].eq("decided") & table["kind"].isin(_SINGLE)
        base.register("decided", table.loc[decided, ["item", "field", "value"]])
        found = base.execute(_TOGETHER).df().set_index("item")["together"]
        together = table["item"].map(found.astype("boolean")).astype("boolean")
    return table.assign(together=together)
