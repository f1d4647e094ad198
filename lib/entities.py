"""Entities: from the names in answers to elected names per item, and to an index of the corpus.

Decides which names are elected, how they are written and what is known about them. Refuses to take
equal names for one being without a trace: what lost, where it came from and what may be a duplicate
stay in the table.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lib import consensus, weights
from lib import votes as ballots
from lib.study import Study

_ENTITY = ["item", "field", "key"]
_COLUMNS = [*_ENTITY, "name", "share", "n_votes", "elected", "attributes", "simulated"]
_INDEX = ["field", "key", "name", "n_mentions", "n_items", "n_documents", "attributes"]
_INDEX += ["losing_values", "documents", "possible_duplicates", "simulated"]
MOST_LISTED = 20


def elect(mentions: Path | pd.DataFrame, votes: Path | pd.DataFrame, study: Study) -> pd.DataFrame:
    """Every name that an answer gives, and whether it is elected; a row an item, field and key.

    The name is the most frequent spelling (ties: first in the alphabet). A scalar attribute is what
    most weight says among those who name it, null included, and null in a tie; a list keeps the
    members that more than half of that weight has.
    """
    table = consensus.elected(votes, study)
    said = pd.read_parquet(mentions) if isinstance(mentions, Path) else mentions
    scale = weights.of_annotators(study)["scale"].max()
    # An answer that gives a name twice is one vote: its first mention speaks.
    first = said[said["n"].eq(0)]
    first = first.assign(units=(first["weight"] * scale).round().astype("int64"))
    rows = [
        (*key, _spelling(Counter(group["name"])), _described(group["attributes"], group["units"]))
        for key, group in first.groupby(_ENTITY)
    ]
    described = pd.DataFrame(rows, columns=[*_ENTITY, "name", "attributes"]).astype("string")
    table = table.merge(described, on=_ENTITY, how="left", validate="one_to_one")
    named = table["name"].fillna(table["key"])
    return table.assign(name=named, attributes=table["attributes"].fillna("{}"))[_COLUMNS]


def merge(entities: pd.DataFrame, documents: pd.DataFrame) -> pd.DataFrame:
    """The index of elected entities over the corpus, a row a field and key, most mentioned first.

    n_mentions counts votes in items that elected it. Attributes are what most mentions say among
    those that say anything; all else stands in losing_values with its mentions. documents lists at
    most 20; possible_duplicates at most 20 keys whose words hold this key's words or the reverse.
    """
    known = documents.set_index("item")["document"]
    elected = entities[entities["elected"]].assign(document=lambda table: table["item"].map(known))
    rows = [_indexed(*key, group) for key, group in elected.groupby(["field", "key"])]
    table = pd.DataFrame(rows, columns=[name for name in _INDEX if name != "possible_duplicates"])
    alike = {name: _alike(group["key"]) for name, group in table.groupby("field")}
    pairs = zip(table["field"], table["key"], strict=True)
    table["possible_duplicates"] = [json.dumps(alike[field][key]) for field, key in pairs]
    order = ["field", "n_mentions", "key"]
    table = table.sort_values(order, ascending=[True, False, True], ignore_index=True)
    return table[_INDEX]


def score(entities: pd.DataFrame, gold: pd.DataFrame) -> pd.DataFrame:
    """Precision, recall and F1 of elected names on the items that have gold, strict and relaxed.

    Strict: equal keys. Relaxed: the words of one are all among the words of the other. `gold` has
    item, field, value; an empty value says that the item has none. Columns: field, match, n_items,
    n_gold, n_found, n_right, precision, recall, f1; n_right counts found names.
    """
    elected = entities[entities["elected"]]
    found = elected.groupby(["item", "field"])["key"].agg(set).to_dict()
    keys = gold.assign(key=gold["value"].fillna("").map(ballots.entity_key))
    true = keys.groupby(["field", "item"])["key"].agg(lambda names: set(names) - {""})
    rows = []
    for field, of_field in true.groupby(level="field"):
        pairs = [(found.get((item, field), set()), names) for (_, item), names in of_field.items()]
        rows += [_scored(field, pairs, match) for match in ("strict", "relaxed")]
    return pd.DataFrame(rows)


def _scored(field: str, pairs: list[tuple[set, set]], match: str) -> dict[str, Any]:
    n_gold, n_found = sum(len(true) for _, true in pairs), sum(len(found) for found, _ in pairs)
    n_right = sum(_n_matched(found, true, match) for found, true in pairs)
    n_recalled = sum(_n_matched(true, found, match) for found, true in pairs)
    precision = n_right / n_found if n_found else float("nan")
    recall = n_recalled / n_gold if n_gold else float("nan")
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    counts = {"n_items": len(pairs), "n_gold": n_gold, "n_found": n_found, "n_right": n_right}
    shares = {"precision": precision, "recall": recall, "f1": f1}
    return {"field": field, "match": match, **counts, **shares}


def _n_matched(names: set[str], others: set[str], match: str) -> int:
    """How many of `names` have a match among `others`."""
    if match == "strict":
        return len(names & others)
    words = [set(other.split()) for other in others]
    return sum(any(_holds(set(name.split()), other) for other in words) for name in names)


def _holds(one: set[str], other: set[str]) -> bool:
    return one <= other or other <= one


def _spelling(counts: Mapping[str, int]) -> str:
    return min(counts, key=lambda name: (-counts[name], name))


def _described(texts: Iterable[str], units: Iterable[int]) -> str:
    """The attributes that the votes give an entity, as a JSON object."""
    votes = [(json.loads(text), unit) for text, unit in zip(texts, units, strict=True)]
    names = sorted({name for attributes, _ in votes for name in attributes})
    total = sum(unit for _, unit in votes)
    chosen = {}
    for name in names:
        values = [(attributes.get(name), unit) for attributes, unit in votes]
        lists = any(isinstance(value, list) for value, _ in values)
        tallies = _tally(values)
        chosen[name] = _members(tallies, total) if lists else _leader(tallies)
    return json.dumps(chosen, ensure_ascii=False, sort_keys=True)


def _tally(values: Iterable[tuple[Any, int]]) -> dict[str, tuple[int, Any]]:
    """Weight and spelling of each value; a list speaks for each of its members once."""
    weight: dict[str, int] = defaultdict(int)
    spelled: dict[str, Counter] = defaultdict(Counter)
    for value, unit in values:
        members = value if isinstance(value, list) else [value]
        for same, member in {_same(member): member for member in members}.items():
            weight[same] += unit
            spelled[same][json.dumps(member, ensure_ascii=False)] += unit
    return {same: (weight[same], json.loads(_spelling(spelled[same]))) for same in weight}


def _same(value: object) -> str:
    """What makes two attribute values one: the key of a text, the value of a number."""
    if isinstance(value, str):
        return "text " + ballots.entity_key(value)
    return json.dumps(float(value) if isinstance(value, int) else value, sort_keys=True)


def _leader(tallies: Mapping[str, tuple[int, Any]]) -> object:
    most = max(weight for weight, _ in tallies.values())
    leaders = [value for weight, value in tallies.values() if weight == most]
    return leaders[0] if len(leaders) == 1 else None


def _members(tallies: Mapping[str, tuple[int, Any]], total: int) -> list:
    kept = [value for weight, value in tallies.values() if 2 * weight > total]
    return sorted((value for value in kept if value is not None), key=str)


def _indexed(field: str, key: str, group: pd.DataFrame) -> dict[str, Any]:
    spelled = Counter()
    said: dict[str, list[tuple[Any, int]]] = defaultdict(list)
    for name, text, n_votes in zip(
        group["name"], group["attributes"], group["n_votes"], strict=True
    ):
        spelled[name] += n_votes
        for attribute, value in json.loads(text).items():
            said[attribute].append((value, n_votes))
    chosen, losing = {}, {}
    for attribute, values in sorted(said.items()):
        chosen[attribute], losing[attribute] = _over_corpus(values)
    listed = sorted(set(group["document"]))
    return {
        "field": field,
        "key": key,
        "name": _spelling(spelled),
        "n_mentions": int(group["n_votes"].sum()),
        "n_items": len(group),
        "n_documents": len(listed),
        "attributes": json.dumps(chosen, ensure_ascii=False),
        "losing_values": json.dumps({k: v for k, v in losing.items() if v}, ensure_ascii=False),
        "documents": json.dumps(listed[:MOST_LISTED], ensure_ascii=False),
        "simulated": bool(group["simulated"].any()),
    }


def _over_corpus(values: list[tuple[Any, int]]) -> tuple[Any, list]:
    """The value of an attribute over all items, and [value, mentions] of those that lost.

    Lists are united: their members can all be true.
    """
    stated = [(value, n) for value, n in values if value is not None]
    tallies = _tally(stated)
    ranked = sorted(
        ((n, value) for n, value in tallies.values()), key=lambda one: (-one[0], str(one))
    )
    if any(isinstance(value, list) for value, _ in stated):
        return [value for _, value in ranked], []
    winner = _leader(tallies) if tallies else None
    return winner, [[value, n] for n, value in ranked if value != winner]


def _alike(keys: Iterable[str]) -> dict[str, list[str]]:
    """For each key those of the others whose words hold its words, or are held by them."""
    words = {key: frozenset(key.split()) for key in keys}
    having: dict[str, set[str]] = defaultdict(set)
    for key, some in words.items():
        for word in some:
            having[word].add(key)
    found: dict[str, set[str]] = defaultdict(set)
    for key, some in words.items():
        for larger in set.intersection(*(having[word] for word in some)) - {key}:
            found[key].add(larger)
            found[larger].add(key)
    return {key: sorted(found[key])[:MOST_LISTED] for key in words}
