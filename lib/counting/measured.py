"""Measured: what counted votes from anywhere are worth, by agreement and by truth.

Decides nothing about a count, which stays as it is: how often voters and the count are right, how
far they agree beyond chance, how many votes they are worth, and what truth inference would change.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from lib import agreement, gold, inference, scratch, tally, words
from lib.agreement import alpha
from lib.counting import polls
from lib.errors import StudyError

PANEL, BETWEEN = "panel", "between models"
MOST_ITEMS = 100_000  # agreement is as well known from them as from millions
MOST_VOTERS = 60  # beyond them, agreement in pairs says little and costs much
# One vote a voter, item and field: what most of its runs say; without a single leader it has none.
_COLLAPSED = """
WITH said AS (
    SELECT {field} AS field, item, {voter} AS voter, label, count(*) AS n FROM {source}
    WHERE ({field}, label) IN (SELECT (field, label) FROM declared) GROUP BY ALL),
led AS (SELECT *, max(n) OVER (PARTITION BY field, item, voter) AS most FROM said)
SELECT field, item, voter, any_value(label) AS value FROM led WHERE n = most
GROUP BY ALL HAVING count(*) = 1 ORDER BY ALL
"""
_NO_VOTES = pd.DataFrame(columns=["field", "item", "voter", "value"])


def collapsed(
    votes: Path | pd.DataFrame,
    labels: Mapping[str, Sequence[str]],
    items: Collection[str] | None = None,
) -> pd.DataFrame:
    """One vote for each field, item and voter: field, item, voter, value.

    A voter is a model where there are models, else a worker; its runs without a single leader give
    no vote, and neither do labels that are not declared. Without fields, `field` is "". On `items`
    alone where they are given, and on at most MOST_ITEMS of all when they are empty.
    """
    with polls.opened(votes) as base:
        return _collapsed(base, labels, "given" if items is None else _some(base, items))


def statuses(counted: Path | pd.DataFrame) -> dict[str, int]:
    """How many labels of a count have each status, and n_abstained in all."""
    with scratch.database() as base:
        polls.read(base, "counted", counted)
        rows = base.execute("SELECT status, count(*) FROM counted GROUP BY ALL").fetchall()
        n_abstained = base.execute("SELECT sum(n_abstained)::BIGINT FROM counted").fetchall()[0][0]
    return {**dict(rows), "n_abstained": int(n_abstained or 0)}


def accuracy(counted: pd.DataFrame, votes: pd.DataFrame, true: pd.DataFrame) -> pd.DataFrame:
    """How often the panel and each voter say the truth; the panel first, then by the lower bound.

    `counted` is a count, `votes` has field, item, voter, value. Columns: who, n_gold, n (labels
    that it gave), n_right, accuracy, low, high (Wilson, 95 %), n_common (labels that the panel gave
    too), n_right_common, n_right_panel (the panel on these). Raises StudyError when no vote stands
    on an item with truth.
    """
    both = _with_truth(counted, true)
    if both.empty:
        what = f"no vote stands on any of {words.n_of(len(true), 'item')} with truth."
        raise StudyError(f"{what} Are the items named alike in both files?")
    both = both.assign(given=both["value"].notna(), panel_right=both["value"].eq(both["truth"]))
    kept = ["field", "item", "truth", "given", "panel_right"]
    own = votes.merge(both[kept], on=["field", "item"])
    own = own.assign(right=own["value"].eq(own["truth"]))
    ours = both[both["given"]].assign(right=lambda one: one["panel_right"])
    rows = [_row(PANEL, len(true), ours)]
    rows += [_row(str(voter), len(true), one) for voter, one in own.groupby("voter")]
    table = pd.DataFrame(rows).assign(is_member=lambda one: one["who"].ne(PANEL))
    order = ["is_member", "low", "who"]
    table = table.sort_values(order, ascending=[True, False, True], ignore_index=True)
    return table.drop(columns="is_member")


def sentence(accuracies: pd.DataFrame) -> str:
    """Whether the panel beats its best member, on the labels that both of them gave.

    The best is the one whose interval has the highest lower bound: a few lucky labels make none.
    """
    panel = accuracies[accuracies["who"].eq(PANEL)]
    members = accuracies[accuracies["who"].ne(PANEL)]
    best = members.head(1)
    if len(best):
        n_common, n_right = best["n_common"].iloc[0], best["n_right_panel"].iloc[0]
        panel = panel.assign(n_common=n_common, n_right_common=n_right)
    return gold.sentence(pd.concat([panel, best]).assign(field="all"))


def broken_ties(counted: pd.DataFrame, true: pd.DataFrame) -> tuple[int, int, float]:
    """Labels with truth that are decided or tied, ties among them, and their expected accuracy.

    Expected when every tie is broken at random: a tie is worth the chance of its right candidate.
    """
    both = _with_truth(counted, true)
    both = both[both["status"].isin(["decided", "tie"])]
    tied = both[both["status"].eq("tie")]
    chances = [
        (true in leaders) / len(leaders)
        for true, leaders in zip(tied["truth"], tied["candidates"].map(json.loads), strict=True)
    ]
    n_right = int(both["value"].eq(both["truth"]).sum()) + sum(chances)
    return len(both), len(tied), n_right / len(both) if len(both) else math.nan


def error_of_numbers(counted: pd.DataFrame, true: pd.DataFrame) -> tuple[int, float]:
    """How many decided numbers have a truth, and the root of their mean square error."""
    both = _with_truth(counted, true).dropna(subset="value")
    away = both["value"].astype(float) - both["truth"].astype(float)
    return len(both), math.sqrt(away.pow(2).mean()) if len(both) else math.nan


def alphas(votes: Path | pd.DataFrame, labels: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Krippendorff's alpha of each field, between the voters and within each model with runs.

    Between models each has one vote; workers without models have every vote that they gave.
    Columns: field, who, n_items, n_votes, alpha, low, high (95 %, bootstrap over items). Of more
    than MOST_ITEMS so many are looked at, the same ones in whatever order the votes are.
    """
    rows = []
    with polls.opened(votes) as base:
        has_models, some = "model" in polls.columns(base), _some(base)
        base.register("one_each", _collapsed(base, labels, some) if has_models else _NO_VOTES)
        for field, mine in labels.items():
            place = f"field = {tally.text(field)}" if field else "true"
            source = "one_each" if has_models else some
            who = BETWEEN if has_models else "between workers"
            rows.append({"field": field, "who": who, **_alpha(base, source, mine, place)})
            for model in _with_runs(base) if has_models else ():
                within = f"{place} AND model = {tally.text(model)}"
                rows.append({"field": field, "who": model, **_alpha(base, some, mine, within)})
    return pd.DataFrame(rows)


def worth(votes: pd.DataFrame, true: pd.DataFrame | None = None) -> dict[str, Any] | None:
    """How many independent votes the voters are worth: n_voters, basis, correlation, n_effective.

    By the correlation of their errors where there is truth, else by their mean kappa, which cannot
    tell a common truth from a common error. None for one voter, and for more than MOST_VOTERS.
    """
    n_voters = votes["voter"].nunique()
    if not 1 < n_voters <= MOST_VOTERS:
        return None
    rho, basis = math.nan, "errors"
    if true is not None:
        by_place = true.set_index(["field", "item"])["truth"].to_dict()
        rho = agreement.error_correlation(votes, by_place)
    if math.isnan(rho):
        rho, basis = float(agreement.kappas(votes)["kappa"].mean()), "kappa"
    n_effective = agreement.effective_votes(n_voters, rho)
    found = {"n_voters": n_voters, "basis": basis, "correlation": rho}
    return {**found, "n_effective": n_effective}


def inferred(
    counted: pd.DataFrame,
    votes: pd.DataFrame,
    labels: Mapping[str, Sequence[str]],
    true: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What truth inference would say, beside the count: a row a method; it is never a result.

    Columns: method, n_labels, n_flips (decided labels that it changes), n_iterations (the most of
    any field), and with truth n, n_right, accuracy, low, high.
    """
    said, rows = _with_field(counted)[["field", "item", "value"]], []
    for method in inference.METHODS:
        found, n_iterations = [], 0
        for field, mine in labels.items():
            one = inference.infer(votes[votes["field"].eq(field)], mine, method)
            found.append(one.labels.assign(field=field))
            n_iterations = max(n_iterations, one.n_iterations)
        table = pd.concat(found).dropna(subset="value")
        both = table.merge(
            said.dropna(subset="value"), on=["field", "item"], suffixes=("", "_vote")
        )
        row = {"method": method, "n_labels": len(table), "n_iterations": n_iterations}
        row["n_flips"] = int(both["value"].ne(both["value_vote"]).sum())
        if true is not None:
            measured = true.merge(table, on=["field", "item"])
            row |= _share(len(measured), int(measured["value"].eq(measured["truth"]).sum()))
        rows.append(row)
    return pd.DataFrame(rows)


def _collapsed(
    base: duckdb.DuckDBPyConnection, labels: Mapping[str, Sequence[str]], source: str
) -> pd.DataFrame:
    voter = "model" if "model" in polls.columns(base) else "worker"
    field = "field" if "field" in polls.columns(base) else "''"
    declared = [(name, label) for name, mine in labels.items() for label in mine]
    base.register("declared", pd.DataFrame(declared, columns=["field", "label"]))
    query = _COLLAPSED.format(field=field, voter=voter, source=source)
    return base.sql(query).to_arrow_table().to_pandas()


def _some(base: duckdb.DuckDBPyConnection, items: Collection[str] = ()) -> str:
    """A view of the votes on these items, else on MOST_ITEMS at most, whatever their order."""
    drawn = "SELECT item FROM given GROUP BY item ORDER BY hash(item), item LIMIT $most"
    given = {"most": MOST_ITEMS}
    chosen = base.execute(drawn, given).df() if not len(items) else pd.DataFrame({"item": items})
    base.register("chosen", chosen)
    base.execute("CREATE VIEW some_votes AS SELECT * FROM given SEMI JOIN chosen USING (item)")
    return "some_votes"


def _with_field(counted: pd.DataFrame) -> pd.DataFrame:
    return counted if "field" in counted else counted.assign(field="")


def _with_truth(counted: pd.DataFrame, true: pd.DataFrame) -> pd.DataFrame:
    """The counted labels that have a truth."""
    return true.merge(_with_field(counted), on=["field", "item"])


def _share(n: int, n_right: int) -> dict[str, float]:
    low, high = gold.wilson(n_right, n)
    share = n_right / n if n else math.nan
    return {"n": n, "n_right": n_right, "accuracy": share, "low": low, "high": high}


def _row(who: str, n_gold: int, labels: pd.DataFrame) -> dict[str, Any]:
    """The line of one voter, from its labels with truth."""
    common = labels[labels["given"]]
    return {
        "who": who,
        "n_gold": n_gold,
        **_share(len(labels), int(labels["right"].sum())),
        "n_common": len(common),
        "n_right_common": int(common["right"].sum()),
        "n_right_panel": int(common["panel_right"].sum()),
    }


def _with_runs(base: duckdb.DuckDBPyConnection) -> list[str]:
    """The models that have several runs."""
    query = (
        "SELECT model FROM given GROUP BY model HAVING count(DISTINCT worker) > 1 ORDER BY model"
    )
    return [row[0] for row in base.execute(query).fetchall()]


def _alpha(
    base: duckdb.DuckDBPyConnection, source: str, labels: Sequence[str], where: str
) -> dict[str, float]:
    """Alpha of the votes of a view, from how many of each item's votes say each label."""
    said = "value" if source == "one_each" else "label"
    counts = ", ".join(
        f"count(*) FILTER ({said} = {tally.text(label)}) AS n{n}" for n, label in enumerate(labels)
    )
    query = f"SELECT {counts} FROM {source} WHERE {where} GROUP BY item"  # noqa: S608 - our words
    table = base.sql(query).to_arrow_table().to_pandas().to_numpy()
    table = table[table.sum(axis=1) > 1]
    low, high = alpha.bootstrap(table) if len(table) else (math.nan, math.nan)
    found = {"n_items": len(table), "n_votes": int(table.sum())}
    return {**found, "alpha": alpha.alpha(table), "low": low, "high": high}
