"""A run that is damaged in every way that a disk or a hand can, read again and put right."""

import contextlib
import gzip
import json
import os
import random
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import pytest
import sending

from lib import audit, batches, check, collect, dispatch, ledger, local_api, runs, service
from lib.errors import VotebookError

STAGES = ("--validating=0", "--in-progress=0", "--finalizing=0", "--cancelling=0")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A service of its own, and a run that has ended there with two shards of two and four."""
    folder = tmp_path_factory.mktemp("place")
    found = local_api.start(folder / "service", idle_exit_seconds=600, options=STAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOTEBOOK_OUTPUTS", str(folder / "outputs"))
        run = sending.make_run(folder / "guests", canary=2)
        assert sending.finish(run, sending.service_at(found)).n_valid == 6
    sending.close_clients()
    return run, found


@pytest.fixture
def done(place, tmp_path):
    """A copy of that run, and the service."""
    run, found = place
    copy = runs.Run(run.name, tmp_path / run.name, run.study)
    shutil.copytree(run.folder, copy.folder)
    yield copy, sending.service_at(found)
    sending.close_clients()


def files_of(run, folder):
    """The files of a folder of a run, in order."""
    return sorted(path for path in run.path(folder).iterdir() if path.suffix in (".gz", ".parquet"))


def states(table):
    """What is not good: (part, state) for each row."""
    rest = table[table["state"].ne("good")]
    return list(zip(rest["part"], rest["state"], strict=True))


def n_batches_of(to):
    """How many batches the service has."""
    return sum(1 for _ in service.batches(to))


def cut(path):
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """Change a byte in the middle of a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)


def other_outcome(path):
    """An outcome file that says something else than its result file."""
    table = pd.read_parquet(path)
    runs.write_table(table.assign(outcome="refused"), path)


def unpacked(path):
    """A crash between packing a shard and removing what was packed."""
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))


DAMAGES = {
    "outcomes gone": ("outcomes", lambda path: path.unlink(), True),
    "outcomes cut": ("outcomes", cut, True),
    "outcomes other": ("outcomes", other_outcome, True),
    "answers gone": ("answers", lambda path: path.unlink(), False),
    "answers cut": ("answers", cut, False),
    "answers flipped": ("answers", flip, False),
    "shard gone": ("shards", lambda path: path.unlink(), False),
    "shard cut": ("shards", cut, False),
    "shard unpacked": ("shards", unpacked, True),
}


def test_a_run_that_is_whole_is_good(done):
    """Nothing is found, nothing is changed, and nothing is sent."""
    run, to = done
    before = {path: path.read_bytes() for path in run.folder.rglob("*.gz")}
    table = check.check(run, to)
    assert states(table) == []
    assert list(table.columns) == ["part", "what", "state", "detail"]
    assert set(table["part"]) >= {"study", "tables", "ledger", "service", "shards", "outcomes"}
    assert {path: path.read_bytes() for path in run.folder.rglob("*.gz")} == before
    assert states(check.check(run)) == []


@pytest.mark.parametrize("name", DAMAGES)
def test_what_can_be_derived_is_put_right(done, name):
    """With the service all of it; without, what follows from the files. What was paid stays."""
    run, to = done
    folder, damage, offline = DAMAGES[name]
    before, n_batches = collect.outcomes(run, content=True), n_batches_of(to)
    damage(files_of(run, folder)[-1])
    without = states(check.check(run))
    assert (folder, "repaired" if offline else "lost") in without
    table = check.check(run, to)
    assert offline or (folder, "repaired") in states(table)
    assert states(check.check(run, to)) == []
    pd.testing.assert_frame_equal(collect.outcomes(run, content=True), before)
    assert n_batches_of(to) == n_batches
    assert dispatch.status(run).n_valid == 6


def test_damaged_files_are_kept_beside_what_replaces_them(done):
    """Nothing is thrown away: the old bytes have another name."""
    run, to = done
    outcome, answer = files_of(run, "outcomes")[0], files_of(run, "answers")[0]
    other_outcome(outcome)
    cut(answer)
    check.check(run, to)
    assert outcome.with_name(f"{outcome.name}.before").is_file()
    assert answer.with_name(f"{answer.name}.damaged").is_file()
    assert len(files_of(run, "outcomes")) == 2


def test_what_only_the_record_can_say_is_lost_without_it(done):
    """Result files that are gone here and there: the outcomes stay, and nothing is asked again."""
    run, to = done
    files_of(run, "answers")[0].unlink()
    with sending.spoiled(
        {"base_url": str(to.client.base_url)},
        lambda _, path: (404, {"error": {"message": "gone"}}) if "content" in path else None,
    ) as url:
        there = sending.service_at({"base_url": url, "token": to.client.api_key})
        found = states(check.check(run, there))
    assert found == [("answers", "lost"), ("outcomes", "noted")]
    assert dispatch.status(run).n_valid == 6


def test_spend_that_differs_is_noted_and_not_changed(done):
    """The price that was settled stands; another sum by the answers is only said."""
    run, _ = done
    with ledger.open_ledger(run.path("ledger.sqlite")) as book, ledger.writing(book):
        book.execute("UPDATE shards SET settled_usd = 1.0 WHERE rowid = 1")
    table = check.check(run)
    assert states(table) == [("outcomes", "noted")]
    assert "$1.000000 settled" in table.loc[table["state"].eq("noted"), "detail"].iloc[0]


def test_leftovers_of_a_crash_are_removed(done):
    """Part files of processes that are gone; one of a process that lives stays."""
    run, _ = done
    (run.path("outcomes") / ".b.parquet.999999999.part").touch()
    (run.folder / ".votes.parquet.1.part").touch()
    assert states(check.check(run)) == [("files", "repaired")]
    assert [path.name for path in run.folder.rglob("*.part")] == [".votes.parquet.1.part"]


def test_tables_and_study_that_were_changed_are_noted(done):
    """A cut table, a text that is not the one that was asked about, and a study changed by hand."""
    run, _ = done
    cut(run.path("requests.parquet"))
    documents = pd.read_parquet(run.path("documents.parquet"))
    runs.write_table(documents.assign(text="other"), run.path("documents.parquet"))
    lock = run.path("study.lock.yml")
    lock.write_text(lock.read_text().replace("Whether the guest", "If the guest"))
    table = check.check(run)
    assert states(table) == [("study", "noted"), ("tables", "noted"), ("tables", "noted")]
    assert table["detail"].str.contains("Run 0").sum() == 3


def test_a_run_that_another_process_holds_is_read_only(done):
    """It is said who holds it, and nothing is repaired."""
    run, _ = done
    path = files_of(run, "outcomes")[0]
    cut(path)
    with dispatch.holding(run):
        found = states(check.check(run))
    assert found == [("run", "noted"), ("outcomes", "noted")]
    assert states(check.check(run)) == [("outcomes", "repaired")]


@contextlib.contextmanager
def read_only(folder):
    """A folder that cannot be written, nor by root, who may write everywhere."""
    is_root = os.name != "nt" and os.geteuid() == 0
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="folders have no such modes there")
def test_a_folder_that_cannot_be_written_is_read_and_not_paid_from(place):
    """Where it stands and what it holds can be read; advancing says why it cannot."""
    first, found = place
    with tempfile.TemporaryDirectory() as folder:
        run = runs.Run(first.name, Path(folder) / first.name, first.study)
        shutil.copytree(first.folder, run.folder)
        Path(folder).chmod(0o755)
        with read_only(run.folder):
            assert dispatch.status(run).n_valid == len(collect.outcomes(run)) == 6
            with pytest.raises(VotebookError, match=r"cannot be written.*make the disk writable"):
                dispatch.advance(run, sending.service_at(found), 0.0)
            assert states(check.check(run)) == [("run", "noted")]
    sending.close_clients()


def test_results_that_nobody_took_in_show_until_when_they_are_kept(make_run, endpoint):
    """A batch has ended and was not downloaded: its deadline is thirty days after its end."""
    run, to = make_run(), sending.service_at(endpoint)
    dispatch.advance(run, to, 0.0)
    (shard,) = [row for row in _shards(run) if row["state"] == "submitted"]
    sending.have_ended(endpoint)
    batch = sending.batches_of(endpoint)[shard["batch_id"]]
    ended = pd.Timestamp(batches.ended_at(batch))
    table = check.check(run, to)
    assert states(table) == [("batches", "noted")]
    until = f"{ended + pd.Timedelta(days=30):%Y-%m-%d %H:%M}"
    assert f"kept until {until} UTC" in table["detail"].iloc[-1]
    assert sending.finish(run, to).n_valid == 6


def _shards(run):
    """The shards of a run by its ledger."""
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        return ledger.shards(book)


def test_incidents_are_told_with_what_they_cost(done):
    """A double is counted at its worst case, in the ledger and here."""
    run, _ = done
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        ledger.lose(book, ledger.shards(book)[0], "double", batch_id="batch_x")
    table = check.check(run)
    assert states(table) == [("events", "noted")]
    assert "at most" in table["detail"].iloc[-1]


def test_shared_answers_that_are_damaged_are_taken_over_again(place, monkeypatch):
    """The damaged table is laid aside; the next step copies the answers anew and pays nothing."""
    first, found = place
    monkeypatch.setenv("VOTEBOOK_OUTPUTS", str(first.folder.parent))
    run = sending.make_run(first.folder.parent.parent / "guests", name="second", canary=2)
    to = sending.service_at(found)
    assert sending.finish(run, to).n_valid == 6
    (shared,) = files_of(run, "outcomes")
    cut(shared)
    assert states(check.check(run, to)) == [("outcomes", "repaired")]
    assert sending.finish(run, to).n_valid == 6
    assert not _shards(run)
    sending.close_clients()


def test_a_ledger_that_is_gone_comes_back_from_its_copy(done):
    """Advancing refuses and names the command; after it, the run is as it was."""
    run, to = done
    run.path("ledger.sqlite").unlink()
    with pytest.raises(VotebookError, match=r"no ledger .* check guests. puts its copy back"):
        dispatch.advance(run, to, 0.0)
    table = check.check(run, to)
    assert ("ledger", "repaired") in states(table)
    assert "put back from the copy of 20" in table["detail"].to_list()[3]
    assert states(check.check(run, to)) == []
    assert sending.finish(run, to).n_valid == 6


def test_a_ledger_and_its_copy_that_are_gone_are_lost(done):
    """It is said that another run takes over what is answered; nothing is sent."""
    run, to = done
    run.path("ledger.sqlite").unlink()
    run.path("ledger.copy.sqlite").unlink()
    table = check.check(run, to)
    assert ("ledger", "lost") in states(table)
    assert "Begin a new run" in table["detail"].iloc[-1]
    with pytest.raises(VotebookError, match=r"no ledger"):
        dispatch.advance(run, to, 0.0)


def test_a_ledger_of_a_later_version_is_left_alone(done):
    """Neither read nor repaired: one sentence says what to do."""
    run, to = done
    with ledger.open_ledger(run.path("ledger.sqlite")) as book:
        book.execute("PRAGMA user_version = 99")
    raw = run.path("ledger.sqlite").read_bytes()
    for work in (lambda: check.check(run, to), lambda: dispatch.advance(run, to, 0.0)):
        with pytest.raises(VotebookError, match="version 99"):
            work()
    assert run.path("ledger.sqlite").read_bytes() == raw


@pytest.mark.parametrize("seed", range(12))
def test_a_ledger_cut_anywhere_costs_nothing(done, seed):
    """Cut at any size, also with a journal beside it: one sentence, then check puts it back."""
    run, to = done
    path = run.path("ledger.sqlite")
    n_batches = n_batches_of(to)
    size = random.Random(seed).randrange(path.stat().st_size)
    path.write_bytes(path.read_bytes()[: size if seed else 0])
    with pytest.raises(VotebookError, match=r"check (RUN|guests)"):
        dispatch.advance(run, to, 0.0)
    path.with_name("ledger.sqlite-journal").write_bytes(b"a journal of another ledger" * 50)
    assert ("ledger", "repaired") in states(check.check(run, to))
    assert sending.finish(run, to).n_valid == 6
    assert n_batches_of(to) == n_batches


@pytest.mark.parametrize("seed", range(12))
def test_a_ledger_with_flipped_bytes_costs_nothing(done, seed):
    """Ten random bytes changed: a sentence, or work as ever; nothing is sent twice."""
    run, to = done
    path, chance = run.path("ledger.sqlite"), random.Random(seed)
    raw = bytearray(path.read_bytes())
    for _ in range(10):
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    path.write_bytes(raw)
    n_batches = n_batches_of(to)
    for work in (lambda: dispatch.advance(run, to, 0.0), lambda: check.check(run, to)):
        try:
            work()
        except VotebookError as error:
            assert json.dumps(str(error))
    assert n_batches_of(to) == n_batches


def test_a_ledger_put_back_adopts_what_was_sent_since(make_run, endpoint):
    """The copy is older than the last batch, and the ledger is lost: all lines are paid once."""
    before, run = sending.batches_of(endpoint), make_run(canary=2)
    to = sending.service_at(endpoint)
    dispatch.canary(run, to, 0.0)
    copy = run.path("ledger.copy.sqlite").read_bytes()
    assert sending.finish(run, to).n_valid == 6
    run.path("ledger.copy.sqlite").write_bytes(copy)
    run.path("ledger.sqlite").write_bytes(b"")
    table = check.check(run, to)
    assert {("ledger", "repaired"), ("service", "repaired")} <= set(states(table))
    assert sending.finish(run, to).n_valid == 6
    assert sending.paid(endpoint, before).total() == 6
    with ledger.open_ledger(run.path("ledger.sqlite"), read_only=True) as book:
        assert audit._is_at_home(book, run)
