"""Decisive voting on real votes: what it saves, and how long it takes to judge a large run.

    python -m benchmarks.decisive ../shared/data/votes

Panels of real votes are replayed as if they had been asked in waves. Beside the chosen plan stand
the order of a hurry (the dearest annotator first), and the cheapest votes that would have settled
each item, which only an oracle can know. Then a run of 100,000 items, four votes each on five
fields, and one three times as large are judged at once.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import making
import panels

from lib import decisive, prompts
from lib.decisive import bounds, waves
from lib.study import Study

PILOT = 50


def main(words: list[str]) -> None:
    """Replay the panels and judge the large runs; a row each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/data/votes"))
    folder = parser.parse_args(words).folder
    if folder.is_dir():
        rows = [replayed(name, folder) for name in panels.REAL]
        print(pd.DataFrame(rows).to_string(index=False))
    for n_items in (100_000, 312_500):
        print(judged(n_items), flush=True)


def replayed(name: str, folder: Path) -> dict[str, object]:
    """What a panel saves with the chosen plan, and with others."""
    study, usd_of, votes = panels.real(name, folder)
    items = votes["item"].drop_duplicates()
    pilot = set(items[prompts.draw_order(items) <= PILOT])
    began = time.process_time()
    table = decisive.replay(votes, study, usd_of, pilot)
    took = time.process_time() - began
    n_all, usd_all = len(items) * study.n_votes, len(items) * usd_of_slots(study, usd_of).sum()
    naive = decisive.replay(votes, study, usd_of, pilot, dearest_first(study, usd_of))
    return {
        "panel": name,
        "items": len(items),
        "plan": "; ".join(table["asks"].iloc[1:]),
        "requests": f"{table['n_unasked'].sum() / n_all:.1%}",
        "usd": f"{table['unasked_usd'].sum() / usd_all:.1%}",
        "dearest_first": f"{naive['unasked_usd'].sum() / usd_all:.1%}",
        "oracle": f"{1 - oracle(votes, study, usd_of, pilot) / usd_all:.1%}",
        "changed": int(table["n_changed"].sum() + naive["n_changed"].sum()),
        "cpu_seconds": round(took, 1),
    }


def usd_of_slots(study: Study, usd_of: dict[str, float]) -> np.ndarray:
    """The price of a request by slot."""
    return np.array([usd_of[name] for name, _ in panels.slots(study)])


def dearest_first(study: Study, usd_of: dict[str, float]) -> list[waves.Wave]:
    """A wave for each annotator, by falling price."""
    order = sorted(study.annotators, key=lambda name: -usd_of[name])
    return [[(name, n) for n in range(study.annotators[name].repeats)] for name in order]


def oracle(votes: pd.DataFrame, study: Study, usd_of: dict[str, float], pilot: set[str]) -> float:
    """The price of the cheapest votes that settle each item, beside a pilot in full."""
    said, usd = bounds.read(votes, study), usd_of_slots(study, usd_of)
    least = np.full(len(said.items), usd.sum())
    for chosen in itertools.product([False, True], repeat=len(usd)):
        price = usd[list(chosen)].sum()
        rows = np.flatnonzero((least > price) & ~said.items.isin(pilot))
        seen = bounds.shown(said, rows, np.tile(chosen, (len(rows), 1)))
        least[rows[bounds.judge(seen, study).settled]] = price
    return float(least.sum())


def judged(n_items: int) -> str:
    """How long it takes to say what may be asked when half of the panel has answered."""
    field = {name: making.field() for name in "abcd"} | {"seen": making.field("boolean")}
    study = making.study(field, {"strong": ("l", 1, 2.0), "weak": ("s", 3, 1.0)})
    random, slots = np.random.default_rng(1), panels.slots(study)
    items = np.repeat([f"guests/{n:07}" for n in range(n_items)], len(slots))
    requests = pd.DataFrame({"item": items, "key": [f"k{n}" for n in range(len(items))]})
    requests["annotator"] = [name for name, _ in slots] * n_items
    requests["repeat"] = [n for _, n in slots] * n_items
    is_in = random.random(len(requests)) < 0.5
    known = requests[is_in]
    votes = pd.concat(
        [
            known.assign(field=name, value=random.choice(one.allowed, len(known), p=odds))
            for name, one in study.fields.items()
            for odds in [[0.8, 0.2] if len(one.allowed) == 2 else [0.8, 0.1, 0.1]]
        ]
    ).assign(abstained=None)
    plan = [[("strong", 0), ("weak", 0)], [("weak", 1), ("weak", 2)]]
    finished, began = set(known["key"]), time.process_time()
    may = decisive.due(requests, votes, finished, study, plan, set())
    took = time.process_time() - began
    return f"{len(requests):9,} requests, {len(votes):9,} votes: {took:.1f} s CPU, {may.mean():.0%}"


if __name__ == "__main__":
    main(sys.argv[1:])
