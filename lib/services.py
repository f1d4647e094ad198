"""Facts about services: where each is, how it takes the key, what it admits, how its words differ.

It decides what a row of `data/services.yml` may say and which row belongs to a name or base URL. It
calls nobody and holds no key. A service that no row names behaves as the Batch API's own.
"""

import datetime
import functools
import ipaddress
import os
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from lib import errors, parts, yamls
from lib.parts import Part, Text

LOCAL = "local"
DEFAULT_PATH = yamls.WORKSPACE / "data" / "services.yml"
OWN_PATH = yamls.WORKSPACE / "data" / "services.local.yml"  # a user's own services and changes

Count = Annotated[int, pydantic.Field(gt=0)]
Seconds = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
Status = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
Kind = Literal["files", "batches"]


class Facts(Part):
    """What is known about one service; what a row leaves out is as at OpenAI."""

    name: str = ""
    base_url: Text | None = None
    base_url_variable: Text | None = None
    base_path: str = ""
    hosts: list[Text] = []
    key_variable: Text = "OPENAI_API_KEY"
    key_needed: bool = True
    key_header: Literal["authorization", "api-key"] = "authorization"
    api_version: Text | None = None
    free: bool = False
    grace_seconds: Seconds = 120.0
    poll_seconds: Seconds = 30.0
    windows: Annotated[list[Text], pydantic.Field(min_length=1)] = ["24h"]
    url: Text = "/v1/chat/completions"
    endpoint: Text = "/v1/chat/completions"
    keeps_metadata: bool | None = True
    lists: list[Kind] = ["files", "batches"]
    deletes: list[Kind] = ["files"]
    files_settle: bool = False
    pages: Literal["id", "offset", "one"] = "id"
    max_requests: Count = 50_000
    max_bytes: Count = 209_715_200
    max_batches_per_hour: Count | None = 2_000
    max_files: Count | None = None
    files_expire_days: Count | None = 30
    statuses: dict[Text, Status] = {}
    codes: dict[Text, Text] = {}
    limit_pattern: Text | None = None
    mixed_output: bool = False
    ended_status: list[Count] = [409]
    models: dict[Text, Text] = {}
    model_prefix: str = ""
    source: Text = "none"
    checked_at: datetime.date = datetime.date.min

    def called(self, model: str) -> str:
        """What a model of the study is called at the service.

        >>> Facts(model_prefix="openai/", models={"own": "my-own"}).called("gpt-6-luna")
        'openai/gpt-6-luna'
        """
        return self.models.get(model) or f"{self.model_prefix}{model}"


class File(Part):
    """A whole file of services, laid over the one before it."""

    services: dict[Text, Facts]


def load(*paths: Path) -> dict[str, Facts]:
    """The services of `data/services.yml`, changed and completed by further files in their order.

    Raises StudyError with file and line for whatever does not fit the form of such a file.
    """
    return _read(DEFAULT_PATH, *paths) if paths else dict(_default())


@functools.cache
def _default() -> dict[str, Facts]:
    return _read(DEFAULT_PATH, *([OWN_PATH] if OWN_PATH.is_file() else []))


def find(name: str, table: Mapping[str, Facts] | None = None) -> Facts:
    """The facts of a service by its name or base URL; a URL that no row names is as OpenAI's.

    Raises ServiceError for a name that is none, with the nearest one.
    """
    table = _default() if table is None else table
    if name in table:
        return table[name]
    if not _is_url(name):
        known = ", ".join(table)
        what = f"{name!r} is no service: expected {known}, or a URL that begins with http."
        raise errors.ServiceError(f"{what}{yamls.nearest(name, table)}", code="unknown_service")
    host = (urllib.parse.urlsplit(name).hostname or "").lower()
    known = (facts for facts in table.values() if host and _is_at(facts, host))
    return next(known, table["openai"].model_copy(update={"name": name}))


def address(name: str, table: Mapping[str, Facts] | None = None) -> str | None:
    """The base URL of a service by name, from its row or environment; nothing for the local one.

    Raises ServiceError for what cannot be one, before anybody is called.
    """
    facts = find(name, table)
    if facts.name == LOCAL:
        return None
    if _is_url(name):
        return _checked(name, "")
    variable = facts.base_url_variable
    given = os.environ.get(variable, "").strip() if variable else ""
    if not given and not facts.base_url:
        what = f"the address of {name} is not set: export {variable} in the shell that starts this."
        raise errors.ServiceError(what, code="no_address")
    if not given:
        return _checked(str(facts.base_url), "")
    url = _checked(given, f"It is the value of {variable}.")
    return url if url.endswith(facts.base_path) else f"{url}{facts.base_path}"


def _is_url(name: str) -> bool:
    return name.startswith(("http:", "https:"))


def _is_at(facts: Facts, host: str) -> bool:
    """Whether a host is the one of these facts, or below one of its domains."""
    own = urllib.parse.urlsplit(facts.base_url or "").hostname
    return host == own or any(host.endswith(f".{domain}") for domain in facts.hosts)


def _checked(url: str, where: str) -> str:
    parts_of = urllib.parse.urlsplit(url)
    if parts_of.scheme not in ("http", "https") or not parts_of.hostname:
        what = f"{url!r} is no service: expected a URL that begins with http:// or https://."
        raise errors.ServiceError(f"{what} {where}".rstrip(), code="unknown_service")
    if parts_of.username or parts_of.password or parts_of.query:
        what = "the base URL holds a password or a query, and it would stand in messages."
        fix = "Put the key into the environment or the keyring."
        raise errors.ServiceError(f"{what} {fix}", code="secret_in_url")
    if parts_of.scheme == "http" and not _is_near(parts_of.hostname):
        what = f"{url} is not encrypted, and the key would travel with every call."
        raise errors.ServiceError(f"{what} Use https:// for it. {where}".rstrip(), code="no_tls")
    return url.rstrip("/")


def _is_near(host: str) -> bool:
    """Whether a host is this machine or in its own network, where plain HTTP is common."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))


def _read(*paths: Path) -> dict[str, Facts]:
    merged: dict[str, Any] = {}
    found: dict[str, Facts] = {}
    for path in paths:
        data, lines = yamls.read(path)
        rows = data.get("services") if isinstance(data, dict) else None
        if not isinstance(rows, dict) or set(data) != {"services"}:
            raise yamls.problem(path, 1, "expected a table with the one entry services.")
        for name, row in rows.items():
            known = merged.get(name, {"name": name})
            merged[name] = {**known, **row} if isinstance(row, dict) else row
        found = parts.parse(File, {"services": merged}, path, lines).services
        for at, what in _faults(found, rows):
            raise yamls.problem(path, yamls.line_of(lines, "services", *at), what)
    return found


def _faults(found: Mapping[str, Facts], rows: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """What single rows of a file cannot mean: (place, what)."""
    for name in rows:
        facts = found[name]
        if facts.source == "none" or facts.checked_at == datetime.date.min:
            yield (name,), f'service "{name}" needs source and checked_at: who says so, and when.'
        if not (facts.base_url or facts.base_url_variable or name == LOCAL):
            yield (name,), f'service "{name}" needs base_url or base_url_variable.'
        if facts.free and name != LOCAL:
            yield (name, "free"), "only the local service is free: its answers are simulated."
        if facts.limit_pattern and not _has_group(facts.limit_pattern):
            what = "is no regular expression with one group for the number."
            yield (name, "limit_pattern"), f"limit_pattern of {name} {what}"


def _has_group(pattern: str) -> bool:
    try:
        return re.compile(pattern).groups == 1
    except re.error:
        return False
