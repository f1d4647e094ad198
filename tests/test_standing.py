"""Whether anything may have changed since a run was counted and planned."""

import os
from datetime import UTC, datetime

import pytest
import sending

from lib import clock, collect, dispatch, ledger, runs, standing

DAY = 86_400


def running(method, path):
    """A rule that shows every batch as running."""
    shown = {"status": "in_progress", "output_file_id": None, "error_file_id": None}
    shown |= {"request_counts": {"total": 0, "completed": 0, "failed": 0}}
    is_look = method == "GET" and path.startswith("/v1/batches/")
    return (lambda batch: {**batch, **shown}) if is_look else None


@pytest.fixture
def flying(make_run, endpoint):
    """A run with all six requests in flight, and one with two of six; with what was given."""
    found = {}
    with sending.spoiled(endpoint, running) as url:
        for name, n in (("all sent", 6), ("some left", 2)):
            run, to = (
                make_run(name=name.replace(" ", "-"), canary=n),
                sending.service_at(endpoint, url),
            )
            dispatch.advance(run, to, 5.0)
            progress = dispatch.advance(run, to, 5.0)
            assert (progress.n_in_flight, progress.n_to_send) == (n, 6 - n)
            found[name] = run, to
        yield found


def given(to, book, **differs):
    """What the last command gave to planning."""
    facts = {"to": to, "max_usd": 5.0, "canaries_only": False, "hold": hold_of(book)}
    return standing.Given(**{**facts, **differs})


def hold_of(book):
    """The name of the last command."""
    return ledger.fact(book, "hold").split(" ")[0]


def planned(run, to, **differs):
    """Whether planning would conclude the same as it did."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        return standing.planned(run, book, given(to, book, **differs)) is not None


def change(run, statement):
    """Change the ledger by hand."""
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        book.execute(statement)


def add_outcomes(run):
    """One more outcome file in a run."""
    runs.write_table(collect.outcomes(run, content=True), run.path("outcomes") / "one-more.parquet")


def later(seconds):
    """A clock that is ahead."""
    ahead = clock.now().timestamp() + seconds
    return clock.running(clock.Clock(lambda: ahead, clock.monotonic, clock.sleep))


@pytest.mark.parametrize("name", ["all sent", "some left"])
def test_what_was_concluded_stands_while_nothing_changes(flying, name):
    """The same command finds its own conclusion; its counts and reasons are those of the plan."""
    run, to = flying[name]
    assert planned(run, to)
    assert planned(run, to)


@pytest.mark.parametrize("name", ["all sent", "some left"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE shards SET state = 'uploaded', batch_id = NULL",
        "UPDATE shards SET reserved_usd = reserved_usd / 2",
        "UPDATE shards SET lost_usd = 1",
        "UPDATE shards SET n_failed = 5, n_completed = 1",
    ],
)
def test_a_change_in_the_ledger_is_planned_for(flying, name, statement):
    """A shard in another state, money, or a batch with too many failed lines: planned anew."""
    run, to = flying[name]
    change(run, statement)
    assert not planned(run, to)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE shards SET status = 'finalizing'",
        "UPDATE shards SET not_before = '2026-11-22T10:00:00+00:00'",
        "INSERT INTO limits (model, limit_tokens) VALUES ('gpt-6-luna', 900)",
    ],
)
def test_a_queue_matters_while_something_is_left_to_send(flying, statement):
    """A batch that goes on, a pause, a learned limit: nothing to a run that has sent all."""
    for run, _ in flying.values():
        change(run, statement)
    assert planned(*flying["all sent"])
    assert not planned(*flying["some left"])


def test_another_command_tries_again_what_is_left(flying):
    """What the last command did not send, the next one looks at itself."""
    assert planned(*flying["all sent"], hold="another")
    assert not planned(*flying["some left"], hold="another")


def test_answers_of_other_runs_matter_while_something_is_left_to_send(flying, make_run, endpoint):
    """They may be the ones that are wanted."""
    sending.finish(make_run(name="third", prompt="Another?"), sending.service_at(endpoint))
    assert planned(*flying["all sent"])
    assert not planned(*flying["some left"])


@pytest.mark.parametrize("name", ["all sent", "some left"])
@pytest.mark.parametrize(
    "differs", [{"max_usd": 6.0}, {"canaries_only": True}, {"free": False}, {"name": "elsewhere"}]
)
def test_another_command_is_planned_for(flying, endpoint, name, differs):
    """Another budget, canaries alone, another service."""
    run, to = flying[name]
    if differs.keys() & {"free", "name"}:
        to, differs = sending.service_at(endpoint, **differs), {}
    assert not planned(run, to, **differs)


@pytest.mark.parametrize("name", ["all sent", "some left"])
def test_a_change_in_the_run_is_planned_for(flying, name):
    """Other requests, another study, another outcome."""
    run, to = flying[name]
    other = runs.Run(run.name, run.folder, run.study.model_copy(update={"prompt": "Other?"}))
    assert not planned(other, to)
    path = run.path("requests.parquet")
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert not planned(run, to)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert planned(run, to)
    add_outcomes(run)
    assert not planned(run, to)


@pytest.mark.parametrize("name", ["all sent", "some left"])
def test_every_day_is_planned_anew(flying, name):
    """A model may have been shut down since, and no conclusion is older than its day."""
    with later(DAY):
        assert not planned(*flying[name])


def test_a_conclusion_ends_when_time_may_change_it(flying):
    """Until the pause of its plan is over, and no longer."""
    run, to = flying["some left"]
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        counts, end = standing.counted(run, book), clock.now().timestamp() + 3600
        plan = standing.Plan(("paused",), changes_at=datetime.fromtimestamp(end, UTC).isoformat())
        standing.record(run, book, counts, given(to, book), plan)
        assert standing.planned(run, book, given(to, book)) == plan
        with later(3601):
            assert standing.planned(run, book, given(to, book)) is None


def test_counts_stand_without_a_conclusion(flying):
    """When planning broke off, where the requests are is known, and planning begins again."""
    run, to = flying["some left"]
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        counts = standing.counted(run, book)
        standing.record(run, book, counts, given(to, book), None)
        assert standing.counted(run, book) == counts == (6, 0, 2, {"gpt-6-luna": 4}, 0, 0)
        assert standing.planned(run, book, given(to, book)) is None


def test_a_status_is_that_of_the_last_step(flying):
    """Who looks finds the same line as the one who works, and changes nothing."""
    run, _ = flying["some left"]
    before = run.path("ledger.sqlite").read_bytes()
    assert str(dispatch.status(run)) == (
        "waiting: 0 of 6 answered, 2 in flight, 4 to send, 0 for review"
    )
    assert run.path("ledger.sqlite").read_bytes() == before
