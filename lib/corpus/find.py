"""What lies where the sources point: every name below their folders, in a fixed order.

The folder of a source is the part of its glob before the first wildcard. A path without wildcards
names one file, which is read even where a hidden name or a link would be left out, or one folder,
which is read with all that is below it. A URL is listed once by the file system that fsspec has.

It decides which names are files to read, which source each belongs to, and which are left out and
why: hidden and system files, links out of the folders, links that loop, pipes and devices, folders
that cannot be opened, and files that no source asks for. It reads no file. The study's own files
(`study.yml`, `prompt.md`, `policies/`, `gold.csv`, `corrections.csv`, the table of groups) are no
documents and are not counted.
"""

import errno
import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec.core
import fsspec.utils

from lib import words, yamls
from lib.corpus.shapes import File, escaped
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
    named; `listing` holds the files of a remote folder.
    """

    name: str
    source: Source
    root: str
    shown: str
    pattern: re.Pattern
    single: bool = False
    fs: Any = None
    listing: Sequence[File] = ()


@dataclass(frozen=True)
class Search:
    """All places of a study in its order, and the files that are never documents."""

    places: tuple[Place, ...]
    own: frozenset[str]


def search(study: Study, out: Path) -> Search:
    """Where the study's sources point; CorpusError names a source that matches nothing.

    The folder `out` is left out of the search: it is being written.
    """
    folder = Path(study.folder)
    own = [out, *(folder / name for name in _OWN), *(folder / "policies").glob("*")]
    if study.groups and "://" not in study.groups.path:
        own.append(folder / study.groups.path)
    places = (_resolved(name, source, folder) for name, source in study.corpus.items())
    within = Search(tuple(places), frozenset(str(path.resolve()) for path in own))
    for place in within.places:
        if next(files(place, within), None) is None:
            what = _nothing(place, within)
            raise CorpusError(what, source=place.name, path=public(place.source.path))
    return within


def files(place: Place, within: Search) -> Iterator[File]:
    """The files of a source, sorted by path; those that cannot be read say so in `reason`.

    A folder that cannot be searched is reported once, for the first source that covers it.
    """
    for file in _all(place, within):
        path = f"{place.root}/{file.rel}"
        wanting = [other for other in within.places if _wants(other, place, path)]
        if place in (wanting[:1] if path.endswith("/") else wanting):
            yield replace(file, source=place.name, format=_format(place.source, file.rel))


def unmatched(within: Search) -> Iterator[File]:
    """The files below the searched folders that no source asks for, sorted by folder and path."""
    searched: list[Place] = []
    for place in within.places:
        if place.single or any(_covers(other, place, f"{place.root}/") for other in searched):
            continue
        for file in _all(place, within):
            path = f"{place.root}/{file.rel}"
            wanted = any(_wants(other, place, path) for other in within.places)
            if not wanted and not any(_covers(other, place, path) for other in searched):
                reason, kind = file.reason or "not in any source", _ending(file.rel)
                yield replace(file, source="(none)", format=kind, reason=reason)
        searched.append(place)


def public(url: str) -> str:
    """A path or URL without the user, password or signature that it may carry.

    >>> public("https://ann:secret@example.org/a.csv?signature=1")
    'https://example.org/a.csv'
    """
    return _unsigned(re.sub(r"//[^/@]*@", "//", url))


def _unsigned(path: str) -> str:
    return path.partition("?")[0] if path.startswith("http") else path


def _resolved(name: str, source: Source, folder: Path) -> Place:
    """The place of a source; relative paths start at the study's folder. Raises CorpusError."""
    given = source.path
    if given.startswith("file://"):
        given = fsspec.core.url_to_fs(given)[1]
    if "://" in given or "::" in given:
        return _remote(name, source)
    path = Path(given).expanduser()
    full = folder / path
    single = not full.is_dir() and os.path.lexists(full)
    if full.is_dir():
        fixed, rest = path, "**"
    elif single:
        fixed, rest = path.parent, glob.escape(path.name)
    else:
        magic = (n for n, part in enumerate(path.parts) if _MAGIC.search(part))
        n_fixed = next(magic, len(path.parts) - 1)
        fixed, rest = Path(*path.parts[:n_fixed]), "/".join(path.parts[n_fixed:])
    root = (folder / fixed).resolve().as_posix().rstrip("/")
    return Place(name, source, root, fixed.as_posix(), _pattern(name, root, rest), single)


def _remote(name: str, source: Source) -> Place:
    given = public(source.path)
    try:
        fs, path = fsspec.core.url_to_fs(source.path)
        single = not _MAGIC_URL.search(path) and fs.isfile(path)
        parts = _unsigned(path).split("/")
        n_fixed = next((n for n, part in enumerate(parts) if _MAGIC_URL.search(part)), len(parts))
        n_fixed -= single
        root, rest = "/".join(parts[:n_fixed]), "/".join(parts[n_fixed:])
        found = {path: fs.info(path)} if single else fs.find(root, detail=True)
    except (ImportError, ValueError, OSError) as error:
        why = str(error).replace(source.path, given)
        what = f"source {name!r}: {given} cannot be listed: {why}."
        raise CorpusError(f"{what} Check the URL and the access to it.", source=name) from None
    pattern = _pattern(name, root, glob.escape(rest) if single else rest or "**")
    listing = []
    for path, facts in found.items():
        rel = _unsigned(path).removeprefix(root).lstrip("/")
        reason = "hidden or system file" if any(map(_hidden, rel.split("/"))) else ""
        listing.append(File(rel, path, facts.get("size"), reason))
    listing.sort(key=lambda file: file.rel)
    shown = given.replace(rest, "", 1).rstrip("/")
    return Place(name, source, root, shown, pattern, single, fs, listing)


def _pattern(name: str, root: str, rest: str) -> re.Pattern:
    try:
        return re.compile(fsspec.utils.glob_translate(f"{glob.escape(root)}/{rest}"))
    except (ValueError, re.error) as error:
        what = f"source {name!r}: the glob {rest} is not valid: {error}."
        raise CorpusError(f"{what} Write ** alone between slashes.", source=name) from error


def _covers(other: Place, at: Place, path: str) -> bool:
    """Whether a path found at one place lies below the folder that another searches."""
    return other.fs is at.fs and not other.single and path.startswith(f"{other.root}/")


def _wants(other: Place, at: Place, path: str) -> bool:
    """Whether a source asks for a file found at a place, or covers a folder found there."""
    if path.endswith("/"):
        return _covers(other, at, path)
    return other.fs is at.fs and other.pattern.match(path) is not None


def _all(place: Place, within: Search) -> Iterator[File]:
    """Everything below the folder of a source, sorted by path; the one file if it names one."""
    if place.fs is not None:
        found = iter(place.listing)
    elif place.single:
        found = iter([_look(place, within, Path(place.source.path).name)])
    else:
        found = _walk(place, within)
    for file in found:
        shown = file.rel if place.shown in ("", ".") else f"{place.shown}/{file.rel}"
        yield replace(file, shown=escaped(shown), fs=place.fs)


def _walk(place: Place, within: Search) -> Iterator[File]:
    waiting = [""]
    while waiting:
        rel = waiting.pop()
        file = _look(place, within, rel) if rel else File("/", f"{place.root}/")
        if file.path in within.own:
            continue
        if file.reason or not file.rel.endswith("/"):
            yield file
            continue
        try:
            with os.scandir(file.path) as found:
                names = [f"{i.name}/" if i.is_dir(follow_symlinks=False) else i.name for i in found]
            waiting += sorted((f"{rel}{name}" for name in names), reverse=True)
        except OSError as error:
            if rel or not isinstance(error, FileNotFoundError | NotADirectoryError):
                yield replace(file, reason="unreadable", detail=f"folder: {error.strerror}")


def _look(place: Place, within: Search, rel: str) -> File:
    """What a name is, without opening it."""
    path, n_bytes, detail = Path(f"{place.root}/{rel}"), None, ""
    try:
        mode, n_bytes = _facts(path.lstat())
        if _hidden(path.name) and not place.single:
            return File(rel, str(path), n_bytes, "hidden or system file")
        if stat.S_ISLNK(mode):
            detail = f"link to {escaped(os.path.realpath(path))}"
            mode, n_bytes = _facts(path.stat())
            rel += "/" if stat.S_ISDIR(mode) else ""
            reason = "" if place.single else _link(within, path, stat.S_ISDIR(mode))
            if reason:
                return File(rel, str(path), None, reason, detail)
    except OSError as error:
        # A link to nowhere is there, and leads to what is not.
        gone = "unreadable" if detail else "vanished"
        reason = {errno.ELOOP: "symlink loop", errno.ENOENT: gone}.get(error.errno, "unreadable")
        return File(rel, str(path), None, reason, f"{detail}: {error.strerror}".removeprefix(": "))
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return File(rel, str(path), n_bytes)
    kinds = {stat.S_IFIFO: "pipe (FIFO)", stat.S_IFSOCK: "socket"}
    return File(rel, str(path), None, "not a file", kinds.get(stat.S_IFMT(mode), "device"))


def _link(within: Search, path: Path, is_folder: bool) -> str:
    """Why a link is not followed, or nothing for a link to a file of the corpus."""
    target = path.resolve()
    roots = [f"{place.root}/" for place in within.places if place.fs is None]
    if not any(target.is_relative_to(root) for root in roots):
        return "outside the corpus by link"
    if is_folder and path.parent.is_relative_to(target):
        return "symlink loop"
    return "link to a folder" if is_folder else ""


def _facts(facts: os.stat_result) -> tuple[int, int | None]:
    return facts.st_mode, facts.st_size if stat.S_ISREG(facts.st_mode) else None


def _hidden(name: str) -> bool:
    """Whether a name is hidden, or a leftover of a desktop, an archive or an office program."""
    return name.startswith((".", "~$")) or name.lower() in _SYSTEM


def _ending(name: str) -> str:
    """The file name ending in lower case without `.gz`, or "none".

    >>> _ending("a/B.TXT.gz"), _ending("README")
    ('txt', 'none')
    """
    stem = name.rsplit("/", 1)[-1].lower().removesuffix(".gz")
    return escaped(stem.rpartition(".")[2])[:20] if "." in stem.strip(".") else "none"


def _format(source: Source, rel: str) -> str:
    """The format that a file is read as: the declared one, or by the ending of its name."""
    if rel.endswith("/"):
        return "folder"
    if source.format != "auto":
        return source.format
    if rel.lower().removesuffix(".gz").endswith("_text.json"):
        return "british-library"
    return {"text": "txt", "ndjson": "jsonl"}.get(_ending(rel), _ending(rel))


def _nothing(place: Place, within: Search) -> str:
    """What to tell about a source that matches nothing: what lies there by ending."""
    what = f"source {place.name!r}: nothing matches {public(place.source.path)}."
    folder = Path(f"{place.root}/")
    if place.fs is None and not folder.is_dir():
        return f"{what} There is no folder {yamls.shown(folder)}. Correct its path in study.yml."
    names = (file.rel for file in _all(place, within))
    endings = Counter(_ending(name) for name in names if not name.endswith("/"))
    there = ", ".join(f"{n:,} .{word}" for word, n in endings.most_common(8))
    held = words.n_of(endings.total(), "file") + (f" ({there})" if there else "")
    what = f"{what} In {escaped(place.shown)} and below: {held}."
    return f"{what} Correct its path in study.yml."
