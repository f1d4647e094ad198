"""50,000 requests of about 95 MB through the local Batch API: seconds per stage, and memory.

    python -m benchmarks.local_api_50000

The requests are those of a study: instructions, a document of about 250 words, a strict schema.
Memory is that of the service and all its workers together: PSS counts what processes share once,
RSS counts it for each of them.
"""

import argparse
import contextlib
import itertools
import json
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks import service

POLL_SECONDS, WATCH_SECONDS = 0.05, 0.2
STAGES = ("--validating=0", "--in-progress=0", "--finalizing=0")
SCHEMA = {
    "type": "object",
    "properties": {
        "relevant": {"type": "string", "enum": ["yes", "no"]},
        "severity": {"type": "string", "enum": ["none", "mild", "severe"]},
        "assurance": {"type": "boolean"},
    },
    "required": ["relevant", "severity", "assurance"],
    "additionalProperties": False,
}
TEXT = (
    "the soup was cold and my friend had an allergic reaction to peanuts in it. staff were kind,"
    " but did not know what was inside! never again she said; we asked for a menu without nuts and"
    " they brought it. great service"
)


def main() -> None:
    """Measure once and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--lines", type=int, default=50_000, help="number of requests (50000)")
    n_lines = parser.parse_args().lines
    with tempfile.TemporaryDirectory(prefix="vb-") as folder:
        requests, answers = Path(folder, "requests.jsonl"), Path(folder, "answers.jsonl")
        write_requests(requests, n_lines)
        print(f"{n_lines:,} requests, {requests.stat().st_size / 1e6:.1f} MB")
        with service.running(Path(folder, "state"), STAGES) as endpoint:
            time.sleep(1)  # until the workers are there, which start when the service is ready
            with watched(endpoint["pid"]) as peaks:
                seconds = measured(endpoint, requests, answers)
        check(answers, n_lines)
        print(f"answers: {answers.stat().st_size / 1e6:.1f} MB, {n_lines:,} different custom_ids")
    for stage, taken in seconds.items():
        print(f"{stage:<12}{taken:8.2f} s")
    print(f"{'total':<12}{sum(seconds.values()):8.2f} s")
    for kind, n_bytes in peaks.items():
        print(f"peak {kind:<7}{n_bytes / 1e6:8.0f} MB")


def write_requests(path: Path, n_lines: int) -> None:
    """Requests about documents made of few common and many rare words."""
    source = random.Random(1)
    rare = [f"w{n:05d}" for n in range(3_000)]
    answer = {"name": "answer", "strict": True, "schema": SCHEMA}
    with path.open("w", encoding="utf-8") as sink:
        for n in range(n_lines):
            text = " ".join(source.choices(TEXT.split(), k=230) + source.choices(rare, k=15))
            messages = [
                {"role": "system", "content": "Label the review."},
                {"role": "user", "content": f"<<<DOCUMENT>>>\n{text}\n<<<END DOCUMENT>>>"},
            ]
            body = {
                "model": "gpt-6-luna",
                "messages": messages,
                "response_format": {"type": "json_schema", "json_schema": answer},
                "max_completion_tokens": 4_000,
            }
            line = {"custom_id": f"r{n}-a0", "method": "POST", "url": service.CHAT, "body": body}
            sink.write(json.dumps(line) + "\n")


def measured(endpoint: dict, requests: Path, answers: Path) -> dict[str, float]:
    """Seconds that each stage took, as a client sees it."""
    marks = [("", time.perf_counter())]
    file_id = service.upload(endpoint, requests)
    marks.append(("taken in", time.perf_counter()))
    batch = service.create(endpoint, file_id)
    names = {"validating": "validated", "in_progress": "answered", "finalizing": "written"}
    while batch["status"] not in service.ENDED:
        time.sleep(POLL_SECONDS)
        before, batch = batch, service.batch(endpoint, batch["id"])
        if batch["status"] != before["status"]:
            marks.append((names[before["status"]], time.perf_counter()))
    if batch["status"] != "completed" or batch["error_file_id"]:
        raise SystemExit(f"The batch is {batch['status']}: {batch['errors']}")
    service.download(endpoint, batch["output_file_id"], answers)
    marks.append(("returned", time.perf_counter()))
    return {now[0]: now[1] - last[1] for last, now in itertools.pairwise(marks)}


@contextlib.contextmanager
def watched(pid: int) -> Iterator[dict[str, int]]:
    """The highest memory of a process and its descendants while the block runs, in bytes."""
    peaks, done = {"PSS": 0, "RSS": 0}, threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_SECONDS):
            facts = list(_memory(pid))
            peaks["PSS"] = max(peaks["PSS"], sum(getattr(one, "pss", 0) for one in facts))
            peaks["RSS"] = max(peaks["RSS"], sum(one.rss for one in facts))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def _memory(pid: int) -> Iterator[tuple]:
    """The memory of each process of the service; one that has just left is passed over."""
    process = psutil.Process(pid)
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield one.memory_full_info()


def check(answers: Path, n_lines: int) -> None:
    """Stop unless each request has one answer."""
    with answers.open("rb") as lines:
        ids = [json.loads(line)["custom_id"] for line in lines]
    if sorted(ids) != sorted(f"r{n}-a0" for n in range(n_lines)):
        raise SystemExit(f"{len(ids):,} answers, {len(set(ids)):,} different custom_ids")


if __name__ == "__main__":
    main()
