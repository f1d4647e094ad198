"""Whatever is sent to the local service, it answers: no 5xx, no traceback in its log, no hang.

Requests are written to a socket byte by byte, so that no client puts them right before.
"""

import json
import os
import signal
import socket
import time
import urllib.parse

import hypothesis
import pytest
from hypothesis import strategies as st

from lib import local_api

HANG_SECONDS = 10
ENDED = ("completed", "failed", "expired", "cancelled")
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
MODELS = ["gpt-6-luna", "gpt-4o-mini", "gpt-5-nano", "gpt-6.2-sol", "gpt-0"]
STAGES = ("--validating=0", "--in-progress=0", "--finalizing=0", "--cancelling=0")

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
SCHEMA_WORDS = st.sampled_from(
    "type properties required items enum anyOf $ref $defs additionalProperties const".split()
)
SCHEMA = st.recursive(
    JSON,
    lambda inner: st.dictionaries(SCHEMA_WORDS, inner, max_size=4),
    max_leaves=8,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": JSON}),
    max_size=3,
)
BODY = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(MODELS) | JSON,
        "messages": MESSAGES | JSON,
        "input": MESSAGES | JSON,
        "response_format": st.fixed_dictionaries(
            {
                "type": st.sampled_from(["json_schema", "json_object", "text"]),
                "json_schema": st.fixed_dictionaries(
                    {"name": st.just("a"), "strict": st.booleans(), "schema": SCHEMA}
                ),
            }
        )
        | JSON,
        "text": JSON,
        "reasoning": JSON,
        "stream": JSON,
        "n": JSON,
        "max_completion_tokens": JSON,
        "max_tokens": JSON,
        "temperature": JSON,
        "reasoning_effort": JSON,
    },
)
NEW_BATCH = st.fixed_dictionaries(
    {
        "input_file_id": st.just("file-none") | JSON,
        "endpoint": st.sampled_from([CHAT, RESPONSES]) | JSON,
        "completion_window": st.just("24h") | JSON,
    },
    optional={
        "metadata": st.dictionaries(st.text(max_size=70), st.text(max_size=9), max_size=18) | JSON,
        "output_expires_after": st.fixed_dictionaries(
            {"anchor": st.just("created_at") | JSON, "seconds": JSON}
        )
        | JSON,
        "priority": JSON,
    },
)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A quick service; when the tests are over its log must be clean and it must still answer."""
    state = tmp_path_factory.mktemp("state")
    made = local_api.start(state, tier=5, options=STAGES)
    yield made
    assert sent(made, request("GET", "/v1/models"))[0] == 200
    os.kill(made["pid"], signal.SIGTERM)
    assert "Traceback" not in (state / "service.log").read_text()


def request(method, target, body=b"", *headers):
    """The bytes of a request, without the token, which `sent` puts in."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Authorization: Bearer TOKEN"]
    lines += [f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


def as_json(value):
    """JSON as a careless client writes it: NaN, half characters and all."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def sent(service, content, and_no_more=False):
    """Status and body of the answer to these bytes; fails when none comes in time."""
    address = urllib.parse.urlsplit(service["base_url"])
    received = b""
    with socket.create_connection((address.hostname, address.port), HANG_SECONDS) as connection:
        connection.sendall(content.replace(b"TOKEN", service["token"].encode()))
        if and_no_more:
            connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65_536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else None, body


def assert_answered(service, content):
    """An answer below 500; a refusal is an error object of the API. Returns status and body."""
    status, body = sent(service, content)
    assert status is not None
    assert status < 500, body
    if status >= 400 and not content.startswith(b"HEAD") and body != NOT_HTTP:
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    return status, body


# What the HTTP server itself says to bytes that are no request, before the service sees them.
NOT_HTTP = b"Invalid HTTP request received."


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "BREW"]),
    path=st.sampled_from(
        ["/v1/files", "/v1/batches", "/v1/models", CHAT, "/v1/embeddings", "/v1", "/", "*"]
    ),
    tail=st.text(max_size=12) | st.sampled_from(["/batch_0/cancel", "/f/content", "/%00", "/.."]),
    query=st.dictionaries(
        st.sampled_from(["limit", "after", "order", "purpose", "x"]), st.text(max_size=5)
    ),
    header=st.tuples(
        st.sampled_from(["Host", "Authorization", "Content-Type", "Transfer-Encoding", "Range"]),
        st.text(st.characters(blacklist_characters="\r\n"), max_size=12),
    ),
    body=st.binary(max_size=40),
)
def test_any_method_path_and_header_is_answered(
    service, method, path, tail, query, header, body
):
    """Known and unknown routes with tails, queries and headers of any text."""
    quoted = urllib.parse.quote(tail, safe="/%.", errors="surrogatepass")
    asked = urllib.parse.urlencode(query, errors="surrogatepass")
    target = f"{path}{quoted}{'?' + asked if asked else ''}"
    assert_answered(service, request(method, target, body, f"{header[0]}: {header[1]}"))


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    content=st.binary(max_size=60)
    | st.binary(max_size=20).map(lambda noise: request("GET", "/v1/models")[:30] + noise + b"\r\n")
    | st.binary(max_size=20).map(lambda noise: request("POST", CHAT, b"{}")[:-4] + noise)
)
def test_bytes_that_are_no_request_are_answered_or_hung_up_on(service, content):
    """The connection ends, with a refusal or without a word."""
    status, _ = sent(service, content, and_no_more=True)
    assert status is None or status < 500


@hypothesis.settings(max_examples=70, deadline=None)
@hypothesis.given(body=BODY | JSON)
def test_any_chat_request_is_refused_or_answered(service, body):
    """Members of any type, schemas of any shape, JSON that is none."""
    assert_answered(service, request("POST", CHAT, as_json(body)))


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(body=NEW_BATCH | JSON)
def test_any_new_batch_is_refused_or_fails(service, body):
    """A body of any kind; the file that it names is not there."""
    status, answer = assert_answered(service, request("POST", "/v1/batches", as_json(body)))
    if status == 200:
        batch = finished(service, json.loads(answer))
        assert batch["errors"]["data"][0]["param"] == "file_id"


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    'form-data; name="purpose"',
                    'form-data; name="file"; filename="a.jsonl"',
                    'form-data; name="file"; filename*=utf-8\'\'%ff',
                    'form-data; name="expires_after[anchor]"',
                    'form-data; name="expires_after[seconds]"',
                    "form-data",
                    'attachment; name="file";;="',
                ]
            ),
            st.sampled_from([b"batch", b"user_data", b"{}", b"created_at", b"3600"])
            | st.binary(max_size=20),
        ),
        max_size=4,
    ),
    cut=st.integers(0, 30) | st.just(0),
)
def test_any_form_is_refused_or_taken(service, parts, cut):
    """Parts that are missing, doubled, nameless, or cut off."""
    body = b"".join(
        f"--b\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"
        for disposition, content in parts
    )
    body = (body + b"--b--\r\n")[: -cut or None]
    kind = "Content-Type: multipart/form-data; boundary=b"
    assert_answered(service, request("POST", "/v1/files", body, kind))


LINE = st.fixed_dictionaries(
    {
        "custom_id": st.just("r") | JSON,
        "method": st.just("POST") | JSON,
        "url": st.sampled_from([CHAT, RESPONSES]) | JSON,
        "body": BODY | JSON,
    }
).map(as_json)
GOOD_LINE = BODY.map(
    lambda body: {"messages": "", "input": "", **body, "model": "gpt-6-luna", "stream": False}
)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    url=st.sampled_from([CHAT, RESPONSES]),
    bodies=st.lists(GOOD_LINE, max_size=4),
    bad=st.lists(LINE | st.binary(max_size=30), max_size=2),
)
def test_any_batch_file_comes_to_an_end(service, url, bodies, bad):
    """Lines of any kind: the batch fails, or it completes with an answer to each, none a 500."""
    asked = [{"custom_id": str(n), "method": "POST", "url": url} for n in range(len(bodies))]
    good = [as_json({**one, "body": body}) for one, body in zip(asked, bodies, strict=True)]
    content = b"\n".join([b"{}" if not good else good[0], *good[1:], *bad])
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + content
    purpose = b'\r\n--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n'
    kind = "Content-Type: multipart/form-data; boundary=b"
    status, file = assert_answered(service, request("POST", "/v1/files", part + purpose, kind))
    if status != 200:
        return
    wanted = {"input_file_id": json.loads(file)["id"], "endpoint": url, "completion_window": "24h"}
    _, made = assert_answered(service, request("POST", "/v1/batches", as_json(wanted)))
    batch = finished(service, json.loads(made))
    assert batch["status"] in ("completed", "failed")
    if batch["error_file_id"]:
        target = f"/v1/files/{batch['error_file_id']}/content"
        lines = sent(service, request("GET", target))[1].removesuffix(b"\n").split(b"\n")
        statuses = [json.loads(one)["response"]["status_code"] for one in lines]
        assert max(statuses) < 500


def finished(service, batch):
    """A batch when it has ended; fails when it does not."""
    until = time.monotonic() + HANG_SECONDS
    while batch["status"] not in ENDED:
        assert time.monotonic() < until, f"still {batch['status']}"
        batch = json.loads(sent(service, request("GET", f"/v1/batches/{batch['id']}"))[1])
    return batch
