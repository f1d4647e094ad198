"""Aggregate: the results of a run by ranges of items, and what people corrected in them."""

import json
import tempfile
from pathlib import Path

import making
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import aggregate, ranges
from lib.errors import StudyError
from lib.runs import Run

FIELDS = {
    "mood": making.field(),
    "is_sure": making.field("boolean"),
    "reason": making.field(when="is_sure"),
    "age": making.field("integer"),
    "note": making.field("text"),
    "people": making.field("entities"),
}
SAID = {
    "mood": st.sampled_from(["calm", "angry", "mixed", None]),
    "is_sure": st.sampled_from(["true", "false", None]),
    "reason": st.sampled_from(["calm", "angry", "n/a"]),
    "age": st.sampled_from(["3", "7", None]),
    "note": st.sampled_from(["one", "two", None]),
    "people": st.sampled_from(['["kay"]', '["kay","sir kay"]', "[]", None]),
}
HEADER = "item,field,original,corrected,reason,who,date\n"
RESULTS = ["consensus", "entities"]


def made(folder, answers, n_rows=1000):
    """A run with these answers, (item, field) -> what each annotator says, in small row groups."""
    study = making.study(FIELDS).model_copy(update={"folder": str(folder)})
    run = Run("moods", folder / "run", study)
    answers = {place: dict(zip("abc", said, strict=True)) for place, said in answers.items()}
    votes = making.votes(study, answers).assign(weight=1.0)
    votes = votes.sort_values(["item", "field", "annotator"])
    lists = votes[votes["field"].eq("people")].dropna(subset="value")
    mentions = lists.assign(key=lists["value"].map(json.loads)).explode("key").dropna(subset="key")
    mentions = mentions.assign(name=mentions["key"].str.title(), n=0, attributes="{}")
    texts = pd.DataFrame({"item": votes["item"].unique(), "start": 0, "text": "Sir Kay and Kay"})
    texts = texts.assign(document=texts["item"], sha256="-")
    run.folder.mkdir(parents=True)
    for name, table in {"votes": votes, "mentions": mentions, "documents": texts}.items():
        kinds = {one: "str" for one in table if table[one].dtype == object}
        path = run.path(f"{name}.parquet")
        table.astype(kinds).to_parquet(path, index=False, row_group_size=n_rows)
    return run


def alike(item, **said):
    """Three equal answers on each field of an item; on those not given, none."""
    return {(item, name): [said.get(name)] * 3 for name in FIELDS}


def results(run, n_votes=1_000_000):
    """What is written when so many votes are counted at a time, as Arrow tables."""
    aggregate.write(run, n_votes)
    return [pyarrow.parquet.read_table(run.path(f"{name}.parquet")) for name in RESULTS]


@st.composite
def answers(draw):
    """What three annotators say on up to six items."""
    items = [f"i{n}" for n in range(draw(st.integers(1, 6)))]
    said = {name: st.lists(one, min_size=3, max_size=3) for name, one in SAID.items()}
    return {(item, name): draw(said[name]) for item in items for name in FIELDS}


@settings(max_examples=5)
@given(answers(), st.integers(1, 120), st.integers(1, 120))
def test_ranges_change_nothing(answers, n_rows, n_votes):
    """Whatever the row groups and ranges, the tables are those of all items in one go."""
    with tempfile.TemporaryDirectory() as folder:
        run = made(Path(folder), answers, n_rows)
        for part, whole in zip(results(run, n_votes), results(run), strict=True):
            assert part.equals(whole)
            assert part.schema.equals(whole.schema, check_metadata=True)


def test_the_order_of_a_file_changes_nothing(tmp_path):
    """Votes in the order of annotators have ranges that are larger, and the same results."""
    run = made(tmp_path, {**alike("i1", mood="calm"), **alike("i2", people='["kay"]')}, 3)
    whole = results(run)
    votes = run.table("votes").sort_values(["annotator", "field"])
    votes.to_parquet(run.path("votes.parquet"), row_group_size=2)
    assert all(map(pyarrow.Table.equals, results(run, 1), whole))


def test_a_range_has_whole_items(tmp_path):
    """Three items of 18 votes in row groups of 5: at most 10 votes a range, so an item each."""
    items = {**alike("i1"), **alike("i2"), **alike("i3")}
    path = made(tmp_path, items, 5).path("votes.parquet")
    found = [ranges.read(part) for part in ranges.of(path, 10)]
    assert [sorted(set(part["item"])) for part in found if len(part)] == [["i1"], ["i2"], ["i3"]]
    assert pd.concat(found).equals(pd.read_parquet(path).set_axis(pd.concat(found).index))


LATER = {**alike("i2", people='["kay"]'), **alike("i3", people='["kay"]')}
CORRECTIONS = [
    "i1,mood,calm,angry,irony,Ann,2026-11-20\n",
    'i1,people,[],"[""Sir Bors""]",missed,Ann,2026-11-20\n',
    'i2,people,"[""kay""]",[],another,Ann,2026-11-20\n',
]


@pytest.mark.parametrize("n_votes", [1, 18, 1000])
def test_people_have_the_last_word_in_every_range(tmp_path, n_votes):
    """A value, a name that no vote gave and a name removed: all in their places and flagged."""
    run = made(tmp_path, {**alike("i1", mood="calm", people="[]"), **LATER}, 6)
    (tmp_path / "corrections.csv").write_text(HEADER + "".join(CORRECTIONS))
    values, names = (table.to_pandas() for table in results(run, n_votes))
    assert values.loc[values["corrected"], "value"].tolist() == ["angry", '["sir bors"]', "[]"]
    columns = ["item", "key", "status", "corrected"]
    assert names[columns].to_numpy().tolist() == [
        ["i1", "sir bors", "elected", True],
        ["i2", "kay", "removed", True],
        ["i3", "kay", "elected", False],
    ]
    assert names["n_places"].isna().tolist() == [True, False, False]


def test_what_votes_said_is_known_after_corrections(tmp_path):
    """Gold is compared with it: the consensus as it is written without the file of corrections."""
    run = made(tmp_path, {**alike("i1", mood="calm", people="[]"), **LATER}, 6)
    aggregate.write(run)
    before = run.table("consensus").drop(columns="corrected")
    (tmp_path / "corrections.csv").write_text(HEADER + "".join(CORRECTIONS))
    aggregate.write(run)
    pd.testing.assert_frame_equal(aggregate.before_corrections(run), before)
    columns = ["item", "field", "value"]
    pd.testing.assert_frame_equal(aggregate.before_corrections(run, columns), before[columns])


def test_corrections_that_do_not_fit_stop_before_anything_is_written(tmp_path):
    """Every mistake is named, of items in different ranges too."""
    run = made(tmp_path, {**alike("i1", mood="calm"), **LATER}, 6)
    rows = [f"i{n},mood,mixed,angry,irony,Ann,2026-11-20\n" for n in (1, 3)]
    (tmp_path / "corrections.csv").write_text(HEADER + "".join(rows))
    with pytest.raises(StudyError, match=r"(?s)line 2.*line 3"):
        aggregate.write(run, 1)
    assert not run.path("consensus.parquet").exists()


def test_results_of_other_corrections_are_not_gone_on_with(tmp_path):
    """A change that came, went or became another since notebook 05 is told, until it runs again;
    what a corrected condition leaves without a value needs no change of its own.
    """
    said = alike("i1", mood="calm", is_sure="true", reason="calm", people="[]")
    run, path = made(tmp_path, {**said, **LATER}, 6), tmp_path / "corrections.csv"
    unsure = "i1,is_sure,true,false,irony,Ann,2026-11-20\n"
    for rows, n_other in (([], 0), ([*CORRECTIONS, unsure], 4), (CORRECTIONS[1:], 3), (None, 2)):
        path.unlink(missing_ok=True)
        if rows is not None:
            path.write_text(HEADER + "".join(rows))
        if n_other:
            with pytest.raises(StudyError, match=f"05 ran: {n_other} values .* Run notebook 05"):
                aggregate.check_current(run)
        aggregate.write(run)
        aggregate.check_current(run)


def test_some_items_are_counted_alone(tmp_path):
    """As gold needs it: the values and names of these items, and of none when there are none."""
    run = made(tmp_path, {**alike("i1", mood="calm"), **LATER}, 6)
    found = aggregate.counted(run, ["i1", "i3"])
    assert found.values["item"].unique().tolist() == ["i1", "i3"]
    assert found.names["item"].tolist() == ["i3"]
    assert not any(map(len, aggregate.counted(run, [])))


def test_the_index_is_over_all_ranges(tmp_path):
    """A name of two items is one row with two documents; each place is written."""
    run = made(tmp_path, {**alike("i1", mood="calm"), **LATER}, 6)
    aggregate.write(run, 1)
    assert aggregate.write_places(run) == 4
    index = aggregate.write_index(run)
    assert index[["key", "n_documents", "n_places"]].to_numpy().tolist() == [["kay", 2, 4]]
    assert run.table("index").equals(index)
