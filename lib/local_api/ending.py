"""How a batch ends with results: both files written, then shown together with the last status.

The files get new names each time this is tried, and nobody learns a name before its file is whole.
"""

from lib.local_api import clock, context, outputs, store, workers
from lib.local_api.faults import stages


async def end(
    service: context.Service,
    row: dict,
    unanswered: tuple[str, str] | None,
    status: str,
    ended: str,
) -> None:
    """Write the result files, then show them and the end of the batch at once."""
    now = clock.now(service.clock)
    ids = {"output": store.new_file_id(), "error": store.new_file_id()}
    job = outputs.Job(
        records=store.work_path(service.state, row["id"]),
        n_record_bytes=row["n_work_bytes"],
        requests=store.content_path(service.state, row["input_file_id"]),
        n_input_bytes_done=row["n_input_bytes_done"],
        n_left=row["n_requests"] - row["n_completed"] - row["n_failed"],
        unanswered=unanswered,
        order_seed=row["order_seed"],
        minted_at=int(row["finalizing_at"] or now),
        output=store.content_path(service.state, ids["output"]),
        errors=store.content_path(service.state, ids["error"]),
    )
    sizes = await workers.run(service, outputs.write, job)
    now = clock.now(service.clock)
    made = {kind: size for kind, size in zip(ids, sizes, strict=True) if size}
    files = [_result_file(row, kind, ids[kind], size, now) for kind, size in made.items()]
    store.change_batch(
        service.db,
        row["id"],
        files,
        status=status,
        released_at=now + max(service.settings.release_seconds, stages.late_seconds(service, row)),
        **{ended: now},
        **{f"{kind}_file_id": ids[kind] for kind in made},
    )


def _result_file(row: dict, kind: str, file_id: str, n_bytes: int, now: float) -> dict:
    """The row of a result file."""
    seconds = row["output_expires_seconds"] or context.RETENTION_SECONDS
    return {
        "id": file_id,
        "purpose": "batch_output",
        "filename": f"{row['id']}_{kind}.jsonl",
        "n_bytes": n_bytes,
        "created_at": now,
        "expires_at": int(now) + seconds,
    }
