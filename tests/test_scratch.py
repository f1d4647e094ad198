"""Scratch: databases that know nothing of each other, and leave nothing behind."""

import duckdb
import pandas as pd
import pytest

from lib import scratch

OTHERS = "SELECT database_name FROM duckdb_databases() WHERE database_name LIKE 'scratch%'"


def fill(base, n):
    """A table, a view and a registered table, under the same names for everyone."""
    base.register("given", pd.DataFrame({"n": [n]}))
    base.execute("CREATE TEMP TABLE kept AS SELECT n FROM given")
    base.execute("CREATE VIEW seen AS SELECT n FROM given")
    return base.execute("SELECT n FROM seen JOIN kept USING (n)").fetchall()


@pytest.mark.parametrize("given", [{}, {"n_threads": 1}])
def test_two_at_a_time_do_not_meet(given):
    """The same names stand for other things in each, also where one has ended before."""
    with scratch.database(**given) as one, scratch.database() as other:
        assert (fill(one, 1), fill(other, 2)) == ([(1,)], [(2,)])
    with scratch.database(**given) as later:
        assert fill(later, 3) == [(3,)]


def test_a_failure_leaves_nothing_behind():
    """What failed is gone, and the next one works; all of them are in bounded memory."""
    with pytest.raises(duckdb.ParserException), scratch.database() as base:
        fill(base, 1)
        base.execute("not a query")
    with scratch.database() as base:
        assert len(base.execute(OTHERS).fetchall()) == 1
        assert base.execute("SELECT current_setting('memory_limit')").fetchall() == [("1.8 GiB",)]


def test_a_folder_is_where_it_spills(tmp_path):
    """A folder of its own inside the given one, which is gone afterwards."""
    with scratch.database(tmp_path) as base:
        [(spill,)] = base.execute("SELECT current_setting('temp_directory')").fetchall()
        assert spill.startswith(str(tmp_path))
        assert fill(base, 1) == [(1,)]
    assert not list(tmp_path.iterdir())


def test_one_thread_stays_with_who_asked_for_it():
    """Only the database that asks for one thread has one."""
    n_threads = "SELECT current_setting('threads')"
    with scratch.database(n_threads=1) as one, scratch.database() as other:
        assert one.execute(n_threads).fetchall() == [(1,)]
        with duckdb.connect() as plain:
            assert other.execute(n_threads).fetchall() == plain.execute(n_threads).fetchall()
