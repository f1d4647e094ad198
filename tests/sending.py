"""Small studies on the local Batch API, a proxy that spoils its answers, and its own book.

What was paid is judged by the service's own book alone: the lines of all batches that ran.
"""

import collections
import contextlib
import hashlib
import http.client
import http.server
import json
import threading
import time
import urllib.parse
import urllib.request

import openai
import pandas as pd
import yaml

from lib import dispatch, prompts, runs
from lib.service import Service

TEXTS = [f"The soup of day {n} was warm and the waiter kind." for n in range(6)]
LUNA = {"luna": {"model": "gpt-6-luna", "parameters": {"reasoning_effort": "none"}}}
PROMPT = "Say whether the guest was pleased."
FIELDS = {"pleased": {"description": "Whether the guest was pleased.", "type": "boolean"}}


def make_run(
    folder,
    texts=TEXTS,
    name="",
    prompt=PROMPT,
    fields=FIELDS,
    annotators=LUNA,
    **sending,
):
    """A run of a study in `folder` with what notebooks 01 and 02 write; its canary takes it all.

    `voting` among the further words is the study's, the others are those of `sending`.
    """
    voting = sending.pop("voting", {})
    folder.mkdir(parents=True, exist_ok=True)
    study = {
        "title": "Guests",
        "question": "Were they pleased?",
        "corpus": {"all": {"path": "*.txt"}},
        "fields": fields,
        "panel": "small",
        "panels": {"small": {"annotators": annotators}},
        "voting": voting,
        "sending": {"canary": 6, **sending},
    }
    (folder / "study.yml").write_text(yaml.safe_dump(study), encoding="utf-8")
    (folder / "prompt.md").write_text(prompt, encoding="utf-8")
    run = runs.start(str(folder), name)
    write_documents(run, texts)
    write_requests(run)
    return run


OPENED: list[openai.OpenAI] = []


def close_clients():
    """Close the clients that a test has opened, so that no socket is left to the collector."""
    while OPENED:
        OPENED.pop().close()


def write_documents(run, texts):
    """The documents of a run."""
    rows = [
        {"item": f"all/{n:03}", "text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        for n, text in enumerate(texts)
    ]
    runs.write_table(pd.DataFrame(rows), run.path("documents.parquet"))


def write_requests(run):
    """The requests of a run about all its documents."""
    items = runs.stream(run.path("documents.parquet"))
    runs.write_stream(prompts.requests(run.study, items), run.path("requests.parquet"))


def client_at(endpoint, base_url="", **options):
    """A client of the service, which `close_clients` closes."""
    # To read the system's certificates would take longer than all calls of a test.
    http = openai.DefaultHttpxClient(verify=False)
    url, key = base_url or endpoint["base_url"], endpoint["token"]
    client = openai.OpenAI(base_url=url, api_key=key, http_client=http, **options)
    OPENED.append(client)
    return client


def service_at(endpoint, base_url="", **differs):
    """A service as `lib.service` makes it, but quick, and with simulated money unless told."""
    client = client_at(endpoint, base_url, timeout=60)
    settings = {"free": True, "grace_seconds": 0.4, "poll_seconds": 0.05, **differs}
    return Service(settings.pop("name", "local"), client, **settings)


def finish(run, to, max_usd=0.0):
    """Follow a run to its end; a quarter of an hour only ends what would hang."""
    return dispatch.follow(run, to, max_usd, 1 / 4)


def got(endpoint, path):
    """What the service answers, as bytes."""
    headers = {"Authorization": f"Bearer {endpoint['token']}"}
    request = urllib.request.Request(f"{endpoint['base_url']}/{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def batches_of(endpoint):
    """All batches in the book of the service, by id."""
    found, after = {}, ""
    while True:
        page = json.loads(got(endpoint, f"batches?limit=100{after}"))
        found |= {batch["id"]: batch for batch in page["data"]}
        if not page["has_more"]:
            return found
        after = f"&after={page['data'][-1]['id']}"


def are_past(endpoint, *states):
    """Wait until none of the service's newest batches is in one of these states."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        page = json.loads(got(endpoint, "batches?limit=100"))
        if not any(batch["status"] in states for batch in page["data"]):
            return
        time.sleep(0.02)
    raise AssertionError(f"batches are {' or '.join(states)} for very long")


def have_ended(endpoint):
    """Wait until the service has ended all its batches."""
    are_past(endpoint, "validating", "in_progress", "finalizing", "cancelling")


def paid(endpoint, before=()):
    """How often the service ran each line, by custom_id, over all batches not in `before`."""
    are_past(endpoint, "validating")
    counts = collections.Counter()
    for name, batch in batches_of(endpoint).items():
        if name not in before and batch["request_counts"]["total"]:
            raw = got(endpoint, f"files/{batch['input_file_id']}/content")
            counts.update(json.loads(line)["custom_id"] for line in raw.splitlines())
    return counts


@contextlib.contextmanager
def spoiled(endpoint, rule):
    """The base URL of a proxy before the service.

    `rule(method, path)` says what becomes of a request: None forwards it, "drop" hangs up before
    the service has it, "lose" after, "twice" has it done twice and hangs up; a pair of status and
    body (a dict, or bytes) answers in the service's place; a function changes the service's answer,
    or the bytes of a file's content.
    """
    target = urllib.parse.urlsplit(endpoint["base_url"])

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            what = rule(self.command, self.path)
            if isinstance(what, tuple):
                return self.answer(*what)
            for _ in range({"drop": 0, "twice": 2}.get(what, 1)):
                status, answered = self.forwarded(body)
            if what in ("drop", "lose", "twice"):
                self.close_connection = True
                return None
            if what:
                is_content = self.path.endswith("/content")
                answered = what(answered if is_content else json.loads(answered))
            return self.answer(status, answered)

        def forwarded(self, body):
            with contextlib.closing(http.client.HTTPConnection(target.netloc)) as connection:
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                return response.status, response.read()

        def answer(self, status, body):
            is_bytes = isinstance(body, bytes)
            raw = body if is_bytes else json.dumps(body).encode()
            self.send_response(status)
            kind = "application/json" if not is_bytes or raw[:1] == b"{" else "text/html"
            self.send_header("content-type", kind)
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
        yield f"http://127.0.0.1:{server.server_port}{target.path}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
