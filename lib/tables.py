"""Tables as a notebook shows them: escaped, formatted by the unit in a column's name, and marked.

Whatever text stands in a table cannot become markup, and a table of a run whose answers came from
the built-in annotators says *simulated*.
"""

import html
import numbers
from collections.abc import Iterable

import pandas as pd
from IPython.display import HTML, DisplayHandle, display

from lib import collect
from lib.dispatch import Progress
from lib.runs import Run

ALERT = "#D55E00"
_CAPTION = "text-align:left;font-weight:bold;white-space:nowrap"
_CELL = "text-align:{side};padding:2px 10px;{color}"


def show(run: Run, frame: pd.DataFrame, title: str, alert: Iterable[bool] = ()) -> None:
    """Show a table under its title; rows for which `alert` is true stand in red."""
    frame = frame.reset_index(drop=True)
    alerts = list(alert) or [False] * len(frame)
    display(HTML(_html(frame, mark(run, title), alerts)))


def mark(run: Run, title: str) -> str:
    """The title, with the word *simulated* when the run's answers are."""
    return f"{title} (simulated answers)" if collect.is_simulated(run) else title


def cell(name: str, value: object) -> str:
    """One value as text, by the unit that its column's name carries.

    >>> cell("n_items", 18440), cell("spend_usd", 0.01234), cell("share", 0.25), cell("hours", 1.5)
    ('18,440', '$0.0123', '25.0 %', '1.5')
    """
    if value is None or (not isinstance(value, list | dict) and pd.isna(value)):
        return "-"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return str(value)
    if "_usd" in name:
        return f"${value:,.2f}" if abs(value) >= 100 else f"${value:,.4f}"
    if name in ("share", "accuracy", "coverage", "margin", "low", "high") or name.endswith(
        "_share"
    ):
        return f"{value:.1%}".replace("%", " %")
    return f"{value:,}" if float(value).is_integer() else f"{value:,.4g}"


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
        text = html.escape(str(progress)).replace("\n", "<br>")
        done = f'<progress max="{self._total}" value="{progress.n_valid}"></progress> {text}'
        if self._handle is None:
            self._handle = display(HTML(done), display_id=True)
        else:
            self._handle.update(HTML(done))


def _html(frame: pd.DataFrame, title: str, alerts: list[bool]) -> str:
    numeric = {name: pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns}
    head = "".join(_cell("th", str(name), numeric[name], red=False) for name in frame.columns)
    rows = [
        "".join(
            _cell("td", cell(str(name), value), numeric[name], red)
            for name, value in zip(frame.columns, row, strict=True)
        )
        for row, red in zip(frame.itertuples(index=False), alerts, strict=True)
    ]
    none = f'<tr><td colspan="{len(frame.columns)}">none</td></tr>'
    body = "".join(f"<tr>{row}</tr>" for row in rows) or none
    caption = f'<caption style="{_CAPTION}">{html.escape(title)}</caption>'
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(tag: str, text: str, numeric: bool, red: bool) -> str:
    side, color = "right" if numeric else "left", f"color:{ALERT}" if red else ""
    return f'<{tag} style="{_CELL.format(side=side, color=color)}">{html.escape(text)}</{tag}>'
