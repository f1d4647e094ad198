"""What a run will cost and how long it will take, before anything is sent.

It prices every request three ways: low, expected and high. Money is reckoned in whole millionths of
a micro-dollar, so that the rows of an estimate add up to its totals. It refuses to promise what the
service does not: expected figures have no cached rate, and `worst_case_usd` takes every answer to
be as long as its cap. How long answers are expected to be comes from `lengths`.
"""

import math
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from lib import errors, models
from lib.lengths import OutputTokens
from lib.study import Annotator

# Shorter prefixes are never cached (developers.openai.com/api/docs/guides/prompt-caching).
MIN_CACHED_TOKENS = 1_024
# Our assumption: hours for one queue full of tokens. Simulations of batches that take 2 hours (the
# median), refilled in eighths of the queue, gave 1 to 5 by how the service schedules; expected lies
# between, and high is the completion window that the service states.
HOURS_PER_WAVE = (1, 3, 24)

USD_COLUMNS = ("estimate_usd_low", "estimate_usd_expected", "estimate_usd_high", "worst_case_usd")
UNITS_PER_MICRO_USD = models.UNITS_PER_USD // 1_000_000


def price_requests(
    requests: pd.DataFrame,
    outputs: Mapping[str, OutputTokens],
    known_keys: Collection[str] = frozenset(),
    table: models.Table | None = None,
) -> pd.DataFrame:
    """The requests with their tokens and prices; what is known already costs nothing.

    A key that stands twice is asked once, so its second row is known too. Adds is_new,
    n_cached_tokens (what could be cached, used by low alone), n_output_tokens_low,
    _expected and _high, n_reasoning_tokens, and units_low, _expected, _high and _worst: whole
    millionths of a micro-dollar.
    """
    if requests.empty:
        raise errors.AccountingError("there are no requests to price. Load the documents again.")
    strangers = sorted(set(requests["annotator"]) - set(outputs))
    if strangers:
        what = f"annotators of the requests who are not in the panel: {strangers}."
        raise errors.AccountingError(f"{what} Load the documents again.", annotators=strangers)
    marked = requests.reset_index(drop=True)
    marked["is_new"] = ~(marked["key"].isin(known_keys) | marked["key"].duplicated())
    parts = [
        _priced(group, outputs[annotator], models.facts(model, table))
        for (annotator, model), group in marked.groupby(["annotator", "model"], sort=False)
    ]
    return pd.concat(parts).sort_index()


def _priced(rows: pd.DataFrame, output: OutputTokens, model: models.Model) -> pd.DataFrame:
    is_new = rows["is_new"]
    n_input, cap = rows["n_input_tokens"] * is_new, rows["max_output_tokens"] * is_new
    bound = math.inf if output.high is None else output.high
    n_low, n_expected, n_high = (
        np.minimum(cap, np.ceil(n)).astype("int64") if math.isfinite(n) else cap
        for n in (output.low, output.expected, bound)
    )
    is_cacheable = rows["n_prefix_tokens"] >= MIN_CACHED_TOKENS
    n_cached = rows["n_prefix_tokens"].where(is_cacheable & is_new, 0)
    plain, dearest = _rates(model, n_input), _rates(model, n_input, dearest=True)
    return rows.assign(
        n_cached_tokens=n_cached,
        n_output_tokens_low=n_low,
        n_output_tokens_expected=n_expected,
        n_output_tokens_high=n_high,
        n_reasoning_tokens=np.minimum(n_expected, math.ceil(output.reasoning)),
        units_low=_units(plain, n_input - n_cached, n_low) + n_cached * plain["cached"],
        units_expected=_units(plain, n_input, n_expected),
        units_high=_units(dearest, n_input, n_high),
        units_worst=_units(dearest, n_input, cap),
    )


def _rates(
    model: models.Model, n_input: pd.Series, *, dearest: bool = False
) -> Mapping[str, np.ndarray]:
    is_long = n_input > (model.long_input_tokens or math.inf)
    short, long = (models.rates(model, long_input=x, dearest=dearest) for x in (False, True))
    return {
        name: np.where(is_long, getattr(long, name), getattr(short, name))
        for name in models.Rates._fields
    }


def _units(rate: Mapping[str, np.ndarray], n_input: pd.Series, n_output: pd.Series) -> pd.Series:
    return n_input * rate["input"] + n_output * rate["output"]


def estimate(
    priced: pd.DataFrame,
    annotators: Mapping[str, Annotator],
    tier: int,
    limits: Mapping[str, int] | None = None,
    table: models.Table | None = None,
) -> pd.DataFrame:
    """One row an annotator of what is still to be sent, from the requests of `price_requests`.

    Token and money columns count new requests alone: n_requests = n_known + n_new. Queue limits are
    the tier's unless `limits` knows better by model; waves and hours are those of the model, which
    its annotators share, and null where its limit is not known.
    """
    rows = [
        {"annotator": name, "model": annotator.model, **_sums(priced[priced["annotator"] == name])}
        for name, annotator in annotators.items()
    ]
    frame = pd.DataFrame(rows)
    queues = {model: models.facts(model, table).queue_tokens.get(tier) for model in frame["model"]}
    queues |= limits or {}
    groups = frame.groupby("model", sort=False)
    waves = {model: _waves(group, queues[model]) for model, group in groups}
    frame = frame.join(pd.DataFrame.from_dict(waves, orient="index"), on="model")
    whole = {"queue_limit_tokens": "Int64", "n_waves": "Int64"}
    return frame.drop(columns="_cap_tokens").astype(whole)


def _sums(rows: pd.DataFrame) -> dict[str, int | float]:
    n_new = int(rows["is_new"].sum())
    names = ("n_cached_tokens", "n_output_tokens_low", "n_output_tokens_expected")
    counted = (*names, "n_output_tokens_high", "n_reasoning_tokens")
    units = ("units_low", "units_expected", "units_high", "units_worst")
    return {
        "n_requests": len(rows),
        "n_known": len(rows) - n_new,
        "n_new": n_new,
        "n_input_tokens": int(rows.loc[rows["is_new"], "n_input_tokens"].sum()),
        **{name: int(rows[name].sum()) for name in counted},
        **{c: _usd(rows[u]) for c, u in zip(USD_COLUMNS, units, strict=True)},
        "_cap_tokens": int(rows.loc[rows["is_new"], "max_output_tokens"].sum()),
    }


def _usd(units: pd.Series) -> float:
    """The sum in dollars, rounded up to a micro-dollar; in two parts, since int64 ends at $9.2M."""
    n_micro_usd, rest = units // UNITS_PER_MICRO_USD, units % UNITS_PER_MICRO_USD
    return (int(n_micro_usd.sum()) - (-int(rest.sum()) // UNITS_PER_MICRO_USD)) / 1_000_000


def _waves(group: pd.DataFrame, limit: int | None) -> dict[str, float | None]:
    """Queue-fulls and hours; high also counts the caps, which the queue may reserve."""
    n_input, n_cap = int(group["n_input_tokens"].sum()), int(group["_cap_tokens"].sum())
    columns = ("hours_low", "hours_expected", "hours_high")
    if limit is None:
        return {"queue_limit_tokens": None, "n_waves": None, **dict.fromkeys(columns, math.nan)}
    n_waves, n_waves_high = -(-n_input // limit), -(-(n_input + n_cap) // limit)
    hours = zip(columns, HOURS_PER_WAVE, (n_waves, n_waves, n_waves_high), strict=True)
    counts = {"queue_limit_tokens": limit, "n_waves": n_waves}
    return {**counts, **{column: float(per_wave * n) for column, per_wave, n in hours}}


def totals(estimate: pd.DataFrame) -> dict[str, int | float]:
    """The whole of an estimate: counts and money added up, hours as those of the slowest model."""
    counts = [c for c in estimate if c.startswith("n_") and c != "n_waves"]
    hours = [c for c in estimate if c.startswith("hours_")]
    return {
        **{c: int(estimate[c].sum()) for c in counts},
        **{c: sum(round(usd * 1_000_000) for usd in estimate[c]) / 1_000_000 for c in USD_COLUMNS},
        **{c: float(estimate[c].max(skipna=False)) for c in hours},
    }


def affordable(priced: pd.DataFrame, max_usd: float, column: str = "units_expected") -> int:
    """How many items, taken in the order of their first request, `max_usd` can pay for.

    With "units_worst" it is a bound: sort the requests as the sample is drawn. Prices of items are
    rounded up to a micro-dollar; items that cost nothing count.
    """
    items = priced.groupby("item", sort=False)[column].sum()
    n_micro_usd = -(-items // UNITS_PER_MICRO_USD)
    return int((n_micro_usd.cumsum() <= round(max_usd * 1_000_000)).sum())


def worst_case_usd(requests: pd.DataFrame, table: models.Table | None = None) -> float:
    """The most that these requests can cost: the dearest input, every answer as long as its cap."""
    if requests.empty:
        return 0.0
    outputs = dict.fromkeys(requests["annotator"], OutputTokens(0, 0, None, 0))
    return _usd(price_requests(requests, outputs, table=table)["units_worst"])
