"""Faults of the host, H01 to H16: what the machine does to a run, and how the run must end.

Each is caused for real: by full devices, rights, limits of the system, signals, clocks, copies of
folders. Not to be had without a machine of its own are a power cut, a failing sync of the ledger
(of other files it is caused), a kill by the system for want of memory (the signal is the same) and
a mounted network folder (it is known by its name and by the mount table).
"""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hurried
import judge
import killing
import pytest
import sending
import test_at_once

from lib import check, clock, collect, corpus, dispatch, ledger, runs, versions, votes
from lib.errors import VotebookError

AGAIN = "run the same command again"
DONE = ("done", 6, 0, 6, 0)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service of its own in fast time."""
    found = hurried.start(tmp_path_factory.mktemp("service"))
    yield found
    os.kill(found["pid"], signal.SIGTERM)


def ended(service, run, before):
    """The same command, when the cause is gone; gives how it ended: state and counts."""
    with hurried.time_flies():
        to = hurried.service_at(service)
        progress = dispatch.follow(run, to, hurried.MAX_USD, hours=48)
    found = (progress.state, progress.n_valid, progress.n_left)
    return (*found, *hurried.check(service, run, before, progress))


# Every kind of file that a run writes, by what its name looks like and what writes it.
FILES = {
    "study.lock.yml": "start",
    "skipped.parquet": "load",
    "documents.parquet": "load",
    "requests.parquet": "estimate",
    "{run_id}-gpt-6-luna-00000.jsonl": "send",
    "{batch_id}_output.jsonl.gz": "collect",
    "{batch_id}.parquet": "collect",
    "{run_id}-gpt-6-luna-00000.jsonl.gz": "collect",
    "votes.parquet": "count",
    "mentions.parquet": "count",
}


def stages(run, service):
    """What a run goes through, by name: the same command each time that one is called."""
    study = Path(run.study.folder)
    for n, text in enumerate(sending.TEXTS):
        (study / f"{n}.txt").write_text(text, encoding="utf-8")

    def send():
        with hurried.switched(service, {"stuck_finalizing": {}}), hurried.time_flies():
            dispatch.advance(run, hurried.service_at(service), hurried.MAX_USD)

    def take_in():
        with hurried.time_flies():
            dispatch.follow(run, hurried.service_at(service), hurried.MAX_USD, hours=48)

    def count():
        outcomes = run.path("outcomes") / "*.parquet"
        votes.collect(run.path("requests.parquet"), outcomes, run.study, run.folder)

    return {
        "start": lambda: runs.start(str(study)),
        "load": lambda: corpus.load(run.study, run.folder),
        "estimate": lambda: sending.write_requests(run),
        "send": send,
        "collect": take_in,
        "count": count,
    }


def place_of(run, name):
    """Where the run will write a file, once the ids in its name are known."""
    known = {"run_id": "", "batch_id": ""}
    if run.path("ledger.sqlite").is_file():
        with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
            known["run_id"] = (ledger.fact(book, "run_id") or "")[:8]
            known["batch_id"] = next((s["batch_id"] for s in ledger.shards(book)), "")
    within = {"_output.jsonl.gz": "answers", "}.parquet": "outcomes", ".jsonl": "shards"}
    within["00000.jsonl.gz"] = "shards"
    folder = next((place for ending, place in within.items() if name.endswith(ending)), "")
    return run.path(folder) / name.format(**known)


@contextlib.contextmanager
def written_to(device, path):
    """Whatever is written for `path` within the block goes to a device of the system instead."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.symlink_to(device)
    try:
        yield
    finally:
        part.unlink(missing_ok=True)


DEVICES = {"H01": "/dev/full", "H04": "/dev/null"}
SYNCED = ["study.lock.yml", "{run_id}-gpt-6-luna-00000.jsonl", "{batch_id}.parquet"]
WRITES = [*(("H01", name) for name in FILES), *(("H04", name) for name in SYNCED)]
SAYS = {"H01": "No space left on device", "H04": "Invalid argument"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize(("number", "name"), WRITES)
def test_h01_h04_a_write_that_fails_is_said_and_made_good(number, name, service, make_run):
    """A full disk (/dev/full) or one that cannot sync (/dev/null) at each kind of file: one
    sentence, nothing half, and the same command goes on.
    """
    run, before = make_run(), judge.look(service)
    steps = stages(run, service)
    if name == "study.lock.yml":
        run.path(name).unlink()
    order = list(steps)
    for stage in order[: order.index(FILES[name])]:
        steps[stage]()
    if name.endswith("00000.jsonl"):
        dispatch.advance(run, hurried.service_at(service), 0.0)
    path = place_of(run, name)
    was_there = path.is_file() and path.read_bytes()
    with written_to(DEVICES[number], path), pytest.raises(VotebookError) as said:
        steps[FILES[name]]()
    assert SAYS[number] in str(said.value)
    assert AGAIN in str(said.value)
    assert (path.is_file() and path.read_bytes()) == was_there
    for stage in order[order.index(FILES[name]) :]:
        steps[stage]()
    assert ended(service, run, before) == DONE
    assert run.table("votes")["abstained"].isna().all()


@contextlib.contextmanager
def not_writable(folder):
    """A block in which nobody may write into a folder, root neither."""
    is_root = os.geteuid() == 0
    everything = [folder, *folder.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path in everything:
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.skipif(sys.platform == "win32", reason="rights of Unix")
def test_h02_a_folder_that_is_read_only_sends_nothing(service, make_run):
    """A step says what it cannot write, and nothing is sent; made writable, the run goes on."""
    run, before = make_run(), judge.look(service)
    with tempfile.TemporaryDirectory(dir="/tmp") as open_to_all:
        Path(open_to_all).chmod(0o755)
        moved = killing.dataclasses.replace(run, folder=Path(open_to_all) / run.name)
        shutil.copytree(run.folder, moved.folder)
        with not_writable(moved.folder):
            to = hurried.service_at(service)
            with pytest.raises(VotebookError, match=f"(?i){AGAIN}"):
                dispatch.advance(moved, to, hurried.MAX_USD)
            assert dispatch.status(moved).n_to_send == 6
        assert judge.since(before, service).batches == {}
        assert ended(service, moved, before) == DONE


@pytest.mark.parametrize("limit", [{"max_bytes": n} for n in (2_000, 9_000, 30_000)])
def test_h03_a_quota_is_said_and_recovered_from(limit, places):
    """No file may become larger: the ledger, a shard or a table cannot be written."""
    at = places[0]
    run, before = at.copy("canary"), judge.look(at.endpoint)
    ends = at.ask({**at.command(run), **limit})
    assert ends[0]["code"] == judge.STOPPED, ends[0]["said"]
    assert AGAIN in ends[0]["said"].lower()
    assert killing.judged_again(at, run, before, [*ends, *at.ask(at.command(run))]) == []


@pytest.mark.parametrize("n_files", [4, 5, 6, 8])
def test_h05_without_file_handles_nothing_is_lost(n_files, places):
    """At any number of handles the command ends in a sentence, and with enough it finishes."""
    at = places[0]
    run, before = at.copy("canary"), judge.look(at.endpoint)
    ends = at.ask({**at.command(run), "max_files": n_files})
    assert ends[0]["code"] in (judge.STOPPED, judge.WAITING, judge.DONE), ends[0]["said"]
    if ends[0]["code"] != judge.DONE:
        assert re.search(f"{AGAIN}|too many open files", ends[0]["said"].lower())
    assert killing.judged_again(at, run, before, [*ends, *at.ask(at.command(run))]) == []


@pytest.mark.parametrize(
    ("number", "seconds"), [("SIGKILL", 0.05), ("SIGKILL", 0.15), ("SIGTERM", 0.1), ("SIGHUP", 0.1)]
)
def test_h06_h07_a_process_that_is_ended_is_gone_on_with(number, seconds, places):
    """Killed, as for want of memory, or ended by a signal: the same command finishes."""
    at = places[0]
    run, before = at.copy("canary"), judge.look(at.endpoint)
    ended_by = getattr(signal, number)
    ends = at.ask({**at.command(run), "kill_after": seconds, "signal": ended_by})
    assert ends[0]["code"] in (-ended_by, judge.DONE)
    assert killing.judged_again(at, run, before, [*ends, *at.ask(at.command(run))]) == []


def command(run, service, *words, **environment):
    """A command about a run, as a person types it, in a session of its own; the service is local
    because it lies where the local one is looked for.
    """
    place = run.folder.parent / ".local_api"
    if not place.exists():
        place.symlink_to(service["state"])
    outputs = {"PATH": os.environ["PATH"], "VOTEBOOK_OUTPUTS": str(run.folder.parent)}
    return subprocess.Popen(
        [sys.executable, "-m", "lib", *words, run.name, "--service", "local"],
        cwd=ROOT,
        env=outputs | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_h07_a_group_that_is_interrupted_says_so_and_loses_nothing(service, make_run):
    """Ctrl-C ends the command and all its children with 130 and a sentence; then it goes on."""
    run, before = make_run(), judge.look(service)
    stuck = hurried.switched(service, {"stuck_in_progress": {}})
    with stuck, command(run, service, "watch") as process:
        for _ in hurried.waiting("the batch to be made"):
            if "submitted" in [shard["state"] for shard in hurried.shards_of(run)]:
                break
        os.killpg(process.pid, signal.SIGINT)
        said = process.stdout.read().decode()
    assert process.returncode == 130, said
    assert AGAIN in said
    assert "Traceback" not in said
    assert ended(service, run, before) == DONE


HOURS = {
    "H08": 12,
    "H09 a day back": -24,
    "H09 a day on": 24,
    "H09 summer time": 1,
    "H09 1970": None,
}


PLACES = ["stuck_finalizing", "create_answer_lost", "rate_limited"]
JUMPS = [
    *(("H08", fault) for fault in PLACES),
    *zip(list(HOURS)[1:], [*PLACES, PLACES[1]], strict=True),
]


@pytest.mark.parametrize(("name", "fault"), JUMPS)
def test_h08_h09_time_that_jumps_pays_nothing_twice(name, fault, service, make_run):
    """Asleep, or set to another time, under way, inside a grace, or in a pause: it goes on."""
    run, before = make_run(), judge.look(service)
    seconds = -time.time() if HOURS[name] is None else HOURS[name] * 3600
    options = {} if fault == "stuck_finalizing" else {"count": 1, "only": ["create"]}
    with hurried.time_flies(lambda n_naps: seconds if n_naps else 0.0):
        to = hurried.service_at(service)
        with hurried.switched(service, {fault: options}):
            dispatch.advance(run, to, hurried.MAX_USD)
            clock.sleep(0)
            assert dispatch.advance(run, to, hurried.MAX_USD).state in ("waiting", "done")
        progress = dispatch.follow(run, to, hurried.MAX_USD, hours=48)
    assert (progress.state, progress.n_valid) == ("done", 6)
    assert hurried.check(service, run, before, progress) == (6, 0)


def test_h10_of_two_at_once_one_works(places):
    """The second leaves at once with 75 and says who works; a reader is not held up."""
    found, worker, other, reader = test_at_once.pair(places[0], "table")
    assert found == []
    assert (worker["code"], other["code"], reader["code"]) == (judge.DONE, judge.BUSY, judge.DONE)


def test_h11_a_network_folder_pays_only_when_the_study_allows_it(tmp_path, service, monkeypatch):
    """In a synchronised folder nothing is sent, and it says why and what to do."""
    folder, before = tmp_path / "Dropbox", judge.look(service)
    monkeypatch.setenv("VOTEBOOK_OUTPUTS", str(folder))
    run = sending.make_run(tmp_path / "guests")
    with pytest.raises(VotebookError, match="Set VOTEBOOK_OUTPUTS to a folder on a disk"):
        dispatch.advance(run, hurried.service_at(service), hurried.MAX_USD)
    assert judge.since(before, service).files == {}
    run = sending.make_run(tmp_path / "guests", allow_network_folder=True)
    assert ended(service, run, before) == DONE
    sending.close_clients()


@pytest.mark.parametrize("is_copied", [True, False], ids=["copied", "put back"])
def test_h12_a_folder_that_is_doubled_in_mid_run_pays_once(is_copied, service, make_run):
    """A copy made while the canary is out goes on after its original is done: nothing is new."""
    run, before = make_run(canary=2), judge.look(service)
    with hurried.switched(service, {"stuck_finalizing": {}}):
        dispatch.advance(run, hurried.service_at(service), hurried.MAX_USD)
        copy = run.folder.parent.with_name("elsewhere") / run.name
        shutil.copytree(run.folder, copy)
    assert ended(service, run, before) == DONE
    if is_copied:
        run = killing.dataclasses.replace(run, folder=copy)
    else:
        shutil.rmtree(run.folder)
        shutil.move(copy, run.folder)
    assert ended(service, run, before) == DONE


def cut(path):
    """The first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scrawl(path):
    """Noise in every page of a file."""
    raw = bytearray(path.read_bytes())
    for at in range(100, len(raw), 512):
        raw[at : at + 64] = b"\xff" * 64
    path.write_bytes(raw)


DAMAGES = {
    "deleted": (Path.unlink, "puts its copy back"),
    "cut": (cut, "puts its last good copy back"),
    "corrupt": (scrawl, "puts its last good copy back"),
    "of another kind": (
        lambda path: path.write_text("no ledger " * 99),
        "puts its last good copy back",
    ),
    "emptied": (lambda path: path.write_bytes(b""), "puts its copy back"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_h13_a_ledger_that_is_gone_or_damaged_stops_the_run(damage, service, make_run):
    """Nothing is sent without a ledger that can be read; `check` puts it right, and it goes on."""
    run, before = make_run(canary=2), judge.look(service)
    with hurried.switched(service, {"stuck_finalizing": {}}):
        dispatch.advance(run, hurried.service_at(service), hurried.MAX_USD)
    middle = judge.look(service)
    DAMAGES[damage][0](run.path("ledger.sqlite"))
    with pytest.raises(VotebookError, match=DAMAGES[damage][1]):
        dispatch.advance(run, hurried.service_at(service), hurried.MAX_USD)
    made = judge.since(middle, service)
    assert (made.batches, made.book) == ({}, {})
    with hurried.time_flies():
        table = check.check(run, hurried.service_at(service))
    assert "repaired" in set(table["state"])
    assert ended(service, run, before) == DONE


def test_h15_a_ledger_of_a_later_version_is_not_touched(service, make_run):
    """Code that was downgraded in mid-run says so and sends nothing; upgraded again it goes on."""
    run, before = make_run(), judge.look(service)
    with hurried.switched(service, {"stuck_finalizing": {}}):
        dispatch.advance(run, hurried.service_at(service), hurried.MAX_USD)
    path = run.path("ledger.sqlite")
    for version in (versions.VERSION + 1, versions.VERSION):
        with contextlib.closing(sqlite3.connect(path)) as book:
            book.execute(f"PRAGMA user_version = {version}")
        raw = path.read_bytes()
        if version > versions.VERSION:
            with pytest.raises(VotebookError, match=f"has version {version}.*Update it"):
                dispatch.advance(run, hurried.service_at(service), hurried.MAX_USD)
            assert path.read_bytes() == raw
    assert ended(service, run, before) == DONE


# Python takes UTF-8 in the locale C, unless it is told not to.
LOCALES = {
    "C": ("gäste", {}),
    "C, no UTF-8": ("guests", {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
}


@pytest.mark.parametrize("name", LOCALES)
def test_h16_any_locale_will_do(name, service, make_run):
    """Locale C, no HOME, output that takes no UTF-8: texts, names and words come through."""
    before, (run_name, settings) = judge.look(service), LOCALES[name]
    texts = ["Die Brühe war heiß. «Très bon!» 🍜", "寒い部屋。"]
    run = make_run(texts, canary=2, name=run_name, prompt="War der Gast zufrieden? «Ja»?")
    settings = {"LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii", **settings}
    with command(run, service, "watch", **settings) as process:
        said = process.stdout.read()
    assert process.returncode == judge.DONE, said
    assert said.isascii()
    assert b"2 of 2 answered" in said
    assert collect.outcomes(run)["outcome"].tolist() == ["valid"] * 2
    seen = judge.since(before, service)
    assert sum(line["n_executions"] for line in seen.book.values()) == 2
    (batch,) = seen.batches.values()
    lines = judge.asked(service, f"/v1/files/{batch['input_file_id']}/content")
    sent = " ".join(line["body"]["messages"][1]["content"] for line in lines)
    assert all(text in sent for text in texts)
