"""A study: what a person wrote in `data/<study>/`, read, checked as a whole, and frozen into a run.

Refuses a study that it does not fully understand: every complaint names file, line and the nearest
right name, and nothing is guessed.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from lib import clock, models, parts, policy_files, yamls
from lib import fields as questions
from lib import folder as folders
from lib.errors import ModelError
from lib.fields import Field, FieldName
from lib.parts import Part, Share, Text
from lib.policies import Policy

Name = Annotated[str, pydantic.StringConstraints(pattern=folders.NAME)]
Weight = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
PARTS = ("corpus", "groups", "items", "prompt", "fields", "panels", "panel", "policies")
PARTS += ("voting", "sending", "k")
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


class Annotator(Part):
    """A model with its settings, asked `repeats` times about every item."""

    model: Text
    repeats: int = pydantic.Field(default=1, ge=1, le=20)
    weight: Weight = 1.0
    parameters: dict[str, str | int | float | bool] = {}
    fallback: list[Text] = []


class Panel(Part):
    """The annotators of a study and whether their weight is the model's or each repeat's.

    In `mode: alarm` the annotator of the largest weight decides alone, and the others only say
    where people should look.
    """

    annotators: Annotated[dict[Name, Annotator], pydantic.Field(min_length=1)]
    weights: Literal["per_model", "per_repeat"] = "per_model"
    mode: Literal["vote", "alarm"] = "vote"
    description: str = ""

    @property
    def strong(self) -> str | None:
        """The annotator that decides alone in `mode: alarm`; none where all have a vote."""
        weights = {name: annotator.weight for name, annotator in self.annotators.items()}
        return max(weights, key=weights.__getitem__) if self.mode == "alarm" else None


class Voting(Part):
    """Share of planned weight that must be passed, default entity threshold, what becomes of names
    that overlap, and whether votes are asked that cannot matter; `pilot` items are asked in full.
    """

    quorum: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.5
    threshold: Annotated[float, pydantic.Field(gt=0, le=1)] = 1 / 3
    overlaps: Literal["settle", "keep"] = "settle"
    ask: Literal["all", "decisive"] = "all"
    pilot: int = pydantic.Field(default=50, ge=0)


class Sending(Part):
    """Bounds of submission: canary size, share of answers that may fail and what follows then,
    tries, lines in a file."""

    canary: int = pydantic.Field(default=5, ge=1, le=100)
    max_failure_share: Share = 0.2
    brake: Literal["stop", "cancel"] = "stop"
    attempts: int = pydantic.Field(default=3, ge=1, le=10)
    max_requests: int = pydantic.Field(default=50_000, ge=1, le=50_000)
    tier: int = pydantic.Field(default=1, ge=1, le=5)
    allow_network_folder: bool = False


class Study(Part):
    """Everything that a run needs to know of what the researcher wanted."""

    name: Name
    title: Text
    question: Text
    corpus: Annotated[dict[Name, Source], pydantic.Field(min_length=1)]
    groups: Groups | None = None
    items: Items = Items()
    fields: Annotated[dict[FieldName, Field], pydantic.Field(min_length=1)]
    panel: Name
    panels: Annotated[dict[Name, Panel], pydantic.Field(min_length=1)]
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

    Raises StudyError with file and line for anything that is wrong, missing or unknown, and
    ModelError for a model that the chosen panel cannot use today.
    """
    path, data, lines = folders.study_file(folder)
    read = {file: yamls.read(file) for file in folders.policy_files(folder)}
    fields = questions.united(data.get("fields"), (path, lines), read)
    whole = {
        **data,
        "name": folder.name,
        "folder": str(folder.absolute()),
        "prompt": folders.prompt(folder),
        "fields": fields,
        **({"panel": panel} if panel else {}),
    }
    study = parts.parse(Study, whole, path, lines)
    questions.check(study.fields, (path, lines), read)
    for at, what in _faults(study, n_policies=len(read)):
        raise yamls.problem(path, yamls.line_of(lines, *at), what)
    check_models(study, clock.now().date(), lines)
    dated = any(source.date for source in study.corpus.values())
    known = {"ks": study.k, "dated": dated}
    known["groups"] = folder / study.groups.path if study.groups else None
    parsed = {
        file.stem: policy_files.parse(file, content, study.fields, **known)
        for file, content in read.items()
    }
    return study.model_copy(update={"policies": parsed})


def check_models(study: Study, today: date, lines: Mapping[tuple, int] | None = None) -> list[str]:
    """Warnings about the models of the chosen panel, each once: those that are shut down soon.

    A fallback gets the annotator's parameters, so it must accept them too. Raises ModelError, with
    the line when the `lines` of study.yml are given.
    """
    path, warnings = Path(study.folder) / "study.yml", []
    for name, annotator in study.annotators.items():
        for place, model in _models(annotator):
            try:
                warnings += models.check(model, annotator.parameters, today)
            except ModelError as error:
                at = ("panels", study.panel, "annotators", name)
                at += ("parameters",) if "param" in vars(error) else place
                line = yamls.line_of(dict(lines), *at) if lines else None
                placed = yamls.problem(path, line, f"annotator {name!r}: {error}")
                raise ModelError(str(placed), **{**vars(error), **vars(placed)}) from None
    return list(dict.fromkeys(warnings))


def freeze(study: Study) -> dict[str, Any]:
    """What `study.lock.yml` holds: the study as it is now, with hashes of its parts."""
    body = study.model_dump(mode="json")
    return {
        "sha256": {part: digest(body[part]) for part in ("prompt", "fields", "policies", "panels")},
        "study": body,
    }


def thaw(path: Path) -> Study:
    """The study that was frozen in the lock file `path`, validated again.

    Its models are not checked: the results of a model that is gone can still be read.
    """
    data, _ = yamls.read(path)
    if not isinstance(data, dict) or "study" not in data:
        raise yamls.problem(path, 1, "this is no frozen study. Run 01_load_documents again.")
    return parts.parse(Study, data["study"], path, {})


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`, as hex: equal content, equal digest.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _models(annotator: Annotator) -> Iterator[tuple[tuple, str]]:
    """The models that may be asked for an annotator, with where each is written."""
    yield ("model",), annotator.model
    for n, model in enumerate(annotator.fallback):
        yield ("fallback", n), model


def _faults(study: Study, n_policies: int) -> Iterator[tuple[tuple, str]]:
    """Where names point at nothing or at each other, and what is wrong there."""
    if study.panel not in study.panels:
        known = ", ".join(study.panels)
        nearest = yamls.nearest(study.panel, study.panels)
        yield ("panel",), f"no panel {study.panel!r}.{nearest} Known: {known}."
    for name, panel in study.panels.items():
        for at, what in _of_panel(panel):
            yield ("panels", name, "annotators", *at), what
        if fault := _of_alarm(panel):
            yield ("panels", name, "mode"), fault
    for name, source in study.corpus.items():
        if not _is_text_encoding(source.encoding):
            what = f"no text encoding {source.encoding!r}. Common ones: utf-8, utf-16, iso-8859-1."
            yield ("corpus", name, "encoding"), what
    grouped = any(source.group for source in study.corpus.values())
    if study.groups and not grouped:
        yield ("groups",), "no source of the corpus names a group column. Write group: there."
    if n_policies and not grouped:
        what = "policies reach verdicts on groups, and no source names a group column."
        yield ("corpus",), f"{what} Write group: there, or remove policies/."
    if len(set(study.k)) < len(study.k):
        yield ("k",), f"a K stands twice in {study.k}. Remove one."


def _is_text_encoding(name: str) -> bool:
    try:
        "".encode(name)
    except LookupError:
        return False
    return True


def _of_panel(panel: Panel) -> Iterator[tuple[tuple, str]]:
    for name, annotator in panel.annotators.items():
        for word in ("max_tokens", "max_completion_tokens"):
            if word in annotator.parameters:
                what = f"annotator {name!r}: write max_output_tokens instead of {word}: it stands"
                yield (name, "parameters", word), f"{what} for it in every model family."
        if len({annotator.model, *annotator.fallback}) <= len(annotator.fallback):
            models = ", ".join([annotator.model, *annotator.fallback])
            what = f"annotator {name!r}: a model stands twice in the chain {models}."
            yield (name, "fallback"), f"{what} Remove one: each is asked in turn."
    for (first, one), (second, two) in itertools.combinations(panel.annotators.items(), 2):
        if _settings(one) == _settings(two):
            what = f"annotators {first!r} and {second!r} have the same model and parameters, and"
            what = f"{what} would share every answer. Keep one, with"
            yield (second,), f"{what} repeats: {one.repeats + two.repeats}."


def _of_alarm(panel: Panel) -> str:
    """What is wrong with a panel in which one annotator decides alone."""
    most = max(annotator.weight for annotator in panel.annotators.values())
    strong = [name for name, one in panel.annotators.items() if one.weight == most]
    if panel.mode == "vote" or len(strong) == 1 < len(panel.annotators):
        return ""
    if len(panel.annotators) == 1:
        return (
            "mode: alarm with one annotator: nobody raises an alarm. Add another, of less weight."
        )
    what = f"mode: alarm needs one annotator of the largest weight, and {', '.join(strong)} all"
    return f"{what} have {most:g}. Give a larger weight to the one that decides."


def _settings(annotator: Annotator) -> str:
    """What an annotator asks with; 1, 1.0 and true are different on the wire."""
    return json.dumps([annotator.model, annotator.parameters], sort_keys=True)
