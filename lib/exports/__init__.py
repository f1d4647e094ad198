"""Exports: the results of a run in the forms of other tools, each in a folder of its own.

Decides what leaves: no text of a document unless it is asked for, run and prompt in every row, and
a manifest that says what made the results, what was paid, and what is simulated. Files that an
earlier export of the same form left are removed, others are never touched.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from lib import clock, runs, scratch, study
from lib.errors import StudyError
from lib.exports import huggingface, spans, tables
from lib.runs import Run

# Each writes its files into a folder and gives the number of rows of each by name.
_WRITERS: dict[str, Callable[[Run, Path, bool], dict[str, int]]] = {
    "parquet": tables.write_parquet,
    "csv": tables.write_csv,
    "label-studio": spans.write_tasks,
    "huggingface": huggingface.write,
    "conll": spans.write_conll,
    "spacy": spans.write_spacy,
}
_OF_TEXTS = ("label-studio", "conll", "spacy")
MANIFEST = "manifest.json"


def write(run: Run, folder: Path, formats: Iterable[str], text: bool = False) -> pd.DataFrame:
    """Write each format into its own folder below `folder`; a row a file, with its size.

    Columns: format, file, n_rows, n_bytes. The manifest comes last: a folder that has one is whole.
    Raises StudyError for a format that needs texts when there are none, and for missing tables.
    """
    wanted = list(dict.fromkeys(formats))
    for name in wanted:
        if name in _OF_TEXTS and not text:
            what = f"{name} holds the texts of the documents: add --text if they may leave."
            raise StudyError(what)
    for name in ("documents", *tables.LONG):
        if not run.path(f"{name}.parquet").is_file():
            run.table(name)  # says which notebook writes it
    told, rows = provenance(run), []
    for name in wanted:
        _remove(folder / name)
        counts = _WRITERS[name](run, folder / name, text)
        files = [
            {"file": file, "n_rows": n_rows, **_size(folder / name / file)}
            for file, n_rows in counts.items()
        ]
        head = {"format": name, "with_text": text, "created_at": clock.now().isoformat()}
        _write_json(folder / name / MANIFEST, {**head, **told, "files": files})
        rows += [{"format": name, **file} for file in files]
    return pd.DataFrame(rows, columns=["format", "file", "n_rows", "n_bytes"])


def provenance(run: Run) -> dict[str, Any]:
    """What made the results: study, digests, panel, answers with their price, corrections."""
    consensus = run.path("consensus.parquet")
    said = pd.read_parquet(consensus, columns=["simulated", "corrected"])
    panel = run.study.panels[run.study.panel]
    return {
        "run": run.name,
        "study": run.study.name,
        "title": run.study.title,
        "question": run.study.question,
        "licence": "",
        "simulated": bool(said["simulated"].any()),
        "n_corrected": int(said["corrected"].sum()),
        "sha256": {**study.freeze(run.study)["sha256"], "consensus": _size(consensus)["sha256"]},
        "panel": {"name": run.study.panel, **panel.model_dump(mode="json")},
        "voting": run.study.voting.model_dump(mode="json"),
        "answers": _answers(run),
        "columns": tables.columns(run.study),
    }


def _answers(run: Run) -> list[dict[str, Any]]:
    """The answers by model and outcome, and what was paid for them."""
    files = run.path("outcomes") / "*.parquet"
    if not list(run.path("outcomes").glob("*.parquet")):
        return []
    query = (
        "SELECT model, answered_by, outcome, count(*) AS n_answers, sum(spend_usd) AS spend_usd,"
        " bool_or(simulated) AS simulated FROM outcomes GROUP BY ALL ORDER BY ALL"
    )
    with scratch.database() as base:
        base.read_parquet(str(files), union_by_name=True).create_view("outcomes")
        cursor = base.execute(query)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _size(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"n_bytes": path.stat().st_size, "sha256": digest}


def _remove(folder: Path) -> None:
    """Remove what an earlier export left here, by its manifest: its texts must not stay behind."""
    manifest = folder / MANIFEST
    if manifest.is_file():
        for row in json.loads(manifest.read_text(encoding="utf-8")).get("files", []):
            file = folder / row["file"]
            if file.resolve().is_relative_to(folder.resolve()):
                file.unlink(missing_ok=True)
        manifest.unlink()


def _write_json(path: Path, value: object) -> None:
    with runs.replacing(path) as part:
        part.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
