"""Dialects: what a service says, in the one form that the Batch API has.

Pure renaming at the boundary, by the facts about the service: status words, error codes, file ids,
times, counts. What cannot be put into that form stays as it is, and no figure is made up.
"""

import datetime
import re
from collections.abc import Mapping
from typing import Any

from lib.services import Facts

QUEUE_FULL = "token_limit_exceeded"
_SPELT = {"canceled": "cancelled", "canceling": "cancelling"}
_COUNTS = ("total", "completed", "failed")
_LAST_SECOND = 253_402_300_800  # the year 10,000, in which a datetime ends
_UNITS = {"": 1, "K": 1_000, "M": 1_000_000, "B": 1_000_000_000}


def batch(facts: Facts, found: Mapping[str, Any]) -> dict[str, Any]:
    """A batch as the Batch API would show it.

    >>> batch(Facts(), {"id": "b", "status": "Canceled", "output_file_id": ""})["status"]
    'cancelled'
    """
    times = {name: _seconds(found[name]) for name in found if name.endswith("_at")}
    metadata = found.get("metadata")
    files = {name: found.get(f"{name}_file_id") or None for name in ("output", "error")}
    counts = {name: _count(found.get("request_counts"), name) for name in _COUNTS}
    if facts.mixed_output and files["output"] and not files["error"]:
        # Both counts are of lines in the one file: nothing is to be waited for in another.
        counts |= {"completed": counts["completed"] + counts["failed"], "failed": 0}
    shown = {
        **found,
        **times,
        "created_at": times.get("created_at") or 0,
        "metadata": metadata if isinstance(metadata, dict) else {},
        "request_counts": counts if found.get("request_counts") else None,
        "errors": _errors(facts, found.get("errors")),
        **{f"{name}_file_id": file_id for name, file_id in files.items()},
    }
    return {**shown, "status": _status(facts, shown)}


def file(found: Mapping[str, Any]) -> dict[str, Any]:
    """A file as the Batch API would show it.

    >>> file({"id": "f"})["created_at"]
    0
    """
    return {**found, "created_at": _seconds(found.get("created_at")) or 0}


def fault(facts: Facts, found: Mapping[str, Any]) -> dict[str, Any]:
    """An error object with our code, and with the queue's limit in the words of the Batch API.

    >>> azure = Facts(limit_pattern=r"limit of ([0-9.,]+[KMB]?)")
    >>> fault(azure, {"code": "token_limit_exceeded", "message": "Over a limit of 30K."})["message"]
    'Over a limit of 30K. Limit: 30,000 enqueued tokens.'
    """
    code, message = found.get("code"), found.get("message", found.get("detail"))
    code = facts.codes.get(code.lower(), code) if isinstance(code, str) else None
    message = message if isinstance(message, str) else None
    if message and code is None and QUEUE_FULL in message:
        code = QUEUE_FULL
    limit = re.search(facts.limit_pattern, message or "") if facts.limit_pattern else None
    if limit and code == QUEUE_FULL and "Limit: " not in str(message):
        message = f"{message} Limit: {_figure(limit[1]):,} enqueued tokens."
    return {**found, "code": code, "message": message}


def _status(facts: Facts, shown: Mapping[str, Any]) -> object:
    """One of the API's eight words; a word that is none stays, and is waited for.

    Some services call a batch failed when every line of it failed, or when it broke off: it has
    run, lines are paid, and what it left is to be read. Here that is `completed`.
    """
    said = shown.get("status")
    word = said.lower() if isinstance(said, str) else said
    word = facts.statuses.get(word, _SPELT.get(word, word)) if isinstance(word, str) else said
    counts = shown["request_counts"] or {}
    has_run = counts.get("completed", 0) + counts.get("failed", 0) > 0
    has_file = shown["output_file_id"] or shown["error_file_id"]
    return "completed" if word == "failed" and has_run and has_file else word


def _errors(facts: Facts, found: object) -> dict[str, Any] | None:
    """The list of errors, also from a bare list or a bare text; nothing where there is none."""
    if isinstance(found, dict):
        found = found.get("data", [found] if found.get("message") else [])
    if isinstance(found, str) and found:
        found = [{"message": found}]
    listed = found if isinstance(found, list) else []
    blank = {"code": None, "message": None, "param": None, "line": None}
    data = [{**blank, **fault(facts, one)} for one in listed if isinstance(one, dict)]
    return {"object": "list", "data": data} if data else None


def _seconds(value: object) -> int | None:
    """A time as seconds since 1970, from a number or an ISO 8601 text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value) if 0 <= value < _LAST_SECOND else None
    try:
        return int(datetime.datetime.fromisoformat(str(value)).timestamp()) if value else None
    except ValueError:
        return None


def _count(counts: object, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _figure(text: str) -> int:
    """A number such as `30K` or `1,350,000` as an integer."""
    unit = text[-1] if text[-1] in _UNITS else ""
    return round(float(text.removesuffix(unit).replace(",", "").rstrip(".")) * _UNITS[unit])
