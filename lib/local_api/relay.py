"""Requests handed on to an upstream: a line of a batch there, its record back.

The upstream's answer is kept as it came. The service adds one member, `upstream`, which says who
answered and whether the usage is the upstream's own or was counted here because it gave none.
"""

import logging
import random
from collections.abc import Mapping

import orjson

from lib import errors, models
from lib.local_api import (
    annotators,
    answering,
    checks,
    context,
    responses,
    texts,
    upstream,
    workers,
)
from lib.local_api.annotators import tokens

N_AHEAD_EACH = 4
REPORTED, COUNTED = "reported", "counted by the local service"
log = logging.getLogger("votebook.local_api")


async def answer_line(
    service: context.Service, line: bytes, endpoint: str, created_at: int
) -> answering.Chunk:
    """Have one line of a batch file answered, however long that takes; cancel it to stop."""
    request = orjson.loads(line)
    ids = random.Random()  # noqa: S311 - names, not secrets
    try:
        status, body = await _answered(service, request["body"], endpoint, len(line))
        usage = tokens_used(body) if status == 200 else {}
        if status == 200 and endpoint == answering.RESPONSES:
            body = _as_response(request["body"], body, created_at, ids)
    except errors.ServiceError as refusal:
        status, body, usage = refusal.status, texts.error_object(refusal), {}
    except Exception:
        log.exception("A request could not be handed on; it is given a 500.")
        fault = texts.refusal(500, texts.SERVER_ERROR, kind="server_error")
        status, body, usage = 500, texts.error_object(fault), {}
    record = answering.record(request["custom_id"], status, body, ids)
    counts = {name: usage.get(name, 0) for name in answering.TOKENS}
    return answering.Chunk(record, int(status == 200), int(status != 200), **counts)


async def pass_on(service: context.Service, body: Mapping) -> upstream.Reply:
    """The upstream's answer to a single chat request, asked once: its caller may ask again."""
    reply = await upstream.ask(service.upstream, body)
    return reply._replace(body=await _marked(service, body, reply.body)) if _is_ok(reply) else reply


def tokens_used(completion: Mapping) -> dict[str, int]:
    """The tokens of a chat completion by the names of a batch's sums; what is missing is 0.

    >>> tokens_used({"usage": {"prompt_tokens": 9, "completion_tokens": 2}})["n_input_tokens"]
    9
    """
    usage = _part(completion, "usage")
    given = {
        "n_input_tokens": usage.get("prompt_tokens"),
        "n_cached_tokens": _part(usage, "prompt_tokens_details").get("cached_tokens"),
        "n_output_tokens": usage.get("completion_tokens"),
        "n_reasoning_tokens": _part(usage, "completion_tokens_details").get("reasoning_tokens"),
    }
    return {name: n if isinstance(n, int) and n > 0 else 0 for name, n in given.items()}


def counted(chat: Mapping, completion: Mapping) -> dict:
    """The usage of a completion that came without one; runs in a worker."""
    encoding = tokens.encoding_of(chat["model"])
    said = [tokens.text_of(_part(choice, "message")) for choice in completion["choices"]]
    n_input = tokens.n_input_tokens(chat, encoding)
    n_output = sum(tokens.n_tokens(text, encoding) for text in said)
    return {
        "prompt_tokens": n_input,
        "completion_tokens": n_output,
        "total_tokens": n_input + n_output,
    }


async def _answered(
    service: context.Service, asked: dict, endpoint: str, n_bytes: int
) -> tuple[int, dict]:
    """The status and body of the upstream's last word on a request."""
    is_chat = endpoint == answering.CHAT
    chat = asked if is_chat else responses.as_chat(asked)
    refusal = _refusal(chat, n_bytes)
    if refusal:
        raise refusal if is_chat else responses.in_own_words(refusal)
    reply = await upstream.answer(service.upstream, chat)
    body = await _marked(service, chat, reply.body) if _is_ok(reply) else reply.body
    return reply.status, body


def _refusal(chat: Mapping, n_bytes: int) -> errors.ServiceError | None:
    """Why a known model's rules refuse a request; an unknown model's rules are the upstream's."""
    try:
        model = models.facts(chat["model"])
    except errors.ModelError:
        return None
    return checks.problem(chat, n_bytes, model)


async def _marked(service: context.Service, chat: Mapping, completion: dict) -> dict:
    """A completion with its usage, and with who answered."""
    base_url = service.upstream.settings.base_url
    usage = _part(completion, "usage")
    if isinstance(usage.get("prompt_tokens"), int):
        return {**completion, "upstream": {"base_url": base_url, "usage": REPORTED}}
    usage = await workers.run(service, counted, chat, completion)
    return {**completion, "usage": usage, "upstream": {"base_url": base_url, "usage": COUNTED}}


def _as_response(asked: dict, completion: dict, created_at: int, ids: random.Random) -> dict:
    """A chat completion in the form of the Responses API."""
    choice = completion["choices"][0]
    told = annotators.Completion(
        content=tokens.text_of(choice["message"]),
        refusal=choice["message"].get("refusal"),
        finish_reason=choice.get("finish_reason") or "stop",
        fingerprint=completion.get("system_fingerprint"),
        **tokens_used(completion),
    )
    asked = {**asked, "model": completion.get("model") or asked["model"]}
    response = responses.as_object(asked, told, created_at, ids)
    return {**response, "upstream": completion["upstream"]}


def _part(value: object, name: str) -> Mapping:
    """A member that is an object; empty when it is absent or something else."""
    part = value.get(name) if isinstance(value, dict) else None
    return part if isinstance(part, dict) else {}


def _is_ok(reply: upstream.Reply) -> bool:
    return reply.status == 200
