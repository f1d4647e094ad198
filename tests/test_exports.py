"""Exports: what leaves a run comes back as it was, without the texts unless they were asked for."""

import importlib.util
import itertools
import json
import math

import making
import pandas as pd
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import __main__ as command
from lib import consensus, entities, exports, runs, spreadsheets
from lib import study as studies
from lib.entities import places
from lib.errors import StudyError, VotebookError
from lib.exports import spans, tables
from lib.exports.spans import Span
from lib.gold import labelstudio
from lib.runs import Run

FIELDS = {
    "relevant": making.field("boolean"),
    "mood": making.field(),
    "mood_share": making.field("number"),
    "text": making.field("text"),
    "people": making.field("entities"),
    "places": making.field("entities"),
}
TEXTS = {
    "r1": "King Kay met\tBoyd\u2028in Kay\u2019s inn at Camelot. \U0001f600 =1+1",
    "r2": "",
    "=r3": "Nobody, nowhere; 'quoted' # O\r\nKay\u00a0of Wales",
    "r4": "Nobody was asked about this.",
}
SAID = {
    "r1": ("true", "calm", "3.5", "one", '["boyd","kay","king kay"]', '["camelot"]'),
    "r2": ("false", "angry", "-2", "=two", "[]", "[]"),
    "=r3": (None, "mixed", None, None, '["kay","lancelot"]', '["wales"]'),
}
ALL = ["parquet", "csv", "label-studio", "huggingface", "conll"]


@pytest.fixture
def run(tmp_path):
    """A run with documents, consensus and names; r1 was corrected, and all is simulated."""
    study = making.study(FIELDS).model_copy(update={"folder": str(tmp_path)})
    made = Run("moods", tmp_path / "run", study)
    answers = {
        (item, name): dict.fromkeys("abc", one)
        for item, said in SAID.items()
        for name, one in zip(FIELDS, said, strict=True)
    }
    votes = making.votes(study, answers).assign(weight=1.0, simulated=True)
    rows = votes[votes["field"].isin(["people", "places"])].dropna(subset="value")
    mentions = pd.DataFrame(
        [
            {**row, "key": key, "name": key.title(), "n": 0, "attributes": "{}"}
            for row in rows.to_dict("records")
            for key in json.loads(row["value"])
        ]
    )
    decided = consensus.decide(votes, study)
    corrected = decided["item"].eq("r1") & decided["field"].eq("mood")
    named = entities.elect(mentions, votes, study).assign(corrected=False)
    documents = pd.DataFrame({"item": list(TEXTS), "text": list(TEXTS.values())})
    facts = {"group": "g", "sha256": "sha", "kept": "secret", "start": 0}
    documents = documents.assign(document=documents["item"], **facts)
    documents["date"] = pd.to_datetime(["2026-01-01", None, "2026-03-01", "2026-04-01"])
    runs.write_table(documents, made.path("documents.parquet"))
    runs.write_table(decided.assign(corrected=corrected), made.path("consensus.parquet"))
    runs.write_table(mentions, made.path("mentions.parquet"))
    runs.write_table(named, made.path("entities.parquet"))
    return made


def test_every_value_has_its_type(run, tmp_path):
    """Truth values, numbers and lists are no text; a name that is taken gets a line behind it."""
    exports.write(run, tmp_path / "out", ["parquet"])
    table = pyarrow.parquet.read_table(tmp_path / "out/parquet/labels.parquet").to_pylist()
    assert [row["item"] for row in table] == list(TEXTS)
    first, second, third, last = table
    assert (first["relevant"], second["relevant"], third["relevant"]) == (True, False, None)
    assert (first["mood_share"], second["mood_share"]) == (3.5, -2.0)
    assert first["people"] == ["Boyd", "Kay", "King Kay"]
    assert second["people"] == []
    assert third["relevant_status"] == "no_quorum"
    assert last["mood_status"] is None
    assert last["people"] is None
    names = tables.columns(run.study)
    assert names["mood"]["share"] == "mood_share_"
    assert names["text"]["value"] == "text_"
    assert first["text_"] == "one"
    assert [first["mood_corrected"], second["mood_corrected"]] == [True, False]
    assert {row["simulated"] for row in table[:3]} == {True}
    assert {(row["run"], row["panel"], len(row["prompt_sha256"])) for row in table} == {
        ("moods", "p", 64)
    }


def test_long_tables_stay_as_they_are(run, tmp_path):
    """But for the columns that say what made them."""
    exports.write(run, tmp_path / "out", ["parquet"])
    for name in tables.LONG:
        before = pyarrow.parquet.read_table(run.path(f"{name}.parquet"))
        after = pyarrow.parquet.read_table(tmp_path / f"out/parquet/{name}.parquet")
        assert after.select(before.column_names).equals(before)
        made = set(after.column_names) - set(before.column_names)
        assert made == {"run", "panel", "prompt_sha256"}


def test_csv_is_safe_and_comes_back(run, tmp_path):
    """No cell begins with a formula, and without the guards all is as in Parquet."""
    exports.write(run, tmp_path / "out", ["csv", "parquet"], text=True)
    for name in ("labels", "consensus", "entities"):
        read = pd.read_csv(
            tmp_path / f"out/csv/{name}.csv", dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
        numbers = read.map(lambda cell: cell.lstrip("-").replace(".", "").isdigit())
        assert not (read.map(lambda cell: cell[:1] in list("=+-@\t\r")) & ~numbers).any(axis=None)
        table = pyarrow.parquet.read_table(tmp_path / f"out/parquet/{name}.parquet").to_pylist()
        for row, cells in zip(table, read.to_dict("records"), strict=True):
            for column, value in row.items():
                assert same(value, spreadsheets.unguard(cells[column])), (name, column)


def same(value, cell):
    """Whether a cell of a CSV file says this value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return cell == ""
    if isinstance(value, bool):
        return cell == str(value)
    if isinstance(value, int | float):
        return float(cell) == value
    if isinstance(value, list):
        return json.loads(cell) == value
    return cell == str(value) or cell == f"{value:%Y-%m-%d}"


@pytest.mark.parametrize("name", ["label-studio", "conll", "spacy"])
def test_texts_are_asked_for(run, tmp_path, name):
    """What is made of texts is not written without a word that they may leave."""
    with pytest.raises(StudyError, match="add --text"):
        exports.write(run, tmp_path / "out", [name])


def test_no_text_leaves_unasked(run, tmp_path):
    """Neither do other columns of the corpus; an earlier export with texts leaves none behind."""
    exports.write(run, tmp_path / "out", ALL, text=True)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert any("Nobody was asked" in path.read_text("utf-8", "replace") for path in files)
    own = tmp_path / "out/csv/mine.txt"
    own.write_text("mine")
    exports.write(run, tmp_path / "out", ["parquet", "csv", "huggingface"])
    for name in ("parquet", "csv", "huggingface"):
        for path in (tmp_path / "out" / name).rglob("*"):
            text = path.read_bytes() if path.is_file() else b""
            assert b"Nobody was asked" not in text, path
            assert b"secret" not in text, path
            if path.suffix == ".parquet":
                assert "text" not in pyarrow.parquet.read_schema(path).names
    assert own.read_text() == "mine"


def test_the_manifest_says_what_made_it(run, tmp_path):
    """Digests, panel, answers with their price, files with their digests; the licence is blank."""
    outcomes = pd.DataFrame({"model": ["m-a"], "answered_by": ["m-a-1"]})
    outcomes = outcomes.assign(outcome="valid", spend_usd=0.25, simulated=True)
    runs.write_table(outcomes, run.path("outcomes/one.parquet"))
    listed = exports.write(run, tmp_path / "out", ["parquet"])
    told = json.loads((tmp_path / "out/parquet/manifest.json").read_text())
    assert told["licence"] == ""
    assert told["simulated"] is True
    assert told["n_corrected"] == 1
    assert told["with_text"] is False
    assert told["answers"][0]["spend_usd"] == 0.25
    assert {"prompt", "fields", "policies", "panels", "consensus"} == set(told["sha256"])
    assert [file["file"] for file in told["files"]] == listed["file"].tolist()
    assert told["files"][0]["n_rows"] == len(TEXTS)


def test_label_studio_takes_the_tasks(run, tmp_path):
    """Each item with its values and names, marked as simulated; the reader reads what was told."""
    exports.write(run, tmp_path / "out", ["label-studio"], text=True)
    path = tmp_path / "out/label-studio/tasks.json"
    tasks = json.loads(path.read_text(encoding="utf-8"))
    assert [task["data"]["text"] for task in tasks] == list(TEXTS.values())
    assert tasks[0]["data"]["simulated"] is True
    assert tasks[0]["data"]["run"] == "moods"
    for task in tasks:
        task["annotations"] = [{"result": task["predictions"][0]["result"], "completed_by": 1}]
    path.write_text(json.dumps(tasks), encoding="utf-8")
    marks = {one.item: one.marks for one in labelstudio.read(path)}
    said = {(mark.field, mark.value) for mark in marks["r1"]}
    assert said >= {("relevant", "true"), ("mood", "calm"), ("mood_share", "3.5")}
    for mark in marks["r1"]:
        if mark.field == "people":
            assert TEXTS["r1"][mark.start : mark.end] == mark.value
    assert tasks[2]["data"]["not_in_text"] == {"people": ["Lancelot"]}
    assert 'name="people"' in (tmp_path / "out/label-studio/config.xml").read_text()


def test_a_hugging_face_folder_is_as_their_documents_say(run, tmp_path):
    """README.md begins with YAML; each subset has files that exist and the columns that it says."""
    exports.write(run, tmp_path / "out", ["huggingface"], text=True)
    folder = tmp_path / "out/huggingface"
    _, front, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["tags"] == ["votebook", "simulated"]
    assert "simulated" in body
    assert [one["config_name"] for one in head["configs"] if one.get("default")] == ["labels"]
    for config, info in zip(head["configs"], head["dataset_info"], strict=True):
        assert config["config_name"] == info["config_name"]
        files = sorted(folder.glob(config["data_files"][0]["path"]))
        table = pyarrow.parquet.read_table(files)
        assert table.column_names == [one["name"] for one in info["features"]]
        for one in info["features"]:
            kind = str(table.schema.field(one["name"]).type)
            assert kind.startswith("list") == ("list" in one)
    labels = pyarrow.parquet.read_table(sorted(folder.glob("data/labels-*.parquet")))
    assert labels["text"].to_pylist() == list(TEXTS.values())
    runs.write_table(run.table("entities")[:0], run.path("entities.parquet"))
    exports.write(run, tmp_path / "out", ["huggingface"])
    assert not list(folder.glob("data/entities*"))


def read_conll(path):
    """The spans of every item: start, end, field."""
    found, item = {}, None
    for line in path.read_bytes().decode().split("\n"):
        if line.startswith("# item = ") and "\t" not in line:
            item = json.loads(line.removeprefix("# item = "))
            found[item] = []
        elif "\t" in line:
            token, start, end, tag = line.split("\t")
            assert token
            assert not any(letter.isspace() for letter in token)
            kind, _, field = tag.partition("-")
            if kind == "B":
                found[item].append((int(start), int(end), field))
            elif kind == "I":
                begun = found[item].pop()
                assert begun[2] == field
                found[item].append((begun[0], int(end), field))
    return found


def test_conll_comes_back(run, tmp_path):
    """The same places; King Kay is longer than Kay; items without names or words are there."""
    exports.write(run, tmp_path / "out", ["conll"], text=True)
    read = read_conll(tmp_path / "out/conll/names.conll")
    expected = {item: [tuple(one[:3]) for one in found] for item, _, found in spans.texts(run)}
    assert read == expected
    words = [(TEXTS["r1"][start:end], field) for start, end, field in read["r1"]]
    assert words == [
        ("King Kay", "people"),
        ("Boyd", "people"),
        ("Kay", "people"),
        ("Camelot", "places"),
    ]
    assert read["r2"] == read["r4"] == []


NAMES = st.lists(
    st.sampled_from(["kay", "king kay", "boyd", "kay boyd", "o'neil", "\u4e2d"]), max_size=4
)


@settings(max_examples=60)
@given(
    st.text(st.sampled_from("aky \n\t\r'\u2019#-\u00a0\u2028\U0001f600\u4e2d\u0301"), max_size=30),
    st.lists(st.sampled_from(["Kay ", "King  Kay,", " Boyd", "\u4e2d", "O\u2019Neil"]), max_size=5),
    NAMES,
)
def test_spans_are_tokens(noise, written, keys):
    """Whatever the text: spans do not overlap, begin and end with tokens, and are read back."""
    text = noise.join(written) + noise
    named = pd.DataFrame({"key": keys, "field": [f"f{len(key) % 2}" for key in keys], "share": 0.5})
    found = spans.found(text, named.drop_duplicates("key"))
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))
    read = []
    for start, end, tag in spans.tags(text, found):
        if tag[0] == "B":
            read.append([start, end, tag[2:]])
        elif tag[0] == "I":
            read[-1][1] = end
    assert read == [[one.start, one.end, one.field] for one in found]
    assert [m for m in places.tokens(text) if not text[m[0] : m[1]].strip()] == []


def test_the_longer_name_wins_and_then_the_larger_share():
    """Kay in King Kay is no name of its own; of two fields the surer one has the place."""
    named = pd.DataFrame(
        [("people", "kay", 1.0), ("people", "king kay", 0.4), ("places", "king kay", 0.6)],
        columns=["field", "key", "share"],
    )
    assert spans.found("King Kay, Kay", named) == [
        Span(0, 8, "places", 0.6),
        Span(10, 13, "people", 1.0),
    ]


def test_spacy_reads_its_files(run, tmp_path):
    """Texts and places come back from the DocBin files."""
    spacy = pytest.importorskip("spacy", reason="spaCy is an optional extra and not installed here")
    exports.write(run, tmp_path / "out", ["spacy"], text=True)
    binary = spacy.tokens.DocBin().from_disk(tmp_path / "out/spacy/names-00000.spacy")
    docs = list(binary.get_docs(spacy.blank("xx").vocab))
    assert [doc.user_data["item"] for doc in docs] == list(TEXTS)
    for doc, (_, text, found) in zip(docs, spans.texts(run), strict=True):
        assert doc.text == text
        ends = [(one.start_char, one.end_char, one.label_) for one in doc.ents]
        assert len(ends) == len(found)
        for end, one in zip(ends, found, strict=True):
            assert end[0] <= one.start
            assert end[1] >= one.end
            assert end[2] == one.field


def test_without_spacy_it_says_what_to_do(run, tmp_path):
    """The package, and how to get it."""
    if importlib.util.find_spec("spacy"):
        pytest.skip("spaCy is installed here")
    with pytest.raises(VotebookError, match="pip install spacy"):
        exports.write(run, tmp_path / "out", ["spacy"], text=True)


def test_a_run_without_rows_is_exported(run, tmp_path):
    """Empty tables are files too."""
    for name in ("documents", "consensus", "entities"):
        runs.write_table(run.table(name)[:0], run.path(f"{name}.parquet"))
    listed = exports.write(run, tmp_path / "out", ALL, text=True)
    assert listed["n_rows"].sum() == 0


def test_a_missing_table_names_its_notebook(run, tmp_path):
    """Instead of half an export."""
    run.path("entities.parquet").unlink()
    with pytest.raises(StudyError, match="run 05_aggregate_votes first"):
        exports.write(run, tmp_path / "out", ["parquet"])
    assert not (tmp_path / "out").exists()


def test_the_command_exports(run, monkeypatch, capsys):
    """It says what it wrote, whether texts are in it, and what is missing, such as the correction
    of r1 in corrections.csv.
    """
    monkeypatch.setenv("VOTEBOOK_OUTPUTS", str(run.folder.parent))
    lock = yaml.safe_dump(studies.freeze(run.study), sort_keys=False)
    (run.folder / "study.lock.yml").write_text(lock, encoding="utf-8")
    assert command.main(["export", "run"]) == 2
    assert "1 value in consensus.parquet would be other" in capsys.readouterr().err
    table = run.table("consensus").assign(corrected=False)
    runs.write_table(table, run.path("consensus.parquet"))
    assert command.main(["export", "run"]) == 0
    said = capsys.readouterr().out
    assert "labels.parquet (4 rows" in said
    assert "No text of a document is in them" in said
    assert (run.folder / "export/csv/labels.csv").is_file()
    assert command.main(["export", "run", "--format", "conll"]) == 2
    assert "add --text" in capsys.readouterr().err


def test_the_command_reviews_and_reads_back(run, monkeypatch, capsys):
    """A filled list becomes corrections, once; the tasks of Label Studio need the texts."""
    monkeypatch.setenv("VOTEBOOK_OUTPUTS", str(run.folder.parent))
    lock = yaml.safe_dump(studies.freeze(run.study), sort_keys=False)
    (run.folder / "study.lock.yml").write_text(lock, encoding="utf-8")
    answers = {(item, "mood"): {"a": "calm", "b": "angry", "c": "calm"} for item in SAID}
    others = {(item, name): {} for item in SAID for name in FIELDS if name != "mood"}
    votes = making.votes(run.study, {**answers, **others}).assign(weight=1.0)
    decided = consensus.decide(votes, run.study).assign(corrected=False)
    runs.write_table(votes, run.path("votes.parquet"))
    runs.write_table(decided, run.path("consensus.parquet"))
    assert command.main(["review", "run", "--n", "30"]) == 0
    path = run.folder / "review/review.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    mine = table["field"].eq("mood") & table["item"].eq("r1")
    table.loc[mine, ["corrected", "reason", "who"]] = ["angry", "misread", "Ann"]
    runs.write_csv(table, path)
    n_asked = int(table["why"].ne("condition").sum())  # those below a condition come on top
    said = capsys.readouterr().out
    assert said.startswith(f"{n_asked} values to review, of ")
    assert "condition: " not in said
    assert command.main(["review", "run", "--read", str(path)]) == 0
    assert capsys.readouterr().out.startswith(
        "New in corrections.csv: 1 change; there already: 0. "
    )
    assert command.main(["review", "run", "--read", str(path)]) == 0
    assert capsys.readouterr().out.startswith(
        "New in corrections.csv: 0 changes; there already: 1. "
    )
    table.loc[mine, "corrected"] = "furious"
    runs.write_csv(table, path)
    assert command.main(["review", "run", "--read", str(path)]) == 2
    assert "never has the value" in capsys.readouterr().err
    assert command.main(["review", "run", "--format", "label-studio"]) == 2
    assert command.main(["review", "run", "--format", "label-studio", "--text"]) == 0
    assert (run.folder / "review/tasks.json").is_file()
