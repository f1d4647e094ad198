"""Services that speak the Batch API differently: a proxy for each before the local one, over HTTP.

A dialect is data: what it does with a request on its way in, and with an answer on its way out.
What it refuses itself, it refuses as the service does. Lines are run and counted by the local one.
"""

import contextlib
import http.client
import http.server
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass, field

FULL = "The number of enqueued tokens has surpassed the configured limit of 30K for the deployment"
AFTERWARDS = "Please either increase the limit or try again once the current jobs have finished."


@dataclass
class Call:
    """A request on its way in; a dialect may change it."""

    method: str
    path: str
    query: dict
    headers: dict
    body: bytes

    @property
    def what(self):
        """Which call it is, such as `POST /batches`; ids are left out."""
        return f"{self.method} {re.sub('(file|batch)[-_][^/]+', 'ID', self.path)}"

    def json(self):
        """The members of the body."""
        return json.loads(self.body)


@dataclass
class Dialect:
    """How a service differs, what it does once for a test, and what it has seen."""

    prefix: str = "/v1"
    inward: object = lambda call, state: None
    outward: object = lambda call, answer, state: answer
    once: dict = field(default_factory=dict)  # `POST /batches`: an answer, "lose", or a function
    lines: object = lambda raw: raw
    calls: list = field(default_factory=list)
    made_up: dict = field(default_factory=dict)  # batches that exist here alone


def failed(code, message, **more):
    """Makes an answer to create: a batch that fails at the next look, having run nothing."""

    def create(call, state):
        batch_id = f"batch_{'f' * 31}{len(state.made_up)}"
        shown = {
            "id": batch_id,
            "object": "batch",
            "endpoint": None,
            "created_at": 1_760_000_000,
            "input_file_id": call.json()["input_file_id"],
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": call.json().get("metadata"),
            "completion_window": "24h",
        }
        errors = {"object": "list", "data": [{"code": code, "message": message, **more}]}
        state.made_up[batch_id] = {**shown, "status": "failed", "errors": errors}
        return 200, {**shown, "status": "validating", "errors": None}

    return create


def with_fault(fault):
    """Makes create give the local service a fault for this batch, such as lines that fail."""

    def create(call, _):
        body = call.json()
        body["metadata"] = {**(body.get("metadata") or {}), "votebook_fault": fault}
        call.body = json.dumps(body).encode()

    return create


def azure():
    """A key in a header of its own, no metadata, empty file ids, capitals, deployments by name."""

    def inward(call, _):
        if call.headers.pop("authorization", None) or "api-key" not in call.headers:
            return 401, {"error": {"code": "401", "message": "Access denied: missing api-key."}}
        call.headers["authorization"] = f"Bearer {call.headers.pop('api-key')}"
        if call.what == "POST /files":
            assert b'"model":"luna-batch"' in call.body
            call.body = call.body.replace(b'"model":"luna-batch"', b'"model":"gpt-6-luna"')
        if call.path.endswith("/file-none/content"):
            return 200, b""
        return None

    def outward(call, answer, _):
        if isinstance(answer, dict) and answer.get("object") == "file":
            status = "pending" if call.method == "POST" else "processed"
            return {**answer, "status": status}
        return each_batch(shown, answer)

    def shown(batch):
        none = "file-none" if batch["status"] == "completed" else ""
        return {
            **batch,
            "status": batch["status"].capitalize(),
            "metadata": None,
            "endpoint": None,
            "output_file_id": batch.get("output_file_id") or "",
            "error_file_id": batch.get("error_file_id") or none,
        }

    return Dialect("/openai/v1", inward, outward)


def groq():
    """A list is one page, whatever is asked, and says nothing about further ones."""

    def outward(_, answer, __):
        if isinstance(answer, dict) and answer.get("object") == "list":
            return {"object": "list", "data": answer["data"]}
        return answer

    def inward(call, _):
        call.query.pop("after", None)

    return Dialect("/openai/v1", inward, outward)


def doubleword():
    """Members without a value are left out, and a batch whose every line failed is failed."""

    def shown(batch):
        counts = batch["request_counts"]
        lost = batch["status"] == "completed" and counts["failed"] == counts["total"]
        status = "failed" if lost else batch["status"]
        labels = {**(batch.get("metadata") or {}), "created_by_email": "me@example.org"}
        batch = {**batch, "status": status, "metadata": labels}
        return {name: value for name, value in batch.items() if value is not None}

    return Dialect("/v1", outward=lambda _, answer, __: each_batch(shown, answer))


def vllm():
    """Lists go on from an offset; failed lines stand in the one output file, with `error` alone."""

    def inward(call, state):
        after = call.query.pop("after", None)
        if after is not None and not after.isdigit():
            what = "invalid after parameter: must be an integer"
            return 400, {"error": {"message": what, "type": None, "code": 400}}
        if after and int(after):
            call.query["after"] = state.order[call.path][int(after) - 1]
        if call.path.endswith("/cancel"):
            return 400, {"error": {"message": "Batch with status completed cannot be cancelled"}}
        return None

    def outward(call, answer, state):
        if isinstance(answer, dict) and answer.get("object") == "list":
            known = [] if "after" not in call.query else state.order[call.path]
            state.order[call.path] = [*known, *(one["id"] for one in answer["data"])]
        return each_batch(shown, answer)

    def shown(batch):
        both = batch.get("output_file_id"), batch.get("error_file_id")
        return {**batch, "output_file_id": both[0] or both[1], "error_file_id": None}

    def line(raw):
        read = json.loads(raw)
        response = read["response"] or {"status_code": 400}
        if response["status_code"] == 200:
            return raw
        fault = read["error"] or response["body"]["error"]
        return json.dumps({**read, "response": response | {"body": None}, "error": fault}).encode()

    dialect = Dialect("/v1", inward, outward)
    dialect.lines = lambda raw: b"".join(line(one) + b"\n" for one in raw.splitlines())
    dialect.order = {}
    return dialect


def own():
    """A gateway that nobody knows: it gives each answer's body as JSON text."""

    def line(raw):
        read = json.loads(raw)
        read["response"]["body"] = json.dumps(read["response"]["body"])
        return json.dumps(read).encode()

    dialect = Dialect("/v1")
    dialect.lines = lambda raw: b"".join(line(one) + b"\n" for one in raw.splitlines())
    return dialect


def slowly(_, answer, __):
    """An answer in which no batch has ended yet."""
    return each_batch(lambda batch: {**batch, "status": "in_progress"}, answer)


def each_batch(change, answer):
    """The answer with each batch in it changed."""
    if not isinstance(answer, dict):
        return answer
    if answer.get("object") == "list":
        return {**answer, "data": [each_batch(change, one) for one in answer["data"]]}
    return change(answer) if answer.get("object") == "batch" else answer


@contextlib.contextmanager
def speaking(endpoint, dialect):
    """The address of a service that speaks so, without the dialect's path."""
    target = urllib.parse.urlsplit(endpoint["base_url"])

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            parts = urllib.parse.urlsplit(self.path)
            if not parts.path.startswith(f"{dialect.prefix}/"):
                return self.answer(404, {"error": {"code": "404", "message": "Not found"}})
            call = Call(
                self.command,
                parts.path.removeprefix(dialect.prefix),
                dict(urllib.parse.parse_qsl(parts.query)),
                {name.lower(): value for name, value in self.headers.items()},
                self.rfile.read(int(self.headers.get("content-length") or 0)),
            )
            dialect.calls.append(call.what)
            early = dialect.inward(call, dialect) or self.special(call)
            status, raw = early if isinstance(early, tuple) else self.forwarded(call)
            if early == "lose":
                self.close_connection = True
                return None
            return self.answer(status, self.translated(call, status, raw))

        def special(self, call):
            last = call.path.rsplit("/", 1)[-1]
            if call.method == "GET" and last in dialect.made_up:
                return 200, dialect.made_up[last]
            what = dialect.once.pop(call.what, None)
            return what(call, dialect) if callable(what) else what

        def translated(self, call, status, raw):
            if call.path.endswith("/content"):
                return dialect.lines(raw) if status == 200 else raw
            answer = json.loads(raw) if isinstance(raw, bytes) else raw
            return dialect.outward(call, answer, dialect)

        def forwarded(self, call):
            path = f"{target.path}{call.path}"
            path += f"?{urllib.parse.urlencode(call.query)}" if call.query else ""
            headers = {**call.headers, "host": target.netloc, "content-length": len(call.body)}
            headers.pop("accept-encoding", None)
            with contextlib.closing(http.client.HTTPConnection(target.netloc)) as connection:
                connection.request(call.method, path, call.body, headers)
                response = connection.getresponse()
                return response.status, response.read()

        def answer(self, status, body):
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - the names of the base class

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
