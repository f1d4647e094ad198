"""Pieces of what people write in YAML, as frozen data with strict types.

A piece knows every entry that it may have: another one is an error with file, line and the
nearest right name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from lib import yamls

Kind = TypeVar("Kind", bound="Part")


class Part(pydantic.BaseModel):
    """A piece of a study or policy: unknown entries are errors, and it never changes."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


def parse(kind: type[Kind], data: object, path: Path, lines: Mapping[tuple, int]) -> Kind:
    """`data` as a `kind`, or a StudyError that names file, line and what is wrong there."""
    try:
        return kind.model_validate(data)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = tuple(part for part in first["loc"] if part != "[key]")
        line = yamls.line_of(dict(lines), *where) if lines else None
        raise yamls.problem(path, line, _says(kind, where, first)) from None


def _says(kind: type[Part], where: tuple, error: Mapping[str, Any]) -> str:
    name, inside = where[-1] if where else kind.__name__, " in ".join(map(str, where[-2::-1]))
    place = f"{name!r} in {inside}" if inside else f"{name!r}"
    if error["type"] == "extra_forbidden":
        known = _known(kind, where[:-1])
        return f"unknown entry {place}.{yamls.nearest(name, known)} Known: {', '.join(known)}."
    if error["type"] == "missing":
        return f"{place} is missing."
    given = error["input"]
    if isinstance(given, bool) and error["type"].endswith("string_type"):
        word = str(given).lower()
        return f'{place} is the truth value {word}; write the word "{word}" in quotes.'
    return f"{place} is {given!r}: {error['msg'].lower()}."


def _known(kind: type[Part], where: tuple) -> list[str]:
    """The entries that the part at `where` inside `kind` may have."""
    for step in where:
        field = kind.model_fields.get(step) if isinstance(step, str) else None
        kind = _part_in(field.annotation) if field else kind
    return sorted(kind.model_fields)


def _part_in(annotation: Any) -> type[Part]:
    """The part that an annotation such as `dict[str, Part] | None` holds."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    held = [_part_in(inner) for inner in getattr(annotation, "__args__", ())]
    return next((part for part in held if part is not Part), Part)
