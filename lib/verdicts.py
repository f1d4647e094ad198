"""Verdicts: what policies say about each group at each K, with the evidence.

Decides by the consensus alone, in exact arithmetic. Refuses to fill gaps: a group without enough
decided items gets `insufficient data`, and what is not decided fulfils no condition.
"""

import datetime
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from lib import policies, yamls
from lib.errors import StudyError
from lib.policies import Policy

COLUMNS = ["policy", "k", "group", "verdict", "points", "decided_by", "coverage", "n_items"]
COLUMNS += ["n_decided", "n_counted", "evidence", "simulated"]
MOST_LISTED = 20
_FIELD = "field "  # fields may have the names of other columns


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
    items = _newest_first(documents).merge(_wide(consensus), on="item", how="left")
    items["simulated"] = items["simulated"].eq(True)
    places = items.groupby("group").indices
    names = sorted(set(places) | set(groups["group"].dropna()))
    facts = {row["group"]: row for row in groups.to_dict("records")}
    rows = []
    for policy in of_study.values():
        _check(policy, groups, items, names)
        marks = _marks(policy, items)
        for k in list(ks) or [None]:
            limits = _limits(policy, k)
            for name in names:
                newest = places.get(name, [])[:k]
                taken = {mark: values[newest] for mark, values in marks.items()}
                found = _judged(policy, taken, limits, facts.get(name, {}))
                rows.append({"policy": policy.id, "k": k, "group": name, **found})
    return pd.DataFrame(rows, columns=COLUMNS).astype({"k": "Int64", "points": "float64"})


def years_before(day: datetime.date, years: int) -> datetime.date:
    """The same day some years earlier; 29 February becomes the 28th where there is none.

    >>> years_before(datetime.date(2024, 2, 29), 1)
    datetime.date(2023, 2, 28)
    """
    return (pd.Timestamp(day) - pd.DateOffset(years=years)).date()


def _newest_first(documents: pd.DataFrame) -> pd.DataFrame:
    items = documents.loc[documents["group"].notna(), ["item", "group", "date"]]
    items = items.assign(date=pd.to_datetime(items["date"]))
    return items.sort_values(["group", "date", "item"], ascending=[True, False, True])


def _wide(consensus: pd.DataFrame) -> pd.DataFrame:
    """One row an item: a column a field, and `known` with the fields that are settled."""
    settled = consensus["status"].isin(["decided", "not_applicable"])
    values = consensus.pivot(index="item", columns="field", values="value").add_prefix(_FIELD)
    known = consensus[settled].groupby("item")["field"].agg(frozenset).rename("known")
    simulated = consensus.groupby("item")["simulated"].any()
    return values.join(known).join(simulated).reset_index()


def _check(policy: Policy, groups: pd.DataFrame, items: pd.DataFrame, names: list[str]) -> None:
    """What a policy needs of the tables, before anything is judged."""
    twice = groups.loc[groups["group"].duplicated(), "group"]
    if len(twice):
        raise _problem(policy, f"the groups table has {twice.iloc[0]!r} more than once.")
    unknown = [name for name in names if name not in set(groups["group"])]
    for line in policy.group_points:
        if line.column not in groups:
            nearest = yamls.nearest(line.column, groups)
            raise _problem(policy, f"the groups table has no column {line.column!r}.{nearest}")
        if unknown:
            what = f"{len(unknown)} groups are not in the groups table, such as {unknown[0]!r}"
            raise _problem(policy, f"{what}: {line.column} is needed for each. Add them.")
    if policy.recency:
        day = policy.recency.as_of
        n_undated, newest = int(items["date"].isna().sum()), items["date"].max()
        if n_undated:
            raise _problem(policy, f"{n_undated} of {len(items)} items have no date for recency.")
        if len(items) and newest.date() > day:
            what = f"the newest item is of {newest.date()}, after as_of {day}"
            raise _problem(policy, f"{what}: set as_of to the day as of which you judge.")


def _limits(policy: Policy, k: int | None) -> list[tuple[str, Fraction]]:
    """Verdicts and the points from which they are reached, the severest first."""
    needed = [verdict for verdict in reversed(policy.verdicts) if verdict in policy.thresholds]
    limits = []
    for verdict in needed:
        points = policies.threshold(policy, verdict, k)
        if points is None:
            known = ", ".join(policy.thresholds[verdict])
            raise _problem(policy, f"{verdict!r} has thresholds for K = {known}, not for K = {k}.")
        limits.append((verdict, _exact(points)))
    return limits


def _marks(policy: Policy, items: pd.DataFrame) -> dict[str, np.ndarray]:
    """What the policy must know of every item: ids, what is decided, what counts and fits."""
    needed, counts = set(policy.uses), _fits(items, policy.only or {})
    known = [isinstance(fields, frozenset) and needed <= fields for fields in items["known"]]
    marks = {"item": items["item"], "known": pd.Series(known, dtype=bool), "counts": counts}
    marks["simulated"] = items["simulated"].astype(bool)
    for place, where in _conditions(policy):
        marks[place] = counts & _fits(items, where)
    if policy.recency:
        marks["share"] = items["date"].map(lambda date: _share(policy, date))
    return {mark: values.to_numpy() for mark, values in marks.items()}


def _conditions(policy: Policy) -> Iterator[tuple[str, Mapping[str, list[str]]]]:
    for n, rule in enumerate(policy.rules, start=1):
        for m, count in enumerate(rule.any, start=1):
            yield f"rule {n}, condition {m}", count.where
    for n, line in enumerate(policy.points, start=1):
        yield f"points {n}", line.where


def _fits(items: pd.DataFrame, where: Mapping[str, list[str]]) -> pd.Series:
    """Which items fulfil every part of a condition; a value that is not decided fulfils none."""
    fits = pd.Series(True, index=items.index)
    for field, values in where.items():
        column = _FIELD + field
        fits &= items[column].isin(values) if column in items else False
    return fits


def _judged(
    policy: Policy, taken: Mapping[str, np.ndarray], limits: list, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The verdict on the items of one group."""
    n_items, n_decided = len(taken["item"]), int(taken["known"].sum())
    if policy.points:
        verdict, by, points, evidence = _by_points(policy, taken, limits, facts)
    else:
        verdict, by, points, evidence = _by_rules(policy, taken)
    if not n_items or n_decided < _exact(policy.coverage) * n_items:
        verdict, by = policies.INSUFFICIENT, "coverage"
    return {
        "verdict": verdict,
        "points": None if points is None else float(points),
        "decided_by": by,
        "coverage": n_decided / n_items if n_items else 0.0,
        "n_items": n_items,
        "n_decided": n_decided,
        "n_counted": int(taken["counts"].sum()),
        "evidence": json.dumps(evidence, ensure_ascii=False),
        "simulated": bool(taken["simulated"].any()),
    }


def _by_rules(policy: Policy, taken: Mapping[str, np.ndarray]) -> tuple[str, str, None, list[dict]]:
    """The verdict of the first rule with a fulfilled condition, and what each of them counted."""
    verdict, by, evidence = policy.default, "default", []
    counts = [(rule.verdict, count) for rule in policy.rules for count in rule.any]
    for (name, count), (place, where) in zip(counts, _conditions(policy), strict=True):
        fulfilled = int(taken[place].sum()) >= count.at_least
        if fulfilled and by == "default":
            verdict, by = name, place
        need = {"for": name, "at_least": count.at_least, "fulfilled": fulfilled}
        evidence.append({"condition": place, **need, **_counted(where, taken, place)})
    return verdict, by, None, evidence


def _by_points(
    policy: Policy, taken: Mapping[str, np.ndarray], limits: list, facts: Mapping[str, Any]
) -> tuple[str, str, Fraction, list[dict]]:
    """The severest verdict whose threshold the points reach, and what each line added."""
    total, evidence = Fraction(0), []
    for line, (place, where) in zip(policy.points, _conditions(policy), strict=True):
        fits = taken[place]
        times = sum(taken["share"][fits], Fraction(0)) if policy.recency else int(fits.sum())
        added = _exact(line.points) * times
        total += added
        counted = _counted(where, taken, place)
        evidence.append({"condition": place, **counted, "points": float(added)})
    has_points = any(line["points"] > 0 for line in evidence)
    for line in policy.group_points:
        named = [word for word in line.any_of if _names(facts.get(line.column), word)]
        applies = bool(named) and (has_points or not line.needs_points)
        total += _exact(line.points) if applies else 0
        added = line.points if applies else 0.0
        evidence.append({"column": line.column, "named": named, "points": added})
    for verdict, needed in limits:
        if total >= needed:
            return verdict, f"at least {float(needed):g} points", total, evidence
    return policy.default, "default", total, evidence


def _counted(
    where: Mapping[str, list[str]], taken: Mapping[str, np.ndarray], place: str
) -> dict[str, Any]:
    fitting = taken["item"][taken[place]]
    return {"where": dict(where), "n": len(fitting), "items": fitting[:MOST_LISTED].tolist()}


def _share(policy: Policy, date: pd.Timestamp) -> Fraction:
    """What an item of this date keeps of its points."""
    day = date.date()
    for band in policy.recency.bands:
        years = band.up_to_years
        if years is None or day >= years_before(policy.recency.as_of, years):
            return _exact(band.share)
    return Fraction(0)


def _names(text: object, word: str) -> bool:
    """Whether a text has a word, or words, as whole words in any case."""
    pattern = rf"(?<!\w){re.escape(word)}(?!\w)"
    return isinstance(text, str) and re.search(pattern, text, re.IGNORECASE) is not None


def _exact(number: float) -> Fraction:
    """The number as a person wrote it: 0.1 is a tenth."""
    return Fraction(str(number))


def _problem(policy: Policy, what: str) -> StudyError:
    file = f"policies/{policy.id}.yml"
    return StudyError(f"{file}: {what}", file=file, line=None)
