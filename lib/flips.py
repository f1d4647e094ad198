"""Flips: which single votes could change a verdict.

Decides by the real counts: every pattern of votes that one change can make is decided once by
`consensus`, and every change of a group's tally is judged once by `judging`. Changes nothing: a
fragile verdict is a reason to read an item again, not another verdict.

One change is that of one answer on one field: to another allowed value, to an abstention, or from
an abstention to a value. An answer that no longer says `true` to a condition abstains on the fields
that need it, and it speaks on them only while it does. What people corrected, no vote can move.
"""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib import consensus, judging, verdicts, weights
from lib.errors import AccountingError
from lib.fields import Field
from lib.policies import Policy
from lib.study import Study

COLUMNS = ["policy", "k", "group", "verdict", "new_verdict", "item", "field", "annotator"]
COLUMNS += ["repeat", "model", "value", "new_value", "simulated"]
_SLOT = ["annotator", "repeat"]
_VERDICT = ["policy", "k", "group", "verdict"]
# A value is its place among the field's allowed ones, and true the first; others are no values.
_TRUE, _ABSTAINS, _OPEN, _OUTSIDE = 0, -1, -1, -2


class _Patterns(NamedTuple):
    """Different patterns of votes, one a row: by field what each slot says, and what is decided.

    `held` marks the fields whose value people corrected.
    """

    said: list[np.ndarray]
    decided: np.ndarray
    held: np.ndarray


class _Changes(NamedTuple):
    """Single changes of a pattern: whose vote, to what, and what is then decided."""

    pattern: np.ndarray
    field: np.ndarray
    slot: np.ndarray
    new: np.ndarray
    decided: np.ndarray


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
    if not fields:
        return pd.DataFrame(columns=COLUMNS)
    items = verdicts.items_of(documents, decided)
    votes = pd.read_parquet(votes) if isinstance(votes, Path) else votes
    votes = votes[votes["field"].isin(used) & votes["item"].isin(items["item"])]
    ids, patterns = _patterns(votes, decided, fields, study)
    items["pattern"] = items["item"].map(ids)
    changes = _changes(patterns, fields, study)
    rows = []
    for policy in study.policies.values():
        lines, steps = _lines(policy, items, patterns, changes, fields)
        for sample in verdicts.samples(policy, items, groups, study.k):
            rows.append(_flipped(policy, sample, lines, steps))
    found = pd.concat(rows, ignore_index=True).astype({"k": "Int64"})
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


def _patterns(
    votes: pd.DataFrame, decided: pd.DataFrame, fields: Mapping[str, Field], study: Study
) -> tuple[pd.Series, _Patterns]:
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
    patterns = _Patterns(said, final[:, ::2], final[:, 1::2].astype(bool))
    return pd.Series(where.ravel(), index=items), patterns


def _changes(patterns: _Patterns, fields: Mapping[str, Field], study: Study) -> _Changes:
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
    return _Changes(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _of_field(
    name: str,
    now: np.ndarray,
    after: list[np.ndarray],
    patterns: _Patterns,
    fields: Mapping[str, Field],
) -> _Changes:
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
    whole = _Changes(pattern, np.full(len(pattern), place), slot, new, values)
    return _Changes(*(array[moved] for array in whole))


def _settled(
    values: np.ndarray, pattern: np.ndarray, patterns: _Patterns, fields: Mapping[str, Field]
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
    values = _values(field)[rows.ravel()]
    items = [str(n) for n in range(len(rows))]
    table = pd.concat([slots[[*_SLOT, "model"]]] * len(rows), ignore_index=True)
    table = table.assign(item=np.repeat(items, len(slots)), field=name, value=values)
    table["abstained"] = np.where(table["value"].isna(), "missing", None)
    alone = {name: field.model_copy(update={"when": None})}
    decided = consensus.decide(
        table.assign(simulated=False), study.model_copy(update={"fields": alone})
    )
    return _codes(decided.set_index("item")["value"].reindex(items), field)[where.ravel()]


def _lines(
    policy: Policy,
    items: pd.DataFrame,
    patterns: _Patterns,
    changes: _Changes,
    fields: Mapping[str, Field],
) -> tuple[pd.DataFrame, np.ndarray]:
    """The changes of each item that a policy could notice, and the different steps they make.

    Columns: place (of the item), change, step; a step is what is added to the number of decided
    items and to those that fit each condition.
    """
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
    return lines.sort_values(["place", "change"], ignore_index=True), steps


def _seen(policy: Policy, states: np.ndarray, fields: Mapping[str, Field]) -> np.ndarray:
    """Whether each state is decided, and whether it fits each condition of the policy."""
    values = {
        name: _values(field)[codes]
        for (name, field), codes in zip(fields.items(), states.T, strict=True)
    }
    known = [
        frozenset(name for name, code in zip(fields, row, strict=True) if code != _OPEN)
        for row in states
    ]
    table = verdicts.wide(pd.DataFrame(values, dtype=object), pd.Series(known, dtype=object))
    found = verdicts.marks(policy, table)
    places = [place for place, _ in judging.conditions(policy)]
    return np.column_stack([found["known"], *(found[place] for place in places)]).astype("int8")


def _flipped(
    policy: Policy, sample: verdicts.Sample, lines: pd.DataFrame, steps: np.ndarray
) -> pd.DataFrame:
    """The lines of a sample's items after which the policy says something else."""
    verdict, _, _ = judging.decide(policy, sample.tally, sample.limits)
    first, end = lines["place"].searchsorted([sample.start, sample.stop])
    lines = lines.iloc[first:end]
    shares = sample.marks.get("share", np.ones(sample.stop - sample.start, dtype="int8"))
    noticed = list(zip(lines["step"], shares[lines["place"] - sample.start], strict=True))
    new = {
        (step, share): judging.decide(
            policy, _moved(sample.tally, steps[step].tolist(), share), sample.limits
        )[0]
        for step, share in set(noticed)
    }
    lines = lines.assign(new_verdict=[new[one] for one in noticed])
    lines = lines[lines["new_verdict"].ne(verdict)]
    return lines.assign(policy=policy.id, k=sample.k, group=sample.group, verdict=verdict)


def _moved(tally: judging.Tally, step: list[int], share: Fraction | int) -> judging.Tally:
    known, *fits = step
    amounts = [n + int(one) * share for n, one in zip(tally.amounts, fits, strict=True)]
    return tally._replace(n_decided=tally.n_decided + known, amounts=tuple(amounts))


def _with_votes(
    found: pd.DataFrame,
    changes: _Changes,
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
    return found.merge(votes[columns], on=columns[:4], how="left")[COLUMNS]


def _values(field: Field) -> np.ndarray:
    """The values by their codes; the codes below 0 stand at the end."""
    return np.array([*field.allowed, None, None], dtype=object)


def _codes(values: pd.Series, field: Field) -> np.ndarray:
    return pd.Categorical(values, categories=field.allowed).codes.astype("int16")
