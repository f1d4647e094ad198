"""Whether files are whole: one look at a file, and a reader that looks all the while."""

import contextlib
import gzip
import json
import os
import threading
import time
import zlib
from pathlib import Path

import pyarrow.parquet


def is_final(path):
    """Whether a file stands under its final name."""
    return path.is_file() and not is_passing(path.name)


def is_passing(name):
    """Whether a name is that of a file in the making, or of the ledger, which is SQLite's own."""
    return name.startswith((".", "ledger."))


def fault_in(path):
    """Why a file under its final name is not whole, if so; a file that is gone is no fault."""
    try:
        if path.suffix == ".parquet":
            pyarrow.parquet.read_table(path)
        elif path.suffix == ".gz":
            gzip.decompress(path.read_bytes())
        elif path.suffix == ".jsonl":
            raw = path.read_bytes()
            for row in raw.removesuffix(b"\n").split(b"\n"):
                json.loads(row)
            return None if raw.endswith(b"\n") else f"{path.name} ends in the middle of a line"
        elif path.suffix in (".json", ".ipynb"):
            json.loads(path.read_bytes())
        elif path.suffix == ".html" and not path.read_bytes().rstrip().endswith(b"</html>"):
            return f"{path.name} is cut"
    except FileNotFoundError:
        return None
    except (ValueError, OSError, EOFError, zlib.error, pyarrow.ArrowException) as error:
        return f"{path.name} is not whole: {error}"
    return None


class Reader(threading.Thread):
    """Reads a run's files again and again while it is disturbed, each version of a file once.

    What it finds stands in `readings`. Since files are replaced and never changed, a version is
    known by its inode and its time.
    """

    def __init__(self, folder: Path, pause_seconds: float = 0.03):
        super().__init__(daemon=True)
        self.folder, self.pause_seconds = folder, pause_seconds
        self.readings, self.n_read = [], 0
        self._over, self._read = threading.Event(), {}

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self.join()
        self.look()

    def run(self):
        """Look, until the block ends."""
        while not self._over.is_set():
            self.look()
            time.sleep(self.pause_seconds)

    def look(self, folder=None):
        """Read what is new; a folder that goes away meanwhile is looked at the next time."""
        with contextlib.suppress(FileNotFoundError), os.scandir(folder or self.folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    self.look(entry.path)
                elif not is_passing(entry.name):
                    self._look_at(entry)

    def _look_at(self, entry):
        """Read a version of a file, unless it was read before."""
        try:
            stat = entry.stat()
        except FileNotFoundError:
            return
        version = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if self._read.get(entry.path) == version:
            return
        self._read[entry.path], self.n_read = version, self.n_read + 1
        fault = fault_in(Path(entry.path))
        if fault:
            self.readings.append(fault)
