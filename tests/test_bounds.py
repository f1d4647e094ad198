"""Bounds: against every completion that there is, and where they cannot be exact."""

import itertools

import making
import pandas as pd
import panels
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import consensus
from lib.decisive import bounds

# Beyond what was said: a name and a text that are new, and every name at once.
LISTS = [*panels.NAMES, '["guinevere"]', '["arthur", "guinevere", "merlin"]']
TEXTS = ("1", "2", "3")
RESULT = ["status", "value", "candidates"]


def completions(study, by_item, alternatives):
    """Every way in which the open slots could still answer, as items of one table of votes."""
    every = {}
    for item, said in by_item.items():
        free = [slot for slot in panels.slots(study) if slot not in said]
        ways = itertools.product(alternatives, repeat=len(free))
        whole = (said | dict(zip(free, way, strict=True)) for way in ways)
        every |= {f"{item}/{n:06}": one for n, one in enumerate(whole)}
    return every


def results(decided):
    """What is decided on each item, by field."""
    plain = decided[RESULT].astype("string").fillna("-").agg("|".join, axis=1)
    return plain.groupby(decided["item"], sort=False).agg(tuple)


@st.composite
def halves(draw):
    """A study and what some of its slots have said on four items."""
    study = draw(panels.studies())
    known = panels.answers(study)
    n_most = max(n for n in range(4) if len(known) ** n <= 150)
    by_item = {}
    for item in "wxyz":
        slots = draw(st.permutations(panels.slots(study)))
        free = slots[: min(draw(st.integers(0, 3)), n_most)]
        alike = draw(st.sampled_from([1, 2, len(known)]))
        some = draw(st.lists(st.sampled_from(known), min_size=alike, max_size=alike))
        by_item[item] = {slot: draw(st.sampled_from(some)) for slot in slots if slot not in free}
    return study, by_item


@settings(max_examples=25)
@given(halves())
def test_settled_is_what_no_completion_changes(half):
    """An item is settled exactly if all its completions, tried one by one, have one result; the
    smallest margin among them is the bound of each of its closed fields. Four items an example.
    """
    study, by_item = half
    every = completions(study, by_item, panels.answers(study, LISTS, TEXTS))
    decided = consensus.decide(panels.table(study, every), study)
    of_item = decided["item"].str[0]
    n_results = results(decided).groupby(lambda name: name[0]).nunique()
    votes = panels.table(study, by_item)
    found = bounds.judge(said := bounds.read(votes, study), study)
    assert set(said.items) == {item for item, slots in by_item.items() if slots}
    assert found.settled.tolist() == n_results[said.items].eq(1).tolist()
    least = decided[decided["status"].eq("decided")].groupby([of_item, "field"])["margin"].min()
    for (item, name), margin in least.items():
        place = said.items.get_indexer([item])[0]
        if place >= 0 and found.settled[place] and study.fields[name].allowed:
            assert found.margin_low[name][place] == pytest.approx(margin, abs=1e-12)


@settings(max_examples=8)
@given(halves(), st.randoms())
def test_order_and_names_of_annotators_do_not_matter(half, random):
    """Shuffled rows settle the same, and so does a panel whose annotators have other names."""
    study, by_item = half
    votes = panels.table(study, by_item)
    order = list(range(len(votes)))
    random.shuffle(order)
    other = {name: f"z-{chr(ord('z') - n)}" for n, name in enumerate(study.annotators)}
    panel = study.panels[study.panel]
    renamed = panel.model_copy(
        update={"annotators": {other[name]: one for name, one in study.annotators.items()}}
    )
    also = study.model_copy(update={"panels": {study.panel: renamed}})
    moved = votes.iloc[order].assign(annotator=votes["annotator"].map(other))
    assert bounds.settled(moved, also) == bounds.settled(votes, study)


@pytest.mark.parametrize("kind", ["integer", "number", "text"])
def test_open_sets_settle_only_without_a_quorum(kind):
    """Two of three say 3, the third may say anything: a number or a text is never settled; but two
    of three abstain: more than half of the weight cannot answer any more.
    """
    study = making.study({"n": making.field(kind)})
    three, failed = {"n": ("3", None)}, {"n": (None, "refused")}
    said = {
        "said": {("a", 0): three, ("b", 0): three},
        "none": {("a", 0): failed, ("b", 0): failed},
    }
    assert bounds.settled(panels.table(study, said), study) == {"none"}


def test_a_median_is_open_even_where_it_could_not_move():
    """Four of five say 3, so that the median is 3 in any case: here the bound is careful, because
    the spread that stands beside it may still change.
    """
    annotators = {name: (f"m-{name}", 1, 1.0) for name in "abcde"}
    study = making.study({"n": making.field("integer", combine="median")}, annotators)
    said = {(name, 0): {"n": ("3", None)} for name in "abcd"}
    assert bounds.settled(panels.table(study, {"x": said}), study) == set()


def test_two_thirds_of_a_repeat_are_worked_by_hand():
    """Terra (2) says calm, luna (1, three repeats) angry once: even luna's whole weight is less.

    calm 2 of 3 planned, angry at most 1: settled, and the margin is at least (2 - 1) / 3. With one
    repeat of luna alone, 1/3 <= 1/2 of the weight has answered: open.
    """
    study = making.study(annotators={"terra": ("l", 1, 2.0), "luna": ("s", 3, 1.0)})
    calm, angry = {"mood": ("calm", None)}, {"mood": ("angry", None)}
    said = {"two": {("terra", 0): calm, ("luna", 0): angry}, "one": {("luna", 0): angry}}
    votes = panels.table(study, said)
    assert bounds.settled(votes, study) == {"two"}
    low = bounds.margins(votes, study).set_index("item")["margin_low"]
    assert low["two"] == pytest.approx(1 / 3)
    assert pd.isna(low["one"])
