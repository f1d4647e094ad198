"""Submitting within the limits of the hour, of files and of windows, by a local Batch API."""

from datetime import timedelta

import pytest
import sending

from lib import clock, dispatch, ledger, pacing


def test_an_hour_has_room_for_two_thousand_batches(make_run, endpoint):
    """After 2,000 batches in an hour nothing more is made, which is a wait; an hour later it is."""
    run, to = make_run(), sending.service_at(endpoint)
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        at = (clock.now() - timedelta(minutes=59)).isoformat(timespec="milliseconds")
        row = (at, "submitted", None, "{}")
        rows = [row] * pacing.BATCHES_AN_HOUR
        book.executemany("INSERT INTO events (at, kind, shard, detail) VALUES (?, ?, ?, ?)", rows)
    before = sending.batches_of(endpoint)
    progress = dispatch.advance(run, to, 0.0)
    assert (progress.state, progress.n_to_send) == ("waiting", 6)
    assert sending.batches_of(endpoint).keys() == before.keys()
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        book.execute("UPDATE events SET at = ?", ((clock.now() - timedelta(hours=2)).isoformat(),))
    assert sending.finish(run, to).n_valid == 6


def busy(method, path):
    """A service that takes files and makes no batches."""
    refused = (429, {"error": {"message": "Slow down"}})
    return refused if (method, path) == ("POST", "/v1/batches") else None


def states(run):
    """The state and the size of each shard."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        return [(shard["state"], shard["n_requests"]) for shard in ledger.shards(book)]


def waiting(make_run, endpoint, **bounds):
    """A run with one valid answer and a batch of five lines that the service does not make now."""
    sending.finish(make_run(sending.TEXTS[:1], canary=1), sending.service_at(endpoint))
    run = make_run(canary=1, **bounds)
    with sending.spoiled(endpoint, busy) as url:
        dispatch.advance(run, sending.service_at(endpoint, url), 0.0)
    assert states(run) == [("collected", 1), ("uploaded", 5)]
    return run


def end_pauses(run):
    """Let the pauses of all shards be over."""
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        book.execute("UPDATE shards SET not_before = NULL")


@pytest.mark.parametrize(("most", "sizes"), [(2, [2, 2, 1]), (4, [4, 1]), (5, [])])
def test_a_shard_that_waits_is_cut_to_smaller_files(make_run, endpoint, most, sizes):
    """When the study asks for smaller files, five waiting lines go into such, each once."""
    before = sending.batches_of(endpoint)
    waiting(make_run, endpoint)
    run = make_run(canary=1, max_requests=most)
    end_pauses(run)
    assert sending.finish(run, sending.service_at(endpoint)).n_valid == 6
    gone = [("released", 5)] if sizes else [("collected", 5)]
    assert states(run) == [("collected", 1), *gone, *(("collected", n) for n in sizes)]
    assert sending.paid(endpoint, before).total() == 6


def test_a_shard_that_waits_is_cut_to_the_window(make_run, endpoint):
    """A window of 250 tokens has room for two lines of about 105: five go into smaller shards."""
    before, run = sending.batches_of(endpoint), waiting(make_run, endpoint)
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        ledger.learn(book, "gpt-6-luna", window_tokens=250, refused_at=clock.now().isoformat())
    end_pauses(run)
    assert sending.finish(run, sending.service_at(endpoint)).n_valid == 6
    assert states(run)[1:] == [("released", 5), *[("collected", 1)] * 5]
    assert sending.paid(endpoint, before).total() == 6


def test_a_model_that_has_to_prove_itself_again_gives_up_its_waiting_shards(make_run, endpoint):
    """The text of the canary's answer is asked about no more: what waits is given up, and one of
    its lines is a canary before the other four.
    """
    before = sending.batches_of(endpoint)
    waiting(make_run, endpoint)
    run = make_run(sending.TEXTS[1:], canary=1)
    end_pauses(run)
    assert sending.finish(run, sending.service_at(endpoint)).n_valid == 5
    assert states(run)[1:] == [("released", 5), ("collected", 1), ("collected", 4)]
    assert sending.paid(endpoint, before).total() == 6
