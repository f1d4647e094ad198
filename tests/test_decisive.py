"""Decisive voting: the loop on random panels, plans worked by hand, and real votes replayed."""

import json

import making
import pandas as pd
import panels
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import consensus, decisive, prompts
from lib.decisive import bounds, waves

RESULT = ["item", "field", "status", "value", "candidates"]


@st.composite
def runs(draw):
    """A study, what every slot would say on some items, a plan in any order, and a pilot."""
    study = draw(panels.studies(max_slots=4))
    slots, known = panels.slots(study), panels.answers(study)
    items, said = [f"r{n}" for n in range(draw(st.integers(1, 6)))], {}
    for item in items:
        some = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))
        said[item] = {slot: draw(st.sampled_from(some)) for slot in slots}
    order = draw(st.permutations(slots))
    ends = sorted({*draw(st.lists(st.integers(1, len(slots)), max_size=3)), len(slots)})
    plan = [order[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return study, said, plan, set(draw(st.lists(st.sampled_from(items), unique=True)))


def requests_of(said):
    """A request for every item and slot."""
    rows = [
        (f"{item}/{name}/{repeat}", item, name, repeat)
        for item, by_slot in said.items()
        for name, repeat in by_slot
    ]
    return pd.DataFrame(rows, columns=["key", "item", "annotator", "repeat"])


def same(votes, others, study):
    """Whether two tables of votes have the same results and elect the same keys."""
    one, other = (consensus.decide(table, study)[RESULT] for table in (votes, others))
    chosen = [consensus.elected(table, study).query("elected") for table in (votes, others)]
    keys = [set(zip(table["item"], table["field"], table["key"])) for table in chosen]  # noqa: B905
    return one.fillna("-").equals(other.fillna("-")) and keys[0] == keys[1]


@settings(max_examples=10)
@given(runs(), st.randoms())
def test_the_loop_ends_asks_once_and_changes_nothing(run, random):
    """Whatever the plan, and in whatever order answers arrive: asking what is due until nothing is
    asks each request at most once, the pilot's all, and decides as all votes do.
    """
    study, said, plan, pilot = run
    requests, finished, asked, rounds = requests_of(said), set(), [], 0
    every = panels.table(study, said)
    place = list(zip(every["item"], every["annotator"], every["repeat"], strict=True))
    keys = pd.Series([f"{item}/{name}/{n}" for item, name, n in place], index=every.index)
    while True:
        known = every[keys.isin(finished)]
        may = decisive.due(requests, known, finished, study, plan, pilot)
        new = sorted(set(requests.loc[may, "key"]) - finished)
        if not new:
            break
        some = random.sample(new, random.randint((len(new) + 1) // 2, len(new)))
        asked += some
        finished |= set(some)
        rounds += 1
    assert len(asked) == len(set(asked)) and rounds <= len(requests)
    assert set(requests.loc[requests["item"].isin(pilot), "key"]) <= finished
    is_in = keys.isin(finished)
    spared = every.assign(
        value=every["value"].where(is_in),
        abstained=every["abstained"].astype("string").where(is_in, bounds.SETTLED),
    )
    assert same(every, spared, study)


@settings(max_examples=4)
@given(runs())
def test_a_replay_adds_up_and_changes_nothing(run):
    """Requests asked and not asked are all requests, and no item has another result."""
    study, said, plan, pilot = run
    votes = panels.table(study, said)
    usd_of = dict.fromkeys(study.annotators, 1.0)
    table = decisive.replay(votes, study, usd_of, pilot, plan)
    n_all = len(said) * study.n_votes
    assert table["n_requests"].sum() + table["n_unasked"].sum() == n_all
    assert table["asked_usd"].sum() + table["unasked_usd"].sum() == pytest.approx(n_all)
    assert table["n_settled"].sum() == len(said)
    assert table["n_changed"].sum() == 0
    assert table["n_requests"].iloc[0] == len(pilot) * study.n_votes


def test_a_weight_of_more_than_half_is_asked_first():
    """Terra (2) outweighs luna (1): nothing but terra is ever needed, unless it fails."""
    study = making.study(annotators={"luna": ("s", 3, 1.0), "terra": ("l", 1, 2.0)})
    plan = waves.choose(study, {"luna": 0.001, "terra": 0.01})
    assert waves.described(plan) == "terra, then luna x 3"


def test_three_alike_ask_the_cheap_two_first():
    """With equal weights two that agree settle an item: the dearest of three is asked last."""
    study = making.study()
    plan = waves.choose(study, {"a": 0.01, "b": 0.001, "c": 0.002})
    assert waves.described(plan) == "b + c, then a"


def test_the_price_of_a_plan_is_worked_by_hand():
    """Four pilot items, a, b and c for 1, 2 and 4: a and b disagree on one of them.

    All at once cost 7; a + b first 3, and on one in four another 4: 3 + 4 / 4 = 4, 2.25 requests.
    """
    study = making.study()
    calm, angry = {"mood": ("calm", None)}, {"mood": ("angry", None)}
    said = {f"r{n}": {("a", 0): calm, ("b", 0): calm, ("c", 0): calm} for n in range(4)}
    said["r3"][("b", 0)] = angry
    table = waves.plans(study, {"a": 1.0, "b": 2.0, "c": 4.0}, panels.table(study, said))
    assert table["n_waves"].tolist() == [1, 2]
    assert table["item_usd"].tolist() == [7, 4]
    assert table["n_requests_per_item"].tolist() == [3, 2.25]
    assert table["asks"].tolist() == ["a + b + c", "a + b, then c"]
    assert table["is_chosen"].tolist() == [False, True]


def test_without_prices_requests_count():
    """Where nothing costs, the plan spares requests, and says that it saves no money."""
    study = making.study()
    table = waves.plans(study, dict.fromkeys("abc", 0.0))
    assert len(table) == 2
    assert table["item_usd"].eq(0).all()
    assert table["price_share"].iloc[1] == pytest.approx(table["n_requests_per_item"].iloc[1] / 3)


def test_a_plan_survives_json():
    """A plan that was kept in a file, with lists for tuples, allows the same requests."""
    study = making.study()
    plan = waves.choose(study, {"a": 1.0, "b": 2.0, "c": 3.0})
    kept = json.loads(json.dumps(plan))
    requests = requests_of({"r1": dict.fromkeys(panels.slots(study))})
    none = panels.table(study, {})
    found = [decisive.due(requests, none, set(), study, one, set()) for one in (plan, kept)]
    assert found[0].tolist() == found[1].tolist() == [True, True, False]


@pytest.mark.parametrize("kind", ["category", "boolean", "entities", "text", "number"])
def test_drawn_votes_agree_as_stated(kind):
    """Without a pilot two models agree about as often as stated, by their repeats a little less."""
    study = making.study({"f": making.field(kind)}, {name: (f"m-{name}", 1, 1.0) for name in "ab"})
    said = waves.drawn(study).pivot(index="item", columns="annotator", values="value")
    agree = said["a"].eq(said["b"]).mean()
    assert 0.3 < agree < 0.9 if kind == "entities" else 0.6 < agree < 0.85


def test_expected_is_what_a_replay_of_the_pilot_costs():
    """What is expected of items beyond the pilot is the price of the pilot's, replayed."""
    study = making.study(annotators={name: (f"m-{name}", 1, 1.0) for name in "abcd"}, pilot=0)
    votes, usd_of = waves.drawn(study), {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}
    plan = waves.choose(study, usd_of, votes)
    table = decisive.expected(study, usd_of, votes["item"].nunique(), plan, votes)
    replayed = decisive.replay(votes, study, usd_of, set(), plan)
    assert table["expected_usd"].sum() == pytest.approx(replayed["asked_usd"].sum())
    assert table["n_expected"].sum() == pytest.approx(replayed["n_requests"].sum())


@pytest.mark.parametrize("weights", ["per_model", "per_repeat"])
def test_ten_models_have_a_plan(weights):
    """A panel whose sets of slots are too many to try all is planned all the same."""
    annotators = {f"m{n:02}": (f"m-{n}", 1, 1.0) for n in range(10)}
    study = making.study(annotators=annotators, weights=weights)
    plan = waves.choose(study, {name: 1.0 + n for n, name in enumerate(annotators)})
    assert sorted(slot for wave in plan for slot in wave) == panels.slots(study)


# The least that is saved of all requests and of all money, pilot of 50 included.
SAVED = {
    "mediabias, 8 models": (0.09, 0.71),
    "mediabias, 4 models": (0.12, 0.49),
    "mediabias, gpt-4 (2) + 3 x gpt-3.5 (1)": (0.73, 0.05),
    "mediabias, gpt-4 (2) + 3 x gpt-3.5 (1 each)": (0.18, 0.69),
    "llmjudge, 7 teams": (0.20, 0.31),
    "llmjudge, umbrela (2) + 3 x nist (1)": (0.74, 0.42),
    "llmjudge, umbrela (2) + 3 x nist (1 each)": (0.24, 0.56),
}


@pytest.mark.parametrize("name", panels.REAL)
def test_real_votes_keep_every_label_for_less(name, shared):
    """Real votes replayed: 0 labels changed, and the share of requests and money as stated."""
    study, usd_of, votes = panels.real(name, shared / "data" / "votes")
    items = votes["item"].drop_duplicates()
    table = decisive.replay(votes, study, usd_of, set(items[prompts.draw_order(items) <= 50]))
    n_requests, usd = SAVED[name]
    assert table["n_changed"].sum() == 0
    assert table["n_unasked"].sum() / (len(items) * study.n_votes) > n_requests
    assert table["unasked_usd"].sum() / (table["asked_usd"] + table["unasked_usd"]).sum() > usd
