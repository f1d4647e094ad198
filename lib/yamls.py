"""YAML with line numbers: how every file that a person writes is read.

It decides what counts as readable: UTF-8, one document, plain values, each key once. It refuses
what makes a hand-written file mean something else than it seems to: duplicate keys (YAML keeps
the last one in silence), aliases, tags that build objects. What the values must be is decided by
whoever asks for them; `problem` makes their messages look alike.
"""

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from lib import errors

Lines = dict[tuple, int]
MOST_PROBLEMS = 20  # more are counted
_WORKBOOKS = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"  # of Excel today and before, and of LibreOffice
_UTF_16 = b"\xff\xfe", b"\xfe\xff"
_MOST_CHARS = 200  # nothing longer is a word that somebody misspelled
WORKSPACE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class _Reading:
    path: Path
    lines: Lines = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    loader: yaml.SafeLoader = field(default_factory=lambda: yaml.SafeLoader(""))


def read(path: Path) -> tuple[object, Lines]:
    """The values of a YAML file, and the 1-based line on which each of them stands.

    `lines[("panels", "current", "annotators", 0, "model")]` is the line of that key, `lines[()]`
    the line where the values begin. An empty file gives None. Raises StudyError.
    """
    content = text(path)
    reading = _Reading(path)
    try:
        node = yaml.compose(content, Loader=yaml.SafeLoader)
        value = None if node is None else _value(node, (), reading)
    except yaml.reader.ReaderError as error:
        line = content.count("\n", 0, error.position) + 1
        what = f"the character {error.character:#x} is not allowed in YAML. Remove it."
        raise problem(path, line, what) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"not valid YAML: {error.problem or error.context}."
        hint = " Indent with spaces instead of tabs." if "\\t" in what else ""
        raise problem(path, mark and mark.line + 1, what + hint) from error
    except RecursionError as error:
        raise problem(path, 1, "this is nested too deeply to be read.") from error
    reading.lines.setdefault((), 1)
    return value, reading.lines


def text(path: Path) -> str:
    """The text of a file that a person wrote, without a byte order mark; raises StudyError."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise problem(path, None, "there is no such file.") from error
    except OSError as error:
        raise problem(path, None, f"the file cannot be read: {error.strerror}.") from error
    if data.startswith(_WORKBOOKS):
        raise problem(path, 1, "this is a workbook and no text. Save sheets as CSV (UTF-8).")
    if b"\0" in data[:2] or data.startswith(_UTF_16):
        raise problem(path, 1, "not UTF-8 text but UTF-16. Save the file as UTF-8.")
    try:
        return data.decode("utf-8-sig").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise problem(path, line, "not UTF-8 text. Save the file as UTF-8.") from error


def line_of(lines: Lines, *path: object) -> int:
    """The line of a value or, where it is missing, of the nearest value around it.

    >>> line_of({(): 1, ("panel",): 4}, "panel", "weight")
    4
    """
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def problem(path: Path, line: int | None, what: str) -> errors.StudyError:
    """A StudyError that begins with file and line and carries both.

    >>> print(problem(WORKSPACE / "data" / "allergy" / "study.yml", 12, "no panel is named."))
    data/allergy/study.yml, line 12: no panel is named.
    """
    file = shown(path)
    place = file if line is None else f"{file}, line {line}"
    return errors.StudyError(f"{place}: {what}", file=file, line=line)


@contextlib.contextmanager
def noting(problems: list[errors.StudyError]) -> Iterator[None]:
    """Keep the mistakes that the block finds instead of raising them; `refuse` says all at once."""
    try:
        yield
    except errors.StudyError as error:
        problems.extend(getattr(error, "problems", [error]))


def refuse(problems: Iterable[errors.StudyError], so: str = "") -> None:
    """Raises one StudyError that says all of them, by line, the first ones in full; none for none.

    `so` is what follows from them. The error carries `problems`, and file and line of the first.
    """
    found = list({str(problem): problem for problem in problems}.values())  # an item's once
    if not found:
        return
    found.sort(key=lambda one: (str(one.file), one.line or 0))
    told = [str(problem) for problem in found[:MOST_PROBLEMS]]
    if len(found) > 1:
        told.insert(0, f"{len(found):,} mistakes{so}:")
    if len(found) > MOST_PROBLEMS:
        told.append(f"and {len(found) - MOST_PROBLEMS:,} more.")
    where = {"file": found[0].file, "line": found[0].line}
    raise errors.StudyError("\n".join(told), **where, problems=found)


def shown(path: Path) -> str:
    """A path as messages show it: relative to the current folder or the workspace if below it."""
    full = Path(path).resolve()
    for base in (Path.cwd().resolve(), WORKSPACE):
        if full.is_relative_to(base):
            return full.relative_to(base).as_posix()
    return full.as_posix()


def nearest(word: object, words: Iterable[object]) -> str:
    """The sentence that suggests the word most like this one, or nothing; case is ignored.

    >>> nearest("gpt-5-nan", ["gpt-5-mini", "gpt-5-nano"])
    ' Did you mean "gpt-5-nano"?'
    >>> nearest("claude", ["gpt-5-mini", "gpt-5-nano"])
    ''
    """
    if len(str(word)) > _MOST_CHARS:
        return ""
    by_lower = {str(known).lower(): str(known) for known in words}
    found = difflib.get_close_matches(str(word).lower(), by_lower, n=1)
    return f' Did you mean "{by_lower[found[0]]}"?' if found else ""


def _value(node: yaml.Node, at: tuple, reading: _Reading) -> object:
    reading.lines.setdefault(at, _line(node))
    # An alias is the same node met twice: refusing it also stops files that unfold without end.
    if id(node) in reading.seen:
        what = "aliases (*name) are not used here. Write the value out."
        raise problem(reading.path, reading.lines[at], what)
    reading.seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, reading)
    if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
        what = f"the tag {node.tag} is not used here. Remove it."
        raise problem(reading.path, _line(node), what)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*at, n), reading) for n, item in enumerate(node.value)]
    entries = _entries(node, at, reading)
    return {key: _value(value, (*at, key), reading) for key, value in entries}


def _entries(
    node: yaml.MappingNode, at: tuple, reading: _Reading
) -> Iterator[tuple[object, yaml.Node]]:
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            what = "a key must be a word or a number."
            raise problem(reading.path, _line(key_node), what)
        key = _scalar(key_node, reading)
        if (*at, key) in reading.lines:
            first = reading.lines[(*at, key)]
            what = f'"{key}" stands twice, first on line {first}. Remove one of them.'
            raise problem(reading.path, _line(key_node), what)
        reading.lines[(*at, key)] = _line(key_node)
        yield key, value_node


def _scalar(node: yaml.ScalarNode, reading: _Reading) -> object:
    try:
        return reading.loader.construct_object(node)
    except ValueError as error:  # 2026-02-30 looks like a date to YAML and is none
        what = f'"{node.value}" is not valid: {error}.'
        raise problem(reading.path, _line(node), what) from error


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
