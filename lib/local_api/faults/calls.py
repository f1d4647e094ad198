"""Which operation of the API a request is, and which batch or file it is about."""

import urllib.parse
from typing import NamedTuple

from starlette.types import Scope

from lib.local_api import clock, context, store
from lib.local_api.faults import switches, table

OPERATIONS = {
    ("POST", "files", 1): table.UPLOAD,
    ("GET", "files", 1): table.LIST_FILES,
    ("GET", "files", 2): table.FILE,
    ("DELETE", "files", 2): table.DELETE,
    ("GET", "files", 3): table.CONTENT,
    ("POST", "batches", 1): table.CREATE,
    ("GET", "batches", 1): table.LIST_BATCHES,
    ("GET", "batches", 2): table.RETRIEVE,
    ("POST", "batches", 3): table.CANCEL,
    ("GET", "models", 1): table.MODELS,
    ("GET", "models", 2): table.MODELS,
    ("POST", "chat", 2): table.CHAT,
}


class Call(NamedTuple):
    """A request to the API: its operation, and the id in its path if there is one."""

    operation: str
    target: str | None


def call(scope: Scope) -> Call | None:
    """What a request is; None when it is outside of the API."""
    words = urllib.parse.unquote(scope["path"]).strip("/").split("/")
    if words[0] != "v1" or len(words) < 2:
        return None
    operation = OPERATIONS.get((scope["method"], words[1], len(words) - 1))
    target = words[2] if len(words) > 2 and words[1] in ("files", "batches") else None
    return Call(operation, target) if operation else None


def row(service: context.Service, asked: Call) -> dict | None:
    """The batch or the file that a request is about, if it is there."""
    if asked.target is None:
        return None
    if asked.operation in (table.RETRIEVE, table.CANCEL):
        return store.batch(service.db, asked.target)
    return store.live_file(service.db, asked.target, clock.now(service.clock))


def attached(service: context.Service, asked: Call) -> dict[str, switches.Switch]:
    """What the metadata of the batch switch on that a request, or its result file, is about."""
    of_batches = service.faults.attached
    if not of_batches or asked.target is None:
        return {}
    if asked.operation != table.CONTENT:
        return of_batches.get(asked.target, {})
    batch_id = store.batch_of_result(service.db, asked.target)
    return of_batches.get(batch_id, {})
