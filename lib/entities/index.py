"""Index: the elected names over the whole corpus, equal names of one field together.

A name is no being: all Richards of a corpus are one row. What speaks against it stays there with
its documents, and nothing is merged that is not equal.
"""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import orjson
import pandas as pd

from lib.entities import attributes, duplicates
from lib.study import Study

_COLUMNS = ["field", "key", "name", "n_mentions", "n_items", "n_documents", "n_places"]
_COLUMNS += ["attributes", "losing_values", "conflicting", "spellings", "documents", "aliases"]
_COLUMNS += ["possible_duplicates", "simulated"]
_READ = ["field", "key", "document", "name", "n_votes", "n_places", "attributes", "simulated"]
_TEXTS = [name for name in _COLUMNS if not name.startswith("n_") and name != "simulated"]
MOST_LISTED = 20


def merge(entities: pd.DataFrame, documents: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The index of elected entities over the corpus, a row a field and key, most mentioned first.

    n_mentions counts votes in items that elected it. Attributes are what most mentions say among
    those that say anything; all else stands in losing_values with its mentions. conflicting: whole
    numbers and declared values that documents give differently, {attribute: [[value, documents]]},
    which two namesakes would explain. spellings with their mentions. aliases: longer or shorter
    keys that a shared document shows to be likely the same. possible_duplicates: keys whose words
    hold this key's words or the reverse, or that are one letter apart. Lists have at most 20.
    """
    known = documents.set_index("item")["document"]
    elected = entities[entities["elected"]]
    elected = elected.assign(document=elected["item"].map(known))
    # A name that a person added was looked for in no text.
    n_places = elected["n_places"].fillna(0) if "n_places" in elected else 0
    elected = (
        elected.assign(n_places=n_places)
        .astype({"n_places": "int64"})
        .sort_values(["field", "key", "document", "item"])
    )
    said = zip(*(elected[name].tolist() for name in _READ), strict=True)
    telling = _telling(study)
    rows = []
    for field, of_field in itertools.groupby(said, lambda row: row[0]):
        names = itertools.groupby(of_field, lambda row: row[1])
        found = [
            _indexed(field, key, list(group), telling.get(field, set())) for key, group in names
        ]
        rows += _with_likes(found)
    table = pd.DataFrame(rows, columns=_COLUMNS).astype(dict.fromkeys(_TEXTS, "string"))
    order = ["field", "n_mentions", "key"]
    return table.sort_values(order, ascending=[True, False, True], ignore_index=True)


def _indexed(field: str, key: str, rows: list[tuple], telling: Collection[str]) -> dict[str, Any]:
    """One name; rows as in _READ."""
    spelled: Counter[str] = Counter()
    said: dict[str, list[tuple[Any, int, str]]] = defaultdict(list)
    for _, _, document, name, n_votes, _, text, _ in rows:
        spelled[name] += n_votes
        for attribute, value in orjson.loads(text).items():
            stated = said[attribute]
            if value is not None:
                stated.append((value, n_votes, document))
    chosen, losing, against = {}, {}, {}
    for attribute, values in sorted(said.items()):
        chosen[attribute], losing[attribute] = _over_corpus([one[:2] for one in values])
        against[attribute] = _contradiction(values) if attribute in telling else []
    listed = sorted({row[2] for row in rows})
    return {
        "field": field,
        "key": key,
        "name": attributes.spelling(spelled),
        "n_mentions": sum(row[4] for row in rows),
        "n_items": len(rows),
        "n_documents": len(listed),
        "n_places": sum(row[5] for row in rows),
        "attributes": _json(chosen),
        "losing_values": _json({k: v for k, v in losing.items() if v}),
        "conflicting": _json({k: v for k, v in against.items() if v}),
        "spellings": _json(dict(sorted(spelled.items(), key=lambda one: (-one[1], one[0])))),
        "documents": listed,
        "simulated": any(row[7] for row in rows),
    }


def _over_corpus(values: list[tuple[Any, int]]) -> tuple[Any, list]:
    """The value of an attribute over all items, and [value, mentions] of those that lost.

    Lists are united: their members can all be true.
    """
    if len(values) < 2 and not (values and isinstance(values[0][0], list)):
        return (values[0][0] if values else None), []
    tallies = attributes.tally(values)
    ranked = sorted(
        ((n, value) for n, value in tallies.values()), key=lambda one: (-one[0], str(one))
    )
    if any(isinstance(value, list) for value, _ in values):
        return [value for _, value in ranked], []
    winner = attributes.leader(tallies)
    return winner, [[value, n] for n, value in ranked if value != winner]


def _contradiction(values: list[tuple[Any, int, str]]) -> list:
    """[value, documents] of each value, the most documented first, when there are several."""
    spoken: dict[str, tuple[Any, set[str]]] = {}
    for value, _, document in values:
        spoken.setdefault(attributes.same(value), (value, set()))[1].add(document)
    if len(spoken) < 2:
        return []
    ranked = sorted(spoken.values(), key=lambda one: (-len(one[1]), str(one[0])))
    return [[value, sorted(where)[:MOST_LISTED]] for value, where in ranked]


def _telling(study: Study) -> dict[str, set[str]]:
    """By field the attributes of which a being has one alone: whole numbers, declared values."""
    return {
        name: {
            attribute
            for attribute, one in field.attributes.items()
            if one.type == "integer" or one.values
        }
        for name, field in study.fields.items()
    }


def _with_likes(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The names of one field with their aliases and possible duplicates."""
    where = {row["key"]: row["documents"] for row in rows}
    larger = duplicates.containing(where)
    likely = _both_ways(duplicates.aliases(where, larger))
    maybe = _both_ways(larger)
    near = duplicates.one_letter_apart(where)
    for row in rows:
        key = row["key"]
        alike = maybe[key] | near.get(key, set())
        told = {"aliases": likely[key], "possible_duplicates": alike, "documents": where[key]}
        yield row | {name: _json(sorted(some)[:MOST_LISTED]) for name, some in told.items()}


def _both_ways(found: Mapping[str, set[str]]) -> dict[str, set[str]]:
    both = {key: set(others) for key, others in found.items()}
    for key, others in found.items():
        for other in others:
            both[other].add(key)
    return both


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
