"""Reconciling: what became of the calls whose answer nobody recorded.

Uploads are found by file name, batches by run, shard and digest in their metadata, or by their
input file where a service keeps no metadata. What is found is adopted; of doubles the oldest live
one is kept, and the others are cancelled and recorded first. Only listings that this process has
seen empty for the service's whole grace free a shard to be sent again, after its input file has
been deleted so that a create still under way must fail. No listing frees anything when all that
the run ever sent is unknown to the key.
"""

import datetime
import json
import re
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from lib import clock, ledger, service
from lib.errors import ServiceError
from lib.runs import crash_point
from lib.service import Service

# A batch that drops out between two pages of one size stands inside a page of the other.
PAGE_SIZES = (100, 97)
SMALLEST_PAGE = 10  # some services give fewer than they are asked for
# Result files and input files are kept for 30 days: what is older and not shown proves nothing.
SHOWN_DAYS = 29
LOOKS = 10  # batches that are asked for by id before a list is read
_SENT = ("submitted", "collected")
LIVE = ("validating", "in_progress", "finalizing")
# Which of several batches of one shard is kept: one that runs or has all answers, then one that
# has some, then one that never ran.
_ORDER = {"cancelling": 1, "cancelled": 1, "expired": 1, "failed": 2}


def metadata(run_id: str, shard: dict[str, Any]) -> dict[str, str]:
    """What a batch carries so that it can be found again: run, shard, and the file's digest."""
    return {"votebook_run": run_id, "votebook_shard": shard["shard"], "sha256": shard["sha256"]}


def file_name(shard: dict[str, Any]) -> str:
    """The name under which a shard is uploaded: it names run, shard and content."""
    return f"votebook-{shard['shard']}-{shard['sha256'][:12]}.jsonl"


def named(file_name: str | None) -> tuple[str, str]:
    """Shard and first digits of the digest in the name of an upload; empty for another name.

    >>> named("votebook-1a2b3c4d-gpt-6-luna-00001-0123456789ab.jsonl")
    ('1a2b3c4d-gpt-6-luna-00001', '0123456789ab')
    """
    found = re.fullmatch(r"votebook-(.+)-([0-9a-f]{12})\.jsonl", file_name or "")
    return (found[1], found[2]) if found else ("", "")


def order(batch: Mapping[str, Any]) -> tuple:
    """By which several batches of one shard are sorted: the first is the one to keep."""
    return (_ORDER.get(batch["status"], 0), batch["created_at"], batch["id"])


def reconcile(book: sqlite3.Connection, to: Service, run_id: str) -> None:
    """Settle every open intent, which takes the service's grace when something is not found.

    The grace is waited out here, by the monotonic clock of this process: neither a step of the
    wall clock nor a machine that slept can shorten it. Raises ServiceError when the key sees
    another project.
    """
    ends_at = clock.monotonic() + to.grace_seconds
    while ledger.shards(book, "uploading", "submitting"):
        is_over = clock.monotonic() >= ends_at
        _adopt_listed(book, to, run_id)
        if is_over and ledger.shards(book, "uploading", "submitting"):
            same_project(book, to, run_id)
            _free(book, to)
        elif ledger.shards(book, "uploading", "submitting"):
            crash_point("in the grace")
            clock.sleep(min(to.poll_seconds, max(0.0, ends_at - clock.monotonic())))


def adopt(book: sqlite3.Connection, shard: str, batch: dict[str, Any]) -> None:
    """Record the batch that a create made, whether its answer came or the batch was found."""
    facts = {"batch_id": batch["id"], "status": batch["status"], "submitted_at": ledger.now()}
    ledger.move(book, shard, "submitting", "submitted", **facts, not_before=None, error=None)


def double(
    book: sqlite3.Connection, to: Service, shard: dict[str, Any], batch: dict[str, Any]
) -> None:
    """Cancel a further batch of a shard's lines, and record what it may cost."""
    crash_point("double found")
    if batch["status"] in LIVE:
        service.cancel(to, batch["id"])
    crash_point("cancel sent")
    ledger.lose(book, shard, "double", batch_id=batch["id"])
    crash_point("double cancelled")


def give_up_file(book: sqlite3.Connection, to: Service, shard: dict[str, Any]) -> None:
    """Delete the upload of a shard; recorded first, lest its absence pass for another project."""
    ledger.note(book, "fence", shard["shard"], fenced_file_id=shard["file_id"])
    service.delete_file(to, shard["file_id"])
    crash_point("file deleted")


def batches(to: Service) -> dict[str, dict[str, Any]]:
    """Every batch that the service lists, by id. Raises ServiceError where it lists none.

    A repeat counts once. A list that may have several pages is read twice, in pages of two sizes.
    """
    found: dict[str, dict] = {}
    for size in PAGE_SIZES:
        found |= {batch["id"]: batch for batch in service.batches(to, size)}
        if len(found) < SMALLEST_PAGE:
            break
    return found


def listed(to: Service) -> tuple[dict[str, dict], list[dict]]:
    """All batches by id and all input files, as far as the service has lists of them."""
    kinds = to.facts.lists
    found = batches(to) if "batches" in kinds else {}
    return found, list(service.files(to)) if "files" in kinds else []


def ours(batch: Mapping[str, Any], run_id: str) -> bool:
    """Whether a batch says that it is of this run."""
    return (batch.get("metadata") or {}).get("votebook_run") == run_id


def same_project(book: sqlite3.Connection, to: Service, run_id: str) -> None:
    """Nothing, as long as the key sees anything that this run has sent in the last weeks.

    Otherwise every 404 would pass for a loss, and what is paid already would be sent again. Raises
    ServiceError that stops the run.
    """
    since = (clock.now() - datetime.timedelta(days=SHOWN_DAYS)).isoformat()
    given_up = {*recorded(book, "fenced_file_id"), None}
    known = [
        shard
        for shard in reversed(ledger.shards(book, "uploaded", "submitting", *_SENT))
        if (shard["submitted_at"] or shard["changed_at"]) > since
        and (shard["batch_id"] or shard["file_id"] not in given_up)
    ]
    if not known or any(_is_shown(to, shard["batch_id"]) for shard in known[:LOOKS]):
        return
    found, files = listed(to)
    ids = {shard["batch_id"] for shard in known} | {shard["file_id"] for shard in known}
    if any(ours(batch, run_id) for batch in found.values()):
        return
    if not ids.isdisjoint({*found, *(file["id"] for file in files)}):
        return
    what = f"this key sees another project: {to.name} knows nothing of what this run has sent."
    fix = "Set the key with which the run was begun, then run the same command again. If the "
    fix += "service has lost it all, begin a new run (--run NAME): it takes over valid answers."
    facts = {"status": 403, "code": "another_project", "unclear": False, "final": True}
    raise ServiceError(f"{what} Nothing is sent. {fix}", **facts)


def recorded(book: sqlite3.Connection, member: str) -> set[str]:
    """Every value that a member of the events' details has had, such as all `batch_id`."""
    found = book.execute("SELECT detail FROM events WHERE detail LIKE ?", (f'%"{member}"%',))
    return {json.loads(row[0]).get(member) for row in found} - {None}


def _is_shown(to: Service, batch_id: str | None) -> bool:
    if not batch_id:
        return False
    try:
        service.retrieve(to, batch_id)
    except ServiceError as error:
        if error.status != 404:
            raise
        return False
    return True


def _adopt_listed(book: sqlite3.Connection, to: Service, run_id: str) -> None:
    """Adopt what the service lists of the open intents."""
    uploading = ledger.shards(book, "uploading")
    files = list(service.files(to)) if uploading else []
    for shard in uploading:
        _adopt_file(book, to, shard, files)
    submitting = ledger.shards(book, "submitting")
    found = batches(to) if submitting else {}
    for shard in submitting:
        _adopt_batch(book, to, shard, run_id, found.values())


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
    book: sqlite3.Connection, to: Service, shard: dict[str, Any], run_id: str, listed: Iterable
) -> None:
    known = {other["batch_id"] for other in ledger.shards(book)}
    mine = [batch for batch in listed if _is_of(batch, shard, run_id)]
    found = [b for b in mine if b["id"] not in known and _may_answer(b, shard)]
    if not found:
        return
    first, *others = sorted(found, key=order)
    for batch in (other for other in others if other["status"] != "failed"):
        double(book, to, shard, batch)
    crash_point("batch found")
    adopt(book, shard["shard"], first)


def _free(book: sqlite3.Connection, to: Service) -> None:
    """Let what the service never had be sent again."""
    for shard in ledger.shards(book, "uploading"):
        ledger.move(book, shard["shard"], "uploading", "planned")
    for shard in ledger.shards(book, "submitting"):
        give_up_file(book, to, shard)
        ledger.move(book, shard["shard"], "submitting", "planned", file_id=None)


def _is_of(batch: dict[str, Any], shard: dict[str, Any], run_id: str) -> bool:
    """Whether a batch is of a shard: by its metadata, or by its input file when it has none."""
    labels = batch.get("metadata") or {}
    if "votebook_run" not in labels:
        return batch.get("input_file_id") == shard["file_id"]
    return labels.items() >= metadata(run_id, shard).items()


def _may_answer(batch: dict[str, Any], shard: dict[str, Any]) -> bool:
    """Whether a batch may be what the open create made, or one that answers the same lines.

    One that failed never ran: it is left alone when the full queue refused it, or when it is of an
    upload that was given up, since the shard has been sent again after that.
    """
    if batch["status"] != "failed":
        return True
    return batch.get("input_file_id") == shard["file_id"] and not service.queue_refusal(batch)
