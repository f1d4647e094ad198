"""Ledger and `wanted` against a model in plain Python, with crashes at every border of every write.

Rules do what the loop does, in any order: plan, upload, create, lose answers, adopt, free, refuse,
collect, release, learn. A crash ends the connection before a write, in the middle of it, or after.
`VOTEBOOK_EXAMPLES=20000` runs as many examples; a failure prints the steps that lead to it.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pandas as pd
import pytest
import sending
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lib import clock, ledger, prompts, reconcile
from lib.errors import AccountingError, BudgetError, VotebookError
from lib.wanted import wanted

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
MODEL = "gpt-6-luna"
LINE_USD = 0.25  # at most, for each line: a power of two, so that sums are exact
BUDGET_USD = 1.5
STATUS = {"busy": (429, "rate_limit_exceeded"), "bad": (400, "invalid_value")}
ENDS = st.sampled_from(
    ["valid", "missing", "expired", "cancelled", "busy", "bad", "empty", "invalid", "refused"]
)
ANSWERS = st.sampled_from(["ok"] * 8 + ["lost", "never", "refused"])
CRASHES = st.sampled_from(
    [("", 0)] * 40 + [("before", 0), ("after", 0), ("inside", 1), ("inside", 2)]
    + [("cut", n) for n in (1, 4, 9, 16, 25, 36)]
)  # fmt: skip
PICK = st.integers(0, 1_000_000)


class Crash(BaseException):
    """The process ends here."""


@dataclasses.dataclass
class Shard:
    """What the model knows of a shard; lines are pairs of key and attempt."""

    name: str
    lines: list
    state: str = "planned"
    file_id: str | None = None
    batch_id: str | None = None
    settled_usd: float = 0.0
    lost: dict = dataclasses.field(default_factory=dict)

    @property
    def reserved_usd(self):
        """The most that it may cost."""
        return LINE_USD * len(self.lines)


@functools.cache
def asked():
    """A study with a fallback and its requests, made once."""
    folder = Path(tempfile.mkdtemp(dir=MEMORY))
    luna = {**sending.LUNA["luna"], "fallback": ["gpt-6.1-terra"]}
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VOTEBOOK_OUTPUTS", str(folder / "outputs"))
            run = sending.make_run(folder / "guests", annotators={"luna": luna}, attempts=2)
        return run.study, run.table("requests")
    finally:
        shutil.rmtree(folder)


class Machine(RuleBasedStateMachine):
    """The ledger under test, the service as two sets, and the model beside them."""

    def __init__(self):
        super().__init__()
        asked()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.path, self.n_names, self.time, self.fuse = self.folder / "ledger.sqlite", 0, 1.8e9, 0
        self.shards: dict[str, Shard] = {}
        self.outcomes: list[tuple] = []
        self.files, self.batches, self.limit, self.written = {}, {}, None, {}
        self.life = contextlib.ExitStack()
        self.life.enter_context(clock.running(clock.Clock(self.tick, lambda: 0.0, print)))
        self.book = None
        self.open()
        self.call("", lambda: ledger.bind(self.book, "fields x", "{}"), lambda: None)

    # Crashes: what a process that dies leaves is what a new one finds.

    def tick(self):
        """The time; or the end, with the files exactly as they are in the middle of a write."""
        self.time += 1
        self.fuse -= 1
        if self.fuse == 0:
            after = Path(tempfile.mkdtemp(dir=self.folder))
            for path in self.path.parent.glob("ledger.sqlite*"):
                shutil.copy(path, after)
            self.path = after / "ledger.sqlite"
            raise Crash
        return self.time

    def open(self):
        """Open the ledger as a new process would."""
        if self.book is not None:
            self.book.close()
        self.opened = self.life.enter_context(ledger.open_ledger(self.path))
        self.book = self.opened

    def call(self, crash, write, apply):
        """A write to the ledger and the same to the model; says whether the process still lives."""
        how, n = crash if crash else ("", 0)
        if how == "before":
            self.open()
            return False
        before = self.held()
        try:
            if how == "inside":
                self.fuse = n
            if how == "cut":
                left = iter(range(n))
                self.book.set_progress_handler(lambda: next(left, None) is None, 1)
            write()
        except (Crash, sqlite3.OperationalError, VotebookError) as error:
            if isinstance(error, VotebookError) and "cannot be written" not in str(error):
                raise
            self.open()
            if self.held() != before:  # the write was whole before it was cut
                apply()
            self.check()
            return False
        finally:
            self.fuse = 0
            if how == "cut":
                self.book.set_progress_handler(None, 1)
        apply()
        if how == "after":
            self.open()
        return how != "after"

    def held(self):
        """Everything that the ledger holds, of what the model knows."""
        rows = ledger.shards(self.book)
        shards = {
            row["shard"]: (
                row["state"], row["file_id"], row["batch_id"], row["settled_usd"] or 0.0,
                row["lost_usd"], row["reserved_usd"],
            )
            for row in rows
        }  # fmt: skip
        limits = {model: row["limit_tokens"] for model, row in ledger.limits(self.book).items()}
        return shards, limits, ledger.in_flight(self.book)

    def known(self):
        """The same by the model."""
        shards = {
            s.name: (
                s.state, s.file_id, s.batch_id, s.settled_usd, sum(s.lost.values()),
                s.reserved_usd,
            )
            for s in self.shards.values()
        }  # fmt: skip
        return shards, {MODEL: self.limit} if self.limit else {}, self.flying()

    def flying(self):
        """The keys under way."""
        return {key for s in self.of(*ledger.OPEN_STATES) for key, _ in s.lines}

    def of(self, *states):
        """The shards in these states."""
        return [shard for shard in self.shards.values() if shard.state in states]

    def pick(self, number, *states):
        """One of the shards in these states, or nothing."""
        found = self.of(*states)
        return found[number % len(found)] if found else None

    def name(self, kind):
        """A new name."""
        self.n_names += 1
        return f"{kind}-{self.n_names:05}"

    def move(self, crash, shard, new, **facts):
        """A change of state, in the ledger and in the model."""
        old = shard.state

        def apply():
            shard.state = new
            for fact in ("file_id", "batch_id", "settled_usd"):
                if fact in facts:
                    setattr(shard, fact, facts[fact])

        return self.call(
            crash, lambda: ledger.move(self.book, shard.name, old, new, **facts), apply
        )

    # Rules.

    def next(self):
        """What `wanted` asks for, checked against the model."""
        flying = self.flying()
        assert ledger.in_flight(self.book) == flying
        rows = asked_for(tuple(self.outcomes), frozenset(flying))
        ends = {}
        for key, attempt, end in self.outcomes:
            ends.setdefault(key, {})[attempt] = end
        for key, attempt in rows:
            assert key not in flying
            assert "valid" not in ends.get(key, {}).values()
            assert attempt == len(ends.get(key, {}))
        for key in set(asked()[1]["key"]) - flying - {key for key, _ in rows}:
            # Nothing is lost: what is not asked is answered, or has had its chances.
            had = list(ends.get(key, {}).values())
            assert "valid" in had or len(had) >= 2 or had == ["bad"], (key, had)
        return rows

    @precondition(lambda self: len(self.flying()) < len(asked()[1]))
    @rule(crash=CRASHES, n=st.integers(1, 4))
    def plan(self, crash, n):
        """Some of what is wanted becomes a shard, within the budget."""
        lines = self.next()[:n]
        if not lines:
            return
        shard = Shard(self.name("shard"), lines)
        is_enough = sum(self.money()) + shard.reserved_usd <= BUDGET_USD

        def write():
            with contextlib.nullcontext() if is_enough else pytest.raises(BudgetError):
                ledger.plan(self.book, row_of(shard), sends_of(shard), BUDGET_USD)

        def apply():
            if is_enough:
                self.shards[shard.name] = shard

        self.call(crash, write, apply)

    @precondition(lambda self: self.of("planned", "uploaded"))
    @rule(number=PICK, crash=CRASHES, then=CRASHES, answer=ANSWERS)
    def send(self, number, crash, then, answer):
        """An intent, a call that may lose its answer or be refused, and the id."""
        shard = self.pick(number, "planned", "uploaded")
        made, intent, end, there = (
            ("file", "uploading", "uploaded", self.files)
            if shard.state == "planned"
            else ("batch", "submitting", "submitted", self.batches)
        )
        before = shard.state
        if self.move(crash, shard, intent):
            if answer in ("ok", "lost"):
                there[self.name(made)] = shard.name
            if answer == "ok" and made == "file":
                self.move(then, shard, end, file_id=list(there)[-1])
            elif answer == "ok":
                self.adopt(then, shard, list(there)[-1])
            elif answer == "refused":
                self.move(then, shard, before, n_refusals=1)

    def adopt(self, crash, shard, batch_id):
        """A batch is recorded as the loop does it."""

        def apply():
            shard.state, shard.batch_id = "submitted", batch_id

        batch = {"id": batch_id, "status": "validating"}
        self.call(crash, lambda: reconcile.adopt(self.book, shard.name, batch), apply)

    @precondition(lambda self: self.of("uploading", "submitting"))
    @rule(number=PICK, crash=CRASHES)
    def reconcile(self, number, crash):
        """An open intent is adopted when the service has what it made, and free else."""
        shard = self.pick(number, "uploading", "submitting")
        files = {other.file_id for other in self.shards.values()}
        batches = {other.batch_id for other in self.shards.values()}
        file = [f for f, of in self.files.items() if of == shard.name and f not in files]
        batch = [b for b, of in self.batches.items() if of == shard.name and b not in batches]
        if shard.state == "uploading" and file:
            self.move(crash, shard, "uploaded", file_id=file[0])
        elif shard.state == "submitting" and batch:
            self.adopt(crash, shard, batch[0])
        else:
            self.move(crash, shard, "planned", file_id=None)

    @precondition(lambda self: self.of("submitted"))
    @rule(number=PICK, crash=CRASHES, ends=st.tuples(*[ENDS] * 4), paid=st.integers(0, 16))
    def collect(self, number, crash, ends, paid):
        """Outcomes are written once, also when the ledger hears of them after a crash only."""
        shard = self.pick(number, "submitted")
        if shard.batch_id not in self.written:
            self.written[shard.batch_id] = shard.reserved_usd * paid / 16
            self.outcomes += [
                (key, attempt, end) for (key, attempt), end in zip(shard.lines, ends, strict=False)
            ]
        self.move(crash, shard, "collected", settled_usd=self.written[shard.batch_id])

    @precondition(lambda self: self.of("submitted"))
    @rule(number=PICK, crash=CRASHES, then=CRASHES, n=st.integers(1, 10_000))
    def refuse(self, number, crash, then, n):
        """The queue is full: the limit is learned, and the shard waits for another create."""
        shard = self.pick(number, "submitted")
        if shard.batch_id in self.written:
            return

        def apply():
            self.limit = n

        learn = functools.partial(ledger.learn, self.book, MODEL, limit_tokens=n)
        if self.call(crash, learn, apply):
            self.batches.pop(shard.batch_id, None)
            self.move(then, shard, "uploaded", batch_id=None, status=None)

    @precondition(lambda self: self.shards)
    @rule(number=PICK, crash=CRASHES, kind=st.sampled_from(["lose", "observe", "release", "twice"]))
    def happen(self, number, crash, kind):
        """What happens besides: answers that are lost, news, a shard given up, a line twice."""
        states = {"release": ("planned", "uploaded"), "twice": (*ledger.OPEN_STATES, "collected")}
        shard = self.pick(number, *states.get(kind, ("submitted",)))
        if shard:
            getattr(self, kind)(shard, crash, number)

    def lose(self, shard, crash, _number):
        """A batch that may have been billed and cannot be read counts once, at its worst case."""

        def apply():
            shard.lost.setdefault(shard.batch_id, shard.reserved_usd)

        row = {"shard": shard.name, "reserved_usd": shard.reserved_usd}
        lose = functools.partial(ledger.lose, self.book, row, "results_gone", shard.batch_id)
        self.call(crash, lose, apply)

    def observe(self, shard, crash, number):
        """What the service says of a batch changes no state."""
        seen = functools.partial(ledger.observe, self.book, shard.name, n_completed=number % 9)
        self.call(crash, seen, lambda: None)

    def release(self, shard, crash, _number):
        """A shard that is no batch is given up: its lines may be planned anew."""

        def apply():
            shard.state, shard.file_id = "released", None

        give_up = functools.partial(ledger.release, self.book, shard.name, shard.state, "changed")
        self.call(crash, give_up, apply)

    def twice(self, shard, _crash, number):
        """A line that stands in any shard is refused, and the ledger is as before."""
        if sum(self.money()) + LINE_USD <= BUDGET_USD:
            again = Shard(self.name("shard"), [shard.lines[number % len(shard.lines)]])
            with pytest.raises(AccountingError, match="was sent before"):
                ledger.plan(self.book, row_of(again), sends_of(again), BUDGET_USD)

    @precondition(lambda self: self.shards)
    @rule(number=PICK, old=st.sampled_from(ledger.OPEN_STATES))
    def intrude(self, number, old):
        """Who believes in another state is refused; of two who take one step, one takes it."""
        shard = self.pick(number, *ledger.OPEN_STATES, "collected", "released")
        if shard.state != old:
            with pytest.raises(AccountingError, match="any more"):
                ledger.move(self.book, shard.name, old, "submitted", batch_id="b")
            with pytest.raises(AccountingError, match="any more"):
                ledger.release(self.book, shard.name, old, "stale")
        elif old == "planned":
            with ledger.open_ledger(self.path) as other:
                ledger.move(other, shard.name, "planned", "uploading")
            shard.state = "uploading"
            with pytest.raises(AccountingError, match="any more"):
                ledger.move(self.book, shard.name, "planned", "uploading")

    # Invariants.

    def money(self):
        """Spent and reserved, by the model."""
        spent = sum(s.settled_usd + sum(s.lost.values()) for s in self.shards.values())
        return spent, sum(s.reserved_usd for s in self.of(*ledger.OPEN_STATES))

    @invariant()
    def check(self):
        """The ledger is the model, no key is under way twice, and money stays in its bounds."""
        assert self.held() == self.known()
        assert ledger.money(self.book) == self.money()
        keys = [key for s in self.of(*ledger.OPEN_STATES) for key, _ in s.lines]
        assert len(keys) == len(set(keys))
        spent, reserved = self.money()
        lost = sum(sum(s.lost.values()) for s in self.shards.values())
        assert spent + reserved - lost <= BUDGET_USD

    def teardown(self):
        """The lines of every shard are in the ledger, in their order, after a last start."""
        self.open()
        self.check()
        for shard in self.shards.values():
            lines = [] if shard.state == "released" else shard.lines
            found = ledger.sends(self.book, shard.name)[["key", "attempt"]]
            assert list(found.itertuples(index=False, name=None)) == lines
        self.next()
        self.life.close()
        shutil.rmtree(self.folder)


def row_of(shard):
    """A shard as `planning` hands it to the ledger."""
    return {
        "shard": shard.name,
        "model": MODEL,
        "purpose": "main",
        "file": f"{shard.name}.jsonl",
        "sha256": "0" * 64,
        "size_bytes": 1,
        "n_requests": len(shard.lines),
        "n_input_tokens": 100 * len(shard.lines),
        "reserved_usd": shard.reserved_usd,
        "fields": "fields x",
    }


def sends_of(shard):
    """The lines of a shard, as they are planned."""
    return [(prompts.custom_id(key, attempt), key, attempt) for key, attempt in shard.lines]


@functools.cache
def asked_for(ends, flying):
    """What `wanted` asks for after these ends (key, attempt, end): pairs of key and attempt."""
    study, requests = asked()
    kinds = ["failed" if end in STATUS else end for _, _, end in ends]
    codes = [STATUS.get(end, (200, None)) for _, _, end in ends]
    outcomes = {
        "key": [key for key, _, _ in ends],
        "attempt": pd.array([attempt for _, attempt, _ in ends], "Int64"),
        "custom_id": [prompts.custom_id(key, attempt) for key, attempt, _ in ends],
        "outcome": kinds,
        "model": MODEL,
        "status": pd.array([status for status, _ in codes], "Int64"),
        "code": [code for _, code in codes],
        "message": "",
    }
    rows = wanted(requests, pd.DataFrame(outcomes), set(flying), study)
    return [(key, int(n)) for key, n in zip(rows["key"], rows["attempt"], strict=True)]


Machine.TestCase.settings = settings(
    max_examples=int(os.environ.get("VOTEBOOK_EXAMPLES", "80")),
    stateful_step_count=50,
    database=None,
    print_blob=True,
    report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
test_ledger_and_wanted_agree_with_a_model = Machine.TestCase
