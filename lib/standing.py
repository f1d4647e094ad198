"""Standing: where a run stands, and whether anything may have changed since that was found out.

To count a million requests takes long, and a step that finds nothing new need not. What was found
stands in the ledger beside digests of all that it depends on. It never decides alone to send: what
has changed, or cannot be told, is counted and planned anew.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lib import clock, ledger, models, pacing
from lib import study as studies
from lib.runs import Run
from lib.service import Service

_FACT = "standing"
_PLANNERS = ("answers", "brake", "pacing", "planning", "queues", "shards", "submit", "wanted")
_PLANNERS += (
    "asking",
    "consensus",
    "ranges",
    "said",
    "scratch",
    "tally",
    "votes",
    "weights",
    "decisive/__init__",
)
_PLANNERS += ("decisive/bounds", "decisive/contests", "decisive/waves")


@dataclass(frozen=True)
class Progress:
    """How far a run is: `state` is done, waiting or stopped; `reasons` say why it is not done.

    `to_send` counts by model the lines that are to be sent and have no shard. Where votes that
    cannot matter are not asked, `n_later` may follow by what others say, and `n_spared` will not.
    """

    state: str
    n_requests: int
    n_valid: int
    n_in_flight: int
    n_to_send: int
    n_left: int
    spend_usd: float
    reserved_usd: float
    reasons: tuple[str, ...] = ()
    to_send: Mapping[str, int] = field(default_factory=dict, compare=False)
    n_later: int = 0
    n_spared: int = 0

    def __str__(self) -> str:
        """One honest line: what is in, under way, still to send, and left for review."""
        line = (
            f"{self.state}: {self.n_valid:,} of {self.n_requests:,} answered, {self.n_in_flight:,} "
            f"in flight, {self.n_to_send:,} to send, {self.n_left:,} for review"
        )
        line += f", {self.n_later:,} may follow" if self.n_later else ""
        line += f", {self.n_spared:,} spared" if self.n_spared else ""
        return "\n".join([line, *self.reasons])


class Counts(NamedTuple):
    """How many of a run's requests are where; `to_send` by model."""

    n_requests: int
    n_valid: int
    n_in_flight: int
    to_send: dict[str, int]
    n_later: int = 0
    n_spared: int = 0


class Plan(NamedTuple):
    """What planning has concluded: why no more is sent, and when time alone may change that.

    `is_held` when a person or a budget has to change something.
    """

    reasons: tuple[str, ...] = ()
    is_held: bool = False
    changes_at: str | None = None


class Given(NamedTuple):
    """What a command gives to planning: the service, the budget, and its own name (`hold`)."""

    to: Service
    max_usd: float
    canaries_only: bool
    hold: str


def counted(run: Run, book: sqlite3.Connection) -> Counts | None:
    """The counts that were recorded last, if nothing that they depend on has changed."""
    held = _held(book)
    return Counts(*held["counts"]) if held and held["facts"] == _facts(run, book) else None


def planned(run: Run, book: sqlite3.Connection, given: Given) -> Plan | None:
    """What planning concluded last, if it would conclude the same now."""
    held = _held(book)
    if not held or not held["plan"] or counted(run, book) is None:
        return None
    plan = Plan(*held["plan"])
    is_over = plan.changes_at and clock.now() >= datetime.fromisoformat(plan.changes_at)
    if is_over or held["given"] != _given(run, book, given, Counts(*held["counts"])):
        return None
    return plan._replace(reasons=tuple(plan.reasons))


def record(
    run: Run, book: sqlite3.Connection, counts: Counts, given: Given, plan: Plan | None
) -> None:
    """Record what was counted, and what planning has concluded if it came to an end."""
    depends = _given(run, book, given, counts) if plan else None
    held = {"facts": _facts(run, book), "counts": counts, "given": depends, "plan": plan}
    ledger.bind(book, _FACT, json.dumps(held), again=True)


def progress(book: sqlite3.Connection, counts: Counts, plan: Plan, state: str = "") -> Progress:
    """Where a run stands. What is held is stopped, unless what is under way may change it."""
    n_to_send = sum(counts.to_send.values())
    under_way = counts.n_in_flight + n_to_send
    spent_usd, reserved_usd = ledger.money(book)
    open_shards = ledger.shards(book, *ledger.OPEN_STATES)
    if plan.is_held and not state and not any(map(_may_change, open_shards)):
        state = "stopped"
    told = [*plan.reasons, *(shard["error"] for shard in open_shards if shard["error"])]
    return Progress(
        state=state or ("waiting" if under_way else "done"),
        n_requests=counts.n_requests,
        n_valid=counts.n_valid,
        n_in_flight=counts.n_in_flight,
        n_to_send=n_to_send,
        n_left=counts.n_requests - counts.n_valid - under_way - counts.n_later - counts.n_spared,
        spend_usd=spent_usd,
        reserved_usd=reserved_usd,
        reasons=tuple(dict.fromkeys(told)),
        to_send=counts.to_send,
        n_later=counts.n_later,
        n_spared=counts.n_spared,
    )


def _may_change(shard: Mapping[str, Any]) -> bool:
    """Whether a shard is under way, or waits for the end of a pause."""
    not_before = shard["not_before"] and datetime.fromisoformat(shard["not_before"])
    return shard["state"] == "submitted" or pacing.is_paused(not_before or None, clock.now())


def _held(book: sqlite3.Connection) -> dict[str, Any] | None:
    found = ledger.fact(book, _FACT)
    return json.loads(found) if found else None


def _facts(run: Run, book: sqlite3.Connection) -> str:
    """A digest of what is asked, what is answered, and where every shard is."""
    given = [run.path("requests.parquet")]
    if run.study.voting.ask == "decisive":  # items with labels are asked in full
        given.append(Path(run.study.folder) / "gold.csv")
    return studies.digest(
        [
            _stamps([path for path in given if path.is_file()]),
            _stamps(sorted(run.path("outcomes").glob("*.parquet"))),
            run.study.model_dump_json(),
            [(shard["shard"], shard["state"]) for shard in ledger.shards(book)],
            _code(),
        ]
    )


def _given(run: Run, book: sqlite3.Connection, given: Given, counts: Counts) -> str:
    """A digest of everything else on which planning depends.

    With nothing left to send, a batch matters only when it ends or too many of its lines fail.
    """
    shards, bounds = ledger.shards(book), run.study.sending
    names = {shard["model"] for shard in shards} | set(models_of(run))
    depends = [
        (given.to.name, given.to.free, repr(given.to.facts), given.max_usd, given.canaries_only),
        [models.facts(name).model_dump(mode="json") for name in sorted(names)],
        ledger.money(book),
        [
            s["shard"]
            for s in shards
            if pacing.is_failing(s, bounds.canary, bounds.max_failure_share)
        ],
        clock.now().date().isoformat(),
    ]
    if counts.to_send or any(shard["state"] in ("planned", "uploaded") for shard in shards):
        others = (
            path for path in run.folder.parent.glob("*/outcomes") if path.parent != run.folder
        )
        limits = book.execute("SELECT * FROM limits ORDER BY model").fetchall()
        seen = [(shard["shard"], shard["status"], shard["not_before"]) for shard in shards]
        depends += [given.hold, seen, list(map(tuple, limits)), _stamps(sorted(others))]
    return studies.digest(depends)


def models_of(run: Run) -> set[str]:
    """The models that a run may ask: its annotators' and their fallbacks'."""
    annotators = run.study.annotators.values()
    return {name for one in annotators for name in (one.model, *one.fallback)}


def _code() -> list[tuple[str, int, int]]:
    """Stamps of the modules that plan: another version of them may plan otherwise."""
    return _stamps([Path(__file__).parent / f"{name}.py" for name in _PLANNERS])


def _stamps(paths: list[Path]) -> list[tuple[str, int, int]]:
    """Name, size and time of the last change of files and folders."""
    stats = [(str(path), path.stat()) for path in paths]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
