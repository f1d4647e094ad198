"""Contests: names that compete, against every completion and what becomes of the names there."""

import itertools

import making
import panels
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import consensus
from lib.decisive import bounds
from lib.entities import overlaps, places

LISTS = ["[]", '["arthur"]', '["king arthur"]', '["arthur", "king arthur"]']
MORE = ["[]", '["arthur", "new"]', '["king arthur"]', '["arthur", "king arthur", "new"]']
TEXT = "King Arthur came. King Arthur spoke to the new king."


def fates(votes, study):
    """By item the names that stay in each field, with the item's text as above."""
    named = consensus.elected(votes, study)
    found = places.find(TEXT, set(named["key"]))
    stays = dict.fromkeys(votes["item"], ())
    for item, rows in named[named["elected"]].groupby("item"):
        names = [overlaps.Name(row.field, row.key, row.share) for row in rows.itertuples()]
        ends = overlaps.fate(names, found, settles=study.voting.overlaps == "settle")
        kept = {at: one.also_in for at, one in ends.items() if one.status == "elected"}
        stays[item] = tuple(sorted((*at, also or "") for at, also in kept.items()))
    return stays


def decided(votes, study):
    """By item what is decided on each field, and the names that stay."""
    table = consensus.decide(votes, study)
    stays = fates(votes, study)
    words = (table["status"] + table["value"].fillna("")).groupby(table["item"]).agg(tuple)
    return {item: (said, stays[item]) for item, said in words.items()}


@st.composite
def halves(draw, names):
    """A study that asks for names, what some slots have said, and every completion."""
    thresholds = st.sampled_from([None, 0.2, 0.5])
    fields = {name: making.field("entities", threshold=draw(thresholds)) for name in names}
    study = draw(panels.studies(fields, max_slots=5))
    slots = draw(st.permutations(panels.slots(study)))
    n_open = draw(st.integers(1, 2 if len(names) == 1 else 1))
    some = draw(st.lists(st.sampled_from(panels.answers(study, LISTS)), min_size=1, max_size=2))
    said = {slot: draw(st.sampled_from(some)) for slot in slots[n_open:]}
    ways = itertools.product(panels.answers(study, LISTS + MORE), repeat=len(slots[:n_open]))
    every = [said | dict(zip(slots[:n_open], way, strict=True)) for way in ways]
    return study, said, {f"{n:04}": one for n, one in enumerate(every)}


@settings(deadline=None, max_examples=15)
@given(halves(["people"]))
def test_names_of_one_field_are_settled_exactly(half):
    """Where "Arthur" is never without "King Arthur", an item is settled exactly if each completion
    elects the same names and lets the same ones stay.
    """
    study, said, every = half
    results = decided(panels.table(study, every), study)
    found = bounds.settled(panels.table(study, {"x": said}), study)
    assert bool(found) == (bool(said) and len(set(results.values())) == 1)


@settings(deadline=None, max_examples=10)
@given(halves(["people", "places"]))
def test_names_of_two_fields_are_settled_safely(half):
    """A settled item has the same names in each of its fields, whatever is still said."""
    study, said, every = half
    if bounds.settled(panels.table(study, {"x": said}), study):
        assert len(set(decided(panels.table(study, every), study).values())) == 1


def test_an_order_that_may_turn_is_not_settled():
    """Five of six list both names, and one is open: both are elected whatever it says, but it can
    list one of them alone. With `overlaps: keep` nothing is left to decide.
    """
    annotators = {name: (f"m-{name}", 1, 1.0) for name in "abcdef"}
    for way, known in (("settle", set()), ("keep", {"x"})):
        study = making.study({"people": making.field("entities")}, annotators, overlaps=way)
        both = {"people": ('["arthur", "king arthur"]', None)}
        said = {"x": {(name, 0): both for name in "abcde"}}
        assert bounds.settled(panels.table(study, said), study) == known


def test_equal_shares_are_careful_where_the_longer_name_wins():
    """Five of six list "King Arthur", three of them "Arthur" too: 5/6 against at most 4/6."""
    annotators = {name: (f"m-{name}", 1, 1.0) for name in "abcdef"}
    study = making.study({"people": making.field("entities")}, annotators)
    one, both = ({"people": (value, None)} for value in ('["king arthur"]', LISTS[3]))
    said = {(name, 0): both if name in "abc" else one for name in "abcde"}
    assert bounds.settled(panels.table(study, {"x": said}), study) == {"x"}
