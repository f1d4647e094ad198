"""Pacing: what a refusal teaches, how long to wait, what queue and budget admit."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import pacing
from lib.pacing import Load, Queue, Seen

REFUSED = "Enqueued token limit reached for gpt-6-luna in organization org-a. Limit: {} enqueued "
REFUSED += "tokens. Please try again once some in_progress batches have been completed."


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        (REFUSED.format("2,000,000"), 2_000_000),
        (REFUSED.format("90,000"), 90_000),
        (REFUSED.format("900"), 900),
        (REFUSED.format("40000000"), 40_000_000),
        ("Enqueued request limit reached for m. Limit: 1,000,000 enqueued requests.", None),
        ("Limit: , enqueued tokens", None),
        (REFUSED.format("0"), None),  # no queue admits nothing for ever
        ("Limit: none", None),
        ("", None),
    ],
)
def test_learned_limit(message, limit):
    """The limit of tokens is read from the service's words; other words teach nothing."""
    assert pacing.learned_limit(message) == limit


@given(st.text())
def test_any_message_may_come(message):
    """Whatever a service writes, reading it does not fail."""
    assert pacing.learned_limit(message) is None or "Limit: " in message


@pytest.mark.parametrize(
    ("n_refusals", "seconds"),
    [(0, 0), (1, 60), (2, 120), (3, 240), (6, 1920), (7, 3600), (8, 3600), (100_000, 3600)],
)
def test_pauses_grow_to_an_hour(n_refusals, seconds):
    """60 s, doubling: 60 x 2^5 = 1,920 s at the sixth, and never more than an hour."""
    assert pacing.pause_seconds(n_refusals) == seconds


@pytest.mark.parametrize(
    ("shards", "enqueued", "window", "admitted"),
    [
        ([400, 400, 400], 100, 1000, 2),  # 100 + 400 + 400 = 900; 1,300 is too much
        ([400, 400, 400], 200, 1000, 2),  # exactly full
        ([400, 400, 400], 201, 1000, 1),
        ([400], 601, 1000, 0),
        ([5000, 10], 0, 1000, 1),  # only the service can say that the first is too big
        ([5000], 1, 1000, 0),
        ([600, 500, 10], 0, 1000, 1),  # in order: a small one does not overtake
        ([1, 2, 3], 10**12, None, 3),  # no known limit
        ([], 0, 1000, 0),
    ],
)
def test_queue_window(shards, enqueued, window, admitted):
    """Shards are admitted from the first on while the sum stays inside the window."""
    assert pacing.admit(shards, enqueued, window) == admitted


@given(st.lists(st.integers(1, 1000)), st.integers(0, 2000), st.integers(1, 2000))
def test_window_is_never_passed(shards, enqueued, window):
    """Beside something enqueued the window holds, and an empty queue never stands still."""
    n = pacing.admit(shards, enqueued, window)
    total = enqueued + sum(shards[:n])
    assert total <= window or n == 0 or (enqueued == 0 and n == 1)
    assert n or not shards or enqueued
    if n < len(shards):
        assert total + shards[n] > window


def test_an_hour_has_room_for_a_number_of_batches():
    """Of ten shards that the window admits, no more are made than the hour has left: 3, or none."""
    assert pacing.admit([1] * 10, 0, 1000, n_at_most=3) == 3
    assert pacing.admit([1] * 10, 0, None, n_at_most=0) == 0
    assert pacing.admit([1] * 10, 0, 1000, n_at_most=-1) == 0


@given(st.integers(0, 5000), st.integers(0, 50))
def test_an_hour_is_shared_by_the_models(n_made, n_models):
    """All models together pass the 2,000 only by one each, which the next look does not allow."""
    share = pacing.n_creates(n_made, n_models)
    left = max(0, pacing.BATCHES_AN_HOUR - n_made)
    assert 0 <= share <= left
    assert share * n_models <= left or share == 1
    assert bool(share) == bool(left)


NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
EARLIER = NOON - timedelta(hours=3)


def at(hours):
    """So many hours after noon."""
    return NOON + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("queue", "hours", "expected"),
    [
        (Queue(), 0, None),
        (Queue(2_000_000), 0, 2_000_000),
        (Queue(2_000_000, 400_000, 1, NOON), 0, 400_000),
        (Queue(2_000_000, 400_000, 1, NOON), 6, 800_000),  # a quarter of the missing 1.6 M
        (Queue(2_000_000, 400_000, 1, NOON), 24, 2_000_000),
        (Queue(2_000_000, 400_000, 1, NOON), 99, 2_000_000),
        (Queue(2_000_000, 400_000, 1, NOON), -5, 400_000),  # the clock was set back
        (Queue(300_000, 400_000, 1, NOON), 6, 300_000),  # a figure is never passed
        (Queue(None, 400_000, 1, NOON), 12, 600_000),  # as much again each day
        (Queue(None, 400_000, 1, NOON), 48, 1_200_000),
        (Queue(2_000_000, 400_000, 1, NOON, is_named=False), 6, 500_000),  # the tier's, not told
        (Queue(2_000_000, 400_000, 1, NOON, is_named=False), 999, 2_000_000),
    ],
)
def test_a_window_grows_back_within_a_day(queue, hours, expected):
    """What a refusal took away comes back evenly, up to the figure that a refusal or tier names."""
    assert pacing.window(queue, at(hours)) == expected


def beside(admitted=(0, 0), lingering=(0, 0), admitted_at=None):
    """What else a queue holds."""
    return Seen(Load(*admitted), Load(*lingering), admitted_at)


NO_FIGURE = "The queue is full."
TWO_M = REFUSED.format("2,000,000")


@pytest.mark.parametrize(
    ("why", "message", "batch", "others", "limit", "window"),
    [
        ("1.9 M + 0.25 M by our own count", TWO_M, (250_000, 0), beside((1_900_000, 0)), 2, 2.0),
        # 250 k + 250 k of input, and caps of 4,000 to 900 of input: 500 + 2,222 k are too much,
        # the first alone, 1,361 k, was not: 2 M x 500 / 2,722 = 367,346
        (
            "caps count",
            TWO_M,
            (250_000, 1_111_000),
            beside((250_000, 1_111_000)),
            2,
            367_376 / 1e6,
        ),
        # seven of them are in: 9.5 M with caps, so caps do not count; what is in fits
        ("caps do not", TWO_M, (250_000, 1_111_000), beside((1_750_000, 7_777_000)), 2, 1.75),
        # 0.25 + 1.9 M that ended within the day: nothing says that the window was too large
        ("not forgotten", TWO_M, (250_000, 0), beside(lingering=(1_900_000, 0)), 2, 2.0),
        ("alone", TWO_M, (250_000, 0), beside(), 2, 0.125),
        ("others beside us", TWO_M, (250_000, 0), beside((600_000, 0)), 2, 0.6),
        ("no figure", NO_FIGURE, (250_000, 0), beside((600_000, 0)), None, 0.6),
        ("one request", NO_FIGURE, (1, 0), beside(), None, 1e-6),
    ],
)
def test_what_a_refusal_teaches(why, message, batch, others, limit, window):
    """The first explanation that holds is taken, and no refusal is left without one."""
    found = pacing.refused(Queue(), message, Load(*batch), others, EARLIER, NOON)
    assert found.limit_tokens == (limit and limit * 1_000_000)
    assert found.window_tokens == pytest.approx(window * 1e6, abs=2)
    assert (found.n_refusals, found.refused_at) == (1, NOON)


def test_a_tier_is_a_limit_until_a_refusal_names_one():
    """5 M by the tier, 2 M by the message: what was named is remembered, the rest is forgotten."""
    found = pacing.refused(Queue(5_000_000), TWO_M, Load(250_000), beside(), EARLIER, NOON)
    later = pacing.refused(found, NO_FIGURE, Load(10_000), beside((90_000, 0)), at(1), at(2))
    assert (found.limit_tokens, later.limit_tokens) == (2_000_000, 2_000_000)
    assert later.window_tokens == 90_000
    assert pacing.window(later, at(30)) == 2_000_000


def test_a_wave_is_refused_once():
    """Eight batches made at once and refused one after the other are one refusal, and the last of
    them knows best how much was admitted; the next one after the pause is the second.
    """
    queue = Queue(2_000_000)
    for n in range(8):
        admitted = beside((250_000 if n > 3 else 0, 0), admitted_at=EARLIER)
        queue = pacing.refused(queue, TWO_M, Load(250_000), admitted, EARLIER, at(n / 60))
    assert (queue.n_refusals, queue.refused_at, queue.window_tokens) == (1, NOON, 250_000)
    second = pacing.refused(queue, TWO_M, Load(250_000), beside(), at(0.1), at(0.2))
    assert second.n_refusals == 2


def test_an_admitted_batch_ends_the_row():
    """Refused three times, then let in, then refused: the pause begins at a minute again."""
    queue = Queue(2_000_000, 400_000, 3, NOON)
    let_in = beside((100_000, 0), admitted_at=at(1))
    found = pacing.refused(queue, TWO_M, Load(300_000), let_in, at(2), at(2))
    assert (pacing.n_in_a_row(queue, at(1)), found.n_refusals) == (0, 1)
    assert pacing.n_in_a_row(queue, EARLIER) == 3
    assert pacing.pause_ends(found.n_refusals, NOON) == at(1 / 60)


@pytest.mark.parametrize(
    ("minutes", "lasts"),
    [(None, False), (-1, False), (0, False), (1, True), (60, True), (61, False)],
)
def test_a_pause_beyond_the_longest_is_a_wrong_clock(minutes, lasts):
    """Up to an hour ahead is a pause; more can only be a clock that was set back."""
    until = None if minutes is None else at(minutes / 60)
    assert pacing.is_paused(until, NOON) == lasts


def shard(state, status, made=-2.0, ended=None, tokens=100):
    """A shard of the ledger, times in hours after noon."""
    ended_at = None if ended is None else at(ended).isoformat()
    tokens = {"n_input_tokens": tokens, "n_cap_tokens": 4 * tokens}
    times = {"submitted_at": at(made).isoformat(), "ended_at": ended_at}
    return {"state": state, "status": status, **tokens, **times}


def test_what_the_queue_holds():
    """Two run (200 tokens), one ended an hour ago (100), one the day before yesterday (0)."""
    rows = [
        shard("submitted", "in_progress", made=-2),
        shard("submitted", "finalizing", made=-1),
        shard("submitted", "validating", made=-0.1),
        shard("collected", "completed", made=-5, ended=-1),
        shard("collected", "expired", made=-72, ended=-48),
        shard("collected", "failed", made=-0.5, ended=-0.4),
        shard("uploaded", None),
        shard("released", None),
    ]
    assert pacing.seen(rows, NOON) == Seen(Load(200, 800), Load(100, 400), at(-1), True)
    assert pacing.seen([], NOON) == Seen()


@given(
    st.integers(1, 10**6),
    st.lists(st.tuples(st.integers(1, 10**6), st.booleans()), max_size=40),
    st.integers(0, 5),
)
def test_a_queue_is_found_whatever_it_counts(true_limit, tries, factor):
    """A queue that counts `factor` times more than we do, or less than it says: after refusals of
    ever smaller batches the window is what it admits, or one request, and it never stands still.
    """
    queue, now = Queue(10**6), NOON
    for n_tokens, names in tries:
        now += timedelta(hours=2)
        window = pacing.window(queue, now)
        assert 1 <= window <= 10**6
        n = min(n_tokens, window)
        if n * (1 + factor) > true_limit:
            said = REFUSED.format(true_limit) if names else NO_FIGURE
            before = window
            queue = pacing.refused(queue, said, Load(n, n * factor), Seen(), now, now)
            assert pacing.window(queue, now) <= max(1, before)
            assert pacing.window(queue, now) < max(2, n)
