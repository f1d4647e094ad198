"""Savings: what it costs less not to ask for votes that cannot matter, expected and real.

Only reads. What is expected rests on the pilot where its answers are in, else on a stated prior.
"""

import pandas as pd

from lib import asking, collect, decisive, ranges, said
from lib.decisive import bounds, waves
from lib.ranges import Rows
from lib.runs import Run
from lib.study import Study


def expected(run: Run, requests: pd.DataFrame) -> pd.DataFrame:
    """By annotator, what all votes cost and what decisive ones are expected to, in any study.

    Columns: annotator, n_requests, n_expected, all_usd, expected_usd, rests_on.
    """
    usd_of = asking.prices(run.study, requests, collect.outcomes(run))
    sample, items = _pilot(run, requests), requests["item"].drop_duplicates()
    plan = waves.choose(run.study, usd_of, sample)
    full = asking.items_in_full(run, items)
    is_pilot_alone = _may_spare(run.study) and not asking.is_decisive(run.study)
    n_full = run.study.voting.pilot if is_pilot_alone else len(full)
    voting = run.study.voting.model_copy(update={"pilot": n_full})
    study = run.study.model_copy(update={"voting": voting})
    table = decisive.expected(study, usd_of, len(items), plan, sample)
    return table.assign(rests_on="a stated prior" if sample is None else "the pilot")


def plans(run: Run, requests: pd.DataFrame) -> pd.DataFrame:
    """The cheapest plan for each number of waves, and the one that is chosen; none with alarms."""
    usd_of = asking.prices(run.study, requests, collect.outcomes(run))
    table = waves.plans(run.study, usd_of, _pilot(run, requests)).drop(columns="plan")
    return table if _may_spare(run.study) else table.iloc[:0]


def sentence(run: Run, table: pd.DataFrame) -> str:
    """What the study does about votes that cannot matter, from the table of `expected`."""
    if not _may_spare(run.study):
        return "Every vote is asked: with `mode: alarm` each of them may raise an alarm."
    is_full = table["n_expected"].round(9).eq(table["n_requests"]).all()
    share = 1 - table["expected_usd"].sum() / max(table["all_usd"].sum(), 1e-12)
    less = f"{100 * share:.0f} % less is expected, by {table['rests_on'].iloc[0]}"
    if not asking.is_decisive(run.study):
        return f"Every vote is asked. With `ask: decisive`, {less}."
    if is_full:
        why = "the pilot and the labelled items are all there are, or every vote counts"
        return f"No vote is expected to be spared, though the study says `ask: decisive`: {why}."
    return f"Votes that cannot matter are spared: {less}."


def real(run: Run) -> pd.DataFrame:
    """By annotator, the requests that were spared and what they would have cost, each as much as
    the mean of those that were asked.

    Columns: annotator, n_requests, n_spared, spend_usd, saved_usd.
    """
    requests = run.table("requests").drop_duplicates("key")
    spared = requests["key"].isin(asking.spared(run))
    outcomes = collect.outcomes(run)[["key", "spend_usd"]].merge(requests, on="key")
    spend = outcomes.groupby("annotator")["spend_usd"].sum()
    n_asked = outcomes.groupby("annotator")["key"].nunique()
    table = pd.DataFrame({"n_requests": requests.groupby("annotator").size()})
    table["n_spared"] = spared.groupby(requests["annotator"]).sum()
    table["spend_usd"] = spend.reindex(table.index).fillna(0.0)
    mean = (spend / n_asked).reindex(table.index).fillna(0.0)
    return table.assign(saved_usd=mean * table["n_spared"]).reset_index()


def replayed(run: Run, ballots: pd.DataFrame) -> pd.DataFrame:
    """What decisive voting would have asked in a run that has all votes: `decisive.replay`.

    Nothing where votes were spared, and with alarms, which all votes may raise.
    """
    requests = run.table("requests")
    usd_of = asking.prices(run.study, requests, collect.outcomes(run))
    pilot = asking.pilot_items(run.study, requests["item"])
    is_whole = _may_spare(run.study) and not ballots["abstained"].eq("settled").any()
    table = decisive.replay(ballots if is_whole else ballots.iloc[:0], run.study, usd_of, pilot)
    return table if is_whole else table.iloc[:0]


def marked(run: Run, decided: pd.DataFrame, votes: Rows) -> pd.DataFrame:
    """The consensus with what sparing means for it: `n_spared` votes of each item and field, and
    `margin_low`, the smallest margin that they could have left; the status would be the same.

    Unchanged where all votes are asked.
    """
    if not asking.is_decisive(run.study):
        return decided
    place, ballots = ["item", "field"], ranges.read(votes)
    is_spared = ballots["abstained"].eq("settled")
    counts = is_spared.groupby([ballots[name] for name in place]).sum().rename("n_spared")
    table = decided.merge(counts.reset_index(), on=place, how="left")
    there = ballots[ballots["item"].isin(set(ballots.loc[is_spared, "item"]))]
    if there.empty:
        return table.assign(margin_low=table["margin"])
    table = table.merge(bounds.margins(there, run.study), on=place, how="left")
    table["margin_low"] = table["margin_low"].where(table["n_spared"].gt(0), table["margin"])
    return table


def _may_spare(study: Study) -> bool:
    """Whether the study could spare votes, if it wanted to."""
    return study.panels[study.panel].mode == "vote"


def _pilot(run: Run, requests: pd.DataFrame) -> pd.DataFrame | None:
    """The votes of the pilot's items that have all of them, if these are most of the pilot."""
    if not asking.is_decisive(run.study):
        return None
    pilot = asking.pilot_items(run.study, requests["item"])
    outcomes = collect.outcomes(run)
    valid = outcomes.loc[outcomes["outcome"].eq("valid"), "key"]
    mine = requests[requests["item"].isin(pilot) & requests["key"].isin(valid)]
    whole = mine[mine.groupby("item")["key"].transform("size").eq(run.study.n_votes)]
    is_enough = whole["item"].nunique() >= max(1, asking.PILOT_SHARE * len(pilot))
    return said.votes_of(run, whole) if is_enough else None
