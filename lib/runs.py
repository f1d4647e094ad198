"""Runs: one execution of a study in a folder of its own, with the study frozen inside.

Every file that the library writes goes through `replacing`: it appears whole under its name or
not at all.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lib import study as studies
from lib import yamls
from lib.errors import AccountingError, StudyError
from lib.study import Study

if TYPE_CHECKING:
    import pandas as pd

ROOT = yamls.WORKSPACE


@dataclass(frozen=True)
class Run:
    """A run: its name, its folder under `outputs/`, and the study as it was frozen."""

    name: str
    folder: Path
    study: Study
    note: str = ""

    def __repr__(self) -> str:
        """One line that a notebook can show: run, panel, and whether the study has changed since."""
        panel = ", ".join(f"{a.model} x {a.repeats}" for a in self.study.annotators.values())
        return f"Run {self.name}: study {self.study.name}, panel {self.study.panel} ({panel}){self.note}"

    def path(self, name: str) -> Path:
        """Where the run keeps the file or folder `name`."""
        return self.folder / name

    def table(self, name: str) -> "pd.DataFrame":
        """The table `name`.parquet of this run; a missing one names the notebook that writes it."""
        import pandas as pd

        path = self.path(f"{name}.parquet")
        if not path.is_file():
            made_in = MADE_IN.get(name, "the notebook before this one")
            raise StudyError(
                f"{yamls.shown(path)} is missing: run {made_in} first.", file=str(path)
            )
        return pd.read_parquet(path)


MADE_IN = {
    "documents": "01_load_documents",
    "skipped": "01_load_documents",
    "requests": "02_estimate_cost",
    "estimate": "02_estimate_cost",
    "votes": "05_aggregate_votes",
    "consensus": "05_aggregate_votes",
    "entities": "05_aggregate_votes",
    "verdicts": "06_reach_verdicts",
}


def outputs() -> Path:
    """The folder of all runs: `VOTEBOOK_OUTPUTS` (a larger disk, say) or `outputs/` in the workspace."""
    return Path(os.environ.get("VOTEBOOK_OUTPUTS") or ROOT / "outputs")


def study_folder(study: str) -> Path:
    """The folder of a study given by name (`allergy`) or by path (`~/my-study`)."""
    path = Path(study).expanduser()
    return path.resolve() if len(path.parts) > 1 or path.is_absolute() else ROOT / "data" / study


def start(study: str, run_name: str = "", panel: str = "") -> Run:
    """Read the study, check it, and freeze it into the run; notebook 01 begins with this.

    A study that has changed is frozen anew: requests and answers are found by content, so that
    nothing is paid twice.
    """
    read = studies.load(study_folder(study), panel)
    run = Run(run_name or read.name, outputs() / (run_name or read.name), read)
    lock = yaml.safe_dump(studies.freeze(read), allow_unicode=True, sort_keys=False, width=100)
    path = run.path("study.lock.yml")
    if not path.is_file() or path.read_text(encoding="utf-8") != lock:
        with replacing(path) as part:
            part.write_text(lock, encoding="utf-8")
    return run


def open_run(study: str, run_name: str = "") -> Run:
    """The run as notebook 01 froze it; says so when the study has been changed since."""
    name = run_name or study_folder(study).name
    lock = outputs() / name / "study.lock.yml"
    if not lock.is_file():
        raise StudyError(
            f"there is no run {name!r} yet: run 01_load_documents first.", file=str(lock)
        )
    frozen = studies.thaw(lock)
    now = (
        studies.load(Path(frozen.folder), frozen.panel) if Path(frozen.folder).is_dir() else frozen
    )
    changed = [part for part in studies.PARTS if getattr(now, part) != getattr(frozen, part)]
    note = f"; changed since 01: {', '.join(changed)}. Run 01 again to use it." if changed else ""
    return Run(name, lock.parent, frozen, note)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place, synced, when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file or folder durable on disk; folders cannot be opened on Windows and need not be."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def stream(
    path: Path, columns: list[str] | None = None, rows: int = 5000
) -> "Iterator[pd.DataFrame]":
    """The rows of a Parquet file as frames of at most `rows`: memory does not grow with the file."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=rows, columns=columns):
            yield batch.to_pandas()


def write_stream(frames: "Iterator[pd.DataFrame]", path: Path) -> int:
    """Write frames as the row groups of one Parquet file, whole or not at all; gives the row count."""
    import pyarrow
    import pyarrow.parquet

    n_rows, writer = 0, None
    with replacing(path) as part:
        try:
            for frame in frames:
                table = pyarrow.Table.from_pandas(frame, preserve_index=False)
                writer = writer or pyarrow.parquet.ParquetWriter(
                    part, table.schema, compression="zstd"
                )
                writer.write_table(table)
                n_rows += len(frame)
        finally:
            if writer:
                writer.close()
        if not writer:
            raise AccountingError(f"{path.name} would have no rows: the table before it is empty.")
    return n_rows


def write_table(frame: "pd.DataFrame", path: Path) -> None:
    """Write a table as Parquet, whole or not at all."""
    with replacing(path) as part:
        frame.to_parquet(part, index=False, compression="zstd")
