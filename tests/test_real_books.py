"""The main job on real books: fifty passages with gold, and novels in two layouts.

Three novels; `VOTEBOOK_BOOKS=all` takes all fourteen.
"""

import csv
import json
import os
from pathlib import Path

import pytest

from lib import findings, pipeline, votes

# By source: where its novels lie, and how many they are.
FEW = {"gutenberg": ("5/**/*.txt", 2), "british-library": ("264/**/*_text.json", 1)}
ALL = {"gutenberg": ("**/*.txt", 8), "british-library": ("**/*_text.json", 6)}
NOVELS, LEAST_TOKENS = (
    (ALL, 900_000) if os.environ.get("VOTEBOOK_BOOKS") == "all" else (FEW, 300_000)
)
LISTS = {
    "PER": "Persons and groups of persons, named or described: the captain, her sisters, Anne.",
    "FAC": "Facilities: buildings, rooms, streets, gardens, bridges made by people.",
    "GPE": "Geo-political places: countries, counties, cities, towns, villages.",
    "LOC": "Natural places: rivers, mountains, seas, forests, regions.",
    "VEH": "Vehicles: ships, boats, carriages, trains.",
    "ORG": "Organisations: companies, armies, churches as bodies, schools, societies.",
}


def write_study(folder: Path, data: Path) -> Path:
    """A study on the reference data: three sources, six lists, gold for the passages."""
    folder.mkdir()
    effort = {"reasoning_effort": "low", "max_output_tokens": 4000}
    study = {
        "title": "Six kinds of entities in novels",
        "question": "Which persons, places, vehicles and organisations do these novels name?",
        "corpus": {
            "litbank": {"path": f"{data}/litbank/passages/*.txt"},
            **{name: {"path": f"{data}/{name}/{path}"} for name, (path, _) in NOVELS.items()},
        },
        "items": {"max_tokens": 4000},
        "fields": {name: {"type": "entities", "description": text} for name, text in LISTS.items()},
        "panel": "current",
        "panels": {
            "current": {
                "annotators": {
                    "terra": {"model": "gpt-6.1-terra", "parameters": effort},
                    "luna": {"model": "gpt-6-luna", "repeats": 3, "parameters": effort},
                }
            }
        },
    }
    (folder / "study.yml").write_text(json.dumps(study, indent=1), encoding="utf-8")  # is YAML too
    (folder / "prompt.md").write_text("List the entities of this passage by kind.\n", "utf-8")
    write_gold(folder / "gold.csv", data / "litbank" / "gold.jsonl")
    return folder


def write_gold(path: Path, source: Path) -> None:
    """LitBank's mentions as gold: each name of a kind once for a passage, or an empty row."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item", "field", "value"])
        for line in source.read_text(encoding="utf-8").splitlines():
            passage = json.loads(line)
            item = f"litbank/{passage['document']}.txt"
            for kind in LISTS:
                said = [e["text"] for e in passage["entities"] if e["type"] == kind]
                names = {votes.entity_key(text): text for text in said}
                rows.writerows((item, kind, names[key]) for key in sorted(names) if key)
                if not any(names):
                    rows.writerow((item, kind, ""))


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    """The run of all notebooks on that study, against the local Batch API."""
    folder = write_study(tmp_path_factory.mktemp("studies") / "novels", shared / "data")
    done, progress = pipeline.run({"study": str(folder), "service": "local"})
    assert progress.state == "done"
    return done


def test_every_book_is_there(run):
    """50 passages stay whole; the novels become passages that hold their whole text."""
    items = run.table("documents")
    by_source = items.groupby("source")["document"].nunique().to_dict()
    assert by_source == {"litbank": 50} | {name: n for name, (_, n) in NOVELS.items()}
    assert items["source"].eq("litbank").sum() == 50
    assert items["n_tokens"].max() <= 4000
    assert run.table("skipped").empty


def test_votes_close(run):
    """Items x 4 requests, items x 4 x 6 votes; the few refusals abstain under their name."""
    n_items = len(run.table("documents"))
    assert len(run.table("requests")) == n_items * 4
    table = run.table("votes")
    assert len(table) == n_items * 4 * 6
    assert set(table["abstained"].dropna()) <= {"refused"}
    assert table["abstained"].notna().mean() < 0.01
    assert table.loc[table["abstained"].isna(), "simulated"].all()


def test_elected_names_are_measured_on_gold(run):
    """The score counts the 50 labelled passages, and names are better than nothing."""
    named = run.table("entities")
    scores = findings.name_scores(run, named, findings.labels(run, named["item"].unique()))
    overall = scores[scores["field"].eq("all") & scores["match"].eq("strict")]
    assert set(overall["who"]) == {"panel", "terra", "luna"}
    assert overall["n_items"].eq(50 * 6).all()
    assert overall["f1"].between(0.05, 1).all()


def test_the_index_joins_books(run):
    """Names of both layouts are in one index, with their documents."""
    index = run.table("index")
    documents = index["documents"].map(json.loads)
    sources = documents.map(lambda names: {name.split("/")[0] for name in names})
    assert sources.map(len).max() == 3
    assert index["n_documents"].max() > 3


def test_the_report_is_complete(run):
    """Seven pages and the page that leads to them."""
    assert run.path("report.html").is_file()
    assert len(list(run.path("html").glob("*.html"))) == 7
    page = run.path("report.html").read_text(encoding="utf-8")
    assert "simulated" in page
    assert "http" not in page.replace("http-equiv", "")


def test_counts_are_reported(run, capsys):
    """What the run found, printed for the log of the tests."""
    items = run.table("documents")
    counts = {
        "items": len(items),
        "tokens": int(items["n_tokens"].sum()),
        "requests": len(run.table("requests")),
        "mentions": len(run.table("mentions")),
        "elected": int(run.table("entities")["elected"].sum()),
        "names": len(run.table("index")),
    }
    with capsys.disabled():
        print("\nreal books:", ", ".join(f"{number:,} {name}" for name, number in counts.items()))
    assert counts["tokens"] > LEAST_TOKENS
    assert counts["elected"] > counts["items"]
