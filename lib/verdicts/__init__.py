"""Verdicts: what policies say about each group at each K, with the evidence.

Decides by the consensus alone, in exact arithmetic. Refuses to fill gaps: a group without enough
decided items gets `insufficient data`, and what is not decided fulfils no condition.
"""

import datetime
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lib import policies, words, yamls
from lib.policies import Policy
from lib.verdicts import judging

COLUMNS = ["policy", "k", "group", "verdict", "points", "decided_by", "coverage", "n_items"]
COLUMNS += ["n_decided", "n_counted", "n_corrected", "evidence", "simulated"]
MOST_LISTED = 20
SETTLED = ("decided", "not_applicable")
_FIELD = "field "  # fields may have the names of other columns


class Sample(NamedTuple):
    """The newest K items of a group, as a policy sees them.

    They stand at `start` to `stop` in the table of items; `marks` has their marks, `facts` the
    row of the group, `limits` the points from which each verdict is reached.
    """

    k: int | None
    group: str
    start: int
    stop: int
    marks: dict[str, np.ndarray]
    facts: Mapping[str, Any]
    limits: list[tuple[str, Fraction]]
    tally: judging.Tally


def reach(
    consensus: pd.DataFrame,
    documents: pd.DataFrame,
    groups: pd.DataFrame,
    of_study: Mapping[str, Policy],
    ks: Iterable[int] = (),
) -> pd.DataFrame:
    """One verdict for each policy, K and group; groups of either table, in order of their names.

    K takes the newest items of a group: later dates first, equal ones by item id, those without a
    date last. No `ks` takes all items, and k is null. `groups` has the column group and those that
    policies name. `points` is null for rules; decided_by names the rule and condition, the
    threshold, the default or the coverage; evidence is a JSON object. Raises StudyError for a
    column, date or threshold that a policy needs and does not find.
    """
    items = items_of(documents, consensus)
    rows = [
        {"policy": policy.id, "k": sample.k, "group": sample.group, **_judged(policy, sample)}
        for policy in of_study.values()
        for sample in samples(policy, items, groups, ks)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"k": "Int64", "points": "float64"})


def items_of(documents: pd.DataFrame, consensus: pd.DataFrame) -> pd.DataFrame:
    """The items that belong to a group with what is decided on them, in the order of K.

    Columns: item, group, date, those of `wide`, corrected (the fields that people corrected),
    simulated.
    """
    items = documents.loc[documents["group"].notna(), ["item", "group", "date"]]
    items = items.assign(date=pd.to_datetime(items["date"]))
    order = {"by": ["group", "date", "item"], "ascending": [True, False, True]}
    items = items.merge(_by_item(consensus), on="item", how="left")
    items["simulated"] = items["simulated"].eq(True)
    return items.sort_values(**order, ignore_index=True)


def samples(
    policy: Policy, items: pd.DataFrame, groups: pd.DataFrame, ks: Iterable[int]
) -> Iterator[Sample]:
    """The samples that a policy judges: for each K one of each group, by name.

    Raises StudyError for what the policy needs of the tables and does not find.
    """
    names = sorted(set(items["group"]) | set(groups["group"].dropna()))
    _check(policy, groups, items, names)
    facts = {row["group"]: row for row in groups.to_dict("records")}
    starts, stops = (items["group"].searchsorted(names, side) for side in ("left", "right"))
    found = marks(policy, items)
    for k in list(ks) or [None]:
        limits = judging.limits(policy, k)
        for name, start, end in zip(names, starts.tolist(), stops.tolist(), strict=True):
            stop = end if k is None else min(end, start + k)
            taken = {mark: values[start:stop] for mark, values in found.items()}
            fact = facts.get(name, {})
            tally = _tally(policy, taken, fact)
            yield Sample(k, name, start, stop, taken, fact, limits, tally)


def wide(values: pd.DataFrame, known: pd.Series) -> pd.DataFrame:
    """Items as `marks` reads them: a column for each field's value, and the settled fields."""
    return values.add_prefix(_FIELD).assign(known=known)


def marks(policy: Policy, items: pd.DataFrame) -> dict[str, np.ndarray]:
    """What the policy must know of every item: what is decided, what counts and fits.

    One array for each column of `items` that is no field, `counts`, and one for each place of
    `conditions`; with recency `share`, what the item keeps of its points.
    """
    needed, counts = set(policy.uses), _fits(items, policy.only or {})
    found = {name: items[name] for name in items if not name.startswith(_FIELD)}
    for mark in ("known", "corrected"):
        if mark in items:
            named = [fields if isinstance(fields, frozenset) else set() for fields in items[mark]]
            enough = needed.issubset if mark == "known" else needed.intersection
            found[mark] = pd.Series([bool(enough(fields)) for fields in named], dtype=bool)
    found["counts"] = counts
    for place, where in judging.conditions(policy):
        found[place] = counts & _fits(items, where)
    if policy.recency and "date" in items:
        found["share"] = _shares(policy.recency, items["date"])
    return {mark: values.to_numpy() for mark, values in found.items()}


def years_before(day: datetime.date, years: int) -> datetime.date:
    """The same day some years earlier; 29 February becomes the 28th where there is none.

    >>> years_before(datetime.date(2024, 2, 29), 1)
    datetime.date(2023, 2, 28)
    """
    return (pd.Timestamp(day) - pd.DateOffset(years=years)).date()


def _by_item(consensus: pd.DataFrame) -> pd.DataFrame:
    """One row an item: a column a field, and the fields that are settled and corrected."""
    values = consensus.pivot(index="item", columns="field", values="value")
    settled = consensus["status"].isin(SETTLED)
    corrected = consensus["corrected"] if "corrected" in consensus else ~settled & settled
    known, changed = (
        consensus[rows].groupby("item")["field"].agg(frozenset) for rows in (settled, corrected)
    )
    simulated = consensus.groupby("item")["simulated"].any()
    table = wide(values, known.reindex(values.index))
    return table.join(changed.rename("corrected")).join(simulated).reset_index()


def _check(policy: Policy, groups: pd.DataFrame, items: pd.DataFrame, names: list[str]) -> None:
    """What a policy needs of the tables, before anything is judged."""
    twice = groups.loc[groups["group"].duplicated(), "group"]
    if len(twice):
        raise judging.problem(policy, f"the groups table has {twice.iloc[0]!r} more than once.")
    unknown = [name for name in names if name not in set(groups["group"])]
    for line in policy.group_points:
        if line.column not in groups:
            nearest = yamls.nearest(line.column, groups)
            what = f"the groups table has no column {line.column!r}.{nearest}"
            raise judging.problem(policy, what)
        if unknown:
            found = words.n_of(len(unknown), "group is", "groups are")
            what = f"{found} not in the groups table, such as {unknown[0]!r}"
            raise judging.problem(policy, f"{what}: {line.column} is needed for each. Add them.")
    if policy.recency:
        day = policy.recency.as_of
        n_undated, newest = int(items["date"].isna().sum()), items["date"].max()
        if n_undated:
            of = words.n_of(len(items), "item")
            what = f"there is no date for recency on {n_undated:,} of {of}."
            raise judging.problem(policy, what)
        if len(items) and newest.date() > day:
            what = f"the newest item is of {newest.date()}, after as_of {day}"
            raise judging.problem(policy, f"{what}: set as_of to the day as of which you judge.")


def _fits(items: pd.DataFrame, where: Mapping[str, list[str]]) -> pd.Series:
    """Which items fulfil every part of a condition; a value that is not decided fulfils none."""
    fits = pd.Series(True, index=items.index)
    for field, values in where.items():
        column = _FIELD + field
        fits &= items[column].isin(values) if column in items else False
    return fits


def _tally(policy: Policy, taken: Mapping[str, np.ndarray], facts: Mapping) -> judging.Tally:
    fitting = [taken[place] for place, _ in judging.conditions(policy)]
    if policy.recency:
        amounts = [sum(taken["share"][fits], Fraction(0)) for fits in fitting]
    else:
        amounts = [int(fits.sum()) for fits in fitting]
    named = tuple(bool(_named(line, facts)) for line in policy.group_points)
    return judging.Tally(len(taken["known"]), int(taken["known"].sum()), tuple(amounts), named)


def _judged(policy: Policy, sample: Sample) -> dict[str, Any]:
    """The verdict on a sample, as a row of the table."""
    verdict, by, points = judging.decide(policy, sample.tally, sample.limits)
    n_items, n_decided = sample.tally.n_items, sample.tally.n_decided
    return {
        "verdict": verdict,
        "points": None if points is None else float(points),
        "decided_by": by,
        "coverage": n_decided / n_items if n_items else 0.0,
        "n_items": n_items,
        "n_decided": n_decided,
        "n_counted": int(sample.marks["counts"].sum()),
        "n_corrected": int(sample.marks["corrected"].sum()),
        "evidence": json.dumps(list(_evidence(policy, sample)), ensure_ascii=False),
        "simulated": bool(sample.marks["simulated"].any()),
    }


def _evidence(policy: Policy, sample: Sample) -> Iterator[dict[str, Any]]:
    """What each condition or line asks for and has found, in the order of the policy."""
    counts = [(rule.verdict, count.at_least) for rule in policy.rules for count in rule.any]
    added = judging.added(policy, sample.tally)
    for n, (place, where) in enumerate(judging.conditions(policy)):
        fitting = sample.marks["item"][sample.marks[place]]
        found = {"where": dict(where), "n": len(fitting), "items": fitting[:MOST_LISTED].tolist()}
        if counts:
            name, least = counts[n]
            asked = {"for": name, "at_least": least, "fulfilled": len(fitting) >= least}
            yield {"condition": place, **asked, **found}
        else:
            yield {"condition": place, **found, "points": float(added[n])}
    once = judging.added_once(policy, sample.tally)
    for line, points in zip(policy.group_points, once, strict=True):
        named = _named(line, sample.facts)
        yield {"column": line.column, "named": named, "points": float(points)}


def _shares(recency: policies.Recency, dates: pd.Series) -> pd.Series:
    """What an item of each date keeps of its points."""
    shares = pd.Series(Fraction(0), index=dates.index, dtype=object)
    for band in reversed(recency.bands):
        years = band.up_to_years
        since = years_before(recency.as_of, years) if years else datetime.date.min
        shares[[date >= since for date in dates.dt.date]] = judging.exact(band.share)
    return shares


def _named(line: policies.GroupPoints, facts: Mapping[str, Any]) -> list[str]:
    """The words of a line that the group's column has, as whole words in any case."""
    text = facts.get(line.column)
    patterns = {word: rf"(?<!\w){re.escape(word)}(?!\w)" for word in line.any_of}
    return [
        word
        for word, pattern in patterns.items()
        if isinstance(text, str) and re.search(pattern, text, re.IGNORECASE)
    ]
