"""Krippendorff's alpha: agreement beyond chance, for any number of voters with missing votes.

As in his "Content Analysis" (2004, chapter 11), for nominal, ordinal and interval values, from the
table of how many votes each value has on each item. Pure arithmetic; it knows no study.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

N_DRAWS = 1000


def counts(votes: pd.DataFrame, values: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The items with two votes or more, and how many votes each of their values has.

    `votes` has item, value. Gives the items, sorted, and a table items x values of whole numbers;
    a voter who votes twice on an item counts twice, and values outside `values` do not count.
    """
    column = pd.Index(values).get_indexer(votes["value"])
    known = votes[column >= 0]
    rows, items = pd.factorize(known["item"], sort=True)
    flat = rows * len(values) + column[column >= 0]
    table = np.bincount(flat, minlength=len(items) * len(values)).reshape(-1, len(values))
    enough = table.sum(axis=1) > 1
    return np.asarray(items)[enough], table[enough]


def alpha(table: np.ndarray, level: str = "nominal", numbers: Sequence[float] = ()) -> float:
    """Krippendorff's alpha of a table items x values of votes, values in the order of their scale.

    `level` is nominal, ordinal or interval (`numbers` are then the values). NaN without two votes
    on one item, and where only one value occurs: there is nothing by which to judge.

    >>> round(alpha(np.array([[2, 0], [0, 2], [1, 1]])), 3)
    0.444
    """
    return float(_from_coincidences(_coincidences(table).sum(axis=0)[None], level, numbers)[0])


def bootstrap(
    table: np.ndarray,
    level: str = "nominal",
    numbers: Sequence[float] = (),
    clusters: Sequence[object] | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """A 95 % interval of alpha: percentiles over items, or `clusters` of them, drawn again.

    Draws are made over the different kinds of items, so that a million of them costs no more than
    the kinds there are. Draws in which only one value occurs do not count.
    """
    each = _coincidences(table).reshape(len(table), -1)
    if clusters is not None:
        each = pd.DataFrame(each).groupby(np.asarray(clusters)).sum().to_numpy()
    kinds, n_of_kind = np.unique(each.round(9), axis=0, return_counts=True)
    if n_of_kind.sum() < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).multinomial(
        n_of_kind.sum(), n_of_kind / n_of_kind.sum(), size=N_DRAWS
    )
    n_values = table.shape[1]
    found = _from_coincidences((drawn @ kinds).reshape(-1, n_values, n_values), level, numbers)
    found = found[~np.isnan(found)]
    if not len(found):
        return float("nan"), float("nan")
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def _coincidences(table: np.ndarray) -> np.ndarray:
    """For each item the weight of every ordered pair of values that two of its votes say."""
    table = np.asarray(table, dtype=float)
    pairs = table[:, :, None] * table[:, None, :]
    places = np.arange(table.shape[1])
    pairs[:, places, places] -= table
    return pairs / np.maximum(table.sum(axis=1) - 1, 1)[:, None, None]


def _from_coincidences(
    matrices: np.ndarray, level: str, numbers: Sequence[float] = ()
) -> np.ndarray:
    """Alpha of each matrix of coincidences."""
    marginals = matrices.sum(axis=2)
    total = marginals.sum(axis=1)
    distance = _distances(marginals, level, numbers)
    observed = (matrices * distance).sum(axis=(1, 2))
    expected = (marginals[:, :, None] * marginals[:, None, :] * distance).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 1 - (total - 1) * observed / expected
    return np.where(expected > 0, found, np.nan)


def _distances(marginals: np.ndarray, level: str, numbers: Sequence[float]) -> np.ndarray:
    """The squared distance between two values: 0 or 1, by ranks, or by numbers."""
    if level == "nominal":
        return 1 - np.eye(marginals.shape[1])[None]
    if level == "interval":
        line = np.asarray(numbers, dtype=float)
        return ((line[:, None] - line[None, :]) ** 2)[None]
    # Ranks: all that lies between two values, and half of each.
    middle = np.cumsum(marginals, axis=1) - marginals / 2
    return (middle[:, :, None] - middle[:, None, :]) ** 2
