"""Label Studio: tasks and a labelling interface for its users, and its JSON export read back.

Decides how fields look there: a choice for declared values, a box for numbers and texts, spans for
lists of names. Refuses an export of another form than JSON; what its labels mean for a study is
the business of `labels`.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd

from lib import yamls
from lib.fields import Field

TEXT = "_text"  # the name of the text there; a field's name begins with a letter
_DATA = ("item", "sha256", "text")
_KINDS = {"category": "choices", "boolean": "choices", "integer": "number", "number": "number"}
_KINDS |= {"text": "textarea", "entities": "labels"}


@dataclass(frozen=True)
class Mark:
    """One label: a value of a field, or a name with its place in the text, in characters."""

    field: str
    value: str
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class Annotation:
    """What one person said of one item; `marks` is empty where nothing was marked.

    `date` is the day of the last change, empty where the export has none; `data` is the task's.
    """

    item: str
    sha256: str
    who: str
    line: int
    marks: tuple[Mark, ...]
    date: str = ""
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def config(fields: Mapping[str, Field]) -> str:
    """The labelling interface as XML: each field with its description, shown when it applies."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Text", name=TEXT, value="$text")
    for name, field in fields.items():
        shown = {"visibleWhen": "choice-selected", "whenTagName": field.when or ""}
        shown["whenChoiceValue"] = "true"
        part = ElementTree.SubElement(view, "View", shown if field.when else {})
        words = f"{name}: {' '.join(field.description.split())}"
        ElementTree.SubElement(part, "Header", value=words, size="5")
        _control(part, name, field)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def tasks(
    items: pd.DataFrame, predictions: Mapping[str, list[dict[str, Any]]] | None = None
) -> list[dict[str, Any]]:
    """A task for each row of item, sha256 and text; `predictions` are results by item.

    Without predictions the task is blind: it holds nothing of what a panel said.
    """
    found = []
    for row in items[list(_DATA)].to_dict("records"):
        task: dict[str, Any] = {"data": row}
        if predictions is not None:
            task["predictions"] = [{"result": predictions.get(row["item"], [])}]
        found.append(task)
    return found


def result(mark: Mark, field: Field, text: str = "") -> dict[str, Any]:
    """A label in the form that Label Studio gives and takes; a name needs the text it stands in.

    Places are counted there in units of UTF-16, as browsers count.
    """
    kind = _KINDS[field.type]
    body: dict[str, Any] = {"from_name": mark.field, "to_name": TEXT, "type": kind}
    if kind == "labels":
        start, end = (_in_units(text, place or 0) for place in (mark.start, mark.end))
        value = {"start": start, "end": end, "text": mark.value, kind: [mark.field]}
    elif kind == "number":
        value = {kind: json.loads(mark.value)}
    else:
        value = {"choices" if kind == "choices" else "text": [mark.value]}
    return {**body, "value": value}


def read(path: Path) -> list[Annotation]:
    """The annotations of an export in the form "JSON", in its order; skipped tasks have none.

    Raises StudyError with file and line: for what is no such export, and for a label that no
    interface of `config` gives.
    """
    found = []
    for line, task in _tasks(path):
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict) or not isinstance(data.get("item"), str):
            what = "a task without data.item. Import the tasks written by sample-gold or export,"
            raise yamls.problem(path, line, f"{what} and export them as JSON (not JSON-MIN or CSV)")
        annotations = task.get("annotations")
        if not isinstance(annotations, list):
            what = f"the task of {data['item']} has no annotations. Export as JSON, annotated tasks"
            raise yamls.problem(path, line, f"{what} included.")
        given = [one for one in annotations if not _of(path, line, one).get("was_cancelled")]
        for one in given:
            marks = tuple(_marks(path, line, one.get("result"), data))
            sha256, who = str(data.get("sha256") or ""), _who(one.get("completed_by"))
            date = str(one.get("updated_at") or one.get("created_at") or "")[:10]
            found.append(Annotation(data["item"], sha256, who, line, marks, date, data))
    return found


def _control(part: ElementTree.Element, name: str, field: Field) -> None:
    kind, named = _KINDS[field.type], {"name": name, "toName": TEXT}
    if kind == "choices":
        control = ElementTree.SubElement(part, "Choices", named, choice="single", required="true")
        for value in field.allowed:
            hint = field.values[value].description if value in field.values else ""
            more = {"hint": " ".join(hint.split())} if hint else {}
            ElementTree.SubElement(control, "Choice", {"value": value, **more})
    elif kind == "number":
        bounds = {"min": field.minimum, "max": field.maximum}
        bounds = {word: f"{bound:g}" for word, bound in bounds.items() if bound is not None}
        step = {"step": "1" if field.type == "integer" else "0.001"}
        ElementTree.SubElement(part, "Number", {**named, **bounds, **step, "required": "true"})
    elif kind == "labels":
        ElementTree.SubElement(ElementTree.SubElement(part, "Labels", named), "Label", value=name)
    else:
        ElementTree.SubElement(part, "TextArea", {**named, "maxSubmissions": "1"})


def _tasks(path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON array, each with the line on which it begins."""
    text, decoder, line, at = yamls.text(path), json.JSONDecoder(), 1, 0
    at = _after_space(text, at)
    if text[at : at + 1] != "[":
        raise yamls.problem(path, 1, "no list of tasks. Export from Label Studio as JSON.")
    before, separator = 0, ","
    at = _after_space(text, at + 1)
    while text[at : at + 1] != "]" or separator == ",":
        if text[at : at + 1] == "]" and not before:
            return
        line, before = line + text.count("\n", before, at), at
        try:
            task, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise yamls.problem(path, error.lineno, f"not valid JSON: {error.msg}.") from error
        except RecursionError as error:
            raise yamls.problem(path, line, "this is nested too deeply to be a task.") from error
        yield line, task
        at = _after_space(text, at)
        separator = text[at : at + 1]
        if separator == ",":
            at = _after_space(text, at + 1)
        elif separator != "]":
            line = line + text.count("\n", before, at)
            raise yamls.problem(path, line, "not valid JSON: the list of tasks is cut off here.")


def _after_space(text: str, at: int) -> int:
    while text[at : at + 1] in {" ", "\t", "\r", "\n"}:
        at += 1
    return at


def _marks(path: Path, line: int, results: object, data: Mapping[str, Any]) -> Iterator[Mark]:
    if not isinstance(results, list):
        raise yamls.problem(path, line, f"an annotation of {data['item']} without a result.")
    for one in results:
        body = _of(path, line, one)
        kind, value = body.get("type"), _of(path, line, body.get("value"))
        if kind == "relation":
            continue
        if kind not in _KINDS.values():
            what = f"a label of the type {kind!r} on {data['item']}. Expected: choices, number,"
            raise yamls.problem(path, line, f"{what} textarea or labels, as in the interface.")
        name = str(body.get("from_name"))
        try:
            yield from _read_marks(name, kind, value, data)
        except (KeyError, TypeError, ValueError) as error:
            what = f"the label {name!r} of {data['item']} cannot be read ({error!r})"
            raise yamls.problem(path, line, f"{what}. Expected its own form.") from error


def _read_marks(
    name: str, kind: str, value: Mapping[str, Any], data: Mapping[str, Any]
) -> Iterable[Mark]:
    if kind == "labels":
        whole = str(data["text"])
        start, end = (_in_characters(whole, int(value[place])) for place in ("start", "end"))
        name_there = value.get("text") or whole[start:end]
        return [Mark(name, " ".join(str(name_there).split()), start, end)]
    if kind == "number":
        return [Mark(name, str(value["number"]))]
    said = value["choices" if kind == "choices" else "text"]
    return [Mark(name, str(one)) for one in ([said] if isinstance(said, str) else said)]


def _in_units(text: str, n_characters: int) -> int:
    return len(text[:n_characters].encode("utf-16-le", "surrogatepass")) // 2


def _in_characters(text: str, n_units: int) -> int:
    units = text.encode("utf-16-le", "surrogatepass")[: 2 * n_units]
    return len(units.decode("utf-16-le", "surrogatepass"))


def _of(path: Path, line: int, part: object) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise yamls.problem(path, line, f"expected an object of Label Studio, found {part!r:.60}.")
    return part


def _who(completed_by: object) -> str:
    """A person by number, or by mail address where the export has it."""
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("email") or completed_by.get("id")
    return "" if completed_by is None else str(completed_by)
