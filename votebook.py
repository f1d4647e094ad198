#!/usr/bin/env python3
"""Start Votebook: `python3 votebook.py run`. Needs Python 3.11 or newer and nothing else.

Makes the environment `.venv` from `requirements.lock` when it is missing or stale, then hands over
to `python -m lib` inside it. `lab` has an environment of its own, `.venv.lab`, made from
`requirements-lab.lock`, so that adding JupyterLab never touches one in which a run is working.
Both folders belong to this file: what else lies in them is lost when they are made again.

A stamp, written last, says what an environment was made from. Without the right stamp it counts as
half-made and is made again; a lock of the kernel keeps two starts from making it at the same time.
It refuses packages that the lock does not name by hash, and never builds one from source.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

ROOT = Path(__file__).resolve().parent
ON_WINDOWS = os.name == "nt"
ENVIRONMENTS = {"lab": (".venv.lab", "requirements-lab.lock")}
DEFAULT_ENVIRONMENT = (".venv", "requirements.lock")

NO_INSTALLER = (
    "This Python can install no packages: on Debian or Ubuntu run `sudo apt install python3-venv`, "
    "elsewhere install pip or uv, then start Votebook again."
)


class CannotStartError(Exception):
    """Raised if there can be no environment; the message is for the person at the terminal."""


def main(args: list) -> int:
    """Make what the command needs and hand over to it; the result is the exit code.

    The annotations of this file stay simple so that an old Python reads it far enough to say so.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is what an old Python meets first
        say("Votebook needs Python 3.11 or newer; this is {}.{}.".format(*sys.version_info))
        return 2
    folder, lock_name = ENVIRONMENTS.get(args[0] if args else "", DEFAULT_ENVIRONMENT)
    home, lock = ROOT / folder, ROOT / lock_name
    try:
        if not is_ready(home, lock):
            make(home, lock)
        return hand_over(home, args)
    except CannotStartError as error:
        say(str(error))
        return 2
    except OSError as error:
        say(
            f"The environment {home} cannot be made or used: {error}. Close programs that use it, "
            "see that this folder may be written and the disk has space, then start again."
        )
        return 2
    except KeyboardInterrupt:
        return 130


def say(text: str) -> None:
    """Tell the person something without mixing it into the command's own output."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def interpreter(home: Path) -> Path:
    """The Python of the environment."""
    return home / "Scripts" / "python.exe" if ON_WINDOWS else home / "bin" / "python"


def stamp(lock: Path) -> str:
    """Digest of all that an environment depends on: the lock, this Python and this folder."""
    parts = [
        lock.read_bytes(),
        sys.implementation.cache_tag.encode(),
        sysconfig.get_platform().encode(),
        os.fsencode(ROOT),  # scripts in an environment name its folder, so it cannot move
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_ready(home: Path, lock: Path) -> bool:
    """Whether the environment was made to the end from this lock, by this Python, in this folder.

    Its interpreter is a link, which is dangling when the Python behind it was removed.
    """
    if not lock.exists():
        raise CannotStartError(f"{lock} is missing; restore it from the repository.")
    written = home / "votebook.stamp"
    return interpreter(home).exists() and written.exists() and written.read_text() == stamp(lock)


def make(home: Path, lock: Path) -> None:
    """Make the environment from nothing, its stamp last; one start at a time."""
    with only_one(home.with_name(home.name + ".lock")):
        if is_ready(home, lock):
            return
        started = time.monotonic()
        again = " again, for it is half-made or stale" if home.exists() else ""
        say(f"Making {home.name} from {lock.name}{again}; this happens once, please wait ...")
        (home / "votebook.stamp").unlink(missing_ok=True)
        make_empty(home)
        install(home, lock)
        fresh = home / "votebook.stamp.new"
        with fresh.open("w") as file:
            file.write(stamp(lock))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(home / "votebook.stamp")
        say(f"{home.name} is ready after {time.monotonic() - started:.0f} s.")


@contextlib.contextmanager
def only_one(path: Path):  # noqa: ANN201 - the type would not be understood by an old Python
    """Hold the kernel's lock on this file; it ends with the last process that has the file open.

    Installers inherit the open file: one that outlives a killed launcher keeps others out.
    """
    with path.open("a") as file:
        os.set_inheritable(file.fileno(), True)
        if not is_taken(file):
            say("Another start is making the environment; waiting for it.")
            while not is_taken(file):
                time.sleep(0.1)
        yield


def is_taken(file: object) -> bool:
    """Try to take the lock on an open file, without waiting."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    return True


def make_empty(home: Path) -> None:
    """An environment with nothing in it but the way back to this folder, for `import lib`."""
    try:
        import venv  # noqa: PLC0415 - some distributions leave it out
    except ImportError:
        raise CannotStartError(NO_INSTALLER) from None
    try:
        venv.create(home, clear=True, symlinks=not ON_WINDOWS, with_pip=False)
    except ValueError as error:  # a folder name that no environment can have
        raise CannotStartError(f"{error} Move this folder elsewhere and start again.") from None
    base = {"base": str(home), "platbase": str(home)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", base))
    # Relative, because Python reads this file in the locale's encoding and a path may need another.
    (site_packages / "votebook.pth").write_text(os.path.relpath(ROOT, site_packages) + "\n")


def install(home: Path, lock: Path) -> None:
    """Install exactly what the lock names: with uv if there is one, else with pip.

    pip alone takes four times as long, so it first fetches the uv that the lock names; where that
    does not work, pip does the rest too.
    """
    uv, pip, done = shutil.which("uv"), None, None
    if not uv:
        pip = pip_command(home)
        uv = uv_by_pip(pip, home, lock)
    if uv:
        sync = [uv, "pip", "sync", "--quiet", "--python", str(interpreter(home))]
        done = call([*sync, "--require-hashes", "--no-build", "--compile-bytecode", str(lock)])
    if pip and (done is None or done.returncode):
        done = call([*pip, "-r", str(lock)])
    if done.returncode:
        last_words = "\n".join(done.stdout.strip().splitlines()[-8:])
        raise CannotStartError(
            f"{last_words}\nThe packages of {lock.name} could not be installed (the lines above "
            "say why; a hash that does not match means that a file is not the one that was "
            "locked). See that this machine is online and its disk has space, then start again."
        )


def pip_command(home: Path) -> list:
    """How to call pip for this environment: the pip beside this Python, else one put into it."""
    python = str(interpreter(home))
    if sys.prefix == sys.base_prefix and importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip", "--python", python]
    elif importlib.util.find_spec("ensurepip") and not call([python, "-m", "ensurepip"]).returncode:
        pip = [python, "-m", "pip"]
    else:
        raise CannotStartError(NO_INSTALLER)
    safely = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
    return [*pip, "install", "--quiet", "--disable-pip-version-check", *safely]


def uv_by_pip(pip: list, home: Path, lock: Path) -> "str | None":
    """Install the uv that the lock names; None if it names none or pip cannot get it."""
    entry = re.search(r"^uv==.*(\n .*)*", lock.read_text(encoding="utf-8"), re.MULTILINE)
    if not entry:
        return None
    requirement = home / "uv.txt"
    requirement.write_text(entry[0] + "\n", encoding="utf-8")
    if call([*pip, "-r", str(requirement)]).returncode:
        return None
    return str(interpreter(home).with_name("uv.exe" if ON_WINDOWS else "uv"))


def call(command: list) -> subprocess.CompletedProcess:
    """Run an installer to its end, holding back what it prints.

    It inherits the open lock file, see `only_one`.
    """
    try:
        return subprocess.run(  # noqa: S603 - only uv, pip and ensurepip
            command,
            cwd=ROOT,
            env={**clean_environment(), "PIP_USER": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            close_fds=False,
            check=False,
        )
    except OSError as error:  # a program for another machine, or on a disk that starts none
        return subprocess.CompletedProcess(command, 126, str(error))


def clean_environment() -> dict:
    """This process's environment variables without those that mix in packages from elsewhere."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


def hand_over(home: Path, args: list) -> int:
    """Become `python -m lib`; -P keeps a folder `lib` where the person stands from being taken."""
    command = [str(interpreter(home)), "-P", "-m", "lib", *args]
    if not ON_WINDOWS:
        os.execve(command[0], command, clean_environment())  # noqa: S606 - no shell is meant
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's to answer
    return subprocess.run(command, env=clean_environment(), check=False).returncode  # noqa: S603 - ours


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
