"""Queues: what the ledger remembers of each model's queue, put before `pacing` and recorded again.

A refusal of the queue is a wait, never a failure: no line has an outcome because of it. It holds
back its own model alone. Decides nothing by itself.
"""

import sqlite3
from datetime import datetime
from typing import Any

from lib import clock, ledger, models, pacing
from lib.pacing import Load, Queue, Seen
from lib.runs import Run


def known(run: Run, book: sqlite3.Connection, model: str) -> Queue:
    """What is known of a model's queue: what refusals have taught, else the study's tier."""
    held = ledger.limits(book).get(model) or dict.fromkeys(
        ["limit_tokens", "window_tokens", "refused_at"]
    )
    tier_tokens = models.facts(model).queue_tokens.get(run.study.sending.tier)
    return Queue(
        limit_tokens=held["limit_tokens"] or tier_tokens,
        window_tokens=held["window_tokens"],
        n_refusals=held.get("n_refusals", 0),
        refused_at=_time(held["refused_at"]),
        is_named=held["limit_tokens"] is not None,
    )


def window_tokens(run: Run, book: sqlite3.Connection, model: str) -> int | None:
    """How many tokens a model's queue may hold now; None without any bound."""
    return pacing.window(known(run, book, model), clock.now())


def seen(book: sqlite3.Connection, model: str, but: str = "") -> Seen:
    """What the ledger knows of the batches in a model's queue, `but` one shard."""
    mine = (s for s in ledger.shards(book) if s["model"] == model and s["shard"] != but)
    return pacing.seen(mine, clock.now())


def refuse(run: Run, book: sqlite3.Connection, shard: dict[str, Any], message: str) -> None:
    """Take a batch that its queue has refused back to uploaded, and learn from the message."""
    model, now = shard["model"], clock.now()
    queue, beside = known(run, book, model), seen(book, model, but=shard["shard"])
    load = Load(shard["n_input_tokens"], shard["n_cap_tokens"])
    made_at = _time(shard["submitted_at"]) or now
    found = pacing.refused(queue, message, load, beside, made_at, now)
    _learn(book, model, queue, found, pacing.learned_limit(message))
    facts = {"batch_id": None, "status": None, "error": message, **_pause(found)}
    ledger.move(book, shard["shard"], "submitted", "uploaded", **facts)


def hold_back(
    run: Run, book: sqlite3.Connection, shard: dict[str, Any], *, is_final: bool
) -> dict[str, Any]:
    """Record that a call for a shard was refused; gives what the shard records: its pause.

    After one that asking again does not change, the first pause is none: a person may have mended
    its cause.
    """
    queue = known(run, book, shard["model"])
    found = pacing.held_back(queue, seen(book, shard["model"]), clock.now())
    _learn(book, shard["model"], queue, found, None)
    return _pause(found, n_free=int(is_final))


def is_paused(shards: list[dict[str, Any]]) -> bool:
    """Whether any of a model's shards still waits for the end of a pause."""
    return any(pacing.is_paused(_time(shard["not_before"]), clock.now()) for shard in shards)


def _learn(
    book: sqlite3.Connection, model: str, queue: Queue, found: Queue, named: int | None
) -> None:
    facts = {
        "limit_tokens": named,
        "window_tokens": found.window_tokens,
        "n_refusals": found.n_refusals,
        "refused_at": found.refused_at.isoformat() if found.refused_at else None,
    }
    if named is None:
        del facts["limit_tokens"]
    if named is not None or found != queue:
        ledger.learn(book, model, **facts)


def _pause(queue: Queue, n_free: int = 0) -> dict[str, Any]:
    """How often in a row the service has refused, and until when the model waits by itself."""
    ends_at = pacing.pause_ends(queue.n_refusals - n_free, queue.refused_at or clock.now())
    waits = queue.n_refusals < pacing.HOPELESS  # after that, a person is asked
    return {
        "n_refusals": queue.n_refusals,
        "not_before": ends_at.isoformat() if waits else None,
    }


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
