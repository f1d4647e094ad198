"""The commands about files: what they count, say, write and refuse."""

import subprocess
import sys

import pandas as pd
import pytest

from lib import __main__ as command
from lib import runs
from lib.errors import StudyError

ROWS = [
    *(("p", worker, label) for worker, label in zip("abc", "xxy", strict=True)),
    *(("q", worker, label) for worker, label in zip("abc", "xyz", strict=True)),
    *(("r", worker, label) for worker, label in zip("abc", "yy?", strict=True)),
]


def write(folder, rows=ROWS, columns=("item", "worker", "label"), name="votes.csv"):
    """A file of votes; gives its path as a word of the command line."""
    path = folder / name
    pd.DataFrame(rows, columns=list(columns)).to_csv(path, index=False)
    return str(path)


def said(capsys, *words):
    """What the command says when it ends well."""
    assert command.main(["count", *map(str, words)]) == 0
    return capsys.readouterr().out


def refused(capsys, *words):
    """What the command says when it stops."""
    assert command.main(["count", *map(str, words)]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_votes_are_counted_and_told(tmp_path, capsys):
    """p is x by 2 of 3, q a tie of three, r is y by 2 of 3, whose third vote is a stray.

    Worker a votes x, x, y as the truth says; the panel is right on both labels that it gives.
    """
    truth = write(tmp_path, [("p", "x"), ("q", "x"), ("r", "y")], ("item", "truth"), "truth.csv")
    out = tmp_path / "out.csv"
    words = ["--truth", truth, "--labels", "x,y,z", "--infer", "--out", out]
    text = said(capsys, write(tmp_path), *words)
    for line in (
        "9 votes on 3 items by 3 voters.",
        "2 decided, 1 tie, 0 without quorum.",
        "1 abstention: 1 stray, 0 missing.",
        "stray: '?', 1 time",
        "panel: right on 2 of 2",
        "a: right on 3 of 3",
        "With ties (0.3333) broken at random, the panel would be right on 0.7778.",
        "the panel does not beat its best member",
        "dawid-skene: changes",
    ):
        assert line in text
    table = pd.read_csv(out, encoding="utf-8-sig").set_index("item")
    assert table["value"].fillna("").to_dict() == {"p": "x", "q": "", "r": "y"}
    members = pd.read_csv(tmp_path / "out.accuracy.csv", encoding="utf-8-sig")
    assert members["who"].tolist()[:2] == ["panel", "a"]


def test_the_command_is_there_as_a_process(tmp_path):
    """`python -m lib count` says the same, and writes Parquet."""
    out = tmp_path / "out.parquet"
    words = [sys.executable, "-m", "lib", "count", write(tmp_path), "--out", str(out)]
    done = subprocess.run(words, cwd=runs.ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 decided, 1 tie," in done.stdout
    assert sorted(pd.read_parquet(out)["item"]) == ["p", "q", "r"]


def test_runs_share_a_weight_or_each_have_it(tmp_path, capsys):
    """Two runs of m say y, one of s says x: by model weight 2 makes it x, by run they tie at 2;
    three runs of m outvote s, which is warned of.
    """
    rows = [("p", "m", n, "y") for n in range(3)] + [("p", "s", 0, "x")]
    votes = write(tmp_path, rows, ("item", "model", "repeat", "label"))
    assert "by 2 voters in 4 runs" in said(capsys, votes)
    out = tmp_path / "out.parquet"
    shared = said(capsys, votes, "--weights", "s=2", "--out", out)
    assert "Warning: The 3 repeats" not in shared
    assert pd.read_parquet(out)["value"].tolist() == ["x"]
    apart = said(capsys, votes, "--weights", "s=2", "--per-run", "--out", out)
    assert "Warning: The 3 repeats of m (m, weight 1 each, 3 together) outvote s" in apart
    assert pd.read_parquet(out)["value"].tolist() == ["y"]


def test_labels_by_field(tmp_path, capsys):
    """Each field has labels of its own; the strays are told with their field."""
    rows = [("p", "a", "x", "mood"), ("p", "a", "9", "day"), ("p", "b", "1", "day")]
    votes = write(tmp_path, rows, ("task", "worker", "label", "field"))
    text = said(capsys, votes, "--labels", "mood=x,y", "day=1,2", "--quorum", "0.4")
    assert "stray on day: '9', 1 time" in text
    assert "2 decided" in text


def test_numbers_are_averaged(tmp_path, capsys):
    """Mean of 1, 2, 6 is 3; against 4 the error is 1; what is no number abstains."""
    rows = [("p", "a", "1"), ("p", "b", "2"), ("p", "c", "6"), ("p", "d", "many")]
    truth = write(tmp_path, [("p", "4")], ("item", "value"), "truth.csv")
    out = tmp_path / "out.csv"
    words = [write(tmp_path, rows), "--numbers", "mean", "--truth", truth, "--out", out]
    text = said(capsys, *words)
    assert "1 vote without a number" in text
    assert "against 1 truth: 1." in text
    assert pd.read_csv(out, encoding="utf-8-sig")["value"].tolist() == [3]


def test_a_formula_in_a_label_stays_text(tmp_path, capsys):
    """The CSV is safe for spreadsheets."""
    rows = [("p", "a", "=1+1"), ("p", "b", "=1+1")]
    out = tmp_path / "out.csv"
    said(capsys, write(tmp_path, rows), "--out", out)
    assert "'=1+1" in out.read_text(encoding="utf-8-sig")


BAD_VOTES = {
    "": "the file is empty",
    "item,worker,label\n": "no votes below the header",
    "item,worker\np,a\n": "no column label or value",
    "thing,worker,label\np,a,x\n": "no column item or task",
    "item,label\np,x\n": "no column worker",
    "item,worker,label\n,a,x\n": "no item or no worker in 1 of 1 vote.",
    "item,worker,label\np,a,\n": "no vote has a label",
    "item,worker,label,field\np,a,x,\nq,a,x,f\n": "some votes have no field",
    "item,worker,label,weight\np,a,x,heavy\n": "cannot be read",
    "item,worker,label,weight\np,a,x,0\n": "Expected a number above 0",
    "item,worker,label,weight\np,a,x,1\nq,a,x,2\n": "A voter has one weight",
}


@pytest.mark.parametrize(("text", "words"), BAD_VOTES.items())
def test_votes_that_cannot_be_counted(tmp_path, capsys, text, words):
    """Each mistake is said, and nothing is written."""
    path, out = tmp_path / "votes.csv", tmp_path / "out.parquet"
    path.write_text(text, encoding="utf-8")
    assert words in refused(capsys, path, "--out", out)
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_no_table(tmp_path, capsys):
    """A missing file, a text called Parquet, bytes of another encoding, and an odd ending."""
    assert "there is no such file" in refused(capsys, tmp_path / "none.csv")
    (tmp_path / "v.parquet").write_text("item,worker,label\n", encoding="utf-8")
    assert "cannot be read" in refused(capsys, tmp_path / "v.parquet")
    (tmp_path / "v.csv").write_bytes("item,worker,label\np,a,größe\n".encode("latin-1"))
    assert "cannot be read" in refused(capsys, tmp_path / "v.csv")
    votes = write(tmp_path)
    assert ".parquet or .csv" in refused(capsys, votes, "--out", tmp_path / "out.xlsx")


BAD_TRUTH = {
    "item,truth\n": "no rows",
    "item,answer\np,x\n": "no column truth, label, value",
    "name,truth\np,x\n": "no column item or task",
    "item,truth\np,X\n": "the label 'X'. Did you mean",
    "item,truth\np,x\np,y\n": "says 1 item twice, such as 'p'",
    "item,truth\np,\n": "no item, field or label in 1 row of the truth",
    "item,truth\nother,x\n": "no vote stands on any of 1 item with",
    "item,truth,field\np,x,mood\n": "names the field 'mood'",
}


@pytest.mark.parametrize(("text", "words"), BAD_TRUTH.items())
def test_truth_that_measures_nothing(tmp_path, capsys, text, words):
    """Each mistake in the truth is said."""
    path = tmp_path / "truth.csv"
    path.write_text(text, encoding="utf-8")
    assert words in refused(capsys, write(tmp_path), "--truth", path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--labels", "x,x"], "one twice"),
        (["--labels", "x,y", "mood=x"], "not both"),
        (["--labels", "mood=x"], "no vote has a field"),
        (["--weights", "d=2"], "'d', who has no vote"),
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, options, words):
    """Labels and weights must be of these votes."""
    assert words in refused(capsys, write(tmp_path), *options)


def test_labels_are_one_list_or_by_field():
    """The error is one of the project's own."""
    from lib import counts

    with pytest.raises(StudyError):
        counts.labels(["a,b", "f=a"])


def test_real_judges(shared, tmp_path, capsys):
    """33 LLM judges: 3 stray votes, .5242 with ties broken, 2.47 votes' worth, no better than the
    best of them, and Dawid-Skene loses 13 points.
    """
    folder = shared / "data" / "votes" / "llmjudge"
    words = ["--truth", folder / "truth.csv", "--labels", "0,1,2,3", "--infer"]
    text = said(capsys, folder / "votes.csv.gz", *words)
    assert "3 abstentions: 3 stray, 0 missing." in text
    assert "worth 2.47 independent votes" in text
    assert "the panel would be right on 0.5242" in text
    assert "does not beat its best member" in text
    assert "dawid-skene: changes 2,579 decided labels in 100 iterations, right on 0.39" in text
    assert ", and has not settled" in text
