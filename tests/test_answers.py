"""Answers: whatever a service or model writes, every request ends in exactly one named outcome."""

import io
import json

import pandas as pd
import pytest
from lines import CONTENT, GOOD, line, only, outcomes_of, refused, sent, whole

from lib import answers


def deep(n):
    """A list in a list, n times."""
    return "[" * n + "]" * n


LONE = chr(0xD800)
HOSTILE = [
    ("", "empty"),
    (None, "empty"),
    (" \n\t", "empty"),
    ("{", "malformed"),
    (f"```json\n{CONTENT}\n```", "malformed"),
    (f"Here it is: {CONTENT}", "malformed"),
    (f"{CONTENT} Hope this helps!", "malformed"),
    (f"\ufeff{CONTENT}", "malformed"),
    ('["calm"]', "invalid"),
    ('"calm"', "invalid"),
    ("null", "invalid"),
    (json.dumps({"mood": "calm"}), "invalid"),
    (json.dumps({**GOOD, "more": 1}), "invalid"),
    (json.dumps({**GOOD, "mood": "sleepy"}), "invalid"),
    (json.dumps({**GOOD, "mood": " CALM "}), "valid"),
    (json.dumps({**GOOD, "mood": None}), "invalid"),
    (json.dumps({**GOOD, "mood": ["calm"]}), "invalid"),
    (json.dumps({**GOOD, "loud": "maybe"}), "invalid"),
    (json.dumps({**GOOD, "loud": "True"}), "valid"),
    (json.dumps({**GOOD, "score": 10}), "invalid"),
    (json.dumps({**GOOD, "score": "3.0"}), "valid"),
    (json.dumps({**GOOD, "who": None}), "invalid"),
    (json.dumps({**GOOD, "who": []}), "valid"),
    (json.dumps({**GOOD, "who": ["Ann"]}), "invalid"),
    (json.dumps({**GOOD, "who": [{"name": None}]}), "invalid"),
    (CONTENT.replace('"mood"', '"mood": "angry", "mood"'), "malformed"),
    (CONTENT.replace("3", "NaN"), "malformed"),
    (CONTENT.replace("3", "Infinity"), "malformed"),
    (CONTENT.replace("3", "-Infinity"), "malformed"),
    (CONTENT.replace("3", "1e999"), "malformed"),
    (CONTENT.replace("3", "9" * 5000), "malformed"),
    (CONTENT.replace("3", "9" * 400), "malformed"),
    (CONTENT.replace("3", "9" * 300), "invalid"),
    (CONTENT.replace("3", deep(100_000)), "malformed"),
    (CONTENT.replace("3", deep(90)), "invalid"),
    (CONTENT.replace("3", deep(500)), "malformed"),
    ("[" * 100_000, "malformed"),
    ('{"a":' * 100_000, "malformed"),
    (json.dumps({**GOOD, "who": [{"name": "[" * 5000}]}), "valid"),
    (CONTENT.replace("Ann", "A\\ud800"), "malformed"),
    (CONTENT.replace("Ann", f"A{LONE}"), "malformed"),
    (CONTENT.replace("Ann", "A\\ud83c\\udf5c"), "valid"),
    (CONTENT.replace("Ann", "A\u2028\u2029\u0085"), "valid"),
    (CONTENT.replace("Ann", "\\u0000"), "valid"),
    (CONTENT.replace("Ann", "<script>alert(1)</script>"), "valid"),
    (CONTENT.replace("Ann", "\\u001b[31m"), "valid"),
    (CONTENT.replace("Ann", "=HYPERLINK(1)"), "valid"),
    ([{"type": "text", "text": CONTENT}], "malformed"),
    (7, "malformed"),
    ({}, "malformed"),
]


@pytest.mark.parametrize(("content", "outcome"), HOSTILE, ids=range(len(HOSTILE)))
def test_what_a_model_may_write(content, outcome):
    """Each content has its outcome, keeps its usage, and can be written to a file."""
    row, n_strange = only(line(content))
    assert (row["outcome"], n_strange) == (outcome, 0)
    assert row["n_output_tokens"] == 200
    assert row["message"] is None if outcome in ("valid", "empty") else row["message"]
    pd.DataFrame([row]).to_parquet(io.BytesIO())


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        (line(None, refusal="I cannot help."), "refused"),
        (line(CONTENT, refusal="I cannot help."), "refused"),
        (line("", reason="content_filter"), "refused"),
        (line(CONTENT, reason="content_filter"), "refused"),
        (line("", reason="length"), "empty"),
        (line(None, reason="length"), "empty"),
        (line(CONTENT[:20], reason="length"), "truncated"),
        (line(CONTENT, reason=None), "valid"),
        (line(CONTENT, reason=["stop"]), "valid"),
        (whole({"status_code": 200, "body": None}, None), "empty"),
        (whole({"status_code": 200, "body": {"choices": []}}, None), "empty"),
        (whole({"status_code": 200, "body": {"choices": [None]}}, None), "empty"),
        (whole({"status_code": 200, "body": {"choices": {"0": 1}}}, None), "empty"),
        (whole({"status_code": True, "body": {}}, None), "failed"),
        (whole({"status_code": "200", "body": {}}, None), "failed"),
        (whole({"status_code": 10**30, "body": {}}, None), "failed"),
        (whole(None, None), "failed"),
        (whole([], "late"), "failed"),
        (whole({}, {"code": {"a": 1}, "message": []}), "failed"),
        (whole(None, {"code": json.loads(deep(80)), "message": "-"}), "failed"),
        (whole(None, {"code": "batch_expired", "message": "-"}), "expired"),
        (whole(None, {"code": "batch_cancelled", "message": "-"}), "cancelled"),
        (whole(None, {"code": "request_timeout", "message": "-"}), "failed"),
        (refused(400, "context_length_exceeded"), "failed"),
        (refused(500), "failed"),
        (refused(0), "failed"),
    ],
)
def test_what_a_service_may_write(raw, outcome):
    """Refusals, filters, lengths, broken shapes and both kinds of errors keep their names."""
    assert only(raw)[0]["outcome"] == outcome


@pytest.mark.parametrize(
    "raw",
    [
        b"not json",
        b"{}",
        b"[]",
        b"null",
        b'"q1"',
        b'{"custom_id": null}',
        b'{"custom_id": 1}',
        line()[:-10],
        line().replace(b"q1", b"q9"),
        line().replace(b"calm", b"c\xe9"),
        b"\xff\xfe" + line(),
        b"\xef\xbb\xbf" + line(),
        b"\x00",
        deep(100_000).encode(),
        b'"\\ud800' + deep(100_000).encode(),
        b'{"custom_id": "q1", "x": "\\ud800", "y": ' + deep(100_000).encode() + b"}",
        b'{"custom_id": "q1", "x": "\\ud800", "y": ' + b"9" * 5000 + b"}",
        b"too long",
    ],
)
def test_lines_that_belong_to_nobody(raw):
    """A line that cannot be read or names no request is counted, and its request is missing."""
    row, n_strange = only(raw)
    assert (row["outcome"], n_strange, row["spend_usd"]) == ("missing", 1, 0.0)


def test_blank_lines_are_nothing():
    """An empty line, as at the end of a file, is not counted."""
    assert only(b"", line(), b"")[1] == 0


@pytest.mark.parametrize(
    ("raw", "again"),
    [
        (refused(400, "unsupported_parameter"), False),
        (refused(401), False),
        (refused(403, "model_not_found"), False),
        (refused(404), False),
        (refused(408), True),
        (refused(409), True),
        (refused(429, "rate_limit_exceeded"), True),
        (refused(429, "insufficient_quota"), False),
        (refused(500), True),
        (refused(503), True),
        (refused(599), True),
        (refused(600), False),
        (refused(0), True),
        (whole(None, {"code": "batch_expired"}), True),
        (whole(None, {"code": "batch_cancelled"}), True),
        (whole(None, {"code": "request_timeout"}), True),
        (whole({"status_code": 400, "body": {}}, {"code": "odd"}), False),
        (line(), False),
        (line(""), False),
        (line("{"), False),
        (line(None, refusal="No."), False),
    ],
)
def test_what_may_be_sent_again(raw, again):
    """Again as it is: only what the service failed, never what the question caused."""
    table, _ = outcomes_of(sent("q1"), [raw])
    assert answers.retryable(table).tolist() == [again]


@pytest.mark.parametrize(
    ("raw", "blocked", "account"),
    [
        (refused(401, "invalid_api_key"), True, True),
        (refused(402), True, True),
        (refused(403), True, False),
        (refused(403, "model_not_found"), True, False),
        (refused(404, "model_not_found"), True, False),
        (refused(429, "insufficient_quota"), True, True),
        (whole(None, {"code": "billing_hard_limit_reached"}), True, True),
        (refused(500, "model_not_found"), True, False),
        (refused(429, "rate_limit_exceeded"), False, False),
        (refused(400, "unsupported_parameter"), False, False),
        (refused(404), False, False),
        (whole(None, {"code": "batch_expired"}), False, False),
        (line(), False, False),
        (line(None, refusal="No."), False, False),
    ],
)
def test_what_the_account_is_the_cause_of(raw, blocked, account):
    """No key, no credit, no access: neither the service's fault nor the question's."""
    table, _ = outcomes_of(sent("q1"), [raw])
    assert answers.blocked(table).tolist() == [blocked]
    assert (answers.blames_account(table) & answers.blocked(table)).tolist() == [account]
    assert not (answers.blocked(table) & answers.retryable(table)).any()


def test_error_keeps_its_words():
    """An HTTP error stands in the body while `error` is null; code and message are kept."""
    row, _ = only(refused(400, "unsupported_value", "temperature", "Only 1."))
    found = row[["status", "code", "param", "message"]].tolist()
    assert found == [400, "unsupported_value", "temperature", "Only 1."]


def test_spend_of_an_answer():
    """600 x $0.05 + 400 x $0.005 + 200 x $0.25, each a million tokens: $0.000082."""
    row, _ = only(line())
    assert row["spend_usd"] == pytest.approx((600 * 0.05 + 400 * 0.005 + 200 * 0.25) / 1e6)
    counts = [row[f"n_{kind}_tokens"] for kind in ("input", "cached", "output", "reasoning")]
    assert counts == [1000, 400, 200, 64]
    assert (row["answered_by"], row["model"]) == ("gpt-6-luna-2026-09-01", "gpt-6-luna")


@pytest.mark.parametrize("content", ["", "{", json.dumps({"mood": "x"})])
def test_unusable_answers_are_paid_too(content):
    """What was billed counts, whether it can be used or not."""
    assert only(line(content))[0]["spend_usd"] == only(line())[0]["spend_usd"]


@pytest.mark.parametrize(
    "usage",
    [
        {},
        [],
        "none",
        {"prompt_tokens": -5, "completion_tokens": "9"},
        {"prompt_tokens": True, "completion_tokens": 1.5},
        {"prompt_tokens": 10**30, "completion_tokens": None},
        {"prompt_tokens_details": 7, "completion_tokens_details": []},
        {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}},
    ],
)
def test_wrong_usage(usage):
    """Usage that is missing or cannot be is unknown, never negative, and spoils no answer."""
    row, _ = only(line(usage=usage))
    assert row["outcome"] == "valid"
    assert 0 <= row["spend_usd"] < 1e-6


def test_simulated_answers_are_marked():
    """The built-in annotators sign their answers, and the mark is kept."""
    assert not only(line())[0]["simulated"]
    assert only(line().replace(b"fp_1", b"fp_simulated_2"))[0]["simulated"]
