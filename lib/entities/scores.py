"""Scores: elected names against the names that people gave, found, right and missed.

Strict: keys are equal. Relaxed: the words of one are all among the words of the other, so that
"Kay" is "Sir Kay". Intervals draw documents again, whose items are not independent.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib import votes as ballots

MATCHES = ("strict", "relaxed")
ALL = "all"
_DRAWS = 1000
_COLUMNS = ["field", "match", "n_items", "n_gold", "n_found", "n_right", "precision", "recall"]
_COLUMNS += ["f1", "low", "high"]

Lists = Mapping[tuple[str, str], set[str]]  # (item, field) -> keys


class Count(NamedTuple):
    """Names of gold, names found, found names that are right, names of gold that are found."""

    n_gold: int
    n_found: int
    n_right: int
    n_recalled: int


def score(
    entities: pd.DataFrame, gold: pd.DataFrame, documents: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Precision, recall and F1 of elected names on the lists that have gold, strict and relaxed.

    `gold` has item, field, value; an empty value says that the item has none. A row for each field
    and match, after those of the field "all", which pools the lists. low and high: 95 % of the F1
    of documents drawn again (items without `documents`). n_right counts found names; n_items lists.
    """
    found = elected_lists(entities)
    true = gold_lists(gold)
    known = (
        {}
        if documents is None
        else dict(zip(documents["item"], documents["document"], strict=True))
    )
    rows = []
    for field in [ALL, *sorted({field for _, field in true})] if true else []:
        mine = sorted(one for one in true if field in (ALL, one[1]))
        for match in MATCHES:
            by_document: dict[str, list[Count]] = {}
            for item, name in mine:
                one = count(found.get((item, name), set()), true[item, name], match)
                by_document.setdefault(known.get(item, item), []).append(one)
            counts = np.array([np.sum(some, axis=0) for _, some in sorted(by_document.items())])
            rows.append((field, match, len(mine), *measured(counts)))
    return pd.DataFrame(rows, columns=_COLUMNS)


def gold_lists(gold: pd.DataFrame) -> dict[tuple[str, str], set[str]]:
    """The keys that people gave for each item and field; an empty value gives none."""
    lists: dict[tuple[str, str], set[str]] = {}
    columns = [gold[name] for name in ("item", "field")]
    for item, field, value in zip(*columns, gold["value"].fillna(""), strict=True):
        lists.setdefault((item, field), set()).update({ballots.entity_key(value)} - {""})
    return lists


def elected_lists(entities: pd.DataFrame) -> Lists:
    """The keys that are elected, by item and field."""
    return entities[entities["elected"]].groupby(["item", "field"])["key"].agg(set).to_dict()


def count(found: set[str], true: set[str], match: str = "strict") -> Count:
    """What is found, right and recalled of one list.

    >>> count({"kay", "lot"}, {"sir kay"}), count({"kay", "lot"}, {"sir kay"}, "relaxed").n_right
    (Count(n_gold=1, n_found=2, n_right=0, n_recalled=0), 1)
    """
    matched = (_n_matched(found, true, match), _n_matched(true, found, match))
    return Count(len(true), len(found), *matched)


def measured(counts: np.ndarray) -> tuple:
    """n_gold, n_found, n_right, precision, recall, F1 and its interval, of counts by document.

    The interval is null with fewer than two documents; documents are drawn with a fixed seed.
    """
    total = counts.sum(axis=0)
    n_gold, n_found, n_right, n_recalled = (int(n) for n in total)
    precision = n_right / n_found if n_found else math.nan
    recall = n_recalled / n_gold if n_gold else math.nan
    low, high = math.nan, math.nan
    if len(counts) > 1:
        draws = np.random.default_rng(0).multinomial(
            len(counts), np.full(len(counts), 1 / len(counts)), size=_DRAWS
        )
        low, high = np.nanquantile(f1(draws @ counts), [0.025, 0.975])
    whole = float(f1(total[None, :])[0])
    return n_gold, n_found, n_right, precision, recall, whole, float(low), float(high)


def f1(counts: np.ndarray) -> np.ndarray:
    """The harmonic mean of precision and recall, a row each; 0 without any match, of nothing null.

    >>> f1(np.array([[2, 3, 1, 1], [0, 0, 0, 0]])).tolist()
    [0.4, nan]
    """
    n_gold, n_found, n_right, n_recalled = np.asarray(counts, dtype=float).T
    with np.errstate(invalid="ignore", divide="ignore"):
        both = n_found / n_right + n_gold / n_recalled
        return np.where(n_gold + n_found > 0, np.nan_to_num(2 / both), np.nan)


def _n_matched(names: set[str], others: set[str], match: str) -> int:
    """How many of `names` have a match among `others`."""
    if match == "strict":
        return len(names & others)
    words = [set(other.split()) for other in others]
    return sum(_has_alike(set(name.split()), words) for name in names)


def _has_alike(words: set[str], others: Iterable[set[str]]) -> bool:
    return any(words <= other or other <= words for other in others)
