"""Choice among the values of a closed field, from evidence and noise.

Decides as a hurried reader does: what speaks most for a value wins, negation turns evidence round,
nothing found means the default. Refuses to look at names or schemas.
"""

from collections.abc import Collection, Sequence

from lib.local_api.annotators.noise import Noise
from lib.local_api.annotators.plan import Node
from lib.local_api.annotators.reading import Hit

PRIOR, _BOOLEAN_PRIOR = 0.4, 0.4
_REPEATED, _MOST = 0.3, 4.0
_TURNED, _DOUBTED = 0.5, 0.35
_NEAR, _FAR_SHARE = 30, 0.45
_QUIET = 0.3


def scores(
    node: Node, hits: Sequence[Hit], noise: Noise, near: Collection[int] = ()
) -> list[float]:
    """The evidence for each value of a closed field, noise included.

    `near` holds the word positions of what the field depends on: evidence far from all of them
    counts less.
    """
    found = [0.0] * len(node.values)
    is_boolean = isinstance(node.values[0], bool)
    seen: dict[int, int] = {}
    against = 0.0
    for hit in hits:
        if not noise.notices(hit.salt):
            continue
        weight = hit.weight * (_REPEATED ** seen.get(hit.salt, 0))
        seen[hit.salt] = seen.get(hit.salt, 0) + 1
        if near and all(abs(hit.position - place) > _NEAR for place in near):
            weight *= _FAR_SHARE
        if hit.negated and not node.is_topical and noise.notices(hit.salt + 1):
            against += weight * _TURNED
            weight *= _DOUBTED if is_boolean else -_DOUBTED
        found[hit.value] += weight
    return _noisy(node, found, against, is_boolean, noise)


def _noisy(
    node: Node, found: list[float], against: float, is_boolean: bool, noise: Noise
) -> list[float]:
    """Evidence plus the default's lead plus noise, which grows where there is evidence."""
    told = min(1.0, sum(map(abs, found)))
    spread = noise.skill.spread * (_QUIET + (1 - _QUIET) * told)
    totals = [
        min(one, _MOST) + spread * noise.z(node.salt + place) for place, one in enumerate(found)
    ]
    if node.default is not None:
        totals[node.default] += (_BOOLEAN_PRIOR if is_boolean else PRIOR) + against
    return totals


def choice(totals: Sequence[float]) -> int:
    """The place of the highest total; the first one of equals."""
    return max(range(len(totals)), key=lambda place: (totals[place], -place))
