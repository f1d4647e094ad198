"""Two commands at once on one run: one works, the other leaves at once and says why."""

import random
import shutil

import judge
import killing

N_PAIRS = 50


def pair(at, seed):
    """Two commands and a reader on a new run, the second as soon as the first holds the run.

    On a busy machine the second may begin when the first has ended: then again, with a new run.
    """
    chance = random.Random(seed)
    for _ in range(5):
        run = at.copy("one shard")
        before = judge.look(at.endpoint)
        first = at.command(run)
        # The ledger is made by the one that holds the run.
        after = {"after": str(run.path("ledger.sqlite")), "wait": chance.uniform(0.0, 0.1)}
        worker, other, reader = at.ask(first, {**first, **after}, at.command(run, "look", **after))
        if other["began"] < worker["ended"]:
            break
        shutil.rmtree(run.folder.parent)
    found = killing.judged(at, run, before, [other, worker])
    found += judge.not_alone([worker, other])
    shutil.rmtree(run.folder.parent)
    return found, worker, other, reader


def test_of_two_commands_at_once_one_works_and_one_leaves(places):
    """50 pairs: nothing is paid twice, the second says busy with 75, a reader is never held up."""
    pairs = killing.spread(places, [f"pair {n}" for n in range(N_PAIRS)], pair)
    assert [violation for found, *_ in pairs for violation in found] == []
    for _, worker, other, reader in pairs:
        assert (worker["code"], other["code"], reader["code"]) == (0, judge.BUSY, 0)
        assert "is working on run guests" in other["said"]
    quick = sum(other["cpu_seconds"] < worker["cpu_seconds"] for _, worker, other, _ in pairs)
    assert quick == N_PAIRS
