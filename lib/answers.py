"""Answers: from one line that a batch gave back to the outcome of one request.

Success is `error` null, status 200 and content that the fields accept; everything else keeps its
name. Nothing here raises on what a service or a model may write.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import orjson
import pandas as pd

from lib import votes
from lib.study import Field

MAX_DEPTH = 100  # far beyond any schema (10 levels), far below the interpreter's limit
RETRYABLE_STATUS = frozenset({0, 408, 409, 429, *range(500, 600)})
ACCOUNT_STATUS, MODEL_STATUS = frozenset({401, 402}), frozenset({403})
ACCOUNT_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "invalid_api_key"}
)
MODEL_CODES = frozenset({"model_not_found"})
_NOT_RUN = {"batch_expired": "expired", "batch_cancelled": "cancelled"}
_UNKNOWN = dict.fromkeys(["finish_reason", "content", "status", "code", "param", "message"])
_USAGE = ("n_input_tokens", "n_cached_tokens", "n_output_tokens", "n_reasoning_tokens")
_BLANK = dict.fromkeys([*_UNKNOWN, *_USAGE, "answered_by"])


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
    body, status = response.get("body"), _count(response.get("status_code"))
    # Some services give the body as JSON text.
    answer = _mapping(_loads(body.encode(errors="replace")) if isinstance(body, str) else body)
    row = {"custom_id": name, **_UNKNOWN, "status": status, **_usage(answer), **_origin(answer)}
    if error is None and status == 200:
        row.update(_judge(answer, fields))
        return row
    fault = _mapping(answer.get("error") if error is None else error)
    named = {part: _word(fault.get(part)) for part in ("code", "param", "message")}
    kind = "failed" if error is None else _NOT_RUN.get(named["code"], "failed")
    return row | named | {"outcome": kind}


def missing(name: str) -> dict[str, Any]:
    """The outcome of a request about which no line says anything."""
    return {"custom_id": name, **_BLANK, "outcome": "missing", "simulated": False}


def retryable(table: pd.DataFrame) -> pd.Series:
    """Which outcomes may be sent again as they are: the service failed them, not the question."""
    passing = table["outcome"].isin(["missing", "expired", "cancelled"])
    failed = table["outcome"].eq("failed")
    if not failed.any():
        return passing
    status = table.loc[failed, "status"].fillna(0).isin(RETRYABLE_STATUS)
    named = table.loc[failed, "code"].isin(ACCOUNT_CODES | MODEL_CODES)
    passing[failed] = status & ~named
    return passing


def blocked(table: pd.DataFrame) -> pd.Series:
    """Which outcomes the account is the cause of: no key, no credit, no access to the model."""
    found = table["outcome"].eq("failed")
    if not found.any():
        return found
    failed = table[found]
    named = failed["code"].isin(ACCOUNT_CODES | MODEL_CODES)
    found[found] = named | failed["status"].isin(ACCOUNT_STATUS | MODEL_STATUS)
    return found


def blames_account(table: pd.DataFrame) -> pd.Series:
    """Which of the blocked outcomes would come from every model."""
    return table["code"].isin(ACCOUNT_CODES) | table["status"].isin(ACCOUNT_STATUS)


def _judge(answer: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Name the outcome of an answer with status 200, and why it is not valid."""
    choices = answer.get("choices")
    choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message = _mapping(choice.get("message"))
    content, reason = message.get("content"), _word(choice.get("finish_reason"))
    found = {"content": _word(content), "finish_reason": reason}
    if message.get("refusal") or reason == "content_filter":
        return {**found, "outcome": "refused", "message": _word(message.get("refusal"))}
    if content is None or (isinstance(content, str) and not content.strip()):
        return {**found, "outcome": "empty"}
    if reason == "length":
        return {**found, "outcome": "truncated"}
    try:
        fault = fault_in(strict_json(content), fields)
    except ValueError as error:
        return {**found, "outcome": "malformed", "message": str(error)[:200]}
    return {**found, "outcome": "invalid" if fault else "valid", "message": fault}


def strict_json(content: object) -> object:
    """The value of a JSON text; ValueError for all that Python's reader lets through in silence.

    Refused: duplicate keys, NaN, Infinity and numbers as large, lone surrogates, nesting beyond
    MAX_DEPTH, and what is no text.
    """
    if not isinstance(content, str):
        raise ValueError(f"{type(content).__name__} instead of text")
    if content.count("{") + content.count("[") > MAX_DEPTH and _depth(content) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    value = _READER.decode(content)
    if _is_torn(content) or ("\\u" in content and _is_torn(json.dumps(value, ensure_ascii=False))):
        raise ValueError("holds text that is not Unicode")
    return value


def fault_in(value: object, fields: Mapping[str, Field]) -> str | None:
    """Why the fields do not accept an answer, or nothing."""
    if not isinstance(value, dict):
        return f"expected an object, got {type(value).__name__}"
    if value.keys() != fields.keys():
        missing, extra = (
            [f for f in fields if f not in value],
            [v for v in value if v not in fields],
        )
        return f"members missing: {missing}, not asked for: {extra}"
    for name, field in fields.items():
        if votes.normalise(value[name], field)[0] is None:
            return f"{name}: {str(value[name])[:80]!r} is not allowed"
    return None


def _usage(answer: Mapping[str, Any]) -> dict[str, int | None]:
    usage = _mapping(answer.get("usage"))
    prompt = _mapping(usage.get("prompt_tokens_details"))
    completion = _mapping(usage.get("completion_tokens_details"))
    return {
        "n_input_tokens": _count(usage.get("prompt_tokens")),
        "n_cached_tokens": _count(prompt.get("cached_tokens")),
        "n_output_tokens": _count(usage.get("completion_tokens")),
        "n_reasoning_tokens": _count(completion.get("reasoning_tokens")),
    }


def _origin(answer: Mapping[str, Any]) -> dict[str, Any]:
    fingerprint = _word(answer.get("system_fingerprint")) or ""
    return {
        "answered_by": _word(answer.get("model")),
        "simulated": fingerprint.startswith("fp_simulated"),
    }


def _loads(line: bytes) -> object:
    """The value of a line, or nothing; half a surrogate pair spoils a text and not its line."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        if b"\\ud" not in line.lower() or _depth(line.decode("latin-1")) > MAX_DEPTH:
            return None
    try:
        return json.loads(line)
    except ValueError:
        return None


def _depth(text: str) -> int:
    """How deep the brackets of a JSON text nest at most."""
    deepest = depth = 0
    outside = re.sub(r'"(?:[^"\\]|\\.)*+"', "", text, flags=re.DOTALL)
    for bracket in re.findall(r"[][{}]", outside):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _is_torn(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which no file can."""
    return not text.isascii() and _HALF.search(text) is not None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str | None:
    if isinstance(value, str):
        return value if value.isascii() else _HALF.sub("\N{REPLACEMENT CHARACTER}", value)
    return str(value) if isinstance(value, int | float) else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"{number[:20]} is too large")
    return value


def _whole(number: str) -> int:
    _finite(number)
    return int(number)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a member stands twice")
    return value


_HALF = re.compile("[\ud800-\udfff]")  # half of a surrogate pair
_READER = json.JSONDecoder(
    object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite, parse_int=_whole
)
