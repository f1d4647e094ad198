"""Verdicts: the four allergy policies worked by hand, K, coverage, recency and evidence."""

import datetime
import json
from fractions import Fraction
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
            "1 group is not in the groups table",
        ),
        ({"groups": {"group": ["g", "g"], "categories": ["", ""]}}, [], "'g' more than once"),
        ({"dates": ["2026-07-01"]}, [], "the newest item is of 2026-07-01, after as_of 2026-06-30"),
        ({"dates": [None]}, [], "no date for recency on 1 of 1 item."),
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


STATED = datetime.date(2026, 6, 30)
BY_K = {25: 12, 50: 6, 100: 7, 200: 8}
KS = list(BY_K)


def restaurant_points(reviews, categories, faded):
    """V2, or V3 when `faded`, in plain Python, as their owner stated them."""
    total, n_incidents = Fraction(0), 0
    for one in reviews:
        firsthand = one.get("relevant") == "true" and one.get("account_type") == "firsthand"
        worth = {"mild": 2, "moderate": 5, "severe": 15}.get(one.get("incident_severity"), 0)
        if not firsthand or not worth:
            continue
        n_incidents += 1
        worth += 5 if one.get("assurance_claim") == "true" else 0
        worth += 3 if one.get("staff_response") == "dismissive" else 0
        day = datetime.datetime.fromisoformat(one["date"]).date()
        two_years, three_years = (STATED.replace(year=STATED.year - n) for n in (2, 3))
        share = Fraction(1) if day >= two_years else Fraction(1, 2 if day >= three_years else 4)
        total += worth * (share if faded else 1)
    words = categories.replace(",", " ").split()
    asian = {"Thai", "Vietnamese", "Chinese", "Asian"} & set(words)
    return total + (2 if n_incidents and asian else 0)


def counted_rules(reviews):
    """V0 and V1 in plain Python, as their owner stated them."""
    relevant = [one for one in reviews if one.get("relevant") == "true"]
    first = [one for one in relevant if one.get("account_type") == "firsthand"]
    told = [one.get("incident_severity") for one in first]
    n_severe, n_moderate = told.count("severe"), told.count("moderate")
    promised = {
        one.get("incident_severity") for one in first if one.get("assurance_claim") == "true"
    }
    n_rude = sum(one.get("staff_response") in ("refused", "dismissive") for one in relevant)
    v0 = CRITICAL if n_severe >= 2 else HIGH if n_moderate >= 2 or n_rude >= 3 else LOW
    if n_severe >= 1 or "moderate" in promised or "severe" in promised:
        return v0, CRITICAL
    return v0, HIGH if n_moderate >= 1 or "mild" in promised or n_rude >= 3 else LOW


def stated(reviews, categories, k, by_k):
    """The verdicts of V0 to V3 on the newest K reviews; none where too few are decided."""
    newest = sorted(reviews, key=lambda one: (one["date"], -one["place"]), reverse=True)[:k]
    needed = {"V0": ("account_type", "incident_severity", "staff_response")}
    found = {}
    v0, v1 = counted_rules(newest)
    for policy in ("V0", "V1", "V2", "V3"):
        wanted = ("relevant", *needed.get(policy, RELEVANT))
        n_decided = sum(
            one.get("relevant") == "false" or all(name in one for name in wanted) for one in newest
        )
        points = restaurant_points(newest, categories, faded=policy == "V3")
        critical = BY_K[k] if by_k else 8
        by_points = CRITICAL if points >= critical else HIGH if points >= 4 else LOW
        verdict = {"V0": v0, "V1": v1}.get(policy, by_points)
        enough = n_decided > 0 and 10 * n_decided >= 8 * len(newest)
        found[policy] = verdict if enough else policies.INSUFFICIENT
    return found


@st.composite
def reviews_of_any_kind(draw):
    """From 1 to 230 reviews in random order, rarely an incident, some fields a tie, as in life."""
    random = draw(st.randoms(use_true_random=False))
    n, rare, n_open = random.choice([1, 3, 12, 30, 60, 230]), random.choice([0.05, 0.5]), 0.02
    firsthand = ["firsthand", "firsthand", "secondhand", "hypothetical"]
    found = []
    for place in range(n):
        day = random.choice([0, 1, 365, 700, 730, 731, 1095, 1096, 1500])
        one = {"date": str(STATED - datetime.timedelta(day)), "place": place, "relevant": "false"}
        if random.random() < rare:
            words = (
                random.choice(firsthand),
                random.choice(["none", "mild", "mild", "moderate", "severe"]),
                random.choice(["true", "false", "unknown"]),
                random.choice(["accommodated", "refused", "dismissive", "none", "unknown"]),
            )
            one |= {"relevant": "true", **dict(zip(RELEVANT, words, strict=True))}
        for name in ("relevant", *RELEVANT):
            if random.random() < n_open:
                one.pop(name, None)
        if "relevant" not in one:
            one = {"date": one["date"], "place": place}
        found.append(one)
    return found


@settings(max_examples=15)
@given(
    reviews_of_any_kind(),
    st.sampled_from(["Thai, Vegan", "Bars, Asian Fusion", "Bars", "Caucasian"]),
    st.booleans(),
)
def test_the_policies_say_what_their_owner_stated(reviews, categories, by_k):
    """Random reviews, K = 25 to 200: the four policies agree with the statement in plain Python."""
    limits = {HIGH: {"any": 4.0}, CRITICAL: {str(k): float(n) for k, n in BY_K.items()}}
    of_study = {
        name: one.model_copy(update={"thresholds": limits} if by_k and one.points else {})
        for name, one in ALLERGY.policies.items()
    }
    groups = pd.DataFrame({"group": ["g"], "categories": [categories]})
    found = verdicts.reach(*tables(reviews), groups, of_study, KS)
    for k, table in found.groupby("k"):
        said = table.set_index("policy")["verdict"].to_dict()
        assert said == stated(reviews, categories, k, by_k)
    assert found["verdict"].notna().all()
    assert found["simulated"].all()


@pytest.mark.parametrize(
    ("group", "whole", "newest"),
    [
        ("rest01", [LOW, CRITICAL, CRITICAL, CRITICAL, 14, 13], [LOW, CRITICAL, 12, 12]),
        ("rest02", [LOW, CRITICAL, CRITICAL, HIGH, 17, 5.75], [LOW, LOW, 2, 2]),
        ("rest03", [HIGH, HIGH, HIGH, HIGH, 7, 4.5], [LOW, LOW, 2, 2]),
        ("rest04", [LOW, LOW, HIGH, HIGH, 4, 4], [LOW, LOW, 4, 4]),
        ("rest05", [CRITICAL, CRITICAL, CRITICAL, CRITICAL, 47, 47], [CRITICAL, CRITICAL, 47, 47]),
        ("rest06", [HIGH, HIGH, CRITICAL, HIGH, 10, 7.5], [HIGH, HIGH, 10, 7.5]),
        ("rest07", [LOW, CRITICAL, CRITICAL, HIGH, 15, 7.5], [LOW, CRITICAL, 15, 7.5]),
        ("rest08", [LOW, LOW, LOW, LOW, 0, 0], [LOW, LOW, 0, 0]),
        ("rest09", [LOW, HIGH, HIGH, HIGH, 7, 7], [LOW, HIGH, 7, 7]),
        ("rest10", [LOW, CRITICAL, CRITICAL, LOW, 15, 3.75], [LOW, CRITICAL, 15, 3.75]),
        ("rest11", [LOW, LOW, LOW, LOW, 0, 0], [LOW, LOW, 0, 0]),
        ("rest12", [LOW, HIGH, CRITICAL, HIGH, 9, 7.5], [LOW, HIGH, 9, 7.5]),
    ],
)
def test_what_gold_implies(of_gold, group, whole, newest):
    """With every label right the sample study has the verdicts that its README states."""
    last, first = (of_gold[of_gold["k"].eq(k) & of_gold["group"].eq(group)] for k in (200, 25))
    assert last["verdict"].tolist() + last["points"].dropna().tolist() == whole
    rules, points = first["verdict"].tolist()[:2], first["points"].dropna().tolist()
    assert rules + points == newest


@pytest.fixture(scope="module")
def of_gold():
    """The verdicts on the sample study when the gold labels are the consensus."""
    folder = Path(ALLERGY.folder)
    gold = pd.read_csv(folder / "gold.csv", dtype="str", keep_default_na=False)
    lines = (folder / "corpus" / "reviews.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line) for line in lines if line.endswith("}")]
    rows = [(f"reviews/{one['review_id']}", one["restaurant_id"], one["date"]) for one in texts]
    documents = pd.DataFrame(rows, columns=["item", "group", "date"])
    documents = documents[documents["item"].isin(gold["item"])]
    wide = gold.pivot(index="item", columns="field", values="value")
    consensus = wide.reset_index().melt("item", var_name="field")
    status = consensus["value"].notna().map({True: "decided", False: "not_applicable"})
    consensus = consensus.assign(status=status, simulated=False)
    documents = documents.assign(date=pd.to_datetime(documents["date"]))
    groups = pd.read_csv(folder / "corpus" / "restaurants.csv")
    groups = groups.rename(columns={"restaurant_id": "group"})
    return verdicts.reach(consensus, documents, groups, ALLERGY.policies, KS)


def test_nothing_decided_is_no_verdict_at_any_coverage():
    """A policy that asks for no coverage says nothing where no item is decided."""
    found = judged("V0", [{"date": "2026-06-01"}], coverage=0.0).iloc[0]
    assert (found["verdict"], found["decided_by"]) == (policies.INSUFFICIENT, "coverage")


def test_samples_are_nested():
    """What K = 25 takes is the beginning of what K = 50 takes, and so on."""
    reviews = [review("severe", date=f"2026-0{n % 5 + 1}-01") for n in range(70)]
    found = judged("V1", reviews, ks=[5, 10, 15])
    taken = [json.loads(text)[0]["items"] for text in found["evidence"]]
    assert taken[2][:10] == taken[1]
    assert taken[1][:5] == taken[0]


def test_corrections_are_counted():
    """A verdict says on how many of its items people corrected a field that its policy uses."""
    consensus, documents = tables([SEVERE, MILD, MILD])
    corrected = consensus["field"].eq("assurance_claim") & consensus["item"].ne("g/000")
    groups = pd.DataFrame({"group": ["g"], "categories": ["Bars"]})
    found = verdicts.reach(
        consensus.assign(corrected=corrected), documents, groups, ALLERGY.policies
    )
    assert found.set_index("policy")["n_corrected"].to_dict() == {
        "V0": 0,
        "V1": 2,
        "V2": 2,
        "V3": 2,
    }
