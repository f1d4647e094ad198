"""Consecutive lines of an input file, cut and handed to whoever answers them.

It decides how many lines travel together and how many are under way. The engine decides what
becomes of the answers, in the order of the file; what it has not recorded is asked again after a
crash. That is why few pieces are under way: a worker repeats some, an upstream is asked again for
at most `relay.N_AHEAD_EACH` times as many lines as it is asked at once.
"""

import asyncio
import collections
from concurrent.futures import Future
from typing import BinaryIO, NamedTuple

from lib.local_api import answering, clock, context, relay, store, workers

MAX_CHUNK_LINES, MIN_CHUNK_BYTES, MAX_CHUNK_BYTES = 400, 32_768, 1_048_576
N_STEPS = 10
N_AHEAD = 3


class Piece(NamedTuple):
    """Consecutive lines on their way through a worker, or one on its way to the upstream."""

    n_lines: int
    n_bytes: int
    chunk: Future | asyncio.Task


async def answered(service: context.Service, row: dict, piece: Piece) -> answering.Chunk | None:
    """The answers to a piece, or None when the window closes or the batch is cancelled first."""
    cancelled = asyncio.create_task(service.wakers[row["id"]].wait())
    chunk = asyncio.wrap_future(piece.chunk)
    seconds = clock.real_seconds_until(service.clock, row["expires_at"])
    first = asyncio.FIRST_COMPLETED
    await asyncio.wait([cancelled, chunk], timeout=seconds, return_when=first)
    cancelled.cancel()
    return chunk.result() if chunk.done() else None


def send(
    service: context.Service, row: dict, n_bytes_sent: int, waiting: collections.deque[Piece]
) -> int:
    """Keep the workers busy with a few pieces ahead; returns where the next piece starts.

    Pieces are small enough for counts to be seen growing, and the smaller, the more batches run;
    an upstream is given line after line.
    """
    n_lines = min(MAX_CHUNK_LINES, max(1, row["n_requests"] // N_STEPS))
    n_bytes = max(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES // max(1, len(service.tasks)))
    n_ahead = N_AHEAD
    if service.upstream:
        n_lines, n_ahead = 1, relay.N_AHEAD_EACH * service.upstream.settings.n_concurrent
    now = int(clock.now(service.clock))
    with store.content_path(service.state, row["input_file_id"]).open("rb") as requests:
        requests.seek(n_bytes_sent)
        while len(waiting) < n_ahead and (lines := _read(requests, n_lines, n_bytes)):
            n_read = lines.count(b"\n") + (not lines.endswith(b"\n"))
            waiting.append(Piece(n_read, len(lines), _asked(service, row, lines, now)))
            n_bytes_sent += len(lines)
    return n_bytes_sent


def _asked(service: context.Service, row: dict, lines: bytes, now: int) -> Future | asyncio.Task:
    """Lines given to whoever answers them: a worker, or the upstream."""
    if service.upstream:
        return asyncio.create_task(relay.answer_line(service, lines, row["endpoint"], now))
    return workers.submit(service, answering.answer_lines, lines, row["endpoint"], now)


def _read(requests: BinaryIO, n_lines: int, n_bytes: int) -> bytes:
    """Up to so many lines, fewer when they are long; nothing when only blank lines are left."""
    lines, n_read = [], 0
    while len(lines) < n_lines and n_read < n_bytes and (line := requests.readline()):
        lines.append(line)
        n_read += len(line)
    joined = b"".join(lines)
    return joined if joined.strip() else b""
