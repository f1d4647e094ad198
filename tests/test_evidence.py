"""Evidence: from a verdict down to the items, the votes and the quotes."""

import making
import pandas as pd

from lib import consensus, policies, verdicts, votes
from lib.verdicts import evidence

FIELDS = {
    "relevant": making.field("boolean"),
    "severity": making.field(values={n: {"description": n} for n in ("mild", "severe")})
    | {"when": "relevant"},
    "quote": making.field("text"),
}
PANEL = {"strong": ("m-s", 1, 1.0), "weak": ("m-w", 2, 1.0)}
POLICY = policies.Policy.model_validate(
    {
        "id": "one",
        "title": "-",
        "verdicts": ["Low", "High"],
        "default": "Low",
        "rules": [
            {"verdict": "High", "any": [{"at_least": 1, "where": {"severity": ["severe"]}}]},
        ],
        "uses": ["relevant", "severity"],
    }
)
STUDY = making.study(FIELDS, PANEL).model_copy(update={"policies": {"one": POLICY}})
GROUPS = pd.DataFrame({"group": ["g"]})
DOCUMENTS = pd.DataFrame(
    {
        "item": ["i", "j", "never"],
        "group": ["g", "g", None],
        "date": pd.to_datetime(["2026-06-01", "2026-06-02", "2026-06-03"]),
        "text": ["We called an  Ambulance.", "Fine.", "-"],
    }
)
ANSWERS = {
    ("i", "relevant"): {"strong": "true", "weak": ["true", None]},
    ("i", "severity"): {"strong": "severe", "weak": ["mild", None]},
    ("i", "quote"): {"strong": "called an ambulance", "weak": ["rushed to hospital", None]},
    ("j", "relevant"): {"strong": "true", "weak": "true"},
    ("j", "severity"): {"strong": "severe", "weak": ["severe", "mild"]},
    ("j", "quote"): {"strong": "", "weak": ""},
}


def found(answers=ANSWERS, documents=DOCUMENTS, **change):
    """The verdict on the group, and the evidence behind it."""
    cast = making.votes(STUDY, answers)
    weight = cast["annotator"].map({"strong": 1.0, "weak": 0.5})
    cast = cast.assign(weight=weight.where(cast["abstained"].isna(), 0.0))
    decided = consensus.decide(cast, STUDY).assign(**change)
    reached = verdicts.reach(decided, documents, GROUPS, STUDY.policies)
    table = evidence.behind(reached, decided, documents, GROUPS, cast, STUDY)
    return reached.iloc[0], table


def test_the_votes_behind_a_rule():
    """Only j is severe: 1 + 0.5 against 0.5; i is a tie, and its items are not what decided."""
    documents = DOCUMENTS[DOCUMENTS["item"].eq("j")]
    reached, table = found(documents=documents)
    assert (reached["verdict"], reached["decided_by"]) == ("High", "rule 1, condition 1")
    assert table[["item", "field", "value", "share"]].to_numpy().tolist() == [
        ["j", "relevant", "true", 1.0],
        ["j", "severity", "severe", 0.75],
    ]
    severity = table.iloc[1]
    assert severity["votes_for"] == "m-s x 1 (weight 1), m-w x 1 (weight 0.5)"
    assert severity["votes_against"] == "mild: m-w x 1 (weight 0.5)"
    assert severity["abstentions"] == ""
    assert severity["date"] == pd.Timestamp("2026-06-02")


def test_what_is_lacking_without_a_verdict():
    """A tie on i, and an item that nobody was asked about: both stand behind insufficient data."""
    documents = DOCUMENTS.assign(group="g")
    reached, table = found(documents=documents)
    assert reached["verdict"] == policies.INSUFFICIENT
    rows = table[["condition", "item", "field", "status"]].fillna("-").to_numpy().tolist()
    assert rows == [
        ["coverage", "never", "relevant", "-"],
        ["coverage", "never", "severity", "-"],
        ["coverage", "i", "severity", "tie"],
    ]
    tie = table.iloc[2]
    assert tie["votes_for"] == ""
    assert tie["votes_against"] == "mild: m-w x 1 (weight 0.5); severe: m-s x 1 (weight 1)"
    assert tie["abstentions"] == "missing: m-w x 1"


def test_corrections_are_flagged():
    """A value that people corrected is marked beside the votes."""
    _, table = found(documents=DOCUMENTS[DOCUMENTS["item"].eq("j")], corrected=True)
    assert table["corrected"].all()


def test_a_default_rests_on_what_fits_any_condition():
    """Two reviews that did not suffice stand behind the default; none is an empty table."""
    calm = ANSWERS | {("j", "severity"): {"strong": "mild", "weak": "mild"}}
    reached, table = found(calm, DOCUMENTS[DOCUMENTS["item"].eq("j")])
    assert reached["decided_by"] == "default"
    assert list(table) == evidence.COLUMNS
    assert table.empty


def test_quotes_are_looked_up():
    """One quote stands in the text but for case and spaces, one does not, empty ones are none."""
    cast = making.votes(STUDY, ANSWERS)
    table = evidence.quotes(cast, DOCUMENTS, STUDY, ["i", "j"])
    assert table[["annotator", "quote", "in_text"]].to_numpy().tolist() == [
        ["strong", "called an ambulance", True],
        ["weak", "rushed to hospital", False],
    ]
    assert evidence.quotes(cast, DOCUMENTS, STUDY, []).empty


def test_texts_for_people_stand_with_their_quotes():
    """The newest text first; a quote that two gave stands once, an invented one is marked."""
    answers = ANSWERS | {("i", "quote"): {"strong": "an ambulance", "weak": ["an ambulance", "er"]}}
    table = evidence.texts(["i", "j"], DOCUMENTS, making.votes(STUDY, answers), STUDY)
    assert table[["item", "quotes"]].to_numpy().tolist() == [
        ["j", ""],
        ["i", "an ambulance; er (not in the text)"],
    ]
    assert evidence.texts([], DOCUMENTS, making.votes(STUDY, answers), STUDY).empty


def test_verdicts_of_several_samples_keep_their_own_evidence():
    """At K = 1 the newest item decides alone, at K = 2 both do: each names its own."""
    answers = ANSWERS | {("i", "severity"): {"strong": "severe", "weak": "severe"}}
    cast = making.votes(STUDY, answers).assign(weight=1.0)
    documents, decided = DOCUMENTS[DOCUMENTS["item"].ne("never")], consensus.decide(cast, STUDY)
    reached = verdicts.reach(decided, documents, GROUPS, STUDY.policies, [1, 2])
    table = evidence.behind(reached, decided, documents, GROUPS, cast, STUDY)
    assert table.groupby("k")["item"].agg(set).to_dict() == {1: {"j"}, 2: {"i", "j"}}
    one = evidence.behind(reached.tail(1), decided, documents, GROUPS, cast, STUDY)
    assert one["k"].unique().tolist() == [2]


def test_a_study_can_ask_for_quotes():
    """A quote is a text like any other: spaces are normalised, and it is never voted away."""
    assert votes.normalise("  in an \n ambulance ", STUDY.fields["quote"]) == (
        "in an ambulance",
        None,
    )
