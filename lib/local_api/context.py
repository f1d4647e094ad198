"""What every part of the running service shares: its settings, its state and its time.

Plain data. It opens nothing and decides nothing.
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from lib.local_api.clock import Clock
from lib.local_api.faults.switches import Faults
from lib.local_api.upstream import Upstream

MAX_LINES = 50_000
MAX_BATCH_BYTES = 209_715_200
MAX_FILE_BYTES = 536_870_912
MAX_LINE_BYTES = 16_777_216
WINDOW_SECONDS = 86_400
RETENTION_SECONDS = 2_592_000
MAX_BATCHES_PER_HOUR = 2_000

UNFINISHED = ("validating", "in_progress", "finalizing", "cancelling")


@dataclass(frozen=True)
class Settings:
    """How the service behaves; durations are seconds of the service's clock.

    `count_output` makes the queue reserve the completion limit of a request besides its input,
    which some users report. `release_seconds` is how late the queue forgets a batch that ended.
    """

    tier: int = 1
    count_output: bool = False
    release_seconds: float = 0.0
    validating_seconds: float = 0.2
    in_progress_seconds: float = 0.4
    finalizing_seconds: float = 0.1
    cancelling_seconds: float = 0.1


@dataclass(frozen=True)
class Network:
    """What only the server below the application can do, for faults.

    `hang_up` closes the connection of a caller; `close_port` closes all, and lets no new one in for
    so many real seconds.
    """

    hang_up: Callable[[tuple[str, int]], None]
    close_port: Callable[[float], Awaitable[None]]


@dataclass
class Service:
    """The running service."""

    state: Path
    token: str
    settings: Settings
    clock: Clock
    db: sqlite3.Connection
    workers: Executor
    upstream: Upstream | None = None
    tasks: dict[str, asyncio.Task] = field(default_factory=dict)
    wakers: dict[str, asyncio.Event] = field(default_factory=dict)
    last_request_at: float = field(default_factory=time.monotonic)
    n_open_requests: int = 0
    is_leaving: Callable[[], bool] = lambda: False
    network: Network | None = None
    faults: Faults = field(default_factory=Faults)
