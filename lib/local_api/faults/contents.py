"""Downloads that end early, are too short or changed, as they pass by; none is held in memory."""

from collections.abc import Callable

from starlette.types import Message, Send

NAMES = ("content_cut", "content_short", "content_changed")


def through(name: str, n_bytes: int, send: Send) -> tuple[Send, Callable[[], bool]]:
    """A `send` that does to a download what a fault does after so many bytes.

    Beside it, a function that says whether the connection is to be closed without the rest. A file
    that is not longer loses its last byte, or has it changed.
    """
    at, position, is_success = n_bytes, 0, False

    async def sent(message: Message) -> None:
        nonlocal at, position, is_success
        if message["type"] == "http.response.start":
            is_success = message["status"] == 200
            at = min(n_bytes, max(0, _length(message) - 1))
            if is_success and name == "content_short":
                message = {**message, "headers": _shortened(message["headers"], at)}
        elif is_success:
            start, position = position, position + len(message["body"])
            message = {**message, **_changed(name, message, at - start)}
        await send(message)

    return sent, lambda: is_success and name == "content_cut"


def _changed(name: str, message: Message, at: int) -> dict:
    """The body of a message of which the byte at `at` is the first that must not be as it is."""
    body = message["body"]
    if name == "content_changed":
        if 0 <= at < len(body):
            body = body[:at] + (b"*" if body[at : at + 1] == b"#" else b"#") + body[at + 1 :]
        return {"body": body}
    more_body = True if name == "content_cut" else message.get("more_body", False)
    return {"body": body[: max(0, at)], "more_body": more_body}


def _length(message: Message) -> int:
    """The announced length."""
    return next((int(value) for key, value in message["headers"] if key == b"content-length"), 0)


def _shortened(headers: list[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    """Headers that announce another length."""
    kept = [pair for pair in headers if pair[0] != b"content-length"]
    return [*kept, (b"content-length", str(length).encode())]
