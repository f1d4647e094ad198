"""A study: what a person wrote in `data/<study>/`, read, checked as a whole, and frozen into a run.

Refuses a study that it does not fully understand: every complaint names file, line and the nearest
right name, and nothing is guessed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from lib import parts, policies, yamls
from lib.errors import StudyError
from lib.parts import Part
from lib.policies import Policy

Name = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
FieldName = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")]
Weight = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Text = Annotated[str, pydantic.StringConstraints(min_length=1)]
PARTS = ("corpus", "items", "prompt", "fields", "panels", "panel", "policies", "voting")
FORMATS = ("auto", "british-library", "txt", "json", "jsonl", "csv", "parquet")


class Source(Part):
    """Where documents come from: a glob of files (or a URL) and, for tables, the columns."""

    path: Text
    format: Literal[FORMATS] = "auto"
    encoding: Text = "utf-8"
    id: str | None = None
    text: Text = "text"
    group: str | None = None
    date: str | None = None
    keep: list[str] = []


class Groups(Part):
    """A table about the groups that verdicts are reached on."""

    path: Text
    id: Text
    name: str | None = None


class Items(Part):
    """How documents become items."""

    min_chars: int = pydantic.Field(default=1, ge=1)
    max_tokens: int = pydantic.Field(default=2000, ge=50)
    long: Literal["passages", "cut", "refuse"] = "passages"


class Value(Part):
    """One allowed value of a field, described for the annotators."""

    description: Text
    cues: list[str] = []


class Attribute(Part):
    """One member of an entity besides its name; null where unknown."""

    description: Text
    type: Literal["text", "integer", "number", "names"] = "text"
    values: list[str] = []
    minimum: float | None = None
    maximum: float | None = None


class Field(Part):
    """One question in the answer.

    `when` names a boolean field that must be true for this one to apply; `prefer` says how a tie
    is decided (a value, "schema order" or "heaviest"); `threshold` elects entities.
    """

    description: Text
    type: Literal["category", "boolean", "integer", "number", "text", "entities"] = "category"
    values: dict[str, Value] = {}
    default: str | None = None
    when: str | None = None
    prefer: str | None = None
    attributes: dict[FieldName, Attribute] = {}
    threshold: Annotated[float, pydantic.Field(gt=0, le=1)] | None = None
    combine: Literal["mean", "median"] = "mean"
    minimum: float | None = None
    maximum: float | None = None

    @property
    def allowed(self) -> list[str]:
        """The values that a vote may have, in schema order; empty when they are not a closed set."""
        return ["true", "false"] if self.type == "boolean" else list(self.values)


class Annotator(Part):
    """A model with its settings, asked `repeats` times about every item."""

    model: Text
    repeats: int = pydantic.Field(default=1, ge=1, le=20)
    weight: Weight = 1.0
    parameters: dict[str, str | int | float | bool] = {}
    fallback: list[str] = []


class Panel(Part):
    """The annotators of a study and whether their weight is the model's or each repeat's."""

    annotators: dict[Name, Annotator]
    weights: Literal["per_model", "per_repeat"] = "per_model"
    description: str = ""


class Voting(Part):
    """Share of the planned weight that must be passed, and the default entity threshold."""

    quorum: Share = 0.5
    threshold: Annotated[float, pydantic.Field(gt=0, le=1)] = 1 / 3


class Sending(Part):
    """Bounds of submission: canary size, share of answers that may fail, tries, lines in a file."""

    canary: int = pydantic.Field(default=5, ge=1, le=100)
    max_failure_share: Share = 0.2
    attempts: int = pydantic.Field(default=3, ge=1, le=10)
    max_requests: int = pydantic.Field(default=50_000, ge=1, le=50_000)
    tier: int = pydantic.Field(default=1, ge=1, le=5)


class Study(Part):
    """Everything that a run needs to know of what the researcher wanted."""

    name: Name
    title: Text
    question: Text
    corpus: dict[Name, Source]
    groups: Groups | None = None
    items: Items = Items()
    fields: dict[FieldName, Field]
    panel: Name
    panels: dict[Name, Panel]
    voting: Voting = Voting()
    sending: Sending = Sending()
    k: list[Annotated[int, pydantic.Field(ge=1)]] = []
    policies: dict[str, Policy] = {}
    prompt: Text
    folder: str

    @property
    def annotators(self) -> Mapping[str, Annotator]:
        """The annotators of the chosen panel, by name."""
        return self.panels[self.panel].annotators

    @property
    def n_votes(self) -> int:
        """Requests for each item: the sum of the panel's repeats."""
        return sum(annotator.repeats for annotator in self.annotators.values())


def load(folder: Path, panel: str = "") -> Study:
    """The study in `folder`, checked as a whole; `panel` overrides the study's choice.

    Raises StudyError with file and line for anything that is wrong, missing or unknown.
    """
    path = folder / "study.yml"
    if not path.is_file():
        raise StudyError(_no_study(folder), file=str(path), line=None)
    data, lines = yamls.read(path)
    if not isinstance(data, dict):
        raise yamls.problem(path, 1, "expected a mapping with title, corpus, fields and panels")
    read = {file: yamls.read(file) for file in sorted((folder / "policies").glob("*.yml"))}
    whole = {
        **data,
        "name": folder.name,
        "folder": str(folder),
        "prompt": _prompt(folder),
        "fields": _union(data.get("fields", {}), path, read),
        **({"panel": panel} if panel else {}),
    }
    study = parts.parse(Study, whole, path, lines)
    _check(study, path, lines)
    parsed = {
        file.stem: policies.parse(file, data, lines, study.fields)
        for file, (data, lines) in read.items()
    }
    return study.model_copy(update={"policies": parsed})


def freeze(study: Study) -> dict[str, Any]:
    """What `study.lock.yml` holds: the study as it is now, with hashes of its parts."""
    body = study.model_dump(mode="json")
    return {
        "sha256": {part: digest(body[part]) for part in ("prompt", "fields", "policies", "panels")},
        "study": body,
    }


def thaw(path: Path) -> Study:
    """The study that was frozen in the lock file `path`, validated again."""
    return parts.parse(Study, yamls.read(path)[0]["study"], path, {})


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`, as hex: equal content, equal digest.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _no_study(folder: Path) -> str:
    found = sorted(path.parent.name for path in folder.parent.glob("*/study.yml"))
    return (
        f"no study at {folder}: study.yml is missing.{yamls.nearest(folder.name, found)} "
        f"Studies there: {', '.join(found) or 'none'}. A study is a folder with study.yml and prompt.md."
    )


def _prompt(folder: Path) -> str:
    path = folder / "prompt.md"
    if not path.is_file():
        raise StudyError(
            f"{path} is missing: write the instructions there.", file=str(path), line=None
        )
    text = path.read_text(encoding="utf-8").strip()
    if not text:
        raise yamls.problem(path, 1, "the prompt is empty: write the instructions there.")
    return text


def _union(fields: dict, path: Path, read: Mapping[Path, tuple[Any, dict]]) -> dict:
    """The study's fields and those that its policies bring; two definitions are an error."""
    union, origin = dict(fields), dict.fromkeys(fields, path)
    for file, (data, lines) in read.items():
        for name, field in (data.get("fields") or {}).items():
            if name in union and union[name] != field:
                what = f"field {name!r} is defined otherwise in {origin[name].name}; keep one of the two"
                raise yamls.problem(file, lines.get(("fields", name)), what)
            union[name], origin[name] = field, file
    return union


def _check(study: Study, path: Path, lines: Mapping[tuple, int]) -> None:
    """What no single entry can tell: names that point at each other, and field rules."""
    if study.panel not in study.panels:
        what = f"no panel {study.panel!r}.{yamls.nearest(study.panel, study.panels)}"
        raise yamls.problem(path, lines.get(("panel",)), what)
    for name, field in study.fields.items():
        wrong = _field_fault(name, field, study.fields)
        if wrong:
            raise yamls.problem(path, lines.get(("fields", name)), f"field {name!r}: {wrong}")


def _field_fault(name: str, field: Field, fields: Mapping[str, Field]) -> str:
    """What is wrong with a field, or nothing."""
    closed = field.allowed
    if field.type == "category" and len(closed) < 2:
        return "a category needs at least two values"
    if field.values and field.type not in ("category", "boolean"):
        return f"type {field.type} has no values"
    if field.type == "boolean" and set(field.values) - {"true", "false"}:
        return 'a boolean has the values "true" and "false"'
    if field.default is not None and closed and field.default not in closed:
        return f"default {field.default!r} is not one of its values {closed}"
    if field.prefer and field.prefer not in [*closed, "schema order", "heaviest"]:
        return f"prefer {field.prefer!r} is none of {[*closed, 'schema order', 'heaviest']}"
    if (field.attributes or field.threshold) and field.type != "entities":
        return "attributes and threshold belong to type: entities"
    if field.when is None:
        return ""
    if field.when == name or field.when not in fields:
        return f"when {field.when!r} names no other field.{yamls.nearest(field.when, fields)}"
    if fields[field.when].type != "boolean" or fields[field.when].when:
        return f"when {field.when!r} must be a boolean field that always applies"
    return ""
