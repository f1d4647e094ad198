"""The real notebooks, executed by the command, and signals to its processes at any moment."""

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import judge
import psutil
import reading

from lib import local_api, runs

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
TARGETS = ("runner", "kernel", "group")
KEY = "sk-canary-notebooks0123456789abcdef01234"
MOST_SECONDS = 900  # what lives so long is not coming back
LONGEST_ORPHAN_SECONDS = 30  # a kernel without its runner ends by itself


@dataclasses.dataclass(frozen=True)
class Bench:
    """A study, the folder of its runs, and the service that they find there."""

    study: Path
    outputs: Path
    endpoint: dict

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the commands."""
        own = {"VOTEBOOK_OUTPUTS": str(self.outputs), "OPENAI_API_KEY": KEY}
        return {**os.environ, **own, "PYTHONPATH": str(runs.ROOT)}

    def start(self, crash=""):
        """Begin the command, in a group of processes of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "lib", "run", str(self.study)],
            cwd=runs.ROOT,
            env={**self.environment, "VOTEBOOK_CRASH": crash},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self):
        """The run of the study."""
        folder = self.outputs / self.study.name
        study = runs.studies.thaw(folder / "study.lock.yml")
        return runs.Run(self.study.name, folder, study)


@contextlib.contextmanager
def bench(study, outputs):
    """A bench with a quick service."""
    stages = ("--validating=0", "--in-progress=0", "--finalizing=0", "--cancelling=0")
    endpoint = local_api.start(outputs / ".local_api", idle_exit_seconds=3600, options=stages)
    try:
        yield Bench(study, outputs, endpoint)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(endpoint["pid"], signal.SIGTERM)


def ended(process):
    """How a command ended, in the words of `judge`."""
    said, _ = process.communicate(timeout=MOST_SECONDS)
    return {"code": process.returncode, "said": said, "passed": [], "cpu_seconds": 0.0}


def disturbed(at, number, what, target, moment):
    """Start the command and signal it after so many seconds; gives how it ended."""
    process = at.start()
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        send(process, what, target)
    end = ended(process)
    return {**end, "number": number}


def send(process, what, target):
    """Send a signal to the runner, to its kernel, or to both and all that belongs to them."""
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        if target == "group":
            os.killpg(process.pid, what)
        elif target == "runner":
            process.send_signal(what)
        else:
            for child in psutil.Process(process.pid).children():
                if "ipykernel" in " ".join(child.cmdline()):
                    child.send_signal(what)


def finished(at):
    """The command again, until no kernel that outlives its runner holds the run."""
    began_at = time.monotonic()
    while True:
        end = ended(at.start())
        is_late = time.monotonic() - began_at > LONGEST_ORPHAN_SECONDS + MOST_SECONDS
        if end["code"] != judge.BUSY or is_late:
            return end
        time.sleep(1)


def violations(at, before, results):
    """What was broken, after the command has finished."""
    run = at.run()
    seen = judge.since(before, at.endpoint)
    # The command tells of what is open alone: the last report of a run that is done is silence.
    case = judge.Case(run, seen, [], results=results, secrets=(KEY, at.endpoint["token"]))
    found = judge.violations(case)
    broken = [reading.fault_in(path) for path in run.folder.rglob("*") if reading.is_final(path)]
    return [*found, *(judge.Violation("I5", one) for one in broken if one)]


def moments(n, seed, longest_seconds):
    """So many moments, with every signal and every target in turn."""
    chance = random.Random(seed)
    pairs = [(what, target) for what in SIGNALS for target in TARGETS]
    return [(*pairs[i % len(pairs)], chance.uniform(1, longest_seconds)) for i in range(n)]
