"""Cron: entries are lines of the user's crontab. Every other line stays as it is, byte for byte."""

import os
import subprocess

from lib.errors import StudyError, VotebookError
from lib.schedule import entry as entries
from lib.schedule.entry import Entry

# Debian's cron refuses a longer command.
LONGEST_BYTES = 998
_NONE_YET = (b"no crontab for", b"can't open")


def works() -> bool:
    """Whether there is a crontab that this user may have."""
    return not _listing().returncode or _is_empty(_listing())


def environment() -> dict[str, str]:
    """What cron gives to a command: no key, no language, and the barest path."""
    kept = {name: os.environ[name] for name in ("HOME", "LOGNAME", "USER") if name in os.environ}
    return {**kept, "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}


def held(mark: str) -> list[str]:
    """The lines of the crontab that bear the mark."""
    tab = _read() if works() else b""
    return [line.decode(errors="replace") for line in _lines(tab) if _is_ours(line, mark)]


def add(entry: Entry) -> None:
    """Put the entry behind all others."""
    mark = entries.mark(entry.folder)
    command = entries.line(entry, removal(mark))
    n_bytes = len(os.fsencode(command))
    if n_bytes > LONGEST_BYTES:
        what = f"the entry would have {n_bytes:,} bytes, and cron takes {LONGEST_BYTES}: the paths"
        raise StudyError(
            f"{what} are too long. Move the workspace or VOTEBOOK_OUTPUTS to shorter ones."
        )
    before = _read()
    if before and not before.endswith(b"\n"):
        before += b"\n"
    _write(before + os.fsencode(f"{_when(entry.every_minutes, mark)} {command}\n"))
    if len(held(mark)) != 1:
        what = "the crontab does not show the entry that was just written."
        raise VotebookError(f"{what} Another program may be changing it: try again.")


def remove(mark: str) -> None:
    """Take the marked lines out."""
    if held(mark):
        _write(b"\n".join(line for line in _lines(_read()) if not _is_ours(line, mark)))


def removal(mark: str) -> str:
    """The same in shell, without Python and without a file.

    A listing that fails writes nothing. The mark behind the listing keeps empty lines at its end
    from being lost, and goes with the entry.
    """
    listing = f"l=$(crontab -l && echo {mark})"
    shown = "printf \\%s'\\n' \"$l\""
    return f"{listing} && {shown} | LC_ALL=C sed '/{mark}$/d' | crontab -"


def _when(every_minutes: int, mark: str) -> str:
    """The times of an entry; the mark shifts them, so that not all runs ask at one moment.

    >>> _when(10, "votebook-0000000000a7"), _when(120, "votebook-0000000000a7")
    ('7-59/10 * * * *', '47 0-23/2 * * *')
    """
    shift = int(mark.removeprefix("votebook-"), 16) % every_minutes
    hours, minute = every_minutes // 60, shift % 60
    if every_minutes == 1:
        return "* * * * *"
    if not hours:
        return f"{shift}-59/{every_minutes} * * * *"
    if hours == 1:
        return f"{minute} * * * *"
    if hours == 24:
        return f"{minute} {shift // 60} * * *"
    return f"{minute} {shift // 60}-23/{hours} * * *"


def _is_ours(line: bytes, mark: str) -> bool:
    return line.rstrip().endswith(mark.encode())


def _lines(tab: bytes) -> list[bytes]:
    return tab.split(b"\n")


def _listing() -> subprocess.CompletedProcess:
    return entries.call(["crontab", "-l"])


def _is_empty(listing: subprocess.CompletedProcess) -> bool:
    return any(said in listing.stderr for said in _NONE_YET)


def _read() -> bytes:
    """The user's crontab as it is; raises VotebookError when it cannot be had."""
    listing = _listing()
    if listing.returncode and not _is_empty(listing):
        raise VotebookError(f"{entries.said(listing)}.")
    return b"" if listing.returncode else listing.stdout


def _write(tab: bytes) -> None:
    entries.must(["crontab", "-"], tab)
