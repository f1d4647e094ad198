"""Facts about models, and what follows from them before anything is sent.

It decides whether a study may use a model and a parameter, and what a number of tokens costs. It
refuses to guess: a fact that `data/models.yml` does not state is None here, and not checked. How
such a file is read stands in `reading`, which parameters a model refuses in `rules`.
"""

import datetime
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lib import errors, words, yamls
from lib.models import reading, rules

DEFAULT_PATH = yamls.WORKSPACE / "data" / "models.yml"
OWN_PATH = yamls.WORKSPACE / "data" / "models.local.yml"  # a user's own facts and prices
SHUTDOWN_WARNING_DAYS = 60
UNITS_PER_USD = 1_000_000_000_000

Model = reading.Model
Price = reading.Price
Table = Mapping[str, Model]
parameter_problems = rules.problems
context_problem = rules.context_problem


class Rates(NamedTuple):
    """Millionths of a micro-dollar per token."""

    input: int
    cached: int
    output: int


def load(*paths: Path) -> dict[str, Model]:
    """The models of `data/models.yml`, changed and completed by further files in their order.

    Raises StudyError with file and line for whatever does not fit the form of such a file.
    """
    return reading.read(DEFAULT_PATH, *paths) if paths else dict(_default())


@functools.cache
def _default() -> dict[str, Model]:
    return reading.read(DEFAULT_PATH, *([OWN_PATH] if OWN_PATH.is_file() else []))


def facts(name: str, table: Table | None = None) -> Model:
    """The facts about a model; a dated snapshot has those of its base name.

    >>> facts("gpt-6-luna-2026-09-01").name
    'gpt-6-luna'
    """
    table = _default() if table is None else table
    base = re.sub(r"-\d{4}-\d{2}-\d{2}$", "", str(name))
    model = table.get(name) or table.get(base)
    if model is None:
        what = f'no facts for model "{name}".{yamls.nearest(name, table)}'
        raise errors.ModelError(f"{what} Add a row to data/models.yml.", model=name)
    return model


def is_retired(model: Model, today: datetime.date) -> bool:
    """Whether the service has shut the model down; it is gone on the day of the shutdown."""
    return model.shutdown_at is not None and today >= model.shutdown_at


def rates(model: Model, *, long_input: bool = False, dearest: bool = False) -> Rates:
    """The batch prices as whole millionths of a micro-dollar per token, so that sums are exact.

    `long_input` applies the factors for a request above `long_input_tokens`. `dearest` is the bound
    for a budget: no cached rate, and all input written to the cache if that has a higher price.

    >>> rates(facts("gpt-5-nano"))
    Rates(input=25000, cached=2500, output=200000)
    """
    price = _known_price(model)
    input_factor = model.long_input_factor if long_input else 1
    output_factor = model.long_output_factor if long_input else 1
    input_usd = max(price.input_usd, price.cache_write_usd or 0) if dearest else price.input_usd
    cached_usd = input_usd if dearest or price.cached_usd is None else price.cached_usd
    return Rates(
        round(input_usd * input_factor * 1_000_000),
        round(cached_usd * input_factor * 1_000_000),
        round(price.output_usd * output_factor * 1_000_000),
    )


def spend_usd(
    model: Model, n_input_tokens: int, n_output_tokens: int, n_cached_tokens: int = 0
) -> float:
    """What one request costs at the batch price; output includes reasoning tokens.

    >>> spend_usd(facts("gpt-5-nano"), 2_000, 500)
    0.00015
    """
    rate = rates(model, long_input=is_long(model, n_input_tokens))
    return usd(rate, n_input_tokens, n_output_tokens, n_cached_tokens)


def usd(rate: Rates, n_input_tokens: int, n_output_tokens: int, n_cached_tokens: int) -> float:
    """What tokens cost at a rate, of which the input counts the cached ones too."""
    n_full_tokens = n_input_tokens - n_cached_tokens
    n_units = n_full_tokens * rate.input + n_cached_tokens * rate.cached
    return (n_units + n_output_tokens * rate.output) / UNITS_PER_USD


def worst_case_usd(model: Model, n_input_tokens: int, max_output_tokens: int) -> float:
    """The most that one request can cost: the dearest input, and output up to its cap."""
    rate = rates(model, long_input=is_long(model, n_input_tokens), dearest=True)
    return (n_input_tokens * rate.input + max_output_tokens * rate.output) / UNITS_PER_USD


def is_long(model: Model, n_input_tokens: int) -> bool:
    """Whether a request is charged by the factors for long input."""
    return model.long_input_tokens is not None and n_input_tokens > model.long_input_tokens


def _known_price(model: Model) -> Price:
    if model.price is None:
        what = f"no batch price is known for {model.name}, so its spend cannot be bounded."
        fix = "Give one with date and source in a price file."
        raise errors.ModelError(f"{what} {fix}", model=model.name)
    return model.price


def check(
    name: str, parameters: Mapping, today: datetime.date, table: Table | None = None
) -> list[str]:
    """Warnings about using a model with a study's parameters; ModelError if that cannot work.

    `max_output_tokens`, the study's own word for the cap, stands for the family's parameter.
    """
    model = facts(name, table)
    instead = f" Use {model.replacement} instead." if model.replacement else ""
    refusals = []
    if is_retired(model, today):
        refusals.append(f"was shut down on {model.shutdown_at}")
    if not model.batchable:
        refusals.append("is not available in the Batch API")
    if refusals:
        what = f"{name} {' and '.join(refusals)}.{instead}"
        raise errors.ModelError(what, model=name, replacement=model.replacement)
    _known_price(model)
    _check_parameters(model, parameters)
    return _shutdown_warning(model, today)


def _check_parameters(model: Model, parameters: Mapping) -> None:
    names = {"max_output_tokens": model.cap_parameter}
    body = {names.get(name, name): value for name, value in parameters.items()}
    for name in body:
        if name not in rules.NAMES:
            hint = yamls.nearest(name, rules.NAMES)
            what = f'"{name}" is not a parameter of an annotator.{hint}'
            raise errors.ModelError(f"{model.name}: {what}", model=model.name, param=name)
    for problem in parameter_problems(model, body):
        advice = rules.advice(model, problem["param"] or "reasoning_effort")
        refusal = problem["message"].rstrip(".")
        what = f"{model.name} refuses this request: {refusal}. {advice}"
        raise errors.ModelError(what, model=model.name, param=problem["param"])


def _shutdown_warning(model: Model, today: datetime.date) -> list[str]:
    if model.shutdown_at is None:
        return []
    n_days = (model.shutdown_at - today).days
    if n_days > SHUTDOWN_WARNING_DAYS:
        return []
    what = f"{model.name} shuts down on {model.shutdown_at}, in {words.n_of(n_days, 'day')}"
    return [f"{what}; replacement: {model.replacement or 'none is named'}"]
