"""Corrections: people's changes to the consensus, checked, applied and flagged."""

import datetime
import json
import re

import making
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
TODAY = datetime.date(2026, 11, 22)
TEXTS = {"r1": "sha-1", "r2": "sha-2", "r3": "sha-3"}


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


def read(folder, text, header=HEADER):
    """The corrections of a file with this text below the header."""
    path = folder / "corrections.csv"
    path.write_text(header + text, encoding="utf-8")
    return corrections.read(path, STUDY, TEXTS, TODAY)


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
        ("r1,mood,angry,calm,joke,Ann,11/22/2026\n", 2, "the date '11/22/2026' is not of the form"),
        ("r1,mood,angry,calm,joke,Ann,20261122\n", 2, "the date '20261122' is not of the form"),
        ("r1,mood,angry,calm,joke,Ann,46348\n", 2, "the date '46348' is not of the form"),
        ("r1,mood,angry,calm,joke,Ann,2026-11-24\n", 2, "the date 2026-11-24 is still to come"),
        ("r1,people,[],Kay" + WHY, 2, 'not a JSON array of names such as ["Kay"]'),
        ("r1,people,[],Kay; Boyd" + WHY, 2, 'such as ["Kay", "Boyd"]. A list without names is []'),
        ("r1,people,[],“Kay”" + WHY, 2, 'such as ["Kay"]'),
        ('r1,people,[],"{""a"": 1}"' + WHY, 2, "not a JSON array of names"),
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


def lines(told):
    """The lines that an error names, in its order."""
    return [int(line) for line in re.findall(r"corrections\.csv, line (\d+): ", str(told))]


def test_every_mistake_is_named(tmp_path):
    """Whatever is wrong with whichever row, at once and in the order of lines."""
    text = "r1,mood,angry,clam,,,2026-11-24\n"  # three mistakes in one row
    text += "r9,mood,angry,calm" + WHY
    text += "r1,relevant,true\n"
    text += "r3,relevant,,false" + WHY
    text += "r3,relevant,,true" + WHY
    with pytest.raises(StudyError, match="6 mistakes, and no change was taken:") as raised:
        applied(tmp_path, text)
    assert lines(raised.value) == [2, 2, 2, 3, 4, 6]
    assert "reason and who are empty" in str(raised.value)


def test_every_stale_change_is_named(tmp_path):
    """Together with conditions and fields that do not fit."""
    text = "r1,mood,mixed,calm" + WHY + "r1,relevant,false,true" + WHY
    text += "r2,relevant,false,true" + WHY
    with pytest.raises(StudyError, match="3 mistakes") as raised:
        applied(tmp_path, text)
    assert lines(raised.value) == [2, 3, 4]


def test_twenty_mistakes_are_shown(tmp_path):
    """The others are counted."""
    with pytest.raises(StudyError, match=r"(?s)300 mistakes.*\nand 280 more\.$") as raised:
        read(tmp_path, "".join(f"r1,mood,angry,no {n}{WHY}" for n in range(300)))
    assert lines(raised.value) == list(range(2, 22))


def test_changes_of_items_without_a_consensus_wait(tmp_path):
    """A run that does not ask about r2 leaves its correction alone."""
    changes = read(tmp_path, CHANGE + "r2,relevant,false,true" + WHY)
    asked = decided().query("item != 'r2'")
    table = corrections.apply(asked, changes, STUDY)
    assert table["item"].nunique() == 2
    assert table["corrected"].sum() == 1


def test_a_correction_of_another_text_is_stale(tmp_path):
    """A file with the SHA-256 of the texts notices that one has changed; without it, it cannot."""
    header = HEADER.strip() + ",sha256\n"
    assert len(read(tmp_path, CHANGE.strip() + ",sha-1\n", header)) == 1
    assert len(read(tmp_path, CHANGE.strip() + ",\n", header)) == 1
    with pytest.raises(StudyError, match="line 2: the text of r1 is another one"):
        read(tmp_path, CHANGE.strip() + ",sha-0\n", header)


def test_guards_of_spreadsheets_are_taken_off(tmp_path):
    """'=joke was =joke before a spreadsheet could run it."""
    table = read(tmp_path, "r1,mood,angry,calm,'=a joke,'@Ann,2026-11-22\n")
    assert table.loc[0, ["reason", "who"]].tolist() == ["=a joke", "@Ann"]


def test_the_mean_of_a_whole_number_can_be_corrected(tmp_path):
    """The votes 3 and 4 average to 3.5, which no vote could say and a correction can replace."""
    study = making.study({"age": making.field("integer")})
    votes = making.votes(study, {("r1", "age"): {"a": "3", "b": "4", "c": None}})
    path = tmp_path / "corrections.csv"
    path.write_text(HEADER + "r1,age,3.50,4" + WHY)
    changes = corrections.read(path, study, {"r1": "-"}, TODAY)
    assert corrections.apply(consensus.decide(votes, study), changes, study)["value"].item() == "4"


def names():
    """Kay is elected on r1, Boyd is not; nobody is named on r2."""
    rows = [("r1", "kay", "Kay", 1.0, 3, True), ("r1", "boyd", "Boyd", 0.2, 1, False)]
    table = pd.DataFrame(rows, columns=["item", "key", "name", "share", "n_votes", "elected"])
    table = table.assign(field="people", attributes="{}", simulated=True, n_places=1)
    return table.assign(lost_to=pd.Series([None, None], dtype="string"))


def test_corrected_lists_change_the_elected_names(tmp_path):
    """Kay goes, Boyd comes, and Arthur whom nobody named gets a row, as he is written."""
    text = 'r1,people,"[""Kay""]","[""King  Arthur"", ""boyd""]"' + WHY
    changes = read(tmp_path, text)
    decided_now = corrections.apply(decided(), changes, STUDY)
    table = corrections.apply_to_names(names(), decided_now, changes, STUDY)
    assert table.set_index("name")["elected"].to_dict() == {
        "Kay": False,
        "Boyd": True,
        "King Arthur": True,
    }
    assert table["corrected"].all()
    added = table[table["key"].eq("king arthur")].iloc[0]
    assert (added["n_votes"], added["share"], added["simulated"]) == (0, 0, False)
    assert added[["n_places", "lost_to"]].isna().all()
    assert table["lost_to"].dtype == "string"
    index = pd.DataFrame({"field": ["people"] * 2, "key": ["boyd", "gawain"]})
    assert corrections.flagged(index, table)["corrected"].tolist() == [True, False]
    again = corrections.apply_to_names(table, decided_now, changes, STUDY)
    pd.testing.assert_frame_equal(again, table)


def test_names_without_corrections_stay(tmp_path):
    """No list is corrected: nothing changes, and nothing is flagged."""
    changes = read(tmp_path, CHANGE)
    table = corrections.apply_to_names(
        names(), corrections.apply(decided(), changes, STUDY), changes, STUDY
    )
    assert table["elected"].tolist() == [True, False]
    assert not table["corrected"].any()


ALL = [
    "r1,mood,angry,calm" + WHY,
    'r1,people,"[""Kay""]","[""Boyd""]"' + WHY,
    "r2,relevant,false,true" + WHY,
    "r2,mood,,mixed" + WHY,
    "r3,relevant,,false" + WHY,
]


@settings(max_examples=6)
@given(st.permutations(ALL))
def test_the_order_of_corrections_does_not_matter(tmp_path_factory, lines):
    """And twice is once."""
    folder = tmp_path_factory.mktemp("corrections")
    once = corrections.apply(decided(), read(folder, "".join(ALL)), STUDY)
    changes = read(folder, "".join(lines))
    other = corrections.apply(decided(), changes, STUDY)
    pd.testing.assert_frame_equal(other, once)
    pd.testing.assert_frame_equal(corrections.apply(other, changes, STUDY), once)


WORDS = (
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool)
)
FORMULAS = st.sampled_from(["=1+1", "'=1", "-x", "@who", "+", "a,b", 'say "x"', "two\r\nlines"])


@given(st.lists(st.tuples(WORDS | FORMULAS, WORDS | FORMULAS), min_size=1, max_size=3), st.data())
def test_what_is_written_is_read(tmp_path_factory, said, data):
    """Reasons and people come back letter for letter, in one step or row by row."""
    path = tmp_path_factory.mktemp("corrections") / "corrections.csv"
    places = [("r1", "mood", "angry", "calm"), ("r1", "people", '["kay"]', '["boyd"]')]
    places += [("r3", "relevant", "", "false")]
    rows = [
        dict(zip(corrections.COLUMNS, (*place, *who, "2026-11-22"), strict=True))
        for place, who in zip(places, said, strict=False)
    ]
    changes = pd.DataFrame(rows).assign(written=lambda table: table["corrected"], sha256="sha-1")
    changes["sha256"] = changes["item"].map(TEXTS)
    if data.draw(st.booleans()):
        corrections.append(path, changes)
    else:
        for n in range(len(changes)):
            corrections.append(path, changes[n : n + 1])
    table = corrections.read(path, STUDY, TEXTS, TODAY)
    columns = [*corrections.COLUMNS, "sha256"]
    assert table[columns].to_dict("records") == changes[columns].to_dict("records")


def test_appending_keeps_what_people_wrote(tmp_path):
    """A file of an older form gets the column sha256; its own columns and rows stay."""
    path = tmp_path / "corrections.csv"
    path.write_text(HEADER.strip() + ",note\n" + CHANGE.strip() + ",mine\n")
    rows = read(tmp_path, "r3,relevant,,false" + WHY).assign(sha256="sha-3")
    path.write_text(HEADER.strip() + ",note\n" + CHANGE.strip() + ",mine\n")
    corrections.append(path, rows)
    table = pd.read_csv(path, keep_default_na=False)
    assert list(table) == [*corrections.COLUMNS, "note", "sha256"]
    assert table[["item", "note", "sha256"]].to_numpy().tolist() == [
        ["r1", "mine", ""],
        ["r3", "", "sha-3"],
    ]


def test_names_keep_their_spelling_in_the_file(tmp_path):
    """The file has the list as the person wrote it, and reading it gives the keys."""
    changes = read(tmp_path, 'r1,people,"[""Kay""]","[""King  Arthur""]"' + WHY)
    path = tmp_path / "new.csv"
    corrections.append(path, changes)
    assert json.loads(pd.read_csv(path)["corrected"].item()) == ["King  Arthur"]
    assert corrections.read(path, STUDY, TEXTS, TODAY)["corrected"].item() == '["king arthur"]'
