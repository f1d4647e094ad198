"""A multipart form, read as it arrives: small fields into memory, the file straight to disk.

It decides where a form is broken or too large. What the fields mean is decided in `files`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart import multipart
from python_multipart.exceptions import FormParserError
from starlette.requests import Request

from lib.local_api import context, texts

MAX_FIELD_BYTES = 65_536
MAX_FIELDS = 32


@dataclass
class Form:
    """What has been read of a form so far."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    n_bytes: int = 0
    ended: bool = False
    header: bytes = b""
    value: bytes = b""
    disposition: bytes = b""
    name: str = ""
    in_file: bool = False
    data: bytearray = field(default_factory=bytearray)


async def received(request: Request, path: Path) -> Form:
    """Read a form, writing the part called `file` to a path.

    Raises ServiceError (status 400) when the form is broken, a field too long, or the file larger
    than the API takes for any purpose.
    """
    kind, options = multipart.parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise _broken("The body must be multipart/form-data with a boundary.")
    form = Form()
    try:
        with path.open("wb") as sink:
            parser = multipart.MultipartParser(options[b"boundary"], _callbacks(form, sink))
            async for chunk in request.stream():
                parser.write(chunk)
    except FormParserError as error:
        raise _broken("The multipart form could not be parsed.") from error
    if not form.ended:
        raise _broken("The multipart form ends before its closing boundary.")
    return form


def _callbacks(form: Form, sink: BinaryIO) -> dict:
    """The parser's callbacks, which fill a form and the file."""

    def part_begin() -> None:
        form.disposition, form.header, form.value, form.data = b"", b"", b"", bytearray()

    def header_field(data: bytes, start: int, end: int) -> None:
        form.header += data[start:end]

    def header_value(data: bytes, start: int, end: int) -> None:
        form.value += data[start:end]

    def header_end() -> None:
        if form.header.lower() == b"content-disposition":
            form.disposition = form.value
        form.header, form.value = b"", b""

    def part_data(data: bytes, start: int, end: int) -> None:
        if form.in_file:
            _add_to_file(form, sink, data[start:end])
        else:
            _add_to_field(form, data[start:end])

    def part_end() -> None:
        if not form.in_file:
            form.fields[form.name] = form.data.decode("utf-8", "replace")

    def end() -> None:
        form.ended = True

    return {
        "on_part_begin": part_begin,
        "on_header_field": header_field,
        "on_header_value": header_value,
        "on_header_end": header_end,
        "on_headers_finished": lambda: _start_part(form),
        "on_part_data": part_data,
        "on_part_end": part_end,
        "on_end": end,
    }


def _start_part(form: Form) -> None:
    """Read the name of a part, and whether it is the file."""
    _, options = multipart.parse_options_header(form.disposition)
    if b"name" not in options:
        raise _broken("A part of the multipart form has no name.")
    form.name = options[b"name"].decode("utf-8", "replace")
    form.in_file = form.name == "file" and b"filename" in options
    if form.in_file and form.filename is not None:
        raise _broken("The multipart form has more than one file.")
    if form.in_file:
        form.filename = options[b"filename"].decode("utf-8", "replace")
    elif len(form.fields) >= MAX_FIELDS:
        raise _broken(f"The multipart form has more than {MAX_FIELDS} fields.")


def _add_to_file(form: Form, sink: BinaryIO, data: bytes) -> None:
    """Write a piece of the file; stop when it passes the limit for any purpose."""
    form.n_bytes += len(data)
    if form.n_bytes > context.MAX_FILE_BYTES:
        raise texts.refusal(400, texts.TOO_LARGE)
    sink.write(data)


def _add_to_field(form: Form, data: bytes) -> None:
    """Keep a piece of a small field."""
    if len(form.data) + len(data) > MAX_FIELD_BYTES:
        raise _broken(f"A field of the multipart form is longer than {MAX_FIELD_BYTES:,} bytes.")
    form.data += data


def _broken(sentence: str) -> Exception:
    """The refusal of a form that cannot be read."""
    return texts.refusal(400, texts.ours(sentence))
