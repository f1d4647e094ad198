"""Processes for notebooks: one each, which says nothing on a terminal and ends with its notebook.

Refuses to decide what runs in them. They are reached over IPC instead of open TCP ports where the
system has it.
"""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING

from lib import runs

if TYPE_CHECKING:
    from jupyter_client import AsyncKernelManager

# The debugger's remark about frozen modules would stand in the outputs.
_KERNEL = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
# Registered first, it is called last: all that is to be done at the end is done by then, and to
# take down every module one by one would take a process of a notebook longer than some notebooks.
_AT_END = "__import__('atexit').register(__import__('os')._exit, 0);"
_ARGUMENTS = (
    "--Application.log_level=50",
    "--HistoryManager.enabled=False",
    f"--IPKernelApp.exec_lines={_AT_END}",
)


@contextlib.contextmanager
def process() -> Iterator["AsyncKernelManager"]:
    """A process for one notebook, which begins to start; it has ended when the block ends.

    What it says on a terminal is for nobody: what cells print stands in the notebook, and what
    libraries say beside it tells of the sockets of a process that ends, say.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.utils import run_sync
    from traitlets.config import Config

    # Short, because the paths of the kernel's sockets are limited to about 107 bytes.
    with tempfile.TemporaryDirectory(prefix="vb") as folder:
        settings = Config({"KernelManager": _transport(Path(folder))})
        manager = AsyncKernelManager(kernel_name="python3", config=settings)
        with environment(**_KERNEL, JUPYTER_RUNTIME_DIR=folder, IPYTHONDIR=folder):
            run_sync(manager.start_kernel)(
                extra_arguments=list(_ARGUMENTS),
                cwd=str(runs.ROOT),
                stdout=DEVNULL,
                stderr=DEVNULL,
            )
        try:
            yield manager
        finally:
            if manager.has_kernel:
                run_sync(manager.shutdown_kernel)(now=True)


def execute(
    source: Path, draft: Path, parameters: Mapping[str, object], manager: "AsyncKernelManager"
) -> None:
    """Execute a notebook into `draft` in this process, and end the process.

    Raises papermill's error when a cell fails and nbclient's when the process dies; the draft is
    there then, too.
    """
    import papermill

    papermill.execute_notebook(
        str(source),
        str(draft),
        dict(parameters),
        kernel_name="python3",
        progress_bar=False,
        cwd=str(runs.ROOT),
        engine_name=_engine(),
        manager=manager,
    )


@contextlib.contextmanager
def environment(**settings: str) -> Iterator[None]:
    """Variables of the environment, as long as the block lasts."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@functools.cache
def _engine() -> str:
    """Papermill's engine with a process that is there, and which writes a notebook at its end
    alone, however that comes: to write all of it at every cell takes long, and nobody sees it.
    """
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import Engine, NotebookExecutionManager, papermill_engines

    class OnceEngine(Engine):
        @classmethod
        def execute_managed_notebook(
            cls, nb_man: NotebookExecutionManager, kernel_name: str, **more: object
        ) -> None:
            """Run the cells; without a path, papermill's bookkeeping writes nothing meanwhile."""
            draft, nb_man.output_path = nb_man.output_path, None
            try:
                client = PapermillNotebookClient(nb_man, km=more["manager"], startup_timeout=60)
                client.execute(cleanup_kc=True)
            finally:
                nb_man.output_path = draft

    papermill_engines.register("once", OnceEngine)
    return "once"


def _transport(folder: Path) -> dict[str, str]:
    """IPC where the system has it: no open ports, and no warning about unencrypted ones.

    The sockets get a full path: a relative one would mean another folder to the kernel than here.
    """
    return {"transport": "ipc", "ip": str(folder / "kernel")} if os.name == "posix" else {}
