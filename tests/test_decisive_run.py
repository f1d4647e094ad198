"""Runs that ask for decisive votes alone, at the local Batch API: equal to all votes, for less.

The annotators answer by key, so that a run with all votes is what any other one can be held to.
"""

import dataclasses
import itertools
import os
import signal
import time

import pandas as pd
import pytest
import sending

from lib import __main__ as command
from lib import (
    accounts,
    asking,
    collect,
    commands,
    consensus,
    dispatch,
    entities,
    ledger,
    local_api,
    runs,
    savings,
)
from lib import votes as ballots

RESULT = ["item", "field", "status", "value", "candidates"]
WORDS = itertools.product(("warm", "cold"), ("kind", "rude", "asleep", "slow"), range(2))
TEXTS = [f"On day {n} the soup was {soup} and the waiter {who}." for soup, who, n in WORDS]


def annotator(model, effort="none", **more):
    """An annotator that thinks little."""
    return {"model": model, "parameters": {"reasoning_effort": effort}, **more}


PANEL = {
    "terra": annotator("gpt-6.1-terra"),
    "luna": annotator("gpt-6-luna", repeats=2),
    "sol": annotator("gpt-6-sol"),
}


def category(*values, **more):
    """A field of these values."""
    return {"description": "-", "values": {name: {"description": name} for name in values}, **more}


FIELDS = {
    "pleased": {"description": "Whether the guest was pleased.", "type": "boolean"},
    "mood": category("calm", "angry", "mixed", prefer="heaviest"),
    "praised": category("food", "service", when="pleased"),
}
NAMES = {"people": {"description": "Who is named.", "type": "entities"}, "mood": FIELDS["mood"]}


@pytest.fixture
def study(make_run):
    """Makes a run of the study with these words about asking."""

    def make(name, texts=TEXTS, ask="all", pilot=50, **more):
        facts = {"canary": 3, "fields": FIELDS, "annotators": PANEL, **more}
        return make_run(texts, name=name, voting={"ask": ask, "pilot": pilot}, **facts)

    return make


def at(endpoint):
    """The service; asked now and then, because each step counts everything anew."""
    return sending.service_at(endpoint, poll_seconds=0.6)


def counted(run):
    """The consensus of a run, and its votes."""
    answered = run.path("outcomes") / "*.parquet"
    requests, spared = run.path("requests.parquet"), asking.spared(run)
    ballots.collect(requests, answered, run.study, run.folder, spared)
    return consensus.decide(run.path("votes.parquet"), run.study), run.table("votes")


def same(one, other):
    """Whether two consensus tables say the same; of names, which are elected."""
    first, second = (table[RESULT].fillna("").reset_index(drop=True) for table in (one, other))
    return first.equals(second)


def check_closes(run, progress):
    """Every request is in one place, by each of the tables that say so."""
    assert progress.state == "done"
    n = len(run.table("requests"))
    assert progress.n_valid + progress.n_left + progress.n_spared == progress.n_requests == n
    totals, models = accounts.totals(run), accounts.by_model(run)
    parts = totals.drop(columns=["annotator", "n_requests"])
    assert parts.sum(axis="columns").eq(totals["n_requests"]).all()
    assert (int(totals["spared"].sum()), int(totals["without_outcome"].sum())) == (
        progress.n_spared,
        0,
    )
    places = ["n_valid", "n_in_flight", "n_not_sent", "n_not_valid", "n_spared"]
    assert models[places].sum(axis="columns").eq(models["n_requests"]).all()
    assert len(accounts.unanswered(run)) == progress.n_left


def check_is_result_of_all(run, whole, to):
    """A run says what it says when all votes are asked."""
    decided, _ = counted(run)
    assert sending.finish(whole, to).n_spared == 0
    assert same(counted(whole)[0], decided)


@pytest.mark.parametrize("fields", [FIELDS, NAMES], ids=["closed", "names"])
def test_the_result_of_all_votes_for_less(study, endpoint, fields):
    """The same labels, ties and names; fewer lines by the service's own book, and less money.

    With `ask: all` the run asks the rest alone; going back, it asks nothing.
    """
    to, begun = at(endpoint), sending.batches_of(endpoint)
    run = study("some", fields=fields, ask="decisive", pilot=4)
    progress = sending.finish(run, to)
    check_closes(run, progress)
    decided, votes = counted(run)
    elected, spend_usd = _elected(run), accounts.spend(run)["spend_usd"].sum()
    paid, is_settled = sending.paid(endpoint, begun), votes["abstained"].eq("settled")
    assert is_settled.sum() == progress.n_spared * len(fields) > 0
    assert not votes["abstained"].eq("missing").any()
    assert not votes.loc[is_settled, "item"].isin(asking.items_in_full(run, votes["item"])).any()
    check_told(run, progress, decided, votes)
    run = study("some", fields=fields)
    assert sending.finish(run, to).n_spared == 0
    whole = sending.paid(endpoint, begun)
    assert set(whole.values()) == {1}
    assert whole.total() >= paid.total() + progress.n_spared
    assert accounts.spend(run)["spend_usd"].sum() > spend_usd
    in_full = counted(run)
    assert same(in_full[0], decided)
    assert _elected(run) == elected
    replay = savings.replayed(run, in_full[1])
    assert (replay["n_changed"].sum(), replay["n_items"].sum() > 0) == (0, True)
    assert savings.marked(run, decided, votes) is decided
    assert sending.finish(study("some", fields=fields, ask="decisive", pilot=4), to).n_spared == 0
    assert sending.paid(endpoint, begun) == whole


def check_told(run, progress, decided, votes):
    """What was saved is told by annotator and by item and field, and by what the pilot said."""
    assert set(savings.expected(run, run.table("requests"))["rests_on"]) == {"the pilot"}
    table, marked = savings.real(run), savings.marked(run, decided, votes)
    assert table["n_spared"].sum() == progress.n_spared
    assert table["saved_usd"].gt(0).sum() == table["n_spared"].gt(0).sum()
    assert marked["n_spared"].sum() == progress.n_spared * len(run.study.fields)
    assert not marked["margin_low"].gt(marked["margin"] + 1e-9).any()
    assert not savings.replayed(run, votes)["n_items"].any()


def _elected(run):
    """The names that are elected in a run."""
    named = entities.elect(run.path("mentions.parquet"), run.path("votes.parquet"), run.study)
    return set(map(tuple, named.loc[named["elected"], ["item", "field", "key"]].to_numpy()))


def test_a_canary_goes_first_and_then_the_pilot(study, endpoint):
    """Canaries ask about the pilot's items; the others begin when the pilot is in."""
    run, to = study("some", ask="decisive", pilot=4), at(endpoint)
    requests = run.table("requests")
    assert set(savings.expected(run, requests)["rests_on"]) == {"a stated prior"}
    pilot = asking.pilot_items(run.study, requests["item"])
    canaries = dispatch.canary(run, to, 0.0)
    assert canaries[["n_judged", "verdict"]].to_numpy().tolist() == [[3, "passed"]] * 3
    tried = accounts.answered(run, requests)
    assert (len(pilot), set(tried["item"]) <= pilot) == (4, True)
    sending.finish(run, to)
    order = accounts.answered(run, requests).merge(_submitted(run), on="batch")
    in_pilot = order["item"].isin(pilot)
    assert order.loc[in_pilot, "place"].max() < order.loc[~in_pilot, "place"].min()
    assert "then" in run.path("said/plan.json").read_text(encoding="utf-8")


def _submitted(run):
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        batches = [shard["batch_id"] for shard in ledger.shards(book)]
    return pd.DataFrame({"batch": batches, "place": range(len(batches))})


def test_a_small_corpus_is_asked_in_full(study, endpoint):
    """As many items as the pilot has, or fewer: nothing is spared, and nothing waits."""
    run = study("some", TEXTS[:5], ask="decisive", pilot=5)
    progress = sending.finish(run, at(endpoint))
    assert (progress.n_requests, progress.n_spared, progress.n_later) == (20, 0, 0)
    assert not run.path("said").exists()


def test_alarms_need_every_vote(study):
    """Nothing is expected to be spared, and no plan is shown."""
    strong = {**PANEL, "terra": annotator("gpt-6.1-terra", weight=2)}
    run = study("some", ask="decisive", pilot=2, annotators=strong)
    panels = {n: one.model_copy(update={"mode": "alarm"}) for n, one in run.study.panels.items()}
    run = dataclasses.replace(run, study=run.study.model_copy(update={"panels": panels}))
    requests = run.table("requests")
    table = savings.expected(run, requests)
    assert table["n_expected"].tolist() == table["n_requests"].tolist()
    assert savings.sentence(run, table).startswith("Every vote is asked: with `mode: alarm`")
    assert savings.plans(run, requests).empty


def test_labelled_items_are_asked_in_full(study, endpoint):
    """Labels that come after the run was done have the rest of their items asked."""
    run, to = study("some", ask="decisive", pilot=2), at(endpoint)
    assert sending.finish(run, to).n_spared > 0
    spared = run.table("requests").query("key in @keys", local_dict={"keys": asking.spared(run)})
    item = spared["item"].iloc[0]
    text = f"item,field,value\n{item},mood,calm\nno/such,mood,calm\n"
    (run.folder.parent.parent / "guests" / "gold.csv").write_text(text, encoding="utf-8")
    progress = sending.finish(run, to)
    check_closes(run, progress)
    assert item in asking.items_in_full(run, run.table("requests")["item"])
    assert progress.n_spared == len(spared) - spared["item"].eq(item).sum()


def test_what_other_runs_hold_is_taken_over(study, endpoint):
    """Answers that are there already cost nothing, so all of them count, spared or not."""
    to = at(endpoint)
    other = study("all")
    assert sending.finish(other, to).state == "done"
    begun, run = sending.batches_of(endpoint), study("some", ask="decisive", pilot=4)
    assert sending.finish(run, to).n_spared == 0
    refused = set(accounts.unanswered(other)["item"])
    assert len(sending.paid(endpoint, begun)) <= len(refused)
    assert same(counted(run)[0], counted(other)[0])


def test_without_a_pilot_a_stated_prior_chooses_the_plan(study, endpoint):
    """Each model has its canary when it is first asked; the result is that of all votes."""
    to, run = at(endpoint), study("some", ask="decisive", pilot=0)
    dispatch.canary(run, to, 0.0)
    progress = sending.finish(run, to)
    check_closes(run, progress)
    assert progress.n_spared > 0
    check_is_result_of_all(run, study("some"), to)


def test_where_every_vote_counts_all_are_asked(study, endpoint):
    """A text may be a new one with every vote: the run says so, and asks all."""
    fields = {**FIELDS, "why": {"description": "Why.", "type": "text"}}
    run = study("some", TEXTS[:4], fields=fields, ask="decisive", pilot=1)
    assert "every vote on why counts" in asking.warn(run.study)[0]
    assert sending.finish(run, at(endpoint)).n_spared == 0


def test_answers_that_fail_for_good_are_abstentions(study, endpoint):
    """Luna's answers are cut off, retried with larger caps and given up: the run ends, and its
    result is that of all votes.
    """
    short = {"reasoning_effort": "none", "max_output_tokens": 4}
    panel = PANEL | {"luna": {"model": "gpt-6-luna", "repeats": 3, "parameters": short}}
    facts, to = {"annotators": panel, "max_failure_share": 1.0}, at(endpoint)
    run = study("some", ask="decisive", pilot=4, **facts)
    progress = sending.finish(run, to)
    check_closes(run, progress)
    assert collect.outcomes(run)["outcome"].eq("truncated").any()
    check_is_result_of_all(run, study("some", **facts), to)


@pytest.fixture
def own_service(make_run):
    """The local service that a command finds, quick."""
    stages = ("--validating=0", "--in-progress=0", "--finalizing=0")
    found = local_api.start(runs.outputs() / ".local_api", idle_exit_seconds=120, options=stages)
    yield found
    os.kill(found["pid"], signal.SIGTERM)


def test_the_commands_tell_the_truth(study, own_service, capsys):
    """`advance` gives 3 while items wait for others, and 0 with what was spared in its line."""
    run, codes = study("some", ask="decisive", pilot=2), []
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        ledger.bind(book, "service", "local")
    while not codes or (codes[-1] == commands.WAITING and len(codes) < 100):
        codes.append(command.main(["advance", "some"]))
        time.sleep(0.05)
    said = capsys.readouterr().out
    assert (codes[0], codes[-1]) == (commands.WAITING, commands.DONE)
    assert " may follow" in said
    assert said.splitlines()[-1].endswith(" spared")
    status = dispatch.status(run)
    assert (status.state, status.n_later, status.n_spared > 0) == ("done", 0, True)
    assert collect.outcomes(run)["key"].nunique() == status.n_valid + status.n_left
    assert runs.find("some").study.voting.ask == "decisive"
