"""systemd: an entry is a timer and a service of the user's own manager."""

import os
import subprocess
from pathlib import Path

from lib import runs
from lib.schedule import entry as entries
from lib.schedule.entry import Entry

_SHELL = "systemctl --user"
_SERVICE = """\
[Unit]
Description={title}

[Service]
Type=oneshot
SuccessExitStatus=3 75
KillMode=process
ExecStart=/bin/sh -c {line}
"""
_TIMER = """\
[Unit]
Description={title}

[Timer]
OnActiveSec=5s
OnStartupSec=2min
OnUnitActiveSec={minutes}min

[Install]
WantedBy=timers.target
"""


def works() -> bool:
    """Whether the user's manager answers."""
    return not _ask("show-environment").returncode


def environment() -> dict[str, str]:
    """What the user's manager gives to a service."""
    lines = _ask("show-environment").stdout.decode(errors="replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def lingers() -> bool:
    """Whether the user's manager goes on when the user is logged out."""
    words = ["loginctl", "show-user", str(os.getuid()), "--property=Linger"]
    return entries.call(words).stdout.strip() == b"Linger=yes"


def held(mark: str) -> list[str]:
    """The timer's service, unless the manager knows the timer as one that does not run."""
    service, timer = _files(mark)
    if not (service.is_file() and timer.is_file()):
        return []
    idle = _ask("is-active", f"{mark}.timer").stdout.strip() in (b"inactive", b"failed")
    return [] if idle else [service.read_text(encoding="utf-8")]


def add(entry: Entry) -> None:
    """Write the units and start the timer."""
    mark = entries.mark(entry.folder)
    line = _unit_word(entries.line(entry, removal(mark)))
    title, minutes = entry.title.replace("%", "%%"), entry.every_minutes
    texts = (_SERVICE.format(title=title, line=line), _TIMER.format(title=title, minutes=minutes))
    for path, text in zip(_files(mark), texts, strict=True):
        with runs.replacing(path) as part:
            part.write_text(text, encoding="utf-8")
    entries.must([*_SHELL.split(), "daemon-reload"])
    entries.must([*_SHELL.split(), "enable", "--now", f"{mark}.timer"])


def remove(mark: str) -> None:
    """Stop the timer and delete the units."""
    if any(path.is_file() for path in _files(mark)):
        _ask("disable", "--now", f"{mark}.timer")
        for path in _files(mark):
            path.unlink(missing_ok=True)
        _ask("daemon-reload")


def removal(mark: str) -> str:
    """The same in shell."""
    paths = " ".join(entries.quoted(path) for path in _files(mark))
    return f"{_SHELL} disable --now {mark}.timer; rm -f {paths}; {_SHELL} daemon-reload"


def _files(mark: str) -> tuple[Path, Path]:
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    units = home / "systemd" / "user"
    return units / f"{mark}.service", units / f"{mark}.timer"


def _unit_word(text: str) -> str:
    r"""One word of a unit's command line, in which \ " % and $ mean something.

    >>> print(_unit_word('echo "$l" 5%'))
    "echo \"$$l\" 5%%"
    """
    for mark in ("\\", '"'):
        text = text.replace(mark, f"\\{mark}")
    return f'"{text.replace("%", "%%").replace("$", "$$")}"'


def _ask(*words: str) -> subprocess.CompletedProcess:
    return entries.call([*_SHELL.split(), *words])
