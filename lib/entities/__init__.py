"""Entities: from the names in answers to elected names per item, and to an index of the corpus.

`elect` counts the votes for names, `settle` finds the names in the text and decides between those
that overlap, `contexts` keeps where they stand, `merge` joins equal names over the corpus, `score`,
`curve` and `tuned` measure them on gold. It refuses to take equal names for one being without a
trace: what lost, where it came from and what may be a duplicate stay in the tables.
"""

from lib.entities.electing import elect, listed, voted
from lib.entities.index import merge
from lib.entities.overlaps import settle
from lib.entities.places import contexts
from lib.entities.scores import score
from lib.entities.thresholds import advice, curve, tuned

__all__ = [
    "advice",
    "contexts",
    "curve",
    "elect",
    "listed",
    "merge",
    "score",
    "settle",
    "tuned",
    "voted",
]
