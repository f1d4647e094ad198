"""One service process: its lock, its socket, its endpoint file, its end.

It holds the state folder alone, listens on loopback alone, and leaves by itself when nobody needs
it for as long as was agreed.
"""

import asyncio
import contextlib
import functools
import json
import logging
import os
import secrets
import shlex
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import uvicorn

from lib import errors
from lib.local_api import app, clock, context, engine, launch, store, upstream, workers
from lib.local_api.faults import keeping

LOOPBACK = "127.0.0.1"
WATCH_SECONDS = 0.1
KEEP_ALIVE_SECONDS = 75
EXIT_CANNOT = 74


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
    upstream: upstream.Settings | None
    faults: Path | None


def run(process: Process) -> int:
    """Serve until told to stop; returns the exit code."""
    os.umask(0o077)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    state = process.state.resolve()
    try:
        state.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(state / "service.lock", timeout=0):
            return _hold(process, state)
    except filelock.Timeout:
        return _sorry(
            f"Another local service already works on {state}: use that one, or another --state.",
            launch.EXIT_BUSY,
        )
    except errors.ServiceError as error:
        return _sorry(str(error), EXIT_CANNOT)
    except (OSError, sqlite3.DatabaseError) as error:
        return _sorry(f"The local service cannot work on {state}: {error}.", EXIT_CANNOT)


def _sorry(sentence: str, exit_code: int) -> int:
    """Say in one sentence why there is no service."""
    sys.stderr.write(f"{sentence}\n")
    return exit_code


def _hold(process: Process, state: Path) -> int:
    """Open the state and the socket, and serve."""
    rules = keeping.from_file(process.faults) if process.faults else None
    db = store.opened(state)
    now = clock.resumed(store.saved_clock(db), process.speed)
    store.keep_setting(db, "clock", json.dumps(asdict(now)))
    token = process.token or store.setting(db, "token") or secrets.token_urlsafe(24)
    store.keep_setting(db, "token", token)
    store.tidy(db, state, clock.now(now))
    listener = _listener(process.port, int(store.setting(db, "port") or 0))
    store.keep_setting(db, "port", str(listener.getsockname()[1]))
    service = context.Service(state, token, process.settings, now, db, workers.pool())
    keeping.restore(service, rules)
    endpoints = [path for path in (state / launch.ENDPOINT, process.endpoint) if path]
    try:
        asyncio.run(_connected(process, service, listener, endpoints))
    finally:
        for endpoint in endpoints:
            _withdraw(endpoint)
        service.workers.shutdown(wait=False, cancel_futures=True)
        db.close()
    return 0


def _listener(port: int, last_port: int) -> socket.socket:
    """A socket on loopback; when any port will do, the last one is tried first."""
    for candidate in (last_port, 0) if port == 0 else (port,):
        # subtle: asyncio sends without delay only if the protocol is named; 40 ms a request else
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, candidate))
        except OSError as error:
            listener.close()
            if candidate == port:
                raise OSError(f"port {port} of {LOOPBACK} cannot be had ({error})") from error
        else:
            return listener
    raise AssertionError("port 0 binds or raises")


async def _connected(
    process: Process, service: context.Service, listener: socket.socket, endpoints: list[Path]
) -> None:
    """Serve, with an open connection to the upstream if there is one."""
    async with contextlib.AsyncExitStack() as stack:
        if process.upstream:
            service.upstream = await stack.enter_async_context(upstream.opened(process.upstream))
        await _serve(service, listener, endpoints, process.idle_exit_seconds)
        # Before the connection closes, or what is under way would be answered with a fault.
        tasks = list(service.tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(
    service: context.Service,
    listener: socket.socket,
    endpoints: list[Path],
    idle_exit_seconds: float,
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
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    service.is_leaving = lambda: server.should_exit
    service.network = context.Network(
        functools.partial(_hang_up, server),
        functools.partial(_close_port, server, listener.getsockname()[1]),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    for row in store.unfinished(service.db):
        engine.start(service, row["id"])
    announce = functools.partial(_announce, service, listener.getsockname()[1], endpoints)
    watching = asyncio.create_task(_watch(service, server, announce, idle_exit_seconds))
    await server.serve(sockets=[listener])
    watching.cancel()


def _hang_up(server: uvicorn.Server, caller: tuple[str, int] | None) -> None:
    """Close the connection of a caller, or of all, after what was sent on it."""
    for connection in list(server.server_state.connections):
        if caller in (None, connection.client):
            connection.transport.close()


async def _close_port(server: uvicorn.Server, port: int, seconds: float) -> None:
    """Close all connections and refuse new ones for so many real seconds."""
    for one in server.servers:
        one.close()
    _hang_up(server, None)
    await asyncio.sleep(seconds)
    if server.should_exit or any(one.is_serving() for one in server.servers):
        return
    config = server.config
    protocol = functools.partial(
        config.http_protocol_class,
        config=config,
        server_state=server.server_state,
        app_state=server.lifespan.state,
    )
    create = asyncio.get_running_loop().create_server
    server.servers = [await create(protocol, sock=_listener(port, port), backlog=config.backlog)]


async def _watch(
    service: context.Service,
    server: uvicorn.Server,
    announce: Callable[[], None],
    idle_exit_seconds: float,
) -> None:
    """Announce the service when it is ready; end it when it is idle or its state was removed."""
    held = _identity(service)
    while not server.started:
        await asyncio.sleep(0.005)
    announce()
    workers.warm(service)
    service.last_request_at = time.monotonic()
    while True:
        idle_seconds = time.monotonic() - service.last_request_at
        busy = service.n_open_requests or service.tasks
        is_idle = idle_exit_seconds and not busy and idle_seconds >= idle_exit_seconds
        if is_idle or _identity(service) != held:
            server.should_exit = True
        await asyncio.sleep(WATCH_SECONDS)


def _identity(service: context.Service) -> tuple[int, int] | None:
    """Which file the database is; None when it was removed."""
    try:
        facts = (service.state / "service.sqlite").stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino


def _announce(service: context.Service, port: int, endpoints: list[Path]) -> None:
    """Write the endpoint files, and say how to point a client at the service."""
    base_url = f"http://{LOOPBACK}:{port}/v1"
    for endpoint in endpoints:
        _write_endpoint(endpoint, {"base_url": base_url, "token": service.token})
    sys.stdout.write(
        f"The local Batch API is ready. Any OpenAI client speaks to it after:\n\n"
        f"  export OPENAI_BASE_URL={base_url}\n"
        f"  export OPENAI_API_KEY={shlex.quote(service.token)}\n\n"
        f"Its answers {_whose(service)}. State: {service.state}. Ctrl+C ends it.\n"
    )
    sys.stdout.flush()


def _whose(service: context.Service) -> str:
    """Where the answers come from."""
    if service.upstream is None:
        return "are simulated"
    return f"come from {service.upstream.settings.base_url}"


def _write_endpoint(endpoint: Path, facts: dict) -> None:
    """Write an endpoint file at once and whole, for its owner alone."""
    endpoint.parent.mkdir(parents=True, exist_ok=True)
    fresh = endpoint.with_name(f".{endpoint.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        json.dump({**facts, "pid": os.getpid()}, handle)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(endpoint)


def _withdraw(endpoint: Path) -> None:
    """Remove an endpoint file, unless it is that of another process by now."""
    with contextlib.suppress(OSError, ValueError):
        if json.loads(endpoint.read_text())["pid"] == os.getpid():
            endpoint.unlink()
