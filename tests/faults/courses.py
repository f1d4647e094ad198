"""Courses: a study, a service and a fate drawn from one seed, driven through the real loop.

What happened is judged by the service's own book. The loop is not touched: time comes from
`clock.running`, calls go through the client's transport, and a process ends by `Crash`.
"""

import contextlib
import random
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
import sending
import simulated
from course_judge import HOUR, Judge

from lib import clock, dispatch, ledger, models, runs
from lib.errors import VotebookError
from lib.service import Service

PANELS = {
    "one": {"luna": {"model": "gpt-6-luna", "parameters": {"reasoning_effort": "none"}}},
    "two": {
        "luna": {"model": "gpt-6-luna", "parameters": {"reasoning_effort": "none"}},
        "terra": {"model": "gpt-6.1-terra", "repeats": 2},
    },
    "chain": {
        "luna": {
            "model": "gpt-6-luna",
            "parameters": {"reasoning_effort": "none"},
            "fallback": ["gpt-6.1-terra"],
        }
    },
}
# Faults of calls and of lines, and the largest share of them in a course.
CALLS = {
    "drop": 0.05, "error": 0.03, "down": 0.03, "busy": 0.05, "lose": 0.08, "fail": 0.05,
    "cut": 0.05, "twice": 0.02, "no_file": 0.05, "blame": 0.05, "gone": 0.02, "late": 0.05,
}  # fmt: skip
LINES = {
    "missing": 0.08, "busy": 0.05, "broken": 0.05, "zero": 0.03, "empty": 0.05,
    "truncated": 0.05, "malformed": 0.05, "refused": 0.05, "bad": 0.03,
}  # fmt: skip
QUEUES = (0, 0, 0, 0, 500, 1500, 4000)  # tokens; a line has about 180
MAX_DAYS = 40  # of simulated time, in which every course must have ended
MAX_STARTS = 1000


@dataclass(frozen=True)
class Course:
    """What a seed decides: whom the study asks how much, the weather, the budget, the processes."""

    seed: object
    panel: str
    n_texts: int
    sending: Mapping[str, float]
    weather: simulated.Weather
    budget: float  # as a multiple of the worst case of all first attempts
    poll_seconds: float
    cron: bool  # single steps by a schedule instead of following
    may_stop: bool  # whether the study's own bounds may rightly end it


@dataclass
class Outcome:
    """How a course went."""

    progress: dispatch.Progress | None = None
    faults: list[str] = field(default_factory=list)
    n_steps: int = 0
    n_starts: int = 0
    days: float = 0.0
    journal: list[str] = field(default_factory=list)


class Life(NamedTuple):
    """All that takes part in a course."""

    course: Course
    run: runs.Run
    world: simulated.World
    judge: Judge
    to: Service
    max_usd: float


def shm() -> Path:
    """A folder in memory where there is one: syncing costs nothing there."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else Path(tempfile.gettempdir())


def draw(seed: object) -> Course:
    """The course of a seed."""
    rng = random.Random(f"course {seed}")
    weather = _weather(rng)
    budget = rng.choice((10.0, 10.0, 10.0, 1.0, 0.4, 0.1))
    return Course(
        seed=seed,
        panel=rng.choice(("one", "one", "two", "chain")),
        n_texts=rng.randint(6, 20),
        sending={
            "canary": rng.randint(2, 5),
            "max_requests": rng.choice((4, 7, 12, 50_000)),
            "attempts": rng.randint(1, 4),
            # Models that answer at all are never stopped, so that every other course ends done.
            "max_failure_share": 0.9 if weather.hollow else 1.0,
        },
        weather=weather,
        budget=budget,
        poll_seconds=rng.choice((1800, 3600, 7200)),
        cron=rng.random() < 0.4,
        may_stop=bool(weather.denied or weather.hollow) or budget < 10,
    )


def _weather(rng: random.Random) -> simulated.Weather:
    """How the service behaves, and when the process ends: each trouble in some courses."""
    limit, late, begin = rng.choice(QUEUES), rng.choice(QUEUES), rng.uniform(0, 12 * HOUR)
    return simulated.Weather(
        turnaround=rng.choice((simulated.lognormal, quick, quick, slow)),
        calls=_some(rng, CALLS),
        lines=_some(rng, LINES),
        validating=rng.choice((5, 60, 900)),
        lag=rng.choice((0, 0, 5, 60, 110)),
        late=HOUR * rng.random() if late else 0,
        page=rng.choice((10, 30, 100)),
        limits={"gpt-6-luna": limit, "gpt-6.1-terra": 2 * limit} if limit else {},
        tells=rng.random() < 0.7,
        denied=_maybe(rng, 0.08, ("gpt-6.1-terra",), ()),
        hollow=_maybe(rng, 0.08, ("gpt-6-luna",), ()),
        outages=_maybe(rng, 0.2, ((begin, begin + rng.uniform(0, 10 * HOUR)),), ()),
        revoked=_maybe(rng, 0.2, (begin / 4, begin / 4 + rng.uniform(0, 9 * HOUR)), (0, 0)),
        steps=_maybe(rng, 0.2, {begin / 2: rng.choice((-simulated.DAY, simulated.DAY, HOUR))}, {}),
        crashes=rng.choice((0, 1, 3, 6)),
        between=rng.choice((15, 60, 200)),
    )


def _maybe(rng: random.Random, share: float, this: object, that: object) -> object:
    return this if rng.random() < share else that


def _some(rng: random.Random, shares: Mapping[str, float]) -> dict[str, float]:
    """Some of the faults, each at up to its share: most courses have few."""
    kept = rng.choice((0.0, 0.2, 0.5, 1.0))
    return {k: share * rng.random() for k, share in shares.items() if rng.random() < kept}


def quick(rng: random.Random, _tokens: int, _now: float) -> float:
    """Seconds that a batch takes: minutes."""
    return rng.uniform(20, 900)


def slow(rng: random.Random, _tokens: int, _now: float) -> float:
    """Seconds that a batch takes: up to more than it may."""
    return rng.uniform(1, 30) * HOUR


class Studies:
    """Studies that are made once and copied for each course."""

    def __init__(self, folder: Path) -> None:
        """The copies lie below `folder`."""
        self.folder, self.made = folder, {}

    def run(self, course: Course) -> runs.Run:
        """A run of the course's own, with documents and requests."""
        texts = [f"The soup of day {n} was warm." for n in range(30)]
        if course.panel not in self.made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("VOTEBOOK_OUTPUTS", str(self.folder / "made" / course.panel))
                made = sending.make_run(
                    self.folder / course.panel, texts, annotators=PANELS[course.panel]
                )
            self.made[course.panel] = (made, made.table("requests"), made.table("documents"))
        made, requests, documents = self.made[course.panel]
        folder = self.folder / f"course-{course.seed}" / made.name
        folder.mkdir(parents=True)
        bounds = made.study.sending.model_copy(update=dict(course.sending))
        study = made.study.model_copy(update={"sending": bounds})
        items = set(documents["item"].iloc[: course.n_texts])
        requests[requests["item"].isin(items)].to_parquet(folder / "requests.parquet", index=False)
        shutil.copy(made.path("documents.parquet"), folder / "documents.parquet")
        return runs.Run(made.name, folder, study)


def drive(course: Course, studies: Studies, **differs: object) -> Outcome:
    """Let a course take place, and judge it; `differs` changes the service as the loop sees it."""
    run = studies.run(course)
    unique = run.table("requests").drop_duplicates("key")
    tokens = dict(zip("q" + unique["key"].str[:40], unique["n_input_tokens"], strict=True))
    caps = unique[["model", "n_input_tokens", "max_output_tokens"]].itertuples(index=False)
    max_usd = course.budget * sum(models.worst_case_usd(models.facts(m), n, c) for m, n, c in caps)
    world = simulated.World(course.seed, course.weather, tokens)
    judge = Judge(world, run, max_usd)
    to = world.service(poll_seconds=course.poll_seconds, **differs)
    with contextlib.closing(to.client), clock.running(world.clock()):
        _bind_run_id(run, course.seed)
        life = Life(course, run, world, judge, to, max_usd)
        outcome = _live(life)
        if not judge.faults:
            _again(life, outcome)
            judge.ended(outcome.progress, outcome.n_starts)
    outcome.faults, outcome.journal = judge.faults, world.journal
    shutil.rmtree(run.folder.parent)
    return outcome


def _live(life: Life) -> Outcome:
    """Start one process after the other, until the run has ended or a rule is broken."""
    outcome, n_stopped = Outcome(), 0
    rng = random.Random(f"processes {life.course.seed}")
    while True:
        outcome.n_starts += 1
        state = _process(life, outcome, rng)
        outcome.days = (life.world.now - simulated.START) / simulated.DAY
        n_stopped += state == "stopped"
        is_stopped = state == "stopped" and n_stopped >= 3 and _may_stop(life, outcome)
        if state == "done" or is_stopped or life.judge.faults:
            return outcome
        if outcome.days > MAX_DAYS or outcome.n_starts > MAX_STARTS:
            life.judge.fault(f"never ends: {outcome.progress}")
        # A person, or a schedule, gives the same command again.
        life.world.now += HOUR if state == "stopped" else 0


def _process(life: Life, outcome: Outcome, rng: random.Random) -> str:
    """One process from its start to its end; gives the state in which it says the run is."""
    course, judge = life.course, life.judge

    def show(progress: dispatch.Progress) -> None:
        outcome.n_steps, outcome.progress = outcome.n_steps + 1, progress
        judge.stepped(progress)

    life.world.boot(course.poll_seconds if course.cron else rng.choice((1, 60, 600)))
    try:
        if course.cron:
            show(dispatch.advance(life.run, life.to, life.max_usd))
        else:
            dispatch.follow(life.run, life.to, life.max_usd, rng.choice((1, 10, 100)), show)
        return outcome.progress.state
    except simulated.Crash:
        return "crashed"
    except simulated.Endless as error:
        judge.fault(f"endless: {error}")
    except VotebookError as error:
        judge.fault(f"raised {type(error).__name__}: {error}")
    return "broken"


def _may_stop(life: Life, outcome: Outcome) -> bool:
    """Whether to be stopped may be the end: by the study's own bounds, with nothing under way."""
    is_locked_out = life.world.now - simulated.START < life.course.weather.revoked[1]
    return life.course.may_stop and not is_locked_out and not outcome.progress.n_in_flight


def _again(life: Life, outcome: Outcome) -> None:
    """A finished run, asked once more in fair weather, makes nothing and stays done (I9)."""
    if outcome.progress.state != "done":
        return
    world = life.world
    world.until_crash, world.weather = float("inf"), simulated.Weather()
    made = len(world.batches), len(world.files)
    again = dispatch.advance(life.run, life.to, life.max_usd)
    if (len(world.batches), len(world.files)) != made or again.state != "done":
        life.judge.fault(f"I9 a second run of a finished job makes calls: {again}")


def _bind_run_id(run: runs.Run, seed: object) -> None:
    """The run's id, which is drawn else, so that the same seed has the same course."""
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        ledger.bind(book, "run_id", f"{random.Random(f'run {seed}').getrandbits(128):032x}")
