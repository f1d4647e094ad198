"""What the API refuses when a single request is executed: the 400 lines of an error file.

Rules of parameters are those of `models`; here are the messages, the response format and the
context window. Members that the rules do not name are left alone.
"""

import functools
from collections.abc import Iterable, Mapping

import orjson

from lib import errors, models
from lib.local_api import schemas, texts
from lib.local_api.annotators import tokens

ROLES = ("system", "assistant", "user", "function", "tool", "developer")
MAX_LEVELS = 200  # orjson reads 1,024 levels and writes 254, of which an answer adds a few
FORMATS = ("json_object", "json_schema", "text")


def problem(body: Mapping, n_bytes: int, model: models.Model) -> errors.ServiceError | None:
    """The first reason to refuse a chat request of a known model, or None.

    `n_bytes` is the size of the request, which bounds its tokens from above.
    """
    try:
        _check_messages(body.get("messages"))
        # A recording names the window for a limit that is also more than the model may write.
        _check_context(body, n_bytes, model)
        _check_parameters(body, model)
        _check_format(body)
    except errors.ServiceError as refusal:
        return refusal
    return None


def is_too_deep(packed: bytes, value: object) -> bool:
    """Whether a parsed JSON text has more levels than this service can write again.

    >>> is_too_deep(b"[[5]]", [[5]])
    False
    """
    if packed.count(b"[") + packed.count(b"{") <= MAX_LEVELS:
        return False
    n_levels, layer = 0, [value]
    while layer := [
        inner for outer in layer if isinstance(outer, dict | list) for inner in _in(outer)
    ]:
        n_levels += 1
    return n_levels >= MAX_LEVELS


def _in(outer: dict | list) -> Iterable[object]:
    """The values directly within an object or an array."""
    return outer.values() if isinstance(outer, dict) else outer


def _check_messages(messages: object) -> None:
    """Messages are a list of objects, each with a role and a content."""
    if messages is None:
        raise texts.missing("messages")
    if not isinstance(messages, list):
        raise texts.wrong_type("messages", "an array of objects", messages)
    if not messages:
        message = (
            "Invalid 'messages': empty array. Expected an array with minimum length 1,"
            " but got an empty array instead."
        )
        raise texts.refusal(400, message, "messages", "empty_array")
    for n, message in enumerate(messages):
        _check_message(f"messages[{n}]", message)


def _check_message(name: str, message: object) -> None:
    """One message of the list."""
    if not isinstance(message, dict):
        raise texts.wrong_type(name, "an object", message)
    if "role" not in message:
        raise texts.missing(f"{name}.role")
    if message["role"] not in ROLES:
        raise texts.wrong_value(f"{name}.role", texts.supported(message["role"], ROLES))
    content = message.get("content")
    if content is None and message["role"] in ("assistant", "function"):
        return
    if not isinstance(content, str | list):
        raise texts.wrong_type(f"{name}.content", "one of a string or array of objects", content)
    for n, part in enumerate(content if isinstance(content, list) else []):
        if not isinstance(part, dict):
            raise texts.wrong_type(f"{name}.content[{n}]", "an object", part)


def _check_parameters(body: Mapping, model: models.Model) -> None:
    """The rules of the model's family, and what this service cannot give."""
    for fault in models.parameter_problems(model, body):
        raise texts.refusal(400, fault["message"], fault["param"], fault["code"])
    if body.get("n") not in (None, 1):
        message = "The local service gives one choice for each request: leave out 'n'."
        raise texts.wrong_value("n", texts.ours(message))


def _check_format(body: Mapping) -> None:
    """The response format, a strict schema among it."""
    wanted = body.get("response_format")
    if wanted is None:
        return
    if not isinstance(wanted, dict):
        raise texts.wrong_type("response_format", "an object", wanted)
    kind = wanted.get("type")
    if kind is None:
        raise texts.missing("response_format.type")
    if kind not in FORMATS:
        raise texts.wrong_value("response_format.type", texts.supported(kind, FORMATS))
    if kind == "json_object" and not any(
        "json" in tokens.text_of(message).lower() for message in body["messages"]
    ):
        raise texts.refusal(400, texts.NO_WORD_JSON, "messages")
    if kind == "json_schema":
        _check_schema(wanted.get("json_schema"))


def _check_schema(holder: object) -> None:
    """The member `json_schema`: its name, and its schema when it is strict."""
    if holder is None:
        raise texts.missing("response_format.json_schema")
    if not isinstance(holder, dict):
        raise texts.wrong_type("response_format.json_schema", "an object", holder)
    name = holder.get("name")
    if name is None:
        raise texts.missing("response_format.json_schema.name")
    if not isinstance(name, str):
        raise texts.wrong_type("response_format.json_schema.name", "a string", name)
    if not schemas.NAME.fullmatch(name):
        message = (
            "Invalid 'response_format.json_schema.name': string does not match pattern. Expected a"
            " string that matches the pattern '^[a-zA-Z0-9_-]{1,64}$'."
        )
        raise texts.wrong_value("response_format.json_schema.name", message)
    schema = holder.get("schema")
    if schema is not None and not isinstance(schema, dict):
        raise texts.wrong_type("response_format.json_schema.schema", "an object", schema)
    fault = _schema_fault(name, orjson.dumps(schema), bool(holder.get("strict")))
    if fault:
        raise texts.refusal(400, fault, "response_format", "invalid_json_schema")


@functools.lru_cache(maxsize=64)
def _schema_fault(name: str, packed: bytes, strict: bool) -> str | None:
    """The fault of a schema; kept, because all requests of a batch tend to share one."""
    schema = orjson.loads(packed)
    fault = schemas.problem(name, schema) if strict else None
    return fault or (schemas.malformed(name, schema) if schema is not None else None)


def _check_context(body: Mapping, n_bytes: int, model: models.Model) -> None:
    """Input and completion limit fit into the context window, where that is known."""
    n_output = tokens.max_output_tokens(body)
    if models.context_problem(model, n_bytes, n_output) is None:
        return
    n_input = tokens.n_input_tokens(body, model.encoding)
    fault = models.context_problem(model, n_input, n_output)
    if fault:
        raise texts.refusal(400, fault["message"], fault["param"], fault["code"])
