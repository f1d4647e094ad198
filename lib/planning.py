"""Planning: a shard's file on disk and its row in the ledger, before anybody is called.

The file is durable before its row, and the row reserves the money that the shard may cost at most.
Refuses a line whose key is not that of the very question that it would ask.
"""

import hashlib
import itertools
import json
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet

from lib import disks, ledger, models, prompts, runs
from lib import study as studies
from lib.errors import AccountingError, VotebookError
from lib.runs import Run, crash_point
from lib.service import Service
from lib.services import Facts

_STALE = "Run 01_load_documents and 02_estimate_cost again: requests.parquet is of another state."


@dataclass(frozen=True)
class Step:
    """One step of the loop: the run, its open ledger, where it sends, and how far it may go.

    `hold` names the command that takes the step: what has stopped a model is tried anew by the
    next command, never by the same.
    """

    run: Run
    book: sqlite3.Connection
    to: Service
    run_id: str
    max_usd: float
    canaries_only: bool = False
    hold: str = ""

    @property
    def cap_usd(self) -> float:
        """What may be spent: simulated money has no bound unless one is given."""
        return self.max_usd or (float("inf") if self.to.free else 0.0)


def plan(step: Step, model: str, rows: pd.DataFrame, purpose: str) -> dict[str, Any]:
    """Write a shard's file and record it with the money that it may cost at most; gives its row."""
    run, book = step.run, step.book
    rows, reserved_usd = _within(step, model, rows)
    ledger.afford(book, step.cap_usd, {"reserved_usd": reserved_usd, "n_requests": len(rows)})
    name = _name(step, model)
    path = run.path("shards") / f"{name}.jsonl"
    disks.check_room(run, int(rows["n_bytes"].sum()))
    sends, digest = _write_shard(run, path, rows, step.to.facts)
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
        "n_cap_tokens": int(rows["max_output_tokens"].sum()),
        "reserved_usd": reserved_usd,
        "fields": bind_fields(run, book),
    }
    try:
        ledger.plan(book, shard, sends, step.cap_usd)
    except VotebookError:
        path.unlink()
        raise
    crash_point("shard planned")
    return next(row for row in ledger.shards(book, "planned") if row["shard"] == name)


def _name(step: Step, model: str) -> str:
    """The name of the next shard: none that stands in the ledger or lies on disk."""
    taken = {shard["shard"] for shard in ledger.shards(step.book)}
    numbers = itertools.count(len(taken))
    taken |= {path.name.split(".jsonl")[0] for path in step.run.path("shards").glob("*.jsonl*")}
    first = f"{step.run_id[:8]}-{re.sub('[^A-Za-z0-9.-]', '_', model)}"
    return next(name for n in numbers if (name := f"{first}-{n:05}") not in taken)


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


def bind_fields(run: Run, book: sqlite3.Connection) -> str:
    """Keep the fields asked about now, by which the answers will be judged; gives their name."""
    fields = {name: field.model_dump_json() for name, field in run.study.fields.items()}
    name = f"fields {studies.digest(fields)[:16]}"
    ledger.bind(book, name, json.dumps(fields))
    return name


def _write_shard(run: Run, path: Path, rows: pd.DataFrame, facts: Facts) -> tuple[list[tuple], str]:
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
                frames[settings] = prompts.frame(
                    run.study,
                    settings[1],
                    annotator,
                    settings[2],
                    facts.url,
                    facts.called(settings[1]),
                )
            line = prompts.fill(frames[settings], text, name)
            digest.update(line)
            file.write(line)
            sends.append((name, row["key"], row["attempt"]))
        crash_point("lines written")
    return sends, digest.hexdigest()


def _check_key(row: dict[str, Any], template: str, text: str | None, repeats: int) -> None:
    """Raise AccountingError unless the key is that of the very question about to be written."""
    sha256 = hashlib.sha256(text.encode()).hexdigest() if text is not None else ""
    if row["key"] not in (prompts.key(template, sha256, repeat) for repeat in range(repeats)):
        what = f"request {row['key'][:12]} on {row['item']} is not what the study asks now."
        raise AccountingError(f"{what} {_STALE}", item=row["item"])
