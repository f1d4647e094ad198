"""Attributes: what votes say of a name, counted by weight.

A scalar is what most weight says, and nothing in a tie; a list keeps the members that enough of
the weight has. Values that differ by case, space or edge punctuation alone are one value.
"""

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from lib import votes as ballots


def described(texts: Iterable[str], units: Iterable[int]) -> str:
    """The attributes that votes give a name, as a JSON object; texts are JSON, units their weight.

    Null is a vote as well; a list keeps the members that more than half of the weight has.

    >>> described(['{"role": "King"}', '{"role": "king"}', '{"role": "duke"}'], [1, 1, 1])
    '{"role": "King"}'
    """
    weighed: dict[str, int] = {}
    for text, unit in zip(texts, units, strict=True):
        weighed[text] = weighed.get(text, 0) + unit
    return _described(tuple(weighed.items()))


@functools.lru_cache(maxsize=8192)
def _described(weighed: tuple[tuple[str, int], ...]) -> str:
    votes = [(orjson.loads(text), unit) for text, unit in weighed]
    total = sum(unit for _, unit in weighed)
    names = sorted({name for attributes, _ in votes for name in attributes})
    chosen = {}
    for name in names:
        values = [(attributes.get(name), unit) for attributes, unit in votes]
        lists = any(isinstance(value, list) for value, _ in values)
        tallies = tally(values)
        chosen[name] = _members(tallies, total) if lists else leader(tallies)
    return json.dumps(chosen, ensure_ascii=False, sort_keys=True)


def tally(values: Iterable[tuple[Any, int]]) -> dict[str, tuple[int, Any]]:
    """Weight and spelling of each value; a list speaks for each of its members once."""
    spelled: dict[str, dict[str, int]] = {}
    meant: dict[str, Any] = {}
    for value, unit in values:
        members = value if isinstance(value, list) else (value,)
        keyed = {same(member): member for member in members}
        for one, member in keyed.items():
            counts = spelled.setdefault(one, {})
            text = _written(member)
            meant[text] = member
            counts[text] = counts.get(text, 0) + unit
    return {one: (sum(counts.values()), meant[spelling(counts)]) for one, counts in spelled.items()}


@functools.lru_cache(maxsize=65536, typed=True)
def same(value: object) -> str:
    """What makes two attribute values one: the key of a text, the value of a number."""
    if isinstance(value, str):
        return "text " + ballots.entity_key(value)
    return json.dumps(float(value) if isinstance(value, int) else value, sort_keys=True)


@functools.lru_cache(maxsize=65536, typed=True)
def _written(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def leader(tallies: Mapping[str, tuple[int, Any]]) -> object:
    """The value with most weight; None where several have it."""
    most = max(weight for weight, _ in tallies.values())
    leaders = [value for weight, value in tallies.values() if weight == most]
    return leaders[0] if len(leaders) == 1 else None


def spelling(counts: Mapping[str, int]) -> str:
    """The most frequent spelling; of several the first in the alphabet."""
    if len(counts) == 1:
        return next(iter(counts))
    most = max(counts.values())
    return min(name for name, n in counts.items() if n == most)


def _members(tallies: Mapping[str, tuple[int, Any]], total: int) -> list:
    kept = [value for weight, value in tallies.values() if 2 * weight > total]
    return sorted((value for value in kept if value is not None), key=str)
