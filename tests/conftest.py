"""What all tests share: outputs that go to a folder of their own, and the reference data."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Set before anything of lib is imported, and inherited by the kernels that run notebooks. The
# folder's name is short because the kernels' sockets may lie in it, and their paths have a bound.
_outputs = tempfile.mkdtemp(prefix="vb-")
atexit.register(shutil.rmtree, _outputs, ignore_errors=True)
os.environ["VOTEBOOK_OUTPUTS"] = _outputs


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` next to the checkout: reference data that is not part of the project."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder `shared` next to the checkout")
    return folder
