"""Decisive voting: asks first for the votes that settle most for least, and for others where needed.

Decides the order in which the slots of the panel are asked, which requests may be asked now, and
what that saves. Whether an item is settled is for `bounds`, so the plan changes the price alone.

With all votes or without those that were never asked, these are the same: the status, value and
candidates of every field, the elected keys of entity lists, and with them the verdicts. These are
not: shares, weights, margins (`bounds.margins` tells how small they could be), numbers of votes and
mentions, spellings, attributes and shares of entities, the spread of numbers. Statistics of
agreement need whole panels: they rest on the pilot, whose items are asked in full.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pandas as pd

from lib import bounds, consensus, weights
from lib.study import Study

Wave = list[tuple[str, int]]
# A wave takes up to a day: it must be worth this share of the price of all votes.
WORTH_OF_A_WAVE = 0.01
_WIDTH = 100  # sets of slots of one size that the search keeps; all of them for up to 8 models
# Without a pilot: how often two models, and two repeats of a model, say the same.
PRIOR_OF_MODELS, PRIOR_OF_REPEATS, _N_PRIOR = 0.8, 0.9, 200


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
    slots = pd.MultiIndex.from_frame(weights.weigh(study)[["annotator", "repeat"]])
    wave = pd.Series({slot: n for n, one in enumerate(plan) for slot in one}).reindex(slots)
    of_request = wave.to_numpy()[
        slots.get_indexer(pd.MultiIndex.from_frame(requests[["annotator", "repeat"]]))
    ]
    is_finished = requests["key"].isin(finished).to_numpy()
    item, items = pd.factorize(requests["item"])
    current = np.full(len(items), np.inf)
    np.minimum.at(current, item[~is_finished], of_request[~is_finished])
    is_open = np.isfinite(current)[item]
    some = np.bincount(item, is_finished, len(items)) > 0
    undecided = set(items[some & np.isfinite(current)]) - set(pilot_items)
    settled = bounds.settled(votes[votes["item"].isin(undecided)], study)
    asked = is_open & (of_request <= current[item]) & ~np.asarray(items.isin(settled))[item]
    is_pilot = np.asarray(items.isin(set(pilot_items)))[item]
    return pd.Series(is_finished | is_pilot | asked, index=requests.index)


def expected(
    study: Study,
    usd_of: Mapping[str, float],
    n_items: int,
    plan: list[waves.Wave],
    pilot: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What is expected to be asked of each annotator on `n_items`, with and without decisive voting.

    The pilot's items, as many as the study says, are asked in full. Columns: annotator, n_requests,
    n_expected, usd_all, usd_expected.
    """
    sample = waves.sampled(study, pilot)
    n_pilot = min(n_items, getattr(study.voting, "pilot", 0))
    open_before = waves.unsettled(waves.done_before(plan, study), sample, study)
    rows = []
    for name, one in study.annotators.items():
        n_asked = sum(
            share * sum(annotator == name for annotator, _ in wave)
            for share, wave in zip(open_before, plan, strict=True)
        )
        n = n_pilot * one.repeats + (n_items - n_pilot) * n_asked
        usd = usd_of[name]
        rows.append((name, n_items * one.repeats, n, n_items * one.repeats * usd, n * usd))
    names = ["annotator", "n_requests", "n_expected", "usd_all", "usd_expected"]
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
    are asked), n_requests, usd, n_settled (items that need nothing more), n_unasked and usd_unasked
    (on those), n_changed (items whose result differs from that with all votes: 0).
    """
    in_pilot = votes["item"].isin(set(pilot_items))
    if plan is None:
        plan = waves.choose(study, usd_of, votes[in_pilot] if in_pilot.any() else None)
    said = bounds.read(votes, study)
    usd, rows = _slot_usd(study, usd_of), []
    left = np.flatnonzero(~said.items.isin(set(pilot_items)))
    last = np.ones((len(said.items), study.n_votes), dtype=bool)
    n_pilot = len(last) - len(left)
    rows.append((0, "all", n_pilot, n_pilot * study.n_votes, n_pilot * usd.sum(), n_pilot, 0, 0.0))
    done = [*waves.done_before(plan, study)[1:], np.ones(study.n_votes, dtype=bool)]
    before = np.zeros(study.n_votes, dtype=bool)
    for n, (wave, slots) in enumerate(zip(plan, done, strict=True), start=1):
        new = slots & ~before
        here = bounds.shown(said, left, np.tile(slots, (len(left), 1)))
        is_settled = bounds.judge(here, study).settled
        over = left[is_settled]
        last[over] = slots
        asked = len(left), len(left) * int(new.sum()), len(left) * usd[new].sum()
        unasked = len(over) * int((~slots).sum()), len(over) * usd[~slots].sum()
        rows.append((n, waves.described([wave]), *asked, len(over), *unasked))
        left, before = left[~is_settled], slots
    names = ["wave", "asks", "n_items", "n_requests", "usd", "n_settled", "n_unasked"]
    table = pd.DataFrame(rows, columns=[*names, "usd_unasked"])
    table["n_changed"] = 0
    return table


def _slot_usd(study: Study, usd_of: Mapping[str, float]) -> np.ndarray:
    return weights.weigh(study)["annotator"].map(dict(usd_of)).to_numpy("float64")


