"""The asynchronous validation of a batch's input file: every line is read before any is run.

One bad line fails the batch, and all bad lines are reported. The file is read line by line, never
whole. It does not judge what only the execution of a request would refuse.
"""

import dataclasses
import datetime
import functools
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import orjson

from lib import errors, models
from lib.local_api import answering, checks, clock, context, responses, texts
from lib.local_api.annotators import tokens

MEMBERS = ("custom_id", "method", "url", "body")


@dataclasses.dataclass
class Report:
    """What validation found: the errors, and the sums that the queue and the execution need."""

    errors: list[dict] = dataclasses.field(default_factory=list)
    model: str | None = None
    n_lines: int = 0
    n_input_tokens: int = 0
    n_max_output_tokens: int = 0
    order_seed: int = 0


def scan(path: Path, endpoint: str, any_model: bool = False) -> Report:
    """Check all lines of a batch file against an endpoint, and against the models known here."""
    report, seen = Report(), set()
    with path.open("rb") as handle:
        for number, line in numbered_lines(handle):
            if number > context.MAX_LINES:
                report.errors.append(_whole(f"The file has more than {context.MAX_LINES:,} lines."))
                break
            report.n_lines = number
            request, faults = parsed(line, number, endpoint, any_model)
            if request is not None and not faults:
                faults = _batch_faults(request, number, report, seen)
            report.errors += faults
            report.order_seed = zlib.crc32(line or b"", report.order_seed)
    if not report.n_lines:
        report.errors.append(_whole("The file has no requests."))
    return report


def packed(path: Path, endpoint: str, any_model: bool = False) -> tuple[Report, bytes]:
    """The report on a file without its errors, and these as the API shows them, empty if none.

    Packed, because there may be as many errors as lines and they travel between processes.
    """
    report = scan(path, endpoint, any_model)
    errors = _as_list(report.errors) if report.errors else b""
    return dataclasses.replace(report, errors=[]), errors


def error_list(code: str, message: str, param: str | None) -> bytes:
    """The only error of a batch, one that is not about a line."""
    return _as_list([texts.line_error(code, message, param, None)])


def numbered_lines(handle: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """The lines with their numbers from 1; blank lines at the end are none.

    A line longer than the service reads is given as None.
    """
    n_blank, number = 0, 0
    while line := handle.readline(context.MAX_LINE_BYTES + 1):
        is_long = len(line) > context.MAX_LINE_BYTES
        while is_long and not line.endswith(b"\n") and line:
            line = handle.readline(context.MAX_LINE_BYTES)
        if not is_long and not line.strip():
            n_blank += 1
            continue
        for _ in range(n_blank):
            number += 1
            yield number, b""
        n_blank, number = 0, number + 1
        yield number, None if is_long else line


def parsed(
    line: bytes | None, number: int, endpoint: str, any_model: bool = False
) -> tuple[dict | None, list[dict]]:
    """A request and the faults that its line has by itself.

    >>> parsed(b"{", 3, "/v1/chat/completions")[1][0]["code"]
    'invalid_json_line'
    """
    if line is None:
        message = f"This line is longer than {context.MAX_LINE_BYTES:,} bytes."
        return None, [texts.line_error("invalid_request", texts.ours(message), None, number)]
    try:
        request = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None, [texts.line_error("invalid_json_line", texts.NOT_JSON_LINE, None, number)]
    if checks.is_too_deep(line, request):
        message = f"This line has more than {checks.MAX_LEVELS} levels of nesting."
        return None, [texts.line_error("invalid_request", texts.ours(message), None, number)]
    if not isinstance(request, dict):
        message = f"This line must be a JSON object, but it is {texts.json_type(request)}."
        return None, [texts.line_error("invalid_request", texts.ours(message), None, number)]
    absent = [name for name in MEMBERS if request.get(name) is None]
    if absent:
        return request, [_missing(name, name, number) for name in absent]
    return request, list(_line_faults(request, number, endpoint, any_model))


def _line_faults(request: dict, number: int, endpoint: str, any_model: bool) -> Iterator[dict]:
    """The faults of a line that has all its members."""
    expected = {"custom_id": (str, "a string"), "body": (dict, "an object")}
    wrong = [name for name, (kind, _) in expected.items() if not isinstance(request[name], kind)]
    for name in wrong:
        message = str(texts.wrong_type(name, expected[name][1], request[name]))
        yield texts.line_error("invalid_type", texts.ours(message), name, number)
    if request["method"] != "POST":
        message = texts.ours(f"Invalid method: {request['method']!r}. Only 'POST' is supported.")
        yield texts.line_error("invalid_method", message, "method", number)
    if request["url"] != endpoint:
        yield texts.line_error("invalid_url", texts.WRONG_URL, "url", number)
    if "body" not in wrong:
        yield from _body_faults(request["body"], number, endpoint, any_model)


def _body_faults(body: dict, number: int, endpoint: str, any_model: bool) -> Iterator[dict]:
    """The faults of a body that validation looks at."""
    is_chat = endpoint == answering.CHAT
    for name in ("model", "messages" if is_chat else "input"):
        if body.get(name) is None:
            yield _missing(name, f"body.{name}", number)
    model = body.get("model")
    if model is not None and not (
        isinstance(model, str) and (any_model or _is_batchable(model, clock.today()))
    ):
        message = texts.NOT_BATCHABLE.format(model)
        yield texts.line_error("model_not_found", message, "body.model", number)
    if body.get("stream"):
        message = texts.STREAMING if is_chat else texts.ours(texts.NO_STREAM)
        yield texts.line_error("streaming_unsupported", message, "body.stream", number)


def _batch_faults(request: dict, number: int, report: Report, seen: set[bytes]) -> list[dict]:
    """The faults of a line beside the others; adds the line to the report's sums."""
    faults = []
    custom_id, body = request["custom_id"], request["body"]
    digest = hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
    if digest in seen:
        message = texts.DUPLICATE.format(custom_id)
        faults.append(texts.line_error("duplicate_custom_id", message, "custom_id", number))
    seen.add(digest)
    model = body["model"]
    report.model = report.model or model
    if model != report.model:
        message = texts.OTHER_MODEL.format(model)
        faults.append(texts.line_error("mismatched_model", message, "body.model", number))
    if not report.errors and not faults:
        chat = _as_chat(request)
        report.n_input_tokens += tokens.n_input_tokens(chat, tokens.encoding_of(model))
        report.n_max_output_tokens += tokens.max_output_tokens(chat)
    return faults


def _as_chat(request: dict) -> dict:
    """The chat request to count; empty for one that will be refused when it is executed."""
    if request["url"] == answering.CHAT:
        return request["body"]
    try:
        return responses.as_chat(request["body"])
    except errors.ServiceError:
        return {}


@functools.lru_cache(maxsize=64)
def _is_batchable(name: str, today: datetime.date) -> bool:
    """Whether the Batch API takes a model today."""
    try:
        model = models.facts(name)
    except errors.ModelError:
        return False
    return model.batchable and not models.is_retired(model, today)


def _missing(name: str, param: str, number: int) -> dict:
    """The fault of a member that is not there."""
    message = texts.MISSING.format(name)
    return texts.line_error("missing_required_parameter", message, param, number)


def _as_list(found: list[dict]) -> bytes:
    """The member `errors` of a failed batch."""
    return orjson.dumps({"object": "list", "data": found})


def _whole(message: str) -> dict:
    """A fault of the file as a whole, for which the real code and text are not known."""
    return texts.line_error("invalid_request", texts.ours(message), None, None)
