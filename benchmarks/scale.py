"""1,250,000 requests in 32 batches: what a step costs with nothing to do, and collecting.

    python -m benchmarks.scale

A study with synthetic documents is sent to a local Batch API by the loop itself. Each step that is
measured is a process of its own: its wall time, its CPU time, and the most memory that it held. The
service's work is not in these figures: the step that collects begins when all batches have ended.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pandas as pd
import yaml

from benchmarks import service
from lib import accounts, dispatch, prompts, runs
from lib.service import Service

STAGES = ("--validating=0", "--in-progress=0", "--finalizing=0")
CANARY, POLL_SECONDS, CHUNK = 20, 0.2, 50_000
# What a process of a step does: it loads what a step needs and nothing else. Linux alone tells a
# process's own peak of memory apart from that of the one that started it.
STEP = """
import json, pathlib, sys, time
import openai
from lib import (batches, dispatch, ledger, runs)
from lib.service import Service

what, study, endpoint = json.loads(sys.argv[1])
client = openai.OpenAI(base_url=endpoint["base_url"], api_key=endpoint["token"], timeout=600)
to = Service("local", client, free=True, grace_seconds=1, poll_seconds=1)
run, began_at = runs.open_run(study), time.process_time()
if what == "collect":
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        said = f"{len(batches.ended(run, book, to))} batches collected"
else:
    said = str(dispatch.advance(run, to, 0.0))
status = pathlib.Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0], time.process_time() - began_at, said)
"""
WORDS = (
    "soup cold friend allergic reaction peanuts staff kind know inside never again menu nuts great"
    " service waiter table late sauce asked told careful kitchen separate fries egg milk happy"
)
STUDY = {
    "title": "Guests with allergies",
    "question": "How do guests with allergies fare?",
    "corpus": {"reviews": {"path": "*.txt"}},
    "fields": {
        "relevant": {"description": "Whether the review speaks of an allergy.", "type": "boolean"},
        "severity": {
            "description": "How severe the reaction was.",
            "type": "category",
            "values": {name: {"description": name} for name in ("none", "mild", "severe")},
        },
        "reason": {"description": "Why, in a sentence.", "type": "text"},
    },
    "panel": "one",
    "panels": {"one": {"annotators": {"luna": {"model": "gpt-6-luna"}}}},
}


def main() -> None:
    """Measure once and print a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=1_250_000)
    parser.add_argument("--batches", type=int, default=32)
    parser.add_argument("--words", type=int, default=40, help="words in a document")
    parser.add_argument("--folder", type=Path, help="where to work and to leave everything")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="vb-"))
        )
        os.environ["VOTEBOOK_OUTPUTS"] = str(folder / "outputs")
        run = build(folder / "guests", given.requests, given.batches, given.words)
        measure(run, stack.enter_context(service.running(folder / "state", STAGES)))


def build(folder: Path, n_requests: int, n_batches: int, n_words: int) -> runs.Run:
    """A run of a study with so many documents, each asked about once."""
    largest = -(-(n_requests - CANARY) // max(1, n_batches - 1))
    folder.mkdir(parents=True)
    sending = {"sending": {"canary": CANARY, "max_requests": largest, "tier": 5}}
    (folder / "study.yml").write_text(yaml.safe_dump({**STUDY, **sending}), encoding="utf-8")
    (folder / "prompt.md").write_text("Read the review and say how the guest fared.")
    run = runs.start(str(folder))
    runs.write_stream(documents(n_requests, n_words), run.path("documents.parquet"))
    asked = prompts.requests(run.study, runs.stream(run.path("documents.parquet")))
    n_rows = runs.write_stream(asked, run.path("requests.parquet"))
    print(f"{n_rows:,} requests, {run.path('requests.parquet').stat().st_size / 1e6:.0f} MB")
    return run


def documents(n_documents: int, n_words: int) -> Iterator[pd.DataFrame]:
    """Documents of random words, each another one."""
    source = random.Random(1)
    words = WORDS.split()
    for first in range(0, n_documents, CHUNK):
        numbers = range(first, min(first + CHUNK, n_documents))
        texts = [f"Visit {n}: " + " ".join(source.choices(words, k=n_words)) for n in numbers]
        digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        items = [f"reviews/{n:08}.txt" for n in numbers]
        yield pd.DataFrame({"item": items, "text": texts, "sha256": digests})


def measure(run: runs.Run, endpoint: dict) -> None:
    """Take the run through its stages, and measure those that the loop pays for alone."""
    client = openai.OpenAI(base_url=endpoint["base_url"], api_key=endpoint["token"], timeout=600)
    to = Service("local", client, free=True, grace_seconds=1, poll_seconds=POLL_SECONDS)
    dispatch.canary(run, to, 0.0)
    switch(endpoint, {"stuck_in_progress": True})
    step("plan and send all", run, endpoint)
    step("nothing to do, all in flight", run, endpoint)
    switch(endpoint, {})
    wait(to)
    seconds = step("collect", run, endpoint)
    step("plan what is left", run, endpoint)
    dispatch.follow(run, to, 0.0, 1.0)
    step("nothing to do, all collected", run, endpoint)
    table = accounts.totals(run)
    n_valid = int(table["valid"].sum())
    print(f"{n_valid:,} valid of {int(table['n_requests'].sum()):,}; the totals close")
    print(f"{n_valid / seconds:,.0f} answers collected in a CPU second")


def step(what: str, run: runs.Run, endpoint: dict) -> float:
    """Take one step in a process of its own and print what it took; gives the step's CPU seconds.

    CPU seconds are those of the step alone, wall time is that of the whole process.
    """
    asked, began_at = json.dumps([what, run.study.folder, endpoint]), time.perf_counter()
    command = [sys.executable, "-c", STEP, asked]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds = time.perf_counter() - began_at
    peak, cpu_seconds, state = said.strip().split(" ", 2)
    peak_mb, cpu_seconds = int(peak) / 1e3, float(cpu_seconds)
    print(
        f"{what:<30}{seconds:7.2f} s{cpu_seconds:8.2f} CPU s{peak_mb:7.0f} MB  {state}", flush=True
    )
    return cpu_seconds


def switch(endpoint: dict, faults: dict) -> None:
    """Let the service have these faults and no others."""
    url = endpoint["base_url"].removesuffix("/v1") + "/votebook/faults"
    headers = {"Authorization": f"Bearer {endpoint['token']}", "Content-Type": "application/json"}
    body = json.dumps({"faults": faults}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, headers, method="PUT")):
        return


def wait(to: Service) -> None:
    """Wait until no batch is under way."""
    began_at = time.perf_counter()
    while any(batch.status not in service.ENDED for batch in to.client.batches.list(limit=100)):
        time.sleep(POLL_SECONDS)
    print(f"the service took {time.perf_counter() - began_at:.0f} s more to answer")


if __name__ == "__main__":
    main()
