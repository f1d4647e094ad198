"""Pushing: one shard from the disk to the service, with an intent in the ledger before each call.

An unclear end leaves the intent for `reconcile`; a refusal that is certain takes it back, and holds
the shard's model back when the refusal is the model's own.
"""

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

from lib import answers, ledger, prompts, queues, reconcile, service
from lib.errors import ServiceError
from lib.planning import Step
from lib.runs import crash_point


def push(step: Step, shard: dict[str, Any]) -> None:
    """Take one shard from the disk to the service: upload it, then create its batch.

    A refusal leaves the shard as it was, but for a file that the service did not accept.
    """
    book, to, path = step.book, step.to, step.run.path("shards") / shard["file"]
    try:
        if shard["state"] == "planned":
            if not path.is_file() or _sha256(path) != shard["sha256"]:
                release(step, shard, "its file is gone or has changed")
                return
            _move(book, shard, "planned", "uploading")
            crash_point("upload intended")
            file_id = service.upload(to, path, reconcile.file_name(shard))
            crash_point("upload answered")
            _move(book, shard, "uploading", "uploaded", file_id=file_id)
            crash_point("upload recorded")
        _move(book, shard, "uploaded", "submitting")
        crash_point("create intended")
        labels = reconcile.metadata(step.run_id, shard)
        batch = service.create(to, shard["file_id"], prompts.ENDPOINT, labels)
        crash_point("create answered")
        reconcile.adopt(book, shard["shard"], batch)
        crash_point("create recorded")
    except ServiceError as error:
        _step_back(step, shard, error)
        raise


def _step_back(step: Step, shard: dict[str, Any], error: ServiceError) -> None:
    """Undo the intent of a call that was refused for certain; its model pauses when it is told to.

    What is refused as it is, is tried once more by the next command, and then after pauses.
    """
    if shard["state"] not in ("uploading", "submitting") or error.unclear:
        return
    for_all = stops_all(error)
    facts = {} if for_all else queues.hold_back(step.run, step.book, shard, is_final=error.final)
    before = "planned" if shard["state"] == "uploading" else "uploaded"
    _move(step.book, shard, shard["state"], before, **facts, error=str(error))
    if before == "uploaded" and error.final and not for_all and error.status != 403:
        reconcile.give_up_file(step.book, step.to, shard)
        _move(step.book, shard, "uploaded", "planned", file_id=None)


def stops_all(error: ServiceError) -> bool:
    """Whether a fault is the account's or the network's, and no model's own."""
    status = error.status in (0, *answers.ACCOUNT_STATUS)
    return status or error.code in answers.ACCOUNT_CODES


def _move(book: sqlite3.Connection, shard: dict, old: str, new: str, **facts: object) -> None:
    ledger.move(book, shard["shard"], old, new, **facts)
    shard |= {"state": new, **facts}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def release(step: Step, shard: dict[str, Any], why: str) -> None:
    """Give up a shard that is no batch yet: its lines, its money and its files are free again."""
    if shard["file_id"]:
        reconcile.give_up_file(step.book, step.to, shard)
    ledger.release(step.book, shard["shard"], shard["state"], why)
    step.run.path("shards").joinpath(shard["file"]).unlink(missing_ok=True)
