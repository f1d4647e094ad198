"""Flips: worked examples, and every answer compared with counting and judging all over again."""

import datetime

import making
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import consensus, policies, verdicts
from lib.errors import AccountingError
from lib.verdicts import flips

FIELDS = {
    "relevant": making.field("boolean"),
    "severity": making.field(values={n: {"description": n} for n in ("none", "mild", "severe")})
    | {"when": "relevant"},
}
PANEL = {"strong": ("m-s", 1, 1.0), "weak": ("m-w", 2, 1.0)}
LOW, HIGH, CRITICAL, LACKING = "Low", "High", "Critical", policies.INSUFFICIENT
GROUPS = pd.DataFrame({"group": ["g", "h"], "kind": ["Thai food", "Burgers"]})
COMMON = {"verdicts": [LOW, HIGH, CRITICAL], "default": LOW, "uses": ["relevant", "severity"]}
RULES = policies.Policy.model_validate(
    {
        "id": "rules",
        "title": "-",
        "coverage": 0.6,
        "only": {"relevant": ["true"]},
        "rules": [
            {"verdict": CRITICAL, "any": [{"at_least": 1, "where": {"severity": ["severe"]}}]},
            {
                "verdict": HIGH,
                "any": [
                    {"at_least": 2, "where": {"severity": ["mild"]}},
                    {"at_least": 3, "where": {"relevant": ["true"]}},
                ],
            },
        ],
        **COMMON,
    }
)
POINTS = policies.Policy.model_validate(
    {
        "id": "points",
        "title": "-",
        "coverage": 0.4,
        "only": {"relevant": ["true"]},
        "points": [
            {"where": {"severity": ["mild"]}, "points": 0.7},
            {"where": {"severity": ["severe"]}, "points": 4.0},
            {"where": {"severity": ["none"]}, "points": -0.1},
        ],
        "group_points": [{"column": "kind", "any_of": ["thai"], "points": 0.3}],
        "thresholds": {HIGH: {"1": 0.35, "2": 0.7, "any": 1.0}, CRITICAL: {"any": 2.0}},
        "recency": {
            "as_of": datetime.date(2026, 6, 30),
            "bands": [{"up_to_years": 2, "share": 1.0}, {"share": 0.5}],
        },
        **COMMON,
    }
)
SLOTS = [("strong", 0), ("weak", 0), ("weak", 1)]
NO_VOTE = ["missing", "stray"]


def study_of(weights="per_model", ks=(1, 2), of=(RULES, POINTS)):
    """The small study with its two policies."""
    found = making.study(FIELDS, PANEL, weights=weights)
    return found.model_copy(update={"policies": {one.id: one for one in of}, "k": list(ks)})


def said(study, answers):
    """Votes: item -> for each slot a pair of relevant and severity; a reason is an abstention."""
    rows = []
    models = {name: one.model for name, one in study.annotators.items()}
    for item, by_slot in answers.items():
        for (annotator, repeat), (relevant, severity) in zip(SLOTS, by_slot, strict=True):
            outside = None if relevant == "true" else "not_applicable"
            for name, word, silent in (
                ("relevant", relevant, None),
                ("severity", severity, outside),
            ):
                reason = silent or (word if word in NO_VOTE else None)
                value = None if reason else word
                slot = (item, name, annotator, repeat, models[annotator])
                rows.append((*slot, value, reason, False))
    names = ["item", "field", "annotator", "repeat", "model", "value", "abstained", "simulated"]
    table = pd.DataFrame(rows, columns=names)
    return table.astype({"value": "object", "abstained": "object"})


def dated(places):
    """Documents: item -> group and date."""
    rows = [(item, group, date) for item, (group, date) in places.items()]
    table = pd.DataFrame(rows, columns=["item", "group", "date"])
    return table.astype({"date": "datetime64[us]"})


def found_in(study, answers, places):
    """The flips of these answers, and the verdicts as they are."""
    votes, documents = said(study, answers), dated(places)
    decided = consensus.decide(votes, study)
    reached = verdicts.reach(decided, documents, GROUPS, study.policies, study.k)
    return flips.find(votes, decided, documents, GROUPS, study), reached


def as_set(table):
    """The flips of a table, without what follows from the rest."""
    columns = ["policy", "k", "group", "new_verdict", "item", "field", "annotator", "repeat"]
    rows = table[[*columns, "new_value"]].astype(object)
    return set(rows.where(rows.notna(), None).itertuples(index=False, name=None))


def by_brute_force(study, answers, places):
    """Each vote changed in turn: all is counted and judged again, a world for each change."""
    worlds = {(): answers}
    for item, by_slot in answers.items():
        for n, (relevant, severity) in enumerate(by_slot):
            changes = [("relevant", new) for new in ("true", "false", "missing")]
            if relevant == "true":
                changes += [("severity", new) for new in ("none", "mild", "severe", "missing")]
            for name, new in changes:
                old = relevant if name == "relevant" else severity
                if new == old or {new, old} <= set(NO_VOTE):
                    continue
                # Who comes to say that it is relevant has said nothing of the rest.
                silent = "missing" if new == "true" else severity
                pair = (new, silent) if name == "relevant" else (relevant, new)
                changed = [*by_slot[:n], pair, *by_slot[n + 1 :]]
                worlds[item, name, *SLOTS[n], new] = {**answers, item: changed}
    votes, documents, groups = [], [], []
    for n, world in enumerate(worlds.values()):
        votes.append(said(study, {f"{n}/{item}": one for item, one in world.items()}))
        moved = {f"{n}/{i}": (f"{n}/{group}", date) for i, (group, date) in places.items()}
        documents.append(dated(moved))
        groups.append(GROUPS.assign(group=f"{n}/" + GROUPS["group"]))
    decided = consensus.decide(pd.concat(votes, ignore_index=True), study)
    tables = (decided, pd.concat(documents), pd.concat(groups))
    reached = verdicts.reach(*tables, study.policies, study.k)
    reached[["world", "group"]] = reached["group"].str.split("/", expand=True)
    now = reached[reached["world"].eq("0")].drop(columns="world")
    both = reached.merge(now, on=["policy", "k", "group"], suffixes=("", "_now"))
    both = both[both["verdict"].ne(both["verdict_now"])]
    changes = list(worlds)
    rows = set()
    for one in both.itertuples():
        *slot, new = changes[int(one.world)]
        k = None if pd.isna(one.k) else one.k
        new = None if new == "missing" else new
        rows.add((one.policy, k, one.group, one.verdict, *slot, new))
    return rows


pairs = st.tuples(
    st.sampled_from(["true", "true", "false", "missing", "stray"]),
    st.sampled_from(["none", "mild", "severe", "stray"]),
)
reviews = st.lists(
    st.tuples(
        st.lists(pairs, min_size=3, max_size=3),
        st.sampled_from(["g", "g", "h"]),
        st.sampled_from(["2026-06-01", "2026-05-01", "2020-01-01"]),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=5)
@given(reviews, st.sampled_from(["per_model", "per_repeat"]), st.sampled_from([(), (1, 2)]))
def test_the_same_as_counting_everything_again(cases, weights, ks):
    """For random votes: the flips are those that a count and verdict per changed vote finds."""
    study = study_of(weights, ks)
    answers = {f"i{n}": by_slot for n, (by_slot, _, _) in enumerate(cases)}
    places = {f"i{n}": (group, date) for n, (_, group, date) in enumerate(cases)}
    found, _ = found_in(study, answers, places)
    assert as_set(found) == by_brute_force(study, answers, places)


CALM = [("false", "none")] * 3
MILD = [("true", "mild")] * 3
SPLIT = [("true", "severe"), ("true", "mild"), ("true", "mild")]


def test_one_vote_more_would_do():
    """The strong model says severe and the weak one mild twice: 1 to 1, a tie on severity.

    One weak vote for severe makes it 1.5 to 0.5, and one for none 1 to 0.5 twice: both are severe.
    One that abstains leaves 1 to 1, as the repeat that voted has the whole weight. The strong vote
    for mild makes it 2 to 0; for none it is a tie again; when it abstains, 1 of 2 is no quorum.
    """
    found, reached = found_in(study_of(ks=(), of=[RULES]), {"i": SPLIT}, {"i": ("g", "2026-06-01")})
    assert reached.set_index("group")["verdict"].to_dict() == {"g": LACKING, "h": LACKING}
    severity = found[found["field"].eq("severity")]
    changes = severity[["annotator", "repeat", "value", "new_value", "new_verdict"]]
    assert sorted(map(tuple, changes.to_numpy())) == [
        ("strong", 0, "severe", "mild", LOW),
        ("weak", 0, "mild", "none", CRITICAL),
        ("weak", 0, "mild", "severe", CRITICAL),
        ("weak", 1, "mild", "none", CRITICAL),
        ("weak", 1, "mild", "severe", CRITICAL),
    ]
    assert set(found["model"]) == {"m-s", "m-w"}
    assert not found["simulated"].any()


def test_who_takes_relevance_back_takes_the_rest_back():
    """Without the strong model's `true` its word on severity goes as well.

    relevant: true 1, false 1 is a tie, so the item is open; the group has no verdict then.
    """
    answers, places = {"i": [("true", "severe")] * 3}, {"i": ("g", "2026-06-01")}
    found, _ = found_in(study_of(ks=(), of=[RULES]), answers, places)
    strong = found[found["annotator"].eq("strong") & found["field"].eq("relevant")]
    assert strong["new_value"].fillna("abstains").tolist() == ["abstains", "false"]
    assert set(strong["new_verdict"]) == {LACKING}


def test_what_people_corrected_no_vote_can_move():
    """A corrected severity stays; only votes on relevance can still flip the verdict."""
    study, documents = study_of(ks=(), of=[RULES]), dated({"i": ("g", "2026-06-01")})
    votes = said(study, {"i": SPLIT})
    decided = consensus.decide(votes, study)
    mine = decided["field"].eq("severity")
    decided = decided.assign(corrected=mine)
    decided.loc[mine, ["value", "status"]] = ["severe", "decided"]
    found = flips.find(votes, decided, documents, GROUPS, study)
    assert set(found["verdict"]) == {CRITICAL}
    assert set(found["field"]) == {"relevant"}


def test_the_most_fragile_verdicts_come_first():
    """Each verdict with the number of votes that could flip it, none left out."""
    answers = {"i": SPLIT, "j": CALM, "k": CALM, "l": MILD}
    places = dict.fromkeys(answers, ("g", "2026-06-01"))
    found, reached = found_in(study_of(ks=(1, 4)), answers, places)
    table = flips.fragile(found, reached)
    assert len(table) == len(reached)
    assert table["n_flips"].is_monotonic_decreasing
    assert table["n_flips"].sum() == len(
        found[["policy", "k", "group", "item", "field", "annotator", "repeat"]].drop_duplicates()
    )
    assert table.loc[table["group"].eq("h"), "n_flips"].eq(0).all()
    assert table.loc[table["group"].eq("h"), "could_become"].eq("").all()


@settings(max_examples=2)
@given(st.randoms())
def test_the_order_of_rows_changes_nothing(random):
    """Shuffled votes, consensus, documents and groups give the same flips in the same order."""
    study, answers = study_of(), {"i": SPLIT, "j": CALM, "k": CALM, "l": MILD}
    tables = [
        said(study, answers),
        None,
        dated(dict.fromkeys(answers, ("g", "2026-06-01"))),
        GROUPS,
    ]
    tables[1] = consensus.decide(tables[0], study)
    shuffled = [one.sample(frac=1, random_state=random.randrange(99)) for one in tables]
    one, other = (flips.find(*each, study) for each in (tables, shuffled))
    pd.testing.assert_frame_equal(one, other)
    assert len(one)


def test_the_names_of_annotators_change_nothing():
    """The same panel under other names has the same flips."""
    answers, places = {"i": SPLIT, "j": CALM}, dict.fromkeys("ij", ("g", "2026-06-01"))
    study = study_of()
    votes, renamed = said(study, answers), {"strong": "zoe", "weak": "abe"}
    panel = {renamed[name]: one for name, one in PANEL.items()}
    other = making.study(FIELDS, panel).model_copy(
        update={"policies": study.policies, "k": study.k}
    )
    found, _ = found_in(study, answers, places)
    votes = votes.assign(annotator=votes["annotator"].map(renamed))
    decided = consensus.decide(votes, other)
    again = flips.find(votes, decided, dated(places), GROUPS, other)
    assert as_set(found.assign(annotator=found["annotator"].map(renamed))) == as_set(again)


def test_votes_of_another_run():
    """A consensus that these votes do not give is refused."""
    study, documents = study_of(), dated({"i": ("g", "2026-06-01")})
    decided = consensus.decide(said(study, {"i": MILD}), study)
    with pytest.raises(AccountingError, match="decide otherwise than the consensus"):
        flips.find(said(study, {"i": SPLIT}), decided, documents, GROUPS, study)


def test_votes_from_a_file(tmp_path):
    """The votes may be a Parquet file; a study without policies has no flips."""
    study, documents = study_of(), dated({"i": ("g", "2026-06-01")})
    votes = said(study, {"i": SPLIT})
    decided = consensus.decide(votes, study)
    votes.to_parquet(tmp_path / "votes.parquet")
    found = flips.find(tmp_path / "votes.parquet", decided, documents, GROUPS, study)
    pd.testing.assert_frame_equal(found, flips.find(votes, decided, documents, GROUPS, study))
    bare = study.model_copy(update={"policies": {}})
    assert list(flips.find(votes, decided, documents, GROUPS, bare)) == flips.COLUMNS


def test_verdicts_that_nothing_can_flip():
    """Nine calm reviews in one voice: no single vote matters, and every verdict says so."""
    answers = {f"i{n}": CALM for n in range(9)}
    places = dict.fromkeys(answers, ("g", "2026-06-01"))
    found, reached = found_in(study_of(ks=(9,), of=[RULES]), answers, places)
    assert list(found) == flips.COLUMNS
    assert found.empty
    table = flips.fragile(found, reached)
    assert len(table) == len(reached)
    assert table["n_flips"].eq(0).all()
    assert flips.sentence(table) == "0 of 2 verdicts could be flipped by one vote"
    assert flips.sentence(table.head(0)).startswith("No policies")
