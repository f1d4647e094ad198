"""Queues that are smaller than the table says, count otherwise or forget late; models side by side.

Over HTTP, ten minutes in a second; what was run and paid is the word of the service's own book.
"""

import hurried
import judge
import pytest
import sending

from lib import dispatch, ledger

TEXTS = [
    f"The soup of day {n} was warm and the waiter kind, as {n} times before." for n in range(24)
]
TWO = {**sending.LUNA, "terra": {"model": "gpt-6.1-terra"}}


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """A service whose queue reserves the caps of the answers too."""
    return hurried.start(tmp_path_factory.mktemp("service"), "--count-output")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service whose queue counts the input alone."""
    return hurried.start(tmp_path_factory.mktemp("service"), "--in-progress=60")


def followed(run, endpoint, url="", hours=48.0):
    """Follow a run in fast time, at a budget of a dollar; gives its last progress."""
    to = hurried.service_at(endpoint, url)
    with hurried.time_flies():
        return dispatch.follow(run, to, hurried.MAX_USD, hours)


def refusals(run):
    """How often a batch of the run was refused by its queue, and the queues as they are known."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        events = ledger.events(book)
        kinds = events[events["kind"].isin(["submitted", "uploaded", "released", "collected"])]
        after = kinds.groupby("shard")["kind"].shift(-1)
        refused = kinds["kind"].eq("submitted") & after.isin(["uploaded", "released"])
        return int(refused.sum()), ledger.limits(book)


def limit(n_tokens):
    """The fault that the queue of every model has so many tokens."""
    return {"queue_limit": {"probability": 1, "tokens": n_tokens}}


def test_a_queue_below_the_table_is_learned(make_run, service):
    """24 texts of 105 tokens, 2,500 in all, go through a queue of 1,000 after a refusal that names
    it, in shards of one line, as many at once as fit; every line runs once.
    """
    held, run = judge.look(service), make_run(TEXTS, canary=2)
    with hurried.switched(service, limit(1_000)):
        progress = followed(run, service)
    assert (progress.state, progress.n_valid) == ("done", 24)
    assert hurried.check(service, run, held, progress) == (24, 0)
    n_refused, limits = refusals(run)
    assert limits["gpt-6-luna"]["limit_tokens"] == 1_000
    assert 1 <= n_refused <= 3  # the service's own count of a line differs by a few tokens


def test_a_queue_that_counts_the_caps_is_learned(make_run, counting):
    """Each line reserves 4,000 tokens for its answer: 22 lines are 2,300 by our count and 90,300 by
    the service's. The refusal says 30,000: 30,000 x 2,300 / 90,300 = 766 of ours, about 7 lines.
    """
    held, run = judge.look(counting), make_run(TEXTS, canary=2)
    with hurried.switched(counting, limit(30_000)):
        progress = followed(run, counting)
    assert (progress.state, progress.n_valid) == ("done", 24)
    assert hurried.check(counting, run, held, progress) == (24, 0)
    n_refused, limits = refusals(run)
    assert limits["gpt-6-luna"]["limit_tokens"] == 30_000
    assert n_refused <= 3
    assert 600 < limits["gpt-6-luna"]["window_tokens"] < 900


def test_a_queue_that_forgets_late_is_waited_for(make_run, service):
    """Each batch is held for an hour after its end: refusals and pauses, and all lines in the end,
    each run once, although there is room for ten at a time.
    """
    held, run = judge.look(service), make_run(TEXTS[:16], canary=2)
    late = {"queue_released_late": {"probability": 1, "seconds": 3600}}
    with hurried.switched(service, limit(1_100) | late):
        progress = followed(run, service)
    assert (progress.state, progress.n_valid) == ("done", 16)
    assert hurried.check(service, run, held, progress) == (16, 0)
    assert 1 <= refusals(run)[0] <= 20


def test_a_request_that_no_queue_admits_ends_in_words(make_run, service):
    """A queue of 50 tokens has no room for one line: the shards are cut down to it, the pauses
    grow, and after a day of them the run stops and says why, as often as it is asked; with more
    room the same command ends it.
    """
    held, run = judge.look(service), make_run(TEXTS[:3], canary=2)
    with hurried.time_flies() as later:
        to = hurried.service_at(service)

        def steps(n_most):
            for _ in range(n_most):
                progress = dispatch.advance(run, to, hurried.MAX_USD)
                hurried.is_judged(service)
                later(1.05)
                if progress.state == "stopped":
                    break
            return progress

        with hurried.switched(service, limit(50)):
            assert steps(12).state == "waiting"
            assert {shard["n_requests"] for shard in hurried.shards_of(run)[1:]} == {1}
            assert 4 <= refusals(run)[0] <= 6  # the steps between them wait
            with ledger.open_ledger(run.path("ledger.sqlite")) as book:
                ledger.learn(book, "gpt-6-luna", n_refusals=28)  # 22 hours later
            progress = steps(60)
            assert "has had no room for gpt-6-luna for more than a day" in progress.reasons[0]
            assert steps(4).state == "stopped"
        progress = dispatch.follow(run, to, hurried.MAX_USD, 48)
    assert (progress.state, progress.n_valid) == ("done", 3)
    assert hurried.check(service, run, held, progress) == (3, 0)


def is_look(method, path):
    """Whether a call asks for one batch."""
    return method == "GET" and path.startswith("/v1/batches/")


def full(batch):
    """A batch as its queue refuses it, if it is luna's."""
    if batch.get("model") != "gpt-6-luna":
        return batch
    words = "Enqueued token limit reached for gpt-6-luna in organization o. Limit: 2,000,000 enq"
    fault = {"code": "token_limit_exceeded", "message": words, "line": None, "param": None}
    ended = {"status": "failed", "errors": {"data": [fault]}, "request_counts": None}
    return {**batch, **ended, "output_file_id": None, "error_file_id": None}


def once(status, fault):
    """A rule that refuses the first create, which is luna's, and each that follows it at once."""
    creates = []

    def rule(method, path):
        if (method, path) != ("POST", "/v1/batches"):
            return None
        creates.append(path)
        return (status, {"error": fault}) if len(creates) == 1 else None

    return rule


@pytest.mark.parametrize(
    ("status", "fault", "words"),
    [
        (429, {"message": "Slow down", "code": "rate_limit_exceeded"}, "Slow down"),
        (403, {"message": "No access to gpt-6-luna", "code": "model_not_found"}, "No access"),
        (400, {"message": "Invalid value", "code": "invalid_value"}, "Invalid value"),
        (500, {"message": "Oops", "code": None}, "Oops"),
    ],
)
def test_what_one_model_is_refused_holds_no_other_up(make_run, service, status, fault, words):
    """Luna's batch cannot be made, which is told: in the same step terra's is."""
    run, held = make_run(TEXTS[:6], annotators=TWO), judge.look(service)
    with sending.spoiled(service, once(status, fault)) as url, hurried.time_flies():
        progress = dispatch.advance(run, hurried.service_at(service, url), hurried.MAX_USD)
        states = {shard["model"]: shard["state"] for shard in hurried.shards_of(run)}
        assert states.pop("gpt-6.1-terra") == "submitted"
        assert states["gpt-6-luna"] != "submitted"
        assert any(words in reason for reason in progress.reasons)
        progress = dispatch.follow(run, hurried.service_at(service), hurried.MAX_USD, 24)
    assert (progress.state, progress.n_valid) == ("done", 12)
    lines = judge.since(held, service).book.values()
    assert sum(line["n_executions"] for line in lines) == len(lines) == 12


def test_a_full_queue_of_one_model_holds_no_other_up(make_run, service):
    """While luna's queue refuses everything, terra's twelve lines go through canary and batches."""
    run = make_run(TEXTS[:12], annotators=TWO, canary=2)
    rule = lambda *call: full if is_look(*call) else None  # noqa: E731
    with sending.spoiled(service, rule) as url, hurried.time_flies():
        to = hurried.service_at(service, url)
        progress = hurried.stepped(run, to, lambda progress: progress.n_valid == 12)
    assert (progress.state, progress.n_valid) == ("waiting", 12)
    with hurried.time_flies():
        progress = dispatch.follow(run, hurried.service_at(service), hurried.MAX_USD, 24)
    assert (progress.state, progress.n_valid) == ("done", 24)
