"""What the commands about a run that exists do: advance, watch, schedule, check, selftest, bench.

Each finds the run by its name alone, its service in the ledger, and its budget there too unless one
is given; it says which. They speak to a terminal, and decide nothing that the library decides.
"""

import argparse
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lib import words
from lib.errors import (
    AccountingError,
    BusyError,
    CanaryError,
    ModelError,
    StudyError,
    VotebookError,
)

if TYPE_CHECKING:
    from lib.runs import Run
    from lib.service import Service
    from lib.standing import Progress

DONE, STOPPED, WAITING, BUSY, INTERRUPTED = 0, 2, 3, 75, 130
CODES = {"done": DONE, "waiting": WAITING, "stopped": STOPPED}
# What only a person can settle; a schedule that went on would meet it at every step.
_SETTLED_BY_PEOPLE = (AccountingError, CanaryError, ModelError, StudyError)


def advance(given: argparse.Namespace) -> int:
    """One step of a run: reconcile, collect, submit."""
    from lib import dispatch, notify, runs

    if given.scheduled is not None:
        return _scheduled(given)
    run = runs.find(given.run)
    to, max_usd = _opened(run, given)
    progress = dispatch.advance(run, to, max_usd)
    notify.after(run, progress, max_usd)
    print(plain(str(progress)))
    return CODES[progress.state]


def watch(given: argparse.Namespace) -> int:
    """Steps until the run is done or stopped, with its outlook on the screen."""
    from lib import dispatch, notify, runs

    run = runs.find(given.run)
    to, max_usd = _opened(run, given)
    show, last = painter(), [""]

    def seen(progress: "Progress") -> None:
        show(*outlook_lines(run, progress, max_usd))
        if last[0] != str(progress):
            notify.after(run, progress, max_usd)
        last[0] = str(progress)

    progress = dispatch.follow(run, to, max_usd, given.hours, show=seen)
    return CODES[progress.state]


def schedule(given: argparse.Namespace) -> int:
    """The entry of a run in cron, systemd or launchd: make it, show it, take it out."""
    from lib import runs
    from lib import schedule as schedules

    if given.action == "status":
        print(plain("\n".join(schedules.status(given.run))))
    elif given.action == "remove":
        gone = schedules.remove(given.run)
        print(f"removed: {', '.join(map(str, gone))}" if gone else "there was no schedule")
    else:
        run = runs.find(given.run)
        _check_budget(run, given)
        entry, is_new = schedules.install(run, given.every, given.by)
        print(f"{'installed' if is_new else 'is there already'}: run {run.name}, {entry}")
        print("\n".join(schedules.hints(entry.by) if is_new else ()), end="\n" if is_new else "")
    return DONE


def check(given: argparse.Namespace) -> int:
    """Re-read everything of a run and say what is not as it should be."""
    from lib import check as checks
    from lib import runs

    run = runs.find(given.run)
    table = checks.check(run, None if given.offline else checks.connected(run))
    for row in table[table["state"].ne("good")].itertuples():
        print(plain(f"{row.state}: {row.part}: {row.what}: {row.detail}"))
    counts = table["state"].value_counts()
    print(", ".join(f"{n:,} {state}" for state, n in counts.items()) or "nothing to check")
    return STOPPED if counts.get("lost", 0) else DONE


def selftest(given: argparse.Namespace) -> int:
    """Two tiny requests through a real account."""
    from lib import selftest as test

    return int(test.run(given.service, given.model, given.max_usd, print))


def bench(given: argparse.Namespace) -> int:
    """Run measurements by name, or list them."""
    from lib import runs, yamls

    texts = {
        path.stem: path.read_text(encoding="utf-8")
        for path in sorted((runs.ROOT / "benchmarks").glob("*.py"))
    }
    known = {name: text for name, text in texts.items() if re.search(r"^def main\(", text, re.M)}
    for name in given.names:
        if name not in known:
            what = f"there is no measurement {name!r}.{yamls.nearest(name, known)}"
            raise VotebookError(f"{what} There are: {', '.join(known) or 'none'}.")
    for name in known if not given.names else ():
        title = known[name].split('"""')[1].splitlines()[0]
        print(f"{name:24}{title}")
    codes = [
        subprocess.call([sys.executable, "-m", f"benchmarks.{name}"], cwd=runs.ROOT)  # noqa: S603 - our own module
        for name in given.names
    ]
    return max(codes, default=DONE)


def outlook_lines(run: "Run", progress: "Progress", max_usd: float) -> tuple[list[str], list[str]]:
    """What `watch` shows: how far the run is, money, what stalls, deadlines; then, as it changes
    with every moment, each queue and when all will be in.
    """
    from lib import clock, ledger, outlook, queues

    now = clock.now()
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        shards = ledger.shards(book)
        names = {shard["model"] for shard in shards} | set(progress.to_send)
        windows = {model: queues.window_tokens(run, book, model) for model in names}
    held = outlook.queues(shards, progress.to_send, windows, now)
    bound = f" of ${max_usd:.4f}" if max_usd else ""
    spent = f"${progress.spend_usd:.4f} spent, ${progress.reserved_usd:.4f} at most in flight"
    news = [*str(progress).splitlines(), f"{spent}{bound}", *outlook.stalls(shards, now)]
    if late := outlook.deadlines(shards, now):
        first = f"{min(late.values()):%Y-%m-%d %H:%M} UTC"
        ended = words.n_of(len(late), "ended batch is", "ended batches are")
        news.append(f"{ended} not downloaded; the files go from {first}")
    moving = [outlook.line(queue) for queue in held if queue.n_open]
    moving += outlook.arrival(held, shards, now) if progress.state == "waiting" else []
    if progress.n_later:
        moving.append(f"{progress.n_later:,} more may follow, by what these answers say")
    return [plain(line) for line in news], [plain(line) for line in moving]


def painter() -> Callable[[Sequence[str], Sequence[str]], None]:
    """How lines come on the screen: over the last ones in a terminal, else when there is news."""
    before: list[Sequence[str]] = [(), ()]

    def paint(news: Sequence[str], moving: Sequence[str]) -> None:
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns - 1
            n_before = len(before[0]) + len(before[1])
            back = f"\x1b[{n_before}F\x1b[J" if n_before else ""
            print(back + "\n".join(line[:width] for line in (*news, *moving)), flush=True)
        elif news != before[0]:
            print("\n".join((*news, *moving)), flush=True)
        before[:] = news, moving

    return paint


def plain(text: str) -> str:
    r"""Text without what a terminal would take for a command.

    >>> plain("a\x1b[31mb\nc")
    'a[31mb\nc'
    """
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", "", text)


def number(text: str) -> float:
    """A number of 0 or more, as it is written on the command line."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(text)
    return value


def whole(text: str) -> int:
    """A whole number of 1 or more, as it is written on the command line."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _scheduled(given: argparse.Namespace) -> int:
    """One step by a schedule: says nothing, writes to the run's log, ends the schedule when due."""
    from lib import runs
    from lib import schedule as schedules

    if schedules.is_stale(given.run, given.scheduled):
        if (folder := runs.folder(given.run)).is_dir():
            schedules.log(folder, "the schedule is removed: it was made for another ledger")
        schedules.remove(given.run, "the run that it was made for is gone")
        return DONE
    run = runs.find(given.run)
    if given.probe:
        return _probed(run)
    # Only now: many a start ends before, and these take the longest.
    from lib import dispatch, notify

    try:
        with dispatch.holding(run):  # a busy run is left alone before a service is started
            to, max_usd = _connected(run), _budget(run, given)[0]
        progress = dispatch.advance(run, to, max_usd)
    except BusyError:
        return BUSY
    except VotebookError as error:
        code = getattr(error, "code", None) or type(error).__name__
        schedules.log(run.folder, f"{type(error).__name__}: {plain(str(error))}")
        notify.tell(run, [notify.stopped(str(code))])
        if isinstance(error, _SETTLED_BY_PEOPLE):
            schedules.remove(run.name, str(code))
        return STOPPED
    schedules.log(run.folder, plain(str(progress)).replace("\n", " | "))
    notify.after(run, progress, max_usd)
    if progress.state != "waiting":
        schedules.remove(run.name, progress.state)
    return CODES[progress.state]


def _probed(run: "Run") -> int:
    """Whether a step would find what it needs; calls nobody."""
    from lib import keys, services

    name = _service_name(run) or services.LOCAL
    if name != services.LOCAL:
        services.address(name)
        keys.key(services.find(name))
    return DONE


def _opened(run: "Run", given: argparse.Namespace) -> tuple["Service", float]:
    """The service and the budget of a run, which are said."""
    to = _connected(run, given.service)
    max_usd, whence = _budget(run, given)
    if to.free and not max_usd:
        print(f"Run {run.name} at {to.name}: answers are simulated, nothing is paid.")
    elif max_usd:
        print(f"Run {run.name} at {to.name}, up to ${max_usd:.2f} ({whence}).")
    else:
        print(f"Run {run.name} at {to.name} sends nothing: no budget was approved (--max-usd N).")
    return to, max_usd


def _budget(run: "Run", given: argparse.Namespace) -> tuple[float, str]:
    from lib import dispatch

    if given.max_usd is not None:
        return given.max_usd, "given now"
    return dispatch.approved_usd(run), "as approved before"


def _check_budget(run: "Run", given: argparse.Namespace) -> None:
    """Approve the budget that an entry is to go by; raises StudyError when a paid run has none."""
    from lib import dispatch, services

    if given.max_usd:
        dispatch.approve(run, given.max_usd)
    name = _service_name(run)
    paid = bool(name) and not services.find(str(name)).free
    if paid and not dispatch.approved_usd(run):
        what = f"run {run.name} has no budget, so its schedule would send nothing."
        raise StudyError(f"{what} Give one: --max-usd N.")


def _service_name(run: "Run") -> str | None:
    from lib import ledger

    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        return ledger.fact(book, "service")


def _connected(run: "Run", name: str = "") -> "Service":
    from lib import service

    found = name or _service_name(run)
    if not found:
        what = f"run {run.name} has not begun, so nobody knows its service."
        raise StudyError(f"{what} Say it once: --service local, openai, or a URL.")
    return service.connect(found)
