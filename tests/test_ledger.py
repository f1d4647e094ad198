"""The ledger alone: transactions, compare-and-set, money, readers, damage."""

import sqlite3

import hypothesis
import hypothesis.strategies as st
import pytest

from lib import ledger
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


@pytest.fixture
def book(tmp_path):
    """A ledger that knows the fields of its shards."""
    with ledger.open_ledger(tmp_path / "ledger.sqlite") as opened:
        ledger.bind(opened, "fields x", "{}")
        yield opened


def planned(book, name="s1", custom_id="q1-a0", max_usd=10.0, **more):
    """Plan a shard of one line."""
    ledger.plan(book, {**SHARD, "shard": name, **more}, [(custom_id, "key1", 0)], max_usd)


def test_a_step_is_taken_once(book):
    """Who finds a shard in another state than expected changes nothing and says so."""
    planned(book)
    ledger.move(book, "s1", "planned", "uploading")
    with pytest.raises(AccountingError, match="s1 is not planned any more"):
        ledger.move(book, "s1", "planned", "uploading")
    assert ledger.events(book)["kind"].tolist() == ["planned", "uploading"]


def test_a_line_is_planned_once(book):
    """A custom_id that any shard holds is refused, with the whole shard."""
    planned(book)
    with pytest.raises(AccountingError, match="a line of shard s2 was sent before"):
        planned(book, "s2")
    assert [shard["shard"] for shard in ledger.shards(book)] == ["s1"]


def test_a_released_shard_frees_its_lines_and_its_money(book):
    """What never became a batch may be planned anew; in_flight and money forget it."""
    planned(book)
    assert (ledger.in_flight(book), ledger.money(book)) == ({"key1"}, (0.0, 1.0))
    ledger.release(book, "s1", "planned", "the study has changed")
    assert (ledger.in_flight(book), ledger.money(book)) == (set(), (0.0, 0.0))
    planned(book, "s2")
    assert ledger.in_flight(book) == {"key1"}


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
@hypothesis.settings(max_examples=15, deadline=None)
def test_no_plan_passes_the_budget(tmp_path_factory, reserves, max_usd):
    """Whatever is asked for in whatever order, reserved money stays inside max_usd."""
    folder = tmp_path_factory.mktemp("book")
    with ledger.open_ledger(folder / "ledger.sqlite") as book:
        ledger.bind(book, "fields x", "{}")
        for n, usd in enumerate(reserves):
            try:
                planned(book, f"s{n}", f"q{n}-a0", max_usd, reserved_usd=usd)
            except BudgetError as error:
                assert error.needed_usd > max_usd
            assert ledger.money(book)[1] <= max_usd


def test_only_news_is_observed(book):
    """The same status seen again is no event."""
    planned(book)
    ledger.move(book, "s1", "planned", "submitted")
    for _ in range(3):
        ledger.observe(book, "s1", status="in_progress", n_completed=1)
    assert ledger.events(book)["kind"].tolist().count("observed") == 1


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
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
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
