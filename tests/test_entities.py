"""Entities: election, attributes, the index of a corpus, and scores against gold."""

import itertools
import json
import re

import making
import pandas as pd
import pytest
from hypothesis import given as given_of
from hypothesis import settings
from hypothesis import strategies as st

from lib import consensus, entities
from lib.entities import duplicates, places
from lib.errors import AccountingError
from lib.votes import entity_key

PEOPLE = {"role": {"description": "-"}, "year": {"description": "-", "type": "integer"}}
PEOPLE |= {"kin": {"description": "-", "type": "names"}}


def study(panel=None, **more):
    """A study that asks for people."""
    return making.study({"people": making.field("entities", attributes=PEOPLE, **more)}, panel)


def said(of_study, answers):
    """Votes and mentions; answers: item -> annotator -> list of (name, attributes), or None."""
    lists, rows = {}, []
    for item, by_annotator in answers.items():
        lists[item, "people"] = {}
        for annotator, named in by_annotator.items():
            keys = sorted({name.lower() for name, _ in named}) if named is not None else None
            lists[item, "people"][annotator] = keys if keys is None else json.dumps(keys)
            seen = []
            for name, attributes in named or []:
                key, weight = name.lower(), of_study.annotators[annotator].weight
                text = json.dumps(attributes)
                rows.append(
                    (item, "people", key, name, annotator, 0, seen.count(key), weight, text)
                )
                seen.append(key)
    names = ["item", "field", "key", "name", "annotator", "repeat", "n", "weight", "attributes"]
    return making.votes(of_study, lists), pd.DataFrame(rows, columns=names)


def elected(of_study, answers):
    """The entities of these answers by key."""
    votes, mentions = said(of_study, answers)
    return entities.elect(mentions, votes, of_study).set_index("key")


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [(1 / 3, ["arthur", "kay", "mark"]), (0.34, ["arthur", "kay"]), (0.5, ["arthur", "kay"])],
)
def test_a_third_elects(threshold, kept):
    """Of three answers one third names Mark: 1/3 in floats elects, anything above does not."""
    answers = {
        "i1": {
            "a": [("Arthur", {}), ("Kay", {})],
            "b": [("Arthur", {}), ("Kay", {}), ("Mark", {})],
            "c": [("Arthur", {})],
        }
    }
    found = elected(study(threshold=threshold), answers)
    assert list(found.index[found["elected"]]) == kept
    assert found.loc["mark", ["share", "n_votes"]].tolist() == [pytest.approx(1 / 3), 1]


def test_empty_lists_answer_and_missing_ones_do_not():
    """Kay has 1 of 2 where one says nobody; 1 of 1 without quorum elects nobody."""
    answers = {
        "i1": {"a": [("Kay", {})], "b": [], "c": None},
        "i2": {"a": [("Kay", {})], "b": None, "c": None},
    }
    found = elected(study(), answers).set_index("item")
    assert found["share"].to_dict() == {"i1": 0.5, "i2": 1.0}
    assert found["elected"].to_dict() == {"i1": True, "i2": False}


def test_names_and_attributes_are_voted_on():
    """Weights 2, 1, 1 on King Mark.

    Role: king 2 against duke 1 and unknown 1. Year: 500 (2) against 510 (1 + 1) is a tie, so null.
    Kin: Tristan is named by 3 of 4, Isolde by 1. The spelling King Mark stands twice.
    """
    panel = {"a": ("m", 1, 2.0), "b": ("m", 1, 1.0), "c": ("m", 1, 1.0)}
    answers = {
        "i1": {
            "a": [("King Mark", {"role": "King", "year": 500, "kin": ["Tristan"]})],
            "b": [("king mark", {"role": "duke", "year": 510, "kin": ["tristan", "Isolde"]})],
            "c": [("King Mark", {"role": None, "year": 510, "kin": []})],
        }
    }
    row = elected(study(panel), answers).loc["king mark"]
    assert row["name"] == "King Mark"
    assert json.loads(row["attributes"]) == {"role": "King", "year": None, "kin": ["Tristan"]}


def test_a_name_given_twice_is_one_vote():
    """Two Richards in one answer are one vote for the key; the first of them describes it."""
    answers = {
        "i1": {
            "a": [("Richard", {"role": "king"}), ("Richard", {"role": "duke"})],
            "b": [],
            "c": [],
        }
    }
    row = elected(study(), answers).loc["richard"]
    assert (row["n_votes"], row["share"]) == (1, pytest.approx(1 / 3))
    assert json.loads(row["attributes"])["role"] == "king"


def test_order_does_not_matter():
    """Shuffled votes and mentions elect the same entities."""
    of_study = study()
    answers = {
        f"i{n}": {
            "a": [("Kay", {"role": "x"})],
            "b": [("KAY", {"role": "y"}), ("Lot", {})],
            "c": [],
        }
        for n in range(5)
    }
    votes, mentions = said(of_study, answers)
    shuffled = [table.sample(frac=1, random_state=3) for table in (mentions, votes)]
    pd.testing.assert_frame_equal(
        entities.elect(mentions, votes, of_study), entities.elect(*shuffled, of_study)
    )


def table(rows):
    """Elected entities: (item, key, name, attributes, votes)."""
    names = ["item", "key", "name", "attributes", "n_votes"]
    return pd.DataFrame(rows, columns=names).assign(field="people", elected=True, simulated=False)


def test_the_index_merges_with_a_trace():
    """Richard is a king in two items (3 + 1 votes) and a duke in one (2): king, and duke is kept.

    His kin are united. Mentions count votes, documents are listed, and Richard Lion may be him.
    """
    found = table(
        [
            ("d1@001", "richard", "Richard", '{"role": "king", "kin": ["Henry"]}', 3),
            ("d1@002", "richard", "RICHARD", '{"role": "duke", "kin": ["John"]}', 2),
            ("d2", "richard", "Richard", '{"role": "King", "kin": []}', 1),
            ("d2", "richard lion", "Richard Lion", '{"role": null, "kin": []}', 1),
            ("d2", "john", "John", "{}", 1),
        ]
    )
    documents = pd.DataFrame({"item": ["d1@001", "d1@002", "d2"], "document": ["d1", "d1", "d2"]})
    index = entities.merge(found, documents, study()).set_index("key")
    row = index.loc["richard"]
    assert (row["name"], row["n_mentions"], row["n_items"], row["n_documents"]) == (
        "Richard",
        6,
        3,
        2,
    )
    assert json.loads(row["attributes"]) == {"role": "king", "kin": ["Henry", "John"]}
    assert json.loads(row["losing_values"]) == {"role": [["duke", 2]]}
    assert json.loads(row["documents"]) == ["d1", "d2"]
    assert json.loads(row["possible_duplicates"]) == ["richard lion"]
    assert json.loads(index.loc["richard lion", "possible_duplicates"]) == ["richard"]
    assert json.loads(index.loc["john", "possible_duplicates"]) == []


def test_an_attribute_that_ties_over_the_corpus_keeps_both_values():
    """One item says king, one says duke: neither wins and both stay."""
    found = table(
        [(f"d{n}", "mark", "Mark", f'{{"role": "{r}"}}', 1) for n, r in enumerate(["a", "b"])]
    )
    documents = pd.DataFrame({"item": ["d0", "d1"], "document": ["d0", "d1"]})
    row = entities.merge(found, documents, study()).iloc[0]
    assert json.loads(row["attributes"]) == {"role": None}
    assert json.loads(row["losing_values"]) == {"role": [["a", 1], ["b", 1]]}


def test_nothing_elected_is_an_empty_index():
    """A corpus without entities has an index with all columns and no rows."""
    none = table([]).astype({"elected": bool})
    documents = pd.DataFrame({"item": ["d0"], "document": ["d0"]})
    index = entities.merge(none, documents, study())
    assert index.empty
    assert {"aliases", "conflicting", "possible_duplicates"} <= set(index)


def test_scores_against_gold():
    """Gold: i1 Arthur, Sir Kay; i2 nobody; i3 is not in the gold.

    Found: Arthur, Kay in i1, Lot in i2. Strict: 1 of 3 found is right, 1 of 2 is recalled:
    P 1/3, R 1/2, F1 0.4. Relaxed: Kay is Sir Kay: P 2/3, R 1, F1 0.8.
    """
    found = table(
        [
            ("i1", "arthur", "", "{}", 1),
            ("i1", "kay", "", "{}", 1),
            ("i2", "lot", "", "{}", 1),
            ("i3", "mark", "", "{}", 1),
        ]
    )
    rows = [("i1", "people", "ARTHUR"), ("i1", "people", "Sir Kay"), ("i2", "people", "")]
    gold = pd.DataFrame(rows, columns=["item", "field", "value"])
    scores = entities.score(found, gold)
    assert scores["field"].tolist() == ["all", "all", "people", "people"]
    scores = scores.drop(columns="field").drop_duplicates().set_index("match")
    names = ["n_items", "n_gold", "n_found", "n_right", "precision", "recall", "f1"]
    assert scores.loc["strict", names].tolist() == pytest.approx([2, 2, 3, 1, 1 / 3, 1 / 2, 0.4])
    assert scores.loc["relaxed", names].tolist() == pytest.approx([2, 2, 3, 2, 2 / 3, 1, 0.8])


def texts(**by_item):
    """Documents of these texts; an item's document is the part of its id before "@"."""
    rows = [(item, item.split("@")[0], 0, text) for item, text in by_item.items()]
    return pd.DataFrame(rows, columns=["item", "document", "start", "text"])


def given(*rows):
    """Names as `elect` gives them: (item, field, key, share); half of the weight elects."""
    table = pd.DataFrame(rows, columns=["item", "field", "key", "share"])
    status = table["share"].ge(0.5).map({True: "elected", False: "below_threshold"})
    shown = {"name": table["key"].str.title(), "status": status, "n_votes": 1, "simulated": False}
    return table.assign(**shown, elected=table["share"].ge(0.5), attributes="{}")


def fates(named, documents, of_study=None):
    """What became of each name: its status and who won."""
    table = entities.settle(named, documents, of_study or study())
    told = table[["status", "lost_to"]].astype(object).where(table["lost_to"].notna(), "")
    keys = zip(table["field"], table["key"], strict=True)
    told = zip(table["status"], told["lost_to"], strict=True)
    return dict(zip(keys, told, strict=True))


WON = ("elected", "")


@pytest.mark.parametrize(
    ("short", "long", "expected"),
    [
        (0.5, 0.75, {"arthur": ("overlap", "king arthur"), "king arthur": WON}),
        (0.75, 0.5, {"arthur": WON, "king arthur": ("overlap", "arthur")}),
        (0.5, 0.5, {"arthur": ("overlap", "king arthur"), "king arthur": WON}),
        (0.25, 0.5, {"arthur": ("below_threshold", ""), "king arthur": WON}),
    ],
)
def test_names_for_the_same_words_compete(short, long, expected):
    """Arthur is never without King: the larger share stays, the longer of equal ones.

    A name that the votes did not elect competes with nobody.
    """
    named = given(("i", "people", "arthur", short), ("i", "people", "king arthur", long))
    found = fates(named, texts(i="Then came King Arthur, and King  ARTHUR sat."))
    assert {key: fate for (_, key), fate in found.items()} == expected


@pytest.mark.parametrize(
    "text",
    ["King Arthur came. Arthur sat.", "Nobody came.", "Arthur and the king came."],
)
def test_names_that_stand_alone_somewhere_do_not_compete(text):
    """Arthur also stands alone, or nowhere at all: both names stay."""
    named = given(("i", "people", "arthur", 0.5), ("i", "people", "king arthur", 0.75))
    assert set(fates(named, texts(i=text)).values()) == {WON}


def test_names_of_different_lists_may_hold_each_other():
    """Cornwall is a place, the Duke of Cornwall a person: both stay."""
    named = given(("i", "places", "cornwall", 0.5), ("i", "people", "duke of cornwall", 0.75))
    assert set(fates(named, texts(i="The Duke of Cornwall rose.")).values()) == {WON}


@pytest.mark.parametrize(
    ("person", "place", "expected"),
    [
        (0.5, 0.75, [("other_field", "places"), WON]),
        (0.75, 0.5, [WON, ("other_field", "people")]),
        (0.75, 0.75, [WON, WON]),
        (0.25, 0.5, [("below_threshold", ""), WON]),
    ],
)
def test_a_name_in_two_lists_stays_where_its_share_is_larger(person, place, expected):
    """Camelot as person and as place; equal shares keep both and say so in also_in."""
    named = given(("i", "people", "camelot", person), ("i", "places", "camelot", place))
    documents = texts(i="To Camelot!")
    assert list(fates(named, documents).values()) == expected
    also_in = entities.settle(named, documents, study())["also_in"]
    both = ["places", "people"] if person == place else [None, None]
    assert also_in.astype(object).where(also_in.notna(), None).tolist() == both


def test_overlaps_can_be_kept():
    """`voting: {overlaps: keep}`: all elected names stay, and places are counted all the same."""
    named = given(("i", "people", "arthur", 0.5), ("i", "people", "king arthur", 0.75))
    named = pd.concat([named, given(("i", "places", "arthur", 0.75))], ignore_index=True)
    keeping = making.study({"people": making.field("entities")}, overlaps="keep")
    table = entities.settle(named, texts(i="King Arthur"), keeping)
    assert table["status"].eq("elected").all()
    assert table["n_places"].tolist() == [1, 1, 1]


def test_a_name_that_is_not_in_the_text_is_told():
    """Mordred was invented: 0 places, and Arthur's men are Arthur but Arthurians are not."""
    named = given(("i", "people", "mordred", 0.75), ("i", "people", "arthur", 0.75))
    table = entities.settle(named, texts(i="Arthur's men, no Arthurians, ARTHUR"), study())
    assert table.set_index("key")["n_places"].to_dict() == {"mordred": 0, "arthur": 2}


def test_an_item_without_text_is_an_error():
    """Names on an item that documents do not have cannot be looked for."""
    with pytest.raises(AccountingError, match=r"1 name stands on items .* such as 'i2'"):
        entities.settle(given(("i2", "people", "kay", 0.5)), texts(i="Kay"), study())


NAMES = ["arthur", "king arthur", "king arthur of britain", "britain", "of britain", "king", "lot"]
WORDS = ["King", "Arthur", "of", "Britain", "Lot", "and"]


@settings(max_examples=100)
@given_of(
    st.lists(
        st.tuples(
            st.sampled_from(["people", "places"]),
            st.sampled_from(NAMES),
            st.sampled_from([0.25, 0.5, 0.75, 1.0]),
        ),
        unique_by=lambda row: row[:2],
        min_size=1,
    ),
    st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join),
    st.randoms(use_true_random=False),
)
def test_overlaps_are_settled_once_and_in_any_order(rows, text, random):
    """Any names on any text: order does not matter, settling twice changes nothing, nothing
    vanishes, and no elected name loses to one that is not elected."""
    named, documents = given(*[("i", *row) for row in rows]), texts(i=text)
    once = entities.settle(named, documents, study())
    assert len(once) == len(named)
    assert set(once["status"]) <= {"elected", "below_threshold", "overlap", "other_field"}
    assert once["elected"].eq(once["status"].eq("elected")).all()
    again = entities.settle(once, documents, study())
    pd.testing.assert_frame_equal(again.drop(columns="also_in"), once.drop(columns="also_in"))
    shuffled = named.sample(frac=1, random_state=random.randrange(1000))
    other = entities.settle(shuffled, documents, study()).sort_index()
    pd.testing.assert_frame_equal(other, once)
    fate = once.set_index(["field", "key"])
    for row in once[once["status"].eq("overlap")].itertuples():
        assert fate.loc[(row.field, row.lost_to), "status"] in ("elected", "other_field")
        assert fate.loc[(row.field, row.lost_to), "share"] >= row.share


def test_the_consensus_lists_what_stays():
    """The consensus of a list is what is elected after overlaps; an empty list stays one."""
    of_study = study()
    votes, mentions = said(
        of_study,
        {
            "i1": {who: [("Arthur", {}), ("King Arthur", {})] for who in "abc"},
            "i2": {who: [] for who in "abc"},
            "i3": dict.fromkeys("abc"),
        },
    )
    named = entities.elect(mentions, votes, of_study)
    decided = consensus.decide(votes, of_study)
    assert entities.listed(decided, named)["value"].equals(decided["value"])
    named = entities.settle(named, texts(i1="King Arthur", i2="", i3=""), of_study)
    now = entities.listed(decided, named).set_index("item")["value"]
    assert now[["i1", "i2"]].tolist() == ['["king arthur"]', "[]"]
    assert pd.isna(now["i3"])


def test_places_are_those_of_the_document(tmp_path):
    """The second passage starts at character 100: Kay stands at 105 to 108, with words around."""
    documents = texts(d="Nobody.", e="Then Kay spoke, and kay\nsat down.").assign(start=[0, 100])
    named = given(("e", "people", "kay", 1.0), ("e", "people", "lot", 1.0))
    assert entities.contexts(named, documents, tmp_path / "places.parquet") == 2
    table = pd.read_parquet(tmp_path / "places.parquet")
    assert table[["start", "end"]].values.tolist() == [[105, 108], [120, 123]]
    assert table[["before", "written", "after"]].values.tolist() == [
        ["Then", "Kay", "spoke, and kay sat down."],
        ["Then Kay spoke, and", "kay", "sat down."],
    ]


def test_no_lists_make_an_empty_file_of_places(tmp_path):
    """A study without entity lists has a file of places with all columns and no rows."""
    assert entities.contexts(given(), texts(i="Kay"), tmp_path / "places.parquet") == 0
    assert "written" in pd.read_parquet(tmp_path / "places.parquet")


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("Sir  Kay\nand sir kay", "Sir Kay", ["Sir  Kay", "sir kay"]),
        ("O\u2019Neill and O'NEILL", "O'Neill", ["O\u2019Neill", "O'NEILL"]),
        ("E\u0301tienne, \u00c9TIENNE", "\u00c9tienne", ["E\u0301tienne", "\u00c9TIENNE"]),
        ("STRASSE, Stra\u00dfe", "Stra\u00dfe", ["STRASSE", "Stra\u00dfe"]),
        ("_Emma_ by Emma.", "Emma", ["Emma", "Emma"]),
        ("\u6211\u5728\u5317\u4eac\u4f4f", "\u5317\u4eac", ["\u5317\u4eac"]),
        (
            "Charles Musgrove , Esq. of Uppercross",
            "Charles Musgrove, Esq",
            ["Charles Musgrove , Esq"],
        ),
        ("ha ha ha", "ha ha", ["ha ha", "ha ha"]),
        ("Anne", "Annette", []),
        ("Annette", "Anne", []),
        ("", "Anne", []),
    ],
)
def test_names_are_found_as_whole_words(text, name, expected):
    """Whatever the case, the spaces and the form of its letters, a name stands where it stands."""
    key = entity_key(name)
    assert [text[start:end] for start, end in places.find(text, [key])[key]] == expected


@given_of(st.text(max_size=60), st.integers(0, 59), st.integers(1, 20))
def test_a_word_of_any_text_is_found_in_it(text, start, length):
    """What is cut out of a text at borders of words is found there, whatever the letters are."""
    spans = [m.span() for m in re.finditer(r"\S+", text)]
    if not spans:
        return
    first = spans[start % len(spans)]
    last = spans[min(len(spans) - 1, start % len(spans) + length % 3)]
    key = entity_key(text[first[0] : last[1]])
    found = places.find(text, [key])[key]
    assert found or not key
    assert all(0 <= a < b <= len(text) for a, b in found)


def test_namesakes_are_not_merged_in_silence():
    """Richard was born in 1157 in two documents and in 1452 in another: both stay, with where.

    A role is said in many words, and confidence differs between answers: neither contradicts.
    """
    people = {"role": {"description": "-"}, "born": {"description": "-", "type": "integer"}}
    people["confidence"] = {"description": "-", "type": "number"}
    of_study = making.study({"people": making.field("entities", attributes=people)})
    said_of = [("d1", 1157, "king", 1), ("d2", 1157, "a king", 0.5), ("d3", 1452, None, 1)]
    found = table(
        [
            (d, "richard", "Richard", json.dumps({"born": y, "role": r, "confidence": c}), 1)
            for d, y, r, c in said_of
        ]
    )
    documents = pd.DataFrame({"item": ["d1", "d2", "d3"], "document": ["d1", "d2", "d3"]})
    row = entities.merge(found, documents, of_study).iloc[0]
    assert json.loads(row["conflicting"]) == {"born": [[1157, ["d1", "d2"]], [1452, ["d3"]]]}
    assert json.loads(row["attributes"])["born"] == 1157
    assert json.loads(row["losing_values"])["born"] == [[1452, 1]]
    agreed = entities.merge(found[found["item"].ne("d3")], documents, of_study).iloc[0]
    assert agreed["conflicting"] == "{}"


def test_aliases_are_names_of_one_document():
    """Musgrove beside Charles Musgrove alone is likely he; beside two of them he may be either.

    In d3 Wentworth stands alone: Captain Wentworth of d1 is only a possible duplicate.
    """
    rows = [
        ("d1", "musgrove"),
        ("d1", "charles musgrove"),
        ("d2", "hayter"),
        ("d2", "charles hayter"),
        ("d2", "henry hayter"),
        ("d1", "captain wentworth"),
        ("d3", "wentworth"),
    ]
    found = table([(item, key, key.title(), "{}", 1) for item, key in rows])
    documents = pd.DataFrame({"item": ["d1", "d2", "d3"], "document": ["d1", "d2", "d3"]})
    index = entities.merge(found, documents, study()).set_index("key")
    aliases = index["aliases"].map(json.loads)
    assert aliases[["musgrove", "charles musgrove"]].tolist() == [
        ["charles musgrove"],
        ["musgrove"],
    ]
    assert aliases[["hayter", "charles hayter", "wentworth"]].tolist() == [[], [], []]
    maybe = index["possible_duplicates"].map(json.loads)
    assert maybe["hayter"] == ["charles hayter", "henry hayter"]
    assert maybe["wentworth"] == ["captain wentworth"]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("guinevere", "guenevere", True),
        ("lancelot", "launcelot", True),
        ("queen isolde", "queen isodle", True),
        ("mark", "marke", True),
        ("henry ii", "henry iii", False),
        ("george iv", "george vi", False),
        ("battle of 1914", "battle of 1915", False),
        ("kay", "may", False),
        ("lancelot", "lancelet of", False),
        ("guinevere", "gwenevere", False),
        ("anna lee", "anne leo", False),
    ],
)
def test_spellings_one_letter_apart_are_possible_duplicates(one, other, alike):
    """One letter more, less or other in one word of four letters; numerals are never alike."""
    near = duplicates.one_letter_apart([one, other])
    assert (other in near.get(one, set()), one in near.get(other, set())) == (alike, alike)


@given_of(
    st.lists(st.text("abe ", min_size=1, max_size=9).map(str.strip), unique=True, max_size=12)
)
def test_near_spellings_are_those_of_all_pairs(keys):
    """The blocks find exactly the pairs that comparing all pairs finds."""
    near = duplicates.one_letter_apart(keys)
    for one, other in itertools.combinations(keys, 2):
        assert (other in near.get(one, ())) == one_apart(one.split(), other.split())


def one_apart(one, other):
    """Whether one word differs, by one letter or one swap, and both words have four or more."""
    if len(one) != len(other):
        return False
    differ = [pair for pair in zip(one, other, strict=True) if pair[0] != pair[1]]
    if len(differ) != 1 or min(map(len, differ[0])) < 4:
        return False
    a, b = differ[0]
    edits = {a[:n] + a[n + 1 :] for n in range(len(a))}
    edits |= {a[:n] + c + a[n + 1 :] for n in range(len(a)) for c in "abe"}
    edits |= {a[:n] + c + a[n:] for n in range(len(a) + 1) for c in "abe"}
    edits |= {a[:n] + a[n + 1] + a[n] + a[n + 2 :] for n in range(len(a) - 1)}
    return b in edits


def test_the_index_is_the_same_in_any_order():
    """Shuffled names and documents make the same index."""
    keys = ["kay", "sir kay", "kaye", "lot"]
    rows = [
        (f"d{n % 7}@{n}", keys[n % 4], keys[n % 4].title(), f'{{"r": {n}}}', 1) for n in range(40)
    ]
    found = table(rows)
    documents = pd.DataFrame({"item": found["item"], "document": found["item"].str[:2]})
    shuffled = [one.sample(frac=1, random_state=1) for one in (found, documents)]
    pd.testing.assert_frame_equal(
        entities.merge(found, documents, study()), entities.merge(*shuffled, study())
    )


def test_intervals_draw_documents_again():
    """Ten documents of which each is all right or all wrong: a wide interval around F1 .5.

    As 40 independent items the same names would seem twice as certain.
    """
    items = [(f"d{n}@{m}", f"d{n}", n % 2) for n in range(10) for m in range(4)]
    found = table([(item, "kay" if right else "lot", "", "{}", 1) for item, _, right in items])
    gold = pd.DataFrame({"item": [one[0] for one in items], "field": "people", "value": "Kay"})
    documents = pd.DataFrame({"item": [o[0] for o in items], "document": [o[1] for o in items]})
    wide = entities.score(found, gold, documents).iloc[0]
    narrow = entities.score(found, gold).iloc[0]
    assert wide["f1"] == narrow["f1"] == 0.5
    assert wide["low"] < narrow["low"] < 0.5 < narrow["high"] < wide["high"]
    assert (wide["high"] - wide["low"]) / (narrow["high"] - narrow["low"]) == pytest.approx(
        2, abs=0.3
    )


def test_the_curve_settles_overlaps_at_each_threshold():
    """Shares: King Arthur 1/4, Arthur 1/2, Kay 3/10; gold: Arthur, Kay.

    At 1/5 all reach it, and King Arthur loses to Arthur: both right, F1 1. From 1/3 on Kay is
    missed: P 1, R 1/2, F1 2/3.
    """
    rows = [("king arthur", 0.25), ("arthur", 0.5), ("kay", 0.3)]
    named = given(*[("i", "people", key, share) for key, share in rows])
    gold = pd.DataFrame({"item": "i", "field": "people", "value": ["Arthur", "Kay"]})
    curve = entities.curve(named, gold, study(), texts(i="King Arthur and Kay"))
    f1 = curve[curve["field"].eq("people")].set_index("threshold")["f1"]
    assert f1[["1/5", "1/4", "3/10"]].tolist() == [1, 1, 1]
    assert f1[["1/3", "2/5", "9/20", "1/2"]].tolist() == pytest.approx([2 / 3] * 4)
    assert curve[curve["chosen"]]["threshold"].tolist() == ["1/3", "1/3"]


def test_a_threshold_tuned_on_gold_is_measured_on_other_documents():
    """Fifty documents whose best threshold is chance: the gain on all gold is not kept outside.

    In each document one name has share .3; it is right in half of them.
    """
    rows = [(f"d{n}", "people", "kay", 0.3) for n in range(50)]
    rows += [(f"d{n}", "people", "lot", 1.0) for n in range(50)]
    gold = [(f"d{n}", "people", "Lot") for n in range(50)]
    gold += [(f"d{n}", "people", "Kay") for n in range(25)]
    gold = pd.DataFrame(gold, columns=["item", "field", "value"])
    documents = texts(**{f"d{n}": "Kay, Lot" for n in range(50)})
    table = entities.tuned(given(*rows), gold, study(), documents)
    f1 = table[table["field"].eq("all")].set_index("how")["f1"]
    assert f1["best on all gold"] >= max(f1["study"], f1["chosen out of fold"])
    assert entities.advice(table).startswith("Names have F1 0.800 at the study's threshold, 1/3")
    shuffled = [one.sample(frac=1, random_state=2) for one in (given(*rows), gold)]
    again = entities.tuned(*shuffled, study(), documents.sample(frac=1, random_state=3))
    pd.testing.assert_frame_equal(again, table)


def test_without_gold_there_is_no_curve():
    """Empty tables with their columns."""
    none = pd.DataFrame(columns=["item", "field", "value"])
    named, documents = given(("i", "people", "kay", 1.0)), texts(i="Kay")
    for made in (entities.curve, entities.tuned):
        table = made(named, none, study(), documents)
        assert table.empty
        assert {"threshold", "f1"} <= set(table)
    assert entities.score(named, none).empty
    assert entities.advice(table).endswith("the threshold stays as it is.")


def crowd_lists(shared):
    """The spans of 47 people on 2,845 sentences as lists of four kinds; words are t0, t1, t2...

    Gives votes, mentions, gold, documents and the panel.
    """
    folder = shared / "data" / "votes" / "conll03_mturk"
    spans = pd.read_csv(folder / "votes.csv.gz", dtype=str)
    seen = pd.read_csv(folder / "assigned.csv", dtype=str)
    truth = pd.read_csv(folder / "truth.csv", dtype=str)
    lengths = pd.read_csv(folder / "sentences.csv", dtype={"sentence": str})
    for one in (spans, truth):
        ends = zip(one["start"].astype(int), one["end"].astype(int), strict=True)
        one["key"] = [" ".join(f"t{n}" for n in range(*end)) for end in ends]
    names = {"sentence": "item", "worker": "annotator", "type": "field"}
    place = ["sentence", "worker", "type"]
    kinds = sorted(truth["type"].unique())
    lists = spans.groupby(place)["key"].agg(lambda keys: json.dumps(sorted(set(keys))))
    answered = seen.merge(pd.DataFrame({"type": kinds}), how="cross")
    answered = answered.merge(lists.rename("value").reset_index(), "left").fillna("[]")
    parts = [seen["sentence"].unique(), seen["worker"].unique(), kinds]
    grid = pd.MultiIndex.from_product(parts, names=place).to_frame(index=False)
    fixed = {"repeat": 0, "model": "m", "simulated": False}
    votes = grid.merge(answered, "left").rename(columns=names).assign(**fixed)
    votes["abstained"] = votes["value"].isna().map({True: "missing"})
    mentions = spans.rename(columns=names).assign(**fixed, name=spans["key"], n=0, weight=1.0)
    gold = grid[["sentence", "type"]].drop_duplicates().merge(truth, "left")
    gold = gold.rename(columns={**names, "key": "value"}).fillna("")
    texts = [" ".join(f"t{n}" for n in range(k)) for k in lengths["n_tokens"]]
    documents = pd.DataFrame({"item": lengths["sentence"], "text": texts, "start": 0})
    documents["document"] = documents["item"]
    for table in (votes, mentions):
        table["annotator"] = "w" + table["annotator"]
    panel = {f"w{name}": ("m", 1, 1.0) for name in seen["worker"].unique()}
    return votes, mentions.assign(attributes="{}"), gold, documents, panel


@pytest.fixture(scope="module")
def crowd(shared):
    """Names of the crowd with the default threshold, gold, documents and the study."""
    votes, mentions, gold, documents, panel = crowd_lists(shared)
    fields = {name: making.field("entities") for name in sorted(gold["field"].unique())}
    of_study = making.study(fields, panel, quorum=0.0)
    return entities.elect(mentions, votes, of_study), gold, documents, of_study


def figures(scores):
    """Precision, recall and F1 of all lists, strict."""
    rows = scores[scores["field"].eq("all") & scores["match"].eq("strict")]
    return rows[["precision", "recall", "f1"]].iloc[0].tolist()


def test_a_third_of_a_real_crowd(crowd):
    """CoNLL-2003 by a crowd: a third of the voices gives F1 .7490, a strict majority .6339."""
    named, gold, _, _ = crowd
    third = entities.score(named, gold)
    assert figures(third) == pytest.approx([0.7601, 0.7382, 0.7490], abs=5e-5)
    majority = entities.score(named.assign(elected=named["share"].gt(0.5)), gold)
    assert figures(majority)[2] == pytest.approx(0.6339, abs=5e-5)


def test_overlaps_make_a_real_crowd_more_precise(crowd):
    """The default, overlaps settled: F1 .7532 instead of .7490; 259 names lose, none vanishes."""
    named, gold, documents, of_study = crowd
    settled = entities.settle(named, documents, of_study)
    assert figures(entities.score(settled, gold)) == pytest.approx(
        [0.7834, 0.7252, 0.7532], abs=5e-5
    )
    counts = settled["status"].value_counts()
    assert counts.to_dict() == {
        "elected": 5272,
        "below_threshold": 4110,
        "overlap": 185,
        "other_field": 74,
    }
    assert counts.sum() == len(named)
    assert settled.loc[settled["status"].isin(["overlap", "other_field"]), "lost_to"].notna().all()


def test_the_threshold_of_a_real_crowd(crowd):
    """Of seven thresholds 3/10 is best on gold by .0002, and out of fold that gain is gone."""
    named, gold, documents, of_study = crowd
    tuned = entities.tuned(named, gold, of_study, documents)
    f1 = tuned[tuned["field"].eq("all")].set_index("how")["f1"]
    assert f1["best on all gold"] == pytest.approx(0.7533, abs=5e-5)
    assert f1["chosen out of fold"] == pytest.approx(f1["study"], abs=5e-5)
    assert tuned.loc[tuned["field"].eq("all"), "threshold"].tolist() == ["1/3", "3/10", "3/10, 1/3"]


def test_a_field_that_does_not_apply_elects_no_name():
    """One of three says that places are named, and names Arthur there: they are not asked about,
    so that Arthur, whom two of three name a person, is a person, though 1/1 is more than 2/3.
    """
    lists = making.field("entities")
    fields = {"seen": making.field("boolean"), "people": lists, "places": {**lists, "when": "seen"}}
    of_study = making.study(fields, quorum=0.25)
    one, none = '["arthur"]', "[]"
    said = {
        ("x", "seen"): {"a": "true", "b": "false", "c": "false"},
        ("x", "people"): {"a": one, "b": one, "c": none},
        ("x", "places"): {"a": one, "b": "n/a", "c": "n/a"},
    }
    named = entities.voted(making.votes(of_study, said), of_study)
    settled = entities.settle(named, texts(x="Arthur came"), of_study).set_index("field")
    assert settled["status"].to_dict() == {"people": "elected", "places": "not_applicable"}
    assert settled["elected"].to_dict() == {"people": True, "places": False}
