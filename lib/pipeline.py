"""The runner: papermill on notebooks 01 to 06, with parameters checked before anything starts.

Papermill alone accepts unknown parameters and guesses types; here a parameter is known by name
and type from the notebooks' own `parameters` cells, and what looks like a secret is refused.
All notebooks run from one process, over IPC instead of open TCP ports where the system has it.
"""

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lib import dispatch, report, runs, yamls
from lib.errors import StudyError, VotebookError
from lib.runs import Run

_TYPES = {"str": str, "int": int, "float": float}
_SECRET = re.compile(r"(api_?key|token|secret|password|passwd|credential)", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\b(sk|pk|ghp|hf)[-_][A-Za-z0-9_-]{16,}")
LAST_SENDING = "04_monitor_batches"
_OURS = {kind.__name__ for kind in (VotebookError, *VotebookError.__subclasses__())}


@dataclass(frozen=True)
class Parameter:
    """A parameter that a notebook declares: its type, its default as written, and its help."""

    kind: str
    default: str
    help: str


def notebooks() -> list[Path]:
    """The numbered notebooks, in their order."""
    return sorted((runs.ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def declared(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook, as its `parameters` cell declares them."""
    import papermill

    found = papermill.inspect_notebook(str(notebook))
    return {
        name: Parameter(entry["inferred_type_name"], entry["default"], entry["help"])
        for name, entry in found.items()
    }


def known_parameters() -> dict[str, Parameter]:
    """The parameters of all notebooks by name."""
    return {name: entry for source in notebooks() for name, entry in declared(source).items()}


def typed(given: Mapping[str, str], known: Mapping[str, Parameter]) -> dict[str, str | int | float]:
    """The given values with the types of the declared parameters.

    Raises StudyError for an unknown name (with the nearest), a value of another type, a secret.
    """
    return {name: _value(name, text, known) for name, text in given.items()}


def run(
    given: Mapping[str, str], say: Callable[..., None] = print
) -> tuple[Run, dispatch.Progress | None]:
    """Execute all notebooks with these parameters and write the report.

    Stops behind notebook 04 while answers are still pending. Gives the run and where it stands.
    """
    values = typed(given, known_parameters())
    began = time.monotonic()
    opened = runs.start(
        str(values["study"]), str(values.get("run_name", "")), str(values.get("panel", ""))
    )
    progress = None
    with _kernel_settings():
        for source in notebooks():
            wanted = {name: values[name] for name in declared(source) if name in values}
            started = time.monotonic()
            say(f"{source.stem:24}", end="", flush=True)
            execute(source, opened.path(source.name), wanted)
            say(f"{time.monotonic() - started:6.1f} s", flush=True)
            if source.stem == LAST_SENDING:
                progress = dispatch.status(opened)
                if progress.state != "done":
                    break
    page = report.write(opened)
    say(f"{'all':24}{time.monotonic() - began:6.1f} s\nReport: {yamls.shown(page)}")
    return opened, progress


def execute(source: Path, target: Path, parameters: Mapping[str, object]) -> None:
    """Execute one notebook into `target`, which appears whole; a failing cell is shown there too.

    Raises VotebookError with the last line of the failing cell.
    """
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    failure = None
    with tempfile.TemporaryDirectory() as folder, runs.replacing(target) as part:
        draft = Path(folder) / source.name
        try:
            papermill.execute_notebook(
                str(source),
                str(draft),
                dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                cwd=str(runs.ROOT),
                config=Config({"KernelManager": _transport()}),
                extra_arguments=["--Application.log_level=50", "--HistoryManager.enabled=False"],
            )
        except PapermillExecutionError as error:
            failure = error
        notebook = nbformat.read(draft, as_version=4)
        for path in ("input_path", "output_path"):  # they name folders of this machine
            notebook.metadata.papermill.pop(path, None)
        nbformat.write(notebook, str(part))
    if failure:
        raise VotebookError(_last_line(failure), notebook=source.stem) from None


def refresh() -> None:
    """Run the sources on the sample study and keep the outputs of their check cells.

    nbval compares with these references; this is the only way in which they change.
    """
    import nbformat
    import papermill
    from traitlets.config import Config

    with _kernel_settings(), tempfile.TemporaryDirectory() as folder:
        os.environ["VOTEBOOK_OUTPUTS"] = folder
        for source in notebooks():
            config = Config({"KernelManager": _transport()})
            done = papermill.execute_notebook(
                str(source), None, kernel_name="python3", progress_bar=False, config=config
            )
            notebook = nbformat.read(source, as_version=4)
            executed = [cell for cell in done.cells if cell.cell_type == "code"]
            sources = [cell for cell in notebook.cells if cell.cell_type == "code"]
            for cell, run_cell in zip(sources, executed, strict=True):
                kept = "keep_output" in cell.metadata.get("tags", [])
                cell.execution_count = run_cell.execution_count
                cell.outputs = run_cell.outputs if kept else []
            nbformat.write(notebook, str(source))


def _last_line(error: Exception) -> str:
    """What the failing cell said last: our own errors speak for themselves."""
    name = error.ename.rsplit(".", 1)[-1]
    return error.evalue if name in _OURS else f"{name}: {error.evalue}"


def _transport() -> dict[str, str]:
    """IPC where the system has it: no open ports, and no warning about unencrypted ones."""
    return {"transport": "ipc"} if os.name == "posix" else {}


@contextlib.contextmanager
def _kernel_settings() -> Iterator[None]:
    """A short runtime folder of our own: socket paths are limited to about 107 bytes."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="vb") as folder:
        os.environ.update(JUPYTER_RUNTIME_DIR=folder, PYDEVD_DISABLE_FILE_VALIDATION="1")
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _value(name: str, text: str, known: Mapping[str, Parameter]) -> str | int | float:
    if _SECRET.search(name) or _SECRET_VALUE.search(str(text)):
        what = f"parameter {name!r} looks like a secret and would stand in the notebook."
        raise StudyError(f"{what} Set OPENAI_API_KEY in the environment instead.", parameter=name)
    if name not in known:
        what = f"no notebook has a parameter {name!r}.{yamls.nearest(name, known)}"
        raise StudyError(f"{what} Known: {', '.join(sorted(known))}.", parameter=name)
    kind = known[name].kind
    try:
        return _TYPES[kind](text)
    except ValueError:
        what = f"parameter {name} is {text!r}, but it must be of type {kind}"
        raise StudyError(f"{what} (default {known[name].default}).", parameter=name) from None
