"""Rivals of the vote: compared on the same labels, and never in its place."""

import crowds
import making
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import consensus, inference
from lib.inference import rivals

FIELDS = {
    "relevant": making.field("boolean"),
    "mood": making.field(when="relevant"),
    "age": making.field("integer"),
}
STUDY = making.study(FIELDS, {"a": ("m-a", 3, 1.0), "b": ("m-b", 1, 1.0), "c": ("m-c", 1, 1.0)})
WORDS = ["calm", "angry", "mixed"]


def gold(*rows):
    """Labels as a table."""
    return pd.DataFrame(rows, columns=["item", "field", "value"])


def answered(n=12):
    """Votes: a and b are right on mood, c is not; every fourth item is not relevant."""
    answers = {}
    for i in range(n):
        word, relevant = WORDS[i % 3], "true" if i % 4 else "false"
        mood = word if i % 4 else "n/a"
        answers[f"r{i:02}", "relevant"] = dict.fromkeys("abc", relevant)
        answers[f"r{i:02}", "mood"] = {"a": mood, "b": mood, "c": "calm" if i % 4 else "n/a"}
        answers[f"r{i:02}", "age"] = dict.fromkeys("abc", "3")
    return making.votes(STUDY, answers)


def test_every_closed_field_by_every_method():
    """The vote first; only items to which a field applies; numbers are averaged, not inferred."""
    votes = answered()
    labels = gold(("r01", "mood", "angry"), ("r02", "mood", "mixed"))
    table = rivals.compare(votes, consensus.decide(votes, STUDY), labels, STUDY)
    assert table["method"].tolist() == [rivals.VOTE, *inference.METHODS] * 2
    assert table.groupby("field")["n_labels"].unique().map(list).to_dict() == {
        "relevant": [12],
        "mood": [9],
    }
    mood = table[table["field"].eq("mood")]
    assert mood["n_gold"].tolist() == [2] * 4
    assert mood["n_right"].tolist()[:2] == [2, 2]
    assert table["n_flips"].tolist()[:2] == [0, 0]


def test_only_items_asked_in_full_are_compared():
    """The others have no votes, no labels and no flips."""
    votes, items = answered(), ["r01", "r02", "r03"]
    labels = gold(("r01", "mood", "angry"), ("r05", "mood", "mixed"))
    table = rivals.compare(votes, consensus.decide(votes, STUDY), labels, STUDY, items)
    assert set(table["n_labels"]) == {3}
    assert set(table.loc[table["field"].eq("mood"), "n_gold"]) == {1}


@pytest.mark.parametrize(
    ("n", "right", "words"),
    [
        (99, (50, 60), "No field of declared values has 100 labels"),
        (100, (50, 60), "wawa on mood by 10.0 points, which may be chance"),
        (1000, (500, 600), "wawa on mood by 10.0 points. None"),
        (100, (50, 50), "No method is more often right"),
    ],
)
def test_the_sentence_never_makes_a_method_the_result(n, right, words):
    """Fewer than 100 labels say nothing; a win is told with what may be chance."""
    rows = []
    for method, n_right in zip((rivals.VOTE, "wawa"), right, strict=True):
        labels = pd.Series([1.0] * n_right + [0.0] * (n - n_right))
        rows.append(("mood", method, n, 0, 1, *rivals._right(labels)))
    said = rivals.sentence(pd.DataFrame(rows, columns=rivals._COLUMNS))
    assert words in said
    assert said.endswith("the vote stays the result.")


def test_without_gold():
    """Flips are counted all the same."""
    votes = answered()
    table = rivals.compare(votes, consensus.decide(votes, STUDY), gold(), STUDY)
    assert set(table["n_gold"]) == {0}
    assert "No field of declared values has 100 labels" in rivals.sentence(table)


@settings(max_examples=8)
@given(st.lists(st.tuples(*[st.sampled_from(WORDS)] * 3), min_size=1, max_size=8), st.data())
def test_order_and_names_change_nothing(rows, data):
    """Shuffled votes, renamed annotators: the same table."""
    study = making.study({"mood": making.field()})
    answers = {(f"r{n}", "mood"): dict(zip("abc", row, strict=True)) for n, row in enumerate(rows)}
    labels = gold(*((f"r{n}", "mood", "calm") for n in range(len(rows))))
    votes, names = making.votes(study, answers), {"a": "z", "b": "y", "c": "x"}
    other = making.study({"mood": making.field()}, {names[a]: ("m", 1, 1.0) for a in "abc"})
    order = data.draw(st.permutations(range(len(votes))))
    renamed = votes.iloc[order].replace({"annotator": names})
    one = rivals.compare(votes, consensus.decide(votes, study), labels, study)
    two = rivals.compare(renamed, consensus.decide(renamed, other), labels[::-1], other)
    counts = ["method", "n_labels", "n_flips", "n_gold", "n_right"]
    pd.testing.assert_frame_equal(one[counts], two[counts])


def test_on_many_judges(shared):
    """33 judges of 7 teams: .524 the vote, .535 Wawa, .539 one-coin, .394 Dawid-Skene."""
    votes, labels, study = crowds.llmjudge(shared)
    table = rivals.compare(votes, consensus.decide(votes, study), labels, study)
    expected = [0.524, 0.535, 0.539, 0.394]
    assert table["accuracy"].tolist() == pytest.approx(expected, abs=0.003)
    assert table["n_flips"].iloc[-1] / table["n_labels"].iloc[-1] > 0.5
