"""The routes of /v1/files: upload, list, retrieve, delete and content.

An upload is refused for its extension, its size, or a first line that is not JSON; every other
fault of a batch file is found later, when a batch is validated.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from lib.local_api import clock, context, params, store, texts, uploads

# Not `evals`, which the API takes too: neither its specification nor its SDK knows such an answer.
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data")
DOWNLOADABLE = ("batch", "batch_output")
MIN_EXPIRY_SECONDS = 3_600
CHUNK_BYTES = 262_144


def as_object(row: dict) -> dict:
    """A file as the API shows it."""
    return {
        "object": "file",
        "id": row["id"],
        "purpose": row["purpose"],
        "filename": row["filename"],
        "bytes": row["n_bytes"],
        "created_at": int(row["created_at"]),
        "expires_at": row["expires_at"],
        "status": "processed",
        "status_details": None,
    }


async def create(request: Request) -> Response:
    """POST /v1/files."""
    service = request.app.state.service
    file_id = store.new_file_id()
    path = service.state / "incoming" / file_id
    try:
        form = await uploads.received(request, path)
        now = clock.now(service.clock)
        file = {"id": file_id, "created_at": now, **_described(form, now)}
        if file["purpose"] == "batch":
            check_batch_file(file, path)
        await asyncio.to_thread(_flush, path)
        path.replace(store.content_path(service.state, file_id))
    except ClientDisconnect:
        return Response(status_code=400)
    finally:
        path.unlink(missing_ok=True)
    with service.db:
        store.add_file(service.db, file)
    return params.pretty(as_object(file))


async def listing(request: Request) -> Response:
    """GET /v1/files."""
    service = request.app.state.service
    limit = params.limit(request, default=10_000, highest=10_000)
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise texts.wrong_value("order", texts.supported(order, ("asc", "desc")))
    after = request.query_params.get("after")
    start = _row(request, after)["n"] if after else None
    purpose = request.query_params.get("purpose")
    page = store.Page(limit + 1, start, oldest_first=order == "asc")
    rows = store.page_of_files(service.db, clock.now(service.clock), purpose, page)
    return params.pretty(params.page([as_object(row) for row in rows], limit))


async def retrieve(request: Request) -> Response:
    """GET /v1/files/{file_id}."""
    return params.pretty(as_object(_row(request, request.path_params["file_id"])))


async def delete(request: Request) -> Response:
    """DELETE /v1/files/{file_id}; a batch under way keeps what it reads."""
    service = request.app.state.service
    file_id = _row(request, request.path_params["file_id"])["id"]
    store.delete_file(service.db, file_id)
    if not store.input_in_use(service.db, file_id):
        store.content_path(service.state, file_id).unlink(missing_ok=True)
    return params.pretty({"object": "file", "deleted": True, "id": file_id})


async def content(request: Request) -> Response:
    """GET /v1/files/{file_id}/content, streamed."""
    service = request.app.state.service
    row = _row(request, request.path_params["file_id"])
    if row["purpose"] not in DOWNLOADABLE:
        raise texts.refusal(400, texts.NO_DOWNLOAD.format(row["purpose"]))
    handle = store.content_path(service.state, row["id"]).open("rb")
    headers = {
        "content-length": str(row["n_bytes"]),
        "content-disposition": f'attachment; filename="{header_name(row["filename"])}"',
    }
    return StreamingResponse(
        _chunks(handle), headers=headers, media_type="application/octet-stream"
    )


def header_name(filename: str) -> str:
    """A file name that is safe within a quoted header value.

    >>> header_name('a "b"\\r\\n.jsonl')
    'a _b___.jsonl'
    """
    return re.sub(r"[^ !#-\[\]-~]", "_", filename)


async def _chunks(handle: BinaryIO) -> AsyncIterator[bytes]:
    """The bytes of an open file, read off the event loop."""
    with handle:
        while chunk := await asyncio.to_thread(handle.read, CHUNK_BYTES):
            yield chunk


def _row(request: Request, file_id: str) -> dict:
    """The row of a live file; raises the 404 of the API."""
    service = request.app.state.service
    row = store.live_file(service.db, file_id, clock.now(service.clock))
    if row is None:
        raise texts.refusal(404, texts.NO_FILE.format(file_id), "id")
    return row


def _described(form: uploads.Form, now: float) -> dict:
    """The columns that the fields of a form give."""
    if form.filename is None:
        raise texts.missing("file")
    purpose = form.fields.get("purpose")
    if purpose is None:
        raise texts.missing("purpose")
    if purpose not in PURPOSES:
        raise texts.wrong_value("purpose", texts.ours(texts.supported(purpose, PURPOSES)))
    return {
        "purpose": purpose,
        "filename": form.filename,
        "n_bytes": form.n_bytes,
        "expires_at": _expiry(form.fields, purpose, int(now)),
    }


def _expiry(fields: dict[str, str], purpose: str, now: int) -> int | None:
    """When a new file expires: as asked for, otherwise after 30 days for a batch's input."""
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return now + context.RETENTION_SECONDS if purpose == "batch" else None
    params.check_anchor("expires_after", anchor)
    if seconds is None or not re.fullmatch(r"[0-9]{1,9}", seconds):
        raise texts.refusal(
            400,
            texts.ours("Invalid type for 'expires_after[seconds]': expected an integer."),
            "expires_after[seconds]",
            "invalid_type",
        )
    return now + params.checked_seconds("expires_after", int(seconds))


def check_batch_file(file: dict, path: Path) -> None:
    """Refuse what the API refuses at upload: extension, size, a first line that is not JSON."""
    extension = Path(file["filename"]).suffix.lower()
    if extension not in ("", ".jsonl"):
        raise texts.refusal(400, texts.NOT_JSONL, kind="invalid_request_error")
    if file["n_bytes"] > context.MAX_BATCH_BYTES:
        raise texts.refusal(400, texts.TOO_LARGE)
    with path.open("rb") as handle:
        first = handle.readline(context.MAX_LINE_BYTES)
    if len(first) == context.MAX_LINE_BYTES:
        return
    try:
        orjson.loads(first)
    except orjson.JSONDecodeError as error:
        reason = "The file is empty." if not first else "Its first line is not valid JSON."
        raise texts.refusal(
            400, texts.ours(f"Invalid file format for Batch API. {reason}")
        ) from error


def _flush(path: Path) -> None:
    """Make an upload durable before anybody is told of it."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
