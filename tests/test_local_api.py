"""The life of batches on the local service, seen by the official SDK over HTTP."""

import concurrent.futures
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import time

import openai
import psutil
import pytest

from lib import errors, local_api
from lib.local_api import launch

ENDPOINT = "/v1/chat/completions"
QUICK = ("--validating=0.05", "--in-progress=0.2", "--finalizing=0.05")
ENDED = ("completed", "failed", "expired", "cancelled")
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}},
    "required": ["mood"],
    "additionalProperties": False,
}


@contextlib.contextmanager
def running(state, *options, **settings):
    """A client of a service that ends with the block."""
    endpoint = local_api.start(state, options=options, **settings)
    try:
        with client_of(endpoint) as client:
            yield client
    finally:
        stop(state, signal.SIGTERM)


def client_of(endpoint):
    """The official client, checking each answer strictly against its types."""
    return openai.OpenAI(
        base_url=endpoint["base_url"],
        api_key=endpoint["token"],
        max_retries=0,
        _strict_response_validation=True,
    )


def stop(state, number):
    """Send a signal to the service on a state folder and wait until it and its workers are gone."""
    endpoint = launch.live(state)
    if endpoint is None:
        return
    process = psutil.Process(endpoint["pid"])
    family = [process, *process.children(recursive=True)]
    process.send_signal(number)
    until = time.monotonic() + 10
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family):
        assert time.monotonic() < until, "the service and its workers are gone"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a service with short stages."""
    with running(tmp_path_factory.mktemp("state"), *QUICK) as made:
        yield made


def line(custom_id, text="Lovely soup.", model="gpt-6-luna", **body):
    """A request about a text."""
    messages = [{"role": "user", "content": text}]
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": ENDPOINT,
        "body": {"model": model, "messages": messages, **body},
    }


def strict(schema):
    """The response format for a strict schema."""
    holder = {"name": "answer", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": holder}


def submitted(client, lines, name="requests.jsonl", **more):
    """A new batch of these requests."""
    content = "".join(json.dumps(one) + "\n" for one in lines).encode()
    file = client.files.create(file=(name, content), purpose="batch")
    wanted = {"endpoint": ENDPOINT, "completion_window": "24h", **more}
    return client.batches.create(input_file_id=file.id, **wanted)


def ended(client, batch, timeout_seconds=15.0):
    """A batch when it has ended."""
    until = time.monotonic() + timeout_seconds
    while (batch := client.batches.retrieve(batch.id)).status not in ENDED:
        assert time.monotonic() < until, f"still {batch.status}"
        time.sleep(0.02)
    return batch


def rows(client, file_id):
    """The lines of a result file; none when there is no file."""
    if file_id is None:
        return []
    content = client.files.content(file_id).read()
    assert content.endswith(b"\n")
    return [json.loads(one) for one in content.removesuffix(b"\n").split(b"\n")]


def test_a_batch_lives_as_the_recordings_show(client):
    """Created with zeros, validated, run with growing counts, and completed with one file."""
    lines = [line(f"r-{n}", response_format=strict(SCHEMA)) for n in range(60)]
    batch = submitted(client, lines, metadata={"run": "pilot", "shard": "1"})
    assert batch.status == "validating"
    assert re.fullmatch(r"batch_[0-9a-f]{32}", batch.id)
    assert int(batch.id[6:14], 16) == batch.created_at
    assert batch.expires_at == batch.created_at + 86_400
    assert batch.model is None
    assert batch.request_counts.to_dict() == {"total": 0, "completed": 0, "failed": 0}
    assert batch.usage.total_tokens == 0
    seen = [batch]
    while seen[-1].status not in ENDED:
        time.sleep(0.01)
        seen.append(client.batches.retrieve(batch.id))
    statuses = list(dict.fromkeys(one.status for one in seen))
    assert statuses == ["validating", "in_progress", "finalizing", "completed"]
    counts = [one.request_counts.completed for one in seen]
    assert counts == sorted(counts)
    assert len(set(counts)) > 3
    assert all(one.output_file_id is None for one in seen[:-1])
    batch = seen[-1]
    assert batch.model == "gpt-6-luna"
    assert batch.error_file_id is None
    assert batch.errors is None
    assert batch.metadata == {"run": "pilot", "shard": "1"}
    assert batch.request_counts.to_dict() == {"total": 60, "completed": 60, "failed": 0}
    times = (batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at)
    assert list(times) == sorted(times)


def test_output_lines_have_the_recorded_form_and_their_own_order(client):
    """Every request is answered once, out of order, and the sum of usage is the batch's."""
    lines = [line(f"r-{n}", response_format=strict(SCHEMA)) for n in range(60)]
    batch = ended(client, submitted(client, lines))
    answers = rows(client, batch.output_file_id)
    ids = [answer["custom_id"] for answer in answers]
    assert ids != [one["custom_id"] for one in lines]
    assert sorted(ids) == sorted(one["custom_id"] for one in lines)
    assert len({answer["id"] for answer in answers}) == 60
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    for answer in answers:
        assert list(answer) == ["id", "custom_id", "response", "error"]
        assert answer["error"] is None
        assert answer["id"].startswith(f"batch_req_{batch.finalizing_at:08x}")
        assert answer["response"]["status_code"] == 200
        body = answer["response"]["body"]
        completion = openai.types.chat.ChatCompletion.model_validate(body, strict=True)
        assert completion.system_fingerprint.startswith("fp_simulated")
        usage = {name: usage[name] + body["usage"][name] for name in usage}
    assert usage["prompt_tokens"] == batch.usage.input_tokens
    assert usage["completion_tokens"] == batch.usage.output_tokens
    again = ended(client, submitted(client, lines))
    assert [one["custom_id"] for one in rows(client, again.output_file_id)] == ids


def test_refused_lines_go_to_the_error_file_with_error_null(client):
    """A refusal of one line is an HTTP answer in the error file; the other lines are answered."""
    bad_schema = {**SCHEMA, "required": []}
    lines = [
        line("good"),
        line("cap", max_tokens=5),
        line("cold", temperature=0),
        line("schema", response_format=strict(bad_schema)),
        line("word", response_format={"type": "json_object"}),
        line("long", "word " * 10, max_completion_tokens=128_000, reasoning_effort="low"),
        line("none", messages=[]),
    ]
    batch = ended(client, submitted(client, lines))
    assert batch.status == "completed"
    assert batch.request_counts.to_dict() == {"total": 7, "completed": 2, "failed": 5}
    assert {one["custom_id"] for one in rows(client, batch.output_file_id)} == {"good", "long"}
    refused = {one["custom_id"]: one for one in rows(client, batch.error_file_id)}
    assert all(one["error"] is None for one in refused.values())
    assert all(one["response"]["status_code"] == 400 for one in refused.values())
    errors = {name: one["response"]["body"]["error"] for name, one in refused.items()}
    assert errors["cap"]["code"] == "unsupported_parameter"
    assert errors["cold"]["param"] == "temperature"
    assert errors["schema"] == {
        "message": "Invalid schema for response_format 'answer': In context=(), 'required' is"
        " required to be supplied and to be an array including every key in properties."
        " Missing 'mood'.",
        "type": "invalid_request_error",
        "param": "response_format",
        "code": "invalid_json_schema",
    }
    assert errors["word"]["message"].startswith("'messages' must contain the word 'json'")
    assert errors["none"]["code"] == "empty_array"


def test_the_responses_endpoint_answers_in_its_own_form(client):
    """Output items and token names of the Responses API; a refusal names its own parameters."""
    schema_format = {"type": "json_schema", "name": "answer", "strict": True, "schema": SCHEMA}
    bodies = {
        "text": {"input": "Lovely soup.", "instructions": "Be brief."},
        "parts": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Soup"}]}]},
        "json": {"input": "Lovely soup.", "text": {"format": schema_format}},
        "cut": {"input": "Lovely soup.", "max_output_tokens": 1},
        "effort": {"input": "Lovely soup.", "reasoning": {"effort": "minimal"}},
        "wrong": {"input": 5},
    }
    lines = [
        {**line(name), "url": "/v1/responses", "body": {"model": "gpt-6-luna", **body}}
        for name, body in bodies.items()
    ]
    batch = ended(client, submitted(client, lines, endpoint="/v1/responses"))
    assert batch.request_counts.to_dict() == {"total": 6, "completed": 4, "failed": 2}
    answers = {one["custom_id"]: one for one in rows(client, batch.output_file_id)}
    for answer in answers.values():
        openai.types.responses.Response.model_validate(answer["response"]["body"])
    made = answers["json"]["response"]["body"]["output"]
    assert [item["type"] for item in made] == ["reasoning", "message"]
    assert set(json.loads(made[1]["content"][0]["text"])) == {"mood"}
    assert answers["cut"]["response"]["body"]["status"] == "incomplete"
    refused = {
        one["custom_id"]: one["response"]["body"]["error"]
        for one in rows(client, batch.error_file_id)
    }
    assert refused["effort"]["param"] == "reasoning.effort"
    assert refused["wrong"]["message"].startswith("Invalid type for 'input'")


def test_a_request_longer_than_the_context_window_is_refused_in_its_line(client):
    """The recorded sentence: 128,000 tokens of window, input and limit counted together."""
    batch = ended(client, submitted(client, [line("r", "soup " * 127_999, model="gpt-4o-mini")]))
    (refused,) = rows(client, batch.error_file_id)
    error = refused["response"]["body"]["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["message"].startswith(
        "This model's maximum context length is 128000 tokens. However, you requested "
    )


def test_a_batch_whose_requests_were_all_refused_completes_without_output_file(client):
    """Completed, 0 of 3 answered, the error file alone."""
    batch = ended(client, submitted(client, [line(f"r-{n}", max_tokens=1) for n in range(3)]))
    assert batch.status == "completed"
    assert batch.output_file_id is None
    assert len(rows(client, batch.error_file_id)) == 3
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 0, "failed": 3}
    assert batch.usage.total_tokens == 0


def test_the_queue_limit_fails_a_batch_later_and_is_freed_at_its_end(client):
    """gpt-4o queues 90,000 tokens in tier 1: 60,000 fit, 60,000 more only when they are done."""
    lines = [line("r", "soup " * 60_000, model="gpt-4o")]
    first = submitted(client, lines)
    second = submitted(client, lines)
    assert second.status == "validating"
    failed = ended(client, second)
    assert failed.status == "failed"
    assert [error.to_dict() for error in failed.errors.data] == [
        {
            "code": "token_limit_exceeded",
            "message": "Enqueued token limit reached for gpt-4o in organization org-local. Limit:"
            " 90,000 enqueued tokens. Please try again once some in_progress batches have been"
            " completed.",
            "param": None,
            "line": None,
        }
    ]
    assert ended(client, first).status == "completed"
    assert ended(client, submitted(client, lines)).status == "completed"


def test_cancel_before_the_start_leaves_no_files(client):
    """Cancelled while validating: `cancelling` at once, then `cancelled`, counts of zero."""
    batch = client.batches.cancel(submitted(client, [line("r")]).id)
    assert batch.status == "cancelling"
    assert batch.in_progress_at is None
    batch = ended(client, batch)
    assert batch.status == "cancelled"
    assert batch.output_file_id is batch.error_file_id is None
    assert batch.request_counts.total == 0
    assert client.batches.cancel(batch.id).status == "cancelled"


def test_lists_go_from_new_to_old_page_by_page(client):
    """The SDK's pager finds every batch once, whatever the size of a page."""
    made = [submitted(client, [line("r")], metadata={"n": str(n)}).id for n in range(5)]
    listed = [batch.id for batch in client.batches.list(limit=2)]
    assert listed[:5] == made[::-1]
    assert len(set(listed)) == len(listed)
    page = client.batches.list(limit=2, after=made[3])
    assert [batch.id for batch in page.data] == [made[2], made[1]]
    assert page.has_more
    files = [file.id for file in client.files.list(purpose="batch", limit=3, order="asc")]
    assert files[::-1] == [file.id for file in client.files.list(purpose="batch", limit=100)]
    for made_id in made:
        ended(client, client.batches.retrieve(made_id))


def test_files_live_and_go_as_recorded(client):
    """Metadata, content byte by byte, 30 days of life, and a deletion that is final."""
    content = (json.dumps(line("r")) + "\n").encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    assert re.fullmatch(r"file-[0-9A-Za-z]{22}", file.id)
    assert file.expires_at == file.created_at + 2_592_000
    assert (file.bytes, file.filename, file.status) == (
        len(content),
        "requests.jsonl",
        "processed",
    )
    assert client.files.retrieve(file.id) == file
    answer = client.files.content(file.id)
    assert answer.read() == content
    assert answer.response.headers["content-type"] == "application/octet-stream"
    disposition = answer.response.headers["content-disposition"]
    assert disposition == 'attachment; filename="requests.jsonl"'
    assert client.files.delete(file.id).to_dict() == {
        "id": file.id,
        "deleted": True,
        "object": "file",
    }
    with pytest.raises(openai.NotFoundError):
        client.files.content(file.id)
    batch = client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
    assert ended(client, batch).errors.data[0].code == "invalid_request"


def test_models_and_single_completions(client):
    """Models carry their shutdown dates; a single request passes the same checks as a line."""
    listed = {model.id: model for model in client.models.list()}
    assert "gpt-6-luna" in listed
    assert client.models.retrieve("gpt-4o-mini").shutdown_date == "2027-01-14"
    messages = [{"role": "user", "content": "Lovely soup."}]
    answer = client.chat.completions.create(model="gpt-6-luna", messages=messages)
    assert answer.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="max_completion_tokens"):
        client.chat.completions.create(model="gpt-6-luna", messages=messages, max_tokens=5)
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="gpt-0", messages=messages)


def test_expiry_and_cancel_in_the_middle_keep_what_was_done(tmp_path):
    """At 40,000 times the speed the window closes after 2.16 s, in a stage of 3.75 s.

    Requests that were not run are lines of the error file and in neither count. This service
    reserves limits of completions too: 6 times 16,000 do not fit into the 90,000 of gpt-4o. A file
    that was to live for an hour is gone.
    """
    with running(tmp_path, "--in-progress=150000", "--count-output", speed=40_000) as client:
        lifetime = {"anchor": "created_at", "seconds": 3_600}
        part = ("a.jsonl", b"{}\n")
        file = client.files.create(file=part, purpose="batch", expires_after=lifetime)
        expiring = submitted(client, [line(f"r-{n}") for n in range(40)])
        cancelled = submitted(client, [line(f"r-{n}") for n in range(40)])
        while not client.batches.retrieve(cancelled.id).request_counts.completed:
            time.sleep(0.02)
        client.batches.cancel(cancelled.id)
        reserving = [line(f"r-{n}", model="gpt-4o", max_tokens=16_000) for n in range(6)]
        refused = ended(client, submitted(client, reserving))
        assert refused.errors.data[0].code == "token_limit_exceeded"
        cancelled, expired = ended(client, cancelled), ended(client, expiring)
        assert (cancelled.status, expired.status) == ("cancelled", "expired")
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(file.id)
        assert_partial(client, cancelled, "batch_cancelled")
        assert_partial(client, expired, "batch_expired")


def assert_partial(client, batch, code):
    """Of 40 requests some were answered; all others are in the error file with this code."""
    done, left = rows(client, batch.output_file_id), rows(client, batch.error_file_id)
    counts = {"total": 40, "completed": len(done), "failed": 0}
    assert 0 < len(done) < 40
    assert batch.request_counts.to_dict() == counts
    assert {one["error"]["code"] for one in left} == {code}
    assert all(one["response"] is None for one in left)
    ids = [one["custom_id"] for one in [*done, *left]]
    assert sorted(ids) == sorted(f"r-{n}" for n in range(40))


def test_a_killed_service_goes_on_and_answers_each_line_once(tmp_path):
    """Twice SIGKILL within 400 lines: 400 answers, one for each request."""
    endpoint = local_api.start(tmp_path, options=("--in-progress=1.5",))
    batch = submitted(client_of(endpoint), [line(f"r-{n}") for n in range(400)])
    for share in (0.1, 0.5):
        client = client_of(endpoint)
        while client.batches.retrieve(batch.id).request_counts.completed < share * 400:
            time.sleep(0.01)
        stop(tmp_path, signal.SIGKILL)
        endpoint = local_api.start(tmp_path, options=("--in-progress=1.5",))
    client = client_of(endpoint)
    batch = ended(client, batch)
    ids = [one["custom_id"] for one in rows(client, batch.output_file_id)]
    assert sorted(ids) == sorted(f"r-{n}" for n in range(400))
    assert batch.request_counts.to_dict() == {"total": 400, "completed": 400, "failed": 0}
    assert not list((tmp_path / "work").iterdir())
    stop(tmp_path, signal.SIGTERM)


def test_one_service_is_started_however_many_ask_and_leaves_when_idle(tmp_path):
    """Two starts at once give one process; it leaves by itself, with exit code 0.

    Only its owner may read the endpoint file, which goes with it; the log never had the token.
    """
    start = functools.partial(local_api.start, idle_exit_seconds=0.5)
    with concurrent.futures.ThreadPoolExecutor() as executor:
        first, second = executor.map(start, [tmp_path, tmp_path])
    assert first == second
    assert (tmp_path / "endpoint.json").stat().st_mode & 0o777 == 0o600
    assert os.waitpid(first["pid"], 0)[1] == 0
    assert not (tmp_path / "endpoint.json").exists()
    assert first["token"] not in (tmp_path / "service.log").read_text()


def test_a_service_that_leaves_is_followed_by_one_with_the_same_address_and_token(tmp_path):
    """A start in the moment of a SIGTERM waits for the folder; a client need not be told.

    The second one leaves because its folder is removed.
    """
    first = local_api.start(tmp_path)
    os.kill(first["pid"], signal.SIGTERM)
    second = local_api.start(tmp_path)
    assert second["pid"] != first["pid"]
    assert {**second, "pid": 0} == {**first, "pid": 0}
    shutil.rmtree(tmp_path)
    assert os.waitpid(second["pid"], 0)[1] == 0


def test_a_service_that_cannot_start_says_why(tmp_path):
    """The sentence of the process is in the error, with the place of its log."""
    (tmp_path / "service.sqlite").write_text("not a database " * 10)
    with pytest.raises(errors.ServiceError, match="file is not a database"):
        local_api.start(tmp_path)
