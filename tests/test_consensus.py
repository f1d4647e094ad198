"""Consensus: winners, ties, quorum and conditions, worked by hand and on real votes."""

import json
from collections import defaultdict
from fractions import Fraction

import making
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import consensus
from lib.errors import AccountingError

PANEL = {"terra": ("m-large", 1, 2.0), "luna": ("m-small", 3, 1.0)}
MOODS = ["calm", "angry", "mixed"]


def decided(study, by_annotator, field="mood"):
    """The consensus on one item and field."""
    return consensus.decide(making.votes(study, {("r1", field): by_annotator}), study).iloc[0]


def test_repeats_share_their_models_weight():
    """Terra (2) says calm, luna (1) angry, angry, mixed: 2 against 2/3 and 1/3.

    share = 2/3; margin = (2 - 2/3) / 3 = 4/9.
    """
    study = making.study(annotators=PANEL)
    row = decided(study, {"terra": "calm", "luna": ["angry", "angry", "mixed"]})
    assert (row["value"], row["status"]) == ("calm", "decided")
    assert row["share"] == pytest.approx(2 / 3)
    assert row["margin"] == pytest.approx(4 / 9)
    assert json.loads(row["weights"]) == pytest.approx({"angry": 2 / 3, "calm": 2, "mixed": 1 / 3})
    assert (row["n_for"], row["n_against"], row["n_abstained"]) == (1, 3, 0)
    assert (row["weight_for"], row["weight_answered"], row["weight_planned"]) == (2, 3, 3)


def test_per_repeat_lets_agreeing_repeats_win():
    """With 2:1:1:1 per repeat three repeats that agree have 3 against 2."""
    study = making.study(annotators=PANEL, weights="per_repeat")
    row = decided(study, {"terra": "calm", "luna": "angry"})
    assert (row["value"], row["weight_for"], row["weight_planned"]) == ("angry", 3, 5)


def test_answered_repeats_carry_the_whole_weight():
    """One of luna's repeats answers: it speaks for all of luna, 1 against 1 is a tie."""
    study = making.study(annotators={"terra": ("m", 1, 1.0), "luna": ("m", 3, 1.0)})
    row = decided(study, {"terra": "calm", "luna": ["angry", None, None]})
    assert (row["status"], json.loads(row["candidates"])) == ("tie", ["angry", "calm"])
    assert pd.isna(row["value"])
    assert (row["margin"], row["n_abstained"]) == (0, 2)


@pytest.mark.parametrize(
    ("prefer", "value"),
    [
        (None, None),
        ("angry", "angry"),
        ("mixed", None),  # not among the leaders
        ("schema order", "calm"),
        ("heaviest", "angry"),
    ],
)
def test_ties_are_decided_only_as_declared(prefer, value):
    """Angry from one annotator of 2, calm from two of 1: a tie, and each preference's answer."""
    panel = {"a": ("m", 1, 1.0), "b": ("m", 1, 1.0), "z": ("m", 1, 2.0)}
    study = making.study({"mood": making.field(prefer=prefer)}, panel)
    row = decided(study, {"a": "calm", "b": "calm", "z": "angry"})
    assert row["status"] == ("decided" if value else "tie")
    assert row["value"] == value if value else pd.isna(row["value"])


@pytest.mark.parametrize(
    ("quorum", "answered", "status"),
    [
        (0.5, 2, "no_quorum"),  # exactly half of 4 is not more than half
        (0.5, 3, "decided"),
        (0.0, 1, "decided"),
        (0.0, 0, "no_quorum"),
        (0.75, 3, "no_quorum"),
        (0.7, 3, "decided"),
    ],
)
def test_quorum(quorum, answered, status):
    """More than the quorum of the planned weight must answer; none at all is never enough."""
    panel = dict.fromkeys("abcd", ("m", 1, 1.0))
    study = making.study(annotators=panel, quorum=quorum)
    row = decided(study, dict.fromkeys("abcd"[:answered], "calm"))
    assert row["status"] == status
    assert pd.isna(row["value"]) == (status != "decided")


def test_fields_apply_where_their_condition_is_decided_as_true():
    """A field has a value only where its condition has been decided as true.

    r1: relevant by 2 of 3, and the two decide the mood. r2: not relevant, so that the one voice for
    a mood is not heard. r3: a single voice said true, the rest nothing: no quorum, and no mood.
    """
    fields = {"relevant": making.field("boolean"), "mood": making.field(when="relevant")}
    study = making.study(fields)
    table = making.votes(
        study,
        {
            ("r1", "relevant"): {"a": "true", "b": "true", "c": "false"},
            ("r1", "mood"): {"a": "angry", "b": "angry", "c": "n/a"},
            ("r2", "relevant"): {"a": "true", "b": "false", "c": "false"},
            ("r2", "mood"): {"a": "angry", "b": "n/a", "c": "n/a"},
            ("r3", "relevant"): {"a": "true"},
            ("r3", "mood"): {"a": "angry"},
        },
    )
    found = consensus.decide(table, study).set_index(["item", "field"])
    assert found["status"].to_dict() == {
        ("r1", "relevant"): "decided",
        ("r1", "mood"): "decided",
        ("r2", "relevant"): "decided",
        ("r2", "mood"): "not_applicable",
        ("r3", "relevant"): "no_quorum",
        ("r3", "mood"): "not_applicable",
    }
    assert found.loc[("r1", "mood"), "value"] == "angry"
    assert pd.isna(found.loc[("r2", "mood"), "value"])


@pytest.mark.parametrize(
    ("combine", "said", "value", "spread"),
    [
        ("mean", ["1", "2", "6"], "3", 5),
        ("median", ["1", "2", "6"], "2", 5),
        ("mean", ["1", "2", None], "1.5", 1),
        ("median", ["1", "2", None], "1.5", 1),
        ("mean", ["0.1", "0.2", "0.3"], "0.2", 0.2),
        ("mean", ["1", None, None], None, None),
    ],
)
def test_numbers_are_averaged(combine, said, value, spread):
    """A number's value is the weighted mean or median, with the spread of the votes beside it."""
    study = making.study({"age": making.field("number", combine=combine)})
    row = decided(study, dict(zip("abc", said, strict=True)), "age")
    assert row["status"] == ("decided" if value else "no_quorum")
    if value:
        assert (row["value"], row["spread"]) == (value, pytest.approx(spread))


def test_weights_count_in_means():
    """Terra's 10 at weight 2 and luna's 1, 4, 7 at a third each: (20 + 4) / 3 = 8."""
    study = making.study({"age": making.field("integer")}, PANEL)
    assert decided(study, {"terra": "10", "luna": ["1", "4", "7"]}, "age")["value"] == "8"


def test_texts_are_decided_only_when_equal():
    """Texts that differ are listed, none is chosen."""
    study = making.study({"summary": making.field("text")})
    assert decided(study, dict.fromkeys("abc", "Same."), "summary")["value"] == "Same."
    row = decided(study, {"a": "One.", "b": "Two.", "c": "One."}, "summary")
    assert (row["status"], json.loads(row["candidates"])) == ("listed", ["One.", "Two."])


def test_entity_lists_elect_their_keys():
    """Of three lists with equal weight a third elects; an empty list counts as an answer."""
    study = making.study({"people": making.field("entities")})
    row = decided(study, {"a": '["kay","arthur"]', "b": "[]", "c": '["kay"]'}, "people")
    assert json.loads(row["value"]) == ["arthur", "kay"]
    strict = making.study({"people": making.field("entities", threshold=0.5)})
    row = decided(strict, {"a": '["kay","arthur"]', "b": "[]", "c": '["kay"]'}, "people")
    assert json.loads(row["value"]) == ["kay"]
    row = decided(strict, {"a": "[]", "b": "[]", "c": "[]"}, "people")
    assert (row["status"], row["value"]) == ("decided", "[]")
    assert decided(strict, {"a": '["kay"]'}, "people")["status"] == "no_quorum"


def together(answers, prefer=None):
    """Whether one answer gave all that is decided on moods now and then; answers: one a voter."""
    fields = {
        "now": making.field(prefer=prefer),
        "then": making.field(),
        "age": making.field("number"),
    }
    study = making.study(fields)
    said = {
        ("r1", name): dict(zip("abc", (one[place] for one in answers), strict=True))
        for place, name in enumerate(("now", "then"))
    }
    found = consensus.decide(making.votes(study, {**said, ("r1", "age"): {}}), study)
    assert found["together"].nunique(dropna=False) == 1
    return found["together"].iloc[0]


def test_the_winners_may_never_have_occurred_together():
    """a: calm, angry; b: angry, calm; c: calm, calm: c gave both winners.

    With c: mixed, calm the first field is a tie, by which one winner is left, and says nothing. A
    preference for angry makes b's answer the winning one, and one for calm nobody's.
    """
    assert together([("calm", "angry"), ("angry", "calm"), ("calm", "calm")])
    assert together([("calm", "angry"), ("angry", "calm"), ("mixed", "calm")], prefer="angry")
    apart = [("calm", "angry"), ("angry", "calm"), ("mixed", "calm")]
    assert not together(apart, prefer="calm")
    assert pd.isna(together(apart))
    missing = [("calm", None), ("calm", "angry"), (None, "angry")]
    assert together(missing)


def test_votes_of_another_panel_are_refused():
    """A slot without a row, or an item without a field, stops the count."""
    study = making.study()
    table = making.votes(study, {("r1", "mood"): {"a": "calm"}})
    with pytest.raises(AccountingError, match="1 of them do not have one row"):
        consensus.decide(table.iloc[1:], study)
    larger = making.study({"mood": making.field(), "tone": making.field()})
    with pytest.raises(AccountingError, match="1 item fields instead of 2"):
        consensus.decide(table, larger)


def by_hand(table, study):
    """The consensus on closed fields in plain Python: (item, field) -> leaders or None."""
    shared = study.panels[study.panel].weights == "per_model"
    said = table[table["abstained"].isna()]
    repeats = said.groupby(["item", "field", "annotator"]).size()
    weights = defaultdict(lambda: defaultdict(Fraction))
    for row in said.itertuples():
        n = int(repeats[row.item, row.field, row.annotator]) if shared else 1
        weight = Fraction(study.annotators[row.annotator].weight) / n
        weights[row.item, row.field][row.value] += weight
    planned = sum(
        Fraction(a.weight) * (1 if shared else a.repeats) for a in study.annotators.values()
    )
    result = {}
    for place, by_value in weights.items():
        top = max(by_value.values())
        enough = sum(by_value.values()) > Fraction(study.voting.quorum) * planned
        result[place] = sorted(v for v, w in by_value.items() if w == top) if enough else None
    return result


@st.composite
def panels_and_votes(draw):
    """A random panel and random answers of it, missing ones among them."""
    n = draw(st.integers(1, 4))
    weights = st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0])
    panel = {f"a{i}": (f"m{i}", draw(st.integers(1, 4)), draw(weights)) for i in range(n)}
    mode = draw(st.sampled_from(["per_model", "per_repeat"]))
    study = making.study(
        annotators=panel, weights=mode, quorum=draw(st.sampled_from([0, 0.5, 0.75]))
    )
    values = st.sampled_from([*MOODS, None])
    answers = {
        (f"r{i}", "mood"): {
            name: draw(st.lists(values, min_size=one[1], max_size=one[1]))
            for name, one in panel.items()
        }
        for i in range(draw(st.integers(1, 4)))
    }
    return study, making.votes(study, answers)


@settings(max_examples=30)
@given(panels_and_votes())
def test_the_vote_is_the_vote_by_hand(panel):
    """Random panels, weights, repeats, abstentions: DuckDB and plain fractions agree exactly."""
    study, table = panel
    expected = by_hand(table, study)
    for row in consensus.decide(table, study).itertuples():
        leaders = expected.get((row.item, row.field))
        if leaders is None:
            assert row.status == "no_quorum"
        elif len(leaders) > 1:
            assert (row.status, json.loads(row.candidates)) == ("tie", leaders)
        else:
            assert (row.status, row.value) == ("decided", leaders[0])


@settings(max_examples=15)
@given(panels_and_votes(), st.randoms(use_true_random=False))
def test_order_and_names_do_not_matter(panel, random):
    """Shuffled rows and renamed annotators give the same table."""
    study, table = panel
    names = {name: f"z{n}" for n, name in enumerate(reversed(list(study.annotators)))}
    renamed = making.study(
        annotators={names[k]: (a.model, a.repeats, a.weight) for k, a in study.annotators.items()},
        weights=study.panels["p"].weights,
        quorum=study.voting.quorum,
    )
    order = list(range(len(table)))
    random.shuffle(order)
    other = table.iloc[order].assign(annotator=lambda t: t["annotator"].map(names))
    pd.testing.assert_frame_equal(consensus.decide(table, study), consensus.decide(other, renamed))


def test_parquet_and_memory_are_the_same(tmp_path):
    """A vote table on disk gives what the same table in memory gives."""
    study = making.study()
    table = making.votes(study, {("r1", "mood"): {"a": "calm", "b": "calm"}})
    table.to_parquet(tmp_path / "votes.parquet")
    pd.testing.assert_frame_equal(
        consensus.decide(tmp_path / "votes.parquet", study), consensus.decide(table, study)
    )
