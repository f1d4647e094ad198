"""Learned weights: worked by hand, on published panels, and whatever the order of the votes."""

import math

import crowds
import making
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import consensus
from lib.gold import confusion, learned

WORDS = ["calm", "angry", "mixed"]
STUDY = making.study({"mood": making.field()})
FEW = making.study({"mood": making.field(), "calm": making.field("boolean")})


def labelled(n_right, n=40, study=STUDY):
    """Votes and gold of n items; each annotator is right on the first so many of its own order."""
    answers, labels = {}, []
    for i in range(n):
        true = WORDS[i % 3]
        said = {
            name: true if (i * 7 + shift) % n < right else WORDS[(i + 1) % 3]
            for shift, (name, right) in enumerate(n_right.items())
        }
        answers[f"r{i:02}", "mood"] = said
        labels.append((f"r{i:02}", "mood", true))
    return making.votes(study, answers), pd.DataFrame(labels, columns=["item", "field", "value"])


def test_the_weight_is_the_log_odds():
    """30 of 40 right among three values: log(30.5 / 10.5) + log 2 = 1.76; 13 of 40 is chance, and
    the floor; all right is log(40.5 / 0.5) + log 2 = 5.09.
    """
    votes, gold = labelled({"a": 30, "b": 13, "c": 40})
    table = learned.weights(votes, gold, STUDY)
    assert table["n_right"].tolist() == [30, 13, 40]
    assert table["log_odds_weight"].tolist() == [1.76, 0.01, 5.09]
    assert math.log(30.5 / 10.5) + math.log(2) == pytest.approx(1.76, abs=0.005)


def test_chance_is_that_of_the_fields():
    """Right on half of two labels, one among three values and one among two: half of log 2."""
    answers = {("r1", "mood"): {"a": "calm"}, ("r1", "calm"): {"a": "false"}}
    votes = making.votes(FEW, answers)
    gold = pd.DataFrame([("r1", "mood", "calm"), ("r1", "calm", "true")])
    table = learned.weights(votes, gold.set_axis(["item", "field", "value"], axis=1), FEW)
    first = table.iloc[0]
    assert (first["n"], first["n_right"]) == (2, 1)
    assert first["log_odds_weight"] == pytest.approx(math.log(2) / 2, abs=0.005)
    assert table["n"].tolist() == [2, 0, 0]


def test_three_ways_stand_side_by_side():
    """The best annotator is chosen in every part; a better way is told with what to write."""
    votes, gold = labelled({"a": 40, "b": 16, "c": 16})
    table = learned.compare(votes, gold, STUDY)
    assert table["way"].tolist() == [learned.VOTE, learned.SINGLE, learned.LOG_ODDS]
    assert table["n_gold"].tolist() == [40, 40, 40]
    assert table["n_right"].tolist()[1:] == [40, 40]
    assert table.loc[1, "note"] == "a in 5 of 5 parts"
    said = learned.advice(table, learned.weights(votes, gold, STUDY))
    assert "best single annotator is right" in said
    assert "40 are few" in said
    assert "weights: per_model: a 5.09, b " in said


def test_a_tie_is_half_right():
    """Two values share the vote and one of them is true: half a label, and it is open; without any
    answer nothing is right.
    """
    votes = making.votes(STUDY, {("r1", "mood"): {"a": "calm", "b": "angry"}, ("r2", "mood"): {}})
    gold = pd.DataFrame({"item": ["r1", "r2"], "field": "mood", "value": "calm"})
    found = learned.judged(consensus.decide(votes, STUDY), confusion.closed(gold, STUDY))
    assert found.to_numpy().tolist() == [[True, 0.5], [True, 0.0]]


def test_passages_of_a_document_are_judged_together():
    """Five parts of equal size, and a document in one of them."""
    documents = pd.DataFrame({"item": [f"d{n // 3}@{n % 3}" for n in range(90)]})
    documents["document"] = documents["item"].str[:-2]
    fold = learned.folds(documents["item"], documents)
    parts = documents.assign(fold=fold.reindex(documents["item"]).to_numpy())
    assert parts.groupby("document")["fold"].nunique().max() == 1
    assert parts.groupby("fold")["document"].nunique().tolist() == [6] * 5
    assert fold.equals(learned.folds(documents["item"][::-1], documents.iloc[::-1]))


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_labels(n):
    """Nothing can be learned and judged on one document: said, not shown."""
    votes, gold = labelled({"a": 3, "b": 2, "c": 1}, n=3)
    table = learned.compare(votes, gold[:n], STUDY)
    assert table.empty
    assert "Too few labels" in learned.advice(table, learned.weights(votes, gold[:n], STUDY))


@settings(max_examples=2)
@given(st.lists(st.integers(0, 12), min_size=3, max_size=3), st.randoms(use_true_random=False))
def test_order_and_names_change_nothing(n_right, random):
    """Shuffled votes and labels, renamed annotators in the same places: the same numbers."""
    votes, gold = labelled(dict(zip("abc", n_right, strict=True)), n=12)
    names = {"a": "z", "b": "y", "c": "x"}
    other = making.study({"mood": making.field()}, {names[a]: (f"m-{a}", 1, 1.0) for a in "abc"})
    renamed = votes.sample(frac=1, random_state=random.randrange(99)).replace({"annotator": names})
    one, two = learned.compare(votes, gold, STUDY), learned.compare(renamed, gold[::-1], other)
    pd.testing.assert_frame_equal(one.drop(columns="note"), two.drop(columns="note"))
    one, two = (learned.weights(*some) for some in ((votes, gold, STUDY), (renamed, gold, other)))
    pd.testing.assert_frame_equal(one.replace({"annotator": names}), two)


def test_on_eight_models(shared):
    """mediabias: .817 the vote, .850 the best model, .825 with log-odds weights, out of fold; with
    200 labels the weights gain on the rest too.
    """
    votes, gold, study = crowds.mediabias(shared)
    table = learned.compare(votes, gold, study)
    assert table["accuracy"].tolist() == pytest.approx([0.817, 0.850, 0.825], abs=0.002)
    gains = [gain(votes, gold, study, seed) for seed in range(4)]
    assert all(-0.003 <= one <= 0.02 for one in gains)
    assert sum(gains) / 4 == pytest.approx(0.008, abs=0.004)


def test_on_many_judges(shared):
    """llmjudge: .524 the vote, .540 the best, .538 with log-odds weights; with 200 labels .536."""
    votes, gold, study = crowds.llmjudge(shared)
    table = learned.compare(votes, gold, study)
    assert table["accuracy"].tolist() == pytest.approx([0.524, 0.540, 0.538], abs=0.003)
    gains = [gain(votes, gold, study, seed) for seed in range(1)]
    assert all(-0.003 <= one <= 0.02 for one in gains)


def gain(votes, gold, study, seed):
    """How much more often the vote is right by weights from 200 labels, on all others."""
    some = gold.sample(200, random_state=seed)
    rest = gold[~gold["item"].isin(some["item"])]
    fitted = learned.weights(votes, some, study).set_index("annotator")["log_odds_weight"]
    here, true = votes[votes["item"].isin(rest["item"])], confusion.closed(rest, study)
    before, after = (
        learned.judged(consensus.decide(here, by), true)["right"].mean()
        for by in (study, learned.with_weights(study, fitted))
    )
    return after - before
