"""Collecting: result files to disk at once, then one outcome for each request, then the ledger.

Both files of every end state are read. An outcome file appears whole or not at all and is never
changed; everything here can be repeated after a crash at any line.
"""

import glob
import sqlite3
from datetime import UTC, datetime
from typing import Any

import duckdb
import pandas as pd

from lib import answers, ledger, models, pacing, runs, service
from lib.errors import ServiceError
from lib.runs import Run
from lib.service import Service

ENDED = ("completed", "failed", "expired", "cancelled")
_PLAIN = ["key", "attempt", "custom_id", "outcome", "model", "status", "code", "param", "message"]
_PLAIN += ["finish_reason", "n_input_tokens", "n_cached_tokens", "n_output_tokens"]
_PLAIN += ["n_reasoning_tokens", "spend_usd", "simulated", "answered_by", "batch", "run"]
_SCHEMA = dict.fromkeys(["attempt", "status"], "Int64") | dict.fromkeys(
    ["n_input_tokens", "n_cached_tokens", "n_output_tokens", "n_reasoning_tokens"], "Int64"
)
_SCHEMA |= {"spend_usd": "float64", "simulated": "bool"}
COLUMNS = [*_PLAIN, "content"]


def outcomes(run: Run, *, content: bool = False) -> pd.DataFrame:
    """Every attempt's outcome in this run so far; the answers' content only when asked for."""
    columns = COLUMNS if content else _PLAIN
    pattern = str(run.path("outcomes") / "*.parquet")
    if not glob.glob(glob.escape(str(run.path("outcomes"))) + "/*.parquet"):
        return _typed(pd.DataFrame(columns=columns))
    query = f"SELECT {', '.join(columns)} FROM read_parquet(?) ORDER BY custom_id"  # noqa: S608 - our columns
    with duckdb.connect() as connection:
        return _typed(connection.execute(query, [pattern]).df())


def is_simulated(run: Run) -> bool:
    """Whether any answer of the run came from the built-in annotators."""
    found = outcomes(run)
    return bool(found["simulated"].any())


def known(run: Run, requests: pd.DataFrame, *, free: bool) -> pd.DataFrame:
    """Valid answers that other runs hold for these requests: same key, same model, same kind.

    Simulated answers never stand in for real ones, nor real ones for simulated.
    """
    pattern = str(run.folder.parent / "*" / "outcomes" / "*.parquet")
    if not glob.glob(pattern):
        return _typed(pd.DataFrame(columns=COLUMNS))
    asked = requests[["key", "model"]].drop_duplicates()
    query = f"""
        SELECT {", ".join(f"o.{name}" for name in COLUMNS)}
        FROM read_parquet(?, union_by_name => true) AS o JOIN asked USING (key, model)
        WHERE o.outcome = 'valid' AND o.simulated = ? AND o.run <> ?
        QUALIFY row_number() OVER (PARTITION BY key ORDER BY o.run, o.custom_id) = 1
        ORDER BY key"""  # noqa: S608 - our columns
    with duckdb.connect() as connection:
        connection.register("asked", asked)
        return _typed(connection.execute(query, [pattern, free, run.name]).df())


def share(run: Run, requests: pd.DataFrame, *, free: bool) -> int:
    """Copy what other runs have paid for into this run, at no spend; gives how many answers."""
    have = outcomes(run)
    missing = requests[~requests["key"].isin(have.loc[have["outcome"].eq("valid"), "key"])]
    found = known(run, missing, free=free) if len(missing) else missing
    if len(found):
        name = f"shared-{found['key'].iloc[0][:12]}-{len(found)}"
        runs.write_table(found.assign(spend_usd=0.0), run.path("outcomes") / f"{name}.parquet")
    return len(found)


def ended(run: Run, book: sqlite3.Connection, to: Service) -> list[str]:
    """Look at every submitted batch and take in those that have ended; gives their shards."""
    taken = []
    for shard in ledger.shards(book, "submitted"):
        try:
            batch = service.retrieve(to, shard["batch_id"])
        except ServiceError as error:
            if error.status != 404 or _is_open_to_hope(shard):
                ledger.note(book, "unseen", shard["shard"], error=str(error))
                continue
            batch = {"status": "gone"}
        if _take(run, book, to, shard, batch):
            taken.append(shard["shard"])
    return taken


def refused(run: Run, book: sqlite3.Connection, shard: dict[str, Any], error: ServiceError) -> None:
    """Record a definite refusal of upload or create as the outcome of every line of the shard."""
    fault = {"code": error.code or str(error.status), "message": str(error), "param": None}
    _write(run, book, shard, _all_failed(book, shard, error.status, [fault]), shard["shard"])
    ledger.move(
        book, shard["shard"], shard["state"], "collected", **_settled(0.0), error=str(error)
    )


def _take(
    run: Run, book: sqlite3.Connection, to: Service, shard: dict[str, Any], batch: dict[str, Any]
) -> bool:
    status, counts = batch.get("status"), batch.get("request_counts") or {}
    seen = {"n_completed": counts.get("completed"), "n_failed": counts.get("failed")}
    ledger.observe(
        book, shard["shard"], status=status, **seen, expires_at=_time(batch, "expires_at")
    )
    faults = (batch.get("errors") or {}).get("data") or []
    if status == "failed" and any(f.get("code") == "token_limit_exceeded" for f in faults):
        _wait_for_queue(book, shard, str(faults[0].get("message")))
        return False
    if status not in (*ENDED, "gone"):
        return False
    if status == "failed":
        table = _all_failed(book, shard, 400, faults)
    else:
        table = _from_files(run, book, to, shard, batch)
    spent = _write(run, book, shard, table, shard["batch_id"])
    facts = _settled(spent) | {"ended_at": _end(batch), "status": status}
    ledger.move(book, shard["shard"], "submitted", "collected", **facts)
    sent = run.path("shards") / shard["file"]
    if sent.is_file():
        service.compress(sent)
    return True


def _from_files(
    run: Run, book: sqlite3.Connection, to: Service, shard: dict[str, Any], batch: dict[str, Any]
) -> pd.DataFrame:
    """Download what the batch left, read it from disk, and account for every line sent."""
    raw: list[bytes] = []
    for kind in ("output", "error"):
        file_id = batch.get(f"{kind}_file_id")
        if file_id:
            path = run.path("answers") / f"{shard['batch_id']}_{kind}.jsonl.gz"
            if not path.is_file():
                service.download(to, file_id, path)
            raw.extend(answers.lines(path))
    sent = ledger.sends(book, shard["shard"])
    model = models.facts(shard["model"])
    table, n_strange = answers.outcomes(sent, raw, run.study.fields, model)
    if n_strange:
        ledger.note(book, "strange_lines", shard["shard"], n_lines=n_strange)
    return table


def _all_failed(
    book: sqlite3.Connection, shard: dict[str, Any], status: int, faults: list[dict]
) -> pd.DataFrame:
    """Outcomes of a shard that was refused as a whole: nothing ran, nothing is paid."""
    first = faults[0] if faults else {"code": "unknown", "message": "no reason was given"}
    lost_file = first.get("param") == "file_id" or "Cannot find file" in str(first.get("message"))
    return ledger.sends(book, shard["shard"]).assign(
        outcome="missing" if lost_file else "failed",
        model=shard["model"],
        status=status,
        code=first.get("code"),
        param=first.get("param"),
        message=first.get("message"),
        spend_usd=0.0,
        simulated=False,
    )


def _write(
    run: Run, book: sqlite3.Connection, shard: dict[str, Any], table: pd.DataFrame, name: str
) -> float:
    """Write the outcome file of a shard; gives what its answers cost in USD."""
    table = table.assign(batch=shard["batch_id"], run=run.name).reindex(columns=COLUMNS)
    runs.write_table(_typed(table), run.path("outcomes") / f"{name}.parquet")
    return float(table["spend_usd"].sum())


def _wait_for_queue(book: sqlite3.Connection, shard: dict[str, Any], message: str) -> None:
    """A full queue is a wait, never a failure: learn the limit, pause, and create again later."""
    limit = pacing.learned_limit(message)
    if limit:
        ledger.learn(book, shard["model"], limit)
    n_refusals = shard["n_refusals"] + 1
    pause = pd.Timedelta(seconds=pacing.pause_seconds(n_refusals))
    ledger.move(
        book,
        shard["shard"],
        "submitted",
        "uploaded",
        batch_id=None,
        n_refusals=n_refusals,
        not_before=(pd.Timestamp.now("UTC") + pause).isoformat(),
        error=message,
    )


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The same column types in every outcome file, also where a column is empty."""
    kinds = {name: _SCHEMA.get(name, "str") for name in table.columns}
    return table.astype(kinds)


def _settled(spent_usd: float) -> dict[str, Any]:
    return {"settled_usd": spent_usd, "collected_at": ledger.now()}


def _is_open_to_hope(shard: dict[str, Any]) -> bool:
    """Whether a batch that the service does not show may still appear: 25 hours from submission."""
    age = pd.Timestamp.now("UTC") - pd.Timestamp(shard["submitted_at"])
    return age < pd.Timedelta(hours=25)


def _time(batch: dict[str, Any], name: str) -> str | None:
    seconds = batch.get(name)
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None


def _end(batch: dict[str, Any]) -> str:
    found = (_time(batch, f"{status}_at") for status in ENDED)
    return next((time for time in found if time), ledger.now())
