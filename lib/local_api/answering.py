"""One request in, one answer out, and lines in bulk: work that needs a processor, not the network.

These functions run in a worker. A request is refused, answered or, if answering itself fails,
given the API's 500; no request can stop the others of its batch.
"""

import logging
import random
import string
import uuid
from dataclasses import dataclass

import orjson

from lib import models
from lib.local_api import annotators, checks, texts

ALPHANUMERIC = string.ascii_letters + string.digits
COMPLETED, FAILED = b"+", b"-"
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


def answer_lines(lines: bytes, created_at: int) -> Chunk:
    """Answer the lines of a batch file that has passed validation.

    A record is `+` or `-`, for the output or the error file, and the line of that file without its
    opening brace and its id, which is minted when the file is written.
    """
    ids = random.Random()  # noqa: S311 - names, not secrets
    answers = [_answer_line(line, created_at, ids) for line in lines.split(b"\n") if line.strip()]
    usages = [body["usage"] for status, body, _ in answers if status == 200]
    return Chunk(
        records=b"".join(record for _, _, record in answers),
        n_completed=len(usages),
        n_failed=len(answers) - len(usages),
        n_input_tokens=sum(usage["prompt_tokens"] for usage in usages),
        n_cached_tokens=sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages),
        n_output_tokens=sum(usage["completion_tokens"] for usage in usages),
        n_reasoning_tokens=sum(
            usage["completion_tokens_details"]["reasoning_tokens"] for usage in usages
        ),
    )


def answer(
    body: dict, custom_id: str, n_bytes: int, created_at: int, ids: random.Random
) -> tuple[int, dict]:
    """The HTTP status and body that answer a chat request of `n_bytes`."""
    try:
        model = models.facts(body["model"])
        refusal = checks.problem(body, n_bytes, model)
        if refusal:
            return refusal.status, texts.error_object(refusal)
        completion = annotators.complete(body, custom_id, model)
        return 200, _chat_completion(body["model"], completion, created_at, ids)
    except Exception:
        log.exception("A request could not be answered; it is given a 500.")
        return 500, texts.error_object(texts.refusal(500, texts.SERVER_ERROR, kind="server_error"))


def answer_single(body: dict, created_at: int) -> tuple[int, dict]:
    """The HTTP status and body that answer a request outside of batches."""
    ids = random.Random()  # noqa: S311 - names, not secrets
    return answer(body, "", len(orjson.dumps(body)), created_at, ids)


def unanswered(custom_id: str, code: str, message: str) -> bytes:
    """The record of a request that was not run."""
    line = {"custom_id": custom_id, "response": None, "error": {"code": code, "message": message}}
    return FAILED + orjson.dumps(line)[1:] + b"\n"


def _answer_line(line: bytes, created_at: int, ids: random.Random) -> tuple[int, dict, bytes]:
    """The status, the body and the record that answer one line."""
    request = orjson.loads(line)
    custom_id = request["custom_id"]
    status, body = answer(request["body"], custom_id, len(line), created_at, ids)
    response = {"status_code": status, "request_id": _uuid(ids), "body": body}
    answered = {"custom_id": custom_id, "response": response, "error": None}
    flag = COMPLETED if status == 200 else FAILED
    return status, body, flag + orjson.dumps(answered)[1:] + b"\n"


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
        "prompt_tokens_details": {"cached_tokens": completion.n_cached_tokens, "audio_tokens": 0},
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
