"""Shares: the table of how common each value is, by votes alone, by gold alone and by both.

Decides which labels are a random sample of the items that were voted on. Refuses an interval where
they are not: labels that somebody chose say nothing of the others, however many they are.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lib import gold, words
from lib.fields import Field
from lib.gold import prevalence
from lib.gold.prevalence import NOTHING, Share
from lib.study import Study

COLUMNS = ["field", "value", "by", "n_items", "share", "low", "high"]
UNDECIDED = "(undecided)"
MEAN = "(mean)"
UNMENDED = "How common the values are by votes alone"
ENOUGH = gold.ENOUGH
_COUNTED = ("category", "boolean", "integer", "number")


class Drawn(NamedTuple):
    """Labelled items with, for each, the labelled share of its stratum; `why` says if unusable."""

    strata: pd.Series
    chances: pd.Series
    why: str = ""


def table(
    decided: pd.DataFrame, labels: pd.DataFrame, sample: pd.DataFrame | None, study: Study
) -> pd.DataFrame:
    """A row for each closed field, value and way of counting; numbers have their mean.

    `by` is votes (with the interval that knows nothing of the panel's errors), gold, or both
    (prediction-powered). Shares are of all items: where a field does not apply, no value stands.
    Undecided items are a class of their own, of which gold has none. n_items is the number of items
    behind the row. Without a random sample there is no interval, and nothing by both.
    """
    found: list[dict[str, Any]] = []
    for name, field in study.fields.items():
        if field.type in _COUNTED:
            said = decided[decided["field"].eq(name)].set_index("item")
            true = _true(labels, name, field).reindex(said.index).dropna()
            drawn = of_sample(true.index, sample, said.index)
            rows = _of_values if field.allowed else _of_number
            found += [{"field": name, **row} for row in rows(said, true, drawn, field)]
    numbers = dict.fromkeys(("share", "low", "high"), "float64")
    return pd.DataFrame(found, columns=COLUMNS).astype(numbers)


def of_sample(labelled: pd.Index, sample: pd.DataFrame | None, items: pd.Index) -> Drawn:
    """Which labelled items were drawn, and by what chances each stands for others.

    All items labelled is a sample too. Drawn items without a label are taken as missing by chance
    within their stratum.
    """
    if len(labelled) and len(labelled) == len(items):
        return Drawn(pd.Series("all", labelled), pd.Series(1.0, labelled))
    if sample is None:
        return Drawn(pd.Series(dtype="str"), pd.Series(dtype="float"), "nobody drew them at random")
    counts = sample["stratum"].value_counts()
    sizes = counts / sample.groupby("stratum")["probability"].first()
    if len(sizes) == 1:
        sizes[:] = len(items)
    mine = sample[sample["item"].isin(labelled)].set_index("item")["stratum"]
    labels = mine.value_counts().reindex(sizes.index, fill_value=0)
    why = ""
    if len(empty := labels.index[labels.eq(0)]):
        which = " or ".join(map(repr, empty[:3]))
        why = f"no drawn item of the stratum {which} is labelled yet"
    return Drawn(mine, mine.map((labels / sizes).clip(upper=1.0)), why)


def weighed(labels: pd.DataFrame, sample: pd.DataFrame | None, items: pd.Index) -> pd.DataFrame:
    """The labels by which accuracy can be measured, with the column `weight`: 1 / their chance.

    Of a stored sample only the drawn items count; their weights have the mean 1. Without one, or
    when all items are labelled, all labels count alike.
    """
    labelled = pd.Index(labels["item"].unique())
    drawn = of_sample(labelled[labelled.isin(items)], sample, items)
    if drawn.chances.empty:
        return labels.assign(weight=1.0)
    weight = 1 / drawn.chances
    kept = labels[labels["item"].isin(weight.index)]
    return kept.assign(weight=kept["item"].map(weight / weight.mean()))


def side_by_side(shares: pd.DataFrame) -> pd.DataFrame:
    """The same for people: a row a value, each way of counting in a column as text."""
    texts = shares.assign(text=[_text(row) for row in shares.itertuples()])
    wide = shares[["field", "value"]].drop_duplicates(ignore_index=True)
    names = {"votes": "votes alone (naive)", "gold": "gold alone", "both": "votes and gold"}
    for by, name in names.items():
        mine = texts[texts["by"].eq(by)].set_index(["field", "value"])["text"]
        wide[name] = mine.reindex(pd.MultiIndex.from_frame(wide[["field", "value"]])).to_numpy()
    return wide.fillna("-")


def most_common(shares: pd.DataFrame, most: int = 12) -> pd.DataFrame:
    """The rows of the most common values, by votes and by both; with the column `label`."""
    values = shares[~shares["value"].isin([UNDECIDED, MEAN]) & shares["by"].isin(["votes", "both"])]
    values = values.dropna(subset=["low"])
    best = values[values["by"].eq("both" if values["by"].eq("both").any() else "votes")]
    order = best.nlargest(most, "share")[["field", "value"]]
    shown = order.merge(values, how="left", on=["field", "value"])
    return shown.assign(label=shown["field"] + ": " + shown["value"])


def finding(shares: pd.DataFrame) -> str:
    """For how many values the votes alone give a share that gold does not allow."""
    ways = {by: rows.set_index(["field", "value"]) for by, rows in shares.groupby("by")}
    both = ways.get("both", pd.DataFrame(columns=["low", "high"])).dropna(subset=["low"])
    if both.empty:
        return f"{UNMENDED}, which gold does not correct"
    votes = ways["votes"]["share"].reindex(both.index)
    if is_census(shares):
        n_other, n = (
            int((votes - both["share"]).abs().gt(1e-9).sum()),
            words.n_of(len(both), "value"),
        )
        return f"All items are labelled; the votes alone give another share for {n_other:,} of {n}"
    n_outside = int((votes.lt(both["low"]) | votes.gt(both["high"])).sum())
    what = f"For {n_outside:,} of {words.n_of(len(both), 'value')}"
    return f"{what} gold rules out the share that the votes alone give"


def is_census(shares: pd.DataFrame) -> bool:
    """Whether people labelled every item: what they say is counted then, and nothing inferred."""
    sizes = shares.pivot(index=["field", "value"], columns="by", values="n_items")
    sizes = sizes.dropna(subset="both") if "both" in sizes else sizes.head(0)
    return len(sizes) > 0 and bool(sizes["both"].eq(sizes["votes"]).all())


def sentence(
    decided: pd.DataFrame, labels: pd.DataFrame, sample: pd.DataFrame | None, n_stale: int = 0
) -> str:
    """What the shares by gold stand on, and what they lack."""
    items = pd.Index(decided["item"].unique())
    labelled = items[items.isin(labels["item"])]
    if items.empty:
        return "No field has declared values or numbers: there are no shares."
    if labelled.empty:
        return "There is no gold: the shares by votes alone say nothing of the panel's errors."
    drawn, n = of_sample(labelled, sample, items), len(labelled)
    if n == len(items):
        return f"All {n:,} items are labelled: what gold says is counted, not estimated."
    if sample is None or drawn.chances.empty:
        what = f"Labelled: {n:,} of {words.n_of(len(items), 'item')}, which nobody drew at random:"
        what = f"{what} there is no valid interval."
        return f"{what} Draw items with sample-gold, and label those."
    said = [f"Labelled: {len(drawn.chances):,} of {words.n_of(len(sample), 'drawn item')}."]
    if len(drawn.chances) < len(sample):
        said.append("The others are taken as missing by chance: label them to be sure.")
    if n > len(drawn.chances):
        n_others = words.n_of(n - len(drawn.chances), "item")
        said.append(f"Labels on {n_others} that nobody drew do not count.")
    if n_stale:
        what = f"Labels on {words.n_of(n_stale, 'drawn text')} that changed since do not count."
        said.append(what)
    if drawn.why:
        said.append(f"There is no valid interval: {drawn.why}.")
    if len(drawn.chances) < ENOUGH:
        said.append(f"At least {ENOUGH} are recommended: these intervals are wide.")
    return " ".join(said)


def _true(labels: pd.DataFrame, name: str, field: Field) -> pd.Series:
    """What gold says of each item; an empty value where the field does not apply."""
    mine = labels[labels["field"].eq(name)].set_index("item")["value"].astype("str")
    if field.when:
        outside = labels[labels["field"].eq(field.when) & labels["value"].ne("true")]
        mine = pd.concat([mine, pd.Series("", index=outside["item"], dtype="str")])
    return mine


def _of_values(
    said: pd.DataFrame, true: pd.Series, drawn: Drawn, field: Field
) -> list[dict[str, Any]]:
    rows = []
    for value in field.allowed:
        everywhere = (said["status"].eq("decided") & said["value"].eq(value)).astype("float")
        by_gold = true.eq(value).astype("float")
        rows.append(_row(value, "votes", len(said), prevalence.of_votes(everywhere.to_numpy())))
        rows += _by_gold(value, everywhere, by_gold, drawn, prevalence.of_votes_and_gold)
    left = said["status"].isin(["tie", "no_quorum"]).astype("float")
    rows.append(_row(UNDECIDED, "votes", len(said), prevalence.of_votes(left.to_numpy())))
    return rows


def _of_number(
    said: pd.DataFrame, true: pd.Series, drawn: Drawn, field: Field
) -> list[dict[str, Any]]:
    """The mean over the items with a number; for fields that apply to all items.

    Where the panel is undecided, its mean stands in: gold corrects for that too.
    """
    if field.when:
        return []
    numbers = pd.to_numeric(said["value"].where(said["status"].eq("decided")), errors="coerce")
    known = numbers.dropna()
    reach = 1.96 * known.std(ddof=1) / math.sqrt(len(known)) if len(known) > 1 else math.nan
    mean = known.mean() if len(known) else math.nan
    rows = [_row(MEAN, "votes", len(known), Share(mean, mean - reach, mean + reach))]
    everywhere = numbers.fillna(mean if len(known) else 0.0)
    by_gold = true.astype("float")
    return rows + _by_gold(MEAN, everywhere, by_gold, drawn, prevalence.mean_of_votes_and_gold)


def _by_gold(
    value: str, said: pd.Series, true: pd.Series, drawn: Drawn, counted: Callable[..., Share]
) -> list[dict[str, Any]]:
    if true.empty:
        return []
    if drawn.why or drawn.chances.empty:
        return [_row(value, "gold", len(true), NOTHING._replace(share=float(true.mean())))]
    items = drawn.chances.index
    sampled = drawn.chances.to_numpy(), drawn.strata.to_numpy(dtype="str")
    labels, everything = true.loc[items].to_numpy(), said.to_numpy()
    gold = counted(labels, np.zeros(len(items)), np.zeros(1), *sampled)
    both = counted(labels, said.loc[items].to_numpy(), everything, *sampled)
    return [_row(value, "gold", len(items), gold), _row(value, "both", len(items), both)]


def _row(value: str, by: str, n_items: int, share: Share) -> dict[str, Any]:
    return {"value": value, "by": by, "n_items": n_items, **share._asdict()}


def _text(row: Any) -> str:  # noqa: ANN401 - a row of a table
    if math.isnan(row.share):
        return "-"
    scale, unit = (1, "") if row.value == MEAN else (100, " %")
    said, low, high = (f"{part * scale:,.1f}" for part in (row.share, row.low, row.high))
    if math.isnan(row.low):
        of = f" of {words.n_of(row.n_items, 'labelled item')}" if row.by == "gold" else ""
        return f"{said}{unit}{of}"
    return f"{said}{unit}" + ("" if low == high else f" ({low} to {high})")
