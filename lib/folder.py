"""The files of a study's folder, before their entries are looked at one by one.

Refuses a folder in which something would be read otherwise than it seems, or not at all.
"""

import re
from pathlib import Path

from lib import yamls
from lib.errors import StudyError

NAME = r"^[a-z][a-z0-9_-]{0,39}$"
_ELSEWHERE = ("name", "folder", "prompt", "policies")


def study_file(folder: Path) -> tuple[Path, dict, yamls.Lines]:
    """The path, the entries and the lines of a folder's study.yml."""
    path = folder / "study.yml"
    if not path.is_file():
        raise StudyError(_no_study(folder), file=str(path), line=None)
    data, lines = yamls.read(path)
    if not isinstance(data, dict):
        raise yamls.problem(path, 1, "expected a mapping with title, corpus, fields and panels.")
    for entry in (entry for entry in _ELSEWHERE if entry in data):
        what = (
            f"{entry!r} is not written here: the folder names the study, the prompt stands in "
            "prompt.md, policies in policies/*.yml. Remove it."
        )
        raise yamls.problem(path, lines[(entry,)], what)
    if not re.match(NAME, folder.name):
        what = (
            f"a study is named by its folder, and {folder.name!r} cannot be a name. Rename the "
            "folder: small letters, digits, - and _, a letter first, at most 40."
        )
        raise yamls.problem(folder, None, what)
    return path, data, lines


def policy_files(folder: Path) -> list[Path]:
    """The policies of a study, in the order of their names; they may be none."""
    files = sorted((folder / "policies").glob("*"))
    for file in files:
        if file.suffix != ".yml" and file.suffix.lower() in (".yml", ".yaml"):
            what = (
                f"policies end in .yml, so this one would be missed. Rename it to {file.stem}.yml."
            )
            raise yamls.problem(file, None, what)
    return [file for file in files if file.suffix == ".yml"]


def prompt(folder: Path) -> str:
    """The instructions in prompt.md; line ends and a byte order mark make no difference."""
    path = folder / "prompt.md"
    if not path.is_file():
        raise yamls.problem(path, None, "the prompt is missing: write the instructions there.")
    text = re.sub("\r\n?|\x85", "\n", yamls.text(path)).strip()
    if not text:
        raise yamls.problem(path, 1, "the prompt is empty: write the instructions there.")
    return text


def _no_study(folder: Path) -> str:
    found = sorted(path.parent.name for path in folder.parent.glob("*/study.yml"))
    return (
        f"no study at {yamls.shown(folder)}: study.yml is missing."
        f"{yamls.nearest(folder.name, found)} Studies there: {', '.join(found) or 'none'}. "
        "A study is a folder with study.yml and prompt.md."
    )
