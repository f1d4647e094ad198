"""Contests: names that compete, against every completion and what becomes of the names there."""

import itertools
import json

import making
import pandas as pd
import panels
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import consensus, decisive, entities
from lib.decisive import bounds
from lib.entities import overlaps, places

LISTS = ["[]", '["arthur"]', '["king arthur"]', '["arthur", "king arthur"]']
MORE = ["[]", '["arthur", "new"]', '["king arthur"]', '["arthur", "king arthur", "new"]']
WORDS = ["king", "arthur", "old", "of", "wales"]
NESTED = ["arthur", "king", "king arthur", "old king", "king arthur of wales", "wales"]
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
    """A study that asks for names, what some slots have said on three items, and by item every
    completion.
    """
    thresholds = st.sampled_from([None, 0.2, 0.5])
    fields = {name: making.field("entities", threshold=draw(thresholds)) for name in names}
    study = draw(panels.studies(fields, max_slots=5))
    known, more = panels.answers(study, LISTS), panels.answers(study, LISTS + MORE)
    by_item, every = {}, {}
    for item in "xyz":
        slots = draw(st.permutations(panels.slots(study)))
        n_open = draw(st.integers(1, 2 if len(names) == 1 else 1))
        some = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2))
        said = by_item[item] = {slot: draw(st.sampled_from(some)) for slot in slots[n_open:]}
        ways = itertools.product(more, repeat=len(slots[:n_open]))
        whole = (said | dict(zip(slots[:n_open], way, strict=True)) for way in ways)
        every |= {f"{item}/{n:04}": one for n, one in enumerate(whole)}
    return study, by_item, every


def steady(study, by_item, every):
    """The items of which every completion has one result."""
    ends = {item: set() for item in by_item}
    for name, result in decided(panels.table(study, every), study).items():
        ends[name[0]].add(result)
    return {item for item, said in by_item.items() if said and len(ends[item]) == 1}


@settings(max_examples=15)
@given(halves(["people"]))
def test_names_of_one_field_are_settled_exactly(half):
    """Where "Arthur" is never without "King Arthur", an item is settled exactly if each completion
    elects the same names and lets the same ones stay.
    """
    study, by_item, every = half
    found = bounds.settled(panels.table(study, by_item), study)
    assert found == steady(study, by_item, every)


@settings(max_examples=10)
@given(halves(["people", "places"]))
def test_names_of_two_fields_are_settled_safely(half):
    """A settled item has the same names in each of its fields, whatever is still said."""
    study, by_item, every = half
    found = bounds.settled(panels.table(study, by_item), study)
    assert not found or found <= steady(study, by_item, every)


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


@st.composite
def corpora(draw):
    """A study of names, perhaps with a condition; what all slots say on items; and their texts."""
    names = ["people", "places"][: draw(st.integers(1, 2))]
    threshold, when = st.sampled_from([None, 0.2, 0.5, 0.75]), draw(st.sampled_from([None, "seen"]))
    fields = {name: making.field("entities", threshold=draw(threshold)) for name in names}
    fields[names[-1]]["when"] = when
    seen = {"seen": making.field("boolean", prefer=draw(st.sampled_from([None, "false"])))}
    study = draw(panels.studies(fields | (seen if when else {}), max_slots=6))
    lists = st.lists(st.sampled_from(NESTED), max_size=4, unique=True).map(sorted).map(json.dumps)
    said, texts = {}, {}
    for item in ["r0", "r1", "r2", "r3"]:
        some = [dict.fromkeys(study.fields, (None, "refused"))]
        for _ in range(draw(st.integers(1, 3))):
            answer = {name: (draw(lists), None) for name in names}
            if when:
                answer["seen"] = draw(st.sampled_from(["true", "false"])), None
                if answer["seen"][0] == "false":
                    answer[names[-1]] = None, "not_applicable"
            some.append(answer)
        said[item] = {slot: draw(st.sampled_from(some)) for slot in panels.slots(study)}
        texts[item] = " ".join(draw(st.lists(st.sampled_from(WORDS), max_size=10)))
    order = draw(st.permutations(panels.slots(study)))
    return study, said, texts, order[: draw(st.integers(1, len(order)))]


def ends(votes, study, documents):
    """What is decided, with lists after overlaps, and the names that stay."""
    named = entities.settle(entities.voted(votes, study), documents, study)
    table = entities.listed(consensus.decide(votes, study), named)
    stays = named.loc[named["elected"], ["item", "field", "key", "also_in"]].fillna("")
    result = table[["item", "field", "status", "value", "candidates"]].fillna("")
    return result.to_numpy().tolist(), stays.to_numpy().tolist()


@settings(max_examples=8)
@given(corpora())
def test_settled_lists_are_those_of_all_votes_in_real_texts(corpus):
    """Names that hold each other, in texts that hold them or do not, perhaps in a field that does
    not apply: where items are settled, the lists after overlaps are those of all votes.
    """
    study, said, texts, known = corpus
    rows = [(item, item, 0, text) for item, text in texts.items()]
    documents = pd.DataFrame(rows, columns=["item", "document", "start", "text"])
    partly = {item: {slot: one[slot] for slot in known} for item, one in said.items()}
    settled = bounds.settled(panels.table(study, partly), study)
    every = panels.table(study, said)
    _, items, _ = bounds.places(every, study)
    in_time = [slot in known for slot in panels.slots(study)]
    asked = pd.DataFrame([in_time if item in settled else [True] * len(in_time) for item in items])
    spared = decisive.without(every, asked.to_numpy(bool), study)
    assert ends(every, study, documents) == ends(spared, study, documents)
