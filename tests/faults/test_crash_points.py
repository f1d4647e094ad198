"""kill -9 at every named place, at each of its hits, then the same command again: no rule of
`judge` is broken. Then pairs: a second kill inside the recovery from the first.
"""

import ast
import collections
import random
import shutil
from pathlib import Path

import judge
import killing
import pytest
import reading
import whole
from killing import KILLED

from lib import runs

# The second adds the hits that the first does not have: those of the main shard after the canary.
SHAPES = ("one shard", "canary")
N_PAIRS = 15
N_BETWEEN_WAVES = 6
# Places that a test elsewhere comes to.
ELSEWHERE = {
    "notebook executed": "faults/test_signals.py",
    "entry written": "test_schedule.py",
    "entry removed": "test_schedule.py",
}
REACHED: set[str] = set()  # what the tests of this file came to: the last of them reads it


def names():
    """Every name of a place in lib."""
    return {
        node.args[0].value
        for path in (runs.ROOT / "lib").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and "crash_point" in ast.unparse(node.func)
    }


def crash(at, shape, *crashes, prepare=None):
    """Kill the command of a new run at places, give it again, and judge: what was broken."""
    results = killing.undisturbed(at, shape)
    run = at.copy(shape)
    before = judge.look(at.endpoint)
    ends = prepare(at, run) if prepare else []
    for place in (*crashes, "*:0", "*:0"):
        ends += at.ask(at.command(run, crash=place))
        REACHED.update(ends[-1]["passed"])
        REACHED.update([place.rpartition(":")[0]] if ends[-1]["code"] == KILLED else [])
        if place == "*:0" and ends[-1]["code"] == 0:
            break
    judge.switch(at.endpoint)
    found = killing.judged(at, run, before, ends, results=results)
    shutil.rmtree(run.folder.parent)
    return ends, [(crashes, violation) for violation in found]


def hits(passed, known=None):
    """A crash for each hit of each place that was passed, beyond those that are known."""
    known = known or {}
    counts = collections.Counter(passed)
    return [f"{n}:{hit}" for n in counts for hit in range(known.get(n, 0) + 1, counts[n] + 1)]


def all_broken(places, jobs, work):
    """What was broken in any of the jobs."""
    return [one for _, broken in killing.spread(places, jobs, work) for one in broken]


@pytest.fixture(scope="module")
def jobs(places):
    """A shape and a crash for each hit in the loop of submitting and collecting."""
    known, found = {}, []
    for shape in SHAPES:
        ends, broken = crash(places[0], shape)
        assert broken == []
        found += [(shape, one) for one in hits(ends[-1]["passed"], known)]
        known |= collections.Counter(ends[-1]["passed"])
    return found


def test_a_kill_at_any_hit_of_any_place_costs_nothing(places, jobs):
    """Some 130 kills in the loop; none pays twice, loses an answer, or needs any help."""
    assert len(jobs) > 100
    assert all_broken(places, jobs, lambda at, job: crash(at, *job)) == []


def test_a_kill_in_the_recovery_from_a_kill_costs_nothing(places, jobs):
    """Pairs of crashes: the first anywhere in the loop, the second soon after it."""
    chance = random.Random(20261122)
    pairs = [(*chance.choice(jobs), f"*:{chance.randint(1, 30)}") for _ in range(N_PAIRS)]
    assert all_broken(places, pairs, lambda at, job: crash(at, *job)) == []


def test_a_kill_between_waves_costs_nothing(places):
    """Where votes are spared, nobody asks one that another process has found to be needless."""
    ends, broken = crash(places[0], "decisive")
    assert broken == []
    assert 0 < len(killing.undisturbed(places[0], "decisive")) < 18  # of 6 items x 3 annotators
    chance, found = random.Random(20261122), hits(ends[-1]["passed"])
    assert {"file in place", "shard planned", "create recorded"} <= set(ends[-1]["passed"])
    some = [("decisive", one) for one in chance.sample(found, N_BETWEEN_WAVES)]
    assert all_broken(places, some, lambda at, job: crash(at, *job)) == []


def lost_answer(place):
    """A first command that is killed there."""
    return lambda at, run: at.ask(at.command(run, crash=place))


def doubled(at, run):
    """The service makes two batches for the first create and tells of neither."""
    judge.switch(at.endpoint, batch_doubled={"count": 1}, create_answer_lost={"count": 1})
    return []


def refused(at, run):
    """The first create is refused for good, and its upload is deleted."""
    refusal = {"count": 1, "only": ["create"]}
    judge.switch(at.endpoint, unsupported_parameter=refusal)
    return []


def older_ledger(at, run):
    """The ledger is put back as it was before a batch was made."""
    ends = at.ask(at.command(run, crash="shard planned:1"))
    copy = run.path("ledger.sqlite").read_bytes()
    ends += at.ask(at.command(run, crash="create recorded:1"))
    run.path("ledger.sqlite").write_bytes(copy)
    run.path("ledger.sqlite-journal").unlink(missing_ok=True)
    return ends


RECOVERIES = {
    "an upload whose answer was lost": lost_answer("upload answered:1"),
    "an upload that was not made": lost_answer("upload intended:1"),
    "a batch whose answer was lost": lost_answer("create answered:1"),
    "a batch that was not made": lost_answer("create intended:1"),
    "a batch made twice": doubled,
    "a batch that was refused": refused,
    "a ledger of yesterday": older_ledger,
}


def test_a_kill_at_any_hit_of_a_recovery_costs_nothing(places, jobs):
    """What only a recovery comes to, at each hit: what is found, freed, cancelled, adopted."""
    usual, work = {job[1].rpartition(":")[0] for job in jobs}, []
    for prepare in RECOVERIES.values():
        ends, broken = crash(places[0], "one shard", prepare=prepare)
        assert broken == []
        for end in ends:
            rare = [place for place in end["passed"] if place not in usual]
            work += [(prepare, one) for one in hits(rare)]
    broken = all_broken(
        places, work, lambda at, job: crash(at, "one shard", job[1], prepare=job[0])
    )
    assert len(work) > 10
    assert broken == []


def test_a_kill_when_the_brake_cancels_leaves_the_brake_on(places):
    """A batch that the brake has cancelled is recorded by the next command, which stops as well.

    Canary of 2, then two shards of 5: all lines of the first have no content, the second runs.
    """
    at = places[0]
    run = at.copy("brake")
    before = judge.look(at.endpoint)
    empty = {"after": 2, "count": 5}
    judge.switch(at.endpoint, lines_null_content=empty, stuck_in_progress={"after": 2, "count": 1})
    ends = at.ask(at.command(run, crash="brake cancelled:1"))
    assert ends[-1]["code"] == KILLED, ends[-1]["said"]
    REACHED.add("brake cancelled")
    ends += at.ask(at.command(run))
    judge.switch(at.endpoint)
    assert ends[-1]["code"] == judge.STOPPED, ends[-1]["said"]
    broken = killing.judged(at, run, before, ends)
    assert {violation.rule for violation in broken} == {"I12"}
    assert "brake" in judge.read_kinds(run)


STAGES = ("load", "count cost", "follow", "count votes")
# How far apart kills are: a file has three or four places, so steps of five come to each kind.
STEPS = {"load": 1, "count cost": 1, "count votes": 5}
# Which stages are killed one after the other, and the tables that they write.
CHAINS = {
    ("load", "count cost"): ("documents", "skipped", "requests", "estimate"),
    ("count votes",): ("votes", "mentions", "consensus", "entities", "index", "verdicts"),
}


def undisturbed_stages(at, study, folders):
    """The places that each stage comes by, in the first of the folders; the last stage of all finds
    what the others have left in the second one, too.
    """
    passed = {}
    for stage in STAGES:
        if stage == "count votes":
            shutil.copytree(*folders)
        command = {"do": stage, "outputs": str(folders[0].parent), "study": str(study)}
        (end,) = at.ask(command)
        assert end["code"] == 0, end["said"]
        passed[stage] = end["passed"]
    return passed


def killed_stages(at, stages, command, passed):
    """Each stage, killed at its places in turn and then left alone; gives what a reader saw."""
    with reading.Reader(Path(command["outputs"]) / "guests") as reader:
        for stage in stages:
            for n in range(1, len(passed[stage]) + 1, STEPS[stage]):
                # What has not changed is not written again: the last hits may not come.
                (end,) = at.ask({**command, "do": stage, "crash": f"*:{n}"})
                assert end["code"] in (KILLED, 0), end["said"]
                if end["code"] == 0:
                    break
            (end,) = at.ask({**command, "do": stage})
            assert end["code"] == 0, end["said"]
    return reader.readings


def test_kills_in_any_stage_leave_whole_files(places):
    """Loading and estimating, killed at each place in turn, and counting votes with the report,
    killed at each fifth, end with the same bytes.
    """
    base = places[0].folder / "stages"
    study = whole.write_study(base / "guests")
    folders = {stages: base / stages[0] / "guests" for stages in CHAINS}
    calm, counted = base / "calm" / "guests", folders[("count votes",)]
    passed = undisturbed_stages(places[0], study, (calm, counted))
    REACHED.update(*passed.values())

    def killed(at, stages):
        command = {"outputs": str(folders[stages].parent), "study": str(study)}
        return killed_stages(at, stages, command, passed)

    assert killing.spread(places, CHAINS, killed) == [[], []]
    for stages, tables in CHAINS.items():
        for name in tables:
            mine, other = (folder / f"{name}.parquet" for folder in (folders[stages], calm))
            assert judge.table_bytes(mine) == judge.table_bytes(other), name
        leftovers = [path.name for path in folders[stages].rglob("*.part")]
        assert len(leftovers) <= sum(len(passed[stage]) for stage in stages)


def test_every_place_is_reached(places):
    """A place that nothing comes to is either dead code or not tested."""
    for place, file in ELSEWHERE.items():
        assert place in (Path(__file__).parent.parent / file).read_text(encoding="utf-8")
    assert names() - REACHED - set(ELSEWHERE) == set()
    assert len(names()) >= 30
