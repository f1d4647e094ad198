"""Prevalence: worked by hand, and intervals that hold the truth as often as they say."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.gold import prevalence


def test_by_hand():
    """Gold 1 1 0 0, votes on it 1 0 0 0, votes on all 1,000 items .3. Variance of the votes .1875,
    covariance .125: lambda = .125 / (.1875 * 1.004) = .664; the share is .664 * .3 + (.5 - .664 *
    .25) = .533.
    """
    everything = [1] * 300 + [0] * 700
    found = prevalence.of_votes_and_gold([1, 1, 0, 0], [1, 0, 0, 0], everything)
    trust = 0.125 / (0.1875 * 1.004)
    assert found.share == pytest.approx(trust * 0.3 + 0.5 - trust * 0.25)
    assert found.low < found.share < found.high


def test_useless_votes_are_left_out():
    """Votes without any relation to gold: the share is that of gold alone."""
    true, said = [1, 0, 1, 0], [1, 1, 0, 0]
    found = prevalence.of_votes_and_gold(true, said, [1] * 90 + [0] * 10)
    assert found.share == pytest.approx(prevalence.of_gold(true).share) == 0.5


def test_votes_without_errors_still_leave_doubt():
    """50 gold items without one error of 50: more doubt than the votes' own interval shows."""
    said = [1] * 5 + [0] * 45
    found = prevalence.of_votes_and_gold(said, said, said * 100)
    naive = prevalence.of_votes(said * 100)
    assert found.share == pytest.approx(0.1)
    assert found.high - found.low > 3 * (naive.high - naive.low)


def test_chances_of_being_drawn_are_made_good():
    """Items said to be positive are drawn ten times as often: the share is none the higher."""
    rng = np.random.default_rng(3)
    true = (rng.random(20_000) < 0.1).astype(float)
    said = np.where(rng.random(20_000) < 0.1, 1 - true, true)
    chances = np.where(said == 1, 0.1, 0.01)
    drawn = rng.random(20_000) < chances
    found = prevalence.of_votes_and_gold(true[drawn], said[drawn], said, chances[drawn])
    assert found.low < true.mean() < found.high
    assert prevalence.of_gold(true[drawn], chances[drawn]).share == pytest.approx(0.1, abs=0.05)
    assert prevalence.of_gold(true[drawn]).share > 0.3


def test_nothing_labelled_is_not_a_number():
    """No gold, no share."""
    assert np.isnan(prevalence.of_votes_and_gold([], [], [1, 0]).share)
    assert np.isnan(prevalence.of_votes([]).share)


@given(st.lists(st.tuples(*[st.booleans()] * 2), min_size=1, max_size=40), st.data())
def test_order_changes_nothing_and_shares_are_shares(pairs, data):
    """Shuffled gold gives the same share and interval, all between 0 and 1."""
    order = data.draw(st.permutations(pairs))
    one, other = (
        prevalence.of_votes_and_gold(*zip(*some, strict=True), [0, 1, 1]) for some in (pairs, order)
    )
    assert one == pytest.approx(other)
    assert 0 <= one.low <= one.share <= one.high <= 1


@pytest.mark.parametrize(("share", "wrong"), [(0.5, 0.2), (0.1, 0.05), (0.01, 0.02)])
def test_intervals_hold_the_truth(share, wrong):
    """Of 1,000 samples of 200 items, at least 93 % hold the true share, rare values too."""
    rng = np.random.default_rng(5)
    true = (rng.random(20_000) < share).astype(float)
    said = np.where(rng.random(20_000) < wrong, 1 - true, true)
    held = 0
    for _ in range(1000):
        drawn = rng.choice(len(true), 200, replace=False)
        found = prevalence.of_votes_and_gold(true[drawn], said[drawn], said)
        held += found.low <= true.mean() <= found.high
    assert held / 1000 >= 0.93


def test_real_votes_on_media_bias(shared):
    """Ten models: their count misses the true share by more than its interval; with 200 gold items
    the truth is held in 95 %, in an interval a fifth narrower than that of gold alone.
    """
    folder = shared / "data" / "votes" / "mediabias"
    votes = pd.read_csv(folder / "votes.csv.gz", dtype=str, keep_default_na=False)
    workers = pd.read_csv(folder / "workers.csv").query("variant == '8-shot'")["worker"]
    votes = votes[votes["worker"].isin(workers) & votes["label"].ne("?")]
    share = votes.assign(one=votes["label"].eq("1")).groupby("item")["one"].mean()
    truth = pd.read_csv(folder / "truth.csv", dtype=str).set_index("item")["truth"]
    said = (share > 0.5).astype(float).to_numpy()
    true = truth.reindex(share.index).eq("1").astype(float).to_numpy()
    assert not prevalence.of_votes(said).low <= true.mean() <= prevalence.of_votes(said).high
    rng, held, widths = np.random.default_rng(0), 0, [0.0, 0.0]
    for _ in range(500):
        drawn = rng.choice(len(true), 200, replace=False)
        both = prevalence.of_votes_and_gold(true[drawn], said[drawn], said)
        alone = prevalence.of_gold(true[drawn])
        held += both.low <= true.mean() <= both.high
        widths = [widths[0] + both.high - both.low, widths[1] + alone.high - alone.low]
    assert held / 500 >= 0.93
    assert widths[0] < 0.85 * widths[1]


def test_a_whole_corpus_of_labels_leaves_no_doubt():
    """Chances of 1: the share is counted, whatever the votes say."""
    found = prevalence.of_votes_and_gold([1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 0], [1.0] * 4)
    assert found == pytest.approx((0.5, 0.5, 0.5))


def test_labels_of_half_a_corpus_leave_less_doubt_than_of_a_sliver():
    """The same 50 labels among 100 items and among 5,000: the interval shrinks by sqrt(1/2)."""
    said = [1] * 5 + [0] * 45
    half, sliver = (prevalence.of_gold(said, [50 / n] * 50) for n in (100, 5_000_000))
    assert half.high - half.share == pytest.approx(
        (sliver.high - sliver.share) * 0.5**0.5, rel=1e-4
    )


def test_a_stratum_with_one_label_is_as_the_others():
    """Strata of 10, 10 and 4 items with 2, 2 and 1 labels: bounds, and a share by their sizes."""
    found = prevalence.of_gold([1, 0, 1, 0, 1], [0.2] * 4 + [0.25], list("aabbc"))
    assert found.share == pytest.approx((10 * 0.5 + 10 * 0.5 + 4 * 1) / 24)
    assert 0 <= found.low < found.share < found.high <= 1


def test_means_are_found_as_shares_are():
    """Numbers 10 too low everywhere: gold lifts the mean of the votes by 10."""
    said = np.arange(100.0)
    found = prevalence.mean_of_votes_and_gold(said[::10] + 10, said[::10], said, [0.1] * 10)
    assert found.share == pytest.approx(said.mean() + 10)
    assert prevalence.mean_of_votes_and_gold([], [], [1.0]) is prevalence.NOTHING


@pytest.mark.parametrize(
    ("name", "value", "width", "alone"),
    [("mediabias", "1", 0.105, 0.140), ("llmjudge", "23", 0.114, 0.125)],
)
def test_real_votes_on_a_known_corpus(shared, name, value, width, alone):
    """Two panels, 200 gold items drawn 1,000 times: the truth is held in about 95 %, in narrower
    intervals than those of gold alone.
    """
    folder = shared / "data" / "votes" / name
    votes = pd.read_csv(folder / "votes.csv.gz", dtype=str, keep_default_na=False)
    workers = pd.read_csv(folder / "workers.csv", dtype=str)
    if name == "mediabias":
        votes = votes[votes["worker"].isin(workers.query("variant == '8-shot'")["worker"])]
    truth = pd.read_csv(folder / "truth.csv", dtype=str).set_index("item")["truth"]
    votes = votes[votes["label"].isin(truth.unique())]
    counts = votes.groupby(["item", "label"]).size().unstack(fill_value=0)
    winner = counts.idxmax(axis="columns").where(
        counts.eq(counts.max(axis="columns"), axis="index").sum(axis="columns").eq(1)
    )
    said = winner.isin(list(value)).to_numpy(dtype=float)
    true = truth.reindex(winner.index).isin(list(value)).to_numpy(dtype=float)
    rng, held, widths, chances = np.random.default_rng(11), 0, 0.0, [200 / len(true)] * 200
    for _ in range(1000):
        drawn = rng.choice(len(true), 200, replace=False)
        both = prevalence.of_votes_and_gold(true[drawn], said[drawn], said, chances)
        held += both.low <= true.mean() <= both.high
        widths += both.high - both.low
    assert 0.93 <= held / 1000 <= 0.98
    assert widths / 1000 == pytest.approx(width, abs=0.003)
    by_gold = prevalence.of_gold(true[drawn])
    assert by_gold.high - by_gold.low == pytest.approx(alone, abs=0.01)
