"""Faults of the service, A01 to A36: how each is caused over HTTP and how the run must end.

A row is lived through in two parts. While the fault lasts, the run stands and says as in the table;
when the cause is gone, the same command goes on to the end in the table, hours later. The service's
own book is asked then: no line is paid twice, everything that ran is in the spend, every batch with
the run's id is in the ledger.
"""

import os
import re
import signal
import time
from typing import NamedTuple

import hurried
import judge
import pytest

from lib import dispatch

CALLS = ["upload", "create", "retrieve", "content"]


class Row(NamedTuple):
    """A fault: its number, the switches that cause it, and how it must end.

    `state` and `says` are what the run tells while the fault lasts. When it is gone: the state,
    how many of the 6 requests are valid and left for review, how many lines the service ran, and
    how many batches stand as lost with what they may have cost.
    """

    number: str
    faults: dict
    state: str = "waiting"
    says: str = ""
    end: str = "done"
    n_valid: int = 6
    n_left: int = 0
    n_ran: int = 6
    n_lost: int = 0
    study: dict = {}


def at(*operations, **options):
    """The options of a fault that strikes these calls."""
    return {"only": list(operations), **options}


AGAIN = r"Run the same command again"
STRANGE = rf"a form that the Batch API does not have, or cut it off\. {AGAIN}"
NO_ANSWER = rf"local (did not answer|cannot be reached).*{AGAIN}"
PAUSED = r"local answered 429: .* It is tried again after a pause\."
CREDIT = r"Add credit to the account, then run the same command again"
NEW_KEY = r"local answered 401: .* to a key that is valid there, then run the same command again"
ACCESS = r"Ask for access in the settings of the project"
DOUBLE = {"batch_doubled": {}, "create_answer_lost": {}, "stuck_validating": {}}
HALF = {"max_failure_share": 0.6}
NOTHING = {"n_valid": 0, "n_left": 6, "n_ran": 0}
REST = {"n_valid": 4, "n_left": 2, "n_ran": 4}

TABLE = [
    Row("A01", {"service_down": at("create", seconds=0.3, count=1)}, says=NO_ANSWER),
    *(Row("A01", {"connection_dropped": at(call)}, says=NO_ANSWER) for call in CALLS),
    *(Row("A05", {"request_hangs": at(call, count=1)}, says=NO_ANSWER) for call in CALLS),
    Row("A06", {"upload_answer_lost": {}}, says=NO_ANSWER),
    Row("A07", {"create_answer_lost": {}}, says=NO_ANSWER),
    Row("A08", {**DOUBLE, "cancel_answer_lost": {}}, says=NO_ANSWER, n_lost=1),
    *(Row("A09", {"error_500_before": at(call)}, says="answered 500") for call in CALLS),
    *(Row("A10", {"error_500_after": at(call)}, says="answered 500") for call in CALLS[:3]),
    Row("A11", {"html_502": at("upload")}, says="answered 502"),
    Row("A11", {"html_503": at("create")}, says="answered 503"),
    Row("A11", {"html_504": at("retrieve")}, says="answered 504"),
    Row("A11", {"content_502": {}}, says="answered 502"),
    *(Row("A12", {"rate_limited": at(call)}, says=PAUSED) for call in CALLS),
    Row("A13", {"rate_limited_silently": at("create")}, says=PAUSED),
    Row("A13", {"rate_limited_until_date": at("create")}, says=PAUSED),
    Row("A13", {"rate_limited_for_a_day": at("create")}, says=PAUSED),
    Row("A14", {"no_credit": at("upload")}, "stopped", CREDIT),
    Row("A14", {"no_credit": at("create")}, "stopped", CREDIT),
    Row("A14", {"lines_no_credit": {"probability": 1}}, "stopped", "insufficient_quota"),
    Row("A15", {"unsupported_parameter": at("create")}, "stopped", "answered 400: "),
    Row(
        "A15",
        {"lines_unsupported": {"probability": 1}},
        "stopped",
        "6 x failed unsupported_parameter",
        end="stopped",
        **NOTHING,
    ),
    Row("A15", {"lines_unsupported": {}}, "done", n_valid=5, n_left=1, n_ran=5, study=HALF),
    *(Row("A16", {"key_revoked": at(call)}, "stopped", NEW_KEY) for call in CALLS),
    Row("A17", {"no_model_access": at("create")}, "stopped", ACCESS),
    Row("A17", {"lines_no_access": {"probability": 1}}, "stopped", "model_not_found"),
    Row("A18", {"not_ours": at("retrieve")}, says="answered 404"),
    Row("A18", {"not_ours": at("content")}, says="answered 404"),
    Row("A18", {"hidden_after_create": {"seconds": 300}}, says="answered 404"),
    Row("A19", {"conflict": at("upload")}, says="answered 409"),
    Row("A19", {"conflict": at("create")}, says="answered 409"),
    Row("A20", {"too_large": at("upload")}, "stopped", "answered 413"),
    Row("A20", {"too_large": at("create")}, "stopped", "answered 413"),
    *(Row("A21", {"answer_cut": at(call)}, says=AGAIN) for call in CALLS[:3]),
    *(Row("A21", {"answer_shortened": at(call)}, says=STRANGE) for call in CALLS[:3]),
    *(Row("A22", {"answer_in_html": at(call)}, says=STRANGE) for call in CALLS[:3]),
    *(Row("A22", {"answer_without_id": at(call)}, says=STRANGE) for call in CALLS[:3]),
    *(Row("A22", {"answer_with_empty_id": at(call)}, says=STRANGE) for call in CALLS[:3]),
    Row("A22", {"unknown_status": at("create", "retrieve")}),
    Row("A22", {"file_ids_empty": at("create", "retrieve")}),
    Row(
        "A23",
        {"fails_validation": {"lines": 3}},
        "stopped",
        "x failed invalid_json_line This line is not parseable",
        end="stopped",
        **NOTHING,
    ),
    Row("A23", {"fails_validation": {"lines": 2, "count": 1}}, "done", study=HALF, **REST),
    Row("A24", {"queue_full": {}}, says="Enqueued token limit reached"),
    Row("A24", {"queue_limit": {"tokens": 400}}, says="Enqueued token limit reached"),
    Row("A25", {"all_lines_refused": {}}, "stopped", "model_not_found"),
    Row("A26", {"expires_early": {"count": 1}}, "done"),
    Row("A27", {"cancels_itself": {"count": 1}}, "done"),
    *(Row("A28", {f"stuck_{stage}": {}}) for stage in ("validating", "in_progress", "finalizing")),
    Row("A29", {"status_backwards": {}}, "done"),
    Row("A29", {"counts_backwards": {"by": 3}}, "done"),
    Row("A30", {"counts_wrong": {"by": 2}}, "done"),
    Row("A30", {"counts_wrong": {"by": -2}}, "done"),
    Row("A31", {"list_lags": {"seconds": 500}, "create_answer_lost": {"count": 1}}, "done"),
    Row("A31", {"list_lags": {"seconds": 500}, "upload_answer_lost": {"count": 1}}, "done"),
    Row("A32", {"content_cut": {"bytes": 700}}, says=NO_ANSWER),
    Row("A32", {"content_cut": {"bytes": 0}}, says=NO_ANSWER),
    Row("A32", {"content_short": {"bytes": 700, "count": 1}}, "done"),
    Row("A32", {"content_short": {"bytes": 700}}, says="have no line in the files"),
    Row("A32", {"content_changed": {"bytes": 100, "count": 1}}, "done"),
    Row("A32", {"content_gone": {}}, says="answered 404"),
    Row("A33", DOUBLE, n_lost=1),
    Row("A36", {"created_early": {}, "create_answer_lost": {"count": 1}}, "done"),
]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service of its own, whose faults may be switched."""
    found = hurried.start(tmp_path_factory.mktemp("service"))
    yield found
    os.kill(found["pid"], signal.SIGTERM)


def name_of(row):
    """The row's number, its faults and the calls that they strike."""
    options = [
        f"{name}={value}" for one in row.faults.values() for name, value in one.items() if value
    ]
    return " ".join([row.number, *row.faults, *options])


def lived_through(row, run, to, service):
    """Steps while the fault lasts, until the run stands as the row says, for a while at most."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        progress = dispatch.advance(run, to, hurried.MAX_USD)
        said = " ".join(progress.reasons)
        told = re.search(row.says, said) if row.says else hurried.has_struck(service)
        known = len(hurried.lost_batches(run)) >= row.n_lost
        if progress.state in ("done", "stopped") or (told and known and row.state == "waiting"):
            break
    assert re.search(row.says, said), said
    assert row.says or hurried.has_struck(service)
    return progress


def ended(service, run, before):
    """The same command, when the cause is gone; gives how it ended: state and counts."""
    progress = dispatch.follow(run, hurried.service_at(service), hurried.MAX_USD, hours=4)
    found = (progress.state, progress.n_valid, progress.n_left)
    return (*found, *hurried.check(service, run, before, progress))


DONE = ("done", 6, 0, 6, 0)


@pytest.mark.parametrize("row", TABLE, ids=name_of)
def test_a_fault_of_the_service_ends_as_the_table_says(row, service, make_run):
    """While it lasts the run says what is wrong; then the same command ends it, paid once."""
    run, before = make_run(**row.study), judge.look(service)
    with hurried.time_flies() as later:
        to = hurried.service_at(service, timeout=0.5 if row.number == "A05" else 20.0)
        to = dataclasses.replace(to, grace_seconds=600 if row.number == "A31" else 120)
        with hurried.switched(service, row.faults):
            assert lived_through(row, run, to, service).state == row.state
        later(2)
        expected = (row.end, row.n_valid, row.n_left, row.n_ran, row.n_lost)
        assert ended(service, run, before) == expected
