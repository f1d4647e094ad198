"""Outlook: when a run will be done, from what its batches have taken so far. Pure arithmetic.

Rates are those of recent history, waiting included, so that a stall lowers them by itself. Gives a
range and never a moment; nothing at all before a batch has ended, because a canary says how models
answer and not how fast. Retries that are not yet known are not foreseen.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lib import words

RECENT = 20
PROMISE_HOURS = 24
KEPT_DAYS = 30
ENDED = ("completed", "failed", "expired", "cancelled")
Shards = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Queue:
    """What a model has before it, and what it has done: batches, requests, tokens of its queue.

    `n_recent` batches ended in the stretch of time by which `per_hour` was measured.
    """

    model: str
    n_batches: int
    n_in_flight: int
    n_to_send: int
    enqueued_tokens: int
    window_tokens: int | None
    n_ended: int
    n_recent: int
    per_hour: float | None

    @property
    def n_open(self) -> int:
        """Requests whose answers are still to come."""
        return self.n_in_flight + self.n_to_send


def queues(
    shards: Shards, to_send: Mapping[str, int], windows: Mapping[str, int | None], at: datetime
) -> list[Queue]:
    """The queue of each model that has shards or lines to send, in the order of the names.

    `to_send` counts the lines without a shard, `windows` gives the queue limit in tokens.
    """
    held = [shard for shard in shards if shard["state"] != "released"]
    names = {shard["model"] for shard in held} | {model for model, n in to_send.items() if n}
    return [_queue(model, held, to_send, windows, at) for model in sorted(names)]


def hours_left(queue: Queue) -> tuple[float, float] | None:
    """Between how many hours the rest of a queue will take; nothing while that is not known.

    The rest at the recent rate, which the chance of n ends makes uncertain by 1/sqrt(n): four ended
    batches say half as much to twice as much, so fewer than two say nothing.
    """
    if not queue.n_open:
        return 0.0, 0.0
    if not queue.per_hour or queue.n_recent < 2:
        return None
    hours, spread = queue.n_open / queue.per_hour, 1 / math.sqrt(queue.n_recent)
    return hours / (1 + spread), hours / (1 - spread)


def arrival(held: Iterable[Queue], shards: Shards, at: datetime) -> list[str]:
    """When everything will be in: models work side by side, the last one counts.

    As long as that is not known for every model, what there is to say about each of the others.
    `at` is now, in UTC.
    """
    open_queues = [queue for queue in held if queue.n_open]
    if not open_queues:
        return ["nothing is under way"]
    known = {queue.model: hours_left(queue) for queue in open_queues}
    unknown = [queue for queue in open_queues if known[queue.model] is None]
    if unknown:
        return [_unknown(queue, shards, at) for queue in unknown]
    low, high = (max(hours[n] for hours in known.values() if hours) for n in (0, 1))
    first, last = (moment(at + timedelta(hours=hours), at) for hours in (low, high))
    return [f"all in between {first} and {last} UTC (in {low:.1f} to {high:.1f} h)"]


def stalls(shards: Shards, at: datetime) -> list[str]:
    """What does not go on as it should: pauses, batches that take too long, results not shown."""
    said = []
    for model in sorted({shard["model"] for shard in shards}):
        mine = [shard for shard in shards if shard["model"] == model]
        said += [*_paused(model, mine, at), *_slow(model, mine, at), *_unseen(model, mine)]
    return said


def deadlines(shards: Shards, at: datetime) -> dict[str, datetime]:
    """By batch that has ended and is not downloaded, when the service deletes its files at the
    earliest: 30 days after a batch ends, so not before 30 days after it was submitted.
    """
    return {
        str(shard["batch_id"]): _time(shard["submitted_at"]) + timedelta(days=KEPT_DAYS)
        for shard in shards
        if shard["state"] == "submitted" and shard["submitted_at"]
        if shard["status"] in ENDED or _is_over(shard, at)
    }


def line(queue: Queue) -> str:
    """One queue in words.

    >>> line(Queue("luna", 1, 600, 0, 90_000, 200_000, 5, 5, 120.0))[:51]
    'luna: 1 batch in flight (600 requests, 90,000 of 20'
    """
    window = f" of {queue.window_tokens:,}" if queue.window_tokens else ""
    in_flight = words.n_of(queue.n_in_flight, "request")
    parts = [
        f"{queue.model}: {_batches(queue.n_batches)} in flight ({in_flight}, "
        f"{queue.enqueued_tokens:,}{window} queue tokens)",
        f"{queue.n_to_send:,} to send",
        f"{_batches(queue.n_ended)} ended",
    ]
    rate = [f"{queue.per_hour:,.0f} requests an hour"] if queue.per_hour else []
    return ", ".join([*parts, *rate])


def moment(when: datetime, at: datetime) -> str:
    """A time as people read it: the hour, and the day when it is not today's.

    >>> moment(datetime(2026, 3, 2, 9, 5), datetime(2026, 3, 1, 23, 0))
    '2026-03-02 09:05'
    """
    return f"{when:%H:%M}" if when.date() == at.date() else f"{when:%Y-%m-%d %H:%M}"


def _queue(
    model: str,
    held: Shards,
    to_send: Mapping[str, int],
    windows: Mapping[str, int | None],
    at: datetime,
) -> Queue:
    mine = [shard for shard in held if shard["model"] == model]
    flying = [shard for shard in mine if shard["state"] != "collected"]
    n_recent, per_hour = _rate(mine, at)
    return Queue(
        model=model,
        n_batches=len(flying),
        n_in_flight=sum(shard["n_requests"] for shard in flying),
        n_to_send=to_send.get(model, 0),
        enqueued_tokens=sum(shard["n_input_tokens"] for shard in flying),
        window_tokens=windows.get(model),
        n_ended=len(mine) - len(flying),
        n_recent=n_recent,
        per_hour=per_hour,
    )


def _rate(shards: Shards, at: datetime) -> tuple[int, float | None]:
    """The batches that ended lately and the requests an hour that they make, up to now.

    The stretch begins with the end before the last RECENT ones, else with the first submission.
    """
    main = [shard for shard in shards if shard["purpose"] != "canary" and shard["submitted_at"]]
    done = [shard for shard in main if shard["state"] == "collected"]
    ends = sorted(_time(shard["collected_at"]) for shard in done)
    if not ends:
        return 0, None
    first = min(_time(shard["submitted_at"]) for shard in main)
    began = ends[-RECENT - 1] if len(ends) > RECENT else first
    # What failed or expired is asked again: its time counts, its requests do not.
    recent = [s for s in done if _time(s["collected_at"]) > began and s["status"] == "completed"]
    hours = (at - began) / timedelta(hours=1)
    n_requests = sum(shard["n_requests"] for shard in recent)
    return len(recent), n_requests / hours if n_requests and hours > 0 else None


def _unknown(queue: Queue, shards: Shards, at: datetime) -> str:
    n_main = sum(
        shard["model"] == queue.model
        and shard["state"] == "collected"
        and shard["purpose"] != "canary"
        for shard in shards
    )
    ended = f"only {_batches(n_main)} ended so far" if n_main else "no batch has ended yet"
    if not queue.n_batches:
        return f"{queue.model}: {ended}, none in flight"
    expiries = [
        _time(shard["expires_at"])
        for shard in shards
        if shard["model"] == queue.model and shard["state"] == "submitted" and shard["expires_at"]
    ]
    until = f" (until {moment(max(expiries), at)} UTC)" if expiries else ""
    flying = f"{_batches(queue.n_batches)} in flight"
    return f"{queue.model}: {ended}: {flying}, the service promises {PROMISE_HOURS} h{until}"


def _paused(model: str, shards: Shards, at: datetime) -> list[str]:
    waiting = [s for s in shards if s["state"] in ("planned", "uploaded") and s["not_before"]]
    later = [shard for shard in waiting if _time(shard["not_before"]) > at]
    if not later:
        return []
    first = min(_time(shard["not_before"]) for shard in later)
    n_times = max(shard["n_refusals"] for shard in later)
    what = f"{model}: no room at the service for {_batches(len(later))}"
    return [f"{what}; tried again at {moment(first, at)} UTC (refusals: {n_times})"]


def _slow(model: str, shards: Shards, at: datetime) -> list[str]:
    """The oldest batch in flight, when it is past its window or has taken three times the longest
    that one has taken so far (and more than an hour)."""
    flying = [s for s in shards if s["state"] == "submitted" and s["submitted_at"]]
    if not flying:
        return []
    oldest = min(flying, key=lambda shard: shard["submitted_at"])
    hours = (at - _time(oldest["submitted_at"])) / timedelta(hours=1)
    if _is_over(oldest, at) and oldest["status"] not in ENDED:
        what = f"batch {oldest['batch_id']} is past its {PROMISE_HOURS} h, and the service calls it"
        return [f"{model}: {what} {oldest['status']}"]
    taken = [
        (_time(shard["collected_at"]) - _time(shard["submitted_at"])) / timedelta(hours=1)
        for shard in shards
        if shard["state"] == "collected" and shard["submitted_at"]
    ]
    if not taken or hours <= max(1.0, 3 * max(taken)):
        return []
    what = f"the oldest batch has been in flight for {hours:.1f} h"
    return [f"{model}: stalled? {what}, the longest so far took {max(taken):.1f} h"]


def _unseen(model: str, shards: Shards) -> list[str]:
    missing = [s for s in shards if s["state"] == "submitted" and s["unseen_at"]]
    if not missing:
        return []
    since = min(_time(shard["unseen_at"]) for shard in missing)
    what = f"the service does not show the results of {_batches(len(missing))}"
    return [f"{model}: {what} since {since:%Y-%m-%d %H:%M} UTC"]


def _is_over(shard: Mapping[str, Any], at: datetime) -> bool:
    return bool(shard["expires_at"]) and _time(shard["expires_at"]) < at


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _batches(n: int) -> str:
    return words.n_of(n, "batch", "batches")
