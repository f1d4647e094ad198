"""The schedule: one entry, nothing else touched, silent whatever happens, gone when it has to go.

The very line that was installed is run, as its system would run it, without an environment.
"""

import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import scheduling
import sending
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import dispatch, ledger, local_api, runs, schedule
from lib.errors import StudyError, VotebookError
from lib.schedule import cron, entry, systemd

OTHERS = b"# mine, with 50% and \xe9\n0 4 * * * /bin/true \\% a\\nb\r\n\nMAILTO=me\n\n\n"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A machine with cron alone, a home of its own, and outputs in a folder of an awkward name."""
    programs, store, home = tmp_path / "bin", tmp_path / "store", tmp_path / "home"
    for folder in (programs, home):
        folder.mkdir()
    scheduling.stand_in("crontab", programs, store)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    # A systemctl of the machine itself, if there is one, must not answer.
    (programs / "systemctl").symlink_to("/bin/false")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("VOTEBOOK_OUTPUTS", str(tmp_path / 'out 50% o\'clock "x" $HOME'))
    yield tmp_path
    sending.close_clients()


@pytest.fixture
def run(host):
    """A run that has begun with the local service, without having sent anything."""
    made = sending.make_run(host / "guests", name="pilot")
    begin(made)
    return made


@pytest.fixture
def service(host):
    """The local service that runs of this machine find, quick."""
    stages = ("--validating=0", "--in-progress=0", "--finalizing=0")
    found = local_api.start(runs.outputs() / ".local_api", idle_exit_seconds=120, options=stages)
    yield found
    os.kill(found["pid"], signal.SIGTERM)


def begin(run, service="local", run_id="0123456789abcdef"):
    """Bind what the first step binds."""
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        ledger.bind(book, "service", service)
        ledger.bind(book, "run_id", run_id)


def put(run, system=cron):
    """The entry of a run, without the start by which `install` tries what a step will find."""
    system.add(schedule._entry(run, 10))


def tab(host):
    """The crontab as it is."""
    path = host / "store" / "tab"
    return path.read_bytes() if path.is_file() else b""


def entries_of(host):
    """The lines of ours in the crontab."""
    return [line.decode() for line in tab(host).split(b"\n") if b"votebook-" in line]


def write_tab(host, content):
    """Put a crontab there."""
    (host / "store" / "tab").write_bytes(content)


def run_entry(host):
    """Run the one entry of the crontab as cron does; it must say nothing."""
    (line,) = entries_of(host)
    done = scheduling.shell(scheduling.of_cron(line), scheduling.bare(host / "home"))
    assert (done.stdout, done.stderr) == (b"", b"")
    return done.returncode


def lib(*words, **environment):
    """The command, in its own process."""
    return subprocess.run(
        [sys.executable, "-m", "lib", *words],
        cwd=runs.ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def logged(run):
    """What the steps have written."""
    path = run.path(schedule.LOG)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


# --- the entry ---------------------------------------------------------------------------------


def test_an_entry_comes_and_goes_and_nothing_else_changes(host, run):
    """One line behind all others, which stay byte for byte, whatever they are."""
    write_tab(host, OTHERS)
    made, is_new = schedule.install(run, 10)
    assert (str(made), is_new) == ("every 10 min by cron", True)
    assert tab(host).startswith(OTHERS)
    assert len(entries_of(host)) == 1
    assert schedule.held("pilot") == [made]
    assert schedule.remove("pilot") == [made]
    assert tab(host) == OTHERS
    assert schedule.held("pilot") == schedule.remove("pilot") == []


def test_a_first_crontab_is_made(host, run):
    """A user without one gets one, and no last line end is needed."""
    schedule.install(run)
    assert len(entries_of(host)) == 1
    schedule.remove("pilot")
    write_tab(host, b"0 1 * * * /bin/true")
    schedule.install(run)
    assert tab(host).startswith(b"0 1 * * * /bin/true\n")
    assert len(entries_of(host)) == 1


def test_a_second_install_says_what_is_there(host, run):
    """The same one is found, another one is refused; there is one entry throughout."""
    schedule.install(run, 10)
    before = tab(host)
    made, is_new = schedule.install(run, 10)
    assert (made.every_minutes, is_new) == (10, False)
    with pytest.raises(
        StudyError, match=r"scheduled already: every 10 min by cron\..*remove pilot"
    ):
        schedule.install(run, 30)
    assert tab(host) == before


def test_an_entry_of_an_earlier_run_of_that_name_is_replaced(host, run):
    """It would remove itself at its first step and leave the new run without one."""
    put(run)
    shutil.rmtree(run.folder)
    again = sending.make_run(host / "guests", name="pilot")
    begin(again, run_id="fedcba9876543210")
    assert schedule.install(again)[1]
    (line,) = entries_of(host)
    assert "--scheduled=fedcba9876543210" in line


def test_two_runs_have_an_entry_each(host, run):
    """Runs of one name in two folders, too: the mark is that of the folder."""
    other = sending.make_run(host / "guests", name="other")
    begin(other)
    put(run)
    put(other)
    assert len(entries_of(host)) == 2
    schedule.remove("pilot")
    (line,) = entries_of(host)
    assert line.endswith(f"run other, every 10 min, {entry.mark(other.folder.resolve())}")
    assert entry.mark(Path("/a/pilot")) != entry.mark(Path("/b/pilot"))


def test_what_cannot_be_scheduled_is_refused(host):
    """A run that has not begun, and steps that no clock has; nothing is written."""
    run = sending.make_run(host / "guests", name="pilot")
    with pytest.raises(StudyError, match="has not begun"):
        schedule.install(run)
    begin(run)
    with pytest.raises(StudyError, match="--every 7 is no even step"):
        schedule.install(run, 7)
    with pytest.raises(VotebookError, match="systemd does not work here"):
        schedule.install(run, by="systemd")
    assert tab(host) == b""


def test_without_any_system_there_is_still_watch(run, monkeypatch, tmp_path):
    """The message names what to do."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(VotebookError, match="Leave `watch` running, or install cron"):
        schedule.install(run)
    assert schedule.status("pilot") == ["run pilot has no schedule"]
    assert schedule.remove("pilot") == []


def test_a_crontab_that_cannot_be_read_is_not_written(host, run):
    """A listing that fails is no empty crontab."""
    write_tab(host, OTHERS)
    put(run)
    before = tab(host)
    (host / "store" / "tab").chmod(0)
    program = host / "bin" / "crontab"
    program.write_text(program.read_text().replace('cat "$F"', "echo disk >&2; exit 1"))
    assert not cron.works()
    with pytest.raises(VotebookError, match="crontab ended with 1: disk"):
        cron.add(entry.Entry("pilot", run.folder, "id", 10))
    shutil.rmtree(run.folder)
    (host / "store" / "tab").chmod(0o600)
    line = before.split(b"\n")[-2].decode()
    scheduling.shell(scheduling.of_cron(line), scheduling.bare(host / "home"))
    assert tab(host) == before


# --- what a bare environment has ---------------------------------------------------------------


def test_a_key_of_this_shell_alone_is_not_enough(host, monkeypatch):
    """Cron does not know it, so the entry would never work: said before there is one."""
    run = sending.make_run(host / "guests", name="paid")
    begin(run, "openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef0123456789")
    with pytest.raises(StudyError, match="without this shell's environment") as error:
        schedule.install(run)
    assert "no key for openai" in str(error.value)
    assert "watch" in str(error.value)
    assert "canary" not in str(error.value)
    assert tab(host) == b""


def test_a_key_in_the_keyring_is_enough(host):
    """What the system's keyring holds is there for cron too."""
    run = sending.make_run(host / "guests", name="paid")
    begin(run, "openai")
    keyring_of(host / "home", {"openai": "sk-from-the-keyring"})
    assert schedule.install(run)[1]
    assert b"sk-from" not in tab(host)


def keyring_of(home, held):
    """A keyring, set up for a user as its documentation says, that holds these passwords."""
    settings_folder = home / ".config" / "python_keyring"
    settings_folder.mkdir(parents=True)
    (home / "ring.py").write_text(
        "import keyring.backend\n"
        "class Ring(keyring.backend.KeyringBackend):\n"
        "    priority = 1\n"
        "    def get_password(self, service, user):\n"
        f"        return {held!r}.get(user) if service == 'votebook' else None\n"
        "    set_password = delete_password = None\n"
    )
    rows = ["[backend]", "default-keyring=ring.Ring", f"keyring-path={home}"]
    (settings_folder / "keyringrc.cfg").write_text("\n".join(rows))


def test_addresses_and_proxies_go_along_and_secrets_do_not(monkeypatch):
    """What a step needs and cron lacks; an address with a password in it is left out."""
    monkeypatch.setenv("OPENAI_BASE_URL", "https://example.org/v1")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:8080")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    found = entry.carried()
    assert found["OPENAI_BASE_URL"] == "https://example.org/v1"
    assert "secret" not in str(found)


def test_what_to_know_is_said_once(host, monkeypatch):
    """A timer pauses without its user, and an address that holds secrets does not go along."""
    monkeypatch.setenv("VOTEBOOK_NOTIFY", "json://me:secret@example.org")
    assert [hint.split("`")[1] for hint in schedule.hints("systemd")[1:]] == [
        "loginctl enable-linger",
        "keyring set votebook notify",
    ]
    assert "secret@" not in str(schedule.hints("cron"))


# --- what the line does ------------------------------------------------------------------------


def test_the_line_goes_on_until_the_run_is_done_and_removes_itself(host, run, service):
    """Steps in a bare environment, with their progress in the log; then the entry is gone."""
    write_tab(host, OTHERS)
    schedule.install(run)
    codes = []
    while entries_of(host) and len(codes) < 20:
        codes.append(run_entry(host))
    assert set(codes[:-1]) <= {3}
    assert codes[-1] == 0
    assert tab(host) == OTHERS
    assert dispatch.status(run).state == "done"
    assert len(logged(run).splitlines()) == len(codes)
    assert logged(run).splitlines()[-1][20:] == (
        " done: 6 of 6 answered, 0 in flight, 0 to send, 0 for review"
    )
    assert run.path(schedule.STARTS).read_bytes() == b""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        told = list(ledger.events(book).query("kind == 'schedule'")["detail"])
    assert [one["why"] for one in told] == ["installed", "done"]


def test_a_stopped_run_ends_its_schedule(host, run, service):
    """A budget that is used up is for a person to settle."""
    dispatch.approve(run, 1e-9)
    put(run)
    assert run_entry(host) == 2
    assert entries_of(host) == []
    assert "stopped: 0 of 6 answered" in logged(run)
    assert "passes max_usd" in logged(run)


def test_a_busy_run_is_left_alone_in_silence(host, run):
    """Somebody watches it: no step, no log, and the entry stays."""
    put(run)
    with dispatch.holding(run):
        assert run_entry(host) == 75
    assert logged(run) == ""
    assert len(entries_of(host)) == 1


def test_a_deleted_run_takes_its_entry_along(host, run):
    """The line itself does it, and leaves all other lines as they are."""
    write_tab(host, OTHERS)
    put(run)
    shutil.rmtree(run.folder)
    assert run_entry(host) == 0
    assert tab(host) == OTHERS


def test_all_deleted_takes_the_entry_along_too(host, run):
    """The outputs and all."""
    put(run)
    shutil.rmtree(runs.outputs())
    run_entry(host)
    assert tab(host).strip() == b""


def test_a_disk_that_is_away_is_no_deleted_run(host, run):
    """Without the folder below the mount point nobody knows: the entry waits."""
    away = entry.Entry("pilot", Path("/proc/no disk/outputs/pilot"), "id", 10)
    line = entry.line(away, "touch " + shlex.quote(str(host / "removed")))
    done = scheduling.shell(line, scheduling.bare(host / "home"))
    assert (done.stdout, done.stderr) == (b"", b"")
    assert not (host / "removed").exists()
    gone = entry.line(entry.Entry("x", host / "x", "id", 10), f"touch '{host}/removed'")
    scheduling.shell(gone, scheduling.bare(host / "home"))
    assert (host / "removed").exists()


@pytest.mark.parametrize(
    ("folder", "beside"),
    [
        ("/nowhere at all/outputs/pilot", "/"),
        ("/proc/disk/outputs/pilot", "/proc/disk"),
        ("/proc/outputs/pilot", "/proc/outputs"),
        ("/proc/pilot", None),
    ],
)
def test_the_witness_is_below_the_mount_point(folder, beside):
    """/proc is a mount point on every Linux; what lies right below one has no witness."""
    if not Path("/proc").is_mount():
        pytest.skip("no /proc here")
    assert entry.witness(Path(folder)) == (Path(beside) if beside else None)


def test_a_python_that_is_gone_is_silent(host, run):
    """The environment is being made anew, say: what was wrong stands beside the log, once."""
    put(run)
    write_tab(host, tab(host).replace(os.fsencode(sys.executable), b"/nowhere/python"))
    for _ in range(2):
        assert run_entry(host) == 127
    starts = run.path(schedule.STARTS).read_text().splitlines()
    assert len(starts) == 1
    assert "/nowhere/python" in starts[0]
    assert len(entries_of(host)) == 1
    assert "last start said: " in schedule.status("pilot")[-1]


def test_a_run_of_another_id_is_not_touched(host, run):
    """A new run under an old name: the old entry ends and takes no step."""
    put(run)
    shutil.rmtree(run.folder)
    begin(sending.make_run(host / "guests", name="pilot"), run_id="another")
    assert run_entry(host) == 0
    assert entries_of(host) == []
    assert "made for another ledger" in logged(run)


def test_a_run_without_a_ledger_has_no_schedule(host, run):
    """It cannot go on; that is said in its log."""
    put(run)
    run.path("ledger.sqlite").unlink()
    assert run_entry(host) == 0
    assert entries_of(host) == []
    assert "made for another ledger" in logged(run)


def test_the_log_stays_small(run):
    """The last lines are kept, whole."""
    for n in range(30):
        schedule.log(run.folder, f"{n} " + "x" * 10_000)
    lines = logged(run).splitlines()
    assert run.path(schedule.LOG).stat().st_size <= schedule.LOG_BYTES
    assert lines[-1].split()[2] == "29"
    assert all(line.endswith("x" * 10_000) for line in lines)


@settings(max_examples=60)
@given(
    st.text(st.sampled_from("\\\\\\%'\" $a"), min_size=1)
    | st.text(st.characters(codec="utf-8"), min_size=1).filter(str.isprintable)
)
def test_any_word_comes_through_cron_and_shell(word):
    """Spaces, quotes, $, % and backslashes, also where a cron leaves every backslash."""
    line = f"* * * * * printf \\%s {entry.quoted(word)}"
    for command in (scheduling.of_cron(line), line.split(None, 5)[5]):
        done = scheduling.shell(command, {"PATH": "/usr/bin:/bin"})
        assert done.stdout == word.encode()


def test_a_line_break_in_a_path_is_refused():
    """No crontab can hold it."""
    with pytest.raises(StudyError, match="Choose another folder"):
        entry.quoted("a\nb")


def test_too_long_a_line_is_refused(host, run):
    """Debian's cron takes 998 bytes."""
    long = entry.Entry("pilot", Path("/" + "/".join(["x" * 200] * 3)), "id", 10)
    with pytest.raises(StudyError, match="cron takes 998"):
        cron.add(long)
    assert tab(host) == b""


@pytest.mark.parametrize("every", schedule.EVERY_MINUTES)
def test_the_times_are_that_often(every):
    """The five fields, counted over a day: 1,440 / every times, at even distances."""
    fields = cron._when(every, "votebook-0123456789ab").split()
    assert fields[2:] == ["*", "*", "*"]
    times = [h * 60 + m for h in expand(fields[1], 24) for m in expand(fields[0], 60)]
    assert len(times) == 1440 // every
    assert {b - a for a, b in itertools.pairwise(times)} <= {every}


def expand(field, n):
    """The values of a field of a crontab."""
    span, _, step = field.partition("/")
    first, _, last = span.partition("-")
    if first == "*":
        return range(0, n, int(step or 1))
    return range(int(first), int(last or first) + 1, int(step or 1))


# --- crashes -----------------------------------------------------------------------------------


def test_a_crash_after_the_entry_is_written_doubles_nothing(host, run):
    """The entry is there and not recorded: status sets that right, a second install finds it."""
    killed = lib("schedule", "install", "pilot", VOTEBOOK_CRASH="entry written:1")
    assert killed.returncode == -signal.SIGKILL
    assert len(entries_of(host)) == 1
    said = lib("schedule", "status", "pilot").stdout
    assert said.splitlines()[0] == "run pilot: every 10 min by cron"
    assert "has been set right" in said
    again = lib("schedule", "install", "pilot")
    assert (again.returncode, again.stdout.split(":")[0]) == (0, "is there already")
    assert len(entries_of(host)) == 1


def test_a_crash_after_the_entry_is_removed_leaves_none(host, run):
    """The record is behind the system, and follows it."""
    put(run)
    schedule.status("pilot")
    killed = lib("schedule", "remove", "pilot", VOTEBOOK_CRASH="entry removed:1")
    assert killed.returncode == -signal.SIGKILL
    assert entries_of(host) == []
    assert schedule.status("pilot")[:2] == [
        "run pilot has no schedule",
        "The record in the ledger said something else and has been set right.",
    ]
    assert len(schedule.status("pilot")) == 1


# --- systemd and launchd -----------------------------------------------------------------------


def use(host, name):
    """Give the machine another system."""
    (host / "bin" / name).unlink(missing_ok=True)
    scheduling.stand_in(name, host / "bin", host / name)


def test_systemd_has_a_timer_and_a_service(host, run):
    """Taken before cron where the user's manager answers; the line is the same."""
    use(host, "systemctl")
    made, _ = schedule.install(run, 15)
    assert made == schedule.Held("systemd", 15)
    assert schedule.held("pilot") == [made]
    units = sorted((host / "home/.config/systemd/user").iterdir())
    assert [unit.suffix for unit in units] == [".service", ".timer"]
    assert "OnUnitActiveSec=15min" in units[1].read_text()
    assert "SuccessExitStatus=3 75" in units[0].read_text()
    line = scheduling.of_systemd(units[0].read_text())
    with dispatch.holding(run):
        done = scheduling.shell(line, scheduling.bare(host / "home"))
    assert (done.returncode, done.stdout, done.stderr) == (75, b"", b"")
    assert not schedule.install(run, 15)[1]
    assert schedule.remove("pilot") == [made]
    assert list((host / "home/.config/systemd/user").iterdir()) == schedule.held("pilot") == []
    assert f"--user disable --now {entry.mark(run.folder.resolve())}.timer" in asked(
        host / "systemctl"
    )


def test_a_deleted_run_takes_its_timer_along(host, run):
    """The units are deleted and the timer is stopped by the line itself."""
    use(host, "systemctl")
    put(run, systemd)
    unit = next((host / "home/.config/systemd/user").glob("*.service"))
    line = scheduling.of_systemd(unit.read_text())
    shutil.rmtree(run.folder)
    done = scheduling.shell(line, scheduling.bare(host / "home"))
    assert (done.stdout, done.stderr) == (b"", b"")
    assert list(unit.parent.iterdir()) == []
    assert not list((host / "systemctl").glob("*.timer"))


def test_units_without_their_timer_are_no_entry(host, run):
    """A crash between the files and the start: install goes through with it."""
    use(host, "systemctl")
    put(run, systemd)
    (host / "systemctl" / f"{entry.mark(run.folder.resolve())}.timer").unlink()
    assert schedule.held("pilot") == []
    assert schedule.install(run)[1]
    assert len(schedule.held("pilot")) == 1


def test_an_entry_elsewhere_is_not_doubled(host, run):
    """Installed with cron, and systemd works now: the one in cron is found."""
    put(run)
    use(host, "systemctl")
    assert not schedule.install(run)[1]
    with pytest.raises(StudyError, match="every 10 min by cron"):
        schedule.install(run, by="systemd")


def test_launchd_has_an_agent(host, run):
    """Taken before all others; the line is the same."""
    use(host, "systemctl")
    use(host, "launchctl")
    made, _ = schedule.install(run, 20)
    assert made == schedule.Held("launchd", 20)
    (agent,) = (host / "home/Library/LaunchAgents").iterdir()
    line = scheduling.of_launchd(agent.read_bytes())
    assert b"<integer>1200</integer>" in agent.read_bytes()
    with dispatch.holding(run):
        done = scheduling.shell(line, scheduling.bare(host / "home"))
    assert (done.returncode, done.stdout, done.stderr) == (75, b"", b"")
    assert schedule.held("pilot") == [made]
    shutil.rmtree(run.folder)
    scheduling.shell(line, scheduling.bare(host / "home"))
    assert not agent.exists()
    assert asked(host / "launchctl")[-1].startswith("bootout gui/")
    assert schedule.held("pilot") == []


def asked(store):
    """What a stand-in was asked."""
    return (store / "asked").read_text().splitlines()
