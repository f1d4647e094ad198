"""Reading what a request asks for, and the forms in which answers leave.

Small rules that files and batches share: pages, expiries, JSON bodies.
"""

import re

import orjson
from starlette.requests import Request
from starlette.responses import Response

from lib.local_api import checks, texts

MIN_SECONDS, MAX_SECONDS = 3_600, 2_592_000


def pretty(body: dict) -> Response:
    """An answer in indented JSON, as create, retrieve and list give it."""
    content = orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return Response(content, media_type="application/json")


def compact(body: dict, status: int = 200) -> Response:
    """An answer in JSON on one line, as cancel gives it."""
    return Response(orjson.dumps(body), status, media_type="application/json")


def page(objects: list[dict], limit: int) -> dict:
    """A page of a list, made from up to one object more than the page holds.

    >>> page([{"id": "b"}, {"id": "a"}], 1)
    {'object': 'list', 'data': [{'id': 'b'}], 'first_id': 'b', 'last_id': 'b', 'has_more': True}
    """
    shown = objects[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(objects) > limit,
    }


def limit(request: Request, default: int, highest: int) -> int:
    """The parameter `limit`, from 1 to the highest value that the route allows."""
    value = request.query_params.get("limit")
    if value is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,9}", value):
        message = texts.WRONG_TYPE.format("limit", "an integer", "a string")
        raise texts.refusal(400, texts.ours(message), "limit", "invalid_type")
    number = int(value)
    if number < 1:
        message = f"Invalid 'limit': expected a value >= 1, but got {number} instead."
        raise texts.refusal(400, texts.ours(message), "limit", "integer_below_min_value")
    if number > highest:
        message = f"Invalid 'limit': expected a value <= {highest}, but got {number} instead."
        raise texts.refusal(400, texts.ours(message), "limit", "integer_above_max_value")
    return number


async def json_object(request: Request, max_bytes: int) -> dict:
    """The body of a request, a JSON object of limited size."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            message = f"The body of the request is larger than {max_bytes:,} bytes."
            raise texts.refusal(413, texts.ours(message))
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = texts.ours("We could not parse the JSON body of your request.")
        raise texts.refusal(400, message) from error
    if checks.is_too_deep(body, value):
        message = f"The body of the request has more than {checks.MAX_LEVELS} levels of nesting."
        raise texts.refusal(400, texts.ours(message))
    if not isinstance(value, dict):
        message = f"The body must be a JSON object, but it is {texts.json_type(value)}."
        raise texts.refusal(400, texts.ours(message))
    return value


def check_anchor(name: str, anchor: object) -> None:
    """Refuse an anchor of an expiry other than `created_at`, the only one."""
    if anchor != "created_at":
        message = f"Invalid value: '{anchor}'. Supported values are: 'created_at'."
        raise texts.wrong_value(f"{name}.anchor", texts.ours(message))


def checked_seconds(name: str, seconds: int) -> int:
    """The seconds of an expiry, from an hour to 30 days."""
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        message = f"'{name}.seconds' must be from {MIN_SECONDS} to {MAX_SECONDS}, not {seconds}."
        raise texts.wrong_value(f"{name}.seconds", texts.ours(message))
    return seconds
