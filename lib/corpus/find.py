"""What lies where the sources point: every name below their folders, in a fixed order.

It decides which names are files to read, which source each belongs to, and which are left out and
why: hidden and system files, links out of the folders, links that loop, pipes and devices, folders
that cannot be opened, and files that no source asks for. It reads no file. The study's own files
(`study.yml`, `prompt.md`, `policies/`, `gold.csv`, `corrections.csv`, the table of groups) are no
documents and are not counted.
"""

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lib import yamls
from lib.corpus import places
from lib.corpus.places import Place
from lib.corpus.shapes import (
    HIDDEN,
    LINK_FOLDER,
    LINK_LOOP,
    LINK_OUT,
    NO_SOURCE,
    NOT_A_FILE,
    NOT_IN_SOURCE,
    UNREADABLE,
    VANISHED,
    Entry,
    File,
    escaped,
)
from lib.errors import CorpusError
from lib.study import Source, Study


@dataclass(frozen=True)
class Search:
    """All places of a study in its order, their folders, and the study's own files."""

    places: tuple[Place, ...]
    roots: tuple[str, ...]
    own: frozenset[str]


def search(study: Study, out: Path) -> Search:
    """Where the study's sources point; CorpusError names a source that matches nothing.

    The folder `out` is left out of the search: it is being written.
    """
    folder = Path(study.folder)
    found = tuple(places.resolve(name, source, folder) for name, source in study.corpus.items())
    roots = tuple(place.root for place in found if place.fs is None)
    everything = Search(found, roots, places.own_files(study) | {str(out.resolve())})
    for place in found:
        if next(files(place, everything), None) is None:
            what = _nothing(place, everything)
            raise CorpusError(what, source=place.name, path=places.public(place.source.path))
    return everything


def files(place: Place, within: Search) -> Iterator[File]:
    """The files of a source, sorted by path; those that cannot be read say so in their entry.

    A folder that cannot be searched is reported once, for the first source that covers it.
    """
    for entry in entries(place, within):
        if entry.rel.endswith("/"):
            covering = (p for p in within.places if places.below(p, place, entry.rel) is not None)
            mine = next(p for p in covering if not p.single) is place
        else:
            mine = place.pattern.match(entry.rel) is not None
        if mine:
            kind = file_format(place.source, entry)
            yield File(place.name, _shown(place, entry), kind, entry, place.fs)


def unmatched(within: Search) -> Iterator[File]:
    """The files below the searched folders that no source asks for, sorted by folder and path."""
    searched: list[Place] = []
    for place in within.places:
        if place.single or any(places.below(other, place, "") is not None for other in searched):
            continue
        for entry in entries(place, within):
            names = [(other, places.below(other, place, entry.rel)) for other in within.places]
            wanted = any(rel is not None and other.pattern.match(rel) for other, rel in names)
            again = any(rel is not None and other in searched for other, rel in names)
            if not (entry.rel.endswith("/") or wanted or again):
                entry = replace(entry, reason=entry.reason or NOT_IN_SOURCE)  # noqa: PLW2901
                yield File(NO_SOURCE, _shown(place, entry), ending(entry.rel), entry)
        searched.append(place)


def entries(place: Place, within: Search) -> Iterator[Entry]:
    """Everything below the folder of a source, sorted by path; the one file if it names one."""
    if place.fs is not None:
        yield from place.listing
    elif place.single:
        name = Path(place.source.path).name
        yield _entry(place, within, name, Path(place.root, name))
    else:
        yield from _walk(place, within)


def ending(name: str) -> str:
    """The file name ending in lower case without `.gz`, or "none".

    >>> ending("a/B.TXT.gz"), ending("README")
    ('txt', 'none')
    """
    stem = name.rsplit("/", 1)[-1].lower().removesuffix(".gz")
    return escaped(stem.rpartition(".")[2])[:20] if "." in stem.strip(".") else "none"


def file_format(source: Source, entry: Entry) -> str:
    """The format that a file is read as: the declared one, or by the ending of its name."""
    if entry.rel.endswith("/"):
        return "folder"
    if source.format != "auto":
        return source.format
    kind = ending(entry.rel)
    if kind == "json" and entry.rel.lower().removesuffix(".gz").endswith("_text.json"):
        return "british-library"
    return {"text": "txt", "ndjson": "jsonl"}.get(kind, kind)


def _walk(place: Place, within: Search) -> Iterator[Entry]:
    waiting = [""]
    while waiting:
        rel = waiting.pop()
        path = Path(place.root, rel)
        entry = _entry(place, within, rel, path) if rel else Entry("/", str(path))
        if entry.path in within.own:
            continue
        if entry.reason or not entry.rel.endswith("/"):
            yield entry
            continue
        try:
            waiting += [f"{rel}{name}" for name in sorted(_names(entry.path), reverse=True)]
        except OSError as error:
            if rel or not isinstance(error, FileNotFoundError | NotADirectoryError):
                yield replace(entry, reason=UNREADABLE, detail=f"folder: {error.strerror}")


def _names(folder: str) -> list[str]:
    with os.scandir(folder) as found:
        return [f"{i.name}/" if i.is_dir(follow_symlinks=False) else i.name for i in found]


def _entry(place: Place, within: Search, rel: str, path: Path) -> Entry:
    """What a name is, without opening it."""
    if places.hidden(path.name) and not place.single:
        return Entry(rel, str(path), _size(path), HIDDEN)
    linked = path.is_symlink()
    try:
        facts = path.stat()
    except FileNotFoundError:
        detail = f"link to {escaped(str(path.readlink()))}, which is not there" if linked else ""
        return Entry(rel, str(path), None, UNREADABLE if linked else VANISHED, detail)
    except OSError as error:
        reason = LINK_LOOP if error.errno == errno.ELOOP else UNREADABLE
        return Entry(rel, str(path), None, reason, error.strerror or "")
    is_folder = stat.S_ISDIR(facts.st_mode)
    if linked and not place.single:
        reason, detail = _link(within, path, is_folder)
        if reason:
            return Entry(f"{rel}/" if is_folder else rel, str(path), None, reason, detail)
    if not is_folder and not stat.S_ISREG(facts.st_mode):
        return Entry(rel, str(path), None, NOT_A_FILE, _kind(facts.st_mode))
    return Entry(rel, str(path), None if is_folder else facts.st_size)


def _link(within: Search, path: Path, is_folder: bool) -> tuple[str, str]:
    """Why a link is not followed, or nothing for a link to a file of the corpus."""
    target = path.resolve()
    detail = f"link to {escaped(str(target))}"
    if not any(target.is_relative_to(root) for root in within.roots):
        return LINK_OUT, detail
    if is_folder and path.parent.is_relative_to(target):
        return LINK_LOOP, detail
    return (LINK_FOLDER, f"{detail}, where its files are found") if is_folder else ("", "")


def _kind(mode: int) -> str:
    tests = {"pipe (FIFO)": stat.S_ISFIFO, "socket": stat.S_ISSOCK}
    return next((word for word, test in tests.items() if test(mode)), "device")


def _size(path: Path) -> int | None:
    try:
        facts = path.lstat()
    except OSError:
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None


def _shown(place: Place, entry: Entry) -> str:
    return escaped(entry.rel if place.shown in ("", ".") else f"{place.shown}/{entry.rel}")


def _nothing(place: Place, within: Search) -> str:
    """What to tell about a source that matches nothing: what lies there by ending."""
    what = f"source {place.name!r}: nothing matches {places.public(place.source.path)}."
    if place.fs is None and not Path(place.root).is_dir():
        folder = yamls.shown(Path(place.root))
        return f"{what} There is no folder {folder}. Correct its path in study.yml."
    found = (entry.rel for entry in entries(place, within) if not entry.rel.endswith("/"))
    endings = Counter(ending(rel) for rel in found)
    there = ", ".join(f"{n:,} .{word}" for word, n in endings.most_common(8))
    return (
        f"{what} In {escaped(place.shown)} and below lie {endings.total():,} files"
        f"{f' ({there})' if there else ''}. Correct its path in study.yml."
    )
