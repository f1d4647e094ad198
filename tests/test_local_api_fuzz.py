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
HALVES = "surrogatepass"  # lets half characters through, which are no UTF-8
STAGES = ("--validating=0", "--in-progress=0", "--finalizing=0", "--cancelling=0")

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
NO_JSON = st.sampled_from([float("nan"), float("inf"), "\ud800", {"\udfff": 1}])


def changed(given, names):
    """Objects that are right, but for up to two members, which are anything."""
    odd = st.dictionaries(st.sampled_from(names), JSON, max_size=2)
    return st.builds(lambda right, wrong: {**right, **wrong}, given, odd)


def closed(properties):
    """A schema of the strict subset with these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMA = st.recursive(
    st.sampled_from([{"type": "string"}, {"type": "integer"}, {"type": "boolean"}])
    | st.lists(st.text(max_size=3), max_size=3).map(lambda words: {"enum": words}),
    lambda inner: changed(
        st.dictionaries(st.text(max_size=4), inner, max_size=3).map(closed)
        | inner.map(lambda item: {"type": "array", "items": item})
        | st.lists(inner, max_size=2).map(lambda kinds: {"anyOf": kinds}),
        ["type", "properties", "required", "enum", "$ref", "$defs", "pattern", "minimum", "not"],
    ),
    max_leaves=6,
)
NAMED = st.builds(
    lambda schema, strict: {"name": "a", "strict": strict, "schema": schema}, SCHEMA, st.booleans()
)
MESSAGES = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["user", "system", "assistant", "developer"]),
        st.text(max_size=40)
        | st.lists(st.text(max_size=9).map(lambda text: {"type": "text", "text": text}))
        | JSON,
    ),
    max_size=3,
)
BODY = changed(
    st.fixed_dictionaries(
        {"model": st.sampled_from(MODELS), "messages": MESSAGES, "input": MESSAGES},
        optional={
            "response_format": NAMED.map(lambda one: {"type": "json_schema", "json_schema": one}),
            "text": NAMED.map(lambda one: {"format": {"type": "json_schema", **one}}),
            "max_completion_tokens": st.integers(-1, 200_000),
            "max_output_tokens": st.integers(-1, 200_000),
            "reasoning_effort": st.sampled_from(["none", "minimal", "low", "max"]),
            "reasoning": st.sampled_from([{"effort": "none"}, {"effort": "low"}]),
        },
    ),
    ["model", "messages", "input", "response_format", "text", "stream", "n", "temperature"],
)
NEW_BATCH = changed(
    st.fixed_dictionaries(
        {
            "input_file_id": st.just("file-none"),
            "endpoint": st.sampled_from([CHAT, RESPONSES]),
            "completion_window": st.just("24h"),
        },
        optional={
            "metadata": st.dictionaries(st.text(max_size=66), st.text(max_size=9), max_size=18),
            "output_expires_after": changed(
                st.just({"anchor": "created_at", "seconds": 3_600}), ["anchor", "seconds"]
            ),
        },
    ),
    ["input_file_id", "endpoint", "completion_window", "metadata", "priority"],
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
    return "\r\n".join(lines).encode("utf-8", HALVES) + b"\r\n\r\n" + body


def as_json(value):
    """JSON as a careless client writes it: NaN, half characters and all."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", HALVES)


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


TARGET = st.builds(
    lambda path, tail, query: f"{path}{urllib.parse.quote(tail, '/%.', errors=HALVES)}?{query}",
    st.sampled_from(["/v1/files", "/v1/batches", "/v1/models", CHAT, "/v1/embeddings", "/", "*"]),
    st.text(max_size=12) | st.sampled_from(["/batch_0/cancel", "/f/content", "/%00", "/.."]),
    st.dictionaries(
        st.sampled_from(["limit", "after", "order", "purpose", "x"]), st.text(max_size=5)
    ).map(lambda pairs: urllib.parse.urlencode(pairs, errors=HALVES)),
)
HEADER = st.builds(
    "{}: {}".format,
    st.sampled_from(["Host", "Authorization", "Content-Type", "Transfer-Encoding", "Range"]),
    st.text(st.characters(blacklist_characters="\r\n"), max_size=12),
)


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "BREW"]),
    target=TARGET,
    header=HEADER,
    body=st.binary(max_size=40),
)
def test_any_method_path_and_header_is_answered(service, method, target, header, body):
    """Known and unknown routes with tails, queries and headers of any text."""
    assert_answered(service, request(method, target, body, header))


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    content=st.binary(max_size=60)
    | st.binary(max_size=20).map(lambda noise: request("GET", "/v1/models")[:30] + noise + b"\r\n")
    | st.binary(max_size=20).map(lambda noise: request("POST", CHAT, b"{}")[:-4] + noise)
)
def test_bytes_that_are_no_request_are_answered_or_hung_up_on(service, content):
    """The connection ends, with a refusal or without a word."""
    status, _ = sent(service, content, and_no_more=True)
    assert status is None or status < 500


@hypothesis.settings(max_examples=70)
@hypothesis.given(body=BODY | JSON | NO_JSON)
def test_any_chat_request_is_refused_or_answered(service, body):
    """Members of any type, schemas of any shape, JSON that is none."""
    assert_answered(service, request("POST", CHAT, as_json(body)))


@hypothesis.settings(max_examples=60)
@hypothesis.given(body=NEW_BATCH | JSON | NO_JSON)
def test_any_new_batch_is_refused_or_fails(service, body):
    """A body of any kind; the file that it names is not there."""
    status, answer = assert_answered(service, request("POST", "/v1/batches", as_json(body)))
    if status == 200:
        batch = finished(service, json.loads(answer))
        assert batch["errors"]["data"][0]["param"] == "file_id"


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    'form-data; name="purpose"',
                    'form-data; name="file"; filename="a.jsonl"',
                    "form-data; name=\"file\"; filename*=utf-8''%ff",
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


GOOD_LINE = BODY.map(
    lambda body: {"messages": "", "input": "", **body, "model": "gpt-6-luna", "stream": False}
)
BAD_LINE = st.binary(max_size=30) | changed(
    st.builds(lambda body: {"custom_id": "r", "method": "POST", "url": CHAT, "body": body}, BODY),
    ["custom_id", "method", "url", "body"],
).map(as_json)


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    url=st.sampled_from([CHAT, RESPONSES]),
    bodies=st.lists(GOOD_LINE, max_size=4),
    bad=st.lists(BAD_LINE, max_size=1),
)
def test_any_batch_file_comes_to_an_end(service, url, bodies, bad):
    """Lines of any kind: the batch fails, or it completes with an answer to each, none a 500."""
    asked = [{"custom_id": str(n), "method": "POST", "url": url} for n in range(len(bodies))]
    good = [as_json({**one, "body": body}) for one, body in zip(asked, bodies, strict=True)]
    assert_ended(service, url, b"\n".join([*good, *bad] or [b"{}"]))


def assert_ended(service, url, content):
    """A batch of this file fails, or completes without a 500; if the file was taken at all."""
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
    assert "go on" not in json.dumps(batch["errors"]), "a step of the service failed"
    if batch["error_file_id"]:
        target = f"/v1/files/{batch['error_file_id']}/content"
        lines = sent(service, request("GET", target))[1].removesuffix(b"\n").split(b"\n")
        statuses = [json.loads(one)["response"]["status_code"] for one in lines]
        assert max(statuses) < 500


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    "odd",
    [
        {"properties": None},
        {"properties": {"a": 5}},
        {"required": [[]]},
        {"type": ["object", {}]},
        {"type": 1.5},
        {"enum": 7},
        {"anyOf": {}},
        {"anyOf": [None]},
        {"items": True, "type": "array"},
        {"$ref": ["#"]},
        {"$ref": "#/nowhere"},
        {"properties": {"a": {"type": "string", "pattern": 5}}, "required": ["a"]},
        {"properties": {"a": {"type": "integer", "minimum": "5"}}, "required": ["a"]},
        {"properties": {"a": {"type": "array", "items": {}, "minItems": "5"}}, "required": ["a"]},
    ],
)
def test_a_schema_that_is_none_is_refused(service, odd, strict):
    """What JSON Schema does not allow is refused, also where no strictness was asked for."""
    schema = {"type": "object", "additionalProperties": False, **odd}
    named = {"name": "a", "strict": strict, "schema": schema}
    body = {
        "model": "gpt-6-luna",
        "messages": [{"role": "user", "content": "Lovely soup."}],
        "response_format": {"type": "json_schema", "json_schema": named},
    }
    status, answer = assert_answered(service, request("POST", CHAT, as_json(body)))
    # Without strictness a name too many, and a reference to nowhere, do no harm.
    if strict or not odd.keys() <= {"required", "$ref"}:
        assert status == 400
        assert json.loads(answer)["error"]["code"] == "invalid_json_schema"


@pytest.mark.parametrize("n_levels", [60, 150, 199, 250, 800, 5_000])
@pytest.mark.parametrize(
    "step", ["[", '{"anyOf":[', '{"type":"array","items":', '{"properties":{"a":']
)
def test_any_depth_is_refused_or_answered(service, n_levels, step):
    """Nested values as metadata, and as a schema that is strict or not."""
    close = "".join({"[": "]", "{": "}"}[char] for char in reversed(step) if char in "[{")
    n_steps = n_levels // len(close)
    nested = step * n_steps + "{}" + close * n_steps
    messages = '"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Soup?"}]'
    for place in ("metadata", "strict", "loose"):
        named = f'{{"name": "a", "strict": {str(place == "strict").lower()}, "schema": {nested}}}'
        wanted = f'"response_format": {{"type": "json_schema", "json_schema": {named}}}'
        added = f'"metadata": {nested}' if place == "metadata" else wanted
        body = f"{{{messages}, {added}}}"
        assert_answered(service, request("POST", CHAT, body.encode()))
        line = f'{{"custom_id": "r", "method": "POST", "url": "{CHAT}", "body": {body}}}'
        assert_ended(service, CHAT, line.encode())
        echoed = line.replace(CHAT, RESPONSES).replace('"messages"', '"input"')
        assert_ended(service, RESPONSES, echoed.encode())


def finished(service, batch):
    """A batch when it has ended; fails when it does not."""
    until = time.monotonic() + HANG_SECONDS
    while batch["status"] not in ENDED:
        assert time.monotonic() < until, f"still {batch['status']}"
        batch = json.loads(sent(service, request("GET", f"/v1/batches/{batch['id']}"))[1])
    return batch
