"""The rules of the local service that need no network: lines, schemas, requests, clock."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from lib import errors, models
from lib.local_api import (
    annotators,
    answering,
    checks,
    clock,
    context,
    files,
    schemas,
    validate,
)
from lib.local_api.annotators import tokens

URL = "/v1/chat/completions"
OURS = "(text chosen by the local service)"
BODY = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "hello"}]}


def line(**members):
    """A line of a batch file with members changed or absent."""
    whole = {"custom_id": "r", "method": "POST", "url": URL, "body": BODY, **members}
    return json.dumps({name: value for name, value in whole.items() if value != "absent"})


def scanned(path, *lines):
    """The report on a file of these lines."""
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    return validate.scan(path, URL)


def missing(name, param):
    """Code, message and param of a member that is not there."""
    return ("missing_required_parameter", f"Missing required parameter: '{name}'.", param)


@pytest.mark.parametrize(
    ("bad", "code", "message", "param"),
    [
        ("{not json", "invalid_json_line", "This line is not parseable as valid JSON.", None),
        ("", "invalid_json_line", "This line is not parseable as valid JSON.", None),
        ('{"a": NaN}', "invalid_json_line", "This line is not parseable as valid JSON.", None),
        (line(custom_id="absent"), *missing("custom_id", "custom_id")),
        (line(method="absent"), *missing("method", "method")),
        (line(url="absent"), *missing("url", "url")),
        (line(body="absent"), *missing("body", "body")),
        (line(body={"messages": []}), *missing("model", "body.model")),
        (line(body={"model": "gpt-6-luna"}), *missing("messages", "body.messages")),
        (
            line(url="/v1/embeddings"),
            "invalid_url",
            "The URL provided for this request does not match the batch endpoint.",
            "url",
        ),
        (
            line(body={**BODY, "model": "nonexistent-model-xyz"}),
            "model_not_found",
            "The provided model 'nonexistent-model-xyz' is not supported by the Batch API.",
            "body.model",
        ),
        (
            line(body={**BODY, "model": "gpt-3.5-turbo"}),
            "model_not_found",
            "The provided model 'gpt-3.5-turbo' is not supported by the Batch API.",
            "body.model",
        ),
        (
            line(body={**BODY, "stream": True}),
            "streaming_unsupported",
            "Chat Completions: Streaming is not supported in the Batch API.",
            "body.stream",
        ),
        (
            line(custom_id="other", body={**BODY, "model": "gpt-6-sol"}),
            "mismatched_model",
            "The model 'gpt-6-sol' for this request does not match the rest of the batch. Each"
            " batch must contain requests for a single model.",
            "body.model",
        ),
        (
            line(custom_id="first"),
            "duplicate_custom_id",
            "The custom_id 'first' for this request is a duplicate of another request. The"
            " custom_id parameter must be unique for each request in a batch.",
            "custom_id",
        ),
    ],
)
def test_a_bad_line_is_reported_in_the_words_of_the_api(tmp_path, bad, code, message, param):
    """Line 2 of 3 is bad; the report names it with the recorded code, text and param."""
    report = scanned(tmp_path / "f", line(custom_id="first"), bad, line(custom_id="last"))
    expected = {"code": code, "message": message, "param": param, "line": 2}
    assert report.errors == [expected]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("[1]", "invalid_request"),
        (line(custom_id=5), "invalid_type"),
        (line(body="text"), "invalid_type"),
        (line(method="GET"), "invalid_method"),
    ],
)
def test_a_text_that_is_not_known_says_so(tmp_path, bad, code):
    """Where no recording shows the API's words, ours are marked."""
    (error,) = scanned(tmp_path / "f", bad).errors
    assert error["code"] == code
    assert error["message"].endswith(OURS)


def test_each_endpoint_has_its_own_obligatory_members(tmp_path):
    """A line for the Responses API needs `input`, and its streaming is refused too."""
    path = tmp_path / "f"
    path.write_text(line(url="/v1/responses", body={"model": "gpt-6-luna", "stream": True}))
    found = validate.scan(path, "/v1/responses").errors
    assert [error["param"] for error in found] == ["body.input", "body.stream"]


def test_all_bad_lines_are_reported(tmp_path):
    """Lines 1, 3 and 4 are bad, the last one three times over."""
    lines = ["{", line(), line(url="/v1/x", custom_id="b"), "{}"]
    found = scanned(tmp_path / "f", *lines).errors
    assert [error["line"] for error in found] == [1, 3, 4, 4, 4, 4]


def test_a_file_has_50_000_lines_at_most(tmp_path):
    """50,000 lines are fine in themselves, one more fails the file as a whole."""
    start, end = line(custom_id="@").split("@")
    report = scanned(tmp_path / "f", *(f"{start}{n}{end}" for n in range(50_001)))
    assert report.n_lines == 50_000
    (error,) = report.errors
    assert error["line"] is None
    assert error["message"].endswith(OURS)


def test_blank_lines_at_the_end_are_none(tmp_path):
    """One request and three blank lines, the last without its end, are one line."""
    report = scanned(tmp_path / "f", line(), "", " ", "\t")
    assert (report.errors, report.n_lines) == ([], 1)


def test_a_line_too_long_to_read_is_reported_without_being_held(tmp_path):
    """The line between two good ones is longer than the 16 MiB that the service reads."""
    long = line(custom_id="long", body={**BODY, "user": "x" * context.MAX_LINE_BYTES})
    report = scanned(tmp_path / "f", line(custom_id="a"), long, line(custom_id="b"))
    assert [error["line"] for error in report.errors] == [2]


def test_validation_counts_what_the_queue_reserves(tmp_path):
    """Twice "hello" (1 token, role 1, overhead 3 + 3): 16 tokens of input, 7 + 5 of output."""
    bodies = [{**BODY, "max_completion_tokens": 7}, {**BODY, "max_completion_tokens": 5}]
    lines = [line(custom_id=str(n), body=body) for n, body in enumerate(bodies)]
    report = scanned(tmp_path / "f", *lines)
    assert (report.n_input_tokens, report.n_max_output_tokens) == (16, 12)


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        {**BODY, "messages": [{"role": "system", "content": "Label."}, *BODY["messages"]]},
        {**BODY, "messages": [{"role": "user", "content": [{"type": "text", "text": "a b"}]}]},
        {
            **BODY,
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "a",
                    "schema": {
                        "type": "object",
                        "properties": {"b": {"type": "boolean"}},
                        "required": ["b"],
                        "additionalProperties": False,
                    },
                },
            },
        },
    ],
)
def test_a_request_uses_the_input_tokens_that_it_reserved(body):
    """The queue's count and the usage of the answer are one number."""
    model = models.facts("gpt-6-luna")
    completion = annotators.complete(body, "r", model)
    assert tokens.n_input_tokens(body, model.encoding) == completion.n_input_tokens


@pytest.mark.parametrize(
    ("filename", "n_bytes", "message"),
    [
        ("upload", 10, None),
        ("requests.jsonl", context.MAX_BATCH_BYTES, None),
        ("requests.JSONL", 10, None),
        ("requests.json", 10, "Invalid file format for Batch API. Must be .jsonl"),
        ("requests.jsonl.gz", 10, "Invalid file format for Batch API. Must be .jsonl"),
        ("requests.jsonl", context.MAX_BATCH_BYTES + 1, "File is too large."),
    ],
)
def test_upload_looks_at_extension_and_size(tmp_path, filename, n_bytes, message):
    """209,715,200 bytes pass, as do names without extension; more or another name do not."""
    (tmp_path / "f").write_text("{}\n")
    file = {"filename": filename, "n_bytes": n_bytes}
    if message is None:
        files.check_batch_file(file, tmp_path / "f")
        return
    with pytest.raises(errors.ServiceError) as raised:
        files.check_batch_file(file, tmp_path / "f")
    assert (str(raised.value), raised.value.status) == (message, 400)


def closed(**properties):
    """A strict object with these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def nested(n_levels):
    """Objects within objects, the innermost property a string."""
    schema = {"type": "string"}
    for _ in range(n_levels):
        schema = closed(a=schema)
    return schema


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    "schema",
    [
        closed(),
        closed(a=TEXT, b={"type": ["string", "null"], "description": "d"}),
        closed(a={"anyOf": [TEXT, {"type": "null"}]}, b={"type": "array", "items": closed(c=TEXT)}),
        closed(a={"enum": ["x", 1, None]}, b={"const": "y"}),
        {**closed(a={"$ref": "#/$defs/n"}), "$defs": {"n": closed(next={"$ref": "#"})}},
        closed(a={"type": "string", "format": "date", "pattern": "^2"}),
        closed(a={"type": "array", "items": TEXT, "minItems": 1, "maxItems": 2}),
        nested(9),
    ],
)
def test_the_strict_subset_is_accepted(schema):
    """Objects, arrays, enums, constants, unions, definitions, references and their keywords."""
    assert schemas.problem("answer", schema) is None


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "array", "items": TEXT}, "schema must be a JSON Schema of 'type: \"object\"'"),
        ({"anyOf": [closed()]}, "schema must be a JSON Schema of 'type: \"object\"', got 'type: "),
        ({**closed(a=TEXT), "required": []}, "In context=(), 'required' is required to be "),
        ({**closed(a=TEXT), "required": ["a", "b"]}, "Extra required key 'b' supplied."),
        (closed(a={"type": "object"}), "In context=('properties', 'a'), 'additionalProperties'"),
        (closed(a={"type": "array"}), "In context=('properties', 'a'), array schema missing items"),
        (closed(a={}), "In context=('properties', 'a'), schema must have a 'type' key."),
        (closed(a={"allOf": [TEXT]}), "'allOf' is not permitted."),
        (closed(a={**TEXT, "not": {}}), "'not' is not permitted."),
        (closed(a={"oneOf": [TEXT]}), "'oneOf' is not permitted."),
        (closed(a={"type": "array", "items": TEXT, "uniqueItems": True}), "'uniqueItems' is not"),
        (closed(a={**TEXT, "format": "iri"}), "'format' may not be"),
        (closed(a={"$ref": "#/$defs/none"}), "leads to no schema"),
        (closed(a={"type": "text"}), "is not a type"),
        (closed(a={"enum": []}), "at least one value"),
        (closed(a=True), "a boolean is not a schema"),
        (nested(11), "more than 10 levels"),
        (closed(a={"enum": list(range(1_001))}), "1001 enum values"),
        (closed(a={"enum": ["x" * 100 + str(n) for n in range(251)]}), "over 15000"),
        (closed(**{f"p{n}": TEXT for n in range(5_001)}), "5001 properties"),
        (closed(**{"x" * 120_001: TEXT}), "over 120000"),
    ],
)
def test_a_schema_outside_the_strict_subset_is_refused(schema, fault):
    """The first fault is told, with its place, in the sentence of the API."""
    problem = schemas.problem("answer", schema)
    assert problem.startswith("Invalid schema for response_format 'answer': ")
    assert fault in problem


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"messages": "text"}, "invalid_type", "messages"),
        ({"messages": []}, "empty_array", "messages"),
        ({"messages": ["text"]}, "invalid_type", "messages[0]"),
        ({"messages": [{"content": "a"}]}, "missing_required_parameter", "messages[0].role"),
        ({"messages": [{"role": "me", "content": "a"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "invalid_type", "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [1]}]},
            "invalid_type",
            "messages[0].content[0]",
        ),
        ({"max_tokens": 5}, "unsupported_parameter", "max_tokens"),
        ({"max_completion_tokens": "many"}, "invalid_type", "max_completion_tokens"),
        ({"temperature": 0.5}, "unsupported_value", "temperature"),
        ({"reasoning_effort": "minimal"}, "unsupported_value", "reasoning_effort"),
        ({"n": 2}, "invalid_value", "n"),
        ({"response_format": "json"}, "invalid_type", "response_format"),
        ({"response_format": {}}, "missing_required_parameter", "response_format.type"),
        ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
        (
            {"response_format": {"type": "json_schema"}},
            "missing_required_parameter",
            "response_format.json_schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "invalid_value",
            "response_format.json_schema.name",
        ),
        ({"response_format": {"type": "json_object"}}, None, "messages"),
    ],
)
def test_a_request_is_refused_when_it_is_executed(change, code, param):
    """Each fault has the code and the param of the API."""
    refusal = checks.problem({**BODY, **change}, 100, models.facts("gpt-6-luna"))
    assert (refusal.status, refusal.code, refusal.param) == (400, code, param)


MEMBERS = ("messages", "input", "response_format", "text", "reasoning", "temperature", "n", "model")
INNER = (
    "type",
    "json_schema",
    "name",
    "strict",
    "schema",
    "properties",
    "role",
    "content",
    "anyOf",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER), inner, max_size=3)
    ),
    max_leaves=8,
)


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    body=st.dictionaries(st.sampled_from(MEMBERS), JSON),
    endpoint=st.sampled_from([answering.CHAT, answering.RESPONSES]),
)
def test_whatever_a_request_holds_it_is_refused_or_answered(body, endpoint):
    """No JSON in any place leads to a 500 or stops the other lines of its batch."""
    request = {"custom_id": "r", "body": {**body, "model": "gpt-6-luna"}}
    chunk = answering.answer_lines(json.dumps(request).encode(), endpoint, 0)
    answered = json.loads(b"{" + chunk.records[1:])
    assert answered["response"]["status_code"] in (200, 400)
    assert chunk.n_completed + chunk.n_failed == 1


def test_the_clock_runs_on_over_restarts_and_never_back():
    """10 s at 100 times the speed are 1,000 s; a slower process goes on from there."""
    first = clock.Clock(real_at=1_000.0, service_at=1_000.0, speed=100.0)
    assert clock.service_time(first, 1_010.0) == 2_000.0
    resumed = clock.resumed(first, speed=1.0)
    assert clock.now(resumed) >= clock.service_time(first, resumed.real_at)
    assert clock.real_seconds_until(resumed, clock.now(resumed) - 1) == 0
