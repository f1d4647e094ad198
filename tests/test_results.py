"""Results: one outcome for each request, whatever lines a batch gave back, in whatever order."""

import gzip
import itertools
import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lines import FIELDS, GOOD, LUNA, NAMED, line, only, outcomes_of, refused, sent, whole

from lib import results

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


@settings(max_examples=100)
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


def test_rows_come_one_at_a_time():
    """The first rows are there before the last lines have been read: memory stays bounded."""
    read = []

    def raw():
        for n in range(5):
            read.append(n)
            yield line(name=f"q{n}")

    asked = sent(*(f"q{n}" for n in range(5))).itertuples(index=False, name=None)
    rows = results.rows(asked, raw(), FIELDS, LUNA, results.Tally())
    assert next(rows)["custom_id"] == "q0"
    assert read == [0]


def test_requests_with_lines_that_differ_are_torn():
    """They are named on the first reading, settled on the second; repeated lines are no tear."""
    raw = [line(), line(name="q2"), line(name="q2"), line(OTHER)]
    asked = list(sent("q1", "q2").itertuples(index=False, name=None))
    first, second = results.Tally(), results.Tally()
    assert len(list(results.rows(asked, raw, FIELDS, LUNA, first))) == 2
    assert first.torn == {"q1"}
    rows = list(results.rows(asked, raw, FIELDS, LUNA, second, first.torn))
    assert {row["custom_id"]: row["outcome"] for row in rows} == {"q1": "invalid", "q2": "valid"}
    assert second.torn == set()
