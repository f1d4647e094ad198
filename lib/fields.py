"""Fields: the questions in an answer, with the values that they allow.

A field stands in study.yml or comes with the policy that needs it. Decides which definitions make
sense; what an answer to them means is the business of `votes`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from lib import parts, yamls
from lib.parts import Part, Text

FieldName = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")]
File = tuple[Path, yamls.Lines]
Files = Mapping[Path, tuple[Any, yamls.Lines]]
_NUMBERS = ("integer", "number")


class Value(Part):
    """One allowed value of a field, described for the annotators."""

    description: Text
    cues: list[Text] = []


class Attribute(Part):
    """One member of an entity besides its name; null where unknown."""

    description: Text
    type: Literal["text", "integer", "number", "names"] = "text"
    values: list[Text] = []
    minimum: float | None = None
    maximum: float | None = None


class Field(Part):
    """One question in the answer.

    `ordered` says that the values of a category form a scale, in the order in which they stand;
    `when` names a boolean field that must be true for this one to apply; `prefer` says how a tie is
    decided (a value, "schema order" or "heaviest"); `threshold` elects entities.
    """

    description: Text
    type: Literal["category", "boolean", "integer", "number", "text", "entities"] = "category"
    values: dict[Text, Value] = {}
    default: str | None = None
    ordered: bool = False
    when: str | None = None
    prefer: str | None = None
    attributes: dict[FieldName, Attribute] = {}
    threshold: Annotated[float, pydantic.Field(gt=0, le=1)] | None = None
    combine: Literal["mean", "median"] = "mean"
    minimum: float | None = None
    maximum: float | None = None

    @property
    def allowed(self) -> list[str]:
        """The values that a vote may have, in schema order; empty when the set is open."""
        return ["true", "false"] if self.type == "boolean" else list(self.values)


class _Brought(Part):
    """The fields that a policy file brings along."""

    fields: dict[FieldName, Field] = {}


def united(own: object, study_file: File, policy_files: Files) -> object:
    """The study's fields and those that its policies bring, as written.

    Two different definitions of one field are an error.
    """
    if not isinstance(own, dict | None):
        return own
    union = dict(own or {})
    origin = dict.fromkeys(union, study_file)
    for file, (data, lines) in policy_files.items():
        brought = (data.get("fields") or {}) if isinstance(data, dict) else {}
        parts.parse(_Brought, {"fields": brought}, file, lines)
        for name, field in brought.items():
            if name in union and not _same(union[name], field):
                first, at = origin[name]
                what = f"field {name!r} is defined otherwise in {first.name}, line"
                what = f"{what} {at['fields', name]}. Keep one of the two."
                raise yamls.problem(file, lines["fields", name], what)
            union[name] = field
            origin.setdefault(name, (file, lines))
    return union


def check(fields: Mapping[str, Field], study_file: File, policy_files: Files) -> None:
    """Raises StudyError for the first field that makes no sense, where it is written first."""
    files = [study_file, *((file, lines) for file, (_, lines) in policy_files.items())]
    for name, field in fields.items():
        for what in _faults(name, field, fields):
            file, lines = next(pair for pair in files if ("fields", name) in pair[1])
            raise yamls.problem(file, lines["fields", name], f"field {name!r}: {what}")


def _same(one: object, other: object) -> bool:
    """Whether two definitions say the same; the order of values can decide ties and scales."""
    values = [field.get("values") if isinstance(field, dict) else None for field in (one, other)]
    if all(isinstance(each, dict) for each in values) and list(values[0]) != list(values[1]):
        return False
    return one == other


def _faults(name: str, field: Field, fields: Mapping[str, Field]) -> Iterator[str]:
    if field.type == "category" and len(field.allowed) < 2:
        yield "a category needs at least two values."
    if field.values and field.type not in ("category", "boolean"):
        yield f"type {field.type} has no values."
    if field.type == "boolean" and set(field.values) - {"true", "false"}:
        yield 'a boolean has the values "true" and "false".'
    if (field.attributes or field.threshold) and field.type != "entities":
        yield "attributes and threshold belong to type: entities."
    if field.ordered and field.type != "category":
        yield "ordered belongs to type: category, whose values then form a scale."
    if "combine" in field.model_fields_set and field.type not in _NUMBERS:
        yield "combine belongs to type: integer or number."
    yield from _of_choices(field)
    yield from _of_bounds(field)
    yield from _of_attributes(field)
    if field.when is not None:
        yield from _of_condition(name, field.when, fields)


def _of_choices(field: Field) -> Iterator[str]:
    closed = field.allowed
    folded = [" ".join(value.casefold().split()) for value in closed]
    if len(set(folded)) < len(folded):
        yield f"two of its values {closed} differ by case or space alone. Rename one."
    if field.default is not None and closed and field.default not in closed:
        nearest = yamls.nearest(field.default, closed)
        yield f"default {field.default!r} is not one of its values {closed}.{nearest}"
    ways = [*closed, "schema order", "heaviest"]
    if field.prefer and field.prefer not in ways:
        yield f"prefer {field.prefer!r} is none of {ways}.{yamls.nearest(field.prefer, ways)}"


def _of_attributes(field: Field) -> Iterator[str]:
    if "name" in field.attributes:
        yield "an entity has a name already. Rename the attribute 'name'."
    for name, attribute in field.attributes.items():
        if attribute.values and attribute.type != "text":
            yield f"attribute {name!r}: values belong to type: text."
        for what in _of_bounds(attribute):
            yield f"attribute {name!r}: {what}"


def _of_bounds(part: Field | Attribute) -> Iterator[str]:
    low, high = part.minimum, part.maximum
    if (low, high) != (None, None) and part.type not in _NUMBERS:
        yield "minimum and maximum belong to type: integer or number."
    if low is not None and high is not None and low > high:
        yield f"minimum {low:g} is above maximum {high:g}."


def _of_condition(name: str, when: str, fields: Mapping[str, Field]) -> Iterator[str]:
    if when == name or when not in fields:
        yield f"when {when!r} names no other field.{yamls.nearest(when, fields)}"
    elif fields[when].type != "boolean" or fields[when].when:
        yield f"when {when!r} must be a boolean field that always applies."
