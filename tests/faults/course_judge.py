"""The judge of courses: what the simulated service's own book says of each rule.

I1 no line runs twice, and a next attempt follows an end without a usable answer; I2, I3 every
request has its end, and totals are those of the book; I4 money; I7 one payer; I8 no orphans; I13
permanent faults cost a canary; I14 "done" is true. Besides: pauses, queue limits, batches an hour.
"""

import collections
import contextlib
from collections.abc import Iterator

import pandas as pd
import simulated
from simulated_lines import Batch

from lib import collect, dispatch, ledger, models, runs
from lib.errors import BusyError

HOUR = 3600.0


class Judge:
    """Watches the service's book while a course runs; what is wrong stands in `faults`."""

    def __init__(self, world: simulated.World, run: runs.Run, max_usd: float) -> None:
        """Looks at every batch as it is made, and at every end as it is shown."""
        self.world, self.weather, self.run, self.max_usd = world, world.weather, run, max_usd
        self.faults: list[str] = []
        self.paused: dict[str, tuple] = {}
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

    def created(self, batch: Batch) -> None:
        """A batch is made: may it be?"""
        every = list(self.world.batches.values())
        self._lines_are_new(batch, every)
        at = self.world.now
        if sum(at - b.created_at < HOUR for b in every) > 2000:
            self.fault("more than 2,000 batches in an hour")
        spent = sum(line.usd for b in every for line in b.lines)
        worst = sum(_worst(b) for b in every if b.live and not b.double)
        if spent + worst > self.max_usd + 1e-9 and not any(b.double for b in every):
            self.fault(f"I4 {spent:.6f} spent and {worst:.6f} at most pass {self.max_usd:.6f}")
        model = batch.lines[0].model if batch.lines else ""
        until = self.paused.get(model, (0, 0, 0))[0]
        if at < until and not self.weather.steps:
            self.fault(f"pause of {model} not kept: {until - at:.0f}s are left")
        self._queue(batch, every)
        if len(every) % 5 == 0:
            self._intrude()

    def _intrude(self) -> None:
        """Somebody else takes a step of the run while this process is in the middle of one."""
        try:
            dispatch.advance(self.run, self.world.service(), self.max_usd)
        except BusyError:
            return
        self.fault("I7 two work on one run")

    def _queue(self, batch: Batch, every: list) -> None:
        if not batch.lines or self.weather.late:
            return
        model = batch.lines[0].model
        limit = self.told.get(model)
        others = [b for b in every if b.live and b.lines and b.lines[0].model == model]
        held = sum(b.n_tokens for b in others)
        if limit and held > limit and len(others) > 1:
            self.fault(f"queue of {model}: {held} tokens where {limit} are known")

    def _lines_are_new(self, batch: Batch, every: list) -> None:
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

    def seen(self, batch: Batch) -> None:
        """An end is shown: a refusal for the queue begins a pause and may tell the limit."""
        if not any(error["code"] == "token_limit_exceeded" for error in batch.errors):
            return
        model = batch.lines[0].model
        if self.weather.tells:
            self.told[model] = self.weather.limits[model]
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
        if spent + reserved > self.max_usd + 1e-9 and not doubles:
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
        for model in (*self.weather.denied, *self.weather.hollow):
            ran = [
                line for b in self.world.batches.values() if b.admitted and not b.double
                for line in b.lines if line.model == model and line.kind in ("empty", "denied")
            ]  # fmt: skip
            bound = self.run.study.sending.canary
            # What the account is refused costs nothing, and each new command tries a canary again;
            # a canary that the service cuts down is completed by another.
            n_times = n_starts if model in self.weather.denied else 2
            if len(ran) > bound * n_times:
                self.fault(f"I13 {len(ran)} lines ran for {model}, canary {bound}")


@contextlib.contextmanager
def _book(run: runs.Run) -> Iterator:
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        yield book


def _worst(batch: Batch) -> float:
    return sum(
        models.worst_case_usd(models.facts(line.model), line.n_tokens, line.cap)
        for line in batch.lines
    )


def _expected(kind: str) -> str:
    """The outcome's name for what the book says became of a line."""
    named = {"batch_expired": "expired", "batch_cancelled": "cancelled"}
    failed = ("busy", "broken", "zero", "bad", "denied")
    return "failed" if kind in failed else named.get(kind, kind)
