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
    """A share with its 95 % interval."""

    share: float
    low: float
    high: float


def of_votes_and_gold(
    true: Sequence[float],
    said: Sequence[float],
    all_said: Sequence[float],
    chances: Sequence[float] | None = None,
) -> Share:
    """The share of items that have a value, by the votes on all of them and gold on some.

    `true` and `said` are 0 or 1 for each gold item: what people and what the panel say; `all_said`
    is what the panel says of every item of the corpus. `chances` are those by which the gold items
    were drawn, when they were not equal. The votes count as far as they are worth it (the tuned
    lambda of PPI++). The interval counts two errors more than were seen, one each way, so that a
    small sample without any error does not promise certainty. NaN without gold.

    >>> of_votes_and_gold([1, 0, 0, 0] * 50, [1, 0, 0, 0] * 50, [1, 0, 0, 0] * 5000).share
    0.25
    """
    y, f, everything = (np.asarray(part, dtype=float) for part in (true, said, all_said))
    if not len(y):
        return Share(math.nan, math.nan, math.nan)
    weights = np.ones(len(y)) if chances is None else 1 / np.asarray(chances, dtype=float)
    weights = weights / weights.sum()
    n, n_all = 1 / (weights**2).sum(), len(everything)
    trust = _trust(y, f, weights, n / n_all)
    left = y - trust * f
    share = trust * everything.mean() + weights @ left
    variance = trust**2 * everything.var() / n_all + _spread(left, weights, n) / n
    return _within(share, variance)


def of_gold(true: Sequence[float], chances: Sequence[float] | None = None) -> Share:
    """The share of items that have a value, by gold alone; the same bounds as with votes."""
    return of_votes_and_gold(true, np.zeros(len(true)), np.zeros(1), chances)


def of_votes(all_said: Sequence[float]) -> Share:
    """The share by votes alone, with the interval that looks right and is not: for comparison."""
    if not len(all_said):
        return Share(math.nan, math.nan, math.nan)
    share = float(np.mean(all_said))
    return _within(share, share * (1 - share) / len(all_said))


def _trust(y: np.ndarray, f: np.ndarray, weights: np.ndarray, ratio: float) -> float:
    """How far the votes count, from 0 to 1: what makes the variance least."""
    variance = weights @ (f - weights @ f) ** 2
    if not variance:
        return 1.0 if np.array_equal(y, f) else 0.0
    covariance = weights @ ((f - weights @ f) * (y - weights @ y))
    return float(np.clip(covariance / (variance * (1 + ratio)), 0.0, 1.0))


def _spread(left: np.ndarray, weights: np.ndarray, n: float) -> float:
    """The variance of what votes leave to explain, with one error more in each direction."""
    seen = weights @ (left - weights @ left) ** 2
    return float((n * seen + 2) / (n + 2))


def _within(share: float, variance: float) -> Share:
    reach = _Z95 * math.sqrt(max(variance, 0.0))
    low, high = (float(min(1.0, max(0.0, bound))) for bound in (share - reach, share + reach))
    return Share(float(min(1.0, max(0.0, share))), low, high)
