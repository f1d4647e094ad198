"""Tally: the query that counts votes on declared values, in one pass and whole units of weight.

The values are known before, so that each has a column of its own in a single GROUP BY: ten million
votes are counted from Parquet in seconds and bounded memory. Decides nothing about ties.
"""

import json
from collections.abc import Sequence

# Every item on one line: what was asked, and for each value its votes (n0, n1...) and its weight
# (w0, w1...). The repeats of an annotator that voted share its units.
_PER_ITEM = """
SELECT item, count(*) AS n_asked, sum(slot_units)::BIGINT AS planned,
    bool_or(simulated) AS simulated, {columns}
FROM votes JOIN panel USING (annotator) WHERE {where} GROUP BY item
"""
_EQUAL = """
SELECT *, n_asked * {units} AS planned, false AS simulated, {columns} FROM (
    SELECT item, count(*) AS n_asked, {counts} FROM votes WHERE {where} GROUP BY item)
"""
_SHARED = """
SELECT item, sum(n_asked)::BIGINT AS n_asked, sum(n_asked * slot_units)::BIGINT AS planned,
    bool_or(simulated) AS simulated, {columns}
FROM (
    SELECT *, {voted} AS voted FROM (
        SELECT item, annotator, count(*) AS n_asked, bool_or(simulated) AS simulated, {counts}
        FROM votes WHERE {where} GROUP BY item, annotator) JOIN panel USING (annotator))
GROUP BY item
"""
_TALLIED = """
SELECT item, n_asked, n_asked - n_votes AS n_abstained, coalesce(simulated, false) AS simulated,
    n_votes, n_values, n_leaders, {leader} AS leader, {n_leader} AS n_leader,
    CASE WHEN n_leaders > 1 THEN {n_by_leader} END AS n_by_leader,
    {weights} AS weights,
    answered * {quorum_den} > {quorum_num} * planned AS quorum,
    CASE WHEN answered > 0 THEN top / answered END AS share,
    CASE WHEN answered > 0 THEN (top - if(n_leaders > 1, top, {second})) / planned END AS margin,
    top / {scale} AS weight_for, answered / {scale} AS weight_answered,
    planned / {scale} AS weight_planned
FROM (
    SELECT *, if(top > 0, {leaders}, 0) AS n_leaders FROM (
        SELECT *, {top} AS top, {answered} AS answered, {n_votes} AS n_votes, {n_values} AS n_values
        FROM ({per_item})))
"""


def query(
    values: Sequence[str],
    where: str,
    *,
    equal_units: int | None = None,
    shares: bool = False,
    scale: int = 1,
    quorum: tuple[int, int] = (1, 2),
) -> str:
    """The SQL that tallies the votes (item, annotator, value, simulated) that fulfil `where`.

    A value that is not declared abstains. `shares` says that annotators with several repeats share
    their units of weight among those that voted; `equal_units` that all weigh the same and none is
    simulated, which needs no panel. Columns of the result: item, n_asked, n_abstained, simulated,
    n_votes, n_values, n_leaders, leader, n_leader, n_by_leader (JSON, ties), weights (JSON),
    quorum, share, margin, weight_for, weight_answered, weight_planned. Without any vote share and
    margin are null.
    """
    places = range(len(values))
    said = [f"value = {text(value)}" for value in values]
    counts = [f"count(*) FILTER ({said[n]}) AS n{n}" for n in places]
    if shares:
        weighed = [f"coalesce(sum(units // voted * n{n}), 0)::BIGINT AS w{n}" for n in places]
        columns = [*(f"sum(n{n})::BIGINT AS n{n}" for n in places), *weighed]
        voted = f"nullif({_sum('n', places)}, 0)"
        per_item = _SHARED.format(
            columns=", ".join(columns),
            counts=", ".join(counts),
            voted=voted,
            where=where,
        )
    elif equal_units:
        columns = [f"n{n} * {equal_units} AS w{n}" for n in places]
        per_item = _EQUAL.format(
            units=equal_units, columns=", ".join(columns), counts=", ".join(counts), where=where
        )
    else:
        sums = [f"coalesce(sum(units) FILTER ({said[n]}), 0)::BIGINT AS w{n}" for n in places]
        per_item = _PER_ITEM.format(columns=", ".join([*counts, *sums]), where=where)
    return _TALLIED.format(
        per_item=per_item,
        scale=scale,
        quorum_num=quorum[0],
        quorum_den=quorum[1],
        **_parts(values, scale),
    )


def _parts(values: Sequence[str], scale: int) -> dict[str, str]:
    """The expressions over the columns of the values."""
    places = range(len(values))
    below = [f"if(w{n} = top, 0, w{n})" for n in places]
    return {
        "top": _greatest(f"w{n}" for n in places),
        "second": _greatest(below),
        "answered": _sum("w", places),
        "n_votes": _sum("n", places),
        "n_values": " + ".join(f"(n{n} > 0)::INTEGER" for n in places),
        "leaders": " + ".join(f"(w{n} = top)::INTEGER" for n in places),
        "leader": _case(f"w{n} = top THEN {text(value)}" for n, value in enumerate(values)),
        "n_leader": _case(f"w{n} = top THEN n{n}" for n in places),
        "n_by_leader": _members(values, "n", "w{n} = top"),
        "weights": _members(values, "w", "w{n} > 0", f" / {scale}" if scale > 1 else ""),
    }


def _members(values: Sequence[str], column: str, when: str, more: str = "") -> str:
    """A JSON object of some values and their numbers, without a comma at its end."""
    parts = [
        f"if({when.format(n=n)}, {text(json.dumps(value, ensure_ascii=False) + ':')} || "
        f"({column}{n}{more})::VARCHAR || ',', '')"
        for n, value in enumerate(values)
    ]
    return "'{' || rtrim(" + " || ".join(parts) + ", ',') || '}'"


def _sum(column: str, places: Sequence[int]) -> str:
    return "(" + " + ".join(f"{column}{n}" for n in places) + ")"


def _greatest(parts: Sequence[str]) -> str:
    return f"greatest({', '.join(parts)})"


def _case(branches: Sequence[str]) -> str:
    return f"CASE WHEN top = 0 THEN NULL {' '.join(f'WHEN {one}' for one in branches)} END"


def text(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"
