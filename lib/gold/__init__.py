"""Gold: what people say about items, read without mercy and compared with votes.

Decides how often each annotator and the panel agree with people. Refuses a file with any mistake,
with its line: a label that nobody can place measures nothing.
"""

import csv
import io
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lib import consensus as counting
from lib import spreadsheets, words, yamls
from lib import votes as ballots
from lib.errors import StudyError
from lib.fields import Field
from lib.study import Study

COLUMNS = ["item", "field", "value"]
_ACCURACY = ["who", "model", "field", "n_gold", "n", "n_right", "accuracy", "low", "high"]
_ACCURACY += ["n_effective", "n_common", "n_right_common", "accuracy_common", "n_effective_common"]
ENOUGH = 100
_MOST_NEAR = 5_000  # among more items, looking for the nearest takes too long for every mistake
_LONGEST_CELL = 10_000_000  # sheets for people carry whole texts
_Z95 = 1.959963984540054


def read(path: Path, study: Study, items: Collection[str]) -> pd.DataFrame:
    """The gold labels of a study: item, field, value, line; values as votes have them.

    An entity field has a row a name, and one row with an empty value where an item has none.
    Raises StudyError that names, with file and line, everything that cannot be true of these items.
    """
    labels, known, problems = [], frozenset(items), []
    for line, cells in rows(path, COLUMNS, problems):
        row = {name: spreadsheets.unguard(cell) for name, cell in cells.items()}
        with yamls.noting(problems):
            field = field_of(path, line, row, study, known)
            value = value_of(path, line, row["value"], row["field"], field)
            labels.append((row["item"], row["field"], value, line))
    table = pd.DataFrame(labels, columns=[*COLUMNS, "line"])
    for found in (doubles, contradictions):
        problems += found(path, table, study.fields)
    yamls.refuse(problems)
    if table.empty:
        raise yamls.problem(path, 1, "no labels below the header. Write some, or remove the file.")
    return table


def accuracy(
    votes: pd.DataFrame, consensus: pd.DataFrame, gold: pd.DataFrame, study: Study
) -> pd.DataFrame:
    """How often each annotator alone and the panel say what gold says; a row for each and field.

    Columns: who, model (null for the panel), field ("all" pools them), n_gold, n (decided among
    them), n_right, accuracy, low, high (Wilson, 95 %), and n_common and n_right_common: the labels
    that all of them decided, on which alone they can be compared. Where gold has a column `weight`
    (1 / chance of being drawn), accuracies are weighted by it, and n_effective is the number of
    equal labels that would be as sure (Kish). An annotator's repeats vote among themselves first.
    Fields of declared values and numbers; `entities.score` is for the others.
    """
    measured = [name for name, one in study.fields.items() if one.type not in {"entities", "text"}]
    place = ["item", "field"]
    weighed = gold if "weight" in gold else gold.assign(weight=1.0)
    weighed = weighed[weighed["field"].isin(measured)].set_index(place)
    true, weight = weighed["value"], weighed["weight"]
    said = votes[votes["item"].isin(true.index.get_level_values("item"))]
    alone = {
        name: counting.decide(said[said["annotator"].eq(name)], alone_on(study, name))
        for name in (study.annotators if len(true) else ())
    }
    values = {
        who: table.set_index(place)["value"].reindex(true.index)
        for who, table in {"panel": consensus, **alone}.items()
    }
    common = pd.DataFrame(values).notna().all(axis="columns")
    of_field = true.index.get_level_values("field")
    found = []
    for who, value in values.items():
        model = study.annotators[who].model if who in alone else None
        for field in ["all", *measured]:
            mine = (of_field == field) | (field == "all")
            if mine.any():
                counts = _counted(value[mine], true[mine], common[mine], weight[mine])
                found.append({"who": who, "model": model, "field": field, **counts})
    return pd.DataFrame(found, columns=_ACCURACY)


def sentence(accuracies: pd.DataFrame, field: str = "all") -> str:
    """Whether the panel beats its best member on gold, with the numbers behind it.

    Compared on the labels that all of them decided: who leaves the hard ones open is not better. It
    beats the member when its interval lies above the member's.
    """
    table = accuracies[accuracies["field"].eq(field) & accuracies["n_common"].gt(0)]
    if "accuracy_common" not in table:
        share = table["n_right_common"] / table["n_common"]
        table = table.assign(accuracy_common=share, n_effective_common=table["n_common"])
    panel, members = table[table["who"].eq("panel")], table[~table["who"].eq("panel")]
    if panel.empty or members.empty:
        return "No gold label stands on an item that was decided: the panel cannot be compared."
    ours = panel.iloc[0]
    best = members.sort_values(["accuracy_common", "who"], ascending=[False, True]).iloc[0]
    said = (
        f"On the {words.n_of(ours['n_common'], 'label')} that all decided, the panel is right on "
        f"{_shown(ours)}, its best member, {best['who']}, on {_shown(best)}"
    )
    n_without = f"{ours['n_gold'] - ours['n']:,} of {words.n_of(ours['n_gold'], 'label')}"
    left = f"The panel has no value for {n_without}."
    beats = "beats" if _interval(ours)[0] > _interval(best)[1] else "is not shown to beat"
    if ours["accuracy_common"] <= best["accuracy_common"]:
        beats = "does not beat"
    if not math.isclose(ours["n_effective_common"], ours["n_common"]):
        left += " Shares are weighted by the chances with which items were drawn."
    if ours["n_gold"] < ENOUGH:
        left += f" At least {ENOUGH} labels are recommended."
    return f"{said}: the panel {beats} its best member. {left}"


def wilson(n_right: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); nan without observations.

    >>> [round(bound, 3) for bound in wilson(90, 100)]
    [0.826, 0.945]
    """
    if not n:
        return math.nan, math.nan
    share, square = n_right / n, _Z95**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = _Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def alone_on(study: Study, annotator: str) -> Study:
    """The study with a panel of one annotator."""
    panel = study.panels[study.panel]
    one = panel.model_copy(update={"annotators": {annotator: panel.annotators[annotator]}})
    return study.model_copy(update={"panels": {**study.panels, study.panel: one}})


def rows(
    path: Path, columns: list[str], problems: list[StudyError] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with their lines, cells stripped; other columns are left alone.

    Raises StudyError for a missing column, a row of another length and what is no CSV at all; with
    `problems`, those of rows are noted there, and the other rows are read.
    """
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(yamls.text(path), newline=""), strict=True)
    header, before = None, 0
    try:
        for cells in reader:
            line, before = before + 1, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(path, cells, columns)
            elif len(cells) != len(header):
                what = f"{words.n_of(len(cells), 'cell')}, and the header has {len(header)}."
                what = f"{what} Quote commas."
                _note(yamls.problem(path, line, what), problems)
            else:
                yield line, dict(zip(header, map(str.strip, cells), strict=True))
    except csv.Error as error:
        problem = yamls.problem(path, before + 1, f"not valid CSV: {error}.")
        _note(problem, problems if header else None)
    if header is None:
        raise yamls.problem(path, 1, f"the file is empty. Expected columns: {', '.join(columns)}.")


def field_of(
    path: Path, line: int, row: Mapping[str, str], study: Study, items: Collection[str]
) -> Field:
    """The field that a row names, when item and field exist."""
    item, name = row["item"], row["field"]
    if item not in items:
        near = yamls.nearest(item, items) if len(items) <= _MOST_NEAR else ""
        what = f"no item {item!r:.200} in this run.{near}"
        raise yamls.problem(path, line, f"{what} Items are the ids of documents.parquet.")
    if name not in study.fields:
        what = f"no field {name!r:.200}.{yamls.nearest(name, study.fields)}"
        raise yamls.problem(path, line, f"{what} Known: {', '.join(study.fields)}.")
    return study.fields[name]


def value_of(path: Path, line: int, value: str, name: str, field: Field) -> str:
    """The value as votes have it; a name of an entity field stays as it is written."""
    if any(ord(letter) < 32 and not letter.isspace() for letter in value):
        what = f"{name} has a control character in {value!r:.80}. Remove it."
        raise yamls.problem(path, line, what)
    if field.type == "entities":
        if value and not ballots.entity_key(value):
            what = f"{name} has the name {value!r}, without any letter or digit."
            raise yamls.problem(path, line, f"{what} Leave it empty where the item has none.")
        return " ".join(value.split())
    allowed = ", ".join(field.allowed) or f"any {field.type}"
    if not value:
        raise yamls.problem(path, line, f"no value for {name}. Allowed: {allowed}.")
    found, reason = ballots.normalise(value, field)
    if reason:
        nearest = yamls.nearest(value, field.allowed)
        what = f"{name} never has the value {value!r:.200}.{nearest} Allowed: {allowed}."
        raise yamls.problem(path, line, what)
    return found


def _header(path: Path, cells: list[str], columns: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    for column in [*columns, *filter(None, header)]:
        if header.count(column) != 1:
            times = "more than once" if column in header else "not"
            hint = " Separate cells with commas." if ";" in cells[0] or "\t" in cells[0] else ""
            hint = " Remove this line." if cells[0].startswith("sep=") else hint
            nearest = yamls.nearest(column, header) if times == "not" else ""
            what = f"the column {column!r} is {times} there.{nearest}{hint}"
            raise yamls.problem(path, 1, f"{what} Expected: {', '.join(columns)}.")
    return header


def doubles(path: Path, table: pd.DataFrame, fields: Mapping[str, Field]) -> Iterator[StudyError]:
    """Where a closed field has two rows, or a name stands twice or beside "none"."""
    seen: dict[tuple, dict[str, tuple[int, str]]] = {}
    for row in table.itertuples():
        lists = fields[row.field].type == "entities"
        key = ballots.entity_key(row.value) if lists else ""
        others = seen.setdefault((row.item, row.field), {})
        if key in others or (others and "" in {key, *others}):
            line, value = others.get(key) or next(iter(others.values()))
            what = f"{row.field} of {row.item} is {value!r} on line {line}"
            yield yamls.problem(path, row.line, f"{what} and {row.value!r} here. Keep one.")
        others[key] = (row.line, row.value)


def contradictions(
    path: Path, table: pd.DataFrame, fields: Mapping[str, Field]
) -> Iterator[StudyError]:
    """Where a field has a value although its condition is labelled as not true.

    Rows of several files have a column `path`.
    """
    stated = {(row.item, row.field): row.value for row in table.itertuples()}
    for row in table.itertuples():
        when = fields[row.field].when
        condition = stated.get((row.item, when), "true")
        if condition != "true":
            what = f"{row.field} does not apply to {row.item}: its gold says {when} {condition}."
            at = getattr(row, "path", path)
            yield yamls.problem(at, row.line, f"{what} Remove one of the two rows.")


def _note(problem: StudyError, problems: list[StudyError] | None) -> None:
    if problems is None:
        raise problem
    problems.append(problem)


def _counted(
    value: pd.Series, true: pd.Series, common: pd.Series, weight: pd.Series
) -> dict[str, Any]:
    right, decided = value.eq(true), value.notna()
    accuracy, n_effective = _weighted(right[decided], weight[decided])
    accuracy_common, n_effective_common = _weighted(right[common], weight[common])
    low, high = wilson(accuracy * n_effective, n_effective)
    return {
        "n_gold": len(true),
        "n": int(decided.sum()),
        "n_right": int(right.sum()),
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "n_effective": n_effective,
        "n_common": int(common.sum()),
        "n_right_common": int((right & common).sum()),
        "accuracy_common": accuracy_common,
        "n_effective_common": n_effective_common,
    }


def _weighted(right: pd.Series, weight: pd.Series) -> tuple[float, float]:
    """The share of right labels, and how many equal labels would be as sure (Kish)."""
    total = math.fsum(weight)
    if not total:
        return math.nan, 0.0
    return math.fsum(weight[right]) / total, total**2 / math.fsum(weight**2)


def _interval(row: pd.Series) -> tuple[float, float]:
    n = row["n_effective_common"]
    return wilson(row["accuracy_common"] * n, n)


def _shown(row: pd.Series) -> str:
    low, high = _interval(row)
    return f"{row['n_right_common']:,} ({row['accuracy_common']:.2f}, {low:.2f} to {high:.2f})"
