"""Rivals of the vote: what truth inference would decide instead, and whether gold speaks for it.

Decides nothing: the methods of `inference` get one vote a model, their labels stand beside the
vote's, with what changes and how often each is right on the same labels. None is ever used in place
of the vote: that they change labels says nothing of the direction.
"""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from lib import agreement, gold, inference
from lib.gold import confusion, learned
from lib.study import Study

VOTE = "vote"
LEAST_GOLD = 100
_COLUMNS = ["field", "method", "n_labels", "n_flips", "n_iterations", "n_gold", "n_right"]
_COLUMNS += ["accuracy", "low", "high"]


def compare(
    votes: Path | pd.DataFrame,
    decided: pd.DataFrame,
    labels: pd.DataFrame,
    study: Study,
    items: Collection[str] | None = None,
) -> pd.DataFrame:
    """Each field by each method, the vote first; fields of declared values.

    Columns: field, method, n_labels (items with a label), n_flips (that the vote decides
    otherwise), n_iterations, n_gold, n_right, accuracy, low, high (Wilson, 95 %). Accuracy is of
    all labels of gold on these items; a tie is right as often as a coin would be. A
    field with a condition is inferred where the vote decides that it applies. `decided` is the
    consensus before corrections; `items` are those asked in full.
    """
    cast = agreement.collapsed(votes, study, items)
    if items is not None:
        decided = decided[decided["item"].isin(set(items))]
    true, rows = confusion.closed(labels, study), []
    true = true[true.index.get_level_values("item").isin(decided["item"])]
    for name, field in study.fields.items():
        if not field.allowed:
            continue
        of_field = decided[decided["field"].eq(name)].set_index("item")
        applies = of_field.index[of_field["status"].ne("not_applicable")]
        said = cast[cast["field"].eq(name) & cast["item"].isin(applies)]
        vote = of_field["value"].dropna()
        here = true[true.index.get_level_values("field") == name]
        rows.append((name, VOTE, len(vote), 0, 1, *_right(learned.judged(decided, here)["right"])))
        for method in inference.METHODS:
            found = inference.infer(said, field.allowed, method)
            label = found.labels.set_index("item")["value"].dropna()
            status = found.labels["value"].notna().map({True: "decided", False: "tie"})
            right = learned.judged(found.labels.assign(field=name, status=status), here)["right"]
            both = label.index.intersection(vote.index)
            n_flips = int(label[both].ne(vote[both]).sum())
            counts = (len(label), n_flips, found.n_iterations)
            rows.append((name, method, *counts, *_right(right)))
    return pd.DataFrame(rows, columns=_COLUMNS)


def sentence(compared: pd.DataFrame) -> str:
    """Which method wins over the vote on gold, field by field, and that none is used."""
    vote = compared[compared["method"].eq(VOTE)].set_index("field")
    won, enough = [], vote["n_gold"].ge(LEAST_GOLD)
    for row in compared[compared["method"].ne(VOTE)].itertuples():
        gain = row.accuracy - vote.loc[row.field, "accuracy"]
        if enough[row.field] and gain > 0:
            sure = row.low > vote.loc[row.field, "high"]
            may = "" if sure else ", which may be chance"
            won.append(f"{row.method} on {row.field} by {100 * gain:.1f} points{may}")
    if not enough.any():
        what = f"No field of declared values has {LEAST_GOLD} labels"
        said = f"{what}: whether a method is better than the vote cannot be known."
    elif won:
        said = f"More often right than the vote on gold: {'; '.join(won)}."
    else:
        said = "No method is more often right than the vote on gold."
    return f"{said} None of them is used: the vote stays the result."


def _right(right: pd.Series) -> tuple[int, float, float, float, float]:
    """Labels of gold, and how many are right, as a share with its interval."""
    n, n_right = len(right), float(right.sum())
    return n, n_right, n_right / n if n else float("nan"), *gold.wilson(n_right, n)
