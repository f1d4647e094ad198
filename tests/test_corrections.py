"""Corrections: people's changes to the consensus, checked, applied and flagged."""

import making
import pandas as pd
import pytest

from lib import consensus, corrections
from lib.errors import StudyError

STUDY = making.study(
    {
        "relevant": making.field("boolean"),
        "mood": making.field(when="relevant"),
        "people": making.field("entities"),
    }
)
HEADER = "item,field,original,corrected,reason,who,date\n"
CHANGE = "r1,mood,angry,calm,a joke,Ann,2026-11-22\n"
WHY = ",misread,Ann,2026-11-22\n"


def decided():
    """r1 is relevant, angry and names Kay; r2 is not relevant; nobody answered on r3."""
    answers = {}
    for item, (relevant, mood, people) in {
        "r1": ("true", "angry", '["kay"]'),
        "r2": ("false", "n/a", "[]"),
        "r3": (None, None, None),
    }.items():
        answers[item, "relevant"] = dict.fromkeys("abc", relevant)
        answers[item, "mood"] = dict.fromkeys("abc", mood)
        answers[item, "people"] = dict.fromkeys("abc", people)
    return consensus.decide(making.votes(STUDY, answers), STUDY)


def read(folder, text):
    """The corrections of a file with this text below the header."""
    path = folder / "corrections.csv"
    path.write_text(HEADER + text)
    return corrections.read(path, STUDY, ["r1", "r2", "r3"])


def applied(folder, text):
    """The consensus after these corrections, by item and field."""
    return corrections.apply(decided(), read(folder, text), STUDY).set_index(["item", "field"])


def test_a_change_is_applied_and_flagged(tmp_path):
    """Only the corrected row changes, and it says so."""
    table = applied(tmp_path, CHANGE)
    assert table.loc[("r1", "mood"), "value"] == "calm"
    assert table.index[table["corrected"]].tolist() == [("r1", "mood")]


def test_what_was_not_decided_can_be_decided(tmp_path):
    """An empty original says that the votes decided nothing."""
    table = applied(tmp_path, "r3,relevant,,false" + WHY)
    assert table.loc[("r3", "relevant"), ["value", "status"]].tolist() == ["false", "decided"]


def test_a_field_goes_with_its_condition(tmp_path):
    """An item that is not relevant after all has no mood; both rows are flagged."""
    table = applied(tmp_path, "r1,relevant,true,false" + WHY)
    assert table.loc[("r1", "mood"), "status"] == "not_applicable"
    assert pd.isna(table.loc[("r1", "mood"), "value"])
    assert table.index[table["corrected"]].tolist() == [("r1", "relevant"), ("r1", "mood")]


def test_a_condition_that_becomes_true_needs_its_fields(tmp_path):
    """Relevant after all: the mood must be said as well, in any order of rows."""
    with pytest.raises(StudyError, match="r2 becomes relevant, and nothing says its mood"):
        applied(tmp_path, "r2,relevant,false,true" + WHY)
    table = applied(tmp_path, "r2,mood,,calm" + WHY + "r2,relevant,false,true" + WHY)
    assert table.loc[("r2", "mood"), ["value", "status"]].tolist() == ["calm", "decided"]


def test_entity_lists_are_corrected_whole(tmp_path):
    """A JSON array of names, normalised like the votes."""
    table = applied(tmp_path, 'r1,people,"[""Kay""]","[""Arthur"", ""Kay""]"' + WHY)
    assert table.loc[("r1", "people"), "value"] == '["arthur","kay"]'


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("r1,mood,mixed,calm" + WHY, 2, "original is 'mixed', and the consensus says 'angry'"),
        ("r1,mood,,calm" + WHY, 2, "original is '', and the consensus says 'angry'"),
        ("r3,relevant,true,false" + WHY, 2, "the consensus says 'nothing'"),
        ("r2,mood,,calm" + WHY, 2, "mood does not apply to r2, where relevant is not true"),
        (
            "r1,relevant,true,false" + WHY + "r1,mood,angry,calm" + WHY,
            3,
            "mood does not apply to r1",
        ),
        (CHANGE + CHANGE, 3, "mood of r1 is corrected on line 2 too"),
        ("r1,mood,angry,angry" + WHY, 2, "original and corrected are both 'angry'"),
        ("r1,mood,angry,clam" + WHY, 2, 'Did you mean "calm"?'),
        ("r1,mood,angry," + WHY, 2, "no value for mood"),
        ("r9,mood,angry,calm" + WHY, 2, "no item 'r9'"),
        ("r1,moods,angry,calm" + WHY, 2, 'Did you mean "mood"?'),
        ("r1,mood,angry,calm,,Ann,2026-11-22\n", 2, "reason is empty"),
        ("r1,mood,angry,calm,joke,,2026-11-22\n", 2, "who is empty"),
        ("r1,mood,angry,calm,joke,Ann,22.11.2026\n", 2, "the date '22.11.2026' is not of the form"),
        ("r1,people,[],Kay" + WHY, 2, "not a JSON array of names"),
        ('r1,people,[],"[1]"' + WHY, 2, "not a JSON array of names"),
        ("r1,mood,angry,calm\n", 2, "4 cells, and the header has 7"),
    ],
)
def test_changes_that_cannot_be_made(tmp_path, text, line, words):
    """A change of something that the consensus does not say, or that is not whole, is refused."""
    with pytest.raises(StudyError) as raised:
        applied(tmp_path, text)
    assert words in str(raised.value)
    assert raised.value.line == line
