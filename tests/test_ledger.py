"""The ledger alone: transactions, compare-and-set, money, readers, damage."""

import contextlib
import hashlib
import sqlite3

import hypothesis
import hypothesis.strategies as st
import pytest

from lib import ledger, prompts, versions
from lib.errors import AccountingError, BudgetError, VotebookError

SHARD = {
    "shard": "s1",
    "model": "m",
    "purpose": "main",
    "file": "s1.jsonl",
    "sha256": "0" * 64,
    "size_bytes": 1,
    "n_requests": 1,
    "n_input_tokens": 1,
    "reserved_usd": 1.0,
    "fields": "fields x",
}
# A ledger as version 1 wrote it.
VERSION_1 = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE shards (
  shard TEXT PRIMARY KEY, model TEXT NOT NULL, purpose TEXT NOT NULL, state TEXT NOT NULL,
  file TEXT NOT NULL, sha256 TEXT NOT NULL, size_bytes INTEGER NOT NULL,
  n_requests INTEGER NOT NULL, n_input_tokens INTEGER NOT NULL, reserved_usd REAL NOT NULL,
  fields TEXT NOT NULL REFERENCES facts (name), lost_usd REAL NOT NULL DEFAULT 0, unseen_at TEXT,
  n_refusals INTEGER NOT NULL DEFAULT 0, not_before TEXT, changed_at TEXT NOT NULL,
  file_id TEXT UNIQUE, batch_id TEXT UNIQUE, status TEXT, n_completed INTEGER, n_failed INTEGER,
  expires_at TEXT, settled_usd REAL, submitted_at TEXT, ended_at TEXT, collected_at TEXT,
  error TEXT);
CREATE TABLE sends (
  custom_id TEXT PRIMARY KEY, key TEXT NOT NULL, attempt INTEGER NOT NULL,
  shard TEXT NOT NULL REFERENCES shards (shard));
CREATE INDEX sends_by_shard ON sends (shard);
CREATE TABLE limits (model TEXT PRIMARY KEY, limit_tokens INTEGER NOT NULL, learned_at TEXT);
CREATE TABLE events (
  id INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, shard TEXT, detail TEXT NOT NULL);
INSERT INTO facts VALUES ('run_id', 'r'), ('fields x', '{}');
INSERT INTO limits VALUES ('m', 900, 'then');
INSERT INTO events VALUES (1, '2026-11-22T10:00:00.000+00:00', 'planned', 's2', '{"n": 2}');
"""


@pytest.fixture
def book(tmp_path):
    """A ledger that knows the fields of its shards."""
    with ledger.open_ledger(tmp_path / "ledger.sqlite") as opened:
        ledger.bind(opened, "fields x", "{}")
        yield opened


def key_of(n):
    """A key, as good as any."""
    return hashlib.sha256(str(n).encode()).hexdigest()


def line(n, attempt=0):
    """A line of a shard."""
    return prompts.custom_id(key_of(n), attempt), key_of(n), attempt


def planned(book, name="s1", n=1, max_usd=10.0, **more):
    """Plan a shard of one line."""
    ledger.plan(book, {**SHARD, "shard": name, **more}, [line(n)], max_usd)


def test_a_step_is_taken_once(book):
    """Who finds a shard in another state than expected changes nothing and says so."""
    planned(book)
    ledger.move(book, "s1", "planned", "uploading")
    with pytest.raises(AccountingError, match="s1 is not planned any more"):
        ledger.move(book, "s1", "planned", "uploading")
    assert ledger.events(book)["kind"].tolist() == ["planned", "uploading"]


def test_a_line_is_planned_once(book):
    """An attempt at a request that any shard holds is refused, with the whole shard."""
    planned(book)
    with pytest.raises(AccountingError, match="a line of shard s2 was sent before"):
        ledger.plan(book, {**SHARD, "shard": "s2"}, [line(2), line(1)], 10.0)
    assert [shard["shard"] for shard in ledger.shards(book)] == ["s1"]
    assert ledger.in_flight(book) == {key_of(1)}
    ledger.plan(book, {**SHARD, "shard": "s2"}, [line(2), line(1, attempt=1)], 10.0)
    assert ledger.in_flight(book) == {key_of(1), key_of(2)}


def test_the_lines_of_a_shard_keep_the_order_of_its_file(book):
    """They are stored by key and come back in the order in which they were planned."""
    lines = [line(n, attempt=n % 3) for n in (5, 1, 4, 2, 3)]
    planned(book, "s1", n=9)
    ledger.plan(book, {**SHARD, "shard": "s2"}, lines, 10.0)
    assert [tuple(row) for row in ledger.sends(book, "s2").to_numpy()] == lines
    assert ledger.sends(book, "s3").empty


def test_a_line_that_is_not_named_after_its_request_is_refused(book):
    """Its answer could not be told by the name that the ledger gives it."""
    with pytest.raises(AccountingError, match="line q1-a0 is not named after request"):
        ledger.plan(book, SHARD, [("q1-a0", key_of(1), 0)], 10.0)
    assert ledger.shards(book) == []


def test_a_released_shard_frees_its_lines_and_its_money(book):
    """What never became a batch may be planned anew; in_flight and money forget it."""
    planned(book)
    assert (ledger.in_flight(book), ledger.money(book)) == ({key_of(1)}, (0.0, 1.0))
    ledger.release(book, "s1", "planned", "the study has changed")
    assert (ledger.in_flight(book), ledger.money(book)) == (set(), (0.0, 0.0))
    planned(book, "s2")
    assert ledger.in_flight(book) == {key_of(1)}


def test_money_is_spent_reserved_and_lost(book):
    """$1 reserved; settled at $0.25 it is free again; a lost batch counts its $1 once."""
    planned(book)
    for old, new in (("planned", "submitted"), ("submitted", "collected")):
        ledger.move(book, "s1", old, new, settled_usd=0.25 if new == "collected" else None)
    assert ledger.money(book) == (0.25, 0.0)
    for _ in range(2):
        ledger.lose(book, ledger.shards(book)[0], "double", "batch_1")
    assert ledger.money(book) == (1.25, 0.0)


@hypothesis.given(
    reserves=st.lists(st.floats(0.01, 5), max_size=8), max_usd=st.sampled_from([0.0, 1.0, 7.5])
)
@hypothesis.settings(max_examples=15)
def test_no_plan_passes_the_budget(tmp_path_factory, reserves, max_usd):
    """Whatever is asked for in whatever order, reserved money stays inside max_usd."""
    folder = tmp_path_factory.mktemp("book")
    with ledger.open_ledger(folder / "ledger.sqlite") as book:
        ledger.bind(book, "fields x", "{}")
        for n, usd in enumerate(reserves):
            try:
                planned(book, f"s{n}", n, max_usd, reserved_usd=usd)
            except BudgetError as error:
                assert error.needed_usd > max_usd
            assert ledger.money(book)[1] <= max_usd


def test_only_news_is_observed(book):
    """The same status seen again is no event, nor are counts that grow at every look."""
    planned(book)
    ledger.move(book, "s1", "planned", "submitted")
    for _ in range(3):
        ledger.observe(book, "s1", status="in_progress", n_completed=1)
    ledger.observe(book, "s1", status="in_progress", n_completed=2)
    assert ledger.events(book)["kind"].tolist().count("observed") == 1
    assert ledger.shards(book)[0]["n_completed"] == 2


def test_a_fact_is_bound_once_or_again(book):
    """The first value stays unless it is to be replaced."""
    assert ledger.bind(book, "service", "local") == "local"
    assert ledger.bind(book, "service", "openai") == "local"
    assert ledger.bind(book, "service", "openai", again=True) == "openai"
    assert ledger.fact(book, "nothing") is None


def test_a_writing_that_fails_changes_nothing(book):
    """An error inside a transaction rolls it back and is raised."""
    with pytest.raises(ZeroDivisionError), ledger.writing(book):
        book.execute("INSERT INTO facts VALUES ('a', 'b')")
        _ = 1 / 0
    assert ledger.fact(book, "a") is None


def test_a_reader_sees_what_is_committed_and_writes_nothing(book, tmp_path):
    """While somebody works on the ledger, another may read it; writing through it is refused."""
    planned(book)
    with ledger.open_ledger(tmp_path / "ledger.sqlite", read_only=True) as reader:
        assert len(ledger.shards(reader)) == 1
        with pytest.raises(VotebookError, match="readonly"):
            ledger.note(reader, "x", None)


@pytest.mark.parametrize("content", [None, b""])
def test_a_reader_of_no_ledger_finds_an_empty_one(tmp_path, content):
    """A missing or still empty file reads as a ledger without shards, and stays as it is."""
    path = tmp_path / "ledger.sqlite"
    if content is not None:
        path.write_bytes(content)
    with ledger.open_ledger(path, read_only=True) as reader:
        assert ledger.shards(reader) == []
        assert ledger.events(reader).empty
    assert (path.read_bytes() if path.exists() else None) == content


def test_a_reader_after_a_crash_in_a_commit_sees_the_state_before(book, tmp_path):
    """A journal that a killed process left is rolled back, also for one who only reads.

    The copy is taken while a large transaction has spilled into the file: its journal is hot.
    """
    planned(book)
    path = tmp_path / "ledger.sqlite"
    book.execute("PRAGMA cache_size = 5")
    book.execute("BEGIN IMMEDIATE")
    book.executemany("INSERT INTO facts VALUES (?, ?)", ((f"n{n}", "x" * 900) for n in range(500)))
    for name in ("ledger.sqlite", "ledger.sqlite-journal"):
        (tmp_path / f"copy-{name}").write_bytes((tmp_path / name).read_bytes())
    book.execute("ROLLBACK")
    copy = tmp_path / "copy-ledger.sqlite"
    assert copy.stat().st_size > path.stat().st_size
    with ledger.open_ledger(copy, read_only=True) as reader:
        assert len(ledger.shards(reader)) == 1
        assert ledger.fact(reader, "n0") is None


def test_a_folder_that_is_not_there_is_not_called_damage(tmp_path):
    """What SQLite cannot do now is told apart from a file that is broken."""
    with (
        pytest.raises(VotebookError, match="cannot be used now"),
        ledger.open_ledger(tmp_path / "no" / "ledger.sqlite"),
    ):
        pass


@pytest.fixture
def old_path(tmp_path):
    """A ledger of version 1: s2 of two lines is a batch, s1 of one line was collected."""
    path = tmp_path / "old.sqlite"
    row = {**SHARD, "shard": "s2", "state": "submitted", "batch_id": "batch_2", "changed_at": "t"}
    done = {**row, "shard": "s1", "state": "collected", "batch_id": "batch_1", "settled_usd": 0.5}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
        for one in (row, done):
            names, marks = ", ".join(one), ", ".join("?" * len(one))
            connection.execute(
                f"INSERT INTO shards ({names}) VALUES ({marks})",
                tuple(one.values()),
            )
        lines = [(*line(8), "s2"), (*line(1), "s1"), (*line(7, attempt=1), "s2")]
        connection.executemany("INSERT INTO sends VALUES (?, ?, ?, ?)", lines)
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    return path


def known(book):
    """What a ledger knows, as the rest of the library asks for it."""
    return (
        [(s["shard"], s["state"], s["batch_id"]) for s in ledger.shards(book)],
        [tuple(row) for row in ledger.sends(book, "s2").to_numpy()],
        ledger.in_flight(book),
        ledger.money(book),
        book.execute("SELECT limit_tokens FROM limits WHERE model = 'm'").fetchone()[0],
        ledger.events(book)["detail"].tolist(),
        ledger.fact(book, "run_id"),
    )


KNOWN = (
    [("s2", "submitted", "batch_2"), ("s1", "collected", "batch_1")],
    [line(8), line(7, attempt=1)],
    {key_of(8), key_of(7)},
    (0.5, 1.0),
    900,
    [{"n": 2}],
    "r",
)


def test_a_ledger_of_version_1_is_brought_to_the_form_of_today(old_path):
    """All that it knows is kept, its promises hold, and a copy of it lies beside it."""
    before = old_path.read_bytes()
    with ledger.open_ledger(old_path) as book:
        assert known(book) == KNOWN
        with pytest.raises(AccountingError, match="was sent before"):
            planned(book, "s3", n=1)
        planned(book, "s3", n=2)
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            book.execute("INSERT INTO sends VALUES (x'00', 0, 99, 0)")
        assert book.execute("PRAGMA user_version").fetchone()[0] == versions.VERSION == 2
    copy = old_path.with_name("old.version1.sqlite")
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
        assert connection.execute("SELECT count(*) FROM sends").fetchone()[0] == 3
    assert len(copy.read_bytes()) == len(before)


def test_a_reader_of_a_ledger_of_version_1_leaves_it_as_it_is(old_path):
    """Who only looks sees the same, and changes nothing on disk."""
    before = old_path.read_bytes()
    with ledger.open_ledger(old_path, read_only=True) as book:
        assert known(book) == KNOWN
        with pytest.raises(VotebookError, match="readonly"):
            ledger.note(book, "x", None)
    assert old_path.read_bytes() == before
    assert [path.name for path in old_path.parent.iterdir()] == [old_path.name]


def test_a_step_to_a_new_version_is_taken_whole_or_not_at_all(old_path):
    """A ledger that cannot be brought to today's form stays as it is, and is called damaged."""
    with contextlib.closing(sqlite3.connect(old_path)) as connection:
        connection.execute("UPDATE sends SET key = 'no key' WHERE attempt = 1")
        connection.commit()
    before = old_path.read_bytes()
    with (
        pytest.raises(VotebookError, match=r"old.sqlite (is damaged|cannot be used)"),
        ledger.open_ledger(old_path),
    ):
        pass
    assert old_path.read_bytes() == before


def test_a_line_takes_little_room(tmp_path):
    """20 shards of 1,000 lines: less than 80 bytes a line."""
    path = tmp_path / "ledger.sqlite"
    with ledger.open_ledger(path) as book:
        ledger.bind(book, "fields x", "{}")
        for n in range(20):
            lines = [line(n * 1_000 + place) for place in range(1_000)]
            ledger.plan(book, {**SHARD, "shard": f"s{n}", "reserved_usd": 0.0}, lines, 10.0)
        assert len(ledger.in_flight(book)) == 20_000
    assert path.stat().st_size < 80 * 20_000
