"""Counting: CPU seconds and peak memory of 1 and 10 million votes, each in a process of its own.

Beside them stands the least that the database needs for the same file: one GROUP BY and a file with
the winners. Processors and their load differ, so the ratio says more than the seconds.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet

N_ITEMS = {"1M": 250_000, "10M": 2_500_000}
LABELS = ["calm", "angry", "mixed"]
PANEL = {"terra": 1, "luna": 3}  # repeats of each
BARS = {
    "count 1M": (0.5, 0.6),
    "count 10M": (2.0, 0.6),
    "write 1M": (1.0, 0.5),
    "write 10M": (7.0, 1.0),
}  # CPU seconds and GB
_SAID = "{labels}[1 + (hash(i * 7 + w * 13) % 3)::INTEGER]"
_ITEM = "'item-' || lpad(i::VARCHAR, 8, '0') AS item"
# Votes from anywhere, and those of a study.
_VOTES = f"SELECT {_ITEM}, 'worker-' || w AS worker, {_SAID} AS label"
_STUDY = f"""
SELECT {_ITEM}, 'mood' AS field, if(w = 0, 'terra', 'luna') AS annotator,
    greatest(w - 1, 0) AS repeat, 'm' AS model, true AS simulated,
    if(hash(i, w) % 50 = 0, 'missing', NULL) AS abstained,
    if(abstained IS NULL, {_SAID}, NULL) AS value
"""
# A run in which nobody names anything.
_EMPTY = {
    "mentions": {"item": "string", "field": "string", "key": "string", "name": "string"}
    | {"annotator": "string", "repeat": "int64", "n": "int64", "attributes": "string"}
    | {"weight": "double"},
    "documents": dict.fromkeys(("item", "document", "sha256", "text"), "string")
    | {"start": "int64"},
}
_EACH = " FROM range({n_items}) items(i), range(4) workers(w) {order}"
_LEAST = """
SELECT item, CASE WHEN n0 > n1 AND n0 > n2 THEN 'calm' WHEN n1 > n0 AND n1 > n2 THEN 'angry'
    WHEN n2 > n0 AND n2 > n1 THEN 'mixed' END AS value, n0, n1, n2
FROM (SELECT item, {counts} FROM '{votes}' GROUP BY item)
"""


def main() -> int:
    """Make the files and measure; gives 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.counting", description=__doc__)
    parser.add_argument(
        "--one", nargs=3, metavar=("WHAT", "VOTES", "TARGET"), help=argparse.SUPPRESS
    )
    parser.add_argument("--shuffled", action="store_true", help="votes in a random order")
    given = parser.parse_args()
    if given.one:
        what, votes, target = given.one
        return _measure(TASKS[what], Path(votes), Path(target))
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for size, n_items in N_ITEMS.items():
            votes, target = Path(folder) / f"{size}.parquet", Path(folder) / "out.parquet"
            order = "ORDER BY hash(i, w)" if given.shuffled else ""
            _make(_VOTES, votes, n_items, order)
            least = _apart("least", votes, target)
            _say("least", size, least, least)
            missed += _say("count", size, _apart("count", votes, target), least)
            _make(_STUDY, votes, n_items, order)
            missed += _say("write", size, _apart("write", votes, target), least)
    return int(missed > 0)


def _make(query: str, votes: Path, n_items: int, order: str) -> None:
    """A file of votes, four an item, made by a process that ends."""
    query = (query + _EACH).format(labels=LABELS, n_items=n_items, order=order)
    code = f"import duckdb; duckdb.sql({query!r}).write_parquet({str(votes)!r}, compression='zstd')"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def _apart(what: str, votes: Path, target: Path) -> dict[str, float]:
    """What a task took in a new process."""
    words = ["-m", "benchmarks.counting", "--one", what, str(votes), str(target)]
    done = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def _say(what: str, size: str, found: dict[str, float], least: dict[str, float]) -> bool:
    """Print a line; gives whether the bar is missed."""
    most_seconds, most_gb = BARS.get(f"{what} {size}", (float("inf"), float("inf")))
    is_missed = found["seconds"] > most_seconds or found["peak_gb"] > most_gb
    ratio = found["seconds"] / least["seconds"]
    bar = f", bar {most_seconds:g} s and {most_gb:g} GB" if f"{what} {size}" in BARS else ""
    numbers = f"{found['seconds']:.2f} CPU s, {found['peak_gb']:.2f} GB, ratio {ratio:.1f}"
    print(f"{what:7}{size:>4} votes: {numbers}{bar}{': MISSED' if is_missed else ''}", flush=True)
    return is_missed


def _measure(task: Callable[[], Callable[[Path, Path], object]], votes: Path, target: Path) -> int:
    """Do one task here; imports are not counted, the memory of the whole process is."""
    work = task()
    start = time.process_time()
    work(votes, target)
    seconds = time.process_time() - start
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"seconds": seconds, "peak_gb": peak_gb}))
    return 0


def _least() -> Callable[[Path, Path], object]:
    from lib import scratch  # noqa: PLC0415 - each process loads its own part

    def work(votes: Path, target: Path) -> None:
        counts = [f"count(*) FILTER (label = '{one}') AS n{n}" for n, one in enumerate(LABELS)]
        query = _LEAST.format(counts=", ".join(counts), votes=votes)
        with scratch.database(n_threads=1) as base:
            base.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")

    return work


def _count() -> Callable[[Path, Path], object]:
    from lib import counting  # noqa: PLC0415 - as above

    return lambda votes, target: counting.write(votes, target, LABELS)


def _write() -> Callable[[Path, Path], object]:
    from lib import aggregate, runs  # noqa: PLC0415 - as above
    from lib.study import Study  # noqa: PLC0415 - as above

    values = {name: {"description": "-"} for name in LABELS}
    panel = {name: {"model": "m", "repeats": n} for name, n in PANEL.items()}
    study = Study.model_validate(
        {
            **dict.fromkeys(("name", "title", "question", "folder"), "moods"),
            "corpus": {"all": {"path": "*.txt"}},
            "fields": {"mood": {"description": "-", "values": values}},
            "panel": "p",
            "panels": {"p": {"annotators": panel}},
            "prompt": "{fields}",
        }
    )

    def work(votes: Path, _: Path) -> None:
        """What notebook 05 does with votes.parquet, where nobody names anything."""
        with tempfile.TemporaryDirectory() as folder:
            run = runs.Run("moods", Path(folder), study)
            run.path("votes.parquet").symlink_to(votes)
            for name, columns in _EMPTY.items():
                table = pyarrow.schema(columns).empty_table()
                pyarrow.parquet.write_table(table, run.path(f"{name}.parquet"))
            aggregate.write(run)

    return work


TASKS = {"least": _least, "count": _count, "write": _write}

if __name__ == "__main__":
    sys.exit(main())
