"""Catches what a function displays, as a notebook would get it."""

import contextlib
import tempfile

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config


@contextlib.contextmanager
def caught():
    """A list of outputs, each with `data` and `metadata`, filled when the block has ended."""
    outputs = []
    with tempfile.TemporaryDirectory() as folder:
        settings = Config({"HistoryManager": {"enabled": False}})
        InteractiveShell.instance(ipython_dir=folder, config=settings)
        try:
            with capture_output() as captured:
                yield outputs
            outputs.extend(captured.outputs)
        finally:
            InteractiveShell.clear_instance()
