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

import pandas as pd

from lib import (
    collect,
    decisive,
    estimate,
    gold,
    ledger,
    lengths,
    prompts,
    runs,
    said,
    wanted,
    waves,
)
from lib import study as studies
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
    is_finished = _finished(requests, outcomes, {*in_flight, *still["key"]})
    asked = is_finished | requests["item"].isin(items_in_full(run, requests["item"]))
    known = said.votes_of(run, requests[is_finished]) if not asked.all() else None
    plan = None if known is None else plan_of(run, requests, outcomes, is_finished, known)
    if plan is not None:
        full = items_in_full(run, requests["item"])
        finished = set(requests.loc[is_finished, "key"])
        asked = decisive.due(requests, known, finished, run.study, plan, full)
    is_due = requests["key"].isin(set(requests.loc[asked, "key"]))
    left = requests[~is_due]
    under_way = left["item"] if plan is None else requests.loc[is_due & ~is_finished, "item"]
    later = frozenset(left.loc[left["item"].isin(set(under_way)), "key"])
    rows = still[still["key"].isin(set(requests.loc[is_due, "key"]))].reset_index(drop=True)
    seen = requests[is_due | requests["key"].isin(set(in_flight))]
    return Due(rows, seen, later, frozenset(left["key"]) - later)


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
    is_finished: pd.Series,
    known: pd.DataFrame,
) -> list[waves.Wave] | None:
    """The waves in which items are asked; nothing while too little of the pilot is in.

    `known` are the votes of finished requests. The plan stands in `said/plan.json` with a digest of
    what it follows from, because it takes a second to find.
    """
    pilot = pilot_items(run.study, requests["item"])
    whole = pilot - set(requests.loc[~is_finished, "item"])
    if len(whole) < PILOT_SHARE * len(pilot):
        return None
    study, usd_of = run.study, prices(run.study, requests, outcomes)
    sample = known[known["item"].isin(whole)].sort_values([*_SLOT, "field"]) if pilot else None
    shown = sample.to_json(orient="values") if pilot else ""
    of = studies.digest([study.model_dump(mode="json"), usd_of, shown])
    path = run.path(said.FOLDER) / "plan.json"
    held = json.loads(path.read_bytes()) if path.is_file() else {}
    if held.get("of") == of:
        return [[(name, repeat) for name, repeat in wave] for wave in held["waves"]]
    plan = waves.choose(study, usd_of, sample)
    with runs.replacing(path) as part:
        text = json.dumps({"asks": waves.described(plan), "waves": plan, "of": of}, indent=1)
        part.write_text(text, encoding="utf-8")
    return plan


def prices(study: Study, requests: pd.DataFrame, outcomes: pd.DataFrame) -> dict[str, float]:
    """USD of one request of each annotator, as a mean over the pilot; answers are as long as those
    of the pilot, or as guessed.
    """
    items = requests["item"].drop_duplicates()
    drawn = items[prompts.draw_order(items) <= (study.voting.pilot or _PRICED)]
    rows = requests[requests["item"].isin(set(drawn))]
    in_pilot = rows if study.voting.pilot else rows.iloc[:0]
    measured = lengths.measure(outcomes.merge(in_pilot[["key", *_SLOT]], on="key"))
    tokens = lengths.answer_tokens(study.annotators, prompts.schema(study.fields), measured)
    priced = estimate.price_requests(rows, tokens)
    usd = priced.groupby("annotator")["units_expected"].mean() / estimate.UNITS_PER_MICRO_USD / 1e6
    return {name: float(usd[name]) for name in study.annotators}


def _finished(requests: pd.DataFrame, outcomes: pd.DataFrame, unfinished: set[str]) -> pd.Series:
    """Whether each request has its answer, or was given up for good."""
    valid = set(outcomes.loc[outcomes["outcome"].eq("valid"), "key"])
    return requests["key"].isin(valid | (set(outcomes["key"]) - unfinished))


def _labelled(study: Study) -> set[str]:
    """The items with gold labels; what is wrong with the file is for notebook 05 to say."""
    path = Path(study.folder) / "gold.csv"
    if not path.is_file():
        return set()
    with contextlib.suppress(StudyError):
        return {row["item"] for _, row in gold.rows(path, ["item"])}
    return set()
