"""Pacing: how much more a model's queue admits now, and how long to wait. Pure arithmetic.

What counts against the limit of a queue is disputed, and so is how soon it forgets a batch: a
refusal is explained by what is certain first, and what was learned from it fades within a day.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 3600.0
BATCHES_AN_HOUR = 2_000  # the rate limit guide
FORGOTTEN_AFTER = timedelta(days=1)  # the latest that users saw a queue forget an ended batch
HOPELESS = 30  # refusals in a row: an hour of growing pauses, then one an hour for a day
_RUNNING = ("in_progress", "finalizing", "cancelling")
_ADMITTED = ("in_progress", "finalizing", "cancelling", *("completed", "expired", "cancelled"))


class Load(NamedTuple):
    """What a batch may hold of a queue: its input, and the most that its answers may have."""

    n_input_tokens: int = 0
    n_cap_tokens: int = 0


class Seen(NamedTuple):
    """The batches of a model: those in the queue, those that it may not have forgotten yet.

    `admitted_at` is when the latest one that the queue let in was made, `is_checking` whether one
    is out that it may still refuse.
    """

    admitted: Load = Load()
    lingering: Load = Load()
    admitted_at: datetime | None = None
    is_checking: bool = False


@dataclass(frozen=True)
class Queue:
    """What is known of a model's queue: its limit, and what the last refusals have taught.

    `limit_tokens` is what a refusal named (`is_named`), or else the tier's, which may be too much;
    `window_tokens` is what we dared to hold in it after the refusal at `refused_at`.
    """

    limit_tokens: int | None = None
    window_tokens: int | None = None
    n_refusals: int = 0
    refused_at: datetime | None = None
    is_named: bool = True


def learned_limit(message: str) -> int | None:
    """The limit that a `token_limit_exceeded` message names; the only figure to be trusted.

    The same code is given for a limit of requests, which is no limit of tokens: None.

    >>> learned_limit("Enqueued token limit reached for m in organization o. Limit: 2,000,000 enqu")
    2000000
    """
    found = re.search(r"Limit: (\d[\d,]*+)(?! enqueued requests)", message)
    return (int(found[1].replace(",", "")) or None) if found else None


def pause_seconds(n_refusals: int) -> float:
    """How long to wait after the nth refusal in a row: a minute, doubling, at most an hour.

    >>> [pause_seconds(n) for n in (0, 1, 2, 7)]
    [0.0, 60.0, 120.0, 3600.0]
    """
    if not n_refusals:
        return 0.0
    return min(FIRST_PAUSE_SECONDS * 2 ** min(n_refusals - 1, 6), LONGEST_PAUSE_SECONDS)


def pause_ends(n_refusals: int, now: datetime) -> datetime:
    """When the pause after the nth refusal in a row is over."""
    return now + timedelta(seconds=pause_seconds(n_refusals))


def is_paused(not_before: datetime | None, now: datetime) -> bool:
    """Whether a pause lasts; one that ends beyond the longest pause is a clock set back."""
    if not_before is None:
        return False
    return timedelta(0) < not_before - now <= timedelta(seconds=LONGEST_PAUSE_SECONDS)


def window(queue: Queue, now: datetime) -> int | None:
    """How many tokens the queue may hold now by our count; None without any bound.

    After a refusal it grows evenly, in a day, back to the limit; where no refusal has named one, by
    as much again each day, so that it does not outrun the refusals.

    >>> noon, six = datetime(2026, 11, 1, 12), datetime(2026, 11, 1, 18)
    >>> window(Queue(2_000_000, 400_000, refused_at=noon), six)
    800000
    """
    if queue.window_tokens is None or queue.refused_at is None:
        return queue.limit_tokens
    share = max(timedelta(0), now - queue.refused_at) / FORGOTTEN_AFTER
    if queue.limit_tokens is None or not queue.is_named:
        grown = int(queue.window_tokens * (1 + share))
        return min(grown, queue.limit_tokens or grown)
    room = max(0, queue.limit_tokens - queue.window_tokens)
    return min(queue.limit_tokens, queue.window_tokens + int(room * min(1.0, share)))


def seen(shards: Iterable[Mapping[str, Any]], now: datetime) -> Seen:
    """What the ledger's shards of one model say about its queue."""
    sums = {"admitted": [0, 0], "lingering": [0, 0]}
    admitted_at, is_checking = None, False
    for shard in shards:
        if shard["state"] not in ("submitted", "collected"):
            continue
        if shard["status"] not in _ADMITTED:
            is_checking |= shard["state"] == "submitted"
            continue
        made_at = datetime.fromisoformat(shard["submitted_at"])
        admitted_at = max(admitted_at or made_at, made_at)
        ended_at = datetime.fromisoformat(shard["ended_at"]) if shard["ended_at"] else now
        if now - ended_at < FORGOTTEN_AFTER:
            held = sums["admitted" if shard["state"] == "submitted" else "lingering"]
            held[0] += shard["n_input_tokens"]
            held[1] += shard["n_cap_tokens"]
    return Seen(Load(*sums["admitted"]), Load(*sums["lingering"]), admitted_at, is_checking)


def is_failing(shard: Mapping[str, Any], n_enough: int, max_failure_share: float) -> bool:
    """Whether a batch runs of which too many lines have failed so far, by the service's counts."""
    n_failed, n_completed = shard["n_failed"] or 0, shard["n_completed"] or 0
    n_ended = n_failed + n_completed
    is_running = shard["state"] == "submitted" and shard["status"] in _RUNNING
    enough = n_ended >= min(n_enough, shard["n_requests"])
    return is_running and enough and n_failed > max_failure_share * n_ended


def n_in_a_row(queue: Queue, admitted_at: datetime | None) -> int:
    """How many refusals came in a row, with nothing admitted after the last of them."""
    if queue.refused_at and admitted_at and admitted_at > queue.refused_at:
        return 0
    return queue.n_refusals


def refused(
    queue: Queue, message: str, batch: Load, beside: Seen, made_at: datetime, now: datetime
) -> Queue:
    """What is known after the queue has refused a batch that was made at `made_at`.

    Batches that were made before the last refusal was seen belong to it: one pause for all.
    """
    named = learned_limit(message)
    found = replace(queue, limit_tokens=named, is_named=True) if named else queue
    shrunk = _window_after(found, batch, beside)
    if queue.refused_at and made_at <= queue.refused_at:
        most = max(shrunk or 0, queue.window_tokens or 0) or None
        return replace(found, window_tokens=most)
    return replace(held_back(found, beside, now), window_tokens=shrunk or window(found, now))


def held_back(queue: Queue, beside: Seen, now: datetime) -> Queue:
    """What is known after one more refusal, which says nothing about the window."""
    return replace(
        queue,
        window_tokens=None if queue.window_tokens is None else window(queue, now),
        n_refusals=n_in_a_row(queue, beside.admitted_at) + 1,
        refused_at=now,
    )


def admit(
    shard_tokens: Sequence[int],
    enqueued_tokens: int,
    window_tokens: int | None,
    n_at_most: int = BATCHES_AN_HOUR,
) -> int:
    """How many of the shards, from the first on, the queue window admits beside what is enqueued.

    An empty queue admits one shard whatever its size: only the service can say that it is too big.

    >>> admit([400, 400, 400], enqueued_tokens=100, window_tokens=1000)
    2
    """
    bound = math.inf if window_tokens is None else window_tokens
    admitted = 0
    for n_tokens in shard_tokens[: max(0, n_at_most)]:
        if enqueued_tokens and enqueued_tokens + n_tokens > bound:
            break
        admitted, enqueued_tokens = admitted + 1, enqueued_tokens + n_tokens
    return admitted


def n_creates(n_in_last_hour: int, n_models: int, an_hour: int = BATCHES_AN_HOUR) -> int:
    """How many batches each of some models may make now, so that no model takes all of the hour.

    >>> n_creates(0, 2), n_creates(1_990, 4), n_creates(1_999, 3), n_creates(2_000, 1)
    (1000, 2, 1, 0)
    """
    left = max(0, an_hour - n_in_last_hour)
    return min(left, max(1, left // max(1, n_models)))


def _window_after(queue: Queue, batch: Load, beside: Seen) -> int | None:
    """What to hold in a queue that refused a batch; None when there is no reason to hold less.

    The explanations in their order: more than the limit by our own count; the service reserves the
    answers' caps too, unless it holds more than that already; it has not forgotten what has ended.
    Without any, half of what was tried, or all that is in it, is what fits.
    """
    limit, held = queue.limit_tokens, beside.admitted
    ours = held.n_input_tokens + batch.n_input_tokens
    whole = ours + held.n_cap_tokens + batch.n_cap_tokens
    if limit is not None:
        if ours > limit:
            return limit
        if sum(held) <= limit < whole:
            return max(1, limit * ours // whole)
        if ours + sum(beside.lingering) > limit:
            return None
    return max(held.n_input_tokens, ours // 2, 1)
