"""Faults of the service, A01 to A36: how each is caused over HTTP and how the run must end.

A row is lived through in two parts. While the fault lasts, the run stands and says as in the table;
when the cause is gone, the same command goes on to the end in the table, hours later. The service's
own book is asked then: no line is paid twice, everything that ran is in the spend, every batch with
the run's id is in the ledger.
"""

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import socket
from typing import NamedTuple

import hurried
import judge
import pytest

from lib import dispatch, runs

CALLS = ["upload", "create", "retrieve", "content"]


class Row(NamedTuple):
    """A fault: its number, the switches that cause it, and how it must end.

    `state` and `says` are what the run tells while the fault lasts. When it is gone: the state,
    how many of the 6 requests are valid and left for review, how many lines the service ran, how
    many batches stand as lost with what they may have cost, and how many lines that ran no file
    has.
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
    n_unseen: int = 0
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
ONCE = {"count": 1}
LAG = {"seconds": 1e9, "count": 5}  # shows nothing to an audit, nor to some looks in the grace
NONE = {"n_valid": 0, "n_left": 6, "n_ran": 0}
REST = {"n_valid": 4, "n_left": 2, "n_ran": 4}

TABLE = [
    Row("A01", {"service_down": at("create", seconds=0.3, count=1)}, says=NO_ANSWER),
    *(Row("A01", {"connection_dropped": at(call)}, says=NO_ANSWER) for call in CALLS),
    Row("A05", {"request_hangs": at("create", count=1)}, says=NO_ANSWER),
    Row("A05", {"request_hangs": at("content", count=1)}, says=NO_ANSWER),
    Row("A06", {"upload_answer_lost": {}}, says=NO_ANSWER),
    Row("A07", {"create_answer_lost": {}}, says=NO_ANSWER),
    Row("A08", {**DOUBLE, "cancel_answer_lost": {}}, says=NO_ANSWER, n_lost=1),
    *(Row("A09", {"error_500_before": at(call)}, says="answered 500") for call in CALLS),
    *(Row("A10", {"error_500_after": at(call)}, says="answered 500") for call in CALLS[:3]),
    Row("A11", {"html_502": at("upload")}, says="answered 502"),
    Row("A11", {"html_503": at("create")}, says="answered 503"),
    Row("A11", {"html_504": at("retrieve")}, says="answered 504"),
    Row("A11", {"content_502": {}}, says="answered 502"),
    Row("A12", {"rate_limited": at("upload")}, says=PAUSED),
    Row("A12", {"rate_limited": at("retrieve")}, says=PAUSED),
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
        **NONE,
    ),
    Row("A15", {"lines_unsupported": {}}, "done", n_valid=5, n_left=1, n_ran=5, study=HALF),
    *(Row("A16", {"key_revoked": at(call)}, "stopped", NEW_KEY) for call in CALLS),
    Row("A17", {"no_model_access": at("create")}, "stopped", ACCESS),
    Row("A17", {"lines_no_access": {"probability": 1}}, "stopped", "model_not_found"),
    Row("A18", {"not_ours": at("retrieve")}, says="answered 404"),
    Row("A18", {"not_ours": at("content")}, says="answered 404"),
    Row("A18", {"hidden_after_create": {"seconds": 1e9}}, says="answered 404"),
    Row("A19", {"conflict": at("upload")}, says="answered 409"),
    Row("A19", {"conflict": at("create")}, says="answered 409"),
    Row("A20", {"too_large": at("upload")}, "stopped", "answered 413"),
    Row("A20", {"too_large": at("create")}, "stopped", "answered 413"),
    *(Row("A21", {"answer_cut": at(call)}, says=AGAIN) for call in CALLS[:3]),
    Row("A21", {"answer_shortened": at("create")}, says=STRANGE),
    Row("A22", {"answer_in_html": at("create")}, says=STRANGE),
    *(Row("A22", {"answer_without_id": at(call)}, says=STRANGE) for call in CALLS[:3]),
    Row("A22", {"answer_with_empty_id": at("create")}, says=STRANGE),
    Row("A22", {"unknown_status": at("create", "retrieve")}),
    Row("A22", {"file_ids_empty": at("create", "retrieve")}),
    Row(
        "A23",
        {"fails_validation": {"lines": 2}},
        "stopped",
        "x failed invalid_json_line This line is not parseable",
        end="stopped",
        **NONE,
    ),
    Row("A23", {"fails_validation": {"lines": 2, "count": 1}}, "done", study=HALF, **REST),
    Row("A24", {"queue_full": {}}, says="Enqueued token limit reached"),
    Row("A24", {"queue_limit": {"tokens": 400}}, "done"),
    Row("A25", {"all_lines_refused": {}}, "stopped", "model_not_found"),
    Row("A26", {"expires_early": {"count": 1}}, "done"),
    Row("A27", {"cancels_itself": {"count": 1}}, "done"),
    *(Row("A28", {f"stuck_{stage}": {}}) for stage in ("validating", "in_progress", "finalizing")),
    Row("A29", {"status_backwards": {}}, "done"),
    Row("A29", {"counts_backwards": {"by": 3}}, "done"),
    Row("A30", {"counts_wrong": {"by": 2}}, "done"),
    Row("A30", {"counts_wrong": {"by": -2}}, "done"),
    Row("A30", {"lines_missing": {}}, "done", n_ran=7, n_unseen=1),
    Row("A31", {"list_lags": LAG | at("list_batches"), "create_answer_lost": ONCE}, "done"),
    Row("A31", {"list_lags": LAG | at("list_files"), "upload_answer_lost": ONCE}, "done"),
    Row("A32", {"content_cut": {"bytes": 700}}, says=NO_ANSWER),
    Row("A32", {"content_cut": {"bytes": 0}}, says=NO_ANSWER),
    Row("A32", {"content_short": {"bytes": 700, "count": 1}}, "done"),
    Row("A32", {"content_short": {"bytes": 700}}, says="no line yet for"),
    Row("A32", {"content_changed": {"bytes": 100, "count": 1}}, "done"),
    Row("A32", {"content_gone": {}}, says="answered 404"),
    Row("A33", DOUBLE, n_lost=1),
    Row("A36", {"created_early": {}, "create_answer_lost": {"count": 1}}, "done"),
    # Faults of the model's output that the service can cause by itself.
    Row("M03", {"lines_null_content": {}}, "done", n_ran=7),
    Row("M15", {"lines_foreign": {}}, "done"),
    Row("M17", {"lines_doubled": {}}, "done"),
    # The second line of the service says nothing that the fields accept: the first one counts.
    Row("M18", {"lines_contradict": {}}, "done"),
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
    """Steps while the fault lasts, until the run stands as the row says."""
    said = []

    def stands(progress):
        said.extend(progress.reasons)
        if progress.state != "waiting" or row.state != "waiting":
            return progress.state != "waiting"
        told = re.search(row.says, " ".join(said)) if row.says else hurried.has_struck(service)
        return told and len(hurried.lost_batches(run)) >= row.n_lost

    progress = hurried.stepped(run, to, stands)
    assert re.search(row.says, " ".join(said)), said
    assert row.says or hurried.has_struck(service)
    return progress


def ended(service, run, before, n_unseen=0):
    """The same command, when the cause is gone; gives how it ended: state and counts."""
    progress = dispatch.follow(run, hurried.service_at(service), hurried.MAX_USD, hours=48)
    found = (progress.state, progress.n_valid, progress.n_left)
    return (*found, *hurried.check(service, run, before, progress, n_unseen))


DONE = ("done", 6, 0, 6, 0)
NOTHING = {
    "input_file_id": "file-none",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
}


@pytest.mark.parametrize("row", TABLE, ids=name_of)
def test_a_fault_of_the_service_ends_as_the_table_says(row, service, make_run):
    """While it lasts the run says what is wrong; then the same command ends it, paid once."""
    run, before = make_run(**row.study), judge.look(service)
    with hurried.time_flies() as later:
        to = hurried.service_at(service, timeout=0.5 if row.number == "A05" else 60.0)
        to = dataclasses.replace(to, grace_seconds=600 if row.number == "A31" else 120)
        with hurried.switched(service, row.faults):
            assert lived_through(row, run, to, service).state == row.state
            if row.number == "A28":
                later(30)
                assert dispatch.advance(run, to, hurried.MAX_USD).state == "waiting"
        later(2)
        expected = (row.end, row.n_valid, row.n_left, row.n_ran, row.n_lost)
        assert ended(service, run, before, row.n_unseen) == expected


@contextlib.contextmanager
def unknown_host(_):
    """An address whose host no name server knows."""
    yield "http://no-such-host.invalid/v1"


@contextlib.contextmanager
def encrypted(service):
    """An address that speaks TLS to a port that does not."""
    yield service["base_url"].replace("http:", "https:")


@contextlib.contextmanager
def deaf(_):
    """An address that takes no connection: the queue of its listener is full."""
    with socket.socket() as listener, contextlib.ExitStack() as held:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


UNREACHED = [
    ("A02", unknown_host, "no host no-such-host.invalid is known"),
    ("A03", encrypted, "no encrypted connection"),
    ("A04", deaf, "did not take the connection in time"),
]


@pytest.mark.parametrize(("number", "address", "says"), UNREACHED, ids=lambda word: str(word)[:3])
def test_a02_a03_a04_a_service_that_cannot_be_reached(number, address, says, service, make_run):
    """The run waits and says why; from the right address the same command ends it."""
    run, before = make_run(), judge.look(service)
    with hurried.time_flies(), address(service) as url:
        to = hurried.service_at(service, url, timeout=0.5)
        progress = dispatch.advance(run, to, hurried.MAX_USD)
        assert progress.state == "waiting"
        assert re.search(f"{says}.*{AGAIN}", progress.reasons[0]), number
        assert ended(service, run, before) == DONE


def begun(run, to, n_collected=0):
    """Steps until a batch is under way that no step has taken in, after so many that were."""

    def is_under_way(_):
        states = [shard["state"] for shard in hurried.shards_of(run)]
        return states.count("collected") >= n_collected and "submitted" in states

    hurried.stepped(run, to, is_under_way)


def test_a18_a_batch_that_is_gone_for_a_day_is_lost_and_asked_again(service, make_run):
    """The canary of 2 is in and the batch of 4 is not found for a day: what it may have cost is
    spent, and its lines are asked once more.
    """
    run, before = make_run(canary=2), judge.look(service)
    with hurried.time_flies() as later:
        to = hurried.service_at(service)
        with hurried.switched(service, {"stuck_finalizing": {"after": 1}}):
            begun(run, to, n_collected=1)
            with hurried.switched(service, {"not_ours": at("retrieve")}):
                progress = dispatch.advance(run, to, hurried.MAX_USD)
                assert (progress.state, progress.n_in_flight) == ("waiting", 4)
                later(25)
                progress = dispatch.advance(run, to, hurried.MAX_USD)
                assert [shard["lost_usd"] > 0 for shard in hurried.shards_of(run)][1]
        assert ended(service, run, before) == ("done", 6, 0, 10, 1)


def test_a34_batches_that_the_ledger_does_not_know_are_adopted(service, make_run):
    """The folder is put back as it was before the batch was made: nothing is sent again."""
    run, before = make_run(), judge.look(service)
    with hurried.time_flies():
        to = hurried.service_at(service)
        with hurried.switched(service, {"rate_limited": at("create")}):
            dispatch.advance(run, to, hurried.MAX_USD)
        copy = run.folder.with_name("copy")
        shutil.copytree(run.folder, copy)
        assert dispatch.follow(run, to, hurried.MAX_USD, hours=48).state == "done"
        shutil.rmtree(run.folder)
        copy.rename(run.folder)
        assert ended(service, run, before) == DONE


def test_a35_the_key_of_another_project_stops_the_run(service, make_run):
    """It knows no batch of ours and lists none: the run stops, also days later; nothing is sent."""
    run, before = make_run(), judge.look(service)
    strange = {"not_ours": {}, "list_lags": {"seconds": 1e9}}
    with hurried.time_flies() as later:
        to = hurried.service_at(service)
        begun(run, to)
        with hurried.switched(service, strange):
            for hours in (0, 25, 25):
                later(hours)
                progress = dispatch.advance(run, to, hurried.MAX_USD)
                assert progress.state == "stopped"
                assert re.search("this key sees another project.*Set the key", progress.reasons[0])
        assert ended(service, run, before) == DONE


def test_a16_the_key_stands_nowhere(service, make_run):
    """After a refused key neither what is said nor any file of the run holds it."""
    run = make_run()
    with hurried.time_flies(), hurried.switched(service, {"key_revoked": at(*CALLS)}):
        progress = dispatch.advance(run, hurried.service_at(service), hurried.MAX_USD)
    assert service["token"] not in str(progress)
    secret = service["token"].encode()
    files = [path for path in runs.outputs().rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if secret in path.read_bytes()]


@pytest.mark.parametrize("fault", ["list_repeats", "list_drops"])
def test_a31_a_listing_that_repeats_or_drops_between_pages(fault, service, make_run):
    """A batch whose create was lost is the last of a page, or the first of the next: it is found,
    once.
    """
    run, before = make_run(), judge.look(service)
    with hurried.time_flies():
        to = hurried.service_at(service)
        with hurried.switched(service, {"create_answer_lost": {}}):
            dispatch.advance(run, to, hurried.MAX_USD)
        # Batches of others, which fail at once: 99 newer ones fill a page with ours, 100 without.
        for _ in range(99 if fault == "list_repeats" else 100):
            judge.asked(service, "/v1/batches", "POST", NOTHING)
        with hurried.switched(service, {fault: {}}):
            dispatch.advance(run, to, hurried.MAX_USD)
            assert hurried.has_struck(service)
        progress = dispatch.follow(run, to, hurried.MAX_USD, hours=48)
    assert (progress.state, progress.n_valid) == ("done", 6)
    assert sum(line["n_executions"] for line in judge.since(before, service).book.values()) == 6
