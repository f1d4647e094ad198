"""Bounds: which results no vote that is still open can change, and how small a margin may become.

Decides by the real counts of `consensus`, and exactly: what is not settled, some answers would
change. A result is the status, the value and the candidates of a field; for an entity list the set
of elected keys. Refuses to settle by what is likely.

Answers to the open slots can be anything, yet a few extremes bound them all: all open slots
abstain, or all say the same value. For the leader and any other value v, an annotator's part of the
difference between their weights is smallest when all its open slots say v: with n answers, their
difference d and k more for v it is units x (d - k) / (n + k), which falls with k, and with a weight
for each repeat units x (d - k). So a leader that wins against each v when all open slots say v wins
always, and every extreme is itself possible. The weight that answered is least when all abstain and
most when none does. For entity lists, weight of a key - threshold x answered weight is likewise
least when all open slots list nothing, and most when they list every key and a new one. Numbers and
texts are open sets: one more vote may be a new one, so only a quorum out of reach settles them.
Names that compete for the same words must keep their order as well (`contests`).
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import orjson
import pandas as pd

from lib import consensus, weights
from lib.decisive import contests
from lib.fields import Field
from lib.study import Study

SETTLED = "settled"  # the reason of abstention of a slot that was never asked
_OPEN, _ABSTAINS, _SAID, _NOTHING, _ALL = -2, -1, 0, 1, 2
_NEW_KEY = " "  # no name has a key that is blank


class Said(NamedTuple):
    """What each slot said on each item, by field: the place of a value, or how it is none.

    `named` has for each entity field and item which slots list each of its keys, as bits, and
    `contests` which of them compete.
    """

    items: pd.Index
    codes: dict[str, np.ndarray]
    named: dict[str, np.ndarray]
    contests: np.ndarray


class Judged(NamedTuple):
    """By item whether each field is settled, and by field the margins, null where not settled."""

    settled: np.ndarray
    margin_low: dict[str, np.ndarray]


def settled(votes: pd.DataFrame, study: Study) -> set[str]:
    """The items on which no answer to an open slot can change the result of any field.

    A slot is open that has no rows in `votes` (item, field, annotator, repeat, value, abstained),
    or whose votes are abstentions as `settled`.
    """
    said = read(votes, study)
    return set(said.items[judge(said, study).settled])


def margins(votes: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The smallest margin that answers to the open slots could leave: item, field, margin_low.

    Margins are (leader - runner-up) / planned. Null where the result is not settled, and for
    numbers, texts and entity lists, which have no leader. Open slots are those of `settled`.
    """
    said = read(votes, study)
    low = judge(said, study).margin_low
    parts = [
        pd.DataFrame({"item": said.items, "field": name, "margin_low": values})
        for name, values in low.items()
    ]
    return pd.concat(parts, ignore_index=True)


def read(votes: pd.DataFrame, study: Study) -> Said:
    """The votes as tables of codes, a row an item and a column a slot of the panel."""
    votes = votes[votes["abstained"].ne(SETTLED).fillna(True).to_numpy(bool)]
    row, items, column = places(votes, study)
    n_slots = study.n_votes
    field, names = pd.factorize(votes["field"])
    codes, keys = {}, {}
    for name, one in study.fields.items():
        mine = np.flatnonzero(field == names.get_indexer([name])[0])
        where = row[mine], column[mine]
        said = votes["value"].iloc[mine].where(votes["abstained"].iloc[mine].isna())
        codes[name] = np.full((len(items), n_slots), _OPEN, dtype="int16")
        codes[name][where] = _codes(said, one)
        if one.type == "entities":
            keys[name] = _keys(said, *where, len(items))
    named = {name: _array(frozenset(one.values()) for one in some) for name, some in keys.items()}
    competing = _array([frozenset()] * len(items))
    if keys and study.voting.overlaps == "settle":
        for item in range(len(items)):
            competing[item] = contests.found({name: some[item] for name, some in keys.items()})
    return Said(items, codes, named, competing)


def places(votes: pd.DataFrame, study: Study) -> tuple[np.ndarray, pd.Index, np.ndarray]:
    """Where each vote stands: the number of its item, the items, and its slot's place in the panel.

    Requests have places as well.
    """
    row, items = pd.factorize(votes["item"])
    annotator, names = pd.factorize(votes["annotator"])
    slots = pd.MultiIndex.from_frame(weights.weigh(study)[["annotator", "repeat"]])
    first = np.array([slots.get_loc((name, 0)) for name in names], dtype="int64")
    return row, pd.Index(items), first[annotator] + votes["repeat"].to_numpy("int64")


def is_open(said: Said) -> np.ndarray:
    """By item whether some slot is open."""
    return (next(iter(said.codes.values())) == _OPEN).any(axis=1)


def shown(said: Said, rows: np.ndarray, slots: np.ndarray | None = None) -> Said:
    """The items of these rows; with `slots`, all others than those true for an item are open."""
    codes = {name: codes[rows] for name, codes in said.codes.items()}
    named = {name: keys[rows] for name, keys in said.named.items()}
    some = Said(said.items[rows], codes, named, said.contests[rows])
    if slots is None:
        return some
    codes = {name: np.where(slots, codes, _OPEN) for name, codes in codes.items()}
    if not named:
        return some._replace(codes=codes)
    bits = [sum(1 << int(n) for n in np.flatnonzero(row)) for row in slots]
    for name, keys in named.items():
        pairs = zip(keys, bits, strict=True)
        named[name] = _array(frozenset(key & bit for key in one) - {0} for one, bit in pairs)
    competing = map(contests.seen, some.contests, bits)
    return Said(some.items, codes, named, _array(competing))


def judge(said: Said, study: Study) -> Judged:
    """What is settled: each field for itself, and the fields that it is the condition of.

    A field whose condition is settled and not true does not apply, whatever is said on it.
    """
    settled, is_true, low = {}, {}, {}
    for name in study.fields:
        settled[name], is_true[name], low[name] = _of_field(said, name, study)
    for name, field in study.fields.items():
        if field.when:
            outside = settled[field.when] & ~is_true[field.when]
            low[name] = np.where(outside | ~settled[field.when], np.nan, low[name])
            settled[name] = settled[name] | outside
    is_settled = np.logical_and.reduce(list(settled.values()))
    unclear = is_settled & is_open(said) & said.contests.astype(bool)
    is_settled[unclear] = _steady(shown(said, np.flatnonzero(unclear)), study)
    return Judged(is_settled, low)


def _steady(said: Said, study: Study) -> list[bool]:
    """Whether the contests of each item have one end, whatever the open slots say."""
    by_field = [_shares(said, name, study) for name in said.named]
    return [
        contests.steady(one, dict(zip(said.named, shares, strict=True)))
        for one, *shares in zip(said.contests, *by_field, strict=True)
    ]


def _codes(said: pd.Series, field: Field) -> np.ndarray:
    if field.allowed:
        return pd.Categorical(said, categories=field.allowed).codes.astype("int16")
    return np.where(said.isna(), _ABSTAINS, _SAID)


def _array(values: Iterable[frozenset]) -> np.ndarray:
    values = list(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _keys(
    said: pd.Series, row: np.ndarray, column: np.ndarray, n_items: int
) -> list[dict[str, int]]:
    """By item, the slots that list each of its keys, as bits."""
    keys: list[dict[str, int]] = [defaultdict(int) for _ in range(n_items)]
    for item, slot, value in zip(row, column, said, strict=True):
        for key in orjson.loads(value) if isinstance(value, str) else []:
            keys[item][key] |= 1 << int(slot)
    return keys


def _of_field(said: Said, name: str, study: Study) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By item: whether the field is settled for itself, is `true`, and its smallest margin."""
    table, only, where = _extremes(said, name, study)
    decided = consensus.decide(table, only)
    n_cases = len(_cases(study.fields[name]))
    result = (decided[one].astype("string").fillna("") for one in ("status", "value", "candidates"))
    number = _grouped(result, len(decided))[1].reshape(-1, n_cases)
    same = (number == number[:, :1]).all(axis=1)
    is_true = decided["status"].eq("decided") & decided["value"].eq("true")
    margin = decided["margin"].to_numpy("float64", na_value=np.nan).reshape(-1, n_cases)
    is_closed = bool(study.fields[name].allowed)
    low = np.where(same & is_closed, np.fmin.reduce(margin, axis=1), np.nan)
    return same[where], is_true.to_numpy(bool)[::n_cases][where], low[where]


def _shares(said: Said, name: str, study: Study) -> list[contests.Shares]:
    """By item the least and the largest share that each of its elected keys can have."""
    table, only, where = _extremes(said, name, study)
    named, n = consensus.elected(table, only), len(_cases(study.fields[name]))
    share = dict(zip(zip(named["item"], named["key"], strict=True), named["share"], strict=True))
    elected = named[named["elected"] & named["item"].mod(n).eq(0)]
    found: dict[int, dict[int, tuple[float, float]]] = defaultdict(dict)
    for item, key in zip(elected["item"], elected["key"], strict=True):
        bounds = share.get((item + 1, key), 0.0), share[item + 2, key]
        found[item // n][int(key[1:])] = bounds
    return [found[pattern] for pattern in where]


def _extremes(said: Said, name: str, study: Study) -> tuple[pd.DataFrame, Study, np.ndarray]:
    """Votes for each extreme of each pattern on a field, a study that asks nothing else, and the
    pattern of each item. Keys that the same slots list are elected alike, so they are one.
    """
    codes, field, named = said.codes[name], study.fields[name], said.named.get(name)
    columns = codes.T if named is None else [*codes.T, pd.factorize(named)[0]]
    first, where = _grouped(columns, len(codes))
    patterns = codes[first][:, None]
    whole = np.where(patterns == _OPEN, np.array(_cases(field))[:, None], patterns)
    values = _values(whole, field, None if named is None else named[first])
    is_open_set = field.type in ("integer", "number", "text")
    alone = field.model_copy(update={"when": None} | ({"type": "text"} if is_open_set else {}))
    only = study.model_copy(update={"fields": {name: alone}})
    return _table(values.reshape(-1, study.n_votes), name, study), only, where


def _grouped(columns: Iterable[np.ndarray], n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The first of each kind of equal rows, and the kind of every row."""
    where = np.zeros(n_rows, dtype="int64")
    for column in columns:
        codes, known = pd.factorize(column)
        where = pd.factorize(where * len(known) + codes)[0]
    return np.unique(where, return_index=True)[1], where


def _cases(field: Field) -> list[int]:
    """What all open slots say in each extreme."""
    if field.type == "entities":
        return [_ABSTAINS, _NOTHING, _ALL]
    return [_ABSTAINS, *range(len(field.allowed))] if field.allowed else [_ABSTAINS, _NOTHING]


def _values(whole: np.ndarray, field: Field, named: np.ndarray | None) -> np.ndarray:
    """The codes as votes; of an open set only whether they differ matters."""
    if named is None:
        words = np.array([*(field.allowed or ["said", "new"]), None], dtype=object)
        return words[whole]
    values = np.full(whole.shape, None, dtype=object)
    for pattern, one in enumerate(named):
        keys = {f"k{slots}": slots for slots in one}
        values[pattern][whole[pattern] == _NOTHING] = "[]"
        values[pattern][whole[pattern] == _ALL] = json.dumps([*keys, _NEW_KEY])
        for case, slot in np.argwhere(whole[pattern] == _SAID):
            listed = [name for name, slots in keys.items() if slots >> int(slot) & 1]
            values[pattern, case, slot] = json.dumps(listed)
    return values


def _table(values: np.ndarray, name: str, study: Study) -> pd.DataFrame:
    """Each row as the votes on an item, by its number."""
    slots, said = weights.weigh(study), pd.array(values.ravel(), dtype="string")
    columns = {
        "item": np.repeat(np.arange(len(values)), len(slots)),
        "field": name,
        "annotator": np.tile(slots["annotator"], len(values)),
        "repeat": np.tile(slots["repeat"], len(values)),
        "value": said,
        "abstained": pd.array(np.where(said.isna(), SETTLED, None), dtype="string"),
        "simulated": False,
    }
    return pd.DataFrame(columns)
