"""The runner: papermill on notebooks 01 to 07, with parameters checked before anything starts.

Papermill alone accepts unknown parameters and guesses types; here a parameter is known by name
and type from the notebooks' own `parameters` cells, and what looks like a secret is refused.
"""

import contextlib
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lib import dispatch, kernels, report, runs, services, yamls
from lib.errors import StudyError, VotebookError
from lib.runs import Run

if TYPE_CHECKING:
    from jupyter_client import AsyncKernelManager

_TYPES = {"str": str, "int": int, "float": float}
_SECRET_NAME = re.compile(r"api_?key|secret|passw|credential|(^|_)(key|token)$", re.IGNORECASE)
# Keys as services write them, and a password or key inside an address.
_SECRET_VALUE = re.compile(
    r"\b(sk|pk|rk|sess|gh[a-z]|github_pat|glpat|hf|xox[a-z])[-_](?=[\w-]*\d)[\w-]{20,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\beyJ[\w-]{10,}\.|://[^/\s]*@|[?&][\w-]*(key|token|secret|sig)[\w-]*="
)
# What papermill notes and a reader does not need: folders of this machine, and parameters, which
# stand in the notebook's own cell.
_NOTED = ("input_path", "output_path", "environment_variables", "parameters")
LAST_SENDING = "04_monitor_batches"
_OURS = {kind.__name__: kind for kind in (VotebookError, *VotebookError.__subclasses__())}


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

    Raises StudyError for an unknown name (with the nearest), a value of another type, a number that
    is negative or has no end, a secret.
    """
    return {name: _value(name, text, known) for name, text in given.items()}


def run(
    given: Mapping[str, str], say: Callable[..., None] = print
) -> tuple[Run, dispatch.Progress | None]:
    """Execute all notebooks with these parameters and write the report, also when one stops.

    Goes no further than notebook 04 while answers are pending. Gives the run and where it stands.
    """
    values = typed(given, known_parameters())
    services.address(str(values.get("service", services.LOCAL)))
    began = time.monotonic()
    opened = runs.start(
        str(values["study"]), str(values.get("run_name", "")), str(values.get("panel", ""))
    )
    try:
        progress = _execute_all(opened, values, say)
    finally:
        page = report.write(opened)
        say(f"{'all':24}{time.monotonic() - began:6.1f} s\nReport: {yamls.shown(page)}")
    return opened, progress


def _execute_all(
    opened: Run, values: Mapping[str, object], say: Callable[..., None]
) -> dispatch.Progress | None:
    """Execute the notebooks one after the other; gives where the run stood after the sending.

    While one works, the process of the next one starts.
    """
    progress, sources = None, notebooks()
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(kernels.process())]
        for source in sources:
            wanted = {name: values[name] for name in declared(source) if name in values}
            started = time.monotonic()
            say(f"{source.stem:24}", end="", flush=True)
            if source != sources[-1]:
                processes.append(stack.enter_context(kernels.process()))
            try:
                execute(source, opened.path(source.name), wanted, processes.pop(0))
            except BaseException:
                say("  stopped", flush=True)
                raise
            say(f"{time.monotonic() - started:6.1f} s", flush=True)
            if source.stem == LAST_SENDING:
                progress = dispatch.status(opened)
                if progress.state != "done":
                    break
    return progress


def execute(
    source: Path,
    target: Path,
    parameters: Mapping[str, object],
    process: "AsyncKernelManager | None" = None,
) -> None:
    """Execute one notebook into `target`, which appears whole; a failing cell is shown there too.

    It runs in a process that has begun to start, or in one of its own. Raises the error of the
    failing cell when it is one of ours, and VotebookError with its last line when it is not.
    """
    import nbformat

    with contextlib.ExitStack() as stack:
        process = process or stack.enter_context(kernels.process())
        part = stack.enter_context(runs.replacing(target))
        draft = Path(stack.enter_context(tempfile.TemporaryDirectory())) / source.name
        failure = _run_cells(source, draft, parameters, process)
        runs.crash_point("notebook executed")
        notebook = nbformat.read(draft, as_version=4)
        for name in _NOTED:
            notebook.metadata.papermill.pop(name, None)
        nbformat.write(notebook, str(part))
    if failure:
        kind, said = failure
        where = f"Notebook {source.stem} stopped; the cell that failed is in {yamls.shown(target)}"
        raise kind(f"{said}\n{where}", notebook=source.stem)


def refresh() -> None:
    """Run the sources on the sample study and keep the outputs of their check cells.

    nbval compares with these references; this is the only way in which they change.
    """
    import nbformat

    with tempfile.TemporaryDirectory() as folder, kernels.environment(VOTEBOOK_OUTPUTS=folder):
        for source in notebooks():
            draft = Path(folder) / source.name
            execute(source, draft, {})
            done, notebook = (nbformat.read(path, as_version=4) for path in (draft, source))
            executed = [cell for cell in done.cells if cell.cell_type == "code"]
            sources = [cell for cell in notebook.cells if cell.cell_type == "code"]
            for cell, run_cell in zip(sources, executed, strict=True):
                kept = "keep_output" in cell.metadata.get("tags", [])
                cell.execution_count = run_cell.execution_count
                cell.outputs = run_cell.outputs if kept else []
            with runs.replacing(source) as part:
                nbformat.write(notebook, str(part))


def _run_cells(
    source: Path, draft: Path, parameters: Mapping[str, object], process: "AsyncKernelManager"
) -> tuple[type[VotebookError], str] | None:
    """Execute a notebook into `draft`; gives what stopped it, if anything did."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        kernels.execute(source, draft, parameters, process)
    except PapermillExecutionError as error:
        kind = _OURS.get(error.ename)
        said = error.evalue if kind else f"{error.ename}: {error.evalue}"
        return kind or VotebookError, said
    except DeadKernelError:
        what = "the process of the notebook died, often because memory ran out."
        return VotebookError, f"{what} Close other programs, then run the same command again."
    return None


def _value(name: str, text: str, known: Mapping[str, Parameter]) -> str | int | float:
    if _SECRET_NAME.search(name) or _is_secret(text):
        what = f"parameter {name!r} looks like a secret and would stand in the notebook."
        raise StudyError(f"{what} Set OPENAI_API_KEY in the environment instead.", parameter=name)
    if name not in known:
        what = f"no notebook has a parameter {name!r}.{yamls.nearest(name, known)}"
        raise StudyError(f"{what} Known: {', '.join(sorted(known))}.", parameter=name)
    kind = known[name].kind
    try:
        value = _TYPES[kind](text)
        if kind != "str" and not 0 <= value < math.inf:
            raise ValueError
    except ValueError:
        what = f"parameter {name} is {text!r}, but it must be of type {kind}"
        bound = ", 0 or more" if kind != "str" else ""
        message = f"{what}{bound} (default {known[name].default})."
        raise StudyError(message, parameter=name) from None
    return value


def _is_secret(text: str) -> bool:
    """Whether a value has the form of a key, or is the key of this environment."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    return bool(_SECRET_VALUE.search(text)) or (len(key) >= 8 and key in text)
