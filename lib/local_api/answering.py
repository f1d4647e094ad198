"""One request in, one answer out, and lines in bulk: work that needs a processor, not the network.

These functions run in a worker. A request is refused, answered or, if answering itself fails,
given the API's 500; no request can stop the others of its batch.
"""

import logging
import random
import string
import uuid
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from lib import errors, models
from lib.local_api import annotators, checks, responses, texts

ALPHANUMERIC = string.ascii_letters + string.digits
COMPLETED, FAILED = b"+", b"-"
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
TOKENS = ("n_input_tokens", "n_cached_tokens", "n_output_tokens", "n_reasoning_tokens")
log = logging.getLogger("votebook.local_api")


@dataclass(frozen=True)
class Chunk:
    """The answers to consecutive lines: their records, and what they add to the batch's sums."""

    records: bytes
    n_completed: int
    n_failed: int
    n_input_tokens: int
    n_cached_tokens: int
    n_output_tokens: int
    n_reasoning_tokens: int


class Request(NamedTuple):
    """One request: for which endpoint, its body, its custom_id and its size."""

    endpoint: str
    body: dict
    custom_id: str
    n_bytes: int


class Answer(NamedTuple):
    """The HTTP status and body for one request, and the completion if there is one."""

    status: int
    body: dict
    completion: annotators.Completion | None = None


def answer_lines(lines: bytes, endpoint: str, created_at: int) -> Chunk:
    """Answer the lines of a batch file that has passed validation.

    A record is `+` or `-`, for the output or the error file, and the line of that file without its
    opening brace and its id, which is minted when the file is written.
    """
    ids = random.Random()  # noqa: S311 - names, not secrets
    records, made = [], []
    for line in lines.split(b"\n"):
        if not line.strip():
            continue
        request = orjson.loads(line)
        custom_id, n_bytes = request["custom_id"], len(line)
        answered = _answer(Request(endpoint, request["body"], custom_id, n_bytes), created_at, ids)
        records.append(record(custom_id, answered.status, answered.body, ids))
        made += [answered.completion] if answered.completion else []
    return Chunk(
        records=b"".join(records),
        n_completed=len(made),
        n_failed=len(records) - len(made),
        **{name: sum(getattr(one, name) for one in made) for name in TOKENS},
    )


def answer_single(body: dict, created_at: int) -> tuple[int, dict]:
    """The HTTP status and body that answer a chat request outside of batches."""
    ids = random.Random()  # noqa: S311 - names, not secrets
    answered = _answer(Request(CHAT, body, "", len(orjson.dumps(body))), created_at, ids)
    return answered.status, answered.body


def record(custom_id: str, status: int, body: dict, ids: random.Random) -> bytes:
    """The record of an answered or refused line."""
    response = {"status_code": status, "request_id": _uuid(ids), "body": body}
    line = {"custom_id": custom_id, "response": response, "error": None}
    return (COMPLETED if status == 200 else FAILED) + orjson.dumps(line)[1:] + b"\n"


def unanswered(custom_id: str, code: str, message: str) -> bytes:
    """The record of a request that was not run."""
    line = {"custom_id": custom_id, "response": None, "error": {"code": code, "message": message}}
    return FAILED + orjson.dumps(line)[1:] + b"\n"


def _answer(request: Request, created_at: int, ids: random.Random) -> Answer:
    """Refuse a request or answer it; a fault in doing so is the API's 500."""
    try:
        return _refused_or_completed(request, created_at, ids)
    except errors.ServiceError as refusal:
        return Answer(refusal.status, texts.error_object(refusal))
    except Exception:
        log.exception("A request could not be answered; it is given a 500.")
        fault = texts.refusal(500, texts.SERVER_ERROR, kind="server_error")
        return Answer(500, texts.error_object(fault))


def _refused_or_completed(request: Request, created_at: int, ids: random.Random) -> Answer:
    """The answer to a request by the rules of its endpoint."""
    is_chat = request.endpoint == CHAT
    chat = request.body if is_chat else responses.as_chat(request.body)
    model = models.facts(request.body["model"])
    refusal = checks.problem(chat, request.n_bytes, model)
    if refusal:
        raise refusal if is_chat else responses.in_own_words(refusal)
    completion = annotators.complete(chat, request.custom_id, model)
    if is_chat:
        body = _chat_completion(request.body["model"], completion, created_at, ids)
    else:
        body = responses.as_object(request.body, completion, created_at, ids)
    return Answer(200, body, completion)


def _chat_completion(
    model: str, completion: annotators.Completion, created_at: int, ids: random.Random
) -> dict:
    """A completion in the form of the Chat Completions API."""
    message = {
        "role": "assistant",
        "content": completion.content,
        "refusal": completion.refusal,
        "annotations": [],
    }
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": completion.finish_reason,
    }
    return {
        "id": "chatcmpl-" + "".join(ids.choices(ALPHANUMERIC, k=29)),
        "object": "chat.completion",
        "created": created_at,
        "model": model,
        "choices": [choice],
        "usage": _usage(completion),
        "service_tier": "default",
        "system_fingerprint": completion.fingerprint,
    }


def _usage(completion: annotators.Completion) -> dict:
    """The usage of a completion, with all its details."""
    return {
        "prompt_tokens": completion.n_input_tokens,
        "completion_tokens": completion.n_output_tokens,
        "total_tokens": completion.n_input_tokens + completion.n_output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": completion.n_cached_tokens,
            "audio_tokens": 0,
            "cache_write_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": completion.n_reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _uuid(ids: random.Random) -> str:
    """A random UUID, as `request_id` has been since 2026."""
    return str(uuid.UUID(int=ids.getrandbits(128), version=4))
