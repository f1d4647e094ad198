"""Runs: files appear whole or not at all, and a run is one study frozen in one folder."""

import csv
import os
import signal
import subprocess
import sys
import threading
import uuid

import pandas as pd
import pytest

from lib import runs, yamls
from lib.errors import AccountingError, ModelError, StudyError

STUDY = """\
title: Moods
question: How?
corpus: {notes: {path: notes.csv}}
fields:
  mood: {description: Mood., values: {calm: {description: Calm.}, angry: {description: Angry.}}}
panel: small
panels:
  small: {annotators: {luna: {model: gpt-6-luna, repeats: 3}}}
  large: {annotators: {sol: {model: gpt-6-sol}}}
"""


@pytest.fixture
def folder(tmp_path):
    """A study in a folder of a name of its own, so that its run is new."""
    made = tmp_path / f"m{uuid.uuid4().hex[:8]}"
    made.mkdir()
    (made / "study.yml").write_text(STUDY, encoding="utf-8")
    (made / "prompt.md").write_text("Read the note.", encoding="utf-8")
    return made


def change(folder, old, new):
    """Replace one place of the study."""
    text = (folder / "study.yml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (folder / "study.yml").write_text(text.replace(old, new), encoding="utf-8")


def test_start_and_open(folder):
    """Starting freezes the study; opening gives the same run with the same study."""
    run = runs.start(str(folder))
    assert run.folder == runs.outputs() / folder.name
    assert repr(run) == (f"Run {folder.name}: study {folder.name}, panel small (gpt-6-luna x 3)")
    assert runs.open_run(str(folder)) == run
    lock = run.path("study.lock.yml")
    before = lock.stat().st_mtime_ns
    runs.start(str(folder))
    assert lock.stat().st_mtime_ns == before, "an unchanged study is not frozen again"


def test_panel_is_chosen_for_a_run(folder):
    """Two runs of one study may have different panels, and each keeps its own."""
    runs.start(str(folder), f"{folder.name}-large", "large")
    runs.start(str(folder))
    assert runs.open_run(str(folder), f"{folder.name}-large").study.panel == "large"
    assert runs.open_run(str(folder)).study.panel == "small"


def test_changes_are_noted(folder):
    """A run goes on with its frozen study and says which parts have been changed since."""
    runs.start(str(folder))
    change(folder, "repeats: 3", "repeats: 2")
    change(folder, "panel: small", "sending: {canary: 9}\npanel: small")
    (folder / "prompt.md").write_text("Read it twice.", encoding="utf-8")
    opened = runs.open_run(str(folder))
    assert opened.study.n_votes == 3
    assert opened.note == "; changed since 01: prompt, panels, sending. Run 01 again to use it."
    assert runs.start(str(folder)).note == ""
    assert runs.open_run(str(folder)).study.n_votes == 2


def test_order_of_values_is_a_change(folder):
    """Values in another order are another question to the models, so it is noted."""
    runs.start(str(folder))
    calm, angry = "calm: {description: Calm.}", "angry: {description: Angry.}"
    change(folder, f"{calm}, {angry}", f"{angry}, {calm}")
    assert "changed since 01: fields." in runs.open_run(str(folder)).note


def test_results_stay_readable(folder):
    """A study that was broken or removed since does not lock the run's results away."""
    runs.start(str(folder))
    change(folder, "title: Moods\n", "")
    place = yamls.shown(folder / "study.yml")
    assert runs.open_run(str(folder)).note == (
        f"; the study cannot be used as it is now: {place}, line 1: 'title' is missing."
    )
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert runs.open_run(str(folder)).study.n_votes == 3


def test_shutdown_is_shown(folder):
    """A run whose models will be shut down soon says so in its line, or cannot start any more."""
    change(folder, "model: gpt-6-luna", "model: gpt-5-mini")
    try:
        note = runs.start(str(folder)).note
    except ModelError as error:
        assert "was shut down on 2026-12-11" in str(error)
    else:
        assert note.startswith("; warning: gpt-5-mini shuts down on 2026-12-11, in ")


def test_one_run_holds_one_study(folder):
    """A run's name that belongs to another study is refused instead of overwritten."""
    runs.start(str(folder))
    other = folder.with_name("other")
    folder.rename(other)
    name = folder.name
    for call in (runs.start, runs.open_run):
        with pytest.raises(StudyError) as caught:
            call(str(other), name)
        assert str(caught.value) == (
            f"run {name!r} holds the study {name!r}, not 'other'. "
            "Choose another run name (--run NAME)."
        )


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a b", "x" * 81, "a\n", "..", "C:\\x"])
def test_names_that_are_no_folder(folder, name):
    """A run's name cannot lead out of the folder of runs."""
    for call in (runs.start, runs.open_run):
        with pytest.raises(StudyError, match="cannot be a run's name"):
            call(str(folder), name)


def test_no_run_yet(folder):
    """Opening what was never started says which notebook to run first."""
    with pytest.raises(StudyError) as caught:
        runs.open_run(str(folder))
    assert str(caught.value) == (
        f"there is no run {folder.name!r} yet: run 01_load_documents first."
    )


def test_study_by_name_and_by_path(tmp_path, monkeypatch):
    """A word is a folder below data; anything with a slash is a path from where one stands."""
    monkeypatch.chdir(tmp_path)
    assert runs.study_folder("books") == runs.ROOT / "data" / "books"
    assert runs.study_folder("./books") == tmp_path.resolve() / "books"
    assert runs.study_folder("a/books") == tmp_path.resolve() / "a" / "books"
    assert runs.study_folder(str(tmp_path / "b")) == (tmp_path / "b").resolve()
    assert runs.study_folder("~/b").is_absolute()


@pytest.mark.parametrize(
    ("name", "notebook"),
    [
        ("documents", "01_load_documents"),
        ("requests", "02_estimate_cost"),
        ("consensus", "05_aggregate_votes"),
        ("verdicts", "06_reach_verdicts"),
    ],
)
def test_missing_table_names_its_notebook(folder, name, notebook):
    """A table that is not there yet names the notebook that writes it."""
    run = runs.start(str(folder))
    with pytest.raises(StudyError) as caught:
        run.table(name)
    expected = yamls.shown(run.folder / f"{name}.parquet")
    assert str(caught.value) == f"{expected} is missing: run {notebook} first."


def test_tables_round_trip(folder):
    """A table is read as it was written."""
    run = runs.start(str(folder))
    frame = pd.DataFrame({"item": ["a", "b\u2028"], "n": [1, 2]})
    runs.write_table(frame, run.path("documents.parquet"))
    pd.testing.assert_frame_equal(run.table("documents"), frame)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1+1", "'+1+1"),
        ("-2+3", "'-2+3"),
        ("@sum(a1)", "'@sum(a1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("Kay = 1", "Kay = 1"),
    ],
)
def test_no_text_is_a_formula_in_a_spreadsheet(name, written, tmp_path):
    """Documents and models choose the words in a table; numbers stay as they are."""
    runs.write_csv(pd.DataFrame({"name": [name, None], "n": [-1, 2]}), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"name": written, "n": "-1"}, {"name": "", "n": "2"}]


def test_streams_round_trip(tmp_path):
    """Frames written as a stream come back in order, in frames of at most the asked size."""
    frames = [pd.DataFrame({"n": range(start, start + 700), "t": "é"}) for start in (0, 700, 1400)]
    path = tmp_path / "deep" / "rows.parquet"
    assert runs.write_stream(iter(frames), path) == 2100
    back = list(runs.stream(path, rows=500))
    assert max(map(len, back)) <= 500
    pd.testing.assert_frame_equal(
        pd.concat(back, ignore_index=True), pd.concat(frames, ignore_index=True)
    )
    assert list(next(runs.stream(path, columns=["n"]))) == ["n"]


def test_stream_without_rows_is_refused(tmp_path):
    """A table that would be empty is refused, and leaves no file."""
    with pytest.raises(AccountingError, match=r"rows.parquet would have no rows"):
        runs.write_stream(iter(()), tmp_path / "rows.parquet")
    assert list(tmp_path.iterdir()) == []


def test_broken_stream_leaves_the_old_file(tmp_path):
    """An error in the middle of a stream keeps what was there before."""
    path = tmp_path / "rows.parquet"
    runs.write_table(pd.DataFrame({"n": [1]}), path)

    def frames():
        yield pd.DataFrame({"n": [2]})
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        runs.write_stream(frames(), path)
    assert pd.read_parquet(path)["n"].tolist() == [1]
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]


KILLED = """
import sys
from pathlib import Path
from lib import (runs)
with runs.replacing(Path(sys.argv[1])) as part, part.open("wb") as file:
    file.write(b"new" * 100_000)
    file.flush()
    print("half", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a signal of POSIX systems")
def test_a_killed_writer_leaves_the_old_file(tmp_path):
    """A process killed in the middle of writing leaves the old file, and the next one can write."""
    path = tmp_path / "table.bin"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=runs.ROOT
    ) as child:
        assert child.stdout.readline() == b"half\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    with runs.replacing(path) as part:
        part.write_bytes(b"new")
    assert path.read_bytes() == b"new"


def test_readers_never_see_half_a_file(tmp_path):
    """While a file is replaced again and again, a reader finds one whole content or another."""
    path, seen, done = tmp_path / "t", set(), threading.Event()
    path.write_bytes(b"0" * 50_000)

    def look():
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    for n in range(1, 20):
        with runs.replacing(path) as part:
            part.write_bytes(str(n % 10).encode() * 50_000)
    done.set()
    reader.join()
    assert all(len(content) == 50_000 and len(set(content)) == 1 for content in seen)
