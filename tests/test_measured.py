"""What counted votes are worth: accuracy, agreement and inference beside the count."""

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import counting, gold
from lib.counting import measured, polls

LABELS = {"": ["x", "y"]}
VOTES = pd.DataFrame(
    [
        *(("p", worker, "x") for worker in ("m0", "m1", "n0")),
        *(("q", worker, label) for worker, label in (("m0", "x"), ("m1", "y"), ("n0", "y"))),
        *(("r", worker, label) for worker, label in (("m0", "y"), ("m1", "y"), ("n0", "x"))),
    ],
    columns=["item", "worker", "label"],
).assign(model=lambda table: table["worker"].str[0])
TRUTH = pd.DataFrame({"item": ["p", "q", "r"], "truth": ["x", "y", "x"]})


def test_a_model_has_one_vote():
    """m splits on q, so that it gives no vote there; n votes on all three."""
    table = measured.collapsed(VOTES, LABELS)
    assert table[["item", "voter", "value"]].to_numpy().tolist() == [
        ["p", "m", "x"],
        ["p", "n", "x"],
        ["q", "n", "y"],
        ["r", "m", "y"],
        ["r", "n", "x"],
    ]
    some = measured.collapsed(VOTES, LABELS, ["q"])
    assert some["voter"].tolist() == ["n"]
    assert len(measured.collapsed(VOTES, LABELS, ())) == 5


def test_accuracy_side_by_side():
    """The panel decides p (x) and q (m halves: y has 1.5 of 2), r is a tie. n is right on 3 of 3,
    m on 1 of 2, and on what the panel gave too on 1 of 1. n and the panel are both right on 2 of 2.
    """
    counted, true = counting.count(VOTES), polls.truth(TRUTH, LABELS)
    assert counted["status"].tolist() == ["decided", "decided", "tie"]
    table = measured.accuracy(counted, measured.collapsed(VOTES, LABELS), true)
    columns = ["who", "n", "n_right", "n_common", "n_right_common", "n_right_panel"]
    assert table[columns].to_numpy().tolist() == [
        ["panel", 2, 2, 2, 2, 2],
        ["n", 3, 3, 2, 2, 2],
        ["m", 2, 1, 1, 1, 1],
    ]
    assert table.loc[1, ["low", "high"]].tolist() == list(gold.wilson(3, 3))
    assert "does not beat its best member" in measured.sentence(table)
    assert measured.broken_ties(counted, true) == (3, 1, pytest.approx(2.5 / 3))


def test_alpha_within_and_between_models():
    """Within m: xx, xy, yy; coincidences xx 2, yy 2, xy 1, yx 1, so that alpha is 1 - 5 * 2 / 18.

    Between m and n: xx and xy on p and r; q has one vote only. n has one run: nothing within.
    """
    table = measured.alphas(VOTES, LABELS).set_index("who")
    assert list(table.index) == ["between models", "m"]
    assert table.loc["m", "alpha"] == pytest.approx(1 - 5 * 2 / 18)
    assert table["n_items"].tolist() == [2, 3]
    assert table.loc["between models", "alpha"] == pytest.approx(1 - 3 * 2 / 6)
    lonely = measured.alphas(VOTES[VOTES["worker"].eq("m0")].drop(columns="model"), LABELS)
    assert math.isnan(lonely["alpha"].iloc[0])


def test_the_worth_of_voters():
    """By errors where there is truth, else by kappa; one voter alone has none."""
    rows = [(f"i{n}", worker, "x" if n % 2 else "y") for n in range(8) for worker in "ab"]
    votes = pd.DataFrame(rows, columns=["item", "worker", "label"])
    one_each = measured.collapsed(votes, LABELS)
    found = measured.worth(one_each)
    assert (found["basis"], found["n_effective"]) == ("kappa", pytest.approx(1.0))
    true = polls.truth(pd.DataFrame({"item": [f"i{n}" for n in range(8)], "label": ["x"] * 8}))
    assert measured.worth(one_each, true)["basis"] == "errors"
    assert measured.worth(one_each[one_each["voter"].eq("a")]) is None


def test_inference_stands_beside_the_count():
    """Every method gives its labels, flips and accuracy, and the count stays as it is."""
    counted, one_each = counting.count(VOTES), measured.collapsed(VOTES, LABELS)
    before = counted.copy()
    table = measured.inferred(counted, one_each, LABELS, polls.truth(TRUTH, LABELS))
    assert table["method"].tolist() == ["wawa", "one-coin", "dawid-skene"]
    assert table["n_flips"].ge(0).all()
    assert table["n"].le(3).all()
    pd.testing.assert_frame_equal(counted, before)


@settings(max_examples=6)
@given(st.permutations(range(len(VOTES))))
def test_the_order_of_votes_changes_nothing(order):
    """Shuffled votes have the same accuracies and the same alphas."""
    other, true = VOTES.iloc[order], polls.truth(TRUTH, LABELS)
    for measure in (
        lambda votes: measured.alphas(votes, LABELS),
        lambda votes: measured.accuracy(
            counting.count(votes), measured.collapsed(votes, LABELS), true
        ),
    ):
        pd.testing.assert_frame_equal(measure(VOTES), measure(other))
