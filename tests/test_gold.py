"""Gold: files with each kind of mistake, and accuracies worked by hand."""

import re

import making
import pandas as pd
import pytest

from lib import consensus, gold
from lib.errors import StudyError

FIELDS = {
    "relevant": making.field("boolean"),
    "mood": making.field(when="relevant"),
    "age": making.field("integer", minimum=0),
    "people": making.field("entities"),
}
STUDY = making.study(FIELDS)
ITEMS = ["r1", "r2", "r3"]
GOOD = """\
item,field,value,note
r1,relevant,TRUE,a spreadsheet wrote this
r1,mood, Angry ,
r1,people,King Mark,
r1,people,Kay,

r2,relevant,false,"one, two"
r2,people,,
r3,age,30.0,
"""


def read(folder, text):
    """The gold of a file with this text."""
    path = folder / "gold.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return gold.read(path, STUDY, ITEMS)


def test_values_are_those_of_votes(tmp_path):
    """Case, space and number form are normalised; names stay; other columns are left alone."""
    table = read(tmp_path, GOOD)
    assert table.to_numpy().tolist() == [
        ["r1", "relevant", "true", 2],
        ["r1", "mood", "angry", 3],
        ["r1", "people", "King Mark", 4],
        ["r1", "people", "Kay", 5],
        ["r2", "relevant", "false", 7],
        ["r2", "people", "", 8],
        ["r3", "age", "30", 9],
    ]


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (
            ("value,note", "valeu,note"),
            1,
            "the column 'value' is not there. Did you mean \"valeu\"?",
        ),
        (("value,note", "value,value"), 1, "the column 'value' is more than once there"),
        ((GOOD, "item;field;value\n"), 1, "Separate cells with commas"),
        ((GOOD, ""), 1, "the file is empty"),
        ((GOOD, "item,field,value\n"), 1, "no labels below the header"),
        (("r3,age", "r33,age"), 9, "no item 'r33' in this run. Did you mean \"r3\"?"),
        (("r1,mood", "r1,moood"), 3, "no field 'moood'. Did you mean \"mood\"?"),
        ((" Angry ", "angr"), 3, "never has the value 'angr'. Did you mean \"angry\"?"),
        ((" Angry ", ""), 3, "no value for mood. Allowed: calm, angry, mixed."),
        (("30.0", "-1"), 9, "age never has the value '-1'. Allowed: any integer."),
        (("r3,age,30.0,", "r3,age,30.0"), 9, "3 cells, and the header has 4. Quote commas."),
        (("r3,age,30.0", "r1,mood,calm"), 9, "mood of r1 is 'angry' on line 3 and 'calm' here"),
        (("r3,age,30.0", "r1,mood,angry"), 9, "'angry' on line 3 and 'angry' here. Keep one."),
        (("r3,age,30.0", "r1,people,KAY"), 9, "people of r1 is 'Kay' on line 5 and 'KAY' here"),
        (("r3,age,30.0", "r1,people,"), 9, "people of r1 is 'King Mark' on line 4 and '' here"),
        (("r3,age,30.0", "r2,people,Kay"), 9, "people of r2 is '' on line 8 and 'Kay' here"),
        (("r3,age,30.0", "r3,people,..."), 9, "people has the name '...', without any letter"),
        (
            ("r3,age,30.0", "r2,mood,calm"),
            9,
            "mood does not apply to r2: its gold says relevant fal",
        ),
        (('"one, two"', '"one, two'), 7, "not valid CSV"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, change, line, words):
    """Whatever cannot be a label of this run is refused with its line."""
    with pytest.raises(StudyError) as raised:
        read(tmp_path, GOOD.replace(*change))
    assert words in str(raised.value)
    assert raised.value.line == line


def test_all_mistakes_are_named(tmp_path):
    """In the order of lines: rows, values, and what two rows say of one place."""
    text = GOOD.replace("30.0", "old").replace(" Angry ", "angr")
    with pytest.raises(StudyError, match="4 mistakes:") as raised:
        read(tmp_path, f"{text}r3,age\nr2,mood,calm,\n")
    assert re.findall(r"line (\d+): ", str(raised.value)) == ["3", "9", "10", "11"]


def test_files_that_are_no_text(tmp_path):
    """A missing file, a folder and another encoding are named; a byte order mark is nothing."""
    with pytest.raises(StudyError, match="cannot be read"):
        gold.read(tmp_path, STUDY, ITEMS)
    with pytest.raises(StudyError, match="no such file"):
        gold.read(tmp_path / "none.csv", STUDY, ITEMS)
    with pytest.raises(StudyError, match="not UTF-8"):
        read(tmp_path, GOOD.encode("utf-16"))
    assert len(read(tmp_path, "\ufeff" + GOOD)) == 7


def measured():
    """Four items: a is right on 3, b on 2, c on 1 and missing once; the panel on 2 of 3."""
    study = making.study()
    said = {"a": "calm calm calm angry", "b": "calm calm angry angry", "c": "calm angry mixed -"}
    answers = {
        (f"r{n}", "mood"): {
            name: values.split()[n].replace("-", "") or None for name, values in said.items()
        }
        for n in range(4)
    }
    votes = making.votes(study, answers)
    true = pd.DataFrame({"item": [f"r{n}" for n in range(4)], "field": "mood", "value": "calm"})
    return gold.accuracy(votes, consensus.decide(votes, study), true, study)


def test_accuracy_side_by_side():
    """Each on the items it decided: the panel ties on r2, and c is silent on r3."""
    table = measured()
    table = table[table["field"].eq("mood")].set_index("who")
    assert table[["n_gold", "n", "n_right"]].T.to_dict("list") == {
        "panel": [4, 3, 2],
        "a": [4, 4, 3],
        "b": [4, 4, 2],
        "c": [4, 3, 1],
    }
    assert table.loc["a", ["accuracy", "low", "high"]].tolist() == pytest.approx(
        [0.75, 0.301, 0.954], abs=1e-3
    )
    assert table.loc["a", "model"] == "m-a"
    assert pd.isna(table.loc["panel", "model"])


def test_the_sentence_compares_what_all_decided():
    """The panel leaves r2 open and c is silent on r3: on r0 and r1 panel and a are both right."""
    said = gold.sentence(measured())
    assert said.startswith("On the 2 labels that all decided, the panel is right on 2 (1.00, ")
    assert said.endswith(
        ": the panel does not beat its best member. The panel has no value for 1 of 4 labels. "
        "At least 100 labels are recommended."
    )


@pytest.mark.parametrize(
    ("panel", "member", "end"),
    [
        (95, 60, ": the panel beats its best member."),
        (65, 60, ": the panel is not shown to beat its best member."),
        (60, 60, ": the panel does not beat its best member."),
    ],
)
def test_a_lead_must_show(panel, member, end):
    """A lead inside the intervals proves nothing, and the sentence says so; 100 common labels."""
    rows = [
        {"who": who, "field": "all", "n_gold": 120, "n": 110, "n_common": 100, "n_right_common": n}
        for who, n in (("panel", panel), ("a", member))
    ]
    said = gold.sentence(pd.DataFrame(rows))
    assert said.endswith(f"{end} The panel has no value for 10 of 120 labels.")


def test_repeats_vote_among_themselves_first():
    """Luna's repeats say calm, calm, angry: luna alone says calm, one label and not three."""
    study = making.study(annotators={"terra": ("m", 1, 1.0), "luna": ("m", 3, 1.0)})
    votes = making.votes(
        study, {("r1", "mood"): {"terra": "angry", "luna": ["calm", "calm", "angry"]}}
    )
    true = pd.DataFrame({"item": ["r1"], "field": "mood", "value": "calm"})
    table = gold.accuracy(votes, consensus.decide(votes, study), true, study)
    luna = table[table["who"].eq("luna") & table["field"].eq("all")].iloc[0]
    assert (luna["n"], luna["n_right"]) == (1, 1)


@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"),
    [(45, 50, 0.79, 0.96), (90, 100, 0.83, 0.94), (180, 200, 0.85, 0.93), (360, 400, 0.87, 0.93),
     (4, 4, 0.51, 1.0), (0, 4, 0.0, 0.49)],
)  # fmt: skip
def test_wilson_intervals(n_right, n, low, high):
    """Published intervals of a share."""
    assert gold.wilson(n_right, n) == pytest.approx((low, high), abs=0.006)


def test_nothing_to_compare():
    """Gold on items that nobody decided gives a plain sentence and no number."""
    study = making.study()
    votes = making.votes(study, {("r1", "mood"): {}})
    true = pd.DataFrame({"item": ["r1"], "field": "mood", "value": "calm"})
    table = gold.accuracy(votes, consensus.decide(votes, study), true, study)
    assert table["n"].eq(0).all()
    assert "cannot be compared" in gold.sentence(table)


def test_weights_make_good_how_items_were_drawn():
    """a is right on r0, r1 and r3 and wrong on r2, which stands for as many items as the others
    together: .5 and not .75. The effective number is (1 + 1 + 3 + 1)^2 / (1 + 1 + 9 + 1) = 3.
    """
    study = making.study()
    answers = {
        (f"r{n}", "mood"): dict.fromkeys("abc", "angry" if n == 2 else "calm") for n in range(4)
    }
    votes = making.votes(study, answers)
    true = pd.DataFrame({"item": [f"r{n}" for n in range(4)], "field": "mood", "value": "calm"})
    decided = consensus.decide(votes, study)
    table = gold.accuracy(votes, decided, true.assign(weight=[1.0, 1.0, 3.0, 1.0]), study)
    row = table[table["who"].eq("a") & table["field"].eq("mood")].iloc[0]
    assert (row["n"], row["n_right"], row["accuracy"]) == (4, 3, 0.5)
    assert row["n_effective"] == pytest.approx(3)
    assert (row["low"], row["high"]) == pytest.approx(gold.wilson(1.5, 3))
    assert "weighted by the chances" in gold.sentence(table)


def test_few_labels_are_told():
    """Four labels: the sentence recommends 100; with 120 it does not."""
    assert gold.sentence(measured()).endswith("At least 100 labels are recommended.")


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_ends_are_nothing(tmp_path, ends):
    """Each kind of line end gives the same labels."""
    assert len(read(tmp_path, GOOD.replace("\n", ends))) == 7


def test_guarded_cells_are_unguarded(tmp_path):
    """The apostrophe that keeps a spreadsheet from running a name is no part of it."""
    table = read(tmp_path, "item,field,value\nr1,people,'=SUM(A1)\nr1,people,'tis\n")
    assert table["value"].tolist() == ["=SUM(A1)", "'tis"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("item,field,value\nr1,people,Kay\x00\n", 2, "control character"),
        ("item,field,value\nr1,people,Kay\x1b[31m\n", 2, "control character"),
        ("item,field,value,note,note\nr1,mood,calm,,\n", 1, "the column 'note' is more than once"),
        ("item\tfield\tvalue\nr1\tmood\tcalm\n", 1, "Separate cells with commas"),
        ('item,field,value\nr1,people,"Kay" the Tall\n', 2, "not valid CSV"),
        ("item,field,value\nr1,mood,zornig\xf6".encode("latin-1"), 2, "not UTF-8"),
        ("item,field,value\n\n\nr1,mood,no\n", 4, "mood never has the value 'no'"),
        ("item,field,value\nr1,mood,calm\n".encode("utf-16-le"), 1, "not UTF-8 text but UTF-16"),
        (b"PK\x03\x04 and so on", 1, "this is a workbook and no text"),
        (b"\xd0\xcf\x11\xe0 and so on", 1, "this is a workbook and no text"),
        ("sep=,\nitem,field,value\nr1,mood,calm\n", 1, "Remove this line."),
        ("Item,Field,Value\nr1,mood,calm\n", 1, 'Did you mean "Item"?'),
        ("item,field,value\nr1,mood,\u201ccalm\u201d\n", 2, 'Did you mean "calm"?'),
        ('item,field,value\nr1,mood,"=""calm"""\n', 2, 'Did you mean "calm"?'),
        ("item,field,value\nr1,relevant,WAHR\n", 2, "Allowed: true, false."),
        (f"item,field,value\nr1,mood,{'c' * 1_000_000}\n", 2, "cccc. Allowed: calm"),
        (f"item,field,value\nr1,people,{'c' * 10_000_001}\n", 2, "larger than field limit"),
        ("<html><body>403</body></html>", 1, "the column 'item' is not there"),
        ("\n\n", 1, "the file is empty"),
    ],
)
def test_what_programs_do_to_a_file(tmp_path, text, line, words):
    """Control characters, doubled columns, huge cells, tabs, stray quotes, other encodings."""
    with pytest.raises(StudyError) as raised:
        read(tmp_path, text)
    assert words in str(raised.value)
    assert raised.value.line == line
