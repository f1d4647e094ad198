"""The loop that submits and collects: one step, idempotent, safe to kill anywhere and to repeat.

A step reconciles what a crash left open, collects every batch that has ended, asks `wanted` what
to send, and submits what canary, queue and budget admit. An intent stands in the ledger before
each call; a call whose result is unknown is looked for at the service before it is made again.
"""

import contextlib
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import filelock
import pandas as pd

from lib import collect, ledger, reconcile, submit
from lib.errors import BusyError, CanaryError, VotebookError
from lib.runs import Run
from lib.service import Service
from lib.wanted import health, stopped, wanted


@dataclass(frozen=True)
class Progress:
    """How far a run is: `state` is done, waiting or stopped, and `reasons` say why it stopped."""

    state: str
    n_requests: int
    n_valid: int
    n_in_flight: int
    n_to_send: int
    n_left: int
    spend_usd: float
    reserved_usd: float
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One honest line: what is in, under way, still to send, and left for review."""
        line = (
            f"{self.state}: {self.n_valid:,} of {self.n_requests:,} answered, "
            f"{self.n_in_flight:,} in flight, {self.n_to_send:,} to send, {self.n_left:,} for review"
        )
        return "\n".join([line, *self.reasons])


def advance(run: Run, to: Service, max_usd: float) -> Progress:
    """Take one step and say where the run stands; nothing is sent beyond `max_usd`.

    Raises BusyError when another process works on the run.
    """
    with _holding(run), ledger.open_ledger(run.path("ledger.sqlite")) as book:
        run_id = _bind(run, book, to)
        requests = run.table("requests")
        n_waiting = reconcile.reconcile(book, to, run_id)
        collect.ended(run, book, to)
        collect.share(run, requests, free=to.free)
        outcomes = collect.outcomes(run)
        reasons: list[str] = []
        if not n_waiting:
            reasons = submit.send(run, book, to, run_id, requests, outcomes, max_usd)
        return _progress(run, book, requests, outcomes, reasons)


def follow(
    run: Run,
    to: Service,
    max_usd: float,
    hours: float,
    show: Callable[[Progress], None] = lambda progress: None,
    until: Callable[[Progress], bool] = lambda progress: False,
) -> Progress:
    """Step until the run is done or stopped, `until` holds, or the time is over."""
    deadline = time.monotonic() + hours * 3600
    while True:
        progress = advance(run, to, max_usd)
        show(progress)
        if progress.state != "waiting" or until(progress) or time.monotonic() > deadline:
            return progress
        time.sleep(to.poll_seconds)


def canary(run: Run, to: Service, max_usd: float, hours: float = 1.0) -> pd.DataFrame:
    """Send the canaries and wait for them: by model how many were judged, how many are valid.

    Raises CanaryError with the grouped faults when too few are; nothing more is sent then.
    """
    requests = run.table("requests")

    def judged(_: Progress) -> bool:
        return not _waiting_canaries(run, requests)

    follow(run, to, max_usd, hours, until=judged)
    table = health(requests, collect.outcomes(run), run.study)
    failed = table[table["verdict"].eq("failed")]
    if len(failed):
        what = stopped(run.study, list(failed["model"]), collect.outcomes(run))
        raise CanaryError(what, models=list(failed["model"]))
    return table


def status(run: Run) -> Progress:
    """Where the run stands by what is on disk: no call, no lock."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        return _progress(run, book, run.table("requests"), collect.outcomes(run), [])


def _waiting_canaries(run: Run, requests: pd.DataFrame) -> list[str]:
    """The models whose canary has not been judged yet although something of theirs is asked."""
    table = health(requests, collect.outcomes(run), run.study)
    return list(table.loc[table["verdict"].eq("untried"), "model"])


def _progress(
    run: Run,
    book: sqlite3.Connection,
    requests: pd.DataFrame,
    outcomes: pd.DataFrame,
    reasons: list[str],
) -> Progress:
    flying = ledger.in_flight(book)
    to_send = wanted(requests, outcomes, flying, run.study)
    keys = requests["key"].drop_duplicates()
    valid = set(outcomes.loc[outcomes["outcome"].eq("valid"), "key"])
    n_valid, n_flying = int(keys.isin(valid).sum()), int(keys.isin(flying - valid).sum())
    spent, reserved = ledger.money(book)
    under_way = n_flying + len(to_send)
    return Progress(
        state="stopped" if reasons else "waiting" if under_way else "done",
        n_requests=len(keys),
        n_valid=n_valid,
        n_in_flight=n_flying,
        n_to_send=len(to_send),
        n_left=len(keys) - n_valid - under_way,
        spend_usd=spent,
        reserved_usd=reserved,
        reasons=tuple(reasons),
    )


def _bind(run: Run, book: sqlite3.Connection, to: Service) -> str:
    """The run's id at the service; a run keeps the service with which it began."""
    held = ledger.bind(book, "service", to.name)
    if held != to.name:
        what = f"run {run.name} was begun with the service {held}, not {to.name}."
        fix = "Simulated and paid answers are never mixed: choose another run name (--run NAME)."
        raise VotebookError(f"{what} {fix}", service=held)
    return ledger.bind(book, "run_id", uuid.uuid4().hex)


@contextlib.contextmanager
def _holding(run: Run) -> Iterator[None]:
    """The run's kernel lock: one payer at a time, freed by the system when its process dies."""
    lock = filelock.FileLock(run.path("ledger.lock"), timeout=0)
    try:
        with lock:
            yield
    except filelock.Timeout:
        what = f"another process is working on run {run.name}. Wait for it to end, or stop it."
        raise BusyError(what, run=run.name) from None
