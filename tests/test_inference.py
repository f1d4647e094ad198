"""Truth inference: worked by hand, on published crowds, and whatever the order of the votes."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import inference

VOTES = st.lists(
    st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcd"), st.sampled_from("yn?")),
    min_size=1,
    max_size=30,
    unique_by=lambda vote: vote[:2],
)


def table(rows):
    """Votes as a table."""
    return pd.DataFrame(rows, columns=["item", "voter", "value"])


def crowd(shared, name):
    """Votes and truth of a published set."""
    folder = shared / "data" / "votes" / name
    votes = pd.read_csv(folder / "votes.csv.gz", dtype=str, keep_default_na=False)
    truth = pd.read_csv(folder / "truth.csv", dtype=str)
    return votes.rename(columns={"label": "value", "worker": "voter"}), truth


def accuracy(inferred, truth):
    """The share of the items with truth whose label is right; a tie is not."""
    both = inferred.labels.merge(truth, on="item")
    return float((both["value"] == both["truth"]).mean())


def test_wawa_by_hand():
    """a and b agree with the majority on all 3 items, c on none of the 3: it weighs nothing, and
    where b is silent the tie of a and c is a's.
    """
    votes = table([*zip("xyz", "aaa", "yny", strict=True), *zip("xyz", "bbb", "yny", strict=True)])
    votes = pd.concat([votes, table(zip("xyz", "ccc", "nyn", strict=True))])
    votes = pd.concat([votes, table([("u", "a", "y"), ("u", "c", "n")])])
    found = inference.infer(votes, ["y", "n"], "wawa")
    assert found.labels["value"].tolist() == ["y", "y", "n", "y"]  # of u, x, y, z
    skills = found.skills.set_index("voter")["skill"]
    assert skills.to_dict() == pytest.approx({"a": 3.5 / 4, "b": 1.0, "c": 0.5 / 4})


@pytest.mark.parametrize("method", inference.METHODS)
def test_equal_voters_who_differ_are_a_tie(method):
    """One vote each way, and nothing else is known: no label, probability a half."""
    found = inference.infer(table([("x", "a", "y"), ("x", "b", "n")]), ["y", "n"], method)
    (row,) = found.labels.to_dict("records")
    assert pd.isna(row["value"])
    assert row["probability"] == pytest.approx(0.5)


@pytest.mark.parametrize("method", inference.METHODS)
def test_stray_values_are_no_votes(method):
    """An item with stray values alone has no row."""
    votes = table([("x", "a", "y"), ("x", "b", "y"), ("z", "a", "maybe")])
    found = inference.infer(votes, ["y", "n"], method)
    assert found.labels[["item", "value"]].to_numpy().tolist() == [["x", "y"]]
    assert inference.infer(votes.iloc[2:], ["y", "n"], method).labels.empty


@pytest.mark.parametrize("method", inference.METHODS)
@given(rows=VOTES, data=st.data())
def test_the_order_of_votes_changes_nothing(method, rows, data):
    """Shuffled votes, and voters with other names, give the same labels."""
    votes = table(rows)
    order = data.draw(st.permutations(range(len(votes))))
    renamed = votes.iloc[order].replace({"voter": {"a": "z9", "b": "y8", "c": "x7", "d": "w6"}})
    one, other = (inference.infer(some, ["y", "n"], method) for some in (votes, renamed))
    pd.testing.assert_frame_equal(one.labels, other.labels, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "method", "prior", "figure", "near"),
    [
        ("d_product", "wawa", 0.0, 0.8966, 0.0005),
        ("rte", "wawa", 0.0, 0.9187, 0.004),  # ties among the majority are shared here
        ("d_product", "dawid-skene", 0.01, 0.9396, 0.002),
        ("d_product", "dawid-skene", 1.0, 0.9371, 0.002),
        ("d_possent", "dawid-skene", 0.01, 0.960, 0.002),
        ("rte", "dawid-skene", 1.0, 0.9275, 0.004),
        ("llmjudge", "dawid-skene", 0.01, 0.394, 0.005),
    ],
)
def test_published_crowds(shared, name, method, prior, figure, near):
    """Accuracies of these methods as measured before; on the judges Dawid-Skene loses 13 points."""
    votes, truth = crowd(shared, name)
    values = list("0123") if name == "llmjudge" else sorted(votes["value"].unique())
    assert accuracy(inference.infer(votes, values, method, prior), truth) == pytest.approx(
        figure, abs=near
    )
