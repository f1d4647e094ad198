"""Policies: rule sets that turn the consensus on a group's items into a verdict, as data.

A policy is one YAML file; its name is the policy's id. It decides nothing here: `judging` does, and
`policy_files` reads it and refuses what could not be evaluated.

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
from typing import Annotated, Any

import pydantic

from lib.parts import Part, Share, Text

INSUFFICIENT = "insufficient data"
ANY_K = "any"

Number = Annotated[float, pydantic.Field(allow_inf_nan=False)]


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _by_k(value: object) -> object:
    """A threshold by K; one number is the threshold of any K."""
    if not isinstance(value, dict):
        return {ANY_K: value}
    by_k = {str(k): number for k, number in value.items()}
    if len(by_k) < len(value):
        raise ValueError("a K stands twice, with quotes and without")
    return by_k


def _day(value: object) -> object:
    """A date as YAML or a lock file has it; a number could be any day."""
    if isinstance(value, datetime.date):
        return value
    try:
        return datetime.date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("should be a valid date such as 2026-06-30") from None


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

    as_of: Annotated[datetime.date, pydantic.BeforeValidator(_day)]
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


def threshold(policy: Policy, verdict: str, k: object) -> float | None:
    """The points from which `verdict` is reached at K; None when it has none for this K."""
    by_k = policy.thresholds.get(verdict, {})
    return by_k.get(str(k), by_k.get(ANY_K))
