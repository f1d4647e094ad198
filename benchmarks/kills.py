"""Submission, killed: 2,000 random kill -9 and a fault in most runs, judged by the service's book.

    python -m benchmarks.kills                  # 2,000 kills, and the naive client beside
    python -m benchmarks.kills --points         # every named place at every hit, and 200 pairs
    python -m benchmarks.kills --notebooks 20   # signals to the real notebooks at 20 moments

The harness is that of tests/faults. A run that breaks a rule is printed with its seed.
"""

import argparse
import collections
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "faults"), str(ROOT / "tests")]

import disturbing  # noqa: E402 - found by the line above
import judge  # noqa: E402
import killing  # noqa: E402
import signalling  # noqa: E402
import test_crash_points as points  # noqa: E402
import whole  # noqa: E402

N_KILLS, N_PAIRS, N_PLACES = 2_000, 200, 2
NAIVE_SHARE = 0.1  # of the kills are given to the naive client: it needs no more to be found out


def main(words: Sequence[str] | None = None) -> None:
    """Disturb, judge, and print what was found; exit 1 when a rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=N_KILLS, help=f"random kills ({N_KILLS:,})")
    parser.add_argument("--seed", default="1", help="decides shapes, faults and moments (1)")
    parser.add_argument("--points", action="store_true", help="every place at every hit, and pairs")
    parser.add_argument("--notebooks", type=int, default=0, help="signals to real notebooks (0)")
    given = parser.parse_args([] if words is None else words)
    began_at = time.monotonic()
    if given.notebooks:
        n_broken = disturb_notebooks(given.notebooks, given.seed)
    else:
        with places() as at:
            kill = kill_at_points if given.points else kill_at_random
            n_broken = kill(at, given)
    print(f"{time.monotonic() - began_at:,.0f} s")
    if n_broken:
        raise SystemExit(1)


@contextlib.contextmanager
def places() -> Iterator[list]:
    """Places where runs are disturbed side by side."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(killing.place()) for _ in range(N_PLACES)]


def kill_at_random(at: list, given: argparse.Namespace) -> int:
    """Random kills of Votebook and of the naive client, as a table; gives Votebook's breaks."""
    found = disturbing.disturb_often(at, given.seed, given.kills)
    naive = disturbing.disturb_often(
        at, f"naive {given.seed}", int(given.kills * NAIVE_SHARE), disturbing.disturb_naive
    )
    print(f"{'':22}{'runs':>8}{'kills':>8}{'faults':>8}{'requests':>10}", end="")
    print(f"{'paid twice':>12}{'lost':>8}{'doubled':>9}{'orphans':>9}{'not done':>10}")
    for name, rows in (("Votebook", found), ("manifest after call", naive)):
        print(f"{name:22}{len(rows):8,}{sum(one.n_kills for one in rows):8,}", end="")
        print(f"{sum(bool(one.fault) for one in rows):8,}", end="")
        print(f"{sum(one.n_requests for one in rows):10,}", end="")
        figures = [judge.counted(one.violations) for one in rows]
        sums = collections.Counter()
        for figure in figures:
            sums.update(figure)
        print(f"{sums['paid twice']:12,}{sums['lost']:8,}{sums['doubled']:9,}", end="")
        print(f"{sums['orphans']:9,}{sum(one.ends[-1]['code'] != 0 for one in rows):10,}")
    told([(one, violation) for one in found for violation in one.violations])
    return sum(bool(one.violations) for one in found)


def kill_at_points(at: list, given: argparse.Namespace) -> int:
    """Every place at every hit in studies of every shape, and pairs; gives how many broke rules."""
    jobs = []
    for shape in killing.SHAPES:
        ends, broken = points.crash(at[0], shape)
        told(broken)
        jobs += [(shape, one) for one in points.hits(ends[-1]["passed"])]
    chance = random.Random(given.seed)
    pairs = [(*chance.choice(jobs), f"*:{chance.randint(1, 60)}") for _ in range(N_PAIRS)]
    n_broken = 0
    for name, work in (("hits of named places", jobs), ("pairs of crashes", pairs)):
        broken = points.all_broken(at, work, lambda one, job: points.crash(one, *job))
        print(f"{name:24}{len(work):8,} crashes{len(broken):8,} violations")
        told(broken)
        n_broken += len(broken)
    return n_broken


def disturb_notebooks(n_moments: int, seed: str) -> int:
    """Signals to runner, kernel and group of the command; gives how many runs broke a rule."""
    n_broken = 0
    with tempfile.TemporaryDirectory(prefix="vb-") as name:
        folder = Path(name)
        study = whole.write_study(folder / "guests")
        with signalling.bench(study, folder / "calm") as calm:
            began_at = time.monotonic()
            end = signalling.finished(calm)
            longest_seconds = time.monotonic() - began_at
            if end["code"]:
                raise SystemExit(end["said"])
            results = judge.results(calm.run())
        for n, moment in enumerate(signalling.moments(n_moments, seed, longest_seconds)):
            with signalling.bench(study, folder / str(n)) as at:
                before = judge.look(at.endpoint)
                first = signalling.disturbed(at, n, *moment)
                last = signalling.finished(at)
                broken = signalling.violations(at, before, results)
            what, target, seconds = moment
            print(f"{what.name:8}{target:8}{seconds:6.1f} s  exit {first['code']:4}", end="")
            print(f"  then {last['code']}, {len(broken)} violations", flush=True)
            told([(moment, violation) for violation in broken])
            n_broken += bool(broken) or last["code"] != 0
    return n_broken


def told(broken: list) -> None:
    """Print what was broken, and where."""
    for where, violation in broken:
        print(f"  {where}: {violation.rule} {violation.what[:300]}")


if __name__ == "__main__":
    main(sys.argv[1:])
