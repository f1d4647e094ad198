"""Election: which names the votes on an item elect, how they are written, what is said of them."""

import itertools
import json
import operator
from collections import Counter

import numpy as np
import pandas as pd

from lib import consensus, ranges, weights
from lib.entities import attributes
from lib.ranges import Rows
from lib.study import Study

_ENTITY = ["item", "field", "key"]
_COLUMNS = {**dict.fromkeys(_ENTITY, "str"), "name": "string", "share": "float64"}
_COLUMNS |= {"n_votes": "int64", "elected": "bool", "status": "string", "attributes": "string"}
_COLUMNS |= {"simulated": "bool"}


def elect(mentions: Rows, votes: Rows, study: Study) -> pd.DataFrame:
    """Every name that an answer gives, and whether it is elected; a row an item, field and key.

    status: elected, below_threshold, no_quorum (of the item), or not_applicable (the field's `when`
    is not decided as true). The name is the most frequent
    spelling (ties: first in the alphabet). A scalar attribute is what most weight says among those
    who name it, null included, and null in a tie; a list keeps the members that more than half of
    that weight has.
    """
    if not any(field.type == "entities" for field in study.fields.values()):
        return pd.DataFrame(columns=list(_COLUMNS)).astype(_COLUMNS)
    table = voted(votes, study)
    said = ranges.read(mentions)
    scale = weights.of_annotators(study)["scale"].max()
    # An answer that gives a name twice is one vote: its first mention speaks.
    first = said[said["n"].eq(0)].sort_values([*_ENTITY, "annotator", "repeat"])
    units = (first["weight"] * scale).round().astype("int64")
    columns = [first[name].tolist() for name in [*_ENTITY, "name", "attributes"]]
    said_by = zip(*columns, units.tolist(), strict=True)
    rows = []
    for key, votes_for in itertools.groupby(said_by, operator.itemgetter(0, 1, 2)):
        names, texts, weighing = zip(*(row[3:] for row in votes_for), strict=True)
        spelled = attributes.spelling(Counter(names))
        rows.append((*key, spelled, attributes.described(texts, weighing)))
    described = pd.DataFrame(rows, columns=[*_ENTITY, "name", "attributes"]).astype("string")
    table = table.merge(described, on=_ENTITY, how="left", validate="one_to_one")
    named = table["name"].fillna(table["key"])
    table = table.assign(name=named, attributes=table["attributes"].fillna("{}"))
    return table[list(_COLUMNS)].astype(_COLUMNS)


def voted(votes: Rows, study: Study) -> pd.DataFrame:
    """Every name that a vote gives, by its key alone; columns as `elect` but for what is said."""
    table = consensus.elected(votes, study)
    reached = np.where(table["quorum"], "below_threshold", "no_quorum")
    reached = np.where(table["applies"], reached, "not_applicable")
    status = np.where(table["elected"], "elected", reached)
    return table.drop(columns=["quorum", "applies"]).assign(status=pd.array(status, dtype="string"))


def listed(decided: pd.DataFrame, named: pd.DataFrame) -> pd.DataFrame:
    """The consensus with the names that are elected after overlaps as the value of entity lists.

    Rows that are no decided entity list stay as they are.
    """
    if named.empty:
        return decided
    elected = named[named["elected"]].sort_values("key").groupby(["item", "field"])["key"].agg(list)
    lists = elected.map(lambda keys: json.dumps(keys, ensure_ascii=False, separators=(",", ":")))
    fields = set(named["field"])
    mine = decided["status"].eq("decided") & decided["field"].isin(fields)
    places = pd.MultiIndex.from_frame(decided.loc[mine, ["item", "field"]])
    values = decided["value"].copy()
    values[mine] = lists.reindex(places, fill_value="[]").to_numpy()
    return decided.assign(value=values)
