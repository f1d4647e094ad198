"""Verdicts: the four allergy policies worked by hand, K, coverage, recency and evidence."""

import datetime
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import policies, study, verdicts
from lib.errors import StudyError

ALLERGY = study.load(Path(__file__).parent.parent / "data" / "allergy")
RELEVANT = ("account_type", "incident_severity", "assurance_claim", "staff_response")
LOW, HIGH, CRITICAL = "Low Risk", "High Risk", "Critical Risk"


def review(severity="none", account="firsthand", assured="false", staff="none", date="2026-06-01"):
    """The decided values of a relevant review."""
    values = (account, severity, assured, staff)
    return {"relevant": "true", **dict(zip(RELEVANT, values, strict=True)), "date": date}


IRRELEVANT = {"relevant": "false", "date": "2026-06-01"}


def tables(reviews, group="g"):
    """Consensus and documents of a group's reviews; a field left out is a tie."""
    consensus, documents = [], []
    for n, values in enumerate(reviews):
        item = f"{group}/{n:03d}"
        documents.append((item, group, values["date"]))
        for name in ("relevant", *RELEVANT):
            outside = values.get("relevant") == "false" and name != "relevant"
            status = "not_applicable" if outside else "decided" if name in values else "tie"
            consensus.append((item, name, values.get(name), status, True))
    names = ["item", "field", "value", "status", "simulated"]
    table = pd.DataFrame(documents, columns=["item", "group", "date"])
    return pd.DataFrame(consensus, columns=names), table.astype({"date": "datetime64[us]"})


def judged(policy, reviews, categories="Burgers", ks=(), **change):
    """The verdicts of one policy on one group."""
    groups = pd.DataFrame({"group": ["g"], "categories": [categories]})
    changed = ALLERGY.policies[policy].model_copy(update=change)
    return verdicts.reach(*tables(reviews), groups, {policy: changed}, ks)


SEVERE, MODERATE, MILD = review("severe"), review("moderate"), review("mild")
REFUSED, DISMISSED = review(staff="refused"), review(staff="dismissive")


@pytest.mark.parametrize(
    ("policy", "reviews", "verdict", "by"),
    [
        ("V0", [SEVERE, SEVERE], CRITICAL, "rule 1, condition 1"),
        ("V0", [SEVERE, IRRELEVANT], LOW, "default"),
        ("V0", [SEVERE, review("severe", "secondhand")], LOW, "default"),
        ("V0", [MODERATE, MODERATE], HIGH, "rule 2, condition 1"),
        ("V0", [SEVERE, MODERATE], LOW, "default"),  # one of each is two of neither
        ("V0", [REFUSED, DISMISSED, REFUSED], HIGH, "rule 2, condition 2"),
        ("V0", [REFUSED, DISMISSED, review(staff="unknown")], LOW, "default"),
        ("V0", [SEVERE, SEVERE, MODERATE, MODERATE], CRITICAL, "rule 1, condition 1"),
        ("V1", [SEVERE], CRITICAL, "rule 1, condition 1"),
        ("V1", [review("moderate", assured="true")], CRITICAL, "rule 1, condition 2"),
        ("V1", [MODERATE, review(assured="true")], HIGH, "rule 2, condition 1"),  # on two reviews
        ("V1", [review("moderate", assured="unknown")], HIGH, "rule 2, condition 1"),
        ("V1", [review("moderate", "secondhand", "true")], LOW, "default"),
        ("V1", [MILD], LOW, "default"),
        ("V1", [review("mild", assured="true")], HIGH, "rule 2, condition 2"),
        ("V1", [REFUSED, DISMISSED, REFUSED], HIGH, "rule 2, condition 3"),
        ("V1", [IRRELEVANT], LOW, "default"),
    ],
)
def test_ordered_rules(policy, reviews, verdict, by):
    """V0 and V1 as they are stated: conditions hold within one review, the first rule wins."""
    row = judged(policy, reviews).iloc[0]
    assert (row["verdict"], row["decided_by"]) == (verdict, by)
    assert pd.isna(row["points"])


@pytest.mark.parametrize(
    ("reviews", "categories", "points", "verdict"),
    [
        ([], "Thai", None, policies.INSUFFICIENT),
        ([IRRELEVANT], "Thai", 0, LOW),  # no incident, nothing for the kitchen
        ([MILD], "Burgers", 2, LOW),
        ([MILD], "Burgers, Thai", 4, HIGH),
        ([MILD], "thai", 4, HIGH),
        ([MILD], "Asian Fusion", 4, HIGH),
        ([MILD], "Caucasian", 2, LOW),  # whole words alone
        ([MILD], None, 2, LOW),
        ([MILD], "Thai, Vietnamese", 4, HIGH),  # once
        ([MILD, MILD], "Burgers", 4, HIGH),
        ([MODERATE], "Burgers", 5, HIGH),
        ([SEVERE], "Burgers", 15, CRITICAL),
        ([review("mild", assured="true")], "Burgers", 7, HIGH),
        ([review("mild", staff="dismissive")], "Burgers", 5, HIGH),
        ([review("mild", assured="true", staff="dismissive")], "Burgers", 10, CRITICAL),
        ([review("none", assured="true", staff="dismissive")], "Thai", 0, LOW),  # no incident
        ([review("severe", "secondhand")], "Thai", 0, LOW),
        ([MODERATE, MILD], "Burgers", 7, HIGH),
        ([MODERATE, MILD], "Chinese", 9, CRITICAL),
        ([MILD, MILD, MILD, MILD], "Burgers", 8, CRITICAL),  # the threshold itself
    ],
)
def test_points(reviews, categories, points, verdict):
    """V2: mild 2, moderate 5, severe 15, assured +5, dismissive +3, kitchen +2 once; 4 and 8."""
    row = judged("V2", reviews, categories).iloc[0]
    assert row["verdict"] == verdict
    assert row["points"] == (points or 0)


@pytest.mark.parametrize(
    ("date", "points"),
    [
        ("2026-06-30", 15),
        ("2024-06-30", 15),  # two years to the day
        ("2024-06-29", 7.5),
        ("2023-06-30", 7.5),
        ("2023-06-29", 3.75),
        ("1999-01-01", 3.75),
    ],
)
def test_points_fade_with_age(date, points):
    """V3 as of 2026-06-30: all points up to two years, half in the third, a quarter after it."""
    assert judged("V3", [review("severe", date=date)]).iloc[0]["points"] == points


def test_the_kitchen_does_not_fade():
    """A mild incident of five years ago keeps 0.5 of its 2 points; the kitchen's 2 stay whole."""
    row = judged("V3", [review("mild", date="2021-06-01")], "Thai").iloc[0]
    assert (row["points"], row["verdict"]) == (2.5, LOW)


def test_points_are_exact():
    """Ten times 0.1 are 1, which in floats they are not: the threshold is reached."""
    line = policies.Points(where={"incident_severity": ["mild"]}, points=0.1)
    limits = {HIGH: {"any": 1.0}, CRITICAL: {"any": 8.0}}
    row = judged("V2", [MILD] * 10, points=[line], thresholds=limits).iloc[0]
    assert row["verdict"] == HIGH


def test_no_policy_changes_between_v2_and_v3_when_all_is_recent():
    """With dates in the last two years V2 and V3 agree, as they did in the earlier project."""
    reviews = [MILD, review("moderate", assured="true"), IRRELEVANT]
    for categories in ("Thai", "Pizza"):
        two, three = judged("V2", reviews, categories), judged("V3", reviews, categories)
        assert two["points"].tolist() == three["points"].tolist()


def test_k_takes_the_newest_and_is_nested():
    """A severe case as third newest of three counts at K = 3 and not at K = 2."""
    reviews = [
        review("severe", date="2026-01-01"),
        review(date="2026-03-01"),
        review(date="2026-02-01"),
    ]
    found = judged("V1", reviews, ks=[1, 2, 3, 50]).set_index("k")
    assert found["verdict"].to_dict() == {1: LOW, 2: LOW, 3: CRITICAL, 50: CRITICAL}
    assert found["n_items"].to_dict() == {1: 1, 2: 2, 3: 3, 50: 3}


def test_equal_dates_are_ordered_by_item():
    """Of two reviews of one day the smaller id is the newest one; undated ones come last."""
    reviews = [{**MILD, "date": None}, SEVERE, MILD]
    found = judged("V1", reviews, ks=[1]).iloc[0]
    assert json.loads(found["evidence"])[0]["items"] == ["g/001"]


@pytest.mark.parametrize(
    ("n_open", "coverage", "verdict"),
    [
        (0, 1.0, CRITICAL),
        (2, 0.8, CRITICAL),  # exactly the bound is enough
        (3, 0.7, policies.INSUFFICIENT),
        (10, 0.0, policies.INSUFFICIENT),
    ],
)
def test_coverage(n_open, coverage, verdict):
    """Below 8 of 10 decided items there is no verdict; never the default."""
    reviews = [SEVERE] * (10 - n_open) + [{"date": "2026-06-01"}] * n_open
    row = judged("V0", reviews).iloc[0]
    assert (row["coverage"], row["verdict"]) == (coverage, verdict)
    assert (row["n_items"], row["n_decided"]) == (10, 10 - n_open)


def test_an_item_without_one_used_field_is_not_decided():
    """V0 does not look at assurance: a tie there leaves the item decided; V1 does."""
    open_claim = {name: value for name, value in SEVERE.items() if name != "assurance_claim"}
    assert judged("V0", [open_claim]).iloc[0]["n_decided"] == 1
    assert judged("V1", [open_claim]).iloc[0]["verdict"] == policies.INSUFFICIENT


def test_items_nobody_was_asked_about_are_not_decided():
    """Documents without a consensus lower the coverage, they are not low risk."""
    consensus, documents = tables([SEVERE] * 4)
    groups = pd.DataFrame({"group": ["g", "empty"], "categories": ["Thai", "Thai"]})
    found = verdicts.reach(consensus.iloc[:10], documents, groups, ALLERGY.policies, [25])
    assert set(found["verdict"]) == {policies.INSUFFICIENT}
    assert len(found) == 4 * 2
    assert found.loc[found["group"].eq("empty"), "n_items"].eq(0).all()


def test_evidence_names_the_items():
    """Every condition or line says how many items fit, and which."""
    rules = json.loads(judged("V0", [SEVERE, MILD, SEVERE]).iloc[0]["evidence"])
    assert rules[0] == {
        "condition": "rule 1, condition 1",
        "for": CRITICAL,
        "at_least": 2,
        "fulfilled": True,
        "where": {"account_type": ["firsthand"], "incident_severity": ["severe"]},
        "n": 2,
        "items": ["g/000", "g/002"],
    }
    lines = json.loads(judged("V2", [MILD], "Thai, Vegan").iloc[0]["evidence"])
    assert [line["points"] for line in lines] == [2, 0, 0, 0, 0, 2]
    assert lines[-1] == {"column": "categories", "named": ["Thai"], "points": 2}


@pytest.mark.parametrize(
    ("change", "ks", "words"),
    [
        (
            {"groups": {"group": ["g"], "category": [""]}},
            [],
            "no column 'categories'. Did you mean",
        ),
        (
            {"groups": {"group": ["h"], "categories": [""]}},
            [],
            "1 groups are not in the groups table",
        ),
        ({"groups": {"group": ["g", "g"], "categories": ["", ""]}}, [], "'g' more than once"),
        ({"dates": ["2026-07-01"]}, [], "the newest item is of 2026-07-01, after as_of 2026-06-30"),
        ({"dates": [None]}, [], "1 of 1 items have no date for recency"),
    ],
)
def test_tables_that_a_policy_cannot_use(change, ks, words):
    """A column, group or date that a policy needs and does not find stops it, by its name."""
    consensus, documents = tables([SEVERE])
    dates = pd.to_datetime(pd.Series(change.get("dates", ["2026-06-01"])))
    groups = pd.DataFrame(change.get("groups", {"group": ["g"], "categories": [""]}))
    v3 = {"V3": ALLERGY.policies["V3"]}
    with pytest.raises(StudyError, match=r"policies/V3\.yml") as raised:
        verdicts.reach(consensus, documents.assign(date=dates), groups, v3, ks)
    assert words in str(raised.value)


def test_thresholds_by_k():
    """Critical at 12 for K = 1 and 6 for K = 2: the same 7 points are High, then Critical."""
    limits = {HIGH: {"any": 4.0}, CRITICAL: {"1": 12.0, "2": 6.0}}
    reviews = [review("mild", assured="true"), IRRELEVANT]
    found = judged("V2", reviews, ks=[1, 2], thresholds=limits)
    assert found["verdict"].tolist() == [HIGH, CRITICAL]
    with pytest.raises(StudyError, match="thresholds for K = 1, 2, not for K = 3"):
        judged("V2", reviews, ks=[3], thresholds=limits)


def test_leap_days():
    """A year before 29 February is 28 February."""
    assert verdicts.years_before(datetime.date(2024, 2, 29), 4) == datetime.date(2020, 2, 29)
    assert verdicts.years_before(datetime.date(2024, 2, 29), 3) == datetime.date(2021, 2, 28)


severities = st.sampled_from(["none", "mild", "moderate", "severe"])
accounts = st.sampled_from(["firsthand", "secondhand", "hypothetical"])
claims = st.sampled_from(["true", "false", "unknown"])
staffs = st.sampled_from(["accommodated", "refused", "dismissive", "none"])
reviews_of_any_kind = st.lists(
    st.one_of(st.just(IRRELEVANT), st.builds(review, severities, accounts, claims, staffs)),
    min_size=1,
    max_size=6,
)


def by_hand(reviews, thai):
    """V0, V1 and V2 in plain Python, as their owner stated them."""
    true = [one for one in reviews if one["relevant"] == "true"]
    first = [one for one in true if one["account_type"] == "firsthand"]
    worst = [one["incident_severity"] for one in first]
    assured = [one["incident_severity"] for one in first if one["assurance_claim"] == "true"]
    rude = sum(one["staff_response"] in ("refused", "dismissive") for one in true)
    v0 = CRITICAL if worst.count("severe") >= 2 else LOW
    if v0 == LOW and (worst.count("moderate") >= 2 or rude >= 3):
        v0 = HIGH
    v1 = HIGH if "moderate" in worst or "mild" in assured or rude >= 3 else LOW
    if "severe" in worst or {"moderate", "severe"} & set(assured):
        v1 = CRITICAL
    points = {"none": 0, "mild": 2, "moderate": 5, "severe": 15}
    incidents = [one for one in first if one["incident_severity"] != "none"]
    total = sum(points[one["incident_severity"]] for one in incidents)
    total += 5 * sum(one["assurance_claim"] == "true" for one in incidents)
    total += 3 * sum(one["staff_response"] == "dismissive" for one in incidents)
    total += 2 if thai and incidents else 0
    return v0, v1, CRITICAL if total >= 8 else HIGH if total >= 4 else LOW


@settings(max_examples=40, deadline=None)
@given(reviews_of_any_kind, st.booleans())
def test_the_policies_say_what_their_owner_stated(reviews, thai):
    """Random reviews: V0, V1 and V2 read from YAML agree with the statement in plain Python."""
    groups = pd.DataFrame({"group": ["g"], "categories": ["Thai, Bars" if thai else "Bars"]})
    found = verdicts.reach(*tables(reviews), groups, ALLERGY.policies).set_index("policy")
    assert tuple(found.loc[["V0", "V1", "V2"], "verdict"]) == by_hand(reviews, thai)
    assert found["verdict"].notna().all()
    assert found["simulated"].all()
