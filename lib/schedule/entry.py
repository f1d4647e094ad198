"""An entry: the one line of shell that every system runs, and how outside programs are called.

The line says nothing on any stream, whatever happens: what a start has to say stands in
`schedule.err` in the run's folder, until the next start.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib import runs
from lib.errors import StudyError, VotebookError

# What a step needs and a bare environment lacks; none of it is a secret.
_CARRIED = ("OPENAI_BASE_URL", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
_CARRIED += ("SSL_CERT_FILE", "SSL_CERT_DIR")
_PROGRAMS, _BARE_PATH = ("crontab", "systemctl", "launchctl"), ("/usr/bin", "/bin")
_PARENT = '"$(dirname "$r")"'


@dataclass(frozen=True)
class Entry:
    """What an entry is made of; `environment` is what its command gets beside the system's own."""

    run_name: str
    folder: Path
    run_id: str
    every_minutes: int
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What people read in the listing of a system."""
        return f"votebook run {self.run_name}, every {self.every_minutes} min"


def mark(folder: Path) -> str:
    """By what an entry is known: a digest of the run's folder, so that equal names do not meet."""
    return f"votebook-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"


def carried() -> dict[str, str]:
    """The variables that an entry takes along. An address with a password in it is left out."""
    found = {name: os.environ[name] for name in _CARRIED if os.environ.get(name)}
    return {name: value for name, value in found.items() if "@" not in value}


def command(entry: Entry, *options: str) -> list[str]:
    """One step of the run, by absolute paths."""
    python = [sys.executable, "-P", "-m", "lib", "advance"]
    return [*python, f"--scheduled={entry.run_id}", *options, "--", entry.run_name]


def settings(entry: Entry) -> dict[str, str]:
    """All that the command of an entry gets beside the system's own variables."""
    places = {"VOTEBOOK_OUTPUTS": str(entry.folder.parent), "PYTHONPATH": str(runs.ROOT)}
    return {**entry.environment, **places}


def line(entry: Entry, removal: str) -> str:
    """The line of shell: one step where the folder is, `removal` where it is gone for good.

    Each path stands in it once, because cron takes no long lines.
    """
    given = {**settings(entry), "VOTEBOOK_OUTPUTS": ""}
    words = [f"{name}={quoted(value) if value else _PARENT}" for name, value in given.items()]
    words += map(quoted, command(entry))
    step = f'cd "$r" && exec env {" ".join(words)} >schedule.err 2>&1'
    beside = witness(entry.folder)
    gone = f" elif [ -d {quoted(beside)} ]; then {removal};" if beside else ""
    whole = f'r={quoted(entry.folder)}; {_path()}if [ -d "$r" ]; then {step};{gone} fi'
    return f"{{ {whole}; }} >/dev/null 2>&1 # {entry.title}, {mark(entry.folder)}"


def witness(folder: Path) -> Path | None:
    """The folder whose presence proves that a missing run was deleted: that its disk is there.

    That is the root where everything lies on one disk, else the first folder below the mount
    point, which itself is there without its disk. None where the run lies right below it.
    """
    path = folder
    while not path.is_mount():
        path = path.parent
    if path == path.parent:
        return path
    first = folder.relative_to(path).parts[0]
    return path / first if path / first != folder else None


def quoted(word: str | Path) -> str:
    r"""A word for the shell that may also stand in a crontab.

    There a bare % ends the command, and most crons, not all, take one backslash of two and the one
    before a %. So a % stands outside of quotes, where the shell takes what is left, and every
    backslash in quotes of its own.

    >>> print(quoted("50% off"))
    50\%' off'
    """
    text = str(word)
    if not text.isprintable():
        what = f"{text!r} holds a line break or a character that cannot be seen."
        raise StudyError(f"{what} Choose another folder.")
    known = {"%": r"\%", "\\": r"'\'"}
    pieces = re.findall(r"[%\\]|[^%\\]+", text)
    return "".join(known.get(piece) or shlex.quote(piece) for piece in pieces) or "''"


def call(
    words: Sequence[str | Path],
    given: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess:
    """Call a program to its end; one that cannot be called counts as ended with 127."""
    try:
        return subprocess.run(  # noqa: S603 - crontab, systemctl, launchctl and our own command
            [str(word) for word in words],
            input=given or b"",
            capture_output=True,
            env=environment or {**os.environ, "LC_ALL": "C"},
            cwd=cwd,
            timeout=120,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(words, 127, b"", str(error).encode())


def said(done: subprocess.CompletedProcess) -> str:
    """What a program says against what it was asked, on one line; nothing when it ended well."""
    if not done.returncode:
        return ""
    words = " ".join(done.stderr.decode(errors="replace").split())[-400:]
    return f"{Path(str(done.args[0])).name} ended with {done.returncode}: {words}".rstrip(": ")


def must(words: Sequence[str | Path], given: bytes | None = None) -> bytes:
    """Call a program and give its output; raises VotebookError with what it says against it."""
    done = call(words, given)
    if done.returncode:
        raise VotebookError(f"{said(done)}.")
    return done.stdout


def _path() -> str:
    """What puts the programs of the system on the path, where cron's own has not got them."""
    found = {str(Path(where).parent) for name in _PROGRAMS if (where := shutil.which(name))}
    places = sorted(found - {*_BARE_PATH})
    return f'export PATH={quoted(":".join(places))}:"$PATH"; ' if places else ""
