"""A disk that is full after so many bytes: a clear sentence, and once there is space the same
command finishes. Nothing is paid twice or lost.

The disk is a small one of its own, in memory; where the system gives us none, a bound on the size
of files stands in for it.
"""

import contextlib
import dataclasses
import shutil
import subprocess
from pathlib import Path

import judge
import killing
import pytest

N_SIZES = 30
DISK_BYTES = 4_000_000
MOUNT = 'mount -t tmpfs -o size=%d none "$0" && exec "$@"' % DISK_BYTES  # noqa: UP031 - shell
DISKS = (
    ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT],
    ["unshare", "--mount", "sh", "-c", MOUNT],
)
SMALLEST, LARGEST = 4_096, 140_000  # a ledger is larger than the one; a run fits into the other


def disk_of_its_own(folder):
    """The command that gives a process a small disk, if this system lets us."""
    for command in DISKS:
        with contextlib.suppress(OSError):
            tried = subprocess.run([*command, folder, "true"], check=False, capture_output=True)
            if tried.returncode == 0:
                return command
    return None


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A place whose commands see a small disk, its folder, and that folder as seen from here."""
    folder = tmp_path_factory.mktemp("disk")
    command = disk_of_its_own(folder)
    with killing.place([*command, str(folder)] if command else []) as at:
        at.ask()
        seen_from_here = Path(f"/proc/{at.driver.pid}/root{folder}") if command else folder
        yield at, folder, seen_from_here, bool(command)


def fill(folder, n_free):
    """A file that leaves so many bytes free."""
    n_bytes = shutil.disk_usage(folder).free - n_free
    (folder / "filler").write_bytes(bytes(n_bytes))


def moved(run, to):
    """The same run in another folder."""
    shutil.copytree(run.folder.parent, to)
    shutil.rmtree(run.folder.parent)
    return dataclasses.replace(run, folder=to / run.name)


@pytest.mark.parametrize("n", range(N_SIZES))
def test_a_full_disk_is_said_and_recovered_from(n, small):
    """From a page to what a run needs, in 30 sizes."""
    at, folder, here, is_real = small
    n_bytes = SMALLEST + n * (LARGEST - SMALLEST) // (N_SIZES - 1)
    results = killing.undisturbed(at, "canary")
    run = moved(at.copy("canary"), here / f"run{n}")
    before = judge.look(at.endpoint)
    command = at.command(run, outputs=str(folder / f"run{n}"))
    if is_real:
        fill(here, n_bytes)
        ends = at.ask(command)
        (here / "filler").unlink()
    else:
        ends = at.ask({**command, "max_bytes": n_bytes // 2})
    first = ends[0]
    assert first["code"] in (judge.DONE, judge.STOPPED), first["said"]
    if first["code"] != judge.DONE:
        assert "un the same command again" in first["said"].splitlines()[-1]
    ends += at.ask(command)
    # SQLite does not open what lies on a disk of others.
    run = moved(run, at.folder / f"from disk {n}")
    assert killing.judged(at, run, before, ends, results=results) == []
    assert [*here.iterdir()] == []
