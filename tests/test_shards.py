"""Shards: one model in a file, inside lines, bytes and tokens, and nothing lost or moved."""

import itertools

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import shards
from lib.errors import CorpusError
from lib.shards import MAX_BYTES, Limits


def requests(sizes, n_tokens=None):
    """Requests to one model with these sizes in bytes and tokens."""
    tokens = n_tokens or [1] * len(sizes)
    return pd.DataFrame({"model": "m", "n_bytes": sizes, "n_input_tokens": tokens})


@pytest.mark.parametrize(
    ("frame", "bounds", "numbers"),
    [
        (requests([1] * 4), Limits(max_requests=2), [0, 0, 1, 1]),
        (requests([1] * 5), Limits(max_requests=2), [0, 0, 1, 1, 2]),
        (requests([60, 40, 1]), Limits(max_bytes=100), [0, 0, 1]),  # 60 + 40 = 100 still fits
        (requests([60, 41]), Limits(max_bytes=100), [0, 1]),
        (requests([1] * 3, [50, 50, 1]), Limits(max_tokens=100), [0, 0, 1]),
        (requests([1] * 3, [50, 51, 49]), Limits(max_tokens=100), [0, 1, 1]),
        (requests([1] * 3, [10, 500, 10]), Limits(max_tokens=100), [0, 1, 2]),  # alone
        (requests([1] * 3, [500, 500, 10]), Limits(max_tokens=None), [0, 0, 0]),
        (requests([]), Limits(), []),
    ],
)
def test_limits(frame, bounds, numbers):
    """A shard is closed by the request that would pass a limit."""
    assert shards.pack(frame, bounds).tolist() == numbers


def test_limits_of_the_service():
    """50,000 lines and 209,715,200 bytes fill a file; one more of either begins another."""
    lines = shards.pack(requests([10] * 50_001), Limits())
    assert lines.value_counts().to_dict() == {0: 50_000, 1: 1}
    half = MAX_BYTES // 2
    assert MAX_BYTES == 200 * 1024 * 1024 == 209_715_200
    assert shards.pack(requests([half, half, 1]), Limits()).tolist() == [0, 0, 1]
    assert shards.pack(requests([half, half + 1]), Limits()).tolist() == [0, 1]
    assert shards.pack(requests([MAX_BYTES, 1]), Limits()).tolist() == [0, 1]


def test_request_beyond_a_file_is_refused():
    """A line that no file can hold stops here, not at the service."""
    with pytest.raises(CorpusError) as caught:
        shards.pack(requests([5, MAX_BYTES + 1]), Limits())
    assert str(caught.value) == (
        "one request has 209,715,201 bytes, and a file may have 209,715,200. "
        "Lower items: max_tokens in study.yml."
    )


@pytest.mark.parametrize(
    ("max_requests", "window", "expected"),
    [
        (50_000, 2_000_000, Limits(50_000, MAX_BYTES, 250_000)),
        (100, 90_000, Limits(100, MAX_BYTES, 11_250)),
        (80_000, None, Limits(50_000, MAX_BYTES, None)),
        (10, 7, Limits(10, MAX_BYTES, 1)),  # a tiny window is no missing one
    ],
)
def test_share_of_the_window(max_requests, window, expected):
    """A shard takes an eighth of what the queue admits, inside the service's own limits."""
    assert shards.limits(max_requests, window) == expected


def test_one_model():
    """Requests to two models never get into one file."""
    mixed = pd.DataFrame({"model": ["b", "a"], "n_bytes": 1, "n_input_tokens": 1})
    with pytest.raises(ValueError, match="one shard, one model: got a, b"):
        shards.pack(mixed, Limits())


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), max_size=60),
    st.integers(1, 10),
    st.integers(100, 400),
    st.none() | st.integers(1, 300),
)
def test_shards_lose_nothing(rows, max_requests, max_bytes, max_tokens):
    """Joined, the shards are the requests in order; none passes a limit but a lone large one."""
    frame = requests([size for size, _ in rows], [n for _, n in rows])
    frame.index = frame.index[::-1]
    bounds = Limits(max_requests, max_bytes, max_tokens)
    parts = [part for _, part in frame.groupby(shards.pack(frame, bounds), sort=True)]
    if parts:
        pd.testing.assert_frame_equal(pd.concat(parts), frame)
    for part, following in itertools.zip_longest(parts, parts[1:]):
        n_tokens = part["n_input_tokens"].sum()
        assert len(part) <= max_requests
        assert part["n_bytes"].sum() <= max_bytes
        assert max_tokens is None or n_tokens <= max_tokens or len(part) == 1
        if following is not None:  # no shard is closed early
            first = following.iloc[0]
            assert (
                len(part) == max_requests
                or part["n_bytes"].sum() + first["n_bytes"] > max_bytes
                or n_tokens + first["n_input_tokens"] > max_tokens
            )
