"""Results that come late, cut, or never, from a local Batch API behind a proxy."""

import json

import pandas as pd
import pytest
import sending

from lib import collect, dispatch, ledger, runs

LONG_AGO = "2026-01-01T00:00:00+00:00"


def is_content(method, path):
    """Whether a call asks for the bytes of a file."""
    return path.endswith("/content")


def is_look(method, path):
    """Whether a call asks for one batch."""
    return method == "GET" and path.startswith("/v1/batches/")


def stuck(run, endpoint, rule, n_steps=3):
    """Take some steps behind the proxy, each when all batches have ended; gives the last."""
    with sending.spoiled(endpoint, rule) as url:
        to = sending.service_at(endpoint, url)
        to.client.max_retries = 0
        for _ in range(n_steps):
            progress = dispatch.advance(run, to, 0.0)
            sending.have_ended(endpoint)
    return progress


def give_up(run):
    """Let the batches of a run have been out of sight for long."""
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        book.execute("UPDATE shards SET unseen_at = ? WHERE unseen_at IS NOT NULL", (LONG_AGO,))


@pytest.mark.parametrize(
    ("call", "spoil"),
    [
        (is_content, (502, b"<html>Bad gateway</html>")),
        (is_content, (404, {"error": {"message": "No such File object: file-x"}})),
        (is_look, (404, {"error": {"message": "No batch found with id 'batch_x'."}})),
        (is_look, (500, {"error": {"message": "oops"}})),
        (is_look, (200, b"<html>hello</html>")),
        (is_look, lambda batch: {**batch, "output_file_id": None}),
        (is_look, lambda batch: {**batch, "output_file_id": ""}),
        (is_look, lambda batch: {**batch, "status": "a new word"}),
    ],
)
def test_results_that_are_not_there_are_waited_for(make_run, endpoint, call, spoil):
    """Nothing is sent again while the service does not show a batch or its files."""
    before, run = sending.batches_of(endpoint), make_run()
    progress = stuck(run, endpoint, lambda *called: spoil if call(*called) else None)
    assert (progress.state, progress.n_in_flight, progress.n_valid) == ("waiting", 6, 0)
    assert sending.finish(run, sending.service_at(endpoint)).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6


@pytest.mark.parametrize("call", [is_content, is_look])
def test_results_that_stay_away_for_a_day_are_lost_and_counted(make_run, endpoint, call):
    """What may have been billed is spent at its worst case, and the lines are asked once more."""
    before, run = sending.batches_of(endpoint), make_run()
    gone = (404, {"error": {"message": "No such object"}})
    progress = stuck(run, endpoint, lambda *called: gone if call(*called) else None)
    assert progress.reasons == ("local answered 404: No such object.",)
    give_up(run)
    progress = stuck(run, endpoint, lambda *called: gone if call(*called) else None, n_steps=1)
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        first, second = ledger.shards(book)
    assert (first["state"], first["lost_usd"]) == ("collected", first["reserved_usd"])
    assert (second["state"], second["n_requests"]) == ("submitted", 6)
    end = sending.finish(run, sending.service_at(endpoint))
    assert end.n_valid == 6
    assert sending.paid(endpoint, before).total() == 12
    assert end.spend_usd == pytest.approx(first["lost_usd"] + second_settled(run))


def second_settled(run):
    """What the second shard's answers cost."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        return ledger.shards(book)[1]["settled_usd"]


def failed(code, message, **more):
    """A rule that shows every batch as failed for this."""
    fault = {"code": code, "message": message, "param": None, "line": None, **more}
    shown = {"status": "failed", "errors": {"data": [fault]}, "request_counts": {}}
    shown |= {"output_file_id": None, "error_file_id": None}

    def rule(method, path):
        return (lambda batch: {**batch, **shown}) if is_look(method, path) else None

    return rule


def test_a_full_queue_is_a_pause_and_teaches_the_limit(make_run, endpoint):
    """The shard waits uploaded, with the service's words as the reason, and no line has failed."""
    run = make_run()
    words = "Enqueued token limit reached for gpt-6-luna in organization o. Limit: 900,000 enqueued"
    progress = stuck(run, endpoint, failed("token_limit_exceeded", words))
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        (shard,) = ledger.shards(book)
        assert ledger.limits(book)["gpt-6-luna"]["limit_tokens"] == 900_000
    assert (shard["state"], shard["batch_id"], shard["n_refusals"]) == ("uploaded", None, 1)
    assert (progress.state, progress.reasons) == ("waiting", (words,))
    assert collect.outcomes(run).empty


def test_a_shard_that_is_larger_than_the_queue_is_cut_smaller(make_run, endpoint):
    """The service admits 400 tokens of a shard with more: its six lines go into smaller ones."""
    run = make_run()
    words = "Enqueued token limit reached for gpt-6-luna. Limit: 400 enqueued tokens."
    stuck(run, endpoint, failed("token_limit_exceeded", words), n_steps=2)
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        book.execute("UPDATE shards SET not_before = NULL")
    assert sending.finish(run, sending.service_at(endpoint)).n_valid == 6
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        states = [shard["state"] for shard in ledger.shards(book)]
    assert states[0] == "released"
    assert set(states[1:]) == {"collected"}


def test_only_the_lines_that_are_blamed_have_failed(make_run, endpoint):
    """One bad line fails a batch of six: it is shown, and the other five are asked again."""
    run, before = make_run(max_failure_share=0.5), sending.batches_of(endpoint)
    rule = failed("invalid_request", "Bad line", param="body", line=3)
    stuck(run, endpoint, rule, n_steps=2)
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        third = ledger.sends(book, ledger.shards(book)[0]["shard"])["custom_id"][2]
    found = collect.outcomes(run).set_index("custom_id")["outcome"]
    assert found.pop(third) == "failed"
    assert set(found) == {"missing"}
    progress = sending.finish(run, sending.service_at(endpoint))
    assert (progress.state, progress.n_valid, progress.n_left) == ("done", 5, 1)
    assert len(sending.paid(endpoint, before)) == 6 + 5


def test_a_file_that_the_service_cannot_find_is_asked_again(make_run, endpoint):
    """That failure came over valid files in an outage: all lines are missing, none has failed."""
    run = make_run()
    stuck(run, endpoint, failed("invalid_request", "Cannot find file x", param="file_id"), 2)
    assert set(collect.outcomes(run)["outcome"]) == {"missing"}
    assert sending.finish(run, sending.service_at(endpoint)).n_valid == 6


def test_simulated_answers_never_stand_in_for_paid_ones(make_run, endpoint):
    """Another run's simulated answers are known to a free service and unknown to a paid one."""
    first = make_run(name="first")
    sending.finish(first, sending.service_at(endpoint))
    run = make_run(name="second")
    asked = run.table("requests")
    assert len(collect.known(run, asked, free=True, service="local")) == 6
    assert len(collect.known(run, asked, free=True, service="http://localhost:8000")) == 0
    assert len(collect.known(run, asked, free=False, service="local")) == 0
    assert (collect.is_simulated(first), collect.is_simulated(run)) == (True, False)
    assert len(collect.known(first, asked, free=True, service="local")) == 0


def rewrite(run, **changes):
    """Write the outcomes of a run anew, with other columns; None leaves one out, as of old."""
    table = collect.outcomes(run, content=True)
    for path in run.path("outcomes").glob("*.parquet"):
        path.unlink()
    dropped = [name for name, value in changes.items() if value is None]
    table = table.assign(**changes).drop(columns=dropped)
    runs.write_table(table, run.path("outcomes") / "all.parquet")


def test_answers_are_shared_within_one_service_alone(make_run, endpoint):
    """Another service's model of the same name is another model; an outcome says whose it is."""
    first, run = make_run(name="first"), make_run(name="second")
    sending.finish(first, sending.service_at(endpoint, free=False), 1.0)
    assert set(collect.outcomes(first)["service"]) == {"local"}
    rewrite(first, simulated=False, service="openai")
    asked = run.table("requests")
    for name, n in (("openai", 6), ("local", 0), ("https://example.org/v1", 0)):
        assert len(collect.known(run, asked, free=False, service=name)) == n
    assert len(collect.known(run, asked, free=True, service="openai")) == 0


def test_answers_of_old_are_those_of_the_service_that_their_ledger_names(make_run, endpoint):
    """Files from before services were named: simulated ones are local, the ledger tells others."""
    first, run = make_run(name="first"), make_run(name="second")
    sending.finish(first, sending.service_at(endpoint, name="openai"))
    asked = run.table("requests")
    rewrite(first, service=None)
    assert len(collect.known(run, asked, free=True, service="local")) == 6
    assert collect.outcomes(first)["service"].isna().all()
    rewrite(first, simulated=False, service=None)
    assert len(collect.known(run, asked, free=False, service="openai")) == 6
    assert len(collect.known(run, asked, free=False, service="local")) == 0
    first.path("ledger.sqlite").write_bytes(b"this is no ledger" * 100)
    assert len(collect.known(run, asked, free=False, service="openai")) == 0


def test_shared_answers_are_copied_once_and_for_nothing(make_run, endpoint):
    """The copies have no spend, and keep the batch and the run that paid."""
    sending.finish(make_run(name="first"), sending.service_at(endpoint))
    run = make_run(name="second")
    assert collect.share(run, run.table("requests"), sending.service_at(endpoint)) == 6
    table = collect.outcomes(run, content=True)
    assert table["spend_usd"].sum() == 0.0
    assert set(table["run"]) == {"first"}
    assert table["content"].str.contains("pleased").all()


def test_outcomes_of_a_folder_with_any_name(tmp_path):
    """Brackets, stars and question marks in a folder's name are no pattern."""
    run = runs.Run("a[1]", tmp_path / "out [x]*?" / "a[1]", None)
    row = dict.fromkeys(collect.COLUMNS) | {"custom_id": "q", "simulated": True, "key": "k"}
    runs.write_table(pd.DataFrame([row]), run.path("outcomes") / "b.parquet")
    assert collect.outcomes(run)["custom_id"].tolist() == ["q"]
    assert collect.is_simulated(run)


def test_an_answer_that_tells_no_usage_counts_at_its_worst_case(make_run, endpoint):
    """What cannot be reckoned is not free: the budget binds, whatever the service leaves out."""
    run = make_run()

    def rule(method, path):
        return without_usage if is_content(method, path) else None

    with sending.spoiled(endpoint, rule) as url:
        progress = sending.finish(run, sending.service_at(endpoint, url))
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        (shard,) = ledger.shards(book)
    assert progress.n_valid == 6
    assert progress.spend_usd == pytest.approx(shard["reserved_usd"])


def without_usage(content):
    """The bytes of a result file in which no answer says how many tokens it took."""
    lines = [json.loads(line) for line in content.splitlines()]
    for line in lines:
        del line["response"]["body"]["usage"]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)
