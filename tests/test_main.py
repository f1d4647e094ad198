"""The command: what it runs, with which exit code, and how fast it is there."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sending

from lib import __main__ as command
from lib import dispatch, runs
from lib.errors import BusyError

HEAVY = ("pandas", "matplotlib", "openai", "pyarrow", "duckdb", "papermill", "nbconvert", "yaml")


def lib(*words, **environment):
    """The command in its own process."""
    return subprocess.run(
        [sys.executable, "-m", "lib", *words],
        cwd=runs.ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_help_is_there_at_once():
    """Every command is named, in far less than a second of work and without a heavy package."""
    code = "import sys; from lib import __main__ as m\ntry: m.main(['--help'])\nexcept SystemExit: "
    code += f"print('loaded', [name for name in {HEAVY} if name in sys.modules])"
    began = time.process_time()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs.ROOT, capture_output=True, text=True, check=True
    )
    assert time.process_time() - began < 1
    assert "loaded []" in done.stdout
    runs_of = ("run", "advance", "watch", "schedule", "check")
    for name in (*runs_of, "selftest", "bench", "test", "lab", "serve", "refresh"):
        assert f"\n    {name} " in done.stdout


@pytest.mark.parametrize("words", [(), ("rum",), ("run", "--nothing"), ("run", "-p", "study")])
def test_a_wrong_command_line_ends_with_2(words, capsys):
    """The usage says what is possible."""
    with pytest.raises(SystemExit) as error:
        command.main(words)
    assert error.value.code == command.STOPPED
    assert "usage: votebook.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "allergi"], "StudyError: "),
        (["run", "-p", "panl", "x"], 'Did you mean "panel"?'),
        (["run", "--max-usd", "five"], "must be of type float, 0 or more"),
        (["run", "--max-usd", "nan"], "must be of type float, 0 or more"),
        (["run", "--run", "../x"], "cannot be a run's name"),
        (["run", "-p", "api_key", "x"], "looks like a secret"),
        (["run", "--service", "https://a:b@c.example/v1"], "looks like a secret"),
        (["run", "allergy", "-p", "panel", "curent"], 'Did you mean "current"?'),
    ],
)
def test_bad_input_ends_with_2_and_a_sentence(words, said, capsys):
    """Before any notebook starts, on the error stream, without a traceback."""
    assert command.main(words) == command.STOPPED
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_parameters_can_be_listed(capsys):
    """Name, type, default and help of each, as the notebooks declare them."""
    assert command.main(["run", "--inspect"]) == command.DONE
    lines = capsys.readouterr().out.splitlines()
    assert 'study: str = "allergy"  a folder under data/, or a path to a study' in lines
    assert any(line.startswith("max_usd: float = 0.0 ") for line in lines)


def test_a_run_ends_with_0_and_names_its_report(whole_run):
    """The second run of the tiny study was made by the command."""
    assert whole_run.again.returncode == command.DONE
    assert whole_run.again.stdout.splitlines()[-1].startswith("Report: ")


@pytest.mark.parametrize(("state", "code"), [("done", 0), ("waiting", 3), ("stopped", 2)])
def test_the_exit_code_says_where_the_run_stands(state, code, capsys):
    """Done, waiting for batches, or stopped; unless done, the last line says how far it is."""
    progress = dispatch.Progress(state, 5, 3, 1, 1, 0, 0.0, 0.0, ("because",))
    assert command._ended(progress) == code
    assert ("3 of 5 answered" in capsys.readouterr().out) == (state != "done")


def test_a_busy_run_ends_with_75(make_run, endpoint, capsys):
    """Another process holds the run: the error of its lock becomes the code for trying again."""
    run, to = make_run(), sending.service_at(endpoint)
    with dispatch.holding(run), pytest.raises(BusyError) as error:
        dispatch.advance(run, to, 0.0)
    assert command._failed(error.value) == command.BUSY
    assert "BusyError: " in capsys.readouterr().err


def test_tests_write_no_outputs_of_people(tmp_path):
    """`test` runs pytest with outputs in a folder of its own, on what its words name."""
    probe = tmp_path / "test_probe.py"
    probe.write_text(
        "import os\ndef test_probe():\n    print('at', os.environ['VOTEBOOK_OUTPUTS'], 'here')\n"
    )
    done = lib("test", str(probe), "-s", "-q", "-p", "no:cacheprovider", VOTEBOOK_OUTPUTS="mine")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(done.stdout.split("at ")[1].split(" here")[0])
    assert folder.name.startswith("vb-")
    assert not folder.exists()
    assert "1 passed" in done.stdout


def test_without_jupyterlab_lab_says_how_to_get_it(capsys, monkeypatch):
    """No traceback of a missing module."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command.main(["lab"]) == command.STOPPED
    assert "python3 votebook.py lab" in capsys.readouterr().err


def test_serve_lists_its_own_options():
    """Further words go to the local service."""
    done = lib("serve", "--help")
    assert done.returncode == 0
    assert "--state" in done.stdout
