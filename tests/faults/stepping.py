"""A process that runs commands in forked children, so that each can be killed and costs little.

Reads a JSON array of commands a line, runs them side by side, and writes how each of them ended.
A command has `do` (a function of `WORK`), `outputs`, `study` and what that function needs; `crash`
is what VOTEBOOK_CRASH says; `kill_after` is how many seconds it lives, `signal` what ends it then,
`after` are files that must be there before it begins, `wait` how long it is held back then, `then`
a file that it makes at its end, `between` are files that must be there before its second step,
`max_bytes` is how large a file may become, and `max_files` how many it may have open.

Time runs faster for all of them, by one factor, so that the graces and pauses of a paid service
are lived through: see `fast_clock`.
"""

import functools
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
from pathlib import Path

import duckdb  # noqa: F401 - imported once here and not in each child
import naive
import openai.resources.batches
import openai.resources.files
import pyarrow.dataset
import pyarrow.pandas_compat
import pyarrow.parquet  # noqa: F401
import toktok  # noqa: F401

from lib import (
    accounts,
    aggregate,
    asking,
    clock,
    corpus,
    dispatch,
    estimate,
    exports,
    findings,
    models,
    report,
    runs,
    services,
    tables,
    tokens,
    verdicts,
    votes,
)
from lib.errors import BusyError, VotebookError
from lib.service import Service

for name in ("audit", "disks", "planning", "submit"):
    importlib.import_module(f"lib.{name}")  # loaded late elsewhere, and once for all children here

# The transport under the client, the tables of models and services and the vocabulary are loaded
# once, and not in each child.
importlib.import_module("httpcore2")
models.facts("gpt-6-luna")
services.find("local")
tokens.count(["soup"], threads=1)

DONE, STOPPED, WAITING, BUSY = 0, 2, 3, 75
SPEED = 300  # 120 seconds of grace are 0.4 here, and a pause of an hour is 12
LONGEST_SECONDS = 300.0  # what lives so long is not coming back
BEGAN_AT = time.time()


def fast_clock():
    """A clock that is right when this process starts and runs faster from then on."""
    return clock.Clock(
        wall=lambda: BEGAN_AT + (time.time() - BEGAN_AT) * SPEED,
        monotonic=lambda: time.monotonic() * SPEED,
        sleep=lambda seconds: time.sleep(seconds / SPEED),
    )


@functools.cache
def client_at(base_url, token):
    """A client that repeats nothing, so that every fault reaches the library; made before a fork,
    since reading the certificates of the system takes long, and used after it alone.
    """
    return openai.OpenAI(base_url=base_url, api_key=token, timeout=5, max_retries=0)


def service_of(asked):
    """The service as `lib.service` makes it for a paid one."""
    client = client_at(asked["service"]["base_url"], asked["service"]["token"])
    is_free = not asked.get("max_usd")
    return Service("local", client, free=is_free, grace_seconds=120, poll_seconds=15)


def follow(asked):
    """What notebooks 03 and 04 and `watch` do; gives the exit code and says where the run is."""
    run = runs.open_run(asked["study"])

    def show(progress):
        print(progress)
        wait_for(asked.get("between", ()))

    progress = dispatch.follow(
        run, service_of(asked), asked.get("max_usd", 0.0), asked.get("hours", 10.0), show
    )
    return {"done": DONE, "waiting": WAITING}.get(progress.state, STOPPED)


def wait_for(paths):
    """Wait until all of these files are there."""
    while not all(Path(path).exists() for path in paths):
        time.sleep(0.002)


def load(asked):
    """What notebook 01 does."""
    run = runs.start(asked["study"])
    corpus.load(run.study, run.folder)
    return DONE


def count_cost(asked):
    """What notebook 02 does."""
    run = runs.open_run(asked["study"])
    accounts.make_requests(run, 0)
    requests = run.table("requests")
    known = accounts.known_keys(run, requests, "local")
    priced = estimate.price_requests(requests, accounts.answer_lengths(run, requests), known)
    table = estimate.estimate(priced, run.study.annotators, run.study.sending.tier)
    runs.write_table(table, run.path("estimate.parquet"))
    return DONE


def count_votes(asked):
    """What notebooks 05 and 06 do, and the report."""
    run = runs.open_run(asked["study"])
    tables.show(run, accounts.totals(run), "Totals")
    outcomes = run.path("outcomes") / "*.parquet"
    spared = asking.spared(run)
    votes.collect(run.path("requests.parquet"), outcomes, run.study, run.folder, spared)
    aggregate.write(run)
    aggregate.write_places(run)
    aggregate.write_index(run)
    decided, documents = run.table("consensus"), run.table("documents")
    findings.write_review(run, findings.review(run, decided, run.table("entities")))
    groups, policies = findings.groups(run.study), run.study.policies
    reached = verdicts.reach(decided, documents, groups, policies, run.study.k)
    runs.write_table(reached, run.path("verdicts.parquet"))
    exports.write(run, run.path("export"), ["parquet", "csv"])
    report.write(run)
    return DONE


def look(asked):
    """What a reader does: where the run is by what is on disk, without a call or a lock."""
    run = runs.open_run(asked["study"])
    print(dispatch.status(run))
    print(accounts.by_model(run))
    return DONE


def submit_naively(asked):
    """The client that the harness is shown to fail: see `naive`."""
    return naive.work(runs.open_run(asked["study"]), asked["service"])


WORK = {
    "load": load,
    "count cost": count_cost,
    "follow": follow,
    "count votes": count_votes,
    "look": look,
    "naive": submit_naively,
}


def begin(asked, said):
    """Do a command in this process, and leave what it said in a file; gives the exit code."""
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8")
    os.environ["VOTEBOOK_OUTPUTS"] = asked["outputs"]
    os.environ["VOTEBOOK_CRASH"] = asked.get("crash", "*:0")
    if asked.get("max_bytes"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["max_bytes"], asked["max_bytes"]))
    if asked.get("max_files"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (asked["max_files"], asked["max_files"]))
    wait_for(asked.get("after", ()))
    time.sleep(asked.get("wait", 0.0))
    try:
        with clock.running(fast_clock()):
            return WORK[asked["do"]](asked)
    except VotebookError as error:
        print(f"{type(error).__name__}: {error}")
        return BUSY if isinstance(error, BusyError) else STOPPED


def fork(asked):
    """A child that does a command, and what is known of it: the file that takes what it says, when
    it began, and a pipe that ends with it."""
    said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
    service_of(asked)
    life, held = os.pipe()
    gc.freeze()  # what is there is never looked through again, and so not copied
    child = os.fork()
    if child == 0:
        gc.disable()
        code = 1
        try:
            code = begin(asked, said)
            print(json.dumps(runs.passed))
            sys.stdout.flush()
            if asked.get("then"):
                Path(asked["then"]).touch()
        except BaseException:  # noqa: BLE001 - told, and the child ends
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    os.close(held)
    return child, (asked, said, time.monotonic(), life)


def run_together(commands):
    """Fork a child for each command and wait for all; gives how each ended, in the same order."""
    children = dict(fork(asked) for asked in commands)
    ends, due = {}, {}
    for child, (asked, _, began_at, _) in children.items():
        due[child] = began_at + asked.get("kill_after", LONGEST_SECONDS)
    while len(ends) < len(children):
        lives = {children[child][3]: child for child in children if child not in ends}
        wait = min(due.values(), default=time.monotonic() + LONGEST_SECONDS) - time.monotonic()
        for life in select.select(lives, [], [], max(0.0, wait))[0]:
            child = lives[life]
            _, status, usage = os.wait4(child, 0)
            os.close(life)
            due.pop(child, None)
            ends[child] = end_of(children[child], os.waitstatus_to_exitcode(status), usage)
        for child in [one for one, at in due.items() if time.monotonic() >= at]:
            os.kill(child, children[child][0].get("signal", signal.SIGKILL))
            due[child] = time.monotonic() + 1.0  # again, should it have passed the child by
    return [ends[child] for child in children]


def end_of(child, code, usage):
    """How a child ended: code (minus the signal that did it), times, words, places it came by."""
    _, said, began_at, _ = child
    seconds = time.monotonic() - began_at
    with said:
        said.seek(0)
        lines = said.read().splitlines()
    passed = json.loads(lines.pop()) if lines and lines[-1].startswith("[") else []
    return {
        "code": code,
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "said": "\n".join(lines),
        "passed": passed,
        "memory_bytes": usage.ru_maxrss * 1024,
    }


def main():
    """Answer one line with one line until there are no more."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run_together(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
