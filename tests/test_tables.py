"""Tables: escaped, plain, formatted by unit, marked, and never endless."""

import html

import displays
import numpy as np
import pages
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import tables
from lib.dispatch import Progress


@pytest.fixture
def run(make_run):
    """A run without answers."""
    return make_run()


def shown(run, frame, title="Title", **more):
    """The markup of a table as it is displayed."""
    with displays.caught() as outputs:
        assert tables.show(run, frame, title, **more) is None
    assert len(outputs) == 1
    return outputs[0].data["text/html"]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("n_items", 18440, "18,440"),
        ("n_items", np.int64(0), "0"),
        ("weight", 1.0, "1"),
        ("weight", 2 / 3, "0.6667"),
        ("n_output_tokens", 12345.6, "12,346"),
        ("limit_tokens", pd.NA, "-"),
        ("date", pd.NaT, "-"),
        ("value", None, "-"),
        ("share", 0.25, "25.0 %"),
        ("failure_share", 1.0, "100.0 %"),
        ("margin", float("nan"), "-"),
        ("spend_usd", 0.01234, "$0.0123"),
        ("spend_usd", 0.000012, "< $0.0001"),
        ("spend_usd", 0.0, "$0.0000"),
        ("estimate_usd_high", 1234.5, "$1,234.50"),
        ("hours_high", float("inf"), "inf"),
        ("simulated", np.True_, "True"),
        ("weights", {"a": 1}, "{'a': 1}"),
        ("names", np.array(["a", "b"]), "['a' 'b']"),
        ("value", "true", "true"),
    ],
)
def test_a_value_is_written_by_its_unit(name, value, text):
    """Whole numbers without a point, money with four places or two, shares in percent."""
    assert tables.cell(name, value) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\x1b[31;1mred\x1b[0m", "red"),
        ("\x1b]8;;http://evil.example\x07link\x1b]8;;\x07", "link"),
        ("\x1b]0;title\x1b\\text", "text"),
        ("\x1b[2J\x1b[Hgone", "gone"),
        ("a\x07b\x00c\x9bd", "a\ufffdb\ufffdc\ufffdd"),
        ("user\u202etxt.exe", "user\ufffdtxt.exe"),
        ("half \ud83d", "half \ufffd"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("Phở, 東京, 😀", "Phở, 東京, 😀"),
    ],
)
def test_text_only_shows(text, said):
    """Commands to a terminal go; other control characters become visible."""
    assert tables.plain(text) == said


@given(st.text(alphabet=st.characters(codec=None), max_size=200))
def test_any_text_is_plain(text):
    """Whatever comes in, nothing goes out that a terminal obeys or a file cannot hold."""
    said = tables.plain(text, 50)
    assert len(said) <= 50
    assert said.encode("utf-8").decode("utf-8") == said
    assert not [c for c in said if (ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160]


def test_markup_and_commands_in_a_table_do_nothing(run):
    """In cells, headings and title."""
    bad = "<img src=x onerror=alert(1)> \x1b[31m"
    page = shown(run, pd.DataFrame({bad: [bad], "n": [1]}), bad)
    faults, text, _ = pages.read(page)
    assert faults == []
    assert text.count("<img src=x onerror=alert(1)>") == 3
    assert "\x1b" not in page


def test_an_empty_table_says_none(run):
    """A table without rows still has its title and its headings."""
    text = pages.read(shown(run, pd.DataFrame({"item": [], "n": []})))[1]
    assert "Title" in text
    assert "none" in text


def test_a_long_table_is_cut_and_keeps_its_red_rows(run):
    """100 rows and the red one after them are shown; the title says that 49 are left."""
    frame = pd.DataFrame({"n": range(150)})
    page = shown(run, frame, alert=frame["n"].eq(140))
    assert page.count("<tr>") == 1 + 101
    assert "Title; 49 more rows" in page
    assert f"color:{tables.ALERT}" in page
    assert ">140<" in page


def test_a_long_text_is_cut(run):
    """A document of 5,000 characters is shown by its first 999."""
    text = pages.read(shown(run, pd.DataFrame({"text": ["z" * 5000]})))[1]
    assert text.count("z") == tables.MOST_CHARS - 1


def test_numbers_stand_right_and_words_left(run):
    """Truth values are words."""
    page = shown(run, pd.DataFrame({"n": [1], "is_new": [True], "word": ["a"]}))
    assert page.count("text-align:right") == 2
    assert page.count("text-align:left") == 1 + 4


def test_the_bar_is_one_output_that_changes(run):
    """Its text is escaped and plain."""
    progress = Progress("waiting", 5, 3, 1, 1, 0, 0.0, 0.0, ("<b>why</b>\x1b[31m",))
    bar = tables.progress_bar(5)
    with displays.caught() as outputs:
        bar(progress)
        bar(progress)
    first, second = (output.data["text/html"] for output in outputs)
    assert first == second
    assert '<progress max="5" value="3">' in first
    assert html.escape("<b>why</b>") in first
    assert "\x1b" not in first
