"""The service: the official `openai` client against a base URL. All network traffic is here.

The two calls that pay or leave orphans, upload and create, are made once: the client's retries
are off for them, because it would send up to three and keep one. Every fault becomes a
ServiceError that says whether the call may have had an effect (`unclear`) and holds no secret.
"""

import contextlib
import gzip
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from lib import local_api, runs
from lib.errors import ServiceError

LOCAL = "local"
_STOPPING = {401: "OPENAI_API_KEY is wrong or revoked", 403: "the project has no access"}


@dataclass(frozen=True)
class Service:
    """A service to send to: its name, the client, and how it behaves.

    `free` is the local service, whose money is simulated. `grace_seconds` is how long a listing
    may lag behind a call.
    """

    name: str
    client: openai.OpenAI
    free: bool
    grace_seconds: float
    poll_seconds: float

    def __repr__(self) -> str:
        """What a notebook shows: never the key."""
        paid = "simulated answers, nothing is paid" if self.free else "answers are paid"
        return f"Service {self.name} ({paid})"


def connect(name: str) -> Service:
    """The service by name: `local` (started when needed), `openai`, or the base URL of another."""
    if name == LOCAL:
        found = local_api.start(runs.outputs() / ".local_api")
        client = openai.OpenAI(base_url=found["base_url"], api_key=found["token"], timeout=60)
        return Service(LOCAL, client, free=True, grace_seconds=1, poll_seconds=0.2)
    url = os.environ.get("OPENAI_BASE_URL") if name == "openai" else name
    if url and not re.match(r"https?://", url):
        what = f"service {name!r} is neither local, openai nor a URL that begins with http."
        raise ServiceError(what, code="unknown_service")
    key = os.environ.get("OPENAI_API_KEY")
    if not key:
        what = "OPENAI_API_KEY is not set: export it in the shell that starts this, never in a file here."
        raise ServiceError(what, code="no_key")
    client = openai.OpenAI(base_url=url or None, api_key=key, timeout=600)
    return Service(url or "openai", client, free=False, grace_seconds=120, poll_seconds=30)


def upload(service: Service, path: Path, name: str) -> str:
    """Upload a shard as `name`; gives the file id. Called once: a lost answer is found by name."""
    with _faults(service), path.open("rb") as file:
        part = (name, file, "application/jsonl")
        return _once(service).files.create(file=part, purpose="batch").id


def create(
    service: Service, file_id: str, endpoint: str, metadata: dict[str, str]
) -> dict[str, Any]:
    """Make a batch of an uploaded file. Called once: a lost answer is found by metadata."""
    with _faults(service):
        batch = _once(service).batches.create(
            input_file_id=file_id, endpoint=endpoint, completion_window="24h", metadata=metadata
        )
        return batch.to_dict()


def retrieve(service: Service, batch_id: str) -> dict[str, Any]:
    """The batch as the service sees it now."""
    with _faults(service):
        return service.client.batches.retrieve(batch_id).to_dict()


def cancel(service: Service, batch_id: str) -> None:
    """Ask for a batch to be cancelled; one that has ended already is left as it is."""
    with _faults(service, passing=(409,)):
        _once(service).batches.cancel(batch_id)


def batches(service: Service) -> Iterator[dict[str, Any]]:
    """Every batch that the service lists, over all pages, newest first."""
    with _faults(service):
        for batch in service.client.batches.list(limit=100):
            yield batch.to_dict()


def files(service: Service) -> Iterator[dict[str, Any]]:
    """Every input file that the service lists, over all pages."""
    with _faults(service):
        for file in service.client.files.list(purpose="batch"):
            yield file.to_dict()


def delete_file(service: Service, file_id: str) -> None:
    """Delete a file; one that is gone already is no fault."""
    with _faults(service, passing=(404,)):
        _once(service).files.delete(file_id)


def download(service: Service, file_id: str, path: Path) -> None:
    """Stream a result file to `path`, compressed; it appears whole or not at all."""
    with _faults(service), runs.replacing(path) as part, gzip.open(part, "wb", 6) as target:
        with service.client.files.with_streaming_response.content(file_id) as response:
            for chunk in response.iter_bytes(1 << 20):
                target.write(chunk)


def compress(path: Path) -> None:
    """Replace a shard's file by a compressed copy, once its answers are in."""
    with path.open("rb") as source, runs.replacing(path.with_name(f"{path.name}.gz")) as part:
        with gzip.open(part, "wb", 6) as target:
            shutil.copyfileobj(source, target, 1 << 20)
    path.unlink()


def _once(service: Service) -> openai.OpenAI:
    return service.client.with_options(max_retries=0)


@contextlib.contextmanager
def _faults(service: Service, passing: tuple[int, ...] = ()) -> Iterator[None]:
    """Turn the client's exceptions into ServiceError; let the `passing` status codes go by."""
    try:
        yield
    except openai.APIStatusError as error:
        if error.status_code in passing:
            return
        raise _refusal(service, error) from None
    except (openai.APIConnectionError, openai.APIResponseValidationError) as error:
        cause = f"{type(error).__name__}: {error.__cause__ or error}"
        what = f"{service.name} did not answer ({_clean(cause)}). Run the same command again."
        raise ServiceError(what, code="no_answer", status=0, unclear=True) from None


def _refusal(service: Service, error: openai.APIStatusError) -> ServiceError:
    body = error.body if isinstance(error.body, dict) else {}
    said, code = _clean(str(body.get("message") or error.message)), body.get("code")
    why = _STOPPING.get(error.status_code) or (
        "no credit is left" if code == "insufficient_quota" else ""
    )
    what = f"{service.name} answered {error.status_code}: {said}" + (f" ({why})" if why else "")
    return ServiceError(
        what,
        code=code,
        status=error.status_code,
        unclear=error.status_code >= 500,
        request_id=error.request_id,
        final=bool(why),
    )


def _clean(text: str) -> str:
    """Text without anything that looks like a key, cut to a readable length."""
    key = os.environ.get("OPENAI_API_KEY")
    if key:
        text = text.replace(key, "[key]")
    return re.sub(r"\bsk-[\w*-]{4,}", "[key]", text)[:500]
