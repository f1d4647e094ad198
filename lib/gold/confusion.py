"""Confusion: which value is taken for which, by each annotator alone and by the panel, on gold.

Decides nothing. What is not decided stands beside the values, never among them: a tie or a missing
quorum is `(undecided)`, and a condition that is not decided as true `(does not apply)`.
"""

import pandas as pd

from lib import consensus, gold
from lib.study import Study

PANEL = "panel"
UNDECIDED, OUTSIDE = "(undecided)", "(does not apply)"
_PLACE = ["item", "field"]
_DECIDED = [*_PLACE, "status", "value", "candidates"]


def table(
    votes: pd.DataFrame, decided: pd.DataFrame, labels: pd.DataFrame, study: Study
) -> pd.DataFrame:
    """How often each says what of labels with each true value: who, field, true, said, n.

    `decided` is the consensus before corrections, `labels` are gold. Fields of declared values; an
    annotator's repeats vote among themselves. The panel comes first, values in schema order.
    """
    true = closed(labels, study)
    voices = {PANEL: decided, **alone(votes, study, true)}
    parts = []
    for place, (who, one) in enumerate(voices.items()):
        said = one.set_index(_PLACE).reindex(true.index)
        outside = said["status"].eq("not_applicable")
        words = said["value"].astype(object).fillna(UNDECIDED).mask(outside, OUTSIDE)
        columns = {"who": who, "place": place, "true": true, "said": words}
        parts.append(pd.DataFrame(columns, index=true.index).reset_index())
    rows = pd.concat(parts, ignore_index=True)
    counts = rows.groupby(["place", "who", "field", "true", "said"]).size().reset_index(name="n")
    order = {name: place for place, name in enumerate(study.fields)}
    places = {
        (name, value): place
        for name in order
        for place, value in enumerate(columns_of(study, name))
    }
    counts = counts.assign(
        a=counts["field"].map(order),
        b=[places[pair] for pair in zip(counts["field"], counts["true"], strict=True)],
        c=[places[pair] for pair in zip(counts["field"], counts["said"], strict=True)],
    )
    counts = counts.sort_values(["place", "a", "b", "c"], ignore_index=True)
    return counts[["who", "field", "true", "said", "n"]]


def columns_of(study: Study, field: str) -> list[str]:
    """What can be said of a field: its values in schema order, then what is no value."""
    return [*study.fields[field].allowed, UNDECIDED, OUTSIDE]


def closed(labels: pd.DataFrame, study: Study) -> pd.Series:
    """The true values of labels on fields with declared values, by item and field, sorted."""
    fields = [name for name, field in study.fields.items() if field.allowed]
    rows = labels[labels["field"].isin(fields)]
    return rows.set_index(_PLACE)["value"].sort_index().astype(object)


def alone(votes: pd.DataFrame, study: Study, true: pd.Series) -> dict[str, pd.DataFrame]:
    """What each annotator alone decides on the items that have labels: item, field, status, value,
    candidates.

    Those with as many repeats are counted in one go: as one of them, each on items of its own.
    """
    said = votes[votes["item"].isin(true.index.get_level_values("item"))]
    alike: dict[int, list[str]] = {}
    for name, one in study.annotators.items():
        alike.setdefault(one.repeats, []).append(name)
    found = {}
    for names in alike.values() if len(true) else ():
        mine = said[said["annotator"].isin(names)]
        own = mine["annotator"].map({name: f"{n} " for n, name in enumerate(names)}) + mine["item"]
        whole = mine.assign(item=own, annotator=names[0])
        decided = consensus.decide(whole, gold.alone_on(study, names[0]))
        who, item = (decided["item"].str.partition(" ")[n] for n in (0, 2))
        decided = decided.assign(item=item)[_DECIDED]
        found |= {name: decided[who.eq(str(n))] for n, name in enumerate(names)}
    return {name: found[name] for name in study.annotators if name in found}
