"""Pictures about gold: drawn from real tables, whole on disk, and never fragile."""

import displays
import making
import pandas as pd
import pytest

from lib import consensus, diagrams
from lib.gold import calibration, confusion, sampling, shares
from lib.runs import Run

STUDY = making.study({"relevant": making.field("boolean"), "mood": making.field(when="relevant")})


@pytest.fixture
def run(tmp_path):
    """A run of a study in an empty folder."""
    return Run("moods", tmp_path / "run", STUDY)


def counted(n=200):
    """Votes and gold of so many items: one annotator errs on every third, and ties happen."""
    answers, labels = {}, []
    for i in range(n):
        word = ["calm", "angry", "mixed"][i % 3]
        other = ["angry", "angry", "calm"][i % 3]
        relevant = "false" if i % 10 == 9 else "true"
        answers[f"r{i:03}", "relevant"] = {"a": relevant, "b": "true", "c": relevant}
        said = "n/a" if relevant == "false" else word
        third = "mixed" if i % 4 == 0 else word
        answers[f"r{i:03}", "mood"] = {"a": said, "b": other, "c": third}
        labels += [(f"r{i:03}", "relevant", "true"), (f"r{i:03}", "mood", word)]
    votes = making.votes(STUDY, answers)
    gold = pd.DataFrame(labels, columns=["item", "field", "value"])
    return votes, consensus.decide(votes, STUDY), gold


def drawn(run, function):
    """What a function displays, once."""
    with displays.caught() as outputs:
        assert function() is None
    assert len(outputs) == 1
    return outputs[0]


def figures(run):
    """The files of pictures, by name."""
    return sorted(path.name for path in run.path("figures").glob("*"))


def test_confusion_is_drawn_with_its_finding(run):
    """The title says what is mixed up most; PNG and SVG are there."""
    votes, decided, gold = counted()
    table = confusion.table(votes, decided, gold, STUDY)
    output = drawn(run, lambda: diagrams.confusion(run, table, "05_confusion"))
    assert "Most often mixed up by the panel: " in output.metadata["image/png"]["alt"]
    assert figures(run) == ["05_confusion.png", "05_confusion.svg"]
    drawn(run, lambda: diagrams.confusion(run, table, "05_confusion", "b"))


def test_calibration_is_drawn_with_both_errors(run):
    """Shares and probabilities against what is right."""
    _, decided, gold = counted()
    rows = calibration.out_of_fold(decided, gold, STUDY)
    measured = calibration.quality(decided, gold, STUDY)
    output = drawn(run, lambda: diagrams.calibration(run, rows, measured, "05_calibration"))
    assert "shares are off by" in output.metadata["image/png"]["alt"]
    assert figures(run) == ["05_calibration.png", "05_calibration.svg"]


def test_nothing_to_show_is_said(run):
    """Without gold, and with too little of it; pictures of an earlier state go."""
    votes, decided, gold = counted()
    table = confusion.table(votes, decided, gold, STUDY)
    drawn(run, lambda: diagrams.confusion(run, table, "05_confusion"))
    none = confusion.table(votes, decided, gold[:0], STUDY)
    said = drawn(run, lambda: diagrams.confusion(run, none, "05_confusion"))
    assert "nothing to show" in said.data["text/html"]
    for few in (gold[:0], gold[:40]):
        rows = calibration.out_of_fold(decided, few, STUDY)
        measured = calibration.quality(decided, few, STUDY)
        said = drawn(run, lambda r=rows, m=measured: diagrams.calibration(run, r, m, "05_c"))
        assert "No probability is shown" in said.data["text/html"]
    assert figures(run) == []


def test_hostile_values_do_no_harm(run):
    """Formulas, control characters and very long names in every label."""
    words = ["$x^{", "\x1b[31m red", "W" * 200, "", " "]
    rows = [("panel", "mood", true, said, 2) for true in words for said in words]
    table = pd.DataFrame(rows, columns=["who", "field", "true", "said", "n"])
    values = {word: {"description": "-"} for word in words}
    field = STUDY.fields["mood"].model_copy(update={"values": values})
    study = STUDY.model_copy(update={"fields": {"mood": field}})
    run = Run("moods", run.folder, study)
    drawn(run, lambda: diagrams.confusion(run, table, "05_confusion"))


CURVE = pd.DataFrame(
    {
        "field": ["all"] * 3,
        "threshold": ["1/5", "1/3", "1/2"],
        "at_share": [0.2, 1 / 3, 0.5],
        "chosen": [False, True, False],
        "precision": [0.7, 0.8, 0.9],
        "recall": [0.9, 0.8, 0.6],
        "f1": [0.79, 0.8, 0.72],
        "low": [0.7, 0.7, 0.6],
        "high": [0.85, 0.85, 0.8],
    }
)


@pytest.mark.parametrize(
    ("f1", "said"),
    [
        (
            [0.79, 0.8, 0.72],
            "At the study's threshold, 1/3, names have F1 0.800; none tried is better",
        ),
        ([0.79, 0.8, 0.8004], "names have F1 0.800; none tried is better"),
        ([0.79, 0.8, 0.85], "1/3, names have F1 0.800; 1/2 would have 0.850 on the same gold"),
        ([float("nan"), 0.0, float("nan")], "names have F1 0.000; none tried is better"),
    ],
)
def test_the_curve_of_thresholds_is_drawn_with_its_finding(run, f1, said):
    """The title says what the study's threshold gives, and a better one when there is one."""
    output = drawn(run, lambda: diagrams.curve(run, CURVE.assign(f1=f1), "05_threshold"))
    assert output.metadata["image/png"]["alt"].endswith(said)
    assert figures(run) == ["05_threshold.png", "05_threshold.svg"]


def test_without_gold_there_is_no_curve(run):
    """A sentence instead of a picture."""
    said = drawn(run, lambda: diagrams.curve(run, CURVE[:0], "05_threshold"))
    assert "no list has gold labels" in said.data["text/html"]


def test_prevalence_is_drawn_with_and_without_a_sample(run):
    """The title counts what gold does not allow; where all items are labelled gold rules nothing
    out, it says what is; without a sample it corrects nothing; no votes, no file.
    """
    _, decided, gold = counted()
    drawn_items = sampling.draw(pd.Series("all", index=decided["item"].unique()), 60)
    labels = gold[gold["item"].isin(drawn_items["item"])]
    table = shares.table(decided, labels, drawn_items, STUDY)
    output = drawn(run, lambda: diagrams.prevalence(run, table, "05_prevalence"))
    assert "5 values gold rules out the share" in output.metadata["image/png"]["alt"]
    assert figures(run) == ["05_prevalence.png", "05_prevalence.svg"]
    census = shares.table(decided, gold, None, STUDY)
    output = drawn(run, lambda: diagrams.prevalence(run, census, "05_prevalence"))
    assert output.metadata["image/png"]["alt"] == (
        "All items are labelled; the votes alone give another share for 5 of 5 values"
    )
    alone = shares.table(decided, gold.head(0), None, STUDY)
    output = drawn(run, lambda: diagrams.prevalence(run, alone, "05_prevalence"))
    assert "gold does not correct" in output.metadata["image/png"]["alt"]
    drawn(run, lambda: diagrams.prevalence(run, alone.head(0), "05_prevalence"))
    assert figures(run) == []


NAMES = pd.DataFrame(
    {
        "who": ["panel", "a", "b"],
        "field": ["all"] * 3,
        "match": ["strict"] * 3,
        "f1": [0.5, 0.6, float("nan")],
        "low": [0.4, 0.5, float("nan")],
        "high": [0.6, 0.7, float("nan")],
    }
)


def test_names_of_the_panel_and_its_members_are_drawn(run):
    """The title says who is better; without gold a sentence stands there."""
    output = drawn(run, lambda: diagrams.names(run, NAMES[:2], "05_names"))
    said = "Names of the panel have F1 0.500, those of its best member, a, 0.600"
    assert output.metadata["image/png"]["alt"] == said
    drawn(run, lambda: diagrams.names(run, NAMES, "05_names"))
    assert figures(run) == ["05_names.png", "05_names.svg"]
    said = drawn(run, lambda: diagrams.names(run, NAMES[:0], "05_names"))
    assert "no list has gold labels" in said.data["text/html"]
