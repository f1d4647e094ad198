"""Shards: which requests go into one input file. One model, inside every limit of the Batch API.

Only decides and renders; nothing here knows a service or a ledger.
"""

from dataclasses import dataclass

import pandas as pd

from lib.errors import CorpusError

# Limits of one input file: the Batch API's guide and a service log of 2026-04 (200 MiB exactly).
MAX_REQUESTS = 50_000
MAX_BYTES = 209_715_200
QUEUE_SHARE = 8  # a shard takes an eighth of the queue window: the best worst case when simulated


@dataclass(frozen=True)
class Limits:
    """What one shard may hold at most: lines, bytes, and tokens of input."""

    max_requests: int = MAX_REQUESTS
    max_bytes: int = MAX_BYTES
    max_tokens: int | None = None


def limits(
    max_requests: int,
    window_tokens: int | None,
    most_requests: int = MAX_REQUESTS,
    most_bytes: int = MAX_BYTES,
) -> Limits:
    """The limits of a shard for a model whose queue admits `window_tokens` at one time.

    The last two are what a service takes in one file.

    >>> limits(50_000, 2_000_000).max_tokens
    250000
    """
    share = max(1, window_tokens // QUEUE_SHARE) if window_tokens else None
    return Limits(min(max_requests, most_requests), most_bytes, share)


def pack(requests: pd.DataFrame, bounds: Limits) -> pd.Series:
    """The number of the shard of each request, from 0, in the order of the rows.

    Needs n_bytes and n_input_tokens of requests to one model. A shard is closed by the request
    that would pass a limit; a request that alone passes the token share gets a shard of its own.
    Raises CorpusError for a request that alone passes the size of a file.
    """
    models = requests["model"].unique() if "model" in requests else ()
    if len(models) > 1:
        raise ValueError(f"one shard, one model: got {', '.join(sorted(models))}")
    if (requests["n_bytes"] > bounds.max_bytes).any():
        largest = int(requests["n_bytes"].max())
        what = f"one request has {largest:,} bytes, and a file may have {bounds.max_bytes:,}."
        raise CorpusError(f"{what} Lower items: max_tokens in study.yml.", n_bytes=largest)
    numbers, number, lines, size, held = [], 0, 0, 0, 0
    share = float("inf") if bounds.max_tokens is None else bounds.max_tokens
    for n_bytes, n_tokens in zip(requests["n_bytes"], requests["n_input_tokens"], strict=True):
        full = lines == bounds.max_requests or size + n_bytes > bounds.max_bytes
        if lines and (full or held + n_tokens > share):
            number, lines, size, held = number + 1, 0, 0, 0
        numbers.append(number)
        lines, size, held = lines + 1, size + n_bytes, held + n_tokens
    return pd.Series(numbers, index=requests.index, dtype="int64")
