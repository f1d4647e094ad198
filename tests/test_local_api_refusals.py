"""What the local service refuses over HTTP: foreign callers, wrong requests, hostile uploads."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

from lib import local_api

OURS = "(text chosen by the local service)"
GOOD = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "input_file_id": "file-x"}
LINE = b'{"custom_id": "r"}\n'


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """A running service."""
    state = tmp_path_factory.mktemp("state")
    made = local_api.start(state)
    yield {**made, "state": state}
    os.kill(made["pid"], signal.SIGTERM)


def call(endpoint, method, path, body=None, **headers):
    """Status, parsed body and headers of one request with the token."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(endpoint["base_url"]).netloc)
    sent = {"Authorization": f"Bearer {endpoint['token']}", **headers}
    if isinstance(body, dict):
        body = json.dumps(body)
    connection.request(method, path, body, {k: v for k, v in sent.items() if v is not None})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content), response.headers


def form(*parts, boundary="b"):
    """A multipart body of (disposition, content) pairs with its content type."""
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for disposition, content in parts
    )
    kind = f"multipart/form-data; boundary={boundary}"
    return {"body": body + f"--{boundary}--\r\n".encode(), "Content-Type": kind}


def upload(endpoint, *parts):
    """Status and parsed body of an upload of these parts."""
    return call(endpoint, "POST", "/v1/files", **form(*parts))[:2]


PURPOSE = ('name="purpose"', b"batch")


def jsonl(content=LINE, filename="a.jsonl"):
    """The part that holds the file."""
    return (f'name="file"; filename="{filename}"', content)


def error(message, param=None, code=None):
    """The error object with a recorded text."""
    kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@pytest.mark.parametrize(
    ("request_line", "body", "status", "answer"),
    [
        (
            "GET /v1/batches/batch_0",
            None,
            404,
            error("No batch found with id 'batch_0'."),
        ),
        (
            "GET /v1/batches/invalid",
            None,
            400,
            error(
                "Invalid 'batch_id': 'invalid'. Expected an ID that begins with 'batch'.",
                "batch_id",
                "invalid_value",
            ),
        ),
        (
            "POST /v1/batches",
            {**GOOD, "endpoint": "/v1/invalid/endpoint"},
            400,
            error(
                "Invalid value: '/v1/invalid/endpoint'. Supported values are:"
                " '/v1/chat/completions', '/v1/completions', '/v1/embeddings', '/v1/responses',"
                " and '/v1/moderations'.",
                "endpoint",
                "invalid_value",
            ),
        ),
        (
            "POST /v1/batches",
            {**GOOD, "metadata": {"tags": ["a"]}},
            400,
            error(
                "Invalid type for 'metadata.tags': expected a string, but got an array instead.",
                "metadata.tags",
                "invalid_type",
            ),
        ),
        (
            "POST /v1/batches",
            {**GOOD, "input_file_id": None},
            400,
            error(
                "Missing required parameter: 'input_file_id'.",
                "input_file_id",
                "missing_required_parameter",
            ),
        ),
        (
            "GET /v1/files/file-none",
            None,
            404,
            error("No such File object: file-none", "id"),
        ),
        (
            "GET /v1/files/file-none/content",
            None,
            404,
            error("No such File object: file-none", "id"),
        ),
        ("DELETE /v1/files/x", None, 404, error("No such File object: x", "id")),
        ("GET /v1/none", None, 404, error("Invalid URL (GET /v1/none)")),
    ],
)
def test_recorded_errors_are_answered_as_recorded(endpoint, request_line, body, status, answer):
    """Status and error object are those of the recordings."""
    assert call(endpoint, *request_line.split(), body)[:2] == (status, answer)


@pytest.mark.parametrize(
    ("request_line", "body", "status", "param"),
    [
        ("POST /v1/batches", "{", 400, None),
        ("POST /v1/batches", "[]", 400, None),
        ("POST /v1/batches", "[" * 100_000, 413, None),
        ("POST /v1/batches", "[" * 60_000, 400, None),
        ("POST /v1/batches", b"\xff\x00", 400, None),
        ("POST /v1/batches", {**GOOD, "completion_window": "48h"}, 400, "completion_window"),
        ("POST /v1/batches", {**GOOD, "priority": 1}, 400, "priority"),
        ("POST /v1/batches", {**GOOD, "endpoint": "/v1/embeddings"}, 400, "endpoint"),
        (
            "POST /v1/batches",
            {**GOOD, "metadata": {str(n): "" for n in range(17)}},
            400,
            "metadata",
        ),
        ("POST /v1/batches", {**GOOD, "metadata": {"k" * 65: ""}}, 400, "metadata"),
        ("POST /v1/batches", {**GOOD, "metadata": {"k": "v" * 513}}, 400, "metadata"),
        (
            "POST /v1/batches",
            {**GOOD, "output_expires_after": {"anchor": "created_at", "seconds": 1}},
            400,
            "output_expires_after.seconds",
        ),
        ("GET /v1/batches?limit=0", None, 400, "limit"),
        ("GET /v1/batches?limit=101", None, 400, "limit"),
        ("GET /v1/batches?limit=many", None, 400, "limit"),
        ("GET /v1/files?order=up", None, 400, "order"),
        ("PUT /v1/batches", None, 405, None),
        ("POST /v1/chat/completions", {"model": "gpt-6-luna", "stream": True}, 400, "stream"),
    ],
)
def test_other_wrong_requests_get_an_error_object_of_our_own(
    endpoint, request_line, body, status, param
):
    """The shape is the API's; the text says that it is not, unless it is a recorded sentence."""
    got, answer, _ = call(endpoint, *request_line.split(), body)
    assert (got, answer["error"]["param"]) == (status, param)
    recorded = answer["error"]["message"].startswith("Invalid value")
    assert recorded or answer["error"]["message"].endswith(OURS)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": None}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Basic abc"}, 401),
        ({"Authorization": "Bearer \xff"}, 401),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:80"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost@evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "LOCALHOST:1"}, 200),
    ],
)
def test_only_local_callers_with_the_token_are_heard(endpoint, headers, status):
    """A foreign Host is refused before the token is looked at; the token is never shown."""
    got, answer, _ = call(endpoint, "GET", "/v1/models", **headers)
    assert got == status
    assert endpoint["token"] not in json.dumps(answer)


def test_no_key_is_refused_in_the_recorded_words(endpoint):
    """The recorded message of a 401."""
    _, answer, _ = call(endpoint, "GET", "/v1/models", Authorization=None)
    assert answer["error"]["message"] == "Missing bearer or basic authentication in header"


def test_the_service_listens_on_loopback_alone(endpoint):
    """Another address of this machine, if it has one, does not answer."""
    port = urllib.parse.urlsplit(endpoint["base_url"]).port
    with socket.socket() as probe, pytest.raises(OSError, match=r".*"):
        probe.settimeout(1)
        probe.connect(("127.0.0.2", port))


def test_answers_carry_the_headers_of_the_api(endpoint):
    """Version, time and a request id of 32 hexadecimal digits."""
    _, _, headers = call(endpoint, "GET", "/v1/batches")
    assert headers["openai-version"] == "2020-10-01"
    assert headers["openai-processing-ms"].isdigit()
    assert len(headers["x-request-id"]) == len("req_") + 32


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([PURPOSE], "file"),
        ([jsonl()], "purpose"),
        ([PURPOSE, ('name="file"', LINE)], "file"),
        ([('name="purpose"', b"theft"), jsonl()], "purpose"),
        ([PURPOSE, jsonl(b"")], None),
        ([PURPOSE, jsonl(b"not json\n")], None),
        ([PURPOSE, jsonl(b"\xff\xfe{}\n")], None),
        ([PURPOSE, jsonl(filename="a.csv")], None),
        ([PURPOSE, jsonl(), jsonl()], None),
        ([PURPOSE, ("nameless", b""), jsonl()], None),
        ([('name="purpose"', b"x" * 70_000), jsonl()], None),
        ([*[(f'name="f{n}"', b"") for n in range(40)], PURPOSE, jsonl()], None),
        ([PURPOSE, ('name="expires_after[seconds]"', b"3600"), jsonl()], "expires_after.anchor"),
        (
            [
                PURPOSE,
                ('name="expires_after[anchor]"', b"created_at"),
                ('name="expires_after[seconds]"', b"1e9"),
                jsonl(),
            ],
            "expires_after[seconds]",
        ),
    ],
)
def test_a_wrong_upload_is_refused_and_leaves_nothing(endpoint, parts, param):
    """An error object, and neither a file on disk nor a row in the list."""
    before = call(endpoint, "GET", "/v1/files")[1]["data"]
    status, answer = upload(endpoint, *parts)
    assert (status, answer["error"]["param"]) == (400, param)
    assert call(endpoint, "GET", "/v1/files")[1]["data"] == before
    assert not list((endpoint["state"] / "incoming").iterdir())


def test_a_wrong_extension_repeats_its_message_as_detail(endpoint):
    """The recorded body of August 2026 has a second member."""
    message = "Invalid file format for Batch API. Must be .jsonl"
    _, answer = upload(endpoint, PURPOSE, jsonl(filename="a.txt"))
    assert answer == {**error(message), "detail": {"message": message, "code": None}}


@pytest.mark.parametrize(
    "filename", ["upload", "../../x.jsonl", "a b;c.jsonl", "\u00e9\u4e2d.jsonl"]
)
def test_any_name_of_a_file_is_kept_and_safe(endpoint, filename):
    """A name is shown as it came, never used as a path, and plain in the header."""
    status, file = upload(endpoint, PURPOSE, jsonl(filename=filename))
    assert (status, file["filename"]) == (200, filename)
    assert (endpoint["state"] / "files" / file["id"]).read_bytes() == LINE


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=b"),
        (b"garbage", "multipart/form-data; boundary=b"),
        (form(PURPOSE, jsonl())["body"][:-6], "multipart/form-data; boundary=b"),
        (b"--b\r\n" + b"x" * 100_000, "multipart/form-data; boundary=b"),
        (b"{}", "application/json"),
        (b"{}", "multipart/form-data"),
        (b"{}", None),
    ],
)
def test_a_broken_form_is_refused(endpoint, body, kind):
    """Cut, garbled or of another type: status 400 in the form of the API."""
    got, answer, _ = call(endpoint, "POST", "/v1/files", body, **{"Content-Type": kind})
    assert got == 400
    assert answer["error"]["message"].endswith(OURS)


def test_content_of_a_purpose_that_may_not_be_downloaded(endpoint):
    """The quoted sentence for user data."""
    _, file = upload(endpoint, ('name="purpose"', b"user_data"), jsonl())
    status, answer, _ = call(endpoint, "GET", f"/v1/files/{file['id']}/content")
    assert status == 400
    assert answer == error("Not allowed to download files of purpose: user_data")


def test_an_upload_that_is_broken_off_leaves_nothing(endpoint):
    """The connection ends in the middle; the service goes on, without the piece."""
    address = urllib.parse.urlsplit(endpoint["base_url"])
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {endpoint['token']}"
        "\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + form(PURPOSE, jsonl())["body"][:50])
    for _ in range(100):
        assert call(endpoint, "GET", "/v1/models")[0] == 200
        if not list((endpoint["state"] / "incoming").iterdir()):
            return
    pytest.fail("a piece of the upload is left")


def test_a_second_process_on_one_state_is_refused_in_one_sentence(endpoint):
    """Exit code 75, one line that says what to do, and the first service is unharmed."""
    command = [sys.executable, "-m", "lib.local_api", f"--state={endpoint['state']}"]
    root = Path(local_api.__file__).parents[2]
    second = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert second.returncode == 75
    assert second.stderr.count("\n") == 1
    assert "Another local service" in second.stderr
    assert call(endpoint, "GET", "/v1/models")[0] == 200


def test_help_tells_the_options_quickly():
    """`--help` names every option and imports no server."""
    root = Path(local_api.__file__).parents[2]
    command = [sys.executable, "-m", "lib.local_api", "--help"]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    for option in (
        "--port",
        "--state",
        "--token",
        "--speed",
        "--tier",
        "--idle-exit",
        "--endpoint",
    ):
        assert option in shown
