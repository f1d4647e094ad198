"""Evidence: the items, votes and quotes on which a verdict rests.

Decides which items decided: those that fit the fulfilled condition; for points and for the default,
those that fit any condition; without a verdict, those that are not decided. Quotes exist only where
the study asks for them, by a field of type text; a quote that is not in the text is marked so.
"""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import pandas as pd

from lib import verdicts
from lib.policies import Policy
from lib.study import Study
from lib.verdicts import judging

COLUMNS = ["policy", "k", "group", "condition", "item", "date", "field", "value", "status", "share"]
COLUMNS += ["votes_for", "votes_against", "abstentions", "corrected", "simulated"]
QUOTES = ["item", "field", "model", "annotator", "repeat", "quote", "in_text", "simulated"]


def behind(
    reached: pd.DataFrame,
    decided: pd.DataFrame,
    documents: pd.DataFrame,
    groups: pd.DataFrame,
    votes: pd.DataFrame,
    study: Study,
) -> pd.DataFrame:
    """One row for each verdict, item that decided it, and field that its condition looks at.

    `reached` has policy, k and group, as verdicts.parquet. votes_for, votes_against and abstentions
    name models, each with its number of votes and their weight. Items stand newest first, and one
    that fits two conditions under both; status is null for an item that nobody was asked about.
    """
    items = verdicts.items_of(documents, decided)
    rows = [
        {**place, "item": item, "field": field}
        for _, some in reached.groupby("policy", sort=False)
        for place, found, looks_at in _places(some, study, items, groups, decided)
        for item in found
        for field in study.fields
        if field in looks_at[item]
    ]
    table = pd.DataFrame(rows, columns=["policy", "k", "group", "condition", "item", "field"])
    table = table.astype({"item": "str", "field": "str"})
    said = decided.assign(corrected=decided.get("corrected", False))
    said = said[["item", "field", "value", "status", "share", "corrected", "simulated"]]
    table = table.merge(items[["item", "date"]], on="item", how="left")
    table = table.merge(said, "left", ["item", "field"])
    flags = {name: table[name].eq(True) for name in ("corrected", "simulated")}
    return table.assign(k=table["k"].astype("Int64"), **flags, **_said(table, votes))[COLUMNS]


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


def texts(
    items: Collection[str], documents: pd.DataFrame, votes: pd.DataFrame, study: Study
) -> pd.DataFrame:
    """The texts of some items for people to read, newest first: item, date, text, quotes.

    `quotes` are those of `quotes`, each once; what is not in the text is marked. A table with
    document text belongs into cells tagged `private`.
    """
    read = documents.loc[documents["item"].isin(list(items)), ["item", "date", "text"]]
    said = quotes(votes, documents, study, items)
    mark = said["in_text"].map({True: "", False: " (not in the text)"})
    lines = (said["quote"] + mark).groupby(said["item"]).agg(lambda some: "; ".join(some.unique()))
    read = read.assign(quotes=read["item"].map(lines).fillna(""))
    return read.sort_values(["date", "item"], ascending=[False, True], ignore_index=True)


def _places(
    reached: pd.DataFrame,
    study: Study,
    items: pd.DataFrame,
    groups: pd.DataFrame,
    decided: pd.DataFrame,
) -> Iterator[tuple[dict, list[str], Mapping[str, Collection[str]]]]:
    """For each verdict of one policy its deciding conditions, as `_deciding` gives them."""
    name = reached["policy"].iloc[0]
    policy = study.policies[name]
    left = ~decided["status"].isin(verdicts.SETTLED) & decided["field"].isin(policy.uses)
    open_fields = decided[left].groupby("item")["field"].agg(set).to_dict()
    pairs = zip(reached["k"], reached["group"], strict=True)
    asked = {(None if pd.isna(k) else int(k), group) for k, group in pairs}
    ks = sorted({k for k, _ in asked if k is not None})
    for sample in verdicts.samples(policy, items, groups, ks):
        if (sample.k, sample.group) in asked:
            place = {"policy": name, "k": sample.k, "group": sample.group}
            for condition, found, looks_at in _deciding(sample, policy, study, open_fields):
                yield {**place, "condition": condition}, found, looks_at


def _deciding(
    sample: verdicts.Sample,
    policy: Policy,
    study: Study,
    open_fields: Mapping[str, Collection[str]],
) -> Iterator[tuple[str, list[str], Mapping[str, Collection[str]]]]:
    """Each deciding condition with its items, and for each item the fields it looks at."""
    _, by, _ = judging.decide(policy, sample.tally, sample.limits)
    items, found = sample.marks["item"], dict(judging.conditions(policy))
    if by == judging.COVERAGE:
        lacking = items[~sample.marks["known"]].tolist()
        yield by, lacking, {item: open_fields.get(item, policy.uses) for item in lacking}
        return
    for place in [by] if by in found else found:
        fields = {*found[place], *(policy.only or {})}
        fields |= {study.fields[name].when for name in fields}
        fitting = items[sample.marks[place]].tolist()
        yield place, fitting, dict.fromkeys(fitting, fields)


def _said(table: pd.DataFrame, votes: pd.DataFrame) -> dict[str, pd.Series]:
    """Who said what on the item and field of each row: three columns of words."""
    place = ["item", "field"]
    decided = table[[*place, "value"]].drop_duplicates().rename(columns={"value": "decided"})
    cast = votes.merge(decided, on=place)
    spoke = cast["abstained"].isna()
    cast["column"] = np.where(spoke, "votes_against", "abstentions")
    cast.loc[spoke & cast["value"].eq(cast["decided"]), "column"] = "votes_for"
    cast["word"] = cast["value"].where(spoke, cast["abstained"]).astype("str") + ": "
    cast.loc[cast["column"].eq("votes_for"), "word"] = ""
    by_model = cast.groupby([*place, "column", "word", "model"])["weight"].agg(["size", "sum"])
    pairs = zip(by_model.index.get_level_values("model"), *by_model.to_numpy().T, strict=True)
    names = [
        f"{model} x {n:.0f}" + (f" (weight {weight:.3g})" if weight else "")
        for model, n, weight in pairs
    ]
    by_word = pd.Series(names, by_model.index, dtype="str").groupby([*place, "column", "word"])
    words = by_word.agg(", ".join).reset_index("word", name="models")
    lines = (words["word"] + words["models"]).groupby([*place, "column"]).agg("; ".join)
    keys = pd.MultiIndex.from_frame(table[place])
    return {
        name: lines.xs(name, level="column").reindex(keys).fillna("").to_numpy()
        if name in lines.index.get_level_values("column")
        else ""
        for name in ("votes_for", "votes_against", "abstentions")
    }


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
