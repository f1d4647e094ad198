"""Answers: from the bytes that a batch gave back to one outcome for every request sent in it.

Reads both files of every end state and trusts lines, never counts. Success is `error` null, status
200 and content that the fields accept; everything else keeps its name. Nothing here raises on what
a service or a model may write: a line that cannot be read is counted and its request is missing.
"""

import gzip
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from lib import models, votes
from lib.models import Model
from lib.study import Field

MAX_LINE_BYTES = 16_000_000
MAX_DEPTH = 100  # far beyond any schema (10 levels), far below the interpreter's limit
RETRYABLE_STATUS = frozenset({0, 408, 409, 429, *range(500, 600)})
_NOT_RUN = {"batch_expired": "expired", "batch_cancelled": "cancelled"}
_UNKNOWN = dict.fromkeys(["finish_reason", "content", "status", "code", "param", "message"])
_USAGE = ("n_input_tokens", "n_cached_tokens", "n_output_tokens", "n_reasoning_tokens")


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a result file (gzip), split at b"\\n" alone, without their ends.

    JSON strings may hold U+2028 and U+0085, at which str.splitlines would cut a line in two. A
    line beyond MAX_LINE_BYTES is not read into memory: it becomes one that nobody can read.
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
    columns = ["custom_id", "outcome", *_UNKNOWN, *_USAGE, "answered_by", "simulated"]
    settled = pd.DataFrame(found, columns=columns)
    table = sent.merge(settled, on="custom_id", how="left", validate="one_to_one")
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
    answer, status = _mapping(response.get("body")), _count(response.get("status_code"))
    row = {"custom_id": name, **_UNKNOWN, "status": status, **_usage(answer), **_origin(answer)}
    if error is None and status == 200:
        return {**row, **_judge(answer, fields)}
    fault = _mapping(answer.get("error") if error is None else error)
    named = {part: _word(fault.get(part)) for part in ("code", "param", "message")}
    kind = "failed" if error is None else _NOT_RUN.get(named["code"], "failed")
    return {**row, "outcome": kind, **named}


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
    value = json.loads(content, object_pairs_hook=_once, **_NUMBERS)
    if _is_torn(content) or ("\\u" in content and _is_torn(json.dumps(value, ensure_ascii=False))):
        raise ValueError("holds text that is not Unicode")
    return value


def fault_in(value: object, fields: Mapping[str, Field]) -> str | None:
    """Why the fields do not accept an answer, or nothing."""
    if not isinstance(value, dict):
        return f"expected an object, got {type(value).__name__}"
    missing, extra = [f for f in fields if f not in value], [v for v in value if v not in fields]
    if missing or extra:
        return f"members missing: {missing}, not asked for: {extra}"
    for name, field in fields.items():
        if votes.normalise(value[name], field)[0] is None:
            return f"{name}: {str(value[name])[:80]!r} is not allowed"
    return None


def _settle(name: str, candidates: list[dict]) -> dict[str, Any]:
    """The one outcome of a request from all lines about it, whatever their order."""
    if not candidates:
        blank = dict.fromkeys([*_UNKNOWN, *_USAGE, "answered_by"])
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
    return re.search("[\ud800-\udfff]", text) is not None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str | None:
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", value)
    return str(value) if isinstance(value, int | float) else None


def _count(value: object) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return value if good else None


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


_NUMBERS = {"parse_constant": _refuse, "parse_float": _finite, "parse_int": _whole}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a member stands twice")
    return value
