"""Calibration: how often a value with such a share of the votes is right, learned from gold.

A share is no probability: models err together, so that all of them are often wrong at once. With
enough labels one number a field, the temperature, turns the shares of the votes into chances:
p is proportional to (share + 0.01) ** (1 / temperature), the largest likelihood on the labels
decides (temperature scaling, Guo and others 2017). Refuses a probability without such labels; what
is shown about its error was measured on labels that it was not fitted on.
"""

import json
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lib import gold
from lib.gold import confusion, learned
from lib.study import Study

LEAST_GOLD = 100
N_BINS = 10
KINDS = SHARE, PROBABILITY = "share", "probability"
# A value that nobody chose can be the true one: no share is taken for certainty.
FLOOR = 0.01
_NEVER = 1e-12
_TEMPERATURES = np.exp(np.linspace(-1, 3, 161))
_QUALITY = ["field", "n_gold", "accuracy", "mean_share", "ece_share", "mean_probability"]
_QUALITY += ["ece_probability", "temperature", "note"]
_PLACE = ["item", "field"]


def out_of_fold(
    decided: pd.DataFrame,
    labels: pd.DataFrame,
    study: Study,
    documents: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Labels on what the votes decide: item, field, is_right, share, probability.

    `decided` is the consensus before corrections. The probability of a label is from temperatures
    fitted on the other parts of the documents; null in a field with fewer than 100 labels.
    """
    rows = _labelled(decided, labels, study)
    fold = learned.folds(rows["item"], documents)
    parts = [_with_folds(rows[rows["field"].eq(name)], fold, study) for name in study.fields]
    return pd.concat(parts, ignore_index=True)[["item", "field", "is_right", *KINDS]]


def quality(
    decided: pd.DataFrame,
    labels: pd.DataFrame,
    study: Study,
    documents: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """How far shares and probabilities are off, a row a field with labels on decided values.

    ece is the expected calibration error: the mean distance between what is said and how often it
    is right, over ten bins of equal width, weighed by labels; that of the probability is out of
    fold. `temperature` is fitted on all labels; above 1 the shares promise too much. Where there
    are too few labels the note says so.
    """
    rows = out_of_fold(decided, labels, study, documents)
    fitted = _temperatures(_labelled(decided, labels, study), study)
    table = [
        {
            "field": name,
            "n_gold": len(some),
            "accuracy": some["is_right"].mean(),
            "mean_share": some[SHARE].mean(),
            "ece_share": ece(some[SHARE], some["is_right"]),
            "mean_probability": some[PROBABILITY].mean(),
            "ece_probability": ece(some[PROBABILITY], some["is_right"]),
            "temperature": fitted.get(name, math.nan),
            "note": "" if name in fitted else f"no probability: {LEAST_GOLD} labels are needed",
        }
        for name, some in rows.groupby("field", sort=False)
    ]
    return pd.DataFrame(table, columns=_QUALITY)


def probabilities(decided: pd.DataFrame, labels: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The chance that each decided value is right, where gold allows one: item, field, probability.

    Fields with at least 100 labels on decided values; the temperature is fitted on all of them.
    """
    fitted = _temperatures(_labelled(decided, labels, study), study)
    rows = decided[decided["status"].eq("decided") & decided["field"].isin(list(fitted))]
    parts = [
        rows.loc[rows["field"].eq(name), _PLACE].assign(
            probability=_tempered(_shares(rows[rows["field"].eq(name)], study), temperature)[:, 0]
        )
        for name, temperature in fitted.items()
    ]
    columns = {"item": "str", "field": "str", PROBABILITY: "float64"}
    return pd.concat([pd.DataFrame(columns=list(columns)).astype(columns), *parts]).sort_index(
        ignore_index=True
    )


def bins(rows: pd.DataFrame) -> pd.DataFrame:
    """What is said against how often it is right: kind, n, mean_said, share_right, low, high.

    `rows` as of `out_of_fold`, over all fields that have both; bins without labels are left out.
    """
    known = rows.dropna(subset=list(KINDS))
    table = [
        (kind, len(some), some[kind].mean(), some["is_right"].mean(), int(some["is_right"].sum()))
        for kind in KINDS
        for _, some in known.groupby(_bin(known[kind]))
    ]
    table = [(*row, *gold.wilson(n_right, row[1])) for *row, n_right in table]
    return pd.DataFrame(table, columns=["kind", "n", "mean_said", "share_right", "low", "high"])


def ece(said: pd.Series, is_right: pd.Series) -> float:
    """The expected calibration error over ten bins of equal width; NaN without values.

    >>> round(ece(pd.Series([0.9, 0.9, 0.9, 0.9]), pd.Series([True, True, True, False])), 2)
    0.15
    """
    known = said.notna()
    if not known.any():
        return math.nan
    table = pd.DataFrame({"said": said[known], "right": is_right[known].astype(float)})
    means = table.groupby(_bin(table["said"])).agg(["mean", "size"])
    off = (means["said", "mean"] - means["right", "mean"]).abs()
    return float((off * means["said", "size"]).sum() / known.sum())


def sentence(measured: pd.DataFrame) -> str:
    """Whether shares can be read as probabilities, with the numbers behind it."""
    fitted = measured[measured["temperature"].notna()]
    if fitted.empty:
        n = int(measured["n_gold"].max()) if len(measured) else 0
        what = "No probability is shown: shares say how many agree, not who is right. One needs"
        return f"{what} {LEAST_GOLD} labels on decided values of a field; the most here is {n}."
    said = [
        f"{row.field} {row.ece_share:.3f} as share, {row.ece_probability:.3f} as probability"
        for row in fitted.itertuples()
    ]
    return f"Expected calibration error, on labels not fitted on: {'; '.join(said)}."


def _labelled(decided: pd.DataFrame, labels: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The decided rows that have labels: with `true` and `is_right`, in order of field and item."""
    true = confusion.closed(labels, study).rename("true").reset_index()
    rows = decided[decided["status"].eq("decided")].merge(true, on=_PLACE)
    rows = rows.assign(is_right=rows["value"].eq(rows["true"]).astype(bool))
    return rows.sort_values(_PLACE, ignore_index=True)


def _shares(rows: pd.DataFrame, study: Study) -> np.ndarray:
    """The share of every value of one field: the decided one first, the others in any order."""
    found = []
    for name, value, text in zip(rows["field"], rows["value"], rows["weights"], strict=True):
        weights = json.loads(text)
        others = [weights.get(one, 0) for one in study.fields[name].allowed if one != value]
        found.append([weights.get(value, 0), *sorted(others)])
    table = np.array(found, dtype=float).reshape(len(rows), -1)
    return table / table.sum(axis=1, keepdims=True)


def _tempered(shares: np.ndarray, temperature: float) -> np.ndarray:
    logs = np.log(shares + FLOOR) / temperature
    chances = np.exp(logs - logs.max(axis=1, keepdims=True))
    return chances / chances.sum(axis=1, keepdims=True)


def _fit(rows: pd.DataFrame, study: Study) -> float:
    """The temperature under which being right and wrong on these labels is most likely."""
    shares, is_right = _shares(rows, study), rows["is_right"].to_numpy()
    losses = []
    for temperature in _TEMPERATURES:
        chance = _tempered(shares, temperature)[:, 0]
        said = np.where(is_right, chance, 1 - chance)
        losses.append(-np.log(np.maximum(said, _NEVER)).mean())
    return float(_TEMPERATURES[int(np.argmin(np.round(losses, 9)))])


def _temperatures(rows: pd.DataFrame, study: Study) -> dict[str, float]:
    """The temperature of each field with enough labels."""
    fields = {name: rows[rows["field"].eq(name)] for name in study.fields}
    return {name: _fit(some, study) for name, some in fields.items() if len(some) >= LEAST_GOLD}


def _with_folds(rows: pd.DataFrame, fold: pd.Series, study: Study) -> pd.DataFrame:
    """The rows of one field with the probability that the other parts give them."""
    rows = rows.assign(probability=np.nan)
    if len(rows) < LEAST_GOLD:
        return rows
    part = fold.reindex(rows["item"]).to_numpy()
    for n in sorted(set(part)):
        here = part == n
        if not here.all():
            chances = _tempered(_shares(rows[here], study), _fit(rows[~here], study))
            rows.loc[here, PROBABILITY] = chances[:, 0]
    return rows


def _bin(said: Sequence[float]) -> np.ndarray:
    return np.minimum((np.asarray(said) * N_BINS).astype(int), N_BINS - 1)
