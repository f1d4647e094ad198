"""Runs that are disturbed: a service of their own, a process that does their commands, the judge.

A run is copied from a prepared one, so that only what is disturbed costs time. Everything lies in
memory where the system has a place for that, since each sync counts.
"""

import atexit
import contextlib
import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

import judge
import pytest
import sending

from lib import local_api, runs
from lib.runs import Run

if not hasattr(os, "fork"):
    pytest.skip("needs fork", allow_module_level=True)

HERE = Path(__file__).resolve().parent
KILLED = -signal.SIGKILL
STAGES = ("--validating=0", "--in-progress=0", "--finalizing=0", "--cancelling=0", "--tier=5")
SPEED = 300
RUNS_OF_A_SERVICE = 30  # then a new one: listings and book grow, and every look reads them
SECRET = "sk-canary-kills0123456789abcdef0123456789"
LUNA = {"model": "gpt-6-luna", "parameters": {"reasoning_effort": "none"}}
TERRA = {"model": "gpt-6.1-terra", "parameters": {"reasoning_effort": "none"}}
SOL = {"model": "gpt-6-sol", "parameters": {"reasoning_effort": "none"}}
SMALL = {**LUNA, "parameters": {"reasoning_effort": "none", "max_output_tokens": 4}}
TWELVE = [f"The soup of day {n} was warm and the waiter kind." for n in range(12)]
ENVIRONMENT = threading.Lock()  # one environment for all places of this process
CALM, KNOWN = threading.Lock(), {}  # runs that nothing disturbed end alike in all places
# Studies in which everything happens: by name, what `sending.make_run` is told.
SHAPES = {
    "one shard": {"canary": 6},
    "canary": {"canary": 2},
    "small shards": {"canary": 2, "max_requests": 3, "texts": TWELVE},
    "two models": {"canary": 2, "annotators": {"luna": {**LUNA, "repeats": 2}, "terra": TERRA}},
    "larger caps": {"canary": 3, "max_failure_share": 1.0, "annotators": {"luna": SMALL}},
    "brake": {"canary": 2, "max_requests": 5, "texts": TWELVE, "brake": "cancel"},
    "fallback": {
        "canary": 2,
        "max_failure_share": 1.0,
        "annotators": {"luna": {**LUNA, "fallback": ["gpt-6.1-terra"]}},
    },
    "decisive": {
        "canary": 2,
        "annotators": {"luna": LUNA, "terra": TERRA, "sol": SOL},
        "voting": {"ask": "decisive", "pilot": 2},
    },
}


@dataclasses.dataclass
class Place:
    """Where runs are disturbed: a folder, the process that does commands, and the service."""

    folder: Path
    driver: subprocess.Popen
    endpoint: dict
    n_runs: int = 0

    def ask(self, *commands):
        """Do commands side by side; gives how each ended."""
        own = [{"service": self.endpoint, "outputs": "", "study": "", **one} for one in commands]
        self.driver.stdin.write(json.dumps(own) + "\n")
        self.driver.stdin.flush()
        return json.loads(self.driver.stdout.readline())

    def renew(self):
        """Begin with a new service, as the lists of the old one have grown long."""
        stop(self.endpoint)
        self.endpoint = start(self.folder / f"service{self.n_runs}")

    def copy(self, shape):
        """A new run of this shape, as notebooks 01 and 02 leave it."""
        if self.n_runs and self.n_runs % RUNS_OF_A_SERVICE == 0:
            self.renew()
        self.n_runs += 1
        made = prepared(shape)
        outputs = self.folder / f"run{self.n_runs}"
        shutil.copytree(made / "outputs", outputs)
        study = runs.studies.thaw(outputs / "guests" / "study.lock.yml")
        return Run("guests", outputs / "guests", study)

    def command(self, run, do="follow", **more):
        """What is asked for to work on a run."""
        study = Path(run.study.folder)
        return {"do": do, "outputs": str(run.folder.parent), "study": str(study), **more}


@functools.cache
def prepared_folder():
    """Where the prepared runs of this process lie, until it ends."""
    folder = Path(tempfile.mkdtemp(prefix="vb-shapes-", dir=memory()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def memory():
    """A folder in memory, where the system has one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def prepared(shape):
    """A run of this shape as notebooks 01 and 02 leave it, to be copied."""
    made = prepared_folder() / shape
    with ENVIRONMENT:
        if not made.is_dir():
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("VOTEBOOK_OUTPUTS", str(made / "outputs"))
                sending.make_run(made / "guests", **SHAPES[shape])
    return made


def start(folder):
    """A quick service, at the speed at which commands live."""
    return local_api.start(folder, speed=SPEED, idle_exit_seconds=3600 * SPEED, options=STAGES)


def stop(endpoint):
    """End a service."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(endpoint["pid"], signal.SIGTERM)


@contextlib.contextmanager
def place(before=()):
    """A place for runs, and all that goes with it; nothing of it stays.

    `before` is a command that begins the process which does commands, such as one that gives it
    file systems of its own; {folder} in it is the place's folder.
    """
    folder = Path(tempfile.mkdtemp(prefix="vb-", dir=memory()))
    paths = [HERE.parent.parent, HERE.parent, HERE]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "OPENAI_API_KEY": SECRET,
        "VOTEBOOK_OUTPUTS": str(folder),
    }
    before = [word.format(folder=folder) for word in before]
    driver = subprocess.Popen(
        [*before, sys.executable, str(HERE / "stepping.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    made = Place(folder, driver, start(folder / "service0"))
    try:
        with driver:
            yield made
            driver.stdin.close()
    finally:
        stop(made.endpoint)
        shutil.rmtree(folder, ignore_errors=True)


def spread(places, jobs, work):
    """Do `work(place, job)` for all jobs, one at a time in each place; gives what came of each."""
    waiting = SimpleQueue()
    for job in jobs:
        waiting.put(job)

    def lane(at):
        done = []
        while True:
            try:
                done.append(work(at, waiting.get_nowait()))
            except Empty:
                return done

    with ThreadPoolExecutor(len(places)) as pool:
        return [one for part in pool.map(lane, places) for one in part]


class Calm(NamedTuple):
    """A run that nothing disturbed: its results, and how long its command took."""

    results: dict
    seconds: float


def calm(at, shape, do="follow"):
    """A run of this shape that nothing disturbed, once in this process."""
    with CALM:
        if (shape, do) not in KNOWN:
            run = at.copy(shape)
            (end,) = at.ask(at.command(run, do))
            assert end["code"] == 0, end["said"]
            KNOWN[shape, do] = Calm(judge.results(run), end["seconds"])
        return KNOWN[shape, do]


def undisturbed(at, shape):
    """The results of a run of this shape that nothing disturbed."""
    return calm(at, shape).results


def judged(at, run, before, ends, **more):
    """The violations of a run whose commands have ended."""
    seen, secrets = judge.since(before, at.endpoint), (SECRET, at.endpoint["token"])
    excused = frozenset(batch for batch in seen.batches if judge.is_double(run, batch))
    case = judge.Case(run, seen, ends, secrets=secrets, excused=excused, **more)
    return judge.violations(case)


def judged_again(at, run, before, ends, **more):
    """The violations after the same command once more: a run that was done pays for nothing."""
    middle, is_done = judge.look(at.endpoint), ends[-1]["code"] == judge.DONE
    ends = [*ends, *at.ask(at.command(run))]
    again = judge.since(middle, at.endpoint) if is_done else None
    return judged(at, run, before, ends, again=again, **more)
