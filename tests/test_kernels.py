"""Processes for notebooks: they end with their notebook, with their block, and with the runner."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from test_pipeline import notebook

from lib import kernels, runs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="asks and ends by signals")


def is_there(pid):
    """Whether a process works; one that has ended and that nobody has asked about does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_gone_soon(pid):
    """Whether a process ends by itself within a minute."""
    ends_at = time.monotonic() + 60
    while is_there(pid) and time.monotonic() < ends_at:
        time.sleep(0.05)
    return not is_there(pid)


def test_a_process_that_gets_no_notebook_ends_with_its_block():
    """A run that stops has begun the process of the next notebook."""
    with kernels.process() as waiting:
        pid = waiting.provisioner.pid
        assert is_there(pid)
    assert not is_there(pid)


def test_a_process_ends_with_its_notebook_and_does_what_is_due_at_its_end(tmp_path):
    """What libraries have registered for the end of a process, to delete their files, is called."""
    due = tmp_path / "due"
    said = f"import atexit, pathlib\natexit.register(pathlib.Path({str(due)!r}).touch)"
    source = notebook(tmp_path / "one.ipynb", said)
    with kernels.process() as working:
        pid = working.provisioner.pid
        kernels.execute(source, tmp_path / "done.ipynb", {}, working)
        assert not is_there(pid)
    assert due.exists()
    assert (tmp_path / "done.ipynb").is_file()


def test_a_process_ends_when_its_runner_is_killed():
    """Also one that was only beginning to start."""
    code = "import time\nfrom lib import kernels\nwith kernels.process() as waiting:\n"
    code += "    print(waiting.provisioner.pid, flush=True)\n    time.sleep(600)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=runs.ROOT, stdout=subprocess.PIPE, text=True) as runner:
        pid = int(runner.stdout.readline())
        runner.send_signal(signal.SIGKILL)
    try:
        assert is_gone_soon(pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
