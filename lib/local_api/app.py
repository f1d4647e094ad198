"""The HTTP face of the service: who may speak to it, the routes, and how errors leave.

Every answer that is not a success is an error object of the API. A request is looked at only when
it is addressed to this machine by name and carries the token.
"""

import hmac
import re
import time
import uuid

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib import errors
from lib.local_api import batches, completions, context, files, params, texts
from lib.local_api.faults import door, routes

LOCAL_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?", re.IGNORECASE)
ROUTES = [
    Route("/v1/files", files.create, methods=["POST"]),
    Route("/v1/files", files.listing, methods=["GET"]),
    Route("/v1/files/{file_id}", files.retrieve, methods=["GET"]),
    Route("/v1/files/{file_id}", files.delete, methods=["DELETE"]),
    Route("/v1/files/{file_id}/content", files.content, methods=["GET"]),
    Route("/v1/batches", batches.create, methods=["POST"]),
    Route("/v1/batches", batches.listing, methods=["GET"]),
    Route("/v1/batches/{batch_id}", batches.retrieve, methods=["GET"]),
    Route("/v1/batches/{batch_id}/cancel", batches.cancel, methods=["POST"]),
    Route("/v1/models", completions.models_list, methods=["GET"]),
    Route("/v1/models/{model}", completions.model, methods=["GET"]),
    Route("/v1/chat/completions", completions.create, methods=["POST"]),
    Route("/v1/embeddings", completions.no_embeddings, methods=["POST"]),
    Route("/votebook/faults", routes.show, methods=["GET"]),
    Route("/votebook/faults", routes.replace, methods=["PUT"]),
    Route("/votebook/faults", routes.change, methods=["PATCH"]),
    Route("/votebook/faults", routes.clear, methods=["DELETE"]),
    Route("/votebook/book", routes.show_book, methods=["GET"]),
]


def application(service: context.Service) -> ASGIApp:
    """The service as an ASGI application."""
    handlers = {errors.ServiceError: _refused, HTTPException: _unknown, Exception: _failed}
    app = Starlette(routes=ROUTES, exception_handlers=handlers)
    app.router.redirect_slashes = False
    app.state.service = service
    return _guarded(door.through(app, service), service)


def _guarded(app: ASGIApp, service: context.Service) -> ASGIApp:
    """The application behind the check of host and token, with the headers of the API."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started_at = service.last_request_at = time.monotonic()
        service.n_open_requests += 1

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_headers(started_at)]
            await send(message)

        try:
            refusal = _refusal(scope, service)
            if refusal:
                await _answer(refusal)(scope, receive, send_with_headers)
            else:
                await app(scope, receive, send_with_headers)
        finally:
            service.n_open_requests -= 1
            service.last_request_at = time.monotonic()

    return guarded


def _headers(started_at: float) -> list[tuple[bytes, bytes]]:
    """The headers that the API adds to every answer."""
    n_milliseconds = int((time.monotonic() - started_at) * 1_000)
    return [
        (b"openai-version", b"2020-10-01"),
        (b"openai-processing-ms", str(n_milliseconds).encode()),
        (b"x-request-id", f"req_{uuid.uuid4().hex}".encode()),
    ]


def _refusal(scope: Scope, service: context.Service) -> errors.ServiceError | None:
    """Why a request is not looked at: a foreign host, no token or a wrong one, or our own end.

    The host is checked because a page in a browser can reach this machine under a name of its own.
    """
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    if len(hosts) != 1 or not LOCAL_HOST.fullmatch(hosts[0]):
        message = "This service answers requests to 127.0.0.1 or localhost only."
        return texts.refusal(403, texts.ours(message), code="forbidden_host")
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) != 1 or not given[0].lower().startswith(b"bearer "):
        return texts.refusal(401, texts.NO_TOKEN)
    if not hmac.compare_digest(given[0][len(b"bearer ") :].strip(), service.token.encode()):
        message = texts.ours("Incorrect API key provided: it is not the token of this service.")
        return texts.refusal(401, message, code="invalid_api_key")
    if service.is_leaving():
        return texts.refusal(503, texts.ours("This service is leaving."), kind="server_error")
    return None


def _answer(error: errors.ServiceError) -> Response:
    """The HTTP answer of a refusal."""
    return params.compact(texts.error_object(error), error.status)


async def _refused(_: Request, error: errors.ServiceError) -> Response:
    """Answer a refusal made in a route."""
    return _answer(error)


async def _unknown(request: Request, error: HTTPException) -> Response:
    """Answer a path or a method that the API does not have, in its form."""
    method, path = request.method, request.url.path
    if error.status_code == 404:
        return _answer(texts.refusal(404, texts.NO_ROUTE.format(method, path)))
    message = texts.ours(f"{error.detail} ({method} {path})")
    answer = _answer(texts.refusal(error.status_code, message))
    answer.headers.update(error.headers or {})
    return answer


async def _failed(_: Request, __: Exception) -> Response:
    """Answer a fault of this service without telling its inside; the log has it."""
    return _answer(texts.refusal(500, texts.SERVER_ERROR, kind="server_error"))
