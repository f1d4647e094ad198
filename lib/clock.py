"""The clock by which the loop lives: what time it is, how long something takes, and waiting.

Durations come from the monotonic clock, the wall clock is for people and for the service's
timestamps. A simulation puts another clock in, so that days of waiting pass in a moment.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Clock:
    """Seconds since 1970, seconds that only grow, and a way to let seconds pass."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]


_clocks = [Clock(time.time, time.monotonic, time.sleep)]


def now() -> datetime:
    """The time, in UTC."""
    return datetime.fromtimestamp(_clocks[-1].wall(), UTC)


def monotonic() -> float:
    """Seconds that no step of the wall clock changes; only differences mean something."""
    return _clocks[-1].monotonic()


def sleep(seconds: float) -> None:
    """Wait."""
    _clocks[-1].sleep(seconds)


@contextlib.contextmanager
def running(clock: Clock) -> Iterator[None]:
    """Live by another clock, as long as the block lasts.

    >>> with running(Clock(lambda: 0.0, lambda: 0.0, lambda seconds: None)):
    ...     now().year
    1970
    """
    _clocks.append(clock)
    try:
        yield
    finally:
        _clocks.remove(clock)
