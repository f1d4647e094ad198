"""Requests of the Responses API, answered as chat requests: the way there and the way back.

Text alone is read: instructions, and input that is a string or a list of messages. Tools, files and
earlier responses are left alone.
"""

import random
from collections.abc import Iterator, Mapping

from lib import errors
from lib.local_api import annotators, texts

CHAT_NAMES = {"max_output_tokens": "max_completion_tokens"}
SAME_NAMES = ("model", "temperature", "top_p", "top_logprobs", "max_tokens")
OWN_NAMES = {
    "response_format.json_schema.name": "text.format.name",
    "response_format.json_schema.schema": "text.format.schema",
    "response_format.json_schema": "text.format",
    "response_format.type": "text.format.type",
    "response_format": "text.format",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "messages": "input",
}
# Members of an answer that repeat parameters which are not read here, as recorded without them.
NOT_READ = {
    "background": False,
    "billing": {"payer": "developer"},
    "error": None,
    "frequency_penalty": 0.0,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "truncation": "disabled",
    "user": None,
}


def as_chat(body: Mapping) -> dict:
    """The chat request that asks for the same; raises ServiceError where the body cannot be read.

    >>> as_chat({"model": "m", "input": "Soup?", "max_output_tokens": 5})["max_completion_tokens"]
    5
    """
    chat = {name: body[name] for name in SAME_NAMES if name in body}
    chat |= {name: body[own] for own, name in CHAT_NAMES.items() if own in body}
    chat["messages"] = _messages(body)
    effort = _member(body, "reasoning").get("effort")
    text = _member(body, "text")
    chat |= {"reasoning_effort": effort} if effort is not None else {}
    chat |= {"verbosity": text["verbosity"]} if "verbosity" in text else {}
    chat |= {"response_format": _format(text["format"])} if text.get("format") else {}
    return chat


def in_own_words(refusal: errors.ServiceError) -> errors.ServiceError:
    """The refusal of a chat request with the names that the Responses API has for its members."""
    message, param = str(refusal), refusal.param
    for chat_name, own_name in OWN_NAMES.items():
        message = message.replace(f"'{chat_name}'", f"'{own_name}'")
        if param and param.startswith(chat_name):
            param = own_name + param.removeprefix(chat_name)
    return texts.refusal(refusal.status, message, param, refusal.code, refusal.kind)


def as_object(
    body: Mapping, completion: annotators.Completion, created_at: int, ids: random.Random
) -> dict:
    """A completion in the form of the Responses API."""
    is_cut = completion.finish_reason == "length"
    return {
        "id": f"resp_{ids.getrandbits(200):050x}",
        "object": "response",
        "created_at": created_at,
        "completed_at": None if is_cut else created_at,
        "status": "incomplete" if is_cut else "completed",
        **NOT_READ,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": body["model"],
        "output": list(_output(completion, ids)),
        "reasoning": {"effort": None, "summary": None, **_member(body, "reasoning")},
        "system_fingerprint": completion.fingerprint,
        "temperature": body.get("temperature", 1.0),
        "text": {"format": {"type": "text"}, "verbosity": "medium", **_member(body, "text")},
        "top_p": body.get("top_p", 1.0),
        "usage": {
            "input_tokens": completion.n_input_tokens,
            "input_tokens_details": {
                "cached_tokens": completion.n_cached_tokens,
                "cache_write_tokens": 0,
            },
            "output_tokens": completion.n_output_tokens,
            "output_tokens_details": {"reasoning_tokens": completion.n_reasoning_tokens},
            "total_tokens": completion.n_input_tokens + completion.n_output_tokens,
        },
        "metadata": body.get("metadata") or {},
    }


def _output(completion: annotators.Completion, ids: random.Random) -> Iterator[dict]:
    """The items of a response: its reasoning, then its message if there is one."""
    if completion.n_reasoning_tokens:
        yield {"id": f"rs_{ids.getrandbits(200):050x}", "type": "reasoning", "summary": []}
    if completion.refusal is not None:
        content = {"type": "refusal", "refusal": completion.refusal}
    elif completion.content:
        content = {
            "type": "output_text",
            "annotations": [],
            "logprobs": [],
            "text": completion.content,
        }
    else:
        return
    yield {
        "id": f"msg_{ids.getrandbits(200):050x}",
        "type": "message",
        "status": "incomplete" if completion.finish_reason == "length" else "completed",
        "content": [content],
        "role": "assistant",
    }


def _messages(body: Mapping) -> object:
    """The messages of instructions and input; a list of another kind is left to the checks."""
    given = body.get("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise texts.wrong_type("input", "one of a string or array of objects", given)
    instructions = body.get("instructions")
    told = [{"role": "system", "content": instructions}] if instructions is not None else []
    return [*told, *given]


def _member(body: Mapping, name: str) -> dict:
    """A member that is an object; empty when it is absent."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise texts.wrong_type(name, "an object", value)
    return value


def _format(given: object) -> object:
    """The response format of a chat request for `text.format`."""
    if not isinstance(given, dict) or given.get("type") != "json_schema":
        return given
    return {"type": "json_schema", "json_schema": {k: v for k, v in given.items() if k != "type"}}
