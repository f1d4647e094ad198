"""A local service and runs that live ten minutes in a second, and the service's word on them."""

import contextlib
import math
import time

import judge
import openai
import sending

from lib import clock, ledger, local_api, models
from lib.local_api import launch
from lib.service import Service

SPEED = 600.0
MAX_USD = 1.0
LOST = ("double", "results_gone")
EXIT = {"done": judge.DONE, "stopped": judge.STOPPED, "waiting": judge.WAITING}
_STAGES = ("--validating=0", "--in-progress=0", "--finalizing=0", "--cancelling=0")


def start(state, *options):
    """The endpoint of a service of its own, which lives in fast time too."""
    found = local_api.start(state, speed=SPEED, options=[*_STAGES, *options])
    return {**found, "state": state}


@contextlib.contextmanager
def switched(endpoint, faults):
    """Faults that are switched on within the block: name -> options."""
    judge.switch(endpoint, **faults)
    try:
        yield
    finally:
        is_up_again(endpoint)
        judge.switch(endpoint)


def is_up_again(endpoint):
    """Wait for a service that a fault has taken down for a moment."""
    until = time.monotonic() + 10
    while not launch.live(endpoint["state"]) and time.monotonic() < until:
        time.sleep(0.02)


def is_judged(endpoint):
    """Wait until the queue has let in or refused every batch: hours must not pass meanwhile."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        batches = judge.look(endpoint).batches.values()
        if not any(batch["status"] == "validating" for batch in batches):
            return
        time.sleep(0.01)


def has_struck(endpoint):
    """Whether every fault that is switched on has struck."""
    switches = judge.asked(endpoint, "/votebook/faults")["on"]
    return all(one["n_struck"] for one in switches.values())


@contextlib.contextmanager
def time_flies():
    """The loop lives in fast time within the block; gives a way to let hours pass at once."""
    skipped, wall, began = [0.0], time.time(), time.monotonic()

    def passed():
        return (time.monotonic() - began) * SPEED + skipped[0]

    def later(hours):
        skipped[0] += hours * 3600

    quick = clock.Clock(lambda: wall + passed(), passed, lambda s: time.sleep(s / SPEED))
    with clock.running(quick):
        yield later


def service_at(endpoint, base_url="", timeout=20.0):
    """The service as one that is paid, by a client without retries of its own."""
    # To read the system's certificates would take longer than all calls of a test.
    http = openai.DefaultHttpxClient(verify=False)
    key, url = endpoint["token"], base_url or endpoint["base_url"]
    client = openai.OpenAI(
        base_url=url, api_key=key, timeout=timeout, max_retries=0, http_client=http
    )
    sending.OPENED.append(client)
    return Service("local", client, free=False, grace_seconds=120, poll_seconds=30)


def shards_of(run):
    """The shards of a run by its ledger."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        return ledger.shards(book)


def lost_batches(run):
    """The batches that the ledger has recorded as billed, perhaps, and of no use to the run."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        events = ledger.events(book)
    kept = events["kind"].isin(LOST)
    return frozenset(detail["batch_id"] for detail in events.loc[kept, "detail"])


def check(endpoint, run, before, progress, n_unseen=0):
    """Judge an ended run; gives how many lines ran, and how many batches are recorded as lost.

    The rules hold (0 paid twice, all known, all adds up), and the spend is what the service's book
    says with, for each lost batch, its worst case.
    """
    seen, gone = judge.since(before, endpoint), lost_batches(run)
    ends = [{"code": EXIT[progress.state], "said": str(progress)}]
    case = judge.Case(run, seen, ends, max_usd=MAX_USD, excused=gone)
    broken = [one for one in judge.violations(case) if one.rule != "I12"]
    assert not broken, broken
    assert progress.reserved_usd == 0.0 or progress.state != "done"
    lost_usd = sum(shard["lost_usd"] for shard in shards_of(run))
    paid_usd = _usd(seen, gone) + lost_usd
    assert math.isclose(progress.spend_usd, paid_usd, abs_tol=1e-9) == (n_unseen == 0)
    return sum(line["n_executions"] for line in seen.book.values()), len(gone)


def _usd(seen, gone):
    """What the lines of the book cost that are not of a lost batch alone."""
    lines = [line for line in seen.book.values() if not gone.issuperset(line["batches"])]
    names = ("n_input_tokens", "n_output_tokens", "n_cached_tokens")
    return sum(
        models.spend_usd(
            models.facts("gpt-6-luna"), *(line[name] // line["n_executions"] for name in names)
        )
        for line in lines
        if line["n_executions"]
    )
