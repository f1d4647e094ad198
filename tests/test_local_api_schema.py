"""Every JSON answer of the local service, read by the published specification and by the SDK.

The specification is repaired as `specification.py` says and proves; the SDK's types are strict.
"""

import functools
import json
import os
import signal
import time

import jsonschema
import openai
import pytest
import specification
from test_local_api import client_of

from lib import local_api

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
ENDED = ("completed", "failed", "expired", "cancelled")
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}},
    "required": ["mood"],
    "additionalProperties": False,
}
STRICT = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": SCHEMA}}


@pytest.fixture(scope="module")
def accepts(shared):
    """Checks a value against a schema of the repaired specification, by its name."""
    return functools.partial(faults, specification.repaired(specification.read(shared)))


def faults(document, name, value):
    """What a schema of a document says against a value."""
    # The document's own references start at its root.
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    found = jsonschema.Draft202012Validator(schema).iter_errors(value)
    return [f"{name}.{'.'.join(map(str, one.absolute_path))}: {one.message}" for one in found]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a service whose stages can be seen."""
    options = ("--validating=0.05", "--in-progress=0.2", "--finalizing=0.05")
    endpoint = local_api.start(tmp_path_factory.mktemp("state"), options=options)
    with client_of(endpoint) as made:
        yield made
    os.kill(endpoint["pid"], signal.SIGTERM)


def read(accepts, name, raw):
    """What the SDK makes of an answer that the specification accepts."""
    assert accepts(name, json.loads(raw.text)) == []
    return raw.parse()


def line(custom_id, url=CHAT, **body):
    """A request about a text."""
    asked = {"input": "Lovely soup."}
    if url == CHAT:
        asked = {"messages": [{"role": "user", "content": "Lovely soup."}]}
    body = {"model": "gpt-6-luna", **asked, **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def submitted(client, accepts, *lines, url=CHAT, **more):
    """A new batch of these requests."""
    content = "".join(json.dumps(one) + "\n" for one in lines).encode()
    sent = client.files.with_raw_response.create(file=("a.jsonl", content), purpose="batch")
    file = read(accepts, "OpenAIFile", sent)
    made = client.batches.with_raw_response.create(
        input_file_id=file.id, endpoint=url, completion_window="24h", **more
    )
    return read(accepts, "Batch", made)


def lived(client, accepts, batch):
    """A batch when it has ended; each of its answers on the way is read too."""
    until, statuses = time.monotonic() + 10, [batch.status]
    while batch.status not in ENDED:
        assert time.monotonic() < until, f"still {batch.status}"
        batch = read(accepts, "Batch", client.batches.with_raw_response.retrieve(batch.id))
        statuses.append(batch.status)
        time.sleep(0.005)
    return batch, list(dict.fromkeys(statuses))


def lines_of(client, file_id):
    """The lines of a result file."""
    text = client.files.content(file_id).read().decode()
    return [json.loads(one) for one in text.removesuffix("\n").split("\n")]


def test_the_recordings_contradict_the_specification_and_not_the_repaired_one(shared, accepts):
    """Each recorded batch and file object is refused before the repairs and accepted after them."""
    published = specification.read(shared)
    folder = shared / "openai" / "payloads"
    found = []
    for path in sorted(folder.glob("curator-*.jsonl")):
        rows = [json.loads(row) for row in path.read_text().split("\n") if row]
        bodies = [row["response"]["body"] for row in rows if row["edited"] is None]
        found += [json.loads(one) for one in bodies if not one.startswith('{"id": "batch_req_')]
    for path in (folder / "batch-objects.jsonl", folder / "file-objects.jsonl"):
        rows = [json.loads(row)["payload"] for row in path.read_text().split("\n") if row]
        found += [row for row in rows if {"object", "created_at", "id"} <= set(row) and row["id"]]
    names = {"batch": "Batch", "file": "OpenAIFile"}
    contradicted = [one for one in found if faults(published, names[one["object"]], one)]
    assert len(found) > 50
    assert len(contradicted) > len(found) - 3  # two file objects have no member that is null
    assert [accepts(names[one["object"]], one) for one in found] == [[]] * len(found)


def test_each_repair_is_needed(shared):
    """The members that may be null now are there, and might not be null before."""
    published = specification.read(shared)
    for repair in specification.MAY_BE_NULL:
        members = published["components"]["schemas"][repair.schema]["properties"]
        for name in repair.members:
            validator = jsonschema.Draft202012Validator({**published, **members[name]})
            assert not validator.is_valid(None), f"{repair.schema}.{name}: {repair.reason}"
    paths = [operation for path in published["paths"].values() for operation in path.values()]
    assert {status for one in paths for status in one["responses"]} == {"200", "429"}
    content = published["paths"][specification.CONTENT]["get"]["responses"]["200"]["content"]
    assert list(content) == ["application/json"]


def test_the_whole_life_of_a_batch_is_accepted(client, accepts):
    """Created, validated, run, finalized and completed with an output and an error file."""
    lines = [line(f"r-{n}", response_format=STRICT) for n in range(20)]
    batch = submitted(client, accepts, *lines, line("bad", max_tokens=1), metadata={"run": "1"})
    batch, statuses = lived(client, accepts, batch)
    assert statuses == ["validating", "in_progress", "finalizing", "completed"]
    for file_id in (batch.input_file_id, batch.output_file_id, batch.error_file_id):
        read(accepts, "OpenAIFile", client.files.with_raw_response.retrieve(file_id))
    for answer in lines_of(client, batch.output_file_id):
        body = answer["response"]["body"]
        assert accepts("CreateChatCompletionResponse", body) == []
        openai.types.chat.ChatCompletion.model_validate(body, strict=True)
    (refused,) = lines_of(client, batch.error_file_id)
    assert accepts("ErrorResponse", refused["response"]["body"]) == []


def test_a_failed_batch_is_accepted(client, accepts):
    """The list of errors, with and without a line."""
    bad = submitted(client, accepts, {"custom_id": "r"}, line("stream", stream=True))
    assert lived(client, accepts, bad)[1][-1] == "failed"
    gone = client.batches.with_raw_response.create(
        input_file_id="file-none", endpoint=CHAT, completion_window="24h"
    )
    assert lived(client, accepts, read(accepts, "Batch", gone))[0].errors.data[0].line is None


def test_cancelled_batches_are_accepted(client, accepts):
    """Cancelled before it starts and in the middle; once more when it is cancelled."""
    early = submitted(client, accepts, line("r"))
    read(accepts, "Batch", client.batches.with_raw_response.cancel(early.id))
    assert lived(client, accepts, early)[1][-1] == "cancelled"
    late = submitted(client, accepts, *[line(f"r-{n}") for n in range(20)])
    while client.batches.retrieve(late.id).status != "in_progress":
        time.sleep(0.005)
    read(accepts, "Batch", client.batches.with_raw_response.cancel(late.id))
    assert lived(client, accepts, late)[1][-1] == "cancelled"
    read(accepts, "Batch", client.batches.with_raw_response.cancel(late.id))


def test_an_expired_batch_is_accepted(tmp_path, accepts):
    """At 400,000 times the speed the window closes after 0.22 s, in a stage of 0.5 s."""
    endpoint = local_api.start(tmp_path, speed=400_000, options=("--in-progress=200000",))
    with client_of(endpoint) as client:
        batch = submitted(client, accepts, *[line(f"r-{n}") for n in range(20)])
        assert lived(client, accepts, batch)[1][-1] == "expired"
    os.kill(endpoint["pid"], signal.SIGTERM)


def test_responses_in_a_batch_are_accepted_by_the_sdk(client, accepts):
    """The specification at hand has no Responses API; the SDK's types are strict about it."""
    schema_format = {"type": "json_schema", "name": "a", "strict": True, "schema": SCHEMA}
    bodies = [
        {},
        {"instructions": "Be brief.", "text": {"format": schema_format}},
        {"max_output_tokens": 1},
        {"model": "gpt-4o-mini", "prompt_cache_key": "k"},
    ]
    lines = [line(f"r-{n}", RESPONSES, **body) for n, body in enumerate(bodies)]
    for model in ("gpt-6-luna", "gpt-4o-mini"):
        mine = [one for one in lines if one["body"]["model"] == model]
        batch = submitted(client, accepts, *mine, url=RESPONSES)
        batch = lived(client, accepts, batch)[0]
        for answer in lines_of(client, batch.output_file_id):
            text = json.dumps(answer["response"]["body"])
            openai.types.responses.Response.model_validate_json(text, strict=True)


@pytest.mark.parametrize("purpose", ["assistants", "batch", "fine-tune", "vision", "user_data"])
def test_files_of_every_purpose_are_accepted(client, accepts, purpose):
    """Uploaded, listed and deleted, with and without an expiry."""
    files = client.files.with_raw_response
    part, lifetime = ("a.jsonl", b"{}"), {"anchor": "created_at", "seconds": 3_600}
    for more in ({}, {"expires_after": lifetime}):
        file = read(accepts, "OpenAIFile", files.create(file=part, purpose=purpose, **more))
        read(accepts, "ListFilesResponse", files.list(purpose=purpose))
        read(accepts, "DeleteFileResponse", files.delete(file.id))


def test_lists_are_accepted(client, accepts):
    """Pages in the middle, the last one, and an empty one."""
    submitted(client, accepts, line("r"))
    page = read(accepts, "ListBatchesResponse", client.batches.with_raw_response.list(limit=1))
    for after in (page.data[-1].id, [one.id for one in client.batches.list()][-1]):
        read(accepts, "ListBatchesResponse", client.batches.with_raw_response.list(after=after))
    read(accepts, "ListFilesResponse", client.files.with_raw_response.list(limit=1))
    read(accepts, "ListFilesResponse", client.files.with_raw_response.list(purpose="vision"))


def test_models_and_completions_are_accepted(client, accepts):
    """Each model by itself and all in a list; plain, strict and cut completions."""
    listed = read(accepts, "ListModelsResponse", client.models.with_raw_response.list())
    for one in listed.data:
        read(accepts, "Model", client.models.with_raw_response.retrieve(one.id))
    messages = [{"role": "user", "content": "Lovely soup."}]
    for model in ("gpt-6-luna", "gpt-4o-mini"):
        for more in ({}, {"response_format": STRICT}, {"max_completion_tokens": 1}):
            create = client.chat.completions.with_raw_response.create
            made = create(model=model, messages=messages, **more)
            read(accepts, "CreateChatCompletionResponse", made)


@pytest.mark.parametrize(
    ("status", "ask"),
    [
        (404, lambda client: client.batches.retrieve("batch_none")),
        (400, lambda client: client.batches.retrieve("none")),
        (404, lambda client: client.files.retrieve("none")),
        (404, lambda client: client.files.content("none")),
        (404, lambda client: client.files.delete("none")),
        (404, lambda client: client.models.retrieve("none")),
        (405, lambda client: client.models.delete("gpt-6-luna")),
        (400, lambda client: client.embeddings.create(model="text-embedding-3-small", input="a")),
        (400, lambda client: client.batches.list(limit=0)),
        (400, lambda client: client.files.create(file=("a.txt", b"{}"), purpose="batch")),
        (
            400,
            lambda client: client.batches.create(
                input_file_id="f", endpoint="/v1/embeddings", completion_window="24h"
            ),
        ),
        (400, lambda client: client.chat.completions.create(model="gpt-6-luna", messages=[])),
        (401, lambda client: client.with_options(api_key="other").models.list()),
        (403, lambda client: client.models.list(extra_headers={"Host": "evil.example"})),
    ],
)
def test_refusals_are_accepted(client, accepts, status, ask):
    """An error object of the specification, which the SDK makes its exception of."""
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client)
    assert caught.value.status_code == status
    answer = caught.value.response.json()
    assert accepts("ErrorResponse", answer) == []
    assert caught.value.body == answer["error"]
    assert caught.value.request_id.startswith("req_")
