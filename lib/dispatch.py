"""The loop that submits and collects: one step, idempotent, safe to kill anywhere and to repeat.

A step reconciles what a crash left open, collects every batch that has ended, asks `wanted` what
to send, and submits what canary, queue and budget admit. An intent stands in the ledger before
each call; a call whose result is unknown is looked for at the service before it is made again.
"""

import contextlib
import os
import platform
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import filelock
import pandas as pd

from lib import audit, batches, clock, collect, ledger, queues, reconcile, submit
from lib.errors import (
    AccountingError,
    BudgetError,
    BusyError,
    CanaryError,
    ServiceError,
    VotebookError,
)
from lib.runs import Run, crash_point
from lib.service import Service
from lib.wanted import health, wanted


@dataclass(frozen=True)
class Progress:
    """How far a run is: `state` is done, waiting or stopped; `reasons` say why it is not done.

    `to_send` counts by model the lines that are to be sent and have no shard.
    """

    state: str
    n_requests: int
    n_valid: int
    n_in_flight: int
    n_to_send: int
    n_left: int
    spend_usd: float
    reserved_usd: float
    reasons: tuple[str, ...] = ()
    to_send: Mapping[str, int] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        """One honest line: what is in, under way, still to send, and left for review."""
        line = (
            f"{self.state}: {self.n_valid:,} of {self.n_requests:,} answered, {self.n_in_flight:,} "
            f"in flight, {self.n_to_send:,} to send, {self.n_left:,} for review"
        )
        return "\n".join([line, *self.reasons])


def advance(run: Run, to: Service, max_usd: float, *, canaries_only: bool = False) -> Progress:
    """Take one step and say where the run stands; nothing is sent beyond `max_usd`.

    A service that is down or busy is waited for: it does not raise, and `reasons` name it. Raises
    BusyError when another process works on the run, and ModelError before anything is sent that a
    model is known to refuse.
    """
    with _holding(run) as hold:
        return _step(run, to, max_usd, hold, canaries_only=canaries_only)


def follow(
    run: Run,
    to: Service,
    max_usd: float,
    hours: float,
    show: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Step until the run is done or stopped, or the time is over; `show` is called after each.

    The run is held all the while: BusyError tells another process at once.
    """
    with contextlib.closing(_steps(run, to, max_usd, hours)) as steps:
        for progress in steps:
            show(progress)
    return progress


def canary(run: Run, to: Service, max_usd: float, hours: float = 1.0) -> pd.DataFrame:
    """Send the canaries and wait for them: by model how many were judged, how many are valid.

    Raises CanaryError with the grouped faults when too few are; nothing more is sent then.
    """
    requests = _requests(run)
    with contextlib.closing(_steps(run, to, max_usd, hours, canaries_only=True)) as steps:
        for _ in steps:
            outcomes = collect.outcomes(run)
            table = health(requests, outcomes, run.study)
            if not table["verdict"].eq("untried").any():
                break
    failed = submit.stops(run, requests)
    if failed:
        raise CanaryError("\n".join(failed.values()), models=list(failed))
    return table


def status(run: Run) -> Progress:
    """Where the run stands by what is on disk, also before anything was sent: no call, no lock."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        return _progress(run, book, _requests(run))


def approved_usd(run: Run) -> float:
    """The budget that was last given to the run, by which it goes on; 0.0 when none was."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        return float(ledger.fact(book, "max_usd") or 0.0)


def approve(run: Run, max_usd: float) -> None:
    """Record the budget by which the run goes on without being told again."""
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        ledger.bind(book, "max_usd", repr(max_usd), again=True)


def _requests(run: Run) -> pd.DataFrame:
    """The run's requests, which must be made for the study as it is frozen now."""
    requests = run.table("requests")
    unknown = set(requests["annotator"]) - set(run.study.annotators)
    if unknown:
        names = ", ".join(sorted(unknown))
        what = f"requests.parquet asks {names}, whom panel {run.study.panel} does not have."
        raise AccountingError(f"{what} Run 02_estimate_cost again.", annotators=sorted(unknown))
    return requests


def _steps(
    run: Run, to: Service, max_usd: float, hours: float, *, canaries_only: bool = False
) -> Iterator[Progress]:
    """One step after the other, while the run waits and the time lasts; at least one."""
    deadline = clock.monotonic() + hours * 3600
    with _holding(run) as hold:
        while True:
            progress = _step(run, to, max_usd, hold, canaries_only=canaries_only)
            yield progress
            if progress.state != "waiting" or clock.monotonic() > deadline:
                return
            clock.sleep(to.poll_seconds)


def _step(run: Run, to: Service, max_usd: float, hold: str, *, canaries_only: bool) -> Progress:
    """Reconcile, collect and submit, once, in a run that this process holds."""
    requests = _requests(run)
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        run_id = _bind(run, book, to)
        if max_usd:
            ledger.bind(book, "max_usd", repr(max_usd), again=True)
        try:
            reconcile.reconcile(book, to, run_id)
            batches.ended(run, book, to)
            if audit.once(book, to, run, run_id, hold):
                batches.ended(run, book, to)
            step = submit.Step(run, book, to, run_id, max_usd, canaries_only, hold)
            sent = submit.send(step, requests)
            reasons = [*sent.held, *sent.waiting]
            state = "held" if sent.held and not sent.waiting else ""
        except BudgetError as error:
            reasons, state = [str(error)], "held"
        except ServiceError as error:
            ledger.note(book, "service_error", None, error=str(error))
            reasons, state = [str(error)], "stopped" if error.final else ""
        return _progress(run, book, requests, reasons, state)


def _progress(
    run: Run,
    book: sqlite3.Connection,
    requests: pd.DataFrame,
    reasons: Sequence[str] = (),
    state: str = "",
) -> Progress:
    """Where the run stands. `held` is stopped unless something under way may still change it."""
    outcomes = collect.outcomes(run)
    flying = ledger.in_flight(book)
    to_send = wanted(requests, outcomes, flying, run.study)
    keys = requests["key"].drop_duplicates()
    valid = set(outcomes.loc[outcomes["outcome"].eq("valid"), "key"])
    n_valid, n_flying = int(keys.isin(valid).sum()), int(keys.isin(flying - valid).sum())
    spent, reserved = ledger.money(book)
    under_way = n_flying + len(to_send)
    open_shards = ledger.shards(book, *ledger.OPEN_STATES)
    if state == "held":
        flies = any(shard["state"] == "submitted" for shard in open_shards)
        hopeful = flies or queues.is_paused(open_shards)
        state = "" if hopeful else "stopped"
    told = [*reasons, *(shard["error"] for shard in open_shards if shard["error"])]
    return Progress(
        state=state or ("waiting" if under_way else "done"),
        n_requests=len(keys),
        n_valid=n_valid,
        n_in_flight=n_flying,
        n_to_send=len(to_send),
        n_left=len(keys) - n_valid - under_way,
        spend_usd=spent,
        reserved_usd=reserved,
        reasons=tuple(dict.fromkeys(told)),
        to_send=to_send["model"].value_counts().to_dict(),
    )


def _bind(run: Run, book: sqlite3.Connection, to: Service) -> str:
    """The run's id at the service; a run keeps the service from which it has answers or batches."""
    if ledger.fact(book, "run_id") is None and any(run.path("shards").glob("*.jsonl*")):
        what = f"run {run.name} has shards and no ledger that says what became of them."
        fix = "Put ledger.sqlite back from a copy, or choose another run name (--run NAME)."
        raise AccountingError(f"{what} {fix} Answers that are in are found by any run.")
    is_new = not ledger.shards(book) and not any(run.path("outcomes").glob("*.parquet"))
    held = ledger.bind(book, "service", to.name, again=is_new)
    if held != to.name:
        what = f"run {run.name} was begun with the service {held}, not {to.name}."
        fix = "Simulated and paid answers are never mixed: choose another run name (--run NAME)."
        raise VotebookError(f"{what} {fix}", service=held)
    ledger.bind(book, "holder", f"process {os.getpid()} on {platform.node()}", again=True)
    return ledger.bind(book, "run_id", uuid.uuid4().hex)


@contextlib.contextmanager
def _holding(run: Run) -> Iterator[str]:
    """The run's kernel lock: one payer at a time, freed by the system when its process dies.

    Gives a name for the time that it is held.
    """
    lock = filelock.FileLock(run.path("ledger.lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
            holder = ledger.fact(book, "holder") or "another process"
        what = f"{holder} is working on run {run.name}. Wait for it to end, or stop it."
        raise BusyError(what, run=run.name, holder=holder) from None
    crash_point("lock taken")
    try:
        yield uuid.uuid4().hex
    finally:
        lock.release()
