"""Tests of votebook.py, started as a person starts it, in small copies of the checkout.

A copy has a `lib` that tells what it sees and a lock with nothing or one small package in it, so
that an environment takes a second and no network. Where the moment matters, a program called `uv`
stands on the PATH that waits for a sign.
"""

import ast
import base64
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).resolve().parent.parent / "votebook.py"
PYTHON = sys._base_executable  # a person starts with a Python outside of every environment

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and scripts of POSIX")

LIB = """
import importlib.util, json, os, sys
import lib
seen = {"args": sys.argv[1:], "lib": lib.__file__, "prefix": sys.prefix, "cwd": os.getcwd()}
seen["key"] = os.environ.get("OPENAI_API_KEY")
seen["tiny"] = importlib.util.find_spec("tiny") is not None
print(json.dumps(seen))
sys.exit(int(sys.argv[1]) if sys.argv[1:] and sys.argv[1].isdigit() else 0)
"""

WAITING_UV = """#!/bin/sh
echo started >> "$SIGNS/started"
while [ ! -e "$SIGNS/go" ]; do sleep 0.02; done
"""


@pytest.fixture
def checkout(tmp_path):
    """A small copy of the checkout, with empty locks."""
    folder = tmp_path / "books und Töne"
    (folder / "lib").mkdir(parents=True)
    shutil.copy(LAUNCHER, folder)
    (folder / "lib" / "__init__.py").touch()
    (folder / "lib" / "__main__.py").write_text(LIB)
    (folder / "requirements.lock").touch()
    (folder / "requirements-lab.lock").touch()
    return folder


@pytest.fixture
def signs(tmp_path):
    """A folder with a program `uv` that notes each start and then waits for a file `go`."""
    folder = tmp_path / "signs"
    folder.mkdir()
    uv = folder / "uv"
    uv.write_text(WAITING_UV)
    uv.chmod(0o755)
    return folder


def surroundings(tmp, signs=None, **more):
    """Environment variables: no uv but the waiting one, no network, packages from `tmp` alone."""
    path = f"{signs}:/usr/bin:/bin" if signs else no_uv(tmp)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "PYTHON"))}
    return kept | {
        "PATH": path,
        "SIGNS": str(signs),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": tmp.as_uri(),
        "PIP_NO_CACHE_DIR": "1",
        **more,
    }


def no_uv(tmp):
    """A PATH on which there is nothing at all."""
    (tmp / "empty").mkdir(exist_ok=True)
    return str(tmp / "empty")


def start(checkout, *args, signs=None, **more):
    """Start the launcher from another folder, which has a `lib` of its own, without waiting."""
    elsewhere = checkout.parent / "elsewhere"
    (elsewhere / "lib").mkdir(parents=True, exist_ok=True)
    (elsewhere / "lib" / "__init__.py").touch()
    return subprocess.Popen(
        [PYTHON, str(checkout / "votebook.py"), *args],
        cwd=elsewhere,
        env=surroundings(checkout.parent, signs, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(checkout, *args, **more):
    """Start the launcher and wait: (exit code, what lib saw or None, what the launcher said)."""
    return finish(start(checkout, *args, **more))


def finish(process):
    """Wait for a start: (exit code, what lib saw or None, what the launcher said)."""
    out, said = process.communicate(timeout=60)
    return process.returncode, json.loads(out) if out else None, said


def until(condition):
    """Wait until a condition holds, at most 30 seconds."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited 30 s in vain"
        time.sleep(0.02)


def make_wheel(folder, name="tiny", version="1.0", script="", mode=0o755):
    """Write a wheel with one empty module and one script; gives the lines that lock it."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{name}-{version}.data/scripts/{name}": script,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record += f"{path},sha256={digest.decode()},{len(text)}\n"
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            member = zipfile.ZipInfo(path)
            member.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(member, text)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{name}=={version} \\\n    --hash=sha256:{sha256}\n"


def test_the_first_start_makes_the_environment_and_the_second_uses_it(checkout):
    """Locked packages are there, the checkout's own lib is taken, arguments and key arrive."""
    (checkout / "requirements.lock").write_text(make_wheel(checkout.parent))
    elsewhere = str(checkout.parent / "elsewhere")
    code, seen, said = run(checkout, "run", "x y", OPENAI_API_KEY="k", PYTHONPATH=elsewhere)
    assert (code, said.count("\n")) == (0, 2), said
    assert "Making .venv from requirements.lock" in said
    assert seen == {
        "args": ["run", "x y"],
        "lib": str(checkout / "lib" / "__init__.py"),
        "prefix": str(checkout / ".venv"),
        "cwd": elsewhere,
        "key": "k",
        "tiny": True,
    }
    assert run(checkout, "7")[::2] == (7, "")


def test_a_notebook_kernel_finds_lib_without_the_launcher(checkout, signs):
    """The environment's Python alone, in another folder, imports the checkout's lib."""
    (signs / "go").touch()
    assert run(checkout, signs=signs)[0] == 0
    command = [checkout / ".venv" / "bin" / "python", "-c", "import lib; print(lib.__file__)"]
    found = subprocess.run(command, cwd=signs, capture_output=True, text=True, check=True)
    assert found.stdout == f"{checkout / 'lib' / '__init__.py'}\n"


def test_a_changed_lock_a_lost_python_and_a_moved_folder_each_make_it_again(checkout, signs):
    """An environment counts only for the lock, the Python and the folder that it was made for."""
    (signs / "go").touch()
    assert run(checkout, signs=signs)[0] == 0
    assert "Making" not in run(checkout, signs=signs)[2]

    (checkout / "requirements.lock").write_text("# another lock\n")
    assert "again, for it is half-made or stale" in run(checkout, signs=signs)[2]

    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python")
    assert "again" in run(checkout, signs=signs)[2]

    moved = checkout.rename(checkout.parent / "moved")
    code, seen, said = run(moved, signs=signs)
    assert "again" in said
    assert (code, seen["prefix"]) == (0, str(moved / ".venv"))


def test_killed_in_the_middle_it_is_made_again_once_the_installer_has_ended(checkout, signs):
    """kill -9 leaves an installer at work: the next start waits for it, then begins anew."""
    first = start(checkout, signs=signs)
    until((signs / "started").exists)
    first.kill()
    first.wait()
    (checkout / ".venv" / "half").touch()

    second = start(checkout, signs=signs)
    assert "Another start is making the environment" in second.stderr.readline()
    (signs / "go").touch()
    code, seen, said = finish(second)
    first.communicate()
    assert "again, for it is half-made or stale" in said
    assert (code, seen["prefix"]) == (0, str(checkout / ".venv"))
    assert not (checkout / ".venv" / "half").exists()


def test_of_two_starts_at_once_one_makes_the_environment_and_both_use_it(checkout, signs):
    """The second says that it waits, and goes on without making anything."""
    first = start(checkout, "run", signs=signs)
    until((signs / "started").exists)
    second = start(checkout, "test", signs=signs)
    waits = second.stderr.readline()
    (signs / "go").touch()
    results = [finish(first), finish(second)]
    assert waits == "Another start is making the environment; waiting for it.\n"
    assert [(code, seen["args"]) for code, seen, _ in results] == [(0, ["run"]), (0, ["test"])]
    assert results[1][2] == ""
    assert (signs / "started").read_text() == "started\n"


def test_ctrl_c_ends_it_quietly(checkout, signs):
    """No traceback, exit code 130, and nothing that counts as an environment."""
    process = start(checkout, signs=signs)
    until((signs / "started").exists)
    os.killpg(process.pid, signal.SIGINT)
    code, seen, said = finish(process)
    assert (code, seen) == (130, None)
    assert said.count("\n") == 1, said
    assert not (checkout / ".venv" / "votebook.stamp").exists()


def test_jupyterlab_has_an_environment_of_its_own(checkout, signs):
    """`lab` makes .venv.lab and leaves .venv, in which a run may be working, as it is."""
    (signs / "go").touch()
    run(checkout, "run", signs=signs)
    before = (checkout / ".venv" / "votebook.stamp").stat()
    _, seen, said = run(checkout, "lab", signs=signs)
    assert "Making .venv.lab from requirements-lab.lock" in said
    assert seen["prefix"] == str(checkout / ".venv.lab")
    assert (checkout / ".venv" / "votebook.stamp").stat() == before


def test_a_file_that_is_not_the_locked_one_stops_with_the_installers_words(checkout):
    """A wrong hash: exit code 2, what pip said, and the next start does not use what is there."""
    line = make_wheel(checkout.parent)
    (checkout / "requirements.lock").write_text(re.sub("sha256:.{8}", "sha256:00000000", line))
    code, seen, said = run(checkout)
    assert (code, seen) == (2, None)
    assert "Expected sha256 00000000" in said
    assert "The packages of requirements.lock could not be installed" in said
    assert "Traceback" not in said
    (checkout / "requirements.lock").write_text(line)
    assert run(checkout)[1]["tiny"]


@pytest.mark.parametrize(("mode", "asked"), [(0o755, True), (0o644, False)])
def test_where_the_locked_uv_does_not_work_pip_does_the_rest(checkout, mode, asked):
    """pip fetches the uv that the lock names; one that fails or cannot run is no reason to stop."""
    script = "#!/bin/sh\ntouch $ASKED\nexit 1\n"
    uv = make_wheel(checkout.parent, "uv", "0.1", script, mode)
    (checkout / "requirements.lock").write_text(make_wheel(checkout.parent) + uv)
    sign = checkout.parent / "asked"
    code, seen, said = run(checkout, ASKED=str(sign), PATH="/usr/bin:/bin")
    assert (code, seen and seen["tiny"]) == (0, True), said
    assert sign.exists() == asked


def test_without_pip_and_uv_one_sentence_says_what_to_install(checkout):
    """A Python without pip and ensurepip, as Debian ships it: exit code 2 and the command."""
    shim = checkout.parent / "shim"
    shim.mkdir()
    missing = "import sys\nsys.modules['pip'] = sys.modules['ensurepip'] = None\n"
    (shim / "sitecustomize.py").write_text(missing)
    code, seen, said = run(checkout, PYTHONPATH=str(shim))
    assert (code, seen) == (2, None)
    assert said.splitlines()[1:] == [
        "This Python can install no packages: on Debian or Ubuntu run "
        "`sudo apt install python3-venv`, elsewhere install pip or uv, then start Votebook again."
    ]


def test_a_missing_lock_is_named(checkout):
    """An incomplete checkout: the message names the file."""
    (checkout / "requirements.lock").unlink()
    code, _, said = run(checkout)
    assert (code, said) == (
        2,
        f"{checkout / 'requirements.lock'} is missing; restore it from the repository.\n",
    )


def test_an_old_python_can_read_the_launcher():
    """Its grammar is that of Python 3.7, so that 3.7 to 3.10 get to say what they lack."""
    source = LAUNCHER.read_text(encoding="utf-8")
    assert ast.parse(source, feature_version=(3, 7))
    assert "sys.version_info < (3, 11)" in source
