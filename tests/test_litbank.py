"""Entity lists on real fiction: fifty passages by the local Batch API, elected, and scored on gold.

The annotators are simulated and know nothing of the texts, so that the scores say that the whole
way works, and nothing about a model.
"""

import hashlib
from pathlib import Path

import displays
import pandas as pd
import pytest
import sending
from test_real_books import LISTS, write_gold

from lib import diagrams, entities, findings, runs, votes

EFFORT = {"reasoning_effort": "low", "max_output_tokens": 4000}
PANEL = {
    "terra": {"model": "gpt-6.1-terra", "parameters": {**EFFORT}},
    "luna": {"model": "gpt-6-luna", "repeats": 3, "parameters": {**EFFORT}},
}


@pytest.fixture(scope="module")
def run(shared, endpoint, tmp_path_factory):
    """A run over the passages, its names elected and settled, as notebook 05 does it."""
    data = shared / "data" / "litbank"
    files = sorted((data / "passages").glob("*.txt"))
    fields = {name: {"type": "entities", "description": text} for name, text in LISTS.items()}
    made = sending.make_run(
        tmp_path_factory.mktemp("studies") / "litbank",
        fields=fields,
        prompt="List the entities of this passage by kind.\n",
        annotators=PANEL,
    )
    texts = [file.read_text(encoding="utf-8") for file in files]
    items = [f"litbank/{file.name}" for file in files]
    shown = {"item": items, "document": items, "start": 0, "text": texts}
    sums = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    runs.write_table(pd.DataFrame(shown).assign(sha256=sums), made.path("documents.parquet"))
    sending.write_requests(made)
    assert sending.finish(made, sending.service_at(endpoint)).n_valid > 190
    outcomes = made.path("outcomes") / "*.parquet"
    votes.collect(made.path("requests.parquet"), outcomes, made.study, made.folder)
    named = entities.elect(made.path("mentions.parquet"), made.path("votes.parquet"), made.study)
    named = entities.settle(named, made.path("documents.parquet"), made.study)
    runs.write_table(named, made.path("entities.parquet"))
    write_gold(Path(made.study.folder) / "gold.csv", data / "gold.jsonl")
    return made


@pytest.fixture(scope="module")
def labels(run):
    """The gold of the passages, read and checked."""
    return findings.labels(run, run.table("documents")["item"])


def test_every_name_has_a_fate(run):
    """Named = elected + not elected by reason; who lost says to whom."""
    named = run.table("entities")
    counts = named["status"].value_counts()
    assert counts.sum() == len(named) == named.drop_duplicates(["item", "field", "key"]).shape[0]
    assert set(counts.index) <= {
        "elected",
        "below_threshold",
        "no_quorum",
        "overlap",
        "other_field",
    }
    lost = named["status"].isin(["overlap", "other_field"])
    assert named["lost_to"].notna().equals(lost)


def test_names_stand_where_places_says(run, tmp_path):
    """Each place holds the name in the text of the document; hardly any is invented."""
    named = run.table("entities")
    path = tmp_path / "places.parquet"
    assert entities.contexts(named, run.path("documents.parquet"), path) > 1000
    texts = run.table("documents").set_index("item")["text"]
    for row in pd.read_parquet(path).itertuples():
        text = texts[row.item][row.start : row.end]
        assert votes.entity_key(text) == row.key
        assert " ".join(text.split()) == row.written
    elected = named[named["elected"]]
    assert elected["n_places"].eq(0).mean() < 0.05


def test_names_are_scored_on_gold(run, labels, capsys):
    """The panel and its members on 50 passages x 6 lists, strict and relaxed, with intervals."""
    named = run.table("entities")
    scores = findings.name_scores(run, named, labels)
    overall = scores[scores["field"].eq("all")]
    assert overall["n_items"].eq(300).all()
    assert set(overall["who"]) == {"panel", "terra", "luna"}
    strict = overall[overall["match"].eq("strict")].set_index("who")
    relaxed = overall[overall["match"].eq("relaxed")].set_index("who")
    assert strict["f1"].between(0.05, 1).all()
    assert (relaxed["f1"] >= strict["f1"]).all()
    assert (strict["low"] < strict["f1"]).all()
    assert (strict["f1"] < strict["high"]).all()
    with capsys.disabled():
        said = ", ".join(f"{who} {f1:.3f}" for who, f1 in strict["f1"].items())
        print(f"\nLitBank, simulated annotators, strict F1: {said}")


def test_thresholds_are_drawn_and_tuned(run, labels):
    """The curve of seven thresholds as a picture; what is best on gold is no worse there."""
    named, documents = run.table("entities"), run.path("documents.parquet")
    curve = entities.curve(named, labels, run.study, documents)
    assert curve[curve["field"].eq("all")]["threshold"].tolist()[0::6] == ["1/5", "1/2"]
    at_own = curve[curve["field"].eq("all") & curve["chosen"]].iloc[0]
    score = entities.score(named, labels).iloc[0]
    assert at_own["f1"] == pytest.approx(score["f1"])
    with displays.caught() as outputs:
        diagrams.curve(run, curve, "05_threshold")
    assert outputs[0].metadata["image/png"]["alt"].endswith("(simulated answers)")
    tuned = entities.tuned(named, labels, run.study, documents)
    f1 = tuned[tuned["field"].eq("all")].set_index("how")["f1"]
    assert f1["best on all gold"] >= max(f1["study"], f1["chosen out of fold"])


def test_books_share_an_index(run):
    """Names of several books are one row with all of them; what may be the same is flagged."""
    index = entities.merge(run.table("entities"), run.table("documents"), run.study)
    assert index["n_documents"].max() > 5
    assert index["simulated"].all()
    assert index["possible_duplicates"].ne("[]").any()
    assert index["aliases"].ne("[]").any()
