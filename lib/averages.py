"""Averages: the consensus on a number is the mean or the median of its votes, exactly.

Decides nothing about quorum; a number has no share, no margin and no tie.
"""

import itertools
from collections.abc import Iterable, Mapping
from fractions import Fraction

import numpy as np
import pandas as pd

from lib import votes as ballots
from lib.fields import Field


def averaged(
    table: pd.DataFrame, numbers: pd.DataFrame, fields: Mapping[str, Field]
) -> pd.DataFrame:
    """The consensus with the mean or median of votes on numbers, and their spread.

    `numbers` has item, field, number and w (whole units of weight), a row a value.
    """
    found = [
        (item, name, centre(one["number"], one["w"], fields[name].combine), np.ptp(one["number"]))
        for (item, name), one in numbers.groupby(["item", "field"])
    ]
    averages = pd.DataFrame(found, columns=["item", "field", "centre", "spread"])
    texts = dict.fromkeys(["item", "field", "centre"], "string")
    averages = averages.astype({**texts, "spread": "float64"})
    table = table.drop(columns="spread").merge(averages, on=["item", "field"], how="left")
    is_number, decided = table["kind"].eq("number"), table["status"].eq("decided")
    value = table["value"].mask(is_number, table["centre"].where(decided))
    plain = {name: table[name].mask(is_number) for name in ("share", "margin")}
    return table.assign(value=value, **plain)


def centre(numbers: Iterable[float], units: Iterable[int], combine: str) -> str:
    """The weighted mean or median, exact until it is written.

    The median of an even split is the middle between its two sides.

    >>> centre([1, 2, 6], [1, 1, 1], "mean"), centre([1, 2, 6], [1, 1, 2], "median")
    ('3', '4')
    """
    pairs = sorted(zip(map(Fraction, numbers), map(int, units), strict=True))
    total = sum(unit for _, unit in pairs)
    if combine == "mean":
        return ballots.number(float(sum(value * unit for value, unit in pairs) / total))
    below = list(itertools.accumulate(unit for _, unit in pairs))
    low = next(n for n, up_to in enumerate(below) if 2 * up_to >= total)
    high = next(n for n, up_to in enumerate(below) if 2 * up_to > total)
    return ballots.number(float((pairs[low][0] + pairs[high][0]) / 2))
