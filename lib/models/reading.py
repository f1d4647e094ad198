"""The form of a file of model facts: how it is read, checked and laid over another.

It decides what a row may say and refuses what cannot be meant: unknown members, text instead of a
number, a price without its day and source, a batch price above the standard one. What the facts
imply is the business of `models`.
"""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from lib import parts, yamls
from lib.parts import Part, Text

Count = Annotated[int, pydantic.Field(gt=0)]
Usd = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
Factor = Annotated[float, pydantic.Field(ge=1, allow_inf_nan=False)]


class Price(Part):
    """US dollars per million tokens; `cached_usd` is None where no cached rate is known."""

    input_usd: Usd
    output_usd: Usd
    cached_usd: Usd | None = None
    cache_write_usd: Usd | None = None


class Family(Part):
    """What models have in common.

    `efforts` is empty where reasoning_effort is refused, None where its values are not known.
    """

    encoding: Text
    cap_parameter: Literal["max_completion_tokens", "max_tokens"]
    efforts: list[Text] | None = None
    default_effort: Text | None = None
    verbosities: list[Text] = []
    long_input_tokens: Count | None = None
    long_input_factor: Factor = 1
    long_output_factor: Factor = 1


class Row(Part):
    """What a file says about one model; None where a fact is not known."""

    family: Text
    size: Literal["nano", "mini", "large"]
    queue: Text | None = None
    context_tokens: Count | None = None
    max_output_tokens: Count | None = None
    standard: Price | None = None
    batch: Price | None = None
    priced_at: datetime.date | None = None
    source: Text | None = None
    batchable: bool = True
    shutdown_at: datetime.date | None = None
    replacement: Text | None = None


class Model(Row, Family):
    """The facts about one model; `queue_tokens` maps a tier to the batch queue limit."""

    name: str
    queue_tokens: dict[Count, Count]

    @property
    def price(self) -> Price | None:
        """The price that counts here: that of the Batch API."""
        return self.batch

    @property
    def reasoning(self) -> bool:
        """Whether the model can reason before it answers."""
        return self.efforts != []


class Facts(Part):
    """A whole file, laid over those before it."""

    priced_at: datetime.date | None = None
    source: Text | None = None
    queues: dict[Text, dict[Count, Count]] = {}
    families: dict[Text, Family] = {}
    models: dict[Text, Row] = {}


def read(*paths: Path) -> dict[str, Model]:
    """The models of several files, later ones changing or adding members; raises StudyError."""
    merged, facts = {}, Facts()
    for path in paths:
        data, lines = yamls.read(path)
        if not isinstance(data, dict):
            raise yamls.problem(path, 1, "model facts need a table with the member models.")
        merged = _over(merged, _dated(data), depth=3)
        facts = parts.parse(Facts, merged, path, lines)
        for at, what in _faults(facts):
            raise yamls.problem(path, yamls.line_of(lines, *at), what)
    return {name: _model(name, row, facts) for name, row in facts.models.items()}


def _model(name: str, row: Row, facts: Facts) -> Model:
    family, queue = facts.families[row.family], facts.queues[row.queue or row.size]
    return Model(name=name, queue_tokens=queue, **dict(family), **dict(row))


def _over(old: Any, new: Any, depth: int) -> Any:  # noqa: ANN401 - whatever a file holds
    """`new` laid over `old`, table by table down to `depth`."""
    if not depth or not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{name: _over(old.get(name), new[name], depth - 1) for name in new}}


def _dated(data: dict) -> dict:
    """The file with its day and source, or their absence, in each row that states a price."""
    rows = data.get("models")
    if not isinstance(rows, dict):
        return data
    day = {"priced_at": data.get("priced_at"), "source": data.get("source")}
    dated = {
        name: {**day, **row}
        for name, row in rows.items()
        if isinstance(row, dict) and {"batch", "standard"} & row.keys()
    }
    return {**data, "models": {**rows, **dated}}


def _faults(facts: Facts) -> Iterator[tuple[tuple, str]]:
    for name, family in facts.families.items():
        effort, efforts = family.default_effort, family.efforts
        if efforts is not None and effort not in {None, *efforts}:
            yield ("families", name), f'default_effort "{effort}" is not among efforts.'
    for name, row in facts.models.items():
        references = (
            ("family", row.family, facts.families),
            ("queue", row.queue or row.size, facts.queues),
            ("model", row.replacement, facts.models),
        )
        for kind, word, known in references:
            if word is not None and word not in known:
                what = f'there is no {kind} "{word}".{yamls.nearest(word, known)}'
                yield ("models", name), what
        for what in _price_faults(name, row):
            yield ("models", name), what


def _price_faults(name: str, row: Row) -> Iterator[str]:
    if row.batch is None and row.standard is None:
        return
    if row.batch is None or row.standard is None:
        yield f'model "{name}" needs both prices, batch and standard.'
    elif row.batch.input_usd > row.standard.input_usd:
        yield f'the batch price of "{name}" is above its standard price. Swap them?'
    for member in ("priced_at", "source"):
        if getattr(row, member) is None:
            yield f'the price of "{name}" needs {member}, in its row or for the whole file.'
