"""The real loop against a simulated service, on a simulated clock: courses drawn from seeds.

    python -m benchmarks.simulation                # a thousand courses
    python -m benchmarks.simulation --course 123   # one again, with everything that happened

Days of waiting, crashes, lost answers and full queues pass in a moment; see `courses`.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import courses
import pytest
import simulated
from courses import Course
from simulated import Weather

from lib import runs

N_COURSES = int(os.environ.get("VOTEBOOK_COURSES", "5"))
BLOCK = 10
FAIR = Course("fair", "one", 8, {"canary": 2}, Weather(), 10.0, 1800, cron=False, may_stop=False)
CRASHES = {"crashes": 6, "between": 15}
# What was found by a course once: it must not come back.
FOUND = {
    # A queue far below the tier's, that names no limit: the window grew back faster than refusals
    # shrank it, so that nothing was ever admitted.
    "queue without a figure": {"limits": {"gpt-6-luna": 400}, "tells": False},
    "queue with a figure": {"limits": {"gpt-6-luna": 400}},
    "queue that forgets late": {"limits": {"gpt-6-luna": 900}, "late": 20 * 3600},
    "answers lost, listing late": {"calls": {"lose": 0.3}, "lag": 110, "page": 2, **CRASHES},
    "creates made twice": {"calls": {"twice": 0.5}, "page": 2},
    "key revoked for nine hours": {"revoked": (3000, 35_000)},
    "clock set back a day": {"steps": {4000: -simulated.DAY}, "calls": {"busy": 0.3}},
    "clock set forward a day": {"steps": {4000: simulated.DAY}, "calls": {"lose": 0.2}, "lag": 60},
    "no access": {"denied": ("gpt-6-luna",)},
    "answers eaten by reasoning": {"hollow": ("gpt-6-luna",)},
    "results gone": {"calls": {"gone": 0.5}},
    "batches late": {"calls": {"late": 0.5}},
}


@pytest.fixture(scope="module")
def studies():
    """Studies made once, in memory where there is a file system of it."""
    with tempfile.TemporaryDirectory(dir=courses.shm(), prefix="vb-courses-") as folder:
        yield courses.Studies(Path(folder))


def told(course, outcome):
    """What a failure says: the course, its faults, and how to see it again."""
    again = f"python -m benchmarks.simulation --course {course.seed}"
    return "\n".join([f"course {course.seed}: see `{again}`", *outcome.faults, str(course)])


@pytest.mark.parametrize("first", range(0, N_COURSES, BLOCK))
def test_courses_keep_every_rule(studies, first):
    """Whatever a seed decides: nothing is paid twice or lost, money stays in its bounds, and the
    same command ends the run within simulated days.
    """
    for seed in range(first, min(first + BLOCK, N_COURSES)):
        course = courses.draw(seed)
        outcome = courses.drive(course, studies)
        assert not outcome.faults, told(course, outcome)


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_does_not_come_back(studies, name):
    """Single troubles, each in a course of its own that has no other."""
    may_stop = "denied" in FOUND[name] or "hollow" in FOUND[name]
    weather = Weather(**{"turnaround": courses.quick, **FOUND[name]})
    course = dataclasses.replace(FAIR, seed=name, weather=weather, may_stop=may_stop)
    outcome = courses.drive(course, studies)
    assert not outcome.faults, told(course, outcome)
    assert outcome.progress.state == ("stopped" if may_stop else "done")


def test_fair_weather_costs_two_batches(studies):
    """A canary and one shard: eight requests, each run once, nothing listed and nothing asked
    twice; the money that was set aside is free again.
    """
    outcome = courses.drive(FAIR, studies)
    assert (outcome.progress.state, outcome.progress.n_valid) == ("done", 8)
    assert outcome.progress.reserved_usd == 0.0 < outcome.progress.spend_usd
    assert sum("POST /batches 200" in line for line in outcome.journal) == 2
    assert not outcome.faults, told(FAIR, outcome)


def test_the_judge_finds_a_loop_that_does_not_wait(studies):
    """Answers lost while the listing lags by up to 110 s, looked at again after 5 s: a grace of
    none pays lines twice, and the judge says so; a grace of 120 s does not.
    """
    weather = Weather(turnaround=lambda *_: 90.0, validating=1, calls={"lose": 0.5}, lag=110)
    hasty = dataclasses.replace(FAIR, n_texts=4, weather=weather, poll_seconds=5)
    for seed in range(9):
        course = dataclasses.replace(hasty, seed=f"hasty {seed}")
        found = courses.drive(course, studies, grace_seconds=0).faults
        if any(" I1 " in fault for fault in found):
            outcome = courses.drive(course, studies)
            assert not outcome.faults, told(course, outcome)
            return
    pytest.fail("no line was paid twice")


def test_the_same_seed_has_the_same_course():
    """Byte for byte, in other processes with other seeds of Python's own hashes."""
    command = [sys.executable, "-m", "benchmarks.simulation", "--course", "3"]
    made = [
        subprocess.Popen(
            command,
            cwd=runs.ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate()[0] for process in made)
    assert [process.returncode for process in made] == [0, 0]
    assert first == second
