"""Weights: what repeats share, whole units, and the warning about repeats that outvote."""

import making
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import weights

SEED = {"mini": ("gpt-5-mini", 1, 2.0), "nano": ("gpt-5-nano", 3, 1.0)}


def test_repeats_share_the_weight_of_their_model():
    """Three repeats of a model with weight 1 plan a third each; per repeat each has 1."""
    shared = weights.weigh(making.study(annotators=SEED))
    alone = weights.weigh(making.study(annotators=SEED, weights="per_repeat"))
    assert shared["weight"].tolist() == [2.0, 1 / 3, 1 / 3, 1 / 3]
    assert alone["weight"].tolist() == [2.0, 1.0, 1.0, 1.0]
    assert shared[["annotator", "repeat"]].to_numpy().tolist() == [
        ["mini", 0],
        ["nano", 0],
        ["nano", 1],
        ["nano", 2],
    ]


@pytest.mark.parametrize(
    ("strong", "mode", "warned"),
    [
        (2.0, "per_repeat", True),
        (2.5, "per_repeat", True),
        (3.0, "per_repeat", False),  # together they are as strong: a tie, no defeat
        (3.5, "per_repeat", False),
        (2.0, "per_model", False),
        (1.0, "per_repeat", False),  # nobody is stronger
    ],
)
def test_the_known_panel_is_warned_of(strong, mode, warned):
    """2:1:1:1 lets the weak model decide whenever its repeats agree; 3.5:1:1:1 does not."""
    annotators = {"mini": ("gpt-5-mini", 1, strong), "nano": ("gpt-5-nano", 3, 1.0)}
    found = weights.warn(making.study(annotators=annotators, weights=mode))
    assert bool(found) == warned
    if warned:
        assert found[0].startswith("The 3 repeats of nano (gpt-5-nano, weight 1 each, 3 together)")
        assert "outvote mini" in found[0]
        assert "per_model" in found[0]


@given(
    st.lists(st.sampled_from([1, 2, 0.1, 0.35, 1 / 3, 2.5, 1.3862943611]), min_size=1, max_size=4),
    st.integers(1, 20),
)
def test_units_are_whole_and_faithful(written, repeats):
    """Any number of repeats shares units without a rest, and units keep the weights' ratios."""
    annotators = {f"a{n}": (f"m{n}", repeats, float(one)) for n, one in enumerate(written)}
    table = weights.of_annotators(making.study(annotators=annotators))
    for units, weight, scale in table[["units", "weight", "scale"]].itertuples(index=False):
        assert all(units % n == 0 for n in range(1, repeats + 1))
        assert units / scale == pytest.approx(weight, abs=1e-6)


def test_a_third_is_a_third():
    """Shares in a study are the fractions that people mean."""
    assert 3 * weights.exact(1 / 3) == 1
    assert 10 * weights.exact(0.1) == 1
