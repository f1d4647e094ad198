"""Lines of result files as a service writes them, and the rows that they give."""

import json

import pandas as pd

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

ADDED = ["key", "attempt", "model", "spend_usd"]


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
