"""Pacing: how much more a model's queue admits now, and how long to wait. Pure arithmetic."""

import re
from collections.abc import Sequence

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 3600.0


def learned_limit(message: str) -> int | None:
    """The limit that a `token_limit_exceeded` message names; the only figure to be trusted.

    The same code is given for a limit of requests, which is no limit of tokens: None.

    >>> learned_limit("Enqueued token limit reached for m in organization o. Limit: 2,000,000 enqu")
    2000000
    """
    found = re.search(r"Limit: (\d[\d,]*+)(?! enqueued requests)", message)
    return int(found[1].replace(",", "")) if found else None


def pause_seconds(n_refusals: int) -> float:
    """How long to wait after the nth refusal in a row: a minute, doubling, at most an hour.

    >>> [pause_seconds(n) for n in (0, 1, 2, 7)]
    [0.0, 60.0, 120.0, 3600.0]
    """
    if not n_refusals:
        return 0.0
    return min(FIRST_PAUSE_SECONDS * 2 ** min(n_refusals - 1, 6), LONGEST_PAUSE_SECONDS)


def admit(shard_tokens: Sequence[int], enqueued_tokens: int, window_tokens: int | None) -> int:
    """How many of the shards, from the first on, the queue window admits beside what is enqueued.

    An empty queue admits one shard whatever its size: only the service can say that it is too big.

    >>> admit([400, 400, 400], enqueued_tokens=100, window_tokens=1000)
    2
    """
    if window_tokens is None:
        return len(shard_tokens)
    admitted = 0
    for n_tokens in shard_tokens:
        if enqueued_tokens and enqueued_tokens + n_tokens > window_tokens:
            break
        admitted, enqueued_tokens = admitted + 1, enqueued_tokens + n_tokens
    return admitted
