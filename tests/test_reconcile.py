"""Calls whose answer was lost, against a local Batch API behind a proxy that loses answers."""

import time

import pytest
import sending

from lib import collect, dispatch, ledger


def once(method, path, action, n=1):
    """A rule for the proxy: the first `n` such calls are treated so, and all others forwarded."""
    left = [action] * n

    def rule(called, where):
        if left and (called, where.split("?")[0]) == (method, f"/v1/{path}"):
            return left.pop()
        return None

    return rule


def after(first, then):
    """A rule: the second one from the moment at which the first has struck."""
    struck = []

    def rule(*call):
        if struck:
            return then(*call)
        struck.extend([action] if (action := first(*call)) else [])
        return struck[0] if struck else None

    return rule


def follow_behind(endpoint, run, rule, **differs):
    """Follow a run through the proxy; gives where it stands."""
    with sending.spoiled(endpoint, rule) as url:
        return sending.finish(run, sending.service_at(endpoint, url, **differs))


def shards_of(run):
    """The shards of a run by its ledger."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        return ledger.shards(book)


@pytest.mark.parametrize("call", ["files", "batches"])
@pytest.mark.parametrize("action", ["lose", "drop", (500, {"error": {"message": "oops"}})])
def test_a_call_without_an_answer_is_made_good(make_run, endpoint, call, action):
    """Whether it was done or not, after the answer is lost each line is run once."""
    before, run = sending.batches_of(endpoint), make_run()
    progress = follow_behind(endpoint, run, once("POST", call, action))
    lines = sending.paid(endpoint, before)
    assert (progress.state, progress.n_valid) == ("done", 6)
    assert len(lines) == lines.total() == 6
    assert len(sending.batches_of(endpoint).keys() - before.keys()) == 1


def test_an_unclear_call_waits_with_its_reason(make_run, endpoint):
    """The step in which an answer is lost says so and leaves the intent open."""
    run = make_run()
    with sending.spoiled(endpoint, once("POST", "batches", "lose")) as url:
        progress = dispatch.advance(run, sending.service_at(endpoint, url), 0.0)
    assert (progress.state, progress.n_in_flight) == ("waiting", 6)
    assert progress.reasons[0].startswith("local did not answer")
    assert [shard["state"] for shard in shards_of(run)] == ["submitting"]


def test_a_listing_that_lags_is_waited_for(make_run, endpoint):
    """The batch is missing from the first two lists and is adopted from the third."""
    before, run = sending.batches_of(endpoint), make_run()
    lost, hidden = (
        once("POST", "batches", "lose"),
        {"object": "list", "data": [], "has_more": False},
    )
    lagging = once("GET", "batches", (200, hidden), n=2)
    progress = follow_behind(endpoint, run, after(lost, lagging), grace_seconds=60)
    assert progress.n_valid == 6
    assert sending.paid(endpoint, before).total() == 6


def test_the_whole_grace_passes_before_anything_is_sent_again(make_run, endpoint):
    """A create that never came is made again after the grace, of a new upload; the old one goes."""
    before, run = sending.batches_of(endpoint), make_run()
    to = sending.service_at(endpoint, grace_seconds=0.7)
    with sending.spoiled(endpoint, once("POST", "batches", "drop")) as url:
        dispatch.advance(run, sending.service_at(endpoint, url), 0.0)
    first = shards_of(run)[0]["file_id"]
    began = time.monotonic()
    dispatch.advance(run, to, 0.0)
    assert time.monotonic() - began >= 0.7
    assert shards_of(run)[0]["file_id"] != first
    assert first not in {file.id for file in to.client.files.list()}
    assert sending.finish(run, to).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6


def test_of_two_batches_one_is_kept_and_the_other_is_an_incident(make_run, endpoint):
    """A create was done twice: the older is adopted, the other cancelled and counted as lost."""
    before, run = sending.batches_of(endpoint), make_run()
    progress = follow_behind(endpoint, run, once("POST", "batches", "twice"))
    made = [b for name, b in sending.batches_of(endpoint).items() if name not in before]
    (shard,) = shards_of(run)
    assert len(made) == 2
    assert progress.n_valid == 6
    assert shard["batch_id"] in {batch["id"] for batch in made}
    assert shard["lost_usd"] == shard["reserved_usd"] > 0
    assert progress.spend_usd == pytest.approx(shard["settled_usd"] + shard["lost_usd"])
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        assert ledger.events(book)["kind"].tolist().count("double") == 1


def test_a_listing_that_repeats_a_batch_is_no_double(make_run, endpoint):
    """The one batch stands twice in the list: it is adopted and not cancelled."""
    run = make_run()
    lost = once("POST", "batches", "lose")
    repeat = once("GET", "batches", lambda page: {**page, "data": page["data"][:1] * 2})
    progress = follow_behind(endpoint, run, after(lost, repeat))
    assert progress.n_valid == 6
    assert shards_of(run)[0]["lost_usd"] == 0.0


@pytest.mark.parametrize("page", [{}, {"data": None}, b"<html>hello</html>", {"data": [{}]}])
def test_a_listing_of_another_form_is_not_an_empty_one(make_run, endpoint, page):
    """What is no list of batches frees nothing, however short the grace: the run waits for one."""
    before, run = sending.batches_of(endpoint), make_run()
    lost, odd = once("POST", "batches", "lose"), once("GET", "batches", (200, page), n=1)
    with sending.spoiled(endpoint, after(lost, odd)) as url:
        to = sending.service_at(endpoint, url, grace_seconds=0)
        dispatch.advance(run, to, 0.0)
        progress = dispatch.advance(run, to, 0.0)
        assert "a form that the Batch API does not have" in progress.reasons[0]
        assert shards_of(run)[0]["state"] == "submitting"
        assert sending.finish(run, to).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6


def test_a_batch_of_an_upload_that_was_given_up_is_not_adopted(make_run, endpoint):
    """A slow create fails when its file is deleted; it is not taken for the shard's later one."""
    before, run = sending.batches_of(endpoint), make_run()
    with sending.spoiled(endpoint, once("POST", "batches", "drop")) as url:
        dispatch.advance(run, sending.service_at(endpoint, url), 0.0)
    (shard,) = shards_of(run)
    to = sending.service_at(endpoint)
    with sending.spoiled(endpoint, once("POST", "batches", "drop")) as url:
        dispatch.advance(run, sending.service_at(endpoint, url), 0.0)
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        run_id = ledger.fact(book, "run_id")
    labels = {"votebook_run": run_id, "votebook_shard": shard["shard"], "sha256": shard["sha256"]}
    slow = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": labels}
    late = to.client.batches.create(input_file_id=shard["file_id"], **slow)
    assert sending.finish(run, to).n_valid == 6
    assert to.client.batches.retrieve(late.id).status == "failed"
    assert sending.paid(endpoint, before).total() == 6
    assert set(collect.outcomes(run)["attempt"]) == {0}
