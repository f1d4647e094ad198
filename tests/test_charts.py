"""Pictures: drawn from what notebooks give them, whole on disk, with a text, and never fragile."""

import shutil

import displays
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import sending
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib import charts

ITEMS = pd.DataFrame({"n_tokens": [5, 7, 90, 1800]})
ESTIMATE = pd.DataFrame(
    {
        "annotator": ["terra", "luna"],
        "model": ["gpt-6.1-terra", "gpt-6-luna"],
        "n_new": [10, 30],
        "estimate_usd_low": [0.1, 0.05],
        "estimate_usd_expected": [0.3, 0.1],
        "estimate_usd_high": [1.1, 0.5],
    }
)
QUEUE = pd.DataFrame(
    {"model": ["a", "a", "b"], "at_seconds": [0.0, 5.0, 2.0], "enqueued_tokens": [900, 0, 10]}
)
STATUS = pd.DataFrame({"decided": [8, 0], "tie": [2, 0]}, index=["mood", "people"])
INTERVALS = pd.DataFrame(
    {"label": ["panel", "panel"], "share": [0.8, 0.9], "low": [0.7, 0.8], "high": [0.9, 1.0]}
)
GRID = pd.DataFrame(
    [["Low", "High"], ["High", "other"]],
    index=["Inn", "Mill"],
    columns=pd.MultiIndex.from_tuples([("V0", "25"), ("V0", "50")]),
)
COLORS = {"Low": "#56B4E9", "High": "#E69F00"}
NAMES = pd.Series([3, 2, 3], index=["London", "Kay", "London"])
SQUARE = pd.DataFrame([[1.0, None], [None, 1.0]], index=["a 0", "b"], columns=["a 0", "b"])
LIMITS = {"a": 1000}
DRAWN = {
    "01_tokens_per_item": lambda run: charts.tokens_per_item(run, ITEMS),
    "02_estimate": lambda run: charts.estimate(run, ESTIMATE),
    "04_queue": lambda run: charts.queue(run, QUEUE, LIMITS),
    "05_status": lambda run: charts.shares(run, STATUS, "05_status", "2 values are open"),
    "05_accuracy": lambda run: charts.intervals(run, INTERVALS, "05_accuracy", "Accuracy"),
    "05_agreement": lambda run: charts.square(run, SQUARE, "05_agreement", "Who agrees"),
    "06_verdicts": lambda run: charts.grid(run, GRID, COLORS, "06_verdicts", "Verdicts"),
    "06_names": lambda run: charts.bars(run, NAMES, "documents", "06_names", "3 names"),
}
EMPTY = {
    "01_tokens_per_item": lambda run: charts.tokens_per_item(run, ITEMS[:0]),
    "02_estimate": lambda run: charts.estimate(run, ESTIMATE.assign(n_new=0)),
    "04_queue": lambda run: charts.queue(run, QUEUE[:0], LIMITS),
    "05_status": lambda run: charts.shares(run, STATUS[:0], "05_status", "Status"),
    "05_accuracy": lambda run: charts.intervals(run, INTERVALS[:0], "05_accuracy", "Accuracy"),
    "05_agreement": lambda run: charts.square(run, SQUARE[:0], "05_agreement", "Who agrees"),
    "06_verdicts": lambda run: charts.grid(run, pd.DataFrame(), COLORS, "06_verdicts", "Verdicts"),
    "06_names": lambda run: charts.bars(run, NAMES[:0], "documents", "06_names", "No names"),
}
HOSTILE = [
    "$",
    "$\\frac{",
    "$x^{$y$}$",
    "\\undefined $\\undefined$",
    "50 % off & more_of_it #1 {~^}",
    "\x1b[31mred\x07\x00",
    "two\nlines",
    "_begins like a hidden label",
    "😀👩‍👩‍👧 smile",
    "東京の本",
    "مطعم",
    "user\u202etxt",
    "W" * 200,
    "",
    " ",
    "<script>alert(1)</script>",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run without answers, for all tests: pictures need no more of it than its folder."""
    folder = tmp_path_factory.mktemp("charts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOTEBOOK_OUTPUTS", str(folder / "outputs"))
        yield sending.make_run(folder / "guests")


@pytest.fixture
def run(whole):
    """The run, without pictures."""
    shutil.rmtree(whole.path("figures"), ignore_errors=True)
    return whole


def drawn(function, run):
    """What a function displays; it returns None, and leaves matplotlib's settings as they were."""
    before = dict(mpl.rcParams)
    with displays.caught() as outputs:
        assert function(run) is None
    assert dict(mpl.rcParams) == before
    assert len(outputs) == 1
    return outputs[0]


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_shown_once_and_saved_twice(name, run):
    """PNG and SVG lie whole under figures/, and the displayed one has a text."""
    output = drawn(DRAWN[name], run)
    assert output.metadata["image/png"]["alt"]
    figures = sorted(run.path("figures").iterdir())
    assert [path.name for path in figures] == [f"{name}.png", f"{name}.svg"]
    assert figures[0].read_bytes().startswith(b"\x89PNG")
    assert figures[0].read_bytes().rstrip(b"\x82").endswith(b"IEND\xaeB`")
    assert figures[1].read_text(encoding="utf-8").rstrip().endswith("</svg>")


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_show_is_said(name, run):
    """Where the picture would be; a picture of an earlier state goes from the folder."""
    run.path("figures").mkdir()
    for ending in ("png", "svg"):
        run.path(f"figures/{name}.{ending}").touch()
    said = drawn(EMPTY[name], run).data["text/html"]
    assert "nothing" in said or "known already" in said
    assert list(run.path("figures").iterdir()) == []


@pytest.mark.parametrize("label", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_labels_do_no_harm(label, run):
    """As a title, an axis and the name of a bar: no exception."""
    twice = pd.Series([2, 1], index=[label, f"{label}."])
    output = drawn(lambda run: charts.bars(run, twice, label or "n", "n", label or "-"), run)
    assert "\x1b" not in output.metadata["image/png"]["alt"]


def test_hostile_names_do_no_harm_anywhere(run):
    """In every place where a name of a document, group, model or person may stand: no exception."""
    table = pd.concat([GRID.iloc[:1]] * len(HOSTILE)).set_axis(HOSTILE)
    colors = COLORS | dict.fromkeys(HOSTILE, "#000000")
    drawn(lambda run: charts.grid(run, table, colors, "g", "Verdicts"), run)
    queue = pd.concat([QUEUE.assign(model=label) for label in HOSTILE])
    drawn(lambda run: charts.queue(run, queue, dict.fromkeys(HOSTILE, 10)), run)
    priced = pd.concat([ESTIMATE.assign(annotator=label) for label in HOSTILE])
    output = drawn(lambda run: charts.estimate(run, priced), run)
    assert "\x1b" not in output.metadata["image/png"]["alt"]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=60), min_size=1, max_size=20))
def test_any_labels_can_be_drawn(run, labels):
    """Whatever documents name: no exception and no warning."""
    names = pd.Series(range(len(labels)), index=labels)
    drawn(lambda run: charts.bars(run, names, "n", "06_names", "Names"), run)


def test_equal_labels_keep_their_own_bars(run):
    """London as a place and London as a power: three bars, not two; and two intervals."""
    svgs = {}
    for name, label in (("06_names", "London"), ("05_accuracy", "panel")):
        drawn(DRAWN[name], run)
        svgs[name] = run.path(f"figures/{name}.svg").read_text(encoding="utf-8")
        assert svgs[name].count(f"<!-- {label} -->") == 2


def test_many_rows_stay_one_picture(run):
    """Of 5,000 groups the first 40 are drawn, and the title says so."""
    many = pd.Series(range(5000), index=[f"g{n}" for n in range(5000)])
    output = drawn(lambda run: charts.bars(run, many, "items", "01_spread", "Items"), run)
    assert output.metadata["image/png"]["alt"] == "Items (the first 40 of 5,000 bars)"
    svg = run.path("figures/01_spread.svg").read_text(encoding="utf-8")
    assert "<!-- g4999 -->" in svg
    assert "<!-- g4959 -->" not in svg


@pytest.mark.parametrize(
    ("limits", "title"),
    [
        ({"a": 1000}, "Every queue stayed within its limit; 900 tokens were the most"),
        ({"a": 800}, "Over its limit: a"),
        ({}, "900 tokens were the most that were enqueued; no limit is known"),
    ],
)
def test_the_title_of_the_queue_is_the_finding(limits, title, run):
    """It claims no more than the limits allow."""
    output = drawn(lambda run: charts.queue(run, QUEUE, limits), run)
    assert output.metadata["image/png"]["alt"] == title


def test_hours_are_hours(run):
    """A run of three hours is not shown in 10,800 seconds."""
    drawn(lambda run: charts.queue(run, QUEUE.assign(at_seconds=[0, 10800, 60]), LIMITS), run)
    assert "hours since" in run.path("figures/04_queue.svg").read_text(encoding="utf-8")


def test_shares_of_nothing_and_unknown_shares_are_drawn(run):
    """A row that sums to 0, more parts than colors, an accuracy that is not a number."""
    parts = pd.DataFrame([[1] * 9, [0] * 9], columns=[f"part {n}" for n in range(9)])
    drawn(lambda run: charts.shares(run, parts, "05_status", "Parts"), run)
    table = INTERVALS.assign(share=[0.8, np.nan], low=[0.7, np.nan], high=[0.9, np.nan])
    drawn(lambda run: charts.intervals(run, table, "05_accuracy", "Accuracy"), run)
