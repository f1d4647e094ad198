"""Pictures: one style, and a function for each picture that a notebook shows.

A function draws, saves PNG and SVG under `figures/`, shows the picture once with a text for those
who cannot see it, and returns None. The title is the finding. Simulated answers are marked.
"""

import html
import io
import textwrap
from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
from IPython.display import HTML, Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib import collect, runs
from lib.runs import Run

BLUE, RED, GREY, LIGHT = "#0072B2", "#D55E00", "#8C8C8C", "#D9D9D9"
MODEL_COLORS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999")
PART_COLORS = {
    "decided": "#0072B2",
    "tie": "#E69F00",
    "no_quorum": "#D55E00",
    "not_applicable": "#D9D9D9",
    "listed": "#8C8C8C",
    "text": "#0072B2",
    "instructions": "#8C8C8C",
    "answer": "#E69F00",
}
STYLE = {
    "figure.figsize": (6.5, 2.6),
    "figure.dpi": 150,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "text.parse_math": False,
    "svg.hashsalt": "votebook",
}


def tokens_per_item(run: Run, items: pd.DataFrame) -> None:
    """How long the items are, with the bound of the study."""
    figure, ax = _new()
    bound = run.study.items.max_tokens
    longest = int(items["n_tokens"].max())
    ax.hist(items["n_tokens"], bins=40, color=BLUE)
    ax.axvline(items["n_tokens"].median(), color=GREY, linewidth=1)
    if longest > bound / 2:
        ax.axvline(bound, color=RED, linewidth=1)
        ax.annotate("bound", (bound, ax.get_ylim()[1]), color=RED, ha="right", va="top")
    ax.set(xlabel="tokens of an item", ylabel="items")
    ax.grid(axis="x", visible=False)
    median = int(items["n_tokens"].median())
    title = f"Half of the items have at most {median:,} tokens, the longest {longest:,}"
    _finish(run, figure, ax, "01_tokens_per_item", title)


def estimate(run: Run, table: pd.DataFrame) -> None:
    """What each annotator is expected to cost, between its lower and upper estimate."""
    figure, ax = _new(height=0.8 + 0.45 * len(table))
    names = [f"{row.annotator} ({row.model})" for row in table.itertuples()]
    ax.barh(names, table["estimate_usd_expected"], color=BLUE, height=0.55)
    low = table["estimate_usd_expected"] - table["estimate_usd_low"]
    high = table["estimate_usd_high"] - table["estimate_usd_expected"]
    spans = [low.clip(lower=0), high.clip(lower=0)]
    ax.errorbar(
        table["estimate_usd_expected"], names, xerr=spans, fmt="none", ecolor=GREY, capsize=3
    )
    for name, usd, top in zip(
        names, table["estimate_usd_expected"], table["estimate_usd_high"], strict=True
    ):
        ax.annotate(f" ${usd:,.4f}", (top, name), va="center", color=GREY)
    ax.set(xlabel="USD at batch prices; the line reaches from the low to the high estimate")
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.25)
    total = table["estimate_usd_expected"].sum()
    _finish(run, figure, ax, "02_estimate", f"All answers are expected to cost ${total:,.4f}")


def queue(run: Run, enqueued: pd.DataFrame, limits: Mapping[str, int]) -> None:
    """Enqueued tokens of each model over the time of the run, against its limit."""
    if enqueued.empty:
        return _nothing("Enqueued tokens: every answer was known already")
    figure, ax = _new()
    for color, (model, rows) in zip(MODEL_COLORS, enqueued.groupby("model"), strict=False):
        ax.step(rows["at_seconds"], rows["enqueued_tokens"], where="post", color=color)
        top = rows.loc[rows["enqueued_tokens"].idxmax()]
        ax.annotate(
            f" {model}", (top["at_seconds"], top["enqueued_tokens"]), color=color, va="bottom"
        )
    peaks = enqueued.groupby("model")["enqueued_tokens"].max()
    over = [model for model, peak in peaks.items() if peak > limits.get(model, float("inf"))]
    for model, peak in peaks.items():
        if model in limits and limits[model] < 4 * peak:
            ax.axhline(limits[model], color=RED, linewidth=1)
            where = (enqueued["at_seconds"].max(), limits[model])
            ax.annotate(f"limit of {model}", where, color=RED, ha="right", va="bottom")
    ax.set(xlabel="seconds since the first batch", ylabel="enqueued tokens")
    ax.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.margins(x=0.12, y=0.2)
    fit = f"Every queue stayed within its limit; {peaks.max():,.0f} tokens were the most"
    title = f"Over its limit: {', '.join(over)}" if over else fit
    return _finish(run, figure, ax, "04_queue", title)


def shares(run: Run, table: pd.DataFrame, name: str, title: str) -> None:
    """Parts of a whole for every row of the index, as stacked bars; a part keeps its color."""
    if table.empty:
        return _nothing(title)
    figure, ax = _new(height=0.9 + 0.4 * len(table))
    share = table.div(table.sum(axis="columns"), axis="index").iloc[::-1]
    left = pd.Series(0.0, index=share.index)
    spare = iter(MODEL_COLORS)
    for part in share.columns:
        color = PART_COLORS.get(part) or next(spare)
        ax.barh(share.index, share[part], left=left, height=0.6, color=color, label=part)
        left = left + share[part]
    ax.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    ax.set(xlim=(0, 1))
    ax.grid(axis="y", visible=False)
    figure.legend(ncols=5, loc="outside lower left", frameon=False)
    return _finish(run, figure, ax, name, title)


def intervals(run: Run, table: pd.DataFrame, name: str, title: str) -> None:
    """Shares with their intervals, a row each: columns label, share, low, high; best on top."""
    if table.empty:
        return _nothing(title)
    rows = table.sort_values("share")
    figure, ax = _new(height=0.8 + 0.28 * len(rows))
    spans = [rows["share"] - rows["low"], rows["high"] - rows["share"]]
    ax.errorbar(
        rows["share"], rows["label"], xerr=spans, fmt="o", color=BLUE, ecolor=GREY, capsize=3
    )
    for label, value, high in zip(rows["label"], rows["share"], rows["high"], strict=True):
        ax.annotate(f" {value:.3f}", (high, label), va="center", color=GREY)
    ax.set(xlim=(min(0.5, rows["low"].min()), 1.08), xlabel="share, with its 95 % interval")
    ax.grid(axis="y", visible=False)
    ax.margins(y=0.15)
    return _finish(run, figure, ax, name, title)


def grid(run: Run, table: pd.DataFrame, colors: Mapping[str, str], name: str, title: str) -> None:
    """A table of words as colored cells; the columns are pairs of a heading and a number below."""
    if table.empty:
        return _nothing(title)
    figure, ax = _new(height=1.1 + 0.27 * len(table))
    ax.set_axis_off()
    headings = list(dict.fromkeys(heading for heading, _ in table.columns))
    places = [x + 0.5 * headings.index(heading) for x, (heading, _) in enumerate(table.columns)]
    n_rows, width = len(table), places[-1] + 1
    for y, (label, row) in enumerate(table.iterrows()):
        ax.text(-0.2, n_rows - y - 0.5, str(label)[:40], ha="right", va="center")
        for x, word in zip(places, row, strict=True):
            _box(ax, (x, n_rows - y - 1), (0.94, 0.9), colors.get(word, LIGHT))
    for x, (_, number) in zip(places, table.columns, strict=True):
        ax.text(x + 0.47, n_rows + 0.1, str(number), ha="center", va="bottom", fontsize=7)
    for heading in headings:
        mine = [x for x, (one, _) in zip(places, table.columns, strict=True) if one == heading]
        middle = (mine[0] + mine[-1]) / 2 + 0.47
        ax.text(middle, n_rows + 0.75, heading, ha="center", va="bottom", fontweight="bold")
    for place, (word, color) in enumerate(colors.items()):
        x = place * width / len(colors)
        _box(ax, (x, -1.1), (0.35, 0.6), color)
        ax.text(x + 0.5, -0.8, word, va="center", fontsize=8)
    ax.set(xlim=(-0.45 * width, width), ylim=(-1.3, n_rows + 1.6))
    return _finish(run, figure, ax, name, title)


def bars(run: Run, values: pd.Series, label: str, name: str, title: str) -> None:
    """Horizontal bars from the largest down, the value written at the end of each."""
    if values.empty:
        return _nothing(title)
    values = values.sort_values()
    figure, ax = _new(height=0.8 + 0.25 * len(values))
    ax.barh([str(name)[:40] for name in values.index], values, color=BLUE, height=0.65)
    for place, value in enumerate(values):
        ax.annotate(f" {value:,.4g}", (value, place), va="center", color=GREY)
    ax.set(xlabel=label)
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.12)
    return _finish(run, figure, ax, name, title)


def _new(height: float = 2.6) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.5, height), layout="constrained")
        return figure, figure.add_subplot()


def _box(ax: Axes, corner: tuple[float, float], size: tuple[float, float], color: str) -> None:
    ax.add_patch(mpl.patches.Rectangle(corner, *size, color=color))


def _nothing(title: str) -> None:
    """Say that there is nothing to draw, where the picture would be."""
    said = title if title.endswith(".") else f"{title}: nothing to show."
    display(HTML(f"<p>{html.escape(said)}</p>"))


def _finish(run: Run, figure: Figure, ax: Axes, name: str, title: str) -> None:
    """Give the picture its title and mark, save it, and show it once."""
    with mpl.rc_context(STYLE):
        ax.set_title(
            "\n".join(textwrap.wrap(title, 84)), loc="left", fontweight="bold", fontsize=10
        )
        if collect.is_simulated(run):
            figure.supxlabel("simulated answers", x=0.99, ha="right", fontsize=7, color=RED)
        for ending, extra in (("png", {"Software": None}), ("svg", {"Date": None})):
            with runs.replacing(run.path("figures") / f"{name}.{ending}") as part:
                figure.savefig(part, format=ending, metadata=extra)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    words = f"{title} (simulated answers)" if collect.is_simulated(run) else title
    display(Image(picture.getvalue(), width=680, alt=words))
