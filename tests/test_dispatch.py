"""The whole loop against a local Batch API over HTTP; the service's own book says what was paid."""

import json
import math
import sqlite3
import time

import pandas as pd
import pytest
import sending

from lib import clock, collect, dispatch, ledger, runs
from lib.errors import (
    AccountingError,
    BudgetError,
    BusyError,
    CanaryError,
    ModelError,
    StudyError,
    VotebookError,
)

TWO = {**sending.LUNA, "terra": {"model": "gpt-6.1-terra", "repeats": 2}}


def test_a_run_is_followed_until_every_request_has_an_outcome(make_run, endpoint):
    """6 texts x (1 luna + 2 terra) = 18 requests are each run once by the service and answered."""
    before = sending.batches_of(endpoint)
    run = make_run(annotators=TWO, canary=2)
    progress = sending.finish(run, sending.service_at(endpoint))
    lines = sending.paid(endpoint, before)
    assert (progress.state, progress.n_requests, progress.n_valid) == ("done", 18, 18)
    assert len(lines) == lines.total() == 18
    assert progress.reserved_usd == 0.0 < progress.spend_usd
    assert len(collect.outcomes(run)) == 18


def test_a_finished_run_makes_no_further_batch(make_run, endpoint):
    """Advancing a finished run asks the service for nothing."""
    run, to = make_run(), sending.service_at(endpoint)
    sending.finish(run, to)
    asked = []
    with sending.spoiled(endpoint, lambda *call: asked.append(call)) as url:
        progress = dispatch.advance(run, sending.service_at(endpoint, url), 0.0)
    assert progress.state == "done"
    assert asked == []


def test_a_step_that_finds_nothing_new_asks_for_the_batches_alone(make_run, endpoint):
    """With all in flight, each command looks once at each batch: no listing, no planning."""
    run, asked = make_run(), []

    def look(method, path):
        asked.append((method, path.rpartition("/")[0]))
        shown = {"status": "in_progress", "output_file_id": None, "error_file_id": None}
        return (lambda batch: {**batch, **shown}) if "/batches/" in path else None

    with sending.spoiled(endpoint, look) as url:
        to = sending.service_at(endpoint, url)
        first = [dispatch.advance(run, to, 0.0) for _ in range(2)][-1]
        asked.clear()
        again = [dispatch.advance(run, to, 0.0) for _ in range(3)]
    assert again == [first] * 3
    assert asked == [("GET", "/v1/batches")] * 3
    assert sending.finish(run, sending.service_at(endpoint)).n_valid == 6


def test_the_budget_that_was_given_last_is_remembered(make_run, endpoint):
    """No budget is no new one; a run that was never given one has none."""
    run, to = make_run(), sending.service_at(endpoint)
    assert dispatch.approved_usd(run) == 0.0
    for max_usd in (2.0, 0.5, 0.0):
        dispatch.advance(run, to, max_usd)
    assert dispatch.approved_usd(run) == 0.5


def test_events_are_written_out_for_people(make_run, endpoint):
    """A line of JSON an event, when a process lets go of the run and something has happened."""
    run, to = make_run(), sending.service_at(endpoint)
    sending.finish(run, to)
    path = run.path("events.jsonl")
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [event["kind"] for event in events][:3] == ["planned", "uploading", "uploaded"]
    assert events[-1].keys() >= {"at", "kind", "shard", "settled_usd"}
    path.unlink()
    dispatch.advance(run, to, 0.0)
    assert not path.exists()


def test_a_second_run_of_the_same_study_pays_nothing(make_run, endpoint):
    """The answers of the first run are shared: no batch is made and nothing is spent."""
    to = sending.service_at(endpoint)
    sending.finish(make_run(name="first"), to)
    before = sending.batches_of(endpoint)
    second = make_run(name="second")
    progress = sending.finish(second, to)
    assert (progress.state, progress.n_valid, progress.spend_usd) == ("done", 6, 0.0)
    assert sending.batches_of(endpoint).keys() == before.keys()


def test_only_new_questions_are_paid(make_run, endpoint):
    """Two more texts are two more lines; another prompt makes all eight questions new."""
    to = sending.service_at(endpoint)
    sending.finish(make_run(), to)
    before = sending.batches_of(endpoint)
    more = [*sending.TEXTS, "Cold soup.", "Rude waiter."]
    assert sending.finish(make_run(more), to).n_valid == 8
    assert sending.paid(endpoint, before).total() == 2
    assert sending.finish(make_run(more, prompt="Was the guest angry?"), to).n_valid == 8
    assert sending.paid(endpoint, before).total() == 2 + 8


def test_two_processes_never_work_on_one_run(make_run, endpoint):
    """While one waits for the service, the other is told who works, and may still look."""
    run, seen = make_run(), []

    def look(method, path):
        if method == "POST" and path.endswith("/batches") and not seen:
            with pytest.raises(BusyError, match=r"^process \d+ on .* is working on run guests"):
                dispatch.advance(run, to, 0.0)
            seen.append(dispatch.status(run))

    with sending.spoiled(endpoint, look) as url:
        to = sending.service_at(endpoint, url)
        assert sending.finish(run, to).state == "done"
    assert (seen[0].state, seen[0].n_in_flight) == ("waiting", 6)


def test_a_run_that_is_followed_is_held_between_its_steps(make_run, endpoint):
    """Nobody takes a step in the pauses of one who follows, and afterwards anybody may."""
    run, to = make_run(), sending.service_at(endpoint)

    def intrude(_):
        with pytest.raises(BusyError):
            dispatch.advance(run, to, 0.0)

    assert dispatch.follow(run, to, 0.0, 1 / 60, show=intrude).state == "done"
    assert dispatch.advance(run, to, 0.0).state == "done"


def test_status_before_anything_was_sent(make_run):
    """A run that has requests and no ledger is all to send, and no ledger is made by looking."""
    run = make_run()
    progress = dispatch.status(run)
    assert str(progress) == "waiting: 0 of 6 answered, 0 in flight, 6 to send, 0 for review"
    assert not run.path("ledger.sqlite").exists()


def test_without_a_budget_nothing_is_sent(make_run, endpoint):
    """A paid service with max_usd 0 plans only, and so does a budget that is no number."""
    before = sending.batches_of(endpoint)
    to = sending.service_at(endpoint, free=False)
    for max_usd in (0.0, math.nan, -1.0):
        progress = dispatch.advance(make_run(), to, max_usd)
        assert progress.state == "stopped"
        assert "that passes max_usd" in progress.reasons[0]
    assert sending.batches_of(endpoint).keys() == before.keys()


def test_the_budget_bounds_spend_and_worst_case_at_every_step(make_run, endpoint):
    """Room for three worst cases of 4,000 output tokens ($0.001 each at gpt-6-luna): the answers
    take far less, so that all 20 are asked in turns, and at no step more than the budget is bound.
    """
    run, steps = make_run([f"Soup {n}." for n in range(20)], canary=2), []
    to, max_usd = sending.service_at(endpoint, free=False), 0.0035
    progress = dispatch.follow(run, to, max_usd, 1 / 4, show=steps.append)
    assert (progress.state, progress.n_valid) == ("done", 20)
    assert all(step.spend_usd + step.reserved_usd <= max_usd for step in steps)
    assert len(steps) > 5


def test_a_lowered_budget_holds_back_what_is_planned(make_run, endpoint):
    """A shard planned under a larger budget is not sent under a smaller one, and later is."""
    run, before = make_run(), sending.batches_of(endpoint)
    with sending.spoiled(endpoint, busy) as url:
        progress = dispatch.advance(run, sending.service_at(endpoint, url, free=False), 1.0)
    assert progress.state == "waiting"
    to = sending.service_at(endpoint, free=False)
    end_pause(run)
    assert dispatch.advance(run, to, 0.000001).reasons[0].startswith("$0.0000 spent, $0.006")
    assert sending.batches_of(endpoint).keys() == before.keys()
    assert sending.finish(run, to, 1.0).state == "done"


def busy(method, path):
    """A service that makes no batches now."""
    posted = (method, path) == ("POST", "/v1/batches")
    return (429, {"error": {"message": "Slow down"}}) if posted else None


def full(method, path):
    """A rule that takes no files and no batches for now."""
    return (429, {"error": {"message": "slow down"}}) if method == "POST" else None


def end_pause(run):
    """Let the pauses of all shards be over."""
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        book.execute("UPDATE shards SET not_before = NULL")


def test_a_service_that_is_down_is_waited_for(make_run, endpoint):
    """While the service hangs up, a run waits and says so; afterwards it ends as if nothing was."""
    down = [False]
    run, before = make_run(annotators=TWO), sending.batches_of(endpoint)
    with sending.spoiled(endpoint, lambda *_: "drop" if down[0] else None) as url:
        to = sending.service_at(endpoint, url)
        to.client.max_retries = 0
        dispatch.advance(run, to, 0.0)
        down[0] = True
        progress = dispatch.advance(run, to, 0.0)
        assert progress.state == "waiting"
        assert progress.reasons[0].startswith("local did not answer")
        down[0] = False
        assert sending.finish(run, to).n_valid == 18
    assert sending.paid(endpoint, before).total() == 18


@pytest.mark.parametrize(
    ("call", "status", "fault"),
    [
        ("batches", 401, {"message": "Incorrect API key provided", "code": "invalid_api_key"}),
        ("batches", 429, {"message": "You exceeded your quota", "code": "insufficient_quota"}),
        ("batches", 400, {"message": "Invalid value: 'x'", "code": "invalid_value"}),
        ("files", 403, {"message": "No access", "code": None}),
        ("files", 413, {"message": "Too large", "code": None}),
    ],
)
def test_a_final_refusal_stops_with_one_sentence_and_loses_nothing(
    make_run, endpoint, call, status, fault
):
    """What asking again cannot change stops the run at once; once it is mended the run goes on."""
    run, before = make_run(), sending.batches_of(endpoint)

    def refuse(method, path):
        return (status, {"error": fault}) if (method, path) == ("POST", f"/v1/{call}") else None

    with sending.spoiled(endpoint, refuse) as url:
        progress = sending.finish(run, sending.service_at(endpoint, url))
    assert progress.state == "stopped"
    assert progress.reasons[0].startswith(f"local answered {status}: {fault['message']}")
    assert sending.finish(run, sending.service_at(endpoint)).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6


def test_too_many_calls_are_a_pause(make_run, endpoint):
    """A 429 at create leaves the shard uploaded, with a minute's pause, and the run waits."""
    run, wall = make_run(), int(time.time())
    still = clock.Clock(lambda: wall, time.monotonic, time.sleep)
    with sending.spoiled(endpoint, busy) as url, clock.running(still):
        progress = dispatch.advance(run, sending.service_at(endpoint, url), 0.0)
        again = dispatch.advance(run, sending.service_at(endpoint, url), 0.0)
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        (shard,) = ledger.shards(book)
    assert (progress.state, again.state) == ("waiting", "waiting")
    assert (shard["state"], shard["n_refusals"]) == ("uploaded", 1)
    pause = pd.Timestamp(shard["not_before"]) - pd.Timestamp(shard["changed_at"])
    assert pause.total_seconds() == 60


@pytest.mark.parametrize(("hours", "is_kept"), [(0.5, True), (24, False)])
def test_a_pause_ends_also_when_the_clock_was_set_back(make_run, endpoint, hours, is_kept):
    """A pause of half an hour is kept; one of a day, which no refusal gives, is a wrong clock."""
    run = make_run()
    with sending.spoiled(endpoint, busy) as url:
        dispatch.advance(run, sending.service_at(endpoint, url), 0.0)
    until = (pd.Timestamp.now("UTC") + pd.Timedelta(hours=hours)).isoformat()
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        book.execute("UPDATE shards SET not_before = ?", (until,))
    dispatch.advance(run, sending.service_at(endpoint), 0.0)
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        assert (ledger.shards(book)[0]["state"] == "uploaded") == is_kept


def test_the_canary_stops_a_study_whose_answers_would_be_empty(make_run, endpoint):
    """A cap of 20 tokens is eaten by reasoning: two lines are paid, and the error says empty."""
    before = sending.batches_of(endpoint)
    settings = {"reasoning_effort": "high", "max_output_tokens": 20}
    luna = {"luna": {"model": "gpt-6-luna", "parameters": settings}}
    run = make_run(annotators=luna, canary=2)
    to = sending.service_at(endpoint)
    with pytest.raises(CanaryError, match="2 x empty") as stop:
        dispatch.canary(run, to, 0.0)
    assert "max_output_tokens" in str(stop.value)
    assert dispatch.advance(run, to, 0.0).state == "stopped"
    assert sending.paid(endpoint, before).total() == 2


def test_a_model_without_batch_access_costs_at_most_its_canary(make_run, endpoint):
    """When every line of the canary fails for want of access, the other model alone goes on."""
    fault = {"code": "model_not_found", "message": "no access to gpt-6-luna-batch", "line": None}

    def deny(batch):
        if batch.get("model") == "gpt-6-luna":
            shown = {"status": "failed", "errors": {"data": [fault]}, "request_counts": {}}
            return {**batch, **shown, "output_file_id": None, "error_file_id": None}
        return batch

    def rule(method, path):
        return deny if method == "GET" and path.startswith("/v1/batches/") else None

    run, before = make_run(annotators=TWO, canary=2), sending.batches_of(endpoint)
    with sending.spoiled(endpoint, rule) as url:
        to = sending.service_at(endpoint, url)
        with pytest.raises(CanaryError, match="2 x failed model_not_found no access"):
            dispatch.canary(run, to, 0.0)
        assert sending.paid(endpoint, before).total() == 2 + 2
        progress = sending.finish(run, to)
    assert (progress.state, progress.n_valid, progress.n_to_send) == ("stopped", 12, 6)
    assert "x failed model_not_found no access" in progress.reasons[0]


@pytest.mark.parametrize(
    ("annotator", "words"),
    [
        ({"model": "gpt-5.1-chat-latest"}, "Use .* instead"),
        ({"model": "gpt-6-luna", "parameters": {"temperature": 0.0}}, "temperature"),
    ],
)
def test_what_a_model_refuses_is_never_sent(make_run, endpoint, annotator, words):
    """A retired model and a refused parameter stop before the first call, wherever they slip in."""
    run, before = make_run(), sending.batches_of(endpoint)
    changed = type(run.study.annotators["luna"]).model_validate(annotator)
    run.study.panels["small"].annotators["luna"] = changed
    frame = run.table("requests").assign(model=changed.model)
    runs.write_table(frame, run.path("requests.parquet"))
    with pytest.raises(ModelError, match=words):
        dispatch.advance(run, sending.service_at(endpoint), 0.0)
    assert sending.batches_of(endpoint).keys() == before.keys()


def test_requests_of_another_prompt_are_not_sent(make_run, endpoint):
    """When 01 froze a new prompt and 02 was not run again, no answer gets the wrong key."""
    old, before = make_run(), sending.batches_of(endpoint)
    stale = old.path("requests.parquet").read_bytes()
    run = make_run(prompt="Was the guest angry?")
    run.path("requests.parquet").write_bytes(stale)
    with pytest.raises(AccountingError, match="Run 01_load_documents and 02_estimate_cost again"):
        dispatch.advance(run, sending.service_at(endpoint), 0.0)
    assert sending.batches_of(endpoint).keys() == before.keys()


def test_requests_of_another_panel_are_named(make_run, endpoint):
    """An annotator that the panel no longer has is named with the notebook to run."""
    make_run(annotators=TWO)
    run = make_run()
    wide = make_run(annotators=TWO).path("requests.parquet").read_bytes()
    run = make_run()
    run.path("requests.parquet").write_bytes(wide)
    with pytest.raises(AccountingError, match=r"asks terra, whom .* Run 02_estimate_cost again"):
        dispatch.advance(run, sending.service_at(endpoint), 0.0)
    with pytest.raises(StudyError, match="run 02_estimate_cost first"):
        run.path("requests.parquet").unlink()
        dispatch.status(run)


def test_what_the_study_no_longer_asks_is_withdrawn(make_run, endpoint):
    """A shard that waits for room is given up when the prompt changes, and asked on return."""
    run, before = make_run(), sending.batches_of(endpoint)

    with sending.spoiled(endpoint, busy) as url:
        dispatch.advance(run, sending.service_at(endpoint, url), 0.0)
    to = sending.service_at(endpoint)
    changed = make_run(prompt="Was the guest angry?")
    assert sending.finish(changed, to).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6
    assert sending.finish(make_run(), to).n_valid == 6
    lines = sending.paid(endpoint, before)
    assert len(lines) == lines.total() == 12


def test_answers_to_an_earlier_study_are_judged_by_its_fields(make_run, endpoint):
    """A field is renamed while a canary is out: its answers stay valid, and are there on return."""
    to, before = sending.service_at(endpoint), sending.batches_of(endpoint)
    dispatch.advance(make_run(canary=2), to, 0.0)
    other = make_run(fields={"happy": sending.FIELDS["pleased"]})
    assert sending.finish(other, to).n_valid == 6
    assert collect.outcomes(other)["outcome"].eq("valid").sum() == 8
    assert sending.finish(make_run(), to).n_valid == 6
    lines = sending.paid(endpoint, before)
    assert len(lines) == lines.total() == 12


def test_a_run_keeps_its_service(make_run, endpoint):
    """Once something was sent, another service is refused; before that, it may be chosen."""
    run = make_run()
    other = sending.service_at(endpoint, name="https://example.org/v1", free=False)
    assert dispatch.advance(run, other, 0.0).state == "stopped"
    to = sending.service_at(endpoint)
    dispatch.advance(run, to, 0.0)
    with pytest.raises(VotebookError, match=r"begun with the service local, not https://example"):
        dispatch.advance(run, other, 1.0)


def test_a_ledger_that_is_gone_is_missed(make_run, endpoint):
    """Shards without a ledger may have been paid: nothing is sent until a person has decided."""
    run, to = make_run(), sending.service_at(endpoint)
    dispatch.advance(run, to, 0.0)
    run.path("ledger.sqlite").unlink()
    before = sending.batches_of(endpoint)
    with pytest.raises(AccountingError, match=r"no ledger .* puts its copy back"):
        dispatch.advance(run, to, 0.0)
    assert sending.batches_of(endpoint).keys() == before.keys()


def test_outcomes_that_are_gone_are_not_paid_again(make_run, endpoint):
    """The ledger refuses a line that it has sent, also when the outcome file was deleted."""
    run, to = make_run(), sending.service_at(endpoint)
    sending.finish(run, to)
    before = sending.batches_of(endpoint)
    for path in run.path("outcomes").iterdir():
        path.unlink()
    with pytest.raises(AccountingError, match="put the run's folder outcomes/ back"):
        dispatch.advance(run, to, 0.0)
    assert sending.batches_of(endpoint).keys() == before.keys()


def test_a_shard_file_that_changed_is_not_sent(make_run, endpoint):
    """A file that is not what was planned is written anew before it is uploaded."""
    run, before = make_run(), sending.batches_of(endpoint)
    with sending.spoiled(endpoint, busy) as url:
        dispatch.advance(run, sending.service_at(endpoint, url), 0.0)
    (path,) = run.path("shards").iterdir()
    path.write_bytes(path.read_bytes().replace(b"pleased", b"angered"))
    end_pause(run)
    assert sending.finish(run, sending.service_at(endpoint)).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6


def test_a_damaged_ledger_sends_nothing(make_run, endpoint):
    """A ledger that SQLite cannot read stops with its path and what to do, for readers as well."""
    run = make_run()
    run.path("ledger.sqlite").write_bytes(b"this is no ledger" * 100)
    for step in (lambda: dispatch.advance(run, sending.service_at(endpoint), 0.0), None):
        with pytest.raises(VotebookError, match=r"ledger.sqlite is damaged .* check RUN"):
            step() if step else dispatch.status(run)


def test_budget_errors_carry_their_numbers(tmp_path):
    """What is needed and what is allowed are attributes of the error."""
    with ledger.open_ledger(tmp_path / "l.sqlite") as book, pytest.raises(BudgetError) as stop:
        ledger.afford(book, 1.0, {"reserved_usd": 2.5, "n_requests": 3})
    assert (stop.value.needed_usd, stop.value.max_usd) == (2.5, 1.0)


def test_a_newer_ledger_is_left_alone(make_run, endpoint):
    """A ledger of a later version is not touched, and the message names both versions."""
    run, to = make_run(), sending.service_at(endpoint)
    dispatch.advance(run, to, 0.0)
    connection = sqlite3.connect(run.path("ledger.sqlite"))
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(VotebookError, match="has version 7; this Votebook knows 2"):
        dispatch.advance(run, to, 0.0)
