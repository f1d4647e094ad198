"""Pieces of what people write in YAML, as frozen data with strict types.

A piece knows every entry that it may have: another one is an error with file, line and the
nearest right name.
"""

import datetime
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic

from lib import yamls

Kind = TypeVar("Kind", bound="Part")
Text = Annotated[str, pydantic.StringConstraints(min_length=1)]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]
_NO_WORD = ("string_type", "invalid_key")


class Part(pydantic.BaseModel):
    """A piece of a study or policy: unknown entries are errors, and it never changes."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


def parse(kind: type[Kind], data: object, path: Path, lines: Mapping[tuple, int]) -> Kind:
    """`data` as a `kind`, or a StudyError that names file, line and what is wrong there."""
    try:
        return kind.model_validate(data)
    except pydantic.ValidationError as error:
        # What is missing comes last: it is often there, and misspelt.
        first = min(error.errors(include_url=False), key=lambda one: one["type"] == "missing")
        where = _where(first, data)
        line = yamls.line_of(dict(lines), *where) if lines else None
        raise yamls.problem(path, line, _says(kind, where, first)) from None


def _where(error: Mapping[str, Any], data: object) -> tuple:
    """The place of an error in `data`, without the steps that name kinds and not entries."""
    steps = [step for step in error["loc"] if step != "[key]"]
    for n, step in enumerate(steps):
        known = range(len(data)) if isinstance(data, list) else data
        if not isinstance(known, dict | range) or step not in known:
            return tuple(steps[: n + (error["type"] == "missing")])
        data = data[step]
    return tuple(steps)


def _says(kind: type[Part], where: tuple, error: Mapping[str, Any]) -> str:
    is_key = (
        error["loc"][-1:] == ("[key]",) or error["type"] == "invalid_key"
    )  # pydantic shows a key that is true as 1
    name = error["input"] if is_key else where[-1] if where else kind.__name__
    inside = " in ".join(map(str, where[-2::-1]))
    place = f"{name!r} in {inside}" if inside else f"{name!r}"
    if error["type"] == "extra_forbidden":
        known = _known(kind, where[:-1])
        return f"unknown entry {place}.{yamls.nearest(name, known)} Known: {', '.join(known)}."
    if error["type"] == "missing":
        return f"{place} is missing."
    return f"{place} {_complaint(error)}"


def _complaint(error: Mapping[str, Any]) -> str:
    """What is wrong with a value, in the words of who wrote it."""
    given = error["input"]
    if given is None or given == "" or error["type"] == "too_short":
        return "is empty: write something there or remove it."
    if error["type"] == "literal_error":
        known = re.findall("'([^']*)'", error["ctx"]["expected"])
        return f"is {given!r}.{yamls.nearest(given, known)} Known: {', '.join(known)}."
    if error["type"] in _NO_WORD and isinstance(given, bool):
        word = str(given).lower()
        return f'is the truth value {word}; write the word "{word}" in quotes.'
    if error["type"] in _NO_WORD and isinstance(given, int | float | datetime.date):
        kind = "date" if isinstance(given, datetime.date) else "number"
        return f'is the {kind} {given}; write "{given}" in quotes.'
    return f"is {repr(given)[:60]}: {error['msg'].lower()}."


def _known(kind: type[Part], where: tuple) -> list[str]:
    """The entries that the part at `where` inside `kind` may have."""
    steps = iter(where)
    for step in steps:
        annotation = kind.model_fields[step].annotation
        kind = _part_in(annotation)
        if typing.get_origin(annotation) in (dict, list):
            next(steps, None)  # a name or number that the writer chose
    return sorted(kind.model_fields)


def _part_in(annotation: object) -> type[Part]:
    """The part that an annotation such as `dict[str, Part] | None` holds."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    held = [_part_in(inner) for inner in typing.get_args(annotation)]
    return next((part for part in held if part is not Part), Part)
