"""What the measurements of the local Batch API share: a service of their own, and calls to it.

Calls go over plain HTTP and hold no file in memory, so that they cost next to nothing themselves.
"""

import contextlib
import http.client
import json
import os
import signal
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

from lib import local_api

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")
BOUNDARY = "votebook-measures"
CHUNK_BYTES = 1_048_576
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="requests.jsonl"'
    "\r\n\r\n"
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()


@contextlib.contextmanager
def running(state: Path, options: Sequence[str] = ()) -> Iterator[dict]:
    """A service on a state folder, which ends with the block."""
    endpoint = local_api.start(state, tier=5, options=options)
    try:
        yield endpoint
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(endpoint["pid"], signal.SIGTERM)


def upload(endpoint: dict, path: Path) -> str:
    """Send a file and return its id."""
    n_bytes = len(HEAD) + path.stat().st_size + len(TAIL)
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    headers = {"Content-Type": kind, "Content-Length": str(n_bytes)}
    return _asked(endpoint, "POST", "/v1/files", _form(path), headers)["id"]


def create(endpoint: dict, file_id: str) -> dict:
    """A new batch of a file."""
    wanted = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    return _asked(endpoint, "POST", "/v1/batches", json.dumps(wanted).encode(), {})


def batch(endpoint: dict, batch_id: str) -> dict:
    """A batch as it is now."""
    return _asked(endpoint, "GET", f"/v1/batches/{batch_id}", None, {})


def download(endpoint: dict, file_id: str, path: Path) -> None:
    """Write the content of a file to a path."""
    target = f"/v1/files/{file_id}/content"
    with _answer(endpoint, "GET", target, None, {}) as answer, path.open("wb") as sink:
        while chunk := answer.read(CHUNK_BYTES):
            sink.write(chunk)


def _form(path: Path) -> Iterator[bytes]:
    """The bytes of a form with this file."""
    yield HEAD
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            yield chunk
    yield TAIL


def _asked(endpoint: dict, method: str, target: str, body: object, headers: dict) -> dict:
    """The JSON object that answers a request."""
    with _answer(endpoint, method, target, body, headers) as answer:
        return json.loads(answer.read())


@contextlib.contextmanager
def _answer(
    endpoint: dict, method: str, target: str, body: object, headers: dict
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a request, to be read within the block."""
    address = urllib.parse.urlsplit(endpoint["base_url"]).netloc
    token = {"Authorization": f"Bearer {endpoint['token']}"}
    with contextlib.closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        connection.request(method, target, body, {**token, **headers})
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise SystemExit(f"{method} {target}: {answer.status} {answer.read()!r}")
        yield answer
