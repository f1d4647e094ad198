"""Findings: gold, corrections, review, groups and verdicts as the notebooks show them."""

import json

import making
import pandas as pd
import pytest

from lib import aggregate, consensus, corrections, entities, findings, gold, review, runs, votes
from lib.errors import StudyError
from lib.runs import Run

FIELDS = {
    "mood": making.field(),
    "age": making.field("integer"),
    "note": making.field("text"),
    "people": making.field("entities"),
}
BASE = making.study(FIELDS)


@pytest.fixture
def run(tmp_path):
    """A run of a study in an empty folder, with three items."""
    study = BASE.model_copy(update={"folder": str(tmp_path)})
    made = Run("moods", tmp_path / "run", study)
    items = pd.DataFrame({"item": ["r1", "r2", "r3"]})
    documents = items.assign(document=items["item"], start=0, text="text of " + items["item"])
    documents["sha256"] = "sha of " + items["item"]
    runs.write_table(documents, made.path("documents.parquet"))
    return made


def counted(run, answers):
    """Votes, consensus and elected names; answers as in `making.votes`, none is missing."""
    whole = {}
    for (item, name), said in answers.items():
        whole[item, name] = said
        for other in FIELDS:
            whole.setdefault((item, other), {})
    table = making.votes(run.study, whole)
    mentions = pd.DataFrame(
        [
            {**row, "key": key, "name": key.title(), "n": 0, "attributes": "{}", "weight": 1.0}
            for row in table[table["field"].eq("people")].dropna(subset="value").to_dict("records")
            for key in json.loads(row["value"])
        ],
        columns=[*table.columns, "key", "name", "n", "attributes", "weight"],
    )
    runs.write_table(mentions.astype({"item": "str"}), run.path("mentions.parquet"))
    named = entities.elect(mentions, table, run.study)
    return table, consensus.decide(table, run.study), named


def alike(value):
    """Each annotator's answer: this value."""
    return dict.fromkeys("abc", value)


def test_without_gold_there_are_no_labels(run):
    """An empty table with the columns of gold, and a sentence that says what follows."""
    table = findings.labels(run, ["r1"])
    assert table.empty
    assert list(table) == gold.COLUMNS
    nothing = pd.DataFrame({"field": [], "match": []})
    assert findings.on_gold(pd.DataFrame(), nothing).startswith("There is no gold")


def test_labels_of_other_items_are_left_out(run, tmp_path):
    """Gold stands on r1 and r2, and only r2 was asked about."""
    (tmp_path / "gold.csv").write_text("item,field,value\nr1,mood,calm\nr2,mood,angry\n")
    assert findings.labels(run, ["r2"])["item"].tolist() == ["r2"]


def test_gold_on_an_unknown_item_stops(run, tmp_path):
    """With file, line and the nearest item."""
    (tmp_path / "gold.csv").write_text("item,field,value\nr11,mood,calm\n")
    with pytest.raises(StudyError, match=r"gold.csv, line 2: no item 'r11'.*\"r1\""):
        findings.labels(run, ["r1"])


def corrected(run, decided):
    """The consensus with the corrections of the study's file."""
    return corrections.apply(decided, aggregate.changes(run), run.study)


def test_corrections_are_applied_when_there_are_some(run, tmp_path):
    """Without the file nothing is corrected; with it one row is, and is flagged."""
    _, decided, _ = counted(run, {("r1", "mood"): alike("calm")})
    assert not corrected(run, decided)["corrected"].any()
    header = "item,field,original,corrected,reason,who,date\n"
    change = "r1,mood,calm,angry,misread,Ann,2026-11-22\n"
    (tmp_path / "corrections.csv").write_text(header + change)
    table = corrected(run, decided)
    assert table.loc[table["corrected"], "value"].tolist() == ["angry"]


def test_names_are_scored_for_the_panel_and_for_each_annotator(run):
    """Kay is right; a and b name Kay, c names nobody: c has recall 0."""
    said = {"a": '["kay"]', "b": '["kay"]', "c": "[]"}
    table, _, named = counted(run, {("r1", "people"): said})
    runs.write_table(votes_of(table), run.path("votes.parquet"))
    labels = pd.DataFrame({"item": ["r1"], "field": ["people"], "value": ["Kay"]})
    scores = findings.name_scores(run, named, labels)
    strict = scores[scores["match"].eq("strict") & scores["field"].eq("all")].set_index("who")
    assert strict["recall"].to_dict() == {"panel": 1, "a": 1, "b": 1, "c": 0}
    said = findings.on_gold(pd.DataFrame(), scores)
    assert said.startswith("Names of 1 labelled list: the panel has F1 1.000, its best member, ")


def votes_of(table):
    """A vote table as a file has it."""
    return table.assign(weight=1.0)


def test_the_review_is_a_file_of_corrections_to_fill(run, tmp_path):
    """Doubtful values, their votes, the digest of the text; texts only when asked for."""
    answers = {("r1", "mood"): {"a": "calm", "b": "calm", "c": "angry"}}
    table, decided, named = counted(run, answers)
    runs.write_table(votes_of(table), run.path("votes.parquet"))
    listed = findings.review(run, decided, named)
    assert list(listed) == review.COLUMNS
    mood = listed[listed["field"].eq("mood")].iloc[0]
    assert (
        mood["votes"] == "calm: m-a x 1 (weight 1), m-b x 1 (weight 1); angry: m-c x 1 (weight 1)"
    )
    assert mood["sha256"] == "sha of r1"
    assert findings.review(run, decided, named, text=True)["text"].tolist()[0] == "text of r1"
    path = findings.write_review(run, listed)
    filled = pd.read_csv(path, keep_default_na=False, dtype=str)
    filled.loc[filled["field"].eq("mood"), ["corrected", "reason", "who"]] = ["angry", "-", "Ann"]
    runs.write_csv(filled, path)
    found = findings.take_in(run, path)
    assert len(found.changes) == 1
    assert corrected(run, decided).query("corrected")["value"].tolist() == ["angry"]
    assert findings.take_in(run, path)[1:4] == (len(filled) - 1, 0, 1)
    assert len(aggregate.changes(run)) == 1


def test_a_list_is_corrected_as_it_stands_after_overlaps(run, tmp_path):
    """`r1` stands only inside `of r1`: it lost, and what was reviewed is ["of r1"] alone."""
    said = {"a": '["of r1","r1"]', "b": '["of r1","r1"]', "c": '["of r1"]'}
    table, decided, named = counted(run, {("r1", "people"): said})
    runs.write_table(votes_of(table), run.path("votes.parquet"))
    named = entities.settle(named, run.path("documents.parquet"), run.study)
    decided = entities.listed(decided, named)
    row = {"item": "r1", "field": "people", "original": '["of r1"]', "corrected": "[]"}
    filled = pd.DataFrame([{**row, "reason": "-", "who": "Ann", "sha256": "sha of r1"}])
    runs.write_csv(filled.assign(date=""), tmp_path / "filled.csv")
    assert len(findings.take_in(run, tmp_path / "filled.csv").changes) == 1
    assert corrected(run, decided).query("corrected")["value"].tolist() == ["[]"]


def test_a_filled_list_is_not_written_over(run, tmp_path):
    """It is set aside until it has been read; one that was read is replaced."""
    table, decided, named = counted(run, {("r1", "mood"): {"a": "calm", "b": "angry", "c": "calm"}})
    runs.write_table(votes_of(table), run.path("votes.parquet"))
    listed = findings.review(run, decided, named)
    path = findings.write_review(run, listed)
    filled = listed[listed["field"].eq("mood")].assign(**FILLED)
    runs.write_csv(filled, path)
    findings.write_review(run, listed)
    aside = path.with_name("review.filled-1.csv")
    assert pd.read_csv(aside)["corrected"].tolist() == ["angry"]
    findings.take_in(run, aside)
    runs.write_csv(filled, path)
    findings.write_review(run, listed)
    assert sorted(one.name for one in path.parent.glob("review*")) == [path.name, aside.name]


FILLED = {"corrected": "angry", "reason": "-", "who": "Ann", "date": "2026-11-22"}


def with_groups(run, text, name="name"):
    """The study with a groups table of this text."""
    groups = {"path": "houses.csv", "id": "house", "name": name}
    (run.folder.parent / "houses.csv").write_text(text, encoding="utf-8")
    return type(BASE).model_validate({**run.study.model_dump(), "groups": groups})


def test_groups_have_an_id_and_a_name(run):
    """Other columns stay; without a name column the id is the name; no table, no groups."""
    table = findings.groups(with_groups(run, "house,name,stars\ninn,The Inn,3\n"))
    assert table[["group", "name", "stars"]].to_numpy().tolist() == [["inn", "The Inn", "3"]]
    table = findings.groups(with_groups(run, "house\ninn\n", name=None))
    assert table["name"].tolist() == ["inn"]
    assert list(findings.groups(run.study)) == ["group", "name"]
    assert findings.groups(with_groups(run, "house,name\n")).empty


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("house,nme\ninn,The Inn\n", r'houses.csv, line 1: .*"?name"?'),
        ("house,name\ninn,The Inn,7\n", r"houses.csv, line 2: 3 cells, and the header has 2"),
        ("house,name\n,The Inn\n", r"houses.csv, line 2: no house: every group needs one"),
        ("", r"houses.csv, line 1: the file is empty"),
    ],
)
def test_a_wrong_groups_table_is_named_by_line(text, said, run):
    """What is wrong, and where."""
    with pytest.raises(StudyError, match=said):
        findings.groups(with_groups(run, text))


def test_a_missing_groups_table_is_named(run):
    """The file that is not there."""
    study = with_groups(run, "house,name\n")
    (run.folder.parent / "houses.csv").unlink()
    with pytest.raises(StudyError, match=r"houses.csv: there is no such file"):
        findings.groups(study)


def reached(*rows):
    """Verdicts: (policy, k, group, verdict)."""
    table = pd.DataFrame(rows, columns=["policy", "k", "group", "verdict"])
    return table.astype({"k": "Int64"})


def test_the_grid_has_a_row_a_group_and_pairs_of_columns():
    """Two houses of one name keep their rows; a house without a name has its id."""
    names = pd.DataFrame({"group": ["a", "b", "c"], "name": ["Inn", "Inn", ""]})
    table = reached(*[("V0", k, group, "Good") for group in "abcd" for k in (25, 50)])
    grid = findings.verdict_grid(table, names)
    assert grid.index.tolist() == ["Inn (a)", "Inn (b)", "c", "d"]
    assert grid.columns.tolist() == [("V0", "25"), ("V0", "50")]
    assert findings.verdict_grid(table[:0], names).empty


def test_verdicts_without_k_take_all_items():
    """A null K is shown as all."""
    table = reached(("V0", None, "a", "Good"))
    names = pd.DataFrame({"group": [], "name": []}, dtype="str")
    assert findings.verdict_grid(table, names).columns.tolist() == [("V0", "all")]


def test_the_sentence_counts_agreement_at_the_highest_k():
    """At K = 50 both policies say Good of a, and differ on b; at 25 nobody looks."""
    rows = [("V0", 50, "a", "Good"), ("V1", 50, "a", "Good"), ("V0", 50, "b", "Good")]
    rows += [("V1", 50, "b", "insufficient data"), ("V0", 25, "a", "Bad"), ("V1", 25, "a", "Good")]
    said = "All 2 policies agree on 1 of 1 group with enough data; too little for 1"
    assert findings.verdict_sentence(reached(*rows)) == said
    assert findings.verdict_sentence(reached()) == "No policies: no verdicts."
    said = "1 group with a verdict, 0 groups with too little data for one"
    assert findings.verdict_sentence(reached(rows[0])) == said


def test_every_verdict_has_a_color_of_its_own():
    """Six verdicts and no data: seven colors; a study without policies has the last alone."""
    words = [f"Level {n}" for n in range(6)]
    policy = {"id": "V0", "title": "-", "verdicts": words, "default": words[0]}
    policies = {"V0": type("Policy", (), policy)}
    colors = findings.verdict_colors(BASE.model_copy(update={"policies": policies}))
    assert len(set(colors.values())) == 7
    assert list(colors) == [*words, "insufficient data"]
    assert list(findings.verdict_colors(BASE)) == ["insufficient data"]


def test_the_policies_are_shown(whole_run):
    """One row a policy, with its verdicts from mildest to severest."""
    table = findings.policy_table(whole_run.run.study)
    assert table.to_numpy().tolist() == [
        ["V0", "Counted complaints", "ordered rules", "Good, Bad", 0.1]
    ]
    assert findings.policy_table(BASE).empty


def test_votes_and_findings_agree_on_keys():
    """Gold names are compared by the key that votes use."""
    assert votes.entity_key("Kay") == "kay"
