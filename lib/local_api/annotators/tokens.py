"""How many tokens a chat request has: what the queue reserves, a window holds, an answer reports.

One arithmetic for all three, so that a batch uses what it reserved. Refuses to judge a request.
"""

import functools
import sys
from collections.abc import Mapping

import orjson
import toktok

from lib import errors, models

MESSAGE_TOKENS, REPLY_TOKENS = 3, 3
UNKNOWN_MODELS_ENCODING = "o200k_base"


def n_input_tokens(body: Mapping, encoding: str) -> int:
    """Tokens of the messages with the overhead of each, and of the JSON schema.

    Members of a wrong type count as nothing, since validation of a batch does not look at them.

    >>> n_input_tokens({"messages": [{"role": "user", "content": "hello world"}]}, "o200k_base")
    9
    """
    messages = body.get("messages")
    listed = messages if isinstance(messages, list) else []
    told = sum(_message_tokens(one, encoding) for one in listed if isinstance(one, dict))
    schema = schema_of(body)
    return told + REPLY_TOKENS + (_kept(schema.decode(), encoding) if schema else 0)


def max_output_tokens(body: Mapping) -> int:
    """The request's own limit of its completion; 0 when it gives none."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return max(0, value)
    return 0


def text_of(message: Mapping) -> str:
    """The text of a message, whose content may be a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def schema_of(body: Mapping) -> bytes:
    """The JSON schema of the response format as compact JSON; empty when there is none."""
    wanted = body.get("response_format")
    holder = wanted.get("json_schema") if isinstance(wanted, dict) else None
    schema = holder.get("schema") if isinstance(holder, dict) else None
    return orjson.dumps(schema) if isinstance(schema, dict) else b""


@functools.lru_cache(maxsize=64)
def encoding_of(model: str) -> str:
    """The encoding by which a model's tokens are counted; a model not known here has a common one.

    >>> encoding_of("llama3.2")
    'o200k_base'
    """
    try:
        return models.facts(model).encoding
    except errors.ModelError:
        return UNKNOWN_MODELS_ENCODING


def n_tokens(text: str, encoding: str) -> int:
    """Tokens of a text; `truncate` counts one text without the price of a batch.

    >>> n_tokens("hello world", "o200k_base")
    2
    """
    return toktok.truncate(text, sys.maxsize, encoding)[1]


_kept = functools.lru_cache(maxsize=64)(n_tokens)


def _message_tokens(message: Mapping, encoding: str) -> int:
    """Tokens of one message; instructions repeat from request to request, so theirs are kept."""
    role, text = str(message.get("role", "")), text_of(message)
    count = n_tokens if role == "user" else _kept
    return MESSAGE_TOKENS + _kept(role, encoding) + count(text, encoding)
