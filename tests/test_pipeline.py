"""The runner: parameters by name and type, notebooks that appear whole, one road through seven."""

import signal
import subprocess
import sys
import time

import nbformat
import pytest
import whole

from lib import pipeline, runs
from lib.errors import BusyError, StudyError, VotebookError
from lib.pipeline import Parameter

KNOWN = {
    "study": Parameter("str", '"allergy"', "which study"),
    "sample": Parameter("int", "0", "how many"),
    "max_usd": Parameter("float", "0.0", "how much"),
}
STEMS = ["01_load_documents", "02_estimate_cost", "03_submit_batches"]
STEMS += ["04_monitor_batches", "05_aggregate_votes", "06_reach_verdicts"]
STEMS += ["07_weigh_alternatives"]


def notebook(path, *cells):
    """A notebook of these code cells at `path`; the first one holds its parameters."""
    parameters = 'name: str = "nobody"  # who\nn: int = 1  # how many'
    made = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "-", "language": "python"}}
    )
    for source in (parameters, *cells):
        made.cells.append(nbformat.v4.new_code_cell(source))
    made.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(made, path)
    return path


def printed(path):
    """What the cells of an executed notebook have printed."""
    cells = nbformat.read(path, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_values_get_the_declared_types():
    """Text from the command line becomes what the notebooks declare; 007 stays text for a name."""
    given = {"study": "007", "sample": "7", "max_usd": "1e1"}
    assert pipeline.typed(given, KNOWN) == {"study": "007", "sample": 7, "max_usd": 10.0}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_udd", "5", "no notebook has a parameter 'max_udd'. Did you mean \"max_usd\"?"),
        ("submit", "false", "Known: max_usd, sample, study."),
        ("sample", "7.5", "parameter sample is '7.5', but it must be of type int, 0 or more"),
        ("sample", "-1", "must be of type int, 0 or more (default 0)"),
        ("max_usd", "five", "must be of type float, 0 or more (default 0.0)"),
        ("max_usd", "nan", "must be of type float"),
        ("max_usd", "inf", "must be of type float"),
        ("max_usd", "true", "must be of type float"),
        ("study\nimport os", "x", "no notebook has a parameter"),
        ("study = 1; import os  #", "x", "no notebook has a parameter"),
    ],
)
def test_a_wrong_parameter_is_refused(name, value, said):
    """Before anything starts, with the nearest name or the type that was expected."""
    with pytest.raises(StudyError) as error:
        pipeline.typed({name: value}, KNOWN)
    assert said in str(error.value)
    assert error.value.parameter == name


@pytest.mark.parametrize(
    "name", ["api_key", "OPENAI_API_KEY", "apikey", "token", "hf_token", "db_password", "secret"]
)
def test_a_secret_is_refused_by_its_name(name):
    """Papermill would write it into the notebook."""
    with pytest.raises(StudyError, match="looks like a secret"):
        pipeline.typed({name: "x"}, KNOWN)


@pytest.mark.parametrize(
    "value",
    [
        "sk-proj-abcDEF0123456789abcDEF0123456789",
        "my key is sk-0123456789abcdef0123456789",
        "ghp_0123456789abcdefghij0123456789",
        "hf_abcdefghijklmnopqrstuvwxyz0123",
        "AKIAIOSFODNN7EXAMPLE",
        "https://ann:pass@service.example/v1",
        "https://service.example/v1?api-key=12345678",
    ],
)
def test_a_secret_is_refused_by_its_value(value):
    """Whatever the parameter is called; the message does not repeat it."""
    with pytest.raises(StudyError, match="looks like a secret") as error:
        pipeline.typed({"study": value}, KNOWN)
    assert value not in str(error.value)


def test_the_key_of_this_environment_is_refused(monkeypatch):
    """A key of any form, when it is the one that is set."""
    monkeypatch.setenv("OPENAI_API_KEY", "plain words of a proxy")
    with pytest.raises(StudyError, match="OPENAI_API_KEY in the environment"):
        pipeline.typed({"study": "x plain words of a proxy"}, KNOWN)


@pytest.mark.parametrize("value", ["sk-restaurants-in-slovakia", "tokens", "~/my-study", "a=b"])
def test_a_name_that_is_no_secret_passes(value):
    """Slovak restaurants are no key."""
    assert pipeline.typed({"study": value}, KNOWN) == {"study": value}


def test_a_notebook_gets_its_parameters_as_they_are(tmp_path):
    """Quotes, backslashes and line ends stay text; nothing of it runs, and no folder is noted."""
    value = '"\nprint("injected")\\'
    source = notebook(tmp_path / "one.ipynb", "print(repr(name), n)")
    target = tmp_path / "done" / "one.ipynb"
    pipeline.execute(source, target, {"name": value, "n": 7})
    assert printed(target) == f"{value!r} 7\n"
    done = nbformat.read(target, as_version=4)
    assert "input_path" not in done.metadata.papermill
    assert str(tmp_path) not in str(done.metadata)
    assert [path.name for path in target.parent.iterdir()] == ["one.ipynb"]


def test_a_failing_cell_stops_with_its_last_line(tmp_path):
    """The error says what the cell said and which notebook; the notebook on disk shows the cell."""
    source = notebook(tmp_path / "one.ipynb", "assert 1 + 1 == 3, 'sums'", "print('later')")
    target = tmp_path / "done.ipynb"
    with pytest.raises(VotebookError, match=r"^AssertionError: sums\n.*done\.ipynb$") as error:
        pipeline.execute(source, target, {})
    assert error.value.notebook == "one"
    cells = nbformat.read(target, as_version=4).cells
    assert [o.ename for cell in cells for o in cell.get("outputs", [])] == ["AssertionError"]


def test_our_own_errors_keep_their_kind(tmp_path):
    """So that the command can say by its exit code that another process works on the run."""
    raising = "from lib.errors import BusyError\nraise BusyError('process 7 is working')"
    source = notebook(tmp_path / "one.ipynb", raising)
    with pytest.raises(BusyError, match=r"^process 7 is working\n"):
        pipeline.execute(source, tmp_path / "done.ipynb", {})


def test_a_notebook_whose_process_dies_says_so(tmp_path):
    """A process that the system ends, for want of memory say, is no riddle."""
    source = notebook(tmp_path / "one.ipynb", "import os", "os.abort()")
    with pytest.raises(VotebookError, match="died, often because memory ran out"):
        pipeline.execute(source, tmp_path / "done.ipynb", {})
    assert (tmp_path / "done.ipynb").is_file()


def test_words_of_a_process_beside_its_cells_are_not_for_the_terminal(tmp_path, capfd):
    """What libraries say of sockets when a kernel ends, after the last cell, is kept out."""
    said = "import atexit, os, sys\natexit.register(os.write, 2, b'last words\\n')"
    source = notebook(tmp_path / "one.ipynb", said, "print('in the notebook', file=sys.stderr)")
    pipeline.execute(source, tmp_path / "done.ipynb", {})
    assert printed(tmp_path / "done.ipynb") == "in the notebook\n"
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="ends a process by a signal")
def test_killed_in_the_middle_nothing_is_half_written(tmp_path):
    """The notebook of the run before stays as it was, and nothing lies beside it."""
    begun = tmp_path / "begun"
    waiting = f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)"
    source = notebook(tmp_path / "one.ipynb", waiting)
    target = tmp_path / "done" / "one.ipynb"
    target.parent.mkdir()
    target.write_text("before")
    code = "import sys, pathlib; from lib import pipeline\n"
    code += "pipeline.execute(*map(pathlib.Path, sys.argv[1:]), {})"
    command = [sys.executable, "-c", code, str(source), str(target)]
    with subprocess.Popen(command, cwd=runs.ROOT) as process:
        deadline = time.monotonic() + 60
        while not begun.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert begun.exists()
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in target.parent.iterdir()] == ["one.ipynb"]
    assert target.read_text() == "before"


def test_a_whole_run_is_complete(whole_run):
    """5 items x 3 votes are asked and answered, and every file of a run is there."""
    assert (whole_run.progress.state, whole_run.progress.n_valid) == ("done", 15)
    assert whole_run.n_paid == 15
    folder = whole_run.run.folder
    names = {path.name for path in folder.iterdir()}
    assert {f"{stem}.ipynb" for stem in STEMS} <= names
    assert {f"{name}.parquet" for name in runs.MADE_IN} <= names
    assert {"study.lock.yml", "ledger.sqlite", "review.csv", "report.html"} <= names
    assert sorted(path.stem for path in (folder / "html").iterdir()) == STEMS
    assert all(stem in whole_run.said for stem in STEMS)
    assert "report.html" in whole_run.said


def test_a_second_run_asks_nothing_again(whole_run):
    """The command ends with 0, says where the report is, and the service has no new line."""
    assert whole_run.again.returncode == 0, whole_run.again.stderr
    assert whole_run.again.stdout.rstrip().endswith("report.html")
    assert whole_run.again.stderr == ""
    assert whole_run.n_paid_again == whole_run.n_paid


def test_executed_notebooks_say_simulated(whole_run):
    """Every table and picture of a notebook that runs after the first answers is marked."""
    for stem in STEMS:
        path = whole_run.run.path(f"{stem}.ipynb")
        cells = nbformat.read(path, as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        markup = [o.data["text/html"] for o in outputs if "text/html" in o.get("data", {})]
        tables = [shown for shown in markup if "<table" in shown]
        alts = [o.metadata["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})]
        assert tables
        assert all("simulated answers" in shown for shown in [*tables, *alts])


def test_executed_notebooks_warn_of_nothing(whole_run):
    """No warning and no error stands in the outputs, whatever the texts hold."""
    for stem in STEMS:
        cells = nbformat.read(whole_run.run.path(f"{stem}.ipynb"), as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


def test_the_key_stands_nowhere(whole_run):
    """The key of the environment is in no file of the run and in nothing that was said."""
    files = [path for path in whole_run.run.folder.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert not [path for path in files if whole.KEY.encode() in path.read_bytes()]
    assert whole.KEY not in whole_run.said + whole_run.again.stdout + whole_run.again.stderr
