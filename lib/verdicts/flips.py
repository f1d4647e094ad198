"""Flips: which single votes could change a verdict.

Decides by the real rules: each different step that one changed vote makes in a group's tally is
judged once by `judging`. Changes nothing: a fragile verdict is a reason to read an item again, not
another verdict. What counts as one change is said in `variants`.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib import verdicts, weights, words
from lib.fields import Field
from lib.policies import Policy
from lib.study import Study
from lib.verdicts import judging, variants

COLUMNS = ["policy", "k", "group", "verdict", "new_verdict", "item", "field", "annotator"]
COLUMNS += ["repeat", "model", "value", "new_value", "simulated"]
_SLOT = ["annotator", "repeat"]
_VERDICT = ["policy", "k", "group", "verdict"]


class _Lines(NamedTuple):
    """Changes of votes by the place of their item, and which of the different steps each makes.

    A step is what is added to the number of decided items and to those that fit each condition.
    """

    place: np.ndarray
    change: np.ndarray
    step: np.ndarray
    steps: list[list[int]]


def find(
    votes: Path | pd.DataFrame,
    decided: pd.DataFrame,
    documents: pd.DataFrame,
    groups: pd.DataFrame,
    study: Study,
) -> pd.DataFrame:
    """One row for each change of a vote that gives another verdict, by policy, K and group.

    `value` is what the vote says and `new_value` what would flip it; null is an abstention.
    `decided` is the consensus on these votes, corrections applied. Raises AccountingError if it is
    that on other votes, and StudyError as `verdicts.reach` does.
    """
    used = {name for policy in study.policies.values() for name in policy.uses}
    fields = {name: field for name, field in study.fields.items() if name in used}
    items = verdicts.items_of(documents, decided)
    votes = pd.read_parquet(votes) if isinstance(votes, Path) else votes
    votes = votes[votes["field"].isin(used) & votes["item"].isin(items["item"])]
    if votes.empty:
        return pd.DataFrame(columns=COLUMNS)
    ids, patterns = variants.patterns_of(votes, decided, fields, study)
    items["pattern"] = items["item"].map(ids)
    changes = variants.changes_of(patterns, fields, study)
    rows = []
    for policy in study.policies.values():
        lines = _lines(policy, items, patterns, changes, fields)
        for sample in verdicts.samples(policy, items, groups, study.k):
            rows += _flipped(policy, sample, lines)
    found = pd.DataFrame(rows, columns=[*_VERDICT, "new_verdict", "place", "change"])
    found = found.astype({"place": "int64", "change": "int64"})
    return _with_votes(found, changes, items, votes, fields, study)


def fragile(found: pd.DataFrame, reached: pd.DataFrame) -> pd.DataFrame:
    """The verdicts with the number of single votes that could flip each; the most fragile first.

    Columns: policy, k, group, verdict, n_flips, n_items_to_read (those of the votes), could_become.
    """
    votes = found.drop_duplicates([*_VERDICT, "item", "field", *_SLOT])
    counts = votes.groupby(_VERDICT, dropna=False).agg(
        n_flips=("item", "size"), n_items_to_read=("item", "nunique")
    )
    others = found.groupby(_VERDICT, dropna=False)["new_verdict"]
    counts["could_become"] = others.agg(lambda new: ", ".join(sorted(set(new))))
    table = reached[_VERDICT].merge(counts.reset_index(), on=_VERDICT, how="left")
    table = table.fillna({"n_flips": 0, "n_items_to_read": 0, "could_become": ""})
    table = table.astype({"n_flips": "int64", "n_items_to_read": "int64"})
    return table.sort_values("n_flips", ascending=False, kind="stable", ignore_index=True)


def sentence(fragile: pd.DataFrame) -> str:
    """How many verdicts could be flipped by one vote, from the table of `fragile`."""
    if fragile.empty:
        return "No policies: no verdict that a vote could flip."
    n_fragile = int(fragile["n_flips"].gt(0).sum())
    return f"{n_fragile:,} of {words.n_of(len(fragile), 'verdict')} could be flipped by one vote"


def _lines(
    policy: Policy,
    items: pd.DataFrame,
    patterns: variants.Patterns,
    changes: variants.Changes,
    fields: Mapping[str, Field],
) -> _Lines:
    """The changes of each item that a policy can notice, in the order of the items."""
    both = np.concatenate([patterns.decided, changes.decided])
    states, where = np.unique(both, axis=0, return_inverse=True)
    seen = _seen(policy, states, fields)[where.ravel()]
    moves = seen[len(patterns.decided) :] - seen[changes.pattern]
    change = np.flatnonzero(moves.any(axis=1))
    steps, step = np.unique(moves[change], axis=0, return_inverse=True)
    lines = pd.DataFrame(
        {"pattern": changes.pattern[change], "change": change, "step": step.ravel()}
    )
    lines = items[["pattern"]].reset_index(names="place").merge(lines, on="pattern")
    lines = lines.sort_values(["place", "change"])
    return _Lines(*(lines[name].to_numpy() for name in _Lines._fields[:3]), steps.tolist())


def _seen(policy: Policy, states: np.ndarray, fields: Mapping[str, Field]) -> np.ndarray:
    """Whether each state is decided, and whether it fits each condition of the policy."""
    values = {
        name: variants.words(field)[codes]
        for (name, field), codes in zip(fields.items(), states.T, strict=True)
    }
    known = [
        frozenset(name for name, code in zip(fields, row, strict=True) if code != variants.OPEN)
        for row in states
    ]
    table = verdicts.wide(pd.DataFrame(values, dtype=object), pd.Series(known, dtype=object))
    found = verdicts.marks(policy, table)
    places = [place for place, _ in judging.conditions(policy)]
    return np.column_stack([found["known"], *(found[place] for place in places)]).astype("int8")


def _flipped(policy: Policy, sample: verdicts.Sample, lines: _Lines) -> Iterator[tuple]:
    """The changes in a sample after which the policy says something else."""
    verdict, _, _ = judging.decide(policy, sample.tally, sample.limits)
    here = slice(*lines.place.searchsorted([sample.start, sample.stop]))
    places, steps, shares = lines.place[here], lines.step[here], sample.marks.get("share")
    shares = [1] * len(places) if shares is None else shares[places - sample.start]
    noticed = list(zip(steps.tolist(), shares, strict=True))
    new = {one: _moved(sample.tally, lines.steps[one[0]], one[1]) for one in set(noticed)}
    new = {one: judging.decide(policy, tally, sample.limits)[0] for one, tally in new.items()}
    for one, place, change in zip(noticed, places, lines.change[here], strict=True):
        if new[one] != verdict:
            yield policy.id, sample.k, sample.group, verdict, new[one], place, change


def _moved(tally: judging.Tally, step: list[int], share: Fraction | int) -> judging.Tally:
    known, *fits = step
    amounts = [n + one * share for n, one in zip(tally.amounts, fits, strict=True)]
    return tally._replace(n_decided=tally.n_decided + known, amounts=tuple(amounts))


def _with_votes(
    found: pd.DataFrame,
    changes: variants.Changes,
    items: pd.DataFrame,
    votes: pd.DataFrame,
    fields: Mapping[str, Field],
    study: Study,
) -> pd.DataFrame:
    """The flips with the votes that they change, as people read them."""
    slots = weights.weigh(study)[_SLOT]
    slots = slots.iloc[changes.slot[found["change"]]].reset_index(drop=True)
    place, new = changes.field[found["change"]], changes.new[found["change"]]
    words = [[*field.allowed, None] for field in fields.values()]
    found = found.assign(
        item=items["item"].to_numpy()[found["place"]],
        field=np.array(list(fields), dtype=object)[place],
        new_value=[words[n][code] for n, code in zip(place, new, strict=True)],
        annotator=slots["annotator"],
        repeat=slots["repeat"],
    )
    columns = ["item", "field", *_SLOT, "model", "value", "simulated"]
    found = found.merge(votes[columns], on=columns[:4], how="left")[COLUMNS]
    return found.astype({"k": "Int64", "field": "str", "value": "str", "new_value": "str"})
