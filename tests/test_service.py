"""The client's faults as ServiceError, over HTTP: how often it calls, what it says and hides."""

import contextlib
import http.server
import socket
import subprocess
import sys
import threading
import time
import types

import openai
import pytest
import sending

from lib import clock, service
from lib.errors import ServiceError

KEY = "sk-proj-Canary_0123456789abcdef"


@pytest.fixture
def answering():
    """Makes a service that answers every call so, and the list of calls that it got."""
    stack = []

    def make(*answer):
        calls = []

        def rule(method, path):
            calls.append((method, path))
            return answer[0] if len(answer) == 1 else answer

        spoiled = sending.spoiled({"base_url": "http://127.0.0.1:1/v1"}, rule)
        to = sending.service_at({"base_url": spoiled.__enter__(), "token": KEY})
        stack.append((spoiled, to.client))
        return to, calls

    yield make
    for spoiled, client in stack:
        client.close()
        spoiled.__exit__(None, None, None)


@pytest.fixture
def shard(tmp_path):
    """A file to upload."""
    path = tmp_path / "s.jsonl"
    path.write_text("{}\n")
    return path


@pytest.mark.parametrize(
    ("status", "code", "unclear", "final"),
    [
        (400, "invalid_value", False, True),
        (401, "invalid_api_key", False, True),
        (403, None, False, True),
        (404, None, False, True),
        (408, None, True, False),
        (409, None, True, False),
        (413, None, False, True),
        (422, None, False, True),
        (429, "rate_limit_exceeded", False, False),
        (429, "insufficient_quota", False, True),
        (500, "server_error", True, False),
        (503, None, True, False),
    ],
)
def test_what_a_refusal_means(answering, shard, status, code, unclear, final):
    """Of an upload: whether it may have been done, and whether asking again is of use."""
    to, calls = answering(status, {"error": {"message": "No.", "code": code}})
    with pytest.raises(ServiceError, match=f"local answered {status}: No") as refusal:
        service.upload(to, shard, "s.jsonl")
    found = refusal.value
    assert (found.status, found.code, found.unclear, found.final) == (status, code, unclear, final)
    assert calls == [("POST", "/v1/files")]


@pytest.mark.parametrize("answer", [(500, {}), (429, {}), (409, {}), "drop"])
def test_create_is_called_once(answering, answer):
    """The client's own retries could make three batches of one; they are off for this call."""
    to, calls = answering(*(answer if isinstance(answer, tuple) else [answer]))
    with pytest.raises(ServiceError):
        service.create(to, "file-x", "/v1/chat/completions", {})
    assert calls == [("POST", "/v1/batches")]


@pytest.mark.parametrize(
    "body", [b"<html>hello</html>", b'{"id": "batch_x", "obj', {"object": "batch"}, {"id": ""}, []]
)
@pytest.mark.parametrize("call", ["upload", "create", "retrieve", "batches", "files"])
def test_an_answer_of_another_form_is_unclear(answering, shard, call, body):
    """A success without an id is none: the call may have been done, and no error is let through."""
    to, _ = answering(200, body)
    calls = {
        "upload": lambda: service.upload(to, shard, "s.jsonl"),
        "create": lambda: service.create(to, "file-x", "/v1/chat/completions", {}),
        "retrieve": lambda: service.retrieve(to, "batch_x"),
        "batches": lambda: list(service.batches(to)),
        "files": lambda: list(service.files(to)),
    }
    with pytest.raises(ServiceError, match="a form that the Batch API does not have") as fault:
        calls[call]()
    assert (fault.value.unclear, fault.value.final) == (True, False)


@pytest.fixture
def full_listener():
    """The port of a listener that takes no connection: its backlog is full."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture
def plain_port(answering):
    """The port of a service that speaks HTTP without encryption."""
    return answering(200, {"id": "x"})[0].client.base_url.port


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9/v1", "nobody takes connections at 127.0.0.1:9. Check the address and"),
        ("https://no-such-host.invalid/v1", "no host no-such-host.invalid is known. Check the"),
        ("https://127.0.0.1:{plain_port}/v1", "no encrypted connection to 127.0.0.1:{plain_port}"),
        (
            "http://127.0.0.1:{full_listener}/v1",
            "127.0.0.1:{full_listener} did not take the",
        ),
    ],
)
@pytest.mark.parametrize("call", ["upload", "retrieve"])
def test_a_service_that_cannot_be_reached_had_no_effect(request, shard, url, words, call):
    """No listener, host, encryption or room in the backlog: told soon, and nothing was done."""
    ports = {n: request.getfixturevalue(n) for n in ("plain_port", "full_listener") if n in url}
    to = sending.service_at({"base_url": url.format(**ports), "token": KEY})
    to.client.max_retries, to.client.timeout = 0, openai.Timeout(20, connect=0.5)
    began = time.monotonic()
    with pytest.raises(ServiceError) as fault:
        service.upload(to, shard, "s") if call == "upload" else service.retrieve(to, "batch_x")
    assert f"local cannot be reached: {words.format(**ports)}"[:70] in str(fault.value)
    assert str(fault.value).endswith("Run the same command again.")
    assert (fault.value.unclear, fault.value.final, fault.value.status) == (False, False, 0)
    assert time.monotonic() - began < 10
    to.client.close()


def test_a_connection_that_breaks_is_unclear(answering, shard):
    """The service had the call and hung up: it may have been done."""
    to, _ = answering("drop")
    with pytest.raises(ServiceError, match=r"did not answer .*Run the same command") as fault:
        service.upload(to, shard, "s.jsonl")
    assert (fault.value.unclear, fault.value.code) == (True, "no_answer")


def test_the_times_of_a_client_are_bounded(monkeypatch):
    """A connection within 10 s, an answer within 120 s; an upload has a second a megabyte more."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    to = service.connect("https://gateway.example.org/v1")
    assert to.client.timeout.as_dict() == {"connect": 10, "read": 120, "write": 120, "pool": 120}
    assert service._once(to, 320).timeout.read == 320
    to.client.close()


def test_a_download_that_trickles_ends(answering, tmp_path):
    """What is not whole in time is given up, and leaves no file."""
    to, _ = answering(200, b"x" * 100)
    leaping = clock.Clock(time.time, iter(range(0, 9_000_000, 5_000)).__next__, time.sleep)
    late = pytest.raises(ServiceError, match="is not whole after 3600 s")
    with clock.running(leaping), late:
        service.download(to, "file-x", tmp_path / "x.gz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "said",
    [
        f"Incorrect API key provided: {KEY}. You can find your API key in your account.",
        "Incorrect API key provided: sk-proj-Can****************cdef.",
        f"header 'Bearer {KEY}' is wrong",
    ],
)
def test_the_key_stands_in_no_message(answering, said):
    """Neither the key nor what the service shows of it, in the words, the facts or the service."""
    to, _ = answering(401, {"error": {"message": said, "code": "invalid_api_key"}})
    with pytest.raises(ServiceError, match=r"\[key\]") as refusal:
        service.retrieve(to, "batch_x")
    told = f"{refusal.value} {refusal.value.__dict__} {to!r}"
    assert "Can" not in told.replace("Cannot", "")
    assert "Set OPENAI_API_KEY" in told


EXCHANGE = """
import logging, pathlib, sys
if sys.argv[3]:
    logging.basicConfig(level=logging.DEBUG)
from lib import (service)
to = service.connect(sys.argv[1])
for call in (service.batches, lambda to: [service.upload(to, pathlib.Path(sys.argv[2]), "s")]):
    try:
        list(call(to))
    except service.ServiceError as error:
        print(error)
print(to, [to.client], vars(to.facts))
service.retrieve(to, "batch_x")
"""


@pytest.mark.parametrize("name", ["openai", "azure"])
@pytest.mark.parametrize("log", ["", "debug"])
def test_no_log_and_no_traceback_holds_the_key(answering, shard, name, log):
    """A whole exchange, with every logger of the client and its transport at debug, that ends in an
    uncaught exception: no key in what a process of its own prints.
    """
    to, _ = answering(401, {"error": {"message": f"wrong key {KEY}"}})
    url = str(to.client.base_url)
    env = {"OPENAI_API_KEY": KEY, "AZURE_OPENAI_API_KEY": KEY, "OPENAI_LOG": log}
    env |= {"OPENAI_BASE_URL": url, "AZURE_OPENAI_ENDPOINT": url}
    done = subprocess.run(
        [sys.executable, "-c", EXCHANGE, name, str(shard), log],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count("answered 401: wrong key [key]") == 2
    assert "lib.errors.ServiceError: " in done.stderr
    assert ("DEBUG" in done.stderr) is bool(log)
    assert "Canary" not in done.stdout + done.stderr.replace(f"wrong key {KEY}", "")


def test_a_key_in_a_header_of_its_own_follows_no_redirect(answering, monkeypatch):
    """The client holds back only Authorization from another host: the call ends at the redirect."""
    elsewhere, calls = answering(200, {"object": "list", "data": []})
    target = str(elsewhere.client.base_url)

    class Moved(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(307)
            self.send_header("location", f"{target}batches")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Moved)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    to = service.connect("azure")
    with pytest.raises(ServiceError, match="answered 307"):
        list(service.batches(to))
    assert calls == []
    to.client.close()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_page_of_html_is_no_message(answering):
    """A gateway's page is not printed at people."""
    to, _ = answering(502, b"<html><body>" + b"x" * 10_000)
    to.client.max_retries = 0
    with pytest.raises(ServiceError, match=r"^local answered 502: no reason given\.$"):
        service.retrieve(to, "batch_x")


def test_a_download_that_is_cut_leaves_no_file(tmp_path, answering):
    """The file appears whole or not at all."""
    to, _ = answering("drop")
    to.client.max_retries = 0
    with pytest.raises(ServiceError, match="did not answer"):
        service.download(to, "file-x", tmp_path / "answers" / "x.gz")
    assert list((tmp_path / "answers").iterdir()) == []


def test_the_environment_names_address_and_key(monkeypatch):
    """OPENAI_BASE_URL is where `openai` is; without it the client's own default holds."""
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example.org/v1/")
    to = service.connect("openai")
    assert (to.name, to.client.api_key, to.free) == ("https://gateway.example.org/v1", KEY, False)
    assert repr(to) == "Service https://gateway.example.org/v1 (answers are paid)"
    monkeypatch.delenv("OPENAI_BASE_URL")
    to = service.connect("openai")
    assert (to.name, str(to.client.base_url)) == ("openai", "https://api.openai.com/v1/")
    assert service.connect("http://127.0.0.1:1/v1").name == "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("name", "key", "words"),
    [
        ("opanai", KEY, 'or a URL that begins with http. Did you mean "openai"?'),
        ("azure", KEY, "export AZURE_OPENAI_ENDPOINT in the shell"),
        ("https://", KEY, "expected a URL that begins with http:// or https://"),
        ("http://example.org/v1", KEY, "not encrypted"),
        ("http://8.8.8.8/v1", KEY, "not encrypted"),
        ("https://me:secret@example.org/v1", KEY, "Put the key into the environment"),
        ("https://example.org/v1?key=secret", KEY, "Put the key into the environment"),
        ("https://example.org/v1", " ", "OPENAI_API_KEY is not set"),
        ("https://example.org/v1", f"{KEY}\n{KEY}", "OPENAI_API_KEY holds a blank"),
        ("https://example.org/v1", f"“{KEY}”", "OPENAI_API_KEY holds a blank or a character"),
    ],
)
def test_what_cannot_be_a_service_is_told_before_any_call(monkeypatch, name, key, words):
    """Wrong names, secrets in addresses and keys that were pasted badly, without repeating them."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ServiceError) as fault:
        service.connect(name)
    assert words in str(fault.value)
    assert "secret" not in str(fault.value)
    assert "Canary" not in str(fault.value)


def test_cancelling_what_has_ended_is_no_fault(answering):
    """A 409 says that the batch has ended already."""
    to, calls = answering(409, {"error": {"message": "Cannot cancel a batch with status"}})
    service.cancel(to, "batch_x")
    assert len(calls) == 1


def test_queue_refusals_are_told_from_other_failures():
    """Only a failed batch with that code was refused by the queue."""
    fault = types.MappingProxyType({"code": "token_limit_exceeded", "message": "Limit: 5"})
    batch = {"status": "failed", "errors": {"data": [{"code": "other"}, fault]}}
    assert service.queue_refusal(batch) == "Limit: 5"
    assert service.queue_refusal({**batch, "status": "completed"}) is None
