"""Collecting: one outcome for each request of a batch that has ended, and the tables of outcomes.

An outcome file appears whole or not at all and is never changed. Answers that other runs have paid
for are copied, where the same service gave them.
"""

import contextlib
import glob
import itertools
import json
import operator
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow
import pyarrow.parquet

from lib import ledger, models, results, runs, words
from lib.errors import ServiceError, VotebookError
from lib.runs import Run, crash_point
from lib.service import LOCAL, Service
from lib.study import Field

ROWS = 1_000  # that are in memory at one time: an answer may have 100 kB
_PLAIN = ["key", "attempt", "custom_id", "outcome", "model", "status", "code", "param", "message"]
_PLAIN += ["finish_reason", "n_input_tokens", "n_cached_tokens", "n_output_tokens"]
_PLAIN += ["n_reasoning_tokens", "spend_usd", "simulated", "answered_by", "service", "batch", "run"]
COLUMNS = [*_PLAIN, "content"]
_WHOLE = ["attempt", "status", "n_input_tokens", "n_cached_tokens", "n_output_tokens"]
_WHOLE += ["n_reasoning_tokens"]
_TYPES = dict.fromkeys(COLUMNS, "str") | dict.fromkeys(_WHOLE, "Int64")
_TYPES |= {"spend_usd": "float64", "simulated": "bool"}
_ARROW = {"str": "string", "Int64": "int64", "float64": "float64", "bool": "bool"}
_ROW = [name for name in COLUMNS if name not in ("service", "batch", "run")]
_REPEATED = [name for name in COLUMNS if name not in ("key", "custom_id", "spend_usd", "content")]
_FROM_ROW = operator.itemgetter(*_ROW)
SCHEMA = pyarrow.schema([(name, _ARROW[_TYPES[name]]) for name in COLUMNS])


def outcomes(run: Run, *, content: bool = False) -> pd.DataFrame:
    """Every attempt's outcome in this run so far; the answers' content only when asked for."""
    columns = COLUMNS if content else _PLAIN
    # Not by a query: each step of the loop asks, and an engine takes longer to start than to read.
    files = [pyarrow.parquet.ParquetFile(path) for path in run.path("outcomes").glob("*.parquet")]
    tables = [file.read([c for c in columns if c in file.schema_arrow.names]) for file in files]
    if not tables:
        return _typed(pd.DataFrame(columns=columns))
    whole = pyarrow.concat_tables(tables, promote_options="permissive").sort_by("custom_id")
    whole = whole.to_pandas(types_mapper={pyarrow.int64(): pd.Int64Dtype()}.get)
    return _typed(whole.reindex(columns=columns))


def is_simulated(run: Run) -> bool:
    """Whether any answer of the run came from the built-in annotators."""
    # Each table and picture asks: an engine would take longer to start than all else they do.
    paths = run.path("outcomes").glob("*.parquet")
    files = (pyarrow.parquet.ParquetFile(path).read(["simulated"]) for path in paths)
    return any(True in file["simulated"].to_pylist() for file in files)


def known(run: Run, requests: pd.DataFrame, *, free: bool, service: str) -> pd.DataFrame:
    """Valid answers that other runs hold for these requests: same key, model, service and kind.

    Simulated answers never stand in for real ones, nor real ones for simulated. Where an older file
    does not name the service, the ledger of its run does.
    """
    query = f"""
        SELECT {", ".join(f"o.{name}" for name in COLUMNS)}
        FROM outcomes AS o JOIN asked USING (key, model) LEFT JOIN begun ON o.run = begun.name
        WHERE o.outcome = 'valid' AND o.simulated = $free AND o.run <> $run
            AND coalesce(o.service, if(o.simulated, '{LOCAL}', begun.service)) = $service
        QUALIFY row_number() OVER (PARTITION BY key ORDER BY o.run, o.custom_id) = 1
        ORDER BY key"""  # noqa: S608 - our columns
    asked = requests[["key", "model"]].drop_duplicates()
    begun = pd.DataFrame(_services(run.folder.parent), columns=["name", "service"], dtype="str")
    given = {"free": free, "run": run.name, "service": service}
    found = _query(query, run.folder.parent, "*", tables={"asked": asked, "begun": begun}, **given)
    return _typed(pd.DataFrame(columns=COLUMNS) if found is None else found)


def share(run: Run, requests: pd.DataFrame, to: Service) -> int:
    """Copy what other runs have paid for into this run, at no spend; gives how many answers."""
    others = (p for p in run.folder.parent.glob("*/outcomes/") if p.parent.name != run.name)
    if requests.empty or next(others, None) is None:
        return 0
    found = known(run, requests, free=to.free, service=to.name)
    if len(found):
        name = f"shared-{found['key'].iloc[0][:12]}-{len(found)}"
        runs.write_table(found.assign(spend_usd=0.0), run.path("outcomes") / f"{name}.parquet")
    return len(found)


def write_answered(
    run: Run,
    book: sqlite3.Connection,
    shard: dict[str, Any],
    files: Sequence[Path],
    *,
    is_final: bool,
) -> float:
    """Write the outcomes of a batch from its result files; gives what they cost in USD.

    Raises ServiceError with the code `short`, and writes nothing, when requests are without a line
    in any file, unless that is final.
    """
    path = _path(run, shard)
    if not path.is_file():
        n_strange = derive(run, book, shard, files, path, is_final=is_final)
        crash_point("answers read")
        if n_strange:
            ledger.note(book, "strange_lines", shard["shard"], n_lines=n_strange)
    return spend_usd(path)


def derive(
    run: Run,
    book: sqlite3.Connection,
    shard: dict[str, Any],
    files: Sequence[Path],
    path: Path,
    *,
    is_final: bool = True,
) -> int:
    """Write to `path` what result files say of a shard's lines.

    Gives the number of lines that belong to none of them, and changes nothing else.
    """
    tallies: list[results.Tally] = []
    readings = _readings(book, shard, files, tallies, is_final=is_final)
    _write(path, readings, _labels(run, book, shard))
    return tallies[-1].n_strange


def write_refused(
    run: Run, book: sqlite3.Connection, shard: dict[str, Any], batch: dict[str, Any]
) -> float:
    """Write the outcomes of a batch that failed validation: nothing ran, nothing is paid."""
    path = _path(run, shard)
    if not path.is_file():
        derive_refused(run, book, shard, batch, path)
    return 0.0


def derive_refused(
    run: Run, book: sqlite3.Connection, shard: dict[str, Any], batch: dict[str, Any], path: Path
) -> None:
    """Write to `path` what a batch that failed validation says of a shard's lines.

    Where the service blames single lines, the others are `missing`: they may be sent again.
    """
    faults = (batch.get("errors") or {}).get("data") or []
    first = faults[0] if faults else {"code": "unknown", "message": "no reason was given"}
    lost_file = first.get("param") == "file_id" or "Cannot find file" in str(first.get("message"))
    by_line = {fault["line"]: fault for fault in faults if fault.get("line")}
    sent, blank = ledger.sends(book, shard["shard"]), dict.fromkeys(_ROW)
    rows = [blank | row for row in sent.to_dict("records")]
    for n, row in enumerate(rows):
        fault = by_line.get(n + 1, {} if by_line else first)
        row |= {name: fault.get(name) for name in ("code", "param", "message")}
        row["outcome"] = "failed" if fault and not lost_file else "missing"
        row |= {"status": 400, "model": shard["model"], "spend_usd": 0.0, "simulated": False}
    _write(path, iter([iter(rows)]), _labels(run, book, shard))


def _readings(
    book: sqlite3.Connection,
    shard: dict[str, Any],
    files: Sequence[Path],
    tallies: list[results.Tally],
    *,
    is_final: bool,
) -> Iterator[Iterator[dict[str, Any]]]:
    """What result files say about each line of a shard: the last of these readings counts."""
    sent, asked = ledger.lines(book, shard["shard"]), _fields(book, shard)
    # A dated snapshot has the facts of its base, and keeps its own name.
    model = models.facts(shard["model"]).model_copy(update={"name": shard["model"]})
    settled: set[str] = set()
    while not tallies or tallies[-1].torn:
        tallies.append(tally := results.Tally())
        raw = itertools.chain.from_iterable(map(results.lines, files))
        yield _metered(results.rows(sent, raw, asked, model, tally, settled), shard)
        settled |= tally.torn
    if tally.n_missing and not is_final:
        asked = words.n_of(shard["n_requests"], "request")
        what = f"no line yet for {tally.n_missing:,} of {asked} in the files"
        what = f"{what} of batch {shard['batch_id']}. They are fetched again."
        raise ServiceError(what, code="short", status=404, final=False, unclear=False)


def _metered(rows: Iterator[dict[str, Any]], shard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows; an answer whose usage is not told counts at its part of the shard's worst case."""
    for row in rows:
        if row["status"] == 200 and row["n_output_tokens"] is None:
            row["spend_usd"] = shard["reserved_usd"] / shard["n_requests"]
        yield row


def _write(
    path: Path, readings: Iterator[Iterator[dict[str, Any]]], labels: dict[str, str | None]
) -> None:
    """Write the rows of the last reading to an outcome file, some thousand at a time."""
    with runs.replacing(path) as part:
        for rows in readings:
            with pyarrow.parquet.ParquetWriter(
                part, SCHEMA, compression="zstd", use_dictionary=_REPEATED
            ) as writer:
                while some := list(itertools.islice(rows, ROWS)):
                    columns = zip(*map(_FROM_ROW, some), strict=True)
                    table = dict(zip(_ROW, columns, strict=True))
                    table |= {name: [label] * len(some) for name, label in labels.items()}
                    writer.write_table(pyarrow.table(table, SCHEMA))


def _labels(run: Run, book: sqlite3.Connection, shard: dict[str, Any]) -> dict[str, str | None]:
    return {"service": ledger.fact(book, "service"), "batch": shard["batch_id"], "run": run.name}


def _path(run: Run, shard: dict[str, Any]) -> Path:
    return run.path("outcomes") / f"{shard['batch_id']}.parquet"


def spend_usd(path: Path) -> float:
    """What the answers of an outcome file cost in USD."""
    spent = pyarrow.parquet.read_table(path, columns=["spend_usd"])["spend_usd"]
    return sum(spent.to_pylist())


def _services(folder: Path) -> list[tuple[str, str | None]]:
    """By name of each run in a folder, the service with which it was begun, if that can be told."""
    found = []
    for path in sorted(folder.glob("*/ledger.sqlite")):
        # What is wrong with another run is for that run to say: its answers are not taken.
        with contextlib.suppress(VotebookError), ledger.open_ledger(path, read_only=True) as book:
            found.append((path.parent.name, ledger.fact(book, "service")))
    return found


def _fields(book: sqlite3.Connection, shard: dict[str, Any]) -> dict[str, Field]:
    """The fields that the shard's lines asked about; the study may have other ones by now."""
    held = json.loads(ledger.fact(book, shard["fields"]) or "{}")
    return {name: Field.model_validate_json(field) for name, field in held.items()}


def _query(
    query: str,
    folder: Path,
    under: str = "",
    tables: dict[str, pd.DataFrame] | None = None,
    **given: str | bool,
) -> pd.DataFrame | None:
    """A query over the outcome files of one run, or of all when `under` is "*"; none: nothing."""
    if next(folder.glob(str(Path(under, "outcomes", "*.parquet"))), None) is None:
        return None
    pattern = Path(glob.escape(str(folder)), under, "outcomes", "*.parquet")
    with duckdb.connect() as connection:
        found = connection.from_parquet(str(pattern), union_by_name=True)
        if "service" not in found.columns:
            found = found.project("*, NULL::VARCHAR AS service")
        found.create_view("outcomes")
        for name, table in (tables or {}).items():
            connection.register(name, table)
        found = connection.sql(query, params=given or None).to_arrow_table()
    return found.to_pandas(types_mapper={pyarrow.int64(): pd.Int64Dtype()}.get)


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The same column types in every table of outcomes, also where a column is empty."""
    found = table.dtypes.astype(str).to_dict()
    other = [name for name in table.columns if found[name] != _TYPES[name]]
    return table.astype({name: _TYPES[name] for name in other})
