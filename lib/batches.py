"""Batches under way: what has become of each, and its result files on disk.

Both files of every end state are fetched. What the service does not show, or shows in part, is
waited for and fetched again: to send again at once would be to pay twice. What the files say is for
`collect`; everything here can be repeated after a crash at any line.
"""

import functools
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lib import clock, ledger, queues, reconcile, service, words
from lib.errors import ServiceError
from lib.runs import Run, crash_point
from lib.service import Service

ENDED = ("completed", "failed", "expired", "cancelled")
GIVE_UP_HOURS = 24
# How often, a grace apart, files that lack lines are fetched before that is believed.
SHORT_LOOKS = 5


def ended(run: Run, book: sqlite3.Connection, to: Service) -> list[str]:
    """Look at every submitted batch and take in those that have ended; gives their shards.

    What one batch lacks is recorded and does not hold up the others. Raises ServiceError when the
    service does not answer at all or does not let us in.
    """
    taken = []
    run_id = ledger.fact(book, "run_id") or ""
    same_project = functools.cache(lambda: reconcile.same_project(book, to, run_id))
    for shard in ledger.shards(book, "submitted"):
        if shard["short_at"] and 0 <= _age_seconds(shard["short_at"]) < to.grace_seconds:
            continue
        batch = None
        try:
            batch = _seen(to, shard, same_project)
            if _look(run, book, to, shard, batch):
                taken.append(shard["shard"])
        except ServiceError as error:
            if error.status in (401, 403) or (error.status == 0 and batch is None):
                raise
            facts = {"unseen_at": _since(shard)} if error.status == 404 else {}
            if error.code == "short":
                facts |= {"short_at": ledger.now(), "n_short": shard["n_short"] + 1}
            ledger.observe(book, shard["shard"], error=str(error), **facts)
    return taken


def _seen(to: Service, shard: dict[str, Any], same_project: Callable[[], None]) -> dict[str, Any]:
    """The batch as the service shows it; one that it has not shown for long is gone.

    `same_project` raises when the key sees another one, where no batch of the run ever was.
    """
    try:
        return service.retrieve(to, shard["batch_id"])
    except ServiceError as error:
        if error.status == 404:
            same_project()
        if error.status != 404 or not _given_up(shard):
            raise
        return {"status": "gone"}


def _look(
    run: Run, book: sqlite3.Connection, to: Service, shard: dict[str, Any], batch: dict[str, Any]
) -> bool:
    """Record what a batch says of itself; take it in if it has ended, and say so."""
    status, counts = batch.get("status"), batch.get("request_counts") or {}
    facts = {"n_completed": counts.get("completed"), "n_failed": counts.get("failed")}
    facts |= {"status": status, "expires_at": _time(batch, "expires_at")}
    crash_point("batch seen")
    ledger.observe(book, shard["shard"], **facts)
    refusal = service.queue_refusal(batch)
    if refusal:
        queues.refuse(run, book, shard, refusal)
    elif status in (*ENDED, "gone"):
        _take(run, book, to, shard, batch)
        return True
    else:
        ledger.observe(book, shard["shard"], error=None, unseen_at=None)
    return False


def _take(
    run: Run, book: sqlite3.Connection, to: Service, shard: dict[str, Any], batch: dict[str, Any]
) -> None:
    """Take in a batch that has ended: its files, one outcome for each of its lines, its money."""
    from lib import collect, sent  # heavy, and only needed when something has ended

    sent.check_lines(book, run, shard)
    if batch["status"] == "failed":
        settled_usd = collect.write_refused(run, book, shard, batch)
    else:
        files = _files(run, book, to, shard, batch)
        is_final = shard["n_short"] >= SHORT_LOOKS or _given_up(shard)
        settled_usd = collect.write_answered(run, book, shard, files, is_final=is_final)
    crash_point("outcomes written")
    end = {"settled_usd": settled_usd, "ended_at": ended_at(batch), "error": None}
    ledger.move(book, shard["shard"], "submitted", "collected", **end, collected_at=ledger.now())
    crash_point("collected")
    path = run.path("shards") / shard["file"]
    if path.is_file():
        service.compress(path)


def _files(
    run: Run, book: sqlite3.Connection, to: Service, shard: dict[str, Any], batch: dict[str, Any]
) -> list[Path]:
    """The result files of a batch on disk; those that were short are fetched once more."""
    files = []
    for kind, count in (("output", "completed"), ("error", "failed")):
        path = run.path("answers") / f"{shard['batch_id']}_{kind}.jsonl.gz"
        counted = (batch.get("request_counts") or {}).get(count) or 0
        named = batch.get(f"{kind}_file_id")
        if path.is_file():
            if named and shard["n_short"]:
                _fetch_again(to, shard, named, path)
        elif not _fetch(to, shard, named, path, counted):
            if named or counted or batch["status"] == "gone":
                ledger.lose(book, shard, "results_gone", batch_id=shard["batch_id"])
            continue
        crash_point("downloaded")
        files.append(path)
    return files


def _fetch(to: Service, shard: dict[str, Any], file_id: str | None, path: Path, n: int) -> bool:
    """Download a result file, and say whether there is one.

    One that should hold `n` lines and is not there is waited for until it is given up.
    """
    try:
        if file_id:
            service.download(to, file_id, path)
        elif n and not _given_up(shard):
            what = f"{path.name} of {words.n_of(n, 'line')} is not shown by {to.name} yet."
            what = f"{what} Waiting for it."
            raise ServiceError(what, status=404, code=None, final=False, unclear=False)
    except ServiceError as error:
        if error.status != 404 or not _given_up(shard):
            raise
        return False
    return bool(file_id)


def _fetch_again(to: Service, shard: dict[str, Any], file_id: str, path: Path) -> None:
    """Download a result file once more, in the place of the one on disk unless it is shorter."""
    newer = path.with_name(f"{path.name}.again")
    try:
        service.download(to, file_id, newer)
    except ServiceError:
        if not _given_up(shard):
            raise
        return
    if _n_bytes(newer) < _n_bytes(path):
        newer.unlink()
    else:
        newer.replace(path)


def _n_bytes(path: Path) -> int:
    """How long the content of a compressed file is, by its last four bytes."""
    with path.open("rb") as file:
        file.seek(-4, 2)
        return int.from_bytes(file.read(), "little")


def _given_up(shard: dict[str, Any]) -> bool:
    """Whether the service has not shown a batch or its results for so long that they are lost."""
    return bool(shard["unseen_at"]) and _age_seconds(shard["unseen_at"]) > GIVE_UP_HOURS * 3600


def _since(shard: dict[str, Any]) -> str:
    """Since when something is not shown; a time that is still to come is a clock set back."""
    since = shard["unseen_at"]
    return since if since and _age_seconds(since) >= 0 else ledger.now()


def _age_seconds(time: str) -> float:
    """How long ago a time was; less than nothing after the clock was set back."""
    return (clock.now() - datetime.fromisoformat(time)).total_seconds()


def _time(batch: dict[str, Any], name: str) -> str | None:
    seconds = batch.get(name)
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None


def ended_at(batch: dict[str, Any]) -> str:
    """When a batch has ended, by its own word; now when it does not say."""
    found = (_time(batch, f"{status}_at") for status in ENDED)
    return next((time for time in found if time), ledger.now())
