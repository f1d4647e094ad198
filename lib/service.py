"""The service: the official `openai` client against a base URL. All network traffic is here.

The two calls that pay or leave orphans, upload and create, are made once: the client's retries
are off for them, because it would send up to three and keep one. Every fault becomes a
ServiceError that says whether the call may have had an effect (`unclear`) and whether asking again
is of no use (`final`), and holds no secret. What a service says differently is put into the Batch
API's own form here, by the facts about it.
"""

import contextlib
import gzip
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib import clock, dialect, keys, local_api, refusals, runs, services
from lib.errors import ServiceError
from lib.services import Facts

if TYPE_CHECKING:
    import httpx2
    import openai

LOCAL = services.LOCAL
CONNECT_SECONDS, ANSWER_SECONDS = 10, 120
SLOWEST_BYTES_A_SECOND = 1_000_000  # uploads may take this long and no longer
QUICK = 1  # level of compression: a third of the time of level 6 for a fifth more room
DOWNLOAD_SECONDS, SETTLE_SECONDS = 3600, 600


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
    facts: Facts = field(default_factory=Facts)

    def __repr__(self) -> str:
        """What a notebook shows: never the key."""
        paid = "simulated answers, nothing is paid" if self.free else "answers are paid"
        return f"Service {self.name} ({paid})"


def connect(name: str) -> Service:
    """The service by name (a row of `data/services.yml`) or base URL; `local` is started.

    The key comes from the environment or the system's keyring, from nowhere else.
    """
    import openai

    facts, url = services.find(name), services.address(name)
    if facts.name == LOCAL:
        found = local_api.start(runs.outputs() / ".local_api")
        client = openai.OpenAI(base_url=found["base_url"], api_key=found["token"], timeout=60)
        return Service(LOCAL, client, True, facts.grace_seconds, facts.poll_seconds, facts)
    client = _client(facts, str(url), keys.key(facts))
    return Service(shown(name), client, facts.free, facts.grace_seconds, facts.poll_seconds, facts)


def shown(name: str) -> str:
    """The one name that a service has in ledgers and tables, however it was called.

    >>> shown("local")
    'local'
    """
    facts, url = services.find(name), services.address(name)
    return facts.name if url in (None, facts.base_url) else str(url)


def upload(service: Service, path: Path, name: str) -> str:
    """Upload a shard as `name`; gives the file id. Called once: a lost answer is found by name."""
    n_seconds = ANSWER_SECONDS + path.stat().st_size / SLOWEST_BYTES_A_SECOND
    with _faults(service), path.open("rb") as file:
        part = (name, file, "application/jsonl")
        once = _once(service, n_seconds)
        found = _read(service, once.files.create(file=part, purpose="batch"))
        ends_at = clock.monotonic() + SETTLE_SECONDS
        while service.facts.files_settle and _settles(found) and clock.monotonic() < ends_at:
            clock.sleep(min(service.poll_seconds, 5))
            found = _read(service, service.client.files.retrieve(found["id"]))
    return found["id"]


def create(
    service: Service, file_id: str, endpoint: str, metadata: dict[str, str]
) -> dict[str, Any]:
    """Make a batch of an uploaded file. Called once: a lost answer is found by metadata.

    `endpoint` is the Batch API's name of it; a service may want another.
    """
    facts = service.facts
    standard = endpoint == Facts().endpoint
    with _faults(service):
        batch = _once(service).batches.create(
            input_file_id=file_id,
            endpoint=facts.endpoint if standard else endpoint,
            completion_window=facts.windows[0],
            **({} if facts.keeps_metadata is False else {"metadata": metadata}),
        )
        return dialect.batch(facts, _read(service, batch))


def retrieve(service: Service, batch_id: str) -> dict[str, Any]:
    """The batch as the service sees it now."""
    with _faults(service):
        found = _read(service, service.client.batches.retrieve(batch_id))
    return dialect.batch(service.facts, found)


def cancel(service: Service, batch_id: str) -> None:
    """Ask for a batch to be cancelled; one that has ended already is left as it is."""
    with _faults(service, passing=tuple(service.facts.ended_status)):
        _once(service).batches.cancel(batch_id)


def batches(service: Service, page_size: int = 100) -> Iterator[dict[str, Any]]:
    """Every batch that the service lists, over all pages, newest first."""
    with _faults(service):
        for found in _listing(service, "batches", {"limit": page_size}):
            yield dialect.batch(service.facts, found)


def files(service: Service) -> Iterator[dict[str, Any]]:
    """Every input file that the service lists, over all pages."""
    with _faults(service):
        for found in _listing(service, "files", {"purpose": "batch"}):
            yield dialect.file(found)


def knows_model(service: Service, name: str) -> bool | None:
    """Whether the service says that it has a model; None where it does not say."""
    with _faults(service, passing=(404, 405, 501)):
        found = service.client.models.retrieve(name).to_dict()
        return True if found.get("id") else None
    return False


def delete_file(service: Service, file_id: str) -> None:
    """Delete a file; one that is gone already is no fault, nor a service that deletes none."""
    if "files" in service.facts.deletes:
        with _faults(service, passing=(404,)):
            _once(service).files.delete(file_id)


def download(service: Service, file_id: str, path: Path) -> None:
    """Stream a result file to `path`, compressed; it appears whole or not at all."""
    content = service.client.files.with_streaming_response.content
    ends_at = clock.monotonic() + DOWNLOAD_SECONDS
    with (
        _faults(service),
        runs.replacing(path) as part,
        gzip.open(part, "wb", QUICK) as target,
        content(file_id) as response,
    ):
        for chunk in response.iter_bytes():
            if clock.monotonic() > ends_at:
                raise TimeoutError(f"{path.name} is not whole after {DOWNLOAD_SECONDS} s")
            target.write(chunk)
            runs.crash_point("part downloaded")


def compress(path: Path) -> None:
    """Replace a shard's file by a compressed copy, once its answers are in."""
    with (
        path.open("rb") as source,
        runs.replacing(path.with_name(f"{path.name}.gz")) as part,
        gzip.open(part, "wb", QUICK) as target,
    ):
        shutil.copyfileobj(source, target, 1 << 20)
    path.unlink()


def queue_refusal(batch: dict[str, Any]) -> str | None:
    """What a batch says that failed because the queue of its model is full; nothing otherwise.

    >>> queue_refusal({"status": "completed", "errors": None}) is None
    True
    """
    faults = (batch.get("errors") or {}).get("data") or []
    said = [f.get("message") for f in faults if f.get("code") == dialect.QUEUE_FULL]
    return str(said[0]) if said and batch.get("status") == "failed" else None


def _client(facts: Facts, url: str, key: str) -> "openai.OpenAI":
    """The client of a service elsewhere, whose key stands in the header that it wants."""
    import openai

    def rename(request: "httpx2.Request") -> None:
        word = request.headers.pop("authorization", "")
        request.headers[facts.key_header] = word.removeprefix("Bearer ")

    n_seconds = openai.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    own_header = facts.key_header != "authorization"
    # A redirect would take a header of its own to another host: only Authorization is held back.
    http = openai.DefaultHttpxClient(
        follow_redirects=not own_header, event_hooks={"request": [rename] if own_header else []}
    )
    return openai.OpenAI(
        base_url=url,
        api_key=key or refusals.NO_KEY,
        timeout=n_seconds,
        default_query={"api-version": facts.api_version} if facts.api_version else None,
        http_client=http,
    )


def _once(service: Service, read_seconds: float = 0.0) -> "openai.OpenAI":
    """The client without retries; `read_seconds` is a longer time for the answer."""
    import openai

    client = service.client
    if not read_seconds or not isinstance(client.timeout, openai.Timeout):
        return client.with_options(max_retries=0)
    times = client.timeout.as_dict() | {"read": read_seconds}
    return client.with_options(max_retries=0, timeout=openai.Timeout(**times))


def _settles(file: dict[str, Any]) -> bool:
    return file.get("status") in ("pending", "running", "uploaded")


def _listing(
    service: Service, kind: services.Kind, asked: Mapping[str, object]
) -> Iterator[dict[str, Any]]:
    """Every object of a listing, page by page; one may be given twice when the list moves on.

    Raises ServiceError where a service lists none, or in a circle: what is missing is not known.
    """
    if kind not in service.facts.lists:
        what = f"{service.name} does not list its {kind}, so that a lost call cannot be found."
        raise ServiceError(what, code="no_listing", status=0, unclear=False, final=True)
    seen: set[str] = set()
    at: dict[str, str] = {}
    n_given = 0
    while True:
        page = _page(service, kind, {**asked, **at})
        found, more = _listed(service, page), page.get("has_more")
        is_new = not seen.issuperset(one["id"] for one in found)
        if more and found and not is_new:
            raise refusals.circle(service.name, kind)
        yield from found
        runs.crash_point("page read")
        # A service without has_more gives all in one page, or the same page again.
        if more is False or not is_new or service.facts.pages == "one":
            return
        seen.update(one["id"] for one in found)
        n_given += len(found)
        at = {"after": str(n_given) if service.facts.pages == "offset" else found[-1]["id"]}


def _page(service: Service, kind: services.Kind, asked: Mapping[str, object]) -> dict[str, Any]:
    """One page of a listing as it came: the client's own objects take ten times as long to make."""
    page = service.client.get(f"/{kind}", cast_to=object, options={"params": asked})
    if not isinstance(page, dict):
        raise refusals.strange(service.name)
    return page


def _read(service: Service, answer: object) -> dict[str, Any]:
    """An object of the API as a dict; without an id, nobody knows what the call has done."""
    import openai

    found = answer.to_dict() if isinstance(answer, openai.BaseModel) else answer
    found = found if isinstance(found, dict) else {}
    if not isinstance(found.get("id"), str) or not found["id"]:
        raise refusals.strange(service.name)
    return found


def _listed(service: Service, page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of a page; one without a list is a fault, lest it pass for an empty one."""
    data = page.get("data")
    if not isinstance(data, list):
        raise refusals.strange(service.name)
    return [_read(service, one) for one in data]


def _faults(
    service: Service, passing: tuple[int, ...] = ()
) -> contextlib.AbstractContextManager[None]:
    return refusals.told(service.name, service.client, service.facts, passing)
