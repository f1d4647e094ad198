"""Submitting: from rows that are wanted to batches at the service, inside queue and budget.

A shard's file is durable before its row is in the ledger, its row before the upload, and an intent
before each call. What a definite refusal leaves is recorded as outcomes; an unclear end stays an
intent for `reconcile`.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow.parquet

from lib import collect, ledger, models, pacing, prompts, reconcile, runs, service, shards
from lib.errors import BudgetError, ServiceError
from lib.runs import Run
from lib.service import Service
from lib.wanted import health, stopped, wanted


def send(
    run: Run,
    book: sqlite3.Connection,
    to: Service,
    run_id: str,
    requests: pd.DataFrame,
    outcomes: pd.DataFrame,
    max_usd: float,
) -> list[str]:
    """Submit what may be submitted now; gives the reasons for which something was held back."""
    try:
        for shard in ledger.shards(book, "planned", "uploaded"):
            _push(run, book, to, run_id, shard)
        rows = wanted(requests, outcomes, ledger.in_flight(book), run.study)
        verdicts = health(requests, outcomes, run.study).set_index("model")["verdict"]
        cap_usd = max_usd or (float("inf") if to.free else 0.0)
        for model, group in rows.groupby("model", sort=True):
            verdict = verdicts.get(model, "passed")
            if verdict == "failed":
                return [stopped(run.study, [model], outcomes)]
            for part in _admitted(run, book, str(model), group, verdict):
                _plan(run, book, run_id, str(model), part, verdict, cap_usd)
        for shard in ledger.shards(book, "planned"):
            _push(run, book, to, run_id, shard)
    except BudgetError as error:
        return [str(error)]
    except ServiceError as error:
        ledger.note(book, "service_error", None, error=str(error))
        return [str(error)] if getattr(error, "final", False) else []
    return []


def _admitted(
    run: Run, book: sqlite3.Connection, model: str, rows: pd.DataFrame, verdict: str
) -> Iterator[pd.DataFrame]:
    """The next shards of a model: its canary alone, or as many as its queue admits."""
    under_way = [s for s in ledger.shards(book, *ledger.OPEN_STATES) if s["model"] == model]
    if verdict == "untried":
        if not under_way:
            yield rows[prompts.sample(rows["key"], run.study.sending.canary)]
        return
    window = window_tokens(run, book, model)
    bounds = shards.limits(run.study.sending.max_requests, window)
    parts = [part for _, part in rows.groupby(shards.pack(rows, bounds), sort=True)]
    sizes = [int(part["n_input_tokens"].sum()) for part in parts]
    enqueued = sum(shard["n_input_tokens"] for shard in under_way)
    yield from parts[: pacing.admit(sizes, enqueued, window)]


def window_tokens(run: Run, book: sqlite3.Connection, model: str) -> int | None:
    """The queue window of a model: what a refusal named, else the limit of the study's tier."""
    tiers = models.facts(model).queue_tokens
    return ledger.limits(book).get(model) or tiers.get(run.study.sending.tier)


def _plan(
    run: Run,
    book: sqlite3.Connection,
    run_id: str,
    model: str,
    rows: pd.DataFrame,
    verdict: str,
    cap_usd: float,
) -> None:
    """Write a shard's file and record it with the money that it may cost at most."""
    facts = models.facts(model)
    worst = zip(rows["n_input_tokens"], rows["max_output_tokens"], strict=True)
    reserved_usd = sum(models.worst_case_usd(facts, int(n), int(cap)) for n, cap in worst)
    name = f"{run_id[:8]}-{model}-{len(ledger.shards(book)):05}"
    path = run.path("shards") / f"{name}.jsonl"
    sends, digest = _write_shard(run, path, rows)
    shard = {
        "shard": name,
        "model": model,
        "purpose": "canary" if verdict == "untried" else "main",
        "file": path.name,
        "sha256": digest,
        "size_bytes": path.stat().st_size,
        "n_requests": len(rows),
        "n_input_tokens": int(rows["n_input_tokens"].sum()),
        "reserved_usd": reserved_usd,
    }
    try:
        ledger.plan(book, shard, sends, cap_usd)
    except BudgetError:
        path.unlink()
        raise


def _write_shard(run: Run, path: Path, rows: pd.DataFrame) -> tuple[list[tuple], str]:
    """Render the rows into one input file; gives (custom_id, key, attempt) and the SHA-256."""
    texts = pyarrow.parquet.read_table(
        run.path("documents.parquet"),
        columns=["item", "text"],
        filters=[("item", "in", set(rows["item"]))],
    ).to_pandas()
    by_item = dict(zip(texts["item"], texts["text"], strict=True))
    digest, sends = hashlib.sha256(), []
    with runs.replacing(path) as part, part.open("wb") as file:
        for row in rows.to_dict("records"):
            name = prompts.custom_id(row["key"], row["attempt"])
            annotator = run.study.annotators[row["annotator"]]
            line = prompts.line(
                run.study,
                row["model"],
                annotator,
                row["max_output_tokens"],
                by_item[row["item"]],
                name,
            )
            digest.update(line)
            file.write(line)
            sends.append((name, row["key"], row["attempt"]))
    return sends, digest.hexdigest()


def _push(run: Run, book: sqlite3.Connection, to: Service, run_id: str, shard: dict) -> None:
    """Take one shard from the disk to the service: upload it, then create its batch."""
    if shard["not_before"] and datetime.fromisoformat(shard["not_before"]) > datetime.now(UTC):
        return
    path = run.path("shards") / shard["file"]
    try:
        if shard["state"] == "planned":
            ledger.move(book, shard["shard"], "planned", "uploading")
            shard["state"] = "uploading"
            file_id = service.upload(to, path, reconcile.file_name(shard))
            ledger.move(book, shard["shard"], "uploading", "uploaded", file_id=file_id)
            shard |= {"state": "uploaded", "file_id": file_id}
        ledger.move(book, shard["shard"], "uploaded", "submitting")
        shard["state"] = "submitting"
        labels = reconcile.metadata(run_id, shard)
        batch = service.create(to, shard["file_id"], prompts.ENDPOINT, labels)
        reconcile.adopt(book, shard["shard"], batch)
    except ServiceError as error:
        if error.unclear:
            raise
        before = "planned" if shard["state"] == "uploading" else "uploaded"
        if error.final or error.status == 429:
            ledger.move(book, shard["shard"], shard["state"], before)
            raise
        collect.refused(run, book, shard, error)
