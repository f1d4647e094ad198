"""Scratch: a database for one computation, empty before it and gone after it.

Decides how much memory and which folder it may take. Keeps nothing: what lasts is in Parquet.
"""

import atexit
import contextlib
import functools
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb

_BOUNDS = {"memory_limit": "2GB", "preserve_insertion_order": "false"}
_numbers = itertools.count()


@contextlib.contextmanager
def database(
    folder: Path | None = None, n_threads: int | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in bounded memory; what does not fit goes to a folder inside `folder`.

    Without a folder it goes to the system's. Databases that ask for neither a folder nor a number
    of threads share one bound, and start at once.
    """
    if folder or n_threads:
        threads = {"threads": n_threads} if n_threads else {}
        with tempfile.TemporaryDirectory(dir=folder) as spill, _started(spill, **threads) as base:
            yield base
        return
    name = f"scratch{next(_numbers)}"
    try:
        with _engine().cursor() as base:
            base.execute(f"ATTACH ':memory:' AS {name}")
            base.execute(f"USE {name}")
            yield base
    finally:
        with _engine().cursor() as after:
            after.execute(f"DETACH DATABASE IF EXISTS {name}")


@functools.cache
def _engine() -> duckdb.DuckDBPyConnection:
    """The engine of this process: to start one takes longer than to count most tables."""
    spill = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, spill, ignore_errors=True)
    return _started(spill)


def _started(spill: str, **more: int) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={**_BOUNDS, "temp_directory": spill, **more})
