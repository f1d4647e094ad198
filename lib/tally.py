"""Tally: votes on declared values, counted in one pass and in whole units of weight.

The values are known before, so that each has a column of its own in a single GROUP BY: ten million
votes are counted from Parquet in seconds and bounded memory. Items with the same counts share one
line of arithmetic. Ties and quorum are exact; no preference is applied here.
"""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import duckdb

# Every item on one line: what was asked, and for each value its votes (n0, n1...) and its weight
# (w0, w1...). The votes of an annotator share its units, as many as it has repeats, which is units
# // slot_units; every vote beyond them weighs as much as one of those.
_WEIGHED = """
SELECT item, count(*) AS n_asked, sum(slot_units)::BIGINT AS planned,
    coalesce(bool_or(simulated), false) AS simulated, {counts}, {sums}
FROM votes JOIN panel USING (annotator) WHERE {where} GROUP BY item
"""
_EQUAL = """
SELECT item, count(*) AS n_asked, {counts} FROM votes WHERE {where} GROUP BY item
"""
_SHARED = """
SELECT item, sum(n_asked)::BIGINT AS n_asked, sum(n_asked * slot_units)::BIGINT AS planned,
    coalesce(bool_or(simulated), false) AS simulated, {totals}, {shares}
FROM (
    SELECT *, {voted} AS voted FROM (
        SELECT item, annotator, count(*) AS n_asked, bool_or(simulated) AS simulated, {counts}
        FROM votes WHERE {where} GROUP BY item, annotator) JOIN panel USING (annotator))
GROUP BY item
"""
# The same for a panel of few annotators and values: a column for each pair of them, so that what
# the repeats share is worked out once for all items with the same counts.
_PAIRS = """
SELECT item, coalesce(bool_or(simulated), false) AS simulated, {asked}, {pairs}
FROM votes WHERE {where} GROUP BY item
"""
_MOST_PAIRS = 32
# What follows from the counts, once for all items that have the same.
_KINDS = """
SELECT *, CASE WHEN quorum AND n_leaders = 1 THEN leader END AS value,
    CASE WHEN NOT quorum THEN 'no_quorum' WHEN n_leaders > 1 THEN 'tie' ELSE 'decided' END
        AS status,
    if(quorum AND n_leaders = 1, n_leader, 0) AS n_for,
    if(quorum AND n_leaders = 1, n_votes - n_leader, 0) AS n_against,
    if(quorum AND n_leaders > 1, to_json(json_keys(n_by_leader))::VARCHAR, NULL) AS candidates
FROM (
    SELECT {same}, {asked}n_votes, n_leaders, n_asked - n_votes AS n_abstained,
        {leader} AS leader, {n_leader} AS n_leader,
        CASE WHEN n_leaders > 1 THEN {n_by_leader} END AS n_by_leader,
        CASE WHEN answered > 0 THEN {weights} END AS weights,
        answered * {quorum_den} > {quorum_num} * planned AS quorum,
        CASE WHEN answered > 0 THEN top / answered END AS share,
        CASE WHEN answered > 0 THEN (top - if(n_leaders > 1, top, {second})) / planned END
            AS margin,
        top / {scale} AS weight_for, answered / {scale} AS weight_answered,
        planned / {scale} AS weight_planned
    FROM (
        SELECT *, if(top > 0, {leaders}, 0) AS n_leaders FROM (
            SELECT *, {top} AS top, {answered} AS answered, {n_votes} AS n_votes FROM ({each}))))
"""
COLUMNS = ["value", "status", "share", "margin", "weight_for", "weight_answered"]
COLUMNS += ["weight_planned", "n_for", "n_against", "n_abstained", "weights", "candidates"]


class Weighing(NamedTuple):
    """How votes weigh: units in a weight of 1, and the quorum as a fraction.

    `shares` says that annotators with several repeats share their units among their votes;
    `equal_units` that all weigh the same and no vote is simulated, which needs no panel.
    """

    scale: int
    quorum: tuple[int, int]
    shares: bool = False
    equal_units: int | None = None


def count(
    base: duckdb.DuckDBPyConnection,
    name: str,
    values: Sequence[str],
    where: str,
    weighing: Weighing,
) -> str:
    """Count the rows of the view `votes` that fulfil `where`; gives the query of the result.

    `votes` has item, annotator, value, simulated, and `panel` the units of each annotator; what is
    counted stays in the tables items_`name` and kinds_`name`. A value that is not declared
    abstains. Columns of the result: item, COLUMNS, n_asked, n_votes, n_by_leader (JSON, ties), and
    simulated unless all weigh the same. Without any vote share, margin and weights are null.
    """
    places, equal_units = range(len(values)), weighing.equal_units
    same = ["n_asked", *(f"n{n}" for n in places)]
    derived = ""
    if weighing.shares and (panel := _small(base, len(values))):
        counted, same, derived = _pairs(values, where, panel)
    elif equal_units:
        counted = _items(values, where, shares=False, equal=True)
        units = ", ".join(f"n{n} * {equal_units} AS w{n}" for n in places)
        derived = f", n_asked * {equal_units} AS planned, {units}"
    else:
        counted = _items(values, where, shares=weighing.shares, equal=False)
        same += ["planned", "simulated", *(f"w{n}" for n in places)]
    base.execute(f"CREATE OR REPLACE TEMP TABLE items_{name} AS {counted}")
    same = ", ".join(same)
    kinds = _KINDS.format(
        each=f"SELECT DISTINCT {same}{derived} FROM items_{name}",  # noqa: S608 - our names
        same=same,
        asked="" if "n_asked" in same else "n_asked, ",
        scale=weighing.scale,
        quorum_num=weighing.quorum[0],
        quorum_den=weighing.quorum[1],
        **_parts(values, weighing.scale),
    )
    base.execute(f"CREATE OR REPLACE TEMP TABLE kinds_{name} AS {kinds}")
    more = ["n_asked", "n_votes", "n_by_leader", *(["simulated"] if not equal_units else [])]
    kept = ", ".join(["item", *COLUMNS, *more])
    return f"SELECT {kept} FROM items_{name} JOIN kinds_{name} USING ({same})"  # noqa: S608 - our names


def _items(values: Sequence[str], where: str, *, shares: bool, equal: bool) -> str:
    """The query with a line an item."""
    places = range(len(values))
    said = [f"value = {text(value)}" for value in values]
    counts = ", ".join(f"count(*) FILTER ({one}) AS n{n}" for n, one in enumerate(said))
    if equal:
        return _EQUAL.format(counts=counts, where=where)
    if not shares:
        sums = [f"coalesce(sum(units) FILTER ({said[n]}), 0)::BIGINT AS w{n}" for n in places]
        return _WEIGHED.format(counts=counts, sums=", ".join(sums), where=where)
    return _SHARED.format(
        counts=counts,
        totals=", ".join(f"sum(n{n})::BIGINT AS n{n}" for n in places),
        shares=", ".join(
            f"coalesce(sum(units // voted * n{n}), 0)::BIGINT AS w{n}" for n in places
        ),
        voted=f"nullif(least({_sum('n', places)}, units // slot_units), 0)",
        where=where,
    )


def _small(base: duckdb.DuckDBPyConnection, n_values: int) -> list[tuple[str, int, int]]:
    """The annotators with their units and slot units, unless there are too many for pairs."""
    query = "SELECT annotator, units, slot_units FROM panel ORDER BY annotator"
    panel = base.execute(query).fetchall()
    return panel if len(panel) * n_values <= _MOST_PAIRS else []


def _pairs(
    values: Sequence[str], where: str, panel: Sequence[tuple[str, int, int]]
) -> tuple[str, list[str], str]:
    """The query with a line an item, its columns of counts, and what is derived from them."""
    people, places = range(len(panel)), range(len(values))
    by = [f"annotator = {text(name)}" for name, _, _ in panel]
    asked = [f"count(*) FILTER ({by[a]}) AS a{a}" for a in people]
    pairs = [
        f"count(*) FILTER ({by[a]} AND value = {text(values[n])}) AS n{n}_{a}"
        for a in people
        for n in places
    ]
    voted = [
        f"least({_sum('n', [f'{n}_{a}' for n in places])}, {panel[a][1] // (panel[a][2] or 1)})"
        for a in people
    ]
    planned = " + ".join(f"a{a} * {panel[a][2]}::BIGINT" for a in people)
    derived = [f"{_sum('a', people)} AS n_asked", f"{planned} AS planned"]
    for n in places:
        shares = [
            f"coalesce({panel[a][1]}::BIGINT // nullif({voted[a]}, 0) * n{n}_{a}, 0)"
            for a in people
        ]
        derived += [
            f"{_sum('n', [f'{n}_{a}' for a in people])} AS n{n}",
            f"{' + '.join(shares)} AS w{n}",
        ]
    same = ["simulated", *(f"a{a}" for a in people), *(f"n{n}_{a}" for a in people for n in places)]
    query = _PAIRS.format(asked=", ".join(asked), pairs=", ".join(pairs), where=where)
    return query, same, ", " + ", ".join(derived)


def _parts(values: Sequence[str], scale: int) -> dict[str, str]:
    """The expressions over the columns of the values."""
    places = range(len(values))
    below = [f"if(w{n} = top, 0, w{n})" for n in places]
    return {
        "top": _greatest(f"w{n}" for n in places),
        "second": _greatest(below),
        "answered": _sum("w", places),
        "n_votes": _sum("n", places),
        "leaders": " + ".join(f"(w{n} = top)::INTEGER" for n in places),
        "leader": _case(f"w{n} = top THEN {text(value)}" for n, value in enumerate(values)),
        "n_leader": _case(f"w{n} = top THEN n{n}" for n in places),
        "n_by_leader": _members(values, "n", "w{n} = top"),
        "weights": _members(values, "w", "w{n} > 0", f" / {scale}" if scale > 1 else ""),
    }


def _members(values: Sequence[str], column: str, when: str, more: str = "") -> str:
    """A JSON object of some values and their numbers."""
    parts = [
        f"if({when.format(n=n)}, {text(json.dumps(value, ensure_ascii=False) + ':')} || "
        f"({column}{n}{more})::VARCHAR || ',', '')"
        for n, value in enumerate(values)
    ]
    return "'{' || rtrim(" + " || ".join(parts) + ", ',') || '}'"


def _sum(column: str, places: Iterable[object]) -> str:
    return "(" + " + ".join(f"{column}{n}" for n in places) + ")"


def _greatest(parts: Sequence[str]) -> str:
    return f"greatest({', '.join(parts)})"


def _case(branches: Sequence[str]) -> str:
    return f"CASE WHEN top = 0 THEN NULL {' '.join(f'WHEN {one}' for one in branches)} END"


def text(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"
