"""Krippendorff's alpha: worked by hand, against published figures, and whatever the order."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.agreement import alpha

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example C: four observers, 12
# units, missing data. One column a value from 1 to 5, one row a unit; the last has a lone vote.
FOUR_OBSERVERS = [
    [3, 0, 0, 0, 0],
    [0, 3, 1, 0, 0],
    [0, 0, 4, 0, 0],
    [0, 0, 4, 0, 0],
    [0, 4, 0, 0, 0],
    [1, 1, 1, 1, 0],
    [0, 0, 0, 4, 0],
    [3, 1, 0, 0, 0],
    [0, 4, 0, 0, 0],
    [0, 0, 0, 0, 3],
    [2, 0, 0, 0, 0],
    [0, 0, 1, 0, 0],
]
TABLES = st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("level", "figure"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_the_published_example(level, figure):
    """Four observers with missing data: .743 nominal, .815 ordinal, .849 interval."""
    found = alpha.alpha(np.array(FOUR_OBSERVERS), level, [1, 2, 3, 4, 5])
    assert found == pytest.approx(figure, abs=5e-4)


def test_two_voters_by_hand():
    """3 items: both a, both b, split. Coincidences: aa 2, bb 2, ab 1, ba 1; n_a = n_b = 3, n = 6.
    Observed 2/6; expected 2*3*3/(6*5) = .6; alpha = 1 - (1/3)/.6 = .444.
    """
    table = np.array([[2, 0], [0, 2], [1, 1]])
    assert alpha.alpha(table) == pytest.approx(1 - (2 / 6) / 0.6)


def test_perfect_agreement_is_one_and_one_value_says_nothing():
    """All alike on two values is 1; only one value at all is not a number."""
    assert alpha.alpha(np.array([[3, 0], [0, 3]])) == 1.0
    assert np.isnan(alpha.alpha(np.array([[3, 0], [3, 0]])))
    assert np.isnan(alpha.alpha(np.zeros((0, 2), dtype=int)))


def test_items_with_one_vote_do_not_count():
    """A lone vote has nobody to agree with; values that are not declared are no votes."""
    votes = pd.DataFrame(
        [("r1", "a"), ("r1", "b"), ("r2", "a"), ("r3", "b"), ("r3", "b"), ("r3", "?")],
        columns=["item", "value"],
    )
    items, table = alpha.counts(votes, ["a", "b"])
    assert items.tolist() == ["r1", "r3"]
    assert table.tolist() == [[1, 1], [0, 2]]


@given(TABLES, st.randoms(use_true_random=False))
def test_order_changes_nothing(rows, random):
    """Items in another order give the same alpha and the same interval."""
    table = np.array(rows)
    other = table[random.sample(range(len(table)), len(table))]
    for level in ("nominal", "ordinal"):
        one, two = alpha.alpha(table, level), alpha.alpha(other, level)
        assert (np.isnan(one) and np.isnan(two)) or one == pytest.approx(two)
        assert alpha.bootstrap(table, level) == pytest.approx(
            alpha.bootstrap(other, level), nan_ok=True
        )


@given(TABLES)
def test_interval_on_ranks_equals_nominal_for_two_values(rows):
    """With two values every level has one distance, and alpha is the same."""
    table = np.array(rows)[:, :2]
    nominal = alpha.alpha(table)
    for level in ("ordinal", "interval"):
        assert alpha.alpha(table, level, [0, 1]) == pytest.approx(nominal, nan_ok=True)


def test_the_interval_holds_alpha_and_narrows_with_items():
    """Ten times the items: about a third of the width."""
    table = np.array([[2, 0], [0, 2], [1, 1], [2, 0]] * 10)
    few, many = alpha.bootstrap(table), alpha.bootstrap(np.tile(table, (10, 1)))
    assert few[0] < alpha.alpha(table) < few[1]
    assert (few[1] - few[0]) / (many[1] - many[0]) == pytest.approx(10**0.5, rel=0.15)


def test_items_of_one_document_are_drawn_together():
    """Twenty equal passages of each of five documents are five observations, not a hundred."""
    table = np.repeat(np.array([[2, 0], [0, 2], [1, 1], [2, 0], [1, 1]]), 20, axis=0)
    documents = np.repeat(list("vwxyz"), 20)
    items, clustered = alpha.bootstrap(table), alpha.bootstrap(table, clusters=documents)
    assert clustered[1] - clustered[0] > 3 * (items[1] - items[0])


@pytest.mark.parametrize(
    ("name", "values", "level", "figure"),
    [
        ("rte", "01", "nominal", 0.241479),
        ("s_rel", "0123", "nominal", 0.092821),
        ("llmjudge", "0123", "nominal", 0.307074),
        ("llmjudge", "0123", "ordinal", 0.534958),
    ],
)
def test_real_crowds_and_judges(shared, name, values, level, figure):
    """The figures of a reference library on published votes, to six digits."""
    path = shared / "data" / "votes" / name / "votes.csv.gz"
    votes = pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns={"label": "value"})
    _, table = alpha.counts(votes, list(values))
    assert alpha.alpha(table, level) == pytest.approx(figure, abs=1e-6)
