"""Runs that are disturbed: a service of their own, a process that does their commands, the judge.

A run is copied from a prepared one, so that only what is disturbed costs time. Everything lies in
memory where the system has a place for that, since each sync counts.
"""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

import judge
import naive
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
SMALL = {**LUNA, "parameters": {"reasoning_effort": "none", "max_output_tokens": 4}}
TWELVE = [f"The soup of day {n} was warm and the waiter kind." for n in range(12)]
ENVIRONMENT = threading.Lock()  # one environment for all places of this process
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
}


@dataclasses.dataclass
class Place:
    """Where runs are disturbed: a folder, the process that does commands, and the service."""

    folder: Path
    driver: subprocess.Popen
    endpoint: dict
    n_runs: int = 0
    undisturbed: dict = dataclasses.field(default_factory=dict)

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
        made = self.folder / "shapes" / shape
        if not made.is_dir():
            with ENVIRONMENT, pytest.MonkeyPatch.context() as patch:
                patch.setenv("VOTEBOOK_OUTPUTS", str(made / "outputs"))
                sending.make_run(made / "guests", **SHAPES[shape])
        outputs = self.folder / f"run{self.n_runs}"
        shutil.copytree(made / "outputs", outputs)
        study = runs.studies.thaw(outputs / "guests" / "study.lock.yml")
        return Run("guests", outputs / "guests", study)

    def command(self, run, do="follow", **more):
        """What is asked for to work on a run."""
        study = Path(run.study.folder)
        return {"do": do, "outputs": str(run.folder.parent), "study": str(study), **more}


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
    memory = "/dev/shm"
    folder = Path(
        tempfile.mkdtemp(prefix="vb-", dir=memory if os.access(memory, os.W_OK) else None)
    )
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


def undisturbed(at, shape):
    """The results of a run of this shape that nothing disturbed."""
    if shape not in at.undisturbed:
        run = at.copy(shape)
        (end,) = at.ask(at.command(run))
        assert end["code"] == 0, end["said"]
        at.undisturbed[shape] = judge.results(run)
    return at.undisturbed[shape]


def judged(at, run, before, ends, **more):
    """The violations of a run whose commands have ended."""
    seen, secrets = judge.since(before, at.endpoint), (SECRET, at.endpoint["token"])
    excused = frozenset(batch for batch in seen.batches if judge.is_double(run, batch))
    case = judge.Case(run, seen, ends, secrets=secrets, excused=excused, **more)
    return judge.violations(case)


def judged_again(at, run, before, ends, **more):
    """The violations after the same command once more, which must not pay for anything."""
    middle = judge.look(at.endpoint)
    more_ends = at.ask(at.command(run))
    return judged(
        at, run, before, [*ends, *more_ends], again=judge.since(middle, at.endpoint), **more
    )


# Faults of the service that may strike while commands are killed, with options; seconds are those
# of the service. Each strikes a few times: the same command must end well without any help.
ONCE, FEW = {"count": 1}, {"count": 2}
SOME = {"probability": 0.4, "count": 4}
FAULTS = {
    **dict.fromkeys(["connection_dropped", "error_500_before", "html_502", "html_503"], SOME),
    **dict.fromkeys(["html_504", "rate_limited", "rate_limited_silently", "conflict"], SOME),
    **dict.fromkeys(["error_500_after", "answer_cut", "answer_shortened"], SOME),
    **dict.fromkeys(["answer_in_html", "answer_without_id", "answer_with_empty_id"], SOME),
    **dict.fromkeys(["unknown_status", "file_ids_empty", "created_early"], SOME),
    **dict.fromkeys(["status_backwards", "counts_backwards", "counts_wrong"], SOME),
    **dict.fromkeys(["upload_answer_lost", "create_answer_lost", "not_ours"], FEW),
    **dict.fromkeys(["content_cut", "content_short", "content_gone", "content_502"], FEW),
    **dict.fromkeys(["queue_full", "file_not_found", "expires_early", "cancels_itself"], FEW),
    **dict.fromkeys(["lines_doubled", "lines_in_both", "lines_foreign"], FEW),
    **dict.fromkeys(["lines_status_0", "lines_429", "lines_500", "lines_null_content"], FEW),
    "lines_contradict": {"probability": 0.3, "count": 6},
    **dict.fromkeys(["lines_missing", "lines_no_credit"], ONCE),
    "service_down": {"count": 2, "seconds": 0.2},
    "request_hangs": {"count": 1, "seconds": 0.3},
    "rate_limited_until_date": FEW,
    "hidden_after_create": {"seconds": 60},
    "list_lags": {"seconds": 90},
    "list_repeats": True,
    "queue_limit": {"tokens": 600},
    "fails_validation": {"count": 1, "lines": 1},
    **dict.fromkeys(["stuck_validating", "stuck_in_progress", "stuck_finalizing"], ONCE),
}
FAULTY_SHARE = 0.7
MAX_USD = 1.0  # of simulated money: half of the runs believe that it is real
MAX_KILLS, MAX_CALM = 12, 8
CALM = {"kill_after": 8.0}  # what hangs so long is not coming back
LONGEST_LIFE = 0.25  # seconds; a run that nobody kills takes about twice as long


@dataclasses.dataclass(frozen=True)
class Disturbed:
    """What became of a run that was killed at random."""

    seed: str
    shape: str
    fault: str
    ends: list[dict]
    violations: list[judge.Violation]
    n_requests: int
    n_valid: int

    @property
    def n_kills(self) -> int:
        """How often its command was killed."""
        return sum(end["code"] == KILLED for end in self.ends)

    def __str__(self) -> str:
        """All that is needed to do it again."""
        codes = [end["code"] for end in self.ends]
        return f"seed {self.seed}, {self.shape}, {self.fault or 'no fault'}, {codes}"


def disturb(at, seed):
    """A run of a shape and with a fault that the seed decides, killed at random until it is done.

    The command is the same all the while. After some kills it is left alone; when it does not
    finish then, the cause is taken away: the fault is switched off.
    """
    chance = random.Random(seed)
    shape = chance.choice(list(SHAPES))
    fault = chance.choice(list(FAULTS)) if chance.random() < FAULTY_SHARE else ""
    max_usd = chance.choice([0.0, MAX_USD])
    results = undisturbed(at, shape)
    run = at.copy(shape)
    before = judge.look(at.endpoint)
    if fault:
        judge.switch(at.endpoint, chance.randrange(1 << 30), **{fault: FAULTS[fault]})
    with judge.Reader(run.folder) as reader:
        ends = _kill_until_done(at, at.command(run, hours=0.2, max_usd=max_usd), chance)
    judge.switch(at.endpoint)
    more = {"results": results, "readings": reader.readings, "max_usd": MAX_USD}
    found = judged_again(at, run, before, ends, **more)
    outcomes = judge.read_outcomes(run)
    n_valid = outcomes.loc[outcomes["outcome"].eq("valid"), "key"].nunique()
    n_requests = run.table("requests")["key"].nunique()
    shutil.rmtree(run.folder.parent)
    return Disturbed(seed, shape, fault, ends, found, n_requests, n_valid)


def _kill_until_done(at, command, chance):
    """The ends of one command, given again and again until it is done."""
    ends = []
    while len(ends) < MAX_KILLS + MAX_CALM:
        is_killed = len(ends) < MAX_KILLS
        if len(ends) > MAX_KILLS:
            judge.switch(at.endpoint)
        more = {"kill_after": chance.uniform(0.0, LONGEST_LIFE)} if is_killed else CALM
        ends += at.ask({**command, **more})
        if ends[-1]["code"] == 0:
            break
    return ends


def disturb_often(places, seed, n_kills, work=disturb):
    """Runs, disturbed until there were at least so many kills in all."""
    found = []
    while (n_left := n_kills - sum(one.n_kills for one in found)) > 0:
        n_runs = max(len(places), n_left // MAX_KILLS)
        seeds = [f"{seed} {len(found) + n}" for n in range(n_runs)]
        found += spread(places, seeds, work)
    return found


def disturb_naive(at, seed):
    """The same for the naive client: kills, faults, and the same command until it is done."""
    chance = random.Random(seed)
    fault = chance.choice(list(FAULTS)) if chance.random() < FAULTY_SHARE else ""
    run = at.copy("small shards")
    before = judge.look(at.endpoint)
    if fault:
        judge.switch(at.endpoint, chance.randrange(1 << 30), **{fault: FAULTS[fault]})
    ends = _kill_until_done(at, at.command(run, "naive"), chance)
    judge.switch(at.endpoint)
    found = judged_naively(at, run, before)
    n_requests, n_rows = run.table("requests")["key"].nunique(), len(set(naive.results(run)))
    shutil.rmtree(run.folder.parent)
    return Disturbed(seed, "naive", fault, ends, found, n_requests, n_rows)


def judged_naively(at, run, before):
    """The violations that can be found without a ledger: paid twice, lost, doubled, orphans."""
    seen, rows = judge.since(before, at.endpoint), naive.results(run)
    known = {one[kind] for one in naive.read(run).values() for kind in ("file", "batch")}
    gone = set(judge.answers(seen)) - set(rows)
    lost = [judge.Violation("I2", f"paid and lost: {gone}", "lost", len(gone))] if gone else []
    twice, doubled = judge.paid_twice(seen), judge.doubled(rows)
    return [*twice, *lost, *doubled, *judge.orphans(seen, known)]
