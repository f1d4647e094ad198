"""Check: everything that a run keeps is read again, and what can be derived is put right.

Nothing that it repairs costs money, and nothing is thrown away: what is damaged stays under another
name. The ledger alone cannot be derived, since no listing says for certain what was never sent. So
a copy of it is laid beside it whenever a process lets go of the run, and put back from there: what
has been sent since is adopted by the audit before anything else is sent.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from lib import (
    audit,
    batches,
    clock,
    diary,
    dispatch,
    ledger,
    prompts,
    repairs,
    runs,
    sent,
    service,
    versions,
    words,
    yamls,
)
from lib import study as studies
from lib.errors import ServiceError, VotebookError
from lib.repairs import UNREADABLE, Finding, Place
from lib.runs import Run
from lib.service import Service

_INCIDENTS = {
    "double": "second batches of lines that were sent: cancelled, counted at their worst case",
    "results_gone": "batches whose results the service has lost: counted at their worst case",
    "strange_lines": "result files with lines that belong to no request",
    "orphan_file": "uploads that belong to no open shard",
}
_ENDINGS = ("_output.jsonl.gz", "_error.jsonl.gz", ".parquet")


def check(run: Run, to: Service | None = None) -> pd.DataFrame:
    """Read everything of a run again and repair it: one row for each thing that was looked at.

    Columns: part, what, state (good, repaired, noted, lost), detail. With a service, what is
    missing here is downloaded again and what the ledger does not know is adopted. While another
    process works on the run, nothing is changed. Raises VotebookError for a later version's ledger.
    """
    with _held(run) as busy:
        found = [*busy, *_findings(run, to, mends=not busy)]
    return pd.DataFrame(found, columns=list(Finding._fields))


def connected(run: Run) -> Service | None:
    """The service with which a run was begun, by its ledger or the copy of it; none before that."""
    for name in ("ledger.sqlite", dispatch.COPY):
        if repairs.fault(run.path(name)) is None:
            with ledger.open_ledger(run.path(name), read_only=True) as book:
                return service.connect(str(ledger.fact(book, "service")))
    return None


@contextlib.contextmanager
def _held(run: Run) -> Iterator[list[Finding]]:
    """The run held, or the finding that it is not."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(dispatch.holding(run))
            busy = []
        except VotebookError as error:
            busy = [Finding("run", run.name, "noted", f"{error} Nothing is repaired meanwhile.")]
        yield busy


def _findings(run: Run, to: Service | None, *, mends: bool) -> Iterator[Finding]:
    yield from _leftovers(run, mends=mends)
    yield _study(run)
    yield from _tables(run)
    state = repairs.of_ledger(run, mends=mends)
    yield state
    if state.state == "lost" or not run.path("ledger.sqlite").is_file():
        return
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=not mends) as book:
        place = Place(run, book, to, mends)
        yield from _lines(place)
        yield from _audited(place)
        for shard in ledger.shards(book):
            if shard["state"] != "released":
                yield from repairs.of_shard(place, shard)
        yield from _strays(place)
        yield from _under_way(place)
        yield from _incidents(book)
        if mends:
            versions.copy(book, run.path(dispatch.COPY))
            diary.write(book, run.path("events.jsonl"))


def _leftovers(run: Run, *, mends: bool) -> Iterator[Finding]:
    """Files that a crash has left half written, or downloaded and not put in place."""
    for path in sorted([*run.folder.rglob(".*.part"), *run.folder.rglob("*.again")]):
        pid = path.name.split(".")[-2]
        lives = path.suffix == ".part" and pid.isdigit() and psutil.pid_exists(int(pid))
        if lives and int(pid) != os.getpid():
            continue
        if mends:
            path.unlink()
        state, detail = ("repaired", "removed") if mends else ("noted", "left by a crash")
        yield Finding("files", path.name, state, detail)


def _study(run: Run) -> Finding:
    """The frozen study against its own digests."""
    path = run.path("study.lock.yml")
    try:
        held, _ = yamls.read(path)
        changed = [
            p for p, sha in held["sha256"].items() if studies.digest(held["study"][p]) != sha
        ]
    except (VotebookError, KeyError, TypeError, OSError) as error:
        return Finding("study", path.name, "lost", f"unreadable ({error}). Run 01 again")
    detail = f"{', '.join(changed)} changed by hand. Run 01 again" if changed else ""
    return Finding("study", path.name, "noted" if changed else "good", detail)


def _tables(run: Run) -> Iterator[Finding]:
    """Every table to its last row; documents and requests also against each other."""
    shas: dict[str, str] = {}
    for path in sorted(run.folder.glob("*.parquet")):
        try:
            detail = _read(run, path, shas)
        except UNREADABLE as error:
            made_in = runs.MADE_IN.get(path.stem, "the notebook that wrote it")
            detail = f"unreadable ({str(error)[:100]}). Run {made_in} again; nothing is paid for it"
        yield Finding("tables", path.name, "noted" if detail else "good", detail)


def _read(run: Run, path: Path, shas: dict[str, str]) -> str:
    """What is wrong with a table, if anything; digests of the documents are kept in `shas`."""
    columns = {"documents": ["item", "text", "sha256"]}
    columns["requests"] = ["key", "item", "annotator", "repeat"]
    n_wrong, templates = 0, {}
    for frame in runs.stream(path, columns.get(path.stem), rows=20_000):
        if path.stem == "documents":
            found = [hashlib.sha256(text.encode()).hexdigest() for text in frame["text"]]
            n_wrong += sum(a != b for a, b in zip(found, frame["sha256"], strict=True))
            shas |= dict(zip(frame["item"], found, strict=True))
        elif path.stem == "requests":
            n_wrong += sum(not _asked(run, row, shas, templates) for row in frame.to_numpy())
    again = "01_load_documents and 02_estimate_cost"
    wrong = words.n_of(n_wrong, "row does", "rows do")
    return f"{wrong} not fit their text or the study. Run {again} again" * bool(n_wrong)


def _asked(run: Run, row: Any, shas: dict[str, str], templates: dict[str, str]) -> bool:  # noqa: ANN401 - a row of an array
    """Whether a request's key is that of the question which the study asks about its item."""
    key, item, name, repeat = row
    annotator = run.study.annotators.get(name)
    if annotator is None or item not in shas:
        return False
    if name not in templates:
        templates[name] = prompts.template(run.study, annotator)
    return key == prompts.key(templates[name], shas[item], repeat)


def _lines(place: Place) -> Iterator[Finding]:
    """The ledger's lines against the files that were sent: a flipped bit would send one again."""
    for shard in ledger.shards(place.book, *ledger.OPEN_STATES, "collected"):
        try:
            sent.check_lines(place.book, place.run, shard)
        except sqlite3.DatabaseError as error:
            if place.mends:
                sent.write_lines(place.book, place.run, shard)
            state = "repaired" if place.mends else "noted"
            yield Finding(
                "ledger", shard["shard"], state, f"{error}: it is written anew from there"
            )


def _audited(place: Place) -> Iterator[Finding]:
    """What the service has of this run and the ledger did not know."""
    run_id = ledger.fact(place.book, "run_id")
    if place.to is None or not place.mends or run_id is None:
        return
    last = diary.last(place.book)
    try:
        audit.audit(place.book, place.to, place.run, run_id)
    except VotebookError as error:
        yield Finding("service", place.to.name, "noted", str(error))
        return
    yield Finding("service", place.to.name, "good")
    query = "SELECT DISTINCT shard FROM events WHERE id > ? AND kind = 'submitted'"
    for (shard,) in place.book.execute(query, (last,)).fetchall():
        yield Finding("service", shard, "repaired", "the ledger did not know this batch: adopted")


def _strays(place: Place) -> Iterator[Finding]:
    """Files beside those that the ledger knows, and answers taken over from other runs."""
    rows = ledger.shards(place.book)
    known = {shard["file"] for shard in rows} | {f"{shard['file']}.gz" for shard in rows}
    for shard in rows:
        known |= {f"{shard['batch_id']}{end}" for end in _ENDINGS}
    for folder in ("shards", "answers", "outcomes"):
        for path in sorted(place.run.path(folder).glob("[!.]*")):
            if path.name.startswith("shared-") and path.suffix == ".parquet":
                yield _shared(place, path)
            elif path.name not in known and path.suffix in (".jsonl", ".gz", ".parquet"):
                yield Finding(folder, path.name, "noted", "the ledger does not know it")


def _shared(place: Place, path: Path) -> Finding:
    """A table of answers that another run has paid for; a damaged one is taken over again."""
    try:
        n_rows = sum(len(frame) for frame in runs.stream(path))
    except UNREADABLE as error:
        if place.mends:
            repairs.aside(path, "damaged")
        detail = f"unreadable ({str(error)[:100]}): taken over again with the next step"
        return Finding("outcomes", path.name, "repaired" if place.mends else "noted", detail)
    return Finding("outcomes", path.name, "good", f"{words.n_of(n_rows, 'answer')} of other runs")


def _under_way(place: Place) -> Iterator[Finding]:
    """Batches whose results are not here yet, with the day until which the service keeps them."""
    for shard in ledger.shards(place.book, "submitted"):
        ends_at, detail = shard["expires_at"], "by now"
        try:
            batch = service.retrieve(place.to, shard["batch_id"]) if place.to else {}
        except ServiceError as error:
            yield Finding("batches", shard["batch_id"], "noted", str(error))
            continue
        if batch.get("status") in batches.ENDED:
            ends_at, detail = batches.ended_at(batch), str(batch["status"])
        is_over = ends_at and datetime.fromisoformat(ends_at) <= clock.now()
        if not is_over:
            yield Finding("batches", shard["batch_id"], "good", str(batch.get("status") or ""))
            continue
        days = (place.to.facts.files_expire_days if place.to else None) or 30
        until = datetime.fromisoformat(ends_at) + timedelta(days=days)
        detail = f"{detail}, and not downloaded. Its results are kept until {until:%Y-%m-%d %H:%M}"
        yield Finding("batches", shard["batch_id"], "noted", f"{detail} UTC: advance the run")


def _incidents(book: sqlite3.Connection) -> Iterator[Finding]:
    """What has gone wrong at the service so far, and what it may have cost."""
    events = ledger.events(book)
    for kind, what in _INCIDENTS.items():
        found = events.loc[events["kind"].eq(kind), "detail"]
        if len(found):
            usd = sum(detail.get("at_most_usd", 0.0) for detail in found)
            cost = f", ${usd:.4f} at most" if usd else ""
            yield Finding("events", kind, "noted", f"{len(found):,} {what}{cost}")
