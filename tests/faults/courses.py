"""Courses: a study, a service and a fate drawn from one seed, driven through the real loop.

What happened is judged by the service's own book. The loop is not touched: time comes from
`clock.running`, calls go through the client's transport, and a process ends by `Crash`.
"""

import collections
import contextlib
import itertools
import random
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
import sending
import simulated

from lib import clock, collect, dispatch, ledger, models, runs
from lib.errors import BusyError, VotebookError

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
QUEUES = (0, 0, 0, 0, 500, 1000, 3000)  # tokens; a line has about 180
MAX_DAYS = 40  # of simulated time, in which every course must have ended
MAX_STARTS = 400
HOUR = 3600.0


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


def shm() -> Path:
    """A folder in memory where there is one: syncing costs nothing there."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else Path(tempfile.gettempdir())


def draw(seed: object) -> Course:
    """The course of a seed."""
    rng = random.Random(f"course {seed}")  # noqa: S311
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
            "max_failure_share": 0.9,
        },
        weather=weather,
        budget=budget,
        poll_seconds=rng.choice((600, 1800, 7200)),
        cron=rng.random() < 0.4,
        may_stop=bool(weather.denied or weather.hollow) or budget < 10,
    )


def _weather(rng: random.Random) -> simulated.Weather:
    """How the service behaves, and when the process ends: each trouble in some courses."""
    limit, late, begin = rng.choice(QUEUES), rng.choice(QUEUES), rng.uniform(0, 20 * HOUR)
    return simulated.Weather(
        turnaround=rng.choice((simulated.lognormal, _quick, _quick, _slow)),
        calls=_some(rng, CALLS),
        lines=_some(rng, LINES),
        validating=rng.choice((5, 60, 900)),
        lag=rng.choice((0, 0, 5, 60, 110)),
        late=3 * HOUR * rng.random() if late else 0,
        page=rng.choice((2, 5, 100)),
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


def _quick(rng: random.Random, _tokens: int, _now: float) -> float:
    return rng.uniform(20, 900)


def _slow(rng: random.Random, _tokens: int, _now: float) -> float:
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


class Judge:
    """Watches the service's book while a course runs; what is wrong stands in `faults`."""

    def __init__(self, course: Course, world: simulated.World, run: runs.Run, max_usd: float):
        """Looks at every batch as it is made."""
        self.course, self.world, self.run, self.max_usd = course, world, run, max_usd
        self.faults: list[str] = []
        self.paused: dict[str, list] = {}
        self.told: dict[str, int] = {}
        world.watch = self.saw

    def fault(self, what: str) -> None:
        """Keep what is wrong, with the time."""
        self.faults.append(f"{self.world.now - simulated.START:.0f}s {what}")

    def saw(self, what: str, which: object) -> None:
        """One event in the service."""
        if what == "created":
            self.created(which)
        elif what == "seen":
            self.seen(which)

    def created(self, batch: simulated.Batch) -> None:
        """A batch is made: may it be?"""
        every = list(self.world.batches.values())
        self._lines_are_new(batch, every)
        at = self.world.now
        if sum(at - b.created_at < HOUR for b in every) > 2000:
            self.fault("I-rate more than 2,000 batches in an hour")
        spent = sum(line.usd for b in every for line in b.lines)
        worst = sum(_worst(b) for b in every if b.live and not b.double)
        if spent + worst > self.max_usd + 1e-9 and not any(b.double for b in every):
            self.fault(f"I4 {spent:.6f} spent and {worst:.6f} at most pass {self.max_usd:.6f}")
        model = batch.lines[0].model if batch.lines else ""
        until = self.paused.get(model, (0, 0, 0))[0]
        if at < until and not self.course.weather.steps:
            self.fault(f"pause of {model} not kept: {until - at:.0f}s are left")
        self._queue(batch, every)

    def _queue(self, batch: simulated.Batch, every: list) -> None:
        if not batch.lines or self.course.weather.late:
            return
        model = batch.lines[0].model
        limit = self.told.get(model)
        others = [b for b in every if b.live and b.lines and b.lines[0].model == model]
        held = sum(b.n_tokens for b in others)
        if limit and held > limit and len(others) > 1:
            self.fault(f"queue of {model}: {held} tokens where {limit} are known")

    def _lines_are_new(self, batch: simulated.Batch, every: list) -> None:
        named = {line.custom_id for line in batch.lines}
        before = {f"{n.split('-a')[0]}-a{int(n.split('-a')[1]) - 1}" for n in named}
        for other in every:
            if other is batch or batch.double:
                continue
            again = named & {line.custom_id for line in other.lines}
            if again and (other.admitted or other.live):
                self.fault(f"I1 {sorted(again)[0]} in {other.id} {other.status} and {batch.id}")
            for line in other.lines:
                if line.custom_id in before and not other.double:
                    if other.live or (other.admitted and other.seen_at > self.world.now):
                        self.fault(f"I1 next attempt at {line.custom_id} before its end is known")
                    elif line.kind == "valid" and not other.gone:
                        self.fault(f"I1 {line.custom_id} was answered and is asked again")

    def seen(self, batch: simulated.Batch) -> None:
        """An end is shown: a refusal for the queue begins a pause and may tell the limit."""
        if not any(error["code"] == "token_limit_exceeded" for error in batch.errors):
            return
        model = batch.lines[0].model
        if self.course.weather.tells:
            self.told[model] = self.course.weather.limits[model]
        _, n, refused_at = self.paused.get(model, (0, 0, 0))
        if batch.created_at <= refused_at:  # of the same wave: one pause for all
            return
        mine = [b for b in self.world.batches.values() if b.lines and b.lines[0].model == model]
        n = 0 if any(b.admitted and b.created_at > refused_at for b in mine) else n
        pause = min(60 * 2 ** min(n, 6), 3600)
        self.paused[model] = (self.world.now + pause - 1, n + 1, self.world.now)

    def stepped(self, progress: dispatch.Progress) -> None:
        """A step is over: what the ledger says of money bounds what the book says."""
        with _book(self.run) as book:
            spent, reserved = ledger.money(book)
        billed = sum(line.usd for b in self.world.batches.values() for line in b.lines)
        doubles = any(b.double for b in self.world.batches.values())
        lost = any(b.gone for b in self.world.batches.values()) or doubles
        if spent + reserved > self.max_usd + 1e-9 and not lost:
            self.fault(f"I4 ledger has {spent:.6f} + {reserved:.6f} of {self.max_usd:.6f}")
        if billed > spent + reserved + 1e-9 and not doubles:
            self.fault(f"I4 {billed:.6f} billed, ledger knows {spent:.6f} + {reserved:.6f}")
        if progress.state == "done" and any(b.live for b in self.world.batches.values()):
            live = [b.id for b in self.world.batches.values() if b.live and not b.double]
            if live:
                self.fault(f"I14 done while {live} run")

    def ended(self, progress: dispatch.Progress, n_starts: int) -> None:
        """The course is over: totals, orphans, and what permanent faults have cost."""
        outcomes = collect.outcomes(self.run)
        requests = self.run.table("requests")
        answered = set(outcomes.loc[outcomes["outcome"].eq("valid"), "key"].str[:40])
        batches = self.world.batches.values()
        readable = [b for b in batches if b.admitted and not b.live and not b.gone]
        usable = {
            line.custom_id[1:41] for b in readable for line in b.lines if line.kind == "valid"
            if not b.double
        }  # fmt: skip
        doubled = {line.custom_id[1:41] for b in batches if b.double for line in b.lines}
        if answered - doubled != usable - doubled:
            n_lost, n_more = len(usable - answered - doubled), len(answered - usable - doubled)
            self.fault(f"I3 {n_lost} answers of the book lost, {n_more} not in the book")
        if outcomes["custom_id"].duplicated().any():
            self.fault("I3 an attempt has two outcomes")
        if progress.state == "done":
            without = set(requests["key"]) - set(outcomes["key"])
            if without:
                self.fault(f"I2 done, and {len(without)} requests have no end")
        n = len(set(requests["key"]))
        parts = (
            progress.n_valid, progress.n_in_flight, progress.n_to_send, progress.n_left,
        )  # fmt: skip
        if sum(parts) != n or min(parts) < 0:
            self.fault(f"I3 {parts} are not {n}")
        self._counts(outcomes, readable)
        self._orphans()
        self._permanent(n_starts)

    def _counts(self, outcomes: pd.DataFrame, readable: list) -> None:
        """By batch: what the book ran and what we took in."""
        by_batch = outcomes.groupby("batch")["outcome"].value_counts()
        for batch in readable:
            if batch.double:
                continue
            kinds = collections.Counter(_expected(line.kind) for line in batch.lines)
            mine = by_batch.get(batch.id, pd.Series(dtype=int)).to_dict()
            if dict(kinds) != mine:
                self.fault(f"I3 {batch.id}: book {dict(kinds)}, outcomes {mine}")
        ours = set(outcomes["batch"])
        billed = sum(line.usd for b in readable for line in b.lines if b.id in ours)
        settled = float(outcomes["spend_usd"].sum())
        if abs(billed - settled) > 1e-9:
            self.fault(f"I4 billed {billed:.9f}, settled {settled:.9f}")

    def _orphans(self) -> None:
        with _book(self.run) as book:
            known = str(ledger.shards(book)) + str(ledger.events(book)["detail"].tolist())
        # A batch that failed before it ran costs nothing: it may stay unknown.
        ran = [b.id for b in self.world.batches.values() if b.admitted or b.live]
        for name in (*ran, *self.world.files):
            if name not in known:
                self.fault(f"I8 {name} is in no ledger")

    def _permanent(self, n_starts: int) -> None:
        for model in (*self.course.weather.denied, *self.course.weather.hollow):
            ran = [
                line for b in self.world.batches.values() if b.admitted and not b.double
                for line in b.lines if line.model == model and line.kind in ("empty", "denied")
            ]  # fmt: skip
            bound = self.course.sending["canary"]
            # What the account is refused costs nothing, and each new command tries a canary again;
            # a canary that the service cuts down is completed by another.
            n_times = n_starts if model in self.course.weather.denied else 2
            if len(ran) > bound * n_times:
                self.fault(f"I13 {len(ran)} lines ran for {model}, canary {bound}")


@contextlib.contextmanager
def _book(run: runs.Run):
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        yield book


def _worst(batch: simulated.Batch) -> float:
    return sum(
        models.worst_case_usd(models.facts(line.model), line.n_tokens, line.cap)
        for line in batch.lines
    )


def _expected(kind: str) -> str:
    """The outcome's name for what the book says became of a line."""
    named = {"batch_expired": "expired", "batch_cancelled": "cancelled"}
    failed = ("busy", "broken", "zero", "bad", "denied")
    return "failed" if kind in failed else named.get(kind, kind)


def drive(course: Course, studies: Studies) -> Outcome:
    """Let a course take place, and judge it."""
    run = studies.run(course)
    requests = run.table("requests")
    unique = requests.drop_duplicates("key")
    tokens = dict(zip("q" + unique["key"].str[:40], unique["n_input_tokens"], strict=True))
    world = simulated.World(course.seed, course.weather, tokens)
    worst = sum(
        models.worst_case_usd(models.facts(row.model), row.n_input_tokens, row.max_output_tokens)
        for row in unique.itertuples()
    )
    max_usd = course.budget * worst
    judge, outcome = Judge(course, world, run, max_usd), Outcome()
    to = world.service(poll_seconds=course.poll_seconds)
    rng = random.Random(f"processes {course.seed}")
    n_stopped = 0

    def show(progress: dispatch.Progress) -> None:
        outcome.n_steps += 1
        outcome.progress = progress
        judge.stepped(progress)

    with contextlib.closing(to.client), clock.running(world.clock()):
        _bind_run_id(run, course.seed)
        for outcome.n_starts in itertools.count(1):
            world.boot(rng.choice((1, 60, 600)) if not course.cron else 1800)
            try:
                if course.cron:
                    show(dispatch.advance(run, to, max_usd))
                else:
                    dispatch.follow(run, to, max_usd, rng.choice((1, 10, 100)), show)
            except simulated.Crash:
                continue
            except simulated.Endless as error:
                judge.fault(f"endless: {error}")
                break
            except VotebookError as error:
                judge.fault(f"raised {type(error).__name__}: {error}")
                break
            outcome.days = (world.now - simulated.START) / simulated.DAY
            state = outcome.progress.state
            n_stopped = n_stopped + 1 if state == "stopped" else 0
            if state == "done":
                break
            revoked = world.now - simulated.START < course.weather.revoked[1]
            if n_stopped >= 3 and course.may_stop and not revoked | outcome.progress.n_in_flight:
                break
            if state == "stopped":
                world.now += HOUR
            if outcome.days > MAX_DAYS or outcome.n_starts > MAX_STARTS:
                judge.fault(f"never ends: {outcome.progress}")
                break
        if outcome.progress is not None and not judge.faults:
            _rerun(run, world, to, max_usd, outcome, judge)
            judge.ended(outcome.progress, outcome.n_starts)
    outcome.faults, outcome.journal = judge.faults, world.journal
    shutil.rmtree(run.folder.parent)
    return outcome


def _rerun(run, world, to, max_usd, outcome, judge) -> None:
    """A finished run asks for nothing more."""
    world.until_crash = float("inf")
    if outcome.progress.state == "done":
        n_batches, n_files = len(world.batches), len(world.files)
        world.weather = simulated.Weather()
        again = dispatch.advance(run, to, max_usd)
        if (len(world.batches), len(world.files)) != (n_batches, n_files):
            judge.fault("I9 a second run of a finished job makes paid calls")
        if again.state != "done":
            judge.fault(f"I9 done, then {again}")


def _bind_run_id(run: runs.Run, seed: object) -> None:
    """The run's id, which is drawn else, so that the same seed has the same course."""
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        ledger.bind(book, "run_id", f"{random.Random(f'run {seed}').getrandbits(128):032x}")


BUSY = BusyError
