"""Labelling: from a run to sheets, and from filled sheets to gold.csv, by library and command."""

import csv
import json

import making
import pandas as pd
import pytest

from lib import __main__ as command
from lib import commands, consensus, gold, runs
from lib.errors import StudyError
from lib.gold import labelling, sampling
from lib.runs import Run

FIELDS = {
    "relevant": making.field("boolean"),
    "mood": making.field(when="relevant"),
    "people": making.field("entities"),
}
ITEMS = [f"r{n:02}" for n in range(30)]


@pytest.fixture
def run(tmp_path):
    """A run of 30 items: the panel is sure of 20, and leaves 10 open."""
    study = making.study(FIELDS).model_copy(update={"folder": str(tmp_path / "study")})
    made = Run("moods", tmp_path / "run", study)
    texts = [f"=Text {item}\nof two lines" for item in ITEMS]
    table = {"item": ITEMS, "source": "all", "group": None, "text": texts}
    documents = pd.DataFrame(table).assign(sha256=[f"{n:064}" for n in range(30)])
    runs.write_table(documents, made.path("documents.parquet"))
    said = dict.fromkeys("abc", "true")
    answers = {
        (item, name): (said if n < 20 else {"a": "true", "b": "false"})
        if name == "relevant"
        else {}
        for n, item in enumerate(ITEMS)
        for name in FIELDS
    }
    votes = making.votes(study, answers)
    runs.write_table(consensus.decide(votes, study), made.path("consensus.parquet"))
    return made


def sheet(run, number=1):
    """The rows of a sheet, its guide included."""
    path = run.path("../study/labelling") / f"sheet_{number}.csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        return path, list(csv.DictReader(file))


def fill(run, number=1, **values):
    """Fill the whole sheet with these values, as a spreadsheet would save it."""
    path, rows = sheet(run, number)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([rows[0], *({**row, **values} for row in rows[1:])])
    return path


def test_a_sheet_is_blind_and_complete(run):
    """A row an item with its text, guarded; empty cells; what may stand there; nothing of votes."""
    sample, n_before = labelling.draw(run, 5)
    written = labelling.write(run, sample)
    assert n_before == 0
    assert [path.name for path in written] == ["sheet_1.csv", "sheet_1.json", "label_studio.xml"]
    _, rows = sheet(run)
    assert rows[0]["relevant"] == "true | false"
    assert rows[0]["mood"] == "if relevant: calm | angry | mixed"
    assert [row["item"] for row in rows[1:]] == sample["item"].tolist()
    assert rows[1]["text"].startswith("'=Text r")
    assert all(set(row) == {"item", "text", *FIELDS} for row in rows)
    assert not any(row[name] for row in rows[1:] for name in FIELDS)
    tasks = json.loads(written[1].read_text(encoding="utf-8"))
    assert all(set(task) == {"data"} for task in tasks)
    assert all(set(task["data"]) == {"item", "sha256", "text"} for task in tasks)


def test_a_larger_sample_has_another_sheet(run):
    """What people write in is never written again."""
    labelling.write(run, labelling.draw(run, 5)[0], "csv")
    path = fill(run, relevant="false", people="-")
    before = path.read_bytes()
    sample, n_before = labelling.draw(run, 8)
    written = labelling.write(run, sample, "csv")
    assert (n_before, [one.name for one in written]) == (5, ["sheet_2.csv"])
    assert path.read_bytes() == before
    assert len(sheet(run, 2)[1]) == 1 + 3
    assert labelling.write(run, sample, "csv") == []


def test_filled_sheets_become_gold(run):
    """Ten labels; read again, none is new; items that are labelled are on no sheet."""
    sample, _ = labelling.draw(run, 5)
    labelling.write(run, sample, "csv")
    path = fill(run, relevant="false", people="-")
    found, fresh = labelling.take_in(run, path)
    assert (len(fresh), found.n_items, found.n_empty) == (10, 5, 0)
    table = gold.read(run.path("../study/gold.csv"), run.study, ITEMS)
    assert set(table["item"]) == set(sample["item"])
    assert len(labelling.take_in(run, path)[1]) == 0
    assert labelling.unlabelled(run, sample) == []
    path.unlink()
    assert labelling.write(run, sample, "csv") == []


def test_gold_keeps_what_people_wrote_beside_it(run):
    """Columns of their own stay, and rows keep their order."""
    target = run.path("../study/gold.csv")
    target.parent.mkdir()
    target.write_text("item,field,value,note\nr00,relevant,true,'=sure\n", encoding="utf-8")
    labelling.write(run, labelling.draw(run, 30)[0], "csv")
    labelling.take_in(run, fill(run, relevant="true", mood="calm", people="Kay"))
    rows = list(csv.DictReader(target.read_text(encoding="utf-8-sig").splitlines()))
    assert rows[0] == {"item": "r00", "field": "relevant", "value": "true", "note": "'=sure"}
    assert len(rows) == 3 * 30
    assert all(row["note"] == "" for row in rows[1:])


def test_by_what_the_panel_is_unsure_of(run):
    """Ten ties among 30 items: half of the ten drawn are ties, and chances say so."""
    sample, _ = labelling.draw(run, 10, by=["relevant"])
    chances = sample.groupby("stratum")["probability"].first()
    assert chances.to_dict() == {"relevant=tie": 0.5, "relevant=true": 0.25}


def test_another_sample_only_when_asked_for(run):
    """Strata that were not there before are refused; `anew` draws, and many items come again."""
    first, _ = labelling.draw(run, 10)
    with pytest.raises(StudyError, match="by 'nothing' before and 'relevant' now"):
        labelling.draw(run, 12, by=["relevant"])
    other, n_before = labelling.draw(run, 12, by=["relevant"], anew=True)
    assert n_before == len(set(first["item"]) & set(other["item"])) > 3
    assert other.loc[other["item"].isin(first["item"]), "sheet"].eq(1).all()
    assert other.loc[~other["item"].isin(first["item"]), "sheet"].eq(2).all()


def test_texts_that_have_changed_are_told(run):
    """The label of such an item is of another text: it is named until it is drawn anew."""
    sample, _ = labelling.draw(run, 5)
    item = sample["item"][0]
    documents = run.table("documents")
    changed = documents["sha256"].mask(documents["item"].eq(item), "f" * 64)
    runs.write_table(documents.assign(sha256=changed), run.path("documents.parquet"))
    assert labelling.stored(run)[1] == [item]
    labelling.draw(run, 6)
    assert labelling.stored(run)[1] == [item]
    sample, _ = labelling.draw(run, 6, anew=True)
    assert labelling.stored(run)[1] == []
    assert sample.set_index("item")["sheet"][item] > 1


def test_a_pilot_is_sampled_among_its_items(run):
    """Ten items are asked about: five of them are drawn, each with the chance of a half."""
    runs.write_table(pd.DataFrame({"item": ITEMS[:10] * 2}), run.path("requests.parquet"))
    sample, _ = labelling.draw(run, 5)
    assert set(sample["item"]) <= set(ITEMS[:10])
    assert sample["probability"].eq(0.5).all()
    run.path("requests.parquet").unlink()
    larger, n_before = labelling.draw(run, 15)
    assert larger["item"].tolist()[:5] == sample["item"].tolist()
    assert (n_before, larger["probability"].iloc[0]) == (5, 0.5)


def test_before_there_is_anything(run):
    """Without a sample there is none; without documents the notebook that makes them is named."""
    assert labelling.stored(run) == (None, [])
    run.path("documents.parquet").unlink()
    with pytest.raises(StudyError, match="run 01_load_documents first"):
        labelling.draw(run, 5)


def test_long_texts_end_where_a_cell_ends():
    """A spreadsheet would cut them in silence; here they say so."""
    items = pd.DataFrame({"item": ["r1"], "text": ["x" * 40_000]})
    text = labelling.sheet(items, making.study(FIELDS).fields)["text"][1]
    assert len(text) < 32_767
    assert text.endswith("[cut: 8,000 more characters]")


def test_a_field_with_the_name_of_a_column():
    """It has no place in a sheet, and Label Studio has one for it."""
    fields = making.study({"text": making.field("text")}).fields
    with pytest.raises(StudyError, match="Use --format label-studio"):
        labelling.sheet(pd.DataFrame({"item": [], "text": []}), fields)


def test_the_command(run, tmp_path, monkeypatch, capsys):
    """Draws, says what to do, reads back and says what is new; a mistake stops it."""
    study = run.study.model_dump(mode="json")
    monkeypatch.setenv("VOTEBOOK_OUTPUTS", str(tmp_path))
    lock = run.path("study.lock.yml")
    lock.write_text(json.dumps({"sha256": {}, "study": study}), encoding="utf-8")
    assert command.main(["sample-gold", "run", "--n", "4", "--by", "relevant"]) == commands.DONE
    said = capsys.readouterr().out
    assert said.startswith("Drawn for gold: 4 items, seed 1.\n  relevant=tie: 2 of 10\n")
    assert "sheet_1.csv" in said
    path = fill(run, relevant="true", people="Kay")
    assert command.main(["sample-gold", "run", "--read", str(path)]) == commands.DONE
    assert capsys.readouterr().out == (
        "8 labels on 4 items: 8 new in gold.csv, 0 there already.\n"
        "Drawn items that still lack labels: 4 of 4.\n"
    )
    path = fill(run, mood="sleepy")
    assert command.main(["sample-gold", "run", "--read", str(path)]) == commands.STOPPED
    assert "mood never has the value 'sleepy'" in capsys.readouterr().err
    assert command.main(["sample-gold", "run", "--n", "3"]) == commands.DONE
    assert capsys.readouterr().out.startswith(
        "Drawn for gold: 4 items, all of them before and none now, seed 1. --n 3 is less than that:"
    )
    assert len(sampling.read(run.path("../study/gold_sample.csv"))) == 4
