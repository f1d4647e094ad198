"""A local service that lives ten minutes in a second, runs whose clock moves by waiting alone, and
the service's word on them.

How fast the machine is decides nothing here: what takes it long takes no time of the run's, and
what a test looks at is waited for. The bounds in real seconds only end what would hang.
"""

import contextlib
import math
import os
import signal
import time

import judge
import sending

from lib import clock, dispatch, ledger, local_api, models
from lib.local_api import launch
from lib.service import Service

SPEED = 600.0
NAPS = 1200.0  # how much faster than real time the loop sleeps
TICK_SECONDS = 0.01  # by which each reading moves the loop's clock, so that no two are the same
HANG_SECONDS = 300.0
MAX_USD = 1.0
LOST = ("double", "results_gone")
EXIT = {"done": judge.DONE, "stopped": judge.STOPPED, "waiting": judge.WAITING}
_STAGES = ("--validating=0", "--in-progress=0", "--finalizing=0", "--cancelling=0")


def start(state, *options):
    """The endpoint of a service of its own, which lives in fast time too."""
    found = local_api.start(state, speed=SPEED, options=[*_STAGES, *options])
    return {**found, "state": state}


def restarted(endpoint, *options):
    """The service on the same folder, ended and started with other options."""
    end(endpoint)
    return start(endpoint["state"], *options)


def end(endpoint):
    """End a service, and wait until it has left its folder."""
    os.kill(endpoint["pid"], signal.SIGTERM)
    for _ in waiting("the service to end"):
        if not (endpoint["state"] / launch.ENDPOINT).exists():
            return


def waiting(what):
    """Looks at something, with pauses; AssertionError when it has not come for very long."""
    until = time.monotonic() + HANG_SECONDS
    while time.monotonic() < until:
        yield
        time.sleep(0.02)
    raise AssertionError(f"waited {HANG_SECONDS:g} s for {what}")


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
    for _ in waiting("the service to be up again"):
        if launch.live(endpoint["state"]):
            return


def is_judged(endpoint):
    """Wait until the queue has let in or refused every batch: hours must not pass meanwhile."""
    sending.are_past(endpoint, "validating")


def has_struck(endpoint):
    """Whether every fault that is switched on has struck."""
    switches = judge.asked(endpoint, "/votebook/faults")["on"]
    return all(one["n_struck"] for one in switches.values())


@contextlib.contextmanager
def time_flies(jumped=lambda n_naps: 0.0):
    """The loop lives by a clock that its own waiting moves; gives a way to let hours pass at once.

    `jumped` is by how many seconds the wall clock is set to another time after so many naps.
    """
    passed, n_naps, wall = [0.0], [0], time.time()

    def moved():
        passed[0] += TICK_SECONDS
        return passed[0]

    def sleep(seconds):
        time.sleep(seconds / NAPS)
        passed[0] += seconds
        n_naps[0] += 1

    def later(hours):
        passed[0] += hours * 3600

    with clock.running(clock.Clock(lambda: wall + moved() + jumped(n_naps[0]), moved, sleep)):
        yield later


def stepped(run, to, is_met):
    """Step, and wait between the steps, until what has come of one is as it should be; gives it."""
    for _ in waiting(f"{run.name} to stand as it should"):
        progress = dispatch.advance(run, to, MAX_USD)
        if is_met(progress):
            break
        clock.sleep(to.poll_seconds)
    return progress


def service_at(endpoint, base_url="", timeout=60.0):
    """The service as one that is paid, by a client without retries of its own."""
    client = sending.client_at(endpoint, base_url, timeout=timeout, max_retries=0)
    return Service("local", client, free=False, grace_seconds=120, poll_seconds=60)


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
