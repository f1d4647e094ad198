"""Runs: one execution of a study in a folder of its own, with the study frozen inside.

Every file that the library writes goes through `replacing`: it appears whole under its name or
not at all.
"""

import contextlib
import errno
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lib import clock, spreadsheets, yamls
from lib import study as studies
from lib.errors import AccountingError, StudyError, VotebookError
from lib.study import Study

if TYPE_CHECKING:
    import pandas as pd

ROOT = yamls.WORKSPACE
NO_ROOM = "Make room, or make the disk writable, then run the same command again."
_NO_HANDLES = "Close programs, or raise the limit (`ulimit -n`), then run the same command again."
_FULL = {errno.EMFILE, errno.ENFILE}
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EINVAL}
_UNWRITABLE |= {errno.EACCES, errno.EPERM, *_FULL}


@dataclass(frozen=True)
class Run:
    """A run: its name, its folder under `outputs/`, and the study as it was frozen."""

    name: str
    folder: Path
    study: Study
    note: str = ""

    def __repr__(self) -> str:
        """One line that a notebook can show: run, panel, and what to know about the study."""
        panel = ", ".join(f"{a.model} x {a.repeats}" for a in self.study.annotators.values())
        study = f"study {self.study.name}, panel {self.study.panel} ({panel})"
        return f"Run {self.name}: {study}{self.note}"

    def path(self, name: str) -> Path:
        """Where the run keeps the file or folder `name`."""
        return self.folder / name

    def table(self, name: str, columns: list[str] | None = None) -> "pd.DataFrame":
        """The table `name`.parquet of this run, or some columns of it; a missing one names the
        notebook that writes it.
        """
        import pandas as pd

        path = self.path(f"{name}.parquet")
        if not path.is_file():
            made_in = MADE_IN.get(name, "the notebook before this one")
            raise StudyError(
                f"{yamls.shown(path)} is missing: run {made_in} first.", file=str(path)
            )
        return pd.read_parquet(path, columns=columns)


MADE_IN = {
    "documents": "01_load_documents",
    "skipped": "01_load_documents",
    "requests": "02_estimate_cost",
    "estimate": "02_estimate_cost",
    "votes": "05_aggregate_votes",
    "mentions": "05_aggregate_votes",
    "consensus": "05_aggregate_votes",
    "entities": "05_aggregate_votes",
    "places": "05_aggregate_votes",
    "index": "05_aggregate_votes",
    "verdicts": "06_reach_verdicts",
    "evidence": "06_reach_verdicts",
    "flips": "06_reach_verdicts",
    "probabilities": "07_weigh_alternatives",
}


def outputs() -> Path:
    """The folder of all runs: `VOTEBOOK_OUTPUTS` (a larger disk, say) or `outputs/` here."""
    return Path(os.environ.get("VOTEBOOK_OUTPUTS") or ROOT / "outputs").expanduser()


def study_folder(study: str) -> Path:
    """The folder of a study given by name (`allergy`) or by path (`~/my-study`, `./my-study`).

    >>> study_folder("allergy") == ROOT / "data" / "allergy"
    True
    """
    path = Path(study)
    return ROOT / "data" / study if path.name == study else path.expanduser().resolve()


def start(study: str, run_name: str = "", panel: str = "") -> Run:
    """Read the study, check it, and freeze it into the run; notebook 01 begins with this.

    A study that has changed is frozen anew: requests and answers are found by content, so that
    nothing is paid twice. Raises StudyError when the run holds another study.
    """
    read = studies.load(study_folder(study), panel)
    path = folder(run_name or read.name) / "study.lock.yml"
    if path.is_file():
        _check_same(path, studies.thaw(path).name, read.name)
    lock = yaml.safe_dump(studies.freeze(read), allow_unicode=True, sort_keys=False, width=100)
    if not path.is_file() or path.read_text(encoding="utf-8") != lock:
        with replacing(path) as part:
            part.write_text(lock, encoding="utf-8")
    warnings = studies.check_models(read, clock.now().date())
    note = "".join(f"; warning: {warning}" for warning in warnings)
    return Run(path.parent.name, path.parent, read, note)


def open_run(study: str, run_name: str = "") -> Run:
    """The run as notebook 01 froze it; says so when the study has been changed since."""
    written = study_folder(study).name
    lock = folder(run_name or written) / "study.lock.yml"
    if not lock.is_file():
        what = f"there is no run {lock.parent.name!r} yet: run 01_load_documents first."
        raise StudyError(what, file=str(lock))
    frozen = studies.thaw(lock)
    _check_same(lock, frozen.name, written)
    return Run(lock.parent.name, lock.parent, frozen, _changes(frozen))


def find(run_name: str) -> Run:
    """The run by its name alone, as notebook 01 froze it; says so when the study has changed since.

    Raises StudyError with the names of the runs there are.
    """
    lock = folder(run_name) / "study.lock.yml"
    if not lock.is_file():
        there = sorted(path.parent.name for path in outputs().glob("*/study.lock.yml"))
        what = f"there is no run {run_name!r} in {yamls.shown(outputs())}."
        known = f"{yamls.nearest(run_name, there)} Runs there: {', '.join(there) or 'none'}."
        raise StudyError(f"{what}{known}", file=str(lock))
    frozen = studies.thaw(lock)
    return Run(lock.parent.name, lock.parent, frozen, _changes(frozen))


def folder(run_name: str) -> Path:
    """The folder of a run, which is one below `outputs` and nowhere else."""
    if not re.fullmatch(r"[\w-][\w.-]{0,79}", run_name):
        what = f"{run_name!r} cannot be a run's name: letters, digits, '-', '_' and '.' alone, at"
        raise StudyError(f"{what} most 80, no '.' first. Choose another --run NAME.")
    return outputs() / run_name


def _check_same(lock: Path, held: str, wanted: str) -> None:
    if held != wanted:
        what = f"run {lock.parent.name!r} holds the study {held!r}, not {wanted!r}."
        raise StudyError(f"{what} Choose another run name (--run NAME).", file=str(lock))


def _changes(frozen: Study) -> str:
    """What has changed in the study since it was frozen; results stay readable whatever it is."""
    folder = Path(frozen.folder)
    if not folder.is_dir():
        return ""
    try:
        now = studies.load(folder, frozen.panel)
    except VotebookError as error:
        return f"; the study cannot be used as it is now: {error}"
    before, after = frozen.model_dump(mode="json"), now.model_dump(mode="json")
    # Subtle: as text, because the order of values counts (it is shown to the models) and dicts
    # compare without it.
    changed = [p for p in studies.PARTS if json.dumps(before[p]) != json.dumps(after[p])]
    return f"; changed since 01: {', '.join(changed)}. Run 01 again to use it." if changed else ""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place, synced, when the block ends well.

    Raises VotebookError when the system does not let it write, as on a full disk.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        crash_point("file written")
        sync(part)
        crash_point("file synced")
        part.replace(path)
        sync(path.parent)
        crash_point("file in place")
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise unwritable(path, error.errno) from None
    finally:
        part.unlink(missing_ok=True)


def unwritable(path: Path, number: int) -> VotebookError:
    """What to say of a file that the system does not let us write, by the system's error number."""
    what = f"{yamls.shown(path)} cannot be written: {os.strerror(number)}."
    return VotebookError(f"{what} {_NO_HANDLES if number in _FULL else NO_ROOM}", path=str(path))


def sync(path: Path) -> None:
    """Make a file or folder durable on disk; on Windows folders need nothing."""
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
    """The rows of a Parquet file as frames of at most `rows`, so that memory stays bounded."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=rows, columns=columns):
            yield batch.to_pandas()


def write_stream(frames: "Iterator[pd.DataFrame]", path: Path) -> int:
    """Write frames as row groups of one Parquet file, whole or not at all; gives the row count."""
    n_rows = 0
    with appending(path) as write:
        for frame in frames:
            write(frame)
            n_rows += len(frame)
    return n_rows


@contextlib.contextmanager
def appending(path: Path) -> "Iterator[Callable[[pd.DataFrame], None]]":
    """What writes one frame after the other into a Parquet file, which appears whole or not at all.

    The first one says which columns and types the file has.
    """
    import pyarrow
    import pyarrow.parquet

    with replacing(path) as part, contextlib.ExitStack() as after:
        writers: list[pyarrow.parquet.ParquetWriter] = []

        def write(frame: "pd.DataFrame") -> None:
            """Append a table; the first one settles columns and types."""
            schema = writers[0].schema if writers else None
            table = pyarrow.Table.from_pandas(frame, schema, preserve_index=False)
            if not writers:
                file = pyarrow.parquet.ParquetWriter(part, table.schema, compression="zstd")
                writers.append(after.enter_context(file))
            writers[0].write_table(table)
            crash_point("rows written")

        yield write
        if not writers:
            raise AccountingError(f"{path.name} would have no rows: the table before it is empty.")


def write_csv(frame: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV for spreadsheets, whole or not at all: a byte order mark, and CR LF.

    With other line ends a lone CR in a text would not be quoted and would split its row. Text that
    a spreadsheet would run as a formula is guarded.
    """
    safe = spreadsheets.guarded(frame)
    with replacing(path) as part:
        safe.to_csv(part, index=False, encoding="utf-8-sig", lineterminator="\r\n")


def write_table(frame: "pd.DataFrame", path: Path) -> None:
    """Write a table as Parquet, whole or not at all."""
    with replacing(path) as part:
        frame.to_parquet(part, index=False, compression="zstd")


def crash_point(name: str) -> None:
    """End the process at once where VOTEBOOK_CRASH="name:hit" says so; otherwise do nothing.

    Crashes at named places, from the first hit on, prove that nothing is paid twice or lost. The
    name "*" is every place; `passed` keeps what was come by, and hit 0 ends nothing.
    """
    asked, _, hit = os.environ.get("VOTEBOOK_CRASH", "").rpartition(":")
    if asked in (name, "*"):
        passed.append(name)
        if len(passed) == int(hit):
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


passed: list[str] = []
