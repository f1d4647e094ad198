"""Overlaps: which of the elected names of an item stay when several claim the same words.

A name that stands in the text only inside longer elected names of its field competes with them
("Arthur" that is never without "King Arthur"): the higher share stays, the longer in an exact tie.
A name elected in several fields of an item stays where its share is highest; equal shares keep it
in all. What loses stays in the table and names its winner. `voting: {overlaps: keep}` in the study
switches both rules off.

Shares of one item and field have the same divisor, so that equal weights are equal floats.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib import words
from lib.entities import places
from lib.entities.places import Place
from lib.errors import AccountingError
from lib.study import Study


class Name(NamedTuple):
    """An elected name of an item."""

    field: str
    key: str
    share: float


class Fate(NamedTuple):
    """What becomes of an elected name: its status, who won, and where else it stays."""

    status: str = "elected"
    lost_to: str | None = None
    also_in: str | None = None


def settle(named: pd.DataFrame, documents: Path | pd.DataFrame, study: Study) -> pd.DataFrame:
    """The names of `elect` looked for in the texts, and overlaps settled.

    New columns: n_places (in the item's text; 0 says that the name is not there), lost_to (the name
    or field that won), also_in (fields that keep the name with an equal share); status may become
    overlap or other_field. Texts are streamed. Raises AccountingError for items without a text.
    """
    rows = named.groupby("item").indices
    fates: list[Fate | None] = [None] * len(named)
    n_places = np.full(len(named), -1)
    columns = [named[name].tolist() for name in ("field", "key", "share", "elected")]
    settles = study.voting.overlaps == "settle"
    for item, _, _, text in places.texts(documents) if rows else ():
        mine = [(n, *(column[n] for column in columns)) for n in rows.get(item, ())]
        found = places.find(text, {key for _, _, key, _, _ in mine})
        elected = [Name(*row[1:4]) for row in mine if row[4]]
        decided = fate(elected, found, settles=settles)
        for n, field, key, _, _ in mine:
            fates[n] = decided.get((field, key))
            n_places[n] = len(found[key])
    return _stated(named, fates, n_places)


def fate(
    names: Sequence[Name], found: Mapping[str, Sequence[Place]], *, settles: bool = True
) -> dict[tuple[str, str], Fate]:
    """What becomes of the elected names of one item, by field and key."""
    if not settles:
        return {(name.field, name.key): Fate() for name in names}
    by_field: dict[str, list[Name]] = defaultdict(list)
    for name in names:
        by_field[name.field].append(name)
    fates, kept = {}, defaultdict(list)
    for of_field in by_field.values():
        lost = _overlapped(of_field, found)
        for name in of_field:
            winner = lost.get(name.key)
            fates[name.field, name.key] = Fate("overlap", winner) if winner else Fate()
            if not winner:
                kept[name.key].append(name)
    for key, rivals in kept.items():
        fates.update({(name.field, key): one for name, one in _typed(rivals)})
    return fates


def _overlapped(names: Sequence[Name], found: Mapping[str, Sequence[Place]]) -> dict[str, str]:
    """The names of one field that lose, each with the name that wins over it."""
    holders = _holders({name.key: found[name.key] for name in names})
    kept: list[str] = []
    lost = {}
    for name in sorted(names, key=lambda one: (-one.share, -len(one.key), one.key)):
        mine = holders.get(name.key, set())
        winner = [key for key in kept if key in mine or name.key in holders.get(key, set())]
        if winner:
            lost[name.key] = winner[0]
        else:
            kept.append(name.key)
    return lost


def _holders(found: Mapping[str, Sequence[Place]]) -> dict[str, set[str]]:
    """For each name that stands nowhere outside of longer ones: the longer ones that hold it."""
    spans = [(start, -end, key) for key, some in found.items() for start, end in some]
    holders: dict[str, set[str]] = {key: set() for key, some in found.items() if some}
    open_spans: list[tuple[int, int, str]] = []
    for start, end, key in sorted(spans):
        open_spans = [one for one in open_spans if -one[1] > start]
        around = {one[2] for one in open_spans if one[1] <= end and one[:2] != (start, end)}
        if not around:
            holders.pop(key, None)
        elif key in holders:
            holders[key] |= around
        open_spans.append((start, end, key))
    return holders


def _typed(rivals: Sequence[Name]) -> Iterator[tuple[Name, Fate]]:
    """What becomes of one key in each of the fields that elected it."""
    most = max(name.share for name in rivals)
    winners = [name.field for name in rivals if name.share == most]
    for name in rivals:
        others = ", ".join(field for field in winners if field != name.field)
        if name.share < most:
            yield name, Fate("other_field", lost_to=others)
        else:
            yield name, Fate(also_in=others or None)


def _stated(
    named: pd.DataFrame, fates: Sequence[Fate | None], n_places: np.ndarray
) -> pd.DataFrame:
    """The table with what became of its names."""
    n_lost = int((n_places < 0).sum())
    if n_lost:
        items = named.loc[n_places < 0, "item"]
        lost = words.n_of(n_lost, "name stands", "names stand")
        what = f"{lost} on items that are not in documents, such as {items.iloc[0]!r}"
        raise AccountingError(f"{what}. Run 01_load_documents again, then 02.", n_missing=n_lost)
    before = named.get("lost_to", pd.Series(pd.NA, index=named.index)).tolist()
    lost_to = [one.lost_to if one else old for one, old in zip(fates, before, strict=True)]
    status = [one.status if one else old for one, old in zip(fates, named["status"], strict=True)]
    told = {
        "elected": np.array([word == "elected" for word in status], dtype=bool),
        "status": pd.array(status, dtype="string"),
        "lost_to": pd.array(lost_to, dtype="string"),
        "also_in": pd.array([one.also_in if one else None for one in fates], dtype="string"),
        "n_places": n_places.astype("int64"),
    }
    last = ["attributes", "simulated"]
    table = named.assign(**told)
    return table[sorted(table, key=lambda name: last.index(name) if name in last else -1)]
