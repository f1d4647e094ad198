"""Starting the service in the background, once for each state folder.

It decides whether a live service is already there, by asking it. It never ends one.
"""

import contextlib
import http.client
import json
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from lib import errors

ENDPOINT = "endpoint.json"
LOG = "service.log"
PAUSE_SECONDS, START_SECONDS = 0.05, 30.0
EXIT_BUSY = 75


def start(
    state: Path,
    *,
    speed: float = 1.0,
    tier: int = 1,
    idle_exit_seconds: float = 900.0,
    options: Sequence[str] = (),
) -> dict:
    """The endpoint (`base_url`, `token`, `pid`) of a service on this state folder.

    A service that answers is left as it is, whatever its settings; otherwise one is started,
    detached, with these settings and further command-line options; it leaves by itself when idle,
    so that this function is to be called before each use and not once for all. Safe to be called by
    several processes at once. Raises ServiceError when no service is ready in time.
    """
    import filelock

    state = Path(state).resolve()
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    if endpoint := live(state):
        return endpoint
    with filelock.FileLock(state / "start.lock", timeout=START_SECONDS):
        if endpoint := live(state):
            return endpoint
        numbers = {"speed": speed, "tier": tier, "idle-exit": idle_exit_seconds}
        arguments = [f"--{name}={value}" for name, value in numbers.items()]
        return _started(state, [*arguments, *options])


def live(state: Path) -> dict | None:
    """The endpoint of the service on a state folder, if one answers."""
    try:
        endpoint = json.loads((Path(state) / ENDPOINT).read_text())
        address = urllib.parse.urlsplit(endpoint["base_url"])
        asked = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
        headers = {"Authorization": f"Bearer {endpoint['token']}"}
        with contextlib.closing(asked) as connection:
            connection.request("GET", f"{address.path}/models", headers=headers)
            status = connection.getresponse().status
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return None
    return endpoint if status == 200 else None


def _spawn(state: Path, arguments: Sequence[str]) -> subprocess.Popen:
    """A detached service; what it reports goes to a log, where its token never is."""
    with (state / LOG).open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "lib.local_api", f"--state={state}", *arguments],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )


def _started(state: Path, arguments: Sequence[str]) -> dict:
    """Start a service and wait for its endpoint; again, while another is leaving the folder."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        process = _spawn(state, arguments)
        while process.poll() is None and time.monotonic() < until:
            if endpoint := live(state):
                # The service outlives this object, which would warn about that when it is dropped.
                process.returncode = 0
                return endpoint
            time.sleep(PAUSE_SECONDS)
        if endpoint := live(state):
            return endpoint
        if process.returncode != EXIT_BUSY:
            break
        time.sleep(PAUSE_SECONDS)
    last = (state / LOG).read_text(errors="replace").strip().splitlines()[-1:]
    what = f"the local service did not start on {state}"
    why = f": {last[0]}" if last else "."
    raise errors.ServiceError(f"{what}{why} See {state / LOG}.", code="not_started")
