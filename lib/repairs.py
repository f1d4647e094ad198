"""Repairs: the ledger and what batches have left on disk, read again to the last byte.

Bytes as sent and as received are the record. What is derived from them is compared with what they
give now and written anew where it differs; they themselves come again from the service as long as
it keeps them. What is replaced stays beside it under another name. Nothing here costs money.
"""

import math
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from lib import collect, dispatch, ledger, results, runs, sent, service, words
from lib.errors import ServiceError, VotebookError
from lib.runs import Run
from lib.service import Service

UNREADABLE = (OSError, EOFError, zlib.error, pyarrow.ArrowException)
_PASSING = ("is locked", "is full", "readonly", "unable to open")  # no fault of the ledger's
_MISSING, _EMPTY = "is not there", "is empty"
_LABELS = ["spend_usd", "service", "batch", "run"]


class Finding(NamedTuple):
    """What was looked at and how it is: good, repaired, noted, or lost."""

    part: str
    what: str
    state: str
    detail: str = ""


class Place(NamedTuple):
    """A run that is checked: its ledger, its service if it may be asked, whether it may be mended.

    It may not while another process works on it.
    """

    run: Run
    book: sqlite3.Connection
    to: Service | None
    mends: bool


def of_ledger(run: Run, *, mends: bool) -> Finding:
    """The ledger page by page; a missing or damaged one is put back from its copy."""
    path, copy = run.path("ledger.sqlite"), run.path(dispatch.COPY)
    said = fault(path)
    if said is None:
        return Finding("ledger", path.name, "good")
    is_unused = not copy.exists() and not any(run.path("shards").glob("*.jsonl*"))
    if is_unused and said in (_MISSING, _EMPTY):
        return Finding("ledger", path.name, "good", "nothing has been sent")
    if fault(copy):
        fix = "and there is no good copy of it. Begin a new run (--run NAME): it takes over every"
        return Finding("ledger", path.name, "lost", f"{said}, {fix} valid answer")
    if not mends:
        return Finding("ledger", path.name, "noted", f"{said}; its copy can be put back")
    for part in (path, path.with_name(f"{path.name}-journal")):
        if part.exists():
            aside(part, "damaged")
    with runs.replacing(path) as part:
        shutil.copyfile(copy, part)
    made_at = datetime.fromtimestamp(copy.stat().st_mtime, UTC).isoformat(timespec="seconds")
    detail = f"{said}: put back from the copy of {made_at}; what was sent later is adopted"
    return Finding("ledger", path.name, "repaired", detail)


def fault(path: Path) -> str | None:
    """What is wrong with a ledger, if anything.

    Raises VotebookError for a later version's, and when it cannot be read now.
    """
    if not path.is_file() or not path.stat().st_size:
        return _MISSING
    try:
        with ledger.open_ledger(path, read_only=True) as book:
            said = book.execute("PRAGMA integrity_check").fetchone()[0]
            if said == "ok" and book.execute("PRAGMA foreign_key_check").fetchone():
                said = "rows refer to others that are not there"
            if said == "ok" and ledger.fact(book, "run_id") is None:
                return _EMPTY
            return None if said == "ok" else f"is damaged ({said[:100]})"
    except VotebookError as error:
        if "version" in vars(error) or any(word in str(error) for word in _PASSING):
            raise
        return f"is damaged ({error.__context__ or error})"


def of_shard(place: Place, shard: dict[str, Any]) -> Iterator[Finding]:
    """The file of a shard, and what came back of it once its batch is collected."""
    yield _sent(place, shard)
    if shard["state"] == "collected":
        files: list[Path] = []
        received = list(_received(place, shard, files))
        yield from received
        is_whole = all(finding.state != "lost" for finding in received)
        yield _outcomes(place, shard, files if is_whole else None)


def aside(path: Path, why: str) -> Path:
    """Give a file another name beside its own, which says why, and is free."""
    names = (path.with_name(f"{path.name}.{why}{n or ''}") for n in range(1000))
    free = next(name for name in names if not name.exists())
    path.rename(free)
    return free


def _sent(place: Place, shard: dict[str, Any]) -> Finding:
    """A shard's file must have the digest that was sent."""
    plain = place.run.path("shards") / shard["file"]
    packed = plain.with_name(f"{plain.name}.gz")
    there = [path for path in (packed, plain) if path.is_file()]
    good = [path for path in there if sent.digest(path)[0] == shard["sha256"]]
    is_in = shard["state"] == "collected"
    if good and len(there) == 1 and not (is_in and good == [plain]):
        return Finding("shards", good[0].name, "good")
    if good and not place.mends:
        return Finding("shards", good[0].name, "noted", "lies there twice, or not packed")
    if good:
        for path in there:
            if path not in good:
                aside(path, "damaged")
        _pack(plain, good, is_in=is_in)
        return Finding("shards", shard["file"], "repaired", "one good copy is left")
    return _fetch_sent(place, shard, packed, there)


def _pack(plain: Path, good: list[Path], *, is_in: bool) -> None:
    """Leave one good copy: packed when the answers are in, else as it will be sent."""
    if is_in and plain in good:
        service.compress(plain)
    elif len(good) > 1:
        good[0].unlink()


def _fetch_sent(place: Place, shard: dict[str, Any], packed: Path, damaged: list[Path]) -> Finding:
    """Get the bytes of a shard from the service again; they are not needed for any result."""
    what = "is damaged" if damaged else "is not there"
    if shard["state"] in ("planned", "uploading"):
        return Finding(
            "shards", shard["file"], "noted", f"{what}: it is planned anew when next due"
        )
    if place.to is None or not place.mends:
        how = "Check again with the service and when nobody else works on the run"
        return Finding("shards", shard["file"], "lost", f"{what}. {how}")
    newer = packed.with_name(f"{packed.name}.again")
    try:
        service.download(place.to, shard["file_id"], newer)
    except ServiceError as error:
        return Finding("shards", shard["file"], "lost", f"{what}; {error}")
    if sent.digest(newer)[0] != shard["sha256"]:
        newer.unlink()
        return Finding("shards", shard["file"], "lost", f"{what}, and the service has other bytes")
    for path in damaged:
        aside(path, "damaged")
    newer.replace(packed)
    return Finding("shards", shard["file"], "repaired", f"it {what}: downloaded again")


def _received(place: Place, shard: dict[str, Any], files: list[Path]) -> Iterator[Finding]:
    """The result files of a batch, to their last byte; those that can be read go into `files`."""
    if shard["status"] in ("failed", "gone"):
        return
    n_lines, ill = 0, {}
    for kind, count in (("output", "n_completed"), ("error", "n_failed")):
        path = place.run.path("answers") / f"{shard['batch_id']}_{kind}.jsonl.gz"
        n_found = _n_lines(path)
        if n_found is not None:
            files.append(path)
            n_lines += n_found
            yield Finding("answers", path.name, "good", words.n_of(n_found, "line"))
        elif path.is_file() or shard[count]:
            ill[kind] = path
    # A service may put all lines into one file: what is counted is there then.
    if n_lines and n_lines >= (shard["n_completed"] or 0) + (shard["n_failed"] or 0):
        ill = {kind: path for kind, path in ill.items() if path.is_file()}
    for kind, path in ill.items():
        found = _fetch_received(place, shard, kind, path)
        if found.state == "repaired":
            files.append(path)
        yield found


def _n_lines(path: Path) -> int | None:
    """How many lines a result file has; nothing when it is not there, or cut or changed."""
    try:
        return sum(1 for _ in results.lines(path))
    except UNREADABLE:
        return None


def _fetch_received(place: Place, shard: dict[str, Any], kind: str, path: Path) -> Finding:
    """Download a result file again that is damaged or gone, as long as the service keeps it."""
    what = "is damaged" if path.is_file() else "is not there"
    gone = ledger.events(place.book).query("kind == 'results_gone'")["shard"]
    if shard["shard"] in set(gone):
        return Finding("answers", path.name, "noted", "the service had lost it; it is counted")
    if place.to is None or not place.mends:
        how = "Check again with the service and when nobody else works on the run"
        return Finding("answers", path.name, "lost", f"{what}. {how}")
    try:
        batch = service.retrieve(place.to, shard["batch_id"])
        newer = path.with_name(f"{path.name}.again")
        service.download(place.to, str(batch.get(f"{kind}_file_id")), newer)
    except ServiceError as error:
        return Finding("answers", path.name, "lost", f"{what}; {error}")
    if path.is_file():
        aside(path, "damaged")
    newer.replace(path)
    return Finding("answers", path.name, "repaired", f"it {what}: downloaded again")


def _outcomes(place: Place, shard: dict[str, Any], files: list[Path] | None) -> Finding:
    """The outcomes of a batch: one row for each line sent, and what its result files say today."""
    path = place.run.path("outcomes") / f"{shard['batch_id']}.parquet"
    held = _table(path)
    n_sent = len(ledger.sends(place.book, shard["shard"]))
    with tempfile.TemporaryDirectory() as folder:
        derived = Path(folder) / path.name
        try:
            fault = _derive(place, shard, files, derived)
        except VotebookError as error:
            fault = str(error)
        told = _table(derived)
        if told is None:
            is_whole = held is not None and held.num_rows == n_sent
            return Finding("outcomes", path.name, "noted" if is_whole else "lost", fault)
        if held is not None and held.drop_columns(_LABELS).equals(told.drop_columns(_LABELS)):
            return _money(place, shard, path)
        what = "is not there" if held is None and not path.is_file() else "is damaged"
        what = what if held is None else "differs from its result files"
        if not place.mends:
            return Finding("outcomes", path.name, "noted", f"{what}; nobody else may work on it")
        if path.is_file():
            aside(path, "before")
        _derive(place, shard, files, path)
    return Finding("outcomes", path.name, "repaired", f"it {what}: derived again. Run 05 again")


def _derive(place: Place, shard: dict[str, Any], files: list[Path] | None, path: Path) -> str:
    """Write the outcomes of a batch as they follow from its record; says why it cannot be done."""
    if files is None:
        return "its result files are lost, so that it cannot be compared with them"
    if shard["status"] != "failed":
        collect.derive(place.run, place.book, shard, files, path)
        return ""
    if place.to is None:
        return "the batch was refused as a whole: why is known to the service alone"
    batch = service.retrieve(place.to, shard["batch_id"])
    collect.derive_refused(place.run, place.book, shard, batch, path)
    return ""


def _table(path: Path) -> pyarrow.Table | None:
    """An outcome file in the form of today and in the order of its lines; nothing if unreadable."""
    try:
        table = pyarrow.parquet.read_table(path)
        missing = set(collect.COLUMNS) - set(table.column_names)
        for name in missing:
            table = table.append_column(name, pyarrow.nulls(table.num_rows))
        return table.select(collect.COLUMNS).cast(collect.SCHEMA).sort_by("custom_id")
    except UNREADABLE:
        return None


def _money(place: Place, shard: dict[str, Any], path: Path) -> Finding:
    """Whether the spend of an outcome file is what the ledger has settled."""
    spent_usd, settled_usd = collect.spend_usd(path), shard["settled_usd"] or 0.0
    if math.isclose(spent_usd, settled_usd, rel_tol=1e-9, abs_tol=1e-9):
        return Finding("outcomes", path.name, "good")
    what = f"${spent_usd:.6f} by its answers, ${settled_usd:.6f} settled in the ledger"
    return Finding("outcomes", path.name, "noted", what)
