"""Agreement: within a model and between models, and what the votes are worth."""

import making
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import agreement

STUDY = making.study({"mood": making.field()}, {"a": ("m-a", 3, 1.0), "b": ("m-b", 1, 1.0)})
THREE = making.study({"mood": making.field()})


def mood(item, **said):
    """The votes on the mood of one item."""
    return {(item, "mood"): said}


def said_by(voters):
    """Votes with a column each; voters: name -> its values on items 1, 2, 3..."""
    rows = [
        ("f", f"r{n}", name, value)
        for name, values in voters.items()
        for n, value in enumerate(values)
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["field", "item", "voter", "value"])


def test_a_model_has_one_vote_between_models():
    """Repeats calm, calm, angry say calm; calm, angry, missing have no leader and say nothing."""
    votes = making.votes(
        STUDY,
        {
            **mood("r1", a=["calm", "calm", "angry"], b="calm"),
            **mood("r2", a=["calm", "angry", None], b="angry"),
        },
    )
    table = agreement.collapsed(votes, STUDY)
    assert table[["item", "voter", "value"]].to_numpy().tolist() == [
        ["r1", "a", "calm"],
        ["r1", "b", "calm"],
        ["r2", "b", "angry"],
    ]


def test_only_repeats_speak_of_agreement_within():
    """The single vote of b has no other to agree with; as a slot it is there."""
    votes = making.votes(STUDY, mood("r1", a=["calm", "calm", None], b="calm"))
    assert agreement.slots(votes, STUDY)["voter"].tolist() == ["a 0", "a 1", "b 0"]
    assert set(agreement.alphas(votes, STUDY)["who"]) == {"a", agreement.BETWEEN}


def test_the_square_is_a_mean_over_fields():
    """Kappa 1 on 30 items and 0 on 10: .75; both ways, and 1 with oneself."""
    rows = [("f", "x", "y", 30, 1.0, 1.0, 1.0, 1.0), ("g", "x", "y", 10, 0.5, 0.0, 0.0, 0.0)]
    rows.append(("g", "x", "z", 10, 1.0, None, None, None))
    table = agreement.square(pd.DataFrame(rows, columns=agreement._KAPPA))
    assert table.loc["x", "y"] == table.loc["y", "x"] == 0.75
    assert table.loc["x", "x"] == 1.0
    assert np.isnan(table.loc["x", "z"])


def test_lists_and_texts_have_no_agreement():
    """Their values are not compared one by one; numbers are, by their distance."""
    study = making.study(
        {"who": making.field("entities"), "why": making.field("text"), "n": making.field("integer")}
    )
    votes = making.votes(
        study,
        {
            ("r1", "who"): {"a": "[]", "b": "[]", "c": "[]"},
            ("r1", "why"): {"a": "x", "b": "x", "c": "x"},
            ("r1", "n"): {"a": "1", "b": "2", "c": "10"},
            ("r2", "n"): {"a": "7", "b": "7", "c": "7"},
        },
    )
    table = agreement.alphas(votes, study)
    assert table[["field", "level", "n_items", "n_votes"]].to_numpy().tolist() == [
        ["n", "interval", 2, 6]
    ]


def test_ordered_values_are_a_scale():
    """Calm against angry weighs less than calm against mixed when the three are ordered."""
    study = making.study({"mood": making.field(ordered=True)})
    near = making.votes(
        study, {**mood("r1", a="calm", b="angry"), **mood("r2", a="mixed", b="mixed")}
    )
    far = making.votes(
        study, {**mood("r1", a="calm", b="mixed"), **mood("r2", a="angry", b="angry")}
    )
    (one,), (two,) = (agreement.alphas(votes, study)["alpha"] for votes in (near, far))
    assert one > two


def test_alphas_are_told_within_and_between():
    """The repeats of a always agree, a and b never do: 1 within, at most 0 between."""
    answers = {}
    for n, (one, other) in enumerate([("calm", "angry"), ("angry", "calm")] * 3):
        answers |= mood(f"r{n}", a=[one] * 3, b=other)
    table = agreement.alphas(making.votes(STUDY, answers), STUDY).set_index("who")
    assert table.loc["a", "alpha"] == 1.0
    assert table.loc[agreement.BETWEEN, "alpha"] < 0
    assert table.loc["a", ["n_items", "n_votes"]].tolist() == [6, 18]


def test_passages_of_a_document_are_drawn_together():
    """With documents the interval is wider than with items alone."""
    answers, documents = {}, []
    for n in range(60):
        kind = n // 20
        answers |= mood(f"d{kind}@{n}", a="calm", b=["calm", "angry", "calm"][kind], c="calm")
        documents.append((f"d{kind}@{n}", f"d{kind}"))
    votes = making.votes(THREE, answers)
    table = pd.DataFrame(documents, columns=["item", "document"])
    alone, together = agreement.alphas(votes, THREE), agreement.alphas(votes, THREE, table)
    assert alone["alpha"].tolist() == together["alpha"].tolist()
    widths = [(one["high"] - one["low"]).iloc[0] for one in (alone, together)]
    assert widths[1] > widths[0]


def test_kappa_by_hand():
    """20 both yes, 15 both no, 5 and 10 apart: agree .70, chance .5 * .6 + .5 * .4 = .50, kappa .40
    (the textbook table of Cohen's kappa).
    """
    one = ["yes"] * 25 + ["no"] * 25
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    (row,) = agreement.kappas(said_by({"x": one, "y": other})).to_dict("records")
    assert row["n_items"] == 50
    assert row["agree_share"] == pytest.approx(0.7)
    assert row["kappa"] == pytest.approx(0.4)
    assert row["low"] < 0.4 < row["high"]
    assert row["high"] - 0.4 == pytest.approx(1.96 * 0.1265, abs=0.01)


def test_the_interval_of_kappa_covers():
    """Of 400 samples from two voters whose true kappa is .6, about 95 % hold it."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(400):
        one = rng.integers(0, 2, 120)
        other = np.where(rng.random(120) < 0.8, one, 1 - one)
        found = agreement._kappa(np.histogram2d(one, other, bins=2)[0])
        hits += found[2] <= 0.6 <= found[3]
    assert 0.92 <= hits / 400 <= 0.98


def test_one_value_alone_has_no_kappa():
    """Both always say yes: they agree, and chance would too."""
    (row,) = agreement.kappas(said_by({"x": ["yes"] * 3, "y": ["yes"] * 3})).to_dict("records")
    assert row["agree_share"] == 1.0
    assert np.isnan(row["kappa"])


@given(st.lists(st.tuples(*[st.sampled_from("abc")] * 3), min_size=2, max_size=20), st.data())
def test_kappas_do_not_know_order_or_direction(rows, data):
    """Shuffled rows give the same table."""
    votes = said_by(dict(zip("xyz", zip(*rows, strict=True), strict=True)))
    order = data.draw(st.permutations(range(len(votes))))
    pd.testing.assert_frame_equal(agreement.kappas(votes), agreement.kappas(votes.iloc[order]))


@pytest.mark.parametrize(
    ("n", "rho", "worth"),
    [(3, 1.0, 1.0), (3, 0.0, 3.0), (3, -0.5, 3.0), (4, 0.5, 1.6), (1, 0.3, 1)],
)
def test_the_effective_number_of_votes(n, rho, worth):
    """m / (1 + (m - 1) rho), never more than m."""
    assert agreement.effective_votes(n, rho) == pytest.approx(worth)


def test_errors_that_come_together_correlate():
    """x and y are wrong on the same items: 1; z on the others: -1 with both; the mean is -1/3."""
    votes = said_by({"x": "aabb", "y": "aabb", "z": "bbaa"})
    truth = {("f", f"r{n}"): "a" for n in range(4)}
    assert agreement.error_correlation(votes, truth) == pytest.approx(-1 / 3)
    assert np.isnan(agreement.error_correlation(votes, {("f", "r0"): "a"}))


def test_the_worth_of_a_panel_says_its_basis():
    """With gold the errors correlate; without it kappa stands in, and few votes are warned of."""
    answers, truth = {}, {}
    for n, word in enumerate(["calm", "angry", "calm", "mixed"] * 5):
        answers |= mood(f"r{n}", a=[word] * 3, b=word)
        truth["mood", f"r{n}"] = word if n % 3 else "calm"
    votes = making.votes(STUDY, answers)
    by_gold = agreement.worth(votes, STUDY, truth).set_index("who")
    without = agreement.worth(votes, STUDY).set_index("who")
    assert by_gold["basis"].unique().tolist() == ["errors on gold"]
    assert without["basis"].unique().tolist() == ["kappa, no gold"]
    assert by_gold.loc["a", "n_effective"] == pytest.approx(1.0)
    assert "less than two" in by_gold.loc["a", "warning"]


def test_only_the_given_items_count():
    """As if the votes on all others did not exist: a run that asks while it matters has those that
    were asked in full.
    """
    answers = {}
    for n, (one, other) in enumerate([("calm", "angry"), ("angry", "angry"), ("calm", "calm")] * 4):
        answers |= mood(f"r{n:02}", a=[one, one, other], b=other)
    votes, items = making.votes(STUDY, answers), [f"r{n:02}" for n in range(6)]
    kept = votes[votes["item"].isin(items)]
    for measure in (agreement.collapsed, agreement.slots, agreement.alphas, agreement.worth):
        pd.testing.assert_frame_equal(measure(votes, STUDY, items=items), measure(kept, STUDY))
    assert agreement.worth(votes, STUDY, items=[]).empty
    assert agreement.alphas(votes, STUDY, items=[]).empty


def judges(shared):
    """33 LLM judges on four grades, their runs, and the truth."""
    folder = shared / "data" / "votes" / "llmjudge"
    votes = pd.read_csv(folder / "votes.csv.gz", dtype=str, keep_default_na=False)
    votes = votes.rename(columns={"worker": "voter", "label": "value"}).assign(field="f")
    votes = votes[votes["value"].isin(list("0123"))]
    truth = pd.read_csv(folder / "truth.csv", dtype=str)
    places = zip(["f"] * len(truth), truth["item"], strict=True)
    workers = pd.read_csv(folder / "workers.csv")
    return votes, dict(zip(places, truth["truth"], strict=True)), workers


def test_three_runs_of_one_judge_are_one_vote(shared):
    """The three runs with one prompt file: correlation .997, 1.00 effective votes."""
    votes, truth, workers = judges(shared)
    runs = workers.loc[workers["model"].eq("NISTRetrieval-instruct"), "worker"]
    rho = agreement.error_correlation(votes[votes["voter"].isin(runs)], truth)
    assert agreement.effective_votes(3, rho) == pytest.approx(1.00, abs=0.005)


def test_seven_teams_are_two_votes(shared):
    """The first submission of each team: 2.08 effective votes of seven."""
    votes, truth, workers = judges(shared)
    first = workers.groupby("variant")["worker"].first()
    rho = agreement.error_correlation(votes[votes["voter"].isin(first)], truth)
    assert agreement.effective_votes(7, rho) == pytest.approx(2.08, abs=0.005)
