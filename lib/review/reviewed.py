"""Reviewed: filled review lists and exports of Label Studio, as corrections.

Decides what is a change: what was left empty or only confirmed is none, and what stands in the
corrections already is not taken twice. Names every mistake: all of a file counts or none.
"""

import contextlib
import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lib import clock, corrections, gold, yamls
from lib import votes as ballots
from lib.errors import StudyError
from lib.fields import Field
from lib.gold import labelstudio
from lib.review import panelled
from lib.study import Study

Known = Mapping[tuple[str, str], str]
_Rows = Iterator[tuple[int, dict[str, str]]]


class Reviewed(NamedTuple):
    """The changes as `corrections.read` gives them, and how many rows are none: left empty, equal
    to what was there, known from before.

    `problems` are the mistakes in the file; of an item that has one, no row is among the changes.
    """

    changes: pd.DataFrame
    n_empty: int
    n_same: int
    n_known: int
    problems: list[StudyError]


def read(
    path: Path,
    study: Study,
    texts: Mapping[str, str],
    known: Known,
    today: datetime.date | None = None,
) -> Reviewed:
    """What people changed, from a CSV file of review or an export of Label Studio (.json).

    `texts` has the SHA-256 of each item's text, `known` the corrections there are: (item, field) to
    value. An empty date becomes today's. Mistakes are noted as `corrections.checked` words them;
    raises StudyError for a file that cannot be read.
    """
    today, problems = today or clock.now().date(), []
    is_export = path.suffix.lower() == ".json"
    rows = _annotated(path, study, problems) if is_export else corrections.rows(path, problems)
    said, changes, item_of = dict(known), [], {}
    counts = dict.fromkeys(("empty", "same", "known"), 0)
    for line, row in rows:
        item_of[line] = row["item"]
        with yamls.noting(problems):
            if why := _no_change(path, line, row, study, said):
                counts[why] += 1
            else:
                dated = {**row, "date": row["date"] or today.isoformat()}
                change = corrections.checked(path, line, dated, study, texts, today)
                changes.append(change)
                said.setdefault((row["item"], row["field"]), change["corrected"])
    problems += corrections.doubles(changes)
    wrong = {item_of.get(problem.line) for problem in problems}
    whole = corrections.table(change for change in changes if change["item"] not in wrong)
    return Reviewed(whole, counts["empty"], counts["same"], counts["known"], problems)


def set_aside(path: Path, known: Known) -> Path | None:
    """Move a list away that people filled in and nobody has read; gives its new path.

    A list that holds nothing new stays, to be replaced.
    """
    if not path.is_file():
        return None
    try:
        filled = [row for _, row in corrections.rows(path) if row["corrected"]]
    except StudyError:
        filled = [{}]
    if all((row.get("item"), row.get("field")) in known for row in filled):
        return None
    n = 1
    while (aside := path.with_name(f"{path.stem}.filled-{n}{path.suffix}")).exists():
        n += 1
    return path.rename(aside)


def _no_change(path: Path, line: int, row: Mapping[str, str], study: Study, said: Known) -> str:
    """Why a row changes nothing: it is empty, the same, or known; "" where it changes something.

    Whether it can be changed so is for `corrections.checked`.
    """
    if not row["corrected"]:
        if row["reason"]:
            what = "a reason, and nothing is corrected. Fill in corrected, or clear the reason."
            raise yamls.problem(path, line, what)
        return "empty"
    if (field := study.fields.get(row["field"])) is None:
        return ""
    with contextlib.suppress(StudyError):
        value = corrections.value(path, line, row["corrected"], row["field"], field)
        if value == corrections.original(path, line, row, field):
            return "same"
        return "known" if said.get((row["item"], row["field"])) == value else ""
    return ""


def _annotated(path: Path, study: Study, problems: list[StudyError]) -> _Rows:
    """A row of corrections for each field that an annotation answers."""
    for one in labelstudio.read(path):
        said: dict[str, list[str]] = {}
        for mark in one.marks:
            said.setdefault(mark.field, []).append(mark.value)
        original, lost = (_told(one.data.get(name)) for name in ("original", "not_in_text"))
        why = {"reason": " ".join(said.pop(panelled.REASON, [])), "who": one.who, "date": one.date}
        for name in said:
            with yamls.noting(problems):
                gold.field_of(path, one.line, {"item": one.item, "field": name}, study, [one.item])
        for name, field in study.fields.items():
            if field.when and said.get(field.when) != ["true"]:
                continue
            found, values = said.get(name, []), None
            with yamls.noting(problems):
                values = _answer(path, one.line, name, field, found, lost.get(name, []))
            if values is not None:
                before = original.get(name, "")
                changed = _changed(values, before, field)
                place = {"item": one.item, "field": name, "sha256": one.sha256}
                row = {**place, "original": before, "corrected": values, **why}
                yield one.line, row if changed else {**row, "corrected": before, "reason": ""}


def _answer(
    path: Path, line: int, name: str, field: Field, said: list[str], lost: list[str]
) -> str | None:
    """The value that an annotation gives a field; None where it says nothing of it."""
    if field.type == "entities":
        spelled = {ballots.entity_key(one): one for one in [*reversed(said), *lost]}
        return json.dumps([spelled[key] for key in sorted(spelled)], ensure_ascii=False)
    if len(said) > 1:
        raise yamls.problem(path, line, f"{name} has {len(said)} values. Keep one.")
    return said[0] if said else None


def _changed(value: str, before: str, field: Field) -> bool:
    if field.type != "entities":
        return value != before
    keys = [
        {ballots.entity_key(one) for one in json.loads(text or "[]")} for text in (value, before)
    ]
    return keys[0] != keys[1]


def _told(part: object) -> dict:
    return part if isinstance(part, dict) else {}
