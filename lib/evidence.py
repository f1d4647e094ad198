"""Evidence: the items, votes and quotes on which a verdict rests.

Decides which items decided: those that fit the fulfilled condition; for points and for the default,
those that fit any condition; without a verdict, those that are not decided. Quotes exist only where
the study asks for them, by a field of type text; a quote that is not in the text is marked so.
"""

from collections.abc import Collection, Iterator, Mapping

import pandas as pd

from lib import judging, verdicts
from lib.policies import Policy
from lib.study import Study

COLUMNS = ["condition", "item", "date", "field", "value", "status", "share", "votes_for"]
COLUMNS += ["votes_against", "abstentions", "corrected", "simulated"]
QUOTES = ["item", "field", "model", "annotator", "repeat", "quote", "in_text", "simulated"]


def behind(
    verdict: Mapping[str, object],
    decided: pd.DataFrame,
    documents: pd.DataFrame,
    groups: pd.DataFrame,
    votes: pd.DataFrame,
    study: Study,
) -> pd.DataFrame:
    """One row for each item that decided a verdict and each field that its condition looks at.

    `verdict` is a row with policy, k and group. votes_for, votes_against and abstentions name
    models, each with its number of votes and their weight. Items stand newest first, and one that
    fits two conditions under both; status is null for an item that nobody was asked about.
    """
    policy = study.policies[verdict["policy"]]
    ks = [] if pd.isna(verdict["k"]) else [verdict["k"]]
    items = verdicts.items_of(documents, decided)
    samples = {one.group: one for one in verdicts.samples(policy, items, groups, ks)}
    rows = [
        {"condition": place, "item": item, "field": field}
        for place, found, looks_at in _deciding(samples[verdict["group"]], policy, decided, study)
        for item in found
        for field in study.fields
        if field in looks_at[item]
    ]
    table = pd.DataFrame(rows, columns=["condition", "item", "field"], dtype="str")
    said = decided.assign(corrected=decided.get("corrected", False))
    said = said[["item", "field", "value", "status", "share", "corrected", "simulated"]]
    table = table.merge(items[["item", "date"]], on="item").merge(said, "left", ["item", "field"])
    flags = {name: table[name].eq(True) for name in ("corrected", "simulated")}
    cast = votes[votes["item"].isin(table["item"])]
    by_place = dict(list(cast.groupby(["item", "field"])))
    cells = [
        _cells(by_place.get((row.item, row.field), votes.head(0)), row.value)
        for row in table.itertuples()
    ]
    words = pd.DataFrame(cells, columns=["votes_for", "votes_against", "abstentions"], dtype="str")
    return table.assign(**flags).join(words)[COLUMNS]


def behind_first(
    ranked: pd.DataFrame,
    decided: pd.DataFrame,
    documents: pd.DataFrame,
    groups: pd.DataFrame,
    votes: pd.DataFrame,
    study: Study,
) -> pd.DataFrame:
    """What stands `behind` the first of some verdicts; nothing where there is none."""
    if ranked.empty:
        return pd.DataFrame(columns=COLUMNS)
    return behind(ranked.iloc[0], decided, documents, groups, votes, study)


def quotes(
    votes: pd.DataFrame, documents: pd.DataFrame, study: Study, items: Collection[str]
) -> pd.DataFrame:
    """What the votes quote from these items, for every field of type text.

    `in_text` says whether the words stand in the item's text, case and spacing ignored: models
    invent quotes too.
    """
    texts = [name for name, field in study.fields.items() if field.type == "text"]
    table = votes[votes["field"].isin(texts) & votes["item"].isin(items) & votes["value"].notna()]
    table = table[table["value"].ne("")].rename(columns={"value": "quote"})
    read = documents[documents["item"].isin(table["item"])].set_index("item")["text"].map(_plain)
    found = [_plain(one.quote) in read[one.item] for one in table.itertuples()]
    order = ["item", "field", "annotator", "repeat"]
    return table.assign(in_text=pd.Series(found, index=table.index, dtype=bool)).sort_values(
        order, ignore_index=True
    )[QUOTES]


def _deciding(
    sample: verdicts.Sample, policy: Policy, decided: pd.DataFrame, study: Study
) -> Iterator[tuple[str, list[str], Mapping[str, Collection[str]]]]:
    """Each deciding condition with its items, and for each item the fields it looks at."""
    _, by, _ = judging.decide(policy, sample.tally, sample.limits)
    items, found = sample.marks["item"], dict(judging.conditions(policy))
    if by == judging.COVERAGE:
        lacking = items[~sample.marks["known"]].tolist()
        left = ~decided["status"].isin(verdicts.SETTLED) & decided["field"].isin(policy.uses)
        open_fields = decided[left].groupby("item")["field"].agg(set)
        yield by, lacking, {item: open_fields.get(item, policy.uses) for item in lacking}
        return
    for place in [by] if by in found else found:
        fields = {*found[place], *(policy.only or {})}
        fields |= {study.fields[name].when for name in fields}
        fitting = items[sample.marks[place]].tolist()
        yield place, fitting, dict.fromkeys(fitting, fields)


def _cells(votes: pd.DataFrame, value: object) -> tuple[str, str, str]:
    """Who voted for the value, who for others, and who abstained and why."""
    spoken = votes[votes["abstained"].isna()]
    silent = votes[votes["abstained"].notna()]
    own = spoken["value"].eq(value) if isinstance(value, str) else spoken["value"].isna()
    return (
        ", ".join(_models(spoken[own])),
        "; ".join(_by_word(spoken[~own], "value")),
        "; ".join(_by_word(silent, "abstained")),
    )


def _by_word(votes: pd.DataFrame, column: str) -> Iterator[str]:
    for word, some in votes.groupby(column):
        yield f"{word}: {', '.join(_models(some))}"


def _models(votes: pd.DataFrame) -> Iterator[str]:
    for model, some in votes.groupby("model"):
        weight = some["weight"].sum()
        yield f"{model} x {len(some)}" + (f" (weight {weight:.3g})" if weight else "")


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
