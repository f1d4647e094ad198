"""The output file and the error file of a batch, written from its records.

Lines leave in an order that is not that of the input, as the API warns: shuffled, but always the
same for the same input, so that runs can be compared. Runs in a worker.
"""

import itertools
import os
import random
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import orjson

from lib.local_api import answering, validate


class Job(NamedTuple):
    """What to write: records answered so far, and whether and why the other requests were not run.

    `unanswered` is the code and the message for requests that follow `n_input_bytes_done`.
    """

    records: Path
    n_record_bytes: int
    requests: Path
    n_input_bytes_done: int
    n_left: int
    unanswered: tuple[str, str] | None
    order_seed: int
    minted_at: int
    output: Path
    errors: Path


def write(job: Job) -> tuple[int, int]:
    """Write both files and return their sizes; a file that would be empty is not made."""
    with job.records.open("r+b" if job.records.exists() else "w+b") as records:
        records.truncate(job.n_record_bytes)
        records.seek(0, os.SEEK_END)
        if job.unanswered and job.n_left:
            records.writelines(_unanswered(job))
            records.flush()
        order = {flag: _shuffled(starts, job.order_seed) for flag, starts in _starts(records)}
        ids = random.Random(job.order_seed ^ job.minted_at)  # noqa: S311 - names, not secrets
        prefix = f'{{"id":"batch_req_{job.minted_at:08x}'
        n_bytes = [
            _write_file(path, records, order[flag], ids, prefix)
            for path, flag in ((job.output, answering.COMPLETED), (job.errors, answering.FAILED))
        ]
    return n_bytes[0], n_bytes[1]


def _unanswered(job: Job) -> Iterator[bytes]:
    """Records of the requests that were not run."""
    with job.requests.open("rb") as requests:
        requests.seek(job.n_input_bytes_done)
        for _, line in itertools.islice(validate.numbered_lines(requests), job.n_left):
            yield answering.unanswered(orjson.loads(line)["custom_id"], *job.unanswered)


def _starts(records: BinaryIO) -> Iterator[tuple[bytes, array]]:
    """Where the records of each kind start."""
    starts = {answering.COMPLETED: array("Q"), answering.FAILED: array("Q")}
    records.seek(0)
    position = 0
    for record in records:
        starts[record[:1]].append(position)
        position += len(record)
    yield from starts.items()


def _shuffled(starts: array, order_seed: int) -> array:
    """Positions in an order that the seed decides."""
    random.Random(order_seed).shuffle(starts)  # noqa: S311 - an order, not a secret
    return starts


def _write_file(
    path: Path, records: BinaryIO, starts: array, ids: random.Random, prefix: str
) -> int:
    """Write the records at these positions as lines of a result file; returns its size."""
    if not starts:
        return 0
    with path.open("wb") as sink:
        for start in starts:
            records.seek(start)
            record = records.readline()
            sink.write(f'{prefix}{ids.getrandbits(96):024x}",'.encode())
            sink.write(record[1:])
        sink.flush()
        os.fsync(sink.fileno())
        return sink.tell()
