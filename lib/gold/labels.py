"""Labels: what people wrote into a sheet or into Label Studio, checked and made rows of gold.

Decides what a filled cell means and which labels are new. Refuses a file with any mistake, and
names all of them with their lines: nothing of such a file becomes gold.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lib import gold, spreadsheets, yamls
from lib import votes as ballots
from lib.errors import StudyError
from lib.fields import Field
from lib.gold import labelstudio
from lib.study import Study

NONE = "-"  # written in a sheet where an item has no name
BESIDE = ("text", "who", "note")
_SO = ", and no label was taken"
_TABLE = ["item", "field", "value", "who", "path", "line"]
Answers = dict[str, tuple[int, list[str]]]


@dataclass(frozen=True)
class Row:
    """What one person wrote of one item: by field, the line and the values as written."""

    line: int
    who: str
    item: str
    sha256: str
    answers: Answers


@dataclass(frozen=True)
class Labels:
    """Labels that stand: a table of item, field, value, who, path and line; what is left open."""

    table: pd.DataFrame
    n_items: int
    n_empty: int
    undrawn: list[str]


def read(
    path: Path, study: Study, texts: Mapping[str, str], sample: pd.DataFrame | None = None
) -> Labels:
    """The labels of a filled sheet (wide, or item, field, value) or of a Label Studio export.

    `texts` has the SHA-256 of each item's text as it is now, `sample` those of the drawn items as
    they were. Two people who say the same of an item are one label. Raises StudyError that names
    every label that cannot be: unknown item or field, another text than was drawn, a value that is
    not allowed, two labels for one place, a field that does not apply.
    """
    problems: list[StudyError] = []
    rows = list(_rows(path, study, problems))
    if not problems and not any(row.answers for row in rows):
        raise yamls.problem(path, 1, "there are no labels in it yet.")
    drawn = {} if sample is None else dict(zip(sample["item"], sample["sha256"], strict=True))
    said: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        for name, (line, values) in row.answers.items():
            place = {"item": row.item, "field": name}
            with yamls.noting(problems):
                field = gold.field_of(path, line, place, study, texts)
                _check_text(path, line, row, texts, drawn)
                one = {**place, "values": _values(path, line, place, values, field)}
                one |= {"keys": _keys(one["values"], field)}
                _keep(said, {**one, "who": row.who, "path": path, "line": line})
    table = _table(said.values())
    yamls.refuse([*problems, *gold.contradictions(path, table, study.fields)], _SO)
    items = list(dict.fromkeys(row.item for row in rows))
    undrawn = [item for item in table["item"].unique() if item not in drawn]
    stated = {place: one["values"] for place, one in said.items()}
    n_empty = sum(n_open(items, stated, study.fields).values())
    return Labels(table, len(items), n_empty, undrawn)


def new(found: pd.DataFrame, there: pd.DataFrame, path: Path, study: Study) -> pd.DataFrame:
    """The labels that gold (at `path`) does not have yet.

    Raises StudyError where gold says something else, or where both together cannot be.
    """
    said: dict[tuple[str, str], dict[str, Any]] = {}
    for place, rows in there.groupby(["item", "field"], sort=False):
        said[place] = {**_stated(rows, study), "who": "", "path": path}
    problems = []
    for place, rows in found.groupby(["item", "field"], sort=False):
        one = dict(zip(("item", "field"), place, strict=True)) | _stated(rows, study)
        with yamls.noting(problems):
            _keep(said, {**one, "who": rows["who"].iloc[0], "path": rows["path"].iloc[0]})
    known = pd.MultiIndex.from_frame(there[["item", "field"]])
    fresh = found[~pd.MultiIndex.from_frame(found[["item", "field"]]).isin(known)]
    whole = pd.concat([there.assign(path=path, who=""), fresh], ignore_index=True)
    yamls.refuse([*problems, *gold.contradictions(path, whole, study.fields)], _SO)
    return fresh


def n_open(
    items: Iterable[str], stated: Mapping[tuple, list[str]], fields: Mapping[str, Field]
) -> dict[str, int]:
    """How many fields of each item apply and have no label; `stated` is by item and field.

    A field with a condition waits until its condition is labelled as true. Texts need no label.
    """
    found = {}
    for item in items:
        asked = [
            name
            for name, field in fields.items()
            if not field.when or stated.get((item, field.when)) == ["true"]
        ]
        wanted = [name for name in asked if fields[name].type != "text"]
        found[item] = sum((item, name) not in stated for name in wanted)
    return found


def as_written(path: Path) -> pd.DataFrame:
    """All rows and columns of a CSV file that people wrote, as text."""
    return pd.DataFrame([row for _, row in _unguarded(path, gold.COLUMNS)])


def _rows(path: Path, study: Study, problems: list[StudyError]) -> Iterator[Row]:
    """What people wrote; mistakes of rows of a sheet are noted in `problems`."""
    if path.suffix.lower() == ".json":
        return _of_label_studio(path, study)
    header = next(gold.rows(path, ["item"], []), (1, {}))[1]
    read = _of_long if {"field", "value"} <= set(header) else _of_wide
    return read(path, study, problems)


def _of_label_studio(path: Path, study: Study) -> Iterator[Row]:
    """An annotation that was submitted without any span says that the item has no name."""
    for one in labelstudio.read(path):
        answers: Answers = {}
        for mark in one.marks:
            answers.setdefault(mark.field, (one.line, []))[1].append(mark.value)
        for name, field in study.fields.items():
            applies = not field.when or answers.get(field.when, (0, []))[1] == ["true"]
            if field.type == "entities" and applies:
                answers.setdefault(name, (one.line, []))
        yield Row(one.line, one.who, one.item, one.sha256, answers)


def _of_long(path: Path, _: Study, problems: list[StudyError]) -> Iterator[Row]:
    """Rows of item, field and value; those of one item and person are one."""
    found: dict[tuple[str, str], Row] = {}
    for line, row in _unguarded(path, ["item", "field", "value"], problems):
        mine = Row(line, row.get("who", ""), row["item"], "", {})
        mine = found.setdefault((mine.item, mine.who), mine)
        mine.answers.setdefault(row["field"], (line, []))[1].append(row["value"])
    yield from found.values()


def _of_wide(path: Path, study: Study, problems: list[StudyError]) -> Iterator[Row]:
    """A row an item and a column a field; empty cells say nothing."""
    first = True
    for line, row in _unguarded(path, ["item"], problems):
        if first:
            problems += _wrong_columns(path, row, study)
            first = False
        if row.get(""):  # spreadsheets add empty columns
            what = f"{row['']!r:.80} stands in a column without a name. Move it, or clear it."
            problems.append(yamls.problem(path, line, what))
        if not row["item"].startswith("#"):
            cells = {name: row[name] for name in study.fields if row.get(name)}
            lists = {name for name in cells if study.fields[name].type == "entities"}
            answers = {
                name: (line, _names(cell) if name in lists else [cell])
                for name, cell in cells.items()
            }
            yield Row(line, row.get("who", ""), row["item"], "", answers)


def _unguarded(
    path: Path, columns: list[str], problems: list[StudyError] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    for line, row in gold.rows(path, columns, problems):
        yield line, {name: spreadsheets.unguard(cell) for name, cell in row.items()}


def _wrong_columns(path: Path, row: Mapping[str, str], study: Study) -> Iterator[StudyError]:
    """A column with a wrong name would lose its labels."""
    known = list(dict.fromkeys(["item", *study.fields, *BESIDE]))
    for name in filter(None, row):
        if name not in known:
            what = f"the column {name!r} is no field.{yamls.nearest(name, known)}"
            yield yamls.problem(path, 1, f"{what} Known: {', '.join(known)}.")
    if not set(row) & set(study.fields):
        what = f"no column of a field. Expected item and {', '.join(study.fields)}, or item, field,"
        yield yamls.problem(path, 1, f"{what} value.")


def _names(cell: str) -> list[str]:
    """The names in a cell: one a line, or with semicolons between them."""
    names = [part.strip() for part in re.split(r"[\r\n;]+", cell)]
    return [] if cell == NONE else [name for name in names if name]


def _check_text(
    path: Path, line: int, row: Row, texts: Mapping[str, str], drawn: Mapping[str, str]
) -> None:
    before = row.sha256 or drawn.get(row.item)
    if before and before != texts[row.item]:
        what = f"the text of {row.item} is another one now than when it was drawn."
        raise yamls.problem(path, line, f"{what} Take the label out, and label the item anew.")


def _values(
    path: Path, line: int, place: Mapping[str, str], values: list[str], field: Field
) -> list[str]:
    """The values as gold has them; none is an empty list of names."""
    read_as = [gold.value_of(path, line, value, place["field"], field) for value in values]
    if field.type != "entities":
        if len(set(read_as)) != 1:
            what = f"{place['field']} of {place['item']} has {len(read_as)} values:"
            raise yamls.problem(path, line, f"{what} {', '.join(read_as)}. Keep one.")
        return read_as[:1]
    names = {ballots.entity_key(name): name for name in reversed(read_as)}
    if "" in names and len(names) > 1:
        what = f"{place['field']} of {place['item']} has an empty name beside others."
        raise yamls.problem(path, line, f"{what} Remove it.")
    return [name for key, name in reversed(names.items()) if key]


def _keys(values: list[str], field: Field) -> set[str]:
    """By what two lists of values are the same."""
    return set(map(ballots.entity_key, values)) if field.type == "entities" else set(values)


def _stated(rows: pd.DataFrame, study: Study) -> dict[str, Any]:
    values = [value for value in rows["value"] if value]
    keys = _keys(values, study.fields[rows["field"].iloc[0]])
    return {"values": values, "keys": keys, "line": int(rows["line"].iloc[0])}


def _keep(said: dict[tuple[str, str], dict[str, Any]], one: dict[str, Any]) -> None:
    """Keep what is said of a place for the first time; raises StudyError for something else."""
    place = one["item"], one["field"]
    other = said.setdefault(place, one)
    if other["keys"] != one["keys"]:
        by = [f", by {each['who']}" if each["who"] else "" for each in (other, one)]
        there = "" if other["path"] == one["path"] else f" of {Path(other['path']).name}"
        what = f"{place[1]} of {place[0]} is {_told(other)} on line {other['line']}{there}{by[0]},"
        what = f"{what} and {_told(one)} here{by[1]}. Settle it, and keep one."
        raise yamls.problem(one["path"], one["line"], what)


def _told(one: Mapping[str, Any]) -> str:
    return repr(", ".join(one["values"]))


def _table(said: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """A row a label; a list without names has one row with an empty value, as gold has it."""
    rows = [
        {**{name: one[name] for name in ("item", "field", "who", "path", "line")}, "value": value}
        for one in said
        for value in one["values"] or [""]
    ]
    return pd.DataFrame(rows, columns=_TABLE)
