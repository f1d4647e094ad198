"""Alarm: the strong annotator decides alone, the weak ones only say where to look."""

import crowds
import making
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import alarm, consensus, gold, study, weights
from lib.errors import StudyError

FIELDS = {
    "relevant": making.field("boolean"),
    "mood": making.field(when="relevant"),
    "age": making.field("integer"),
    "note": making.field("text"),
    "people": making.field("entities"),
}
PANEL = {"strong": ("m-s", 1, 2.0), "weak": ("m-w", 3, 1.0), "other": ("m-o", 1, 1.0)}
WORDS = st.sampled_from(["calm", "angry", "mixed", None])


def panel(fields=FIELDS, annotators=PANEL, mode="alarm", kind="per_model", **voting):
    """A study with a panel of this mode."""
    of = making.study(fields, annotators, kind, **voting)
    changed = of.panels["p"].model_copy(update={"mode": mode})
    return of.model_copy(update={"panels": {"p": changed}})


def result(of, answers):
    """The consensus with alarms by (item, field)."""
    table = making.votes(of, answers)
    found = alarm.raised(table, consensus.decide(table, of), of)
    return found.set_index(["item", "field"])


def one_item(**said):
    """The votes on all fields of one item; what is not given is missing."""
    return {("r1", name): said.get(name, {}) for name in FIELDS}


@pytest.mark.parametrize("kind", ["per_model", "per_repeat"])
def test_the_strong_one_decides_against_all_others(kind):
    """Four votes say angry, the strong one calm: calm, with four alarms; where it is silent nothing
    is decided, whatever the others say.
    """
    of = panel({"mood": making.field()}, kind=kind)
    answers = {
        ("r1", "mood"): {"strong": "calm", "weak": ["angry"] * 3, "other": "angry"},
        ("r2", "mood"): {"strong": None, "weak": ["angry"] * 3, "other": "angry"},
        ("r3", "mood"): {"strong": "calm", "weak": ["calm", "mixed", None], "other": "calm"},
    }
    found = result(of, answers)
    assert found["status"].tolist() == ["decided", "no_quorum", "decided"]
    assert found["value"].tolist()[::2] == ["calm", "calm"]
    assert found["n_alarms"].tolist() == [4, 0, 1]
    assert found["n_against"].tolist() == [4, 0, 1]
    assert found["share"].tolist()[::2] == [1.0, 1.0]
    assert set(found["weight_planned"]) == {2.0}


def test_repeats_of_the_strong_one_vote_among_themselves():
    """Two of its three say calm; a split one and one with an abstention is a tie, not decided."""
    annotators = {"strong": ("m-s", 3, 2.0), "weak": ("m-w", 1, 1.0)}
    of = panel({"mood": making.field()}, annotators)
    answers = {
        ("r1", "mood"): {"strong": ["calm", "calm", "angry"], "weak": "angry"},
        ("r2", "mood"): {"strong": ["calm", "angry", None], "weak": "angry"},
    }
    found = result(of, answers)
    assert found["status"].tolist() == ["decided", "tie"]
    assert found["n_alarms"].tolist() == [1, 0]


def test_conditional_fields_follow_the_strong_one():
    """It says not relevant: mood does not apply, and the alarm is that of the condition."""
    said = {"strong": "n/a", "weak": ["calm"] * 3, "other": "calm"}
    relevant = {"strong": "false", "weak": ["true"] * 3, "other": "true"}
    found = result(panel(), one_item(relevant=relevant, mood=said))
    assert found.loc[("r1", "relevant"), "n_alarms"] == 4
    assert found.loc[("r1", "mood"), ["status", "n_alarms"]].tolist() == ["not_applicable", 0]


def test_numbers_and_texts():
    """The strong one's number and text stand; numbers outside those of its repeats are alarms."""
    annotators = {"strong": ("m-s", 2, 2.0), "weak": ("m-w", 3, 1.0)}
    of = panel(annotators=annotators)
    age = {"strong": ["30", "40"], "weak": ["30", "35", "41"]}
    found = result(of, one_item(age=age, note={"strong": "quiet", "weak": ["loud"] * 3}))
    assert found.loc[("r1", "age"), ["value", "spread", "n_alarms"]].tolist() == ["35", 10, 1]
    assert found.loc[("r1", "note"), ["value", "status"]].tolist() == ["quiet", "decided"]
    assert found.loc[("r1", "note"), "n_alarms"] == 0


def test_lists_are_those_of_the_strong_one():
    """Kay is elected and missed by two lists; Mark, whom four weak lists have, is not."""
    people = {
        "strong": '["kay"]',
        "weak": ['["kay", "mark"]', '["mark"]', '["kay"]'],
        "other": '["mark"]',
    }
    of, answers = panel(), one_item(people=people)
    votes = making.votes(of, answers)
    found = result(of, answers).loc[("r1", "people")]
    assert (found["value"], found["n_alarms"]) == ('["kay"]', 3)
    named = alarm.raised_names(votes, consensus.elected(votes, of), of)
    assert named[["key", "elected", "n_alarms"]].to_numpy().tolist() == [
        ["kay", True, 2],
        ["mark", False, 3],
    ]


def test_a_panel_that_votes_raises_no_alarms():
    """The column is there, and zero."""
    of = panel({"mood": making.field()}, mode="vote")
    found = result(of, {("r1", "mood"): {"strong": "calm", "weak": ["angry"] * 3}})
    assert found["n_alarms"].tolist() == [0]


def test_a_weak_one_alone_is_measured_by_its_own_votes():
    """Alone on a panel it is the strong one: its accuracy on gold can be compared."""
    of = panel({"mood": making.field()})
    votes = making.votes(of, {("r1", "mood"): {"strong": "calm", "weak": ["angry"] * 3}})
    alone = consensus.decide(votes[votes["annotator"].eq("weak")], gold.alone_on(of, "weak"))
    assert alone["value"].tolist() == ["angry"]


def test_weights_of_the_weak_are_zero():
    """In every table of weights; nobody outvotes the strong one, so nobody is warned."""
    of = panel(kind="per_repeat", annotators={"a": ("m", 1, 2.0), "b": ("n", 3, 1.0)})
    assert weights.weigh(of)["weight"].tolist() == [2.0, 0.0, 0.0, 0.0]
    assert weights.of_annotators(of)["units"].tolist()[1] == 0
    assert weights.warn(of) == []


@settings(max_examples=10)
@given(rows=st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS, WORDS), min_size=1), data=st.data())
def test_order_and_names_change_nothing(rows, data):
    """Shuffled votes and renamed annotators: the same values and alarms; and an item's value is
    that of the strong annotator alone.
    """
    of = panel({"mood": making.field()})
    answers = {
        (f"r{n}", "mood"): {"strong": row[0], "weak": list(row[1:4]), "other": row[4]}
        for n, row in enumerate(rows)
    }
    votes = making.votes(of, answers)
    names = {"strong": "zoe", "weak": "abe", "other": "mid"}
    renamed = panel({"mood": making.field()}, {names[name]: one for name, one in PANEL.items()})
    order = data.draw(st.permutations(range(len(votes))))
    others = votes.iloc[order].replace({"annotator": names})
    one, other = (
        alarm.raised(table, consensus.decide(table, by), by)
        for table, by in ((votes, of), (others, renamed))
    )
    pd.testing.assert_frame_equal(one, other)
    said = one.set_index("item")["value"].reindex([f"r{n}" for n in range(len(rows))])
    assert [None if pd.isna(value) else value for value in said] == [row[0] for row in rows]


@pytest.mark.parametrize(
    ("annotators", "words"),
    [
        ("a: {model: gpt-6-luna, weight: 2}", "with one annotator: nobody raises an alarm"),
        (
            "a: {model: gpt-6-luna, weight: 2}\n      b: {model: gpt-6.1-terra, weight: 2}",
            "a, b all have 2. Give a larger weight",
        ),
    ],
)
def test_a_panel_without_one_strong_annotator_is_refused(tmp_path, annotators, words):
    """With file and line, when the study is loaded."""
    text = f"""title: Moods
question: Which?
corpus: {{all: {{path: "*.txt"}}}}
fields: {{mood: {{type: boolean, description: Is it calm}}}}
panel: p
panels:
  p:
    mode: alarm
    annotators:
      {annotators}
"""
    (tmp_path / "study.yml").write_text(text, encoding="utf-8")
    (tmp_path / "prompt.md").write_text("Read.", encoding="utf-8")
    with pytest.raises(StudyError) as raised:
        study.load(tmp_path)
    assert words in str(raised.value)
    assert raised.value.line == 8


def test_weak_votes_tell_where_the_strong_one_errs(shared):
    """gpt-4 with three prompts of gpt-3.5: right in .908, .720, .745 and .594 where 3, 2, 1 and
    none of them agree; the last group holds 8 % of the items and 23 % of the errors.
    """
    workers = ["gpt_4@8-shot", "gpt_3_5@2-shot", "gpt_3_5@4-shot", "gpt_3_5@8-shot"]
    votes, labels, of = crowds.panel(shared, "mediabias", workers, weights={"gpt_4@8-shot": 2.0})
    changed = of.panels["p"].model_copy(update={"mode": "alarm"})
    of = of.model_copy(update={"panels": {"p": changed}})
    found = alarm.raised(votes, consensus.decide(votes, of), of)
    found = found[found["status"].eq("decided")]
    is_right = found["value"].eq(found["item"].map(labels.set_index("item")["value"]))
    right = is_right.groupby(found["n_alarms"]).mean()
    assert right.tolist() == pytest.approx([0.908, 0.720, 0.745, 0.594], abs=0.006)
    alone = found["n_alarms"].eq(3)
    assert alone.mean() == pytest.approx(0.08, abs=0.006)
    assert (alone & ~is_right).sum() / (~is_right).sum() == pytest.approx(0.235, abs=0.01)
