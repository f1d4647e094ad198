"""The schedule: at most one entry for a run in cron, systemd or launchd, which goes on by itself.

What the systems list is the truth about entries; the ledger keeps their history. An entry is known
by its mark, a digest of the run's folder, and no other entry is touched. It calls one command that
may be called at any time, and removes itself when the run is done, has stopped, or is gone.
"""

import contextlib
import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from lib import clock, ledger, runs
from lib.errors import StudyError, VotebookError
from lib.runs import Run, crash_point
from lib.schedule import cron, launchd, systemd
from lib.schedule import entry as entries
from lib.schedule.entry import Entry

# In this order the first one that works is taken.
SYSTEMS = {"launchd": launchd, "systemd": systemd, "cron": cron}
EVERY_MINUTES = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1440)
LOG, STARTS = "schedule.log", "schedule.err"
LOG_BYTES = 100_000


@dataclass(frozen=True)
class Held:
    """An entry that a system lists."""

    by: str
    every_minutes: int
    line: str = dataclasses.field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        """For a sentence."""
        return f"every {self.every_minutes} min by {self.by}"


def held(run_name: str) -> list[Held]:
    """The entries of a run that the systems list now; the run may be gone."""
    mark = entries.mark(_folder(run_name))
    found = []
    for by, system in SYSTEMS.items():
        for line in system.held(mark):
            every = re.search(r", every (\d+) min", line)
            found.append(Held(by, int(every[1]) if every else 0, line))
    return found


def install(run: Run, every_minutes: int = 10, by: str = "") -> tuple[Held, bool]:
    """Make the entry of a run; gives it, and whether it is new.

    One that is there already stays as it is, unless it is of a run or a Python that is gone. Raises
    StudyError when it differs from what is asked, when the run has not begun, or when a step would
    not find what it needs without this shell.
    """
    if every_minutes not in EVERY_MINUTES:
        known = ", ".join(map(str, EVERY_MINUTES))
        raise StudyError(f"--every {every_minutes} is no even step. Choose one of {known} minutes.")
    with _alone():
        made, there = _entry(run, every_minutes), held(run.name)
        asked = Held(by or (there[0].by if there else _first()), every_minutes)
        if there and there != [asked]:
            what = f"run {run.name} is scheduled already: {'; '.join(map(str, there))}."
            raise StudyError(f"{what} To have it {asked}, `schedule remove {run.name}` first.")
        if there and _is_fresh(there[0], made):
            _record(run.folder, asked, "found")
            return asked, False
        _probe(made, asked.by)
        SYSTEMS[asked.by].remove(entries.mark(made.folder))
        SYSTEMS[asked.by].add(made)
        crash_point("entry written")
        _record(run.folder, asked, "installed")
    return asked, True


def remove(run_name: str, why: str = "asked") -> list[Held]:
    """Take a run's entries out of every system, whether the run is there or not; gives them."""
    folder = _folder(run_name)
    with _alone():
        found = held(run_name)
        for system in SYSTEMS.values():
            system.remove(entries.mark(folder))
        crash_point("entry removed")
        _record(folder, None, why)
    return found


def status(run_name: str) -> list[str]:
    """What there is of a schedule, in sentences; sets the record right by what the systems list."""
    folder, found = _folder(run_name), held(run_name)
    said = [f"run {run_name}: {one}" for one in found] or [f"run {run_name} has no schedule"]
    if _record(folder, found[0] if found else None, "found"):
        said.append("The record in the ledger said something else and has been set right.")
    for name, words in ((LOG, "last step"), (STARTS, "last start said")):
        lines = _last_lines(folder / name, 1)
        said += [f"{words}: {line}" for line in lines]
    return said


def hints(by: str) -> list[str]:
    """What a person should know about a new entry of a system."""
    said = ["It needs no terminal, and removes itself when the run is done or has stopped."]
    if by == "systemd" and not systemd.lingers():
        said.append("It pauses while you are logged out; `loginctl enable-linger` lets it go on.")
    if by == "launchd":
        said.append("It pauses while you are logged out or the machine sleeps.")
    if os.environ.get("VOTEBOOK_NOTIFY"):
        what = "VOTEBOOK_NOTIFY holds secrets and is not taken along"
        said.append(f"{what}: `keyring set votebook notify` keeps the address for it.")
    return said


def is_stale(run_name: str, run_id: str) -> bool:
    """Whether the run that an entry was made for is gone: no ledger, or that of another run."""
    path = _folder(run_name) / "ledger.sqlite"
    if not path.is_file():
        return True
    with ledger.open_ledger(path, read_only=True) as book:
        return bool(run_id) and ledger.fact(book, "run_id") != run_id


def log(folder: Path, text: str) -> None:
    """Write what a step has to say into the log in a run's folder, whose last 100 kB are kept."""
    path = folder / LOG
    before = path.read_bytes() if path.is_file() else b""
    stamp = f"{clock.now():%Y-%m-%d %H:%M:%S}Z"
    whole = before + f"{stamp} {text}\n".encode()
    if len(whole) > LOG_BYTES:
        whole = whole[-LOG_BYTES // 2 :].split(b"\n", 1)[-1]
    with runs.replacing(path) as part:
        part.write_bytes(whole)


def _entry(run: Run, every_minutes: int) -> Entry:
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        run_id = ledger.fact(book, "run_id")
    if not run_id:
        what = (
            f"run {run.name} has not begun: notebook 03 chooses its service and sends its canary."
        )
        raise StudyError(f"{what} Run it first, then install the schedule.")
    folder = _folder(run.name)
    return Entry(run.name, folder, run_id, every_minutes, entries.carried())


def _first() -> str:
    for by, system in SYSTEMS.items():
        if system.works():
            return by
    what = "neither launchd nor a systemd of the user nor cron works here."
    raise VotebookError(f"{what} Leave `watch` running, or install cron.")


def _is_fresh(there: Held, made: Entry) -> bool:
    """Whether an entry is of this very run and of this Python."""
    return made.run_id in there.line and str(sys.executable) in there.line


def _probe(made: Entry, by: str) -> None:
    """Make the step's start once as the system will: without this shell's environment.

    It finds Python, the run and a key, or says what it lacks; it sends nothing.
    """
    if not SYSTEMS[by].works():
        raise VotebookError(f"{by} does not work here. Without --by, what works is taken.")
    environment = {**SYSTEMS[by].environment(), **entries.settings(made)}
    done = entries.call(entries.command(made, "--probe"), environment=environment, cwd=made.folder)
    if done.returncode:
        what = f"started by {by}, without this shell's environment, a step would not work"
        fix = "Or leave `watch` running in a shell that has what is missing."
        raise StudyError(f"{what} ({entries.said(done)}). {fix}")


def _record(folder: Path, one: Held | None, why: str) -> bool:
    """Keep in the ledger, if there is one, what entry the run has; gives whether that is news."""
    path = folder / "ledger.sqlite"
    if not path.is_file():
        return False
    now = {"by": one.by, "every_minutes": one.every_minutes} if one else {}
    with ledger.open_ledger(path) as book:
        before = ledger.fact(book, "schedule") or "{}"
        ledger.bind(book, "schedule", json.dumps(now), again=True)
        if json.loads(before) != now:
            ledger.note(book, "schedule", None, why=why, **now)
    return json.loads(before) != now


def _folder(run_name: str) -> Path:
    return runs.folder(run_name).resolve()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One change of a listing at a time: it is read, changed and written back whole."""
    runs.outputs().mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(runs.outputs() / ".schedule.lock", timeout=60):
        yield


def _last_lines(path: Path, n: int) -> list[str]:
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-n:]
