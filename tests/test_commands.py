"""The commands about a run: what they say, with which exit code, and what they leave."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest
import sending

from lib import __main__ as command
from lib import commands, dispatch, ledger, local_api, runs
from lib.errors import StudyError, VotebookError


@pytest.fixture
def service(make_run):
    """The local service that the runs of this test find, quick."""
    stages = ("--validating=0", "--in-progress=0", "--finalizing=0")
    found = local_api.start(runs.outputs() / ".local_api", idle_exit_seconds=120, options=stages)
    yield found
    os.kill(found["pid"], signal.SIGTERM)


def begun(run, service="local", **facts):
    """A run that has its service and an id."""
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        for name, value in {"service": service, "run_id": "0123456789abcdef", **facts}.items():
            ledger.bind(book, name, value)
    return run


def test_advance_takes_one_step_and_tells_the_truth(make_run, service, capsys):
    """3 while something is under way, 0 when all is in; the last line says how far it is."""
    begun(make_run())
    codes = []
    while not codes or (codes[-1] == commands.WAITING and len(codes) < 50):
        codes.append(command.main(["advance", "guests"]))
        time.sleep(0.1)
    assert codes[0] == commands.WAITING
    assert codes[-1] == commands.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Run guests at local: answers are simulated, nothing is paid."
    assert lines[-1] == "done: 6 of 6 answered, 0 in flight, 0 to send, 0 for review"


def test_a_budget_that_was_given_once_is_kept(make_run, service, capsys):
    """It is said whence it comes; one that is used up stops the run."""
    begun(make_run())
    assert command.main(["advance", "guests", "--max-usd", "1e-9"]) == commands.STOPPED
    assert "up to $0.00 (given now)." in capsys.readouterr().out
    assert command.main(["advance", "guests"]) == commands.STOPPED
    said = capsys.readouterr().out
    assert "up to $0.00 (as approved before)." in said
    assert said.splitlines()[1].startswith("stopped: 0 of 6 answered")


def test_a_run_that_is_not_there_is_named_with_those_that_are(make_run, capsys):
    """By any command; nothing is made."""
    make_run(name="pilot")
    for words in (["advance"], ["watch"], ["check"], ["schedule", "install"]):
        assert command.main([*words, "pilt"]) == commands.STOPPED
        assert 'Did you mean "pilot"? Runs there: pilot.' in capsys.readouterr().err
    assert [path.name for path in runs.outputs().iterdir()] == ["pilot"]


def test_a_run_that_has_not_begun_is_told_its_service_once(make_run, service, capsys):
    """Nobody guesses whether answers are to be paid or simulated."""
    make_run()
    assert command.main(["advance", "guests"]) == commands.STOPPED
    assert "Say it once: --service local, openai, or a URL." in capsys.readouterr().err
    assert command.main(["advance", "guests", "--service", "local"]) == commands.WAITING
    assert command.main(["advance", "guests"]) in (commands.WAITING, commands.DONE)


def test_a_busy_run_says_who_holds_it(make_run, service, capsys):
    """75, at once."""
    run = begun(make_run())
    with dispatch.holding(run):
        assert command.main(["watch", "guests"]) == commands.BUSY
    assert "is working on run guests" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["-1", "five", "nan", "inf"])
def test_a_budget_is_a_number(value, capsys):
    """Wrong command lines end with 2."""
    with pytest.raises(SystemExit) as error:
        command.main(["advance", "guests", "--max-usd", value])
    assert error.value.code == commands.STOPPED
    assert "--max-usd" in capsys.readouterr().err


def test_watch_follows_a_run_to_its_end(make_run, service, capsys):
    """Plain lines, only when there is news: progress, queue, money, outlook."""
    begun(make_run())
    assert command.main(["watch", "guests"]) == commands.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Run guests at local: answers are simulated, nothing is paid."
    assert lines[1].startswith("waiting: 0 of 6 answered, 6 in flight")
    assert lines[2].startswith("$0.0000 spent, $")
    assert lines[3].startswith("gpt-6-luna: 1 batch in flight (6 requests, ")
    assert "no batch has ended yet: 1 batch in flight, the service promises 24 h" in lines[4]
    assert any(line.startswith("done: 6 of 6 answered") for line in lines)
    assert len(lines) < 30


def test_watch_ends_when_its_hours_are_over(make_run, service, capsys):
    """Something is under way still: 3."""
    begun(make_run())
    assert command.main(["watch", "guests", "--hours", "0"]) == commands.WAITING
    assert "waiting: 0 of 6 answered" in capsys.readouterr().out


def test_ctrl_c_loses_nothing(make_run):
    """130, one sentence, no traceback; the run can be taken up at once."""
    run = begun(make_run())
    slow = ("--validating=0", "--in-progress=3600")
    found = local_api.start(runs.outputs() / ".local_api", idle_exit_seconds=60, options=slow)
    words = [sys.executable, "-m", "lib", "watch", "guests"]
    watch = subprocess.Popen(
        words, cwd=runs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while not watch.stdout.readline().startswith("waiting: 0 of 6"):
            assert watch.poll() is None
        time.sleep(0.5)
        watch.send_signal(signal.SIGINT)
        _, said = watch.communicate(timeout=60)
    finally:
        watch.kill()
        os.kill(found["pid"], signal.SIGTERM)
    assert watch.returncode == commands.INTERRUPTED
    assert said.strip() == (
        "Stopped. Nothing is lost, and batches at the service go on: run the same command again."
    )
    with dispatch.holding(run):
        assert dispatch.status(run).n_in_flight == 6


class Screen(io.StringIO):
    """A terminal, as far as anybody asks."""

    def isatty(self):
        """Yes."""
        return True


def test_a_terminal_is_painted_over(monkeypatch):
    """The next lines take the place of the last ones, none wider than the screen."""
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "21")
    paint = commands.painter()
    paint(["a" * 50], ["b"])
    paint(["c"], [])
    assert screen.getvalue() == f"{'a' * 20}\nb\n\x1b[2F\x1b[Jc\n"


def test_elsewhere_only_news_is_written(capsys):
    """That less time is left is none."""
    paint = commands.painter()
    for news, moving in (("one", "5 h"), ("one", "4 h"), ("two", "4 h")):
        paint([news], [moving])
    assert capsys.readouterr().out == "one\n5 h\ntwo\n4 h\n"


def test_a_terminal_takes_no_commands_from_texts():
    """Codes and links of terminals, bells, and overwriting are taken out; new lines stay."""
    hostile = "a\x1b[31mb\x1b]8;;http://x\x07c\rd\x9b1me\x00\x7f\nf"
    assert commands.plain(hostile) == "a[31mb]8;;http://xcd1me\nf"


def test_a_paid_run_without_a_budget_is_not_scheduled(make_run, capsys):
    """Its steps would send nothing; with --max-usd it has one, which stays."""
    run = begun(make_run(), "openai")
    assert command.main(["schedule", "install", "guests"]) == commands.STOPPED
    assert "Give one: --max-usd N." in capsys.readouterr().err
    with pytest.raises(StudyError, match="without this shell's environment"):
        commands.schedule(parsed("schedule", "install", "guests", "--max-usd", "5"))
    assert dispatch.approved_usd(run) == 5


def parsed(*words):
    """A command line as it is read."""
    return command._parser().parse_args(words)


def test_a_scheduled_step_without_its_key_goes_on_later(make_run, monkeypatch):
    """Nothing is sent and nobody asked: the log says why, and the entry is left alone."""
    run = begun(make_run(), "openai", max_usd="5.0")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert commands.advance(parsed("advance", "--scheduled=0123456789abcdef", "guests")) == 2
    assert "ServiceError: no key for openai" in run.path("schedule.log").read_text()


def test_check_says_what_is_not_as_it_should_be(make_run, service, capsys):
    """0 while nothing is lost, 2 when something is."""
    run = begun(make_run())
    assert command.main(["watch", "guests"]) == commands.DONE
    capsys.readouterr()
    assert command.main(["check", "guests", "--offline"]) == commands.DONE
    assert " good" in capsys.readouterr().out
    for path in [*run.path("answers").iterdir(), *run.path("outcomes").iterdir()]:
        path.unlink()
    assert command.main(["check", "guests", "--offline"]) == commands.STOPPED
    assert "lost: " in capsys.readouterr().out


def test_measurements_are_listed_and_run_by_name(capsys):
    """Those of `benchmarks/` that have a `main`, with their first sentence."""
    assert command.main(["bench"]) == commands.DONE
    listed = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert "local_api_50000" in listed
    assert "service" not in listed, "a helper has no main"
    with pytest.raises(VotebookError, match='Did you mean "local_api_kills"'):
        commands.bench(parsed("bench", "local_api_kill"))


def test_selftest_shows_the_price_before_anything_is_sent(make_run, service, capsys):
    """Two requests at the local service, whose money is simulated."""
    code = command.main(["selftest", "--service", "local", "--model", "gpt-6-luna"])
    said = capsys.readouterr().out
    assert code == commands.DONE, said
    assert "cost at most $" in said.splitlines()[0]


def test_exit_codes_stay_what_they_are():
    """Schedulers and scripts go by them."""
    assert commands.CODES == {"done": 0, "waiting": 3, "stopped": 2}
    assert (commands.BUSY, commands.INTERRUPTED) == (75, 130)


def test_a_run_is_made_known_to_nobody_by_a_failed_find(make_run):
    """`find` opens what notebook 01 froze, and makes no folder."""
    run = make_run(name="pilot")
    assert runs.find("pilot") == run
    with pytest.raises(StudyError, match="there is no run 'other'"):
        runs.find("other")
    with pytest.raises(StudyError, match="cannot be a run's name"):
        runs.find("../pilot")
    assert not runs.folder("other").exists()
    sending.close_clients()
