"""Counting votes from anywhere: labels, weights, runs of a model, fields; and real crowds."""

import json
from fractions import Fraction

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import counting, weights
from lib.counting import polls
from lib.errors import StudyError

ROWS = st.lists(
    st.tuples(st.sampled_from("pqr"), st.sampled_from("abcd"), st.sampled_from(["x", "y", "?"])),
    min_size=1,
    max_size=25,
)


def table(rows, columns=("item", "worker", "label")):
    """Votes as a table."""
    return pd.DataFrame(rows, columns=list(columns))


def one(rows, *given, columns=("item", "worker", "label"), **more):
    """The count of votes on one item."""
    (row,) = counting.count(table(rows, columns), *given, **more).to_dict("records")
    return row


def test_a_majority_by_hand():
    """x from a and b, y from c: 2 of 3, a margin of 1 of 3."""
    row = one([("p", "a", "x"), ("p", "b", "x"), ("p", "c", "y")])
    assert (row["value"], row["status"], row["n_for"], row["n_against"]) == ("x", "decided", 2, 1)
    assert row["share"] == pytest.approx(2 / 3)
    assert row["margin"] == pytest.approx(1 / 3)
    assert json.loads(row["weights"]) == {"x": 2.0, "y": 1.0}


def test_a_tie_stays_open():
    """Equal leaders are candidates, and nothing is decided."""
    row = one([("p", "a", "x"), ("p", "b", "y")])
    assert (row["status"], row["margin"], row["n_for"]) == ("tie", 0.0, 0)
    assert pd.isna(row["value"])
    assert json.loads(row["candidates"]) == ["x", "y"]


def test_labels_that_are_not_declared_abstain():
    """Two of three are strays: not more than half of what was asked has answered."""
    rows = [("p", "a", "x"), ("p", "b", "?"), ("p", "c", "z")]
    row = one(rows, ["x", "y"])
    assert (row["status"], row["n_abstained"], row["weight_answered"]) == ("no_quorum", 2, 1.0)
    assert one(rows, ["x", "y"], quorum=0.0)["value"] == "x"
    assert one([("p", "a", None)], ["x", "y"], quorum=0.0)["status"] == "no_quorum"


def test_runs_of_a_model_share_its_weight():
    """Three runs of m say y, one of n says x: one vote each, a tie; with weight 2 for n it is x."""
    rows = [("p", f"m{k}", "y", "m") for k in range(3)] + [("p", "n0", "x", "n")]
    columns = ("task", "worker", "label", "model")
    assert one(rows, columns=columns)["status"] == "tie"
    assert one(rows, (), {"n": 2.0}, columns=columns)["value"] == "x"
    assert one([row[:3] for row in rows])["value"] == "y"


def test_an_unanswered_run_leaves_its_share_to_the_others():
    """Of three runs one is a stray and two say y: the model's whole vote is y."""
    rows = [("p", "m0", "y", "m"), ("p", "m1", "y", "m"), ("p", "m2", "?", "m")]
    rows += [("p", "n0", "x", "n"), ("p", "o0", "y", "o")]
    row = one(rows, ["x", "y"], columns=("item", "worker", "label", "model"))
    assert (row["value"], row["weight_for"], row["weight_planned"]) == ("y", 2.0, 3.0)


def test_weights_may_stand_in_a_column():
    """A voter has one weight; two different ones, or none above 0, are an error."""
    columns = ("item", "worker", "label", "weight")
    assert one([("p", "a", "x", 3), ("p", "b", "y", 1)], columns=columns)["value"] == "x"
    with pytest.raises(StudyError, match="in some rows"):
        one([("p", "a", "x", 3), ("q", "a", "y", 1)], columns=columns)
    with pytest.raises(StudyError, match="above 0"):
        one([("p", "a", "x", -1)], columns=columns)
    with pytest.raises(StudyError, match="has no vote"):
        one([("p", "a", "x")], (), {"b": 1.0})


def test_fields_are_counted_apart_with_labels_of_their_own():
    """One item, two questions; values that belong to the other question abstain."""
    rows = [("p", "a", "x", "mood"), ("p", "b", "x", "mood"), ("p", "a", "yes", "calm")]
    rows += [("p", "b", "x", "calm")]
    votes = table(rows, ("item", "worker", "label", "field"))
    found = counting.count(votes, {"mood": ["x", "y"], "calm": ["yes", "no"]})
    assert found[["field", "status"]].to_numpy().tolist() == [
        ["calm", "no_quorum"],
        ["mood", "decided"],
    ]


@pytest.mark.parametrize("label", ["it's", '"', "a,b", "{n}", "{", "ö", "%s", "--", "$1", "\\"])
def test_labels_may_hold_anything(label):
    """Quotes and braces in a label are only text."""
    row = one([("p", "a", label), ("p", "b", label), ("p", "c", "x")])
    assert row["value"] == label
    assert json.loads(row["weights"]) == {label: 2.0, "x": 1.0}


def test_repeats_are_runs_of_a_worker_or_a_model():
    """Two repeats of a say y, b says x: a tie of two voters; three votes when each run has one."""
    rows = [("p", "a", "y", 0), ("p", "a", "y", 1), ("p", "b", "x", 0)]
    columns = ("item", "worker", "label", "repeat")
    assert one(rows, columns=columns)["status"] == "tie"
    assert one(rows, columns=columns, per_run=True)["value"] == "y"
    assert one(rows, columns=("item", "model", "label", "repeat"))["status"] == "tie"
    assert polls.overview(table(rows, columns)) == {
        "n_votes": 3,
        "n_items": 1,
        "n_voters": 2,
        "n_runs": 3,
        "n_missing": 0,
        "n_repeated": 0,
    }


def test_a_second_vote_of_a_worker_has_a_full_weight():
    """a says x twice and b says y: x with 2 of 3. In runs, m says y, y and z says x twice: m has a
    share for each of its two runs, its third vote weighs 1/2 as well, and z has a full one each.
    """
    row = one([("p", "a", "x"), ("p", "a", "x"), ("p", "b", "y")])
    assert (row["value"], row["weight_for"], row["weight_planned"]) == ("x", 2, 3)
    rows = [("p", "m0", "y", "m"), ("p", "m1", "y", "m"), ("p", "z", "x", None)]
    columns = ("item", "worker", "label", "model")
    row = one([*rows, rows[0], rows[2]], columns=columns)
    assert (row["value"], json.loads(row["weights"])) == ("x", {"x": 2.0, "y": 1.5})
    assert row["weight_planned"] == 3.5
    numbers = table([(item, who, "96"[said == "x"], of) for item, who, said, of in rows], columns)
    numbers = pd.concat([numbers, numbers.iloc[[0, 2]]])
    assert counting.average(numbers, "mean")["value"].tolist() == [
        "7.285714285714286"
    ]  # 25.5 / 3.5


@settings(max_examples=15)
@given(ROWS, st.integers(2, 4))
def test_votes_of_others_elsewhere_change_nothing(rows, n_runs):
    """Whether some model has runs on another item does not change what these votes decide."""
    votes = table(rows)
    others = table([("z", f"m{n}", "x", "m") for n in range(n_runs)], (*votes, "model"))
    both = pd.concat([votes.assign(model=votes["worker"]), others])
    counted = counting.count(both, ["x", "y"]).query("item != 'z'").reset_index(drop=True)
    alone = counting.count(votes, ["x", "y"])
    for one_table in (alone, counted):  # 1 and 1.0 are the same weight
        one_table["weights"] = one_table["weights"].map(json.loads, na_action="ignore")
    pd.testing.assert_frame_equal(alone, counted, check_dtype=False)


def test_rows_without_model_or_repeat_stand_for_their_worker():
    """Beside models with repeats, a person has neither, and still a vote."""
    rows = [("p", "ann", "x", None, None), ("p", "m0", "y", "m", "0"), ("p", "m0", "y", "m", "1")]
    votes = table(rows, ("item", "worker", "label", "model", "repeat"))
    assert polls.overview(votes)["n_voters"] == 2
    assert counting.count(votes)["status"].tolist() == ["tie"]


def test_weights_of_runs_by_their_model():
    """Each run of m weighs 2 when m does, unless the run is named itself."""
    rows = [("p", "m0", "y", "m"), ("p", "m1", "y", "m"), ("p", "n0", "x", "n")]
    votes = table(rows, ("item", "worker", "label", "model"))
    assert counting.panel(votes, {"m": 2.0}) == {"m": ("m", 2, 2.0), "n0": ("n", 1, 1.0)}
    apart = counting.panel(votes, {"m": 2.0, "m1": 3.0})
    assert apart == {"m0": ("m", 1, 2.0), "m1": ("m", 1, 3.0), "n0": ("n", 1, 1.0)}
    row = one(rows, (), {"m": 2.0}, columns=tuple(votes), per_run=True)
    assert (row["weight_for"], row["weight_planned"]) == (4, 5)
    assert counting.panel(votes.drop(columns="model"), {}) == {}


@pytest.mark.parametrize(
    ("combine", "said", "weight_of", "value", "n_for"),
    [
        ("mean", ["1", "2", "6"], {}, "3", 3),
        ("median", ["1", "2", "6"], {}, "2", 3),
        ("median", ["1", "2", "6"], {"c": 3.0}, "6", 3),
        ("mean", ["1", "2", "6"], {"c": 2.0}, "3.75", 3),
        ("mean", ["1", "many", "2"], {}, "1.5", 2),
        ("mean", ["1", "nan", "inf"], {}, None, 1),
        ("mean", ["0.1", "0.2", "0.3"], {}, "0.2", 3),
    ],
)
def test_numbers_are_averaged(combine, said, weight_of, value, n_for):
    """A weighted mean or median, exact; what is no finite number abstains."""
    votes = table([("p", worker, number) for worker, number in zip("abc", said, strict=True)])
    (row,) = counting.average(votes, combine, weight_of).to_dict("records")
    assert (row["n_for"], row["n_abstained"]) == (n_for, 3 - n_for)
    assert row["value"] == value if value else pd.isna(row["value"])


def test_runs_of_a_model_share_its_number():
    """m says 1 and 3 in two runs, n says 6: (1/2 + 3/2 + 6) / 2 = 4."""
    rows = [("p", "m0", "1", "m"), ("p", "m1", "3", "m"), ("p", "n0", "6", "n")]
    votes = table(rows, ("item", "worker", "label", "model"))
    assert counting.average(votes, "mean")["value"].tolist() == ["4"]


def test_strays_are_told_by_field():
    """Labels that are not declared, the most frequent first."""
    rows = [("p", "a", "x", "f"), ("p", "b", "9", "f"), ("q", "b", "9", "f"), ("p", "a", "8", "f")]
    votes = table(rows, ("item", "worker", "label", "field"))
    strays = counting.strays(votes, counting.declared(votes, {"f": ["x", "y"]}))
    assert strays[["label", "n_votes"]].to_numpy().tolist() == [["9", 2], ["8", 1]]


def test_a_missing_column_is_named():
    """With the columns that are there."""
    with pytest.raises(StudyError, match=r"no column item or task.*Columns there: thing"):
        counting.count(table([("p", "a", "x")], ("thing", "worker", "label")))


def test_too_many_runs_have_no_common_unit():
    """41 runs of a model cannot share its weight exactly."""
    rows = [("p", f"m{n}", "x", "m") for n in range(41)]
    with pytest.raises(StudyError, match="41 runs"):
        one(rows, columns=("item", "worker", "label", "model"))


def test_files_are_read_as_they_are(tmp_path):
    """CSV, gzipped CSV and Parquet give the same table; labels that look like numbers stay text."""
    votes = table([("1", "a", "007"), ("1", "b", "007"), ("2", "a", "7")])
    votes.to_csv(tmp_path / "v.csv", index=False)
    votes.to_csv(tmp_path / "v.csv.gz", index=False)
    votes.to_parquet(tmp_path / "v.parquet")
    found = [counting.count(tmp_path / f"v.{end}") for end in ("csv", "csv.gz", "parquet")]
    for one in found:
        pd.testing.assert_frame_equal(one, found[0])
    assert found[0]["value"].tolist() == ["007", "7"]
    counting.write(tmp_path / "v.parquet", tmp_path / "out.parquet")
    written = pd.read_parquet(tmp_path / "out.parquet").sort_values("item", ignore_index=True)
    assert written["value"].tolist() == ["007", "7"]
    assert list(written) == list(found[0])


def test_second_votes_and_labels_are_told():
    """a votes twice on p; two labels occur."""
    votes = table([("p", "a", "x"), ("p", "a", "y"), ("p", "b", "x")])
    assert polls.overview(votes)["n_repeated"] == 1
    assert polls.labels(votes)["n_votes"].tolist() == [2, 1]


@settings(max_examples=25)
@given(ROWS, st.data())
def test_order_and_names_change_nothing(rows, data):
    """Shuffled rows, renamed workers: the same table."""
    votes = table(rows)
    other = votes.iloc[data.draw(st.permutations(range(len(votes))))]
    other = other.replace({"worker": dict(zip("abcd", "zyxw", strict=True))})
    pd.testing.assert_frame_equal(
        counting.count(votes, ["x", "y"]), counting.count(other, ["x", "y"])
    )


@settings(max_examples=10)
@given(ROWS, st.sampled_from([1.0, 2.0, 0.75]), st.sampled_from([0.0, 0.25, 0.5]))
def test_counts_are_those_of_a_count_in_fractions(rows, weight, quorum):
    """Models m (workers a and b) and n (c and d, another weight), counted anew vote by vote."""
    votes = table(rows).drop_duplicates(["item", "worker"])
    votes = votes.assign(model=votes["worker"].map(dict(zip("abcd", "mmnn", strict=True))))
    heavy = {"m": Fraction(weight), "n": Fraction(1)}
    given_of = {name: float(heavy[name]) for name in votes["model"].unique()}
    runs = votes.groupby("model")["worker"].nunique()
    for row in counting.count(votes, ["x", "y"], given_of, quorum).to_dict("records"):
        mine = votes[votes["item"].eq(row["item"])]
        planned = sum(heavy[model] / int(runs[model]) for model in mine["model"])
        said = mine[mine["label"].isin(["x", "y"])]
        n_said, tally = said["model"].value_counts(), {"x": Fraction(), "y": Fraction()}
        for label, model in zip(said["label"], said["model"], strict=True):
            tally[label] += heavy[model] / int(n_said[model])
        answered, leader = sum(tally.values()), max(tally, key=tally.get)
        status = "tie" if tally["x"] == tally["y"] else "decided"
        status = status if answered > Fraction(quorum) * planned else "no_quorum"
        assert row["status"] == status
        assert (row["value"] == leader) == (status == "decided")
        weighed = float(answered), float(planned)
        assert (row["weight_answered"], row["weight_planned"]) == pytest.approx(weighed)


@settings(max_examples=12)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("pq"),
            st.sampled_from(["m0", "m1", "m2", "n0", "o0", "o1"]),
            st.sampled_from(["x", "y", "?"]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_labels_that_nobody_says_change_nothing(rows):
    """Two labels or forty: small panels are counted in another way, with the same result."""
    votes = table(rows).assign(model=[worker[0] for _, worker, _ in rows])
    many = ["x", "y", *(f"unused {n}" for n in range(38))]
    pd.testing.assert_frame_equal(
        counting.count(votes, ["x", "y"]), counting.count(votes, many), check_dtype=False
    )


def crowd(shared, name):
    """Votes and truth of a real set."""
    folder = shared / "data" / "votes" / name
    votes = pd.read_csv(folder / "votes.csv.gz", dtype=str)
    return votes, pd.read_csv(folder / "truth.csv", dtype=str)


def expected_accuracy(counted, truth):
    """The accuracy of the counted labels on the items with truth, ties worth their chance."""
    both = counted.merge(truth, on="item")
    chance = both["candidates"].map(json.loads, na_action="ignore")
    right = [
        (truth in leaders) / len(leaders) if isinstance(leaders, list) else float(value == truth)
        for value, leaders, truth in zip(both["value"], chance, both["truth"], strict=True)
    ]
    return sum(right) / len(right)


@pytest.mark.parametrize(
    ("name", "accuracy", "ties"),
    [
        ("d_product", 0.8966, 0.0),  # 3 votes on 2 labels cannot tie
        ("rte", 0.8969, 0.0813),
        ("s_rel", 0.5411, 0.2554),
        ("web", 0.7307, 0.2135),
    ],
)
def test_real_crowds(shared, name, accuracy, ties):
    """Majority votes on published crowd labels: their known accuracy and share of ties."""
    votes, truth = crowd(shared, name)
    counted = counting.count(votes)
    assert expected_accuracy(counted, truth) == pytest.approx(accuracy, abs=5e-5)
    assert counted["status"].eq("tie").mean() == pytest.approx(ties, abs=5e-5)


def test_the_rarer_label_of_a_real_crowd(shared):
    """Majority votes on the products that are the same: F1 .5905."""
    votes, truth = crowd(shared, "d_product")
    both = counting.count(votes).merge(truth, on="item")
    said, true = both["value"].eq("1"), both["truth"].eq("1")
    assert 2 * (said & true).sum() / (said.sum() + true.sum()) == pytest.approx(0.5905, abs=5e-5)


SETS = ["d_possent", "d_product", "llmjudge", "mediabias", "rte", "s_rel", "trec", "web"]


@pytest.mark.parametrize("name", SETS)
def test_shuffling_real_votes_changes_nothing(shared, name):
    """The same votes in another order give the same table: 0 labels change."""
    votes, _ = crowd(shared, name)
    pd.testing.assert_frame_equal(
        counting.count(votes), counting.count(votes.sample(frac=1, random_state=7))
    )


def test_stray_labels_of_real_judges(shared):
    """33 LLM judges gave exactly 3 of 145,959 votes outside the declared grades."""
    votes, truth = crowd(shared, "llmjudge")
    counted = counting.count(votes, labels=["0", "1", "2", "3"])
    assert (len(votes), counted["n_abstained"].sum()) == (145_959, 3)
    assert expected_accuracy(counted, truth) == pytest.approx(0.524, abs=5e-4)
    assert set(counted["value"].dropna()) <= {"0", "1", "2", "3"}


def test_a_panel_that_is_worse_than_its_strong_model(shared):
    """Weights 2:1:1:1 on one good judge and three equal runs of a weak one: .429 against .534."""
    votes, truth = crowd(shared, "llmjudge")
    weak = [f"NISTRetrieval-instruct{n}" for n in range(3)]
    strong = next(name for name in votes["worker"].unique() if "umbrela1" in name)
    panel = votes[votes["worker"].isin([strong, *weak])]
    counted = counting.count(panel, list("0123"), {strong: 2.0})
    alone = counting.count(votes[votes["worker"].eq(strong)], list("0123"))
    of_model = panel.assign(model=panel["worker"].str.replace(r"\d$", "", regex=True))
    (warning,) = weights.outvoted(counting.panel(of_model, {strong: 2.0}))
    assert "The 3 repeats of NISTRetrieval-instruct" in warning
    assert f"outvote {strong}" in warning
    assert expected_accuracy(counted, truth) == pytest.approx(0.429, abs=2e-3)
    assert expected_accuracy(alone, truth) == pytest.approx(0.534, abs=5e-4)
