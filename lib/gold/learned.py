"""Learned weights: what the weights of a panel would be by gold, and whether they would help.

A vote that is right with chance p among k values deserves the weight log(p / (1 - p)) + log(k - 1),
the log-odds of the one-coin model, and none below 0 (Nitzan and Paroush 1982; Li and Yu 2014).
Decides nothing: the vote as it is, the best annotator and these weights stand side by side, each
judged on labels that it has not seen, and a person writes the choice into study.yml.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Mapping

import pandas as pd

from lib import consensus, gold, words
from lib.gold import confusion
from lib.study import Study

N_FOLDS = 5
FEW = 100  # labels below which nothing should be chosen by gold
LEAST = 0.01  # a weight is more than 0; who has this one could as well be left out
VOTE, SINGLE, LOG_ODDS = "the vote as it is", "best single annotator", "log-odds weights"
_WEIGHTS = ["annotator", "model", "n_gold", "n", "n_right", "accuracy", "weight"]
_WEIGHTS += ["log_odds_weight"]
_COMPARED = ["way", "n_gold", "n_open", "n_right", "accuracy", "low", "high", "note"]
_PLACE = ["item", "field"]


def weights(votes: pd.DataFrame, labels: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The log-odds weight of each annotator, fitted on all its labels, beside the one it has.

    Columns: annotator, model, n_gold, n (decided among them), n_right, accuracy, weight,
    log_odds_weight. Labels on fields of declared values, all fields together; half a label more on
    either side keeps few of them from counting as certainty.
    """
    true = confusion.closed(labels, study)
    alone = confusion.alone(votes, study, true)
    rows = []
    for name, annotator in study.annotators.items() if alone else ():
        n, n_right, weight = _log_odds(_values(alone[name], true), true, study)
        accuracy = n_right / n if n else math.nan
        row = (name, annotator.model, len(true), n, n_right, accuracy, annotator.weight, weight)
        rows.append(row)
    return pd.DataFrame(rows, columns=_WEIGHTS)


def compare(
    votes: pd.DataFrame,
    labels: pd.DataFrame,
    study: Study,
    documents: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Three ways to use the same votes, each judged on labels that it was not chosen by.

    The best annotator and the weights are learned on four fifths of the documents and judged on the
    last, in turn. A tie is right as often as a coin that chooses among its candidates; what else is
    open is not right. Columns: way, n_gold, n_open, n_right, accuracy, low, high (Wilson, 95 %),
    note. Empty when the labels are of less than two documents.
    """
    true = confusion.closed(labels, study)
    fold = folds(true.index.get_level_values("item"), documents)
    if fold.nunique() < 2:
        return pd.DataFrame(columns=_COMPARED)
    said = votes[votes["item"].isin(fold.index)]
    alone = confusion.alone(said, study, true)
    values = {name: _values(one, true) for name, one in alone.items()}
    of_label = fold.reindex(true.index.get_level_values("item")).to_numpy()
    chosen, single, weighed = Counter(), [], []
    for n in sorted(fold.unique()):
        seen, rest = true[of_label != n], true[of_label == n]
        learning = {name: one[of_label != n] for name, one in values.items()}
        n_right = {name: int(one.eq(seen).sum()) for name, one in learning.items()}
        best = max(n_right, key=n_right.__getitem__)
        chosen[best] += 1
        single.append(judged(alone[best], rest))
        fitted = {name: _log_odds(one, seen, study)[2] for name, one in learning.items()}
        here = said[said["item"].isin(fold.index[fold.eq(n)])]
        weighed.append(judged(consensus.decide(here, with_weights(study, fitted)), rest))
    often = ", ".join(f"{name} in {chosen[name]}" for name in values if chosen[name])
    rows = [
        (VOTE, *_summed([judged(consensus.decide(said, study), true)]), ""),
        (SINGLE, *_summed(single), f"{often} of {fold.nunique()} parts"),
        (LOG_ODDS, *_summed(weighed), "weights: per_model"),
    ]
    return pd.DataFrame(rows, columns=_COMPARED)


def advice(compared: pd.DataFrame, fitted: pd.DataFrame) -> str:
    """What the comparison says, and what to write into study.yml to act on it."""
    if compared.empty:
        what = "Too few labels on declared values to learn weights from"
        return f"{what}: they stay as study.yml has them."
    rows = compared.set_index("way")
    best = compared.sort_values("n_right", ascending=False, kind="stable").iloc[0]
    n_gold, counted = best["n_gold"], words.n_of(best["n_gold"], "label")
    gain = 100 * (best["accuracy"] - rows.loc[VOTE, "accuracy"])
    if best["way"] == VOTE:
        said = f"On {counted} neither the best annotator nor learned weights do better."
    else:
        sure = best["low"] > rows.loc[VOTE, "high"]
        chance = "" if sure else ", and the intervals overlap: it may be chance"
        what = {SINGLE: "the best single annotator is", LOG_ODDS: "weights by log-odds are"}
        said = f"On {counted} {what[best['way']]} right {gain:.1f} points more often than"
        said = f"{said} the vote as it is{chance}."
    few = f" {n_gold:,} are few: label {FEW} before you choose." if n_gold < FEW else ""
    none = fitted.loc[fitted["log_odds_weight"].le(LEAST), "annotator"]
    spare = f" No better than chance, so leave out: {', '.join(none)}." if len(none) else ""
    return f"{said}{few} Nothing is changed by itself.{_written(rows, fitted)}{spare}"


def _written(rows: pd.DataFrame, fitted: pd.DataFrame) -> str:
    """How to take the learned weights, where they are right more often than the vote."""
    if not rows.loc[LOG_ODDS, "n_right"] > rows.loc[VOTE, "n_right"]:
        return ""
    pairs = fitted[["annotator", "log_odds_weight"]].itertuples(index=False)
    written = ", ".join(f"{name} {weight:g}" for name, weight in pairs)
    to_take = " To take the weights learned from all labels, write them into study.yml,"
    return f"{to_take} with weights: per_model: {written}."


def folds(items: Collection[str], documents: pd.DataFrame | None = None) -> pd.Series:
    """The part, from 0, in which each item is judged; passages of a document stay together.

    Parts are of equal size and drawn by the digests of the documents' ids: the order of rows makes
    no difference, and the same items are always drawn alike.
    """
    index = pd.Index(items).unique().sort_values()
    document = pd.Series(index, index=index)
    if documents is not None:
        document = documents.set_index("item")["document"].reindex(index).fillna(document)
    drawn = sorted(document.unique(), key=lambda one: hashlib.sha256(str(one).encode()).digest())
    return document.map({one: n % N_FOLDS for n, one in enumerate(drawn)}).astype("int64")


def judged(decided: pd.DataFrame, true: pd.Series) -> pd.DataFrame:
    """How right each label is decided, from 0 to 1, and whether it is open: a row a label.

    A tie is right as often as a coin that chooses among its candidates; what else is open is not
    right. So ways to count can be compared that leave open unlike many.
    """
    rows = decided.set_index(_PLACE).reindex(true.index)
    tie = rows["status"].eq("tie")
    pairs = zip(rows.loc[tie, "candidates"].map(json.loads), true[tie], strict=True)
    right = rows["value"].eq(true).to_numpy(dtype=float, copy=True)
    right[tie.to_numpy()] = [(value in some) / len(some) for some, value in pairs]
    is_open = rows["status"].isin(["tie", "no_quorum"]) | rows["status"].isna()
    return pd.DataFrame({"open": is_open.to_numpy(), "right": right})


def with_weights(study: Study, weights: Mapping[str, float]) -> Study:
    """The study with other weights on its panel, those of models."""
    panel = study.panels[study.panel]
    annotators = {
        name: one.model_copy(update={"weight": weights[name]})
        for name, one in panel.annotators.items()
    }
    change = {"annotators": annotators, "weights": "per_model", "mode": "vote"}
    panels = {**study.panels, study.panel: panel.model_copy(update=change)}
    return study.model_copy(update={"panels": panels})


def _values(decided: pd.DataFrame, true: pd.Series) -> pd.Series:
    return decided.set_index(_PLACE)["value"].reindex(true.index)


def _log_odds(value: pd.Series, true: pd.Series, study: Study) -> tuple[int, int, float]:
    """Of one annotator: labels that it decided, those that it has right, and its weight."""
    spoken = value.notna().to_numpy()
    n, n_right = int(spoken.sum()), int(value.eq(true).sum())
    others = [
        len(study.fields[name].allowed) - 1 for name in true.index.get_level_values("field")[spoken]
    ]
    chance = math.fsum(map(math.log, others)) / n if n else 0.0
    weight = math.log((n_right + 0.5) / (n - n_right + 0.5)) + chance
    return n, n_right, max(LEAST, round(weight, 2))


def _summed(parts: list[pd.DataFrame]) -> tuple[int, int, float, float, float, float]:
    whole = pd.concat(parts)
    n, n_right = len(whole), math.fsum(whole["right"])
    return n, int(whole["open"].sum()), n_right, n_right / n, *gold.wilson(n_right, n)
