"""The audit: before a process sends anything new, what does the service have of this run?

A ledger that was put back from an old copy, or a folder that was copied and went on elsewhere,
leaves batches that the ledger does not know; a slow listing leaves a second batch of one shard.
The first are adopted, so that their lines are never sent again; the second are cancelled and
recorded with what they may cost. Where a batch's lines cannot be known, the run stops. Nothing here
creates a batch.
"""

import json
import platform
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lib import clock, ledger, planning, reconcile, sent, service
from lib.errors import AccountingError, ServiceError
from lib.runs import Run, crash_point
from lib.service import Service

# States in which a shard may have become a batch that the ledger has missed.
_UNSENT = ("planned", "uploading", "uploaded", "submitting")


def once(book: sqlite3.Connection, to: Service, run: Run, run_id: str, hold: str) -> int:
    """Audit the run once in each `hold`, which is the time for which a process has the run.

    Gives how many batches were adopted: they may have ended, and are to be collected.
    """
    if ledger.fact(book, "audited") == hold:
        return 0
    n_submitted = len(ledger.shards(book, "submitted"))
    audit(book, to, run, run_id)
    ledger.bind(book, "audited", hold, again=True)
    return len(ledger.shards(book, "submitted")) - n_submitted


def last(book: sqlite3.Connection, to: Service, run: Run, run_id: str) -> None:
    """Audit the run once more when nothing is under way any more: a batch may show late."""
    n_batches = str(sum(1 for shard in ledger.shards(book) if shard["batch_id"]))
    is_idle = not ledger.shards(book, *ledger.OPEN_STATES)
    if is_idle and ledger.fact(book, "n_batches_audited") != n_batches:
        audit(book, to, run, run_id)
        ledger.bind(book, "n_batches_audited", n_batches, again=True)


def audit(book: sqlite3.Connection, to: Service, run: Run, run_id: str) -> None:
    """Settle everything of this run that the service has and the ledger does not know.

    Takes the service's grace when the ledger or the folder is not the one that this run was last
    sent from, since what another process has just made may not be listed yet. Raises ServiceError
    that stops the run when the key sees another project, or for a batch whose lines are unknown.
    """
    for shard in ledger.shards(book, *ledger.OPEN_STATES):
        sent.check_lines(book, run, shard)
    ends_at = clock.monotonic() + (0.0 if _is_at_home(book, run) else to.grace_seconds)
    while True:
        is_over = clock.monotonic() >= ends_at
        _look(book, to, run, run_id)
        if is_over:
            break
        clock.sleep(min(to.poll_seconds, max(0.0, ends_at - clock.monotonic())))
    for name in _strays(book, run):
        run.path("shards").joinpath(name).unlink(missing_ok=True)  # a crash left it; never sent
    ledger.bind(book, "place", _place(run), again=True)
    ledger.bind(book, "strays", json.dumps(sorted(_strays(book, run))), again=True)


def _is_at_home(book: sqlite3.Connection, run: Run) -> bool:
    """Whether the ledger lies where it was last sent from, with no sign of having been put back."""
    strays, known = _strays(book, run), json.loads(ledger.fact(book, "strays") or "[]")
    place = ledger.fact(book, "place")
    is_new = place is None and not ledger.shards(book)
    return strays <= set(known) and (is_new or place == _place(run))


def _place(run: Run) -> str:
    """Where a ledger is at home: the machine, the folder, the file itself."""
    inode = run.path("ledger.sqlite").stat().st_ino
    return f"{platform.node()}:{run.folder.resolve()}:{inode}"


def _strays(book: sqlite3.Connection, run: Run) -> set[str]:
    """Shards on disk that the ledger does not know: of a crash, or of a later ledger than this."""
    names = {path.name.removesuffix(".gz") for path in run.path("shards").glob("[!.]*.jsonl*")}
    return names - {shard["file"] for shard in ledger.shards(book)}


def _look(book: sqlite3.Connection, to: Service, run: Run, run_id: str) -> None:
    """List once, and settle what is found."""
    reconcile.same_project(book, to, run_id)
    listed, files = reconcile.listed(to)
    names = {file["id"]: reconcile.named(file.get("filename")) for file in files}
    names = {file_id: name for file_id, name in names.items() if name[0].startswith(run_id[:8])}
    known = {shard["batch_id"] for shard in ledger.shards(book)}
    known |= reconcile.recorded(book, "batch_id")
    for batch in sorted(listed.values(), key=reconcile.order):
        name = _name(batch, run_id, names)
        # One that failed never ran: nothing is paid, and its lines are as free as before.
        if name and batch["id"] not in known and batch["status"] != "failed":
            _settle(book, to, run, batch, name)
    _tidy(book, to, names, {batch.get("input_file_id") for batch in listed.values()})


def _name(batch: dict[str, Any], run_id: str, names: dict) -> tuple[str, str] | None:
    """Shard and digest of a batch of this run: by its metadata, or by its file if it has none."""
    labels = batch.get("metadata") or {}
    if reconcile.ours(batch, run_id):
        return str(labels.get("votebook_shard")), str(labels.get("sha256", ""))
    return None if "votebook_run" in labels else names.get(batch.get("input_file_id"))


def _settle(
    book: sqlite3.Connection, to: Service, run: Run, batch: dict[str, Any], name: tuple[str, str]
) -> None:
    """Adopt a batch that the ledger does not know, or record it as a double."""
    rows = {shard["shard"]: shard for shard in ledger.shards(book)}
    shard, digest = rows.get(name[0]), name[1]
    if shard and shard["sha256"].startswith(digest):
        if shard["state"] in _UNSENT:
            found = {"file_id": batch["input_file_id"], **_facts(batch)}
            crash_point("lost batch found")
            ledger.move(book, name[0], shard["state"], "submitted", **found, not_before=None)
            return
        if shard["state"] != "released":
            reconcile.double(book, to, shard, batch)
            return
    row, lines = _rebuilt(run, to, batch, name, set(rows))
    holders = _holders(book, {line.custom_id for line in lines})
    again = [line for line in lines if line.custom_id in holders]
    lost_usd = sum(line.worst_usd for line in again)
    if len(again) == len(lines):
        holder = rows[next(iter(holders.values()))]
        reconcile.double(book, to, {**holder, "reserved_usd": lost_usd}, batch)
        return
    new = [line for line in lines if line.custom_id not in holders]
    row |= {"n_requests": len(new), "lost_usd": lost_usd, **_facts(batch)}
    row["fields"] = planning.bind_fields(run, book)
    crash_point("lost batch found")
    ledger.plan(book, row, [line[:3] for line in new], float("inf"))
    ledger.note(book, "adopted", row["shard"], batch_id=batch["id"], n_doubled=len(again))


def _facts(batch: dict[str, Any]) -> dict[str, Any]:
    """What the ledger records of a batch that was made without it."""
    made_at = datetime.fromtimestamp(batch["created_at"], UTC).isoformat(timespec="milliseconds")
    return {"batch_id": batch["id"], "status": batch["status"], "submitted_at": made_at}


def _holders(book: sqlite3.Connection, custom_ids: set[str]) -> dict[str, str]:
    """Which of these lines the ledger knows, and in which shard each of them."""
    found: dict[str, str] = {}
    for shard in ledger.shards(book):
        names = ledger.sends(book, shard["shard"])["custom_id"]
        found |= dict.fromkeys(custom_ids.intersection(names), shard["shard"])
    return found


def _rebuilt(
    run: Run, to: Service, batch: dict[str, Any], name: tuple[str, str], taken: set[str]
) -> tuple[dict[str, Any], list[sent.Line]]:
    """The ledger's row of a batch, submitted, and all its lines, from the input file itself."""
    shard, digest = name
    path = next((p for p in sent.local(run, shard) if sent.digest(p)[0].startswith(digest)), None)
    if path is None:
        path = run.path("shards") / f"{shard}-{batch['id'][-8:]}.jsonl.gz"
        _fetch(to, batch, path, digest)
    lines = list(sent.lines(run, to.facts, path))
    sha256, n_bytes = sent.digest(path)
    row = {
        "shard": f"{shard}-{batch['id'][-8:]}" if shard in taken else shard,
        "model": lines[0].model,
        "purpose": "adopted",
        "state": "submitted",
        "file": path.name.removesuffix(".gz"),
        "sha256": sha256,
        "size_bytes": n_bytes,
        "n_input_tokens": sum(line.n_input_tokens for line in lines),
        "n_cap_tokens": sum(line.n_cap_tokens for line in lines),
        "reserved_usd": sum(line.worst_usd for line in lines),
        "file_id": batch["input_file_id"],
    }
    return row, lines


def _fetch(to: Service, batch: dict[str, Any], path: Path, digest: str) -> None:
    """Download the input file of a batch; raises ServiceError when it is not there any more."""
    try:
        service.download(to, batch["input_file_id"], path)
    except ServiceError as error:
        if error.status != 404:
            raise
        what = f"batch {batch['id']} is of this run, the ledger does not know it, and its input"
        what += " file is gone: which requests it answers cannot be known. Nothing is sent."
        fix = "Put a later copy of ledger.sqlite back, or begin a new run (--run NAME): it takes"
        facts = {"status": 404, "code": "unknown_batch", "unclear": False, "final": True}
        raise ServiceError(f"{what} {fix} over every valid answer.", **facts) from None
    if not sent.digest(path)[0].startswith(digest):
        path.unlink()
        what = f"the input file of batch {batch['id']} came from {to.name} with other bytes."
        raise AccountingError(f"{what} Run the same command again.", batch=batch["id"])


def _tidy(book: sqlite3.Connection, to: Service, names: dict, used: set[str | None]) -> None:
    """Delete second uploads of shards that are sent; record uploads that nobody knows."""
    rows = {shard["shard"]: shard for shard in ledger.shards(book)}
    kept = {shard["file_id"] for shard in rows.values()} | used
    told = reconcile.recorded(book, "orphan_file_id")
    for file_id, (name, digest) in names.items():
        if file_id in kept:
            continue
        shard = rows.get(name)
        is_sent = shard and shard["sha256"].startswith(digest) and shard["state"] not in _UNSENT
        if is_sent:
            service.delete_file(to, file_id)
        if file_id not in told:
            ledger.note(book, "orphan_file", name, orphan_file_id=file_id, deleted=bool(is_sent))
