"""Thresholds: what lists of names would be worth on gold at other shares than the study's.

A threshold chosen on gold looks better there than it is. `tuned` therefore chooses it on four
fifths of the documents and measures it on the rest, in turn. Nothing here changes the study: who
wants another threshold writes it into study.yml.
"""

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd

from lib import runs, weights
from lib.entities import overlaps, places, scores
from lib.entities.overlaps import Name
from lib.study import Study

TRIED = tuple(Fraction(one) for one in ("1/5", "1/4", "3/10", "1/3", "2/5", "9/20", "1/2"))
STUDIED, BEST, OUTSIDE = "study", "best on all gold", "chosen out of fold"
_CURVE = ["field", "threshold", "at_share", "chosen", "n_items", "n_gold", "n_found", "n_right"]
_CURVE += ["precision", "recall", "f1", "low", "high"]
_TUNED = ["field", "how", "threshold", "n_items", "n_gold", "n_found", "n_right"]
_TUNED += ["precision", "recall", "f1", "low", "high"]


def curve(
    named: pd.DataFrame, gold: pd.DataFrame, study: Study, documents: Path | pd.DataFrame
) -> pd.DataFrame:
    """Strict precision, recall and F1 of the panel at each threshold from 1/5 to 1/2.

    Overlaps are settled anew at each. A row for each field and threshold, after those of the field
    "all"; `threshold` is the fraction as text, at_share the same as a number, `chosen` says that
    the study has it there. low and high as in `score`.
    """
    counts, n_items = _counted(named, gold, study, documents)
    rows = []
    for field, table in counts.items():
        for n, threshold in enumerate(_thresholds(study)):
            chosen = threshold == _chosen(study, field)
            head = (field, str(threshold), float(threshold), chosen, n_items[field])
            rows.append((*head, *scores.measured(table[n])))
    return pd.DataFrame(rows, columns=_CURVE)


def tuned(
    named: pd.DataFrame,
    gold: pd.DataFrame,
    study: Study,
    documents: Path | pd.DataFrame,
    n_folds: int = 5,
) -> pd.DataFrame:
    """What a threshold chosen on gold gives, in fold and out of fold, beside the study's own.

    `how`: study, best on all gold (which flatters), chosen out of fold (each fold of documents is
    measured at the threshold that is best on the others; that is what new texts can expect). Of
    equal F1 the threshold nearest to the study's is taken, then the lower one. A document's fold
    follows from its id alone. Empty without gold; no row out of fold with too few documents.
    """
    counts, n_items = _counted(named, gold, study, documents)
    tried, rows = _thresholds(study), []
    folds = _folds(_documents_of(gold, documents)[1], n_folds)
    for field, table in counts.items():
        near = _chosen(study, field)
        order = sorted(range(len(tried)), key=lambda n: (abs(tried[n] - near), tried[n]))
        best = _best(table, order)
        options = [(STUDIED, *_as_studied(field, counts, study))]
        options.append((BEST, str(tried[best]), table[best]))
        if len(set(folds)) > 1:
            picks = {fold: _best(table[:, folds != fold], order) for fold in sorted(set(folds))}
            outside = np.array([table[picks[fold], n] for n, fold in enumerate(folds)])
            words = ", ".join(str(one) for one in sorted({tried[n] for n in picks.values()}))
            options.append((OUTSIDE, words, outside))
        rows += [
            (field, how, words, n_items[field], *scores.measured(some))
            for how, words, some in options
        ]
    return pd.DataFrame(rows, columns=_TUNED)


def advice(choice: pd.DataFrame) -> str:
    """Whether another threshold finds names better on documents it was not chosen on."""
    rows = choice[choice["field"].eq(scores.ALL)].set_index("how")
    if OUTSIDE not in rows.index:
        return "No list of names has labels on two documents: the threshold stays as it is."
    own, best, outside = (rows.loc[how] for how in (STUDIED, BEST, OUTSIDE))
    said = f"Names have F1 {own['f1']:.3f} at the study's threshold, {own['threshold']}"
    if not round(outside["f1"], 3) > round(own["f1"], 3):
        return f"{said}; none chosen on other documents does better."
    sure = "" if outside["low"] > own["high"] else ", and the intervals overlap: it may be chance"
    better = f"chosen on other documents it is {outside['f1']:.3f}{sure}"
    return f"{said}; {better}. The best on all gold is {best['threshold']}."


def _counted(
    named: pd.DataFrame, gold: pd.DataFrame, study: Study, documents: Path | pd.DataFrame
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """By field ("all" first) the counts of thresholds x documents x 4, and the number of lists."""
    true = scores.gold_lists(gold)
    if not true:
        return {}, {}
    known, order = _documents_of(gold, documents)
    place = {document: n for n, document in enumerate(order)}
    fields = [scores.ALL, *(name for name in study.fields if any(f == name for _, f in true))]
    tried = _thresholds(study)
    counts = {field: np.zeros((len(tried), len(order), 4), dtype=int) for field in fields}
    found = _found(named, {item for item, _ in true}, documents)
    for n, threshold in enumerate(tried):
        lists = _lists(found, threshold, study)
        for (item, field), names in true.items():
            one = scores.count(lists.get((item, field), set()), names)
            for into in (scores.ALL, field):
                counts[into][n, place[known[item]]] += one
    n_items = {f: sum(f in (scores.ALL, field) for _, field in true) for f in fields}
    return counts, n_items


def _found(named: pd.DataFrame, items: set[str], documents: Path | pd.DataFrame) -> list[tuple]:
    """For each item with names: its id, its names whatever their share, and their places."""
    never = named["status"].isin(["no_quorum", "not_applicable"])
    mine = named[named["item"].isin(items) & ~never]
    of_item = dict(list(mine.groupby("item")))
    found = []
    for item, _, _, text in places.texts(documents):
        if item in of_item:
            columns = [of_item[item][name] for name in ("field", "key", "share")]
            names = [Name(*row) for row in zip(*columns, strict=True)]
            found.append((item, names, places.find(text, {one.key for one in names})))
    return found


def _lists(found: Sequence[tuple], threshold: Fraction, study: Study) -> dict[tuple, set[str]]:
    """What would be elected at this threshold, by item and field."""
    lists: dict[tuple, set[str]] = {}
    settles = study.voting.overlaps == "settle"
    for item, names, where in found:
        # Correctly rounded quotients of whole numbers are in the order of the exact ones.
        reach = [name for name in names if name.share >= float(threshold)]
        for (field, key), fate in overlaps.fate(reach, where, settles=settles).items():
            if fate.status == "elected":
                lists.setdefault((item, field), set()).add(key)
    return lists


def _documents_of(
    gold: pd.DataFrame, documents: Path | pd.DataFrame
) -> tuple[Mapping[str, str], list[str]]:
    """The document of each item with gold, and these documents in order."""
    items, known = set(gold["item"]), {}
    columns = ["item", "document"]
    frames = runs.stream(documents, columns) if isinstance(documents, Path) else [documents]
    for frame in frames:
        mine = frame[frame["item"].isin(items)]
        known.update(zip(mine["item"], mine["document"], strict=True))
    return known, sorted(set(known.values()))


def _thresholds(study: Study) -> list[Fraction]:
    own = {_chosen(study, field) for field in (scores.ALL, *study.fields)}
    return sorted({*TRIED, *own})


def _chosen(study: Study, field: str) -> Fraction:
    """The threshold that the study has for a field, or for those that say nothing of their own."""
    own = study.fields[field].threshold if field in study.fields else None
    return weights.exact(own or study.voting.threshold)


def _as_studied(
    field: str, counts: Mapping[str, np.ndarray], study: Study
) -> tuple[str, np.ndarray]:
    """The threshold in words and the counts by document, each field at its own threshold."""
    tried = _thresholds(study)
    fields = [one for one in counts if one != scores.ALL] if field == scores.ALL else [field]
    own = [_chosen(study, one) for one in fields]
    table = sum(counts[one][tried.index(at)] for one, at in zip(fields, own, strict=True))
    return ", ".join(str(one) for one in sorted(set(own))), table


def _folds(documents: Sequence[str], n_folds: int) -> np.ndarray:
    """The fold of each document: they are dealt out in the order of the hash of their ids."""
    hashed = sorted(documents, key=lambda one: hashlib.sha256(one.encode()).hexdigest())
    place = {document: n % n_folds for n, document in enumerate(hashed)}
    return np.array([place[document] for document in documents])


def _best(table: np.ndarray, order: Sequence[int]) -> int:
    """The threshold with the largest F1; of equal ones the first in `order`."""
    f1 = np.nan_to_num(scores.f1(table.sum(axis=1)))
    return max(order, key=lambda n: f1[n])
