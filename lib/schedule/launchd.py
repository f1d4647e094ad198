"""launchd: an entry is an agent of the user, a property list in ~/Library/LaunchAgents."""

import os
import plistlib
import shutil
import subprocess
from pathlib import Path

from lib import runs
from lib.schedule import cron
from lib.schedule import entry as entries
from lib.schedule.entry import Entry

environment = cron.environment  # an agent's is as bare as that of cron


def works() -> bool:
    """Whether the user is logged in, so that there is somebody to run agents."""
    return bool(shutil.which("launchctl")) and not _ask("print", _domain()).returncode


def held(mark: str) -> list[str]:
    """The agent, if it is there and loaded."""
    path = _file(mark)
    if not path.is_file() or _ask("print", f"{_domain()}/{mark}").returncode:
        return []
    return [plistlib.loads(path.read_bytes())["ProgramArguments"][-1]]


def add(entry: Entry) -> None:
    """Write the property list and load it."""
    mark = entries.mark(entry.folder)
    agent = {
        "Label": mark,
        "ProgramArguments": ["/bin/sh", "-c", entries.line(entry, removal(mark))],
        "StartInterval": 60 * entry.every_minutes,
        "RunAtLoad": True,
        "ProcessType": "Background",
        "AbandonProcessGroup": True,
    }
    with runs.replacing(_file(mark)) as part:
        part.write_bytes(plistlib.dumps(agent))
    entries.must(["launchctl", "bootstrap", _domain(), _file(mark)])


def remove(mark: str) -> None:
    """Delete the property list, then unload the agent; that ends a process which it started."""
    if _file(mark).is_file():
        _file(mark).unlink()
        _ask("bootout", f"{_domain()}/{mark}")


def removal(mark: str) -> str:
    """The same in shell."""
    return f"rm -f {entries.quoted(_file(mark))}; launchctl bootout {_domain()}/{mark}"


def _file(mark: str) -> Path:
    return Path("~/Library/LaunchAgents").expanduser() / f"{mark}.plist"


def _domain() -> str:
    return f"gui/{os.getuid()}"


def _ask(*words: str) -> subprocess.CompletedProcess:
    return entries.call(["launchctl", *words])
