"""Another model answers in an annotator's place, after its own canary, and the votes say so."""

import collections

import hurried
import judge
import openai
import orjson
import pandas as pd
import pytest
import sending

from lib import collect, dispatch, votes

TEXTS = [f"The soup of day {n} was warm and the waiter kind." for n in range(12)]
PANEL = {
    "luna": {**sending.LUNA["luna"], "weight": 2.0, "fallback": ["gpt-6.1-terra", "gpt-6-sol"]},
    "sol": {"model": "gpt-6-sol"},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service of our own."""
    return hurried.start(tmp_path_factory.mktemp("service"))


def babbling(endpoint, *models):
    """A rule by which these models never write JSON, whatever they are asked."""
    client = openai.OpenAI(base_url=endpoint["base_url"], api_key=endpoint["token"])
    sending.OPENED.append(client)

    def rule(method, path):
        if not path.endswith("/content"):
            return None
        lines = client.files.content(path.split("/")[-2]).read().splitlines()
        return 200, b"".join(babbled(orjson.loads(line), models) + b"\n" for line in lines)

    return rule


def babbled(line, models):
    """A line of an output file, with an answer that is none if it is of one of the models."""
    body = line["response"]["body"]
    if body["model"].startswith(models):
        body["choices"][0]["message"]["content"] = "I should say that the guest was pleased."
    return orjson.dumps(line)


def ended(make_run, service, *models, **settings):
    """A run that was followed to its end while these models babble; gives it and its progress."""
    run = make_run(TEXTS, annotators=PANEL, canary=5, **settings)
    with sending.spoiled(service, babbling(service, *models)) as url, hurried.time_flies():
        to = hurried.service_at(service, url)
        return run, dispatch.follow(run, to, hurried.MAX_USD, 48)


def test_a_fallback_has_a_canary_and_keeps_the_annotators_place(make_run, service):
    """Luna babbles: each of 12 lines is asked twice, then terra: 5 lines first, then 7. The votes
    in luna's place have luna's weight and terra's name; those of sol are sol's own.
    """
    run, progress = ended(make_run, service, "gpt-6-luna", max_failure_share=1.0)
    assert (progress.state, progress.n_valid) == ("done", 24)
    terra = [s for s in hurried.shards_of(run) if s["model"] == "gpt-6.1-terra"]
    assert (terra[0]["purpose"], terra[0]["n_requests"]) == ("canary", 5)
    assert sum(shard["n_requests"] for shard in terra) == 12
    tries = collect.outcomes(run).groupby(["model", "attempt"]).size().to_dict()
    assert tries[("gpt-6-luna", 0)] == tries[("gpt-6-luna", 1)] == tries[("gpt-6.1-terra", 2)] == 12
    folder = run.path("votes")
    votes.collect(
        run.path("requests.parquet"), run.path("outcomes") / "*.parquet", run.study, folder
    )
    said = (
        pd.read_parquet(folder / "votes.parquet").groupby(["annotator", "model", "weight"]).size()
    )
    assert said.to_dict() == {("luna", "gpt-6.1-terra", 2.0): 12, ("sol", "gpt-6-sol", 1.0): 12}


def test_a_chain_ends_in_the_list_for_people(make_run, service):
    """Luna, terra and sol babble for luna: six tries a text and no more; a person gets the rest."""
    run, progress = ended(make_run, service, "gpt-6", max_failure_share=1.0)
    assert (progress.state, progress.n_valid, progress.n_left) == ("done", 0, 24)
    assert collect.outcomes(run).groupby("key").size().value_counts().to_dict() == {6: 12, 2: 12}


def test_a_fallback_that_fails_its_canary_costs_no_more(make_run, service):
    """Luna's canary is good, then it babbles, and terra too: of the seven texts that luna leaves,
    terra is asked about five. Sol's own lines go on, and the rest waits for a person.
    """
    held = judge.look(service)
    run = make_run(TEXTS, annotators=PANEL, canary=5, max_failure_share=0.7)
    with hurried.time_flies():
        dispatch.canary(run, hurried.service_at(service), hurried.MAX_USD, 24)
        with sending.spoiled(service, babbling(service, "gpt-6-luna", "gpt-6.1-terra")) as url:
            to = hurried.service_at(service, url)
            progress = dispatch.follow(run, to, hurried.MAX_USD, 48)
    lines = collections.Counter()
    for batch in judge.since(held, service).batches.values():
        lines[batch["model"].rsplit("-20")[0]] += batch["request_counts"]["total"]
    assert lines == {"gpt-6-luna": 12 + 7, "gpt-6.1-terra": 5, "gpt-6-sol": 12}
    assert (progress.state, progress.n_valid) == ("stopped", 5 + 12)
    assert any("answers of gpt-6.1-terra are not valid" in reason for reason in progress.reasons)
