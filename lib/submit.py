"""Submitting: from rows that are wanted to batches at the service, inside queue and budget.

A shard's file is durable before its row is in the ledger, its row before the upload, and an intent
before each call. What a definite refusal leaves, or what the study no longer asks, is released;
an unclear end stays an intent for `reconcile`.
"""

import hashlib
import itertools
import json
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet

from lib import clock, collect, ledger, models, pacing, prompts, reconcile, runs, service, shards
from lib import study as studies
from lib.errors import AccountingError, ServiceError, VotebookError
from lib.runs import Run, crash_point
from lib.service import Service
from lib.wanted import health, stopped, wanted

_STALE = "Run 01_load_documents and 02_estimate_cost again: requests.parquet is of another state."


@dataclass(frozen=True)
class Step:
    """One step of the loop: the run, its open ledger, where it sends, and how far it may go."""

    run: Run
    book: sqlite3.Connection
    to: Service
    run_id: str
    max_usd: float
    canaries_only: bool = False

    @property
    def cap_usd(self) -> float:
        """What may be spent: simulated money has no bound unless one is given."""
        return self.max_usd or (float("inf") if self.to.free else 0.0)


def send(step: Step, requests: pd.DataFrame) -> list[str]:
    """Submit what may be submitted now; gives why nothing more is sent to some models.

    Raises BudgetError, ServiceError, or ModelError for what the model would refuse; what was
    planned before then goes on with the next call.
    """
    run, book = step.run, step.book
    outcomes = collect.outcomes(run)
    _withdraw(step, requests, outcomes)
    rows = wanted(requests, outcomes, ledger.in_flight(book), run.study)
    if collect.share(run, rows, free=step.to.free):
        outcomes = collect.outcomes(run)
        rows = wanted(requests, outcomes, ledger.in_flight(book), run.study)
    verdicts = dict(health(requests, outcomes, run.study)[["model", "verdict"]].to_numpy())
    failed = sorted(model for model, verdict in verdicts.items() if verdict == "failed")
    ledger.afford(book, step.cap_usd)
    _push_all(step, failed)
    rows = rows[~rows["model"].isin(failed)]
    _check_models(run, rows)
    for model, group in rows.groupby("model", sort=True):
        verdict = verdicts.get(model, "passed")
        for part in _admitted(step, str(model), group, verdict):
            _plan(step, str(model), part, "canary" if verdict == "untried" else "main")
            _push_all(step, failed)
    return [stopped(run.study, [model], outcomes) for model in failed]


def window_tokens(run: Run, book: sqlite3.Connection, model: str) -> int | None:
    """The queue window of a model: what a refusal named, else the limit of the study's tier."""
    tiers = models.facts(model).queue_tokens
    return ledger.limits(book).get(model) or tiers.get(run.study.sending.tier)


def _withdraw(step: Step, requests: pd.DataFrame, outcomes: pd.DataFrame) -> None:
    """Release the shards that are not batches yet and hold a line that is no longer to be asked."""
    answered = set(outcomes.loc[outcomes["outcome"].eq("valid"), "key"])
    asked = set(requests["key"]) - answered
    for shard in ledger.shards(step.book, "planned", "uploaded"):
        if not asked.issuperset(ledger.sends(step.book, shard["shard"])["key"]):
            _release(step, shard, "its requests have changed since it was planned")


def _release(step: Step, shard: dict[str, Any], why: str) -> None:
    if shard["file_id"]:
        service.delete_file(step.to, shard["file_id"])
    ledger.release(step.book, shard["shard"], shard["state"], why)
    step.run.path("shards").joinpath(shard["file"]).unlink(missing_ok=True)


def _check_models(run: Run, rows: pd.DataFrame) -> None:
    """Raise ModelError before anything is sent that its model is known to refuse."""
    today = clock.now().date()
    for annotator, model in rows[["annotator", "model"]].drop_duplicates().to_numpy():
        models.check(model, run.study.annotators[annotator].parameters, today)


def _admitted(step: Step, model: str, rows: pd.DataFrame, verdict: str) -> Iterator[pd.DataFrame]:
    """The next shards of a model: its canary alone, or as many as its queue admits."""
    run, book = step.run, step.book
    under_way = [s for s in ledger.shards(book, *ledger.OPEN_STATES) if s["model"] == model]
    if verdict == "untried":
        if not under_way:
            yield rows[prompts.sample(rows["key"], run.study.sending.canary)]
        return
    if step.canaries_only:
        return
    window = window_tokens(run, book, model)
    bounds = shards.limits(run.study.sending.max_requests, window)
    parts = [part for _, part in rows.groupby(shards.pack(rows, bounds), sort=True)]
    sizes = [int(part["n_input_tokens"].sum()) for part in parts]
    enqueued = sum(shard["n_input_tokens"] for shard in under_way)
    yield from parts[: pacing.admit(sizes, enqueued, window)]


def _plan(step: Step, model: str, rows: pd.DataFrame, purpose: str) -> None:
    """Write a shard's file and record it with the money that it may cost at most."""
    run, book = step.run, step.book
    rows, reserved_usd = _within(step, model, rows)
    ledger.afford(book, step.cap_usd, {"reserved_usd": reserved_usd, "n_requests": len(rows)})
    slug, number = re.sub("[^A-Za-z0-9.-]", "_", model), len(ledger.shards(book))
    name = f"{step.run_id[:8]}-{slug}-{number:05}"
    path = run.path("shards") / f"{name}.jsonl"
    sends, digest = _write_shard(run, path, rows)
    crash_point("shard written")
    shard = {
        "shard": name,
        "model": model,
        "purpose": purpose,
        "file": path.name,
        "sha256": digest,
        "size_bytes": path.stat().st_size,
        "n_requests": len(rows),
        "n_input_tokens": int(rows["n_input_tokens"].sum()),
        "reserved_usd": reserved_usd,
        "fields": _bind_fields(run, book),
    }
    try:
        ledger.plan(book, shard, sends, step.cap_usd)
    except VotebookError:
        path.unlink()
        raise
    crash_point("shard planned")


def _within(step: Step, model: str, rows: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """The rows that the budget admits, from the first on, and the most that they may cost.

    The whole shard as long as open ones may still give money back: reserves are worst cases.
    """
    facts = models.facts(model)
    caps = zip(rows["n_input_tokens"], rows["max_output_tokens"], strict=True)
    sums = list(itertools.accumulate(models.worst_case_usd(facts, int(n), int(c)) for n, c in caps))
    spent_usd, reserved_usd = ledger.money(step.book)
    n_rows = sum(spent_usd + reserved_usd + usd <= step.cap_usd for usd in sums)
    n_rows = len(rows) if reserved_usd or not n_rows else n_rows
    return rows.iloc[:n_rows], sums[n_rows - 1]


def _bind_fields(run: Run, book: sqlite3.Connection) -> str:
    """Keep the fields asked about now, by which the answers will be judged; gives their name."""
    fields = {name: field.model_dump_json() for name, field in run.study.fields.items()}
    name = f"fields {studies.digest(fields)[:16]}"
    ledger.bind(book, name, json.dumps(fields))
    return name


def _write_shard(run: Run, path: Path, rows: pd.DataFrame) -> tuple[list[tuple], str]:
    """Render the rows into one input file; gives (custom_id, key, attempt) and the SHA-256."""
    texts = pyarrow.parquet.read_table(
        run.path("documents.parquet"),
        columns=["item", "text"],
        filters=[("item", "in", set(rows["item"]))],
    ).to_pandas()
    by_item = dict(zip(texts["item"], texts["text"], strict=True))
    templates = {
        name: prompts.template(run.study, run.study.annotators[name])
        for name in rows["annotator"].unique()
    }
    digest, sends = hashlib.sha256(), []
    frames: dict[tuple, tuple[bytes, bytes]] = {}
    with runs.replacing(path) as part, part.open("wb") as file:
        for row in rows.to_dict("records"):
            annotator, text = run.study.annotators[row["annotator"]], by_item.get(row["item"])
            _check_key(row, templates[row["annotator"]], text, annotator.repeats)
            name = prompts.custom_id(row["key"], row["attempt"])
            settings = (row["annotator"], row["model"], row["max_output_tokens"])
            if settings not in frames:
                frames[settings] = prompts.frame(run.study, settings[1], annotator, settings[2])
            line = prompts.fill(frames[settings], text, name)
            digest.update(line)
            file.write(line)
            sends.append((name, row["key"], row["attempt"]))
    return sends, digest.hexdigest()


def _check_key(row: dict[str, Any], template: str, text: str | None, repeats: int) -> None:
    """Raise AccountingError unless the key is that of the very question about to be written."""
    sha256 = hashlib.sha256(text.encode()).hexdigest() if text is not None else ""
    if row["key"] not in (prompts.key(template, sha256, repeat) for repeat in range(repeats)):
        what = f"request {row['key'][:12]} on {row['item']} is not what the study asks now."
        raise AccountingError(f"{what} {_STALE}", item=row["item"])


def _push_all(step: Step, failed: list[str]) -> None:
    """Take every waiting shard to the service, but for stopped models and unfinished pauses."""
    for shard in ledger.shards(step.book, "planned", "uploaded"):
        held = step.canaries_only and shard["purpose"] != "canary"
        if not (held or shard["model"] in failed or _is_paused(shard)):
            _push(step, shard)


def _push(step: Step, shard: dict[str, Any]) -> None:
    """Take one shard from the disk to the service: upload it, then create its batch.

    A refusal that asking again may change leaves the shard as it was; any other releases it.
    """
    book, to, path = step.book, step.to, step.run.path("shards") / shard["file"]
    try:
        if shard["state"] == "planned":
            if not path.is_file() or _sha256(path) != shard["sha256"]:
                _release(step, shard, "its file is gone or has changed")
                return
            _move(book, shard, "planned", "uploading")
            crash_point("upload intended")
            file_id = service.upload(to, path, reconcile.file_name(shard))
            crash_point("upload answered")
            _move(book, shard, "uploading", "uploaded", file_id=file_id)
            crash_point("upload recorded")
        _move(book, shard, "uploaded", "submitting")
        crash_point("create intended")
        labels = reconcile.metadata(step.run_id, shard)
        batch = service.create(to, shard["file_id"], prompts.ENDPOINT, labels)
        crash_point("create answered")
        reconcile.adopt(book, shard["shard"], batch)
        crash_point("create recorded")
    except ServiceError as error:
        if shard["state"] not in ("uploading", "submitting") or error.unclear:
            raise
        before = "planned" if shard["state"] == "uploading" else "uploaded"
        pause = collect.pause(shard) if error.status == 429 and not error.final else {}
        _move(book, shard, shard["state"], before, **pause, error=str(error))
        if error.final and error.status not in (401, 403, 429):
            _release(step, shard, str(error))
        raise


def _move(book: sqlite3.Connection, shard: dict, old: str, new: str, **facts: object) -> None:
    ledger.move(book, shard["shard"], old, new, **facts)
    shard |= {"state": new, **facts}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_paused(shard: dict[str, Any]) -> bool:
    """Whether the pause after a refusal lasts; one beyond the longest is a clock set back."""
    if not shard["not_before"]:
        return False
    left = datetime.fromisoformat(shard["not_before"]) - clock.now()
    return timedelta(0) < left <= timedelta(seconds=pacing.LONGEST_PAUSE_SECONDS)
