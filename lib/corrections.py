"""Corrections: a person's changes to the consensus, with who, when and why.

Decides what a change touches. Refuses a change of something that the consensus does not say: a
correction to an older run must be looked at again.
"""

import datetime
import json
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from lib import gold, yamls
from lib import votes as ballots
from lib.fields import Field
from lib.study import Study

COLUMNS = ["item", "field", "original", "corrected", "reason", "who", "date"]


def read(path: Path, study: Study, items: Collection[str]) -> pd.DataFrame:
    """The columns of the file, and line; one row an item and field.

    `original` is what the consensus says, empty where it decides nothing; entity lists are JSON
    arrays of names. Raises StudyError with file and line.
    """
    changes, seen, known = [], {}, frozenset(items)
    for line, row in gold.rows(path, COLUMNS):
        field, place = gold.field_of(path, line, row, study, known), (row["item"], row["field"])
        if place in seen:
            what = f"{row['field']} of {row['item']} is corrected on line {seen[place]} too."
            raise yamls.problem(path, line, f"{what} Keep one.")
        seen[place] = line
        changes.append({**row, **_checked(path, line, row, field), "line": line})
    return pd.DataFrame(changes, columns=[*COLUMNS, "line"])


def apply(consensus: pd.DataFrame, corrections: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The consensus after the changes, with the column `corrected` where they touch it.

    Where a condition is corrected to something else than true, its fields no longer apply. Raises
    StudyError when `original` is not what the consensus says, when a field does not apply, or when
    a condition becomes true and its fields stay open.
    """
    path = Path(study.folder) / "corrections.csv"
    table = consensus.assign(corrected=False)
    rows = {place: n for n, place in enumerate(zip(table["item"], table["field"], strict=True))}
    values = dict(zip(rows, table["value"].astype(object), strict=True))
    changes = {(change.item, change.field): change for change in corrections.itertuples()}
    for place, change in changes.items():
        _check_original(path, change, values.get(place))
        values[place] = change.corrected
    touched = set(changes)
    for (item, name), change in changes.items():
        when = study.fields[name].when
        if when and values[item, when] != "true":
            what = f"{name} does not apply to {item}, where {when} is not true"
            raise yamls.problem(path, change.line, f"{what}. Correct {when} as well, or neither.")
        below = [other for other, field in study.fields.items() if field.when == name]
        left = [other for other in below if (item, other) not in changes]
        if change.corrected == "true" and left:
            what = f"{item} becomes {name}, and nothing says its {', '.join(left)}"
            raise yamls.problem(path, change.line, f"{what}. Add a row for each.")
        for other in left:
            values[item, other] = None
            touched.add((item, other))
    for place in sorted(touched):
        applies = values[place] is not None
        status = "decided" if applies else "not_applicable"
        columns = ["value", "status", "candidates", "corrected"]
        table.loc[table.index[rows[place]], columns] = [values[place], status, None, True]
    return table


def _check_original(path: Path, change: object, now: object) -> None:
    stands = "" if now is None or pd.isna(now) else str(now)
    if stands != change.original:
        what = f"original is {change.original!r}, and the consensus says {stands or 'nothing'!r}"
        raise yamls.problem(path, change.line, f"{what}: it has changed. Look at the item again.")


def _checked(path: Path, line: int, row: Mapping[str, str], field: Field) -> dict[str, str]:
    """The two values in the form of the consensus; reason, who and date must be there."""
    for entry in ("reason", "who", "date"):
        if not row[entry]:
            raise yamls.problem(path, line, f"{entry} is empty. Every change needs one.")
    try:
        datetime.date.fromisoformat(row["date"])
    except ValueError as error:
        what = f"the date {row['date']!r} is not of the form 2026-06-30."
        raise yamls.problem(path, line, what) from error
    original = _value(path, line, row["original"], row["field"], field) if row["original"] else ""
    corrected = _value(path, line, row["corrected"], row["field"], field)
    if original == corrected:
        raise yamls.problem(path, line, f"original and corrected are both {corrected!r}.")
    return {"original": original, "corrected": corrected}


def _value(path: Path, line: int, value: str, name: str, field: Field) -> str:
    if field.type != "entities":
        return gold.value_of(path, line, value, name, field)
    try:
        names = json.loads(value)
        found, _ = ballots.normalise([{"name": one} for one in names], field)
    except (TypeError, ValueError):
        found = None
    if found is None:
        what = f'{name} is {value!r}, and not a JSON array of names such as ["Camelot"].'
        raise yamls.problem(path, line, what)
    return found
