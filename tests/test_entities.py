"""Entities: election, attributes, the index of a corpus, and scores against gold."""

import json

import making
import pandas as pd
import pytest

from lib import entities

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
    index = entities.merge(found, documents).set_index("key")
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
    row = entities.merge(found, documents).iloc[0]
    assert json.loads(row["attributes"]) == {"role": None}
    assert json.loads(row["losing_values"]) == {"role": [["a", 1], ["b", 1]]}


def test_nothing_elected_is_an_empty_index():
    """A corpus without entities has an index with all columns and no rows."""
    none = table([]).astype({"elected": bool})
    documents = pd.DataFrame({"item": ["d0"], "document": ["d0"]})
    assert list(entities.merge(none, documents)) == entities._INDEX


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
    scores = entities.score(found, gold).set_index("match")
    names = ["n_items", "n_gold", "n_found", "n_right", "precision", "recall", "f1"]
    assert scores.loc["strict", names].tolist() == pytest.approx([2, 2, 3, 1, 1 / 3, 1 / 2, 0.4])
    assert scores.loc["relaxed", names].tolist() == pytest.approx([2, 2, 3, 2, 2 / 3, 1, 0.8])


def crowd_lists(shared):
    """The spans of 47 people on 2,845 sentences as entity votes, mentions and gold."""
    folder = shared / "data" / "votes" / "conll03_mturk"
    spans = pd.read_csv(folder / "votes.csv.gz", dtype=str)
    seen = pd.read_csv(folder / "assigned.csv", dtype=str)
    truth = pd.read_csv(folder / "truth.csv", dtype=str)
    for one in (spans, truth):
        one["key"] = one["start"] + " " + one["end"] + " " + one["type"].str.lower()
    by = ["sentence", "worker"]
    lists = spans.groupby(by)["key"].agg(lambda keys: json.dumps(sorted(set(keys))))
    answered = seen.merge(lists.rename("value").reset_index(), how="left", on=by).fillna("[]")
    pairs = [seen["sentence"].unique(), seen["worker"].unique()]
    grid = pd.MultiIndex.from_product(pairs, names=by).to_frame(index=False)
    grid = grid.merge(answered, how="left", on=by)
    names = {"sentence": "item", "worker": "annotator"}
    fixed = {"field": "people", "repeat": 0, "model": "m", "simulated": False}
    votes = grid.rename(columns=names).assign(**fixed)
    votes["abstained"] = votes["value"].isna().map({True: "missing"})
    mentions = spans.rename(columns=names).assign(**fixed, name=spans["key"], n=0, weight=1.0)
    empty = sorted(set(seen["sentence"]) - set(truth["sentence"]))
    none = pd.DataFrame({"sentence": empty, "key": ""})
    gold = pd.concat([truth, none]).rename(columns={"sentence": "item", "key": "value"})
    panel = dict.fromkeys(seen["worker"].unique(), ("m", 1, 1.0))
    return votes, mentions.assign(attributes="{}"), gold.assign(field="people"), panel


def test_a_third_of_a_real_crowd(shared):
    """CoNLL-2003 by a crowd: a third of the voices gives F1 .7490, a strict majority .6339."""
    votes, mentions, gold, panel = crowd_lists(shared)
    panel = {f"w{name}": one for name, one in panel.items()}
    tables = [one.assign(annotator="w" + one["annotator"]) for one in (mentions, votes)]
    found = {}
    for threshold in (1 / 3, 501 / 1000):
        of_study = making.study({"people": making.field("entities")}, panel, quorum=0.0)
        voting = of_study.voting.model_copy(update={"threshold": threshold})
        of_study = of_study.model_copy(update={"voting": voting})
        score = entities.score(entities.elect(*tables, of_study), gold)
        found[threshold] = score.set_index("match").loc["strict", ["precision", "recall", "f1"]]
    assert found[1 / 3].tolist() == pytest.approx([0.7601, 0.7382, 0.7490], abs=5e-5)
    assert found[501 / 1000]["f1"] == pytest.approx(0.6339, abs=5e-5)
