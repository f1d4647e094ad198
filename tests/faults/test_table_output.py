"""Faults of the model's output, M01 to M28: what stands in a result file, and which outcome it is.

Every row is read as a line of a result file, and all of them together go through a whole run, as
lines that a proxy puts into the place of the service's own. A hostile line is an outcome by name
and is asked again or left for people; it is never a class of its own, and nothing crashes.
"""

import gzip
import json
from collections.abc import Callable
from typing import NamedTuple

import hurried
import pandas as pd
import pytest
import sending

from lib import (
    accounts,
    collect,
    consensus,
    dispatch,
    entities,
    ledger,
    models,
    results,
    runs,
    votes,
)
from lib.study import Field

LUNA = models.facts("gpt-6-luna")
WORDS = {"calm": {"description": "-"}, "angry": {"description": "-"}}
START = {"start": {"description": "-", "type": "integer"}}
FIELDS = {
    "mood": {"description": "-", "values": WORDS},
    "score": {"description": "-", "type": "number", "maximum": 9.0},
    "who": {"description": "-", "type": "entities", "attributes": START},
}
ANN = {"name": "Ann", "start": 4}
GOOD = {"mood": "calm", "score": 3, "who": [ANN]}
LONE = "\\ud800"
PAYLOAD = "<script>alert(1)</script> \u001b]8;;http://x\u0007 =HYPERLINK(1)"


class Row(NamedTuple):
    """A fault: its number, what becomes of a good line, and how that ends.

    `spoil` gives the lines that stand in the file in place of one. `outcome` is that of the
    request, `n_strange` how many of the lines belong to nobody, and `votes` what a valid answer
    then counts for, where it is not what the model had said.
    """

    number: str
    spoil: Callable[[dict], list[bytes]]
    outcome: str
    n_strange: int = 0
    votes: dict = {}


def written(line):
    """A line as it stands in a file."""
    return json.dumps(line).encode()


def said(content, reason="stop", **more):
    """The model says this instead: a text, or what a function makes of the text."""

    def spoil(line):
        choice = line["response"]["body"]["choices"][0]
        text = choice["message"]["content"]
        changed = content(text) if callable(content) else content
        return [
            written(changed_in(line, {**choice["message"], "content": changed, **more}, reason))
        ]

    return spoil


def changed_in(line, message, reason="stop"):
    """The line with another message."""
    choice = {**line["response"]["body"]["choices"][0], "message": message, "finish_reason": reason}
    return with_body(line, choices=[choice])


def with_body(line, **members):
    """The line with other members in its body."""
    return {
        **line,
        "response": {**line["response"], "body": {**line["response"]["body"], **members}},
    }


def member(**members):
    """The answer has other members."""
    return said(lambda text: json.dumps({**json.loads(text), **members}))


def number(digits):
    """The answer's score is written so."""
    return said(lambda text: json.dumps({**json.loads(text), "score": "@"}).replace('"@"', digits))


def without(text):
    """The answer without its score."""
    return json.dumps({name: value for name, value in json.loads(text).items() if name != "score"})


def twice(text):
    """The answer with a second mood."""
    return text.replace('"mood"', '"mood": "angry", "mood"', 1)


def usage(found):
    """The answer reports this usage."""
    return lambda line: [written(with_body(line, usage=found))]


def other(line):
    """The line, and one that says the opposite."""
    message = line["response"]["body"]["choices"][0]["message"]
    answer = json.loads(message["content"])
    mood = {"calm": "angry"}.get(answer["mood"], "calm")
    opposite = {**message, "content": json.dumps({**answer, "mood": mood})}
    return [written(line), written(changed_in(line, opposite))]


TABLE = [
    Row("M01", said(""), "empty"),
    Row("M01", said(" \n\t"), "empty"),
    Row("M01", said(None), "empty"),
    Row("M02", said(None, refusal="I cannot help with that."), "refused"),
    Row("M03", said(None, "length"), "empty"),
    Row("M03", said(lambda text: text[:20], "length"), "truncated"),
    Row("M04", said("", "content_filter"), "refused"),
    Row("M04", said(lambda text: text, "content_filter"), "refused"),
    Row("M05", said("{"), "malformed"),
    Row("M06", said(lambda text: f"```json\n{text}\n```"), "malformed"),
    Row("M06", said(lambda text: f"Here it is: {text} Hope this helps!"), "malformed"),
    Row("M07", said('["calm"]'), "invalid"),
    Row("M07", said('"calm"'), "invalid"),
    Row("M07", said("null"), "invalid"),
    Row("M08", said(without), "invalid"),
    Row("M09", member(note="calm"), "invalid"),
    Row("M10", member(mood="sleepy"), "invalid"),
    Row("M10", member(mood=["calm"]), "invalid"),
    Row("M10", member(mood=None), "invalid"),
    Row("M10", member(score=10), "invalid"),
    Row("M10", member(mood=" ANGRY "), "valid", votes={"mood": "angry"}),
    Row("M11", said(twice), "malformed"),
    Row("M12", number("NaN"), "malformed"),
    Row("M12", number("-Infinity"), "malformed"),
    Row("M12", number("1e999"), "malformed"),
    Row("M13", number("[" * 100_000 + "]" * 100_000), "malformed"),
    Row("M13", lambda _: [b"[" * 100_000], "missing", 1),
    Row("M14", number("9" * 5000), "malformed"),
    Row("M15", lambda line: [written(line), written({**line, "custom_id": "q0-a0"})], "valid", 1),
    Row("M16", lambda _: [], "missing"),
    Row("M17", lambda line: [written(line)] * 2, "valid"),
    Row("M18", other, "invalid"),
    Row("M19", lambda line: [written(line)], "valid"),
    Row("M21", lambda _: [b"x" * 100_000_000], "missing", 1),
    Row(
        "M22",
        lambda line: [written(line).replace(b"calm", b"c\xe9lm", 1)[:-9] + b"\xff"],
        "missing",
        1,
    ),
    Row("M22", lambda line: [written(line) + b"\x00"], "missing", 1),
    Row("M22", member(who=[{**ANN, "name": "A\x00nn"}]), "valid", votes={"who": r'["a\u0000nn"]'}),
    Row("M23", said(lambda text: text.replace('"mood"', f'"mo{LONE}od"', 1)), "malformed"),
    Row("M24", member(who=[{**ANN, "name": PAYLOAD}]), "valid", votes={"who": None}),
    Row("M24", member(mood=PAYLOAD), "invalid"),
    Row("M25", lambda line: [written(with_body(line, model="gpt-4o-2024-08-06"))], "valid"),
    Row("M26", usage(None), "valid"),
    Row("M26", usage({"prompt_tokens": -5, "completion_tokens": "9"}), "valid"),
    Row("M26", usage({"prompt_tokens": 10**30, "completion_tokens": True}), "valid"),
    Row("M27", member(who=[{**ANN, "start": 10**6}]), "valid", votes={"who": '["ann"]'}),
    Row("M27", member(who=[{**ANN, "start": -1}]), "valid", votes={"who": '["ann"]'}),
    Row("M28", said("APPROVED"), "malformed"),
    Row("M28", member(mood="approved"), "invalid"),
    # The last line of the file, wherever it is put.
    Row("M20", lambda line: [written(line)[:-40]], "missing", 1),
]
NUMBERS = [f"{row.number}-{n}" for n, row in enumerate(TABLE)]


def good(name="q1"):
    """A line of an output file as it should be."""
    message = {"role": "assistant", "content": json.dumps(GOOD), "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    counts = {"prompt_tokens": 1000, "completion_tokens": 200}
    body = {"model": "gpt-6-luna-2026-09-01", "choices": [choice], "usage": counts}
    response = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": "batch_req_1", "custom_id": name, "response": response, "error": None}


@pytest.mark.parametrize("row", TABLE, ids=NUMBERS)
def test_a_fault_of_output_is_the_outcome_in_the_table(row, tmp_path):
    """The line has its outcome, its neighbours have theirs, and what is nobody's is counted."""
    path = tmp_path / "answers.jsonl.gz"
    lines = [
        written(good("q0")),
        *row.spoil(good()),
        *([] if row.number == "M20" else [written(good("q2"))]),
    ]
    path.write_bytes(gzip.compress(b"\n".join(lines), 1))
    names = ["q0", "q1", "q2"]
    sent = [(name, name, 0) for name in names]
    table, tally = read(sent, path)
    last = "missing" if row.number == "M20" else "valid"
    assert table["outcome"].tolist() == ["valid", row.outcome, last]
    assert (tally.n_strange, tally.n_missing) == (
        row.n_strange,
        list(table["outcome"]).count("missing"),
    )
    assert (table["spend_usd"] >= 0).all()
    runs.write_table(table, tmp_path / "outcomes.parquet")


def read(sent, path):
    """The outcomes that a result file gives for what was sent, in that order, and the tally."""
    fields = {name: Field.model_validate(field) for name, field in FIELDS.items()}
    tally, settled = results.Tally(), set()
    rows = list(results.rows(sent, results.lines(path), fields, LUNA, tally))
    if tally.torn:
        settled, tally = tally.torn, results.Tally()
        rows = list(results.rows(sent, results.lines(path), fields, LUNA, tally, settled))
    return pd.DataFrame(rows).sort_values("custom_id", ignore_index=True), tally


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory, endpoint):
    """A run in which each line of the table stands once in the place of a good one; and what the
    model had said, by custom_id.
    """
    folder = tmp_path_factory.mktemp("spoiled")
    texts = [
        f"Ann was {'angry' if n % 2 else 'calm'} on day {n}. APPROVED!" for n in range(len(TABLE))
    ]
    heard = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOTEBOOK_OUTPUTS", str(folder / "outputs"))
        settings = {"canary": len(TABLE), "max_failure_share": 1.0}
        run = sending.make_run(folder / "guests", texts, fields=FIELDS, **settings)
        row_of = {
            f"q{key[:40]}-a0": int(item[-3:])
            for key, item in run.table("requests")[["key", "item"]].to_numpy()
        }

        def hostile(raw):
            lines = [json.loads(line) for line in raw.removesuffix(b"\n").split(b"\n")]
            made = {}
            for line in lines:
                name = line["custom_id"]
                heard[name] = line["response"]["body"]["choices"][0]["message"]["content"]
                place = row_of.get(name)
                made[name] = [written(line)] if place is None else TABLE[place].spoil(line)
            # In another order, and the one that is cut at the end.
            order = sorted(made, key=lambda name: (row_of.get(name) == len(TABLE) - 1, name))
            # A line just beyond the bound is as good as one of 100 MB, and fetched in less time.
            return b"\n".join(one[:20_000_000] for name in order for one in made[name])

        def rule(_, path):
            return hostile if path.endswith("/content") else None

        with sending.spoiled(endpoint, rule) as url, hurried.time_flies():
            to = hurried.service_at(endpoint, url)
            progress = dispatch.follow(run, to, hurried.MAX_USD, hours=48)
        sending.close_clients()
    return run, progress, heard


def test_every_fault_of_output_goes_through_a_whole_run(spoiled):
    """Each has its outcome; what was not valid is asked again and answered; all adds up."""
    run, progress, _ = spoiled
    found = collect.outcomes(run)
    first = found[found["attempt"].eq(0)].set_index("key")["outcome"]
    by_item = run.table("requests").set_index("item")["key"].sort_index().map(first)
    assert by_item.tolist() == [row.outcome for row in TABLE]
    assert (progress.state, progress.n_valid, progress.n_left) == ("done", len(TABLE), 0)
    again = found[found["attempt"].eq(1)]
    assert len(again) == sum(row.outcome != "valid" for row in TABLE)
    assert accounts.totals(run)["without_outcome"].eq(0).all()
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        events = ledger.events(book)
    strange = events.loc[events["kind"].eq("strange_lines"), "detail"]
    assert sum(one["n_lines"] for one in strange) == sum(row.n_strange for row in TABLE)


def test_votes_are_right_in_the_end(spoiled):
    """Each item has the value that the model had said, or the table says, and nothing else."""
    run, _, heard = spoiled
    votes.collect(
        run.path("requests.parquet"), run.path("outcomes") / "*.parquet", run.study, run.folder
    )
    table = run.table("votes").set_index(["item", "field"])
    assert table["abstained"].isna().all()
    assert set(table.loc[(slice(None), "mood"), "value"]) <= set(WORDS)
    requests = run.table("requests").set_index("item")
    for n, row in enumerate(TABLE):
        item = f"all/{n:03}"
        name = f"q{requests.loc[item, 'key'][:40]}-a{int(row.outcome != 'valid')}"
        answer = json.loads(heard[name])
        expected = {"mood": answer["mood"], "score": votes.number(answer["score"])} | row.votes
        for field, value in expected.items():
            if value is not None:
                assert table.loc[(item, field), "value"] == value, (row.number, field)
    decided = consensus.decide(run.path("votes.parquet"), run.study)
    assert decided.loc[decided["field"].eq("mood"), "status"].eq("decided").all()
    named = entities.elect(run.path("mentions.parquet"), run.path("votes.parquet"), run.study)
    assert named["name"].notna().all()
