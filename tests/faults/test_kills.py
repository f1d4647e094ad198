"""Random kill -9, with a fault of the service in most runs: nothing is paid twice, lost or doubled.

The same harness, run on a client of the usual shape, finds what it is made to find.
"""

import collections

import disturbing
import judge
import killing

N_KILLS = 300
SEED = "ci"


def test_random_kills_and_a_fault_cost_nothing(places):
    """300 kills; each run is killed at random, with the same command again until it is done."""
    found = disturbing.disturb_often(places, SEED, N_KILLS)
    broken = [f"{one}: {violation}" for one in found for violation in one.violations]
    assert broken == []
    assert sum(one.n_kills for one in found) >= N_KILLS
    assert sum(bool(one.fault) for one in found) > len(found) / 2
    assert len({one.shape for one in found}) == len(killing.SHAPES)


def test_the_harness_finds_what_a_naive_client_does(places):
    """A manifest written after the call pays twice and leaves orphans: killed till it is found out.

    One run in three or so pays twice; the bound of 60 runs is never near.
    """
    found, sums = [], collections.Counter()
    while not (sums["paid twice"] and sums["orphans"]) and len(found) < 60:
        seeds = [f"naive {len(found) + n}" for n in range(6)]
        some = killing.spread(places, seeds, disturbing.disturb_naive)
        sums.update(violation.kind for one in some for violation in one.violations)
        found += some
    assert sums["paid twice"] >= 1
    assert sums["orphans"] >= 1


def test_a_naive_client_that_nobody_kills_is_found_in_order(places):
    """The judge finds nothing where nothing happened: it is the kills that show the difference."""
    at = places[0]
    run = at.copy("small shards")
    before = judge.look(at.endpoint)
    (end,) = at.ask(at.command(run, "naive"))
    assert end["code"] == 0, end["said"]
    assert disturbing.judged_naively(at, run, before) == []
