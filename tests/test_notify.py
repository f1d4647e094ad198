"""Notifications, told over real HTTP to a server of the tests: once each, in counts and codes."""

import contextlib
import http.server
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
import sending

from lib import clock, dispatch, ledger, notify, prompts
from lib.standing import Progress

DONE = Progress("done", 100, 97, 0, 0, 3, 4.2, 0.0)
STOPPED = Progress("stopped", 100, 20, 0, 80, 0, 1.0, 0.0, ("the guest said: the key is under",))
WAITING = Progress("waiting", 100, 20, 30, 50, 0, 1.0, 2.0)


@contextlib.contextmanager
def server(status=200):
    """A server that keeps what it is told, and the address under which apprise tells it."""
    told = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    one = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield told, f"json://127.0.0.1:{one.server_port}/path"
    finally:
        one.shutdown()
        one.server_close()
        thread.join()


@pytest.fixture
def run(make_run):
    """A run with a ledger."""
    made = make_run()
    with ledger.open_ledger(made.path("ledger.sqlite")):
        return made


@pytest.fixture
def told(monkeypatch):
    """What was told to the address in the environment."""
    with server() as (told, address):
        monkeypatch.setenv(notify.VARIABLE, address)
        yield told


def test_each_thing_is_told_once(run, told):
    """Done, with its counts, however often the run is looked at; with more answers, once more."""
    assert notify.after(run, DONE, 0.0) == ["done"]
    assert notify.after(run, DONE, 0.0) == []
    (one,) = told
    assert one["title"] == "Votebook: run guests: done"
    assert one["message"] == "97 of 100 answered, 3 for review, $4.20 spent."
    assert notify.after(run, Progress("done", 200, 190, 0, 0, 10, 5.0, 0.0), 0.0) == ["done"]


def test_a_waiting_run_tells_nothing(run, told):
    """Nothing is worth a message."""
    assert notify.after(run, WAITING, 0.0) == []
    assert told == []


def test_why_a_run_stopped_is_told_in_codes_alone(run, told, endpoint):
    """A reason may hold what a model wrote, and that may quote a document."""
    dispatch.follow(run, sending.service_at(endpoint), 0.0, 1 / 60)
    assert notify.after(run, STOPPED, 0.0) == ["stopped"]
    assert "20 of 100 answered, 80 to send, $1.00 spent" in told[0]["message"]
    assert "guest" not in told[0]["message"]


def test_codes_that_are_no_words_are_not_told():
    """What stands there is a service's to decide."""
    words = [notify._word(code) for code in ("insufficient_quota", "the soup was cold", "x" * 61)]
    assert words == ["insufficient_quota", "other", "other"]


@pytest.mark.parametrize(
    ("spend", "shares"), [(0.49, []), (0.5, ["50%"]), (0.81, ["80%"]), (1.0, ["100%"])]
)
def test_a_share_of_the_budget_is_told_when_it_is_reached(run, told, spend, shares):
    """50, 80 and 100 % of max_usd: of several at once the largest."""
    progress = Progress("waiting", 100, 20, 30, 50, 0, 10 * spend, 2.0)
    assert [one.mark.split()[0] for one in notify.news(run, progress, 10.0)] == shares
    assert notify.after(run, progress, 10.0) == ["money"] * len(shares)
    assert [one["message"] for one in told] == [
        f"${10 * spend:.2f} spent, of $10.00 at most."
    ] * len(shares)


def test_the_deadline_of_result_files_is_told_a_week_and_a_day_before(run, told):
    """They live for 30 days; a batch submitted on the 1st at noon has them until the 31st."""
    first = datetime(2026, 1, 1, 12, tzinfo=UTC)
    plan_ended_batch(run, first)
    days = {22: [], 23.5: ["deadline"], 24: [], 28.9: [], 29.5: ["deadline"], 29.9: []}
    for day, expected in days.items():
        with at(first + timedelta(days=day)):
            assert notify.after(run, WAITING, 0.0) == expected, day
    assert told[0]["message"] == (
        "the results of 1 ended batch are not downloaded; the service deletes the first from "
        "2026-01-31 12:00 UTC on. Run `advance` before then."
    )


def at(moment):
    """Live at another time."""
    return clock.running(clock.Clock(moment.timestamp, lambda: 0.0, lambda seconds: None))


def plan_ended_batch(run, submitted_at):
    """A batch that has ended and was not collected."""
    shard = {
        "shard": "s",
        "model": "m",
        "purpose": "main",
        "file": "f",
        "sha256": "",
        "fields": "f",
    }
    shard |= dict.fromkeys(["size_bytes", "n_requests", "n_input_tokens"], 1)
    key = "00" * 32
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        ledger.bind(book, "f", "{}")
        ledger.plan(
            book, {**shard, "reserved_usd": 0.0}, [(prompts.custom_id(key, 0), key, 0)], 1.0
        )
        facts = {"batch_id": "b", "submitted_at": submitted_at.isoformat()}
        ledger.move(book, "s", "planned", "submitted", status="completed", **facts)


def test_a_failing_address_stops_nothing_and_is_tried_three_times(run, monkeypatch):
    """A server that is not there or refuses; what was told in vain is in the ledger."""
    with server(status=500) as (told, address):
        monkeypatch.setenv(notify.VARIABLE, address)
        for _ in range(5):
            assert notify.after(run, DONE, 0.0) == []
    assert len(told) == notify.ATTEMPTS
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        details = ledger.events(book).query("kind == 'told'")["detail"]
    assert [detail["failure"] for detail in details] == ["refused"] * 3


@pytest.mark.parametrize("address", ["nonsense", "nosuch://me:secret@host", "json://127.0.0.1:9"])
def test_an_address_is_never_shown(run, monkeypatch, capfd, address):
    """Not on a stream, not in the ledger, whatever is wrong with it."""
    monkeypatch.setenv(notify.VARIABLE, address)
    assert notify.after(run, DONE, 0.0) == []
    assert capfd.readouterr() == ("", "")
    assert address.encode() not in run.path("ledger.sqlite").read_bytes()


def test_without_an_address_nothing_is_told_or_noted(run, monkeypatch):
    """An address that is set later still hears of what was not told."""
    monkeypatch.delenv(notify.VARIABLE, raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    assert notify.after(run, DONE, 0.0) == []
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        assert ledger.events(book).empty


def test_a_broken_ledger_stops_nothing(run, told):
    """What could not be remembered is not told, lest it be told at every step."""
    run.path("ledger.sqlite").write_bytes(b"no database at all, not even nearly one")
    assert notify.tell(run, [notify.News("done", "", "text")]) == []
    assert told == []
