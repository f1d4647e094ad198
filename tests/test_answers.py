"""Answers: whatever a service or model writes, every request ends in exactly one named outcome."""

import gzip
import io
import itertools
import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import answers, models, results
from lib.study import Field

LUNA = models.facts("gpt-6-luna")
WORDS = {"calm": {"description": "-"}, "angry": {"description": "-"}}
FIELDS = {
    "mood": Field.model_validate({"description": "-", "values": WORDS}),
    "loud": Field.model_validate({"description": "-", "type": "boolean"}),
    "score": Field.model_validate({"description": "-", "type": "number", "maximum": 9.0}),
    "who": Field.model_validate({"description": "-", "type": "entities"}),
}
GOOD = {"mood": "calm", "loud": True, "score": 3, "who": [{"name": "Ann"}]}
CONTENT = json.dumps(GOOD)
USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 200,
    "prompt_tokens_details": {"cached_tokens": 400},
    "completion_tokens_details": {"reasoning_tokens": 64},
}
NAMED = {
    "valid",
    "empty",
    "truncated",
    "refused",
    "malformed",
    "invalid",
    "failed",
    "missing",
    "expired",
    "cancelled",
}


def sent(*names):
    """What the ledger says was sent."""
    keys = [f"k{name}" for name in names]
    return pd.DataFrame({"custom_id": list(names), "key": keys, "attempt": 0}, dtype="object")


def line(content=CONTENT, name="q1", *, reason="stop", usage=None, **message):
    """A line of an output file."""
    said = {"role": "assistant", "content": content, "refusal": None, **message}
    body = {
        "model": "gpt-6-luna-2026-09-01",
        "choices": [{"index": 0, "message": said, "finish_reason": reason}],
        "usage": USAGE if usage is None else usage,
        "system_fingerprint": "fp_1",
    }
    return whole({"status_code": 200, "request_id": "r", "body": body}, None, name)


def whole(response, error, name="q1"):
    """A line of either file."""
    said = {"id": "batch_req_1", "custom_id": name, "response": response, "error": error}
    return json.dumps(said).encode()


def refused(status, code=None, param=None, message="No.", name="q1"):
    """A line of an error file for a request that was answered with an HTTP error."""
    error = {"message": message, "type": "t", "param": param, "code": code}
    return whole({"status_code": status, "request_id": "r", "body": {"error": error}}, None, name)


def outcomes_of(asked, raw):
    """The rows that lines give, in the order of what was asked, and the number of strange ones."""
    settled = set()
    while True:
        tally = results.Tally()
        sent = asked.itertuples(index=False, name=None)
        rows = list(results.rows(sent, raw, FIELDS, LUNA, tally, settled))
        if not tally.torn:
            break
        assert not tally.torn & settled
        settled |= tally.torn
    assert tally.n_missing == sum(row["outcome"] == "missing" for row in rows)
    rows.sort(key=lambda row: asked["custom_id"].tolist().index(row["custom_id"]))
    return pd.DataFrame(rows, columns=[*answers.missing(""), *ADDED]), tally.n_strange


def only(*raw):
    """The row that these lines give for q1, and the number of strange lines."""
    table, n_strange = outcomes_of(sent("q1"), raw)
    assert len(table) == 1
    return table.iloc[0], n_strange


def deep(n):
    """A list in a list, n times."""
    return "[" * n + "]" * n


ADDED = ["key", "attempt", "model", "spend_usd"]
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


OTHER = json.dumps({**GOOD, "mood": "angry"})


@pytest.mark.parametrize(
    ("raw", "outcome"),
    [
        ([line(), line()], "valid"),
        ([line(), refused(500)], "valid"),
        ([line("{"), line(), refused(500)], "valid"),
        ([line(), line(OTHER)], "invalid"),
        ([line(), line(OTHER), line()], "invalid"),
        ([refused(500), whole(None, {"code": "batch_expired"})], None),
        ([line(""), line("{")], None),
    ],
)
def test_several_lines_about_one_request(raw, outcome):
    """Repeated lines count once, contradictions are invalid, and the order never matters."""
    rows = [only(*order)[0].to_dict() for order in itertools.permutations(raw)]
    assert all(row == rows[0] for row in rows)
    assert outcome in (None, rows[0]["outcome"])
    if rows[0]["message"] and "different" in rows[0]["message"]:
        assert rows[0]["message"] == "2 different answers to one request"


def test_both_files_make_one_account():
    """Output lines, error lines and requests without a line: 2 + 1 + 1 of 4 sent."""
    raw = [line(name="q2"), refused(400, name="q3"), line("", "q1"), line(name="q99")]
    table, n_strange = outcomes_of(sent("q1", "q2", "q3", "q4"), raw)
    assert table["outcome"].tolist() == ["empty", "valid", "failed", "missing"]
    assert table["key"].tolist() == ["kq1", "kq2", "kq3", "kq4"]
    assert n_strange == 1


def test_nothing_sent():
    """An empty batch gives an empty account, and its lines are strange."""
    table, n_strange = outcomes_of(sent(), [line()])
    assert (len(table), n_strange) == (0, 1)


def test_lines_end_at_newlines_alone(tmp_path):
    """U+2028, U+2029 and U+0085 do not cut a line; CR LF ends and a cut last line are read."""
    texts = ["a\u2028b", "c\u2029d", "e\u0085f", "g\x0bh\x0ci"]
    said = [json.dumps({"t": text}, ensure_ascii=False).encode() for text in texts]
    path = tmp_path / "answers.jsonl.gz"
    path.write_bytes(
        gzip.compress(said[0] + b"\n" + said[1] + b"\r\n\n" + said[2] + b"\n" + said[3])
    )
    assert list(results.lines(path)) == [said[0], said[1], b"", said[2], said[3]]


def test_a_huge_line_is_passed_over(tmp_path):
    """A line beyond the bound does not fill the memory, and its neighbours are read."""
    size = results.MAX_LINE_BYTES
    huge = b"x" * (2 * size + 5)
    path = tmp_path / "answers.jsonl.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(line() + b"\n" + huge + b"\n" + line(name="q2") + b"\n" + b"y" * size)
    found = list(results.lines(path))
    assert [len(one) < 1000 for one in found] == [True] * 4
    table, n_strange = outcomes_of(sent("q1", "q2"), found)
    assert (table["outcome"].tolist(), n_strange) == (["valid", "valid"], 2)


MEMBERS = "custom_id response error body choices message content usage status_code code refusal"
MEMBERS = f"{MEMBERS} finish_reason prompt_tokens mood who".split()
NAMES = st.text(max_size=5) | st.sampled_from(MEMBERS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
LINES = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.builds(lambda value, n: whole(value, None, f"q{n}"), JSON, st.integers(0, 3)),
    st.builds(lambda value, n: whole(None, value, f"q{n}"), JSON, st.integers(0, 3)),
    st.builds(lambda value, n: line(value, f"q{n}"), JSON, st.integers(0, 3)),
    st.builds(lambda value, n: line(json.dumps(value), f"q{n}"), JSON, st.integers(0, 3)),
    st.builds(lambda value: line(usage=value), JSON),
    st.builds(
        lambda at, byte: line()[:at] + byte + line()[at + 1 :],
        st.integers(0, 400),
        st.binary(max_size=2),
    ),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(LINES, max_size=6), st.randoms())
def test_every_request_has_one_outcome(raw, random):
    """Nothing raises, and each request sent has one named outcome, in any order of lines."""
    asked = sent("q0", "q1", "q2")
    table, n_strange = outcomes_of(asked, raw)
    assert table["custom_id"].tolist() == ["q0", "q1", "q2"]
    assert set(table["outcome"]) <= NAMED
    assert 0 <= n_strange <= len(raw)
    assert (table["spend_usd"] >= 0).all()
    table["content"].dropna().map(str.encode)
    shuffled = random.sample(raw, len(raw))
    again, n_again = outcomes_of(asked, shuffled)
    pd.testing.assert_frame_equal(again, table)
    assert n_again == n_strange
