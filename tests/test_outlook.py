"""The outlook: rates, ranges, stalls and deadlines, by worked examples."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import outlook

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def at(hours):
    """A time, in hours from noon, as the ledger writes it."""
    return (NOON + timedelta(hours=hours)).isoformat(timespec="milliseconds")


def shard(submitted, collected=None, n=100, **differs):
    """A shard of 100 requests and 10,000 tokens, with the hours of its submission and its end."""
    return {
        "shard": "s",
        "model": "luna",
        "purpose": "main",
        "state": "submitted" if collected is None else "collected",
        "n_requests": n,
        "n_input_tokens": 100 * n,
        "submitted_at": None if submitted is None else at(submitted),
        "collected_at": None if collected is None else at(collected),
        "expires_at": None if submitted is None else at(submitted + 24),
        "status": "in_progress" if collected is None else "completed",
        "batch_id": "batch_1",
        "not_before": None,
        "n_refusals": 0,
        "unseen_at": None,
        **differs,
    }


def only(shards, now=0.0, to_send=0, window=None):
    """The queue of the one model, at so many hours from noon."""
    moment = NOON + timedelta(hours=now)
    found = outlook.queues(shards, {"luna": to_send}, {"luna": window}, moment)
    assert len(found) == 1
    return found[0]


def test_the_rate_is_what_ended_since_the_first_submission():
    """Four batches of 100 submitted at 0 h ended by 2 h: 400 / 2 h = 200 an hour. 300 are left, in
    flight or to send: 1.5 h at that rate; four ends are uncertain by 1/2, so 1.5 / 1.5 to 1.5 / 0.5
    hours.
    """
    shards = [*(shard(0, end) for end in (0.5, 1, 1.5, 2)), shard(0), shard(0)]
    queue = only(shards, now=2, to_send=100, window=50_000)
    assert (queue.n_recent, queue.per_hour, queue.n_open) == (4, 200, 300)
    assert (queue.n_batches, queue.enqueued_tokens, queue.window_tokens) == (2, 20_000, 50_000)
    assert outlook.hours_left(queue) == (1.0, 3.0)
    (said,) = outlook.arrival([queue], shards, NOON + timedelta(hours=2))
    assert said == "all in between 15:00 and 17:00 UTC (in 1.0 to 3.0 h)"


def test_waiting_lowers_the_rate():
    """The same four batches, and nothing more by 8 h: 400 / 8 h = 50 an hour."""
    shards = [*(shard(0, end) for end in (0.5, 1, 1.5, 2)), shard(0)]
    assert only(shards, now=8).per_hour == 50


def test_only_recent_history_counts():
    """30 batches in the first 3 h, then 20 in 10 h: the end before the last 20 was at 3 h, and now
    is 13 h, so 2,000 requests in 10 h; the quick ones before are forgotten.
    """
    quick = [shard(0, 0.1 * n) for n in range(1, 31)]
    slow = [shard(3, 3 + 0.5 * n) for n in range(1, 21)]
    queue = only([*quick, *slow, shard(12)], now=13)
    assert (queue.n_recent, queue.n_ended) == (20, 50)
    assert queue.per_hour == pytest.approx(200)


def test_ends_at_one_moment_are_not_counted_twice():
    """Eight batches end every 2 h. The end before the last 20 is one of the eight at 2 h: the
    stretch begins there, with 16 ends in 4 h, which is the true rate of 4 batches an hour.
    """
    shards = [shard(wave - 2, wave) for wave in (2, 4, 6) for _ in range(8)]
    queue = only(shards, now=6)
    assert (queue.n_recent, queue.per_hour) == (16, 400)


def test_a_canary_says_nothing_about_speed():
    """20 requests in an hour would make 50,000 of them a matter of months."""
    shards = [shard(0, 1, n=20, purpose="canary"), shard(1, n=50_000)]
    queue = only(shards, now=2)
    assert queue.per_hour is None
    assert outlook.hours_left(queue) is None
    (said,) = outlook.arrival([queue], shards, NOON + timedelta(hours=2))
    assert said == (
        "luna: no batch has ended yet: 1 batch in flight, the service promises 24 h "
        "(until 2026-11-21 13:00 UTC)"
    )


def test_one_ended_batch_gives_no_range():
    """One end is uncertain by all of it."""
    shards = [shard(0, 1), shard(0)]
    (said,) = outlook.arrival([only(shards, now=1)], shards, NOON)
    assert said.startswith(
        "luna: only 1 batch ended so far: 1 batch in flight, the service promise"
    )


def test_what_expired_or_failed_is_no_progress():
    """Its requests are asked again; the time that it took counts."""
    shards = [shard(0, 1), shard(0, 1), shard(0, 2, status="expired"), shard(0, 2, status="failed")]
    queue = only(shards, now=2, to_send=200)
    assert (queue.n_recent, queue.per_hour) == (2, 100)


def test_released_shards_are_forgotten():
    """They never became a batch."""
    assert outlook.queues([shard(None, state="released")], {}, {}, NOON) == []


def test_models_work_side_by_side():
    """Luna has 100 left at 100 an hour, terra 100 at 50: the slower one says when all is in.

    Four ends each: luna 0.67 to 2 h, terra 1.33 to 4 h.
    """
    luna = [*(shard(0, 4) for _ in range(4)), shard(0)]
    terra = [
        {**one, "model": "terra"} for one in [*(shard(0, 4, n=50) for _ in range(4)), shard(0)]
    ]
    queues = outlook.queues([*luna, *terra], {}, {}, NOON + timedelta(hours=4))
    assert [queue.model for queue in queues] == ["luna", "terra"]
    (said,) = outlook.arrival(queues, [*luna, *terra], NOON + timedelta(hours=4))
    assert said == "all in between 17:20 and 20:00 UTC (in 1.3 to 4.0 h)"


def test_one_unknown_model_makes_the_whole_unknown():
    """The other one's speed is no promise for it."""
    luna = [*(shard(0, 4) for _ in range(4)), shard(0)]
    terra = [shard(3.5, model="terra", expires_at=None)]
    queues = outlook.queues([*luna, *terra], {}, {}, NOON + timedelta(hours=4))
    (said,) = outlook.arrival(queues, [*luna, *terra], NOON + timedelta(hours=4))
    expected = "terra: no batch has ended yet: 1 batch in flight, the service promises 24 h"
    assert said == expected


def test_nothing_under_way_has_no_outlook():
    """A finished run, and one that holds lines back with nothing in flight."""
    assert outlook.arrival([only([shard(0, 1)], now=1)], [], NOON) == ["nothing is under way"]
    queue = only([], to_send=5)
    assert outlook.arrival([queue], [], NOON) == ["luna: no batch has ended yet, none in flight"]


def test_a_queue_in_words():
    """With its window and its rate, where there are any."""
    shards = [*(shard(0, end) for end in (0.5, 1, 1.5, 2)), shard(0)]
    assert outlook.line(only(shards, now=2, to_send=1200, window=50_000)) == (
        "luna: 1 batch in flight (100 requests, 10,000 of 50,000 queue tokens), 1,200 to send, "
        "4 batches ended, 200 requests an hour"
    )
    assert outlook.line(only([], to_send=3)) == (
        "luna: 0 batches in flight (0 requests, 0 queue tokens), 3 to send, 0 batches ended"
    )


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (
            shard(None, state="uploaded", not_before=at(0.5), n_refusals=3),
            "luna: no room at the service for 1 batch; tried again at 12:30 UTC (refusals: 3)",
        ),
        (
            shard(-25),
            "luna: batch batch_1 is past its 24 h, and the service calls it in_progress",
        ),
        (
            shard(-1, unseen_at=at(-0.5)),
            "luna: the service does not show the results of 1 batch since 2026-11-20 11:30 UTC",
        ),
        (
            shard(-7),
            "luna: stalled? the oldest batch has been in flight for 7.0 h, the longest so far took "
            "2.0 h",
        ),
        (shard(-5.9), None),
        (shard(None, state="uploaded", not_before=at(-0.1), n_refusals=3), None),
    ],
)
def test_stalls_are_said_plainly(one, said):
    """A pause, a batch past its window, results not shown, a batch three times as slow as the
    slowest one (2 h) so far; 5.9 h is not yet three times.
    """
    assert outlook.stalls([shard(-10, -8), one], NOON) == ([said] if said else [])


def test_an_hour_is_no_stall():
    """Where batches take minutes, three times that is still nothing to worry about."""
    assert outlook.stalls([shard(-2, -1.9), shard(-0.9)], NOON) == []


def test_deadlines_are_those_of_ended_batches_that_are_not_downloaded():
    """Files live for 30 days from the end; from the submission on is the safe side."""
    shards = [
        shard(-2, status="completed"),
        shard(-30, batch_id="batch_2"),
        shard(-2, batch_id="batch_3"),
        shard(-9, -1, batch_id="batch_4"),
        shard(None, state="planned", batch_id=None, status=None),
    ]
    assert outlook.deadlines(shards, NOON) == {
        "batch_1": NOON + timedelta(hours=-2, days=30),
        "batch_2": NOON + timedelta(hours=-30, days=30),
    }


@given(
    ends=st.lists(st.floats(0.1, 100), min_size=2, max_size=60),
    n_left=st.integers(1, 10**6),
    waited=st.floats(0, 50),
)
def test_the_range_holds_the_rate_and_grows_narrower(ends, n_left, waited):
    """low <= left / rate <= high, and high / low falls as more batches end."""
    shards = [shard(0, end) for end in ends]
    queue = only(shards, now=max(ends) + waited, to_send=n_left)
    hours = outlook.hours_left(queue)
    if hours is None:
        assert queue.n_recent < 2
        return
    assert hours[0] <= n_left / queue.per_hour <= hours[1]
    n = queue.n_recent
    assert hours[1] / hours[0] == pytest.approx((n**0.5 + 1) / (n**0.5 - 1))
