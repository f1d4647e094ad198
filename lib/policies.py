"""Policies: rule sets that turn the consensus on a group's items into a verdict, as data.

A policy is one YAML file; its name is the policy's id. It decides nothing here: `verdicts` does.
This module refuses whatever could not be evaluated later, with file and line.

    title: Points with modifiers
    verdicts: [Low Risk, High Risk, Critical Risk]   # mildest first
    default: Low Risk                                # may be left out: the mildest
    coverage: 0.8                                    # decided / all items; below: insufficient data
    only: {relevant: "true"}                         # the items that count at all

and then either ordered rules, of which the first with a fulfilled condition wins

    rules:
      - verdict: High Risk
        any:
          - {at_least: 2, where: {account_type: firsthand, incident_severity: [moderate, severe]}}

or points: each line that fits an item that counts adds its points, multiplied by the share of the
item's age (with `recency`); lines about the group are added once, in full

    points:
      - {where: {incident_severity: mild}, points: 2}
    group_points:                     # whole words of a column of the groups table, case ignored;
      - {column: categories, any_of: [Thai], points: 2, needs_points: true}  # if an item has points
    thresholds: {High Risk: 4, Critical Risk: {25: 12, 50: 6}}   # reached by "at least"; by K
    recency: {as_of: 2026-06-30, bands: [{up_to_years: 2, share: 1}, {share: 0.25}]}

`where` holds when every named field has one of its values; a value that is not decided fulfils
nothing. `fields` in a policy file belongs to the study, which unites it with its own.
"""

import datetime
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic

from lib import parts, yamls
from lib.fields import Field
from lib.parts import Part, Share, Text

INSUFFICIENT = "insufficient data"
ANY_K = "any"
Fault = tuple[tuple, str]

Number = Annotated[float, pydantic.Field(allow_inf_nan=False)]


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _by_k(value: object) -> object:
    """A threshold by K; one number is the threshold of any K."""
    if isinstance(value, dict):
        return {str(k): number for k, number in value.items()}
    return {ANY_K: value}


# Values are checked by `_where_fault`, which explains them better than a type can.
Where = Annotated[
    dict[str, Annotated[list[Any], pydantic.BeforeValidator(_listed)]],
    pydantic.Field(min_length=1),
]
Threshold = Annotated[dict[str, Number], pydantic.BeforeValidator(_by_k)]


class Count(Part):
    """Fulfilled when at least so many items that count fit `where`."""

    at_least: Annotated[int, pydantic.Field(ge=1)]
    where: Where


class Rule(Part):
    """A verdict and the counted conditions of which any one gives it."""

    verdict: str
    any: Annotated[list[Count], pydantic.Field(min_length=1)]


class Points(Part):
    """Points for every item that counts and fits `where`."""

    where: Where
    points: Number


class GroupPoints(Part):
    """Points once for a group whose column names a word; `needs_points`: beside others only."""

    column: Text
    any_of: Annotated[list[Text], pydantic.Field(min_length=1)]
    points: Number
    needs_points: bool = True


class Band(Part):
    """The share of its points that an item keeps up to an age, that age included."""

    up_to_years: Annotated[int, pydantic.Field(ge=1)] | None = None
    share: Share


class Recency(Part):
    """How points fade with age, as of a stated date."""

    as_of: Annotated[datetime.date, pydantic.Field(strict=False)]  # a lock file has it as text
    bands: Annotated[list[Band], pydantic.Field(min_length=1)]


class Policy(Part):
    """A rule set over a group's consensus values; `uses` names the fields that it looks at."""

    id: str
    title: Text
    description: str = ""
    verdicts: Annotated[list[Text], pydantic.Field(min_length=2)]
    default: Text
    default_reason: str = ""
    coverage: Share = 0.8
    only: Where | None = None
    rules: list[Rule] = []
    points: list[Points] = []
    group_points: list[GroupPoints] = []
    thresholds: dict[str, Threshold] = {}
    recency: Recency | None = None
    uses: list[str] = []


def parse(
    path: Path,
    data: object,
    lines: Mapping[tuple, int],
    fields: Mapping[str, Field],
    *,
    ks: Iterable[int] = (),
    dated: bool = True,
) -> Policy:
    """The policy that the YAML file `path` holds; its stem is the id.

    `fields` are the study's, `ks` its K (thresholds by K must have them all), `dated` says whether
    its items have dates. Raises StudyError with file and line for what cannot be evaluated.
    """
    if not isinstance(data, dict):
        raise yamls.problem(path, 1, "expected title, verdicts, and rules or points.")
    for entry in sorted({"id", "uses"} & set(data)):
        what = f"unknown entry {entry!r}: it is derived from the rest. Remove it."
        raise yamls.problem(path, lines.get((entry,)), what)
    body = {entry: value for entry, value in data.items() if entry != "fields"}
    if isinstance(body.get("verdicts"), list) and body["verdicts"]:
        body.setdefault("default", body["verdicts"][0])
    policy = parts.parse(Policy, {**body, "id": path.stem}, path, lines)
    for at, what in _faults(policy, fields, list(ks), dated):
        raise yamls.problem(path, yamls.line_of(dict(lines), *at), what)
    named = {field for _, where in _wheres(policy) for field in where}
    parents = {fields[field].when for field in named} - {None}
    return policy.model_copy(update={"uses": sorted(named | parents)})


def threshold(policy: Policy, verdict: str, k: object) -> float | None:
    """The points from which `verdict` is reached at K; None when it has none for this K."""
    by_k = policy.thresholds.get(verdict, {})
    return by_k.get(str(k), by_k.get(ANY_K))


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
    wrong = [k for k in written if not k.isdecimal() or int(k) < 1]
    if wrong or {} in policy.thresholds.values():
        yield ("thresholds",), f"K is a whole number from 1, not {_list(wrong) or 'nothing'}."
    for k in sorted(written | {str(k) for k in ks}, key=lambda k: (len(k), k)) or [ANY_K]:
        climbing = [verdict for verdict in policy.verdicts if verdict in policy.thresholds]
        reached = [(verdict, threshold(policy, verdict, k)) for verdict in climbing]
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
