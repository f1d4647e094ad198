"""Tests of the files that say which packages Votebook needs, and in which versions."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ["requirements.lock", "requirements-lab.lock"]

# Where the name that is imported is not the name that is installed.
INSTALLED_AS = {
    "IPython": "ipython",
    "jupyter_client": "jupyter-client",
    "python_multipart": "python-multipart",
    "toktok": "toktok-rs",
    "xdist": "pytest-xdist",
    "yaml": "pyyaml",
}

# Not for a conda user: uv is there for votebook.py alone, the other only bounds a lock.
NOT_FOR_CONDA = {"uv", "argon2-cffi-bindings"}

# An extra: imported inside the one function that needs it, which says how to install it.
OPTIONAL = {"spacy"}


def direct(*names):
    """The packages that requirements files ask for themselves."""
    lines = [line for name in names for line in (ROOT / name).read_text().splitlines()]
    return {re.match(r"[\w-]+", line)[0] for line in lines if re.match(r"\w", line)}


def pins(name):
    """The lines of a lock without their hashes: `name==version`, some with `; condition`."""
    return set(re.findall(r"^[\w.-]+==.*?(?= \\$)", (ROOT / name).read_text(), re.MULTILINE))


def package(pin):
    """The package of a pin.

    numpy has two pins, one for Python 3.11 and one for later ones.
    """
    return pin.split("==")[0]


def imported(*paths):
    """Where each top-level package is imported: {package: the first file that does}."""
    found = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                found.setdefault(name.split(".")[0], path.relative_to(ROOT).as_posix())
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_has_an_exact_version_and_hashes(name):
    """A lock names each package as name==version, followed by at least one SHA-256."""
    entries = re.split(r"\n(?=\S)", (ROOT / name).read_text().strip())
    entry = re.compile(r"[\w.-]+==\S+( ; [^\\]+)? \\(\n    --hash=sha256:[0-9a-f]{64}( \\)?)+")
    assert [e.splitlines()[0] for e in entries if not entry.fullmatch(e)] == []
    assert len(entries) > 100


@pytest.mark.parametrize("name", [*LOCKS, "requirements.in", "requirements-lab.in"])
def test_no_address_stands_in_a_lock_or_its_source(name):
    """Where packages come from is the user's setting: no address, no index option."""
    text = (ROOT / name).read_text()
    assert re.findall(r"\S*(?:://|--index|--find-links|--extra-index| @ )\S*", text) == []


@pytest.mark.parametrize("source", ["requirements.in", "requirements-lab.in"])
def test_every_direct_requirement_is_locked_and_has_its_reason(source):
    """Each line of a requirements file ends in a comment, and its lock holds the package."""
    lines = [x for x in (ROOT / source).read_text().splitlines() if re.match(r"\w", x)]
    assert [line for line in lines if not re.search(r"  # \w", line)] == []
    locked = {package(pin) for pin in pins(source.replace(".in", ".lock"))}
    assert direct(source) - locked == set()


def test_the_lock_with_jupyterlab_holds_the_versions_of_the_lock_without():
    """`lab` sees the same libraries as `run`: each pin of the first lock is one of the second."""
    base, lab = (
        {pin.split(" ;")[0] for pin in pins(name)}
        for name in ["requirements.lock", "requirements-lab.lock"]
    )
    assert base - lab == set()
    assert "jupyterlab" in {package(pin) for pin in lab - base}


def test_the_conda_environment_has_the_versions_of_the_locks():
    """environment.yml pins exactly the direct requirements, at the locks' versions."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = environment["dependencies"][-1]["pip"]
    wanted = direct("requirements.in", "requirements-lab.in") - NOT_FOR_CONDA
    locked = {pin for pin in pins("requirements-lab.lock") if package(pin) in wanted}
    assert set(pip) == {"-e .", *locked}


@pytest.mark.parametrize("folder", ["lib", "tests"])
def test_every_outside_import_is_a_direct_requirement(folder):
    """What is imported is asked for by name, not found because another package needs it."""
    ours = {"lib", "votebook", "conftest"} | {path.stem for path in (ROOT / "tests").rglob("*.py")}
    found = imported(*sorted((ROOT / folder).rglob("*.py")))
    known = sys.stdlib_module_names | ours | OPTIONAL
    outside = {n: where for n, where in found.items() if n not in known}
    asked_for = direct("requirements.in")
    undeclared = {n: w for n, w in outside.items() if INSTALLED_AS.get(n, n) not in asked_for}
    assert undeclared == {}


def test_the_launcher_needs_nothing_but_the_standard_library():
    """votebook.py starts before any package is there."""
    assert set(imported(ROOT / "votebook.py")) <= set(sys.stdlib_module_names)
