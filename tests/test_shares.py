"""Shares: Horvitz and Thompson by hand, strata, census, and what is no random sample."""

import making
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.gold import sampling, shares

FIELDS = {
    "relevant": making.field("boolean"),
    "mood": making.field(when="relevant"),
    "age": making.field("integer"),
}
STUDY = making.study(FIELDS)


def decided(values, field="relevant"):
    """What the panel says of the items i0, i1, ...: a value, or the word tie."""
    rows = [
        (f"i{n}", field, None if value == "tie" else value, "tie" if value == "tie" else "decided")
        for n, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["item", "field", "value", "status"])


def labelled(values, field="relevant"):
    """Labels by item."""
    rows = [(item, field, value) for item, value in values.items()]
    return pd.DataFrame(rows, columns=["item", "field", "value"])


def sample(items, strata, chances):
    """A stored sample."""
    return pd.DataFrame({"item": items, "stratum": strata, "probability": chances})


def row(table, value, by):
    """One row of the table."""
    [found] = table[table["value"].eq(value) & table["by"].eq(by)].to_dict("records")
    return found


def only(name):
    """The study with one field."""
    return making.study({name: FIELDS[name]})


def test_shares_by_hand():
    """Horvitz and Thompson: of stratum a 2 of 8 items are labelled (1 true), of b 2 of 2 (2 true).

    Each label of a stands for 4 items, each of b for 1: (4 + 2) / 10 = .6; counted alike it is .75.
    The votes are worth nothing within the strata, so both ways give the same.
    """
    panel = decided(["false"] * 8 + ["true"] * 2)
    labels = labelled({"i0": "true", "i1": "false", "i8": "true", "i9": "true"})
    drawn = sample(["i0", "i1", "i8", "i9"], list("aabb"), [0.25, 0.25, 1, 1])
    table = shares.table(panel, labels, drawn, only("relevant"))
    assert row(table, "true", "gold")["share"] == pytest.approx(0.6)
    assert row(table, "true", "both")["share"] == pytest.approx(0.6)
    assert row(table, "true", "votes")["share"] == pytest.approx(0.2)
    assert row(table, "true", "gold")["n_items"] == 4


def test_labels_that_are_missing_within_a_stratum():
    """Three of 8 were drawn of a, two are labelled: each stands for 4 items."""
    panel = decided(["false"] * 8 + ["true"] * 2)
    labels = labelled({"i0": "true", "i1": "false", "i8": "true", "i9": "true"})
    drawn = sample(["i0", "i1", "i2", "i8", "i9"], list("aaabb"), [3 / 8] * 3 + [1, 1])
    table = shares.table(panel, labels, drawn, only("relevant"))
    assert row(table, "true", "gold")["share"] == pytest.approx(0.6)


def test_a_census_is_counted():
    """When every item is labelled there is nothing to estimate, with or without a sample."""
    panel = decided(["true", "false", "false", "tie"])
    labels = labelled({"i0": "true", "i1": "true", "i2": "false", "i3": "false"})
    for drawn in (None, sample(["i0", "i1"], ["all"] * 2, [0.5] * 2)):
        table = shares.table(panel, labels, drawn, only("relevant"))
        for by in ("gold", "both"):
            found = row(table, "true", by)
            assert [found[x] for x in ("share", "low", "high")] == pytest.approx([0.5] * 3)


def test_undecided_items_are_a_class_of_their_own():
    """One tie of four: a quarter, so that the shares by votes are one together."""
    table = shares.table(decided(["true", "false", "false", "tie"]), labelled({}), None, STUDY)
    by_votes = table[table["by"].eq("votes") & table["field"].eq("relevant")]
    assert by_votes.set_index("value")["share"].to_dict() == {
        "true": 0.25,
        "false": 0.5,
        "(undecided)": 0.25,
    }


def test_items_to_which_a_field_does_not_apply_count():
    """Two of four items are relevant, one of them calm: calm are a quarter of all items."""
    panel = pd.concat([decided(["true", "true", "false", "false"]), decided(["calm"] * 4, "mood")])
    labels = pd.concat(
        [
            labelled({"i0": "true", "i1": "true", "i2": "false", "i3": "false"}),
            labelled({"i0": "calm", "i1": "angry"}, "mood"),
        ]
    )
    table = shares.table(panel, labels, None, STUDY)
    found = table[table["field"].eq("mood")]
    assert row(found, "calm", "gold")["share"] == pytest.approx(0.25)
    assert row(found, "calm", "gold")["n_items"] == 4


def test_labels_that_nobody_drew_give_no_interval():
    """A share of chosen items is shown without bounds, and nothing by both, and we are told."""
    panel, labels = decided(["true"] * 6), labelled({"i0": "true", "i1": "false"})
    table = shares.table(panel, labels, None, only("relevant"))
    assert np.isnan(row(table, "true", "gold")["low"])
    assert not table["by"].eq("both").any()
    said = shares.sentence(panel, labels, None)
    assert said.startswith("Labelled: 2 of 6 items, which nobody drew at random: there is no valid")
    wide = shares.side_by_side(table)
    assert wide["gold alone"].tolist() == [*["50.0 % of 2 labelled items"] * 2, "-"]


def test_a_stratum_without_a_label_gives_no_interval():
    """Nobody knows anything of stratum b yet."""
    panel, labels = decided(["true"] * 6), labelled({"i0": "true", "i1": "false"})
    drawn = sample(["i0", "i1", "i4", "i5"], list("aabb"), [0.5, 0.5, 1, 1])
    table = shares.table(panel, labels, drawn, only("relevant"))
    assert np.isnan(row(table, "true", "gold")["low"])
    assert "no drawn item of the stratum 'b' is labelled yet" in shares.sentence(
        panel, labels, drawn
    )


def test_labels_beside_the_sample_do_not_count():
    """i5 is labelled and was not drawn: the share is that of i0 and i1; the sentence says it."""
    panel = decided(["true"] * 6)
    labels = labelled({"i0": "true", "i1": "true", "i5": "false"})
    drawn = sample(["i0", "i1"], ["all"] * 2, [1 / 3] * 2)
    table = shares.table(panel, labels, drawn, only("relevant"))
    assert row(table, "true", "gold")["share"] == 1.0
    said = shares.sentence(panel, labels, drawn, n_stale=1)
    assert said == (
        "Labelled: 2 of 2 drawn items. Labels on 1 item that nobody drew do not count. "
        "Labels on 1 drawn text that changed since do not count. "
        "At least 100 are recommended: these intervals are wide."
    )


def test_means_of_numbers():
    """The panel says 10 everywhere, people say 12 and 14 on two of four: the mean is 13."""
    panel = decided(["10", "10", "10", "10"], "age")
    drawn = sample(["i0", "i1"], ["all"] * 2, [0.5] * 2)
    table = shares.table(panel, labelled({"i0": "12", "i1": "14"}, "age"), drawn, only("age"))
    assert row(table, "(mean)", "votes")["share"] == 10
    assert row(table, "(mean)", "both")["share"] == pytest.approx(13)
    low, high = (row(table, "(mean)", "both")[end] for end in ("low", "high"))
    assert low < 12
    assert high > 14


def test_weights_for_accuracy():
    """A label of a stands for 4 items, one of b for 1: weights 1.6 and .4, their mean 1."""
    items = pd.Index([f"i{n}" for n in range(10)])
    labels = labelled({"i0": "true", "i1": "true", "i8": "true", "i9": "true", "i5": "true"})
    drawn = sample(["i0", "i1", "i8", "i9"], list("aabb"), [0.25, 0.25, 1, 1])
    weighed = shares.weighed(labels, drawn, items).set_index("item")["weight"]
    assert weighed.to_dict() == pytest.approx({"i0": 1.6, "i1": 1.6, "i8": 0.4, "i9": 0.4})
    assert shares.weighed(labels, None, items)["weight"].eq(1).all()


@settings(max_examples=25)
@given(st.randoms(use_true_random=False), st.integers(4, 20))
def test_order_changes_nothing(random, n):
    """Shuffled items, labels and sample give the same table."""
    values = [random.choice(["true", "false", "tie"]) for _ in range(30)]
    panel, strata = decided(values), pd.Series(values, index=[f"i{k}" for k in range(30)])
    drawn = sampling.draw(strata, max(n, 6))
    labels = labelled({item: random.choice(["true", "false"]) for item in drawn["item"]})
    parts = (panel, labels, drawn)
    mixed = (part.sample(frac=1, random_state=random.randint(0, 99)) for part in parts)
    one, other = (shares.table(*some, only("relevant")) for some in (parts, mixed))
    pd.testing.assert_frame_equal(one, other)


def test_no_items_no_labels():
    """Empty tables have a sentence and no row that could be taken for a finding."""
    table = shares.table(decided([]), labelled({}), None, STUDY)
    assert table["share"].isna().all()
    assert shares.side_by_side(table)["votes alone (naive)"].eq("-").all()
    assert shares.most_common(table).empty
    assert "gold does not correct" in shares.finding(table)
    assert shares.sentence(decided(["true"]), labelled({}), None).startswith("There is no gold")
    assert shares.sentence(decided([]), labelled({}), None).startswith("No field has declared")
    lists = making.study({"people": making.field("entities")})
    assert shares.side_by_side(shares.table(decided([]), labelled({}), None, lists)).empty


def test_side_by_side_for_people():
    """A row a value in the order of the study, each way of counting as text."""
    panel = decided(["false"] * 8 + ["true"] * 2)
    labels = labelled({"i0": "true", "i1": "false", "i8": "true", "i9": "true"})
    drawn = sample(["i0", "i1", "i8", "i9"], list("aabb"), [0.25, 0.25, 1, 1])
    table = shares.table(panel, labels, drawn, only("relevant"))
    wide = shares.side_by_side(table)
    assert wide["value"].tolist() == ["true", "false", "(undecided)"]
    assert wide["votes alone (naive)"][0] == "20.0 % (0.0 to 44.8)"
    assert wide["votes and gold"].tolist()[2] == "-"
    shown = shares.most_common(table, most=1)
    assert shown[["label", "by"]].to_numpy().tolist() == [
        ["relevant: true", "votes"],
        ["relevant: true", "both"],
    ]
    assert shares.finding(table).startswith("For 0 of 2 values gold rules out")


@pytest.mark.parametrize("share", [0.3, 0.05])
def test_stratified_intervals_hold_the_truth(share):
    """Equal numbers from what the panel says, of 4,000 items: 300 samples of 120 labels each hold
    the true share in at least 92 %, and equal weights would miss it far more often.
    """
    rng = np.random.default_rng(7)
    true = rng.random(4000) < share
    says = np.where(rng.random(4000) < 0.15, ~true, true)
    panel = decided(np.where(says, "true", "false"))
    strata = pd.Series(np.where(says, "yes", "no"), index=panel["item"])
    by_stratum = {name: part.index.to_numpy() for name, part in strata.groupby(strata)}
    truth = pd.Series(true, index=panel["item"])
    held = naive = 0
    for _ in range(300):
        items = [item for part in by_stratum.values() for item in rng.choice(part, 60, False)]
        chance = [60 / len(by_stratum[name]) for name in strata[items]]
        labels = truth[items].to_numpy(dtype=float)
        said = strata[items].eq("yes").to_numpy(dtype=float)
        found = shares.prevalence.of_votes_and_gold(
            labels, said, says.astype(float), chance, strata[items].to_numpy(dtype="str")
        )
        held += found.low <= true.mean() <= found.high
        alike = shares.prevalence.of_gold(labels)
        naive += alike.low <= true.mean() <= alike.high
    assert held / 300 >= 0.92
    assert naive / 300 < 0.6
