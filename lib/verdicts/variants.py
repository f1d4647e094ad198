"""Variants: what is decided on an item when a single vote changes.

Decides by the real counts: items with the same votes are looked at once, and every pattern of votes
that one change can make is decided once by `consensus`. Decides nothing about verdicts.

One change is that of one answer on one field: to another allowed value, to an abstention, or from
an abstention to a value. An answer that no longer says `true` to a condition abstains on the fields
that need it, and it speaks on them only while it does. What people corrected, no vote can move.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib import consensus, weights
from lib.errors import AccountingError
from lib.fields import Field
from lib.study import Study

# A value is its place among the field's allowed ones, and true the first; others are no values.
OPEN = -1
_TRUE, _ABSTAINS, _OUTSIDE = 0, -1, -2
_SLOT = ["annotator", "repeat"]


class Patterns(NamedTuple):
    """Different patterns of votes, one a row: by field what each slot says, and what is decided.

    `held` marks the fields whose value people corrected.
    """

    said: list[np.ndarray]
    decided: np.ndarray
    held: np.ndarray


class Changes(NamedTuple):
    """Single changes of a pattern: whose vote, to what, and what is then decided."""

    pattern: np.ndarray
    field: np.ndarray
    slot: np.ndarray
    new: np.ndarray
    decided: np.ndarray


def patterns_of(
    votes: pd.DataFrame, decided: pd.DataFrame, fields: Mapping[str, Field], study: Study
) -> tuple[pd.Series, Patterns]:
    """The number of each item's pattern, and the patterns."""
    slots = pd.MultiIndex.from_frame(weights.weigh(study)[_SLOT])
    items = pd.Index(votes["item"].unique())
    said, final = [], []
    for name, field in fields.items():
        of_field = votes[votes["field"].eq(name)]
        spoken = of_field["value"].where(of_field["abstained"].isna())
        codes = of_field.assign(code=_codes(spoken, field))
        table = codes.pivot(index="item", columns=_SLOT, values="code")
        said.append(table.reindex(index=items, columns=slots).fillna(_ABSTAINS))
        rows = decided[decided["field"].eq(name)].set_index("item").reindex(items)
        value = np.where(
            rows["status"].eq("not_applicable"), _OUTSIDE, _codes(rows["value"], field)
        )
        held = rows["corrected"].eq(True) if "corrected" in rows else np.zeros(len(items), bool)
        final.append(np.column_stack([value, held]))
    whole = np.column_stack([*said, *final]).astype("int16")
    rows, where = np.unique(whole, axis=0, return_inverse=True)
    *said, final = np.split(rows, len(slots) * np.arange(1, len(fields) + 1), axis=1)
    patterns = Patterns(said, final[:, ::2], final[:, 1::2].astype(bool))
    return pd.Series(where.ravel(), index=items), patterns


def changes_of(patterns: Patterns, fields: Mapping[str, Field], study: Study) -> Changes:
    """Every change of one vote that changes what is decided on an item with that pattern.

    Raises AccountingError if the votes as they are do not give what is decided.
    """
    after = [_after(one, name, study) for name, one in zip(fields, patterns.said, strict=True)]
    here = np.arange(len(patterns.decided))
    now = [
        table[here, 0, one[:, 0] - _ABSTAINS]
        for table, one in zip(after, patterns.said, strict=True)
    ]
    now = np.column_stack(now)
    wrong = int((_settled(now, here, patterns, fields) != patterns.decided).any(axis=1).sum())
    if wrong:
        what = f"the votes of {wrong} of {len(here)} patterns decide otherwise than the consensus"
        what = f"{what}: they are of different runs. Run 05_aggregate_votes again."
        raise AccountingError(what, n_found=wrong, n_expected=0)
    parts = [_of_field(name, now, after, patterns, fields) for name in fields]
    return Changes(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def words(field: Field) -> np.ndarray:
    """The values by their codes; the codes below 0 stand at the end."""
    return np.array([*field.allowed, None, None], dtype=object)


def _of_field(
    name: str,
    now: np.ndarray,
    after: list[np.ndarray],
    patterns: Patterns,
    fields: Mapping[str, Field],
) -> Changes:
    """The changes of votes on one field; with a condition, votes on its fields fall silent too."""
    places = {field: place for place, field in enumerate(fields)}
    place, when = places[name], fields[name].when
    said, new = patterns.said[place], np.arange(_ABSTAINS, len(fields[name].allowed))
    possible = new != said[:, :, None]
    if when:
        possible &= (patterns.said[places[when]] == _TRUE)[:, :, None]
    pattern, slot, n_new = np.nonzero(possible)
    values, new = now[pattern], new[n_new]
    values[:, place] = after[place][pattern, slot, n_new]
    silent = (said[pattern, slot] == _TRUE) & (new != _TRUE)
    for other in (places[below] for below, field in fields.items() if field.when == name):
        values[silent, other] = after[other][pattern[silent], slot[silent], 0]
    values = _settled(values, pattern, patterns, fields)
    moved = (values != patterns.decided[pattern]).any(axis=1)
    whole = Changes(pattern, np.full(len(pattern), place), slot, new, values)
    return Changes(*(array[moved] for array in whole))


def _settled(
    values: np.ndarray, pattern: np.ndarray, patterns: Patterns, fields: Mapping[str, Field]
) -> np.ndarray:
    """What is decided when the votes alone give these values: corrections stay, conditions hold."""
    values = np.where(patterns.held[pattern], patterns.decided[pattern], values)
    names = list(fields)
    for place, field in enumerate(fields.values()):
        if field.when:
            applies = values[:, names.index(field.when)] == _TRUE
            values[:, place] = np.where(applies, values[:, place], _OUTSIDE)
    return values


def _after(said: np.ndarray, name: str, study: Study) -> np.ndarray:
    """What is decided on a field when one slot says something: by pattern, slot and value.

    The first value is an abstention, then the allowed ones follow in their order.
    """
    rows, where = np.unique(said, axis=0, return_inverse=True)
    new = np.arange(_ABSTAINS, len(study.fields[name].allowed))
    n_rows, n_slots = rows.shape
    varied = np.repeat(rows, n_slots * len(new), axis=0).reshape(n_rows, n_slots, len(new), -1)
    for slot in range(n_slots):
        varied[:, slot, :, slot] = new
    decided = _decided(varied.reshape(-1, n_slots), name, study)
    return decided.reshape(n_rows, n_slots, len(new))[where.ravel()]


def _decided(said: np.ndarray, name: str, study: Study) -> np.ndarray:
    """What the votes in each row decide on a field, each different row counted once."""
    slots, field = weights.weigh(study), study.fields[name]
    for annotator in study.annotators:
        mine = slots["annotator"].eq(annotator).to_numpy()
        said[:, mine] = np.sort(said[:, mine])  # repeats count alike, in any order
    rows, where = np.unique(said, axis=0, return_inverse=True)
    values = words(field)[rows.ravel()]
    items = [str(n) for n in range(len(rows))]
    table = pd.concat([slots[[*_SLOT, "model"]]] * len(rows), ignore_index=True)
    table = table.assign(item=np.repeat(items, len(slots)), field=name, value=values)
    table["abstained"] = np.where(table["value"].isna(), "missing", None)
    alone = {name: field.model_copy(update={"when": None})}
    decided = consensus.decide(
        table.assign(simulated=False), study.model_copy(update={"fields": alone})
    )
    return _codes(decided.set_index("item")["value"].reindex(items), field)[where.ravel()]


def _codes(values: pd.Series, field: Field) -> np.ndarray:
    return pd.Categorical(values, categories=field.allowed).codes.astype("int16")
