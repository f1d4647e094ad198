"""Labels: filled sheets and Label Studio exports, with each kind of mistake and its line."""

import json

import making
import pandas as pd
import pytest

from lib import gold
from lib.errors import StudyError
from lib.gold import labels, labelstudio

FIELDS = {
    "relevant": making.field("boolean"),
    "mood": making.field(when="relevant"),
    "age": making.field("integer", minimum=0),
    "people": making.field("entities"),
    "note": making.field("text"),
}
STUDY = making.study(FIELDS)
TEXTS = {"r1": "1" * 64, "r2": "2" * 64, "r3": "3" * 64}
SAMPLE = pd.DataFrame({"item": ["r1", "r2"], "sha256": [TEXTS["r1"], TEXTS["r2"]]})
WIDE = """\
item,text,relevant,mood,age,people,who
# allowed,-,true | false,calm,integer,one name a line,
r1,"A text, with
two lines",TRUE, Angry ,30.0,"King Mark
Kay; Isolde",ann
r2,Another,false,,,-,ann
r3,A third,,,,,
"""
LONG = """\
item,field,value
r1,relevant,true
r1,mood,angry
r1,people,King Mark
r1,people,Kay
r2,relevant,false
r2,people,
"""


def read(folder, text, name="sheet_1.csv", sample=SAMPLE):
    """The labels of a file with this text."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return labels.read(path, STUDY, TEXTS, sample)


def rows(found):
    """Item, field and value of each label."""
    return found.table[gold.COLUMNS].to_numpy().tolist()


SAID = [
    ["r1", "relevant", "true"],
    ["r1", "mood", "angry"],
    ["r1", "age", "30"],
    ["r1", "people", "King Mark"],
    ["r1", "people", "Kay"],
    ["r1", "people", "Isolde"],
    ["r2", "relevant", "false"],
    ["r2", "people", ""],
]


def test_a_filled_sheet(tmp_path):
    """Cells become labels: names one a line or by semicolons, a dash is none, empty is unlabelled.

    Left are age of r2, and relevant, age and people of r3; mood waits for relevant.
    """
    found = read(tmp_path, WIDE)
    assert rows(found) == SAID
    assert (found.n_items, found.n_empty, found.undrawn) == (3, 4, [])
    assert found.table["who"].eq("ann").all()


def test_a_list_of_labels(tmp_path):
    """Rows of item, field and value, as gold.csv has them; an empty name is an empty list."""
    found = read(tmp_path, LONG)
    assert rows(found) == [one for one in SAID if one[1] != "age" and one[2] != "Isolde"]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_spreadsheets_do_to_a_file(tmp_path, ends, mark):
    """A byte order mark and each kind of line end change nothing."""
    assert rows(read(tmp_path, mark + WIDE.replace("\n", ends))) == SAID


def test_empty_columns_of_spreadsheets_are_nothing(tmp_path):
    """They have no name and no cell; what stands in one is lost nowhere."""
    wide = "item,relevant,,\nr1,true,,\n"
    assert rows(read(tmp_path, wide)) == [["r1", "relevant", "true"]]
    with pytest.raises(StudyError, match="line 2: 'Kay' stands in a column without a name"):
        read(tmp_path, wide.replace("true,,", "true,,Kay"))


def test_guarded_cells_are_unguarded(tmp_path):
    """The apostrophe that keeps a spreadsheet from running a name is taken off again."""
    found = read(tmp_path, "item,field,value\nr1,people,'=SUM(A1)\nr1,people,'tis\n")
    assert [value for *_, value in rows(found)] == ["=SUM(A1)", "'tis"]


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("r2,Another", "r22,Another"), 6, "no item 'r22' in this run. Did you mean \"r2\"?"),
        (("TRUE", "yes"), 3, "relevant never has the value 'yes'. Allowed: true, false."),
        ((" Angry ", "angr"), 3, "mood never has the value 'angr'. Did you mean \"angry\"?"),
        (("30.0", "-1"), 3, "age never has the value '-1'"),
        (("r2,Another,false,", "r2,Another,false,calm"), 6, "mood does not apply to r2: its gold"),
        (("r3,A third,,,,,", "r1,A text,false,,,,ben"), 7, "of r1 is 'true' on line 3, by"),
        (("r3,A third,,,,,", "r1,A text,,,,Kay,"), 7, "'King Mark, Kay, Isolde' on line 3, by ann"),
        (("mood,age", "moood,age"), 1, "the column 'moood' is no field. Did you mean \"mood\"?"),
        (("item,text", "text,text"), 1, "the column 'item' is not there"),
        (("mood,age", "mood,mood"), 1, "the column 'mood' is more than once there"),
        (("r3,A third,,,,,", "r3,A third,,,,"), 7, "6 cells, and the header has 7. Quote commas."),
        (("King Mark", "King\x01Mark"), 3, "control character"),
        (("King Mark", "King\x00Mark"), 3, "control character"),
        (('"A text', '"A "text'), 3, "not valid CSV"),
        ((WIDE, ""), 1, "the file is empty"),
        ((WIDE, WIDE.splitlines()[0]), 1, "no labels in it yet"),
        ((WIDE, "item,text,relevant\nr1,A text,\n"), 1, "no labels in it yet"),
        ((WIDE, "item,text\nr1,A text\n"), 1, "no column of a field. Expected item and relevant"),
        ((WIDE, "item;relevant\nr1;true\n"), 1, "Separate cells with commas"),
        ((WIDE, "item,field,value\nr1,moood,calm\n"), 2, "no field 'moood'. Did you mean"),
        ((WIDE, "item,field,value\nr1,mood,calm\nr1,mood,angry\n"), 2, "2 values: calm, angry."),
        ((WIDE, "item,field,value\nr1,people,\nr1,people,Kay\n"), 2, "an empty name beside others"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_line(tmp_path, change, line, words):
    """Whatever cannot be a label is refused, with what would be right."""
    with pytest.raises(StudyError) as raised:
        read(tmp_path, WIDE.replace(*change))
    assert words in str(raised.value)
    assert raised.value.line == line


def test_all_mistakes_are_named_at_once(tmp_path):
    """Three wrong cells: three lines, and nothing is taken; an item that is wrong is named once."""
    text = WIDE.replace("TRUE", "yes").replace("30.0", "old").replace("r2,", "r9,")
    with pytest.raises(StudyError) as raised:
        read(tmp_path, text)
    said = str(raised.value).splitlines()
    assert said[0] == "3 mistakes, and no label was taken:"
    assert all(word in line for word, line in zip(["yes", "old", "r9"], said[1:], strict=True))


def test_files_that_are_no_text(tmp_path):
    """Another encoding is named with its line."""
    with pytest.raises(StudyError, match="line 1: not UTF-8"):
        read(tmp_path, WIDE.encode("utf-16"))
    with pytest.raises(StudyError, match="line 4: not UTF-8"):
        read(tmp_path, WIDE.replace("two", "zw\xf6lf").encode("latin-1"))


def test_a_text_that_is_another_one_now(tmp_path):
    """The digest of the drawn text decides, not the text in the sheet."""
    stale = SAMPLE.assign(sha256=["9" * 64, TEXTS["r2"]])
    with pytest.raises(
        StudyError, match="the text of r1 is another one now than when it was drawn"
    ):
        read(tmp_path, WIDE, sample=stale)


def test_items_that_nobody_drew_are_told(tmp_path):
    """Their labels are taken, and they are no part of the random sample."""
    assert read(tmp_path, WIDE, sample=SAMPLE.tail(1)).undrawn == ["r1"]
    assert read(tmp_path, WIDE, sample=None).undrawn == ["r1", "r2"]


def export(*annotations, item="r1", sha256=TEXTS["r1"]):
    """A Label Studio export of one task; each annotation is a list of marks."""
    text = "King Mark met Kay."
    results = [
        [labelstudio.result(mark, FIELDS_READ[mark.field], text) for mark in marks]
        for marks in annotations
    ]
    given = [
        {"id": n, "completed_by": f"p{n}", "result": result} for n, result in enumerate(results)
    ]
    data = {"item": item, "sha256": sha256, "text": text}
    return json.dumps([{"id": 1, "data": data, "annotations": given}], indent=1)


FIELDS_READ = STUDY.fields
MARKS = [
    labelstudio.Mark("relevant", "true"),
    labelstudio.Mark("mood", "calm"),
    labelstudio.Mark("age", "30"),
    labelstudio.Mark("people", "King Mark", 0, 9),
    labelstudio.Mark("people", "Kay", 14, 17),
]


def test_label_studio_round_trip(tmp_path):
    """What the interface gives becomes the same labels as a sheet gives."""
    found = read(tmp_path, export(MARKS), "export.json")
    assert rows(found) == [
        ["r1", "relevant", "true"],
        ["r1", "mood", "calm"],
        ["r1", "age", "30"],
        ["r1", "people", "King Mark"],
        ["r1", "people", "Kay"],
    ]
    assert found.n_empty == 0


def test_an_item_without_any_span_has_no_name(tmp_path):
    """An annotation that was submitted says so by its silence."""
    assert ["r1", "people", ""] in rows(read(tmp_path, export(MARKS[:1]), "export.json"))


def test_two_people_who_say_the_same_are_one_label(tmp_path):
    """The order of names does not matter."""
    found = read(tmp_path, export(MARKS, [*MARKS[:3], *reversed(MARKS[3:])]), "export.json")
    assert len(found.table) == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (export(MARKS, [MARKS[0], labelstudio.Mark("mood", "angry")]), "and 'angry' here, by p1"),
        (export(MARKS, MARKS[:4]), "'King Mark, Kay' on line 2, by p0, and 'King Mark'"),
        (export(MARKS, item="r9"), "no item 'r9' in this run"),
        (export(MARKS, sha256="9" * 64), "the text of r1 is another one now"),
        (export([labelstudio.Mark("mood", "sad")]), "mood never has the value 'sad'"),
        (export(MARKS).replace('"from_name": "mood"', '"from_name": "moood"'), 'mean "mood"'),
        (export([labelstudio.Mark("relevant", "false"), MARKS[1]]), "mood does not apply to r1"),
    ],
)  # fmt: skip
def test_labels_of_label_studio_that_cannot_be(tmp_path, text, words):
    """Each names the line on which its task begins."""
    with pytest.raises(StudyError) as raised:
        read(tmp_path, text, "export.json")
    assert words in str(raised.value)
    assert raised.value.line == 2


def gold_rows(text, folder):
    """The rows of a gold.csv with this text."""
    path = folder / "gold.csv"
    path.write_text(text, encoding="utf-8")
    return path, gold.read(path, STUDY, TEXTS)


def test_only_new_labels_are_added(tmp_path):
    """Gold has the moods already: the rest is new, and names count as a list."""
    path, there = gold_rows("item,field,value\nr1,mood,angry\nr1,people,kay\nr1,people,KING MARK\n",
                            tmp_path)  # fmt: skip
    fresh = labels.new(read(tmp_path, LONG).table, there, path, STUDY)
    assert rows(labels.Labels(fresh, 0, 0, [])) == [
        ["r1", "relevant", "true"],
        ["r2", "relevant", "false"],
        ["r2", "people", ""],
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("r1,mood,calm", "mood of r1 is 'calm' on line 2 of gold.csv, and 'angry' here"),
        ("r1,people,Kay", "people of r1 is 'Kay' on line 2 of gold.csv, and 'King Mark, Kay' here"),
        ("r2,people,Kay", "people of r2 is 'Kay' on line 2 of gold.csv, and '' here"),
        ("r2,mood,calm", "mood does not apply to r2: its gold says relevant false"),
    ],
)
def test_labels_against_gold(tmp_path, row, words):
    """What gold says otherwise is settled by people, never by which file came last."""
    path, there = gold_rows(f"item,field,value\n{row}\n", tmp_path)
    with pytest.raises(StudyError) as raised:
        labels.new(read(tmp_path, LONG).table, there, path, STUDY)
    assert words in str(raised.value)
