"""Votes: from requests and outcomes to one row for every panel slot, item and field.

Decides which part of an answer is a vote, and why the rest is an abstention; an abstention has no
weight and never becomes a value. Counting them is `consensus` and `entities`. Whole tables stay in
Parquet: memory holds one batch of answers.
"""

import errno
import itertools
import math
import re
import tempfile
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pandas as pd
import pyarrow
import pyarrow.parquet

from lib import ranges, runs, scratch, totals, weights
from lib.fields import Field
from lib.ranges import Rows
from lib.study import Study

SLOT = ("item", "field", "annotator", "repeat")
_BATCH = 2048
_CURLY = "\N{RIGHT SINGLE QUOTATION MARK}"
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_VOTES = pyarrow.schema(
    {"item": "string", "field": "string", "annotator": "string", "repeat": "int64"}
    | {"model": "string", "value": "string", "said": "string", "abstained": "string"}
    | {"simulated": "bool", "batch": "string"}
)
_MENTIONS = pyarrow.schema(
    {"item": "string", "field": "string", "key": "string", "name": "string"}
    | {"annotator": "string", "repeat": "int64", "n": "int64", "attributes": "string"}
)
_OUTCOME = {"key": "VARCHAR", "outcome": "VARCHAR", "content": "VARCHAR", "model": "VARCHAR"}
_OUTCOME |= {"batch": "VARCHAR", "attempt": "INTEGER", "simulated": "BOOLEAN"}
# A valid outcome settles a request; without one, the last attempt says why there is no vote. What
# an invalid answer says is kept, and is no vote.
_ANSWERS = """
WITH tried AS (
    SELECT key, outcome, attempt, batch, row_number() OVER (
        PARTITION BY key
        ORDER BY outcome = 'valid' DESC, if(outcome = 'valid', attempt, -attempt), batch) AS place
    FROM outcomes)
SELECT r.item, r.annotator, r.repeat,
    coalesce(t.outcome, if(s.key IS NULL, 'missing', 'settled')) AS outcome,
    if(t.outcome = 'valid', o.model, r.model) AS model,
    if(t.outcome IN ('valid', 'invalid'), o.content, NULL) AS content, t.batch,
    coalesce(o.simulated, false) AS simulated
FROM requests r
LEFT JOIN spared s ON s.key = r.key
LEFT JOIN tried t ON t.key = r.key AND t.place = 1
LEFT JOIN outcomes o ON o.key = r.key AND o.batch = t.batch AND o.attempt = t.attempt
"""
_WEIGHED = """
SELECT item, field, annotator, repeat, model, value, said, abstained, simulated, batch,
    CASE WHEN abstained IS NOT NULL THEN 0 WHEN NOT shared THEN weight ELSE weight / count(*)
        FILTER (abstained IS NULL) OVER (PARTITION BY item, field, annotator) END AS weight
FROM said JOIN panel USING (annotator)
ORDER BY item, field, annotator, repeat
"""
_NAMED = """
SELECT m.*, v.weight, v.simulated
FROM named m JOIN votes v USING (item, field, annotator, repeat)
ORDER BY item, field, key, annotator, repeat, n
"""


def collect(
    requests: Path,
    outcomes: str | Path | Iterable[Path],
    study: Study,
    folder: Path,
    spared: Collection[str] = (),
) -> pd.DataFrame:
    """Write votes.parquet and mentions.parquet to `folder`; gives the accounting by field.

    `outcomes` is a glob or a list of files; requests without any outcome are missing, or settled if
    their keys are among the `spared` ones of `asking`. Columns of the accounting: field, n_votes,
    and n_<reason> for each reason of abstention. Raises AccountingError unless there is one row for
    every item, panel slot and field.
    """
    if isinstance(outcomes, str | Path):
        outcomes = Path(outcomes).parent.glob(Path(outcomes).name)
    folder.mkdir(parents=True, exist_ok=True)
    with scratch.database(folder) as base, tempfile.TemporaryDirectory(dir=folder) as parts:
        base.read_parquet(str(requests)).create_view("requests")
        base.register("spared", pd.DataFrame({"key": sorted(spared)}, dtype="str"))
        _outcomes(base, sorted(map(str, outcomes)))
        n_items = totals.check_slots(base, study)
        said, named = f"{parts}/said", f"{parts}/named"
        with (
            pyarrow.parquet.ParquetWriter(said, _VOTES) as votes,
            pyarrow.parquet.ParquetWriter(named, _MENTIONS) as mentions,
        ):
            for batch in base.sql(_ANSWERS).to_arrow_reader(_BATCH):
                rows = [_read(answer, study) for answer in batch.to_pylist()]
                votes.write_batch(_batch([one for one, _ in rows], _VOTES))
                mentions.write_batch(_batch([some for _, some in rows], _MENTIONS))
        base.register("panel", weights.of_annotators(study))
        base.read_parquet(said).create_view("said")
        base.read_parquet(named).create_view("named")
        _write(base, _WEIGHED, folder / "votes.parquet")
        base.read_parquet(str(folder / "votes.parquet")).create_view("votes")
        _write(base, _NAMED, folder / "mentions.parquet")
        return totals.account(base, n_items * study.n_votes, study)


def normalise(value: object, field: Field) -> tuple[str | None, str | None]:
    """The declared value that an answer means, or None and the reason why it is no vote.

    Case and space around declared values do not matter; numbers are parsed and bounded; entity
    lists become a JSON array of their keys, sorted.

    >>> moods = {"Calm": {"description": "-"}, "Angry": {"description": "-"}}
    >>> field = Field.model_validate({"description": "The mood", "values": moods})
    >>> normalise(" calm", field), normalise("sleepy", field)
    (('Calm', None), (None, 'stray'))
    """
    if field.type == "entities":
        found = _keys(value)
    elif field.type == "text":
        found = " ".join(value.split()) if isinstance(value, str) else None
    elif field.type in {"integer", "number"}:
        found = _bounded(value, field)
    else:
        found = _declared(value, field.allowed)
    return found, "stray" if found is None else None


def said(content: str, study: Study) -> Iterator[tuple[str | None, str | None]]:
    """What a valid answer says on each field of the study: the value, or why that is no vote."""
    values = orjson.loads(content)
    return (_vote(values, name, study) for name in study.fields)


def strays(votes: Rows) -> pd.DataFrame:
    """What was said that no field allows: field, annotator, model, said, n_votes, item (the first).

    The most frequent come first. A stray value is an abstention, and never a class of its own.
    """
    query = """SELECT field, annotator, model, said, count(*) AS n_votes, min(item) AS item
        FROM votes WHERE abstained = 'stray' GROUP BY ALL
        ORDER BY n_votes DESC, field, annotator, model, said"""
    with scratch.database() as base:
        ranges.see(base, "votes", votes)
        return base.execute(query).df()


def entity_key(name: str) -> str:
    """The name by which mentions are the same: case, space, quotes and edge punctuation ignored.

    >>> entity_key('  “Sir  Lancelot”, ')
    'sir lancelot'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    words = " ".join(folded.replace(_CURLY, "'").split())
    kept = [n for n, letter in enumerate(words) if unicodedata.category(letter)[0] not in "PZC"]
    return words[kept[0] : kept[-1] + 1] if kept else ""


def _outcomes(base: duckdb.DuckDBPyConnection, files: list[str]) -> None:
    """The outcomes as a view; a column that is empty in one file has no type of its own there."""
    if files:
        base.read_parquet(files, union_by_name=True).create_view("written")
    else:
        base.register("written", pd.DataFrame(columns=list(_OUTCOME)))
    columns = ", ".join(f"{name}::{kind} AS {name}" for name, kind in _OUTCOME.items())
    base.execute(f"CREATE VIEW outcomes AS SELECT {columns} FROM written")  # noqa: S608 - our names


def _read(answer: dict[str, Any], study: Study) -> tuple[list[dict], list[dict]]:
    """The votes and the mentions of one answer; of one that is not valid, what it says."""
    content, outcome = answer.pop("content"), answer["outcome"]
    found = orjson.loads(content) if content else None
    values = found if isinstance(found, dict) else {}
    votes, mentions = [], []
    for name, field in study.fields.items():
        value, abstained = _vote(values, name, study) if outcome == "valid" else (None, outcome)
        if outcome == "invalid" and name in values and normalise(values[name], field)[1]:
            abstained = "stray"
        said = _said(values[name], value, field) if name in values else None
        votes.append(
            {**answer, "field": name, "value": value, "said": said, "abstained": abstained}
        )
        if field.type == "entities" and value is not None:
            mentions += _mentions(values[name], {**answer, "field": name})
    return votes, mentions


def _said(answered: object, value: str | None, field: Field) -> str | None:
    """What an answer says, as it says it, where that is not the value itself.

    Of an accepted entity list nothing: its names as written are mentions.
    """
    if field.type == "entities" and value is not None:
        return None
    text = answered if isinstance(answered, str) else orjson.dumps(answered).decode()
    return None if text == value else text


def _vote(values: dict[str, Any], name: str, study: Study) -> tuple[str | None, str | None]:
    """The value of one field and the reason when there is none; `when` comes first."""
    when = study.fields[name].when
    if when:
        condition, reason = normalise(values.get(when), study.fields[when])
        if condition != "true":
            return None, reason or "not_applicable"
    return normalise(values.get(name), study.fields[name])


def _mentions(entities: list[dict], slot: dict[str, Any]) -> Iterator[dict]:
    """A row for each named entity; `n` counts those of one key within the answer."""
    seen: dict[str, int] = {}
    for entity in entities:
        key = entity_key(entity["name"])
        if key:
            attributes = {name: value for name, value in entity.items() if name != "name"}
            text = orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS).decode()
            name = " ".join(entity["name"].split())
            yield {**slot, "key": key, "name": name, "n": seen.get(key, 0), "attributes": text}
            seen[key] = seen.get(key, 0) + 1


def _keys(value: object) -> str | None:
    if not isinstance(value, list):
        return None
    names = [one.get("name") if isinstance(one, dict) else None for one in value]
    if not all(isinstance(name, str) for name in names):
        return None
    return orjson.dumps(sorted({entity_key(name) for name in names} - {""})).decode()


def _declared(value: object, allowed: list[str]) -> str | None:
    """The declared value that a word, truth value or number means."""
    if isinstance(value, bool):
        value = str(value).lower()
    word = number(value) if isinstance(value, int | float) else value
    if not isinstance(word, str) or word in allowed:
        return word if isinstance(word, str) else None
    same = [known for known in allowed if _folded(known) == _folded(word)]
    return same[0] if len(same) == 1 else None


def _folded(word: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", word).casefold().split())


def _bounded(value: object, field: Field) -> str | None:
    """The number in its shortest form, if the field may have it."""
    text = number(value)
    if text is None or (field.type == "integer" and "." in text):
        return None
    low = -math.inf if field.minimum is None else field.minimum
    high = math.inf if field.maximum is None else field.maximum
    return text if low <= float(text) <= high else None


def number(value: object) -> str | None:
    """The shortest text of a finite number, or None: "3" for 3, 3.0 and " 3 "."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def _batch(rows: Iterable[list[dict]], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    return pyarrow.RecordBatch.from_pylist(list(itertools.chain(*rows)), schema=schema)


def _write(base: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """Write the rows of a query as one Parquet file, whole or not at all."""
    with runs.replacing(path) as part:
        try:
            base.sql(query).write_parquet(str(part))
        except duckdb.IOException as error:
            number = re.search(r'"errno":"(\d+)"', str(error))
            raise runs.unwritable(path, int(number[1]) if number else errno.EIO) from None
