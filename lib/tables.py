"""Tables as a notebook shows them: escaped, formatted by the unit in a column's name, and marked.

Whatever text stands in a table cannot become markup or a command to a terminal, and a table of a
run whose answers came from the built-in annotators says *simulated*. A long table is cut, and says
so: the files of the run have all rows.
"""

import html
import numbers
import re
from collections.abc import Iterable

import pandas as pd
from IPython.display import HTML, DisplayHandle, display

from lib import collect, words
from lib.dispatch import Progress
from lib.runs import Run

ALERT = "#D55E00"
MOST_ROWS = 100
MOST_CHARS = 1000
_SHARES = ("share", "accuracy", "coverage", "margin", "low", "high", "probability")
_NOT_SHARES = {"alpha", "f1", "kappa"}  # whose low and high are no shares either
# What a terminal obeys: colors, cursor movements, links.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -~])")
# Other control characters, halves of surrogate pairs, and what reorders the text around it.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_CAPTION = "text-align:left;font-weight:bold;white-space:nowrap"
_CELL = "text-align:{side};padding:2px 10px;{color}"


def show(run: Run, frame: pd.DataFrame, title: str, alert: Iterable[bool] = ()) -> None:
    """Show a table under its title; rows for which `alert` is true stand in red.

    Of a long table the first rows are shown, and every red one.
    """
    alerts = list(alert) or [False] * len(frame)
    shown = [n for n, red in enumerate(alerts) if n < MOST_ROWS or red]
    n_left = len(frame) - len(shown)
    left = f"; {words.n_of(n_left, 'more row')}" if n_left else ""
    reds = [alerts[n] for n in shown]
    display(HTML(_html(frame.iloc[shown], mark(run, title) + left, reds)))


def mark(run: Run, title: str) -> str:
    """The title, with the word *simulated* when the run's answers are."""
    return f"{title} (simulated answers)" if collect.is_simulated(run) else title


def plain(text: str, most: int = MOST_CHARS) -> str:
    r"""Text that only shows: no commands to a terminal, no control characters, at most so long.

    >>> plain("\x1b[31mred\x1b[0m\x07 wine"), plain("abcdef", most=4)
    ('red\ufffd wine', 'abc\u2026')
    """
    text = _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", _ESCAPES.sub("", text))
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def cell(name: str, value: object) -> str:
    """One value as text, by the unit that its column's name carries.

    >>> cell("n_items", 18440), cell("spend_usd", 0.01234), cell("share", 0.25), cell("hours", 1.5)
    ('18,440', '$0.0123', '25.0 %', '1.5')
    """
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "-"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return plain(str(value))
    if "_usd" in name:
        return _usd(value)
    if name in _SHARES or name.endswith(("_share", "_probability")):
        return f"{value:.1%}".replace("%", " %")
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def progress_bar(n_total: int) -> "Bar":
    """A progress bar that stays one output of the notebook and shows its last state in the page."""
    return Bar(n_total)


class Bar:
    """A bar to be called with each Progress; a class because the display must be remembered."""

    def __init__(self, n_total: int) -> None:
        self._total = n_total
        self._handle: DisplayHandle | None = None

    def __call__(self, progress: Progress) -> None:
        """Redraw the bar."""
        text = html.escape(plain(str(progress))).replace("\n", "<br>")
        n_done = progress.n_valid + progress.n_spared
        done = f'<progress max="{self._total}" value="{n_done}"></progress> {text}'
        if self._handle is None:
            self._handle = display(HTML(done), display_id=True)
        else:
            self._handle.update(HTML(done))


def _usd(value: float) -> str:
    """Cents for large sums; a small one is never shown as nothing."""
    if 0 < value < 0.0001:
        return "< $0.0001"
    return f"${value:,.2f}" if abs(value) >= 100 else f"${value:,.4f}"


def _html(frame: pd.DataFrame, title: str, alerts: list[bool]) -> str:
    kinds = frame.dtypes
    numeric = {
        name: pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
        for name, kind in kinds.items()
    }
    head = "".join(
        _cell("th", plain(str(name)), numeric[name], red=False) for name in frame.columns
    )
    bounds = {"low", "high"} if _NOT_SHARES & set(frame.columns) else set()
    names = ["" if name in bounds else str(name) for name in frame.columns]
    rows = [
        "".join(
            _cell("td", cell(name, value), numeric[column], red)
            for column, name, value in zip(frame.columns, names, row, strict=True)
        )
        for row, red in zip(frame.itertuples(index=False), alerts, strict=True)
    ]
    none = f'<tr><td colspan="{len(frame.columns)}">none</td></tr>'
    body = "".join(f"<tr>{row}</tr>" for row in rows) or none
    caption = f'<caption style="{_CAPTION}">{html.escape(plain(title))}</caption>'
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(tag: str, text: str, numeric: bool, red: bool) -> str:
    side, color = "right" if numeric else "left", f"color:{ALERT}" if red else ""
    return f'<{tag} style="{_CELL.format(side=side, color=color)}">{html.escape(text)}</{tag}>'
