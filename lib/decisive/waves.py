"""Waves: in which order the slots of a panel are asked, so that most is settled for least.

Decides from prices and from votes on a sample, on which every order of interest is tried out. The
share of items that a set of slots leaves open does not depend on the order within the set, so the
cheapest plan is a shortest path from no slots to all of them. Refuses to promise: what is expected
rests on the sample, and what is settled is decided by `bounds` alone.
"""

import itertools
import math
from collections.abc import Iterable, Mapping

import numpy as np
import orjson
import pandas as pd

from lib import weights
from lib.decisive import bounds
from lib.fields import Field
from lib.study import Study

Wave = list[tuple[str, int]]
# A wave takes up to a day: a further one must save this share of the price of all votes.
WORTH_OF_A_WAVE = 0.01
# Without a pilot: how often two models, and two repeats of a model, say the same.
PRIOR_OF_MODELS, PRIOR_OF_REPEATS, _N_PRIOR = 0.8, 0.9, 100
_AT_ONCE = 256  # so many sets of slots are judged in one go
_WIDTH = 70  # sets of slots of one size that the search keeps: all of them for up to 8 models


def choose(
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
    WORTH_OF_A_WAVE. Columns: n_waves, asks (in words), item_usd, n_requests_per_item,
    price_share (of all votes), is_chosen, plan.
    """
    sample = sampled(study, pilot)
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
    names = ["n_waves", "asks", "item_usd", "n_requests_per_item", "price_share", "plan"]
    table = pd.DataFrame(rows, columns=names)
    worth = (table["price_share"] + WORTH_OF_A_WAVE * table["n_waves"]).round(9)
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


def numbers(plan: list[Wave], study: Study) -> np.ndarray:
    """The number of the wave in which each slot of the panel is asked, from 0."""
    wave_of = {tuple(slot): n for n, wave in enumerate(plan) for slot in wave}
    slots = weights.weigh(study)[["annotator", "repeat"]].itertuples(index=False, name=None)
    return np.array([wave_of[slot] for slot in slots])


def done_before(plan: list[Wave], study: Study) -> np.ndarray:
    """For each wave which slots have been asked before it."""
    return numbers(plan, study) < np.arange(len(plan))[:, None]


def open_after(slots: np.ndarray, sample: bounds.Said, study: Study) -> np.ndarray:
    """The share of the sample's items that is not settled when these slots have answered."""
    n_items = len(sample.items)
    rows = np.tile(np.arange(n_items), len(slots))
    judged = bounds.judge(bounds.shown(sample, rows, np.repeat(slots, n_items, axis=0)), study)
    return 1 - judged.settled.reshape(len(slots), n_items).mean(axis=1)


def sampled(study: Study, pilot: pd.DataFrame | None) -> bounds.Said:
    """The votes on which plans are tried out: the pilot's, or drawn ones."""
    return bounds.read(drawn(study) if pilot is None else pilot, study)


def _prices(study: Study, usd_of: Mapping[str, float]) -> np.ndarray:
    """The price of a request by annotator; where nothing costs, each request counts one."""
    usd = _usd(study, usd_of)
    return usd if usd.any() else np.ones(len(usd))


def _usd(study: Study, usd_of: Mapping[str, float]) -> np.ndarray:
    return np.array([usd_of[name] for name in study.annotators], dtype="float64")


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


def _searched(
    study: Study, prices: np.ndarray, sample: bounds.Said
) -> tuple[np.ndarray, np.ndarray]:
    """Sets of slots on the way from none to all, and what share of items each leaves unsettled.

    A set is a count of repeats for each annotator. Of each size the most promising stay: those with
    the least price so far and for all that is then unsettled.
    """
    full = np.array([one.repeats for one in study.annotators.values()])
    if np.prod(full + 1.0) <= _AT_ONCE:
        every = sorted(itertools.product(*(range(n + 1) for n in full)), key=lambda s: (sum(s), s))
        some = open_after(_slots_of(np.array(every[1:]), study), sample, study)
        return np.array(every), np.append(1.0, some)
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
        unsettled = open_after(_slots_of(level, study), sample, study)
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


def drawn(study: Study) -> pd.DataFrame:
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
        table = table.assign(
            item=np.repeat(np.arange(_N_PRIOR), len(slots)).astype(str), field=name
        )
        table["value"] = [_word(one, field) for one in words]
        tables.append(table)
    whole = pd.concat(tables, ignore_index=True)
    return _applied(whole, study).assign(model="-", simulated=False)


def _resaid(
    said: np.ndarray, agree: float, n_values: int, random: np.random.Generator
) -> np.ndarray:
    """The answers said again, so often the same that two who do so agree as often as `agree`."""
    others = n_values - 1
    same = (1 + math.sqrt(1 - n_values * (1 - agree * others))) / n_values
    moved = (said + random.integers(1, n_values, size=said.shape)) % n_values
    return np.where(random.random(said.shape) < same, said, moved)


def _word(code: np.ndarray, field: Field) -> str:
    """A drawn code as a vote: of an entity list, which of three names it gives."""
    if field.type == "entities":
        return orjson.dumps([f"n{n}" for n in np.flatnonzero(code)]).decode()
    return field.allowed[code[0]] if field.allowed else str(code[0])


def _applied(votes: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The votes, where a field's condition is not said to be true as abstentions."""
    slot = ["item", "annotator", "repeat"]
    for name, field in study.fields.items():
        if field.when:
            condition = votes[votes["field"].eq(field.when)].set_index(slot)["value"]
            mine = votes["field"].eq(name)
            keys = pd.MultiIndex.from_frame(votes.loc[mine, slot])
            outside = mine.copy()
            outside[mine] = condition.reindex(keys).ne("true").to_numpy()
            votes.loc[outside, "value"] = None
    return votes.assign(abstained=np.where(votes["value"].isna(), "not_applicable", None))
