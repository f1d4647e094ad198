"""Calibration: shares against what is right, worked by hand and on published panels."""

import crowds
import making
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import consensus
from lib.gold import calibration

STUDY = making.study({"mood": making.field()})


def labelled(patterns):
    """Consensus and gold; patterns: (what a, b and c say, the truth, how many such items)."""
    answers, labels = {}, []
    for said, true, n in patterns:
        for _ in range(n):
            item = f"r{len(labels):04}"
            answers[item, "mood"] = dict(zip("abc", said, strict=True))
            labels.append((item, "mood", true))
    gold = pd.DataFrame(labels, columns=["item", "field", "value"])
    return consensus.decide(making.votes(STUDY, answers), STUDY), gold


ALIKE, TWO = ["calm"] * 3, ["calm", "calm", "angry"]
SURE = [(ALIKE, "calm", 80), (ALIKE, "angry", 20), (TWO, "calm", 30), (TWO, "angry", 30)]


def test_the_error_of_shares_by_hand():
    """100 items with share 1 are right in .8, 60 with share 2/3 in .5: off by .2 and .167, in the
    mean .1875. Probabilities learn both from the other parts.
    """
    (row,) = calibration.quality(*labelled(SURE), STUDY).to_dict("records")
    assert row["n_gold"] == 160
    assert row["accuracy"] == pytest.approx(110 / 160)
    assert row["ece_share"] == pytest.approx((100 * 0.2 + 60 / 6) / 160)
    assert row["ece_probability"] < row["ece_share"] / 2
    assert row["temperature"] > 1


def test_probabilities_are_given_for_all_that_is_decided():
    """Learned from labelled items, they hold for the others: near .8 and .5; a tie has none."""
    decided, gold = labelled([*SURE, (["calm", "angry", None], "calm", 1), (ALIKE, "calm", 1)])
    found = calibration.probabilities(decided, gold[:160], STUDY).set_index("item")["probability"]
    assert len(found) == 161
    assert found["r0161"] == found["r0000"] == pytest.approx(0.8, abs=0.06)
    assert found["r0159"] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("n", [0, 99])
def test_no_probability_without_enough_labels(n):
    """Fewer than 100 labels on decided values: no column of numbers, and a sentence."""
    decided, gold = labelled([(ALIKE, "calm", 99), (["calm", "angry", None], "calm", 9)])
    gold = gold[:n]
    assert calibration.probabilities(decided, gold, STUDY).empty
    measured = calibration.quality(decided, gold, STUDY)
    assert measured["temperature"].isna().all()
    assert calibration.bins(calibration.out_of_fold(decided, gold, STUDY)).empty
    said = calibration.sentence(measured)
    assert said.startswith("No probability is shown")
    assert said.endswith(f"is {n}.")


def test_all_right_is_no_certainty():
    """100 of 100 right: nearly 1, and the sentence has both errors."""
    decided, gold = labelled([(TWO, "calm", 100)])
    found = calibration.probabilities(decided, gold, STUDY)["probability"]
    assert 0.8 < found.iloc[0] < 1
    said = calibration.sentence(calibration.quality(decided, gold, STUDY))
    assert "mood 0.333 as share" in said


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_the_error_lies_between_0_and_1(rows):
    """And is 0 where everything said is what happens in its bin."""
    said, right = (pd.Series(column) for column in zip(*rows, strict=True))
    assert 0 <= calibration.ece(said, right) <= 1
    assert calibration.ece(right.astype(float), right) == 0


@settings(max_examples=5)
@given(st.integers(20, 60), st.integers(20, 60), st.randoms(use_true_random=False))
def test_order_and_names_change_nothing(n_right, n_wrong, random):
    """Shuffled consensus and labels give the same numbers."""
    decided, gold = labelled(
        [(TWO, "calm", n_right), (ALIKE, "angry", n_wrong), (ALIKE, "calm", 60)]
    )
    seed = random.randrange(99)
    shuffled = decided.sample(frac=1, random_state=seed), gold.sample(frac=1, random_state=seed)
    one, two = (calibration.quality(*some, STUDY) for some in ((decided, gold), shuffled))
    pd.testing.assert_frame_equal(one, two)
    one, two = (
        calibration.probabilities(*some, STUDY).sort_values("item", ignore_index=True)
        for some in ((decided, gold), shuffled)
    )
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize(
    ("crowd", "share", "probability"),
    [(crowds.mediabias, 0.055, 0.045), (crowds.llmjudge, 0.131, 0.045)],
)
def test_on_published_panels(shared, crowd, share, probability):
    """With 200 labels the error on all others falls: to .045 at most, as a mean over draws."""
    votes, gold, study = crowd(shared)
    decided = consensus.decide(votes, study)
    (row,) = calibration.quality(decided, gold, study).to_dict("records")
    assert row["ece_share"] == pytest.approx(share, abs=0.006)
    assert row["ece_probability"] < probability
    errors = [of_draw(decided, gold, study, seed) for seed in range(5)]
    assert np.mean(errors) < probability


def of_draw(decided, gold, study, seed):
    """The calibration error on all labels but the 200 that it was learned from."""
    some = gold.sample(200, random_state=seed)
    found = calibration.probabilities(decided, some, study)
    rest = gold[~gold["item"].isin(some["item"])].rename(columns={"value": "true"})
    found = found.merge(decided, on=["item", "field"]).merge(rest, on=["item", "field"])
    return calibration.ece(found["probability"], found["value"].eq(found["true"]))
