"""Tables: the labels with a row an item, and the long tables of consensus and names.

Decides the columns: for each field its value in its own type, its share, its status and whether
people corrected it. Rows stand in the order of the documents and are written as they are read.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow
import pyarrow.parquet

from lib import runs, scratch, spreadsheets, study
from lib.fields import Field
from lib.runs import Run
from lib.study import Study

LONG = ("consensus", "entities")
_ROWS = 5000
_ABOUT = ["item", "document", "group", "date", "sha256"]
_OURS = [*_ABOUT, "text", "simulated", "run", "panel", "prompt_sha256"]
_PARTS = ("value", "share", "status", "corrected")
_TYPES = {
    "boolean": (pyarrow.bool_(), "CASE {} WHEN 'true' THEN true WHEN 'false' THEN false END"),
    "integer": (pyarrow.float64(), "TRY_CAST({} AS DOUBLE)"),
    "number": (pyarrow.float64(), "TRY_CAST({} AS DOUBLE)"),
}


def columns(of: Study) -> dict[str, dict[str, str]]:
    """The columns of each field in the labels, none of them twice.

    The value stands under the field's own name, the others behind `_`; a name that is taken gets
    another `_` behind it.
    """
    taken = {name.casefold() for name in [*_OURS, *of.fields]}
    found: dict[str, dict[str, str]] = {}
    for field in of.fields:
        found[field] = {}
        for part in _PARTS:
            name = field if part == "value" else f"{field}_{part}"
            is_own = part == "value" and name.casefold() not in {one.casefold() for one in _OURS}
            while name.casefold() in taken and not is_own:
                name += "_"
            taken.add(name.casefold())
            found[field][part] = name
    return found


def labels(run: Run, text: bool) -> Iterator[pyarrow.RecordBatch]:
    """The labels, a row an item in the order of the documents; texts only when asked for."""
    fields, names = run.study.fields, columns(run.study)
    about = [*_ABOUT, "text"] if text else _ABOUT
    with scratch.database() as base:
        cursor = base.execute(_query(run, base))
        for batch in _read(run.path("documents.parquet"), about):
            rows = cursor.fetchmany(batch.num_rows)
            simulated, *said = zip(*rows, strict=True) if rows else [()] * (1 + 4 * len(fields))
            arrays = {name: batch.column(name) for name in about}
            for n, (field, parts) in enumerate(names.items()):
                for m, (part, name) in enumerate(parts.items()):
                    kind = _type(fields[field], part)
                    arrays[name] = pyarrow.array(said[4 * n + m], type=kind)
            arrays["simulated"] = pyarrow.array(simulated, type=pyarrow.bool_())
            yield _marked(run, pyarrow.RecordBatch.from_pydict(arrays))


def long(run: Run, name: str) -> Iterator[pyarrow.RecordBatch]:
    """A table of the run as it is, with what made it in every row."""
    for batch in _read(run.path(f"{name}.parquet")):
        yield _marked(run, batch)


def write_parquet(run: Run, folder: Path, text: bool) -> dict[str, int]:
    """labels, consensus and entities as Parquet; gives their rows."""
    batches = {"labels": labels(run, text), **{name: long(run, name) for name in LONG}}
    return {
        f"{name}.parquet": stream(found, folder / f"{name}.parquet")
        for name, found in batches.items()
    }


def write_csv(run: Run, folder: Path, text: bool) -> dict[str, int]:
    """The same as CSV for spreadsheets; lists are JSON."""
    batches = {"labels": labels(run, text), **{name: long(run, name) for name in LONG}}
    return {
        f"{name}.csv": _stream_csv(found, folder / f"{name}.csv") for name, found in batches.items()
    }


def stream(batches: Iterable[pyarrow.RecordBatch], path: Path) -> int:
    """Write batches as one Parquet file, whole or not at all; gives the rows."""
    rest = iter(batches)
    first, n_rows = next(rest), 0
    with (
        runs.replacing(path) as part,
        pyarrow.parquet.ParquetWriter(part, first.schema, compression="zstd") as writer,
    ):
        for batch in itertools.chain([first], rest):
            if batch.num_rows:  # a group without rows is an error to some readers
                writer.write_batch(batch)
            n_rows += batch.num_rows
    return n_rows


def _read(path: Path, names: list[str] | None = None) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a Parquet file; an empty file gives one batch without rows."""
    with pyarrow.parquet.ParquetFile(path) as file:
        if not file.metadata.num_rows:
            yield pyarrow.RecordBatch.from_pylist([], file.read(names).schema)
        yield from file.iter_batches(batch_size=_ROWS, columns=names)


def _stream_csv(batches: Iterable[pyarrow.RecordBatch], path: Path) -> int:
    n_rows = 0
    with runs.replacing(path) as part, part.open("w", encoding="utf-8-sig", newline="") as file:
        for batch in batches:
            frame = batch.to_pandas(types_mapper=_nullable)
            for name in batch.schema.names:
                if pyarrow.types.is_list(batch.schema.field(name).type):
                    frame[name] = frame[name].map(_json, na_action="ignore").astype("string")
            safe = spreadsheets.guarded(frame)
            safe.to_csv(file, index=False, header=not n_rows, lineterminator="\r\n")
            n_rows += batch.num_rows
    return n_rows


def _json(names: Iterable[str]) -> str:
    return json.dumps(list(names), ensure_ascii=False)


def _nullable(kind: pyarrow.DataType) -> object:
    known = {pyarrow.bool_(): pd.BooleanDtype(), pyarrow.int64(): pd.Int64Dtype()}
    return known.get(kind)


def _query(run: Run, base: duckdb.DuckDBPyConnection) -> str:
    """The labels in the order of the documents: whether any is simulated, then four a field."""
    for name in ("consensus", "entities"):
        base.read_parquet(str(run.path(f"{name}.parquet"))).create_view(name)
    documents = base.read_parquet(str(run.path("documents.parquet")), file_row_number=True)
    documents.create_view("documents")
    wide, lists, shown = [], [], []
    for n, (name, field) in enumerate(run.study.fields.items()):
        own = f"FILTER (field = '{name}')"
        for part in ("value", "share", "status"):
            wide.append(f"max({part}) {own} AS {part}_{n}")
        wide.append(f"bool_or(corrected) {own} AS corrected_{n}")
        value = _TYPES.get(field.type, (None, "{}"))[1].format(f"value_{n}")
        if field.type == "entities":
            lists.append(f"list(name ORDER BY key) {own} AS names_{n}")
            value = f"if(value_{n} IS NULL, NULL, coalesce(names_{n}, []))"
        shown += [value, f"share_{n}", f"status_{n}", f"coalesce(corrected_{n}, false)"]
    lists_of = f", {', '.join(lists)}" if lists else ""
    return f"""
    WITH wide AS (SELECT item, bool_or(simulated) AS simulated, {", ".join(wide)}
        FROM consensus GROUP BY item),
    lists AS (SELECT item{lists_of} FROM entities WHERE elected GROUP BY item)
    SELECT coalesce(simulated, false), {", ".join(shown)}
    FROM documents LEFT JOIN wide USING (item) LEFT JOIN lists USING (item)
    ORDER BY file_row_number
    """  # noqa: S608 - names of fields are checked


def _type(field: Field, part: str) -> pyarrow.DataType:
    if part == "share":
        return pyarrow.float64()
    if part == "corrected":
        return pyarrow.bool_()
    if part == "value" and field.type == "entities":
        return pyarrow.list_(pyarrow.string())
    known: Mapping = _TYPES if part == "value" else {}
    return known.get(field.type, (pyarrow.string(),))[0]


def _marked(run: Run, batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """A batch with what made it: run, panel and the digest of the prompt."""
    made = {
        "run": run.name,
        "panel": run.study.panel,
        "prompt_sha256": study.digest(run.study.prompt),
    }
    for name, value in made.items():
        batch = batch.append_column(name, pyarrow.array([value] * batch.num_rows, "string"))
    return batch.replace_schema_metadata(None)
