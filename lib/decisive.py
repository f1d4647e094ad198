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
    plan: list[Wave],
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


def waves(
    study: Study, usd_of: Mapping[str, float], pilot: pd.DataFrame | None = None
) -> list[Wave]:
    """The plan: slots (annotator, repeat) in waves, by the least expected price; see `plans`."""
    table = plans(study, usd_of, pilot)
    return table.loc[table["is_chosen"], "plan"].iloc[0]


def plans(
    study: Study, usd_of: Mapping[str, float], pilot: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The cheapest plan for each number of waves, and which one is chosen.

    `usd_of` is the price of one request of each annotator; where all are free, requests count.
    `pilot` has all votes on some items; without it, items are drawn on which two models agree as
    often as PRIOR_OF_MODELS and two repeats as PRIOR_OF_REPEATS. A further wave must save
    WORTH_OF_A_WAVE. Columns: n_waves, asks (in words), usd_per_item, n_requests_per_item,
    share_of_usd (of all votes), is_chosen, plan.
    """
    sample = bounds.read(_drawn(study) if pilot is None else pilot, study)
    prices = _prices(study, usd_of)
    counts, unsettled = _searched(study, prices, sample)
    rows = []
    for path in _shortest(counts, unsettled, prices):
        steps = np.diff(counts[path], axis=0)
        spent, plan = unsettled[path[:-1]] @ (steps @ prices), _plan(counts[path], study)
        usd = unsettled[path[:-1]] @ (steps @ _usd(study, usd_of))
        n_requests = float(unsettled[path[:-1]] @ steps.sum(axis=1))
        share = spent / (counts[path[-1]] @ prices)
        rows.append((len(plan), described(plan), float(usd), n_requests, float(share), plan))
    names = ["n_waves", "asks", "usd_per_item", "n_requests_per_item", "share_of_usd", "plan"]
    table = pd.DataFrame(rows, columns=names)
    worth = (table["share_of_usd"] + WORTH_OF_A_WAVE * table["n_waves"]).round(9)
    table.insert(5, "is_chosen", table.index == worth.idxmin())
    return table


def described(plan: Iterable[Wave]) -> str:
    """A plan in words.

    >>> described([[("terra", 0), ("luna", 0)], [("luna", 1), ("luna", 2)]])
    'terra + luna, then luna x 2'
    """
    parts = []
    for wave in plan:
        groups = [(name, len(list(one))) for name, one in itertools.groupby(n for n, _ in wave)]
        parts.append(" + ".join(f"{name} x {n}" if n > 1 else name for name, n in groups))
    return ", then ".join(parts)


def expected(
    study: Study,
    usd_of: Mapping[str, float],
    n_items: int,
    plan: list[Wave],
    pilot: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What is expected to be asked of each annotator on `n_items`, with and without decisive voting.

    The pilot's items, as many as the study says, are asked in full. Columns: annotator, n_requests,
    n_expected, usd_all, usd_expected.
    """
    sample = bounds.read(_drawn(study) if pilot is None else pilot, study)
    n_pilot = min(n_items, getattr(study.voting, "pilot", 0))
    open_before = _unsettled(_done_before(plan, study), sample, study)
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
    plan: list[Wave] | None = None,
) -> pd.DataFrame:
    """What decisive voting would have asked in a run that has all votes: a row a wave.

    Without a plan, it is chosen from the pilot. Columns: wave (0 is the pilot), asks, n_items (that
    are asked), n_requests, usd, n_settled (items that need nothing more), n_unasked and usd_unasked
    (on those), n_changed (items whose result differs from that with all votes: 0).
    """
    in_pilot = votes["item"].isin(set(pilot_items))
    if plan is None:
        plan = waves(study, usd_of, votes[in_pilot] if in_pilot.any() else None)
    said = bounds.read(votes, study)
    usd, rows = _slot_usd(study, usd_of), []
    left = np.flatnonzero(~said.items.isin(set(pilot_items)))
    last = np.ones((len(said.items), study.n_votes), dtype=bool)
    n_pilot = len(last) - len(left)
    rows.append((0, "all", n_pilot, n_pilot * study.n_votes, n_pilot * usd.sum(), n_pilot, 0, 0.0))
    done = [*_done_before(plan, study)[1:], np.ones(study.n_votes, dtype=bool)]
    before = np.zeros(study.n_votes, dtype=bool)
    for n, (wave, slots) in enumerate(zip(plan, done, strict=True), start=1):
        new = slots & ~before
        here = bounds.shown(said, left, np.tile(slots, (len(left), 1)))
        is_settled = bounds.judge(here, study).settled
        over = left[is_settled]
        last[over] = slots
        asked = len(left), len(left) * int(new.sum()), len(left) * usd[new].sum()
        unasked = len(over) * int((~slots).sum()), len(over) * usd[~slots].sum()
        rows.append((n, described([wave]), *asked, len(over), *unasked))
        left, before = left[~is_settled], slots
    names = ["wave", "asks", "n_items", "n_requests", "usd", "n_settled", "n_unasked"]
    table = pd.DataFrame(rows, columns=[*names, "usd_unasked"])
    table["n_changed"] = 0
    return table


def _prices(study: Study, usd_of: Mapping[str, float]) -> np.ndarray:
    """The price of a request by annotator; where nothing costs, each request counts one."""
    usd = _usd(study, usd_of)
    return usd if usd.any() else np.ones(len(usd))


def _usd(study: Study, usd_of: Mapping[str, float]) -> np.ndarray:
    return np.array([usd_of[name] for name in study.annotators], dtype="float64")


def _slot_usd(study: Study, usd_of: Mapping[str, float]) -> np.ndarray:
    return weights.weigh(study)["annotator"].map(dict(usd_of)).to_numpy("float64")


def _plan(counts: np.ndarray, study: Study) -> list[Wave]:
    """The waves of a path: counts of the repeats that each annotator has been asked for."""
    return [
        [
            (name, repeat)
            for name, low, high in zip(study.annotators, start, end, strict=True)
            for repeat in range(low, high)
        ]
        for start, end in itertools.pairwise(counts.tolist())
    ]


def _slots_of(counts: np.ndarray, study: Study) -> np.ndarray:
    """For each row of counts which slots those are: the first repeats of each annotator."""
    slots = weights.weigh(study)
    place = slots["annotator"].map({name: n for n, name in enumerate(study.annotators)})
    return slots["repeat"].to_numpy() < counts[:, place]


def _done_before(plan: list[Wave], study: Study) -> np.ndarray:
    """For each wave which slots have been asked before it."""
    slots = list(weights.weigh(study)[["annotator", "repeat"]].itertuples(index=False, name=None))
    wave_of = {tuple(slot): n for n, wave in enumerate(plan) for slot in wave}
    number = np.array([wave_of[slot] for slot in slots])
    return number < np.arange(len(plan))[:, None]


def _unsettled(slots: np.ndarray, sample: bounds.Said, study: Study) -> np.ndarray:
    """The share of the sample's items that is not settled when these slots have answered."""
    n_items = len(sample.items)
    rows = np.tile(np.arange(n_items), len(slots))
    judged = bounds.judge(bounds.shown(sample, rows, np.repeat(slots, n_items, axis=0)), study)
    return 1 - judged.settled.reshape(len(slots), n_items).mean(axis=1)


def _searched(
    study: Study, prices: np.ndarray, sample: bounds.Said
) -> tuple[np.ndarray, np.ndarray]:
    """Sets of slots on the way from none to all, and what share of items each leaves unsettled.

    A set is a count of repeats for each annotator. Of each size the most promising stay: those with
    the least price so far and for all that is then unsettled.
    """
    full = np.array([one.repeats for one in study.annotators.values()])
    level, spent = np.zeros((1, len(full)), dtype="int64"), np.zeros(1)
    unsettled = np.ones(1)
    counts, shares = [level], [unsettled]
    for _ in range(study.n_votes):
        costs: dict[tuple[int, ...], float] = {}
        for one, so_far, share in zip(level, spent, unsettled, strict=True):
            for place in np.flatnonzero(one < full):
                after = (*one[:place], one[place] + 1, *one[place + 1 :])
                cost = so_far + share * prices[place]
                costs[after] = min(cost, costs.get(after, np.inf))
        level, spent = np.array(sorted(costs)), np.array([costs[one] for one in sorted(costs)])
        unsettled = _unsettled(_slots_of(level, study), sample, study)
        hope = (spent + unsettled * ((full - level) @ prices)).round(9)
        keep = np.sort(np.argsort(hope, kind="stable")[:_WIDTH])
        level, spent, unsettled = level[keep], spent[keep], unsettled[keep]
        counts.append(level)
        shares.append(unsettled)
    return np.concatenate(counts), np.concatenate(shares)


def _shortest(counts: np.ndarray, unsettled: np.ndarray, prices: np.ndarray) -> list[list[int]]:
    """For one wave, two waves and so on the cheapest path from no slots to all, while it helps."""
    total = counts @ prices
    within = (counts[:, None] <= counts[None]).all(axis=2) & ~np.eye(len(counts), dtype=bool)
    step = np.where(within, unsettled[:, None] * (total[None] - total[:, None]), np.inf)
    best, paths = step[0], [[0, n] for n in range(len(counts))]
    found = [paths[-1]]
    for _ in range(int(counts[-1].sum()) - 1):
        costs = (best[:, None] + step).round(12)
        last = costs.argmin(axis=0)
        paths = [[*paths[before], n] for n, before in enumerate(last)]
        longer = costs.min(axis=0)
        if longer[-1] >= round(best[-1], 12):
            break
        best = longer
        found.append(paths[-1])
    return found


def _drawn(study: Study) -> pd.DataFrame:
    """Votes that are drawn, always the same, with the stated agreement of models and repeats."""
    random, tables = np.random.default_rng(0), []
    slots = weights.weigh(study)[["annotator", "repeat"]]
    for name, field in study.fields.items():
        n_values = len(field.allowed) or 2
        n_names = 3 if field.type == "entities" else 1
        truth = random.integers(n_values, size=(_N_PRIOR, n_names))
        said = []
        for one in study.annotators.values():
            own = _resaid(truth, PRIOR_OF_MODELS, n_values, random)
            said += [_resaid(own, PRIOR_OF_REPEATS, n_values, random) for _ in range(one.repeats)]
        words = np.stack(said, axis=1).reshape(-1, n_names)
        table = slots.iloc[np.tile(np.arange(len(slots)), _N_PRIOR)].reset_index(drop=True)
        table = table.assign(item=np.repeat(np.arange(_N_PRIOR), len(slots)).astype(str), field=name)
        table["value"] = [_word(one, field) for one in words]
        tables.append(table)
    whole = pd.concat(tables, ignore_index=True)
    return _where_true(whole, study).assign(model="-", simulated=False)
