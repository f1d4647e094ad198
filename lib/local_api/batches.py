"""The routes of /v1/batches: create, list, retrieve and cancel.

Create looks at its own body alone. Whether the input file exists, whether its lines are right and
whether the queue has room is found later, in validation, and never refused here.
"""

import json

import orjson
from starlette.requests import Request
from starlette.responses import Response

from lib.local_api import answering, clock, context, engine, params, store, texts
from lib.local_api.faults import keeping

ENDPOINTS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/moderations",
)
ANSWERED = (answering.CHAT, answering.RESPONSES)
MEMBERS = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
MAX_BODY_BYTES = 65_536
MAX_PAIRS, MAX_KEY_CHARS, MAX_VALUE_CHARS = 16, 64, 512
TIMES = (
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


def as_object(row: dict) -> dict:
    """A batch as the API shows it."""
    return {
        "id": row["id"],
        "object": "batch",
        "endpoint": row["endpoint"],
        "model": row["model"],
        "errors": orjson.Fragment(row["errors"]) if row["errors"] else None,
        "input_file_id": row["input_file_id"],
        "completion_window": row["completion_window"],
        "status": row["status"],
        "output_file_id": row["output_file_id"],
        "error_file_id": row["error_file_id"],
        "created_at": int(row["created_at"]),
        "in_progress_at": _second(row["in_progress_at"]),
        "expires_at": row["expires_at"],
        **{name: _second(row[name]) for name in TIMES},
        "request_counts": {
            "total": row["n_requests"],
            "completed": row["n_completed"],
            "failed": row["n_failed"],
        },
        "usage": {
            "input_tokens": row["n_input_tokens"],
            "input_tokens_details": {"cached_tokens": row["n_cached_tokens"]},
            "output_tokens": row["n_output_tokens"],
            "output_tokens_details": {"reasoning_tokens": row["n_reasoning_tokens"]},
            "total_tokens": row["n_input_tokens"] + row["n_output_tokens"],
        },
        "metadata": json.loads(row["metadata"]) if row["metadata"] else None,
    }


async def create(request: Request) -> Response:
    """POST /v1/batches."""
    service = request.app.state.service
    body = await params.json_object(request, MAX_BODY_BYTES)
    asked = _checked(body)
    keeping.check(body.get("metadata"))
    now = clock.now(service.clock)
    if store.n_batches_since(service.db, now - 3_600) >= context.MAX_BATCHES_PER_HOUR:
        message = f"More than {context.MAX_BATCHES_PER_HOUR:,} batches were created in an hour."
        raise texts.refusal(
            429, texts.ours(message), code="rate_limit_exceeded", kind="rate_limit_error"
        )
    batch_id = store.new_batch_id(now)
    expires_at = int(now) + context.WINDOW_SECONDS
    store.add_batch(
        service.db, {"id": batch_id, "created_at": now, "expires_at": expires_at, **asked}
    )
    keeping.attach(service, batch_id, body.get("metadata"))
    engine.start(service, batch_id)
    return params.pretty(as_object(store.batch(service.db, batch_id)))


async def listing(request: Request) -> Response:
    """GET /v1/batches, newest first."""
    service = request.app.state.service
    limit = params.limit(request, default=20, highest=100)
    after = request.query_params.get("after")
    start = _row(service, after)["n"] if after else None
    rows = store.page_of_batches(service.db, store.Page(limit + 1, start))
    return params.pretty(params.page([as_object(row) for row in rows], limit))


async def retrieve(request: Request) -> Response:
    """GET /v1/batches/{batch_id}."""
    row = _row(request.app.state.service, request.path_params["batch_id"])
    return params.pretty(as_object(row))


async def cancel(request: Request) -> Response:
    """POST /v1/batches/{batch_id}/cancel; 409 for a batch that has ended otherwise."""
    service = request.app.state.service
    row = _row(service, request.path_params["batch_id"])
    if row["status"] in ("validating", "in_progress"):
        engine.cancel(service, row["id"])
    elif row["status"] not in ("cancelling", "cancelled"):
        raise texts.refusal(409, texts.CANNOT_CANCEL.format(row["status"]))
    return params.compact(as_object(store.batch(service.db, row["id"])))


def _row(service: context.Service, batch_id: str) -> dict:
    """The row of a batch; raises the errors of the API for an id that it does not know."""
    if not batch_id.startswith("batch"):
        raise texts.wrong_value("batch_id", texts.NOT_A_BATCH_ID.format(batch_id))
    row = store.batch(service.db, batch_id)
    if row is None:
        raise texts.refusal(404, texts.NO_BATCH.format(batch_id))
    return row


def _second(instant: float | None) -> int | None:
    """A timestamp as the API writes it, in whole seconds."""
    return None if instant is None else int(instant)


def _checked(body: dict) -> dict:
    """The columns of a new batch that its body gives, or the refusal of the body."""
    for name in body:
        if name not in MEMBERS:
            message = texts.ours(texts.UNKNOWN_PARAMETER.format(name))
            raise texts.refusal(400, message, name, "unknown_parameter")
    for name in MEMBERS[:3]:
        if body.get(name) is None:
            raise texts.missing(name)
        if not isinstance(body[name], str):
            raise texts.wrong_type(name, "a string", body[name])
    _check_endpoint(body["endpoint"])
    if body["completion_window"] != "24h":
        message = f"Invalid value: '{body['completion_window']}'. Supported values are: '24h'."
        raise texts.wrong_value("completion_window", texts.ours(message))
    metadata = body.get("metadata")
    _check_metadata(metadata)
    return {
        **{name: body[name] for name in MEMBERS[:3]},
        "metadata": None if metadata is None else json.dumps(metadata),
        "output_expires_seconds": _expiry(body.get("output_expires_after")),
    }


def _check_endpoint(endpoint: str) -> None:
    """Refuse an endpoint that is not batched, or for which this service has no answers."""
    if endpoint not in ENDPOINTS:
        raise texts.wrong_value("endpoint", texts.supported(endpoint, ENDPOINTS))
    if endpoint not in ANSWERED:
        message = f"The local service does not answer '{endpoint}', only {' and '.join(ANSWERED)}."
        raise texts.wrong_value("endpoint", texts.ours(message))


def _check_metadata(metadata: object) -> None:
    """Refuse metadata that are not up to 16 short pairs of strings."""
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise texts.wrong_type("metadata", "an object", metadata)
    if len(metadata) > MAX_PAIRS:
        message = f"'metadata' may have {MAX_PAIRS} pairs at most, not {len(metadata)}."
        raise texts.wrong_value("metadata", texts.ours(message))
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise texts.wrong_type(f"metadata.{key}", "a string", value)
        if len(key) > MAX_KEY_CHARS or len(value) > MAX_VALUE_CHARS:
            message = (
                f"A key of 'metadata' may have {MAX_KEY_CHARS} characters and a value"
                f" {MAX_VALUE_CHARS}; '{key[:MAX_KEY_CHARS]}' has {len(key)} and {len(value)}."
            )
            raise texts.wrong_value("metadata", texts.ours(message))


def _expiry(asked: object) -> int | None:
    """The seconds of `output_expires_after`."""
    if asked is None:
        return None
    if not isinstance(asked, dict):
        raise texts.wrong_type("output_expires_after", "an object", asked)
    params.check_anchor("output_expires_after", asked.get("anchor"))
    seconds = asked.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise texts.wrong_type("output_expires_after.seconds", "an integer", seconds)
    return params.checked_seconds("output_expires_after", seconds)
