"""The form of a file of model facts: how it is read, checked and laid over another.

It decides what a row may say and refuses what cannot be meant: unknown members, text instead of a
number, a price without its day and source, a batch price above the standard one. What the facts
imply is the business of `models`.
"""

import datetime
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lib import errors, yamls


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens; `cached_usd` is None where no cached rate is known."""

    input_usd: float
    output_usd: float
    cached_usd: float | None = None
    cache_write_usd: float | None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """The facts about one model; None where a fact is not known.

    `price` is the batch price. `efforts` is empty where reasoning_effort is refused and None where
    the accepted values are not known. `queue_tokens` maps a tier to the batch queue limit.
    """

    name: str
    family: str
    size: str
    encoding: str
    cap_parameter: str
    queue_tokens: Mapping[int, int]
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    price: Price | None = None
    standard: Price | None = None
    priced_at: datetime.date | None = None
    source: str | None = None
    batchable: bool = True
    shutdown_at: datetime.date | None = None
    replacement: str | None = None
    efforts: tuple[str, ...] | None = None
    default_effort: str | None = None
    verbosities: tuple[str, ...] = ()
    long_input_tokens: int | None = None
    long_input_factor: float = 1
    long_output_factor: float = 1

    @property
    def reasoning(self) -> bool:
        """Whether the model can reason before it answers."""
        return self.efforts != ()


def read(*paths: Path) -> dict[str, Model]:
    """The models of several files, later ones changing or adding members; raises StudyError."""
    tables: dict[str, dict[str, dict]] = {"queues": {}, "families": {}, "models": {}}
    for path in paths:
        for kind, rows in _file(path).items():
            for name, row in rows.items():
                tables[kind][name] = {**tables[kind].get(name, {}), **row}
    return {name: _model(name, row, tables) for name, row in tables["models"].items()}


def _model(name: str, row: Mapping, tables: Mapping) -> Model:
    place = row["place"]
    _require(row, ("family", "size"), f'model "{name}"', place)
    family = _referred(row["family"], tables["families"], "family", place)
    _require(family, ("encoding", "cap_parameter"), f'family "{row["family"]}"', family["place"])
    _check_effort(family)
    queue = _referred(row.get("queue") or row["size"], tables["queues"], "queue", place)
    if row.get("replacement") is not None:
        _referred(row["replacement"], tables["models"], "model", place)
    batch, standard = _prices(name, row)
    known = {k: v for k, v in {**family, **row}.items() if v is not None}
    for member in ("place", "queue", "batch", "standard"):
        known.pop(member, None)
    for member in {"efforts", "verbosities"} & known.keys():
        known[member] = tuple(known[member])
    limits = {tier: n_tokens for tier, n_tokens in queue.items() if tier != "place"}
    return Model(name=name, price=batch, standard=standard, queue_tokens=limits, **known)


def _require(row: Mapping, members: tuple[str, ...], what: str, place: tuple) -> None:
    for member in members:
        if row.get(member) is None:
            raise yamls.problem(*place, f"{what} needs {member}.")


def _check_effort(family: Mapping) -> None:
    effort, efforts = family.get("default_effort"), family.get("efforts")
    if effort is not None and efforts is not None and effort not in efforts:
        raise yamls.problem(*family["place"], f'default_effort "{effort}" is not among efforts.')


def _prices(name: str, row: Mapping) -> tuple[Price | None, Price | None]:
    batch, standard = row.get("batch"), row.get("standard")
    if batch is None and standard is None:
        return None, None
    if batch is None or standard is None:
        what = f'model "{name}" needs both prices, batch and standard.'
        raise yamls.problem(*row["place"], what)
    if batch["input_usd"] > standard["input_usd"]:
        what = f'the batch price of "{name}" is above its standard price. Swap them?'
        raise yamls.problem(*row["place"], what)
    return Price(**batch), Price(**standard)


def _referred(name: str, table: Mapping, kind: str, place: tuple) -> Mapping:
    if name not in table:
        raise yamls.problem(*place, f'there is no {kind} "{name}".{yamls.nearest(name, table)}')
    return table[name]


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0


def _words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _word(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _day(value: object) -> bool:
    return isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)


Kind = tuple[Callable[[object], bool], str]
WORD: Kind = (_word, "a word")
WORDS: Kind = (_words, "a list of words")
COUNT: Kind = (_count, "a whole number above 0")
USD: Kind = (_number, "a number of dollars per million tokens, 0 or more")
FACTOR: Kind = (lambda value: _number(value) and value >= 1, "a number, 1 or more")
DAY: Kind = (_day, "a date such as 2026-11-15")
FLAG: Kind = (lambda value: isinstance(value, bool), "true or false")
ROWS: Kind = (lambda value: isinstance(value, dict), "a table of members")
SIZE: Kind = (lambda value: value in ("nano", "mini", "large"), "nano, mini or large")
CAP: Kind = (
    lambda value: value in ("max_completion_tokens", "max_tokens"),
    "max_completion_tokens or max_tokens",
)

FILE = {"priced_at": DAY, "source": WORD, "queues": ROWS, "families": ROWS, "models": ROWS}
FAMILY = {
    "encoding": WORD,
    "cap_parameter": CAP,
    "efforts": WORDS,
    "default_effort": WORD,
    "verbosities": WORDS,
    "long_input_tokens": COUNT,
    "long_input_factor": FACTOR,
    "long_output_factor": FACTOR,
}
MODEL = {
    "family": WORD,
    "size": SIZE,
    "queue": WORD,
    "context_tokens": COUNT,
    "max_output_tokens": COUNT,
    "standard": ROWS,
    "batch": ROWS,
    "priced_at": DAY,
    "source": WORD,
    "batchable": FLAG,
    "shutdown_at": DAY,
    "replacement": WORD,
}
PRICE = {"input_usd": USD, "output_usd": USD, "cached_usd": USD, "cache_write_usd": USD}


@dataclass(frozen=True)
class _Source:
    path: Path
    lines: yamls.Lines

    def problem(self, at: tuple, what: str) -> errors.StudyError:
        """The error for a value of this file."""
        return yamls.problem(self.path, yamls.line_of(self.lines, *at), what)


def _file(path: Path) -> dict[str, dict]:
    data, lines = yamls.read(path)
    source = _Source(path, lines)
    if not isinstance(data, dict):
        raise source.problem((), "model facts need a table with the member models.")
    _check(source, (), data, FILE)
    tables = {kind: data.get(kind) or {} for kind in ("queues", "families", "models")}
    for kind, rows in tables.items():
        for name, row in rows.items():
            _check_row(source, (kind, name), row)
    rows = tables["models"]
    tables["models"] = {name: _dated(source, name, row, data) for name, row in rows.items()}
    return {
        kind: {name: {**row, "place": (path, lines[(kind, name)])} for name, row in rows.items()}
        for kind, rows in tables.items()
    }


def _check_row(source: _Source, at: tuple, row: object) -> None:
    if not (isinstance(row, dict) and isinstance(at[-1], str)):
        raise source.problem(at, f'"{at[-1]}" must be a name with a table of members.')
    if at[0] == "queues":
        for tier, n_tokens in row.items():
            if not (_count(tier) and _count(n_tokens)):
                what = f'tier "{tier}" with limit "{n_tokens}": both must be {COUNT[1]}.'
                raise source.problem((*at, tier), what)
        return
    _check(source, at, row, FAMILY if at[0] == "families" else MODEL)
    for member in {"batch", "standard"} & row.keys():
        if row[member] is not None:
            _check_price(source, (*at, member), row[member])


def _check_price(source: _Source, at: tuple, price: Mapping) -> None:
    _check(source, at, price, PRICE)
    for member in ("input_usd", "output_usd"):
        if price.get(member) is None:
            raise source.problem(at, f"{at[-1]} of {at[-2]} needs {member}.")


def _check(source: _Source, at: tuple, row: Mapping, kinds: Mapping[str, Kind]) -> None:
    for member, value in row.items():
        if member not in kinds:
            what = f'"{member}" is not known here.{yamls.nearest(member, kinds)}'
            raise source.problem((*at, member), f"{what} Known: {', '.join(kinds)}.")
        fits, kind = kinds[member]
        if value is not None and not fits(value):
            raise source.problem((*at, member), f'{member} must be {kind}, and is "{value}".')


def _dated(source: _Source, name: str, row: Mapping, data: Mapping) -> dict:
    if row.get("batch") is None and row.get("standard") is None:
        return dict(row)
    dates = {member: row.get(member) or data.get(member) for member in ("priced_at", "source")}
    for member, value in dates.items():
        if value is None:
            what = f'the price of "{name}" needs {member}, in its row or for the whole file.'
            raise source.problem(("models", name), what)
    return {**row, **dates}
