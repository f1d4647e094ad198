"""A small OpenAI-compatible service in a thread, to stand behind the local one in its tests.

How it treats a request stands in the request: the user's message is a list of words such as
`wait:0.2`, `429:1` (once, with Retry-After), `500` (once), `refuse`, `oddly`, `hang`, `no-usage`.
"""

import asyncio
import collections
import contextlib
import socket
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

TOO_LONG = {
    "message": "the request exceeds the available context size",
    "type": "exceed_context_size_error",
    "param": None,
    "code": 400,
}


class Upstream:
    """What the service has seen, and how to stop it."""

    def __init__(self):
        self.asked = collections.defaultdict(list)  # message: when it came
        self.models, self.keys = set(), set()
        self.n_now = self.n_most = 0
        self.base_url = None


@contextlib.contextmanager
def answering(port=0):
    """The running service, for as long as the block lasts."""
    seen = Upstream()

    async def create(request):
        seen.n_now += 1
        seen.n_most = max(seen.n_most, seen.n_now)
        try:
            return await _answer(seen, request)
        finally:
            seen.n_now -= 1

    app = Starlette(routes=[Route("/v1/chat/completions", create, methods=["POST"])])
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    seen.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=0)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield seen
    finally:
        server.should_exit = True
        thread.join()


async def _answer(seen, request):
    body = await request.json()
    text = body["messages"][-1]["content"]
    seen.asked[text].append(time.monotonic())
    seen.models.add(body["model"])
    seen.keys.add(request.headers.get("authorization"))
    is_first = len(seen.asked[text]) == 1
    for word in text.split():
        name, _, value = word.partition(":")
        if name == "wait":
            await asyncio.sleep(float(value))
        if name == "hang":
            await asyncio.sleep(60)
        if name == "429" and is_first:
            return JSONResponse({"error": "slow down"}, 429, headers={"retry-after": value})
        if name == "500" and is_first:
            return PlainTextResponse("out of memory", 500)
        if name == "refuse":
            return JSONResponse({"error": TOO_LONG}, 400)
        if name == "oddly":
            return JSONResponse({"error": "model 'tiny' not found"}, 404)
    return JSONResponse(completion(text, body["model"]))


def completion(text, model):
    """An answer as Ollama gives it; it says again what it was asked."""
    message = {"role": "assistant", "content": f"You said: {text}"}
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
    answer = {
        "id": "chatcmpl-7",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "system_fingerprint": "fp_ollama",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    return answer if "no-usage" in text else {**answer, "usage": usage}
