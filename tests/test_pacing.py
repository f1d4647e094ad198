"""Pacing: what a refusal teaches, how long to wait, what queue and budget admit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import pacing

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
