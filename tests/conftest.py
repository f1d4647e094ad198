"""What all tests share: outputs that go to a folder of their own, and the reference data."""

import atexit
import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent

# Folders of tests lie in memory where there is a place for them: every sync of a ledger counts.
_MEMORY, _ENOUGH_BYTES = "/dev/shm", 4_000_000_000
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _MEMORY)

# Set before anything of lib is imported, and inherited by the kernels that run notebooks. The
# folder's name is short because the kernels' sockets may lie in it, and their paths have a bound.
_outputs = tempfile.mkdtemp(prefix="vb-")
atexit.register(shutil.rmtree, _outputs, ignore_errors=True)
os.environ["VOTEBOOK_OUTPUTS"] = _outputs
# Nor do tests use the keys of whoever runs them, or tell them about runs.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"
os.environ.pop("VOTEBOOK_NOTIFY", None)
# What is started in the background of a shell ignores Ctrl-C, and so does all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# On a busy machine an example takes as long as it takes.
hypothesis.settings.register_profile("votebook", deadline=None)
hypothesis.settings.load_profile("votebook")

# What takes long to prepare and is shared by the tests of several files.
SHARING = {
    "a whole run": ("test_docs", "test_findings", "test_main", "test_pipeline", "test_report"),
    "places": (
        *("test_at_once", "test_crash_points", "test_judge", "test_kills", "test_signals"),
        "test_table_host",
    ),
}


class Groups(LoadScopeScheduling):
    """What runs in one process when tests run side by side: the tests of a file, all notebooks
    (each reads what the one before it has written), and the files that share what takes long.
    """

    def _split_scope(self, nodeid):
        path = Path(nodeid.split("::", maxsplit=1)[0])
        if path.suffix == ".ipynb":
            return "notebooks"
        return next((name for name, stems in SHARING.items() if path.stem in stems), str(path))


def pytest_xdist_make_scheduler(config, log):
    """Hand out tests in groups."""
    return Groups(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` next to the checkout: reference data that is not part of the project."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder `shared` next to the checkout")
    return folder


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory) -> Iterator[dict]:
    """A local Batch API in its own process, quick, for all tests that send something."""
    from lib import local_api

    state = tmp_path_factory.mktemp("service")
    stages = ("--validating=0", "--in-progress=0", "--finalizing=0", "--cancelling=0")
    # It leaves by itself when the folder is gone: an hour bridges all tests that do not ask it.
    found = local_api.start(state, idle_exit_seconds=3600, options=stages)
    yield found
    os.kill(found["pid"], signal.SIGTERM)


@pytest.fixture
def make_run(tmp_path, monkeypatch) -> Iterator[Callable]:
    """Makes a run of a small study, in a folder of its own, with documents and requests."""
    import sending

    monkeypatch.setenv("VOTEBOOK_OUTPUTS", str(tmp_path / "outputs"))
    yield functools.partial(sending.make_run, tmp_path / "guests")
    sending.close_clients()


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """A tiny study, run twice by all notebooks; see `whole`. A key stands in the environment."""
    import whole

    outputs = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOTEBOOK_OUTPUTS", str(outputs))
        patch.setenv("OPENAI_API_KEY", whole.KEY)
        service = whole.start_service(outputs)
        try:
            found = whole.run_twice(whole.write_study(outputs / "studies" / "guests"), service)
        finally:
            os.kill(service["pid"], signal.SIGTERM)
    return found
