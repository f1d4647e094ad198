"""Agreement: how much the votes of a panel say the same, beyond what chance would give.

Two questions are kept apart. Within a model (its repeats) agreement says that the model is steady;
between models (one vote each) it says something about the consensus. Decides nothing about who is
right: that takes gold. Entity lists and free texts have no agreement here.

Where votes are asked only while they matter, annotators meet on doubtful items alone: `items` are
then those that were asked in full, on which agreement can be measured.

Kappa is Cohen's of 1960 with the large-sample error of Fleiss, Cohen and Everitt (1969); the
effective number of votes is the design effect m / (1 + (m - 1) rho).
"""

import itertools
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from lib import ranges, scratch
from lib.agreement import alpha
from lib.fields import Field
from lib.ranges import Rows
from lib.study import Study

BETWEEN = "between models"
_KAPPA = ["field", "voter", "other", "n_items", "agree_share", "kappa", "low", "high"]
_CAST = """
SELECT field, item, annotator, repeat, value FROM votes {asked}
WHERE abstained IS NULL AND list_contains($fields, field)
"""
# One vote a model and item: what most of its repeats say; without a single leader it has none.
_COLLAPSED = """
WITH said AS (
    SELECT field, item, annotator, value, count(*) AS n FROM cast_votes GROUP BY ALL),
led AS (SELECT *, max(n) OVER (PARTITION BY field, item, annotator) AS most FROM said)
SELECT field, item, annotator AS voter, any_value(value) AS value FROM led WHERE n = most
GROUP BY ALL HAVING count(*) = 1 ORDER BY ALL
"""


def collapsed(votes: Rows, study: Study, items: Collection[str] | None = None) -> pd.DataFrame:
    """One vote for each field, item and annotator: what most of its repeats say.

    Columns: field, item, voter, value. Repeats without a single leader give no vote, and so do
    fields whose values are not to be compared one by one (entity lists, texts).
    """
    return _query(votes, study, _COLLAPSED, items)


def slots(votes: Rows, study: Study, items: Collection[str] | None = None) -> pd.DataFrame:
    """Every vote with its panel slot as voter, "luna 2": field, item, annotator, voter, value."""
    query = """SELECT field, item, annotator, annotator || ' ' || repeat AS voter, value
        FROM cast_votes ORDER BY ALL"""
    return _query(votes, study, query, items)


def alphas(
    votes: Rows,
    study: Study,
    documents: pd.DataFrame | None = None,
    items: Collection[str] | None = None,
) -> pd.DataFrame:
    """Krippendorff's alpha of every field, between the models and within each with repeats.

    The 95 % interval is a bootstrap over items; with `documents` (item, document) over documents,
    whose passages are not independent. Columns: field, who, level, n_items, n_votes, alpha, low,
    high; null where fewer than two items have two votes.
    """
    tables = [(BETWEEN, collapsed(votes, study, items)), *_within(votes, study, items)]
    rows = [
        {"field": field, "who": who, **_alpha_of(group, study.fields[str(field)], documents)}
        for who, table in tables
        for field, group in table.groupby("field", sort=False)
    ]
    columns = ["field", "who", "level", "n_items", "n_votes", "alpha", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    place = {name: n for n, name in enumerate(study.fields)}
    return table.sort_values(
        "field", key=lambda names: names.map(place), kind="stable"
    ).reset_index(drop=True)


def kappas(votes: pd.DataFrame) -> pd.DataFrame:
    """Cohen's kappa of every pair of voters on the items that both voted on, by field.

    `votes` has field, item, voter, value, once for each field, item and voter. Columns: field,
    voter, other, n_items, agree_share, kappa, low, high (95 %, large samples). Kappa is null where
    both always say one same value.
    """
    rows = []
    for field, group in votes.groupby("field", sort=False):
        wide = group.pivot(index="item", columns="voter", values="value")
        codes = pd.Index(pd.unique(group["value"]))
        for one, other in itertools.combinations(sorted(wide), 2):
            both = wide[[one, other]].dropna()
            square = np.zeros((len(codes), len(codes)))
            places = (codes.get_indexer(both[one]), codes.get_indexer(both[other]))
            np.add.at(square, places, 1)
            rows.append((field, one, other, len(both), *_kappa(square)))
    return pd.DataFrame(rows, columns=_KAPPA)


def square(kappas: pd.DataFrame) -> pd.DataFrame:
    """Voters x voters: their kappa as a mean over the fields, weighed by items; 1 with oneself."""
    known = kappas.dropna(subset="kappa")
    known = known.assign(sum=known["kappa"] * known["n_items"])
    sums = known.groupby(["voter", "other"])[["sum", "n_items"]].sum()
    voters = sorted({*kappas["voter"], *kappas["other"]})
    table = pd.DataFrame(np.eye(len(voters)), index=voters, columns=voters).replace(0.0, np.nan)
    for (one, other), row in sums.iterrows():
        table.loc[one, other] = table.loc[other, one] = row["sum"] / row["n_items"]
    return table


def effective_votes(n_voters: int, correlation: float) -> float:
    """How many independent votes so many voters are worth, at this correlation between them.

    m / (1 + (m - 1) rho); a correlation below 0 counts as 0, since no panel is worth more than its
    votes.

    >>> effective_votes(3, 1.0), effective_votes(3, 0.0)
    (1.0, 3.0)
    """
    return n_voters / (1 + (n_voters - 1) * max(0.0, correlation))


def error_correlation(votes: pd.DataFrame, truth: Mapping[tuple[str, str], str]) -> float:
    """The mean correlation between the errors of two voters, on what has gold.

    `votes` has field, item, voter, value; `truth` maps (field, item) to the value. Pairs that share
    fewer than two labelled items, or of which one is always or never right, have none and are left
    out; NaN when no pair has one.
    """
    true = pd.Series(truth, dtype=object)
    places = pd.MultiIndex.from_frame(votes[["field", "item"]])
    labelled = votes[places.isin(true.index)]
    right = true.reindex(pd.MultiIndex.from_frame(labelled[["field", "item"]])).to_numpy()
    wrong = labelled.assign(wrong=(labelled["value"].to_numpy() != right).astype(float))
    wide = wrong.pivot(index=["field", "item"], columns="voter", values="wrong")
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = wide.corr(min_periods=2).to_numpy()
    pairs = matrix[np.triu_indices(len(matrix), k=1)]
    pairs = pairs[~np.isnan(pairs)]
    return float(pairs.mean()) if len(pairs) else float("nan")


def worth(
    votes: Rows,
    study: Study,
    truth: Mapping[tuple[str, str], str] | None = None,
    items: Collection[str] | None = None,
) -> pd.DataFrame:
    """What the votes of a panel are worth: the effective number, within and between models.

    By gold (`truth` maps (field, item) to the value) the correlation is that of errors; without it
    the mean kappa stands in, which cannot tell a common truth from a common error, so that the
    number is a lower bound. Columns: who, n_voters, basis, correlation, n_effective, warning.
    """
    rows = []
    for who, table in [(BETWEEN, collapsed(votes, study, items)), *_within(votes, study, items)]:
        n_voters = table["voter"].nunique()
        if n_voters < 2:
            continue
        rho = error_correlation(table, truth) if truth else float("nan")
        basis = "errors on gold"
        if np.isnan(rho):
            rho, basis = float(kappas(table)["kappa"].mean()), "kappa, no gold"
        n_effective = effective_votes(n_voters, rho)
        few = f"{n_voters} votes are worth {n_effective:.1f}: less than two." * (n_effective < 2)
        rows.append((who, n_voters, basis, rho, n_effective, few))
    columns = ["who", "n_voters", "basis", "correlation", "n_effective", "warning"]
    return pd.DataFrame(rows, columns=columns)


def _query(votes: Rows, study: Study, query: str, items: Collection[str] | None) -> pd.DataFrame:
    fields = [name for name, field in study.fields.items() if _level(field)]
    with scratch.database() as base:
        ranges.see(base, "votes", votes)
        asked = "" if items is None else "SEMI JOIN asked USING (item)"
        base.register("asked", pd.DataFrame({"item": pd.Series(list(items or ()), dtype="string")}))
        cast = base.sql(_CAST.format(asked=asked), params={"fields": fields}).to_arrow_table()
        base.register("cast_votes", cast)
        return base.execute(query).df()


def _within(
    votes: Rows, study: Study, items: Collection[str] | None
) -> list[tuple[str, pd.DataFrame]]:
    """The votes of each annotator that has several repeats."""
    table = slots(votes, study, items)
    several = [name for name, one in study.annotators.items() if one.repeats > 1]
    return [(name, table[table["annotator"].eq(name)]) for name in several]


def _level(field: Field) -> str | None:
    """The scale of a field's values; none for lists and texts."""
    if field.type in ("integer", "number"):
        return "interval"
    if not field.allowed:
        return None
    return "ordinal" if field.ordered else "nominal"


def _alpha_of(votes: pd.DataFrame, field: Field, documents: pd.DataFrame | None) -> dict:
    level = _level(field)
    values = field.allowed or sorted(votes["value"].unique(), key=float)
    numbers = [float(value) for value in values] if level == "interval" else []
    items, table = alpha.counts(votes, values)
    clusters = None
    if documents is not None:
        clusters = documents.set_index("item")["document"].reindex(items).fillna("").to_numpy()
    low, high = alpha.bootstrap(table, level, numbers, clusters)
    found = {"level": level, "n_items": len(items), "n_votes": int(table.sum())}
    return {**found, "alpha": alpha.alpha(table, level, numbers), "low": low, "high": high}


def _kappa(square: np.ndarray) -> tuple[float, float, float, float]:
    """The share that agrees, kappa, and its 95 % interval, from a table of two voters' values."""
    n = square.sum()
    nothing = float("nan")
    if not n:
        return nothing, nothing, nothing, nothing
    cells = square / n
    rows, columns = cells.sum(axis=1), cells.sum(axis=0)
    agree, chance = float(np.trace(cells)), float(rows @ columns)
    if chance >= 1:
        return agree, nothing, nothing, nothing
    kappa = (agree - chance) / (1 - chance)
    both = columns[:, None] + rows[None, :]
    same = (np.diag(cells) * (1 - np.diag(both) * (1 - kappa)) ** 2).sum()
    others = cells * both**2
    apart = (1 - kappa) ** 2 * (others.sum() - np.trace(others))
    variance = (same + apart - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
    reach = 1.96 * float(np.sqrt(max(variance, 0.0)))
    return agree, kappa, kappa - reach, min(1.0, kappa + reach)
