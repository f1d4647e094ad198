"""Every recorded answer of the real service, beside the local service's answer to the same.

An answer is the same when it has the same members, of the same types, null where the recording is
null, with the same constants, statuses, codes and sentences, and identifiers of the same shape.
The exceptions are tables with their reasons. Rows that the recordings mark as edited are no
evidence and are left out.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import time
import urllib.parse

import openai
import pytest

from lib import errors, local_api
from lib.local_api import files, texts

ENDPOINT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
ENDED = ("completed", "failed", "expired", "cancelled")
SET, HIDDEN = "(set; value not kept)", "\u2026"

# Members that come and go by year: those that only the recording has, or only our answer.
COMES_AND_GOES = {
    "batch.model": "since autumn 2025; ours has it always",
    "batch.usage": "since 7 September 2025; ours has it always",
    "file.expires_at": "absent in January 2025; ours has it always",
    "file.status_details": "left out by who re-typed one recording",
    "chat.completion.choices.message.annotations": "absent in January 2025; ours has it always",
    "chat.completion.choices.logprobs": "absent in October 2025; the SDK allows it; ours is null",
    "usage.prompt_tokens_details.cache_write_tokens": "since 2026",
    "usage.input_tokens_details.cache_write_tokens": "since 2026",
    "response.system_fingerprint": "not recorded; ours marks its answers as simulated with it",
    "response.completed_at": "since January 2026",
    "response.frequency_penalty": "since January 2026",
    "response.presence_penalty": "since January 2026",
}

# Members that are null in one and not in the other.
NULL_OR_NOT = {
    "batch.model": "null until validated; ours the same, see the test of the states",
    "file.expires_at": "null in answers to an upload until late 2025; ours is a time",
    "chat.completion.system_fingerprint": "null for gpt-3.5-turbo; ours marks its answers with it",
    "response.prompt_cache_key": "repeats what was asked for, which this service does not read",
}

# Members whose value belongs to the protocol and not to the exchange.
CONSTANTS = {
    "object",
    "purpose",
    "filename",
    "endpoint",
    "completion_window",
    "status",
    "status_code",
    "status_details",
    "role",
    "type",
    "index",
    "finish_reason",
    "service_tier",
    "deleted",
    "metadata",
    "background",
    "payer",
    "parallel_tool_calls",
    "store",
    "tool_choice",
    "truncation",
    "verbosity",
}
SHAPES = {
    "batch": r"batch_[0-9a-f]{32}",
    "file": r"file-[0-9A-Za-z]{22}",
    "line": r"batch_req_[0-9a-f]{32}",
    "chat.completion": r"chatcmpl-[0-9A-Za-z]{29}",
    "response": r"resp_[0-9a-f]{50}",
    "message": r"msg_[0-9a-f]{50}",
    "reasoning": r"rs_[0-9a-f]{50}",
    # 32 hexadecimal digits in 2025, a UUID since 2026.
    "request_id": r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
}
FREE = ("metadata",)


def recorded(shared, name):
    """The rows of a file of recordings."""
    text = (shared / "openai" / "payloads" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(row) for row in text.removesuffix("\n").split("\n")]


def differences(theirs, ours, place, whole=True):
    """How our value differs in form from a recorded one; `whole` is false for a fragment."""
    if theirs == SET:
        return [] if isinstance(ours, str) and ours else [f"{place}: not set"]
    if theirs is None or ours is None:
        same = (theirs is None) == (ours is None) or place in NULL_OR_NOT
        return [] if same else [f"{place}: {theirs!r} is recorded, ours is {ours!r}"]
    if kind(theirs) != kind(ours):
        return [f"{place}: {theirs!r} is recorded, ours is {ours!r}"]
    if isinstance(theirs, dict):
        return _of_objects(theirs, ours, place, whole)
    if isinstance(theirs, list):
        pairs = zip(theirs, ours, strict=False)
        found = [one for pair in pairs for one in differences(*pair, place, whole)]
        return found if bool(theirs) == bool(ours) else [*found, f"{place}: one list is empty"]
    name = place.rsplit(".", 1)[-1]
    differ = name in CONSTANTS and theirs != ours
    return [f"{place}: {theirs!r} is recorded, ours is {ours!r}"] if differ else []


def kind(value):
    """The JSON type of a value; whole and other numbers are two."""
    return type(value).__name__


def _of_objects(theirs, ours, place, whole):
    """How two objects differ; an object with a name of its own starts a new place."""
    named = theirs.get("object") or theirs.get("type")
    if place.rsplit(".", 1)[-1] not in ("error", "format") and isinstance(named, str):
        place = named
    if place.rsplit(".", 1)[-1] == "usage":
        place = "usage"
    odd = set(theirs) ^ set(ours) if whole else set(theirs) - set(ours)
    found = [
        f"{place}.{name}: {'only recorded' if name in theirs else 'only ours'}"
        for name in sorted(odd)
        if f"{place}.{name}" not in COMES_AND_GOES
    ]
    for name in sorted(set(theirs) & set(ours)):
        found += differences(theirs[name], ours[name], f"{place}.{name}", whole)
    return [*found, *_of_shapes(ours, place)]


def _of_shapes(ours, place):
    """Identifiers of ours that do not have the recorded shape."""
    named = {"id": place, "request_id": "request_id"}
    shapes = {name: SHAPES[of] for name, of in named.items() if name in ours and of in SHAPES}
    for name, shape in shapes.items():
        if not re.fullmatch(shape, ours[name]):
            yield f"{place}.{name}: {ours[name]!r} has another shape"


@contextlib.contextmanager
def serving(state, *options, **settings):
    """A service that ends with the block."""
    made = local_api.start(state, options=options, **settings)
    try:
        yield made
    finally:
        os.kill(made["pid"], signal.SIGTERM)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service whose stages last long enough to be seen."""
    stages = ("--validating=0.1", "--in-progress=0.25", "--finalizing=0.06")
    with serving(tmp_path_factory.mktemp("state"), *stages) as made:
        yield made


def call(service, method, path, body=None, **headers):
    """Status, headers and text of one exchange."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(service["base_url"]).netloc)
    sent = {"Authorization": f"Bearer {service['token']}", **headers}
    encoded = json.dumps(body) if isinstance(body, dict) else body
    connection.request(method, path, encoded, {k: v for k, v in sent.items() if v is not None})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, text


def got(service, path):
    """The JSON object at a path."""
    return json.loads(call(service, "GET", path)[2])


def line(custom_id, **body):
    """A request for a model that both the recordings and this service know."""
    messages = [{"role": "user", "content": "The capital of Poland?"}]
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": ENDPOINT,
        "body": {"model": "gpt-4o-mini", "messages": messages, **body},
    }


def form(content, filename="batch.jsonl", purpose="batch"):
    """Arguments of `call` that upload a file."""
    body = (
        f'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n--b\r\n'
        f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
        f"{content}\r\n--b--\r\n"
    )
    return {"body": body.encode(), "Content-Type": "multipart/form-data; boundary=b"}


def uploaded(service, *lines):
    """The id of a new input file."""
    content = "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines)
    return json.loads(call(service, "POST", "/v1/files", **form(content))[2])["id"]


def created(service, file_id, **more):
    """A new batch of a file."""
    wanted = {"input_file_id": file_id, "endpoint": ENDPOINT, "completion_window": "24h", **more}
    return json.loads(call(service, "POST", "/v1/batches", wanted)[2])


def reached(service, batch, *statuses):
    """A batch when it has one of these statuses, by default one of the last ones."""
    until = time.monotonic() + 10
    wanted = statuses or ENDED
    while (batch := got(service, f"/v1/batches/{batch['id']}"))["status"] not in wanted:
        assert time.monotonic() < until, f"still {batch['status']}"
        time.sleep(0.005)
    return batch


def lines_of(service, file_id):
    """The lines of a result file."""
    text = call(service, "GET", f"/v1/files/{file_id}/content")[2]
    return [json.loads(one) for one in text.removesuffix("\n").split("\n")]


@pytest.mark.parametrize(
    "name",
    [
        "curator-basic-batch-completion",
        "curator-basic-batch-resume",
        "curator-failed-request-batch-resume",
        "curator-resubmission-batch-completion",
        "curator-batch-cancel",
    ],
)
def test_a_recorded_sequence_is_answered_in_the_same_form(shared, service, name):
    """Each recorded request is sent again, with our ids for theirs, until our batch is as far.

    The model of the recordings is gone since October 2026; gpt-4o-mini stands in for it.
    """
    names = {"gpt-3.5-turbo": "gpt-4o-mini"}
    for row in recorded(shared, name):
        method, path, body = (replaced(row["request"][part], names) for part in PARTS)
        theirs, wanted = row["response"], None
        if method == "GET" and "/batches/" in path:
            known = json.loads(theirs["body"])
            wanted = known["status"], None if row["edited"] else known["request_counts"]
        status, headers, text = exchanged(service, (method, path, body), wanted)
        if row["edited"] is None:
            assert status == theirs["status"]
            compare_headers(theirs["headers"], headers, names)
            compare_bodies(theirs["body"], text)
        if body.startswith("--"):
            content = body.split("\r\n\r\n")[2].rsplit("\r\n--", 1)[0]
            assert json.loads(text)["bytes"] == len(content.encode())
        remember(theirs["body"], text, names)


PARTS = ("method", "path", "body")


def replaced(text, names):
    """A text with our names for the recorded ones."""
    for theirs, ours in names.items():
        text = text.replace(theirs, ours)
    return text


def exchanged(service, request, wanted):
    """Our answer; a batch is asked for until it is in the wanted status with the wanted counts."""
    method, path, body = request
    # The first line of a form holds its boundary.
    kind_of_body = f"multipart/form-data; boundary={body[2:34]}" if body.startswith("--") else None
    until = time.monotonic() + 10
    while True:
        found = call(service, method, path, body.encode(), **{"Content-Type": kind_of_body})
        ours = json.loads(found[2]) if wanted else {}
        if not wanted or (
            ours["status"] == wanted[0] and wanted[1] in (None, ours["request_counts"])
        ):
            return found
        assert time.monotonic() < until, f"{wanted} was never seen"


def compare_headers(theirs, ours, names):
    """The type and name of a content, and the headers of every answer."""
    for name in ("content-type", "openai-version", "content-disposition"):
        assert ours.get(name) == (replaced(theirs[name], names) if name in theirs else None)
    assert ours["openai-processing-ms"].isdigit()
    assert re.fullmatch(r"req_[0-9a-f]{32}", ours["x-request-id"])


def compare_bodies(theirs, ours):
    """One JSON object, or the lines of a result file in any order."""
    if theirs.startswith(LINE_START):
        assert ours.endswith("\n")
        theirs, ours = (by_custom_id(text) for text in (theirs, ours))
        assert set(theirs) == set(ours)
        found = [differences(theirs[name], ours[name], "line") for name in theirs]
        assert found == [[]] * len(theirs)
        return
    assert ours.startswith("{\n") == theirs.startswith("{\n"), "indented or not"
    theirs, ours = json.loads(theirs), json.loads(ours)
    assert differences(theirs, ours, theirs["object"]) == []
    assert_times(theirs)
    assert_times(ours)


LINE_START = '{"id": "batch_req_'


def by_custom_id(text):
    """The lines of a result file by their custom_id."""
    found = [json.loads(one) for one in text.removesuffix("\n").split("\n")]
    return {one["custom_id"]: one for one in found}


def remember(theirs, ours, names):
    """Keep which of our ids stands for a recorded one."""
    if theirs.startswith(LINE_START):
        return
    theirs, ours = json.loads(theirs), json.loads(ours)
    for member in ("id", "output_file_id"):
        if theirs.get(member):
            names[theirs[member]] = ours[member]


def assert_times(found):
    """What holds between the timestamps of every recorded object, and of ours."""
    if found["object"] == "file":
        assert found.get("expires_at") in (None, found["created_at"] + 2_592_000)
        return
    assert int(found["id"].removeprefix("batch_")[:8], 16) == found["created_at"]
    assert found["expires_at"] == found["created_at"] + 86_400
    order = ("created_at", "in_progress_at", "finalizing_at", "completed_at")
    times = [found[name] for name in order if found[name] is not None]
    assert times == sorted(times)
    assert found["metadata"] is None or isinstance(found["metadata"], dict)


def test_recorded_batches_that_complete(shared, service):
    """The objects of May 2025, November 2025 and September 2026: all counted, one file."""
    rows = [row["payload"] for row in recorded(shared, "batch-objects")]
    pairs = {"davka": "2", "beh": "test"}
    chat = created(service, uploaded(service, line("a")), metadata=pairs)
    asked = {**line("a"), "url": RESPONSES, "body": {"model": "gpt-4o-mini", "input": "Warsaw?"}}
    other = created(service, uploaded(service, asked), endpoint=RESPONSES)
    ours = {ENDPOINT: reached(service, chat), RESPONSES: reached(service, other)}
    complete = [row for row in rows if row["status"] == "completed" and "object" in row]
    assert len(complete) == 3
    for row in complete:
        same = {**row, "metadata": row["metadata"] and ours[row["endpoint"]]["metadata"]}
        same["id"] = row["id"] or f"batch_{row['created_at']:08x}{'0' * 24}"
        assert differences(same, ours[row["endpoint"]], "batch") == []
        assert_times(same)
        assert sum_of_usage(ours[row["endpoint"]]) > 0


def sum_of_usage(batch):
    """The total of a batch's tokens, which is the sum of its two parts."""
    usage = batch["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    return usage["total_tokens"]


def test_recorded_batches_under_way(shared, service):
    """The answers to create, with a null model and no usage, and to cancel while it runs."""
    theirs = {row["payload"]["status"]: row["payload"] for row in recorded(shared, "batch-objects")}
    asked = {**line("a"), "url": RESPONSES, "body": {"model": "gpt-4o-mini", "input": "Warsaw?"}}
    new = created(
        service, uploaded(service, asked, {**asked, "custom_id": "b"}), endpoint=RESPONSES
    )
    assert differences(theirs["validating"], new, "batch") == []
    assert new["model"] is None
    assert sum_of_usage(new) == 0
    reached(service, new, "in_progress")
    stopped = json.loads(call(service, "POST", f"/v1/batches/{new['id']}/cancel")[2])
    assert differences(theirs["cancelling"], stopped, "batch") == []
    assert stopped["model"] == "gpt-4o-mini"
    assert stopped["request_counts"]["total"] == theirs["cancelling"]["request_counts"]["total"]
    for one in (new, stopped, theirs["validating"], theirs["cancelling"]):
        assert_times(one)


def test_recorded_batches_that_fail(shared, service):
    """One bad line of September 2026: `failed`, counts of zero, no files, the error in a list."""
    rows = [row["payload"] for row in recorded(shared, "batch-objects")]
    (failed,) = [row for row in rows if row["status"] == "failed"]
    body = {"model": "gpt-4o-mini"}
    asked = uploaded(service, {**line("a"), "body": body})
    ours = reached(service, created(service, asked, metadata=failed["metadata"]))
    assert differences(failed, ours, "batch", whole=False) == []
    assert ours["errors"] == failed["errors"]
    assert ours["request_counts"] == failed["request_counts"]
    (refused,) = [row for row in rows if row["request_counts"]["failed"]]
    several = uploaded(service, *[line(f"r-{n}", reasoning_effort="low") for n in range(9)])
    ours = reached(service, created(service, several))
    assert refused["request_counts"] == {"total": 9, "completed": 0, "failed": 9}
    assert ours["request_counts"] == refused["request_counts"]
    assert differences(refused, ours, "batch", whole=False) == []


def test_recorded_batches_that_end_part_way(shared, tmp_path):
    """Cancelled and expired: files of what was done; the rest is in neither count.

    At 200,000 times the speed the window closes after 0.43 s, in a stage of 0.75 s.
    """
    rows = {row["payload"]["status"]: row["payload"] for row in recorded(shared, "batch-objects")}
    with serving(tmp_path, "--in-progress=150000", "--validating=0", speed=200_000) as service:
        asked = uploaded(service, *[line(f"r-{n}") for n in range(8)])
        to_cancel, to_expire = created(service, asked), created(service, asked)
        while not got(service, f"/v1/batches/{to_cancel['id']}")["request_counts"]["completed"]:
            time.sleep(0.01)
        call(service, "POST", f"/v1/batches/{to_cancel['id']}/cancel")
        ended = [reached(service, one) for one in (to_cancel, to_expire)]
        (documented,) = recorded(shared, "error-lines-documented")
        documented["id"] = f"batch_req_{'0' * 32}"
        left = lines_of(service, ended[1]["error_file_id"])
    for ours, status in zip(ended, ("cancelled", "expired"), strict=True):
        assert differences(rows[status], ours, "batch", whole=False) == []
        counts = ours["request_counts"]
        assert 0 < counts["completed"] < counts["total"] == 8
        assert counts["failed"] == rows[status]["request_counts"]["failed"] == 0
    assert differences(documented, left[0], "line") == []
    assert left[0]["error"] == documented["error"]


def test_recorded_file_objects(shared, service):
    """A batch file of 2025 and of 2026, and the answer to its deletion."""
    *kept, deleted = [row["payload"] for row in recorded(shared, "file-objects")]
    for theirs in kept:
        content = "{}".ljust(theirs["bytes"] - 1) + "\n"
        uploading = form(content, theirs["filename"])
        ours = json.loads(call(service, "POST", "/v1/files", **uploading)[2])
        assert differences(theirs, ours, "file") == []
        assert ours["bytes"] == theirs["bytes"]
        assert_times(theirs)
        assert_times(ours)
        assert got(service, f"/v1/files/{ours['id']}") == ours
    answer = json.loads(call(service, "DELETE", f"/v1/files/{ours['id']}")[2])
    assert differences(deleted, answer, "file") == []


def test_recorded_output_lines_of_chat(shared, service):
    """Success lines of 2025 and an abridged one of 2026, member by member.

    The 2026 one was shortened by its author: what it has, ours has.
    """
    batch = reached(service, created(service, uploaded(service, line("request-1"))))
    (ours,) = lines_of(service, batch["output_file_id"])
    theirs = recorded(shared, "output-lines-chat")
    for one in theirs:
        assert differences(one, ours, "line") == []
    (abridged,) = recorded(shared, "output-lines-chat-gpt6-abridged")
    assert differences(abridged, ours, "line", whole=False) == []
    usage = ours["response"]["body"]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert ours["id"].startswith(f"batch_req_{batch['finalizing_at']:08x}")
    created_at = ours["response"]["body"]["created"]
    assert batch["in_progress_at"] <= created_at <= batch["finalizing_at"]


def test_recorded_output_lines_of_responses(shared, service):
    """Success lines without and with a reasoning item before the message."""
    plain, reasoned = recorded(shared, "output-lines-responses")
    pairs = {"gpt-4o-mini": plain, "gpt-5.2": reasoned}
    for model, theirs in pairs.items():
        body = {"model": model, "input": "A red Porsche?"}
        if model == "gpt-5.2":
            body |= {"reasoning": {"effort": "high"}, "max_output_tokens": 100_000}
        asked = uploaded(service, {**line("a"), "url": RESPONSES, "body": body})
        batch = reached(service, created(service, asked, endpoint=RESPONSES))
        (ours,) = lines_of(service, batch["output_file_id"])
        assert differences(theirs, ours, "line") == []
        kinds = [
            [item["type"] for item in one["response"]["body"]["output"]] for one in (theirs, ours)
        ]
        assert kinds[0] == kinds[1]


def test_recorded_error_line_of_a_context_that_is_too_long(shared, service):
    """HTTP 400 in the error file: `error` is null, the sentence is the recorded one.

    24 tokens in the messages and a limit of 1,000,000 for a window of 128,000.
    """
    theirs = recorded(shared, "error-lines")[0]
    asked = uploaded(service, line("request-5", max_tokens=1_000_000))
    batch = reached(service, created(service, asked))
    assert (batch["status"], batch["output_file_id"]) == ("completed", None)
    (ours,) = lines_of(service, batch["error_file_id"])
    same = {**theirs, "id": ours["id"]}  # an id of August 2024, which had another shape
    assert differences(same, ours, "line") == []
    error, said = (one["response"]["body"]["error"] for one in (ours, theirs))
    assert {**error, "message": ""} == {**said, "message": ""}
    assert numberless(error["message"]) == numberless(said["message"])
    assert "128000 tokens" in error["message"]
    assert "1000000 in the completion" in error["message"]


def test_recorded_error_line_of_a_spent_quota(shared, service):
    """HTTP 429 in the error file, switched on as a fault of one batch.

    What the recording says in its line, ours says to a request; our line of 429 has the sentence
    of a rate limit.
    """
    theirs = recorded(shared, "error-lines")[1]
    asked = uploaded(service, line("sou_2003_115"))
    batch = created(service, asked, metadata={"votebook_fault": "lines_429"})
    (ours,) = lines_of(service, reached(service, batch)["error_file_id"])
    place = "line.response.body.error"
    said, told = (one["response"]["body"].pop("error") for one in (theirs, ours))
    assert differences(theirs, ours, "line") == []
    assert differences({**said, "type": told["type"]}, told, place) == []
    headers = {"X-Votebook-Fault": "no_credit"}
    status, _, text = call(service, "GET", "/v1/batches", **headers)
    assert (status, json.loads(text)) == (429, {"error": said})


def numberless(sentence):
    """A sentence with its numbers, and what was not kept of it, taken out."""
    return re.sub(r"[0-9][0-9,]*", "N", sentence)


GOOD = {"endpoint": ENDPOINT, "completion_window": "24h", "input_file_id": "file-x"}
BATCH = "batch_" + "0" * 32
REQUESTS = {
    "retrieve an unknown batch": ("GET", f"/v1/batches/{BATCH}", {}),
    "batch id with a wrong prefix": ("GET", "/v1/batches/invalid", {}),
    "no API key": ("GET", "/v1/batches", {"Authorization": None}),
    "create with an unsupported endpoint": (
        "POST",
        "/v1/batches",
        {"body": {**GOOD, "endpoint": "/v1/invalid/endpoint"}},
    ),
    "metadata value is a list": (
        "POST",
        "/v1/batches",
        {"body": {**GOOD, "metadata": {"tags": ["a"]}}},
    ),
    "create without input_file_id": (
        "POST",
        "/v1/batches",
        {"body": {**GOOD, "input_file_id": None}},
    ),
    "upload with an extension other than .jsonl and purpose batch": (
        "POST",
        "/v1/files",
        form("{}", "requests.txt"),
    ),
    "content or retrieve of an unknown file": ("GET", "/v1/files/file-x/content", {}),
}
SUPERSEDED = {
    "Supported values are: '/v1/chat/completions', '/v1/completions', '/v1/embeddings',"
    " and '/v1/responses'.": "the list of August 2025; ours is that of December 2025",
}


def test_recorded_http_errors(shared, service):
    """Status and error object; members that were not kept are not compared."""
    rows = recorded(shared, "http-errors")
    asked = [row for row in rows if row["case"] in REQUESTS]
    assert len(asked) == len(rows) - 3, "the others have tests of their own below"
    for row in asked:
        method, path, more = REQUESTS[row["case"]]
        status, _, text = call(service, method, path, **more)
        theirs, ours = row["body"]["error"], json.loads(text)["error"]
        assert (row["case"], status) == (row["case"], row["status"])
        assert set(ours) == {"message", "type", "param", "code"}
        message = theirs.pop("message")
        assert theirs.items() <= ours.items(), row["case"]
        if not any(message.endswith(old) for old in SUPERSEDED):
            assert re.fullmatch(kept(message), ours["message"])


def kept(message):
    """A pattern for a recorded sentence in which some names were not kept."""
    return ".+".join(re.escape(part) for part in message.split(HIDDEN))


def test_recorded_error_of_cancelling_what_is_complete(shared, service):
    """409, which the SDK would try again if it may; a cancelled batch may be cancelled again."""
    (row,) = [row for row in recorded(shared, "http-errors") if row["case"].startswith("cancel")]
    batch = reached(service, created(service, uploaded(service, line("a"))))
    status, _, text = call(service, "POST", f"/v1/batches/{batch['id']}/cancel")
    assert (status, json.loads(text)) == (row["status"], row["body"])


def test_recorded_error_of_a_content_that_may_not_be_downloaded(shared, service):
    """400 for a file of the purpose user_data."""
    (row,) = [row for row in recorded(shared, "http-errors") if "user_data" in row["case"]]
    file = json.loads(call(service, "POST", "/v1/files", **form("x", "a.txt", "user_data"))[2])
    status, _, text = call(service, "GET", f"/v1/files/{file['id']}/content")
    assert status == row["status"]
    assert row["body"]["error"].items() <= json.loads(text)["error"].items()


def test_recorded_error_of_an_upload_that_is_too_large(shared, tmp_path):
    """One byte above 209,715,200; looked at without sending so much."""
    (row,) = [row for row in recorded(shared, "http-errors") if "size limit" in row["case"]]
    file = {"filename": "a.jsonl", "n_bytes": 209_715_201}
    with pytest.raises(errors.ServiceError) as caught:
        files.check_batch_file(file, tmp_path / "unread")
    ours = texts.error_object(caught.value)["error"]
    assert caught.value.status == row["status"]
    assert row["body"]["error"].items() <= ours.items()


NOT_OURS = {
    "Model parameter is required.": "the form of August 2025; ours is that of September 2026",
    "Messages parameter is required.": "the form of August 2025; ours is that of September 2026",
    "Enqueued request limit reached for text-embedding-3-small in organization org-\u2026.": (
        "this service refuses embeddings at once"
    ),
}


def broken():
    """A file with every bad line of the recordings; the first is JSON, or the upload is refused."""
    return [
        {**line("a"), "custom_id": None},
        "not json",
        {**line("b"), "method": None},
        {**line("c"), "url": None},
        {**line("d"), "body": None},
        {**line("e"), "body": {"model": "gpt-4o-mini"}},
        {**line("f"), "url": "/v1/completions"},
        line("g", model="nonexistent-model-xyz"),
        line("h", stream=True),
        line("twice"),
        line("twice"),
        line("i", model="gpt-4o"),
    ]


def test_recorded_validation_errors(shared, service):
    """Code, sentence and param of each; every bad line is reported, with its number."""
    bad = reached(service, created(service, uploaded(service, *broken())))
    absent = reached(service, created(service, "file-none"))
    full = uploaded(service, line("a", model="gpt-4o", messages=long_message()))
    crowded = [reached(service, one) for one in [created(service, full), created(service, full)]]
    (queued,) = [one for one in crowded if one["status"] == "failed"]
    found = [*bad["errors"]["data"], *absent["errors"]["data"], *queued["errors"]["data"]]
    assert [one["line"] for one in bad["errors"]["data"]] == [*range(1, 10), 11, 12]
    for row in recorded(shared, "validation-errors"):
        theirs = row["item"]
        if any(theirs["message"].startswith(old) for old in NOT_OURS):
            continue
        same = [one for one in found if re.fullmatch(template(theirs["message"]), one["message"])]
        assert [(one["code"], one["param"]) for one in same] == [(theirs["code"], theirs["param"])]
        assert set(same[0]) == set(theirs)
        assert (same[0]["line"] is None) == (theirs["line"] is None)


def long_message():
    """A message of about 60,000 tokens, of which the queue of gpt-4o takes one and not two."""
    return [{"role": "user", "content": "soup " * 60_000}]


def template(message):
    """A pattern for a recorded sentence whose names and numbers stand for others."""
    free = r"\{model\}|\{org\}|xxx|2,000,000|" + HIDDEN
    return ".+".join(re.escape(part) for part in re.split(free, message))


def test_the_sdk_reads_a_recording_and_our_answer_alike(shared, service):
    """Both are batches to the SDK's types in strict mode."""
    ours = created(service, uploaded(service, line("a")))
    for row in recorded(shared, "batch-objects"):
        if "object" in row["payload"] and row["payload"]["id"]:
            openai.types.Batch.model_validate(row["payload"], strict=True)
    assert openai.types.Batch.model_validate(ours, strict=True).id == ours["id"]
