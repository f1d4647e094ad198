"""The ledger: a transactional record of every intent and of every fact about files and batches.

One SQLite file a run, with a rollback journal and full syncs: WAL has a known corruption race in
the SQLite versions still in use. Every change of a shard's state is a compare-and-set, so two
processes can never take the same step. It records; it decides nothing and calls nobody.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib import clock, runs, versions, words
from lib.errors import AccountingError, BudgetError, VotebookError
from lib.runs import crash_point

if TYPE_CHECKING:
    import pandas as pd

# planned > uploading > uploaded > submitting > submitted > collected. A shard that never became a
# batch may be released: its lines are free to be planned anew.
OPEN_STATES = ("planned", "uploading", "uploaded", "submitting", "submitted")
Error = sqlite3.Error
_ID = "(SELECT id FROM shards WHERE shard = ?)"


def now() -> str:
    """The time as the ledger writes it: UTC, to the millisecond."""
    return clock.now().isoformat(timespec="milliseconds")


@contextlib.contextmanager
def open_ledger(path: Path, *, read_only: bool = False) -> Iterator[sqlite3.Connection]:
    """The ledger of a run, created when it is missing; refused when it is newer or damaged.

    A reader finds an empty one when none is there yet, and changes nothing.
    """
    there = path.is_file() and path.stat().st_size > 0
    target = ":memory:" if read_only and not there else f"{path.resolve().as_uri()}?mode=rwc"
    with _faults(path), contextlib.ExitStack() as stack:
        connection = sqlite3.connect(target, uri=True, timeout=10, isolation_level=None)
        stack.enter_context(contextlib.closing(connection))
        versions.prepare(connection, thorough=not read_only)
        connection = versions.bring(connection, path, read_only=read_only)
        stack.enter_context(contextlib.closing(connection))
        connection.row_factory = sqlite3.Row
        # Not opened read-only: SQLite has to roll back what a crash left, also for a reader.
        connection.execute(f"PRAGMA query_only={int(read_only)}")
        yield connection


@contextlib.contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that takes the write lock at once and rolls back on any error.

    Raises VotebookError when the system does not let it write, as on a full disk.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            crash_point("change made")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # on a full disk SQLite has rolled back by itself
                connection.execute("ROLLBACK")
            raise
    except sqlite3.OperationalError as error:
        what = f"the ledger cannot be written ({error}). Nothing is lost by that."
        raise VotebookError(f"{what} {runs.NO_ROOM}") from None
    crash_point("change kept")


def bind(connection: sqlite3.Connection, name: str, value: str, *, again: bool = False) -> str:
    """Record a fact once, or `again`; gives the value that stands there, which may be earlier."""
    held = fact(connection, name)
    if held is not None and (not again or held == value):
        return held
    with writing(connection):
        connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
    return value


def fact(connection: sqlite3.Connection, name: str) -> str | None:
    """A fact recorded by `bind`, if there is one."""
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def plan(
    connection: sqlite3.Connection, shard: dict[str, Any], sends: Iterable[tuple], max_usd: float
) -> None:
    """Record a shard whose file is on disk, with its lines (custom_id, key, attempt).

    A key and an attempt stand here once: a line that any earlier shard holds is refused, so that it
    cannot be paid twice. Raises BudgetError when spend, the worst case in flight and this shard's
    pass `max_usd`, and AccountingError for such a line.
    """
    row = {"state": "planned", **shard, "changed_at": now()}
    query = f"INSERT INTO shards ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"  # noqa: S608 - names are ours
    # In the order of the keys, in which the table grows fastest.
    lines = sorted((_packed(*send), send[2], n) for n, send in enumerate(sends))
    try:
        with writing(connection):
            afford(connection, max_usd, shard)
            shard_id = connection.execute(query, tuple(row.values())).lastrowid
            query = f"INSERT INTO sends (key, attempt, line, shard_id) VALUES (?, ?, ?, {shard_id})"  # noqa: S608 - a number
            connection.executemany(query, lines)
            _note(connection, row["state"], shard["shard"], {"n_requests": shard["n_requests"]})
    except sqlite3.IntegrityError as error:
        what = f"a line of shard {shard['shard']} was sent before and has no outcome ({error})."
        fix = "Nothing is sent twice: put the run's folder outcomes/ back from a copy."
        raise AccountingError(f"{what} {fix}", shard=shard["shard"]) from None


def move(connection: sqlite3.Connection, shard: str, old: str, new: str, **facts: object) -> None:
    """Take a shard from state `old` to `new` and record facts with it, or change nothing.

    Raises AccountingError when the shard is not in `old`: somebody else has taken the step.
    """
    with writing(connection):
        _change(connection, shard, old, {"state": new, "changed_at": now(), **facts})
        _note(connection, new, shard, facts)


def release(connection: sqlite3.Connection, shard: str, old: str, why: str) -> None:
    """Give up a shard that never became a batch: its lines and its money are free again."""
    with writing(connection):
        facts = {"state": "released", "changed_at": now(), "file_id": None, "error": why}
        _change(connection, shard, old, facts)
        connection.execute(f"DELETE FROM sends WHERE shard_id = {_ID}", (shard,))  # noqa: S608 - ours
        _note(connection, "released", shard, {"why": why})


def observe(connection: sqlite3.Connection, shard: str, **facts: object) -> None:
    """Record what the service says of a submitted shard; only news, and counts are no event."""
    held = connection.execute("SELECT * FROM shards WHERE shard = ?", (shard,)).fetchone()
    news = {name: value for name, value in facts.items() if held[name] != value}
    if news:
        with writing(connection):
            _change(connection, shard, "submitted", news)
            if news.keys() - {"n_completed", "n_failed"}:
                _note(connection, "observed", shard, news)


def note(connection: sqlite3.Connection, kind: str, shard: str | None, **detail: object) -> None:
    """Record an event that changes no state: an incident, a refusal, a canary's result."""
    with writing(connection):
        _note(connection, kind, shard, detail)


def lose(connection: sqlite3.Connection, shard: dict[str, Any], kind: str, batch_id: str) -> None:
    """Record, once, that a batch of a shard may have been billed and its answers are lost to us."""
    detail = {"batch_id": batch_id, "at_most_usd": shard["reserved_usd"]}
    told = (kind, shard["shard"], json.dumps(detail))
    with writing(connection):
        query = "SELECT 1 FROM events WHERE kind = ? AND shard = ? AND detail = ?"
        if not connection.execute(query, told).fetchone():
            query = "UPDATE shards SET lost_usd = lost_usd + ? WHERE shard = ?"
            connection.execute(query, (shard["reserved_usd"], shard["shard"]))
            _note(connection, kind, shard["shard"], detail)


def learn(connection: sqlite3.Connection, model: str, **facts: object) -> None:
    """Remember what a refusal has taught about the queue of a model: columns of its limits."""
    names = ", ".join(facts)
    news = ", ".join(f"{name} = excluded.{name}" for name in facts)
    query = f"""INSERT INTO limits (model, {names}) VALUES (?{", ?" * len(facts)})
        ON CONFLICT (model) DO UPDATE SET {news}"""  # noqa: S608 - names are ours
    with writing(connection):
        connection.execute(query, (model, *facts.values()))
        _note(connection, "limit", None, {"model": model, **facts})


def limits(connection: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """What refusals have taught about queues, by model."""
    rows = connection.execute("SELECT * FROM limits").fetchall()
    return {row["model"]: dict(row) for row in rows}


def shards(connection: sqlite3.Connection, *states: str) -> list[dict[str, Any]]:
    """The shards in the given states, or all, in the order in which they were planned."""
    rows = connection.execute("SELECT * FROM shards ORDER BY id").fetchall()
    return [dict(row) for row in rows if not states or row["state"] in states]


def sends(connection: sqlite3.Connection, shard: str) -> "pd.DataFrame":
    """The lines of a shard in the order of its file: custom_id, key, attempt."""
    import pandas as pd

    return pd.DataFrame(lines(connection, shard), columns=["custom_id", "key", "attempt"])


def lines(connection: sqlite3.Connection, shard: str) -> list[tuple[str, str, int]]:
    """What `sends` gives, as plain tuples."""
    from lib import prompts

    query = f"SELECT key, attempt FROM sends WHERE shard_id = {_ID} ORDER BY line"  # noqa: S608 - ours
    found = ((key.hex(), attempt) for key, attempt in connection.execute(query, (shard,)))
    return [(prompts.custom_id(key, attempt), key, attempt) for key, attempt in found]


def in_flight(connection: sqlite3.Connection) -> set[str]:
    """The keys of every line whose shard has no collected end yet."""
    query = f"""SELECT key FROM sends JOIN shards ON id = shard_id WHERE state IN {OPEN_STATES}"""  # noqa: S608 - ours
    return {row[0].hex() for row in connection.execute(query)}


def events(connection: sqlite3.Connection) -> "pd.DataFrame":
    """Everything that happened, oldest first: at, kind, shard, detail (a dict)."""
    import pandas as pd

    rows = connection.execute("SELECT at, kind, shard, detail FROM events ORDER BY id").fetchall()
    table = pd.DataFrame([tuple(row) for row in rows], columns=["at", "kind", "shard", "detail"])
    return table.assign(
        at=pd.to_datetime(table["at"], utc=True), detail=table["detail"].map(json.loads)
    )


def n_events(connection: sqlite3.Connection, kind: str, since: str) -> int:
    """How many events of a kind there were since a time as the ledger writes it."""
    query = "SELECT count(*) FROM events WHERE kind = ? AND at > ?"
    return connection.execute(query, (kind, since)).fetchone()[0]


def money(connection: sqlite3.Connection) -> tuple[float, float]:
    """USD spent, and the worst case of the shards still open.

    What may have been billed and cannot be read counts as spent, at its worst case.
    """
    query = f"""SELECT coalesce(sum(settled_usd), 0) + coalesce(sum(lost_usd), 0),
        coalesce(sum(reserved_usd) FILTER (WHERE state IN {OPEN_STATES}), 0) FROM shards"""  # noqa: S608 - states are ours
    spent_usd, reserved_usd = connection.execute(query).fetchone()
    return spent_usd, reserved_usd


def afford(
    connection: sqlite3.Connection, max_usd: float, shard: dict[str, Any] | None = None
) -> None:
    """Nothing, as long as spend and worst case, with those of a further shard, stay in `max_usd`.

    Raises BudgetError otherwise.
    """
    spent_usd, reserved_usd = money(connection)
    more_usd = shard["reserved_usd"] if shard else 0.0
    needed_usd = spent_usd + reserved_usd + more_usd
    if needed_usd <= max_usd:
        return
    next_ones = words.n_of(shard["n_requests"], "more request") if shard else ""
    more = f", ${more_usd:.4f} at most for {next_ones}" if shard else ""
    raise BudgetError(
        f"${spent_usd:.4f} spent, ${reserved_usd:.4f} at most in flight{more}: that passes max_usd "
        f"${max_usd:.4f}. Nothing more is sent; raise max_usd or draw a smaller sample.",
        needed_usd=needed_usd,
        max_usd=max_usd,
    )


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Say in words what SQLite finds wrong with the file, whenever it finds it."""
    try:
        yield
    except sqlite3.OperationalError as error:
        what = f"the ledger {path} cannot be used now ({error}). Run the same command again."
        raise VotebookError(what, path=str(path)) from None
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        what = f"the ledger {path} is damaged ({error}). `python3 votebook.py check RUN` puts its"
        raise VotebookError(f"{what} last good copy back.", path=str(path)) from None


def _change(connection: sqlite3.Connection, shard: str, old: str, facts: dict[str, object]) -> None:
    """Set columns of a shard that is in state `old`; raises AccountingError when it is not."""
    assignments = ", ".join(f"{name} = ?" for name in facts)
    cursor = connection.execute(
        f"UPDATE shards SET {assignments} WHERE shard = ? AND state = ?",  # noqa: S608 - names are ours
        (*facts.values(), shard, old),
    )
    if cursor.rowcount != 1:
        what = f"shard {shard} is not {old} any more; run the same command again."
        raise AccountingError(what, shard=shard)


def _note(connection: sqlite3.Connection, kind: str, shard: str | None, detail: dict) -> None:
    connection.execute(
        "INSERT INTO events (at, kind, shard, detail) VALUES (?, ?, ?, ?)",
        (now(), kind, shard, json.dumps(detail, default=str)),
    )


def _packed(custom_id: str, key: str, attempt: int) -> bytes:
    """The bytes of a key, by which and the attempt a line is named."""
    from lib import prompts

    if custom_id != prompts.custom_id(key, attempt):
        raise AccountingError(f"line {custom_id} is not named after request {key} ({attempt}).")
    return bytes.fromhex(key)
