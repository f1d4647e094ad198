"""Policy files: reading what people wrote, and every reason why it could not be evaluated.

Refuses, with file and line, what `judging` does not know and what could never come true: a value
that no answer has, a condition that contradicts another one, a rule that an earlier one hides.
"""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lib import parts, policies, yamls
from lib.fields import Field
from lib.policies import ANY_K, INSUFFICIENT, Policy

Fault = tuple[tuple, str]


def parse(
    path: Path,
    content: tuple[object, Mapping[tuple, int]],
    fields: Mapping[str, Field],
    *,
    ks: Iterable[int] = (),
    dated: bool = True,
    groups: Path | None = None,
) -> Policy:
    """The policy in the YAML file `path`, of which `content` was read; its stem is the id.

    `fields` are the study's, `ks` its K (thresholds by K must have them all), `dated` says whether
    its items have dates, `groups` is the CSV file about its groups. Raises StudyError with file and
    line for what cannot be evaluated.
    """
    data, lines = content
    if not isinstance(data, dict):
        raise yamls.problem(path, 1, "expected title, verdicts, and rules or points.")
    for entry in sorted({"id", "uses"} & set(data)):
        what = f"unknown entry {entry!r}: it is derived from the rest. Remove it."
        raise yamls.problem(path, lines.get((entry,)), what)
    body = {entry: value for entry, value in data.items() if entry != "fields"}
    if isinstance(body.get("verdicts"), list) and body["verdicts"]:
        body.setdefault("default", body["verdicts"][0])
    policy = parts.parse(Policy, {**body, "id": path.stem}, path, lines)
    faults = [_faults(policy, fields, list(ks), dated), _group_faults(policy, groups)]
    for at, what in itertools.chain(*faults):
        raise yamls.problem(path, yamls.line_of(dict(lines), *at), what)
    named = {field for _, where in _wheres(policy) for field in where}
    parents = {fields[field].when for field in named} - {None}
    return policy.model_copy(update={"uses": sorted(named | parents)})


def _wheres(policy: Policy) -> Iterator[tuple[tuple, Mapping[str, list[Any]]]]:
    """Every condition on items and the place where it is written."""
    if policy.only:
        yield ("only",), policy.only
    for n, rule in enumerate(policy.rules):
        for m, count in enumerate(rule.any):
            yield ("rules", n, "any", m, "where"), count.where
    for n, line in enumerate(policy.points):
        yield ("points", n, "where"), line.where


def _faults(
    policy: Policy, fields: Mapping[str, Field], ks: list[int], dated: bool
) -> Iterator[Fault]:
    """Places and what is wrong there; what follows the first may rely on its absence."""
    yield from _verdict_faults(policy)
    yield from _kind_faults(policy)
    for at, where in _wheres(policy):
        for field, values in where.items():
            for what in _where_faults(field, values, fields):
                yield (*at, field), what
            if policy.only and not set(policy.only.get(field, values)) & set(values):
                what = f"only lets {_list(policy.only[field])} count: this can never be fulfilled."
                yield (*at, field), f"{field!r} is {_list(values)}, and {what}"
            when = fields[field].when
            if when and "true" not in {**(policy.only or {}), **where}.get(when, ["true"]):
                what = f"{field!r} applies only where {when} is true, and here it is not"
                yield (*at, field), f"{what}: this can never be fulfilled."
    yield from _rule_faults(policy, fields, ks)
    yield from _points_faults(policy)
    yield from _threshold_faults(policy, ks)
    yield from _recency_faults(policy, dated)


def _verdict_faults(policy: Policy) -> Iterator[Fault]:
    known = policy.verdicts
    if len(set(known)) < len(known):
        yield ("verdicts",), f"a verdict stands twice in {_list(known)}. Remove one."
    if INSUFFICIENT in known:
        yield ("verdicts",), f"{INSUFFICIENT!r} is given where coverage is too low. Remove it."
    named = [(("default",), policy.default)]
    named += [(("rules", n, "verdict"), rule.verdict) for n, rule in enumerate(policy.rules)]
    named += [(("thresholds", verdict), verdict) for verdict in policy.thresholds]
    for at, verdict in named:
        if verdict not in known:
            nearest = yamls.nearest(verdict, known)
            yield at, f"no verdict {verdict!r}.{nearest} Known: {_list(known)}."
    if policy.default != known[0] and not policy.default_reason:
        what = f"the default {policy.default!r} is not the mildest verdict, {known[0]!r}."
        yield ("default",), f"{what} If that is meant, say why in default_reason."


def _kind_faults(policy: Policy) -> Iterator[Fault]:
    if bool(policy.rules) == bool(policy.points):
        yield (), "a policy has either rules or points. Write one of the two."
    for entry in ("group_points", "thresholds", "recency"):
        if policy.rules and getattr(policy, entry):
            yield (entry,), f"{entry} belongs to points, and this policy has rules."
    if policy.points and set(policy.thresholds) != set(policy.verdicts) - {policy.default}:
        what = f"points need a threshold for each verdict but {policy.default}, and no other"
        yield ("thresholds",), f"{what}; found: {_list(policy.thresholds) or 'none'}."


def _rule_faults(policy: Policy, fields: Mapping[str, Field], ks: list[int]) -> Iterator[Fault]:
    """Conditions that can never decide: more items than K has, or an earlier rule comes first."""
    earlier = []
    for n, rule in enumerate(policy.rules):
        for m, count in enumerate(rule.any):
            at, fits = ("rules", n, "any", m), _implied(count.where, policy, fields)
            if ks and count.at_least > max(ks):
                what = f"at_least is {count.at_least}, and the largest K of the study is {max(ks)}"
                yield (*at, "at_least"), f"{what}: this can never be fulfilled."
            for place, verdict, least, wider in earlier:
                covers = all(fits.get(name, set()) <= set(wider[name]) for name in wider)
                hides = all(name in fits for name in wider) and covers
                if hides and least <= count.at_least and verdict != rule.verdict:
                    what = f"whenever this is fulfilled, {place} already gives {verdict!r}"
                    yield at, f"{what}. Put the narrower rule first."
            place = f"rule {n + 1}, condition {m + 1}"
            earlier.append((place, rule.verdict, count.at_least, count.where))


def _implied(
    where: Mapping[str, list], policy: Policy, fields: Mapping[str, Field]
) -> dict[str, set]:
    """All that is known of an item that fits: its fields with the values that they can have."""
    known = {name: set(values) for name, values in (policy.only or {}).items()}
    for name, values in where.items():
        known[name] = set(values) & known.get(name, set(values))
    return {fields[name].when: {"true"} for name in known if fields[name].when} | known


def _points_faults(policy: Policy) -> Iterator[Fault]:
    for entry in ("points", "group_points"):
        for n, line in enumerate(getattr(policy, entry)):
            if not line.points:
                yield (entry, n, "points"), "0 points add nothing. Remove the line."
    for verdict, by_k in policy.thresholds.items():
        if any(points <= 0 for points in by_k.values()):
            what = f"{verdict!r} is reached without any points: no threshold may be 0 or less."
            yield ("thresholds", verdict), what


def _group_faults(policy: Policy, table: Path | None) -> Iterator[Fault]:
    """Lines about groups need a table of them with their column."""
    if not policy.group_points:
        return
    if table is None:
        what = "group_points need a table about the groups. Name it in study.yml: groups."
        yield ("group_points",), what
        return
    rows = csv.reader(io.StringIO(yamls.text(table), newline=""))
    header = next(([cell.strip() for cell in row] for row in rows if any(row)), [])
    for n, line in enumerate(policy.group_points):
        if line.column not in (known := [*header, "group", "name"]):
            what = f"{table.name} has no column {line.column!r}.{yamls.nearest(line.column, known)}"
            yield ("group_points", n, "column"), f"{what} Known: {_list(header)}."
        for word in line.any_of:
            if not word.strip() or word != word.strip():
                what = f"{word!r} begins or ends with a space and is no whole word."
                yield ("group_points", n, "any_of"), what


def _where_faults(field: str, values: list[Any], fields: Mapping[str, Field]) -> Iterator[str]:
    if field not in fields:
        yield f"no field {field!r}.{yamls.nearest(field, fields)} Known: {_list(sorted(fields))}."
        return
    allowed = fields[field].allowed
    if not allowed:
        yield f"field {field!r} has the type {fields[field].type}: conditions need declared values."
    if not values:
        yield f"no value is named for {field!r}. Its values: {_list(allowed)}."
    for value in values:
        if isinstance(value, bool):
            word = str(value).lower()
            yield (
                f"{field!r} is the truth value {word}, and no answer has that: YAML reads {word} "
                f'without quotes so. Write "{word}" in quotes. Its values: {_list(allowed)}.'
            )
        elif value not in allowed:
            nearest = yamls.nearest(value, allowed)
            yield f"{field!r} never has the value {value!r}.{nearest} Its values: {_list(allowed)}."


def _threshold_faults(policy: Policy, ks: Iterable[int]) -> Iterator[Fault]:
    written = {k for by_k in policy.thresholds.values() for k in by_k} - {ANY_K}
    wrong = [k for k in written if not (k.isascii() and k.isdecimal() and k[0] != "0")]
    if wrong or {} in policy.thresholds.values():
        yield ("thresholds",), f"K is a whole number from 1, not {_list(wrong) or 'nothing'}."
    for k in sorted(written | {str(k) for k in ks}, key=lambda k: (len(k), k)) or [ANY_K]:
        climbing = [verdict for verdict in policy.verdicts if verdict in policy.thresholds]
        reached = [(verdict, policies.threshold(policy, verdict, k)) for verdict in climbing]
        for verdict in (verdict for verdict, points in reached if points is None):
            what = f"{verdict!r} has thresholds for K = {_list(policy.thresholds[verdict])}"
            yield ("thresholds", verdict), f"{what}, and none for K = {k}. Add it."
        for (mild, low), (harsh, high) in itertools.pairwise(reached):
            if high <= low:
                what = f"{harsh} from {high:g} points is not above {mild} from {low:g} (K = {k})"
                yield ("thresholds", harsh), f"{what}: thresholds must grow with severity."


def _recency_faults(policy: Policy, dated: bool) -> Iterator[Fault]:
    if policy.recency is None:
        return
    if not dated:
        yield ("recency",), "recency needs dates, and no source of the study names a date column."
    *closed, last = [band.up_to_years for band in policy.recency.bands]
    if last is not None or None in closed:
        what = "the last band, and no other, has no up_to_years: it is for everything older."
        yield ("recency", "bands"), what
    for n, (earlier, later) in enumerate(itertools.pairwise(closed)):
        if later <= earlier:
            what = f"bands overlap: up to {later} years comes after up to {earlier} years."
            yield ("recency", "bands", n + 1), what


def _list(words: Iterable[object]) -> str:
    return ", ".join(str(word) for word in words)
