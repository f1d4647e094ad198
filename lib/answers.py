"""Answers: from the bytes that a batch gave back to one outcome for every request sent in it.

Reads both files of every end state and trusts lines, never counts. Success is `error` null, status
200 and content that the fields accept; everything else keeps its name. Nothing here raises on what
a service or a model may write: a line that cannot be read is counted and its request is missing.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from lib import models, votes
from lib.models import Model
from lib.study import Field

MAX_LINE_BYTES = 16_000_000
RETRYABLE_STATUS = frozenset({0, 408, 409, 429, *range(500, 600)})
_NOT_RUN = {"batch_expired": "expired", "batch_cancelled": "cancelled"}
_UNKNOWN = {"finish_reason": None, "content": None, "status": None, "code": None, "param": None}
_USAGE = ("n_input_tokens", "n_cached_tokens", "n_output_tokens", "n_reasoning_tokens")


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a result file, split at b"\\n" alone.

    JSON strings may hold U+2028 and U+0085, at which str.splitlines would cut a line in two.
    """
    with gzip.open(path, "rb") as file:
        while raw := file.readline(MAX_LINE_BYTES):
            if raw.endswith(b"\n") or len(raw) < MAX_LINE_BYTES:
                yield raw.rstrip(b"\r\n")
                continue
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(MAX_LINE_BYTES)
            yield b"too long"


def outcomes(
    sent: pd.DataFrame, raw: Iterable[bytes], fields: Mapping[str, Field], model: Model
) -> tuple[pd.DataFrame, int]:
    """One row for each request sent, and the number of lines that belong to none of them.

    `sent` has custom_id, key and attempt. A request without a line is `missing`. Lines repeated
    word for word count once; two different valid answers to one request make it `invalid`.
    """
    rows: dict[str, list[dict]] = {name: [] for name in sent["custom_id"]}
    n_strange = 0
    for line in raw:
        row = outcome(line, fields) if line else None
        if row is not None and row["custom_id"] in rows:
            rows[row["custom_id"]].append(row)
        elif line:
            n_strange += 1
    found = [_settle(name, candidates) for name, candidates in rows.items()]
    table = sent.merge(pd.DataFrame(found), on="custom_id", how="left", validate="one_to_one")
    table["model"] = model.name
    table["spend_usd"] = _spend(table, model)
    return table, n_strange


def outcome(line: bytes, fields: Mapping[str, Field]) -> dict[str, Any] | None:
    """What one line of an output or error file says, or nothing when it names no request.

    >>> line = b'{"custom_id": "q1-a0", "error": {"code": "batch_expired", "message": "late"}}'
    >>> outcome(line, {})["outcome"]
    'expired'
    """
    read = _mapping(_loads(line))
    name = read.get("custom_id")
    if not isinstance(name, str):
        return None
    response, error = _mapping(read.get("response")), read.get("error")
    answer = _mapping(response.get("body"))
    row = {"custom_id": name, **_UNKNOWN, "message": None, **_usage(answer), **_origin(answer)}
    if error is not None:
        code = _word(_mapping(error).get("code"))
        message = _word(_mapping(error).get("message"))
        return {**row, "outcome": _NOT_RUN.get(code, "failed"), "code": code, "message": message}
    status = response.get("status_code")
    if status != 200 or isinstance(status, bool):
        fault = _mapping(answer.get("error"))
        named = {part: _word(fault.get(part)) for part in ("code", "param", "message")}
        number = status if isinstance(status, int) else 0
        return {**row, "outcome": "failed", "status": number, **named}
    return {**row, "status": 200, **_judge(answer, fields)}


def retryable(table: pd.DataFrame) -> pd.Series:
    """Which outcomes may be sent again as they are: the service failed them, not the question."""
    passing = table["outcome"].isin(["missing", "expired", "cancelled"])
    quota = table["code"].eq("insufficient_quota")
    status = table["status"].fillna(0).isin(RETRYABLE_STATUS)
    return passing | (table["outcome"].eq("failed") & status & ~quota)


def _judge(answer: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Name the outcome of an answer with status 200, and why it is not valid."""
    choices = answer.get("choices")
    choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message = _mapping(choice.get("message"))
    content, reason = _word(message.get("content")), _word(choice.get("finish_reason"))
    found = {"content": content, "finish_reason": reason}
    if message.get("refusal") or reason == "content_filter":
        return {**found, "outcome": "refused", "message": _word(message.get("refusal"))}
    if not content or not content.strip():
        return {**found, "outcome": "empty"}
    if reason == "length":
        return {**found, "outcome": "truncated"}
    try:
        value = strict_json(content)
    except ValueError as error:
        return {**found, "outcome": "malformed", "message": str(error)[:200]}
    fault = fault_in(value, fields)
    return {**found, "outcome": "invalid" if fault else "valid", "message": fault}


def strict_json(content: str) -> Any:
    """The value of a JSON text; ValueError for all that Python's reader lets through in silence.

    Refused: duplicate keys, NaN and Infinity, lone surrogates, nesting beyond the interpreter.
    """
    try:
        value = json.loads(content, parse_constant=_refuse, object_pairs_hook=_once)
        content.encode()
        if "\\u" in content:
            orjson.dumps(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (UnicodeEncodeError, orjson.JSONEncodeError):
        raise ValueError("holds text that is not Unicode") from None
    return value


def fault_in(value: object, fields: Mapping[str, Field]) -> str | None:
    """Why the fields do not accept an answer, or nothing."""
    if not isinstance(value, dict):
        return f"expected an object, got {type(value).__name__}"
    missing, extra = [f for f in fields if f not in value], [v for v in value if v not in fields]
    if missing or extra:
        return f"members missing: {missing}, not asked for: {extra}"
    for name, field in fields.items():
        if field.type == "entities":
            if not _is_entity_list(value[name]):
                return f"{name} is not a list of named entities"
        elif votes.normalise(value[name], field)[0] is None:
            return f"{name}: {str(value[name])[:80]!r} is not allowed"
    return None


def _is_entity_list(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(entity, dict) and isinstance(entity.get("name"), str) for entity in value
    )


def _settle(name: str, candidates: list[dict]) -> dict[str, Any]:
    """The one outcome of a request from all lines about it, whatever their order."""
    if not candidates:
        blank = dict.fromkeys([*_UNKNOWN, "message", *_USAGE, "answered_by"])
        return {"custom_id": name, **blank, "outcome": "missing", "simulated": False}
    contents = {row["content"] for row in candidates if row["outcome"] == "valid"}
    if len(contents) > 1:
        what = f"{len(contents)} different answers to one request"
        return {**min(candidates, key=_order), "outcome": "invalid", "message": what}
    return min(candidates, key=_order)


def _order(row: Mapping[str, Any]) -> tuple:
    return (row["outcome"] != "valid", orjson.dumps(row, option=orjson.OPT_SORT_KEYS))


def _usage(answer: Mapping[str, Any]) -> dict[str, int | None]:
    usage = _mapping(answer.get("usage"))
    prompt = _mapping(usage.get("prompt_tokens_details"))
    completion = _mapping(usage.get("completion_tokens_details"))
    found = (
        usage.get("prompt_tokens"),
        prompt.get("cached_tokens"),
        usage.get("completion_tokens"),
        completion.get("reasoning_tokens"),
    )
    return {name: _count(value) for name, value in zip(_USAGE, found, strict=True)}


def _origin(answer: Mapping[str, Any]) -> dict[str, Any]:
    fingerprint = _word(answer.get("system_fingerprint")) or ""
    return {
        "answered_by": _word(answer.get("model")),
        "simulated": fingerprint.startswith("fp_simulated"),
    }


def _spend(table: pd.DataFrame, model: Model) -> list[float]:
    """USD of each row from its reported usage, at the batch price."""
    usage = (
        table[["n_input_tokens", "n_output_tokens", "n_cached_tokens"]].fillna(0).astype("int64")
    )
    return [
        models.spend_usd(model, n_input, n_output, min(n_cached, n_input))
        for n_input, n_output, n_cached in usage.itertuples(index=False)
    ]


def _loads(line: bytes) -> object:
    try:
        return orjson.loads(line)
    except (orjson.JSONDecodeError, RecursionError):
        return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None if value is None else str(value)


def _count(value: object) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return value if good else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a member stands twice")
    return value
