"""Where a source points: its path or URL as a folder to search and a pattern below it.

The folder is the part of the glob before the first wildcard. A path without wildcards names one
file, which is read even where a hidden name or a link would be left out, or one folder, which is
read with all that is below it.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec.core
import fsspec.utils

from lib.corpus.shapes import HIDDEN, Entry
from lib.errors import CorpusError
from lib.study import Source, Study

_MAGIC = re.compile(r"[*?[]")
_MAGIC_URL = re.compile(r"[*[]")
_SYSTEM = {"thumbs.db", "desktop.ini", "icon\r", "__macosx", "ehthumbs.db"}
_OWN = ("study.yml", "prompt.md", "gold.csv", "corrections.csv")


@dataclass(frozen=True)
class Place:
    """A source resolved: the folder that is searched and the pattern of paths below it.

    `shown` is the folder as the study writes it, without secrets; `single` means that one file is
    named; `listing` holds the entries of a remote folder.
    """

    name: str
    source: Source
    root: str
    shown: str
    pattern: re.Pattern
    single: bool = False
    fs: Any = None
    listing: tuple[Entry, ...] = ()


def resolve(name: str, source: Source, folder: Path) -> Place:
    """The place of a source; relative paths start at the study's folder. Raises CorpusError."""
    given = source.path
    if given.startswith("file://"):
        given = fsspec.core.url_to_fs(given)[1]
    if "://" in given or "::" in given:
        return _remote(name, source)
    given = str(Path(given).expanduser())
    full = folder / given
    if full.is_dir():
        return Place(name, source, str(full.resolve()), Path(given).as_posix(), _glob("**"))
    parts = Path(given).parts
    n_fixed = next((n for n, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    if os.path.lexists(full) or n_fixed == len(parts):
        root, shown = str(full.parent.resolve()), Path(given).parent.as_posix()
        return Place(name, source, root, shown, _exactly(full.name), os.path.lexists(full))
    fixed = Path(*parts[:n_fixed])
    pattern = _glob("/".join(parts[n_fixed:]), name, given)
    return Place(name, source, str((folder / fixed).resolve()), fixed.as_posix(), pattern)


def below(place: Place, at: Place, rel: str) -> str | None:
    """A path found at one place as it is called below the folder of another, None if it is not."""
    if place.root == at.root and place.fs is at.fs:
        return rel
    if type(place.fs) is not type(at.fs):
        return None
    full, root = f"{at.root.rstrip('/')}/{rel}", f"{place.root.rstrip('/')}/"
    return full.removeprefix(root) if full.startswith(root) else None


def own_files(study: Study) -> frozenset[str]:
    """The files of the study itself, which are never documents."""
    folder = Path(study.folder)
    own = [folder / name for name in _OWN] + [*(folder / "policies").glob("*")]
    if study.groups and "://" not in study.groups.path:
        own.append(folder / study.groups.path)
    return frozenset(str(path.resolve()) for path in own)


def hidden(name: str) -> bool:
    """Whether a name is hidden, or a leftover of a desktop, an archive or an office program."""
    return name.startswith((".", "~$")) or name.lower() in _SYSTEM


def public(url: str) -> str:
    """A path or URL without the user, password or signature that it may carry.

    >>> public("https://ann:secret@example.org/a.csv?signature=1")
    'https://example.org/a.csv'
    """
    url = re.sub(r"//[^/@]*@", "//", url)
    return url.partition("?")[0] if url.startswith("http") else url


def _exactly(name: str) -> re.Pattern:
    return re.compile(re.escape(name) + r"\Z")


def _glob(glob: str, name: str = "", given: str = "") -> re.Pattern:
    try:
        return re.compile(fsspec.utils.glob_translate(glob))
    except (ValueError, re.error) as error:
        what = f"source {name!r}: the glob {given} is not valid: {error}."
        raise CorpusError(f"{what} Write ** alone between slashes.", source=name) from error


def _remote(name: str, source: Source) -> Place:
    """A source behind a URL, listed once by the file system that fsspec has for it."""
    given = public(source.path)
    try:
        fs, path = fsspec.core.url_to_fs(source.path)
        parts = path.split("/")
        n_fixed = next((n for n, part in enumerate(parts) if _MAGIC_URL.search(part)), len(parts))
        single = n_fixed == len(parts) and fs.isfile(path)
        n_fixed -= single
        root, rest = "/".join(parts[:n_fixed]), public("/".join(parts[n_fixed:]))
        found = {path: fs.info(path)} if single else fs.find(root, detail=True)
    except (ImportError, ValueError, OSError) as error:
        why = str(error).replace(source.path, given)
        what = f"source {name!r}: {given} cannot be listed: {why}."
        raise CorpusError(f"{what} Check the URL and the access to it.", source=name) from None
    pattern = _exactly(parts[-1].partition("?")[0]) if single else _glob(rest or "**", name, given)
    listing = sorted((_entry(root, path, facts) for path, facts in found.items()), key=_rel)
    shown = given.replace(rest, "", 1).rstrip("/")
    return Place(name, source, root, shown, pattern, single, fs, tuple(listing))


def _entry(root: str, path: str, facts: Mapping) -> Entry:
    rel = path.removeprefix(root).lstrip("/")
    if path.startswith("http"):
        rel = rel.partition("?")[0]
    reason = HIDDEN if any(hidden(part) for part in rel.split("/")) else ""
    return Entry(rel, path, facts.get("size"), reason)


def _rel(entry: Entry) -> str:
    return entry.rel
