"""The local Batch API killed ten times in the middle of 2,000 requests: each is answered once.

    python -m benchmarks.local_api_kills

SIGKILL comes at moments that a seed decides, and the service is started again at once. Every
seventh request is one that is refused, so that both result files are at stake.
"""

import argparse
import collections
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path

from benchmarks import service
from lib import local_api

STAGES = ("--validating=0.3", "--in-progress=20", "--finalizing=0.3")
STAGE_SECONDS = 20
REFUSED = 7


def main() -> None:
    """Kill, look at the answers, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--lines", type=int, default=2_000, help="number of requests (2000)")
    parser.add_argument("--kills", type=int, default=10, help="how often it is killed (10)")
    parser.add_argument("--seed", type=int, default=1, help="decides the moments (1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vb-") as folder:
        requests, state = Path(folder, "requests.jsonl"), Path(folder, "state")
        write_requests(requests, options.lines)
        with service.running(state, STAGES) as endpoint:
            batch = service.create(endpoint, service.upload(endpoint, requests))
            kill(state, endpoint, batch["id"], random.Random(options.seed), options.kills)
            while batch["status"] not in service.ENDED:
                time.sleep(0.05)
                batch = service.batch(endpoint, batch["id"])
            ids = answered(endpoint, batch, Path(folder))
        log = (state / "service.log").read_text(encoding="utf-8")
    print(f"{batch['status']}, counts {batch['request_counts']}")
    n_twice = sum(n > 1 for n in ids.values())
    print(f"{ids.total():,} answers, {len(ids):,} different custom_ids, {n_twice} answered twice")
    if (ids.total(), len(ids), "Traceback" in log) != (options.lines, options.lines, False):
        raise SystemExit(f"Not each request has one answer, or the log has a traceback.\n{log}")


def write_requests(path: Path, n_lines: int) -> None:
    """Short requests, some with a parameter that their model refuses."""
    with path.open("w", encoding="utf-8") as sink:
        for n in range(n_lines):
            messages = [{"role": "user", "content": f"Lovely soup, number {n}."}]
            body = {"model": "gpt-6-luna", "messages": messages}
            body |= {} if n % REFUSED else {"max_tokens": 5}
            line = {"custom_id": f"r-{n}", "method": "POST", "url": service.CHAT, "body": body}
            sink.write(json.dumps(line) + "\n")


def kill(state: Path, endpoint: dict, batch_id: str, source: random.Random, n_kills: int) -> None:
    """Kill the service at random moments and start it again; its endpoint is updated each time."""
    started_at = time.monotonic()
    moments = sorted(source.uniform(0, 0.9 * STAGE_SECONDS) for _ in range(n_kills))
    for n, moment in enumerate(moments, start=1):
        # A moment that has passed while the service started gives way to one soon after.
        left = started_at + moment - time.monotonic()
        time.sleep(left if left > 0 else source.uniform(0, 0.3))
        batch = service.batch(endpoint, batch_id)
        os.kill(endpoint["pid"], signal.SIGKILL)
        counts = batch["request_counts"]
        n_done = counts["completed"] + counts["failed"]
        print(f"kill {n:2}: {batch['status']}, {n_done:,} answered")
        if batch["status"] in service.ENDED:
            raise SystemExit("The batch had ended before it was killed often enough.")
        endpoint |= local_api.start(state, tier=5, options=STAGES)


def answered(endpoint: dict, batch: dict, folder: Path) -> collections.Counter:
    """How often each custom_id is in the result files."""
    ids = collections.Counter()
    for kind in ("output_file_id", "error_file_id"):
        if batch[kind]:
            service.download(endpoint, batch[kind], folder / kind)
            lines = (folder / kind).read_bytes().removesuffix(b"\n").split(b"\n")
            ids.update(json.loads(line)["custom_id"] for line in lines)
    return ids


if __name__ == "__main__":
    main()
