"""Confusion: who takes what for what on gold, worked by hand."""

import making
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import consensus
from lib.gold import alone_on, confusion

FIELDS = {
    "relevant": making.field("boolean"),
    "mood": making.field(when="relevant"),
    "age": making.field("integer"),
}
STUDY = making.study(FIELDS)
WORDS = ["calm", "angry", "mixed"]


def gold(*rows):
    """Labels as a table."""
    return pd.DataFrame(rows, columns=["item", "field", "value"])


def measured(answers, labels, study=STUDY):
    """The table of confusion of these votes."""
    votes = making.votes(study, answers)
    return confusion.table(votes, consensus.decide(votes, study), labels, study)


def test_what_is_not_decided_stands_beside_the_values():
    """Three items are calm: the panel says calm, has a tie, and takes the last for not relevant; c
    is silent on the second. Numbers are no values to mix up, and have no rows.
    """
    answers = {
        ("r1", "relevant"): dict.fromkeys("abc", "true"),
        ("r1", "mood"): {"a": "calm", "b": "calm", "c": "angry"},
        ("r1", "age"): dict.fromkeys("abc", "3"),
        ("r2", "relevant"): dict.fromkeys("abc", "true"),
        ("r2", "mood"): {"a": "calm", "b": "mixed", "c": None},
        ("r2", "age"): dict.fromkeys("abc", "3"),
        ("r3", "relevant"): {"a": "true", "b": "false", "c": "false"},
        ("r3", "mood"): {"a": "calm", "b": "n/a", "c": "n/a"},
        ("r3", "age"): dict.fromkeys("abc", "3"),
    }
    labels = gold(*((item, "mood", "calm") for item in ("r1", "r2", "r3")), ("r1", "age", "3"))
    table = measured(answers, labels)
    assert set(table["field"]) == {"mood"}
    assert table[table["who"].eq("panel")][["true", "said", "n"]].to_numpy().tolist() == [
        ["calm", "calm", 1],
        ["calm", confusion.UNDECIDED, 1],
        ["calm", confusion.OUTSIDE, 1],
    ]
    said = {
        who: dict(zip(some["said"], some["n"], strict=True)) for who, some in table.groupby("who")
    }
    assert said["a"] == {"calm": 3}
    assert said["b"] == {"calm": 1, "mixed": 1, confusion.OUTSIDE: 1}
    assert said["c"] == {"angry": 1, confusion.UNDECIDED: 1, confusion.OUTSIDE: 1}


def test_without_labels_there_are_no_rows():
    """An empty table with its columns."""
    table = measured({("r1", "mood"): {}}, gold(), making.study({"mood": making.field()}))
    assert table.empty
    assert list(table) == ["who", "field", "true", "said", "n"]


@settings(max_examples=8)
@given(
    st.lists(st.tuples(*[st.sampled_from([*WORDS, None])] * 3), min_size=1, max_size=8), st.data()
)
def test_order_and_names_change_nothing(rows, data):
    """Shuffled votes and labels, renamed annotators: the same counts; every label counts once."""
    study = making.study({"mood": making.field()})
    answers = {(f"r{n}", "mood"): dict(zip("abc", row, strict=True)) for n, row in enumerate(rows)}
    labels = gold(*((f"r{n}", "mood", WORDS[n % 3]) for n in range(len(rows))))
    votes = making.votes(study, answers)
    names = {"a": "z", "b": "y", "c": "x"}
    other = making.study({"mood": making.field()}, {names[a]: ("m", 1, 1.0) for a in "abc"})
    order = data.draw(st.permutations(range(len(votes))))
    renamed = votes.iloc[order].replace({"annotator": names})
    one = confusion.table(votes, consensus.decide(votes, study), labels, study)
    two = confusion.table(renamed, consensus.decide(renamed, other), labels.iloc[::-1], other)
    pd.testing.assert_frame_equal(one.replace({"who": names}), two)
    assert set(one.groupby("who")["n"].sum()) == {len(rows)}


def test_alone_is_a_panel_of_one():
    """Annotators with as many repeats or not, of other weights, on items whose ids begin alike:
    each decides what a count of its own votes does.
    """
    annotators = {"a": ("x", 3, 1.0), "b": ("y", 1, 2.0), "c": ("z", 3, 0.5), "d": ("x", 1, 1.0)}
    study = making.study({"relevant": FIELDS["relevant"], "mood": FIELDS["mood"]}, annotators)
    words = [["calm", "angry", "calm"], ["calm", "angry", None], [None] * 3]
    answers = {}
    for n, item in enumerate(["1 x", "1", "0 1"]):
        answers[item, "relevant"] = dict.fromkeys("abc", "true") | {"d": "false"}
        mine = {"a": words[n], "b": words[n][1], "c": words[2 - n], "d": "n/a"}
        answers[item, "mood"] = mine
    votes = making.votes(study, answers)
    true = confusion.closed(gold(*((item, "mood", "calm") for item in ("1 x", "1", "0 1"))), study)
    found = confusion.alone(votes, study, true)
    assert list(found) == list("abcd")
    for name, table in found.items():
        mine = votes[votes["annotator"].eq(name)]
        own = consensus.decide(mine, alone_on(study, name))[list(table)]
        place = ["item", "field"]
        one, two = (some.set_index(place).sort_index().astype("string") for some in (table, own))
        pd.testing.assert_frame_equal(one, two)
