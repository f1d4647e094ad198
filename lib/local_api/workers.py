"""Processes that do the work which needs a processor, so that the service always answers.

They hold no state and write no result of their own; a worker that dies costs a repetition.
"""

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from lib.local_api import context

N_WORKERS = 2


def pool() -> ProcessPoolExecutor:
    """New workers, which start with the first work.

    They are not forked from the service itself: such a worker would keep the lock and the socket
    of a service that was killed.
    """
    has_server = "forkserver" in multiprocessing.get_all_start_methods()
    method = multiprocessing.get_context("forkserver" if has_server else "spawn")
    if has_server:
        method.set_forkserver_preload(["lib.local_api.preloaded"])
    return ProcessPoolExecutor(N_WORKERS, mp_context=method, initializer=_leave_with_parent)


def submit(service: context.Service, work: Callable, *arguments: object) -> Future:
    """Hand work to a worker; new workers are made when the old ones have died."""
    try:
        return service.workers.submit(work, *arguments)
    except BrokenProcessPool:
        service.workers = pool()
        return service.workers.submit(work, *arguments)


async def run(service: context.Service, work: Callable, *arguments: object) -> object:
    """The result of work done by a worker."""
    return await asyncio.wrap_future(submit(service, work, *arguments))


def warm(service: context.Service) -> None:
    """Start the workers before there is work."""
    for _ in range(N_WORKERS):
        submit(service, os.getpid)


def _leave_with_parent() -> None:
    """End this worker when the service is gone, even by SIGKILL."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
