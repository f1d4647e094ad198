"""The review list: its order, its random share, what stands in it, and its way back."""

import datetime
import json
import math
import re

import making
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import consensus, corrections, entities, review, runs
from lib.gold import labelstudio
from lib.review import panelled, reviewed

FIELDS = {
    "relevant": making.field("boolean"),
    "mood": making.field(when="relevant"),
    "age": making.field("integer"),
    "note": making.field("text"),
    "people": making.field("entities"),
}
STUDY = making.study(FIELDS)
TODAY = datetime.date(2026, 11, 22)
NAMED = pd.DataFrame(
    columns=["item", "field", "key", "name", "share", "elected", "simulated"]
).astype({"elected": bool, "share": float})


def counted(answers, study=STUDY):
    """Votes, consensus and names; what no answer says, all say alike."""
    alike = {"relevant": "true", "mood": "calm", "age": "7", "note": "-", "people": "[]"}
    items = sorted({item for item, _ in answers})
    whole = {
        (item, name): dict.fromkeys("abc", said) for item in items for name, said in alike.items()
    }
    table = making.votes(study, {**whole, **answers}).assign(weight=1.0)
    said = table[table["field"].eq("people") & table["value"].notna()].to_dict("records")
    mentions = pd.DataFrame(
        [
            {**row, "key": key, "name": key.title(), "n": 0, "attributes": "{}"}
            for row in said
            for key in json.loads(row["value"])
        ],
        columns=[*table.columns, "key", "name", "n", "attributes"],
    )
    return table, consensus.decide(table, study), entities.elect(mentions, table, study)


def listed(answers, **more):
    """The review list of these answers, random rows left out unless a share is given."""
    _, decided, named = counted(answers)
    return review.listed(decided, named, STUDY, **more)


def doubts(answers):
    """(item, field, why) of the rows that are listed for a doubt."""
    table = listed(answers)
    table = table[table["why"].str.removesuffix("random").str.rstrip(", ").ne("")]
    return list(zip(table["item"], table["field"], table["why"].str.split(",").str[0], strict=True))


def doubts_of(table):
    """The doubts in the order of the list."""
    first = table["why"].str.split(",").str[0]
    return first[~first.isin(["random", "condition"])].tolist()


SPLIT = {"a": "calm", "b": "angry", "c": "mixed"}
LEAN = {"a": "calm", "b": "calm", "c": "angry"}


def test_what_nobody_decided_comes_first():
    """No quorum, then a tie, then a margin of one third; unlike numbers have no margin."""
    answers = {
        ("r1", "mood"): LEAN,
        ("r2", "mood"): SPLIT,
        ("r3", "mood"): {"a": "calm"},
        ("r4", "age"): {"a": "7", "b": "7", "c": "90"},
    }
    assert doubts(answers) == [
        ("r3", "mood", "no_quorum"),
        ("r2", "mood", "tie"),
        ("r1", "mood", "margin"),
        ("r4", "age", "margin"),
    ]


def test_fields_take_turns():
    """Three doubtful moods and two relevances of the same margin alternate."""
    lean = {"a": "true", "b": "true", "c": "false"}
    answers = {(f"r{n}", "mood"): LEAN for n in range(3)}
    answers |= {(f"s{n}", "relevant"): lean for n in range(2)}
    assert [field for _, field, _ in doubts(answers)] == ["relevant", "mood"] * 2 + ["mood"]


def test_alarms_come_after_ties():
    """A weak vote that says otherwise raises one where the strong model decided alone."""
    _, decided, named = counted({("r1", "mood"): LEAN, ("r2", "mood"): SPLIT})
    alarms = decided["item"].eq("r1") & decided["field"].eq("mood")
    table = review.listed(decided.assign(n_alarms=alarms.astype(int)), named, STUDY)
    assert doubts_of(table) == ["tie", "alarm"]


def test_a_list_is_as_doubtful_as_its_most_doubtful_name():
    """Boyd has a third of the votes, which is the threshold; Kay two thirds."""
    said = {"a": '["boyd","kay"]', "b": '["kay"]', "c": "[]"}
    row = listed({("r1", "people"): said}).query("field == 'people'").iloc[0]
    assert json.loads(row["original"]) == ["Boyd", "Kay"]
    assert json.loads(row["candidates"]) == ["Boyd", "Kay"]
    assert row["margin"] == pytest.approx(0)
    assert row["why"].startswith("margin")


def test_texts_and_what_all_say_alike_are_left_out():
    """Only the one random row remains."""
    answers = {("r1", "note"): {"a": "one", "b": "two", "c": "three"}}
    table = listed(answers)
    assert table["why"].tolist() == ["random"]
    assert not table["field"].eq("note").any()


def test_a_condition_brings_its_fields():
    """Whoever says that r1 is relevant after all must give its mood: the row stands below."""
    answers = {("r1", "relevant"): {"a": "true", "b": "false", "c": None}}
    answers[("r1", "mood")] = {"a": "calm", "b": "n/a", "c": None}
    table = listed(answers)
    places = list(zip(table["item"], table["field"], table["why"].str[:9], strict=True))
    at = next(n for n, place in enumerate(places) if place[1] == "relevant")
    assert places[at + 1] == ("r1", "mood", "condition")


def test_corrected_values_are_only_listed_when_drawn():
    """A person has decided them; in the random sample they say so."""
    _, decided, named = counted({("r1", "mood"): SPLIT})
    table = review.listed(decided.assign(corrected=decided["field"].eq("mood")), named, STUDY, 100)
    row = table[table["field"].eq("mood")]
    assert row["why"].isin(["random"]).all()
    assert row["status"].eq("corrected").all()


ITEMS = {(f"r{n:03}", "mood"): LEAN for n in range(40)}


@pytest.mark.parametrize(("n", "n_random"), [(1, 1), (10, 1), (11, 2), (20, 2), (36, 4)])
def test_one_row_in_ten_is_drawn_at_random(n, n_random):
    """Rounded up, within the length that was asked for, and spread over the list."""
    table = listed(ITEMS, n=n)
    table = table[table["why"].ne("condition")]
    assert len(table) == n
    drawn = table["why"].str.contains("random")
    assert drawn.sum() == n_random
    assert abs(drawn.to_numpy().nonzero()[0].mean() - (n - 1) / 2) <= 1


def test_without_a_length_all_doubts_are_listed():
    """40 doubts are nine tenths of 44.4 rows: five are random, and doubtful ones among them count
    for both.
    """
    table = listed(ITEMS)
    why = table["why"].str.split(", ")
    assert sum("margin" in one for one in why) == 40
    assert sum("random" in one for one in why) == 5


def test_a_longer_list_draws_the_same_rows_and_more():
    """The random sample only grows, so that what people did stays valid."""
    few, more = (
        {
            tuple(row)
            for row in listed(ITEMS, n=n)
            .query("why.str.contains('random')")[["item", "field"]]
            .to_numpy()
        }
        for n in (10, 40)
    )
    assert few < more
    other = listed(ITEMS, n=40, seed=1).query("why.str.contains('random')")
    assert {tuple(row) for row in other[["item", "field"]].to_numpy()} != more


def test_every_value_has_the_same_chance_within_its_field():
    """Over 100 seeds, each of 5 moods is drawn about 20 times when two rows are random and the
    fields take turns: the first is a relevance, the second a mood.
    """
    _, decided, named = counted({(f"r{n}", "mood"): LEAN for n in range(5)})
    hits = dict.fromkeys((f"r{n}" for n in range(5)), 0)
    for seed in range(100):
        table = review.listed(decided, named, STUDY, n=20, seed=seed)
        for item in table.loc[
            table["why"].str.contains("random") & table["field"].eq("mood"), "item"
        ]:
            hits[item] += 1
    assert sum(hits.values()) == 100
    assert sum((n - 20) ** 2 / 20 for n in hits.values()) < 18.5  # chi squared, 4 df, .999


@settings(max_examples=5)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(random):
    """Tables in any order give the same list."""
    answers = {**{(f"r{n}", "mood"): LEAN for n in range(6)}, ("s1", "mood"): SPLIT}
    answers[("s2", "people")] = {"a": '["boyd","kay"]', "b": '["kay"]', "c": "[]"}
    votes, decided, named = counted(answers)
    before = review.with_votes(review.listed(decided, named, STUDY), votes, STUDY)
    seed = random.randrange(1000)
    votes, decided, named = (t.sample(frac=1, random_state=seed) for t in (votes, decided, named))
    after = review.with_votes(review.listed(decided, named, STUDY), votes, STUDY)
    pd.testing.assert_frame_equal(after, before)


def test_the_votes_stand_behind_each_row():
    """The heaviest value first, abstentions last; the names of lists one by one."""
    answers = {
        ("r1", "mood"): {"a": "angry", "b": "angry", "c": None},
        ("r1", "people"): {"a": '["kay"]', "b": "[]", "c": '["kay","boyd"]'},
    }
    votes, decided, named = counted(answers)
    table = review.with_votes(review.listed(decided, named, STUDY), votes, STUDY)
    said = table.set_index("field")["votes"]
    assert said["mood"] == ("angry: m-a x 1 (weight 1), m-b x 1 (weight 1); no vote (missing) x 1")
    assert said["people"].startswith("kay: m-a x 1 (weight 1), m-c x 1 (weight 1); boyd: m-c")


def test_no_rows_no_list():
    """A study without items has nothing to review."""
    _, decided, named = counted({("r1", "mood"): LEAN})
    table = review.listed(decided[:0], named[:0], STUDY)
    assert table.empty
    assert math.isclose(len(table), 0)


# The way back.

TEXTS = {"r1": "sha-1", "r2": "sha-2"}


def filled(folder, *rows):
    """A filled list: item, field, original, corrected, reason, who."""
    columns = ["item", "field", "original", "corrected", "reason", "who"]
    table = pd.DataFrame(rows, columns=columns).assign(date="", sha256="")
    runs.write_csv(table[[*corrections.COLUMNS, "sha256"]], folder / "review.csv")
    return folder / "review.csv"


def test_only_changes_are_taken(tmp_path):
    """Empty, confirmed and known rows are counted; an empty date becomes today."""
    path = filled(
        tmp_path,
        ("r1", "mood", "calm", "angry", "=joke", "Ann"),
        ("r1", "age", "7", "", "", "Ann"),
        ("r2", "mood", "calm", " Calm ", "", ""),
        ("r2", "age", "7", "7.0", "", ""),
        ("r2", "relevant", "true", "false", "other topic", "Ann"),
    )
    known = {("r2", "relevant"): "false"}
    found = reviewed.read(path, STUDY, TEXTS, known, TODAY)
    assert found.changes[["item", "field", "corrected", "reason", "date"]].to_numpy().tolist() == [
        ["r1", "mood", "angry", "=joke", "2026-11-22"]
    ]
    assert found[1:] == (1, 2, 1, [])


def refused(found):
    """The one mistake that was found; nothing of its item is a change."""
    (problem,) = found.problems
    assert found.changes.empty
    return str(problem)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("r1", "mood", "calm", "angry", "", "Ann"), "line 2: reason is empty"),
        (("r1", "mood", "calm", "angry", "joke", ""), "line 2: who is empty"),
        (("r1", "mood", "calm", "", "joke", "Ann"), "line 2: a reason, and nothing is corrected"),
        (("r1", "mood", "calm", "clam", "joke", "Ann"), 'line 2: .*Did you mean "calm"'),
        (("r9", "mood", "calm", "angry", "joke", "Ann"), "line 2: no item 'r9'"),
        (("r1", "moods", "calm", "angry", "joke", "Ann"), "line 2: no field 'moods'"),
        (("r1", "people", "[]", "Kay", "joke", "Ann"), "line 2: .*not a JSON array"),
    ],
)
def test_a_mistake_in_a_filled_list_is_named(row, words, tmp_path):
    """With file and line; nothing is taken."""
    assert re.search(words, refused(reviewed.read(filled(tmp_path, row), STUDY, TEXTS, {}, TODAY)))


def test_all_mistakes_of_a_filled_list_are_named(tmp_path):
    """What is right of other items goes on to be checked against the votes."""
    path = filled(
        tmp_path,
        ("r1", "mood", "calm", "clam", "", "Ann"),
        ("r1", "age", "7", "8", "typo", "Ann"),
        ("r9", "mood", "calm", "angry", "joke", "Ann"),
        ("r2", "mood", "calm", "angry", "joke", "Ann"),
        ("r1", "people", "[]", "", "joke", "Ann"),
    )
    found = reviewed.read(path, STUDY, TEXTS, {}, TODAY)
    assert [problem.line for problem in found.problems] == [2, 2, 4, 6]
    assert found.changes["item"].tolist() == ["r2"]


def test_two_corrections_of_one_value_are_refused(tmp_path):
    """Ann says angry and Ben says mixed."""
    rows = [("r1", "mood", "calm", value, "-", "Ann") for value in ("angry", "mixed")]
    said = refused(reviewed.read(filled(tmp_path, *rows), STUDY, TEXTS, {}, TODAY))
    assert "line 3: mood of r1 is corrected on line 2 too" in said


DOCUMENTS = pd.DataFrame(
    {"item": ["r1"], "sha256": ["sha-1"], "text": ["\U0001f600 King Kay met Boyd, and Kay left."]}
)


def exported(change=lambda results: results, reason="it says so"):
    """An export of Label Studio: the panel's prediction as one person changed it."""
    said = {"a": '["boyd","kay","lancelot"]', "b": '["boyd","kay","lancelot"]', "c": "[]"}
    _, decided, named = counted({("r1", "people"): said})
    tasks = list(panelled.tasks(DOCUMENTS, decided, named, FIELDS_OF, {"model_version": "panel p"}))
    results = change(tasks[0]["predictions"][0]["result"])
    if reason:
        box = {"from_name": panelled.REASON, "to_name": "_text", "type": "textarea"}
        results = [*results, {**box, "value": {"text": [reason]}}]
    done = {"result": results, "completed_by": {"email": "ann@example.org"}}
    done["updated_at"] = "2026-11-20T10:00:00Z"
    return tasks, [{**tasks[0], "annotations": [done]}]


FIELDS_OF = STUDY.fields


def read_export(folder, tasks):
    """What people changed in it."""
    (folder / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    return reviewed.read(folder / "export.json", STUDY, TEXTS, {}, TODAY)


def test_tasks_show_what_the_panel_says(tmp_path):
    """Values and every place of every name; the name that stands nowhere is told."""
    tasks, export = exported()
    assert tasks[0]["data"]["not_in_text"] == {"people": ["Lancelot"]}
    assert tasks[0]["predictions"][0]["model_version"] == "panel p"
    marks = labelstudio.read(write(tmp_path, export))[0].marks
    said = {(mark.field, mark.value) for mark in marks if mark.field != panelled.REASON}
    assert said >= {("relevant", "true"), ("mood", "calm"), ("age", "7"), ("people", "Kay")}
    assert sum(mark.field == "people" for mark in marks) == 3


def write(folder, tasks):
    """An export as a file."""
    (folder / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    return folder / "export.json"


def test_a_prediction_that_is_confirmed_changes_nothing(tmp_path):
    """Neither do names that the tasks could not show."""
    found = read_export(tmp_path, exported()[1])
    assert found.changes.empty
    assert found.n_same == 5


def test_changes_in_label_studio_come_back(tmp_path):
    """Boyd is taken away and the mood is another one; who, when and why come along."""

    def change(results):
        kept = [one for one in results if one["value"].get("text") != "Boyd"]
        moods = [one for one in kept if one["from_name"] == "mood"]
        moods[0]["value"]["choices"] = ["angry"]
        return kept

    found = read_export(tmp_path, exported(change)[1])
    changes = found.changes.set_index("field")
    assert changes["corrected"].to_dict() == {"mood": "angry", "people": '["kay","lancelot"]'}
    told = changes.loc["mood", ["who", "date", "reason", "sha256"]].tolist()
    assert told == ["ann@example.org", "2026-11-20", "it says so", "sha-1"]


def test_a_change_in_label_studio_needs_a_reason(tmp_path):
    """As in every file."""

    def change(results):
        return [one for one in results if one["value"].get("text") != "Boyd"]

    said = refused(read_export(tmp_path, exported(change, reason="")[1]))
    assert "export.json, line 1: reason is empty" in said


def test_fields_below_a_condition_that_is_not_true_are_not_asked(tmp_path):
    """Not relevant: the mood that Label Studio still holds is no answer."""

    def change(results):
        next(one for one in results if one["from_name"] == "relevant")["value"]["choices"] = [
            "false"
        ]
        return results

    found = read_export(tmp_path, exported(change)[1])
    assert found.changes["field"].tolist() == ["relevant"]


def test_the_interface_asks_for_the_reason():
    """Besides the fields."""
    assert f'name="{panelled.REASON}"' in panelled.config(STUDY.fields)
