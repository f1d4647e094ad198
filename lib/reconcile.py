"""Reconciling: what became of the calls whose answer nobody recorded.

Uploads are found by file name, batches by the run and shard in their metadata. What is found is
adopted; of doubles the oldest live one is kept and the others are cancelled and recorded. Only a
listing that stays empty for the service's whole grace frees a shard to be sent again, after its
input file has been deleted so that a create still under way must fail.
"""

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

from lib import ledger, service
from lib.service import Service

_DEAD = ("failed", "cancelled", "expired")


def metadata(run_id: str, shard: dict[str, Any]) -> dict[str, str]:
    """What a batch carries so that it can be found again: run, shard, and the file's digest."""
    return {"votebook_run": run_id, "votebook_shard": shard["shard"], "sha256": shard["sha256"]}


def file_name(shard: dict[str, Any]) -> str:
    """The name under which a shard is uploaded: it names run, shard and content."""
    return f"votebook-{shard['shard']}-{shard['sha256'][:12]}.jsonl"


def reconcile(book: sqlite3.Connection, to: Service, run_id: str) -> int:
    """Settle every open intent; gives how many must still wait for the grace to pass."""
    uploading = ledger.shards(book, "uploading")
    submitting = ledger.shards(book, "submitting")
    if uploading:
        listed = list(service.files(to))
        for shard in uploading:
            _settle_upload(book, to, shard, listed)
    if submitting:
        listed = [b for b in service.batches(to) if _ours(b, run_id)]
        for shard in submitting:
            _settle_create(book, to, shard, listed)
    return len(ledger.shards(book, "uploading", "submitting"))


def _settle_upload(
    book: sqlite3.Connection, to: Service, shard: dict[str, Any], listed: list[dict]
) -> None:
    name = file_name(shard)
    found = [f for f in listed if f["filename"] == name and f["bytes"] == shard["size_bytes"]]
    if found:
        first, *others = sorted(found, key=lambda file: (file["created_at"], file["id"]))
        ledger.move(book, shard["shard"], "uploading", "uploaded", file_id=first["id"])
        for file in others:
            service.delete_file(to, file["id"])
    elif _grace_is_over(shard, to):
        ledger.move(book, shard["shard"], "uploading", "planned")


def _settle_create(
    book: sqlite3.Connection, to: Service, shard: dict[str, Any], listed: list[dict]
) -> None:
    found = [b for b in listed if b["metadata"].get("votebook_shard") == shard["shard"]]
    known = {other["batch_id"] for other in ledger.shards(book)}
    found = [b for b in found if b["id"] not in known and not _queue_refused(b)]
    if found:
        first, *others = sorted(
            found, key=lambda b: (b["status"] in _DEAD, b["created_at"], b["id"])
        )
        adopt(book, shard["shard"], first)
        for batch in others:
            service.cancel(to, batch["id"])
            ledger.note(book, "double_cancelled", shard["shard"], batch_id=batch["id"])
    elif _grace_is_over(shard, to):
        service.delete_file(to, shard["file_id"])
        ledger.move(book, shard["shard"], "submitting", "planned", file_id=None)


def adopt(book: sqlite3.Connection, shard: str, batch: dict[str, Any]) -> None:
    """Record the batch that a create made, whether its answer came or the batch was found."""
    facts = {"batch_id": batch["id"], "status": batch["status"], "submitted_at": ledger.now()}
    ledger.move(book, shard, "submitting", "submitted", **facts, not_before=None)


def _ours(batch: dict[str, Any], run_id: str) -> bool:
    return (batch.get("metadata") or {}).get("votebook_run") == run_id


def _queue_refused(batch: dict[str, Any]) -> bool:
    """A batch that the full queue refused is no answer to a later create of the same shard."""
    faults = (batch.get("errors") or {}).get("data") or []
    return batch["status"] == "failed" and any(
        fault.get("code") == "token_limit_exceeded" for fault in faults
    )


def _grace_is_over(shard: dict[str, Any], to: Service) -> bool:
    age = datetime.now(UTC) - datetime.fromisoformat(shard["changed_at"])
    return age > timedelta(seconds=to.grace_seconds)
