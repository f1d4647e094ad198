"""Faults in the lines of results: paid and lost, twice, in contradiction, or never run.

A line that was not run is not paid: it leaves the sums of the batch and is not in the book. A line
that was run stays in both, whatever the result files say of it.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import orjson

from lib.local_api import answering, book, context, texts
from lib.local_api.faults import keeping, refusals, stages, switches, table

FOREIGN = "votebook-foreign-{}"
TOO_FAST = "You've exceeded the 1000 request/min rate limit, please slow down and try again."
NOT_RUN = {
    "lines_429": texts.refusal(429, TOO_FAST, None, "rate_limit_exceeded", "rate_limit_error"),
    "lines_no_credit": texts.refusal(
        429, refusals.QUOTA, None, "insufficient_quota", "insufficient_quota"
    ),
    "lines_500": texts.refusal(500, texts.SERVER_ERROR, kind="server_error"),
    "lines_unsupported": texts.refusal(
        400, texts.ours(refusals.UNSUPPORTED), "votebook", "unsupported_parameter"
    ),
    "lines_no_access": texts.refusal(403, refusals.NO_ACCESS, None, "model_not_found"),
}
EMPTY = ("lines_status_0",)


class Record(NamedTuple):
    """A line of a result file: for which of the two, and what it says besides its id."""

    flag: bytes
    line: dict


def not_run(service: context.Service, row: dict, chunk: answering.Chunk) -> answering.Chunk:
    """Answers without those that a fault keeps from being run."""
    all_refused = stages.struck(service, row, "all_lines_refused")
    switched = _switched(service, row, lambda name: name in NOT_RUN or name in EMPTY)
    if not (all_refused or switched):
        return chunk
    made = []
    for record in _parsed(chunk.records):
        name = "lines_no_access" if all_refused else _first(switched, row, record)
        made.append(
            _refused(name, record) if name and record.flag == answering.COMPLETED else record
        )
    keeping.keep(service)
    return _summed(chunk, made)


def written(service: context.Service, row: dict, records: bytes) -> bytes:
    """The records that the result files are to be made of; what was paid for may be missing."""
    switched = _switched(service, row, lambda name: name not in NOT_RUN and name not in EMPTY)
    if not switched:
        return records
    made, found = [], list(_parsed(records))
    for place, record in enumerate(found):
        name = _first(switched, row, record)
        other = found[place - 1]
        made += _spoilt(name, record, other) if name else [record]
    keeping.keep(service)
    return b"".join(map(_packed, made))


def _switched(
    service: context.Service, row: dict, wanted: Callable[[str], bool]
) -> list[switches.Switch]:
    """The line faults that are switched on for a batch."""
    both = (service.faults.attached.get(row["id"], {}), service.faults.on)
    return [
        switch
        for one in both
        for name, switch in one.items()
        if name in table.LINE and wanted(name)
    ]


def _first(switched: Iterable[switches.Switch], row: dict, record: Record) -> str | None:
    """The first fault that strikes an answered line; the same for the same line of a batch."""
    if record.flag != answering.COMPLETED:
        return None
    key = f"{row['n']}/{record.line['custom_id']}"
    return next((one.rule.fault.name for one in switched if switches.strikes(one, key)), None)


def _spoilt(name: str, record: Record, other: Record) -> list[Record]:
    """What a line that was run becomes in the result files."""
    line = record.line
    match name:
        case "lines_missing":
            return []
        case "lines_doubled":
            return [record, record]
        case "lines_contradict":
            return [record, Record(record.flag, _contradicting(line, other.line))]
        case "lines_in_both":
            return [record, _refused("lines_500", record)]
        case "lines_foreign":
            foreign = FOREIGN.format(line["custom_id"])
            return [record, Record(record.flag, {**line, "custom_id": foreign})]
    return [Record(record.flag, _answered(line, _cut_short(line["response"]["body"])))]


def _contradicting(line: dict, other: dict) -> dict:
    """Another answer for the same request: that of its neighbour, or one without a word."""
    own, theirs = line["response"], other["response"]
    has_answer = other["custom_id"] != line["custom_id"] and theirs and theirs["status_code"] == 200
    if has_answer and _said(theirs["body"]) != _said(own["body"]):
        return _answered(line, theirs["body"])
    return _answered(line, _with_content(own["body"], "{}"))


def _said(body: dict) -> list:
    """What an answer says, piece by piece."""
    if "choices" in body:
        return [one["message"]["content"] for one in body["choices"]]
    parts = [part for item in body["output"] for part in item.get("content") or []]
    return [part.get("text") for part in parts]


def _with_content(body: dict, content: str) -> dict:
    """An answer that says something else."""
    if "choices" in body:
        return _with_message(body, {"content": content})
    part = {"type": "output_text", "text": content, "annotations": [], "logprobs": []}
    last = {**body["output"][-1], "content": [part]}
    return {**body, "output": [*body["output"][:-1], last]}


def _cut_short(body: dict) -> dict:
    """An answer whose completion limit was reached before its first word."""
    if "choices" in body:
        return _with_message(body, {"content": None}, finish_reason="length")
    reason = {"reason": "max_output_tokens"}
    return {**body, "status": "incomplete", "incomplete_details": reason, "output": []}


def _with_message(body: dict, members: dict, **changes: str) -> dict:
    """A chat completion with other members in its message, and in the choice around it."""
    choices = [
        {**one, "message": {**one["message"], **members}, **changes} for one in body["choices"]
    ]
    return {**body, "choices": choices}


def _refused(name: str, record: Record) -> Record:
    """The line of a request that was not run."""
    response = record.line["response"]
    if name in EMPTY:
        nothing = {**response, "status_code": 0, "body": None}
        return Record(record.flag, {**record.line, "response": nothing})
    error = texts.error_object(NOT_RUN[name])
    if name == "lines_no_access":
        model = f"{response['body'].get('model')}-batch"
        error["error"]["message"] = refusals.NO_ACCESS.format(model)
    said = {**response, "status_code": NOT_RUN[name].status, "body": error}
    return Record(answering.FAILED, {**record.line, "response": said})


def _answered(line: dict, body: dict) -> dict:
    """A line with another body."""
    return {**line, "response": {**line["response"], "body": body}}


def _summed(chunk: answering.Chunk, made: list[Record]) -> answering.Chunk:
    """A chunk of these records with sums to match; what has no usage was not run."""
    n_failed = sum(record.flag == answering.FAILED for record in made)
    before = book.tokens(chunk.records)
    records = b"".join(map(_packed, made))
    after = book.tokens(records)
    sums = {name: getattr(chunk, name) - before[name] + after[name] for name in answering.TOKENS}
    return dataclasses.replace(
        chunk, records=records, n_completed=len(made) - n_failed, n_failed=n_failed, **sums
    )


def _parsed(records: bytes) -> Iterable[Record]:
    """The records of a chunk."""
    for record in records.split(b"\n")[:-1]:
        yield Record(record[:1], orjson.loads(b"{" + record[1:]))


def _packed(record: Record) -> bytes:
    """A record as it is kept."""
    return record.flag + orjson.dumps(record.line)[1:] + b"\n"
