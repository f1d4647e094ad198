"""Agreement: pairs of votes that say the same, within a model and between models."""

import making
import pytest

from lib import agreement, runs

STUDY = making.study({"mood": making.field()}, {"a": ("m-a", 3, 1.0), "b": ("m-b", 1, 1.0)})


def raw(folder, answers):
    """The agreement of these answers, by annotator and other."""
    path = folder / "votes.parquet"
    runs.write_table(making.votes(STUDY, answers), path)
    return agreement.raw(path).set_index(["annotator", "other"])


def test_pairs_are_counted_within_and_between(tmp_path):
    """Repeats calm, calm, angry have 3 pairs of which 1 agrees; with b's calm 2 of 3 agree."""
    table = raw(tmp_path, {("r1", "mood"): {"a": ["calm", "calm", "angry"], "b": "calm"}})
    assert table.loc[("a", "a"), ["n_pairs", "n_same"]].tolist() == [3, 1]
    assert table.loc[("a", "b"), ["n_pairs", "n_same"]].tolist() == [3, 2]
    assert table.loc[("a", "b"), "share"] == pytest.approx(2 / 3)
    assert len(table) == 2


def test_abstentions_are_in_no_pair(tmp_path):
    """Of a, a, missing and a missing b one pair is left."""
    table = raw(tmp_path, {("r1", "mood"): {"a": ["calm", "calm", None], "b": None}})
    assert table["n_pairs"].to_dict() == {("a", "a"): 1}


def test_items_add_up(tmp_path):
    """Two items with one pair each between single repeats; votes on different items never pair."""
    answers = {
        ("r1", "mood"): {"a": ["calm", None, None], "b": "calm"},
        ("r2", "mood"): {"a": ["calm", None, None], "b": "angry"},
    }
    table = raw(tmp_path, answers)
    assert table.loc[("a", "b"), ["n_pairs", "n_same", "share"]].tolist() == [2, 1, 0.5]


def test_nobody_to_agree_with_is_an_empty_table(tmp_path):
    """One vote alone has no pair."""
    table = raw(tmp_path, {("r1", "mood"): {"a": ["calm", None, None]}}).reset_index()
    assert table.empty
    assert set(table) == {"field", "annotator", "other", "n_pairs", "n_same", "share"}
