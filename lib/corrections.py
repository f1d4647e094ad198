"""Corrections: a person's changes to the consensus, with who, when and why.

Decides what a change touches. Refuses a change of something that the consensus does not say, or of
a text that is another one now: a correction to an older run must be looked at again.
"""

import csv
import datetime
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lib import clock, gold, runs, spreadsheets, yamls
from lib import votes as ballots
from lib.errors import StudyError
from lib.fields import Field
from lib.study import Study

COLUMNS = ["item", "field", "original", "corrected", "reason", "who", "date"]
SO = ", and no change was taken"
# `written` is `corrected` as the person wrote it: names of a list keep their spelling.
_READ = [*COLUMNS, "sha256", "written", "path", "line"]
_UNVOTED = {"share": 0.0, "n_votes": 0, "elected": True, "status": "elected", "attributes": "{}"}
_UNVOTED |= {"simulated": False, "corrected": True}


def read(
    path: Path, study: Study, texts: Mapping[str, str], today: datetime.date | None = None
) -> pd.DataFrame:
    """The columns of the file, and sha256, written, path and line; one row an item and field.

    `texts` has the SHA-256 of each item's text. `original` is what the consensus says, empty where
    it decides nothing; entity lists are JSON arrays of names. Raises StudyError that names every
    mistake with file and line.
    """
    changes, problems = [], []
    for line, row in rows(path, problems):
        with yamls.noting(problems):
            changes.append(checked(path, line, row, study, texts, today))
    yamls.refuse([*problems, *doubles(changes)], SO)
    return table(changes)


def rows(
    path: Path, problems: list[StudyError] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a file with these columns, without the apostrophes that guard spreadsheets.

    Mistakes of rows are noted in `problems` where it is given, as `gold.rows` does.
    """
    for line, row in gold.rows(path, COLUMNS, problems):
        yield line, {name: spreadsheets.unguard(cell) for name, cell in row.items()}


def table(changes: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Changes of one or more files as one table; raises StudyError for places that are twice."""
    changes = list(changes)
    yamls.refuse(doubles(changes), SO)
    return pd.DataFrame(changes, columns=_READ)


def doubles(changes: Iterable[dict[str, Any]]) -> Iterator[StudyError]:
    """Where a place is corrected a second time."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for change in changes:
        first = found.setdefault(place := (change["item"], change["field"]), change)
        if first is not change:
            what = f"{place[1]} of {place[0]} is corrected on {_line(first, change['path'])} too."
            yield yamls.problem(change["path"], change["line"], f"{what} Keep one.")


def checked(
    path: Path,
    line: int,
    row: Mapping[str, str],
    study: Study,
    texts: Mapping[str, str],
    today: datetime.date | None = None,
) -> dict[str, Any]:
    """One change with its two values in the form of the consensus.

    Raises StudyError for an unknown item or field, another text, a value that is not allowed, a
    missing reason, who or date, a day that is none or still to come, and a change to the same.
    """
    problems = list(_untold(path, line, row, texts, today or clock.now().date()))
    before = corrected = ""
    with yamls.noting(problems):
        field = gold.field_of(path, line, row, study, texts)
        with yamls.noting(problems):
            before = original(path, line, row, field)
        corrected = value(path, line, row["corrected"], row["field"], field)
        if before == corrected:
            what = f"original and corrected are both {corrected!r:.200}."
            raise yamls.problem(path, line, f"{what} Remove the line: it changes nothing.")
    yamls.refuse(problems, SO)
    more = {"sha256": row.get("sha256", ""), "written": row["corrected"]}
    more |= {"original": before, "corrected": corrected, "path": path, "line": line}
    return {name: row[name] for name in COLUMNS} | more


def value(path: Path, line: int, written: str, name: str, field: Field) -> str:
    """A value as the consensus has it; raises StudyError where the field never has it."""
    if field.type != "entities":
        return gold.value_of(path, line, written, name, field)
    try:
        names = json.loads(written)
        listed = [{"name": one} for one in names] if isinstance(names, list) else None
        found, _ = ballots.normalise(listed, field)
    except (TypeError, ValueError):
        found = None
    if found is None:
        parts = [part.strip(" []\"'\u201c\u201d") for part in written.replace(";", ",").split(",")]
        meant = json.dumps([part for part in parts if part], ensure_ascii=False)
        what = f"{name} is {written!r:.200}, and not a JSON array of names such as {meant:.200}."
        raise yamls.problem(path, line, f"{what} A list without names is [].")
    return found


def original(path: Path, line: int, row: Mapping[str, str], field: Field) -> str:
    """What a row says that the consensus says, in its form; empty where it decides nothing."""
    written = row["original"]
    if written and field.type in {"integer", "number"}:  # a mean may be no value that a vote has
        return ballots.number(written) or written
    return value(path, line, written, row["field"], field) if written else ""


def apply(consensus: pd.DataFrame, corrections: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The consensus after the changes, with the column `corrected` where they touch it.

    Where a condition is corrected to something else than true, its fields no longer apply. Changes
    that were made already stay made, and those of items without a consensus wait for one. Raises
    StudyError that names every change whose `original` is not what the consensus says, whose field
    does not apply, or which makes a condition true while its fields stay open.
    """
    table = consensus.assign(corrected=consensus.get("corrected", False))
    if len(corrections):
        corrections = corrections[corrections["item"].isin(table["item"])]
    if corrections.empty:
        return table
    rows = {place: n for n, place in enumerate(zip(table["item"], table["field"], strict=True))}
    values = dict(zip(rows, table["value"].astype(object), strict=True))
    changes = {(change.item, change.field): change for change in corrections.itertuples()}
    before = table[table["corrected"].astype(bool)]
    done = set(zip(before["item"], before["field"], strict=True))
    problems = list(_stale(changes, values, done))
    values |= {place: change.corrected for place, change in changes.items()}
    touched = set(changes)
    for (item, name), change in changes.items():
        when = study.fields[name].when
        if when and values[item, when] != "true":
            what = f"{name} does not apply to {item}, where {when} is not true"
            what = f"{what}. Correct {when} as well, or neither."
            problems.append(yamls.problem(change.path, change.line, what))
        below = [other for other, field in study.fields.items() if field.when == name]
        left = [other for other in below if (item, other) not in changes]
        if change.corrected == "true" and left:
            what = f"{item} becomes {name}, and nothing says its {', '.join(left)}"
            what = f"{what}. Add a row for each."
            problems.append(yamls.problem(change.path, change.line, what))
        for other in left if change.corrected != "true" else ():
            values[item, other] = None
            touched.add((item, other))
    yamls.refuse(problems, SO)
    for place in sorted(touched):
        applies = values[place] is not None
        status = "decided" if applies else "not_applicable"
        columns = ["value", "status", "candidates", "corrected"]
        table.loc[table.index[rows[place]], columns] = [values[place], status, None, True]
    return table


def apply_to_names(
    named: pd.DataFrame, consensus: pd.DataFrame, corrections: pd.DataFrame, study: Study
) -> pd.DataFrame:
    """The elected names after the changes of whole lists, with `corrected` where a name changed.

    Names of a corrected list are elected, all others of it are not; a name that no vote gives gets
    a row without votes, spelled as the person did, in its place by item, field and key.
    """
    fields = [name for name, field in study.fields.items() if field.type == "entities"]
    lists = consensus[consensus["corrected"]]
    lists = lists[lists["field"].isin(fields)]
    lists = zip(lists["item"], lists["field"], lists["value"], strict=True)
    elected = {
        (item, field): set(json.loads(value)) if isinstance(value, str) else set()
        for item, field, value in lists
    }
    keys = list(zip(named["item"], named["field"], named["key"], strict=True))
    now = [
        key in elected[item, field] if (item, field) in elected else bool(was)
        for (item, field, key), was in zip(keys, named["elected"], strict=True)
    ]
    now = pd.Series(now, index=named.index, dtype=bool)
    changed = now.ne(named["elected"])
    table = named.assign(elected=now, corrected=changed | named.get("corrected", False))
    if "status" in table:
        table["status"] = table["status"].mask(
            changed, now.map({True: "elected", False: "removed"})
        )
    spelled, known = _spelled(corrections, fields), set(keys)
    new = [
        {**dict(zip(("item", "field", "key"), place, strict=True)), "name": name, **_UNVOTED}
        for place, name in spelled.items()
        if place not in known and place[:2] in elected
    ]
    # What was counted on votes and texts is not known of a name that a person gives.
    counts = table.select_dtypes(["int64", "Int64"]).columns.difference(list(_UNVOTED))
    table = table.astype(dict.fromkeys(counts if spelled else (), "Int64"))
    if not new:
        return table
    added = pd.DataFrame(new).reindex(columns=table.columns)
    kinds = {
        name: kind
        for name, kind in table.dtypes.items()
        if added[name].notna().all() or isinstance(kind, pd.StringDtype | pd.Int64Dtype)
    }
    both = pd.concat([table, added.astype(kinds)], ignore_index=True)
    order = both["field"].map({name: n for n, name in enumerate(study.fields)})
    both = both.assign(order=order).sort_values(["item", "order", "key"], ignore_index=True)
    return both.drop(columns="order")


def flagged(index: pd.DataFrame, named: pd.DataFrame) -> pd.DataFrame:
    """The index of names with `corrected` where people elected or removed it in any item."""
    changed = named[named["corrected"]]
    changed = set(zip(changed["field"], changed["key"], strict=True))
    places = zip(index["field"], index["key"], strict=True)
    return index.assign(corrected=pd.Series([place in changed for place in places], dtype=bool))


def append(path: Path, changes: pd.DataFrame) -> None:
    """Write changes below those of the file, whole or not at all; its other columns are kept."""
    header, lines = [*COLUMNS, "sha256"], []
    if path.is_file():
        old = list(csv.reader(io.StringIO(yamls.text(path), newline=""), strict=True))
        first = next(n for n, cells in enumerate(old) if any(cell.strip() for cell in cells))
        header = [cell.strip() for cell in old[first]]
        width = len(header)
        header += [name for name in ("sha256",) if name not in header]
        lines = [cells + [""] * (len(header) - width) for cells in old[first + 1 :] if any(cells)]
    for row in changes.assign(corrected=changes["written"]).to_dict("records"):
        lines.append([spreadsheets.guard(str(row.get(name, ""))) for name in header])
    with runs.replacing(path) as part, part.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([header, *lines])


def _untold(
    path: Path, line: int, row: Mapping[str, str], texts: Mapping[str, str], today: datetime.date
) -> Iterator[StudyError]:
    """What is missing or wrong beside the values of a row."""
    if row.get("sha256") and row["sha256"] != texts.get(row["item"], row["sha256"]):
        what = f"the text of {row['item']} is another one than when it was corrected."
        yield yamls.problem(path, line, f"{what} Read it again, then remove the line or renew it.")
    empty = [entry for entry in ("reason", "who", "date") if not row[entry]]
    if empty:
        what = f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty."
        yield yamls.problem(path, line, f"{what} Every change needs a reason, who and a date.")
    try:
        day = datetime.date.fromisoformat(row["date"]) if row["date"] else today
    except ValueError:
        day = None
    if day is None or row["date"] not in ("", day.isoformat()):
        what = f"the date {row['date']!r:.200} is not of the form 2026-06-30."
    elif day > today + datetime.timedelta(days=1):  # it is tomorrow already in half of the world
        what = f"the date {row['date']} is still to come. Write the right one."
    else:
        return
    yield yamls.problem(path, line, what)


def _stale(changes: Mapping, values: Mapping, done: Collection[tuple]) -> Iterator[StudyError]:
    """Changes of something that the consensus does not say (any more)."""
    for place, change in changes.items():
        now = values.get(place)
        stands = "" if now is None or pd.isna(now) else str(now)
        made = place in done and stands == change.corrected
        if stands != change.original and not made:
            what = f"original is {change.original!r:.200}, and the consensus says "
            what += f"{stands or 'nothing'!r:.200}: it has changed. Look at the item again."
            yield yamls.problem(change.path, change.line, what)


def _spelled(corrections: pd.DataFrame, fields: Collection[str]) -> dict[tuple, str]:
    """The names of corrected lists: (item, field, key) -> as the person wrote it."""
    return {
        (change.item, change.field, key): " ".join(name.split())
        for change in corrections.itertuples()
        if change.field in fields
        for name in json.loads(change.written)
        if (key := ballots.entity_key(name))
    }


def _line(change: Mapping[str, Any], path: Path) -> str:
    of = "" if change["path"] == path else f" of {yamls.shown(change['path'])}"
    return f"line {change['line']}{of}"
