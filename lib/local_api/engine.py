"""The life of a batch: one task each, from validating to its end.

Every step starts from what the database says and ends by writing to it, so that a task can be
started again at any moment, also in another process. Answers are appended to a file and counted in
the database afterwards; what the database does not count is cut off and answered again, so each
line is answered once. It decides when, never what is answered.
"""

import asyncio
import collections
import contextlib
import logging
import os

from lib import errors, models
from lib.local_api import (
    answering,
    book,
    clock,
    context,
    ending,
    pieces,
    store,
    texts,
    validate,
    workers,
)
from lib.local_api.faults import lines, stages

N_TRIES = 5
SUMS = (
    "n_completed",
    "n_failed",
    "n_input_tokens",
    "n_cached_tokens",
    "n_output_tokens",
    "n_reasoning_tokens",
)
log = logging.getLogger("votebook.local_api")


def start(service: context.Service, batch_id: str) -> None:
    """Let a batch go on from where the database says it is."""
    service.wakers[batch_id] = asyncio.Event()
    task = asyncio.create_task(_run(service, batch_id), name=batch_id)
    service.tasks[batch_id] = task
    task.add_done_callback(lambda _: _forget(service, batch_id))


def cancel(service: context.Service, batch_id: str) -> None:
    """Ask a batch to stop; its task ends it."""
    now = clock.now(service.clock)
    store.change_batch(service.db, batch_id, status="cancelling", cancelling_at=now)
    service.wakers[batch_id].set()


def _forget(service: context.Service, batch_id: str) -> None:
    """Drop a task that has ended."""
    service.tasks.pop(batch_id, None)
    service.wakers.pop(batch_id, None)


async def _run(service: context.Service, batch_id: str) -> None:
    """Take a batch through its stages until it has ended."""
    stages = {
        "validating": _validate,
        "in_progress": _progress,
        "finalizing": _finalize,
        "cancelling": _cancel,
    }
    n_tries = 0
    while stage := stages.get((row := store.batch(service.db, batch_id))["status"]):
        try:
            await stage(service, row)
            n_tries = 0
        except Exception:
            n_tries += 1
            log.exception("%s: a step failed, %s times in a row.", batch_id, n_tries)
            if n_tries == N_TRIES:
                message = texts.ours("The batch could not go on; see the log of the service.")
                _fail(service, row, validate.error_list("server_error", message, None))
            await asyncio.sleep(n_tries)
    store.work_path(service.state, batch_id).unlink(missing_ok=True)
    store.drop_dead_files(service.db, service.state, clock.now(service.clock))


async def _validate(service: context.Service, row: dict) -> None:
    """Read the input file, then fail the batch or admit it to the queue."""
    settings = service.settings
    await _pause(service, row["id"], row["created_at"] + settings.validating_seconds)
    await stages.hold(service, row, "stuck_validating")
    now = clock.now(service.clock)
    file = store.live_file(service.db, row["input_file_id"], now)
    if file is None or stages.struck(service, row, "file_not_found"):
        message = texts.CANNOT_FIND_FILE.format(row["input_file_id"], texts.ORGANIZATION)
        return _fail(service, row, validate.error_list("invalid_request", message, "file_id"))
    if file["purpose"] != "batch":
        message = texts.ours(f"The purpose of the input file is '{file['purpose']}', not 'batch'.")
        return _fail(service, row, validate.error_list("invalid_request", message, "file_id"))
    path = store.content_path(service.state, file["id"])
    any_model = service.upstream is not None
    report, faults = await workers.run(service, validate.packed, path, row["endpoint"], any_model)
    if faults := faults or stages.validation_errors(service, row, report.n_lines):
        return _fail(service, row, faults)
    return _admit(service, row, report)


def _admit(service: context.Service, row: dict, report: validate.Report) -> None:
    """Start a valid batch if the queue of its model has room, otherwise fail it."""
    if _is_cancelling(service, row["id"]):
        return
    now = clock.now(service.clock)
    name, limit = _queue(service, report.model)
    limit = stages.queue_limit(service, row, limit)
    n_tokens = report.n_input_tokens
    if service.settings.count_output:
        n_tokens += report.n_max_output_tokens
    enqueued = store.enqueued_tokens(service.db, name, now)
    is_full = limit is not None and enqueued + n_tokens > limit
    if is_full or stages.struck(service, row, "queue_full"):
        message = texts.QUEUE_FULL.format(report.model, texts.ORGANIZATION, limit or 0)
        _fail(service, row, validate.error_list("token_limit_exceeded", message, None))
        return
    store.change_batch(
        service.db,
        row["id"],
        status="in_progress",
        in_progress_at=now,
        model=report.model,
        n_requests=report.n_lines,
        order_seed=report.order_seed,
        queue=name,
        enqueued_tokens=n_tokens,
    )


def _queue(service: context.Service, model: str) -> tuple[str, int | None]:
    """The queue of a model and its limit; a model that only the upstream knows has none."""
    try:
        facts = models.facts(model)
    except errors.ModelError:
        return model, None
    return facts.name, facts.queue_tokens.get(service.settings.tier)


def _fail(service: context.Service, row: dict, faults: bytes) -> None:
    """End a batch that may not run, unless it is being cancelled."""
    now = clock.now(service.clock)
    if not _is_cancelling(service, row["id"]):
        store.change_batch(
            service.db,
            row["id"],
            status="failed",
            failed_at=now,
            released_at=now,
            errors=faults,
        )


async def _progress(service: context.Service, row: dict) -> None:
    """Answer lines until all are answered, the window closes, or the batch is cancelled."""
    batch_id, n_bytes_sent = row["id"], row["n_input_bytes_done"]
    waiting: collections.deque[pieces.Piece] = collections.deque()
    try:
        while True:
            n_bytes_sent = pieces.send(service, row, n_bytes_sent, waiting)
            if not waiting:
                now = clock.now(service.clock)
                store.change_batch(service.db, batch_id, status="finalizing", finalizing_at=now)
                return
            piece = waiting[0]
            chunk = await pieces.answered(service, row, piece)
            row = store.batch(service.db, batch_id)
            await _pause(service, batch_id, _due(service, row, piece.n_lines))
            await stages.hold(service, row, "stuck_in_progress")
            if _is_cancelling(service, batch_id):
                return
            if clock.now(service.clock) >= row["expires_at"]:
                await _expire(service, row)
                return
            if early := stages.early_end(service, row, piece.n_lines):
                await ending.end(service, row, *early)
                return
            if chunk is not None:
                _commit(service, row, piece, chunk)
                waiting.popleft()
    finally:
        for piece in waiting:
            piece.chunk.cancel()


def _due(service: context.Service, row: dict, n_more: int) -> float:
    """When the service has answered so many more lines: spread over the time of the stage."""
    n_done = row["n_completed"] + row["n_failed"] + n_more
    share = n_done / row["n_requests"]
    due = row["in_progress_at"] + share * service.settings.in_progress_seconds
    return min(due, row["expires_at"])


def _commit(
    service: context.Service, row: dict, piece: pieces.Piece, chunk: answering.Chunk
) -> None:
    """Append the answers of a piece to what the database counts, then count them too."""
    chunk = lines.not_run(service, row, chunk)
    written = lines.written(service, row, chunk.records)
    path = store.work_path(service.state, row["id"])
    with path.open("r+b" if path.exists() else "w+b") as records:
        records.truncate(row["n_work_bytes"])
        records.seek(row["n_work_bytes"])
        records.write(written)
        records.flush()
        os.fsync(records.fileno())
    store.change_batch(
        service.db,
        row["id"],
        n_input_bytes_done=row["n_input_bytes_done"] + piece.n_bytes,
        n_work_bytes=row["n_work_bytes"] + len(written),
        booked=book.entries(row["n"], chunk.records),
        **{name: row[name] + getattr(chunk, name) for name in SUMS},
    )


async def _pause(service: context.Service, batch_id: str, until: float) -> None:
    """Wait until a service time, or until the batch is cancelled."""
    seconds = clock.real_seconds_until(service.clock, until)
    if seconds:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(service.wakers[batch_id].wait(), seconds)


def _is_cancelling(service: context.Service, batch_id: str) -> bool:
    """Whether somebody has asked the batch to stop."""
    return store.batch(service.db, batch_id)["status"] == "cancelling"


async def _expire(service: context.Service, row: dict) -> None:
    """End a batch whose window has closed, with what it has."""
    await ending.end(service, row, ("batch_expired", texts.EXPIRED), "expired", "expired_at")


async def _finalize(service: context.Service, row: dict) -> None:
    """Write the files of a batch whose lines are all answered."""
    await _pause(service, row["id"], row["finalizing_at"] + service.settings.finalizing_seconds)
    await stages.hold(service, row, "stuck_finalizing")
    await ending.end(service, row, None, "completed", "completed_at")


async def _cancel(service: context.Service, row: dict) -> None:
    """End a cancelled batch: without files if it never started, otherwise with what it has."""
    due = row["cancelling_at"] + service.settings.cancelling_seconds
    await asyncio.sleep(clock.real_seconds_until(service.clock, due))
    await stages.hold(service, row, "stuck_cancelling")
    if row["in_progress_at"] is None:
        now = clock.now(service.clock)
        store.change_batch(service.db, row["id"], status="cancelled", cancelled_at=now)
        return
    await ending.end(
        service, row, ("batch_cancelled", texts.CANCELLED), "cancelled", "cancelled_at"
    )
