"""Asking: which requests of a run may be sent now, which wait for other answers, which are spared.

The seam between what a run holds and `decisive`. With `ask: all` everything may be sent at once.
With `ask: decisive` items of the pilot and labelled items are asked in full; when the pilot is in,
the others follow in the waves of a plan, until no vote that is left can matter. Decides from
requests and outcomes alone, so that a crash changes nothing; it withdraws nothing that was sent.
"""

import contextlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib import collect, decisive, estimate, gold, ledger, lengths, prompts, runs, said, wanted
from lib import study as studies
from lib.decisive import waves
from lib.errors import StudyError
from lib.runs import Run
from lib.study import Study

# So large a part of the pilot is enough for a plan: one late answer does not hold up all others.
PILOT_SHARE = 0.9
_SLOT = ["item", "annotator", "repeat"]
_PRICED = 50  # items whose requests give the price of one, where there is no pilot


class Due(NamedTuple):
    """What may be asked: the `rows` to send now, and all `requests` that are due or under way.

    The others are `later`, keys that may follow by what others say, or `spared`, keys of what can
    matter no more; some of them may be in flight from before.
    """

    rows: pd.DataFrame
    requests: pd.DataFrame
    later: frozenset[str] = frozenset()
    spared: frozenset[str] = frozenset()


def due(
    run: Run,
    requests: pd.DataFrame,
    outcomes: pd.DataFrame,
    still: pd.DataFrame,
    in_flight: Collection[str],
) -> Due:
    """Which of the requests may be asked now; `still` are the rows that `wanted` gives for all."""
    if not is_decisive(run.study):
        return Due(still, requests)
    key, tried, waits, flying = wanted.numbered(
        requests["key"], outcomes["key"], still["key"], set(in_flight)
    )
    item, items = pd.factorize(requests["item"])
    valid, is_unfinished = tried[outcomes["outcome"].eq("valid")], _among(key, waits, flying)
    is_finished = _among(key, valid) | (_among(key, tried) & ~is_unfinished)
    full = np.flatnonzero(items.isin(items_in_full(run, pd.Series(items))))
    asked, plan = is_finished | _among(item, full), None
    if not asked.all():
        known = said.votes_of(run, requests[is_finished].assign(item=item[is_finished]))
        plan = plan_of(run, requests, outcomes, is_finished, known)
    if plan is not None:
        slots = requests[["annotator", "repeat"]].assign(key=key, item=item)
        found = decisive.due(slots, known, key[is_finished], run.study, plan, full)
        asked = found.to_numpy()
    is_due = _among(key, key[asked])
    under_way = item if plan is None else item[is_due & ~is_finished]
    is_later = ~is_due & _among(item, under_way)
    rows = still[_among(waits, key[asked])].reset_index(drop=True)
    later, spared = (
        frozenset(requests.loc[which, "key"]) for which in (is_later, ~is_due & ~is_later)
    )
    return Due(rows, requests[is_due | _among(key, flying)], later, spared - later)


def is_decisive(study: Study) -> bool:
    """Whether votes may be spared; an alarm is worth nothing unless all are asked."""
    return study.voting.ask == "decisive" and study.panels[study.panel].mode == "vote"


def warn(study: Study) -> list[str]:
    """What to know about the votes that the study wants to spare, as sentences."""
    if study.voting.ask == "all":
        return []
    said = []
    if not is_decisive(study):
        said.append("voting: ask: decisive has no effect with mode: alarm: every vote is asked.")
    fields = study.fields.items()
    always = [n for n, f in fields if not (f.allowed or f.when or f.type == "entities")]
    if always or study.n_votes < 3:
        why = f"every vote on {', '.join(always)} counts" if always else "there are too few votes"
        said.append(f"voting: ask: decisive can save nothing here: {why}.")
    return said


def items_in_full(run: Run, items: pd.Series) -> set[str]:
    """The items of which every vote is asked, whatever the others say: on these alone it can be
    measured how the annotators agree, and how often each is right.

    With `ask: all` all of them, else those of the pilot and those with labels in gold.csv.
    """
    if not is_decisive(run.study):
        return set(items)
    return pilot_items(run.study, items) | (_labelled(run.study) & set(items))


def pilot_items(study: Study, items: pd.Series) -> set[str]:
    """The items of the pilot: the first ones of the random order in which samples are drawn."""
    different = items.drop_duplicates()
    return set(different[prompts.draw_order(different) <= study.voting.pilot])


def now(
    run: Run,
    requests: pd.DataFrame,
    outcomes: pd.DataFrame | None = None,
    in_flight: Collection[str] | None = None,
) -> Due:
    """What is due of the requests by what is on disk, as far as it is not given."""
    if in_flight is None:
        with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
            in_flight = ledger.in_flight(book)
    outcomes = collect.outcomes(run) if outcomes is None else outcomes
    still = wanted.wanted(requests, outcomes, set(in_flight), run.study)
    return due(run, requests, outcomes, still, in_flight)


def spared(run: Run) -> frozenset[str]:
    """The keys of the run's requests that need not be asked, because they can matter no more."""
    return now(run, run.table("requests")).spared if is_decisive(run.study) else frozenset()


def plan_of(
    run: Run,
    requests: pd.DataFrame,
    outcomes: pd.DataFrame,
    is_finished: np.ndarray,
    known: pd.DataFrame,
) -> list[waves.Wave] | None:
    """The waves in which items are asked; nothing while too little of the pilot is in.

    `known` are the votes of finished requests, with items by number. The plan stands in
    `said/plan.json` with a digest of what it follows from, because it takes a second to find.
    """
    item, items = pd.factorize(requests["item"])
    is_pilot = items.isin(pilot_items(run.study, pd.Series(items)))
    is_whole = is_pilot & ~_among(np.arange(len(items)), item[~is_finished])
    if is_whole.sum() < PILOT_SHARE * is_pilot.sum():
        return None
    study, usd_of = run.study, prices(run.study, requests, outcomes)
    sample = known[is_whole[known["item"]]].sort_values([*_SLOT, "field"])
    of = studies.digest([study.model_dump(mode="json"), usd_of, sample.to_json(orient="values")])
    path = run.path(said.FOLDER) / "plan.json"
    held = json.loads(path.read_bytes()) if path.is_file() else {}
    if held.get("of") == of:
        return [[(name, repeat) for name, repeat in wave] for wave in held["waves"]]
    plan = waves.choose(study, usd_of, sample if is_pilot.any() else None)
    with runs.replacing(path) as part:
        text = json.dumps({"asks": waves.described(plan), "waves": plan, "of": of}, indent=1)
        part.write_text(text, encoding="utf-8")
    return plan


def prices(study: Study, requests: pd.DataFrame, outcomes: pd.DataFrame) -> dict[str, float]:
    """USD of one request of each annotator, as a mean over the pilot; answers are as long as those
    of the pilot, or as guessed.
    """
    item, items = pd.factorize(requests["item"])
    drawn = prompts.sample(pd.Series(items), study.voting.pilot or _PRICED).to_numpy()
    rows = requests[drawn[item]]
    in_pilot = rows if study.voting.pilot else rows.iloc[:0]
    measured = lengths.measure(outcomes.merge(in_pilot[["key", *_SLOT]], on="key"))
    tokens = lengths.answer_tokens(study.annotators, prompts.schema(study.fields), measured)
    priced = estimate.price_requests(rows, tokens)
    usd = priced.groupby("annotator")["units_expected"].mean() / estimate.UNITS_PER_MICRO_USD / 1e6
    return {name: float(usd[name]) for name in study.annotators}


def _among(numbers: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Which of these small numbers stand among others."""
    found = np.concatenate(others)
    marks = np.zeros(max(numbers.max(initial=-1), found.max(initial=-1)) + 1, dtype=bool)
    marks[found] = True
    return marks[numbers]


def _labelled(study: Study) -> set[str]:
    """The items with gold labels; what is wrong with the file is for notebook 05 to say."""
    path = Path(study.folder) / "gold.csv"
    if not path.is_file():
        return set()
    with contextlib.suppress(StudyError):
        return {row["item"] for _, row in gold.rows(path, ["item"])}
    return set()
