"""Prevalence: how common a value is in the corpus, from all votes and a random sample of gold.

Counting the votes alone is precise and wrong: its interval knows nothing of the panel's errors.
Gold alone is right and wide. Prediction-powered inference (Angelopoulos, Duchi and Zrnic, "PPI++",
2023) joins the two: the votes on all items, corrected by what gold says of the votes on its items.
It holds for a random sample whose chances of being drawn are known, and for no other.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_Z95 = 1.959963984540054


class Share(NamedTuple):
    """A share, or a mean, with its 95 % interval."""

    share: float
    low: float
    high: float


NOTHING = Share(math.nan, math.nan, math.nan)


def of_votes_and_gold(
    true: Sequence[float],
    said: Sequence[float],
    all_said: Sequence[float],
    chances: Sequence[float] | None = None,
    strata: Sequence[str] | None = None,
) -> Share:
    """The share of items that have a value, by the votes on all of them and gold on some.

    `true` and `said` are 0 or 1 for each gold item: what people and what the panel say; `all_said`
    is what the panel says of every item. `chances` are the labelled shares of the gold items'
    `strata` (without strata, equal chances are one): the share is then that in this very corpus,
    and certain when all of it is labelled. Without chances the items stand for more of their kind.
    The votes count as far as they are worth it (the tuned lambda of PPI++). The interval counts two
    errors more than were seen, one each way, so that a small sample without any error does not
    promise certainty. NaN without gold.

    >>> of_votes_and_gold([1, 0, 0, 0] * 50, [1, 0, 0, 0] * 50, [1, 0, 0, 0] * 5000).share
    0.25
    """
    share, variance = _estimate(true, said, all_said, chances, strata, unit=1.0)
    return _within(share, variance, 0.0, 1.0)


def mean_of_votes_and_gold(
    true: Sequence[float],
    said: Sequence[float],
    all_said: Sequence[float],
    chances: Sequence[float] | None = None,
    strata: Sequence[str] | None = None,
) -> Share:
    """The mean of a number, as the share of a value is found; an error more is one deviation."""
    unit = float(np.std(true)) if len(true) else 0.0
    mean, variance = _estimate(true, said, all_said, chances, strata, unit=unit)
    return _within(mean, variance, -math.inf, math.inf)


def of_gold(
    true: Sequence[float],
    chances: Sequence[float] | None = None,
    strata: Sequence[str] | None = None,
) -> Share:
    """The share of items that have a value, by gold alone; the same bounds as with votes."""
    return of_votes_and_gold(true, np.zeros(len(true)), np.zeros(1), chances, strata)


def of_votes(all_said: Sequence[float]) -> Share:
    """The share by votes alone, with the interval that looks right and is not: for comparison."""
    if not len(all_said):
        return NOTHING
    share = float(np.mean(all_said))
    return _within(share, share * (1 - share) / len(all_said), 0.0, 1.0)


def _estimate(
    true: Sequence[float],
    said: Sequence[float],
    all_said: Sequence[float],
    chances: Sequence[float] | None,
    strata: Sequence[str] | None,
    unit: float,
) -> tuple[float, float]:
    """The mean and its variance: strata are weighed by their sizes, within them all are equal."""
    if not len(true):
        return math.nan, math.nan
    y, f, everything = (np.asarray(part, dtype=float) for part in (true, said, all_said))
    chance = np.zeros(len(y)) if chances is None else np.asarray(chances, dtype=float)
    _, codes = np.unique(chance if strata is None else np.asarray(strata), return_inverse=True)
    n = np.bincount(codes)
    weights = n.astype(float) if chances is None else np.bincount(codes, 1 / chance)
    weights /= weights.sum()
    # What each stratum adds to the variance, by its weight, its labels and what is not labelled.
    adds = weights**2 * (1 - np.bincount(codes, chance) / n) / n
    more = 1 / len(everything) if chances is None else 0.0
    trust = _trust(y, f, codes, adds, more)
    left = y - trust * f
    mean = trust * everything.mean() + weights @ (np.bincount(codes, left) / n)
    n_equal = 1 / (weights**2 / n).sum()
    spread = _pooled(_covariances(left, left, codes), adds)
    spread = (n_equal * spread + 2 * unit**2) / (n_equal + 2)
    return float(mean), float(trust**2 * everything.var() * more + adds.sum() * spread)


def _trust(y: np.ndarray, f: np.ndarray, codes: np.ndarray, adds: np.ndarray, more: float) -> float:
    """How far the votes count, from 0 to 1: what makes the variance least."""
    variance = _pooled(_covariances(f, f, codes), adds)
    if not variance:
        return 1.0 if np.array_equal(y, f) else 0.0
    covariance, total = _pooled(_covariances(f, y, codes), adds), adds.sum()
    return float(np.clip(covariance * total / (variance * (total + more)), 0.0, 1.0))


def _covariances(one: np.ndarray, other: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Within each stratum; unknown from one item."""
    n = np.bincount(codes)
    centred = [part - (np.bincount(codes, part) / n)[codes] for part in (one, other)]
    return np.bincount(codes, centred[0] * centred[1]) / np.where(n > 1, n - 1, math.nan)


def _pooled(values: np.ndarray, adds: np.ndarray) -> float:
    """The mean over the strata, each by what it adds; a stratum of one item is as the others."""
    known = ~np.isnan(values)
    total = adds[known].sum()
    return float(adds[known] @ values[known] / total) if total else 0.0


def _within(share: float, variance: float, least: float, most: float) -> Share:
    if math.isnan(share):
        return NOTHING
    reach = _Z95 * math.sqrt(max(variance, 0.0))
    low, middle, high = (
        float(min(most, max(least, bound))) for bound in (share - reach, share, share + reach)
    )
    return Share(middle, low, high)
