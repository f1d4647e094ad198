"""The real loop in simulated time: a thousand courses, and how long a queue takes to be emptied.

    python -m benchmarks.simulation                 # 1,000 courses, judged
    python -m benchmarks.simulation --course 123    # one course again, with all that happened
    python -m benchmarks.simulation --pacing        # makespans of four kinds of services
    python -m benchmarks.simulation --machine 20000 # the state machine of the ledger

The harness is that of tests/faults. A course that breaks a rule is printed with its seed.
"""

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "faults"), str(ROOT / "tests"), str(ROOT)]

import courses  # noqa: E402 - found by the line above
import pytest  # noqa: E402
import sending  # noqa: E402
import simulated  # noqa: E402
import test_machine  # noqa: E402
from hypothesis import settings  # noqa: E402

from lib import clock, dispatch, runs  # noqa: E402

HOUR = 3600.0
MODEL = "gpt-6-luna"
# 190 M tokens in all through a queue of 40 M, in shards of an eighth of it: 38 batches.
QUEUE_TOKENS, LINE_TOKENS, N_LINES = 40_000_000, 250_000, 760
# Hours in the table of the policies, simulated without the loop, for shards of limit / 8.
TABLE = {"A": 22.6, "B": 5.3, "C": 9.2, "D": 23.0}


def main(words: Sequence[str] | None = None) -> None:
    """Run what is asked for and print the figures; exit 1 when a rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--courses", type=int, default=1000, help="how many courses (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--course", help="one course by its seed, with its journal")
    parser.add_argument("--pacing", action="store_true", help="makespans instead of courses")
    parser.add_argument("--times", type=int, default=3, help="makespans: seeds each (3)")
    parser.add_argument("--lines", type=int, default=N_LINES, help=f"makespans: lines ({N_LINES})")
    parser.add_argument("--machine", type=int, help="examples of the ledger's state machine")
    given = parser.parse_args([] if words is None else words)
    if given.machine:
        play(given.machine)
        return
    with tempfile.TemporaryDirectory(dir=courses.shm(), prefix="vb-simulation-") as folder:
        if given.pacing:
            pace(Path(folder), given.times, given.lines)
            return
        studies = courses.Studies(Path(folder))
        if given.course is not None:
            seed = int(given.course) if given.course.isdigit() else given.course
            n_broken = show(studies, seed)
        else:
            n_broken = drive_all(studies, range(given.first, given.first + given.courses))
    if n_broken:
        raise SystemExit(1)


def play(n_examples: int) -> None:
    """Play the state machine over ledger and `wanted`; a failure prints its steps."""
    began_at, machine = time.monotonic(), test_machine.Machine.TestCase
    machine.settings = settings(machine.settings, max_examples=n_examples, deadline=None)
    machine("runTest").runTest()
    print(f"{n_examples:,} examples of 50 steps in {time.monotonic() - began_at:,.0f} s: no fault")


def show(studies: courses.Studies, seed: object) -> int:
    """Print everything that happened in one course."""
    outcome = courses.drive(courses.draw(seed), studies)
    print("\n".join([*outcome.journal, str(outcome.progress), *outcome.faults]))
    print(f"{outcome.n_steps} steps, {outcome.n_starts} starts, {outcome.days:.1f} simulated days")
    return len(outcome.faults)


def drive_all(studies: courses.Studies, seeds: Sequence[int]) -> int:
    """Drive courses one after the other; gives how many broke a rule."""
    began_at, n_broken, n_steps, n_starts, days = time.monotonic(), 0, 0, 0, 0.0
    for seed in seeds:
        outcome = courses.drive(courses.draw(seed), studies)
        n_steps, n_starts = n_steps + outcome.n_steps, n_starts + outcome.n_starts
        days += outcome.days
        if outcome.faults:
            n_broken += 1
            print(f"course {seed}: {outcome.faults[0]}", flush=True)
    seconds = time.monotonic() - began_at
    print(
        f"{len(seeds):,} courses, {n_broken} broke a rule: {n_steps:,} steps, {n_starts:,} starts"
    )
    print(f"{days:,.0f} simulated days in {seconds:,.0f} s")
    return n_broken


def pace(folder: Path, n_times: int, n_lines: int) -> None:
    """Print the makespan for each kind of service, in the median of some seeds."""
    run = study(folder, n_lines)
    n_tokens = n_lines * LINE_TOKENS
    print(
        f"{n_tokens / 1e6:,.0f} M tokens, queue of {QUEUE_TOKENS / 1e6:.0f} M, shards of an eighth"
    )
    for kind, table_hours in TABLE.items():
        hours, n_batches, began_at = [], 0, time.monotonic()
        for seed in range(n_times):
            found = makespan(run, folder, kind, seed)
            hours.append(found[0])
            n_batches = found[1]
        took = time.monotonic() - began_at
        print(
            f"{kind}: {statistics.median(hours):5.1f} h ({min(hours):.1f} to {max(hours):.1f}), "
            f"{n_batches} batches; table {table_hours} h for 190 M; {took:.0f} s",
            flush=True,
        )


def study(folder: Path, n_lines: int) -> runs.Run:
    """A run of lines that are large by the requests' word, so that a few hundred fill a queue."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOTEBOOK_OUTPUTS", str(folder / "made"))
        texts = [f"Soup {n}." for n in range(n_lines)]
        run = sending.make_run(folder / "guests", texts, canary=1, tier=3)
    frame = run.table("requests").assign(n_input_tokens=LINE_TOKENS)
    runs.write_table(frame, run.path("requests.parquet"))
    return run


def makespan(made: runs.Run, folder: Path, kind: str, seed: int) -> tuple[float, int]:
    """Hours from the first batch after the canary to the last end, and how many batches."""
    place = folder / f"{kind}-{seed}" / made.name
    place.mkdir(parents=True)
    for name in ("requests.parquet", "documents.parquet"):
        (place / name).hardlink_to(made.path(name))
    run = runs.Run(made.name, place, made.study)
    keys = "q" + run.table("requests")["key"].str[:40]
    weather = simulated.Weather(turnaround=turnaround(kind), limits={MODEL: QUEUE_TOKENS})
    world = simulated.World(f"{kind} {seed}", weather, dict.fromkeys(keys, LINE_TOKENS))
    world.max_calls = 10**9
    to = world.service(name="local", free=True, poll_seconds=300)
    with contextlib.closing(to.client), clock.running(world.clock()):
        progress = dispatch.follow(run, to, 0.0, 10_000)
    if progress.state != "done":
        raise SystemExit(f"{kind}, seed {seed}: {progress}")
    _canary, *others = world.batches.values()
    ended_at = max(batch.ended_at for batch in others)
    return (ended_at - others[0].created_at) / HOUR, len(others)


def turnaround(kind: str) -> Callable[[random.Random, int, float], float]:
    """Seconds that a batch takes: A whatever its size, B by its size, C as the pool that all share
    allows, D mostly quick. The parameters are fitted to what the table says of its other policies.
    """
    free_at = [0.0]

    def by_size(rng: random.Random, n_tokens: int, now: float) -> float:
        return simulated.lognormal(rng, n_tokens, now) * (0.12 + 0.88 * n_tokens / QUEUE_TOKENS)

    def shared(_rng: random.Random, n_tokens: int, now: float) -> float:
        free_at[0] = max(free_at[0], now) + n_tokens / 21e6 * HOUR
        return free_at[0] - now

    def stragglers(rng: random.Random, _tokens: int, _now: float) -> float:
        return (12 if rng.random() < 0.2 else 1) * HOUR

    kinds = {"A": simulated.lognormal, "B": by_size, "C": shared, "D": stragglers}
    return kinds[kind]


if __name__ == "__main__":
    main(sys.argv[1:])
