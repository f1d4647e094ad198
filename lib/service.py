"""The service: the official `openai` client against a base URL. All network traffic is here.

The two calls that pay or leave orphans, upload and create, are made once: the client's retries
are off for them, because it would send up to three and keep one. Every fault becomes a
ServiceError that says whether the call may have had an effect (`unclear`) and whether asking again
is of no use (`final`), and holds no secret.
"""

import contextlib
import gzip
import os
import re
import shutil
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib import local_api, runs
from lib.errors import ServiceError

if TYPE_CHECKING:
    import openai

LOCAL = "local"
_ADVICE = {
    401: "Set OPENAI_API_KEY to a key that is valid there, then run the same command again.",
    403: "Ask for access in the settings of the project that the key belongs to.",
    429: "It is tried again after a pause.",
    "insufficient_quota": "Add credit to the account, then run the same command again.",
}


@dataclass(frozen=True)
class Service:
    """A service to send to: its name, the client, and how it behaves.

    `free` is the local service, whose money is simulated. `grace_seconds` is how long a listing
    may lag behind a call.
    """

    name: str
    client: "openai.OpenAI"
    free: bool
    grace_seconds: float
    poll_seconds: float

    def __repr__(self) -> str:
        """What a notebook shows: never the key."""
        paid = "simulated answers, nothing is paid" if self.free else "answers are paid"
        return f"Service {self.name} ({paid})"


def connect(name: str) -> Service:
    """The service by name: `local` (started when needed), `openai`, or the base URL of another.

    `openai` is at OPENAI_BASE_URL when that is set. The key is OPENAI_API_KEY, from nowhere else.
    """
    import openai

    if name == LOCAL:
        found = local_api.start(runs.outputs() / ".local_api")
        client = openai.OpenAI(base_url=found["base_url"], api_key=found["token"], timeout=60)
        return Service(LOCAL, client, free=True, grace_seconds=1, poll_seconds=0.2)
    url = address(name)
    client = openai.OpenAI(base_url=url, api_key=_key(), timeout=600)
    return Service(url or "openai", client, free=False, grace_seconds=120, poll_seconds=30)


def upload(service: Service, path: Path, name: str) -> str:
    """Upload a shard as `name`; gives the file id. Called once: a lost answer is found by name."""
    with _faults(service), path.open("rb") as file:
        part = (name, file, "application/jsonl")
        return _read(service, _once(service).files.create(file=part, purpose="batch"))["id"]


def create(
    service: Service, file_id: str, endpoint: str, metadata: dict[str, str]
) -> dict[str, Any]:
    """Make a batch of an uploaded file. Called once: a lost answer is found by metadata."""
    with _faults(service):
        batch = _once(service).batches.create(
            input_file_id=file_id, endpoint=endpoint, completion_window="24h", metadata=metadata
        )
        return _read(service, batch)


def retrieve(service: Service, batch_id: str) -> dict[str, Any]:
    """The batch as the service sees it now."""
    with _faults(service):
        return _read(service, service.client.batches.retrieve(batch_id))


def cancel(service: Service, batch_id: str) -> None:
    """Ask for a batch to be cancelled; one that has ended already is left as it is."""
    with _faults(service, passing=(409,)):
        _once(service).batches.cancel(batch_id)


def batches(service: Service, page_size: int = 100) -> Iterator[dict[str, Any]]:
    """Every batch that the service lists, over all pages, newest first."""
    with _faults(service):
        for page in service.client.batches.list(limit=page_size).iter_pages():
            yield from _listed(service, page)


def files(service: Service) -> Iterator[dict[str, Any]]:
    """Every input file that the service lists, over all pages."""
    with _faults(service):
        for page in service.client.files.list(purpose="batch").iter_pages():
            yield from _listed(service, page)


def delete_file(service: Service, file_id: str) -> None:
    """Delete a file; one that is gone already is no fault."""
    with _faults(service, passing=(404,)):
        _once(service).files.delete(file_id)


def download(service: Service, file_id: str, path: Path) -> None:
    """Stream a result file to `path`, compressed; it appears whole or not at all."""
    content = service.client.files.with_streaming_response.content
    with (
        _faults(service),
        runs.replacing(path) as part,
        gzip.open(part, "wb", 6) as target,
        content(file_id) as response,
    ):
        for chunk in response.iter_bytes(1 << 20):
            target.write(chunk)


def compress(path: Path) -> None:
    """Replace a shard's file by a compressed copy, once its answers are in."""
    with (
        path.open("rb") as source,
        runs.replacing(path.with_name(f"{path.name}.gz")) as part,
        gzip.open(part, "wb", 6) as target,
    ):
        shutil.copyfileobj(source, target, 1 << 20)
    path.unlink()


def queue_refusal(batch: dict[str, Any]) -> str | None:
    """What a batch says that failed because the queue of its model is full; nothing otherwise.

    >>> queue_refusal({"status": "completed", "errors": None}) is None
    True
    """
    faults = (batch.get("errors") or {}).get("data") or []
    said = [f.get("message") for f in faults if f.get("code") == "token_limit_exceeded"]
    return str(said[0]) if said and batch.get("status") == "failed" else None


def address(name: str) -> str | None:
    """The base URL of a service by name; nothing for the local one and for the client's default.

    Raises ServiceError for a name that is none, before anybody is called.
    """
    if name == LOCAL:
        return None
    url = os.environ.get("OPENAI_BASE_URL", "").strip() if name == "openai" else name
    if not url:
        return None
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        what = f"{url!r} is no service: expected local, openai, or a URL that begins with http."
        where = "It is the value of OPENAI_BASE_URL." if name == "openai" else ""
        raise ServiceError(f"{what} {where}".rstrip(), code="unknown_service")
    if parts.username or parts.password or parts.query:
        what = "the base URL holds a password or a query, and it would stand in messages."
        raise ServiceError(f"{what} Put the key into OPENAI_API_KEY.", code="secret_in_url")
    return url.rstrip("/")


def _key() -> str:
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        what = "OPENAI_API_KEY is not set: export it in the shell that starts this, not in a file."
        raise ServiceError(what, code="no_key")
    if not re.fullmatch(r"[!-~]+", key):
        what = "OPENAI_API_KEY holds a blank or a character that no key has: copy it anew."
        raise ServiceError(what, code="bad_key")
    return key


def _once(service: Service) -> "openai.OpenAI":
    return service.client.with_options(max_retries=0)


def _read(service: Service, answer: object) -> dict[str, Any]:
    """An object of the API as a dict; without an id, nobody knows what the call has done."""
    import openai

    found = answer.to_dict() if isinstance(answer, openai.BaseModel) else {}
    if not isinstance(found.get("id"), str) or not found["id"]:
        raise _strange(service)
    return found


def _listed(service: Service, page: object) -> list[dict[str, Any]]:
    """The objects of a page; one without a list is a fault, lest it pass for an empty one."""
    data = getattr(page, "data", None)
    if not isinstance(data, list):
        raise _strange(service)
    return [_read(service, one) for one in data]


@contextlib.contextmanager
def _faults(service: Service, passing: tuple[int, ...] = ()) -> Iterator[None]:
    """Turn the client's exceptions into ServiceError; let the `passing` status codes go by."""
    import httpx2
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        if error.status_code not in passing:
            raise _refusal(service, error) from None
    except (openai.APIConnectionError, httpx2.HTTPError) as error:
        cause = f"{type(error).__name__}: {error.__cause__ or error}"
        what = f"{service.name} did not answer ({_clean(service, cause)})."
        facts = {"code": "no_answer", "status": 0, "unclear": True, "final": False}
        raise ServiceError(f"{what} Run the same command again.", **facts) from None
    except (openai.APIResponseValidationError, ValueError, AttributeError):
        # The client raises these, or hands back bare text, when an answer is cut or no JSON.
        raise _strange(service) from None


def _strange(service: Service) -> ServiceError:
    what = f"{service.name} answered in a form that the Batch API does not have, or cut it off."
    facts = {"code": "strange_answer", "status": 200, "unclear": True, "final": False}
    return ServiceError(f"{what} Run the same command again.", **facts)


def _refusal(service: Service, error: "openai.APIStatusError") -> ServiceError:
    body = error.body if isinstance(error.body, dict) else {}
    status, code = error.status_code, body.get("code")
    said = _clean(service, str(body.get("message") or "no reason given")).rstrip(".")
    unclear = status >= 500 or status in (408, 409)
    no_credit = code == "insufficient_quota"
    advice = _ADVICE.get(code if no_credit else status, "")
    return ServiceError(
        f"{service.name} answered {status}: {said}. {advice}".rstrip(),
        code=code,
        status=status,
        unclear=unclear,
        request_id=error.request_id,
        final=no_credit or not (unclear or status == 429),
    )


def _clean(service: Service, text: str) -> str:
    """Text without the key or anything that looks like one, on one line of a readable length."""
    text = text.replace(service.client.api_key, "[key]")
    return " ".join(re.sub(r"\b(sk|sess)-[\w*-]{4,}", "[key]", text).split())[:500]
