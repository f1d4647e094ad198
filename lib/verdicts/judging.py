"""Judging: what a policy makes of counts.

Decides the verdict on a tally by rules or points, in exact arithmetic; which items were counted is
the business of `verdicts`. The same few lines judge the votes as they are and as they might be.
"""

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple

from lib import policies
from lib.errors import StudyError
from lib.policies import Policy

COVERAGE = "coverage"


class Tally(NamedTuple):
    """What a verdict rests on: items of the group and how many of them are decided.

    `amounts` has for each condition the number of items that fit, for each line of points the sum
    of their shares; `named` whether each line about the group applies to it by its words.
    """

    n_items: int
    n_decided: int
    amounts: tuple[int | Fraction, ...]
    named: tuple[bool, ...] = ()


def decide(
    policy: Policy, tally: Tally, reached_from: Iterable[tuple[str, Fraction]]
) -> tuple[str, str, Fraction | None]:
    """The verdict on a tally, what decided it, and the points; null for rules.

    A group of which nothing is decided has no verdict, whatever coverage the policy asks for.
    """
    if policy.points:
        verdict, by, total = _by_points(policy, tally, reached_from)
    else:
        verdict, by, total = *_by_rules(policy, tally), None
    enough = tally.n_decided >= exact(policy.coverage) * tally.n_items
    if not tally.n_decided or not enough:
        verdict, by = policies.INSUFFICIENT, COVERAGE
    return verdict, by, total


def conditions(policy: Policy) -> Iterator[tuple[str, Mapping[str, list[str]]]]:
    """Every counted condition or line of points: its place in the policy, and its `where`."""
    for n, rule in enumerate(policy.rules, start=1):
        for m, count in enumerate(rule.any, start=1):
            yield f"rule {n}, condition {m}", count.where
    for n, line in enumerate(policy.points, start=1):
        yield f"points {n}", line.where


def limits(policy: Policy, k: int | None) -> list[tuple[str, Fraction]]:
    """Verdicts and the points from which they are reached, the severest first."""
    needed = [verdict for verdict in reversed(policy.verdicts) if verdict in policy.thresholds]
    found = []
    for verdict in needed:
        points = policies.threshold(policy, verdict, k)
        if points is None:
            known = ", ".join(policy.thresholds[verdict])
            raise problem(policy, f"{verdict!r} has thresholds for K = {known}, not for K = {k}.")
        found.append((verdict, exact(points)))
    return found


def added(policy: Policy, tally: Tally) -> list[Fraction]:
    """The points of every line about items; rules have none."""
    return [exact(one.points) * n for one, n in zip(policy.points, tally.amounts, strict=False)]


def added_once(policy: Policy, tally: Tally) -> list[Fraction]:
    """The points of every line about the group; some need an item with points beside them."""
    has_points = any(points > 0 for points in added(policy, tally))
    return [
        exact(line.points) if named and (has_points or not line.needs_points) else Fraction(0)
        for line, named in zip(policy.group_points, tally.named, strict=True)
    ]


def exact(number: float) -> Fraction:
    """The number as a person wrote it: 0.1 is a tenth.

    >>> exact(0.1) * 3 == exact(0.3)
    True
    """
    return Fraction(str(number))


def problem(policy: Policy, what: str) -> StudyError:
    """A StudyError about a policy that does not fit its study."""
    file = f"policies/{policy.id}.yml"
    return StudyError(f"{file}: {what}", file=file, line=None)


def _by_rules(policy: Policy, tally: Tally) -> tuple[str, str]:
    """The verdict of the first rule with a fulfilled condition, and its place."""
    asked = [(rule.verdict, count.at_least) for rule in policy.rules for count in rule.any]
    places = [place for place, _ in conditions(policy)]
    for (verdict, least), place, n in zip(asked, places, tally.amounts, strict=True):
        if n >= least:
            return verdict, place
    return policy.default, "default"


def _by_points(
    policy: Policy, tally: Tally, reached_from: Iterable[tuple[str, Fraction]]
) -> tuple[str, str, Fraction]:
    """The verdict of the highest threshold that the points reach."""
    total = sum(added(policy, tally)) + sum(added_once(policy, tally))
    for verdict, needed in reached_from:
        if total >= needed:
            return verdict, f"at least {float(needed):g} points", total
    return policy.default, "default", total
