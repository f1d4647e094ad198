"""Pictures of what gold says: how a threshold trades finds for misses, what is taken for what.

Each is drawn, saved and shown as those of `charts` are.
"""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lib import charts, words
from lib.gold import calibration as calibrated
from lib.gold import confusion as confused
from lib.gold import shares
from lib.runs import Run

MOST_FIELDS = 6
MOST_VALUES = 9  # more columns leave no room for figures in the cells
_WAYS = {
    "votes": (charts.GREY, "s", -0.16, "votes alone, with the interval that knows of no errors"),
    "both": (charts.BLUE, "o", 0.16, "votes and gold"),
}
_KIND_COLORS = {calibrated.SHARE: charts.RED, calibrated.PROBABILITY: charts.BLUE}


def confusion(run: Run, counts: pd.DataFrame, name: str, who: str = confused.PANEL) -> None:
    """What one annotator or the panel takes for what: gold values down, said ones across.

    The fields with most labels that are not right, at most six; `counts` as of `confusion.table`.
    """
    mine = counts[counts["who"].eq(who)]
    squares = {field: _square(run, some) for field, some in mine.groupby("field", sort=False)}
    squares = {field: one for field, one in squares.items() if max(one.shape) <= MOST_VALUES}
    if not squares:
        return charts.nothing(run, name, f"What {_called(who)} takes for what")
    wrong = {field: one.to_numpy().sum() - _n_right(one) for field, one in squares.items()}
    shown = sorted(squares, key=lambda field: -wrong[field])[:MOST_FIELDS]
    shown = [field for field in squares if field in shown]
    n_rows = -(-len(shown) // 2)
    tallest = max(len(squares[field]) for field in shown)
    with charts.picture(
        run, name, _mixed_up(mine, who), 0.7 + n_rows * (0.9 + 0.3 * tallest)
    ) as ax:
        figure = ax.figure
        ax.remove()
        places = figure.subplots(n_rows, min(2, len(shown)), squeeze=False).ravel()
        for place in places[len(shown) :]:
            place.remove()
        for place, field in zip(places, shown, strict=False):
            _draw_square(place, squares[field], field)
    return None


def calibration(run: Run, rows: pd.DataFrame, measured: pd.DataFrame, name: str) -> None:
    """What shares and probabilities say against how often they are right, by gold, out of fold.

    `rows` as of `calibration.out_of_fold`, `measured` as of `calibration.quality`.
    """
    table = calibrated.bins(rows)
    if table.empty:
        return charts.nothing(run, name, calibrated.sentence(measured))
    known = rows.dropna(subset=list(calibrated.KINDS))
    off = [calibrated.ece(known[kind], known["is_right"]) for kind in calibrated.KINDS]
    on = words.n_of(len(known), "label")
    title = f"On {on} shares are off by {off[0]:.3f}, probabilities by {off[1]:.3f}"
    with charts.picture(run, name, title, 3.4) as ax:
        ax.plot([0, 1], [0, 1], color=charts.LIGHT, linewidth=1)
        for kind, some in table.groupby("kind", sort=False):
            spans = [some["share_right"] - some["low"], some["high"] - some["share_right"]]
            spans = [span.clip(lower=0) for span in spans]
            style = {"fmt": "o", "color": _KIND_COLORS[kind], "capsize": 2, "markersize": 4}
            ax.errorbar(some["mean_said"], some["share_right"], yerr=spans, label=kind, **style)
        ax.set(xlim=(0, 1.03), ylim=(0, 1.03), ylabel="share of labels that are right")
        ax.set(xlabel="what is said of the decided value; on the line it would be true")
        ax.legend(loc="upper left", frameon=False)
    return None


def curve(run: Run, table: pd.DataFrame, name: str) -> None:
    """Precision, recall and F1 of all lists at each threshold; `table` as of `entities.curve`."""
    rows = table[table["field"].eq("all")]
    if rows.empty:
        return charts.nothing(run, name, "Names at other thresholds: no list has gold labels.")
    own, best = rows[rows["chosen"]].iloc[0], rows.loc[rows["f1"].fillna(0).idxmax()]
    said = f"At the study's threshold, {own['threshold']}, names have F1 {own['f1']:.3f}; "
    more = f"{best['threshold']} would have {best['f1']:.3f} on the same gold"
    is_better = round(best["f1"], 3) > round(own["f1"], 3)
    title = said + (more if is_better else "none tried is better")
    with charts.picture(run, name, title, 3.0) as ax:
        ax.axvline(own["at_share"], color=charts.LIGHT, linewidth=5, zorder=0)
        ax.fill_between(rows["at_share"], rows["low"], rows["high"], color=charts.BLUE, alpha=0.15)
        lines = {"precision": charts.GREY, "recall": charts.RED, "f1": charts.BLUE}
        ends = sorted(lines, key=lambda line: rows[line].iloc[-1])
        gap = 0.09 * max(np.ptp(rows[[*lines, "low", "high"]].to_numpy()), 0.1)
        place = -np.inf
        for line in ends:
            ax.plot(rows["at_share"], rows[line], color=lines[line], marker="o", markersize=3)
            place = max(rows[line].iloc[-1], place + gap)
            label = {"f1": "F1"}.get(line, line)
            end = (rows["at_share"].iloc[-1], place)
            ax.annotate(f"  {label}", end, color=lines[line], va="center")
        ax.set_xticks(rows["at_share"], rows["threshold"])
        ax.set(xlabel="share of the weight that elects a name (grey: the study's)")
        ax.margins(x=0.15, y=0.1)
        ax.grid(axis="x", visible=False)
    return None


def prevalence(run: Run, table: pd.DataFrame, name: str) -> None:
    """How common the values are, by votes alone and, where there is a sample, with gold.

    `table` as of `shares.table`; the most common values, the rarest below.
    """
    shown = shares.most_common(table)
    title = shares.finding(table)
    if shown.empty:
        return charts.nothing(run, name, shares.UNMENDED)
    values = list(dict.fromkeys(shown["label"]))[::-1]
    with charts.picture(run, name, title, 1.2 + 0.36 * len(values)) as ax:
        ax.set_yticks(range(len(values)), [charts.short(value) for value in values])
        for by, rows in shown.groupby("by", sort=False):
            color, marker, offset, said = _WAYS[by]
            said = "labels of all items" if by == "both" and shares.is_census(table) else said
            places = [values.index(label) + offset for label in rows["label"]]
            spans = [rows["share"] - rows["low"], rows["high"] - rows["share"]]
            style = {"fmt": marker, "color": color, "ecolor": color, "capsize": 3, "label": said}
            ax.errorbar(rows["share"], places, xerr=[one.clip(lower=0) for one in spans], **style)
        ax.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
        ax.grid(axis="y", visible=False)
        most = min(1.0, 1.1 * shown["high"].max())
        ax.set(xlim=(-0.015 * most, 1.015 * most), ylim=(-0.6, len(values) - 0.4))
        ax.set(xlabel="share of all items, with its 95 % interval")
        ax.figure.legend(ncols=2, loc="outside lower left", frameon=False)
    return None


def names(run: Run, scores: pd.DataFrame, name: str) -> None:
    """F1 of the panel and of each annotator over all lists, strict, with its 95 % interval.

    `scores` as of `findings.name_scores`.
    """
    rows = scores[scores["field"].eq("all") & scores["match"].eq("strict")]
    if rows.empty:
        return charts.nothing(run, name, "Names of the panel: no list has gold labels.")
    is_panel = rows["who"].eq("panel")
    panel, best = (
        rows[is_panel].iloc[0],
        rows[~is_panel].sort_values(["f1", "who"], na_position="first").iloc[-1],
    )
    said = f"Names of the panel have F1 {panel['f1']:.3f}, those of its best member, "
    rows = rows.sort_values(["f1", "who"]).fillna({"f1": 0.0})
    low, high = rows["low"].fillna(rows["f1"]), rows["high"].fillna(rows["f1"])
    title = f"{said}{best['who']}, {best['f1']:.3f}"
    with charts.picture(run, name, title, 0.9 + 0.3 * len(rows)) as ax:
        places = range(len(rows))
        colors = [charts.BLUE if who == "panel" else charts.GREY for who in rows["who"]]
        ax.set_yticks(places, [charts.short(who) for who in rows["who"]])
        ax.hlines(places, low, high, color=charts.LIGHT, linewidth=4)
        ax.scatter(rows["f1"], places, color=colors, zorder=3)
        for place, end, f1 in zip(places, high, rows["f1"], strict=True):
            ax.annotate(f"  {f1:.3f}", (end, place), va="center", color=charts.GREY)
        ax.set(xlim=(0, 1.2 * high.max() or 1), xlabel="F1, strict, with its 95 % interval")
        ax.grid(axis="y", visible=False)
        ax.margins(y=0.2)
    return None


def _square(run: Run, some: pd.DataFrame) -> pd.DataFrame:
    """Labels of one field, true x said, in schema order; what is no value only where it occurs."""
    known = confused.columns_of(run.study, some["field"].iloc[0])
    table = some.pivot(index="true", columns="said", values="n").fillna(0).astype("int64")
    no_value = (confused.UNDECIDED, confused.OUTSIDE)
    columns = [one for one in known if one in table or one not in no_value]
    rows = [one for one in known if one in table.index]
    return table.reindex(index=rows, columns=columns, fill_value=0)


def _n_right(square: pd.DataFrame) -> int:
    return int(sum(square.loc[value, value] for value in square.index))


def _draw_square(ax: Axes, square: pd.DataFrame, field: str) -> None:
    """Counts as numbers, their share of the row as shade: blue is right, red wrong, grey open."""
    share = square.div(square.sum(axis="columns"), axis="index").to_numpy()
    for row, true in enumerate(square.index):
        for column, said in enumerate(square.columns):
            is_open = said in (confused.UNDECIDED, confused.OUTSIDE)
            color = charts.GREY if is_open else charts.BLUE if said == true else charts.RED
            face = mpl.colors.to_rgba(color, 0.85 * share[row, column])
            ax.add_patch(mpl.patches.Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=face))
            n = square.iloc[row, column]
            ink = "white" if share[row, column] > 0.6 else "black"
            ax.annotate(f"{n:,}" if n else "", (column, row), ha="center", va="center", color=ink)
    ax.set(xlim=(-0.5, len(square.columns) - 0.5), ylim=(len(square) - 0.5, -0.5))
    labels = [charts.short(value, 16) for value in square.columns]
    ax.set_xticks(range(len(labels)), labels, rotation=30, ha="right", fontsize=7)
    rows = [charts.short(value, 16) for value in square.index]
    ax.set_yticks(range(len(rows)), rows, fontsize=7)
    right = f"{_n_right(square):,} of {square.to_numpy().sum():,} right"
    ax.set_title(f"{charts.short(field)}: {right}", fontsize=8)
    ax.set_xlabel("said", fontsize=7)
    ax.set_ylabel("gold", fontsize=7)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.grid(visible=False)


def _mixed_up(mine: pd.DataFrame, who: str) -> str:
    """The finding: which value is taken for which other one most often."""
    is_value = ~mine["said"].isin([confused.UNDECIDED, confused.OUTSIDE])
    wrong = mine[mine["true"].ne(mine["said"]) & is_value]
    if wrong.empty:
        on = words.n_of(int(mine["n"].sum()), "label")
        return f"No value is taken for another one by {_called(who)}, on {on}"
    first = wrong.sort_values("n", ascending=False, kind="stable").iloc[0]
    whole = mine[mine["field"].eq(first["field"]) & mine["true"].eq(first["true"])]["n"].sum()
    times = f"{first['n']:,} of {words.n_of(whole, 'label')}"
    what = f"{first['field']} = {first['true']}, said to be {first['said']} on {times}"
    return f"Most often mixed up by {_called(who)}: {what}"


def _called(who: str) -> str:
    return "the panel" if who == confused.PANEL else who
