"""Sampling: which items people label, in a random order that is fixed and stored with its chances.

Decides by item id and seed alone, so that the order is the same on every machine and a larger
sample holds the smaller. Refuses to go on with a sample where that would make its chances untrue:
who wants another one must say so.
"""

import hashlib
import heapq
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path

import pandas as pd

from lib import gold, spreadsheets, words, yamls
from lib.errors import StudyError
from lib.study import Study

FILE = "gold_sample.csv"
COLUMNS = ["place", "item", "stratum", "probability", "sheet", "by", "seed", "frame", "sha256"]
COLUMNS += ["drawn_at"]
ALL = "all"
SEED = "1"
_LOW_MARGIN = 0.5


def draw(strata: pd.Series, n: int, seed: str = SEED, before: Collection[str] = ()) -> pd.DataFrame:
    """The first `n` items in random order: place, item, stratum, probability.

    `strata` is indexed by item. Each draw takes from the stratum with the fewest drawn so far (of
    equal ones the first by name): strata get equal numbers until one is empty. Items drawn `before`
    stand first, in their order. probability = drawn / all items of the stratum, which is exact.
    Raises StudyError when a stratum would have fewer than two, for it would have no interval.

    >>> draw(pd.Series("all", index=["r1", "r2", "r3", "r4"]), 3)["item"].tolist()
    ['r3', 'r4', 'r2']
    """
    first = list(before)
    left = strata.drop(first)
    keys = [hashlib.sha256(f"{seed}\n{item}".encode()).hexdigest() for item in left.index]
    left = left.iloc[pd.Series(keys, dtype="str").argsort()]
    queues = {name: list(part.index) for name, part in left.groupby(left, sort=True)}
    taken = strata.loc[first].value_counts().to_dict()
    items = [*first, *_in_turn(queues, taken, max(0, n - len(first)))]
    drawn = pd.DataFrame({"place": range(1, len(items) + 1), "item": items})
    drawn["stratum"] = strata.loc[items].to_numpy()
    sizes, counts = strata.value_counts(), drawn["stratum"].value_counts()
    small = [name for name, size in sizes.items() if counts.get(name, 0) < min(2, size)]
    if small:
        strata_of = words.n_of(len(sizes), "stratum", "strata")
        what = f"{strata_of} cannot share {words.n_of(len(items), 'item')}: {len(small):,} of them"
        what = f"{what}, such as {small[0]!r}, would have fewer than two."
        raise StudyError(f"{what} Draw at least --n {2 * len(sizes)}, or stratify --by less.")
    return drawn.assign(probability=drawn["stratum"].map(counts / sizes))


def strata(documents: pd.DataFrame, decided: pd.DataFrame | None, by: Iterable[str]) -> pd.Series:
    """The stratum of each item, indexed by item; without `by` all are in one.

    `by` names columns of documents (source, group), a field (its consensus, or why there is none),
    or "review": whether any field is left open or won by less than half of the weight.
    """
    parts = [pd.Series(dtype="str")]
    for name in by:
        if name in ("source", "group"):
            parts.append(documents.set_index("item")[name].fillna("none").astype("str"))
        elif decided is None:
            what = f"--by {name} needs the panel's votes: run 05_aggregate_votes first, or draw"
            raise StudyError(f"{what} without --by.")
        else:
            parts.append(_doubts(decided) if name == "review" else _values(decided, name))
    if len(parts) == 1:
        return pd.Series(ALL, index=documents["item"], dtype="str")
    whole = pd.concat(parts[1:], axis="columns", join="inner")
    first, *others = (whole.iloc[:, n] for n in range(len(parts) - 1))
    return (first.str.cat(others, sep=" / ") if others else first).rename_axis("item")


def check_by(by: Iterable[str], study: Study) -> None:
    """Raises StudyError for a name by which nothing can be stratified."""
    known = ["source", "group", "review", *(n for n, f in study.fields.items() if f.allowed)]
    for name in by:
        if name not in known:
            what = f"--by {name}: there is no such stratum.{yamls.nearest(name, known)}"
            raise StudyError(f"{what} Known: {', '.join(known)}.")


def extend(
    sample: pd.DataFrame, strata: pd.Series, frame: str, n: int, seed: str, by: str
) -> pd.DataFrame:
    """The sample with at least `n` items, its own first; `frame` is what it is drawn from now.

    Raises StudyError when seed, strata or corpus are not those of the sample.
    """
    old = sample.iloc[0]
    changed = [
        f"{word} {was or 'nothing'!r} before and {now or 'nothing'!r} now"
        for word, was, now in (("seed", old["seed"], seed), ("by", old["by"], by))
        if was != now
    ]
    if old["frame"] != frame:
        changed.append("other items or strata than when it was drawn")
    if changed:
        drawn = words.n_of(len(sample), "item")
        what = f"{FILE} has a sample of {drawn}, and there is {'; '.join(changed)}."
        hint = "--anew draws another one: labels stay in gold.csv, and with the same seed many of"
        raise StudyError(f"{what} {hint} the items come again.")
    if gone := set(sample["item"]) - set(strata.index):
        drawn = words.n_of(len(sample), "drawn item")
        what = f"this run does not ask about {len(gone):,} of {drawn}"
        raise StudyError(f"{what}, such as {min(gone)!r}. Name the run for which they were drawn.")
    return draw(strata, max(n, len(sample)), seed, sample["item"])


def frame(strata: pd.Series) -> str:
    """A digest of all items and their strata, by which a change of either is seen."""
    lines = sorted(f"{item}\t{stratum}" for item, stratum in strata.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def stamped(
    drawn: pd.DataFrame,
    documents: pd.DataFrame,
    before: pd.DataFrame | None,
    now: datetime,
    **same: str,
) -> pd.DataFrame:
    """The rows of gold_sample.csv, with sheet, digest of the text, and the time of the draw.

    What was drawn before keeps all three.
    """
    old = {} if before is None else before.set_index("item").to_dict("index")
    sheet = 1 + max((row["sheet"] for row in old.values()), default=0)
    digests = documents.set_index("item")["sha256"].to_dict()
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    fresh = {
        item: {"sheet": sheet, "sha256": digests[item], "drawn_at": time} for item in drawn["item"]
    }
    kept = [{name: old.get(item, row)[name] for name in row} for item, row in fresh.items()]
    more = pd.DataFrame(kept, index=drawn.index)
    return drawn.assign(**more, **same)[COLUMNS]


def read(path: Path) -> pd.DataFrame:
    """The stored sample, in the order in which it was drawn; raises StudyError for a wrong row."""
    found, seen = [], {}
    for line, cells in gold.rows(path, COLUMNS):
        row = {name: spreadsheets.unguard(cell) for name, cell in cells.items()}
        try:
            numbers = {name: int(row[name]) for name in ("place", "sheet")}
            numbers["probability"] = float(row["probability"])
        except ValueError as error:
            raise yamls.problem(path, line, f"{error}: this file is not for writing in.") from error
        if row["item"] in seen:
            what = f"{row['item']} was drawn on line {seen[row['item']]} too. Remove one."
            raise yamls.problem(path, line, what)
        if not 0 < numbers["probability"] <= 1:
            what = f"the probability {row['probability']} is not above 0 and at most 1."
            raise yamls.problem(path, line, what)
        seen[row["item"]] = line
        found.append({**row, **numbers})
    if not found:
        raise yamls.problem(path, 1, "no rows below the header. Remove the file to draw anew.")
    return pd.DataFrame(found)[COLUMNS].sort_values("place", kind="stable", ignore_index=True)


def _in_turn(queues: Mapping[str, list[str]], taken: Mapping[str, int], n: int) -> Iterable[str]:
    """Items, each from the stratum that has given the fewest so far."""
    turns = [(taken.get(name, 0), name, 0) for name, queue in queues.items() if queue]
    heapq.heapify(turns)
    while turns and n:
        n_taken, name, at = heapq.heappop(turns)
        yield queues[name][at]
        n -= 1
        if at + 1 < len(queues[name]):
            heapq.heappush(turns, (n_taken + 1, name, at + 1))


def _values(decided: pd.DataFrame, field: str) -> pd.Series:
    """What the panel says of each item, or why it says nothing."""
    mine = decided[decided["field"].eq(field)].set_index("item")
    return field + "=" + mine["value"].fillna(mine["status"]).astype("str")


def _doubts(decided: pd.DataFrame) -> pd.Series:
    """Whether an item is open, narrow or clear in the field where it is least so."""
    narrow = decided["status"].eq("decided") & decided["margin"].lt(_LOW_MARGIN)
    doubt = narrow.astype("int64").mask(decided["status"].isin(["tie", "no_quorum"]), 2)
    return doubt.groupby(decided["item"]).max().map({0: "clear", 1: "narrow", 2: "open"})
