"""Sampling: a fixed random order, exact chances, and samples that only grow."""

import datetime
from collections import Counter

import making
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import runs
from lib.errors import StudyError
from lib.gold import sampling

ITEMS = [f"r{n:03}" for n in range(60)]
NOW = datetime.datetime(2026, 11, 22, 21, 0, tzinfo=datetime.UTC)
DOCUMENTS = pd.DataFrame({"item": ITEMS, "source": "all", "group": None, "sha256": "0" * 64})
sizes = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def in_strata(counts):
    """Items a0, a1, ..., b0, ... with these numbers in the strata a, b, ..."""
    names = {f"{name}{n}": name for name, size in zip("abcd", counts, strict=False)
             for n in range(size)}  # fmt: skip
    return pd.Series(names, dtype="str")


def test_without_strata_all_chances_are_n_of_all():
    """15 of 60 items: each had the chance 1/4, and none is drawn twice."""
    drawn = sampling.draw(pd.Series("all", index=ITEMS), 15)
    assert drawn["probability"].eq(0.25).all()
    assert drawn["item"].is_unique
    assert drawn["place"].tolist() == list(range(1, 16))


def test_another_seed_is_another_order():
    """The seed decides, and nothing else."""
    strata = pd.Series("all", index=ITEMS)
    one, same, other = (sampling.draw(strata, 15, seed)["item"].tolist() for seed in "112")
    assert one == same != other


@settings(max_examples=20)
@given(sizes, st.integers(8, 60), st.integers(8, 60), st.randoms())
def test_a_larger_sample_holds_the_smaller(counts, n, more, random):
    """Its first items are the same ones in the same order, however the corpus is shuffled."""
    strata = in_strata(counts)
    shuffled = strata.sample(frac=1, random_state=random.randint(0, 99))
    small, large = (sampling.draw(one, k) for one, k in ((strata, n), (shuffled, n + more)))
    assert large["item"].tolist()[: len(small)] == small["item"].tolist()
    grown = sampling.draw(shuffled, n + more, before=small["item"])
    pd.testing.assert_frame_equal(grown, large)


@settings(max_examples=20)
@given(sizes, st.integers(8, 60))
def test_chances_add_up_to_the_corpus(counts, n):
    """The sum of 1 / chance is the number of items, in every stratum."""
    strata = in_strata(counts)
    drawn = sampling.draw(strata, n)
    for name, part in drawn.groupby("stratum"):
        assert (1 / part["probability"]).sum() == pytest.approx(strata.eq(name).sum())


def test_strata_give_equal_numbers_until_one_is_empty():
    """12 of 20 a, 3 b and 10 c: 3 b is all there are, a begins and gets 5, c 4."""
    drawn = sampling.draw(in_strata([20, 3, 10]), 12)
    assert Counter(drawn["stratum"]) == {"a": 5, "b": 3, "c": 4}
    assert drawn.groupby("stratum")["probability"].first().tolist() == [5 / 20, 1.0, 4 / 10]


def test_every_item_is_drawn_as_often_as_it_should():
    """Of 160 seeds, each of 20 items is among the first 5 in about a quarter: 40 +- 4 x 5.5."""
    strata = pd.Series("all", index=ITEMS[:20])
    times = Counter(
        item for seed in range(160) for item in sampling.draw(strata, 5, str(seed))["item"]
    )
    assert all(18 <= times[item] <= 62 for item in ITEMS[:20])


def test_a_stratum_needs_two_items_for_an_interval():
    """Three strata and five items: one would have a single item, unless that is all it has."""
    with pytest.raises(StudyError, match="such as 'c', would have fewer than two"):
        sampling.draw(in_strata([9, 9, 9]), 5)
    assert len(sampling.draw(in_strata([9, 9, 1]), 5)) == 5


def decided():
    """Three items: calm and clear, angry and narrow, a tie."""
    rows = [
        ("r000", "mood", "calm", "decided", 1.0),
        ("r001", "mood", "angry", "decided", 0.2),
        ("r002", "mood", None, "tie", 0.0),
    ]
    return pd.DataFrame(rows, columns=["item", "field", "value", "status", "margin"])


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ([], ["all", "all", "all"]),
        (["source"], ["all", "all", "all"]),
        (["group"], ["none", "none", "none"]),
        (["mood"], ["mood=calm", "mood=angry", "mood=tie"]),
        (["review"], ["clear", "narrow", "open"]),
        (["mood", "review"], ["mood=calm / clear", "mood=angry / narrow", "mood=tie / open"]),
    ],
)
def test_strata_by_what_is_known(by, expected):
    """By documents, by what the panel says, by how sure it is, and by several at once."""
    found = sampling.strata(DOCUMENTS.head(3), decided(), by)
    assert found.loc[["r000", "r001", "r002"]].tolist() == expected


def test_strata_that_cannot_be():
    """A name that is none, and the panel's values before there are votes."""
    with pytest.raises(StudyError, match='Did you mean "mood"'):
        sampling.check_by(["moood"], making.study())
    with pytest.raises(StudyError, match="run 05_aggregate_votes first"):
        sampling.strata(DOCUMENTS, None, ["mood"])


def stored(strata, n, before=None, seed="1", by=""):
    """The rows of gold_sample.csv for a sample."""
    frame = sampling.frame(strata)
    drawn = (
        sampling.draw(strata, n, seed)
        if before is None
        else sampling.extend(before, strata, frame, n, seed, by)
    )
    return sampling.stamped(drawn, DOCUMENTS, before, NOW, by=by, seed=seed, frame=frame)


def test_a_sample_grows_and_remembers(tmp_path):
    """Ten, then fifteen: the new ones stand on the next sheet; the file gives back the table."""
    strata = pd.Series("all", index=ITEMS)
    ten = stored(strata, 10)
    fifteen = stored(strata, 15, ten)
    assert fifteen["item"].tolist()[:10] == ten["item"].tolist()
    assert fifteen["sheet"].tolist() == [1] * 10 + [2] * 5
    assert fifteen["probability"].eq(0.25).all()
    path = tmp_path / "gold_sample.csv"
    runs.write_csv(fifteen, path)
    pd.testing.assert_frame_equal(sampling.read(path), fifteen, check_dtype=False)


def test_a_smaller_number_takes_nothing_away():
    """Ten were drawn; five are asked for, and ten stay."""
    strata = pd.Series("all", index=ITEMS)
    assert len(stored(strata, 5, stored(strata, 10))) == 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": "2"}, "seed '1' before and '2' now"),
        ({"by": "mood"}, "by 'nothing' before and 'mood' now"),
        ({"strata": pd.Series("all", index=[*ITEMS, "r999"])}, "other items or strata than when"),
    ],
)
def test_nothing_is_drawn_anew_in_silence(change, words):
    """Another seed, other strata or another corpus would make the chances untrue."""
    strata = pd.Series("all", index=ITEMS)
    ten = stored(strata, 10)
    given = {"strata": strata, "n": 15, "before": ten, **change}
    with pytest.raises(StudyError, match=words):
        stored(**given)


def test_items_that_a_run_does_not_ask_about():
    """A pilot knows fewer items than were drawn: the sample belongs to the whole run."""
    strata = pd.Series("all", index=ITEMS)
    ten = stored(strata, 10)
    with pytest.raises(StudyError, match="does not ask about 10 of 10 drawn items"):
        sampling.extend(ten, strata.drop(ten["item"]), sampling.frame(strata), 15, "1", "")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("0.25", "2.5", "the probability 2.5 is not above 0 and at most 1"),
        ("0.25", "a lot", "not for writing in"),
        ("place,", "plaice,", "the column 'place' is not there. Did you mean \"plaice\"?"),
    ],
)
def test_a_sample_that_was_written_in(tmp_path, old, new, words):
    """The stored sample is checked when it is read."""
    path = tmp_path / "gold_sample.csv"
    runs.write_csv(stored(pd.Series("all", index=ITEMS), 15), path)
    path.write_text(path.read_text(encoding="utf-8-sig").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(StudyError) as raised:
        sampling.read(path)
    assert words in str(raised.value)


def test_an_item_cannot_be_drawn_twice(tmp_path):
    """A row that was copied is named with both lines."""
    path = tmp_path / "gold_sample.csv"
    twice = stored(pd.Series("all", index=ITEMS), 3)
    runs.write_csv(pd.concat([twice, twice.head(1)]), path)
    with pytest.raises(StudyError, match=r"line 5: .* was drawn on line 2 too"):
        sampling.read(path)
