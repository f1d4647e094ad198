"""Contests: names of an item that compete for the same words, and whether it is clear who stays.

`entities.settle` compares shares of elected names: of a name that stands inside a longer one of its
field the higher share stays (the longer, if equal), and a name of two fields stays where its share
is higher (in both, if equal). Decides whether open votes can turn such a comparison. Texts are not
read: every name whose letters stand in another's counts as inside it, which is careful, not exact.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

# Two names, each as field and the slots that list it; of one field, the first wins if equal.
Contest = tuple[str, int, str, int]
Shares = Mapping[int, tuple[float, float]]


def found(keys: Mapping[str, Mapping[str, int]]) -> frozenset[Contest]:
    """The contests of an item, from the slots that list each key of each field, as bits.

    >>> sorted(found({"people": {"arthur": 1, "king arthur": 3}, "places": {"arthur": 2}}))
    [('people', 1, 'places', 2), ('people', 3, 'people', 1)]
    """
    contests: set[Contest] = set()
    for name, mine in keys.items():
        contests |= {(name, mine[one], name, mine[other]) for one, other in _inside(mine)}
    for (name, mine), (other, others) in itertools.combinations(keys.items(), 2):
        contests |= {(name, mine[key], other, others[key]) for key in mine.keys() & others.keys()}
    return frozenset(contests)


def seen(contests: frozenset[Contest], slots: int) -> frozenset[Contest]:
    """The contests as some slots show them; names that none of these lists are unknown."""
    fewer = ((one, a & slots, other, b & slots) for one, a, other, b in contests)
    return frozenset(contest for contest in fewer if contest[1] and contest[3])


def steady(contests: frozenset[Contest], shares: Mapping[str, Shares]) -> bool:
    """Whether no open vote changes who wins, by the least and the largest share of each elected
    name; a name that is not elected competes with none.
    """
    for one, a, other, b in contests:
        if a in shares[one] and b in shares[other]:
            (low, high), (low_b, high_b) = shares[one][a], shares[other][b]
            wins = low >= high_b if one == other else low > high_b
            if not (wins or high < low_b or low == high == low_b == high_b):
                return False
    return True


def _inside(keys: Sequence[str] | Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Longer keys with the shorter ones whose letters they hold."""
    order = sorted(keys, key=lambda key: (-len(key), key))
    letters = ["".join(key.split()) for key in order]
    for n, m in itertools.combinations(range(len(order)), 2):
        if letters[m] in letters[n]:
            yield order[n], order[m]
