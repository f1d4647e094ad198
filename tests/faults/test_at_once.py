"""Two commands at once on one run: one works, the other leaves at once and says why."""

import random
import shutil

import judge
import killing

N_PAIRS = 50


def pair(at, seed):
    """Two commands and a reader on a new run: the second and the reader come at some moment of the
    first step of the first, which takes its next one when they have left.
    """
    run, wait = at.copy("one shard"), random.Random(seed).uniform(0.0, 0.1)
    before, folder = judge.look(at.endpoint), run.folder.parent
    left = [str(folder / name) for name in ("other left", "reader left")]
    # The ledger is made by the one that holds the run.
    late = {"after": [str(run.path("ledger.sqlite"))], "wait": wait}
    worker, other, reader = at.ask(
        at.command(run, between=left),
        at.command(run, then=left[0], **late),
        at.command(run, "look", then=left[1], **late),
    )
    found = killing.judged(at, run, before, [other, worker])
    found += judge.not_alone([worker, other])
    shutil.rmtree(folder)
    return found, worker, other, reader


def test_of_two_commands_at_once_one_works_and_one_leaves(places):
    """50 pairs: nothing is paid twice, the second says busy with 75, a reader is never held up."""
    pairs = killing.spread(places, [f"pair {n}" for n in range(N_PAIRS)], pair)
    assert [violation for found, *_ in pairs for violation in found] == []
    for _, worker, other, reader in pairs:
        assert (worker["code"], other["code"], reader["code"]) == (0, judge.BUSY, 0)
        assert "is working on run guests" in other["said"]
    worked, left = (sum(one[n]["cpu_seconds"] for one in pairs) for n in (1, 2))
    assert left < worked  # it has looked at nothing
