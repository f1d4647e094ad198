"""Collecting: result files to disk at once, then one outcome for each request, then the ledger.

Both files of every end state are read. An outcome file appears whole or not at all and is never
changed; everything here can be repeated after a crash at any line. Results that the service does
not show are waited for: to send again at once would be to pay twice.
"""

import glob
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from lib import answers, clock, ledger, models, pacing, runs, service
from lib.errors import ServiceError
from lib.runs import Run, crash_point
from lib.service import Service
from lib.study import Field

ENDED = ("completed", "failed", "expired", "cancelled")
GIVE_UP_HOURS = 24
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
    found = _query(f"SELECT {', '.join(columns)} FROM outcomes ORDER BY custom_id", run.folder)  # noqa: S608 - our columns
    return _typed(pd.DataFrame(columns=columns) if found is None else found)


def is_simulated(run: Run) -> bool:
    """Whether any answer of the run came from the built-in annotators."""
    found = _query("SELECT coalesce(bool_or(simulated), false) AS any FROM outcomes", run.folder)
    return found is not None and bool(found["any"].iloc[0])


def known(run: Run, requests: pd.DataFrame, *, free: bool) -> pd.DataFrame:
    """Valid answers that other runs hold for these requests: same key, same model, same kind.

    Simulated answers never stand in for real ones, nor real ones for simulated.
    """
    query = f"""
        SELECT {", ".join(f"o.{name}" for name in COLUMNS)}
        FROM outcomes AS o JOIN asked USING (key, model)
        WHERE o.outcome = 'valid' AND o.simulated = $free AND o.run <> $run
        QUALIFY row_number() OVER (PARTITION BY key ORDER BY o.run, o.custom_id) = 1
        ORDER BY key"""  # noqa: S608 - our columns
    asked = requests[["key", "model"]].drop_duplicates()
    found = _query(query, run.folder.parent, "*", asked=asked, free=free, run=run.name)
    return _typed(pd.DataFrame(columns=COLUMNS) if found is None else found)


def share(run: Run, requests: pd.DataFrame, *, free: bool) -> int:
    """Copy what other runs have paid for into this run, at no spend; gives how many answers."""
    found = known(run, requests, free=free) if len(requests) else requests
    if len(found):
        name = f"shared-{found['key'].iloc[0][:12]}-{len(found)}"
        runs.write_table(found.assign(spend_usd=0.0), run.path("outcomes") / f"{name}.parquet")
    return len(found)


def ended(run: Run, book: sqlite3.Connection, to: Service) -> list[str]:
    """Look at every submitted batch and take in those that have ended; gives their shards.

    What one batch lacks is recorded and does not hold up the others. Raises ServiceError when the
    service does not answer at all or does not let us in.
    """
    taken = []
    for shard in ledger.shards(book, "submitted"):
        try:
            done = _look(run, book, to, shard)
        except ServiceError as error:
            if error.status in (0, 401, 403):
                raise
            since = shard["unseen_at"] or ledger.now()
            unseen_at = since if error.status == 404 else shard["unseen_at"]
            ledger.observe(book, shard["shard"], error=str(error), unseen_at=unseen_at)
            continue
        if done:
            taken.append(shard["shard"])
    return taken


def _look(run: Run, book: sqlite3.Connection, to: Service, shard: dict[str, Any]) -> bool:
    """Look at one batch and take it in if it has ended; gives whether it was taken in."""
    try:
        batch = service.retrieve(to, shard["batch_id"])
    except ServiceError as error:
        if error.status != 404 or not _given_up(shard):
            raise
        batch = {"status": "gone"}
    status, counts = batch.get("status"), batch.get("request_counts") or {}
    facts = {"n_completed": counts.get("completed"), "n_failed": counts.get("failed")}
    facts |= {"status": status, "expires_at": _time(batch, "expires_at")}
    crash_point("batch seen")
    ledger.observe(book, shard["shard"], **facts)
    refusal = service.queue_refusal(batch)
    if refusal:
        _wait_for_queue(run, book, to, shard, refusal)
        return False
    if status not in (*ENDED, "gone"):
        ledger.observe(book, shard["shard"], error=None, unseen_at=None)
        return False
    failed = status == "failed"
    table = _all_failed(book, shard, batch) if failed else _from_files(run, book, to, shard, batch)
    end = {"settled_usd": _write(run, shard, table), "ended_at": _end(batch), "error": None}
    crash_point("outcomes written")
    ledger.move(book, shard["shard"], "submitted", "collected", **end, collected_at=ledger.now())
    crash_point("collected")
    sent = run.path("shards") / shard["file"]
    if sent.is_file():
        service.compress(sent)
    return True


def _from_files(
    run: Run, book: sqlite3.Connection, to: Service, shard: dict[str, Any], batch: dict[str, Any]
) -> pd.DataFrame:
    """Download what the batch left, read it from disk, and account for every line sent."""
    raw: list[bytes] = []
    for kind, count in (("output", "completed"), ("error", "failed")):
        path = run.path("answers") / f"{shard['batch_id']}_{kind}.jsonl.gz"
        counted = (batch.get("request_counts") or {}).get(count) or 0
        named = batch.get(f"{kind}_file_id")
        if not path.is_file() and not _fetch(to, shard, named, path, counted):
            if named or counted or batch["status"] == "gone":
                ledger.lose(book, shard, "results_gone", batch_id=shard["batch_id"])
            continue
        crash_point("downloaded")
        raw.extend(answers.lines(path))
    sent = ledger.sends(book, shard["shard"])
    # A dated snapshot has the facts of its base, and keeps its own name.
    model = models.facts(shard["model"]).model_copy(update={"name": shard["model"]})
    table, n_strange = answers.outcomes(sent, raw, _fields(book, shard), model)
    if n_strange:
        ledger.note(book, "strange_lines", shard["shard"], n_lines=n_strange)
    return table


def _fetch(to: Service, shard: dict[str, Any], file_id: str | None, path: Path, n: int) -> bool:
    """Download a result file, and say whether there is one.

    One that should hold `n` lines and is not there is waited for until it is given up.
    """
    try:
        if file_id:
            service.download(to, file_id, path)
        elif n and not _given_up(shard):
            what = f"{path.name} of {n:,} lines is not shown by {to.name} yet. Waiting for it."
            raise ServiceError(what, status=404, final=False, unclear=False)
    except ServiceError as error:
        if error.status != 404 or not _given_up(shard):
            raise
        return False
    return bool(file_id)


def _fields(book: sqlite3.Connection, shard: dict[str, Any]) -> dict[str, Field]:
    """The fields that the shard's lines asked about; the study may have other ones by now."""
    held = json.loads(ledger.fact(book, shard["fields"]) or "{}")
    return {name: Field.model_validate_json(field) for name, field in held.items()}


def _all_failed(
    book: sqlite3.Connection, shard: dict[str, Any], batch: dict[str, Any]
) -> pd.DataFrame:
    """Outcomes of a batch that failed validation: nothing ran, nothing is paid.

    Where the service blames single lines, the others are `missing`: they may be sent again.
    """
    faults = (batch.get("errors") or {}).get("data") or []
    first = faults[0] if faults else {"code": "unknown", "message": "no reason was given"}
    lost_file = first.get("param") == "file_id" or "Cannot find file" in str(first.get("message"))
    by_line = {fault["line"]: fault for fault in faults if fault.get("line")}
    table = ledger.sends(book, shard["shard"])
    of_line = [by_line.get(n + 1, {} if by_line else first) for n in range(len(table))]
    return table.assign(
        outcome=["failed" if fault and not lost_file else "missing" for fault in of_line],
        model=shard["model"],
        status=400,
        code=[fault.get("code") for fault in of_line],
        param=[fault.get("param") for fault in of_line],
        message=[fault.get("message") for fault in of_line],
        spend_usd=0.0,
        simulated=False,
    )


def _write(run: Run, shard: dict[str, Any], table: pd.DataFrame) -> float:
    """Write the outcome file of a shard; gives what its answers cost in USD."""
    table = table.assign(batch=shard["batch_id"], run=run.name).reindex(columns=COLUMNS)
    path = run.path("outcomes") / f"{shard['batch_id']}.parquet"
    if not path.is_file():
        runs.write_table(_typed(table), path)
    return float(table["spend_usd"].sum())


def _wait_for_queue(
    run: Run, book: sqlite3.Connection, to: Service, shard: dict[str, Any], message: str
) -> None:
    """A full queue is a wait, never a failure: learn the limit, pause, and create again later.

    A shard that alone passes the limit is given up, so that its lines go into smaller ones.
    """
    limit = pacing.learned_limit(message)
    if limit:
        ledger.learn(book, shard["model"], limit)
    if limit and shard["n_input_tokens"] > limit and shard["n_requests"] > 1:
        service.delete_file(to, shard["file_id"])
        ledger.release(book, shard["shard"], "submitted", message)
        run.path("shards").joinpath(shard["file"]).unlink(missing_ok=True)
        return
    facts = {"batch_id": None, "status": None, **pause(shard), "error": message}
    ledger.move(book, shard["shard"], "submitted", "uploaded", **facts)


def pause(shard: dict[str, Any]) -> dict[str, Any]:
    """What a shard records when the service has no room for it now: how often, and until when."""
    n_refusals = shard["n_refusals"] + 1
    wait = pd.Timedelta(seconds=pacing.pause_seconds(n_refusals))
    not_before = (clock.now() + wait).isoformat()
    return {"n_refusals": n_refusals, "not_before": not_before}


def _query(
    query: str,
    folder: Path,
    under: str = "",
    asked: pd.DataFrame | None = None,
    **given: str | bool,
) -> pd.DataFrame | None:
    """A query over the outcome files of one run, or of all when `under` is "*"; none: nothing."""
    if next(folder.glob(str(Path(under, "outcomes", "*.parquet"))), None) is None:
        return None
    pattern = Path(glob.escape(str(folder)), under, "outcomes", "*.parquet")
    with duckdb.connect() as connection:
        connection.from_parquet(str(pattern), union_by_name=True).create_view("outcomes")
        if asked is not None:
            connection.register("asked", asked)
        return connection.execute(query, given).df()


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The same column types in every outcome file, also where a column is empty."""
    kinds = {name: _SCHEMA.get(name, "str") for name in table.columns}
    return table.astype(kinds)


def _given_up(shard: dict[str, Any]) -> bool:
    """Whether the service has not shown a batch or its results for so long that they are lost."""
    if not shard["unseen_at"]:
        return False
    age = clock.now() - pd.Timestamp(shard["unseen_at"])
    return age > pd.Timedelta(hours=GIVE_UP_HOURS)


def _time(batch: dict[str, Any], name: str) -> str | None:
    seconds = batch.get(name)
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None


def _end(batch: dict[str, Any]) -> str:
    found = (_time(batch, f"{status}_at") for status in ENDED)
    return next((time for time in found if time), ledger.now())
