"""The service's own time, which may run faster than the wall clock.

Durations and timestamps of the service are seconds of this clock, so that at a speed of 86,400 the
24 hours of a batch pass in a second. The clock never goes back: a state folder that once ran fast
stays ahead of the wall clock. It decides nothing about batches.
"""

import datetime
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """A line through one pair of instants (Unix seconds): real time and service time."""

    real_at: float
    service_at: float
    speed: float


def now(clock: Clock) -> float:
    """The service time of this moment, in Unix seconds."""
    return service_time(clock, time.time())


def today() -> datetime.date:
    """The day of the wall clock (UTC), by which models retire however fast the service runs."""
    return datetime.datetime.now(datetime.UTC).date()


def service_time(clock: Clock, real: float) -> float:
    """The service time of a real instant.

    >>> service_time(Clock(real_at=100.0, service_at=500.0, speed=60.0), 102.0)
    620.0
    """
    return clock.service_at + (real - clock.real_at) * clock.speed


def real_seconds_until(clock: Clock, instant: float) -> float:
    """Real seconds from now to a service time; zero when it has passed."""
    return max(0.0, (instant - now(clock)) / clock.speed)


def resumed(saved: Clock | None, speed: float) -> Clock:
    """The clock of a process that starts now, going on from the clock of the one before it."""
    real = time.time()
    if saved is None:
        return Clock(real, real, speed)
    return Clock(real, max(service_time(saved, real), saved.service_at), speed)
