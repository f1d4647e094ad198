"""Decisive voting: the votes that settle most for least first, and others only where needed.

Decides the order in which the slots of the panel are asked, which requests may be asked now, and
what that saves. Whether an item is settled is for `bounds`, so the plan changes the price alone.

With all votes or without those that were never asked, these are the same: the status, value and
candidates of every field, the elected names of entity lists and which of them stay, and with them
the verdicts. These are not: shares, weights, margins (`bounds.margins` tells how small they could
be), numbers of votes and mentions, spellings, attributes and shares of names, and how many single
votes could flip a verdict. Statistics of agreement need whole panels: they rest on the pilot, whose
items are asked in full. All this holds for the weights, quorum, thresholds and preferences of the
study: with others, other votes matter, and asking again fetches those.
"""

from collections.abc import Collection, Mapping, Set

import numpy as np
import pandas as pd

from lib import consensus, weights
from lib.decisive import bounds, waves
from lib.study import Study

_RESULT = ["status", "value", "candidates"]


def due(
    requests: pd.DataFrame,
    votes: pd.DataFrame,
    finished: Collection[str],
    study: Study,
    plan: list[waves.Wave],
    pilot_items: Collection[str],
) -> pd.Series:
    """Which requests may be asked now, those that are finished among them.

    `votes` has rows for the finished slots alone. Items of the pilot: all. Others: every wave up to
    the first that is not finished, and nothing more once the item is settled.
    """
    finished = finished if isinstance(finished, Set) else set(finished)
    is_finished = np.fromiter(
        (key in finished for key in requests["key"].to_numpy(object)), bool, len(requests)
    )
    item, items, slot = bounds.places(requests, study)
    of_request = waves.numbers(plan, study)[slot]
    current = np.full(len(items), study.n_votes)
    np.minimum.at(current, item[~is_finished], of_request[~is_finished])
    said = bounds.read(votes, study)
    said = bounds.shown(said, np.flatnonzero(bounds.is_open(said)))
    is_over = np.zeros(len(items), dtype=bool)
    is_over[items.get_indexer(said.items[bounds.judge(said, study).settled])] = True
    is_pilot = items.isin(list(pilot_items))
    may = is_pilot[item] | (of_request <= current[item]) & ~is_over[item]
    return pd.Series(is_finished | may, index=requests.index)


def expected(
    study: Study,
    usd_of: Mapping[str, float],
    n_items: int,
    plan: list[waves.Wave],
    pilot: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What is expected to be asked of each annotator on `n_items`, and what all votes would be.

    The pilot's items, as many as the study says, are asked in full. Columns: annotator, n_requests,
    n_expected, all_usd, expected_usd.
    """
    sample = waves.sampled(study, pilot)
    n_pilot = min(n_items, study.voting.pilot)
    open_before = waves.open_after(waves.done_before(plan, study), sample, study)
    rows = []
    for name, one in study.annotators.items():
        n_asked = sum(
            share * sum(annotator == name for annotator, _ in wave)
            for share, wave in zip(open_before, plan, strict=True)
        )
        n = n_pilot * one.repeats + (n_items - n_pilot) * n_asked
        usd = usd_of[name]
        rows.append((name, n_items * one.repeats, n, n_items * one.repeats * usd, n * usd))
    names = ["annotator", "n_requests", "n_expected", "all_usd", "expected_usd"]
    return pd.DataFrame(rows, columns=names)


def replay(
    votes: pd.DataFrame,
    study: Study,
    usd_of: Mapping[str, float],
    pilot_items: Collection[str],
    plan: list[waves.Wave] | None = None,
) -> pd.DataFrame:
    """What decisive voting would have asked in a run that has all votes: a row a wave.

    Without a plan, it is chosen from the pilot. Columns: wave (0 is the pilot), asks, n_items (that
    are asked), n_requests, asked_usd, n_settled (items that need no more), n_unasked, unasked_usd
    (on those), n_changed (items whose result differs from that with all votes: 0).
    """
    in_pilot = votes["item"].isin(set(pilot_items))
    if plan is None:
        plan = waves.choose(study, usd_of, votes[in_pilot] if in_pilot.any() else None)
    said, usd = bounds.read(votes, study), _slot_usd(study, usd_of)
    left = np.flatnonzero(~said.items.isin(set(pilot_items)))
    asked = np.ones((len(said.items), study.n_votes), dtype=bool)
    last = np.zeros(len(asked), dtype="int64")
    n_pilot = len(asked) - len(left)
    rows = [(0, "all", n_pilot, n_pilot * study.n_votes, n_pilot * usd.sum(), n_pilot, 0, 0.0)]
    number = waves.numbers(plan, study)
    for n, wave in enumerate(plan, start=1):
        new, later = number == n - 1, number >= n
        seen = bounds.shown(said, left, np.tile(~later, (len(left), 1)))
        is_over = bounds.judge(seen, study).settled
        over = left[is_over]
        asked[over], last[over] = ~later, n
        spent = len(left), len(left) * int(new.sum()), len(left) * usd[new].sum()
        saved = len(over) * int(later.sum()), len(over) * usd[later].sum()
        rows.append((n, waves.described([wave]), *spent, len(over), *saved))
        left = left[~is_over]
    names = ["wave", "asks", "n_items", "n_requests", "asked_usd", "n_settled", "n_unasked"]
    table = pd.DataFrame(rows, columns=[*names, "unasked_usd"])
    is_changed = said.items.isin(_changed(votes, asked, study))
    return table.assign(n_changed=np.bincount(last[is_changed], minlength=len(table)))


def without(votes: pd.DataFrame, asked: np.ndarray, study: Study) -> pd.DataFrame:
    """All votes with those of slots that are not `asked` (items x slots) as abstentions."""
    row, _, column = bounds.places(votes, study)
    known = pd.Series(asked[row, column], index=votes.index)
    reasons = votes["abstained"].astype("string").where(known, bounds.SETTLED)
    return votes.assign(value=votes["value"].where(known, None), abstained=reasons)


def _changed(votes: pd.DataFrame, asked: np.ndarray, study: Study) -> set[str]:
    """The items that have another result without the votes that were not asked."""
    whole, part = (consensus.decide(some, study) for some in (votes, without(votes, asked, study)))
    results = [decided[_RESULT].astype("string").fillna("") for decided in (whole, part)]
    return set(whole.loc[results[0].ne(results[1]).any(axis=1), "item"])


def _slot_usd(study: Study, usd_of: Mapping[str, float]) -> np.ndarray:
    return weights.weigh(study)["annotator"].map(dict(usd_of)).to_numpy("float64")
