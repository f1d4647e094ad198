"""Pictures: one style, and a function for each picture that a notebook shows.

A function draws, saves PNG and SVG under `figures/`, shows the picture once with a text for those
who cannot see it, and returns None. The title is the finding. Simulated answers are marked. Labels
come from documents and people: they are cut, stripped of control characters, and never formulas.
"""

import contextlib
import html
import io
import itertools
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from IPython.display import HTML, Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib import runs, tables, words
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
    "savefig.dpi": "figure",
    "font.size": 9,
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
MOST_BARS = 40
MOST_NUMBERS = 12  # more columns leave no room for figures in the cells
_LABEL_CHARS = 40
_TITLE_CHARS = 78


def tokens_per_item(run: Run, items: pd.DataFrame) -> None:
    """How long the items are, with the bound of the study."""
    if items.empty:
        return nothing(run, "01_tokens_per_item", "Tokens of an item")
    bound, longest = run.study.items.max_tokens, int(items["n_tokens"].max())
    median = int(items["n_tokens"].median())
    most = words.n_of(median, "token")
    title = f"Half of the items have at most {most}, the longest {longest:,}"
    with picture(run, "01_tokens_per_item", title) as ax:
        ax.hist(items["n_tokens"], bins=40, color=BLUE)
        ax.axvline(median, color=GREY, linewidth=1)
        if longest > bound / 2:
            ax.axvline(bound, color=RED, linewidth=1)
            ax.annotate("bound ", (bound, ax.get_ylim()[1]), color=RED, ha="right", va="top")
        ax.set(xlabel="tokens of an item", ylabel="items")
        ax.grid(axis="x", visible=False)
    return None


def estimate(run: Run, table: pd.DataFrame) -> None:
    """What the new requests of each annotator are expected to cost, from low to high."""
    n_new = int(table["n_new"].sum())
    if not n_new:
        return nothing(run, "02_estimate", "Every answer is known: nothing is left to pay.")
    usd = table["estimate_usd_expected"]
    new = words.n_of(n_new, "new request")
    title = f"Expected cost of {new}: ${usd.sum():,.4f}"
    names = [f"{row.annotator} ({row.model})" for row in table.itertuples()]
    with picture(run, "02_estimate", title, 0.8 + 0.45 * len(table)) as ax:
        places = _places(ax, names)
        ax.barh(places, usd, color=BLUE, height=0.55)
        spans = [usd - table["estimate_usd_low"], table["estimate_usd_high"] - usd]
        spans = [span.clip(lower=0) for span in spans]
        ax.errorbar(usd, places, xerr=spans, fmt="none", ecolor=GREY, capsize=3)
        _values(ax, places, table["estimate_usd_high"], [f"${one:,.4f}" for one in usd])
        ax.set(xlabel="USD at batch prices; the line reaches from the low to the high estimate")
        ax.margins(x=0.25)
    return None


def queue(run: Run, enqueued: pd.DataFrame, limits: Mapping[str, int]) -> None:
    """Enqueued tokens of each model over the time of the run, against its limit."""
    if enqueued.empty:
        return nothing(run, "04_queue", "Enqueued tokens: every answer was known already.")
    peaks = enqueued.groupby("model")["enqueued_tokens"].max()
    over = [model for model, peak in peaks.items() if peak > limits.get(model, float("inf"))]
    fit = f"Every queue stayed within its limit; {peaks.max():,.0f} tokens were the most"
    if not limits:
        fit = f"{peaks.max():,.0f} tokens were the most that were enqueued; no limit is known"
    title = f"Over its limit: {', '.join(over)}" if over else fit
    unit, seconds = ("hours", 3600) if enqueued["at_seconds"].max() > 7200 else ("seconds", 1)
    table = enqueued.assign(at=enqueued["at_seconds"] / seconds)
    with picture(run, "04_queue", title) as ax:
        colors = itertools.cycle(MODEL_COLORS)
        for color, (model, rows) in zip(colors, table.groupby("model"), strict=False):
            ax.step(rows["at"], rows["enqueued_tokens"], where="post", color=color)
            top = rows.loc[rows["enqueued_tokens"].idxmax()]
            place = (top["at"], top["enqueued_tokens"])
            ax.annotate(f" {short(model)}", place, color=color, va="bottom")
        for model, peak in peaks.items():
            if model in limits and limits[model] < 4 * peak:
                ax.axhline(limits[model], color=RED, linewidth=1)
                place = (table["at"].max(), limits[model])
                said = f"limit of {short(model)}"
                ax.annotate(said, place, color=RED, ha="right", va="bottom")
        ax.set(xlabel=f"{unit} since the first batch", ylabel="enqueued tokens")
        ax.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.margins(x=0.12, y=0.2)
    return None


def shares(run: Run, table: pd.DataFrame, name: str, title: str) -> None:
    """Parts of a whole for every row of the index, as stacked bars; a part keeps its color."""
    if table.empty:
        return nothing(run, name, title)
    share = table.div(table.sum(axis="columns"), axis="index").fillna(0).iloc[::-1]
    with picture(run, name, title, 0.9 + 0.4 * len(table)) as ax:
        places, left = _places(ax, share.index), [0.0] * len(share)
        spare = itertools.cycle(MODEL_COLORS)
        for part in share.columns:
            color = PART_COLORS.get(part) or next(spare)
            ax.barh(places, share[part], left=left, height=0.6, color=color, label=short(part))
            left = left + share[part].to_numpy()
        ax.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
        ax.set(xlim=(0, 1))
        ax.figure.legend(ncols=5, loc="outside lower left", frameon=False)
    return None


def intervals(run: Run, table: pd.DataFrame, name: str, title: str) -> None:
    """Shares with their intervals, the first row on top: columns label, share, low, high."""
    rows = table.dropna(subset=["share", "low", "high"]).iloc[::-1]
    if rows.empty:
        return nothing(run, name, title)
    with picture(run, name, title, 0.8 + 0.28 * len(rows)) as ax:
        places = _places(ax, rows["label"])
        spans = [rows["share"] - rows["low"], rows["high"] - rows["share"]]
        spans = [span.clip(lower=0) for span in spans]
        style = {"fmt": "o", "color": BLUE, "ecolor": GREY, "capsize": 3}
        ax.errorbar(rows["share"], places, xerr=spans, **style)
        _values(ax, places, rows["high"], [f"{value:.3f}" for value in rows["share"]])
        ax.set(xlim=(min(0.5, rows["low"].min()), 1.08), xlabel="share, with its 95 % interval")
        ax.set_ylim(-0.6, len(rows) - 0.4)
    return None


def grid(run: Run, table: pd.DataFrame, colors: Mapping[str, str], name: str, title: str) -> None:
    """A table of words as colored cells; the columns are pairs of a heading and a number below."""
    if table.empty:
        return nothing(run, name, title)
    title, shown = _bounded(title, len(table), "groups"), table.iloc[:MOST_BARS]
    headings = list(dict.fromkeys(heading for heading, _ in shown.columns))
    middles = [x + 0.5 * headings.index(heading) for x, (heading, _) in enumerate(shown.columns)]
    with picture(run, name, title, 1.1 + 0.27 * len(shown)) as ax:
        places = _places(ax, shown.index)
        ax.invert_yaxis()
        for place, (_, row) in zip(places, shown.iterrows(), strict=True):
            faces = [colors.get(word, LIGHT) for word in row]
            ax.barh(place, 0.94, left=[x - 0.47 for x in middles], height=0.9, color=faces)
        ax.set_xticks(middles, [short(number) for _, number in shown.columns], fontsize=7)
        ax.tick_params(bottom=False, labelbottom=False, labeltop=True, left=False)
        ax.spines[:].set_visible(False)
        ax.grid(visible=False)
        ax.set(xlim=(middles[0] - 0.5, middles[-1] + 0.5), ylim=(len(shown) - 0.5, -0.5))
        for heading in headings:
            mine = [x for x, (one, _) in zip(middles, shown.columns, strict=True) if one == heading]
            offset = {"xytext": (0, 16), "textcoords": "offset points", "ha": "center"}
            place = ((mine[0] + mine[-1]) / 2, -0.5)
            ax.annotate(short(heading, 20), place, fontweight="bold", **offset)
        keys = [mpl.patches.Patch(color=color, label=short(one)) for one, color in colors.items()]
        ax.figure.legend(handles=keys, ncols=4, loc="outside lower left", frameon=False)
    return None


def square(run: Run, table: pd.DataFrame, name: str, title: str) -> None:
    """Voters x voters as shades of one color, from 0 (white) to 1; what is not known is grey."""
    if len(table) < 2:
        return nothing(run, name, title)
    title, shown = _bounded(title, len(table), "voters"), table.iloc[:MOST_BARS, :MOST_BARS]
    shades = mpl.colors.LinearSegmentedColormap.from_list("shades", ["white", BLUE])
    shades = shades.with_extremes(bad=LIGHT)
    with picture(run, name, title, 1.2 + 0.3 * len(shown)) as ax:
        places = _places(ax, shown.index)
        ax.imshow(shown, cmap=shades, vmin=0, vmax=1, aspect="auto")
        ax.set_xticks(places, [short(voter, 12) for voter in shown.columns], rotation=30)
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        for (row, column), value in np.ndenumerate(shown.to_numpy(dtype=float)):
            if len(shown) <= MOST_NUMBERS and not np.isnan(value):
                color = "white" if value > 0.55 else "black"
                ax.annotate(f"{value:.2f}", (column, row), ha="center", va="center", color=color)
    return None


def bars(run: Run, values: pd.Series, label: str, name: str, title: str) -> None:
    """Horizontal bars from the largest down, the value written at the end of each."""
    if values.empty:
        return nothing(run, name, title)
    largest = values.sort_values(ascending=False, kind="stable").iloc[:MOST_BARS]
    title, shown = _bounded(title, len(values), "bars"), largest.iloc[::-1]
    with picture(run, name, title, 0.8 + 0.25 * len(shown)) as ax:
        places = _places(ax, shown.index)
        ax.barh(places, shown, color=BLUE, height=0.65)
        _values(ax, places, shown, [tables.cell(label, value) for value in shown])
        ax.set(xlabel=label)
        if pd.api.types.is_integer_dtype(shown):
            ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
        ax.margins(x=0.12)
    return None


def short(text: object, most: int = _LABEL_CHARS) -> str:
    """Text as a picture can show it: one short line."""
    return " ".join(tables.plain(" ".join(str(text).split()), most).split())


def _places(ax: Axes, labels: Iterable[object]) -> list[int]:
    """A place on the vertical axis for each label; equal labels keep places of their own."""
    labels = [short(label) for label in labels]
    ax.set_yticks(range(len(labels)), labels)
    ax.grid(axis="y", visible=False)
    return list(range(len(labels)))


def _values(ax: Axes, places: list[int], ends: Iterable[float], texts: list[str]) -> None:
    """Write the values where their bars or lines end."""
    for place, end, text in zip(places, ends, texts, strict=True):
        ax.annotate(f" {text}", (end, place), va="center", color=GREY)


def _bounded(title: str, n_rows: int, what: str) -> str:
    """The title, which says so when there are more rows than a picture can hold."""
    more = f" (the first {MOST_BARS} of {n_rows:,} {what})"
    return f"{title}{more if n_rows > MOST_BARS else ''}"


def nothing(run: Run, name: str, title: str) -> None:
    """Say that there is nothing to draw; a picture of an earlier state goes."""
    for ending in ("png", "svg"):
        run.path("figures").joinpath(f"{name}.{ending}").unlink(missing_ok=True)
    said = title if title.endswith(".") else f"{title}: nothing to show."
    display(HTML(f"<p>{html.escape(tables.plain(tables.mark(run, said)))}</p>"))


@contextlib.contextmanager
def picture(run: Run, name: str, title: str, height: float = 2.6) -> Iterator[Axes]:
    """Axes to draw on; when the block ends well, the picture is saved and shown once."""
    words = tables.plain(tables.mark(run, title))
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Letters that the font does not have become boxes; the tables beside show them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        figure = Figure(figsize=(6.5, height), layout="constrained")
        yield figure.add_subplot()
        wrapped = "\n".join(textwrap.wrap(tables.plain(title), _TITLE_CHARS))
        figure.suptitle(wrapped, x=0.01, ha="left", fontweight="bold", fontsize=10)
        if words != tables.plain(title):
            figure.supxlabel("simulated answers", x=0.99, ha="right", fontsize=7, color=RED)
        picture = _save(run, name, figure, "png", {"Software": None})
        _save(run, name, figure, "svg", {"Date": None})
    display(Image(picture, width=680, alt=words))


def _save(run: Run, name: str, figure: Figure, kind: str, metadata: Mapping[str, None]) -> bytes:
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, metadata=metadata)
    with runs.replacing(run.path("figures") / f"{name}.{kind}") as part:
        part.write_bytes(drawn.getvalue())
    return drawn.getvalue()
