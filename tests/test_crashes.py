"""kill -9 at every named place, then the same command again: nothing is lost and nothing is paid
twice, by the service's own book.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sending

from lib import collect, dispatch, ledger, runs

if not hasattr(os, "fork"):
    pytest.skip("needs fork", allow_module_level=True)

TESTS = Path(__file__).parent
KILLED = -signal.SIGKILL
# Six requests that go as one canary write four files: shard, answers, outcomes, compressed shard.
ONE_SHARD = [
    *(("file synced", hit) for hit in (1, 2, 3, 4)),
    ("file in place", 4),
    *((place, 1) for place in ("shard written", "shard planned")),
    *((place, 1) for place in ("upload intended", "upload answered", "upload recorded")),
    *((place, 1) for place in ("create intended", "create answered", "create recorded")),
    *((place, 1) for place in ("batch seen", "downloaded", "outcomes written", "collected")),
]
TWO_SHARDS = [("shard written", 2), ("create answered", 2), ("outcomes written", 2)]
# Places that only the recovery from another crash comes to.
PAIRS = [
    ("upload answered", "file found"),
    ("create answered", "batch found"),
    ("create intended", "file deleted"),
    ("upload intended", "upload answered"),
    ("create intended", "create answered"),
]


@pytest.fixture(scope="module")
def step():
    """Follows the run of a folder in a process of its own; gives how that ended."""
    command = [sys.executable, str(TESTS / "stepping.py")]
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )

    def follow(outputs, endpoint, crash=""):
        study = str(outputs.parent / "guests")
        asked = {"outputs": str(outputs), "study": study, "service": endpoint, "crash": crash}
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    with process:
        yield follow
        process.stdin.close()


def check_end(outputs, endpoint, before):
    """All six requests are answered, and the service ran each of them once."""
    lines = sending.paid(endpoint, before)
    run = runs.Run("guests", outputs / "guests", None)
    found = collect.outcomes(run)
    assert sorted(found["custom_id"]) == sorted(lines)
    assert found["outcome"].eq("valid").all()
    assert len(lines) == lines.total() == 6


@pytest.mark.parametrize(("place", "hit"), ONE_SHARD)
def test_a_kill_at_any_place_costs_nothing(place, hit, step, make_run, endpoint):
    """A run that is killed there is followed again, and ends as if nothing had been."""
    before, outputs = sending.batches_of(endpoint), make_run().folder.parent
    assert step(outputs, endpoint, f"{place}:{hit}") == KILLED
    assert step(outputs, endpoint) == 0
    check_end(outputs, endpoint, before)


@pytest.mark.parametrize(("place", "hit"), TWO_SHARDS)
def test_a_kill_after_the_canary_costs_nothing(place, hit, step, make_run, endpoint):
    """The second hit is that of the main shard: the canary is neither lost nor sent again."""
    before, outputs = sending.batches_of(endpoint), make_run(canary=2).folder.parent
    assert step(outputs, endpoint, f"{place}:{hit}") == KILLED
    assert step(outputs, endpoint) == 0
    check_end(outputs, endpoint, before)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_kill_in_the_recovery_from_a_kill_costs_nothing(first, second, step, make_run, endpoint):
    """A second kill, inside the recovery from the first, is recovered from in the same way."""
    before, outputs = sending.batches_of(endpoint), make_run().folder.parent
    assert step(outputs, endpoint, f"{first}:1") == KILLED
    assert step(outputs, endpoint, f"{second}:1") == KILLED
    assert step(outputs, endpoint) == 0
    check_end(outputs, endpoint, before)


def test_a_kill_between_a_double_and_its_record_costs_nothing_more(step, make_run, endpoint):
    """A create was done twice, and the process is killed when the second batch is cancelled: it is
    recorded once, and one batch is kept.
    """
    run, doubled = make_run(), ["twice"]

    def rule(method, path):
        return doubled.pop() if doubled and (method, path) == ("POST", "/v1/batches") else None

    with sending.spoiled(endpoint, rule) as url:
        behind = {**endpoint, "base_url": url}
        assert step(run.folder.parent, behind, "double cancelled:1") == KILLED
    assert step(run.folder.parent, endpoint) == 0
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        (shard,) = ledger.shards(book)
    assert shard["lost_usd"] == shard["reserved_usd"]
    assert collect.outcomes(run)["outcome"].eq("valid").sum() == 6


def test_the_judge_sees_what_is_paid_twice(make_run, endpoint):
    """The harness can fail: a run whose ledger is deleted with its traces pays all lines again."""
    run, to, before = make_run(), sending.service_at(endpoint), sending.batches_of(endpoint)
    sending.finish(run, to)
    run.path("ledger.sqlite").unlink()
    for name in ("shards", "outcomes"):
        shutil.rmtree(run.path(name))
    assert dispatch.status(run).n_to_send == 6
    sending.finish(run, to)
    assert sending.paid(endpoint, before).total() == 12
