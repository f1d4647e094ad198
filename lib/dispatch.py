"""The loop that submits and collects: one step, idempotent, safe to kill anywhere and to repeat.

A step reconciles what a crash left open, collects every batch that has ended, asks `wanted` what
to send, and submits what canary, queue and budget admit. An intent stands in the ledger before
each call; a call whose result is unknown is looked for at the service before it is made again.
"""

import contextlib
import errno
import os
import platform
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import filelock

from lib import batches, clock, diary, ledger, reconcile, runs, standing, versions, words
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
from lib.standing import Counts, Given, Progress

COPY = "ledger.copy.sqlite"  # of the ledger as it was when a process last let go of the run

if TYPE_CHECKING:
    import pandas as pd

    from lib.asking import Due


class _Held(NamedTuple):
    """A run that this process holds: its ledger, its id at the service, the name of the command."""

    book: sqlite3.Connection
    run_id: str
    hold: str


def advance(run: Run, to: Service, max_usd: float, *, canaries_only: bool = False) -> Progress:
    """Take one step and say where the run stands; nothing is sent beyond `max_usd`.

    A service that is down or busy is waited for: it does not raise, and `reasons` name it. Raises
    BusyError when another process works on the run, and ModelError before anything is sent that a
    model is known to refuse.
    """
    with _working(run, to, max_usd) as held:
        return _step(run, held, Given(to, max_usd, canaries_only, held.hold))


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


def canary(run: Run, to: Service, max_usd: float, hours: float = 1.0) -> "pd.DataFrame":
    """Send the canaries and wait for them: by model how many were judged, how many are valid.

    Raises CanaryError with the grouped faults when too few are; nothing more is sent then.
    """
    from lib import asking, collect, submit
    from lib.wanted import health

    requests = _requests(run)
    with contextlib.closing(_steps(run, to, max_usd, hours, canaries_only=True)) as steps:
        for _ in steps:
            outcomes = collect.outcomes(run)
            table = health(asking.now(run, requests, outcomes).requests, outcomes, run.study)
            if not table["verdict"].eq("untried").any():
                break
    failed = submit.stops(run, requests)
    if failed:
        raise CanaryError("\n".join(failed.values()), models=list(failed))
    return table


def status(run: Run) -> Progress:
    """Where the run stands by what is on disk, also before anything was sent: no call, no lock."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        plan = standing.Plan()
        return standing.progress(book, standing.counted(run, book) or _count(run, book), plan)


def approved_usd(run: Run) -> float:
    """The budget that was last given to the run, by which it goes on; 0.0 when none was."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        return float(ledger.fact(book, "max_usd") or 0.0)


def approve(run: Run, max_usd: float) -> None:
    """Record the budget by which the run goes on without being told again."""
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        ledger.bind(book, "max_usd", repr(max_usd), again=True)


def _requests(run: Run) -> "pd.DataFrame":
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
    with _working(run, to, max_usd) as held:
        while True:
            progress = _step(run, held, Given(to, max_usd, canaries_only, held.hold))
            yield progress
            if progress.state != "waiting" or clock.monotonic() > deadline:
                return
            clock.sleep(to.poll_seconds)


def _step(run: Run, held: _Held, given: Given) -> Progress:
    """Reconcile, collect and submit, once; where nothing has changed, as the step before it."""
    book, to = held.book, given.to
    try:
        reconcile.reconcile(book, to, held.run_id)
        batches.ended(run, book, to)
        plan, counts = standing.planned(run, book, given), standing.counted(run, book)
        if plan is None or counts is None:
            counts, plan = _plan(run, held, given)
            standing.record(run, book, counts, given, plan)
        return standing.progress(book, counts, plan)
    except BudgetError as error:
        plan, state = standing.Plan((str(error),), is_held=True), ""
    except ServiceError as error:
        code = vars(error).get("code")
        ledger.note(book, "service_error", None, error=str(error), code=code)
        plan, state = standing.Plan((str(error),)), "stopped" if error.final else ""
    counts = standing.counted(run, book) or _count(run, book)
    standing.record(run, book, counts, given, plan if plan.is_held else None)
    return standing.progress(book, counts, plan, state)


def _plan(run: Run, held: _Held, given: Given) -> tuple[Counts, standing.Plan]:
    """Submit what may be submitted now; gives where the requests are then, and why no more."""
    # What plans is loaded when there is something to plan: most steps find nothing new.
    from lib import audit, disks, planning, submit

    book, to = held.book, given.to
    if not to.free:
        disks.check_folder(run)
    if audit.once(book, to, run, held.run_id, given.hold):
        batches.ended(run, book, to)
    step = planning.Step(run, book, to, held.run_id, given.max_usd, given.canaries_only, given.hold)
    requests, n_released = _requests(run), len(ledger.shards(book, "released"))
    sent = submit.send(step, requests)
    audit.last(book, to, run, held.run_id)
    is_held = bool(sent.held) and not sent.waiting
    changes_at = sent.changes_at.isoformat() if sent.changes_at else None
    is_exact = len(ledger.shards(book, "released")) == n_released
    counts = _count(run, book, (requests, sent.outcomes, sent.due) if is_exact else None)
    return counts, standing.Plan((*sent.held, *sent.waiting), is_held, changes_at)


def _count(
    run: Run,
    book: sqlite3.Connection,
    known: "tuple[pd.DataFrame, pd.DataFrame, Due] | None" = None,
) -> Counts:
    """Where the requests are now, from requests, outcomes and what was due before."""
    from lib import asking, collect

    flying = ledger.in_flight(book)
    requests, outcomes, due = known or (_requests(run), collect.outcomes(run), None)
    due = due or asking.now(run, requests, outcomes, flying)
    keys = requests["key"].drop_duplicates()
    valid = set(outcomes.loc[outcomes["outcome"].eq("valid"), "key"])
    to_send = due.rows.loc[~due.rows["key"].isin(flying), "model"].value_counts().to_dict()
    n_flying = int(keys.isin(flying - valid).sum())
    n_later, n_spared = len(due.later - flying), len(due.spared - flying)
    if n_later and not (n_flying or to_send):
        later = words.n_of(n_later, "request")
        what = f"{later} of run {run.name} cannot be sent before answers that are not under way."
        raise AccountingError(f"{what} Set voting: ask: all in study.yml, and run 01 again.")
    return Counts(len(keys), int(keys.isin(valid).sum()), n_flying, to_send, n_later, n_spared)


@contextlib.contextmanager
def _working(run: Run, to: Service, max_usd: float) -> Iterator[_Held]:
    """The run held, its ledger open; on letting go, its events are written out for people."""
    with holding(run) as hold, ledger.open_ledger(run.path("ledger.sqlite")) as book:
        last = diary.last(book)
        run_id = _bind(run, book, to)
        if max_usd > 0:
            ledger.bind(book, "max_usd", repr(max_usd), again=True)
        try:
            yield _Held(book, run_id, hold)
        except BaseException:
            # What went wrong is what people have to read: nothing that follows from it hides it.
            with contextlib.suppress(OSError, ledger.Error):
                _leave(run, book, last)
            raise
        _leave(run, book, last)


def _leave(run: Run, book: sqlite3.Connection, last: int) -> None:
    """Lay the events and a copy of the ledger beside it, if there are any after the `last` one."""
    if diary.last(book) > last:
        diary.write(book, run.path("events.jsonl"))
        versions.copy(book, run.path(COPY))


def _bind(run: Run, book: sqlite3.Connection, to: Service) -> str:
    """The run's id at the service; a run keeps the service from which it has answers or batches."""
    has_sent = run.path(COPY).is_file() or any(run.path("shards").glob("*.jsonl*"))
    if ledger.fact(book, "run_id") is None and has_sent:
        what = f"run {run.name} has shards and no ledger that says what became of them."
        fix = f"`python3 votebook.py check {run.name}` puts its copy back, or choose --run NAME."
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
def holding(run: Run) -> Iterator[str]:
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
    except OSError as error:
        raise runs.unwritable(run.path("ledger.lock"), error.errno or errno.EIO) from None
    crash_point("lock taken")
    try:
        yield uuid.uuid4().hex
    finally:
        lock.release()
