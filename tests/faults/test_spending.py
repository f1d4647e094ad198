"""What a disaster costs at most: its canary, to the cent by the service's book; then the cure.

Over HTTP, ten minutes in a second. Models that answer nothing, or may not be used; an account that
has no credit; batches that fail while they run; and a budget that two processes share.
"""

import subprocess
import sys
from pathlib import Path

import hurried
import judge
import pytest

from lib import dispatch, ledger, models
from lib.errors import CanaryError

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [f"The soup of day {n} was warm and the waiter kind." for n in range(40)]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service of our own."""
    return hurried.start(tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A service whose batches take a quarter of an hour."""
    return hurried.start(tmp_path_factory.mktemp("slow"), "--in-progress=900")


def usd(seen, model):
    """The price of every line that the service has run since then."""
    facts = models.facts(model)
    names = ("n_input_tokens", "n_output_tokens", "n_cached_tokens")
    return sum(models.spend_usd(facts, *(line[n] for n in names)) for line in seen.book.values())


def test_answers_that_reasoning_eats_cost_their_canary(make_run, service):
    """A cap of 20 tokens is used up before a word is written: 5 of 40 lines are run and paid, the
    books agree to the cent, and neither waiting nor the same command sends a line more.
    """
    settings = {"reasoning_effort": "high", "max_output_tokens": 20}
    luna = {"luna": {"model": "gpt-6-luna", "parameters": settings}}
    run, held = make_run(TEXTS, annotators=luna, canary=5), judge.look(service)
    with hurried.time_flies():
        to = hurried.service_at(service)
        with pytest.raises(CanaryError, match=r"5 x empty.*max_output_tokens"):
            dispatch.canary(run, to, hurried.MAX_USD, 24)
        for _ in range(3):
            progress = dispatch.follow(run, to, hurried.MAX_USD, 24)
    seen = judge.since(held, service)
    assert (progress.state, len(seen.book)) == ("stopped", 5)
    assert all(line["n_output_tokens"] == 20 for line in seen.book.values())
    assert progress.spend_usd == pytest.approx(usd(seen, "gpt-6-luna"), abs=1e-12)
    assert progress.spend_usd > 0


@pytest.mark.parametrize(
    "fault", ["lines_no_access", "all_lines_refused", "lines_no_credit"], ids=str
)
def test_a_model_that_may_not_be_used_costs_nothing(make_run, service, fault):
    """Of 40 lines the five of the canary are refused, which costs nothing: the run stops and says
    what to do; each further command tries one canary, and when the cause is gone it ends the run.
    """
    run, held = make_run(TEXTS, canary=5), judge.look(service)
    with hurried.time_flies() as later:
        to = hurried.service_at(service)
        with hurried.switched(service, {fault: {"probability": 1}}):
            progress = dispatch.follow(run, to, hurried.MAX_USD, 24)
            assert (progress.state, progress.spend_usd) == ("stopped", 0.0)
            assert "is refused to this account" in progress.reasons[0]
            refused = judge.since(held, service).book.values()
            assert sum(line["n_executions"] + line["n_refusals"] for line in refused) <= 5
            later(2)
            assert dispatch.follow(run, to, hurried.MAX_USD, 24).state == "stopped"
            assert len(judge.since(held, service).batches) == 2
        later(2)
        progress = dispatch.follow(run, to, hurried.MAX_USD, 48)
    assert (progress.state, progress.n_valid) == ("done", 40)
    assert hurried.check(service, run, held, progress)[0] == 40


def test_lost_credit_stops_a_run_in_the_middle(make_run, service):
    """The canary is paid, then the credit is gone: nothing more is sent, and with new credit the
    same command asks the 35 again, through a canary, and pays each line once.
    """
    run, held = make_run(TEXTS, canary=5), judge.look(service)
    with hurried.time_flies():
        to = hurried.service_at(service)
        dispatch.canary(run, to, hurried.MAX_USD, 24)
        with hurried.switched(service, {"lines_no_credit": {"probability": 1}}):
            progress = dispatch.follow(run, to, hurried.MAX_USD, 24)
        assert (progress.state, progress.n_valid, progress.n_to_send) == ("stopped", 5, 35)
        assert "Add credit to the account" in progress.reasons[0]
        progress = dispatch.follow(run, to, hurried.MAX_USD, 48)
    assert (progress.state, progress.n_valid) == ("done", 40)
    purposes = [shard["purpose"] for shard in hurried.shards_of(run)]
    assert purposes == ["canary", "main", "canary", "main"]
    assert hurried.check(service, run, held, progress)[0] == 40


@pytest.mark.parametrize("brake", ["stop", "cancel"])
def test_a_running_batch_that_fails_is_braked(make_run, slow, brake):
    """After a good canary most lines of the batch fail: as soon as the service's counts show it
    nothing more is sent, and where the study says cancel, the batch is ended before it is through.
    """
    run, held = make_run(TEXTS, canary=5, max_requests=30, brake=brake), judge.look(slow)
    with hurried.time_flies():
        dispatch.canary(run, hurried.service_at(slow), hurried.MAX_USD, 24)
        if brake == "cancel":  # a batch that would take hours
            slow |= hurried.restarted(slow, "--in-progress=7200")
        to = hurried.service_at(slow)
        fault = {"lines_unsupported": {"probability": 0.9}, "queue_limit": {"tokens": 4_000}}
        with hurried.switched(slow, fault):
            progress = dispatch.follow(run, to, hurried.MAX_USD, 24)
    shards = hurried.shards_of(run)
    assert progress.state == "stopped"
    assert "are not valid" in progress.reasons[0]
    ended = {shard["status"] for shard in shards if shard["purpose"] == "main"}
    assert ended == {"cancelled" if brake == "cancel" else "completed"}
    assert hurried.check(slow, run, held, progress)[0] < 40


# Plans 20 shards of $0.1 each in a ledger, as far as a budget of $1 goes, and says how many.
PLANNING = """
import pathlib, sys
from lib import errors, ledger
made = 0
for number in range(20):
    shard = dict.fromkeys(["model", "purpose", "file", "sha256", "fields"], "x")
    shard |= {"shard": f"{sys.argv[2]}-{number}", "size_bytes": 1, "n_requests": 1}
    shard |= {"n_input_tokens": 1, "reserved_usd": 0.1}
    with ledger.open_ledger(pathlib.Path(sys.argv[1])) as book:
        try:
            ledger.plan(book, shard, [], 1.0)
            made += 1
        except errors.BudgetError:
            pass
print(made)
"""


def test_two_processes_share_one_budget(tmp_path):
    """Both plan 20 shards of $0.1 under a budget of $1: together they get ten, whoever is first."""
    path = tmp_path / "ledger.sqlite"
    with ledger.open_ledger(path) as book:
        ledger.bind(book, "x", "{}")
    words = [sys.executable, "-c", PLANNING, str(path)]
    workers = [subprocess.Popen([*words, name], cwd=ROOT, stdout=subprocess.PIPE) for name in "ab"]
    assert sum(int(worker.communicate(timeout=300)[0]) for worker in workers) == 10
    with ledger.open_ledger(path, read_only=True) as book:
        assert ledger.money(book) == pytest.approx((0.0, 1.0))
