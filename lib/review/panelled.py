"""Panelled tasks: what the panel says of items, as Label Studio shows it to people.

Decides what a task tells: the text, the values that are decided, every place where an elected name
stands, and what a correction must know of them. A name that stands nowhere in the text cannot be
shown there; the task names it, and it stays unless a file of corrections says otherwise.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

import pandas as pd

from lib.entities import places
from lib.fields import Field
from lib.gold import labelstudio
from lib.gold.labelstudio import Mark

REASON = "_reason"  # the name of the box there; a field's name begins with a letter


def tasks(
    documents: pd.DataFrame,
    decided: pd.DataFrame,
    named: pd.DataFrame,
    fields: Mapping[str, Field],
    provenance: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """A task for each of the documents, in their order, with the panel's answer as prediction.

    `provenance` goes into the data of each task; its `model_version` names the prediction.
    data.original has what is decided by field, data.not_in_text the elected names without a place.
    """
    values = dict(list(decided.groupby("item")))
    names = dict(list(named[named["elected"].astype(bool)].groupby("item")))
    said = {"model_version": provenance.get("model_version", "panel")}
    for document in documents.to_dict("records"):
        item, text = document["item"], document["text"]
        mine = values.get(item, decided.head(0))
        marks, lost = _names(text, names.get(item, named.head(0)))
        original = _original(mine, names.get(item, named.head(0)), fields)
        closed = mine[mine["value"].notna() & ~mine["field"].isin(_lists(fields))]
        marks += [Mark(*row) for row in zip(closed["field"], closed["value"], strict=True)]
        results = [labelstudio.result(mark, fields[mark.field], text) for mark in marks]
        task = labelstudio.tasks(pd.DataFrame([document]), {item: results})[0]
        simulated = bool(mine["simulated"].any())
        more = {"original": original, "not_in_text": lost, "simulated": simulated}
        yield {
            "data": {**task["data"], **more, **provenance},
            "predictions": [{**said, **task["predictions"][0]}],
        }


def config(fields: Mapping[str, Field]) -> str:
    """The labelling interface of `labelstudio`, with a box for the reason of a change."""
    view = ElementTree.fromstring(labelstudio.config(fields))  # noqa: S314 - our own text
    words = "Why did you change anything? Every change needs a reason."
    ElementTree.SubElement(view, "Header", value=words, size="5")
    box = {"name": REASON, "toName": labelstudio.TEXT, "maxSubmissions": "1"}
    ElementTree.SubElement(view, "TextArea", box)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _names(text: str, named: pd.DataFrame) -> tuple[list[Mark], dict[str, list[str]]]:
    """Every place of every elected name, and the names that have none, by field."""
    found = places.find(text, set(named["key"]))
    marks: list[Mark] = []
    lost: dict[str, list[str]] = {}
    for row in named.sort_values(["field", "key"]).itertuples(index=False):
        there = found[row.key]
        marks += [Mark(row.field, text[start:end], start, end) for start, end in there]
        if not there:
            lost.setdefault(row.field, []).append(row.name)
    return marks, lost


def _original(
    decided: pd.DataFrame, named: pd.DataFrame, fields: Mapping[str, Field]
) -> dict[str, str]:
    """What is decided on each field, as files of corrections write it."""
    lists = _lists(fields)
    values = {
        row.field: (row.value if isinstance(row.value, str) else "") for row in decided.itertuples()
    }
    for name in lists & set(values):
        spelled = named[named["field"].eq(name)].sort_values("key")["name"].tolist()
        values[name] = json.dumps(spelled, ensure_ascii=False) if values[name] else ""
    return values


def _lists(fields: Mapping[str, Field]) -> set[str]:
    return {name for name, field in fields.items() if field.type == "entities"}
