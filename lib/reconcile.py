"""Reconciling: what became of the calls whose answer nobody recorded.

Uploads are found by file name, batches by the run and shard in their metadata. What is found is
adopted; of doubles the oldest live one is kept, and the others are cancelled and recorded first.
Only a listing that this process has seen empty for the service's whole grace frees a shard to be
sent again, after its input file has been deleted so that a create still under way must fail.
"""

import sqlite3
from typing import Any

from lib import clock, ledger, service
from lib.runs import crash_point
from lib.service import Service

# Which of several batches of one shard is kept: one that runs or has all answers, then one that
# has some, then one that never ran.
_ORDER = {"cancelling": 1, "cancelled": 1, "expired": 1, "failed": 2}


def metadata(run_id: str, shard: dict[str, Any]) -> dict[str, str]:
    """What a batch carries so that it can be found again: run, shard, and the file's digest."""
    return {"votebook_run": run_id, "votebook_shard": shard["shard"], "sha256": shard["sha256"]}


def file_name(shard: dict[str, Any]) -> str:
    """The name under which a shard is uploaded: it names run, shard and content."""
    return f"votebook-{shard['shard']}-{shard['sha256'][:12]}.jsonl"


def reconcile(book: sqlite3.Connection, to: Service, run_id: str) -> None:
    """Settle every open intent, which takes the service's grace when something is not found.

    The grace is waited out here, by the monotonic clock of this process: neither a step of the
    wall clock nor a machine that slept can shorten it.
    """
    ends_at = clock.monotonic() + to.grace_seconds
    while ledger.shards(book, "uploading", "submitting"):
        is_over = clock.monotonic() >= ends_at
        _adopt_listed(book, to, run_id)
        if is_over:
            _free(book, to)
        elif ledger.shards(book, "uploading", "submitting"):
            clock.sleep(min(to.poll_seconds, max(0.0, ends_at - clock.monotonic())))


def adopt(book: sqlite3.Connection, shard: str, batch: dict[str, Any]) -> None:
    """Record the batch that a create made, whether its answer came or the batch was found."""
    facts = {"batch_id": batch["id"], "status": batch["status"], "submitted_at": ledger.now()}
    ledger.move(book, shard, "submitting", "submitted", **facts, not_before=None, error=None)


def _adopt_listed(book: sqlite3.Connection, to: Service, run_id: str) -> None:
    """Adopt what the service lists of the open intents."""
    uploading = ledger.shards(book, "uploading")
    files = list(service.files(to)) if uploading else []
    for shard in uploading:
        _adopt_file(book, to, shard, files)
    submitting = ledger.shards(book, "submitting")
    batches = [b for b in service.batches(to) if _ours(b, run_id)] if submitting else []
    for shard in submitting:
        _adopt_batch(book, to, shard, batches)


def _adopt_file(
    book: sqlite3.Connection, to: Service, shard: dict[str, Any], listed: list[dict]
) -> None:
    name, size = file_name(shard), shard["size_bytes"]
    found = {f["id"]: f for f in listed if (f.get("filename"), f.get("bytes")) == (name, size)}
    if not found:
        return
    first, *others = sorted(found.values(), key=lambda file: (file["created_at"], file["id"]))
    for file in others:
        service.delete_file(to, file["id"])
    crash_point("file found")
    ledger.move(book, shard["shard"], "uploading", "uploaded", file_id=first["id"])


def _adopt_batch(
    book: sqlite3.Connection, to: Service, shard: dict[str, Any], listed: list[dict]
) -> None:
    known = {other["batch_id"] for other in ledger.shards(book)}
    mine = [b for b in listed if b["metadata"].get("votebook_shard") == shard["shard"]]
    found = {b["id"]: b for b in mine if b["id"] not in known and _may_answer(b, shard)}
    if not found:
        return
    first, *others = sorted(
        found.values(), key=lambda b: (_ORDER.get(b["status"], 0), b["created_at"], b["id"])
    )
    for batch in (other for other in others if other["status"] != "failed"):
        service.cancel(to, batch["id"])
        ledger.lose(book, shard, "double", batch_id=batch["id"])
        crash_point("double cancelled")
    crash_point("batch found")
    adopt(book, shard["shard"], first)


def _free(book: sqlite3.Connection, to: Service) -> None:
    """Let what the service never had be sent again."""
    for shard in ledger.shards(book, "uploading"):
        ledger.move(book, shard["shard"], "uploading", "planned")
    for shard in ledger.shards(book, "submitting"):
        service.delete_file(to, shard["file_id"])
        crash_point("file deleted")
        ledger.move(book, shard["shard"], "submitting", "planned", file_id=None)


def _ours(batch: dict[str, Any], run_id: str) -> bool:
    return (batch.get("metadata") or {}).get("votebook_run") == run_id


def _may_answer(batch: dict[str, Any], shard: dict[str, Any]) -> bool:
    """Whether a batch may be what the open create made, or one that answers the same lines.

    One that failed never ran: it is left alone when the full queue refused it, or when it is of an
    upload that was given up, since the shard has been sent again after that.
    """
    if batch["status"] != "failed":
        return True
    return batch.get("input_file_id") == shard["file_id"] and not service.queue_refusal(batch)
