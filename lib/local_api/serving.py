"""One service process: its lock, its socket, its endpoint file, its end.

It holds the state folder alone, listens on loopback alone, and leaves by itself when nobody needs
it for as long as was agreed.
"""

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import uvicorn

from lib.local_api import app, clock, context, engine, launch, store, workers

LOOPBACK = "127.0.0.1"
IDLE_CHECK_SECONDS = 0.25


@dataclass(frozen=True)
class Process:
    """How the process runs; `idle_exit_seconds` of 0 means that it never leaves by itself."""

    state: Path
    port: int
    token: str | None
    speed: float
    idle_exit_seconds: float
    endpoint: Path | None
    settings: context.Settings


def run(process: Process) -> int:
    """Serve until told to stop; returns the exit code."""
    os.umask(0o077)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    state = process.state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(state / "service.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        sys.stderr.write(
            f"Another local service already works on {state}: use that one, or another --state.\n"
        )
        return launch.EXIT_BUSY
    with lock:
        return _hold(process, state)


def _hold(process: Process, state: Path) -> int:
    """Open the state and the socket, and serve."""
    db = store.opened(state)
    now = clock.resumed(store.saved_clock(db), process.speed)
    store.keep_setting(db, "clock", json.dumps(asdict(now)))
    token = process.token or store.setting(db, "token") or secrets.token_urlsafe(24)
    store.keep_setting(db, "token", token)
    store.tidy(db, state, clock.now(now))
    listener = _listener(process.port, int(store.setting(db, "port") or 0))
    store.keep_setting(db, "port", str(listener.getsockname()[1]))
    service = context.Service(state, token, process.settings, now, db, workers.pool())
    endpoint = process.endpoint or state / launch.ENDPOINT
    try:
        asyncio.run(_serve(service, listener, endpoint, process.idle_exit_seconds))
    finally:
        endpoint.unlink(missing_ok=True)
        service.workers.shutdown(wait=False, cancel_futures=True)
        db.close()
    return 0


def _listener(port: int, last_port: int) -> socket.socket:
    """A socket on loopback; when any port will do, the last one is tried first."""
    for candidate in (last_port, 0) if port == 0 else (port,):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, candidate))
        except OSError:
            listener.close()
            if candidate == port:
                raise
        else:
            return listener
    raise AssertionError("port 0 binds or raises")


async def _serve(
    service: context.Service, listener: socket.socket, endpoint: Path, idle_exit_seconds: float
) -> None:
    """Answer requests and let unfinished batches go on, until a signal or idleness ends it."""
    config = uvicorn.Config(
        app.application(service),
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    for row in store.unfinished(service.db):
        engine.start(service, row["id"])
    watching = asyncio.create_task(_watch(service, server, listener, endpoint, idle_exit_seconds))
    await server.serve(sockets=[listener])
    watching.cancel()


async def _watch(
    service: context.Service,
    server: uvicorn.Server,
    listener: socket.socket,
    endpoint: Path,
    idle_exit_seconds: float,
) -> None:
    """Announce the service when it is ready, and end it when it has been idle for long enough."""
    while not server.started:
        await asyncio.sleep(0.005)
    _announce(service, listener.getsockname()[1], endpoint)
    workers.warm(service)
    while True:
        await asyncio.sleep(IDLE_CHECK_SECONDS)
        idle_seconds = time.monotonic() - service.last_request_at
        busy = service.n_open_requests or service.tasks
        if idle_exit_seconds and not busy and idle_seconds >= idle_exit_seconds:
            server.should_exit = True


def _announce(service: context.Service, port: int, endpoint: Path) -> None:
    """Write the endpoint file, and say how to point a client at the service."""
    base_url = f"http://{LOOPBACK}:{port}/v1"
    facts = {"base_url": base_url, "token": service.token, "pid": os.getpid()}
    endpoint.parent.mkdir(parents=True, exist_ok=True)
    fresh = endpoint.with_name(f".{endpoint.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        json.dump(facts, handle)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(endpoint)
    sys.stdout.write(
        f"The local Batch API is ready. Any OpenAI client speaks to it after:\n\n"
        f"  export OPENAI_BASE_URL={base_url}\n  export OPENAI_API_KEY={service.token}\n\n"
        f"Its answers are simulated. State: {service.state}. Ctrl+C ends it.\n"
    )
    sys.stdout.flush()
